"""Number formats for tokens, each as what it makes of them, and how far that is from what it was given.

Shapes: N tokens, C channels. Errors are of standardised tokens, per channel with the mean and std of the whole sample, as
a head sees them; otherwise a few channels of large values would decide everything.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from features.quantise import dequantise, quantise

Level = tuple[Tensor, Tensor]
"""(mean_C, std_C), float32."""

_NUM_CLASSES = 100
_FP8_MAX = 448.0


@dataclass(frozen=True)
class Levels:
    """Channel statistics that a format may use for the tokens of one video, and the principal axes of the sample."""

    first_clip: Level
    video: Level
    sample: Level
    axes_CK: Tensor


@dataclass(frozen=True)
class NumberFormat:
    """`decoded(tokens_NC, levels)` is what a reader gets back; `share(C)` its bytes relative to float16."""

    decoded: Callable[[Tensor, Levels], Tensor]
    share: Callable[[int], float]


def two_level(tokens_NC: Tensor, level: Level) -> Tensor:
    """As `features.quantise` stores it, with the given channel statistics."""
    tokens_N11C = tokens_NC[:, None, None]
    codes_N11C, scale_N11 = quantise(tokens_N11C, *level)
    return dequantise(codes_N11C, scale_N11, *level, torch.empty_like(tokens_N11C))[:, 0, 0]


def grouped(tokens_NC: Tensor, group: int, max_code: int) -> Tensor:
    """Whole numbers up to `max_code` with one float16 scale per `group` channels of a token."""
    num_tokens, channels = tokens_NC.shape
    # The last group may be short; zeros change no maximum.
    padded_NC = torch.nn.functional.pad(tokens_NC, (0, -channels % group))
    parts_NGK = padded_NC.reshape(num_tokens, -1, group)
    scale_NG1 = (parts_NGK.abs().amax(-1, keepdim=True) / max_code).half().float()
    inverse_NG1 = torch.where(scale_NG1 > 0, 1 / scale_NG1, 0)
    codes_NGK = (parts_NGK * inverse_NG1).round().clamp(-max_code, max_code)
    return (codes_NGK * scale_NG1).reshape(num_tokens, -1)[:, :channels]


def fp8(tokens_NC: Tensor) -> Tensor:
    return tokens_NC.clamp(-_FP8_MAX, _FP8_MAX).to(torch.float8_e4m3fn).float()


def fp8_scaled(tokens_NC: Tensor) -> Tensor:
    """With one scale per token, so that the largest value is the largest that fp8 has."""
    scale_N1 = tokens_NC.abs().amax(-1, keepdim=True).clamp(min=1e-30) / _FP8_MAX
    return fp8(tokens_NC / scale_N1) * scale_N1


def projected(tokens_NC: Tensor, levels: Levels) -> Tensor:
    """The principal axes of the sample, each token's coordinates on them as int8 with one scale."""
    mean_C, _ = levels.sample
    coordinates_NK = (tokens_NC - mean_C) @ levels.axes_CK
    return grouped(coordinates_NK, coordinates_NK.shape[1], 127) @ levels.axes_CK.T + mean_C


def _bytes(bits: float, scales: Callable[[int], float] = lambda channels: 0.0) -> Callable[[int], float]:
    """Of a format with so many bits per channel and `scales(C)` float16 numbers per token."""
    return lambda channels: (channels * bits / 8 + 2 * scales(channels)) / (2 * channels)


INT8_STORED = "int8, two-level, statistics of the first clip (as stored)"
FORMATS: Mapping[str, NumberFormat] = {
    "float16": NumberFormat(lambda tokens, levels: tokens.half().float(), _bytes(16)),
    "bfloat16": NumberFormat(lambda tokens, levels: tokens.bfloat16().float(), _bytes(16)),
    INT8_STORED: NumberFormat(lambda tokens, levels: two_level(tokens, levels.first_clip), _bytes(8, lambda channels: 1)),
    "int8, two-level, statistics of the video": NumberFormat(
        lambda tokens, levels: two_level(tokens, levels.video), _bytes(8, lambda channels: 1)
    ),
    "int8, two-level, statistics of the whole sample": NumberFormat(
        lambda tokens, levels: two_level(tokens, levels.sample), _bytes(8, lambda channels: 1)
    ),
    "int8, 8 groups per token": NumberFormat(
        lambda tokens, levels: grouped(tokens, math.ceil(tokens.shape[1] / 8), 127), _bytes(8, lambda channels: 8)
    ),
    "int8, one scale per token": NumberFormat(
        lambda tokens, levels: grouped(tokens, tokens.shape[1], 127), _bytes(8, lambda channels: 1)
    ),
    "fp8 e4m3, one scale per token": NumberFormat(lambda tokens, levels: fp8_scaled(tokens), _bytes(8, lambda channels: 1)),
    "fp8 e4m3": NumberFormat(lambda tokens, levels: fp8(tokens), _bytes(8)),
    "int4, groups of 32": NumberFormat(
        lambda tokens, levels: grouped(tokens, 32, 7), _bytes(4, lambda channels: math.ceil(channels / 32))
    ),
    "half of the principal axes, int8": NumberFormat(projected, lambda channels: (channels // 2 + 2) / (2 * channels)),
}


@dataclass
class Comparison:
    """Adds up how far decoded tokens are from theirs; `standard` is the level that everything is measured in."""

    standard: Level
    error: float = 0.0
    size: float = 0.0
    cosines: list[Tensor] = field(default_factory=list)
    agreeing: int = 0
    num_tokens: int = 0

    def add(self, tokens_NC: Tensor, decoded_NC: Tensor) -> None:
        mean_C, std_C = self.standard
        want_NC, got_NC = (tokens_NC - mean_C) / std_C, (decoded_NC - mean_C) / std_C
        self.error += float((got_NC - want_NC).double().square().sum())
        self.size += float(want_NC.double().square().sum())
        self.cosines.append(torch.cosine_similarity(want_NC, got_NC, dim=-1))
        head_CK = random_head(tokens_NC.shape[1])
        self.agreeing += int(((want_NC @ head_CK).argmax(-1) == (got_NC @ head_CK).argmax(-1)).sum())
        self.num_tokens += len(tokens_NC)

    def figures(self) -> dict[str, float]:
        """`error`: norm of the difference over the norm of the tokens; `cosine`: mean; `worst_cosine`: of the worst 1% of
        tokens, the best; `agreement`: share of tokens to which a random linear head gives the same one of 100 classes.
        """
        cosine_N = torch.cat(self.cosines)
        worst = cosine_N.kthvalue(max(1, len(cosine_N) // 100)).values
        return {
            "error": math.sqrt(self.error / self.size), "cosine": float(cosine_N.mean()), "worst_cosine": float(worst),
            "agreement": self.agreeing / self.num_tokens,
        }


def random_head(channels: int) -> Tensor:
    return torch.randn(channels, _NUM_CLASSES, generator=torch.Generator().manual_seed(0))


def compare_formats(videos: Sequence[Tensor], first_clips: Sequence[Level]) -> dict[str, dict[str, float]]:
    """Format -> its figures and `share` of the bytes of float16, over the tokens_NC of some videos; `first_clips` are the
    statistics of each one's first clip.
    """
    sample_NC = torch.cat(list(videos))
    sample, axes_CK = level_of(sample_NC), _principal_axes(sample_NC)
    channels = sample_NC.shape[1]
    found = {}
    for name, number_format in FORMATS.items():
        comparison = Comparison(sample)
        for tokens_NC, first_clip in zip(videos, first_clips, strict=True):
            levels = Levels(first_clip, level_of(tokens_NC), sample, axes_CK)
            comparison.add(tokens_NC, number_format.decoded(tokens_NC, levels))
        found[name] = comparison.figures() | {"share": number_format.share(channels)}
    return found


def level_of(tokens_NC: Tensor) -> Level:
    """Mean and std per channel, the latter kept from zero."""
    std_C, mean_C = torch.std_mean(tokens_NC, dim=0, correction=0)
    return mean_C, std_C.clamp(min=1e-3 * max(float(std_C.median()), 1e-6))


def _principal_axes(sample_NC: Tensor) -> Tensor:
    """(C, C / 2), fitted to every other token: on the tokens that it was fitted to, it would look better than it is."""
    fitted_NC = sample_NC[::2]
    centred_NC = (fitted_NC - fitted_NC.mean(0)).double()
    _, axes_CC = torch.linalg.eigh(centred_NC.T @ centred_NC)
    return axes_CC[:, -max(1, sample_NC.shape[1] // 2):].float()


def first_clip_shift(videos: Sequence[Tensor], first_clips: Sequence[Level]) -> dict[str, dict[str, float]]:
    """How far the statistics of each first clip lie from those of its video, and of the whole sample: the ratio of the stds
    and the distance of the means in stds, over all channels of all videos.
    """
    sample = level_of(torch.cat(list(videos)))
    shifts = {}
    for name, levels in (("its video", [level_of(tokens_NC) for tokens_NC in videos]), ("the sample", [sample] * len(videos))):
        pairs = list(zip(first_clips, levels, strict=True))
        ratios = torch.cat([first_std_C / std_C for (_, first_std_C), (_, std_C) in pairs])
        distances = torch.cat([(first_mean_C - mean_C).abs() / std_C for (first_mean_C, _), (mean_C, std_C) in pairs])
        low, middle, high = (float(quantile) for quantile in ratios.quantile(torch.tensor([0.01, 0.5, 0.99])))
        shifts[name] = {
            "std_ratio_1%": low, "std_ratio_median": middle, "std_ratio_99%": high,
            "mean_distance_median": float(distances.median()), "mean_distance_99%": float(distances.quantile(0.99)),
        }
    return shifts
