"""`mean_box`: times from `dense`, and on every frame the label's mean box: the floor that every table shows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch

from heads import dense
from heads.parts.contract import Candidates, Targets, TokenSpec
from heads.parts.points import PointPrediction

task = "events"


class Config(dense.Config):
    """As `dense`."""


class Head(dense.Head):
    def __init__(self, config: Config, specs: list[TokenSpec], labels: list[str]):
        super().__init__(config, specs, labels)
        whole_frame = torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(len(labels), 1)
        self.register_buffer("mean_box_norm_L4", whole_frame)

    def prepare(self, targets: Iterable[Targets]) -> None:
        """The mean over all boxed steps of a label; a label without boxes keeps the whole frame."""
        total = torch.zeros_like(self.mean_box_norm_L4, dtype=torch.float64)
        count = torch.zeros(len(total), dtype=torch.float64, device=total.device)
        for target in targets:
            boxes_N4 = (target.boxes_NT4 * target.has_box_NT[..., None]).sum(1).to(total)
            total.index_add_(0, target.labels_N.to(total.device), boxes_N4)
            count.index_add_(0, target.labels_N.to(total.device), target.has_box_NT.sum(1).to(count))
        seen = count > 0
        self.mean_box_norm_L4[seen] = (total[seen] / count[seen, None]).to(self.mean_box_norm_L4)

    def decode(self, prediction: PointPrediction) -> list[Candidates]:
        num_steps = prediction.boxes_BThw4.shape[1]
        return [
            replace(c, boxes_norm_QT4=self.mean_box_norm_L4[c.labels_Q][:, None].expand(-1, num_steps, -1))
            for c in super().decode(prediction)
        ]
