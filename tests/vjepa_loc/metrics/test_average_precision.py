import numpy as np
import pytest

from vjepa_loc.errors import ConfigError
from vjepa_loc.metrics._average_precision import interpolated_average_precision, match_free_truths
from vjepa_loc.metrics._result import GROCERY_VISION_THRESHOLDS, threshold_names


def official_average_precision(true_P, num_truths):
    """The evaluator's formulation: sentinels at both ends, envelope from the right, steps of recall."""
    tp = np.cumsum(true_P)
    precision = np.hstack([[0], tp / np.arange(1, len(true_P) + 1), [0]])
    recall = np.hstack([[0], tp / num_truths, [1]])
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return float(((recall[steps] - recall[steps - 1]) * precision[steps]).sum())


def match_loop(similarity_PG, threshold):
    """The evaluator's locking, one threshold at a time."""
    locked, matched = set(), []
    for row in similarity_PG:
        found = next((g for g in np.argsort(-row, kind="stable") if row[g] >= threshold and g not in locked), None)
        matched.append(found is not None)
        locked.add(found)
    return matched


def test_average_precision_by_hand():
    # Precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3; the third truth is never found.
    assert interpolated_average_precision(np.array([True, False, True]), 3) == pytest.approx((1 + 2 / 3) / 3)
    assert interpolated_average_precision(np.array([False, True, True]), 2) == pytest.approx(2 / 3)
    assert interpolated_average_precision(np.zeros(0, bool), 3) == 0


def test_average_precision_against_the_evaluators_rules():
    rng = np.random.default_rng(0)
    for _ in range(100):
        true_P = rng.random(rng.integers(1, 30)) < rng.random()
        num_truths = int(true_P.sum()) + int(rng.integers(1, 5))
        assert interpolated_average_precision(true_P, num_truths) == pytest.approx(
            official_average_precision(true_P, num_truths)
        )


def test_matching_against_the_evaluators_rules():
    rng = np.random.default_rng(1)
    thresholds = np.array([0.25, 0.5, 0.75])
    for _ in range(100):
        similarity = np.round(rng.random((rng.integers(0, 12), rng.integers(0, 6))), 1)
        matched = match_free_truths(similarity, thresholds)
        assert matched.shape == (len(similarity), 3)
        for level, threshold in enumerate(thresholds):
            assert matched[:, level].tolist() == match_loop(similarity, threshold)


def test_a_taken_truth_leads_to_the_next_best_one():
    similarity = np.array([[0.9, 0.6], [0.8, 0.6], [0.9, 0.9]])
    assert match_free_truths(similarity, np.array([0.5, 0.7])).tolist() == [[True, True], [True, False], [False, True]]


def test_threshold_names():
    names = threshold_names(GROCERY_VISION_THRESHOLDS)
    assert list(names) == ["0.25", "0.50", "0.50:0.95"]
    assert names["0.50:0.95"] == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    assert list(threshold_names([0.125, (0.3, 0.7)])) == ["0.125", "0.30:0.70"]


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ([], "expected at least one, got none"),
        ([0.0], r"expected numbers above 0 and up to 1, got \[0.0\]"),
        ([float("nan")], r"got \[nan\]"),
        ([50], r"got \[50.0\]"),
        ([()], r"got \[\]"),
        ([0.5, (0.5,)], "two entries would both be named '0.50'"),
    ],
)
def test_wrong_thresholds_are_refused(thresholds, message):
    with pytest.raises(ConfigError, match=message):
        threshold_names(thresholds)
