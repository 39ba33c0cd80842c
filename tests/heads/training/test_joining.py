import numpy as np
import pytest
import torch

from heads.parts.contract import Candidates
from heads.training.joining import JoinConfig, VideoJoiner
from heads.training.streams import VideoExtent
from heads.training.tubes import Tubes, box_agreement
from heads.training.windows import sliding_windows, steps_in_window
from tests.token_stores import HEIGHT, LABELS, WIDTH
from vjepa_loc.errors import RunError
from vjepa_loc.timegrid import TimeGrid

LEFT, RIGHT = [0.1, 0.1, 0.4, 0.5], [0.6, 0.1, 0.9, 0.5]


def extent(num_frames):
    frames = np.arange(num_frames + num_frames % 2).clip(max=num_frames - 1).reshape(-1, 2)
    return VideoExtent("v", num_frames, WIDTH, HEIGHT, TimeGrid(frames, num_frames))


def candidates(video, window, found):
    """`found`: (label, start, end, score, box or None) in frames of the video, as a head would answer for the window."""
    first, stop = steps_in_window(video.time_grid, window)
    spans = [[start - window.start_frame, end - window.start_frame] for _, start, end, *_ in found]
    boxes = [np.tile(box, (stop - first, 1)) for *_, box in found if box is not None]
    return Candidates(
        torch.tensor(spans).reshape(-1, 2) / window.num_frames,
        torch.tensor([label for label, *_ in found], dtype=torch.int64),
        torch.tensor([score for *_, score, _ in found]),
        torch.tensor(np.array(boxes), dtype=torch.float32) if len(boxes) == len(found) and found else None,
    )


def perfect(window, events, edge=0.0):
    """What a window sees of the events: each cut at its ends."""
    seen = []
    for label, start, end, score, box in events:
        low, high = max(start, window.start_frame), min(end, window.end_frame)
        if high - low > edge:
            seen.append((label, low, high, score, box))
    return seen


def join(num_frames, answers_of, length=64, **config):
    video, config = extent(num_frames), JoinConfig(**config)
    joiner = VideoJoiner(video, LABELS, config)
    for window in sliding_windows("v", num_frames, length, config.hop_frames(length)):
        joiner.add(window, candidates(video, window, answers_of(window)))
    return joiner.answers()


@pytest.mark.parametrize("hop", [1.0, 0.5, 0.25])
@pytest.mark.parametrize("box", [LEFT, None])
def test_an_event_seen_by_several_windows_is_one(hop, box):
    if hop == 1.0:
        event = (0, 70.5, 100.5, 0.8, box)
    else:
        event = (0, 40.5, 60.5, 0.8, box)
    answers = join(200, lambda window: perfect(window, [event]), hop=hop)
    assert len(answers) == 1
    assert (answers[0].start_frame, answers[0].end_frame) == pytest.approx(event[1:3], abs=1e-3)
    assert answers[0].score == pytest.approx(0.8, abs=0.01)
    assert answers[0].label == LABELS[0]


@pytest.mark.parametrize("start", range(0, 330, 15))
def test_an_event_longer_than_a_window_is_joined(start):
    event = (1, float(start), start + 170.0, 0.7, RIGHT)
    answers = join(500, lambda window: perfect(window, [event], edge=2))
    assert len(answers) == 1
    assert (answers[0].start_frame, answers[0].end_frame) == pytest.approx(event[1:3], abs=0.5)
    assert len(answers[0].boxes_norm_K4) == pytest.approx(85, abs=1)
    assert np.allclose(answers[0].boxes_norm_K4, RIGHT)


def test_an_answer_cut_by_an_edge_loses_against_the_whole_one():
    """The window that sees half of the event is sure of a wrong end; the one that sees it whole decides."""

    def answers_of(window):
        if window.start_frame == 0:
            return [(0, 50.0, 64.0, 0.9, LEFT)]
        return [(0, 50.0, 90.0, 0.6, LEFT)] if window.start_frame == 32 else []

    answers = join(200, answers_of)
    assert len(answers) == 1
    assert answers[0].end_frame == pytest.approx(90, abs=0.5) and answers[0].score == pytest.approx(0.6, abs=0.05)


def test_what_a_central_window_does_not_confirm_loses_score():
    def only_in_the_first(start, end):
        return join(200, lambda window: [(0, start, end, 0.9, LEFT)] if window.start_frame == 0 else [])

    assert only_in_the_first(20.0, 30.0)[0].score == pytest.approx(0.9), "no other window sees it"
    assert only_in_the_first(44.0, 52.0)[0].score == pytest.approx(0.45), "both windows see it equally well"
    assert only_in_the_first(58.0, 64.0) == []
    assert join(64, lambda window: [(0, 58.0, 64.0, 0.9, LEFT)])[0].score == pytest.approx(0.9), "the end of the video is no edge"


def test_two_events_of_one_label_at_the_same_time_stay_two_where_their_boxes_differ():
    events = [(0, 40.0, 60.0, 0.9, LEFT), (0, 41.0, 61.0, 0.8, RIGHT)]
    answers = join(200, lambda window: perfect(window, events))
    assert [round(answer.score, 2) for answer in answers] == [0.9, 0.8]
    assert np.allclose(answers[0].boxes_norm_K4, LEFT) and np.allclose(answers[1].boxes_norm_K4, RIGHT)


def test_two_long_events_are_not_mixed_up():
    events = [(0, 10.0, 150.0, 0.9, LEFT), (0, 20.0, 180.0, 0.8, RIGHT), (1, 15.0, 160.0, 0.7, LEFT)]
    answers = join(200, lambda window: perfect(window, events))
    assert [(round(answer.start_frame), round(answer.end_frame)) for answer in answers] == [(10, 150), (20, 180), (15, 160)]


def test_duplicates_of_one_window_lose_score():
    found = [(0, 40.0, 60.0, 0.9, LEFT), (0, 41.0, 60.0, 0.8, LEFT), (0, 40.0, 60.0, 0.7, RIGHT), (1, 40.0, 60.0, 0.6, LEFT)]
    scores = [answer.score for answer in join(64, lambda window: found)]
    assert scores[:3] == pytest.approx([0.9, 0.7, 0.6]) and scores[3] < 0.2


def test_overlapping_answers_without_boxes_are_thinned_by_time_alone():
    found = [(0, 40.0, 60.0, 0.9, None), (0, 55.0, 64.0, 0.8, None), (0, 40.0, 59.0, 0.7, None)]
    scores = [answer.score for answer in join(64, lambda window: found)]
    assert scores[:2] == pytest.approx([0.9, 0.8], abs=0.1) and scores[2] < 0.2


def test_boxes_of_two_windows_are_weighted_by_centrality():
    def answers_of(window):
        return [(0, 34.0, 62.0, 0.8, LEFT if window.start_frame == 0 else np.array(LEFT) + 0.04)] if window.start_frame < 64 else []

    boxes_K4 = join(128, answers_of)[0].boxes_norm_K4
    offset_K = boxes_K4[:, 0] - LEFT[0]
    assert (np.diff(offset_K) >= -1e-9).all() and offset_K[0] < 0.01 and offset_K[-1] > 0.035


def test_answers_are_bounded_in_number_and_score():
    found = [(0, float(i), i + 1.0, 0.9 - i / 100, LEFT) for i in range(20)] + [(0, 30.0, 40.0, 1e-4, LEFT)]
    assert len(join(64, lambda window: found)) == 20
    answers = join(64, lambda window: found, max_answers_per_window=5)
    assert [round(answer.score, 2) for answer in answers] == [0.9, 0.89, 0.88, 0.87, 0.86]


def test_nothing_found_gives_nothing():
    assert join(200, lambda window: []) == []


def test_answers_outside_the_video_or_without_length_are_left_out():
    found = [(0, -20.0, -1.0, 0.9, LEFT), (0, 55.0, 90.0, 0.8, LEFT), (0, 30.0, 30.1, 0.7, LEFT), (0, 20.0, 10.0, 0.7, LEFT)]
    answers = join(60, lambda window: found)
    assert len(answers) == 1 and (answers[0].start_frame, answers[0].end_frame) == pytest.approx((55, 60))


def test_numbers_that_are_not_finite_are_refused():
    with pytest.raises(RunError, match="video 'v', frames 0 to 64: the head answered with numbers that are not finite"):
        join(64, lambda window: [(0, 10.0, 20.0, float("nan"), LEFT)])


def test_box_agreement_is_the_mean_iou_over_common_steps():
    rng = np.random.default_rng(0)
    firsts, counts = rng.integers(0, 10, 12), rng.integers(0, 8, 12)
    corners = [np.sort(rng.random((count, 2, 2)), axis=1).reshape(count, 4) for count in counts]
    tubes = Tubes.of(firsts, corners)
    i_M, j_M = (side.ravel() for side in np.meshgrid(np.arange(12), np.arange(12)))
    expected = []
    for i, j in zip(i_M, j_M, strict=True):
        ious = []
        for step in range(20):
            if all(firsts[k] <= step < firsts[k] + counts[k] for k in (i, j)):
                a, b = corners[i][step - firsts[i]], corners[j][step - firsts[j]]
                inter = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
                ious.append(inter / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inter))
        expected.append(min(1, np.mean(ious) / 0.5) if ious else 1)
    assert np.allclose(box_agreement(tubes, i_M, tubes, j_M), expected)
