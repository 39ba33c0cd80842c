"""One truth, one query: the assignment of least total cost (Hungarian method, as DETR, arXiv 2005.12872)."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from heads.parts.losses import box_iou_and_hull

COST_CLASS = 2.0
COST_SPAN = 5.0
COST_SPAN_IOU = 2.0
COST_TUBE_IOU = 2.0


def match(cost_QN: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and truths of the cheapest assignment, each (min(Q, N),), by ascending query.

    With more truths than queries the dearest truths stay without one. Raises ValueError on a cost that is NaN.
    """
    cost = cost_QN.detach().float().cpu().numpy()
    if np.isnan(cost).any():
        raise ValueError("match: expected finite costs, got NaN: the predictions have diverged")
    query, truth = linear_sum_assignment(cost)
    to = cost_QN.device
    return torch.as_tensor(query, device=to), torch.as_tensor(truth, device=to)


def set_cost(class_logits_QL: Tensor, spans_Q2: Tensor, boxes_QT4: Tensor, labels_N: Tensor, truth_spans_N2: Tensor,
             truth_boxes_NT4: Tensor, has_box_NT: Tensor) -> Tensor:
    """Cost of every (query, truth) pair, (Q, N). Spans are 0..1 of the window, boxes normalised.

    Class by the focal cost of Deformable DETR (arXiv 2010.04159); span by L1 in units of the true length, and by
    generalised tIoU; tube by the mean box IoU over the truth's boxed steps (0 for a truth without boxes).
    """
    p = class_logits_QL.sigmoid()[:, labels_N]
    positive = 0.25 * (1 - p) ** 2 * -torch.log(p.clamp(min=1e-8))
    negative = 0.75 * p**2 * -torch.log((1 - p).clamp(min=1e-8))
    length_N = (truth_spans_N2[:, 1] - truth_spans_N2[:, 0]).clamp(min=1e-6)
    l1 = ((spans_Q2[:, None] - truth_spans_N2[None]).abs().mean(-1) / length_N).clamp(max=2)
    start = torch.stack([torch.maximum(spans_Q2[:, None, 0], truth_spans_N2[None, :, 0]),
                         torch.minimum(spans_Q2[:, None, 0], truth_spans_N2[None, :, 0])])
    end = torch.stack([torch.minimum(spans_Q2[:, None, 1], truth_spans_N2[None, :, 1]),
                       torch.maximum(spans_Q2[:, None, 1], truth_spans_N2[None, :, 1])])
    inter = (end[0] - start[0]).clamp(min=0)
    hull = (end[1] - start[1]).clamp(min=1e-6)
    union = (spans_Q2[:, None, 1] - spans_Q2[:, None, 0]) + length_N - inter
    giou = inter / union.clamp(min=1e-6) - (hull - union) / hull
    box_iou_QNT = box_iou_and_hull(boxes_QT4[:, None], truth_boxes_NT4[None])[0]
    tube_iou = (box_iou_QNT * has_box_NT).sum(-1) / has_box_NT.sum(-1).clamp(min=1)
    return COST_CLASS * (positive - negative) + COST_SPAN * l1 - COST_SPAN_IOU * giou - COST_TUBE_IOU * tube_iou
