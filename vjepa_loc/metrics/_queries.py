"""Queries: truth tracks of which each video has one by name, with the predictions that answer them.

An event's name is what its `query` key (in `extra`) says, else its label. A query is a truth with boxes; a prediction
answers the query of its video and name.

Shapes: Q queries, A answers, P predictions, C boxes that a prediction and its query's truth have on the same frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vjepa_loc.events import Event
from vjepa_loc.metrics._event_matching import ranked
from vjepa_loc.scoring_input import ScoringInput

QUERY_KEY = "query"


@dataclass(frozen=True, eq=False)
class Queries:
    """`truth_Q` and `answer_A` are rows of the truths and the predictions, both in file order; `query_A` says which
    query, 0..Q-1, each answer belongs to."""

    truth_Q: np.ndarray
    video_Q: np.ndarray
    label_Q: np.ndarray
    answer_A: np.ndarray
    query_A: np.ndarray
    notes: list[str]

    def __len__(self) -> int:
        return len(self.truth_Q)

    def best_answers(self, score_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the best scored answer (the first in the file among equals) and its query, for each with one."""
        order = ranked(score_N[self.answer_A])
        answered, first = np.unique(self.query_A[order], return_index=True)
        return self.answer_A[order[first]], answered


def queries_of(inputs: ScoringInput, key: str) -> Queries | str:
    """The queries, or in words why there are none. `key` is the metric that the notes name."""
    truths, predictions = inputs.truths, inputs.predictions
    if not len(truths):
        return f"no truth in {inputs.num_videos} videos"
    boxed_N = truths.num_boxes_N > 0
    if not boxed_N.any():
        return f"none of the {len(truths)} truth events has a box"

    names = [(event.video_id, _name(event)) for event in truths.events]
    rows_of: dict[tuple[str, str], list[int]] = {}
    for row, name in enumerate(names):
        rows_of.setdefault(name, []).append(row)
    asked = {name: rows for name, rows in rows_of.items() if boxed_N[rows].any()}
    several = {name: len(rows) for name, rows in asked.items() if len(rows) > 1}
    if several:
        (video_id, name), count = next(iter(several.items()))
        return (
            f"{len(several)} of {len(asked)} queries have more than one truth, such as {name!r} in video {video_id!r} "
            f"with {count}; expected one per video and name. Give the events a {QUERY_KEY!r} key that tells them "
            "apart, the same in truth and predictions"
        )

    truth_Q = np.array([rows[0] for rows in asked.values()], dtype=np.int64)
    query_of = {name: query for query, name in enumerate(asked)}
    query_P = np.array([query_of.get((event.video_id, _name(event)), -1) for event in predictions.events], dtype=np.int64)
    answer_A = np.flatnonzero(query_P >= 0)
    notes = []
    if not boxed_N.all():
        notes.append(f"{key}: {int((~boxed_N).sum())} of {len(truths)} truth events have no box and are no queries")
    stray = np.flatnonzero(query_P < 0)
    if len(stray):
        event = predictions.events[stray[0]]
        notes.append(
            f"{key}: {len(stray)} predictions answer no query and are not counted, such as {_name(event)!r} in video "
            f"{event.video_id!r}"
        )
    num_unanswered = len(truth_Q) - len(np.unique(query_P[answer_A]))
    if num_unanswered:
        notes.append(f"{key}: {num_unanswered} of {len(truth_Q)} queries have no prediction and count 0")
    return Queries(truth_Q, truths.video_N[truth_Q], truths.label_N[truth_Q], answer_A, query_P[answer_A], notes)


def common_boxes(inputs: ScoringInput, queries: Queries) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes of answers and of their queries' truths that lie on the same frame.

    Gives the prediction (C,) and the rows (C,) of the truth's and of its own box, by prediction and then by frame.
    """
    truths, predictions = inputs.truths, inputs.predictions
    truth_of_P = np.full(len(predictions), -1, dtype=np.int64)
    truth_of_P[queries.answer_A] = queries.truth_Q[queries.query_A]
    # One whole number per event and frame, ascending along the truths' boxes.
    stride = 1 + max(truths.frame_B.max(initial=0), predictions.frame_B.max(initial=0))
    known_B = truths.owner_B * stride + truths.frame_B
    wanted_B = truth_of_P[predictions.owner_B] * stride + predictions.frame_B
    at_B = np.minimum(np.searchsorted(known_B, wanted_B), len(known_B) - 1)
    own = np.flatnonzero((truth_of_P[predictions.owner_B] >= 0) & (known_B[at_B] == wanted_B))
    return predictions.owner_B[own], at_B[own], own


def _name(event: Event) -> str:
    name = event.extra.get(QUERY_KEY)
    return event.label if name is None else str(name)
