"""What an event is: a label on an interval of one video, with boxes on some of its frames.

Truth and prediction are the same type; a prediction has a score. Frames are real-valued and never rounded here.

Shape legend: K = annotated frames of one event, 4 = x1, y1, x2, y2 (continuous edges, pixels of the displayed video).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from numbers import Real

import numpy as np

from vjepa_loc.errors import DatasetError


def _no_frames() -> np.ndarray:
    return np.empty(0, dtype=np.int64)


def _no_boxes() -> np.ndarray:
    return np.empty((0, 4), dtype=np.float64)


@dataclass(frozen=True, eq=False, slots=True)
class Event:
    """A label on the half-open interval `[start_frame, end_frame)` of one video.

    The event covers the whole frame f when `start_frame <= f + 0.5 < end_frame`; its boxes lie on such frames.

    `box_frames_K` are the annotated frames, ascending; `boxes_K4` their boxes (xyxy, x2 and y2 exclusive, displayed
    pixels); `box_scores_K`, where present, one score per box. `score` is None for truth. `extra` keeps what a file
    says beyond that. The arrays are copied and read-only.

    Raises `DatasetError`, naming the field, when a value breaks these rules.
    """

    video_id: str
    label: str
    start_frame: float
    end_frame: float
    box_frames_K: np.ndarray = field(default_factory=_no_frames)
    boxes_K4: np.ndarray = field(default_factory=_no_boxes)
    box_scores_K: np.ndarray | None = None
    score: float | None = None
    id: str | None = None
    extra: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("video_id", "label"):
            check_name(getattr(self, name), name)
        if self.id is not None:
            check_name(self.id, "id")
        for name in ("start_frame", "end_frame"):
            self._set(name, finite_number(getattr(self, name), name))
        if self.start_frame < 0:
            raise DatasetError(f"start_frame: expected 0 or later, got {self.start_frame:g}")
        if not self.start_frame < self.end_frame:
            raise DatasetError(
                f"end_frame: expected later than start_frame {self.start_frame!r}, got {self.end_frame!r}"
            )
        if self.score is not None:
            self._set("score", finite_number(self.score, "score"))
        if not isinstance(self.extra, dict):
            raise DatasetError(f"extra: expected a dict, got {type(self.extra).__name__}")
        self._check_boxes()

    def _set(self, name: str, value) -> None:
        object.__setattr__(self, name, value)

    def _check_boxes(self) -> None:
        frames_K = np.asarray(self.box_frames_K)
        boxes_K4 = np.array(self.boxes_K4, dtype=np.float64)
        if frames_K.size == 0 and boxes_K4.size == 0:
            if self.box_scores_K is not None and np.size(self.box_scores_K):
                raise DatasetError(f"box_scores_K: expected none without boxes, got {np.size(self.box_scores_K)}")
            self._set("box_frames_K", _frozen(_no_frames()))
            self._set("boxes_K4", _frozen(_no_boxes()))
            self._set("box_scores_K", None)
            return
        if frames_K.ndim != 1 or not np.issubdtype(frames_K.dtype, np.integer):
            raise DatasetError(
                f"box_frames_K: expected whole frame numbers of shape (K,), got {frames_K.dtype} {frames_K.shape}"
            )
        if boxes_K4.shape != (len(frames_K), 4):
            raise DatasetError(f"boxes_K4: expected shape ({len(frames_K)}, 4), got {boxes_K4.shape}")
        if (frames_K[1:] <= frames_K[:-1]).any():
            raise DatasetError("box_frames_K: expected ascending frames, each once")
        self._check_box_values(frames_K, boxes_K4)
        self._set("box_frames_K", _frozen(frames_K.astype(np.int64)))
        self._set("boxes_K4", _frozen(boxes_K4))
        if self.box_scores_K is not None:
            scores_K = np.array(self.box_scores_K, dtype=np.float64)
            if scores_K.shape != frames_K.shape:
                raise DatasetError(f"box_scores_K: expected shape {frames_K.shape}, got {scores_K.shape}")
            if not np.isfinite(scores_K).all():
                frame = frames_K[~np.isfinite(scores_K)][0]
                raise DatasetError(f"boxes, frame {frame}: expected a finite score")
            self._set("box_scores_K", _frozen(scores_K))

    def _check_box_values(self, frames_K: np.ndarray, boxes_K4: np.ndarray) -> None:
        first, stop = self.covered_frames()
        outermost = frames_K[0] if frames_K[0] < first else frames_K[-1]
        if not first <= outermost < stop:
            raise DatasetError(
                f"boxes, frame {outermost}: expected a frame that the event covers "
                f"({_covered_text(first, stop)}), since it runs from {self.start_frame!r} to {self.end_frame!r}"
            )
        finite_K4 = np.isfinite(boxes_K4)
        if not finite_K4.all():
            at = int(np.argmin(finite_K4.all(axis=1)))
            raise DatasetError(f"boxes, frame {frames_K[at]}: expected finite numbers, got {boxes_K4[at].tolist()}")
        extended_K2 = boxes_K4[:, :2] < boxes_K4[:, 2:]
        if not extended_K2.all():
            at = int(np.argmin(extended_K2.all(axis=1)))
            raise DatasetError(
                f"boxes, frame {frames_K[at]}: expected x1 < x2 and y1 < y2, got a box without area "
                f"{boxes_K4[at].tolist()}"
            )

    @property
    def num_boxes(self) -> int:
        """How many frames carry a box."""
        return len(self.box_frames_K)

    def covers(self, frame: int) -> bool:
        """Whether the middle of the whole frame `frame` lies in the event's interval."""
        return self.start_frame <= frame + 0.5 < self.end_frame

    def covered_frames(self) -> tuple[int, int]:
        """`(first, stop)`: the half-open range of the whole frames covered; empty between the middles of two frames."""
        return math.ceil(self.start_frame - 0.5), math.ceil(self.end_frame - 0.5)

    def replace(self, **changes) -> Event:
        """A copy with some fields changed, checked again."""
        return dataclasses.replace(self, **changes)


def check_name(value, field_name: str) -> None:
    """Raise `DatasetError` unless `value` is a non-empty string."""
    if not isinstance(value, str) or not value:
        raise DatasetError(f"{field_name}: expected a non-empty string, got {value!r}")


def finite_number(value, field_name: str) -> float:
    """`value` as a float; `DatasetError` for anything but a finite number (a truth value is none)."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise DatasetError(f"{field_name}: expected a number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise DatasetError(f"{field_name}: expected a finite number, got {number!r}")
    return number


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _covered_text(first: int, stop: int) -> str:
    return f"{first} to {stop - 1}" if first < stop else "none"
