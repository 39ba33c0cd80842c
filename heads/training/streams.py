"""Stored videos as a head reads them: one level of the pyramid, with the position of every step and cell.

Shapes: T steps of a video, n steps of a piece of it, H x W cells of the level, C channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from threading import Lock

import numpy as np

from features.pyramid import pool_valid, pool_weights
from features.zarr_layout import POOL_SIZES
from vjepa_loc.errors import RunError
from vjepa_loc.spacegrid import SpaceGrid
from vjepa_loc.timegrid import TimeGrid


@dataclass(frozen=True)
class VideoExtent:
    """How long and how large a video is, and where its steps lie."""

    video_id: str
    num_frames: int
    width: int
    height: int
    time_grid: TimeGrid


class CacheBudget:
    """Bytes that decompressed tokens may take in memory; shared by the streams of one training."""

    def __init__(self, num_bytes: int):
        self.left = num_bytes
        self._lock = Lock()

    def take(self, num_bytes: int) -> bool:
        """Whether `num_bytes` still fit; if so they are gone."""
        with self._lock:
            if num_bytes > self.left:
                return False
            self.left -= num_bytes
            return True


class VideoStream:
    """One video of one store at the level that a head reads.

    `stored` is a `features.store.StoredVideo`, or anything with its reading interface. `coded` says whether the level is stored
    as int8 codes. `channel_level` is (mean_C, std_C), which decode what is stored: zeros and ones where that is in raw units.
    `bytes_per_step` counts values and scales, as read.
    `positions` are four arrays (T,), in frames: where each step starts and ends, the first and the last frame that it saw.

    Raises `RunError` when the video lacks the level.
    """

    def __init__(self, stored, level: str):
        if level not in stored.levels:
            raise RunError(
                f"video {stored.id!r}: the head reads the level {level!r}, the store holds {', '.join(stored.levels)}; "
                "extract with that level, or choose a stored one (--set head.level=LEVEL)"
            )
        self.stored = stored
        self.level = level
        self.extent = VideoExtent(stored.id, stored.num_frames, stored.width, stored.height, stored.time_grid)
        boxes_HW4, self.valid_HW = level_cells(stored.space_grid, level)
        self.cell_box_norm_HW4 = boxes_HW4.astype(np.float32)
        grid = self.extent.time_grid
        self.positions = grid.start_T, grid.end_T, stored.first_frame_seen, stored.last_frame_seen
        self.coded = level == "tokens" and stored.storage.number_format == "int8"
        *cells_HW, self.channels = stored.shape(level)[1:]
        self.bytes_per_step = math.prod(cells_HW) * (self.channels + 2 if self.coded else 2 * self.channels)
        # What is not compressed lies in the page cache already: a second copy of it would only take its place.
        self._worth_keeping = stored.storage.compression != "none"
        self._kept: tuple[np.ndarray, ...] | None = None
        self._lock = Lock()

    @property
    def num_steps(self) -> int:
        return self.extent.time_grid.num_steps

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W) of the level."""
        return tuple(self.valid_HW.shape)

    @cached_property
    def channel_level(self) -> tuple[np.ndarray, np.ndarray]:
        if self.coded:
            return self.stored.mean, self.stored.std
        return np.zeros(self.channels, np.float32), np.ones(self.channels, np.float32)

    def read_into(
        self, values_nHWC: np.ndarray, scale_nHW: np.ndarray | None, start: int, stop: int, budget: CacheBudget | None = None
    ) -> None:
        """Stored steps start..stop: int8 codes and their float16 scale, or float16 values without one.

        A compressed video is decompressed as a whole the first time and kept, if the `budget` has room for it.
        """
        out = (values_nHWC,) if scale_nHW is None else (values_nHWC, scale_nHW)
        if budget is not None and self._worth_keeping and (kept := self._keep(budget)) is not None:
            for kept_part, out_part in zip(kept, out, strict=True):
                np.copyto(out_part, kept_part[start:stop])
        else:
            self._read(out, start, stop)

    def will_read(self, start: int, stop: int) -> None:
        """Asks the system to fetch these steps from the disk now; returns at once."""
        if self._kept is None:
            self.stored.will_read(self.level, start, stop)

    def _keep(self, budget: CacheBudget) -> tuple[np.ndarray, ...] | None:
        with self._lock:
            if self._kept is None:
                shape_THWC = self.stored.shape(self.level)
                dtypes = (np.int8, np.float16) if self.coded else (np.float16,)
                shapes = (shape_THWC, shape_THWC[:3])[: len(dtypes)]
                # What does not fit once never fits: the budget only shrinks.
                self._worth_keeping = budget.take(self.num_steps * self.bytes_per_step)
                if self._worth_keeping:
                    kept = tuple(np.empty(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True))
                    self._read(kept, 0, self.num_steps)
                    self._kept = kept
            return self._kept

    def _read(self, out: tuple[np.ndarray, ...], start: int, stop: int) -> None:
        if self.coded:
            self.stored.read_codes(start, stop, out)
        else:
            self.stored.read(self.level, start, stop, out[0])


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
