"""Training one head on stored tokens: from a dataset and its stores to a run folder."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn

from heads.training.callbacks import AveragedWeights, BestWeights, EpochBar, EpochLines
from heads.training.checkpoints import Checkpoints, PlainFiles
from heads.training.collect import EventCollector
from heads.training.config import TrainConfig
from heads.training.data import TrainingData
from heads.training.module import HeadModule
from heads.training.plan import describe_run, info_to_resume
from heads.training.precision import uses_bf16
from heads.training.predict import build_head
from heads.training.run_folder import RunFolder, RunInfo
from heads.training.session import interruptible, quiet_lightning, reproducible
from heads.training.validate import validation_score
from vjepa_loc.dataset import Dataset


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
    its last checkpoint, as if it had never stopped; what is given beside it has to agree with them.

    Raises `RunError` when there is nothing to train on or a run cannot go on, `ConfigError` for a setting, `UnknownNameError` for
    a head or a missing split, `StoreMismatchError` for another store than the run's.
    """
    given = dict(train_overrides) | {key: value for key, value in (("seed", seed), ("epochs", epochs)) if value is not None}
    folder = None if resume is None else RunFolder(Path(resume))
    if folder is None:
        info = describe_run(dataset, stores, head_name, head_overrides, given)
    else:
        info = info_to_resume(folder, stores, head_name, head_overrides, given)
    with quiet_lightning(), reproducible(info.train):
        head = build_head(info)
        standardisations = None if folder is None else folder.load_standardisations()
        data = TrainingData(info, dataset, stores, head.level, standardisations)
        if folder is None:
            # Only now: what is wrong with dataset, stores or settings leaves no run behind.
            folder = RunFolder.create(Path(runs_path), head_name, info.train.seed, datetime.now())
            folder.save_standardisations(data.standardisations)
            folder.write_info(info)
        for note in info.notes:
            print(note, file=sys.stderr, flush=True)
        _train(folder, info, dataset, head, data)
    return folder.path


def _train(folder: RunFolder, info: RunInfo, dataset: Dataset, head: nn.Module, data: TrainingData) -> None:
    config, checkpoint = info.train, folder.checkpoint
    if checkpoint is None:
        head.prepare(data.all_targets())
    collector, score = None, None
    if data.val is not None:
        collector = EventCollector(data.val.videos.extents, info.labels, config)
        score = validation_score(dataset, info.val_videos)
    module = HeadModule(head, config, data.batches_per_epoch, collector, score)
    average = AveragedWeights(config.ema_decay)
    best = BestWeights(average, folder.save_weights, config.patience, config.min_epochs)
    started = time.monotonic()
    trainer = _trainer(folder, config, average, best, validates=score is not None)
    with interruptible(f"continue with `python cli.py train-head --resume {folder.path}`"):
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


def _trainer(folder: RunFolder, config: TrainConfig, average: AveragedWeights, best: BestWeights, validates: bool) -> Trainer:
    part = folder.new_log_part()
    on_terminal = sys.stderr.isatty()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    progress = EpochBar() if on_terminal else EpochLines(best)
    checkpoints = Checkpoints(folder.save_checkpoint, config.checkpoint_minutes)
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
        # Written at once, so that a training that is killed leaves the figures of its epochs.
        logger=[
            CSVLogger(folder.path, name="", version=part, flush_logs_every_n_steps=1),
            TensorBoardLogger(folder.path, name="", version=part),
        ],
        callbacks=[average, best, progress, checkpoints],
        plugins=[PlainFiles()],
        enable_progress_bar=on_terminal,
        enable_model_summary=False,
        default_root_dir=folder.path,
    )
