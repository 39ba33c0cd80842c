from fractions import Fraction

import numpy as np
import pytest

from features.decoders.timeline import Timeline, gaps_after, sane_rate, settle_rate


def times(container_times, fps=25):
    timeline = Timeline(Fraction(fps))
    return [timeline.add(time_s) for time_s in container_times], timeline


def test_the_first_shown_frame_is_zero_whatever_the_container_says():
    got, timeline = times([0.533, 0.573, 0.613])
    assert got == pytest.approx([0, 0.04, 0.08])
    assert not timeline.made_up
    assert times([-0.08, -0.04, 0])[0] == pytest.approx([0, 0.04, 0.08])


def test_missing_times_come_from_the_rate():
    got, timeline = times([None, None, None])
    assert got == pytest.approx([0, 0.04, 0.08])
    assert timeline.all_missing and timeline.made_up
    got, timeline = times([1.0, None, 1.08, None])
    assert got == pytest.approx([0, 0.04, 0.08, 0.12])
    assert timeline.num_missing == 2 and not timeline.all_missing
    assert times([None, 5.0, 5.04])[0] == pytest.approx([0, 0.04, 0.08])


def test_repeated_times_give_way_without_moving_what_follows():
    got, timeline = times([0, 0.04, 0.04, 0.08, 0.12])
    assert np.all(np.diff(got) > 0)
    assert got[3:] == pytest.approx([0.08, 0.12])
    assert timeline.num_out_of_order == 1


def test_a_clock_that_starts_again_goes_on():
    got, timeline = times([100.0, 100.04, 100.08, 0.0, 0.04])
    assert got == pytest.approx([0, 0.04, 0.08, 0.12, 0.16])
    assert timeline.num_restarts == 1 and timeline.made_up


@pytest.mark.parametrize(
    ("stated", "period_s", "expected"),
    [
        (Fraction(25), 0.04, Fraction(25)),
        (Fraction(30000, 1001), 1001 / 30000, Fraction(30000, 1001)),
        (None, 0.04, Fraction(25)),
        (None, 1001 / 30000, Fraction(30000, 1001)),
        (Fraction(50), 0.04, Fraction(25)),
        (Fraction(30), 1001 / 30000, Fraction(30000, 1001)),
    ],
)
def test_even_times_and_the_stated_rate_settle_the_rate(stated, period_s, expected):
    fps, variable = settle_rate(stated, np.arange(100) * period_s, tick_s=1e-5)
    assert fps == expected and not variable


def test_rounding_to_milliseconds_is_not_a_variable_rate():
    time_s = np.round(np.arange(200) / 30, 3)
    assert settle_rate(Fraction(30), time_s, tick_s=1e-3) == (Fraction(30), False)
    assert settle_rate(None, time_s, tick_s=1e-3) == (Fraction(30), False)


def test_uneven_times_are_variable_and_give_their_average():
    time_s = np.cumsum([0, 0.04, 0.04, 0.2, 0.04, 0.04, 0.04])
    fps, variable = settle_rate(Fraction(25), time_s, tick_s=1e-5)
    assert variable and float(fps) == pytest.approx(6 / 0.4, rel=1e-3)


def test_one_frame_has_the_stated_rate():
    assert settle_rate(Fraction(25), np.zeros(1), 1e-3) == (Fraction(25), False)
    assert settle_rate(None, np.zeros(1), 1e-3) == (None, False)


def test_rates_that_cannot_be_are_none():
    assert sane_rate(Fraction(90000)) is None
    assert sane_rate(None) is None
    assert sane_rate(Fraction(0)) is None
    assert sane_rate(Fraction(240)) == 240


def test_gaps_name_the_frame_before_and_how_many_are_missing():
    gaps = gaps_after(np.array([0, 0.04, 0.16, 0.20]), Fraction(25))
    assert gaps == [{"after_frame": 1, "start_s": 0.04, "end_s": 0.16, "missing_frames": 2}]
