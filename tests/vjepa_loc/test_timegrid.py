import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vjepa_loc.timegrid import (
    TimeGrid,
    frames_to_seconds,
    nominal_frames_to_seconds,
    nominal_seconds_to_frames,
    seconds_to_frames,
)

# 7 frames: tubelet 2, every frame, the last one repeated.
PADDED = TimeGrid(np.array([[0, 1], [2, 3], [4, 5], [6, 6]]), num_frames=7)
# 40 frames: tubelet 2, every 6th frame.
STRIDED = TimeGrid(np.array([[0, 6], [12, 18], [24, 30], [36, 36]]), num_frames=40)
# 6 frames sampled faster than they come: the second step is made of repeats of frame 0.
OVERSAMPLED = TimeGrid(np.array([[0, 0], [0, 1], [1, 2], [3, 5]]), num_frames=6)
GRIDS = {"padded": PADDED, "strided": STRIDED, "oversampled": OVERSAMPLED}


def test_a_step_covers_from_its_first_frame_to_the_next_steps():
    assert PADDED.start_T.tolist() == [0, 2, 4, 6]
    assert PADDED.end_T.tolist() == [2, 4, 6, 7]
    assert STRIDED.start_T.tolist() == [0, 12, 24, 36]
    assert STRIDED.end_T.tolist() == [12, 24, 36, 40]


def test_frame_edges_as_steps_by_hand():
    assert PADDED.frame_to_step([0, 1, 2, 6, 6.5, 7]).tolist() == [0, 0.5, 1, 3, 3.5, 4]
    assert STRIDED.frame_to_step([3, 38]).tolist() == [0.25, 3.5]
    assert PADDED.step_to_frame([0.5, 3.5, 4]).tolist() == [1, 6.5, 7]


@pytest.mark.parametrize("name", GRIDS)
def test_frames_to_steps_and_back(name):
    grid = GRIDS[name]
    frames = np.linspace(0, grid.num_frames, 101).reshape(101, 1)
    assert grid.frame_to_step(frames).shape == frames.shape
    np.testing.assert_allclose(grid.step_to_frame(grid.frame_to_step(frames)), frames, atol=1e-12)


@pytest.mark.parametrize("name", ["padded", "strided"])
def test_steps_to_frames_and_back(name):
    grid = GRIDS[name]
    steps = np.linspace(0, grid.num_steps, 57)
    np.testing.assert_allclose(grid.frame_to_step(grid.step_to_frame(steps)), steps, atol=1e-12)


def test_positions_outside_the_grid_become_its_ends():
    late = TimeGrid(np.array([[4, 5], [6, 7]]), num_frames=8)
    assert late.frame_to_step([0, 3.5, 9]).tolist() == [0, 0, 2]
    assert late.step_to_frame([-1, 5]).tolist() == [4, 8]


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_steps_of_span_are_those_that_overlap_it(grid):
    rng = np.random.default_rng(0)
    for start, end in np.sort(rng.uniform(-3, grid.num_frames + 3, (200, 2)), axis=1):
        first, stop = grid.steps_of_span(start, end)
        touched = [t for t in range(grid.num_steps) if max(start, grid.start_T[t]) < min(end, grid.end_T[t])]
        # A step without duration lies in no span, but may stand between two that do.
        assert [t for t in range(first, stop) if grid.start_T[t] < grid.end_T[t]] == touched


def test_a_span_that_ends_on_an_edge_leaves_the_next_step_out():
    assert PADDED.steps_of_span(2, 4) == (1, 2)
    assert PADDED.steps_of_span(8, 9) == (4, 4)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_step_of_frame(grid):
    expected = [
        next(t for t in range(grid.num_steps) if grid.start_T[t] <= frame < grid.end_T[t])
        for frame in range(grid.num_frames)
    ]
    assert [grid.step_of_frame(frame) for frame in range(grid.num_frames)] == expected
    assert grid.step_of_frame(np.arange(grid.num_frames)).tolist() == expected
    with pytest.raises(ValueError, match=f"expected 0..{grid.num_frames - 1}"):
        grid.step_of_frame(grid.num_frames)


@pytest.mark.parametrize(
    ("frames", "num_frames", "message"),
    [
        (np.array([0, 1]), 2, r"expected integers of shape \(T, tubelet\), got int64 \(2,\)"),
        (np.array([[0.0, 1.0]]), 2, "got float64"),
        (np.zeros((0, 2), int), 2, r"got int64 \(0, 2\)"),
        (np.array([[0, 2]]), 2, r"expected numbers in 0..1, got 0..2"),
        (np.array([[0, 1], [3, 2], [4, 5]]), 6, "got a decrease at or after step 1"),
    ],
)
def test_wrong_step_frames_are_refused(frames, num_frames, message):
    with pytest.raises(ValueError, match=message):
        TimeGrid(frames, num_frames)


def test_seconds_by_hand():
    times = [0.0, 0.04, 0.10, 0.12]
    np.testing.assert_allclose(frames_to_seconds([0, 1.5, 3, 4], times, 25), [0, 0.07, 0.12, 0.16])
    # Outside the video the nominal rate continues.
    np.testing.assert_allclose(frames_to_seconds([-1, 6], times, 25), [-0.04, 0.24])
    np.testing.assert_allclose(seconds_to_frames([-0.04, 0.24], times, 25), [-1, 6])


@pytest.mark.parametrize("fps", [25, 30000 / 1001])
def test_frames_to_seconds_and_back(fps):
    times = np.append(0, np.cumsum(np.random.default_rng(1).uniform(0.01, 0.08, 30)))
    frames = np.linspace(-2, 34, 300)
    np.testing.assert_allclose(seconds_to_frames(frames_to_seconds(frames, times, fps), times, fps), frames, atol=1e-9)
    seconds = np.linspace(-0.5, times[-1] + 1, 300)
    there = seconds_to_frames(seconds, times, fps)
    np.testing.assert_allclose(frames_to_seconds(there, times, fps), seconds, atol=1e-9)
    np.testing.assert_allclose(nominal_seconds_to_frames(nominal_frames_to_seconds(frames, fps), fps), frames)


def test_two_frames_at_one_time_still_return_to_that_time():
    times = [0.0, 0.04, 0.04, 0.08]
    seconds = np.linspace(0, 0.12, 25)
    np.testing.assert_allclose(frames_to_seconds(seconds_to_frames(seconds, times, 25), times, 25), seconds, atol=1e-12)


@pytest.mark.parametrize("fps", [0, -1, float("nan")])
def test_a_rate_must_be_positive(fps):
    with pytest.raises(ValueError, match="fps: expected a positive number"):
        nominal_frames_to_seconds([1], fps)


def test_times_must_not_go_backwards():
    with pytest.raises(ValueError, match="non-decreasing"):
        frames_to_seconds([1], [0, 0.1, 0.05], 25)


RATES = st.sampled_from([10, 23.976, 24000 / 1001, 25, 29.97, 30000 / 1001, 50, 59.94, 7.3])


@given(st.floats(0, 1e6, allow_subnormal=False), RATES)
def test_frames_that_were_seconds_come_back_exactly(second, fps):
    frames = nominal_seconds_to_frames(second, fps)
    assert nominal_seconds_to_frames(nominal_frames_to_seconds(frames, fps), fps) == frames


@given(st.integers(0, 10_000_000), RATES)
def test_whole_frames_come_back_exactly(frame, fps):
    assert nominal_seconds_to_frames(nominal_frames_to_seconds(frame, fps), fps) == frame


def test_only_the_last_digits_are_cleaned():
    assert 0.28 * 25 != 7 and nominal_seconds_to_frames(0.28, 25) == 7
    assert nominal_seconds_to_frames(7.00000001 / 25, 25) > 7
