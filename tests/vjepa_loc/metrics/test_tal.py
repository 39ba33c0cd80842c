import json
from pathlib import Path

import numpy as np
import pytest

from vjepa_loc.dataset import Dataset, Video, read_dataset, read_predictions
from vjepa_loc.errors import DatasetError, UnknownNameError
from vjepa_loc.events import Event
from vjepa_loc.metrics import _span_pairs, tal
from vjepa_loc.metrics._result import steps
from vjepa_loc.scoring_input import ScoringInput

REFERENCE = Path(__file__).resolve().parents[4] / "shared" / "data" / "reference_scores" / "jhmdb_mix_a"


def dataset(*events, labels=("take", "return", "rummage"), videos=("v", "w")):
    return Dataset(labels, {video: Video(video, num_frames=1000) for video in videos}, events)


def event(start, end, score=None, label="take", video="v"):
    return Event(video, label, start, end, score=score)


def dropped(truth, predictions, thresholds=(0.5,), videos=("v", "w")):
    return tal.compute(ScoringInput.of(truth, predictions, videos), "drop", thresholds)


def average_precision(truth, predictions, threshold=0.5):
    return tal.compute(ScoringInput.of(truth, predictions, ["v", "w"]), thresholds=[threshold]).values[f"tal/map@{threshold:.2f}"]


@pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"needs the official evaluators' figures in {REFERENCE}")
def test_against_the_figures_of_the_official_evaluator():
    truth = read_dataset(REFERENCE / "truth.json")
    predictions = read_predictions(REFERENCE / "predictions.json", truth)
    official = json.loads((REFERENCE / "tal.json").read_text())
    thresholds = [float(name.removeprefix("mAP@")) for name in official["activitynet"]]
    video_ids = [video.id for video in truth.videos_of_split("all")]
    result = tal.compute(ScoringInput.of(truth, predictions, video_ids), thresholds=[*thresholds, thresholds])
    for name, value in official["activitynet"].items():
        assert result.values[f"tal/map@{float(name.removeprefix('mAP@')):.2f}"] == pytest.approx(value, abs=1e-6)
    assert result.values["tal/map@0.30:0.90"] == pytest.approx(official["activitynet_mean"], abs=1e-6)

    result = tal.compute(ScoringInput.of(truth, predictions, video_ids), "drop", [*thresholds, thresholds])
    assert result.values["tal[drop]/map@0.30:0.90"] == pytest.approx(official["opentad"].pop("average_mAP"), abs=1e-6)
    assert len(official["opentad"]) == 21
    for name, value in official["opentad"].items():
        quantity, threshold, *multiple = name.split("@")
        key = "@".join([f"tal[drop]/{quantity.lower()}", f"{float(threshold):.2f}", *multiple])
        assert result.values[key] == pytest.approx(value, abs=1e-6)


def test_each_truth_is_found_once_and_the_best_scores_come_first():
    truth = dataset(event(0, 10), event(100, 110))
    found, again, elsewhere = event(0, 10, 0.9), event(0, 9, 0.8), event(100, 110, 0.7)
    # Ranked: true, false (the truth is taken), true: (1 + 2/3) / 2.
    assert average_precision(truth, [elsewhere, again, found]) == pytest.approx((1 + 2 / 3) / 2)


def test_a_prediction_takes_the_next_truth_when_the_best_one_is_taken():
    truth = dataset(event(0, 10), event(2, 12))
    assert average_precision(truth, [event(0, 10, 0.9), event(0, 10, 0.8)]) == 1
    assert average_precision(truth, [event(0, 10, 0.9), event(0, 10, 0.8)], 0.75) == 0.5


def test_the_threshold_itself_is_reached():
    # 11 of 20 frames are exactly 0.55, as are the fractional 5.5 of 10.
    assert average_precision(dataset(event(0, 20)), [event(0, 11, 0.5)], 0.55) == 1
    assert average_precision(dataset(event(0, 10)), [event(0, 5.5, 0.5)], 0.55) == 1
    assert average_precision(dataset(event(0, 10)), [event(0, 5.499, 0.5)], 0.55) == 0


def test_equal_scores_keep_the_order_of_the_file():
    truth = dataset(event(0, 10), event(0, 10, video="w"))
    right, wrong = event(0, 10, 0.5, video="w"), event(50, 60, 0.5)
    assert average_precision(truth, [right, wrong]) == 0.5
    assert average_precision(truth, [wrong, right]) == 0.25


def test_a_video_is_no_other_video_and_a_label_no_other_label():
    truth = dataset(event(0, 10))
    assert average_precision(truth, [event(0, 10, 0.9, video="w")]) == 0
    assert average_precision(truth, [event(0, 10, 0.9, label="return")]) == 0


def test_the_mean_is_over_the_labels_that_have_truth():
    truth = dataset(event(0, 10), event(0, 10, label="return"))
    result = tal.compute(ScoringInput.of(truth, [event(0, 10, 0.9), event(5, 9, 0.9, label="rummage")], ["v", "w"]))
    assert result.values == {"tal/map@0.25": 0.5, "tal/map@0.50": 0.5, "tal/map@0.50:0.95": 0.5}
    assert result.per_class["take"]["tal/map@0.50"] == 1 and result.per_class["return"]["tal/map@0.50"] == 0
    assert set(result.per_class) == {"take", "return"}
    assert result.notes == ["tal: label 'rummage' has no truth here and is not scored; 1 predictions are not counted"]


def test_the_range_is_the_mean_over_its_thresholds():
    # IoU 0.75 passes six of the ten thresholds.
    result = tal.compute(ScoringInput.of(dataset(event(0, 20)), [event(0, 15, 0.9)], ["v"]))
    assert result.values["tal/map@0.50:0.95"] == pytest.approx(0.6)


@pytest.mark.parametrize("convention", tal.CONVENTIONS)
def test_a_range_has_the_floats_of_linspace(convention):
    thresholds = [0.3, steps(0.1, 0.1, 0.9), steps(0.3, 0.1, 0.7)]
    inputs = ScoringInput.of(dataset(event(0, 10)), [event(0, 3, 0.9)], ["v"])
    values = tal.compute(inputs, convention, thresholds).values
    key = f"tal[{convention}]" if convention else "tal"
    # Exactly 3/10 is less than 0.30000000000000004, the third of the nine.
    found = [values[f"{key}/map@{name}"] for name in ("0.30", "0.10:0.90", "0.30:0.70")]
    assert found == pytest.approx([1, 2 / 9, 1 / 5])


def test_only_the_given_videos_count():
    truth = dataset(event(0, 10), event(0, 10, video="w"))
    result = tal.compute(ScoringInput.of(truth, [event(0, 10, 0.9), event(0, 10, 0.95, video="w")], ["v"]), thresholds=[0.5])
    assert result.values == {"tal/map@0.50": 1}
    assert ScoringInput.of(truth, [event(0, 10, 0.95, video="w")], ["v"]).num_elsewhere == 1
    # A video without predictions keeps its truth as missed.
    assert tal.compute(ScoringInput.of(truth, [event(0, 10, 0.9)], ["v", "w"]), thresholds=[0.5]).values == {"tal/map@0.50": 0.5}


def test_no_predictions_and_no_truth():
    assert average_precision(dataset(event(0, 10)), []) == 0
    result = tal.compute(ScoringInput.of(dataset(), [event(0, 10, 0.9)], ["v", "w"]), thresholds=[0.5])
    assert result.values == {"tal/map@0.50": 0} and result.per_class == {}
    assert result.notes[-1] == "tal: no truth to score against in 2 videos, every figure is 0"


def test_a_prediction_without_a_score_and_an_unknown_video_are_refused():
    with pytest.raises(DatasetError, match=r"predictions\[0\] \('take' in video 'v'\): expected a score, got none"):
        average_precision(dataset(event(0, 10)), [event(0, 10)])
    with pytest.raises(UnknownNameError, match="'u' is not in the dataset"):
        tal.compute(ScoringInput.of(dataset(), [], ["u"]))


def test_a_score_that_is_not_a_number_never_becomes_a_prediction():
    with pytest.raises(DatasetError, match="score: expected a finite number, got nan"):
        event(0, 10, float("nan"))


def test_of_truths_that_are_equally_close_the_last_one_is_taken():
    # Both overlap the first prediction by a half; the second prediction fits the first truth only.
    truth = dataset(event(0, 10), event(10, 20))
    assert average_precision(truth, [event(0, 20, 0.9), event(0, 10, 0.8)]) == 1
    assert average_precision(truth, [event(0, 20, 0.9), event(10, 20, 0.8)]) == 0.5


def test_a_repeated_truth_counts_twice_unless_dropped():
    truth = dataset(event(0, 10), event(0, 10), event(50, 60))
    predictions = [event(0, 10, 0.9), event(0, 10, 0.8), event(50, 60, 0.7)]
    assert average_precision(truth, predictions) == 1
    assert average_precision(truth, predictions[:1]) == pytest.approx(1 / 3)
    # Without the repetition the second prediction is false: precision 1, then 2/3 at the last.
    result = dropped(truth, predictions)
    assert result.values["tal[drop]/map@0.50"] == pytest.approx((1 + 2 / 3) / 2)
    assert result.notes == ["tal[drop]: 1 of 3 truth events repeat another one and are dropped"]
    assert dropped(truth, predictions[:1]).values["tal[drop]/map@0.50"] == 0.5


def test_what_is_the_same_truth():
    def kept(*events, fps=None, videos=("v", "w")):
        truth = Dataset(("take", "return"), {video: Video(video, fps=fps, num_frames=1000) for video in videos}, events)
        return tal.first_of_repeated(ScoringInput.of(truth, [])).tolist()

    others = event(0, 10, label="return"), event(0, 10, video="w")
    assert kept(event(0, 10), *others, event(0, 10), *others) == [True] * 3 + [False] * 3
    # Both ends within a thousandth: of a frame where nothing else is known, else of a second.
    assert kept(event(1, 10), event(1.0009, 9.9991), event(1.0011, 10), event(1, 10.0011)) == [True, False, True, True]
    assert kept(event(1, 10), event(1.024, 9.976), event(1.026, 10), event(1, 10.026), fps=25) == [True, False, True, True]
    # Compared with what is kept, not with what is dropped: the third is too far from the first, the second is gone.
    assert kept(event(1, 10), event(1.0008, 10), event(1.0016, 10)) == [True, False, True]
    # In the order of the file: from the middle, both others are the same.
    assert kept(event(1.0008, 10), event(1, 10), event(1.0016, 10)) == [True, False, False]
    # Across the border of whatever they are compared by.
    assert kept(event(0.0019, 10), event(0.0021, 10), event(0.0012, 10.0008)) == [True, False, False]


def test_recall_of_the_first_predictions():
    truth = dataset(event(0, 10), event(20, 30), event(0, 10, video="w"))
    predictions = [
        # Two truths in v: the first two by score decide, in w the first one; five times as many find all.
        event(50, 60, 0.9),
        event(20, 30, 0.8),
        event(0, 10, 0.7),
        event(50, 60, 0.6, video="w"),
        event(0, 10, 0.5, video="w"),
    ]
    values = dropped(truth, predictions[::-1]).values
    assert values["tal[drop]/recall@0.50@1"] == pytest.approx(1 / 3)
    assert values["tal[drop]/recall@0.50@5"] == 1
    # Ten false ones before it are too many even for five times.
    crowd = [event(50 + index, 60 + index, 2.0) for index in range(10)]
    assert dropped(truth, [*predictions, *crowd]).values["tal[drop]/recall@0.50@5"] == pytest.approx(1 / 3)
    assert dropped(truth, [*predictions, *crowd[:8]]).values["tal[drop]/recall@0.50@5"] == pytest.approx(2 / 3)


def test_recall_takes_ties_by_file_reaches_the_threshold_and_finds_several_with_one():
    truth = dataset(event(0, 10))
    right, wrong = event(0, 5, 0.5), event(50, 60, 0.5)
    assert dropped(truth, [right, wrong]).values["tal[drop]/recall@0.50@1"] == 1
    assert dropped(truth, [wrong, right]).values["tal[drop]/recall@0.50@1"] == 0
    assert dropped(truth, [right], [0.51]).values["tal[drop]/recall@0.51@1"] == 0
    several = dropped(dataset(event(0, 10), event(1, 10)), [event(0, 10, 0.5)]).values
    assert several["tal[drop]/recall@0.50@1"] == 1 and several["tal[drop]/map@0.50"] == 0.5


def test_recall_is_the_mean_over_labels_then_thresholds():
    truth = dataset(event(0, 20), event(30, 40), event(50, 60), event(0, 10, label="return"), event(0, 10, label="rummage"))
    predictions = [event(0, 15, 0.9), event(0, 10, 0.9, label="return")]
    values = dropped(truth, predictions, [0.5, (0.5, 0.7, 0.9)]).values
    assert values["tal[drop]/recall@0.50@1"] == pytest.approx((1 / 3 + 1 + 0) / 3)
    # 15 of 20 frames pass two of the three thresholds.
    assert values["tal[drop]/recall@0.50:0.90@1"] == pytest.approx((2 / 9 + 1 + 0) / 3)
    per_class = dropped(truth, predictions).per_class
    assert per_class["take"]["tal[drop]/recall@0.50@1"] == pytest.approx(1 / 3)


def test_repeated_truths_are_dropped_before_recall_counts_them():
    truth = dataset(event(0, 10), event(0, 10), event(30, 40))
    predictions = [event(50, 60, 0.9), event(60, 70, 0.8), event(0, 10, 0.7)]
    # Two truths are left, so two predictions are looked at.
    assert dropped(truth, predictions).values["tal[drop]/recall@0.50@1"] == 0


def test_the_range_of_the_official_default_has_its_floats():
    # The overlap is 0.9 less a last bit, which is a float of numpy.linspace(0.5, 0.95, 10) too.
    truth, prediction = event(0, 1), event(0, 0.8999999999999999, 0.5)
    result = tal.compute(ScoringInput.of(dataset(truth), [prediction]), thresholds=[0.9, steps(0.5, 0.05, 0.95)])
    assert result.values["tal/map@0.90"] == 0 and result.values["tal/map@0.50:0.95"] == pytest.approx(0.9)
    values = dropped(dataset(truth), [prediction], [0.9, steps(0.5, 0.05, 0.95)]).values
    assert values["tal[drop]/map@0.90"] == 0 and values["tal[drop]/map@0.50:0.95"] == pytest.approx(0.9)


@pytest.mark.parametrize("chunk", [3, 4_000_000])
def test_against_a_loop_over_every_pair(chunk, monkeypatch):
    """The rules once more, one prediction and one truth after the other."""
    monkeypatch.setattr(_span_pairs, "_CHUNK", chunk)
    for seed in range(30):
        rng = np.random.default_rng(seed)

        def events(num, scored):
            starts = rng.integers(0, 30, num) / rng.choice([1, 3])
            rows = zip(starts, starts + rng.integers(1, 12, num), rng.permutation(num), strict=True)
            labels, videos = rng.choice(["take", "return"], num).tolist(), rng.choice(["v", "w"], num).tolist()
            return [
                event(start, end, score / 100 if scored else None, labels[at], videos[at])
                for at, (start, end, score) in enumerate(rows)
            ]

        truths, predictions = events(12, False), events(40, True)
        for threshold in (0.3, 0.5):
            precisions, recalls = [], []
            for label in {truth.label for truth in truths}:
                own = sorted((one for one in predictions if one.label == label), key=lambda one: -one.score)
                left = [truth for truth in truths if truth.label == label]
                num_truths, precision, num_true, best = len(left), [], 0, 0.0
                for rank, one in enumerate(own, 1):
                    near = [truth for truth in left if truth.video_id == one.video_id and overlap(one, truth) >= threshold]
                    if near:
                        left.remove(max(reversed(near), key=lambda truth: overlap(one, truth)))
                        num_true += 1
                        precision.append(num_true / rank)
                precisions.append(sum(best := max(best, value) for value in reversed(precision)) / num_truths)
                num_found = 0
                for video in ("v", "w"):
                    mine = [truth for truth in truths if (truth.label, truth.video_id) == (label, video)]
                    first = [one for one in own if one.video_id == video][: len(mine)]
                    num_found += sum(any(overlap(one, truth) >= threshold for one in first) for truth in mine)
                recalls.append(num_found / num_truths)
            assert average_precision(dataset(*truths), predictions, threshold) == pytest.approx(np.mean(precisions))
            if tal.first_of_repeated(ScoringInput.of(dataset(*truths), [])).all():
                recall = dropped(dataset(*truths), predictions, [threshold]).values[f"tal[drop]/recall@{threshold:.2f}@1"]
                assert recall == pytest.approx(np.mean(recalls))


def overlap(one, other):
    common = min(one.end_frame, other.end_frame) - max(one.start_frame, other.start_frame)
    lengths = (one.end_frame - one.start_frame) + (other.end_frame - other.start_frame)
    return max(common, 0) / (lengths - max(common, 0))
