"""Training one head on stored tokens: from a dataset and its stores to a run folder."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from heads.training.callbacks import AveragedWeights, BestWeights, EpochBar, EpochLines
from heads.training.collect import EventCollector
from heads.training.config import TrainConfig
from heads.training.data import StreamedVideos, TrainingData, missing_videos, token_specs
from heads.training.loader import TokenReader
from heads.training.module import HeadModule
from heads.training.precision import uses_bf16
from heads.training.predict import HEADS_PACKAGE, build_head
from heads.training.run_folder import (
    CHECKPOINT, RunFolder, RunInfo, SpecRecord, StoreRecord, check_encodings, library_versions,
)
from heads.training.standardise import measure_standardisation
from heads.training.streams import CacheBudget
from heads.training.validate import validation_score
from heads.training.windows import choose_window_frames
from vjepa_loc.dataset import Dataset
from vjepa_loc.errors import ConfigError, RunError
from vjepa_loc.plugins import load_plugin
from vjepa_loc.settings import build_settings

TRAIN_SPLIT, VAL_SPLIT = "train", "val"
LISTED = 8


def train_head(
    dataset: Dataset,
    stores: Sequence,
    head_name: str,
    head_overrides: Mapping[str, Any],
    train_overrides: Mapping[str, Any],
    runs_path: Path | str,
    seed: int | None = None,
    resume: Path | str | None = None,
    epochs: int | None = None,
) -> Path:
    """Train the head `heads/<head_name>.py` on the `train` split and return its run folder.

    Validates on `val`; where no such video is there, trains all epochs and keeps the last averaged weights. `seed` and `epochs`
    go before those of `train_overrides`. `resume` is the folder of an unfinished run, which continues with its own settings from
    the end of its last complete epoch, as if it had never stopped; what is given beside it has to agree with them.

    Raises `RunError` when there is nothing to train on or a run cannot go on, `ConfigError` for a setting, `UnknownNameError` for
    a head or a missing split, `StoreMismatchError` for another store than the run's.
    """
    given = dict(train_overrides) | {key: value for key, value in (("seed", seed), ("epochs", epochs)) if value is not None}
    if resume is not None:
        folder = RunFolder(Path(resume))
        info = _info_to_resume(folder, stores, head_name, head_overrides, given)
    else:
        info = describe_run(dataset, stores, head_name, head_overrides, given)
        folder = RunFolder.create(Path(runs_path), head_name, info.train.seed, datetime.now())
        folder.write_info(info)
    for note in info.notes:
        _say(note)
    with _quiet_lightning(), _reproducible(info.train):
        _train(folder, info, dataset, stores)
    return folder.path


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


def _info_to_resume(
    folder: RunFolder, stores: Sequence, head_name: str, head_overrides: Mapping[str, Any], train_overrides: Mapping[str, Any]
) -> RunInfo:
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


def _train(folder: RunFolder, info: RunInfo, dataset: Dataset, stores: Sequence) -> None:
    config = info.train
    # Fresh weights follow from the seed alone, before anything else draws random numbers.
    torch.manual_seed(config.seed)
    head = build_head(info)
    data = _open_data(folder, info, dataset, stores, head.level)
    checkpoint = folder.checkpoint
    if checkpoint is None:
        head.prepare(data.all_targets())
    collector, score = None, None
    if data.val_videos is not None:
        collector = EventCollector(data.val_videos.extents, info.labels, config)
        score = validation_score(dataset, info.val_videos)
    module = HeadModule(head, config, data.batches_per_epoch, collector, score)
    average = AveragedWeights(config.ema_decay)
    best = BestWeights(average, folder.save_weights, config.patience, config.min_epochs)
    started = time.monotonic()
    trainer = _trainer(folder, config, average, best, validates=score is not None)
    with _interruptible():
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    if best.epoch is None:
        folder.save_weights(average.weights())
    folder.finish(
        {
            "best_epoch": None if best.epoch is None else best.epoch + 1,
            "epochs": trainer.current_epoch,
            "figures": best.figures,
            "seconds_of_last_start": round(time.monotonic() - started, 1),
            "window_frames": info.window_frames,
            "num_parameters": sum(parameter.numel() for parameter in head.parameters()),
        },
        datetime.now(),
    )


def _open_data(folder: RunFolder, info: RunInfo, dataset: Dataset, stores: Sequence, level: str) -> TrainingData:
    config = info.train
    videos = StreamedVideos.open(stores, info.train_videos, level)
    if folder.checkpoint is None:
        streams_of_stores = zip(*videos.streams.values(), strict=True)
        folder.save_standardisations([
            measure_standardisation(streams, store.encoding.channels)
            for streams, store in zip(streams_of_stores, stores, strict=True)
        ])
    standardisations = folder.load_standardisations()
    budget = CacheBudget(config.cache_bytes)
    train_reader = TokenReader(videos.streams, standardisations, budget)
    val_reader = None
    if info.val_videos:
        val_reader = TokenReader(StreamedVideos.open(stores, info.val_videos, level).streams, standardisations, budget)
    return TrainingData(dataset, train_reader, val_reader, config, info.window_frames)


def _trainer(folder: RunFolder, config: TrainConfig, average: AveragedWeights, best: BestWeights, validates: bool) -> Trainer:
    part = folder.new_log_part()
    on_terminal = sys.stderr.isatty()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    progress = EpochBar() if on_terminal else EpochLines(best)
    checkpoint = ModelCheckpoint(
        folder.path, filename=CHECKPOINT.removesuffix(".ckpt"), save_on_train_epoch_end=True, enable_version_counter=False
    )
    return Trainer(
        accelerator="gpu" if torch.cuda.is_available() else "cpu",
        devices=1,
        precision="bf16-mixed" if uses_bf16(config.precision, device) else "32-true",
        max_epochs=config.epochs,
        gradient_clip_val=config.clip_norm,
        check_val_every_n_epoch=config.val_every,
        limit_val_batches=1.0 if validates else 0,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        log_every_n_steps=1,
        logger=[CSVLogger(folder.path, name="", version=part), TensorBoardLogger(folder.path, name="", version=part)],
        callbacks=[average, best, progress, checkpoint],
        enable_progress_bar=on_terminal,
        enable_model_summary=False,
        default_root_dir=folder.path,
    )


@contextmanager
def _reproducible(config: TrainConfig) -> Iterator[None]:
    """The same numbers for the same seed on the CPU; torch is left as it was."""
    were_deterministic = torch.are_deterministic_algorithms_enabled()
    warned_only = torch.is_deterministic_algorithms_warn_only_enabled()
    filled, num_threads = torch.utils.deterministic.fill_uninitialized_memory, torch.get_num_threads()
    with torch.random.fork_rng():
        try:
            if config.num_threads is not None:
                torch.set_num_threads(config.num_threads)
            if not torch.cuda.is_available():
                torch.use_deterministic_algorithms(True, warn_only=True)
                # Filling every new tensor with NaN finds bugs, and costs a pass over memory each time.
                torch.utils.deterministic.fill_uninitialized_memory = False
            yield
        finally:
            torch.use_deterministic_algorithms(were_deterministic, warn_only=warned_only)
            torch.utils.deterministic.fill_uninitialized_memory = filled
            torch.set_num_threads(num_threads)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Without Lightning's remarks on hardware and on loaders that it does not know."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C stays a `KeyboardInterrupt`: Lightning turns it into an exit and leaves the signal ignored."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error
    finally:
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGINT, handler)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _absolute(path: Path | str) -> str:
    return str(path) if "://" in str(path) else str(Path(path).resolve())


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
