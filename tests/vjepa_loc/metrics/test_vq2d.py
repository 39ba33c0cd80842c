import numpy as np
import pytest

from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.events import Event
from vjepa_loc.metrics import vq2d
from vjepa_loc.scoring_input import ScoringInput

BOX = (0, 0, 10, 10)


def track(first, last, score=None, box=BOX, label="cup", video="v", interval=None):
    """A box on each frame from `first` to `last`, both included."""
    frames = np.arange(first, last + 1)
    start, end = interval or (first, last + 1)
    return Event(video, label, start, end, frames, np.tile(box, (len(frames), 1)), score=score)


def nowhere(score):
    return Event("v", "cup", 0, 10, score=score)


def result(truths, predictions, **options):
    videos = {video: Video(video, num_frames=1000) for video in ("v", "w")}
    return vq2d.compute(ScoringInput.of(Dataset(("cup", "key"), videos, truths), predictions), **options)


def figures(truths, predictions, **options):
    return {name.removeprefix("vq2d/"): value for name, value in result(truths, predictions, **options).values.items()}


def test_names_of_the_figures_and_the_perfect_answer():
    names = ("tap@0.25", "tap@0.25:0.95", "stap@0.25", "stap@0.25:0.95", "success", "recovery")
    assert figures([track(3, 9)], [track(3, 9, 0.1)]) == dict.fromkeys(names, 1)
    assert figures([track(3, 9)], []) == dict.fromkeys(names, 0)
    assert set(result([track(3, 9)], []).headline) == {f"vq2d/{name}" for name in names}


def test_time_runs_from_the_first_to_the_last_box_both_included():
    # One frame of four is 0.25; without +1 it would have no length at all.
    assert figures([track(0, 3)], [track(3, 3, 0.5)])["tap@0.25"] == 1
    assert figures([track(0, 4)], [track(4, 4, 0.5)])["tap@0.25"] == 0
    assert figures([track(7, 7)], [track(7, 7, 0.5)])["tap@0.25:0.95"] == 1
    # Whatever interval the event states.
    assert figures([track(0, 3)], [track(0, 3, 0.5, interval=(0, 90))])["tap@0.25:0.95"] == 1
    assert figures([track(0, 3)], [nowhere(0.5)])["tap@0.25"] == 0


def test_a_track_with_a_gap_runs_over_it():
    gap = Event("v", "cup", 0, 8, np.array([0, 7]), np.tile(BOX, (2, 1)), score=0.5)
    values = figures([track(0, 7)], [gap], thresholds=[0.25, 0.3, 1.0])
    assert values["tap@1.00"] == 1 and values["stap@0.25"] == 1 and values["stap@0.30"] == 0


def test_volume_iou_is_of_areas_not_of_box_iou():
    # Two frames of area 100; one frame of area 200 around them: 100 / (200 + 200 - 100).
    wide = track(0, 0, 0.5, box=(0, 0, 20, 10))
    values = figures([track(0, 1)], [wide], thresholds=[0.33, 0.34])
    assert values["stap@0.33"] == 1 and values["stap@0.34"] == 0
    # The same time at another place shares nothing, nor does the same place at another time.
    assert figures([track(0, 1)], [track(0, 1, 0.5, box=(15, 15, 25, 25))], thresholds=[0.01])["stap@0.01"] == 0
    assert figures([track(0, 1)], [track(2, 3, 0.5)], thresholds=[0.01])["stap@0.01"] == 0


def test_all_queries_stand_in_one_ranking_and_each_is_found_once():
    truths = [track(0, 9), track(0, 9, label="key")]
    first, again, other = track(0, 9, 0.9), track(0, 9, 0.8), track(0, 9, 0.7, label="key")
    # True, false (found already), true: (1 + 2/3) / 2, while recall@1 is the same for both labels.
    values = figures(truths, [other, again, first])
    assert values["tap@0.25"] == values["stap@0.25"] == pytest.approx((1 + 2 / 3) / 2)
    assert values["success"] == values["recovery"] == 1
    # One that falls short leaves the query free.
    assert figures([track(0, 9)], [track(50, 59, 0.9), track(0, 9, 0.8)])["tap@0.25"] == 0.5


def test_a_prediction_only_answers_its_own_query():
    assert figures([track(0, 9)], [track(0, 9, 0.9, video="w")])["tap@0.25"] == 0
    truths = [track(0, 9), track(50, 59, label="key")]
    assert figures(truths, [track(0, 9, 0.9, label="key")])["stap@0.25"] == 0


def test_success_takes_the_best_score_and_a_twentieth_of_the_volume():
    truth, twentieth = track(0, 0), track(0, 0, 0.5, box=(0, 0, 0.5, 10))
    assert figures([truth], [twentieth])["success"] == 1
    assert figures([truth], [track(0, 0, 0.5, box=(0, 0, 0.49, 10))])["success"] == 0
    assert figures([truth], [twentieth, track(5, 5, 0.6)])["success"] == 0
    assert figures([truth], [nowhere(0.6), twentieth])["success"] == 0


def test_equal_scores_keep_the_order_of_the_file():
    right, wrong = track(0, 9, 0.5), track(50, 59, 0.5)
    assert figures([track(0, 9)], [right, wrong])["success"] == figures([track(0, 9)], [right, wrong])["tap@0.25"] == 1
    swapped = figures([track(0, 9)], [wrong, right])
    assert swapped["success"] == swapped["recovery"] == 0 and swapped["stap@0.25"] == 0.5


def test_recovery_is_over_all_boxes_of_all_queries():
    # One box of one, and of three none: 1 / 4, not the mean of 1 and 0.
    truths = [track(0, 0), track(0, 2, label="key")]
    found = result(truths, [track(0, 0, 0.9)])
    assert found.values["vq2d/recovery"] == 0.25 and found.values["vq2d/success"] == 0.5
    assert found.notes == ["vq2d: 1 of 2 queries have no prediction and count 0"]
    assert found.per_class["cup"]["vq2d/recovery"] == 1 and found.per_class["key"]["vq2d/recovery"] == 0
    # An IoU of exactly one half is enough; frames outside the truth cost nothing.
    assert figures([track(0, 3)], [track(2, 30, 0.5, box=(0, 0, 5, 10))])["recovery"] == 0.5
    assert figures([track(0, 3)], [track(2, 30, 0.5, box=(0, 0, 4.99, 10))])["recovery"] == 0


def test_other_thresholds_change_only_the_precisions():
    values = figures([track(0, 9)], [track(0, 4, 0.5)], thresholds=[0.5, (0.4, 0.6)])
    assert values == {
        "tap@0.50": 1, "tap@0.40:0.60": 0.5, "stap@0.50": 1, "stap@0.40:0.60": 0.5, "success": 1, "recovery": 0.5,
    }


def test_a_query_of_several_truths_is_refused():
    assert "2 of 2 queries have more than one truth" in result(
        [track(0, 9), track(20, 29), track(0, 9, video="w"), track(20, 29, video="w")], []
    ).inapplicable
