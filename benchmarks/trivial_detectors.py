"""How far detectors get that understand nothing: a check that synthetic cart data is not too easy.

    python -m benchmarks.trivial_detectors DATASET.json --tune train --split test

prints one JSON object with
- `frame_difference/tal@0.50`: events where consecutive frames differ, thresholds and label tuned on `--tune`;
- `frame_difference/tal@0.50/true_labels`: the same intervals, each given the label of the truth it overlaps most, which
  shows how much of the difficulty is finding intervals rather than naming them;
- `mean_box/stal@0.50/true_times`: the true intervals and labels, each with its label's mean box: what any detector that
  does not look at where things happen stays below.
The bars are 0.40 for the first and 0.15 for the last.
"""

import argparse
import itertools
import json
from pathlib import Path

import av
import numpy as np

from vjepa_loc.dataset import Dataset, read_dataset
from vjepa_loc.events import Event
from vjepa_loc.metrics import stal, tal
from vjepa_loc.scoring_input import ScoringInput
from vjepa_loc.overlap import span_iou

GREY_HW = (45, 80)
IGNORED_CHANGE = 6.0
SMOOTH_FRAMES = (1, 3, 5, 9)
HIGH_QUANTILES = (0.5, 0.6, 0.7, 0.8, 0.9)
LOW_SHARES = (0.3, 0.5, 0.7, 0.9)
TRIM_FRAMES = (0, 4, 8)
MIN_LENGTH = 4


def change_per_frame(file: Path) -> np.ndarray:
    """The share of a small grey picture that changed since the frame before, (num_frames,) 0..1; the first is 0."""
    shares, before = [], None
    with av.open(str(file)) as container:
        for frame in container.decode(video=0):
            grey = frame.reformat(GREY_HW[1], GREY_HW[0], "gray").to_ndarray().astype(np.float32)
            shares.append(0.0 if before is None else float((np.abs(grey - before) > IGNORED_CHANGE).mean()))
            before = grey
    return np.array(shares)


def find_intervals(
    change_F: np.ndarray, smooth: int, high: float, low: float, trim: int
) -> list[tuple[int, int, float]]:
    """Where the smoothed change stays above `low` and peaks above `high`: (start, end, mean change)."""
    smoothed = np.convolve(change_F, np.ones(smooth) / smooth, mode="same")
    above = np.flatnonzero(np.diff(np.concatenate([[0], (smoothed > low).astype(int), [0]])))
    intervals = []
    for start, end in above.reshape(-1, 2):
        if smoothed[start:end].max() > high and end - start - 2 * trim >= MIN_LENGTH:
            intervals.append((int(start + trim), int(end - trim), float(smoothed[start:end].mean())))
    return intervals


def frame_difference(changes: dict[str, np.ndarray], settings: tuple, labels: tuple[str, ...]) -> list[Event]:
    """Scored events of every video in `changes`: each interval once under each of `labels`."""
    smooth, high_quantile, low_share, trim = settings
    high = float(np.quantile(np.concatenate(list(changes.values())), high_quantile))
    return [
        Event(video_id, label, start, end, score=score)
        for video_id, change_F in changes.items()
        for start, end, score in find_intervals(change_F, smooth, high, low_share * high, trim)
        for label in labels
    ]


def with_true_labels(dataset: Dataset, predictions: list[Event]) -> list[Event]:
    """Each prediction with the label of the truth of its video that it overlaps most."""
    relabelled = []
    for prediction in predictions:
        truths = dataset.events_of(prediction.video_id)
        spans = np.array([[truth.start_frame, truth.end_frame] for truth in truths]).reshape(-1, 2)
        overlaps = span_iou(np.array([[prediction.start_frame, prediction.end_frame]]), spans)[0]
        relabelled.append(prediction.replace(label=truths[int(overlaps.argmax())].label) if truths else prediction)
    return relabelled


def mean_boxes_at_true_times(dataset: Dataset, tune_ids: list[str], split_ids: list[str]) -> list[Event]:
    """The truth of `split_ids` with every box replaced by its label's mean box over `tune_ids`."""
    boxes_of = {label: [] for label in dataset.labels}
    for video_id in tune_ids:
        for event in dataset.events_of(video_id):
            boxes_of[event.label].extend(event.boxes_K4)
    predictions = []
    for video_id in split_ids:
        for event in dataset.events_of(video_id):
            first, stop = event.covered_frames()
            boxes_K4 = np.tile(np.mean(boxes_of[event.label], axis=0), (stop - first, 1))
            frames_K = np.arange(first, stop)
            predictions.append(event.replace(box_frames_K=frames_K, boxes_K4=boxes_K4, score=1.0, id=None))
    return predictions


def measure(dataset: Dataset, tune_split: str, split: str) -> dict[str, float]:
    """The figures of the module's head."""
    ids = {name: [video.id for video in dataset.videos_of_split(name)] for name in (tune_split, split)}
    changes = {
        name: {video_id: change_per_frame(dataset.videos[video_id].file) for video_id in ids[name]} for name in ids
    }

    def tal_50(name: str, predictions: list[Event]) -> float:
        return tal.compute(ScoringInput.of(dataset, predictions, ids[name]), thresholds=(0.5,)).values["tal/map@0.50"]

    guesses = [*((label,) for label in dataset.labels), tuple(dataset.labels)]
    settings = itertools.product(SMOOTH_FRAMES, HIGH_QUANTILES, LOW_SHARES, TRIM_FRAMES)
    best = max(
        itertools.product(settings, guesses),
        key=lambda choice: tal_50(tune_split, frame_difference(changes[tune_split], *choice)),
    )
    predictions = frame_difference(changes[split], *best)
    mean_boxes = mean_boxes_at_true_times(dataset, ids[tune_split], ids[split])
    once = frame_difference(changes[split], best[0], dataset.labels[:1])
    return {
        "frame_difference/tal@0.50": tal_50(split, predictions),
        "frame_difference/tal@0.50/true_labels": tal_50(split, with_true_labels(dataset, once)),
        "mean_box/stal@0.50/true_times": stal.compute(ScoringInput.of(dataset, mean_boxes, ids[split]), thresholds=(0.5,)).values["stal/map@0.50"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--tune", default="train")
    parser.add_argument("--split", default="test")
    arguments = parser.parse_args()
    print(json.dumps(measure(read_dataset(arguments.dataset), arguments.tune, arguments.split), indent=1))


if __name__ == "__main__":
    main()
