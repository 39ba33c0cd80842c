"""The one `LightningModule`: it trains any head through the contract and knows none by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn

from heads.training.augment import augmented
from heads.training.callbacks import MONITOR
from heads.training.collect import EventCollector
from heads.training.config import TrainConfig
from heads.training.epoch_means import EpochMeans
from heads.training.stored_batch import WindowBatch
from vjepa_loc.errors import RunError
from vjepa_loc.events import Event

SEEDS_PER_RUN = 1_000_003
"""Prime and above any number of epochs, so that no two (seed, epoch) share their random numbers."""

Score = Callable[[list[Event]], dict[str, float]]


class HeadModule(LightningModule):
    """`head` is any `heads.parts.contract.EventHead`.

    Validation slides over the whole videos as prediction does: `collector` joins the answers, `score` turns the events into the
    figures that are logged. The random numbers of an epoch follow from seed and epoch alone, so that a resumed training draws
    the same ones; within an epoch their state is in the checkpoint.
    """

    def __init__(
        self, head: nn.Module, config: TrainConfig, batches_per_epoch: int, collector: EventCollector | None = None,
        score: Score | None = None,
    ):
        super().__init__()
        self.head = head
        self.config = config
        self.batches_per_epoch = batches_per_epoch
        self.collector, self.score = collector, score
        self._train_means = EpochMeans()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["train_means"] = self._train_means.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Versions before this one wrote checkpoints only after an epoch, whose means are logged.
        if "train_means" in checkpoint:
            self._train_means.load_state_dict(checkpoint["train_means"])

    def on_train_epoch_start(self) -> None:
        self._train_means = EpochMeans()
        torch.manual_seed(self.config.seed * SEEDS_PER_RUN + self.current_epoch)

    def training_step(self, batch: WindowBatch, batch_index: int) -> Tensor:
        windows, targets = augmented(batch.batch, batch.targets, self.config)
        losses = self.head.loss(self.head(windows), targets)
        if not torch.isfinite(losses["total"]):
            raise RunError(
                f"the loss is {losses['total'].item()} in epoch {self.current_epoch}, batch {batch_index}: "
                f"expected a finite number; train with a lower lr than {self.config.lr:g}"
            )
        self._train_means.add(losses, len(batch.windows))
        if batch_index + 1 == self.batches_per_epoch:
            self._log_losses("train", self._train_means.means(), 1)
        return losses["total"]

    def validation_step(self, batch: WindowBatch, batch_index: int) -> None:
        prediction = self.head(batch.batch)
        self._log_losses("val", self.head.loss(prediction, batch.targets), len(batch.windows))
        self.collector.add(batch.windows, self.head.decode(prediction))

    def on_validation_epoch_end(self) -> None:
        for name, value in self.score(self.collector.finish()).items():
            self.log(name, value, prog_bar=name == MONITOR)

    def _log_losses(self, stage: str, losses: dict[str, Tensor], num_windows: int) -> None:
        for name, value in losses.items():
            is_total = name == "total"
            self.log(
                f"{stage}/{'loss' if is_total else name}", value.detach(), on_step=False, on_epoch=True, prog_bar=is_total,
                batch_size=num_windows,
            )

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        # Lightning does not clip for a fused optimiser in mixed precision, for the sake of loss scaling, which bfloat16 has none of.
        nn.utils.clip_grad_norm_(self.head.parameters(), gradient_clip_val)

    def configure_optimizers(self):
        decayed, plain = parameter_groups(self.head)
        groups = [{"params": decayed, "weight_decay": self.config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        optimiser = torch.optim.AdamW([group for group in groups if group["params"]], lr=self.config.lr)
        warmup = round(self.config.warmup_epochs * self.batches_per_epoch)
        total = self.config.epochs * self.batches_per_epoch
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate_at(step, warmup, total))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def rate_at(step: int, warmup: int, total: int) -> float:
    """Part of the highest learning rate: rises linearly over `warmup` steps, then falls as half a cosine to 0 at `total`."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def parameter_groups(head: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters with and without weight decay: norms, biases, embeddings and scalars have none."""
    undecayed = {
        id(parameter)
        for module in head.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    decayed, plain = [], []
    for parameter in head.parameters():
        if parameter.requires_grad:
            (plain if parameter.ndim < 2 or id(parameter) in undecayed else decayed).append(parameter)
    return decayed, plain
