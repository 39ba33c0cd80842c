"""The rotary position tables of V-JEPA 2, for any grid, and a bounded cache of them.

Each head's channels are three equal parts, for the step, the row and the column of a token, and a rest that stays as it is.
In a part of d channels, channel k has the angle `position * 10000 ** (-(k mod d/2) / (d/2))`, and the pair (2m, 2m + 1) becomes

    out[2m]     = x[2m]     * cos(angle[2m])     - x[2m + 1] * sin(angle[2m])
    out[2m + 1] = x[2m + 1] * cos(angle[2m + 1]) + x[2m]     * sin(angle[2m + 1])

The two channels of a pair have different angles (the frequencies are tiled, the pairs interleaved), so this is no rotation, and
attention depends on the absolute position inside the clip. The weights were trained with it (facebookresearch/vjepa2, pull
request 15), so it stays; no library's rotary kernel computes it. Here a head's channels are kept in the order (first of each pair,
second of each pair, rest): a common order of the channels of queries and keys changes no product of the two.

Positions along time are step numbers. Along rows and columns of a grid other than the trained one they are either
`extrapolate`: row and column numbers, as facebookresearch/vjepa2 counts them; or `interpolate`: stretched or shrunk so that first and last
row lie where they lay in training, as V-JEPA 2.1 does it (a single row lies in the middle).

Shape legend: N tokens (T steps x H x W cells, in this order), D channels of a head, P pairs.
"""

import threading
from collections import OrderedDict

import torch

from features.schema import Positions

THETA = 10000.0
# At 64 frames of 256 px and 64 channels per head one table has 4 MB.
CACHED_TABLES = 16


def axis_dim(head_dim: int) -> int:
    """Channels of a head that belong to each of the three axes: even, at most a third."""
    return 2 * (head_dim // 3 // 2)


def channel_order(head_dim: int) -> torch.Tensor:
    """(D,) where each channel of a head comes from: the first of each pair, the second of each pair, the rest."""
    rotated = 3 * axis_dim(head_dim)
    return torch.cat([torch.arange(rotated).view(-1, 2).T.flatten(), torch.arange(rotated, head_dim)])


def axis_positions(num_cells: int, trained_cells: int, positions: Positions) -> torch.Tensor:
    """float64 (num_cells,) positions along the rows or the columns of a grid."""
    if positions == "extrapolate" or num_cells == trained_cells:
        return torch.arange(num_cells, dtype=torch.float64)
    if num_cells == 1:
        return torch.full((1,), (trained_cells - 1) / 2, dtype=torch.float64)
    return torch.arange(num_cells, dtype=torch.float64) * (trained_cells - 1) / (num_cells - 1)


def rope_table(step_T: torch.Tensor, row_H: torch.Tensor, column_W: torch.Tensor, head_dim: int) -> torch.Tensor:
    """float32 (4, N, P): cos and sin of each pair's first channel, then of its second; computed in float64."""
    dim = axis_dim(head_dim)
    half = dim // 2
    frequency = THETA ** (-(torch.arange(dim, dtype=torch.float64) % max(half, 1)) / max(half, 1))
    shape = (len(step_T), len(row_H), len(column_W), dim)
    angle_ND = torch.cat([
        (step_T[:, None, None, None] * frequency).expand(shape),
        (row_H[None, :, None, None] * frequency).expand(shape),
        (column_W[None, None, :, None] * frequency).expand(shape),
    ], dim=-1).flatten(0, 2)
    first_NP, second_NP = angle_ND[:, 0::2], angle_ND[:, 1::2]
    table_4NP = torch.stack([first_NP.cos(), first_NP.sin(), second_NP.cos(), second_NP.sin()])
    return table_4NP.to(torch.float32)


def rotate(x_BhND: torch.Tensor, table_4NP: torch.Tensor) -> torch.Tensor:
    """Queries or keys (B, heads, N, D), channels in `channel_order`, with their positions; computed in float32, rounded once.

    The result is contiguous, whatever the layout of `x_BhND`.
    """
    first_cos, first_sin, second_cos, second_sin = table_4NP
    num_pairs = table_4NP.shape[-1]
    first, second = x_BhND[..., :num_pairs].float(), x_BhND[..., num_pairs : 2 * num_pairs].float()
    return torch.cat([
        torch.addcmul(first * first_cos, second, first_sin, value=-1).to(x_BhND.dtype),
        torch.addcmul(second * second_cos, first, second_sin).to(x_BhND.dtype),
        x_BhND[..., 2 * num_pairs :],
    ], dim=-1)


class RopeTables:
    """The tables of one model on one device; those of the grids that were used last are kept. Safe in several threads."""

    def __init__(self, head_dim: int, trained_cells: int, positions: Positions, device: torch.device):
        self._head_dim, self._trained_cells, self._positions, self._device = head_dim, trained_cells, positions, device
        self._tables: OrderedDict[tuple[int, int, int], torch.Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def table(self, num_steps: int, rows: int, columns: int) -> torch.Tensor:
        """(4, N, P) for a clip of this many steps and cells."""
        grid = (num_steps, rows, columns)
        with self._lock:
            if grid not in self._tables:
                self._tables[grid] = rope_table(
                    torch.arange(num_steps, dtype=torch.float64), axis_positions(rows, self._trained_cells, self._positions),
                    axis_positions(columns, self._trained_cells, self._positions), self._head_dim,
                ).to(self._device)
            self._tables.move_to_end(grid)
            while len(self._tables) > CACHED_TABLES:
                self._tables.popitem(last=False)
            return self._tables[grid]
