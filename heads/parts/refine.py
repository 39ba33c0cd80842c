"""Decoder layers that follow each query's object along its tube and move the query's interval.

A layer lets the queries see each other, attends into the grid at every step (so that it has both a box and the
object's own features over time), reads those features at places relative to the current interval, denser around
its ends, and from them corrects label, interval and tube.

Shapes: B windows, Q queries, T steps, c cells, D channels, E key channels, M places along the interval.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.parts.trunk import GridFeatures
from heads.parts.tubes import TubeGrid, chosen_boxes

# Places along an interval: 0 is its start, 1 its end. Boundaries are decided where the places are dense.
PLACES = (-0.6, -0.4, -0.25, -0.15, -0.075, 0.0, 0.075, 0.15, 0.25, 0.375, 0.5, 0.625, 0.75, 0.85, 0.925, 1.0,
          1.075, 1.15, 1.25, 1.4, 1.6)


class RefineLayer(nn.Module):
    def __init__(self, width: int, key_width: int, num_labels: int, num_heads: int, dropout: float):
        super().__init__()
        self.place_query = nn.Linear(6, width)
        self.norm_self = nn.LayerNorm(width)
        self.self_attention = nn.MultiheadAttention(width, num_heads, dropout=dropout, batch_first=True)
        self.query = nn.Linear(width, key_width)
        self.value = nn.Linear(width, width)
        self.along = nn.Conv1d(width + 6, width, 3, padding=1)
        self.along_deep = nn.Conv1d(width, width, 3, padding=1)
        self.merge = nn.Linear(width * len(PLACES), width)
        self.norm_merge = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout),
                                 nn.Linear(2 * width, width))
        self.norm_out = nn.LayerNorm(width)
        self.classify = nn.Linear(width, num_labels)
        self.move = nn.Linear(width, 2)
        for layer in (self.classify, self.move):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.query.weight)
        nn.init.zeros_(self.query.bias)
        self.register_buffer("places_M", torch.tensor(PLACES), persistent=False)

    def forward(self, content_BQD: Tensor, spans_BQ2: Tensor, boxes_BQT4: Tensor, features: GridFeatures,
                query_BQE: Tensor, valid_BQ: Tensor, tubes: TubeGrid, grid: tuple[Tensor, Tensor, Tensor]):
        """New content, class change (B, Q, L), spans, tube query, log-attention and boxes."""
        boxes_grid, keys, presence = grid
        middle = values_along(boxes_BQT4, spans_BQ2, spans_BQ2.new_tensor([0.5]), features)[:, :, 0]
        where = torch.cat([spans_BQ2 / features.window_frames, middle], -1)
        content = content_BQD + self.place_query(where)
        x = self.norm_self(content)
        content = content + self.self_attention(x, x, x, key_padding_mask=~valid_BQ, need_weights=False)[0]

        query = query_BQE + self.query(content)
        log_attention = tubes.attention(query, keys, presence, features.valids[0])
        boxes = chosen_boxes(log_attention, boxes_grid)
        value = self.value(features.levels[0].flatten(2, 3))
        track_BQTD = torch.einsum("bqtc,btcd->bqtd", log_attention.exp(), value)
        presence_BQT1 = torch.einsum("bqtc,btc->bqt", log_attention.exp(), presence.flatten(2))[..., None]
        track = values_along(torch.cat([track_BQTD, boxes, presence_BQT1], -1), spans_BQ2, self.places_M, features)
        length = (spans_BQ2[..., 1] - spans_BQ2[..., 0]).clamp(min=1e-3)
        log_length = torch.log(length / features.window_frames)[..., None, None].expand(*track.shape[:3], 1)
        track = torch.cat([track, log_length], -1).flatten(0, 1).transpose(1, 2)
        track = F.gelu(self.along(track))
        track = track + F.gelu(self.along_deep(track))
        content = content + self.norm_merge(self.merge(track.flatten(1))).view_as(content)
        content = content + self.mlp(content)
        out = self.norm_out(content)
        spans = spans_BQ2 + self.move(out) * length[..., None]
        start = torch.minimum(spans[..., 0], spans[..., 1] - 0.5)
        return content, self.classify(out), torch.stack([start, spans[..., 1]], -1), query, log_attention, boxes


def values_along(values_BQTX: Tensor, spans_BQ2: Tensor, places_M: Tensor, features: GridFeatures) -> Tensor:
    """Values at places along each query's interval, linear between step centres, (B, Q, M, X).

    Beyond the window's valid steps the values are zero, as beyond the border of a convolution.
    """
    start, length = spans_BQ2[..., :1], (spans_BQ2[..., 1:] - spans_BQ2[..., :1])
    time = start + length * places_M
    centre_BT = features.step_centre_BT.contiguous()
    B, Q, M = time.shape
    T = centre_BT.shape[1]
    flat = time.flatten(1).detach().contiguous()
    right = torch.searchsorted(centre_BT, flat).clamp(1, max(T - 1, 1))
    left = right - 1
    right = right.clamp(max=T - 1)
    time_left, time_right = centre_BT.gather(1, left), centre_BT.gather(1, right)
    weight = ((flat - time_left) / (time_right - time_left).clamp(min=1e-6)).clamp(0, 1).view(B, Q, M, 1)
    valid = features.step_valid_BT
    first = torch.where(valid, features.step_start_BT, torch.inf).amin(1)[:, None]
    last = torch.where(valid, features.step_end_BT, -torch.inf).amax(1)[:, None]
    inside = ((flat >= first) & (flat <= last)).view(B, Q, M, 1)
    X = values_BQTX.shape[-1]
    # A step beyond the last valid one must not be mixed in.
    right = torch.minimum(right, (valid.sum(1, keepdim=True) - 1).clamp(min=0))
    take = lambda index: values_BQTX.gather(2, index.view(B, Q, M, 1).expand(-1, -1, -1, X))
    return (take(left) * (1 - weight) + take(right) * weight) * inside
