"""`detr`: set prediction. Each query is a label, an interval, and a box per step.

Two stages (as Deformable DETR, arXiv 2010.04159): the dense stage proposes, queries start from the peaks of its
scores and from a few learnt intervals, and decoder layers refine them; each truth is matched to one query of every
layer by the Hungarian method. A plain DETR from learnt queries alone needs far more data than a few hundred events.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn

from heads import dense
from heads.parts.contract import Batch, Candidates, Targets, TokenSpec
from heads.parts.losses import quality_focal_loss, span_diou_loss, span_iou
from heads.parts.matching import match, set_cost
from heads.parts.points import PointPrediction
from heads.parts.refine import RefineLayer
from heads.parts.tubes import attention_loss, cells_of_boxes

task = "events"


class Config(dense.Config):
    num_proposals: int = Field(32, ge=1, description="queries that start from the dense stage, per window")
    num_learnt: int = Field(8, ge=0, description="queries that start from a learnt interval")
    num_layers: int = Field(2, ge=1)
    num_heads: int = Field(4, ge=1)


@dataclass
class LayerAnswer:
    class_logits_BQL: Tensor
    spans_BQ2: Tensor
    boxes_BQT4: Tensor
    log_attention_BQTc: Tensor


@dataclass
class Prediction:
    points: PointPrediction
    layers: list[LayerAnswer]
    valid_BQ: Tensor


class Head(dense.Head):
    def __init__(self, config: Config, specs: list[TokenSpec], labels: list[str]):
        super().__init__(config, specs, labels)
        width = config.width
        self.num_labels = len(labels)
        self.start_content = nn.Linear(width, width)
        self.label_content = nn.Embedding(len(labels), width)
        self.learnt_content = nn.Parameter(torch.randn(config.num_learnt, width) * 0.02)
        self.learnt_query = nn.Parameter(torch.randn(config.num_learnt, config.key_width) * 0.02)
        self.learnt_centre = nn.Parameter(torch.linspace(-2, 2, config.num_learnt) if config.num_learnt else torch.zeros(0))
        self.layers = nn.ModuleList(
            RefineLayer(width, config.key_width, len(labels), config.num_heads, config.dropout)
            for _ in range(config.num_layers)
        )

    def forward(self, batch: Batch) -> Prediction:
        points = super().forward(batch)
        content, logits, spans, query, valid = self._queries(points)
        boxes, _ = self.points.boxes_of(points, query)
        grid = (points.boxes_BThw4, points.keys_BThwE, points.presence_BThw)
        answers = []
        for layer in self.layers:
            content, change, spans, query, log_attention, boxes = layer(
                content, spans.detach(), boxes.detach(), points.features, query, valid, self.points.tubes, grid
            )
            logits = logits + change
            answers.append(LayerAnswer(logits, spans, boxes, log_attention))
        return Prediction(points, answers, valid)

    def _queries(self, points: PointPrediction):
        """Content, class logits, spans (frames), tube query and validity of all queries."""
        point_BQ, label_BQ, score_BQ = self.points.top_points(points, self.config.num_proposals, peaks=True)
        B, num_learnt = len(point_BQ), self.config.num_learnt
        pick = lambda values: values.gather(1, point_BQ[..., None].expand(-1, -1, values.shape[-1]))
        content = self.start_content(pick(points.content_BPD)) + self.label_content(label_BQ)
        window = points.features.window_frames
        centre = self.learnt_centre.sigmoid() * window
        half = centre.new_full(centre.shape, window / (2 * max(num_learnt, 1)))
        learnt_spans = torch.stack([centre - half, centre + half], -1)
        prior = points.class_logits_BPL.new_full((B, num_learnt, self.num_labels), -4.6)
        return (
            torch.cat([content, self.learnt_content.expand(B, -1, -1)], 1),
            torch.cat([pick(points.class_logits_BPL).detach(), prior], 1),
            torch.cat([pick(points.spans_BP2).detach(), learnt_spans.expand(B, -1, -1)], 1),
            torch.cat([pick(points.query_BPE), self.learnt_query.expand(B, -1, -1)], 1),
            torch.cat([score_BQ > 0, score_BQ.new_ones(B, num_learnt, dtype=torch.bool)], 1),
        )

    def loss(self, prediction: Prediction, targets: list[Targets]) -> dict[str, Tensor]:
        losses = self.points.loss(prediction.points, targets)
        total = losses.pop("total")
        num_events = max(sum(len(target) for target in targets), 1)
        for i, layer in enumerate(prediction.layers):
            windows = [self._window_loss(prediction, layer, b, target) for b, target in enumerate(targets)]
            for name in windows[0]:
                losses[f"layer{i}/{name}"] = sum(w[name] for w in windows) / num_events
                total = total + losses[f"layer{i}/{name}"]
        return losses | {"total": total}

    def _window_loss(self, prediction: Prediction, layer: LayerAnswer, b: int, target: Targets) -> dict[str, Tensor]:
        features = prediction.points.features
        logits_QL, spans_Q2 = layer.class_logits_BQL[b], layer.spans_BQ2[b] / features.window_frames
        cost = set_cost(logits_QL, spans_Q2, layer.boxes_BQT4[b], target.labels_N, target.spans_N2, target.boxes_NT4,
                        target.has_box_NT)
        cost = cost.masked_fill(~prediction.valid_BQ[b][:, None], 1e6)
        query, truth = match(cost)
        predicted, true = spans_Q2[query], target.spans_N2[truth]
        quality = torch.zeros_like(logits_QL).index_put(
            (query, target.labels_N[truth]), 0.3 + 0.7 * span_iou(predicted.detach(), true)
        )
        length = (true[:, 1] - true[:, 0]).clamp(min=1e-6)
        l1 = ((predicted - true).abs() / length[:, None]).clamp(max=4).sum()
        cells = cells_of_boxes(target.boxes_NT4[truth], target.has_box_NT[truth], features.cell_box_norm_Bhw4[b])
        cells = cells & features.valids[0][b]
        attention = attention_loss(layer.log_attention_BQTc[b, query], cells.flatten(2))
        valid = prediction.valid_BQ[b][:, None]
        return {
            "class": (quality_focal_loss(logits_QL, quality) * valid).sum(),
            "span": span_diou_loss(predicted, true).sum() + l1,
            "tube": 0.5 * attention * len(truth),
        }

    def decode(self, prediction: Prediction) -> list[Candidates]:
        """Every (query, label) pair of the last layer, the best `num_candidates` of a window."""
        layer = prediction.layers[-1]
        scores_BQL = layer.class_logits_BQL.sigmoid() * prediction.valid_BQ[..., None]
        count = min(self.config.num_candidates, scores_BQL[0].numel())
        top, index = scores_BQL.flatten(1).topk(count, dim=1)
        query, label = index // self.num_labels, index % self.num_labels
        window = prediction.points.features.window_frames
        return [
            Candidates(layer.spans_BQ2[b, query[b]] / window, label[b], top[b], layer.boxes_BQT4[b, query[b]])
            for b in range(len(top))
        ]
