"""Small sets of truth and predictions for the tests of the diagnosis."""

import numpy as np

from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.events import Event
from vjepa_loc.overlap import box_iou
from vjepa_loc.scoring_input import ScoringInput

PLACE, APART = (0, 0, 10, 10), (50, 50, 60, 60)
# 10 x 6 of 10 x 10: IoU 0.6; 10 x 4: 0.4.
CLOSE, LOOSE = (0, 0, 10, 6), (0, 0, 10, 4)


def event(start, end, box=None, score=None, label="take", video="v"):
    frames = np.arange(start, end, dtype=np.int64) if box is not None else np.empty(0, dtype=np.int64)
    boxes = np.repeat(np.array([box or (0, 0, 1, 1)], dtype=float), len(frames), axis=0)
    return Event(video, label, start, end, frames, boxes, score=score)


def inputs_of(truths, predictions, videos=("v", "w"), **more):
    events = {video: Video(video, num_frames=2000, width=100, height=100) for video in videos}
    return ScoringInput.of(Dataset(("take", "return", "rummage"), events, truths), predictions, **more)


def random_case(seed, boxless=0.2):
    rng = np.random.default_rng(seed)
    boxes = (PLACE, CLOSE, LOOSE, (2, 2, 12, 12), APART)

    def some(num, scored):
        events = []
        for _ in range(num):
            start = int(rng.integers(0, 40))
            box = None if rng.random() < boxless else boxes[rng.integers(len(boxes))]
            score = float(rng.integers(0, 12)) if scored else None
            labels = ("take", "return") if not scored else ("take", "return", "rummage")
            video = "v" if rng.random() < 0.7 else "w"
            one = event(start, start + int(rng.integers(1, 30)), box, score, str(rng.choice(labels)), video)
            if one.num_boxes and rng.random() < 0.3:
                seen = np.sort(rng.choice(one.num_boxes, int(rng.integers(1, one.num_boxes + 1)), replace=False))
                one = one.replace(box_frames_K=one.box_frames_K[seen], boxes_K4=one.boxes_K4[seen])
            events.append(one)
        return events

    return some(int(rng.integers(1, 12)), False), some(int(rng.integers(1, 40)), True)


def tube_iou_loop(truth, prediction):
    """The tube IoU of `stal` by its definition, frame by frame."""
    boxes = [dict(zip(one.box_frames_K.tolist(), one.boxes_K4, strict=True)) for one in (truth, prediction)]
    hidden = {frame for frame in range(*truth.covered_frames()) if frame not in boxes[0]}
    frames = (boxes[0].keys() | boxes[1].keys()) - hidden
    common = [frame for frame in frames if frame in boxes[0] and frame in boxes[1]]
    summed = sum(box_iou(boxes[0][frame][None], boxes[1][frame][None])[0, 0] for frame in common)
    return summed / len(frames) if boxes[0] and boxes[1] else 0
