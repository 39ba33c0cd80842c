"""Events as a head learns them, and a head's answers as events again: the two directions side by side.

    frames of the video   start_frame .......... end_frame        boxes on whole frames, displayed pixels
                              |  \\-- window start, 1/length           |  \\-- mean over the frames of a step, / (width, height)
    Targets               spans_N2 (0..1 of the window)           boxes_NT4 at the steps
                              |                                       |
    Answer, Event         start_frame .......... end_frame        linear between the steps' middles, on every covered frame

Shapes: N events of a window, T steps of a batch, K steps or frames with a box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from heads.parts.contract import Targets
from heads.training.streams import VideoExtent
from heads.training.windows import Window
from vjepa_loc.errors import DatasetError
from vjepa_loc.events import Event

SHORTEST_PART_FRAMES = 1.0
SMALLEST_BOX_PX = 1e-3


@dataclass(frozen=True)
class _StepBoxes:
    """The steps on which an event has a box, and the normalised box of each."""

    steps_K: np.ndarray
    boxes_norm_K4: np.ndarray


class VideoTargets:
    """The events of one video, ready to be cut into windows.

    Raises `DatasetError` for an event that ends after the stored video.
    """

    def __init__(self, events: Sequence[Event], labels: Sequence[str], extent: VideoExtent):
        for event in events:
            if event.end_frame > extent.num_frames:
                name = f"event {event.id!r}" if event.id is not None else f"an event {event.label!r}"
                raise DatasetError(
                    f"video {extent.video_id!r}: {name} runs to frame {event.end_frame:g}, "
                    f"the stored video has {extent.num_frames} frames; correct the dataset or extract the video again"
                )
        self.labels_N = np.array([labels.index(event.label) for event in events], dtype=np.int64)
        self.spans_N2 = np.array([(event.start_frame, event.end_frame) for event in events]).reshape(-1, 2)
        self.boxed_N = np.array([event.num_boxes > 0 for event in events], dtype=bool)
        self._step_boxes = [boxes_at_steps(event, extent) for event in events]

    def cut(self, window: Window, first_step: int, num_steps: int) -> Targets:
        """The events of a window whose steps are `first_step`, `first_step` + 1, ...; `num_steps` counts padded ones too.

        An event that reaches beyond the window is cut and that end marked open. One of which less than a frame lies inside
        (or, of a shorter event, less than half) is left out: it is seen in the neighbouring window.
        """
        cut_N2 = np.clip(self.spans_N2, window.start_frame, window.end_frame)
        inside_N = cut_N2[:, 1] - cut_N2[:, 0]
        enough_N = np.minimum(SHORTEST_PART_FRAMES, (self.spans_N2[:, 1] - self.spans_N2[:, 0]) / 2)
        kept = np.flatnonzero(inside_N >= enough_N)
        boxes_NT4 = np.zeros((len(kept), num_steps, 4), dtype=np.float32)
        has_box_NT = np.zeros((len(kept), num_steps), dtype=bool)
        for row, event in enumerate(kept):
            steps_K = self._step_boxes[event].steps_K - first_step
            inside_K = (steps_K >= 0) & (steps_K < num_steps)
            boxes_NT4[row, steps_K[inside_K]] = self._step_boxes[event].boxes_norm_K4[inside_K]
            has_box_NT[row, steps_K[inside_K]] = True
        return Targets(
            labels_N=torch.from_numpy(self.labels_N[kept]),
            spans_N2=torch.from_numpy(((cut_N2[kept] - window.start_frame) / window.num_frames).astype(np.float32)),
            open_N2=torch.from_numpy(cut_N2[kept] != self.spans_N2[kept]),
            boxes_NT4=torch.from_numpy(boxes_NT4),
            has_box_NT=torch.from_numpy(has_box_NT),
            boxed_N=torch.from_numpy(self.boxed_N[kept]),
        )


def boxes_at_steps(event: Event, extent: VideoExtent) -> _StepBoxes:
    """The mean of the event's boxes on the whole frames of each step; steps on which it has none are left out."""
    if event.num_boxes == 0:
        return _StepBoxes(np.zeros(0, dtype=np.int64), np.zeros((0, 4)))
    steps_K, row_K, count_K = np.unique(
        extent.time_grid.step_of_frame(event.box_frames_K), return_inverse=True, return_counts=True
    )
    sums_K4 = np.zeros((len(steps_K), 4))
    np.add.at(sums_K4, row_K, event.boxes_K4)
    return _StepBoxes(steps_K, sums_K4 / count_K[:, None] / _size_4(extent))


@dataclass(frozen=True)
class Answer:
    """One answer over a whole video: interval in frames, and normalised boxes on `first_step`, `first_step` + 1, ..."""

    label: str
    start_frame: float
    end_frame: float
    score: float
    first_step: int = 0
    boxes_norm_K4: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))


def answer_to_event(answer: Answer, extent: VideoExtent) -> Event | None:
    """The event of an answer; None if nothing of it lies inside the video.

    The interval is clipped to the video and stays real-valued. Every whole frame that it covers gets the box found by linear
    interpolation between the steps' middles (held before the first and after the last), clipped to the picture; a frame on
    which the box lies outside the picture gets none.
    """
    start, end = max(answer.start_frame, 0.0), min(answer.end_frame, float(extent.num_frames))
    if not start < end:
        return None
    event = Event(extent.video_id, answer.label, start, end, score=answer.score)
    first, stop = event.covered_frames()
    if len(answer.boxes_norm_K4) == 0 or first >= stop:
        return event
    frames_F = np.arange(first, stop)
    steps_K = np.arange(answer.first_step, answer.first_step + len(answer.boxes_norm_K4))
    middle_K = extent.time_grid.middle_T[steps_K]
    boxes_norm_F4 = np.stack([np.interp(frames_F + 0.5, middle_K, edge_K) for edge_K in answer.boxes_norm_K4.T], axis=1)
    boxes_F4 = np.clip(boxes_norm_F4, 0, 1) * _size_4(extent)
    seen_F = (boxes_F4[:, 2:] - boxes_F4[:, :2] >= SMALLEST_BOX_PX).all(axis=1)
    return event.replace(box_frames_K=frames_F[seen_F], boxes_K4=boxes_F4[seen_F])


def _size_4(extent: VideoExtent) -> np.ndarray:
    return np.array([extent.width, extent.height, extent.width, extent.height], dtype=np.float64)
