"""Tokens as a person can look at them: the three main directions of one video as red, green and blue.

The principal components of a bounded sample of the video's tokens. Channels that vary more than nearly all others are shrunk
first: an encoder's few outlier channels would decide the whole picture. Shapes: n steps, h x w cells, C channels, N tokens.
"""

from dataclasses import dataclass

import numpy as np
import torch

from features.stored_video import StoredVideo

SAMPLED_STEPS = 48
SAMPLED_TOKENS = 6144
# What lies outside these percentiles is drawn like the nearest that does not: a few extreme tokens take no contrast.
_PERCENTILES = (2, 98)
# Channels above this percentile of the standard deviations are shrunk to it.
_OUTLIER_PERCENTILE = 95
_GREY = 0.5


@dataclass(frozen=True)
class TokenColours:
    """Fitted to one level of one video by `fit`; `explained` is the part of the variance that the three directions hold."""

    mean_C: torch.Tensor
    shrink_C: torch.Tensor
    directions_C3: torch.Tensor
    low_3: torch.Tensor
    high_3: torch.Tensor
    explained: float

    @classmethod
    def fit(cls, video: StoredVideo, level: str) -> "TokenColours":
        """Takes evenly spaced steps, and of them evenly spaced tokens that show the video."""
        tokens_NC = _sample(video, level)
        channels = tokens_NC.shape[1]
        mean_C, std_C = tokens_NC.mean(0), tokens_NC.std(0, correction=0)
        shrink_C = (float(np.percentile(std_C, _OUTLIER_PERCENTILE)) / std_C.clamp(min=1e-30)).clamp(max=1)
        standard_NC = (tokens_NC - mean_C) * shrink_C
        power_C, directions_CC = torch.linalg.eigh(standard_NC.T.double() @ standard_NC.double() / len(standard_NC))
        directions_C3 = torch.zeros(channels, 3)
        num_found = min(3, channels)
        directions_C3[:, :num_found] = directions_CC.flip(1)[:, :num_found].float()
        # A direction is found up to its sign; the same video has to give the same picture.
        strongest_3 = directions_C3.abs().argmax(0, keepdim=True)
        directions_C3 *= torch.where(directions_C3.gather(0, strongest_3) < 0, -1, 1)
        projected_N3 = standard_NC @ directions_C3
        low_3, high_3 = (torch.from_numpy(np.percentile(projected_N3, at, axis=0)).float() for at in _PERCENTILES)
        total = float(power_C.sum())
        explained = float(power_C[-num_found:].sum()) / total if total > 0 else 0.0
        return cls(mean_C, shrink_C, directions_C3, low_3, high_3, explained)

    def paint(self, tokens_nhwC: torch.Tensor) -> np.ndarray:
        """(n, h, w, 3) float in 0..1; grey where a direction does not vary."""
        projected = (tokens_nhwC - self.mean_C) * self.shrink_C @ self.directions_C3
        width_3 = self.high_3 - self.low_3
        rgb = torch.where(width_3 > 0, (projected - self.low_3) / width_3, _GREY)
        return rgb.clamp(0, 1).numpy()


def read_float32(video: StoredVideo, level: str, step: int) -> torch.Tensor:
    """One step of a level, (1, h, w, C)."""
    return video.read(level, step, step + 1, out=torch.empty((1, *video.shape(level)[1:])))


def evenly_spaced(num_steps: int, count: int) -> list[int]:
    """At most `count` steps over the whole video, each in the middle of an equal part of it."""
    count = min(num_steps, count)
    return [(2 * index + 1) * num_steps // (2 * count) for index in range(count)]


def _sample(video: StoredVideo, level: str) -> torch.Tensor:
    valid_hw = torch.from_numpy(np.array(video.valid(level)))
    steps = evenly_spaced(video.num_steps, SAMPLED_STEPS)
    tokens_NC = torch.cat([read_float32(video, level, step)[0][valid_hw] for step in steps])
    return tokens_NC[torch.tensor(evenly_spaced(len(tokens_NC), SAMPLED_TOKENS))]
