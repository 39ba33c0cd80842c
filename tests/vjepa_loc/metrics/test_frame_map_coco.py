"""`frame_map[coco]` against pycocotools, and its rules by hand."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.events import Event
from vjepa_loc.metrics import frame_map
from vjepa_loc.scoring_input import ScoringInput

# The twelve figures in the order in which pycocotools prints them; -1 there is left out here.
NAMES = (
    *("map@0.50:0.95", "map@0.50", "map@0.75", "map_small@0.50:0.95", "map_medium@0.50:0.95", "map_large@0.50:0.95"),
    *(f"recall@0.50:0.95@{most}" for most in (1, 10, 100)),
    *(f"recall_{size}@0.50:0.95@100" for size in ("small", "medium", "large")),
)
LABELS, VIDEOS = ("take", "return", "rummage"), ("v", "w")


def dataset(events):
    return Dataset(LABELS, {video: Video(video, num_frames=100) for video in VIDEOS}, events)


def one(box, score=None, frame=0, label="take", video="v"):
    return Event(video, label, frame, frame + 1, np.array([frame]), np.array([box], dtype=float), score=score)


def figures(truth, predictions):
    result = frame_map.compute(ScoringInput.of(truth, predictions), "coco")
    return {key.removeprefix("frame_map[coco]/"): value for key, value in result.values.items()}, result.notes


def official(truth, predictions):
    """What pycocotools says, by our names."""

    def boxes(events):
        for event in events:
            own = [event.score] * event.num_boxes if event.box_scores_K is None else event.box_scores_K.tolist()
            for frame, (x1, y1, x2, y2), score in zip(event.box_frames_K.tolist(), event.boxes_K4.tolist(), own, strict=True):
                image = VIDEOS.index(event.video_id) * 1000 + frame + 1
                category = LABELS.index(event.label) + 1
                yield {"image_id": image, "category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}

    truths, guesses = list(boxes(truth.events)), list(boxes(predictions))
    content = {
        "images": [{"id": image} for image in sorted({box["image_id"] for box in truths + guesses})],
        "categories": [{"id": index + 1} for index in range(len(LABELS))],
        "annotations": [
            box | {"id": index, "area": box["bbox"][2] * box["bbox"][3], "iscrowd": 0} for index, box in enumerate(truths, start=1)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = content
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(guesses), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: value for name, value in zip(NAMES, evaluation.stats.tolist(), strict=True) if value != -1}


def random_events(rng, number, frames, grid, scored, scores):
    """Boxes of all three sizes, on a grid where one is given, so that overlaps tie and meet thresholds exactly."""
    events = []
    for _ in range(number):
        on = np.flatnonzero(rng.random(frames) < 0.8)
        low, size = rng.uniform(0, 60, (len(on), 2)), 10 ** rng.uniform(0.9, 2.3, (len(on), 2))
        if grid:
            low, size = np.round(low / grid) * grid, np.maximum(np.round(size / grid), 1) * grid
        own = rng.integers(0, scores, len(on)) / scores if scored and len(on) else None
        events.append(
            Event(
                str(rng.choice(VIDEOS)), str(rng.choice(LABELS)), 0, frames, on, np.hstack([low, low + size]), own, 0.5 if scored else None
            )
        )
    return events


@pytest.mark.parametrize("grid", [0, 8, 32])
@pytest.mark.parametrize(("num_guesses", "frames", "scores"), [(60, 6, 10**6), (60, 6, 4), (900, 1, 7)])
def test_against_pycocotools(grid, num_guesses, frames, scores):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        truths = random_events(rng, 25, frames, grid, False, scores)
        near = [event for event in truths if event.num_boxes]
        guesses = random_events(rng, num_guesses, frames, grid, True, scores)
        guesses += [event.replace(score=0.5, box_scores_K=rng.integers(0, scores, event.num_boxes) / scores) for event in near]
        ours, _ = figures(dataset(truths), guesses)
        assert ours == pytest.approx(official(dataset(truths), guesses), abs=1e-9)


def test_the_100_best_of_a_label_on_a_frame_count():
    truth = dataset([one([0, 0, 10, 10]), one([0, 0, 10, 10], frame=1)])
    better = [one([50, 50, 60, 60], 0.9) for _ in range(100)]
    right = [one([0, 0, 10, 10], 0.5), one([0, 0, 10, 10], 0.4, frame=1)]
    ours, notes = figures(truth, better + right)
    # The 101st box of frame 0 is not looked at; that of frame 1 is true after 100 false ones.
    assert ours["map@0.50"] == pytest.approx(51 / 101 / 101)
    assert "frame_map[coco]: 1 boxes beyond the 100 best of their label and frame do not count" in notes
    ours, notes = figures(truth, better[:99] + right)
    assert ours["recall@0.50:0.95@100"] == 1 and ours["recall@0.50:0.95@10"] == 0.5
    assert not any("beyond" in note for note in notes)


def test_sizes_include_both_ends_and_other_sizes_are_ignored():
    # 32 x 32 is small and medium.
    truth = dataset([one([0, 0, 32, 32]), one([0, 0, 100, 100], frame=1)])
    found = [one([0, 0, 32, 32], 0.5), one([0, 0, 100, 100], 0.4, frame=1)]
    ours, notes = figures(truth, found)
    assert [ours[f"map_{size}@0.50:0.95"] for size in ("small", "medium", "large")] == pytest.approx([1, 1, 1])
    # A false box counts for the sizes that it has itself, one that finds a truth of another size for none.
    ours, _ = figures(truth, [one([200, 0, 210, 10], 0.9), *found])
    assert [ours[f"map_{size}@0.50:0.95"] for size in ("small", "medium", "large")] == pytest.approx([0.5, 1, 1])
    ours, notes = figures(dataset([one([0, 0, 10, 10])]), [one([0, 0, 10, 10], 0.9)])
    assert ours["map_small@0.50:0.95"] == 1 and not any("medium" in key or "large" in key for key in ours)
    assert "frame_map[coco]: no truth is large, so there is no map_large and no recall_large" in notes


def test_without_the_mean_there_are_no_parts():
    inputs = ScoringInput.of(dataset([one([0, 0, 10, 10])]), [one([0, 0, 10, 10], 0.9)])
    assert frame_map.compute(inputs, "coco", [0.5]).values == {"frame_map[coco]/map@0.50": pytest.approx(1)}
    assert frame_map.compute(inputs, "coco").headline == ("frame_map[coco]/map@0.50", "frame_map[coco]/map@0.50:0.95")
