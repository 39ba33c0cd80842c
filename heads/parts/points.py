"""The dense stage: points in time *and* place, each with class scores, distances to start and end, and a tube.

An anchor-free detector in the manner of ActionFormer (arXiv 2202.07925) whose points also have a cell of the grid:
two events that overlap in time, of one label or not, lie at different cells and so never compete for a point.
Points exist at several step rates; an event belongs to the levels whose positions suit its length.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.parts.blocks import Tower
from heads.parts.boundaries import NUM_BINS, DistanceBins
from heads.parts.contract import Candidates, Targets
from heads.parts.losses import focal_loss, quality_focal_loss, span_diou_loss, span_iou
from heads.parts.trunk import GridFeatures
from heads.parts.tubes import TubeGrid, attention_loss, box_loss, cells_of_boxes, chosen_boxes

# An event belongs to the levels whose unit u has LENGTH_UNITS[0] * u <= length < LENGTH_UNITS[1] * u; neighbouring
# levels overlap, so that a length at a border is learnt by both. The first level also takes what is shorter, the
# last what is longer.
LENGTH_UNITS = (3.0, 8.0)
CENTRE_RADIUS_UNITS = 1.5
TUBES_PER_EVENT = 3

# About what one event has of each. A window without events must not weigh more than one with a single event.
POINTS_PER_EVENT = 10
CELLS_PER_EVENT = 24


@dataclass
class PointPrediction:
    """All points of all levels, flattened to P. Times are frames from the window's start."""

    features: GridFeatures
    class_logits_BPL: Tensor
    distance_logits_BPK: Tensor
    query_BPE: Tensor
    content_BPD: Tensor
    spans_BP2: Tensor
    time_BP: Tensor
    unit_BP: Tensor
    level_P: Tensor
    cell_P: Tensor
    valid_BP: Tensor
    boxes_BThw4: Tensor
    keys_BThwE: Tensor
    presence_BThw: Tensor


class PointStage(nn.Module):
    def __init__(self, width: int, key_width: int, num_labels: int, num_levels: int, step_frames: float):
        super().__init__()
        self.step_frames = step_frames
        self.num_levels = num_levels
        self.key_width = key_width
        self.class_tower = Tower(width, num_labels, bias=-4.6)
        self.span_tower = Tower(width, 2 * NUM_BINS + key_width)
        self.level_scale = nn.Parameter(torch.ones(num_levels))
        self.bins = DistanceBins()
        self.tubes = TubeGrid(width, key_width)

    def forward(self, features: GridFeatures) -> PointPrediction:
        classes, distances, queries, contents, times, units, levels, cells, valids = ([] for _ in range(9))
        for i, (level, valid, mask) in enumerate(zip(features.levels, features.valids, features.masks)):
            B, T, h, w, _ = level.shape
            classes.append(self.class_tower(level, mask).flatten(1, 3))
            span_and_query = self.span_tower(level, mask).flatten(1, 3)
            distances.append(span_and_query[..., : 2 * NUM_BINS] * self.level_scale[i])
            queries.append(span_and_query[..., 2 * NUM_BINS :])
            contents.append(level.flatten(1, 3).float())
            times.append(features.level_centres_BT(i)[:, :, None].expand(B, T, h * w).flatten(1))
            units.append(times[-1].new_full((B, T * h * w), self.step_frames * 2**i))
            levels.append(torch.full((T * h * w,), i, device=level.device))
            cells.append(torch.arange(h * w, device=level.device).repeat(T))
            valids.append(valid.flatten(1))
        time_BP, unit_BP = torch.cat(times, 1), torch.cat(units, 1)
        distance_logits = torch.cat(distances, 1)
        reach = self.bins.expectation(distance_logits) * unit_BP[..., None]
        spans = torch.stack([time_BP - reach[..., 0], time_BP + reach[..., 1]], -1)
        boxes, keys, presence = self.tubes(features)
        return PointPrediction(features, torch.cat(classes, 1), distance_logits, torch.cat(queries, 1),
                               torch.cat(contents, 1), spans, time_BP, unit_BP, torch.cat(levels),
                               torch.cat(cells), torch.cat(valids, 1), boxes, keys, presence)

    def boxes_of(self, prediction: PointPrediction, query_BQE: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (B, Q, T, 4) and log-attention (B, Q, T, cells) of queries."""
        log_attention = self.tubes.attention(query_BQE, prediction.keys_BThwE, prediction.presence_BThw,
                                             prediction.features.valids[0])
        return chosen_boxes(log_attention, prediction.boxes_BThw4), log_attention

    def top_points(self, prediction: PointPrediction, count: int, peaks: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """The best (point, label) pairs of each window: point index, label, score; each (B, Q).

        With `peaks`, only points whose score is the highest among their neighbours in time and space.
        """
        scores = prediction.class_logits_BPL.sigmoid() * prediction.valid_BP[..., None]
        if peaks:
            scores = scores * self._is_peak(scores, prediction.features)
        num_labels = scores.shape[-1]
        top, index = scores.flatten(1).topk(min(count, scores.shape[1] * num_labels), dim=1)
        return index // num_labels, index % num_labels, top

    def _is_peak(self, scores_BPL: Tensor, features: GridFeatures) -> Tensor:
        peaks, first = [], 0
        for level in features.levels:
            B, T, h, w, _ = level.shape
            of_level = scores_BPL[:, first : first + T * h * w].unflatten(1, (T, h, w)).permute(0, 4, 1, 2, 3)
            best = F.max_pool3d(of_level, kernel_size=(3, 3, 3), stride=1, padding=1)
            peaks.append((of_level == best).permute(0, 2, 3, 4, 1).flatten(1, 3))
            first += T * h * w
        return torch.cat(peaks, 1)

    def candidates(self, prediction: PointPrediction, count: int) -> list[Candidates]:
        point_BQ, label_BQ, score_BQ = self.top_points(prediction, count)
        expand = point_BQ[..., None].expand
        spans = prediction.spans_BP2.gather(1, expand(-1, -1, 2)) / prediction.features.window_frames
        query = prediction.query_BPE.gather(1, expand(-1, -1, self.key_width))
        boxes, _ = self.boxes_of(prediction, query)
        return [Candidates(*parts) for parts in zip(spans, label_BQ, score_BQ, boxes)]

    def loss(self, prediction: PointPrediction, targets: list[Targets]) -> dict[str, Tensor]:
        parts = [self._window_loss(prediction, b, target) for b, target in enumerate(targets)]
        num_points = sum(p["num_points"] for p in parts).clamp(min=POINTS_PER_EVENT)
        num_cells = sum(p["num_cells"] for p in parts).clamp(min=CELLS_PER_EVENT)
        losses = {
            "points/class": sum(p["class"] for p in parts) / num_points,
            "points/span": sum(p["span"] for p in parts) / num_points,
            "points/bins": 0.25 * sum(p["bins"] for p in parts) / num_points,
            "grid/presence": sum(p["presence"] for p in parts) / num_cells,
            "grid/box": 2 * sum(p["box"] for p in parts) / num_cells,
            "tube/attention": 0.5 * sum(p["tube"] for p in parts) / len(parts),
        }
        losses["total"] = sum(losses.values())
        return losses

    def _window_loss(self, prediction: PointPrediction, b: int, target: Targets) -> dict[str, Tensor]:
        features = prediction.features
        h, w = features.cell_box_norm_Bhw4.shape[1:3]
        spans_N2 = target.spans_N2 * features.window_frames
        logits_PL = prediction.class_logits_BPL[b]
        zero = logits_PL.sum() * 0
        cells_NThw = cells_of_boxes(target.boxes_NT4, target.has_box_NT, features.cell_box_norm_Bhw4[b])
        cells_NThw = cells_NThw & features.valids[0][b]

        positive_NP, ignored_PL = self._assign(prediction, b, target, spans_N2, cells_NThw)
        length_N = spans_N2[:, 1] - spans_N2[:, 0]
        point_event = torch.where(positive_NP, length_N[:, None], torch.inf)
        is_positive_P = positive_NP.any(0)
        out = {"num_points": is_positive_P.sum()}
        quality_PL = torch.zeros_like(logits_PL)
        out["span"] = out["bins"] = zero
        if is_positive_P.any():
            index = is_positive_P.nonzero()[:, 0]
            event = point_event[:, index].argmin(0)
            truth = spans_N2[event]
            predicted = prediction.spans_BP2[b, index]
            out["span"] = span_diou_loss(predicted, truth).sum()
            time, unit = prediction.time_BP[b, index], prediction.unit_BP[b, index]
            reach = torch.stack([time - truth[:, 0], truth[:, 1] - time], -1) / unit[:, None]
            out["bins"] = self.bins.loss(prediction.distance_logits_BPK[b, index], reach).sum()
            quality = 0.3 + 0.7 * span_iou(predicted.detach(), truth)
            quality_PL = quality_PL.index_put((index, target.labels_N[event]), quality)
        weight = (prediction.valid_BP[b][:, None] & ~ignored_PL).to(logits_PL.dtype)
        out["class"] = (quality_focal_loss(logits_PL, quality_PL) * weight).sum()
        out |= self._grid_loss(prediction, b, target, cells_NThw)
        out["tube"] = self._tube_loss(prediction, b, target, positive_NP, cells_NThw)
        return out

    def _assign(self, prediction: PointPrediction, b: int, target: Targets, spans_N2: Tensor,
                cells_NThw: Tensor) -> tuple[Tensor, Tensor]:
        """Which points learn which event (N, P), and which (point, label) pairs must not be called background."""
        features = prediction.features
        T, h, w = cells_NThw.shape[1:]
        N = len(target)
        length_N = spans_N2[:, 1] - spans_N2[:, 0]
        centre_N = spans_N2.mean(-1)
        logits_PL = prediction.class_logits_BPL[b].detach()
        near_cells = _cells_of_nearest_boxed_step(cells_NThw, target.has_box_NT)
        positives, ignored, first_point = [], [], 0
        for i in range(self.num_levels):
            unit = self.step_frames * 2**i
            low = LENGTH_UNITS[0] * unit if i else 0.0
            high = LENGTH_UNITS[1] * unit if i < self.num_levels - 1 else torch.inf
            suits_N = (length_N >= low) & (length_N < high)
            time_T = features.level_centres_BT(i)[b]
            valid_T = features.step_valid_BT[b, :: 2**i]
            distance_NT = (time_T - centre_N[:, None]).abs().masked_fill(~valid_T, torch.inf)
            radius = torch.minimum(torch.full_like(length_N, CENTRE_RADIUS_UNITS * unit), length_N / 2)
            central_NT = distance_NT <= radius[:, None]
            if N:
                nearest = F.one_hot(distance_NT.argmin(-1), len(time_T)).bool()
                central_NT = (central_NT | nearest) & valid_T & suits_N[:, None]
            positive = central_NT[..., None, None] & near_cells[:, :: 2**i]
            level_logits = logits_PL[first_point : first_point + len(time_T) * h * w].view(len(time_T), h * w, -1)
            ignore = torch.zeros_like(level_logits, dtype=torch.bool)
            for n in (~target.boxed_N).nonzero()[:, 0].tolist():
                # Nobody says where this event is: the most convinced cell of each step learns it, the other cells
                # of those steps are left alone.
                steps = central_NT[n].nonzero()[:, 0]
                label = target.labels_N[n]
                valid_cells = features.valids[i][b, steps].flatten(1)
                best = level_logits[steps, :, label].masked_fill(~valid_cells, -torch.inf).argmax(-1)
                positive[n] = False
                positive[n].view(len(time_T), -1)[steps, best] = True
                ignore[steps, :, label] = True
                ignore[steps, best, label] = False
            positives.append(positive.flatten(1))
            ignored.append(ignore.flatten(0, 1))
            first_point += len(time_T) * h * w
        positive_NP, ignored_PL = torch.cat(positives, 1), torch.cat(ignored)
        return positive_NP & prediction.valid_BP[b], ignored_PL

    def _grid_loss(self, prediction: PointPrediction, b: int, target: Targets, cells_NThw: Tensor) -> dict[str, Tensor]:
        """Presence and boxes at the cells of every step on which an event has a box."""
        logits = prediction.presence_BThw[b]
        features = prediction.features
        present_Thw = cells_NThw.any(0)
        centre_T = features.step_centre_BT[b]
        spans_N2 = target.spans_N2 * features.window_frames
        during_NT = (centre_T >= spans_N2[:, :1]) & (centre_T < spans_N2[:, 1:])
        unknown_T = (during_NT & ~target.has_box_NT & ~target.boxed_N[:, None]).any(0)
        weight = features.valids[0][b] & ~unknown_T[:, None, None]
        presence = (focal_loss(logits, present_Thw.to(logits.dtype), alpha=0.5) * weight).sum()
        n, t, y, x = cells_NThw.nonzero(as_tuple=True)
        boxes = box_loss(prediction.boxes_BThw4[b, t, y, x], target.boxes_NT4[n, t])
        return {"presence": presence, "box": boxes.sum(), "num_cells": torch.tensor(len(n), device=logits.device)}

    def _tube_loss(self, prediction: PointPrediction, b: int, target: Targets, positive_NP: Tensor,
                   cells_NThw: Tensor) -> Tensor:
        """Attention of up to TUBES_PER_EVENT of each boxed event's points, drawn at random."""
        usable_NP = positive_NP & target.boxed_N[:, None]
        draw = torch.rand(usable_NP.shape, device=usable_NP.device).masked_fill(~usable_NP, -1.0)
        top, index = draw.topk(min(TUBES_PER_EVENT, draw.shape[1]), dim=1)
        n, k = (top >= 0).nonzero(as_tuple=True)
        point = index[n, k]
        one = slice(b, b + 1)
        log_attention = self.tubes.attention(prediction.query_BPE[one, point], prediction.keys_BThwE[one],
                                             prediction.presence_BThw[one], prediction.features.valids[0][one])
        return attention_loss(log_attention[0], cells_NThw[n].flatten(2))


def _cells_of_nearest_boxed_step(cells_NThw: Tensor, has_box_NT: Tensor) -> Tensor:
    """At a step where an event is hidden, its cells at the nearest step where it is seen."""
    N, T = has_box_NT.shape
    step = torch.arange(T, device=has_box_NT.device)
    gap = (step[:, None] - step[None]).abs().float()
    nearest_NT = torch.where(has_box_NT[:, None, :], gap, torch.inf).argmin(-1)
    return cells_NThw[torch.arange(N, device=has_box_NT.device)[:, None], nearest_NT]
