import numpy as np
import pytest

from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.errors import ConfigError
from vjepa_loc.events import Event
from vjepa_loc.metrics import viou
from vjepa_loc.scoring_input import ScoringInput

BOX = (0, 0, 10, 10)


def tube(start, end, score=None, box=BOX, label="take", video="v", frames=None, query=None):
    frames = np.arange(start, end) if frames is None else np.array(frames, dtype=int)
    extra = {} if query is None else {"query": query}
    return Event(video, label, start, end, frames, np.tile(box, (len(frames), 1)), score=score, extra=extra)


def result(truths, predictions, **options):
    videos = {video: Video(video, num_frames=1000) for video in ("v", "w")}
    return viou.compute(ScoringInput.of(Dataset(("take", "return"), videos, truths), predictions), **options)


def figures(truths, predictions, **options):
    return {name.removeprefix("viou/"): value for name, value in result(truths, predictions, **options).values.items()}


def test_the_sum_of_box_iou_is_divided_by_the_frames_of_either():
    # Frames 15 to 19 of 10 to 24; boxes of half the area overlap by 1/3 when shifted by half their width.
    same = figures([tube(10, 20)], [tube(15, 25, 0.5)])
    assert same["m_tiou"] == same["m_viou"] == 5 / 15
    shifted = figures([tube(10, 20)], [tube(15, 25, 0.5, box=(5, 0, 15, 10))])
    assert shifted["m_tiou"] == 5 / 15 and shifted["m_viou"] == pytest.approx(5 / 3 / 15)


def test_a_vIoU_of_the_threshold_itself_is_not_enough():
    assert figures([tube(0, 4)], [tube(0, 2, 0.5)]) == {"m_tiou": 0.5, "m_viou": 0.5, "viou@0.30": 1, "viou@0.50": 0}


def test_frames_without_a_box_stay_in_the_union():
    assert figures([tube(0, 10)], [tube(0, 10, 0.5, frames=[0, 2, 4, 6])])["m_viou"] == 0.4
    assert figures([tube(0, 10, frames=[0, 1])], [tube(0, 10, 0.5)])["m_viou"] == 0.2
    assert figures([tube(0, 10)], [tube(0, 10, 0.5, frames=[])]) == {"m_tiou": 1, "m_viou": 0, "viou@0.30": 0, "viou@0.50": 0}


def test_one_frame_is_a_tube_and_tubes_apart_share_nothing():
    assert figures([tube(7, 8)], [tube(7, 8, 0.5)])["m_viou"] == 1
    assert figures([tube(7, 8)], [tube(8, 9, 0.5)])["m_viou"] == 0
    assert figures([tube(0, 2)], [tube(50, 52, 0.5)])["m_tiou"] == 0


def test_intervals_are_not_rounded_and_frames_count_by_their_middle():
    # 0.6 to 3.5 covers the middles of frames 1 and 2.
    assert figures([tube(0, 4)], [tube(0.6, 3.5, 0.5, frames=[1, 2])])["m_tiou"] == pytest.approx(2.9 / 4)
    assert figures([tube(0, 4)], [tube(0.6, 3.5, 0.5, frames=[1, 2])])["m_viou"] == 2 / 4
    # 2.6 to 5.2 covers frames 3 and 4, so that the union are frames 0 to 4.
    assert figures([tube(0, 4)], [tube(2.6, 5.2, 0.5, frames=[3, 4])])["m_viou"] == 1 / 5
    # Between two middles lies no frame at all.
    assert figures([tube(0, 4)], [tube(0.6, 1.2, 0.5, frames=[])])["m_viou"] == 0


def test_the_best_score_answers_and_the_first_among_equals():
    right, wrong = tube(0, 10, 0.5), tube(50, 60, 0.5)
    assert figures([tube(0, 10)], [wrong, right.replace(score=0.6)])["m_viou"] == 1
    assert figures([tube(0, 10)], [right, wrong])["m_viou"] == 1
    assert figures([tube(0, 10)], [wrong, right])["m_viou"] == 0
    assert "1 predictions have a better one" in result([tube(0, 10)], [right, wrong]).notes[0]


def test_the_means_are_over_queries_and_one_without_an_answer_counts_0():
    truths = [tube(0, 10), tube(0, 10, label="return"), tube(0, 10, video="w")]
    answered = result(truths, [tube(0, 10, 0.9), tube(0, 5, 0.2, video="w")])
    assert answered.values["viou/m_viou"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert answered.values["viou/viou@0.30"] == pytest.approx(2 / 3)
    assert answered.per_class["take"]["viou/m_viou"] == 0.75 and answered.per_class["return"]["viou/m_viou"] == 0
    assert answered.notes == ["viou: 1 of 3 queries have no prediction and count 0"]
    assert set(figures(truths, []).values()) == {0}


def test_answers_may_stand_in_any_order():
    truths = [tube(0, 10), tube(50, 60, label="return")]
    assert figures(truths, [tube(50, 60, 0.5, label="return"), tube(0, 10, 0.4)])["m_viou"] == 1


def test_a_query_is_named_by_its_key_before_its_label():
    truths = [tube(0, 10, query="the red cup"), tube(50, 60, query="the blue cup")]
    guesses = [tube(0, 10, 0.5, query="the red cup", label="return"), tube(50, 60, 0.9, query="the blue cup")]
    assert figures(truths, guesses)["m_viou"] == 1
    stray = result(truths, [*guesses, tube(0, 10, 1.0)])
    assert stray.values["viou/m_viou"] == 1
    assert stray.notes == ["viou: 1 predictions answer no query and are not counted, such as 'take' in video 'v'"]
    # A number is a name as well.
    assert figures([tube(0, 10, query=1), tube(50, 60, query=2)], [tube(50, 60, 0.5, query="2")])["m_viou"] == 0.5


def test_a_query_of_several_truths_is_refused_with_an_example():
    refused = result([tube(0, 10), tube(50, 60), tube(0, 10, label="return")], [])
    assert refused.values == {} and refused.inapplicable == (
        "1 of 2 queries have more than one truth, such as 'take' in video 'v' with 2; expected one per video and name. "
        "Give the events a 'query' key that tells them apart, the same in truth and predictions"
    )


def test_truth_without_boxes_is_no_query():
    boxless = tube(0, 10, frames=[], label="return")
    assert result([boxless], []).inapplicable == "none of the 1 truth events has a box"
    assert "no truth" in result([], []).inapplicable
    some = result([tube(0, 10), boxless], [tube(0, 10, 0.5)])
    assert some.values["viou/m_viou"] == 1 and some.notes == ["viou: 1 of 2 truth events have no box and are no queries"]


def test_the_figure_of_a_range_is_its_mean():
    values = figures([tube(0, 10)], [tube(0, 6, 0.5)], thresholds=[0.7, (0.5, 0.55, 0.6, 0.65)])
    assert values == {"m_tiou": 0.6, "m_viou": 0.6, "viou@0.70": 0, "viou@0.50:0.65": 0.5}
    with pytest.raises(ConfigError, match="IoU thresholds"):
        result([tube(0, 10)], [], thresholds=[0])
