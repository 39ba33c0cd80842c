"""What a head answers for one window, in frames and steps of the video.

Shapes: Q answers of a window, T steps of a window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from heads.parts.contract import Candidates
from heads.training.streams import VideoExtent
from heads.training.tubes import Tubes
from heads.training.windows import Window, steps_in_window
from vjepa_loc.errors import RunError

SHORTEST_ANSWER_FRAMES = 0.5


@dataclass(frozen=True)
class WindowAnswers:
    """The answers of one window by descending score; of the boxes only those on the steps of each answer."""

    window: Window
    labels_Q: np.ndarray
    spans_Q2: np.ndarray
    scores_Q: np.ndarray
    tubes: Tubes

    @classmethod
    def of(
        cls, candidates: Candidates, window: Window, extent: VideoExtent, min_score: float, max_answers: int
    ) -> WindowAnswers:
        """The best `max_answers` of at least `min_score`, clipped to the video.

        Raises `RunError` when the head returned something that is not finite.
        """
        # numpy from here on: the arrays are small, and torch would wake its threads for each operation.
        scores_Q, spans_Q2 = (_as_numpy(values).astype(np.float64) for values in (candidates.scores_Q, candidates.spans_Q2))
        boxes_QT4 = None if candidates.boxes_norm_QT4 is None else _as_numpy(candidates.boxes_norm_QT4)
        if not all(np.isfinite(values).all() for values in (scores_Q, spans_Q2, boxes_QT4) if values is not None):
            raise RunError(
                f"video {window.video_id!r}, frames {window.start_frame} to {window.end_frame}: the head answered with numbers "
                "that are not finite; train it again with a lower lr"
            )
        spans_Q2 = np.clip(window.start_frame + spans_Q2 * window.num_frames, 0, extent.num_frames)
        usable_Q = (spans_Q2[:, 1] - spans_Q2[:, 0] >= SHORTEST_ANSWER_FRAMES) & (scores_Q >= min_score)
        order_Q = np.argsort(-scores_Q, kind="stable")
        kept = order_Q[usable_Q[order_Q]][:max_answers]
        if boxes_QT4 is None:
            tubes = Tubes.of([0] * len(kept), [np.zeros((0, 4))] * len(kept))
        else:
            tubes = _tubes(boxes_QT4[kept], spans_Q2[kept], window, extent)
        return cls(window, _as_numpy(candidates.labels_Q)[kept], spans_Q2[kept], scores_Q[kept], tubes)

    def __len__(self) -> int:
        return len(self.labels_Q)


def _as_numpy(values: Tensor) -> np.ndarray:
    # bfloat16, as a GPU may answer, has no numpy type.
    return (values.float() if values.is_floating_point() else values).detach().cpu().numpy()


def _tubes(boxes_QT4: np.ndarray, spans_Q2: np.ndarray, window: Window, extent: VideoExtent) -> Tubes:
    first_step, stop_step = steps_in_window(extent.time_grid, window)
    ranges = [np.clip(extent.time_grid.steps_of_span(*span), first_step, stop_step) for span in spans_Q2]
    parts = [boxes_T4[low - first_step : high - first_step] for boxes_T4, (low, high) in zip(boxes_QT4, ranges, strict=True)]
    return Tubes.of([low for low, _ in ranges], parts)
