"""From a grid of tokens to features at every place and time, at several step rates.

The grid is never pooled blindly: it is projected, then folded by a strided convolution to about `cells` cells
a side, and every pyramid level keeps those cells. What is chosen from them is up to the points of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.parts.blocks import GridBlock, SpatialConv, TimeHalving, masked
from heads.parts.contract import TokenStream
from heads.parts.similarity import SelfSimilarity


@dataclass
class GridFeatures:
    """Features of one stream. Level 0 has the store's step rate, each further level half of the one before.

    `levels[l]` is (B, T_l, h, w, D) and zero where `valids[l]`, bool (B, T_l, h, w), is False; `masks[l]` is the same
    as (B, T_l, h, w, 1), or None where all is valid. Position t of level l is centred on step t * 2**l. `cell_box_norm_Bhw4` lies in the displayed frame; `step_start_BT` and `step_end_BT`
    are frames from the window's start and `step_valid_BT` says which steps are not padding.
    """

    levels: list[Tensor]
    valids: list[Tensor]
    masks: list[Tensor | None]
    cell_box_norm_Bhw4: Tensor
    step_start_BT: Tensor
    step_end_BT: Tensor
    step_valid_BT: Tensor
    window_frames: float

    @property
    def step_centre_BT(self) -> Tensor:
        return (self.step_start_BT + self.step_end_BT) / 2

    def level_centres_BT(self, level: int) -> Tensor:
        """Where the positions of a level lie, in frames from the window's start."""
        return self.step_centre_BT[:, :: 2**level]


class GridTrunk(nn.Module):
    """Tokens of one stream -> `GridFeatures`."""

    def __init__(self, channels: int, stem_width: int, width: int, cells: int, num_blocks: int, num_levels: int,
                 similarity_width: int, dropout: float, drop_path: float):
        super().__init__()
        self.cells = cells
        self.dropout = dropout
        self.project = nn.Linear(channels, stem_width)
        self.norm = nn.LayerNorm(stem_width)
        self.fold = SpatialConv(stem_width, width)
        self.place = nn.Linear(8, width)
        self.compared = SpatialConv(stem_width, similarity_width)
        self.similarity = SelfSimilarity(width)
        self.blocks = nn.ModuleList(
            GridBlock(width, dilation=2 ** (i % 3), drop_path=drop_path) for i in range(num_blocks)
        )
        self.halvings = nn.ModuleList(TimeHalving(width) for _ in range(num_levels - 1))
        self.level_blocks = nn.ModuleList(GridBlock(width, drop_path=drop_path) for _ in range(num_levels - 1))
        self.norm_levels = nn.ModuleList(nn.LayerNorm(width) for _ in range(num_levels))

    def forward(self, stream: TokenStream, window_frames: float) -> GridFeatures:
        x = F.gelu(self.norm(self.project(stream.tokens_BTHWC)))
        if self.training and self.dropout:
            # Whole channels of a window at once: a cell's neighbours would give a single dropped value away.
            keep = torch.rand(x.shape[0], 1, 1, 1, x.shape[-1], device=x.device) >= self.dropout
            x = x * (keep / (1 - self.dropout)).to(x.dtype)
        every_valid = bool(stream.valid_BTHW.all())
        x = masked(x, None if every_valid else stream.valid_BTHW[..., None])

        # A kernel of 3 cells covers every cell up to a stride of 3.
        fold_h, fold_w = (min(3, max(1, round(size / self.cells))) for size in x.shape[2:4])
        compared = self.compared(x, stride=(fold_h, fold_w))
        x = self.fold(x, stride=(fold_h, fold_w))
        cell_box = _folded_cells(stream.cell_box_norm_BHW4, fold_h, fold_w)
        x = x + self._place_features(cell_box).to(x.dtype)
        valids = [stream.valid_BTHW[:, :, ::fold_h, ::fold_w]]
        for _ in self.halvings:
            valids.append(valids[-1][:, ::2])
        masks = [None if every_valid else valid[..., None] for valid in valids]
        x = x + self.similarity(masked(compared, masks[0]))

        for block in self.blocks:
            x = block(x, masks[0])
        levels = [x]
        for halving, block, before, after in zip(self.halvings, self.level_blocks, masks, masks[1:]):
            levels.append(block(halving(levels[-1], before), after))
        levels = [masked(norm(level), mask) for norm, level, mask in zip(self.norm_levels, levels, masks)]
        step_valid_BT = stream.valid_BTHW.flatten(2).any(-1)
        return GridFeatures(levels, valids, masks, cell_box, stream.step_start_BT, stream.step_end_BT, step_valid_BT,
                            window_frames)

    def _place_features(self, cell_box_Bhw4: Tensor) -> Tensor:
        centre = (cell_box_Bhw4[..., :2] + cell_box_Bhw4[..., 2:]) / 2 * torch.pi
        waves = torch.cat([f(k * centre) for k in (1, 2) for f in (torch.sin, torch.cos)], dim=-1)
        return self.place(waves)[:, None]


def _folded_cells(cell_box_BHW4: Tensor, fold_h: int, fold_w: int) -> Tensor:
    """Folded cell i is centred on cell i * fold and stands for its neighbours too: `fold` cells wide."""
    box = cell_box_BHW4[:, ::fold_h, ::fold_w]
    centre = (box[..., :2] + box[..., 2:]) / 2
    half = (box[..., 2:] - box[..., :2]) / 2 * torch.tensor([fold_w, fold_h], device=box.device)
    return torch.cat([centre - half, centre + half], dim=-1)
