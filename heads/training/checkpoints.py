"""Checkpoints from which a training goes on as if it had never stopped, also within an epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

SECONDS_PER_MINUTE = 60


class PlainFiles(TorchCheckpointIO):
    """Writes where it is told to: Lightning's own goes through the system's temporary folder, and ignores a refusal."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Path, storage_options: Any = None) -> None:
        torch.save(checkpoint, path)


class Checkpoints(Checkpoint):
    """Saves after every epoch with its validation, within an epoch every `minutes`, and when the process is asked to end
    (SIGTERM, upon which Lightning leaves after the batch).

    `save(write)` calls `write(path)` with the path to write to. Lightning keeps the place in the order of the batches, the
    weights, the optimiser and the callbacks; the state of the random numbers is kept here.
    """

    def __init__(self, save: Callable[[Callable[[Path], Any]], None], minutes: float):
        self._save, self._interval_s = save, SECONDS_PER_MINUTE * minutes
        self._saved_at_s = time.monotonic()
        self._random: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._random = state

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A new epoch sets its own state after this; a part of an epoch goes on with that of the batch before.
        if self._random is not None:
            torch.set_rng_state(self._random["cpu"])
            if self._random["cuda"] and torch.cuda.is_available():
                torch.cuda.set_rng_state_all(self._random["cuda"])

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *unused) -> None:
        # After the last batch Lightning would take the epoch for finished, and its validation for done.
        if not trainer.is_last_batch and (trainer.received_sigterm or time.monotonic() - self._saved_at_s >= self._interval_s):
            self._save_now(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save_now(trainer)

    def _save_now(self, trainer: Trainer) -> None:
        self._save(trainer.save_checkpoint)
        self._saved_at_s = time.monotonic()
