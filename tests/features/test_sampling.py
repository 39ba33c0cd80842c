import numpy as np
import pytest

from features.sampling import FrameSampler
from vjepa_loc.errors import ConfigError


def taken(sampler: FrameSampler, time_s) -> list[int]:
    return [index for index, time in enumerate(time_s) if sampler.takes(index, float(time))]


def test_every_nth_frame():
    assert taken(FrameSampler(), np.arange(4) / 25) == [0, 1, 2, 3]
    assert taken(FrameSampler(frame_step=3), np.arange(8) / 25) == [0, 3, 6]


def test_so_many_per_second_without_drift():
    time_s = np.arange(3000) * 1001 / 30000
    frames = taken(FrameSampler(sample_fps=4), time_s)
    ticks_s = np.arange(len(frames)) / 4
    assert np.all(time_s[frames] >= ticks_s - 0.0015) and np.all(time_s[frames] < ticks_s + 1001 / 30000)
    assert len(frames) == 401


def test_times_rounded_to_milliseconds_still_give_every_frame():
    assert taken(FrameSampler(sample_fps=30), np.round(np.arange(90) / 30, 3)) == list(range(90))


def test_after_a_gap_the_next_frame_is_taken_once():
    assert taken(FrameSampler(sample_fps=10), [0, 0.04, 0.1, 0.9, 0.94, 1.0]) == [0, 2, 3, 5]


def test_a_rate_above_the_video_s_takes_each_frame_once():
    assert taken(FrameSampler(sample_fps=100), np.arange(5) / 25) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("settings", [{"frame_step": 0}, {"sample_fps": 0.0}, {"sample_fps": float("nan")}, {"frame_step": 2, "sample_fps": 4.0}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ConfigError, match="frame_step|sample_fps"):
        FrameSampler(**settings)
