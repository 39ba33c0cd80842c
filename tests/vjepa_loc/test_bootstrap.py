import numpy as np
import pytest

from vjepa_loc.bootstrap import Bootstrap, Interval, intervals_of, outside_note, percentile_interval, undefined_note
from vjepa_loc.errors import ConfigError


def test_a_resample_has_as_many_videos_as_there_are_and_a_seed_draws_the_same():
    weights_WV = Bootstrap(500, seed=3).weights(7)
    assert weights_WV.shape == (500, 7) and (weights_WV.sum(axis=1) == 7).all()
    assert weights_WV.mean(axis=0) == pytest.approx(1, abs=0.2) and weights_WV.max() > 1
    assert (Bootstrap(500, seed=3).weights(7) == weights_WV).all()
    assert (Bootstrap(500, seed=4).weights(7) != weights_WV).any()


def test_one_video_is_not_resampled_and_a_note_says_so():
    assert Bootstrap(500).weights(1).shape == (0, 1)
    assert "there is one video" in Bootstrap(500).missing_note(1)
    assert Bootstrap(500).weights(0).shape == (0, 0)
    assert Bootstrap(500).missing_note(2) is None and Bootstrap(0).missing_note(1) is None


def test_an_interval_holds_the_middle_95_percent_of_what_is_defined():
    # 0..200: the 2.5th of 100 parts lies at 5, the 97.5th at 195.
    figures_W = np.append(np.arange(201.0), [np.nan] * 50)
    assert percentile_interval(figures_W) == Interval(5, 195)
    assert intervals_of({"a": figures_W, "b": np.array([np.nan, np.nan])}) == {"a": (5, 195)}


def test_an_interval_of_the_mean_is_that_of_the_normal_distribution():
    values_V = np.random.default_rng(0).normal(10, 2, 400)
    weights_WV = Bootstrap(4000).weights(400)
    low, high = percentile_interval(weights_WV @ values_V / 400)
    expected = 1.96 * values_V.std() / 20
    assert (low, high) == pytest.approx((values_V.mean() - expected, values_V.mean() + expected), abs=0.02)


def test_undefined_resamples_are_counted_by_figure():
    defined, once = np.array([0.1, 0.2]), np.array([0.1, np.nan])
    assert undefined_note({"a": defined}) is None
    assert undefined_note({"a": defined, "b": once, "c": once}).endswith("are left out, of 2: 1 for b, c")


def test_a_figure_outside_of_its_interval_is_named():
    assert outside_note({"a": 0.5, "b": 0.5}, {"a": Interval(0.4, 0.6)}) is None
    assert outside_note({"a": 0.5, "b": 0.5}, {"a": Interval(0.4, 0.6), "b": Interval(0.51, 0.6)}).endswith(": b")


def test_an_interval_excludes_zero_only_on_one_side():
    assert Interval(0.1, 0.2).excludes_zero() and Interval(-0.2, -0.1).excludes_zero()
    assert not Interval(0.0, 0.2).excludes_zero() and not Interval(-0.1, 0.1).excludes_zero()


def test_less_than_none_is_refused():
    with pytest.raises(ConfigError, match="--bootstrap: expected 0 or more, got -1"):
        Bootstrap(-1)
    with pytest.raises(ConfigError, match="--seed: expected 0 or more"):
        Bootstrap(1, -1)
