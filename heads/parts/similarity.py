"""Self-similarity in space and time: what changes and what moves, whatever it looks like.

Each cell is compared with the cells around it at earlier and later steps (STSS, arXiv 2102.07092). A product that
nobody has seen in training still looks like itself two steps later and one cell further, and a place still looks
like itself before and after a hand has passed: this is what a few hundred events can teach, appearance is not.

Shapes: B windows, T steps, h x w cells, n = h * w, E channels that are compared.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# (steps apart, cells around): near steps show motion, far ones what was there before and after.
NEIGHBOURHOODS = ((1, 2), (2, 2), (4, 2), (8, 1), (16, 1), (32, 1))
NUM_SIMILARITIES = sum(2 * (2 * reach + 1) ** 2 for _, reach in NEIGHBOURHOODS)


class SelfSimilarity(nn.Module):
    """(B, T, h, w, E) -> (B, T, h, w, width); vectors that are zero (padding) are similar to nothing."""

    def __init__(self, width: int):
        super().__init__()
        self.merge = nn.Linear(NUM_SIMILARITIES, width)

    def forward(self, z_BThwE: Tensor) -> Tensor:
        B, T, h, w, E = z_BThwE.shape
        z = F.normalize(z_BThwE.float(), dim=-1, eps=1e-4).to(z_BThwE.dtype).flatten(2, 3)
        columns = {reach: _neighbour_columns(h, w, reach, z.device) for _, reach in NEIGHBOURHOODS}
        parts = []
        for steps, reach in NEIGHBOURHOODS:
            columns_nk, inside_nk = columns[reach]
            if steps >= T:
                parts.append(z.new_zeros(B, T, h * w, 2 * columns_nk.shape[1]))
                continue
            similarity_Btnn = z[:, :-steps] @ z[:, steps:].transpose(-1, -2)
            for matrix, pad in ((similarity_Btnn, (0, steps)), (similarity_Btnn.transpose(-1, -2), (steps, 0))):
                # The transposed matrix looks back: its rows are the later step's cells.
                picked = matrix.flatten(-2)[..., columns_nk.flatten()].unflatten(-1, columns_nk.shape) * inside_nk
                parts.append(F.pad(picked, (0, 0, 0, 0, *pad)))
        return self.merge(torch.cat(parts, dim=-1)).unflatten(2, (h, w))


def _neighbour_columns(h: int, w: int, reach: int, device) -> tuple[Tensor, Tensor]:
    """For each cell, where its neighbours stand in a flattened (n, n) matrix, and which of them exist; (n, k)."""
    y, x = torch.meshgrid(torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij")
    offset = torch.arange(-reach, reach + 1, device=device)
    dy, dx = (d.flatten() for d in torch.meshgrid(offset, offset, indexing="ij"))
    to_y, to_x = y.flatten()[:, None] + dy, x.flatten()[:, None] + dx
    inside = (to_y >= 0) & (to_y < h) & (to_x >= 0) & (to_x < w)
    cell = torch.arange(h * w, device=device)[:, None]
    return cell * (h * w) + to_y.clamp(0, h - 1) * w + to_x.clamp(0, w - 1), inside
