"""The way there and back: what a head should learn, given as its answer, has to be the truth again."""

import pytest
import torch

from heads.parts.contract import Candidates
from heads.training.collect import EventCollector
from heads.training.data import StreamedVideos
from heads.training.joining import JoinConfig
from heads.training.windows import steps_in_window
from tests.token_stores import LABELS, make_split
from vjepa_loc.metrics import stal, tal
from vjepa_loc.scoring_input import ScoringInput


def perfect_answers(targets):
    """Targets as candidates; where an event has no box the nearest one of its own stands."""
    boxes_NT4 = targets.boxes_NT4.clone()
    for row, has_box_T in enumerate(targets.has_box_NT):
        steps = has_box_T.nonzero()[:, 0]
        if len(steps):
            nearest = (torch.arange(len(has_box_T))[:, None] - steps).abs().argmin(dim=1)
            boxes_NT4[row] = boxes_NT4[row, steps[nearest]]
    return Candidates(targets.spans_N2, targets.labels_N, torch.full((len(targets),), 0.9), boxes_NT4)


@pytest.mark.parametrize(
    "frame_step, window_frames, hop", [(1, 64, 0.5), (1, 256, 0.5), (1, 512, 0.5), (3, 128, 0.25), (1, 24, 0.5)]
)
def test_a_perfect_head_scores_perfectly(frame_step, window_frames, hop):
    """Also with windows (24 frames) that are shorter than most events (10 to 40)."""
    dataset, store = make_split({"val": 4}, seed=5, frame_step=frame_step)
    videos = StreamedVideos.open([store], list(dataset.videos), "tokens")
    targets = videos.targets(dataset)
    config = JoinConfig(hop=hop)
    collector = EventCollector(videos.extents, LABELS, config)
    for window in videos.sliding(window_frames, config.hop_frames(window_frames)):
        first, stop = steps_in_window(videos.extents[window.video_id].time_grid, window)
        collector.add([window], [perfect_answers(targets[window.video_id].cut(window, first, stop - first))])
    events, video_ids = collector.finish(), list(dataset.videos)
    assert collector.finish() == []
    # Boxes that stand still hide where a tube ends: the tube's score is that of its time.
    assert tal.compute(ScoringInput.of(dataset, events, video_ids), thresholds=(0.5, 0.9)).values == {"tal/map@0.50": 1.0, "tal/map@0.90": 1.0}
    assert stal.compute(ScoringInput.of(dataset, events, video_ids), thresholds=(0.5, 0.8)).values == {"stal/map@0.50": 1.0, "stal/map@0.80": 1.0}


def test_videos_are_kept_apart():
    dataset, store = make_split({"val": 2}, seed=1)
    videos = StreamedVideos.open([store], list(dataset.videos), "tokens")
    collector = EventCollector(videos.extents, LABELS, JoinConfig())
    answer = Candidates(torch.tensor([[0.1, 0.2]]), torch.tensor([1]), torch.tensor([0.5]), None)
    for window in videos.sliding(256, 256):
        collector.add([window], [answer])
    events = collector.finish()
    assert {event.video_id for event in events} == {"val0", "val1"} and all(event.label == LABELS[1] for event in events)


def test_nothing_is_kept_but_answers():
    """Memory does not grow with the number of steps seen, only with the answers."""
    dataset, store = make_split({"val": 1}, seed=1)
    videos = StreamedVideos.open([store], list(dataset.videos), "tokens")
    collector = EventCollector(videos.extents, LABELS, JoinConfig())
    for window in videos.sliding(64, 32):
        first, stop = steps_in_window(videos.extents["val0"].time_grid, window)
        boxes = torch.rand(50, stop - first, 4)
        spans = torch.rand(50, 1) * 0.9 + torch.tensor([0.0, 0.1])
        collector.add([window], [Candidates(spans, torch.zeros(50, dtype=torch.int64), torch.linspace(0.1, 0.2, 50), boxes)])
        kept = collector._joiner._found[-1].tubes.boxes_norm_K4
        assert kept.base is None and len(kept) <= 50 * (0.1 * 32 + 2), "boxes on the steps of the answers alone"


def test_an_empty_split_has_no_events():
    assert EventCollector({}, LABELS, JoinConfig()).finish() == []
