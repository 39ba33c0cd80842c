import numpy as np
import pytest

from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.errors import DatasetError
from vjepa_loc.events import Event
from vjepa_loc.metrics import ava
from vjepa_loc.scoring_input import ScoringInput

SQUARE, ELSEWHERE = [0, 0, 10, 10], [50, 50, 60, 60]


def dataset(*events, key_frames=None, labels=("stand", "sit"), size=(320, 240)):
    extra = {} if key_frames is None else {"key_frames": key_frames}
    videos = {name: Video(name, num_frames=100, width=size[0], height=size[1], extra=extra) for name in ("v", "w")}
    return Dataset(labels, videos, events)


def one(box, score=None, frame=0, label="stand", video="v"):
    return Event(video, label, frame, frame + 1, np.array([frame]), np.array([box], dtype=float), score=score)


def result(truth, predictions, thresholds=ava.DEFAULT_THRESHOLDS):
    return ava.compute(ScoringInput.of(truth, predictions), thresholds=thresholds)


def figure(truth, predictions):
    return result(truth, predictions).values["ava/map@0.50"]


def test_precision_by_hand():
    truth = dataset(one(SQUARE), one(SQUARE, frame=1))
    ranked = [one(SQUARE, 0.9), one(SQUARE, 0.8), one(SQUARE, 0.7, frame=1)]
    # True, false (found already), true: the envelope is 1 up to half the recall, then 2/3.
    assert figure(truth, ranked) == pytest.approx((1 + 2 / 3) / 2)


def test_only_the_best_truth_is_looked_at():
    truth = dataset(one(SQUARE), one([2, 0, 12, 10]))
    assert figure(truth, [one(SQUARE, 0.9), one(SQUARE, 0.8)]) == 0.5


def test_the_mean_is_over_labels_with_truth():
    guesses = [one(SQUARE, 0.9), one(SQUARE, 0.8, label="sit")]
    found = result(dataset(one(SQUARE)), guesses)
    assert found.values == {"ava/map@0.50": 1} and set(found.per_class) == {"stand"}
    assert found.notes == ["ava: label 'sit' has no truth with boxes here and is not scored; 1 predicted boxes"]
    assert figure(dataset(one(SQUARE), one(ELSEWHERE, label="sit")), guesses) == 0.5


def test_frames_with_truth_are_key_frames_unless_stated():
    truth = one(SQUARE, frame=3)
    empty_frame, found = one(SQUARE, 0.9, frame=4), one(SQUARE, 0.5, frame=3)
    plain = result(dataset(truth), [empty_frame, found])
    assert plain.values == {"ava/map@0.50": 1}
    assert plain.notes == [
        "ava: 1 predicted boxes lie on no key frame and do not count (key frames are those with a true box, "
        "where a video does not list its own under 'key_frames')"
    ]
    # On a key frame that says nobody is there, a box is false.
    stated = result(dataset(truth, key_frames=[3, 4]), [empty_frame, found])
    assert stated.values == {"ava/map@0.50": 0.5} and stated.notes == []
    # A frame of another label's truth is a key frame too.
    assert figure(dataset(truth, one(SQUARE, frame=4, label="sit")), [empty_frame, found]) == 0.25
    both = result(dataset(truth, one(SQUARE, frame=4), key_frames=[3]), [empty_frame, found])
    assert both.values == {"ava/map@0.50": 1}
    assert both.notes == [
        "ava: 1 true boxes lie on no key frame and do not count",
        "ava: 1 predicted boxes lie on no key frame and do not count",
    ]
    nowhere = result(dataset(truth, key_frames=[8]), [found])
    assert nowhere.inapplicable == "none of the 1 true boxes lies on a key frame"


@pytest.mark.parametrize("wrong", [7, "3", [1.5], [True], [-1], {"3": 1}, None])
def test_wrong_key_frames_are_refused(wrong):
    truth = Dataset(("stand",), {"v": Video("v", num_frames=9, extra={"key_frames": wrong})}, [one(SQUARE)])
    with pytest.raises(DatasetError, match="video 'v', key_frames: expected a list of whole frame numbers from 0, got"):
        result(truth, [])


def test_the_50_best_of_a_key_frame_count_over_all_labels():
    truth = dataset(one(SQUARE), one(SQUARE, frame=1))
    right = [one(SQUARE, 0.5), one(SQUARE, 0.4, frame=1)]
    full = [one(ELSEWHERE, 0.9, label="sit") for _ in range(50)]
    found = result(truth, full + right)
    assert found.values == {"ava/map@0.50": 0.5}
    assert "ava: 1 boxes beyond the 50 best of their key frame do not count" in found.notes
    assert figure(truth, full[1:] + right) == 1


def test_at_the_50th_score_the_first_boxes_of_the_file_enter():
    truth = dataset(one(SQUARE))
    others = [one(ELSEWHERE, 0.5) for _ in range(50)]
    assert figure(truth, [one(SQUARE, 0.5), *others]) == 1
    assert figure(truth, [*others[1:], one(SQUARE, 0.5)]) == pytest.approx(1 / 50)
    assert figure(truth, [*others, one(SQUARE, 0.5)]) == 0


def test_a_better_box_drives_out_the_smallest_of_those_that_entered():
    truth = dataset(one(SQUARE))
    right = one(SQUARE, 0.5)
    below_right, lower_label = one([0, 5, 3, 9], 0.5), one([0, 0, 3, 3], 0.5, label="sit")
    late = one(ELSEWHERE, 0.9)
    # The square has the smallest y1 of its label and goes, though it came first.
    assert figure(truth, [right, *[below_right] * 49, late]) == 0
    # A smaller label number goes before a larger one, whatever the edges.
    assert figure(truth, [right, *[lower_label] * 49, late]) == 0
    # Of the same y1 the smaller x1 goes, then the smaller y2, then the smaller x2; the square stays, after the better box.
    for smaller in ([-50, 0, 9, 9], [0, 0, 90, 9], [0, 0, 1, 10]):
        assert figure(truth, [right, one(smaller, 0.5), *[below_right] * 48, late]) == pytest.approx(0.5)
    for larger in ([1, 0, 2, 9], [0, 0, 1, 11], [0, 0, 90, 10]):
        assert figure(truth, [right, one(larger, 0.5), *[below_right] * 48, late]) == 0
    # A box below the 50th score never was in the way.
    assert figure(truth, [one(ELSEWHERE, 0.1), right, *[below_right] * 48, late]) == pytest.approx(0.5)


def test_equal_overlaps_go_to_the_truth_that_the_official_heap_holds_first():
    left, right = one(SQUARE), one([4, 0, 14, 10])
    between, on_right = one([2, 0, 12, 10], 0.9), one([4, 0, 14, 10], 0.8)
    # Of two, the smaller edges stand first, in whatever order the file has them.
    assert figure(dataset(left, right), [between, on_right]) == 1
    assert figure(dataset(right, left), [between, on_right]) == 1
    # Of three it is a heap, not a sorted list: 9, 4, 0 columns from the left push to 0, 9, 4.
    far = one([9, 0, 19, 10])
    middle = one([6.5, 0, 16.5, 10], 0.9)
    assert figure(dataset(far, right, left), [middle, one([9, 0, 19, 10], 0.8)]) == pytest.approx(1 / 3)


def test_exactly_a_half_is_enough_whatever_the_size_of_the_video():
    # Divided by 320 and 240 the same boxes would overlap by 0.4999999999999999.
    for size in ((320, 240), (None, None)):
        assert figure(dataset(one([0, 0, 2, 10]), size=size), [one([0, 0, 1, 10], 0.9)]) == 1
    assert figure(dataset(one([0, 0, 2, 10])), [one([0, 0, 0.99, 10], 0.9)]) == 0


def test_other_thresholds_can_be_asked_for():
    values = result(dataset(one(SQUARE)), [one([0, 0, 10, 6], 0.9)], [0.5, (0.5, 0.75)]).values
    assert values == {"ava/map@0.50": 1, "ava/map@0.50:0.75": 0.5}


def test_nothing_to_score():
    assert result(dataset(one(SQUARE)), []).values == {"ava/map@0.50": 0}
    nothing = result(dataset(), [one(SQUARE, 0.9)])
    assert nothing.values == {"ava/map@0.50": 0} and any("no truth" in note for note in nothing.notes)
    bare = Event("v", "stand", 0, 9)
    assert result(dataset(bare), [one(SQUARE, 0.9)]).inapplicable == "none of the 1 truth events has a box"
