"""Soft non-maximum suppression of events: overlapping answers lose score instead of vanishing.

Shapes: N candidates.
"""

from collections.abc import Callable

import numpy as np

from vjepa_loc.overlap import span_iou

Similarity = np.ndarray | Callable[[int, np.ndarray], np.ndarray]


def soft_nms(
    spans_N2: np.ndarray,
    scores_N: np.ndarray,
    labels_N: np.ndarray,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    max_events: int | None = None,
    similarity: Similarity | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian soft-NMS within each label (Bodla et al. 2017, arXiv 1704.04503).

    The best remaining candidate is kept, and the scores of its label's others are multiplied by
    exp(-similarity**2 / sigma); what falls below `min_score` is dropped. `similarity` in 0..1 replaces the temporal
    IoU: a matrix (N, N), or a function of a candidate's index and the indices of others (M,) that returns (M,).

    Returns the kept indices and their new scores, by descending score, ties by index; at most `max_events` of them.
    Raises ValueError when shapes differ, a score or a span is not finite, or sigma is not positive.
    """
    spans_N2 = np.asarray(spans_N2, dtype=np.float64).reshape(-1, 2)
    scores_N = np.asarray(scores_N, dtype=np.float64)
    labels_N = np.asarray(labels_N)
    if not len(spans_N2) == len(scores_N) == len(labels_N):
        raise ValueError(
            "soft_nms: expected as many spans as scores and labels, "
            f"got {len(spans_N2)}, {len(scores_N)}, {len(labels_N)}"
        )
    if not (np.isfinite(spans_N2).all() and np.isfinite(scores_N).all()):
        raise ValueError("soft_nms: expected finite spans and scores, got NaN or infinity")
    if not sigma > 0:
        raise ValueError(f"soft_nms: expected sigma > 0, got {sigma}")

    if similarity is None:

        def compare(index, others):
            return span_iou(spans_N2[index : index + 1], spans_N2[others])[0]

    elif callable(similarity):
        compare = similarity
    else:
        matrix_NN = np.asarray(similarity, dtype=np.float64)
        if matrix_NN.shape != (len(scores_N), len(scores_N)):
            raise ValueError(f"soft_nms: expected a similarity of shape ({len(scores_N)},)*2, got {matrix_NN.shape}")

        def compare(index, others):
            return matrix_NN[index, others]

    kept, kept_scores = [], []
    for label in np.unique(labels_N):
        indices, scores = _suppress_label(
            np.flatnonzero(labels_N == label), scores_N, compare, sigma, min_score, max_events
        )
        kept += indices
        kept_scores += scores
    kept, kept_scores = np.array(kept, dtype=np.int64), np.array(kept_scores, dtype=np.float64)
    order = np.lexsort((kept, -kept_scores))[:max_events]
    return kept[order], kept_scores[order]


def _suppress_label(remaining, scores_N, compare, sigma, min_score, max_events):
    """Soft-NMS among the candidates `remaining` (ascending indices); kept scores never increase along the way."""
    scores = scores_N[remaining]
    kept, kept_scores = [], []
    while max_events is None or len(kept) < max_events:
        alive = scores >= min_score
        if not alive.all():
            remaining, scores = remaining[alive], scores[alive]
        if len(remaining) == 0:
            break
        best = int(np.argmax(scores))
        index = int(remaining[best])
        kept.append(index)
        kept_scores.append(float(scores[best]))
        remaining, scores = np.delete(remaining, best), np.delete(scores, best)
        scores = scores * np.exp(-np.square(compare(index, remaining)) / sigma)
    return kept, kept_scores
