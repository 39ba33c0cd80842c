"""The figure by which the best weights of a training are chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from heads.training.callbacks import MONITOR
from vjepa_loc.dataset import Dataset
from vjepa_loc.events import Event
from vjepa_loc.metrics import stal, tal
from vjepa_loc.scoring_input import ScoringInput

THRESHOLD = 0.5


def validation_score(dataset: Dataset, video_ids: Sequence[str]) -> Callable[[list[Event]], dict[str, float]]:
    """A function of the events found in `video_ids`: mAP at IoU 0.5 in time and, where the truth has boxes, of the tubes.

    `val/map` is the mean of those that apply.
    """
    metrics = [tal]
    if any(event.num_boxes for video_id in video_ids for event in dataset.events_of(video_id)):
        metrics.append(stal)

    def score(events: list[Event]) -> dict[str, float]:
        figures = {}
        for metric in metrics:
            values = metric.compute(ScoringInput.of(dataset, events, video_ids), thresholds=(THRESHOLD,)).values
            figures |= {f"val/{name}": value for name, value in values.items()}
        return figures | {MONITOR: sum(figures.values()) / len(figures)}

    return score
