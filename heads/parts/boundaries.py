"""Distances to an event's ends as distributions over bins, finer than a step.

The bins of a point are multiples of its level's unit (frames per position): even near zero, where most events
lie, and growing after that, so that the coarsest level also reaches the ends of very long events. The distance is
the expectation over the bins; training adds the cross-entropy of the two neighbouring bins (generalised focal
loss, arXiv 2006.04388; the expectation over bins as TriDet, arXiv 2303.07347).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BIN_UNITS = (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6, 7, 8, 10, 13, 17, 22, 29, 38, 50, 64)
NUM_BINS = len(BIN_UNITS)


class DistanceBins(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("units", torch.tensor(BIN_UNITS, dtype=torch.float32), persistent=False)

    def expectation(self, logits: Tensor) -> Tensor:
        """(..., 2 * NUM_BINS) -> (..., 2) distances to start and end, in the level's units."""
        logits = logits.unflatten(-1, (2, NUM_BINS))
        return (logits.float().softmax(-1) * self.units).sum(-1)

    def loss(self, logits_N: Tensor, distances_N2: Tensor) -> Tensor:
        """Cross-entropy to the two bins around the true distances (in units), (N, 2)."""
        log_p = F.log_softmax(logits_N.unflatten(-1, (2, NUM_BINS)).float(), dim=-1)
        distances = distances_N2.clamp(0, BIN_UNITS[-1])
        upper = torch.searchsorted(self.units, distances.contiguous()).clamp(1, NUM_BINS - 1)
        lower = upper - 1
        width = self.units[upper] - self.units[lower]
        weight_upper = (distances - self.units[lower]) / width
        log_lower = log_p.gather(-1, lower[..., None])[..., 0]
        log_upper = log_p.gather(-1, upper[..., None])[..., 0]
        return -(log_lower * (1 - weight_upper) + log_upper * weight_upper)
