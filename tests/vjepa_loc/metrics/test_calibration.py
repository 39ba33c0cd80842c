import numpy as np
import pytest

from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.events import Event
from vjepa_loc.metrics import calibration
from vjepa_loc.metrics._ratios import Ratio
from vjepa_loc.scoring_input import ScoringInput

LABELS = ("take", "return")


def event(start, end, score=None, label="take", video="v"):
    return Event(video, label, start, end, score=score)


def result(truths, predictions, labels_of_videos=(None, None)):
    videos = {video: Video(video, num_frames=1000, label=label) for video, label in zip("vw", labels_of_videos)}
    return calibration.compute(ScoringInput.of(Dataset(LABELS, videos, truths), predictions))


def ece(truths, predictions):
    return result(truths, predictions).values["calibration/ece"]


def test_the_error_is_the_gap_in_each_bin_weighted_by_its_share():
    # (0.867, 0.933]: mean 0.9, one of two right, gap 0.4. (0.2, 0.267]: mean 0.25, right, gap 0.75.
    truths = [event(0, 10), event(100, 110)]
    predictions = [event(0, 10, 0.9), event(50, 60, 0.9), event(100, 110, 0.25)]
    assert ece(truths, predictions) == pytest.approx((2 * 0.4 + 0.75) / 3)


def test_gaps_of_one_bin_cancel_and_of_two_do_not():
    truths = [event(0, 10), event(100, 110)]
    # Both in (0.467, 0.533]: mean 0.5, one of two right.
    assert ece(truths, [event(0, 10, 0.47), event(50, 60, 0.53)]) == pytest.approx(0, abs=1e-12)
    assert ece(truths, [event(0, 10, 0.46), event(50, 60, 0.54)]) == pytest.approx((0.54 + 0.54) / 2)


def test_a_bin_holds_its_upper_end_and_the_first_one_0():
    # 0.2 lies in (0.133, 0.2], 0.21 in the next: apart, the gaps add up.
    assert ece([event(0, 10)], [event(0, 10, 0.2), event(50, 60, 0.15)]) == pytest.approx(abs(0.35 - 1) / 2)
    assert ece([event(0, 10)], [event(0, 10, 0.2), event(50, 60, 0.21)]) == pytest.approx((0.8 + 0.21) / 2)
    assert ece([event(0, 10)], [event(0, 10, 0.0)]) == 1
    assert ece([event(0, 10)], [event(0, 10, 1.0)]) == 0


def test_events_are_right_when_they_find_a_free_truth_at_half():
    truth = [event(0, 10)]
    assert ece(truth, [event(0, 5, 1.0)]) == 0
    assert ece(truth, [event(0, 4.99, 1.0)]) == 1
    # The second one on the same truth is false, as is another label and another video.
    assert ece(truth, [event(0, 10, 1.0), event(0, 10, 1.0)]) == 0.5
    assert ece(truth, [event(0, 10, 1.0, label="return")]) == 1
    assert ece(truth, [event(0, 10, 1.0, video="w")]) == 1


def test_bins_of_equal_number():
    truths = [event(100 * at, 100 * at + 10) for at in range(9)]
    # 30 scores in 15 bins of two: 14 pairs of 0.5, of which 9 have one right, and a wrong pair of 0.9.
    predictions = [
        one for truth in truths for one in (truth.replace(score=0.5), truth.replace(start_frame=950, end_frame=960, score=0.5))
    ]
    predictions += [event(950, 960, 0.5)] * 10 + [event(970, 980, 0.9)] * 2
    # Gaps of 0 in the 9 pairs, of 2 * 0.5 in the other 5, and of 2 * 0.9 in the last.
    assert result(truths, predictions).values["calibration/adaptive_ece"] == pytest.approx((5 * 1.0 + 1.8) / 30)


def test_of_videos_the_most_probable_label_counts():
    predictions = [
        *(event(0, 10, score, label) for label, score in (("take", 0.9), ("return", 0.1))),
        *(event(10, 20, score, label) for label, score in (("take", 0.5), ("return", 0.5))),
        *(event(0, 10, score, label, video="w") for label, score in (("take", 0.3), ("return", 0.7))),
    ]
    # v: 0.7, right. w: 0.7, wrong.
    found = result([], predictions, ("take", "take"))
    assert found.values == pytest.approx({"calibration/video_ece": 0.2, "calibration/video_adaptive_ece": (0.3 + 0.7) / 2})
    assert found.headline == ("calibration/video_ece",)
    # A video without predictions has no confidence.
    alone = result([], predictions[:4], ("take", "take"))
    assert alone.values["calibration/video_ece"] == pytest.approx(0.3)
    assert "1 of 2 labelled videos have no prediction" in alone.notes[0]


def test_a_video_of_equal_labels_takes_the_first():
    even = [event(0, 10, 0.4, label) for label in ("return", "take")]
    assert result([], even, ("take", None)).values["calibration/video_ece"] == 0.6
    assert result([], even, ("return", None)).values["calibration/video_ece"] == 0.4


def test_what_has_nothing_to_say_says_why():
    assert "no predictions" in result([event(0, 10)], []).inapplicable
    assert "no truth" in result([], [event(0, 10, 0.5)]).inapplicable
    assert result([event(0, 10)], [event(0, 10, 3.0), event(0, 10, -1.0), event(0, 10, 0.5)]).inapplicable == (
        "2 of 3 scores lie outside 0..1 (-1 to 3); expected probabilities, such as a sigmoid gives"
    )
    # Detections that are no probabilities of classes still have an error of events.
    twice = result([event(0, 10)], [event(0, 10, 0.5), event(0, 10, 0.4)], ("take", None))
    assert set(twice.values) == {"calibration/ece", "calibration/adaptive_ece"}
    assert "videos' classes are left out: 1 labels stand several times" in twice.notes[0]


def test_against_a_loop_over_bins():
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores = np.where(rng.random(200) < 0.3, rng.integers(0, 16, 200) / 15, rng.random(200))
        right = rng.random(200) < scores**2
        judged = calibration.Judged(scores, right, np.zeros(200, dtype=int), 1)
        total = 0.0
        for low, high in zip(np.linspace(0, 1, 16)[:-1], np.linspace(0, 1, 16)[1:]):
            inside = [(score, one) for score, one in zip(scores, right) if low < score <= high or score == low == 0]
            if inside:
                total += len(inside) / 200 * abs(np.mean([one[0] for one in inside]) - np.mean([one[1] for one in inside]))
        assert judged.error() == pytest.approx(total, abs=1e-12)
        # 200 predictions in 15 bins: five of 14 and ten of 13.
        ascending = sorted(zip(scores.tolist(), right.tolist()), key=lambda one: one[0])
        total = 0.0
        for size in [14] * 5 + [13] * 10:
            inside, ascending = ascending[:size], ascending[size:]
            total += abs(sum(score - one for score, one in inside)) / 200
        assert judged.adaptive_error() == pytest.approx(total, abs=1e-12) and not ascending


def test_table_and_picture_show_the_bins():
    found = result([event(0, 10)], [event(0, 10, 0.9), event(50, 60, 0.92), event(70, 80, 0.02)], ("take", None))
    table = found.tables[0]
    assert table.title == "Calibration of events" and len(table.rows) == 15
    assert [row[2] for row in table.rows] == [1, *[0] * 12, 2, 0]
    assert table.rows[13] == (pytest.approx(13 / 15), pytest.approx(14 / 15), 2, pytest.approx(0.91), 0.5)
    assert table.rows[1][3:] == (None, None)
    assert [picture.title for picture in found.pictures] == [one.title for one in found.tables]
    assert all(picture.svg.startswith("<svg") for picture in found.pictures)


def test_a_ratio_of_nothing_is_undefined():
    ratio = Ratio.of(np.array([1.0, 0.0, 1.0]), np.array([0, 0, 2]), 3)
    assert ratio.value() == pytest.approx(2 / 3)
    drawn = ratio.over(np.array([[0, 0, 2], [3, 1, 1], [0, 1, 0]]))
    assert drawn[:2] == pytest.approx([1, (3 + 1) / (6 + 1)]) and np.isnan(drawn[2])
