import json
from pathlib import Path

import pytest

from vjepa_loc.dataset import Dataset, Video, read_dataset, read_predictions
from vjepa_loc.errors import DatasetError, UnknownNameError
from vjepa_loc.events import Event
from vjepa_loc.metrics import tal
from vjepa_loc.scoring_input import ScoringInput

REFERENCE = Path(__file__).resolve().parents[4] / "shared" / "data" / "reference_scores" / "jhmdb_mix_a"


def dataset(*events, labels=("take", "return", "rummage"), videos=("v", "w")):
    return Dataset(labels, {video: Video(video, num_frames=1000) for video in videos}, events)


def event(start, end, score=None, label="take", video="v"):
    return Event(video, label, start, end, score=score)


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
