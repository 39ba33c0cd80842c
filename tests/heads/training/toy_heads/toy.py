"""A head of one linear layer, so that tests of the training need no real one: per step and label, how likely an event is."""

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import nn

from heads.parts.contract import Candidates

task = "events"
FAIL_AT_STEP = None
FAILURE = RuntimeError("the power is gone")


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    level: str = "tokens"
    dropout: float = 0.1


class Head(nn.Module):
    def __init__(self, config, specs, labels):
        super().__init__()
        self.level = config.level
        self.classify = nn.Linear(sum(spec.channels for spec in specs), len(labels))
        self.dropout = nn.Dropout(config.dropout)
        self.register_buffer("num_prepared", torch.zeros(()))
        self.num_losses = 0

    def prepare(self, targets):
        self.num_prepared += sum(1 for _ in targets)

    def forward(self, batch):
        stream = batch.streams[0]
        tokens = torch.cat([s.tokens_BTHWC for s in batch.streams], dim=-1)
        cell_BTHWL = self.classify(self.dropout(tokens)).masked_fill(~stream.valid_BTHW[..., None], -20.0)
        return stream, batch.window_frames, cell_BTHWL

    def loss(self, prediction, targets):
        if self.training:
            self.num_losses += 1
            if self.num_losses == FAIL_AT_STEP:
                raise FAILURE
        stream, window_frames, cell_BTHWL = prediction
        centre_BT = (stream.step_start_BT + stream.step_end_BT) / 2 / window_frames
        truth_BTL = torch.zeros(*centre_BT.shape, cell_BTHWL.shape[-1])
        for row, target in enumerate(targets):
            for label, (start, end) in zip(target.labels_N, target.spans_N2, strict=True):
                truth_BTL[row, (centre_BT[row] >= start) & (centre_BT[row] < end), label] = 1
        valid_BT = stream.valid_BTHW.flatten(2).any(-1)
        loss = F.binary_cross_entropy_with_logits(cell_BTHWL.amax((2, 3))[valid_BT], truth_BTL[valid_BT])
        return {"total": loss, "presence": loss}

    def decode(self, prediction):
        stream, window_frames, cell_BTHWL = prediction
        answers = []
        for row in range(len(cell_BTHWL)):
            valid_T = stream.valid_BTHW[row].flatten(1).any(-1)
            presence_TL = cell_BTHWL[row].amax((1, 2)).sigmoid() * valid_T[:, None]
            spans, labels, scores, boxes = [], [], [], []
            for label in range(presence_TL.shape[-1]):
                on = F.pad((presence_TL[:, label] > 0.5).int(), (1, 1)).diff()
                for first, stop in zip(on.eq(1).nonzero()[:, 0], on.eq(-1).nonzero()[:, 0], strict=True):
                    spans.append([stream.step_start_BT[row, first], stream.step_end_BT[row, stop - 1]])
                    labels.append(label)
                    scores.append(presence_TL[first:stop, label].mean())
                    weight_HW = cell_BTHWL[row, first:stop, ..., label].sigmoid().mean(0)
                    cells = stream.cell_box_norm_BHW4[row][weight_HW > 0.5 * weight_HW.max()]
                    hull = torch.cat([cells[:, :2].amin(0), cells[:, 2:].amax(0)])
                    boxes.append(hull.expand(len(presence_TL), 4))
            answers.append(
                Candidates(
                    torch.tensor(spans).reshape(-1, 2) / window_frames,
                    torch.tensor(labels, dtype=torch.int64),
                    torch.tensor(scores),
                    torch.stack(boxes) if boxes else torch.zeros(0, len(presence_TL), 4),
                )
            )
        return answers
