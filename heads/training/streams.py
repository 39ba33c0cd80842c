"""Stored videos as a head sees them: one level of the pyramid, standardised, with the position of every step and cell.

Shapes: T steps of a video, n steps of a piece of it, H x W cells of the level, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from features.pyramid import pool_valid, pool_weights
from features.quantise import dequantise
from features.zarr_layout import POOL_SIZES
from heads.training.standardise import Standardisation
from vjepa_loc.errors import RunError
from vjepa_loc.spacegrid import SpaceGrid
from vjepa_loc.timegrid import TimeGrid

SERIAL_VALUES = 32768
"""at::internal::GRAIN_SIZE."""


@dataclass(frozen=True)
class VideoExtent:
    """How long and how large a video is, and where its steps lie."""

    video_id: str
    num_frames: int
    width: int
    height: int
    time_grid: TimeGrid


@dataclass(frozen=True)
class RawSteps:
    """Steps as they are stored: int8 codes with one scale per token, or floating-point values without a scale."""

    values_nHWC: Tensor
    scale_nHW: Tensor | None = None

    @property
    def num_bytes(self) -> int:
        scale = self.scale_nHW
        return self.values_nHWC.nbytes + (0 if scale is None else scale.nbytes)

    def piece(self, start: int, stop: int) -> RawSteps:
        return RawSteps(self.values_nHWC[start:stop], None if self.scale_nHW is None else self.scale_nHW[start:stop])


class CacheBudget:
    """Bytes that stored tokens may take in memory; shared by the streams of one training."""

    def __init__(self, num_bytes: int):
        self.left = num_bytes

    def take(self, num_bytes: int) -> bool:
        """Whether `num_bytes` still fit; if so they are gone."""
        if num_bytes > self.left:
            return False
        self.left -= num_bytes
        return True


class VideoStream:
    """One video of one store at the level that a head reads.

    `stored` is a `features.store.StoredVideo`, or anything with its reading interface. Raises `RunError` when the video
    lacks the level.
    """

    def __init__(self, stored, level: str):
        if level not in stored.levels:
            raise RunError(
                f"video {stored.id!r}: the head reads the level {level!r}, the store holds {', '.join(stored.levels)}; "
                "extract with that level"
            )
        self.stored = stored
        self.level = level
        self.extent = VideoExtent(stored.id, stored.num_frames, stored.width, stored.height, stored.time_grid)
        boxes_HW4, valid_HW = level_cells(stored.space_grid, level)
        self.cell_box_norm_HW4 = torch.from_numpy(boxes_HW4.astype(np.float32))
        self.valid_HW = torch.from_numpy(valid_HW)
        grid = self.extent.time_grid
        self.start_T, self.end_T = (torch.from_numpy(np.ascontiguousarray(edges)) for edges in (grid.start_T, grid.end_T))
        self.first_seen_T, self.last_seen_T = (
            torch.from_numpy(np.asarray(seen, dtype=np.float64)) for seen in (stored.first_frame_seen, stored.last_frame_seen)
        )
        self._coded = level == "tokens" and stored.storage.number_format == "int8"
        self._kept: RawSteps | None = None
        self._refused = False

    @property
    def channels(self) -> int:
        return self.stored.shape(self.level)[-1]

    @property
    def num_steps(self) -> int:
        return self.extent.time_grid.num_steps

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W) of the level."""
        return tuple(self.valid_HW.shape)

    def raw(self, start: int, stop: int, budget: CacheBudget | None = None) -> RawSteps:
        """Stored steps start..stop. With a `budget` that has room the whole video is read once and kept."""
        if self._kept is None and budget is not None and not self._refused:
            # The size of one step tells that of the whole, so that a video that does not fit is not read for nothing.
            if budget.take(self._read(0, 1).num_bytes * self.num_steps):
                self._kept = self._read(0, self.num_steps)
            self._refused = self._kept is None
        return self._read(start, stop) if self._kept is None else self._kept.piece(start, stop)

    def _read(self, start: int, stop: int) -> RawSteps:
        if self._coded:
            codes_nHWC, scale_nHW = self.stored.read_codes(start, stop)
            return RawSteps(torch.from_numpy(np.asarray(codes_nHWC)), torch.from_numpy(np.asarray(scale_nHW)))
        return RawSteps(torch.from_numpy(np.asarray(self.stored.read(self.level, start, stop))))

    def fill(self, out_nHWC: Tensor, start: int, stop: int, standardisation: Standardisation, budget: CacheBudget | None = None):
        """Write the standardised steps start..stop into `out_nHWC` (contiguous, float32)."""
        raw = self.raw(start, stop, budget)
        mean_C, std_C = standardisation.mean_C, standardisation.std_C
        parts = _serial_parts(out_nHWC.shape)
        out, values = out_nHWC.view(parts), raw.values_nHWC.view(parts)
        if raw.scale_nHW is not None:
            # (code * scale * video std + video mean - mean) / std is a dequantisation with other constants.
            video_mean_C, video_std_C = torch.tensor(self.stored.mean), torch.tensor(self.stored.std)
            dequantise(values, raw.scale_nHW.view(parts[:3]), (video_mean_C - mean_C) / std_C, video_std_C / std_C, out)
            return
        gain_C, bias_C = 1 / std_C, -mean_C / std_C
        for out_part, value_part in zip(out, values, strict=True):
            out_part.copy_(value_part)
            torch.addcmul(bias_C, out_part, gain_C, out=out_part)


def _serial_parts(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The shape (n, H, W, C) cut into more, smaller parts (n * k, H / k, W, C), where rows of cells allow it.

    torch runs an operation on fewer than `SERIAL_VALUES` values in the calling thread. The thread that reads windows ahead
    must not start a second team of threads beside the one that trains; each part also fits the processor's cache.
    """
    n, H, W, C = shape
    rows = max([rows for rows in range(1, H + 1) if H % rows == 0 and rows * W * C < SERIAL_VALUES], default=1)
    return n * (H // rows), rows, W, C


def level_cells(space_grid: SpaceGrid, level: str) -> tuple[np.ndarray, np.ndarray]:
    """Where the cells of a level lie: boxes (H, W, 4), normalised displayed xyxy, and which of them show the picture (H, W).

    The box of a pooled cell is the hull of the cells that it is the mean of.
    """
    boxes_HW4, valid_HW = space_grid.cell_boxes_norm_HW4, np.array(space_grid.valid_HW)
    if level == "tokens":
        return boxes_HW4, valid_HW
    size = POOL_SIZES[level]
    members_PN = pool_weights(valid_HW, size) > 0
    boxes_N4 = boxes_HW4.reshape(-1, 4)
    hulls_P4 = [[*boxes_N4[inside, :2].min(axis=0), *boxes_N4[inside, 2:].max(axis=0)] for inside in members_PN]
    return np.reshape(hulls_P4, (size, size, 4)), pool_valid(valid_HW, size)
