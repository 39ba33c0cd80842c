"""Predicting and scoring a split with a run, beside the floor that every table shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from features import Store, open_store
from heads.training.data import missing_videos
from heads.training.predict import Run, load_run
from heads.training.run_folder import finished_runs
from vjepa_loc.dataset import Dataset
from vjepa_loc.evaluation import Evaluation, evaluate
from vjepa_loc.events import Event

FLOOR_HEAD = "mean_box"


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
    run: Run, dataset: Dataset, stores: Sequence[Store], split: str, metrics: Sequence[str], iou: str | None, runs_path: Path | str
) -> Evaluation:
    """The run's figures; the newest finished `mean_box` run on the same encodings in `runs_path`, if any, stands below them."""
    answer = predict_split(run, dataset, stores, split)
    baselines = {}
    floor = None if run.info.head == FLOOR_HEAD else _floor_run(run, runs_path)
    if floor is not None:
        floor_events = predict_split(floor, dataset, stores, split).events
        baselines[f"{FLOOR_HEAD} ({floor.path.name})"] = evaluate(dataset, split, floor_events, metrics, iou).metrics
    return evaluate(
        dataset, split, answer.events, metrics, iou, run=run.path.name, fingerprints=run.fingerprints,
        missing_videos=answer.missing, baselines=baselines,
    )


def _floor_run(run: Run, runs_path: Path | str) -> Run | None:
    for folder in finished_runs(runs_path):
        info = folder.read_info()
        if info.head == FLOOR_HEAD and info.labels == run.labels and info.encodings == run.encodings:
            return load_run(folder.path, str(run.device))
    return None
