"""What metrics are computed from: truth and predictions of some videos, as columns.

Shapes: V evaluated videos, L labels of the dataset, N events, B boxes of all N events one after another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from vjepa_loc.dataset import Dataset
from vjepa_loc.errors import DatasetError
from vjepa_loc.events import Event


END_LIMIT = 2**40
"""No event ends so late: metrics number events and frames together in 64 bits."""


@dataclass(frozen=True, eq=False)
class EventTable:
    """N events in the order of their file, as columns.

    `video_N` and `label_N` are indices into the input's videos and the dataset's labels, `start_N` and `end_N` frames.
    `score_N` is NaN for truth. Boxes of event n are rows `first_box_N1[n]` to `first_box_N1[n + 1]` of the box
    columns, ascending by frame.
    """

    events: tuple[Event, ...]
    video_N: np.ndarray
    label_N: np.ndarray
    start_N: np.ndarray
    end_N: np.ndarray
    score_N: np.ndarray
    first_box_N1: np.ndarray

    def __len__(self) -> int:
        return len(self.events)

    @property
    def spans_N2(self) -> np.ndarray:
        """Intervals in frames, half-open."""
        return np.stack([self.start_N, self.end_N], axis=1)

    @property
    def num_boxes_N(self) -> np.ndarray:
        return np.diff(self.first_box_N1)

    @cached_property
    def owner_B(self) -> np.ndarray:
        """The event, 0..N-1, that each box belongs to."""
        return np.repeat(np.arange(len(self)), self.num_boxes_N)

    @cached_property
    def frame_B(self) -> np.ndarray:
        return _concatenated([event.box_frames_K for event in self.events], (0,), np.int64)

    @cached_property
    def box_B4(self) -> np.ndarray:
        """xyxy, continuous edges, displayed pixels."""
        return _concatenated([event.boxes_K4 for event in self.events], (0, 4), np.float64)

    @cached_property
    def box_score_B(self) -> np.ndarray:
        """A box's own score where it has one, else its event's."""
        own = [
            np.full(event.num_boxes, np.nan if event.score is None else event.score)
            if event.box_scores_K is None
            else event.box_scores_K
            for event in self.events
        ]
        return _concatenated(own, (0,), np.float64)

    def where(self, chosen_N: np.ndarray) -> EventTable:
        """The events that a mask (N,) or indices choose, in that order."""
        index = np.flatnonzero(chosen_N) if np.asarray(chosen_N).dtype == bool else np.asarray(chosen_N, dtype=np.int64)
        return EventTable(
            tuple(self.events[at] for at in index.tolist()),
            self.video_N[index],
            self.label_N[index],
            self.start_N[index],
            self.end_N[index],
            self.score_N[index],
            np.concatenate([[0], np.cumsum(self.num_boxes_N[index])]),
        )


@dataclass(frozen=True, eq=False)
class ScoringInput:
    """Truth and scored predictions of the evaluated videos.

    `video_ids` are the V evaluated videos, each once; predictions in other videos of the dataset are left out, and
    `num_elsewhere` counts them. `seams` are, per video where known, the frames at which one encoder clip ends and the
    next begins.
    """

    dataset: Dataset
    video_ids: tuple[str, ...]
    truths: EventTable
    predictions: EventTable
    num_elsewhere: int = 0
    seams: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        predictions: Sequence[Event],
        video_ids: Sequence[str] | None = None,
        seams: Mapping[str, np.ndarray] | None = None,
    ) -> ScoringInput:
        """The truth of `video_ids` (default: every video) beside the predictions there, both in file order.

        Raises UnknownNameError for a video that is not in the dataset, DatasetError for a prediction without a score
        and for an event that ends at frame `END_LIMIT` or later.
        """
        wanted = tuple(dict.fromkeys(dataset.videos if video_ids is None else video_ids))
        for video_id in wanted:
            dataset.events_of(video_id)
        for position, event in enumerate(predictions):
            if event.score is None:
                raise DatasetError(
                    f"predictions[{position}] ({event.label!r} in video {event.video_id!r}): expected a score, got "
                    "none; metrics rank predictions by it"
                )
        _check_ends(dataset.events, predictions)
        video_index = {video_id: index for index, video_id in enumerate(wanted)}
        label_index = {label: index for index, label in enumerate(dataset.labels)}
        inside = [event for event in predictions if event.video_id in video_index]
        return cls(
            dataset,
            wanted,
            _table([event for event in dataset.events if event.video_id in video_index], video_index, label_index),
            _table(inside, video_index, label_index),
            len(predictions) - len(inside),
            dict(seams or {}),
        )

    @property
    def labels(self) -> tuple[str, ...]:
        return self.dataset.labels

    @property
    def num_videos(self) -> int:
        return len(self.video_ids)

    def with_truths(self, truths: EventTable) -> ScoringInput:
        """The same predictions beside other truth."""
        return replace(self, truths=truths)


def _check_ends(truths: Sequence[Event], predictions: Sequence[Event]) -> None:
    for what, events in (("truth", truths), ("prediction", predictions)):
        for event in events:
            if event.end_frame >= END_LIMIT:
                raise DatasetError(
                    f"{what} {event.label!r} in video {event.video_id!r} from {event.start_frame:g}: expected an end before "
                    f"frame {END_LIMIT}, got {event.end_frame:g}; are these nanoseconds? Frames are numbered 0, 1, 2, ..."
                )


def _table(events: Sequence[Event], video_index: Mapping[str, int], label_index: Mapping[str, int]) -> EventTable:
    num_boxes = [event.num_boxes for event in events]
    return EventTable(
        tuple(events),
        np.array([video_index[event.video_id] for event in events], dtype=np.int64),
        np.array([label_index[event.label] for event in events], dtype=np.int64),
        np.array([event.start_frame for event in events], dtype=np.float64),
        np.array([event.end_frame for event in events], dtype=np.float64),
        np.array([np.nan if event.score is None else event.score for event in events], dtype=np.float64),
        np.concatenate([[0], np.cumsum(num_boxes, dtype=np.int64)]),
    )


def _concatenated(parts: Sequence[np.ndarray], empty_shape: tuple[int, ...], dtype: type) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(empty_shape, dtype=dtype)
