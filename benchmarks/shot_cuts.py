"""How far cutting at shot changes gets: a check on data whose event borders coincide with cuts.

    python -m benchmarks.shot_cuts DATASET.json --tune train --split val

prints one JSON object with
- `shot_cuts/tal@0.50`, `shot_cuts/tal@0.50:0.95`: every shot once under every label, the label's share of the `--tune`
  events as its score; the cut threshold is tuned on `--tune`;
- the same with `/true_labels`: every shot with the label of the truth that it overlaps most, an upper bound for anything
  that names the shots and does not move their ends.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks.trivial_detectors import change_per_frame, with_true_labels
from vjepa_loc.dataset import Dataset, read_dataset
from vjepa_loc.events import Event
from vjepa_loc.metrics import tal
from vjepa_loc.scoring_input import ScoringInput

CUT_SHARES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
MIN_SHOT_FRAMES = 8


def shots(change_F: np.ndarray, cut_share: float) -> list[tuple[int, int]]:
    """Half-open frame ranges between frames of which at least `cut_share` changed; short ones join the one before."""
    borders = [0]
    for frame in np.flatnonzero(change_F >= cut_share):
        if frame - borders[-1] >= MIN_SHOT_FRAMES:
            borders.append(int(frame))
    return list(zip(borders, [*borders[1:], len(change_F)], strict=True))


def shot_events(changes: dict[str, np.ndarray], cut_share: float, label_shares: dict[str, float]) -> list[Event]:
    return [
        Event(video_id, label, start, end, score=share)
        for video_id, change_F in changes.items()
        for start, end in shots(change_F, cut_share)
        for label, share in label_shares.items()
    ]


def measure(dataset: Dataset, tune_split: str, split: str) -> dict[str, float]:
    """The figures of the module's head."""
    ids = {name: [video.id for video in dataset.videos_of_split(name)] for name in (tune_split, split)}
    changes = {name: {i: change_per_frame(dataset.videos[i].file) for i in ids[name]} for name in ids}
    counts = Counter(event.label for i in ids[tune_split] for event in dataset.events_of(i))
    label_shares = {label: counts[label] / counts.total() for label in dataset.labels if counts[label]}

    def scores(name: str, predictions: list[Event]) -> dict[str, float]:
        thresholds = (0.5, tuple(np.arange(0.5, 1.0, 0.05).round(2)))
        return tal.compute(ScoringInput.of(dataset, predictions, ids[name]), thresholds=thresholds).values

    best = max(
        CUT_SHARES, key=lambda cut: scores(tune_split, shot_events(changes[tune_split], cut, label_shares))["tal/map@0.50"]
    )
    guessed = scores(split, shot_events(changes[split], best, label_shares))
    one_label = dict([max(label_shares.items(), key=lambda item: item[1])])
    named = scores(split, with_true_labels(dataset, shot_events(changes[split], best, one_label)))
    return {"cut_share": best} | {f"shot_cuts/{key}": value for key, value in guessed.items()} | {
        f"shot_cuts/{key}/true_labels": value for key, value in named.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--tune", default="train")
    parser.add_argument("--split", default="val")
    arguments = parser.parse_args()
    print(json.dumps(measure(read_dataset(arguments.dataset), arguments.tune, arguments.split), indent=1))


if __name__ == "__main__":
    main()
