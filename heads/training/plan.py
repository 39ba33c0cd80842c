"""What is trained, on which videos, and what is left out and why: the description of a run before it exists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heads.training.config import TrainConfig
from heads.training.data import missing_videos, token_specs
from heads.training.predict import HEADS_PACKAGE
from heads.training.run_folder import RunFolder, RunInfo, SpecRecord, StoreRecord, check_encodings, library_versions
from heads.training.windows import choose_window_frames
from vjepa_loc.dataset import Dataset
from vjepa_loc.errors import ConfigError, RunError
from vjepa_loc.plugins import load_plugin
from vjepa_loc.settings import build_settings

TRAIN_SPLIT, VAL_SPLIT = "train", "val"
LISTED = 8


def describe_run(
    dataset: Dataset, stores: Sequence, head_name: str, head_overrides: Mapping[str, Any], train_overrides: Mapping[str, Any]
) -> RunInfo:
    """What would be trained, on which videos; the notes name everything that is left out. Raises as `train_head`."""
    plugin = load_plugin(HEADS_PACKAGE, head_name, "head")
    if plugin.task != "events":
        raise RunError(f"head {head_name!r} is for {plugin.task}; training covers heads for events")
    train = build_settings(TrainConfig, train_overrides, "train", lambda key: "training settings")
    head_config = build_settings(plugin.Config, head_overrides, "head", lambda key: f"settings of head {head_name!r}")
    videos = _choose_videos(dataset, stores, train)
    events = [event for video_id in videos.train for event in dataset.events_of(video_id)]
    specs = token_specs(stores, videos.train)
    window_frames = train.window_frames or choose_window_frames(
        [event.end_frame - event.start_frame for event in events], max(spec.step_frames for spec in specs)
    )
    absent = [label for label in dataset.labels if label not in {event.label for event in events}]
    if absent:
        videos.notes.append(f"labels without an event in {TRAIN_SPLIT}, which cannot be learnt: {_listed(absent)}")
    return RunInfo(
        head=head_name,
        head_config=head_config.model_dump(mode="json"),
        train=train,
        window_frames=window_frames,
        labels=dataset.labels,
        stores=[
            StoreRecord(path=_absolute(store.path), fingerprint=store.encoding.fingerprint, encoding=store.encoding.to_dict())
            for store in stores
        ],
        specs=[SpecRecord(**vars(spec)) for spec in specs],
        dataset=None if dataset.path is None else _absolute(dataset.path),
        train_videos=videos.train,
        val_videos=videos.val,
        versions=library_versions(),
        notes=videos.notes,
    )


@dataclass
class _Videos:
    train: list[str]
    val: list[str]
    notes: list[str]


def _choose_videos(dataset: Dataset, stores: Sequence, config: TrainConfig) -> _Videos:
    named = [video.id for video in dataset.videos_of_split(TRAIN_SPLIT)]
    if not any(dataset.events_of(video_id) for video_id in named):
        raise RunError(
            f"dataset {dataset.path}: no event in the split {TRAIN_SPLIT!r} ({len(named)} videos): there is nothing to learn from"
        )
    notes = []
    absent = missing_videos(stores, named)
    if absent:
        notes.append(f"{len(absent)} of {len(named)} training videos are not in the store and are left out: {_listed(absent)}")
    train = [video_id for video_id in named if video_id not in set(absent)]
    if not config.use_damaged:
        damaged = [video_id for video_id in train if any(store.video(video_id).damaged for store in stores)]
        train = [video_id for video_id in train if video_id not in set(damaged)]
        if damaged:
            notes.append(
                f"{len(damaged)} of {len(named)} training videos are damaged and are left out "
                f"(train.use_damaged=true takes them): {_listed(damaged)}"
            )
    if not any(dataset.events_of(video_id) for video_id in train):
        where = ", ".join(str(store.path) for store in stores)
        raise RunError(
            f"store {where}: no training video with events can be used; {'; '.join(notes)}; run `make extract`"
        )
    in_val = [video.id for video in dataset.videos_of_split(VAL_SPLIT)] if VAL_SPLIT in dataset.splits() else []
    missing = missing_videos(stores, in_val)
    val = [video_id for video_id in in_val if video_id not in set(missing)]
    if missing:
        notes.append(f"{len(missing)} of {len(in_val)} validation videos are not in the store and are left out: {_listed(missing)}")
    if not any(dataset.events_of(video_id) for video_id in val):
        notes.append(
            f"no video with events to validate on in {VAL_SPLIT!r}: training runs all {config.epochs} epochs "
            "and keeps the last averaged weights"
        )
        val = []
    return _Videos(train, val, notes)


def info_to_resume(
    folder: RunFolder, stores: Sequence, head_name: str, head_overrides: Mapping[str, Any], train_overrides: Mapping[str, Any]
) -> RunInfo:
    """The description of an unfinished run, once all that is given agrees with it. Raises as `train_head`."""
    info = folder.read_info()
    if folder.finished:
        raise RunError(f"run {folder.path} is finished, there is nothing to resume; train a new one without --resume")
    check_encodings(folder.path, info.encodings, stores)
    if head_name != info.head:
        raise ConfigError(f"run {folder.path} trains the head {info.head!r}, got {head_name!r}; leave it out")
    for recorded, given in ((info.head_config, head_overrides), (info.train.model_dump(), train_overrides)):
        for key, value in given.items():
            if key not in recorded or recorded[key] != value:
                raise ConfigError(
                    f"run {folder.path} continues with its own settings: "
                    f"{key} is {recorded.get(key)!r} there, got {value!r}; leave it out"
                )
    return info


def _absolute(path: Path | str) -> str:
    return str(path) if "://" in str(path) else str(Path(path).resolve())


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
