import math

import numpy as np
import pytest

from vjepa_loc.suppress import soft_nms


def span_overlap(a, b):
    overlap = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return overlap / (a[1] - a[0] + b[1] - b[0] - overlap)


def soft_nms_loop(spans, scores, labels, sigma, min_score):
    """The published algorithm, one candidate and one pair at a time."""
    scores, rest, kept = list(scores), list(range(len(scores))), []
    while rest:
        best = max(rest, key=lambda i: (scores[i], -i))
        rest.remove(best)
        if scores[best] < min_score:
            continue
        kept.append((best, scores[best]))
        for i in rest:
            if labels[i] == labels[best]:
                scores[i] *= math.exp(-(span_overlap(spans[i], spans[best]) ** 2) / sigma)
    return sorted(kept, key=lambda pair: (-pair[1], pair[0]))


def candidates(num, seed):
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 50, num)
    return np.stack([start, start + rng.uniform(2, 20, num)], 1), rng.random(num), rng.integers(0, 3, num)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_against_the_quadratic_loop(sigma, seed):
    spans, scores, labels = candidates(60, seed)
    kept, new_scores = soft_nms(spans, scores, labels, sigma=sigma, min_score=0.05)
    expected = soft_nms_loop(spans, scores, labels, sigma, 0.05)
    assert kept.tolist() == [index for index, _ in expected]
    np.testing.assert_allclose(new_scores, [score for _, score in expected], rtol=1e-12)
    assert 0 < len(kept) < 60


def test_by_hand():
    kept, scores = soft_nms([[0, 10], [0, 10], [0, 10], [20, 30]], [0.9, 0.8, 0.7, 0.1], [0, 0, 1, 0])
    assert kept.tolist() == [0, 2, 1, 3]
    np.testing.assert_allclose(scores, [0.9, 0.7, 0.8 * math.exp(-2), 0.1])


def test_the_limit_keeps_the_best_of_the_whole_result():
    spans, scores, labels = candidates(60, 9)
    kept, new_scores = soft_nms(spans, scores, labels)
    few, few_scores = soft_nms(spans, scores, labels, max_events=7)
    assert few.tolist() == kept[:7].tolist()
    np.testing.assert_array_equal(few_scores, new_scores[:7])


def test_similarity_as_matrix_and_as_function():
    spans, scores, labels = candidates(40, 3)
    matrix = np.random.default_rng(5).random((40, 40))
    matrix = (matrix + matrix.T) / 2
    by_matrix = soft_nms(spans, scores, labels, similarity=matrix)
    by_function = soft_nms(spans, scores, labels, similarity=lambda index, others: matrix[index, others])
    np.testing.assert_array_equal(by_matrix[0], by_function[0])
    np.testing.assert_array_equal(by_matrix[1], by_function[1])
    # Two events at one time but in two places stay whole.
    kept, new_scores = soft_nms([[0, 10], [0, 10]], [0.9, 0.8], [0, 0], similarity=np.zeros((2, 2)))
    assert new_scores.tolist() == [0.9, 0.8]


def test_ties_keep_their_order_and_nothing_is_fine():
    kept, _ = soft_nms([[0, 1], [5, 6], [9, 10]], [0.5, 0.5, 0.5], [1, 0, 1])
    assert kept.tolist() == [0, 1, 2]
    kept, scores = soft_nms(np.zeros((0, 2)), [], [])
    assert kept.shape == scores.shape == (0,) and kept.dtype == np.int64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(spans_N2=[[0, 1]], scores_N=[0.5, 0.4], labels_N=[0]), "got 1, 2, 1"),
        (dict(spans_N2=[[0, 1]], scores_N=[math.nan], labels_N=[0]), "got NaN or infinity"),
        (dict(spans_N2=[[0, 1]], scores_N=[0.5], labels_N=[0], sigma=0), "sigma > 0, got 0"),
        (dict(spans_N2=[[0, 1]], scores_N=[0.5], labels_N=[0], similarity=np.zeros((2, 2))), r"got \(2, 2\)"),
    ],
)
def test_wrong_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        soft_nms(**arguments)
