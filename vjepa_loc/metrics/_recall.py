"""Recall of the first predictions: how many truths one of them overlaps enough, whatever else it finds.

Shapes: M truths, F multiples (of the number of truths of a video and label, which says how many come first), V videos,
W resamples of the videos, C classes that a mean is over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vjepa_loc.metrics._ratios import mean_of_known
from vjepa_loc.metrics._result import MetricResult
from vjepa_loc.scoring_input import ScoringInput


def recall_of_first(
    inputs: ScoringInput,
    names: Mapping[tuple[str, int], str],
    entries: Mapping[str, Sequence[float]],
    best_MF: np.ndarray,
    multiples: Sequence[int],
    over_labels: bool,
    strict: bool,
    headline: Sequence[str],
) -> MetricResult:
    """The figures that `names` names by entry and multiple, from what `best_of_first` gives.

    A truth is found where its overlap reaches the threshold, or is above it with `strict`. A figure is the share of
    the truths found, per label and then the mean `over_labels`, or else of all truths; over an entry's thresholds it
    is the mean. 0 without any truth.
    """
    truths = inputs.truths
    share_M = {
        key: np.mean(
            [
                best_MF[:, multiples.index(multiple)] > level if strict else best_MF[:, multiples.index(multiple)] >= level
                for level in entries[entry]
            ],
            axis=0,
        )
        for (entry, multiple), key in names.items()
    }
    labels, label_M = np.unique(truths.label_N, return_inverse=True)

    def figure(share: np.ndarray, class_M: np.ndarray, num_classes: int, weights_WV: np.ndarray) -> np.ndarray:
        """Per resample and class, (W, C); NaN without truth."""
        place_M, size = class_M * inputs.num_videos + truths.video_N, num_classes * inputs.num_videos
        found_CV = np.bincount(place_M, weights=share, minlength=size).reshape(num_classes, inputs.num_videos)
        all_CV = np.bincount(place_M, minlength=size).reshape(num_classes, inputs.num_videos)
        found_WC, all_WC = weights_WV @ found_CV.T, weights_WV @ all_CV.T
        return np.divide(found_WC, all_WC, out=np.full(found_WC.shape, np.nan), where=all_WC > 0)

    def resample(weights_WV: np.ndarray, keys: Sequence[str] = tuple(headline)) -> dict[str, np.ndarray]:
        weights_WV = np.asarray(weights_WV, dtype=np.float64)
        class_M, num_classes = (label_M, len(labels)) if over_labels else (np.zeros_like(label_M), 1)
        figures = {}
        for key in keys:
            figures[key] = mean_of_known(figure(share_M[key], class_M, num_classes, weights_WV).T)
        return figures

    once = np.ones((1, inputs.num_videos))
    values = {key: float(np.nan_to_num(value[0])) for key, value in resample(once, tuple(share_M)).items()}
    of_labels = {key: figure(share, label_M, len(labels), once)[0] for key, share in share_M.items()}
    per_class = {
        inputs.labels[label]: {key: float(figure_C[at]) for key, figure_C in of_labels.items()}
        for at, label in enumerate(labels)
    }
    return MetricResult(values, per_class, headline=tuple(headline), resample=resample)
