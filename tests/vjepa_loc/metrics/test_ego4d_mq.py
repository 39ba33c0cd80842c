import pytest

from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.errors import ConfigError
from vjepa_loc.events import Event
from vjepa_loc.metrics import ego4d_mq
from vjepa_loc.scoring_input import ScoringInput


def event(start, end, score=None, label="cut", video="v"):
    return Event(video, label, start, end, score=score)


def result_of(truths, predictions, thresholds=ego4d_mq.DEFAULT_THRESHOLDS):
    dataset = Dataset(("cut", "peel"), {video: Video(video, num_frames=1000) for video in ("v", "w")}, truths)
    return ego4d_mq.compute(ScoringInput.of(dataset, predictions), thresholds=thresholds)


def recalls(truths, predictions, threshold=0.5):
    values = result_of(truths, predictions, [threshold]).values
    return [values[f"ego4d_mq/recall@{threshold:.2f}@{k}x"] for k in (1, 2, 3, 4, 5)]


def test_the_first_predictions_in_the_order_of_the_file_count():
    truths = [event(0, 10), event(20, 30)]
    # Two truths: the first two predictions of the file for 1x, the first four for 2x, whatever their scores.
    predictions = [
        event(50, 60, 0.1),
        event(0, 10, 0.2),
        event(50, 60, 0.9),
        event(50, 60, 0.9),
        event(20, 30, 1.0),
    ]
    assert recalls(truths, predictions) == [0.5, 0.5, 1, 1, 1]
    assert recalls(truths, predictions[::-1]) == [0.5, 1, 1, 1, 1]


def test_a_file_that_is_not_by_score_is_noted():
    def notes(*predictions):
        return result_of([event(0, 10), event(0, 10, label="peel")], predictions, [0.5]).notes

    rising = event(0, 10, 0.1), event(0, 10, 0.5, label="peel"), event(0, 10, 0.5, video="w"), event(0, 10, 0.1)
    assert notes(*rising) == []
    assert notes(*rising, event(0, 9, 0.2), event(0, 8, 0.15)) == [
        "ego4d_mq: 1 predictions follow one of lower score of their video and label; recall@Kx takes the first of the "
        "file, not the best"
    ]


def test_other_labels_and_videos_take_no_place():
    truths = [event(0, 10)]
    others = [event(0, 10, 0.9, label="peel"), event(0, 10, 0.9, video="w")]
    assert recalls(truths, [*others, event(0, 10, 0.1)]) == [1] * 5
    assert recalls(truths, others) == [0] * 5


def test_the_overlap_must_be_above_the_threshold():
    assert recalls([event(0, 10)], [event(0, 5, 0.5)]) == [0] * 5
    assert recalls([event(0, 10)], [event(0, 5.001, 0.5)]) == [1] * 5
    # By the hull exactly a half; by the union of lengths a last bit above.
    assert recalls([event(0.3, 1.7)], [event(1.0, 1.7, 0.5)]) == [0] * 5
    # Precision counts the threshold itself.
    assert result_of([event(0, 10)], [event(0, 5, 0.5)]).values["ego4d_mq/map@0.50"] == 1


def test_one_prediction_finds_several_truths_and_duplicates_find_no_more():
    assert recalls([event(0, 10), event(1, 10)], [event(0, 10, 0.5)] * 2) == [1] * 5
    assert recalls([event(0, 10), event(0, 10)], [event(0, 10, 0.5)]) == [1] * 5


def test_recall_is_over_all_truths_and_precision_over_labels():
    truths = [event(0, 10), event(20, 30), event(0, 10, video="w"), event(0, 10, label="peel")]
    result = result_of(truths, [event(0, 10, 0.9), event(0, 10, 0.8, label="peel")], [0.5])
    assert result.values["ego4d_mq/recall@0.50@1x"] == 0.5
    assert result.values["ego4d_mq/map@0.50"] == pytest.approx((1 / 3 + 1) / 2)
    assert result.per_class["cut"]["ego4d_mq/recall@0.50@1x"] == pytest.approx(1 / 3)
    assert result.per_class["peel"]["ego4d_mq/recall@0.50@1x"] == 1


def test_the_thresholds_of_the_benchmark_unless_others_are_asked_for():
    # 7 of 20 frames: 0.35.
    values = result_of([event(0, 20)], [event(0, 7, 0.5)]).values
    assert set(values) == {f"ego4d_mq/recall@{at}@{k}x" for at in ("0.30", "0.50", "0.70") for k in range(1, 6)} | {
        f"ego4d_mq/map@{at}" for at in ("0.10", "0.20", "0.30", "0.40", "0.50", "0.10:0.50")
    }
    assert values["ego4d_mq/recall@0.30@1x"] == 1 and values["ego4d_mq/recall@0.50@1x"] == 0
    assert values["ego4d_mq/map@0.10:0.50"] == pytest.approx(3 / 5)
    result = result_of([event(0, 20)], [event(0, 7, 0.5)], [(0.2, 0.3, 0.4)])
    assert result.values["ego4d_mq/recall@0.20:0.40@5x"] == result.values["ego4d_mq/map@0.20:0.40"] == pytest.approx(2 / 3)
    assert result.headline == ("ego4d_mq/recall@0.20:0.40@1x", "ego4d_mq/map@0.20:0.40")
    with pytest.raises(ConfigError, match="IoU thresholds"):
        result_of([], [], [0])


def test_headline():
    assert result_of([event(0, 20)], []).headline == ("ego4d_mq/recall@0.50@1x", "ego4d_mq/map@0.10:0.50")


def test_a_label_without_truth_is_left_out_and_said_and_no_truth_is_zero():
    result = result_of([event(0, 10)], [event(0, 10, 0.5), event(0, 10, 0.9, label="peel")], [0.5])
    assert result.values["ego4d_mq/map@0.50"] == result.values["ego4d_mq/recall@0.50@1x"] == 1
    assert result.notes == ["ego4d_mq: label 'peel' has no truth here and is not scored; 1 predictions are not counted"]
    nothing = result_of([], [event(0, 10, 0.5)])
    assert set(nothing.values.values()) == {0.0} and any("no truth" in note for note in nothing.notes)
