"""Convolution blocks over space-time grids that leave padding without influence.

Shapes: B windows, T steps, h x w cells, D channels; channels last, so that norms and matrix products need no copies.
`valid_BThw1` is None where every position is valid; elsewhere each block multiplies its input to a convolution by it,
so that a padded step or a letterbox cell is exactly what the border of the grid is: zeros.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def masked(x: Tensor, valid: Tensor | None) -> Tensor:
    return x if valid is None else x * valid.to(x.dtype)


class DropPath(nn.Module):
    """Skips a residual branch for a whole sample with probability `rate` (arXiv 1603.09382)."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) >= self.rate
        return x * (keep / (1 - self.rate)).to(x.dtype)


class SpatialConv(nn.Conv2d):
    """A 3x3 convolution of every step's grid; `stride` (down, across) is chosen per call."""

    def __init__(self, in_width: int, out_width: int):
        super().__init__(in_width, out_width, 3, padding=1)

    def forward(self, x_BThwD: Tensor, stride: tuple[int, int] = (1, 1)) -> Tensor:
        x = x_BThwD.flatten(0, 1).permute(0, 3, 1, 2)
        weight = self.weight.contiguous(memory_format=torch.channels_last)
        y = F.conv2d(x, weight, self.bias, stride=stride, padding=1)
        return y.permute(0, 2, 3, 1).unflatten(0, x_BThwD.shape[:2])


class TemporalConv(nn.Linear):
    """A convolution over 3 steps that lie `dilation` apart, as one matrix product; zeros beyond the ends."""

    def __init__(self, in_width: int, out_width: int, dilation: int = 1):
        super().__init__(3 * in_width, out_width)
        self.dilation = dilation

    def forward(self, x_BThwD: Tensor, stride: int = 1) -> Tensor:
        d, T = self.dilation, x_BThwD.shape[1]
        padded = F.pad(x_BThwD, (0, 0, 0, 0, 0, 0, d, d))
        taps = [padded[:, i * d : i * d + T : stride] for i in range(3)]
        return super().forward(torch.cat(taps, dim=-1))


class GridBlock(nn.Module):
    """Residual block: a spatial 3x3 and then a temporal convolution of 3 steps, `dilation` steps apart."""

    def __init__(self, width: int, dilation: int = 1, drop_path: float = 0.0):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.spatial = SpatialConv(width, width)
        self.temporal = TemporalConv(width, width, dilation)
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BThwD: Tensor, valid_BThw1: Tensor | None) -> Tensor:
        y = masked(F.gelu(self.spatial(masked(self.norm(x_BThwD), valid_BThw1))), valid_BThw1)
        return x_BThwD + self.drop_path(self.temporal(y))


class TimeHalving(nn.Module):
    """Halves the step rate: output t is centred on input step 2t, whatever the length of the padding."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = TemporalConv(width, width)

    def forward(self, x_BThwD: Tensor, valid_BThw1: Tensor | None) -> Tensor:
        return self.conv(masked(self.norm(x_BThwD), valid_BThw1), stride=2) + x_BThwD[:, ::2]


class Tower(nn.Module):
    """The layers between a pyramid level and its outputs; `look_around` adds a 3x3 convolution of the grid."""

    def __init__(self, width: int, out_width: int, bias: float = 0.0, look_around: bool = False):
        super().__init__()
        self.around = SpatialConv(width, width) if look_around else None
        self.conv = TemporalConv(width, width)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, out_width)
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.constant_(self.out.bias, bias)

    def forward(self, x_BThwD: Tensor, valid_BThw1: Tensor | None) -> Tensor:
        """(B, T, h, w, D), zero where not valid -> (B, T, h, w, out_width), float32 also under mixed precision."""
        if self.around is not None:
            x_BThwD = masked(F.gelu(self.around(x_BThwD)), valid_BThw1)
        return self.out(F.gelu(self.norm(self.conv(x_BThwD)))).float()
