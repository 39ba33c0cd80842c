"""The pyramid: each step's tokens averaged over a 1x1, 2x2 and 4x4 grid, letterbox bars left out.

A pool cell averages the token cells of its region (adaptive pooling: rows floor(i*H/n) to ceil((i+1)*H/n)) that show
the video. A pool cell that lies wholly in a bar holds the plain mean of its region: finite, and as invalid as the cells
below it (`pool_valid`).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from features.quantise import steps_at_once
from features.zarr_layout import POOL_SIZES


def _region(index: int, size: int, num_cells: int) -> slice:
    return slice(index * num_cells // size, -(-(index + 1) * num_cells // size))


def pool_valid(valid_HW: np.ndarray, size: int) -> np.ndarray:
    """(size, size) bool: the pool cells that hold at least one cell of the video."""
    height, width = valid_HW.shape
    return np.array([
        [bool(valid_HW[_region(i, size, height), _region(j, size, width)].any()) for j in range(size)] for i in range(size)
    ])


def pool_weights(valid_HW: np.ndarray, size: int) -> np.ndarray:
    """(size*size, H*W) float64 weights whose rows sum to 1: pooled = weights @ tokens."""
    height, width = valid_HW.shape
    weights = np.zeros((size, size, height, width))
    for i in range(size):
        for j in range(size):
            region = (i, j, _region(i, size, height), _region(j, size, width))
            inside = valid_HW[region[2:]]
            weights[region] = inside if inside.any() else 1
    weights = weights.reshape(size * size, height * width)
    return weights / weights.sum(1, keepdims=True)


class Pyramid:
    """Pools tokens of one grid to the given levels. `valid_HW` is False on the cells of letterbox bars."""

    def __init__(self, valid_HW: np.ndarray, levels: Sequence[str]):
        self._sizes = {level: POOL_SIZES[level] for level in levels if level in POOL_SIZES}
        weights = [pool_weights(np.asarray(valid_HW, bool), size) for size in self._sizes.values()]
        # In float64 the order of a sum, which differs between machines and batch sizes, is lost in the rounding to
        # float16: the same tokens give the same bytes. One product for all levels reads the tokens once.
        self._weights_PN = torch.from_numpy(np.concatenate(weights)) if weights else None

    def pool(self, tokens_THWC: Tensor) -> dict[str, Tensor]:
        """Level name -> (T, n, n, C) float32 means."""
        if self._weights_PN is None:
            return {}
        num_steps, _, _, channels = tokens_THWC.shape
        self._weights_PN = self._weights_PN.to(tokens_THWC.device)
        tokens_TNC = tokens_THWC.reshape(num_steps, -1, channels)
        block = min(steps_at_once(tokens_TNC.device), num_steps)
        exact_nNC = torch.empty(block, *tokens_TNC.shape[1:], dtype=torch.float64, device=tokens_TNC.device)
        pooled_TPC = torch.cat([
            self._weights_PN @ exact_nNC[: len(tokens_nNC)].copy_(tokens_nNC) for tokens_nNC in tokens_TNC.split(block)
        ]).float()
        parts = pooled_TPC.split([size * size for size in self._sizes.values()], dim=1)
        return {
            level: part.reshape(num_steps, size, size, channels)
            for (level, size), part in zip(self._sizes.items(), parts, strict=True)
        }
