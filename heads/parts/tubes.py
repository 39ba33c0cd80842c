"""Boxes from the grid: every cell proposes a box, and an event's embedding chooses among the cells of each step.

The choice is attention whose prior is a learnt map of where something is going on, so that an event's box follows
its object even where others move at the same time. Coordinates are normalised to the displayed frame.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.parts.blocks import Tower
from heads.parts.losses import box_giou_loss
from heads.parts.trunk import GridFeatures


def cells_of_boxes(boxes_NT4: Tensor, has_box_NT: Tensor, cell_box_hw4: Tensor) -> Tensor:
    """Which cells stand for a box, (N, T, h, w): centres in its middle half, and always the nearest one."""
    centre_hw2 = (cell_box_hw4[..., :2] + cell_box_hw4[..., 2:]) / 2
    box_centre = (boxes_NT4[..., :2] + boxes_NT4[..., 2:])[:, :, None, None] / 2
    box_size = (boxes_NT4[..., 2:] - boxes_NT4[..., :2])[:, :, None, None]
    offset = (centre_hw2 - box_centre).abs()
    inside = (offset <= box_size / 4).all(-1)
    cell_size = (cell_box_hw4[..., 2:] - cell_box_hw4[..., :2]).clamp(min=1e-6)
    distance = (offset / cell_size).square().sum(-1).flatten(2)
    nearest = F.one_hot(distance.argmin(-1), distance.shape[-1]).bool().view_as(inside)
    return (inside | nearest) & has_box_NT[:, :, None, None]


class TubeGrid(nn.Module):
    """Per cell of level 0: a box, a key for attention, and a logit for "the object of an event is here"."""

    def __init__(self, width: int, key_width: int):
        super().__init__()
        self.box_tower = Tower(width, 4, look_around=True)
        self.key_tower = Tower(width, key_width + 1, look_around=True)
        self.scale = key_width**-0.5

    def forward(self, features: GridFeatures) -> tuple[Tensor, Tensor, Tensor]:
        """boxes (B, T, h, w, 4), keys (B, T, h, w, E), presence logits (B, T, h, w)."""
        level = features.levels[0]
        cell = features.cell_box_norm_Bhw4[:, None]
        size = (cell[..., 2:] - cell[..., :2]).clamp(min=1e-6)
        raw = self.box_tower(level, features.masks[0])
        centre = (cell[..., :2] + cell[..., 2:]) / 2 + raw[..., :2] * size
        half = torch.exp(raw[..., 2:].clamp(-4, 4)) * size
        keys_and_presence = self.key_tower(level, features.masks[0])
        presence = keys_and_presence[..., -1] - 3.0
        return torch.cat([centre - half, centre + half], -1), keys_and_presence[..., :-1], presence

    def attention(self, query_BQE: Tensor, keys_BThwE: Tensor, presence_BThw: Tensor, valid_BThw: Tensor) -> Tensor:
        """Log-probabilities over the cells of each step, (B, Q, T, h * w)."""
        logits = torch.einsum("bqe,btce->bqtc", query_BQE * self.scale, keys_BThwE.flatten(2, 3))
        logits = logits + F.logsigmoid(presence_BThw).flatten(2)[:, None]
        # A padded step has no valid cell; a large finite number keeps its softmax defined.
        logits = logits.masked_fill(~valid_BThw.flatten(2)[:, None], -1e4)
        return F.log_softmax(logits, dim=-1)


def chosen_boxes(log_attention_BQTc: Tensor, boxes_BThw4: Tensor) -> Tensor:
    """The box of the most attended cell of every step, (B, Q, T, 4).

    A mean over cells would be drawn towards the cells beside the object, whose boxes nobody trains.
    """
    boxes_BTc4 = boxes_BThw4.flatten(2, 3)
    cell_BTQ1 = log_attention_BQTc.argmax(-1).transpose(1, 2)[..., None]
    return boxes_BTc4.gather(2, cell_BTQ1.expand(-1, -1, -1, 4)).transpose(1, 2)


def attention_loss(log_attention_MTc: Tensor, cells_MTc: Tensor) -> Tensor:
    """Minus the log of the attention on the cells of the true box, mean over the steps that have any; 0 without."""
    has_cell_MT = cells_MTc.any(-1)
    on_cells = torch.logsumexp(log_attention_MTc.masked_fill(~cells_MTc, -1e4), dim=-1)
    return -(on_cells * has_cell_MT).sum() / has_cell_MT.sum().clamp(min=1)


def box_loss(predicted_4: Tensor, truth_4: Tensor) -> Tensor:
    """L1 in units of the true size, plus GIoU; (...)."""
    size = (truth_4[..., 2:] - truth_4[..., :2]).clamp(min=1e-3)
    l1 = ((predicted_4 - truth_4).abs() / torch.cat([size, size], -1)).mean(-1).clamp(max=4)
    return l1 + box_giou_loss(predicted_4, truth_4)
