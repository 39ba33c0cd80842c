"""Predicting and scoring a split with a run, beside the floor that every table shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from features import Store, open_store
from features.seams import clip_seams
from heads.training.data import missing_videos
from heads.training.plan import TRAIN_SPLIT
from heads.training.predict import Run
from vjepa_loc.bootstrap import Bootstrap
from vjepa_loc.dataset import Dataset
from vjepa_loc.evaluation import Evaluation, OtherPredictions, evaluate
from vjepa_loc.events import Event

FLOOR = "mean box at these times"
WHOLE_FRAME = np.array([0.0, 0.0, 1.0, 1.0])


@dataclass(frozen=True)
class SplitPredictions:
    """`dataset` holds the predicted videos alone, without their truth; `missing` are ids of the split that a store does not hold."""

    dataset: Dataset
    events: list[Event]
    missing: list[str]


def open_stores(run: Run, paths: Sequence[str] = ()) -> list[Store]:
    """The stores at `paths`, or those that the run was trained on. Raises `RunError` where one of those is gone."""
    return [open_store(path) for path in paths] if paths else run.open_stores()


def predict_split(run: Run, dataset: Dataset, stores: Sequence[Store], split: str) -> SplitPredictions:
    """Predict the split's videos that all `stores` hold."""
    videos = {video.id: video for video in dataset.videos_of_split(split)}
    # Before anything is said about videos: in another run's store none of them may be.
    run.check_stores(stores)
    missing = missing_videos(stores, list(videos))
    for video_id in missing:
        del videos[video_id]
    return SplitPredictions(Dataset(dataset.labels, videos, path=dataset.path), run.predict(dataset, stores, list(videos)), missing)


def evaluate_run(
    run: Run, dataset: Dataset, stores: Sequence[Store], split: str, metrics: Sequence[str], iou: str | None,
    bootstrap: Bootstrap = Bootstrap(), against: OtherPredictions | None = None,
) -> Evaluation:
    """The run's figures, and beside them those of its own labels and times with each label's mean training box on every frame.

    `bootstrap` and `against` as `vjepa_loc.evaluation.evaluate` takes them; the floor gets no intervals.
    """
    answer = predict_split(run, dataset, stores, split)
    floor_events = with_mean_boxes(answer.events, dataset, stores[0])
    floor = {}
    if floor_events is not None:
        floor[FLOOR] = evaluate(dataset, split, floor_events, metrics, iou, bootstrap=Bootstrap(0)).metrics
    return evaluate(
        dataset, split, answer.events, metrics, iou, run=run.path.name, fingerprints=run.fingerprints,
        missing_videos=answer.missing, baselines=floor, bootstrap=bootstrap, against=against,
        seams=clip_seams(stores, list(answer.dataset.videos)),
    )


def with_mean_boxes(events: Sequence[Event], dataset: Dataset, store: Store) -> list[Event] | None:
    """The same events, each with its label's mean box over the stored training videos on every frame that it covers.

    A label without training boxes gets the whole frame; None where no label has any.
    """
    boxes_norm = {label: [] for label in dataset.labels}
    for video in dataset.videos.values():
        if video.split == TRAIN_SPLIT and video.id in store:
            stored = store.video(video.id)
            size_4 = np.array([stored.width, stored.height] * 2)
            for event in dataset.events_of(video.id):
                boxes_norm[event.label].append(event.boxes_K4 / size_4)
    boxes_norm = {label: np.concatenate(boxes) for label, boxes in boxes_norm.items() if boxes}
    mean_norm = {label: boxes_n4.mean(axis=0) for label, boxes_n4 in boxes_norm.items() if len(boxes_n4)}
    if not mean_norm:
        return None
    floor = []
    for event in events:
        stored = store.video(event.video_id)
        first, stop = event.covered_frames()
        frames_K = np.arange(max(first, 0), min(stop, stored.num_frames))
        box_4 = mean_norm.get(event.label, WHOLE_FRAME) * np.array([stored.width, stored.height] * 2)
        floor.append(event.replace(box_frames_K=frames_K, boxes_K4=np.tile(box_4, (len(frames_K), 1)), box_scores_K=None))
    return floor
