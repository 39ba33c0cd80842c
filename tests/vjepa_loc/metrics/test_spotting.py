import numpy as np
import pytest

from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.events import Event
from vjepa_loc.metrics import spotting
from vjepa_loc.scoring_input import ScoringInput


def event(start, end, score=None, label="cut", video="v"):
    return Event(video, label, start, end, score=score)


def result_of(truths, predictions):
    dataset = Dataset(("cut", "peel"), {video: Video(video, num_frames=1000) for video in ("v", "w")}, truths)
    return spotting.compute(ScoringInput.of(dataset, predictions))


def figures(truths, predictions, boundary="start"):
    values = result_of(truths, predictions).values
    return [values[f"spotting/{boundary}_map@{tolerance}"] for tolerance in (0, 1, 2, 4)]


def test_starts_and_ends_within_each_tolerance():
    truths = [event(10, 50)]
    # 2 frames late at the start, 4 early at the end.
    assert figures(truths, [event(12, 46, 0.5)]) == [0, 0, 1, 1]
    assert figures(truths, [event(12, 46, 0.5)], "end") == [0, 0, 0, 1]
    # The other end, and how long the event is, counts nothing.
    assert figures(truths, [event(10, 900, 0.5)]) == [1, 1, 1, 1]
    assert result_of(truths, [event(12, 46, 0.5)]).values["spotting/start_map@0:4"] == 0.5


def test_fractional_frames_are_not_rounded():
    assert figures([event(10, 50)], [event(10.5, 52.5, 0.5)]) == [0, 1, 1, 1]
    assert figures([event(10, 50)], [event(10.5, 52.5, 0.5)], "end") == [0, 0, 0, 1]
    assert figures([event(10.25, 50)], [event(8.25, 50, 0.5)]) == [0, 0, 1, 1]


def test_the_closest_truth_that_is_not_found_yet():
    truths = [event(10, 50), event(13, 50)]
    # Both predictions are closest to the first truth; the second one then takes the other if it is near enough.
    assert figures(truths, [event(10, 50, 0.9), event(11, 50, 0.8)]) == [0.5, 0.5, 1, 1]
    # A prediction in the middle of two goes to the first in the file, whichever is earlier in time.
    third = [event(11, 50, 0.9), event(9, 50, 0.8)]
    assert figures([event(10, 50), event(12, 50)], third)[1] == 0.5
    assert figures([event(12, 50), event(10, 50)], third)[1] == 1


def test_average_precision_by_hand():
    truths = [event(10, 50), event(100, 150), event(200, 250)]
    # True, false, true: precision 1 and 2/3, the third truth is never found.
    predictions = [event(200, 250, 0.7), event(10, 50, 0.9), event(10, 50, 0.8)]
    assert figures(truths, predictions) == pytest.approx([(1 + 2 / 3) / 3] * 4)
    # An early false one: precision 1/2, 2/3, and the envelope lifts the first.
    assert figures(truths, [event(500, 550, 0.95), *predictions[:2]]) == pytest.approx([(2 / 3 + 2 / 3) / 3] * 4)


def test_equal_scores_keep_the_order_of_the_file():
    right, wrong = event(10, 50, 0.5), event(500, 550, 0.5)
    assert figures([event(10, 50)], [right, wrong]) == [1] * 4
    assert figures([event(10, 50)], [wrong, right]) == [0.5] * 4


def test_truths_at_one_position_can_be_found_only_once_and_count_each():
    truths = [event(10, 50), event(10, 60), event(10, 50, video="w"), event(10, 50, label="peel")]
    predictions = [
        event(10, 50, 0.9),
        event(10, 60, 0.8),
        event(10, 50, 0.7, video="w"),
        event(10, 50, 0.6, label="peel"),
    ]
    # True, false, true of three; the other label is perfect.
    assert figures(truths, predictions) == pytest.approx([((1 + 2 / 3) / 3 + 1) / 2] * 4)
    assert figures(truths, predictions, "end") == [1] * 4
    notes = result_of(truths, predictions).notes
    assert notes == [
        "spotting: 1 of 4 truth events start with another one of their video and label; by the official rule these "
        "cannot be found"
    ]


def test_videos_labels_and_the_mean_over_labels_with_truth():
    truths = [event(10, 50), event(10, 50, label="peel")]
    assert figures(truths, [event(10, 50, 0.9), event(10, 50, 0.8, label="peel", video="w")]) == [0.5] * 4
    result = result_of(truths[:1], [event(10, 50, 0.9), event(10, 50, 0.9, label="peel")])
    assert result.values["spotting/start_map@0"] == 1 and set(result.per_class) == {"cut"}
    assert result.notes == ["spotting: label 'peel' has no truth here and is not scored; 1 predictions are not counted"]


def test_errors_of_the_matched_events():
    truths = [event(100, 200), event(300, 400), event(500, 600), event(700, 710, label="peel")]
    predictions = [
        event(104, 197, 0.9),
        event(299, 401.5, 0.8),
        # Matched at exactly 0.5; the next one below it, and the repetition of a found one not at all.
        event(500, 550, 0.7),
        event(700, 704, 0.6, label="peel"),
        event(100, 200, 0.5),
    ]
    result = result_of(truths, predictions)
    # Late by 4, -1, 0 at the start, by -3, 1.5, -50 at the end.
    expected = {
        "spotting/start_error_frames": 5 / 3,
        "spotting/start_error_median_frames": 1,
        "spotting/end_error_frames": 54.5 / 3,
        "spotting/end_error_median_frames": 3,
    }
    assert {key: result.values[key] for key in expected} == pytest.approx(expected)
    assert {key: result.per_class["cut"][key] for key in expected} == pytest.approx(expected)
    assert not set(expected) & set(result.per_class["peel"])
    (table,) = result.tables
    assert table.columns == (
        *("class", "truth", "matched", "start mean distance", "start median distance", "start bias"),
        *("end mean distance", "end median distance", "end bias"),
    )
    row = pytest.approx([5 / 3, 1, 1, 54.5 / 3, 3, -51.5 / 3])
    assert [line[:3] for line in table.rows] == [("all", 4, 3), ("cut", 3, 3), ("peel", 1, 0)]
    assert list(table.rows[0][3:]) == row and list(table.rows[1][3:]) == row
    assert table.rows[2][3:] == (None,) * 6


def test_errors_weigh_videos_as_often_as_they_are_drawn():
    truths = [event(100, 200), event(100, 200, video="w"), event(300, 400, video="w")]
    predictions = [event(104, 200, 0.9), event(101, 200, 0.8, video="w"), event(298, 400, 0.7, video="w")]
    result = result_of(truths, predictions)
    drawn = result.resample(np.array([[1, 1], [2, 0], [1, 2], [0, 0]]))
    assert drawn["spotting/start_error_frames"] == pytest.approx([7 / 3, 4, (4 + 2 * 3) / 5, np.nan], nan_ok=True)
    assert result.headline == (
        *("spotting/start_map@1", "spotting/end_map@1"),
        *("spotting/start_error_frames", "spotting/end_error_frames"),
    )


def test_without_a_match_there_is_no_error_and_without_truth_nothing():
    result = result_of([event(100, 200)], [event(100, 130, 0.9)])
    assert result.values["spotting/start_map@0"] == 1
    assert not any("error" in key for key in (*result.values, *result.headline, *result.resample(np.ones((1, 2), dtype=int))))
    assert result.notes == ["spotting: no prediction is matched at a temporal IoU of 0.5, there is no boundary error to give"]
    assert result.tables == ()
    assert any("no truth" in note for note in result_of([], [event(100, 130, 0.9)]).notes)
