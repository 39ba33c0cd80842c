import numpy as np
import pytest
import torch

from heads.training.streams import VideoExtent
from heads.training.targets import Answer, VideoTargets, answer_to_event, boxes_at_steps
from heads.training.windows import Window, steps_in_window
from tests.token_stores import HEIGHT, LABELS, WIDTH, make_event
from vjepa_loc.errors import DatasetError
from vjepa_loc.events import Event
from vjepa_loc.timegrid import TimeGrid


def extent(num_frames=100, frame_step=1):
    frames = np.arange(0, num_frames, frame_step)
    frames = np.append(frames, frames[-1:]) if len(frames) % 2 else frames
    return VideoExtent("v", num_frames, WIDTH, HEIGHT, TimeGrid(frames.reshape(-1, 2), num_frames))


def cut(events, window, video=None):
    video = video or extent()
    first, stop = steps_in_window(video.time_grid, window)
    return VideoTargets(events, LABELS, video).cut(window, first, stop - first), first


def test_an_event_inside_is_kept_real_valued():
    targets, _ = cut([make_event("v", "return", 20.3, 40.7)], Window("v", 10, 50))
    assert targets.labels_N.tolist() == [1] and not targets.open_N2.any() and targets.boxed_N.all()
    assert torch.allclose(targets.spans_N2, torch.tensor([[10.3 / 50, 30.7 / 50]]))
    assert targets.has_box_NT.nonzero()[:, 1].tolist() == list(range(5, 16)), "frames 20 to 40 lie on steps 10 to 20"
    assert torch.allclose(targets.boxes_NT4[0, 5], torch.tensor([80 / 320, 45 / 180, 240 / 320, 135 / 180]))


def test_an_event_that_reaches_beyond_is_cut_and_marked_open():
    targets, _ = cut([make_event("v", "take", 5, 40), make_event("v", "take", 50, 80)], Window("v", 10, 50))
    assert targets.spans_N2[:, 0].tolist()[0] == 0 and targets.spans_N2[1, 1] == 1
    assert targets.open_N2.tolist() == [[True, False], [False, True]]


def test_an_event_at_the_edge_of_the_video_is_not_open():
    targets, _ = cut([make_event("v", "take", 0, 20), make_event("v", "take", 90, 100)], Window("v", 0, 100))
    assert not targets.open_N2.any()


def test_less_than_a_frame_inside_is_left_out():
    events = [make_event("v", "take", 5, 10.9), make_event("v", "return", 5, 11)]
    targets, _ = cut(events, Window("v", 10, 50))
    assert targets.labels_N.tolist() == [1]


@pytest.mark.parametrize("edge", np.linspace(20, 21.4, 8))
def test_a_short_event_is_seen_on_one_side_of_any_edge(edge):
    event = make_event("v", "take", 20.7 + (edge - 20.7) - 0.7, 20.7 + (edge - 20.7) + 0.5)
    counts = [len(cut([event], window)[0]) for window in (Window("v", 0, 21), Window("v", 21, 21))]
    assert sum(counts) >= 1


def test_the_box_of_a_step_is_the_mean_over_its_frames():
    video = extent(frame_step=4)
    event = Event("v", "take", 8, 20, [9, 10, 15, 16], [[0, 0, 32, 18], [32, 0, 64, 18], [64, 0, 96, 18], [0, 0, 320, 180]])
    found = boxes_at_steps(event, video)
    assert found.steps_K.tolist() == [1, 2], "a step is eight frames long"
    assert np.allclose(found.boxes_norm_K4, [[0.1, 0, 0.2, 0.1], [0, 0, 1, 1]])


def test_events_without_boxes_are_marked():
    targets, _ = cut([make_event("v", "take", 20, 40, boxed=False)], Window("v", 0, 50))
    assert not targets.boxed_N.any() and not targets.has_box_NT.any() and len(targets) == 1


def test_no_events_give_empty_targets():
    targets, _ = cut([], Window("v", 0, 50))
    assert len(targets) == 0 and targets.boxes_NT4.shape == (0, 25, 4)


def test_an_event_after_the_stored_video_is_refused():
    with pytest.raises(DatasetError, match="video 'v': event 'e' runs to frame 101, the stored video has 100 frames"):
        cut([make_event("v", "take", 90, 101, id="e")], Window("v", 0, 50))


@pytest.mark.parametrize("frame_step", [1, 2, 5])
def test_targets_and_their_inverse_round_trip(frame_step):
    """A box that moves and grows evenly comes back on every frame; only the ends are held."""
    video = extent(120, frame_step)
    start, end = 20.0, 100.0
    frames = np.arange(20, 100)
    boxes = np.stack([frames, 0.5 * frames, frames + 60 + 0.2 * frames, 0.5 * frames + 40], axis=1)
    truth = Event("v", "take", start, end, frames, boxes)
    targets, first_step = cut([truth], Window("v", 0, 128), video)
    steps = targets.has_box_NT[0].nonzero()[:, 0]
    span = (targets.spans_N2[0].double() * 128).tolist()
    answer = Answer("take", *span, 0.5, int(first_step + steps[0]), targets.boxes_NT4[0, steps].double().numpy())
    event = answer_to_event(answer, video)
    assert event.start_frame == pytest.approx(start, abs=1e-4) and event.end_frame == pytest.approx(end, abs=1e-4)
    assert event.box_frames_K.tolist() == frames.tolist()
    inner = slice(2 * frame_step, -2 * frame_step)
    assert np.allclose(event.boxes_K4[inner], boxes[inner], atol=1e-3)
    assert np.abs(event.boxes_K4 - boxes).max() <= 1.2 * frame_step


def test_a_tube_is_clipped_to_the_video_and_the_picture():
    boxes = np.tile([-0.5, 0.5, 0.5, 1.5], (50, 1))
    event = answer_to_event(Answer("take", -10.0, 140.0, 0.5, 0, boxes), extent())
    assert (event.start_frame, event.end_frame) == (0, 100) and event.num_boxes == 100
    assert event.boxes_K4[0].tolist() == [0, 90, 160, 180]


def test_a_frame_without_a_visible_box_has_none():
    boxes = np.array([[0.1, 0.1, 0.3, 0.3], [1.1, 0.1, 1.3, 0.3], [1.2, 0.1, 1.4, 0.3]])
    event = answer_to_event(Answer("take", 0, 6, 0.5, 0, boxes), extent())
    assert event.box_frames_K.tolist() == [0, 1, 2] and event.boxes_K4[2, 2] == 320


def test_an_answer_outside_the_video_is_no_event():
    assert answer_to_event(Answer("take", 100.0, 120.0, 0.5), extent()) is None
    event = answer_to_event(Answer("take", 10.6, 11.4, 0.5, 0, np.ones((50, 4))), extent())
    assert event.num_boxes == 0, "it covers no middle of a frame"
