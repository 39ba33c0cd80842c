"""Ranking events per label over all videos and matching them to truths, video by video."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from vjepa_loc.metrics._average_precision import RankedAnswers, match_free_truths
from vjepa_loc.scoring_input import ScoringInput

Similarities = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray | None]]
"""From indices of one video's and label's predictions (P, ranked) and truths (G) in their tables: the similarity
(P, G) that a match must reach, and per prediction (P,) the similarity to what would have it ignored instead of
counted as false (None: nothing has)."""


def ranked(score_N: np.ndarray) -> np.ndarray:
    """Indices by descending score, ties in file order."""
    return np.argsort(-score_N, kind="stable")


def rank_and_match(
    inputs: ScoringInput, label: int, counted_N: np.ndarray, levels_R: np.ndarray, similarities: Similarities
) -> RankedAnswers:
    """The ranked answers of one label, where `counted_N` are the truths that stand for something to find."""
    truths, predictions = inputs.truths, inputs.predictions
    own_truths = np.flatnonzero(truths.label_N == label)
    own = np.flatnonzero(predictions.label_N == label)
    own = own[ranked(predictions.score_N[own])]
    true_PR = np.zeros((len(own), len(levels_R)), dtype=bool)
    ignored_PR = None
    truths_of = dict(_by_video(truths.video_N, own_truths))
    nothing = np.empty(0, dtype=np.int64)
    for video, rows in _by_video(predictions.video_N[own], np.arange(len(own))):
        similarity_PG, excuse_P = similarities(own[rows], truths_of.get(video, nothing))
        true_PR[rows] = match_free_truths(similarity_PG, levels_R)
        if excuse_P is not None:
            ignored_PR = np.zeros_like(true_PR) if ignored_PR is None else ignored_PR
            ignored_PR[rows] = ~true_PR[rows] & (excuse_P[:, None] >= levels_R)
    num_truths_V = np.bincount(truths.video_N[own_truths[counted_N[own_truths]]], minlength=inputs.num_videos)
    return RankedAnswers(predictions.video_N[own], true_PR, num_truths_V, ignored_PR)


def _by_video(video_N: np.ndarray, chosen: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """`chosen` indices into `video_N`, video by video, in their order."""
    videos = video_N[chosen]
    order = np.argsort(videos, kind="stable")
    starts = np.flatnonzero(np.diff(videos[order], prepend=-1))
    for start, part in zip(starts.tolist(), np.split(chosen[order], starts[1:]) if len(starts) else (), strict=True):
        yield int(videos[order[start]]), part
