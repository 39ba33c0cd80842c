import numpy as np
import pytest

from heads.training.windows import Window, choose_window_frames, sliding_windows, steps_in_window, training_windows
from vjepa_loc.timegrid import TimeGrid


def grid(num_frames, frame_step=1, tubelet=2):
    frames = np.arange(0, num_frames, frame_step)
    frames = np.append(frames, np.repeat(frames[-1:], -len(frames) % tubelet))
    return TimeGrid(frames.reshape(-1, tubelet), num_frames)


@pytest.mark.parametrize("num_frames", [1, 63, 64, 65, 96, 97, 200, 1000])
def test_sliding_windows_reach_the_end_of_every_video(num_frames):
    windows = sliding_windows("v", num_frames, 64, 32)
    assert windows[0].start_frame == 0
    assert windows[-1].end_frame == max(num_frames, 64)
    hops = np.diff([window.start_frame for window in windows])
    assert (hops > 0).all() and (hops <= 32).all()


def test_a_video_shorter_than_a_window_is_one_window():
    assert sliding_windows("v", 10, 64, 32) == [Window("v", 0, 64)]


@pytest.mark.parametrize("hop", [0, 65])
def test_a_hop_that_leaves_frames_out_is_refused(hop):
    with pytest.raises(ValueError, match="hop: expected 1 to 64 frames"):
        sliding_windows("v", 100, 64, hop)


@pytest.mark.parametrize("num_frames", [1, 40, 64, 65, 80, 127, 128, 129, 250, 640])
@pytest.mark.parametrize("frame_step", [1, 3])
def test_training_windows_hold_every_step_exactly_once(num_frames, frame_step):
    time_grid = grid(num_frames, frame_step)
    for seed in range(20):
        windows = training_windows("v", num_frames, 64, np.random.default_rng(seed))
        ranges = [steps_in_window(time_grid, window) for window in windows]
        steps = np.concatenate([np.arange(first, stop) for first, stop in ranges])
        assert steps.tolist() == list(range(time_grid.num_steps))


def test_the_number_of_training_windows_does_not_depend_on_chance():
    for num_frames in (30, 65, 100, 500):
        counts = {len(training_windows("v", num_frames, 64, np.random.default_rng(seed))) for seed in range(50)}
        assert len(counts) == 1


@pytest.mark.parametrize("num_frames", [50, 70, 128, 160, 500])
def test_the_phase_of_training_windows_moves(num_frames):
    starts = {training_windows("v", num_frames, 64, np.random.default_rng(seed))[0].start_frame for seed in range(60)}
    assert len(starts) > 8


def test_training_windows_show_at_least_an_eighth():
    for num_frames in range(65, 400, 7):
        for seed in range(10):
            for window in training_windows("v", num_frames, 64, np.random.default_rng(seed)):
                assert min(window.end_frame, num_frames) - max(window.start_frame, 0) >= 8


def test_the_window_length_follows_the_longest_event():
    assert choose_window_frames([10, 90], 2) == 256
    assert choose_window_frames([], 2) == 256
    assert choose_window_frames([300], 2) == 384
    assert choose_window_frames([5000], 2) == 2048
    assert choose_window_frames([20], 50) == 832, "sixteen steps of fifty frames"


def test_steps_belong_to_the_window_with_their_middle():
    time_grid = grid(40)
    assert steps_in_window(time_grid, Window("v", 3, 10)) == (1, 6), "step 1 has its middle on the edge, frame 3"
    assert steps_in_window(time_grid, Window("v", -5, 10)) == (0, 2)
    assert steps_in_window(time_grid, Window("v", 36, 10)) == (18, 20)


def test_a_window_shorter_than_a_step_gets_the_nearest_step():
    time_grid = grid(400, frame_step=25)
    assert steps_in_window(time_grid, Window("v", 60, 10)) == (1, 2)
