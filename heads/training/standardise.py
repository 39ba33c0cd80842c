"""Mean and standard deviation per channel of the training tokens, from a bounded sample.

Computed once per training and saved in the run: the same numbers standardise every later video.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from heads.training.streams import VideoStream

SAMPLE_TOKENS = 60_000
PIECES_PER_VIDEO = 4
SMALLEST_STD_RATIO = 0.01


@dataclass(frozen=True)
class Standardisation:
    """`(x - mean_C) / std_C` for one store; float32."""

    mean_C: Tensor
    std_C: Tensor

    def __post_init__(self):
        if self.mean_C.shape != self.std_C.shape or self.mean_C.ndim != 1:
            raise ValueError(
                f"Standardisation: expected mean and std of shape (C,), "
                f"got {tuple(self.mean_C.shape)} and {tuple(self.std_C.shape)}"
            )
        if not (torch.isfinite(self.mean_C).all() and torch.isfinite(self.std_C).all() and (self.std_C > 0).all()):
            raise ValueError("Standardisation: expected finite means and positive finite standard deviations")

    @classmethod
    def identity(cls, channels: int) -> Standardisation:
        return cls(torch.zeros(channels), torch.ones(channels))


def measure_standardisation(videos: Sequence[VideoStream]) -> Standardisation:
    """From evenly spread pieces of every video, about `SAMPLE_TOKENS` tokens in all; cells outside the picture do not count.

    A channel that hardly varies in the sample gets a floor, so that an unseen video cannot blow it up.
    """
    channels = videos[0].channels
    tokens_per_step = sum(int(video.valid_HW.sum()) for video in videos) / len(videos)
    steps_per_piece = max(1, round(SAMPLE_TOKENS / tokens_per_step / len(videos) / PIECES_PER_VIDEO))
    count, mean_C, square_C = 0, torch.zeros(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
    for video in videos:
        for start, stop in _spread_pieces(video.num_steps, steps_per_piece):
            tokens_nHWC = video.stored.read(video.level, start, stop, torch.empty(stop - start, *video.grid, channels))
            valid_HW = torch.from_numpy(video.valid_HW)
            var_C, piece_mean_C = torch.var_mean(tokens_nHWC[:, valid_HW].reshape(-1, channels), dim=0, correction=0)
            # Sums of squares about the mean so far, joined as in Chan et al. 1983: float32 pieces stay exact enough.
            num_tokens = (stop - start) * int(video.valid_HW.sum())
            delta_C = piece_mean_C.double() - mean_C
            count += num_tokens
            mean_C += delta_C * num_tokens / count
            square_C += var_C.double() * num_tokens + delta_C.square() * num_tokens * (count - num_tokens) / count
    std_C = (square_C / count).sqrt()
    floor = SMALLEST_STD_RATIO * max(float(std_C.median()), 1e-6)
    return Standardisation(mean_C.float(), std_C.clamp(min=floor).float())


def _spread_pieces(num_steps: int, steps_per_piece: int) -> list[tuple[int, int]]:
    """At most `PIECES_PER_VIDEO` disjoint pieces, the first at the start and the last at the end; all steps if they are few."""
    if num_steps <= PIECES_PER_VIDEO * steps_per_piece:
        return [(0, num_steps)]
    gap = (num_steps - steps_per_piece) / (PIECES_PER_VIDEO - 1)
    starts = [round(index * gap) for index in range(PIECES_PER_VIDEO)]
    return [(start, start + steps_per_piece) for start in starts]
