"""Losses on spans, boxes and classes. Spans are (start, end), boxes xyxy; all results are per element."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def span_iou(a_N2: Tensor, b_N2: Tensor) -> Tensor:
    """tIoU of pairs, (N,); 0 where the union is empty."""
    inter = (torch.minimum(a_N2[:, 1], b_N2[:, 1]) - torch.maximum(a_N2[:, 0], b_N2[:, 0])).clamp(min=0)
    union = (a_N2[:, 1] - a_N2[:, 0]).clamp(min=0) + (b_N2[:, 1] - b_N2[:, 0]).clamp(min=0) - inter
    return inter / union.clamp(min=1e-6)


def span_diou_loss(predicted_N2: Tensor, truth_N2: Tensor) -> Tensor:
    """1 - DIoU in one dimension (arXiv 1911.08287): also has a gradient where the spans do not meet."""
    hull = torch.maximum(predicted_N2[:, 1], truth_N2[:, 1]) - torch.minimum(predicted_N2[:, 0], truth_N2[:, 0])
    offset = (predicted_N2.sum(-1) - truth_N2.sum(-1)) / 2
    return 1 - span_iou(predicted_N2, truth_N2) + (offset / hull.clamp(min=1e-6)) ** 2


def box_iou_and_hull(a_N4: Tensor, b_N4: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """IoU, union and area of the smallest common box, of pairs; all (...)."""
    wh = (torch.minimum(a_N4[..., 2:], b_N4[..., 2:]) - torch.maximum(a_N4[..., :2], b_N4[..., :2])).clamp(min=0)
    inter = wh[..., 0] * wh[..., 1]
    area_a = ((a_N4[..., 2:] - a_N4[..., :2]).clamp(min=0)).prod(-1)
    area_b = ((b_N4[..., 2:] - b_N4[..., :2]).clamp(min=0)).prod(-1)
    union = area_a + area_b - inter
    hull_wh = torch.maximum(a_N4[..., 2:], b_N4[..., 2:]) - torch.minimum(a_N4[..., :2], b_N4[..., :2])
    return inter / union.clamp(min=1e-9), union, hull_wh.clamp(min=0).prod(-1)


def box_giou_loss(predicted_N4: Tensor, truth_N4: Tensor) -> Tensor:
    """1 - generalised IoU (arXiv 1902.09630)."""
    iou, union, hull = box_iou_and_hull(predicted_N4, truth_N4)
    return 1 - iou + (hull - union) / hull.clamp(min=1e-9)


def focal_loss(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Sigmoid focal loss (arXiv 1708.02002), targets 0 or 1."""
    ce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    p = logits.sigmoid()
    wrong = p + targets - 2 * p * targets
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return weight * ce * wrong**gamma


def quality_focal_loss(logits: Tensor, quality: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss towards a target in 0..1 (arXiv 2006.04388)."""
    ce = F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    return ce * (logits.sigmoid() - quality).abs() ** gamma
