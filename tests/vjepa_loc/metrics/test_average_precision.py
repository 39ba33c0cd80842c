import numpy as np
import pytest

from vjepa_loc.errors import ConfigError
from vjepa_loc.metrics._average_precision import RankedAnswers, average_precisions, coco_curve, envelope_curve, trapezoid_curve
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


def interpolated_average_precision(true_P, num_truths, curve=envelope_curve):
    true_PR = np.asarray(true_P, dtype=bool)[:, None]
    answers = RankedAnswers(np.zeros(len(true_PR), dtype=int), true_PR, np.array([num_truths]))
    return average_precisions(answers, np.ones((1, 1)), curve)[0, 0]


def official_trapezoid(true_P, num_truths):
    """pr_to_ap of ACT: straight lines from (precision 1, recall 0)."""
    tp = np.cumsum(true_P)
    precision = np.hstack([[1], tp / np.arange(1, len(true_P) + 1)])
    recall = np.hstack([[0], tp / num_truths])
    return float((np.diff(recall) * (precision[1:] + precision[:-1])).sum() / 2)


def official_coco(true_P, num_truths):
    """accumulate of pycocotools for one category, area and number of detections."""
    tp = np.cumsum(true_P).astype(float)
    recall, precision = tp / num_truths, (tp / (np.arange(1, len(true_P) + 1) + np.spacing(1))).tolist()
    for i in range(len(precision) - 1, 0, -1):
        precision[i - 1] = max(precision[i - 1], precision[i])
    sampled = np.zeros(101)
    for at, index in enumerate(np.searchsorted(recall, np.linspace(0, 1, 101), side="left")):
        if index < len(precision):
            sampled[at] = precision[index]
    return sampled.mean()


CURVES = {envelope_curve: official_average_precision, trapezoid_curve: official_trapezoid, coco_curve: official_coco}


def test_average_precision_by_hand():
    # Precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3; the third truth is never found.
    assert interpolated_average_precision(np.array([True, False, True]), 3) == pytest.approx((1 + 2 / 3) / 3)
    assert interpolated_average_precision(np.array([False, True, True]), 2) == pytest.approx(2 / 3)
    assert interpolated_average_precision(np.zeros(0, bool), 3) == 0


@pytest.mark.parametrize("curve", CURVES)
def test_average_precision_against_the_evaluators_rules(curve):
    rng = np.random.default_rng(0)
    for _ in range(100):
        true_P = rng.random(rng.integers(1, 30)) < rng.random()
        num_truths = int(true_P.sum()) + int(rng.integers(0 if true_P.any() else 1, 5))
        assert interpolated_average_precision(true_P, num_truths, curve) == pytest.approx(
            CURVES[curve](true_P, num_truths)
        )


def test_trapezoid_by_hand():
    assert interpolated_average_precision(np.array([True, True]), 2, trapezoid_curve) == 1
    # A false answer first: precision 0 at recall 0, then 1/2 at recall 1.
    assert interpolated_average_precision(np.array([False, True]), 1, trapezoid_curve) == pytest.approx(1 / 4)


@pytest.mark.parametrize("curve", CURVES)
def test_weighted_videos_are_copies_of_their_answers(curve):
    rng = np.random.default_rng(1)
    for _ in range(50):
        num_answers, num_videos = int(rng.integers(1, 40)), int(rng.integers(1, 6))
        video_P, true_PR = rng.integers(0, num_videos, num_answers), rng.random((num_answers, 2)) < 0.5
        ignored_PR = ~true_PR & (rng.random((num_answers, 2)) < 0.2)
        num_truths_V = np.bincount(video_P[true_PR.any(axis=1)], minlength=num_videos) + rng.integers(0, 3, num_videos)
        weights_WV = rng.integers(0, 4, (3, num_videos))
        answers = RankedAnswers(video_P, true_PR, num_truths_V, ignored_PR)
        ap_WR = average_precisions(answers, weights_WV, curve)
        for weights_V, ap_R in zip(weights_WV, ap_WR, strict=True):
            num_truths = int(weights_V @ num_truths_V)
            for level, ap in enumerate(ap_R):
                counted = ~ignored_PR[:, level]
                copies = np.repeat(true_PR[counted, level], weights_V[video_P[counted]])
                if num_truths == 0:
                    assert np.isnan(ap)
                else:
                    assert ap == pytest.approx(CURVES[curve](copies, num_truths) if len(copies) else 0.0)


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
