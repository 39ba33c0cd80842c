"""Probabilities of labels for clips and for whole videos, from events whose score is that of their label.

Events of one video with the same interval are one clip. A label that a clip does not list has probability 0 there; a
video's probability of a label is the mean over its clips.

Shapes: V videos, C clips, E entries (a group's probability of one label, where a group is a clip or a video),
G groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vjepa_loc.scoring_input import ScoringInput

# By how much a clip's probabilities may miss 1, so that those written with a few digits pass.
_SUM_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class Entries:
    """Probabilities of groups, sparse: a label that is not listed has 0."""

    group_E: np.ndarray
    label_E: np.ndarray
    score_E: np.ndarray

    def ranks(self, truth_G: np.ndarray) -> np.ndarray:
        """How many labels stand before the true one (G,); as many as there can be where its probability is 0.

        Labels of equal probability stand in the dataset's order.
        """
        own = self.label_E == truth_G[self.group_E]
        true_score_G = np.zeros(len(truth_G))
        true_score_G[self.group_E[own]] = self.score_E[own]
        true_score_E = true_score_G[self.group_E]
        before_E = (self.score_E > true_score_E) | (
            (self.score_E == true_score_E) & (self.label_E < truth_G[self.group_E])
        )
        rank_G = np.bincount(self.group_E, weights=before_E, minlength=len(truth_G))
        return np.where(true_score_G > 0, rank_G, np.inf)

    def best(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The groups that list a label, each with its most probable one (the first label among equals) and how
        probable that is."""
        order = np.lexsort((self.label_E, -self.score_E, self.group_E))
        group, first = np.unique(self.group_E[order], return_index=True)
        return group, self.label_E[order[first]], self.score_E[order[first]]


@dataclass(frozen=True, eq=False)
class ClassScores:
    """Of the labelled videos. `truth_V` is the label's index, -1 in a video without one; `video_C` the video of each
    clip. A labelled video without predictions has one clip that lists nothing."""

    truth_V: np.ndarray
    video_C: np.ndarray
    clips: Entries
    videos: Entries
    notes: list[str]


def class_scores(inputs: ScoringInput, key: str) -> ClassScores | str:
    """The probabilities, or in words why there are none. `key` is the metric that the notes name."""
    index_of = {label: index for index, label in enumerate(inputs.labels)}
    videos = [inputs.dataset.videos[video_id] for video_id in inputs.video_ids]
    truth_V = np.array([-1 if video.label is None else index_of[video.label] for video in videos], dtype=np.int64)
    num_labelled = int((truth_V >= 0).sum())
    if not num_labelled:
        return f"no truth: none of the {inputs.num_videos} videos has a label"

    predictions = inputs.predictions
    own = np.flatnonzero(truth_V[predictions.video_N] >= 0)
    video_E, label_E, score_E = predictions.video_N[own], predictions.label_N[own], predictions.score_N[own]
    outside = (score_E < 0) | (score_E > 1)
    if outside.any():
        return (
            f"{int(outside.sum())} of {len(own)} scores lie outside 0..1, such as {score_E[outside][0]:g}; expected "
            "each event's score to be the probability of its label in its clip"
        )
    clip_E, video_C = _clips(video_E, predictions.start_N[own], predictions.end_N[own])
    num_labels = len(inputs.labels)
    entry, first, count = np.unique(clip_E * num_labels + label_E, return_index=True, return_counts=True)
    if (count > 1).any():
        event = predictions.events[own[first[count > 1][0]]]
        return (
            f"{int((count > 1).sum())} labels stand several times in one clip, such as {event.label!r} in "
            f"{event.start_frame:g} to {event.end_frame:g} of video {event.video_id!r}; expected one event per label, "
            "whose score is the label's probability there"
        )

    num_clips_V = np.bincount(video_C, minlength=inputs.num_videos)
    pair, pair_E = np.unique(video_E * num_labels + label_E, return_inverse=True)
    group, label = np.divmod(pair, num_labels)
    mean = np.bincount(pair_E, weights=score_E, minlength=len(pair)) / num_clips_V[group]
    missing = np.flatnonzero((truth_V >= 0) & (num_clips_V == 0))
    notes = []
    if num_labelled < inputs.num_videos:
        num_unused = len(predictions) - len(own)
        notes.append(
            f"{key}: {inputs.num_videos - num_labelled} of {inputs.num_videos} videos have no label and are not "
            f"scored; {num_unused} predictions there are not counted"
        )
    if len(missing):
        notes.append(
            f"{key}: {len(missing)} of {num_labelled} labelled videos have no prediction, such as "
            f"{inputs.video_ids[missing[0]]!r}"
        )
    sum_C = np.bincount(clip_E, weights=score_E, minlength=len(video_C))
    uneven = np.flatnonzero(np.abs(sum_C - 1) > _SUM_TOLERANCE)
    if len(uneven):
        notes.append(
            f"{key}: the probabilities of {len(uneven)} of {len(video_C)} clips do not sum to 1 but to "
            f"{sum_C[uneven].min():.3g} to {sum_C[uneven].max():.3g}; they are taken as they are, a label that is not "
            "listed as 0"
        )
    return ClassScores(
        truth_V,
        np.concatenate([video_C, missing]),
        Entries(clip_E, label_E, score_E),
        Entries(group, label, mean),
        notes,
    )


def _clips(video_E: np.ndarray, start_E: np.ndarray, end_E: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The clip (E,) of each entry, and the video (C,) of each clip."""
    order = np.lexsort((end_E, start_E, video_E))
    columns = np.stack([video_E[order], start_E[order], end_E[order]])
    new = np.ones(len(order), dtype=bool)
    new[1:] = (columns[:, 1:] != columns[:, :-1]).any(axis=0)
    clip_E = np.empty(len(order), dtype=np.int64)
    clip_E[order] = np.cumsum(new) - 1
    return clip_E, video_E[order[new]]
