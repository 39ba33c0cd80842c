"""What happens around training: averaged weights, the best checkpoint and when to stop, and a line per epoch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from torch import Tensor

MONITOR = "val/map"


class AveragedWeights(Callback):
    """An exponential moving average of the head's weights; validation and the saved checkpoint use it.

    The decay rises as (1 + n) / (10 + n) over the optimiser steps n, as in TensorFlow's ExponentialMovingAverage, so that a short
    training is not dominated by its first weights. Buffers are copied.
    """

    def __init__(self, decay: float):
        self.decay = decay
        self.num_updates = 0
        self._average: dict[str, Tensor] = {}
        self._trained: dict[str, Tensor] | None = None

    def state_dict(self) -> dict:
        return {"num_updates": self.num_updates, "average": self._average}

    def load_state_dict(self, state: dict) -> None:
        self.num_updates, self._average = state["num_updates"], state["average"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        current = pl_module.head.state_dict()
        start = self._average or current
        self._average = {name: start[name].detach().clone().to(value.device) for name, value in current.items()}

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *unused) -> None:
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        parameters = dict(pl_module.head.named_parameters(remove_duplicate=False))
        torch._foreach_lerp_([self._average[name] for name in parameters], list(parameters.values()), 1 - decay)
        for name, buffer in pl_module.head.state_dict().items():
            if name not in parameters:
                self._average[name].copy_(buffer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._trained = {name: value.detach().clone() for name, value in pl_module.head.state_dict().items()}
        pl_module.head.load_state_dict(self._average)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.head.load_state_dict(self._trained)
        self._trained = None

    def weights(self) -> dict[str, Tensor]:
        """A copy of the averaged weights on the CPU."""
        return {name: value.detach().to("cpu", copy=True) for name, value in self._average.items()}


class BestWeights(Callback):
    """Keeps the averaged weights of the best validation and stops when it is not beaten for `patience` epochs.

    `save(weights)` is called at every improvement. Epochs before `min_epochs` do not count as patience. After training `figures`
    are those of the best validation, `epoch` its epoch (from 0), or None when there was none.
    """

    def __init__(self, average: AveragedWeights, save: Callable[[dict[str, Tensor]], None], patience: int, min_epochs: int):
        self.average, self.save, self.patience, self.min_epochs = average, save, patience, min_epochs
        self.epoch: int | None = None
        self.figures: dict[str, float] = {}

    def state_dict(self) -> dict:
        return {"epoch": self.epoch, "figures": self.figures}

    def load_state_dict(self, state: dict) -> None:
        self.epoch, self.figures = state["epoch"], state["figures"]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        figures = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        if self.epoch is None or figures[MONITOR] > self.figures[MONITOR]:
            self.epoch, self.figures = trainer.current_epoch, figures
            self.save(self.average.weights())
        waited = trainer.current_epoch - max(self.epoch, self.min_epochs - 1)
        if waited >= self.patience:
            trainer.should_stop = True


class EpochBar(RichProgressBar):
    """A bar per epoch with the losses and the validation mAP, on stderr."""

    def __init__(self):
        super().__init__(console_kwargs={"stderr": True})

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict:
        shown = super().get_metrics(trainer, pl_module)
        # Lightning's number of the log folder says nothing here.
        shown.pop("v_num", None)
        return shown


class EpochLines(Callback):
    """One line per epoch, for logs and pipes, where a progress bar would only fill the screen."""

    def __init__(self, best: BestWeights):
        self.best = best
        self._started = time.monotonic()
        self._validated = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started, self._validated = time.monotonic(), False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = trainer.callback_metrics
        line = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  loss {float(metrics['train/loss']):.3f}"
        if self._validated:
            best = f"best {self.best.figures[MONITOR]:.3f}, epoch {self.best.epoch + 1}"
            line += f"  val mAP {float(metrics[MONITOR]):.3f} ({best})"
        print(f"{line}  {time.monotonic() - self._started:.1f} s", file=sys.stderr, flush=True)
