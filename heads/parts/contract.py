"""What a head receives and what it returns.

A head sees positions only as frames (from the window's start) and as normalised displayed coordinates,
never as indices, so that it does not depend on an encoder's step length, grid or geometry.

Shapes: B windows, T steps, H x W cells, C channels, N events of one window, Q candidates of one window.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor

LEVELS = ("tokens", "pool4", "pool2", "pool1")


@dataclass(frozen=True)
class TokenSpec:
    """One store, as a head needs to know it: `step_frames` and `clip_frames` are in frames of the video."""

    channels: int
    levels: tuple[str, ...]
    step_frames: float
    clip_frames: float

    def __post_init__(self):
        if self.channels < 1 or self.step_frames <= 0 or self.clip_frames <= 0:
            raise ValueError(f"TokenSpec: channels, step_frames and clip_frames must be positive, got {self}")
        unknown = [level for level in self.levels if level not in LEVELS]
        if unknown or not self.levels:
            raise ValueError(f"TokenSpec: levels are some of {LEVELS}, got {self.levels}")


@dataclass
class TokenStream:
    """The tokens of one store for a batch of windows, standardised.

    `cell_box_norm_BHW4` says where each cell lies in the displayed frame (xyxy, may reach outside 0..1).
    `step_start_BT`, `step_end_BT`, `first_seen_BT` and `last_seen_BT` are frames from the window's start.
    `valid_BTHW` is False on padded steps and on cells outside the picture.
    """

    tokens_BTHWC: Tensor
    valid_BTHW: Tensor
    cell_box_norm_BHW4: Tensor
    step_start_BT: Tensor
    step_end_BT: Tensor
    first_seen_BT: Tensor
    last_seen_BT: Tensor

    def __post_init__(self):
        B, T, H, W = self.tokens_BTHWC.shape[:4]
        expected = {
            "valid_BTHW": (B, T, H, W),
            "cell_box_norm_BHW4": (B, H, W, 4),
            "step_start_BT": (B, T),
            "step_end_BT": (B, T),
            "first_seen_BT": (B, T),
            "last_seen_BT": (B, T),
        }
        for name, shape in expected.items():
            got = tuple(getattr(self, name).shape)
            if got != shape:
                raise ValueError(f"TokenStream.{name}: expected {shape} beside tokens of {(B, T, H, W)}, got {got}")

    def to(self, device) -> TokenStream:
        return TokenStream(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})


@dataclass
class Batch:
    """Windows of equal nominal length `window_frames`, one stream per store."""

    streams: tuple[TokenStream, ...]
    window_frames: float

    def __post_init__(self):
        if not self.streams or self.window_frames <= 0:
            raise ValueError("Batch: expected at least one stream and a positive window length")

    def to(self, device) -> Batch:
        return Batch(tuple(stream.to(device) for stream in self.streams), self.window_frames)


@dataclass
class Targets:
    """The events of one window.

    `spans_N2` are 0..1 of the nominal window and are cut at its ends; `open_N2` marks the cut ends.
    `boxes_NT4` (normalised xyxy) are at the steps of the first stream; `has_box_NT` says where.
    `boxed_N` is False for an event that carries no box at all in the dataset (it trains the temporal part only).
    """

    labels_N: Tensor
    spans_N2: Tensor
    open_N2: Tensor
    boxes_NT4: Tensor
    has_box_NT: Tensor
    boxed_N: Tensor

    def __post_init__(self):
        N, T = self.has_box_NT.shape
        got = [tuple(t.shape) for t in (self.labels_N, self.spans_N2, self.open_N2, self.boxes_NT4, self.boxed_N)]
        expected = [(N,), (N, 2), (N, 2), (N, T, 4), (N,)]
        if got != expected:
            raise ValueError(f"Targets: expected shapes {expected} for {N} events and {T} steps, got {got}")

    def __len__(self) -> int:
        return len(self.labels_N)

    def to(self, device) -> Targets:
        return Targets(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})


@dataclass
class Candidates:
    """A head's answers for one window: spans 0..1 of the nominal window, boxes (normalised xyxy) at its steps.

    `boxes_norm_QT4` is None for a head that predicts no boxes. Scores are in 0..1.
    """

    spans_Q2: Tensor
    labels_Q: Tensor
    scores_Q: Tensor
    boxes_norm_QT4: Tensor | None

    def __post_init__(self):
        Q = len(self.labels_Q)
        if tuple(self.spans_Q2.shape) != (Q, 2) or tuple(self.scores_Q.shape) != (Q,):
            raise ValueError(
                f"Candidates: expected spans (Q, 2) and scores (Q,) for Q={Q}, "
                f"got {tuple(self.spans_Q2.shape)} and {tuple(self.scores_Q.shape)}"
            )


class EventHead(Protocol):
    """What a module `heads/<name>.py` offers as `Head(config, specs, labels)`; a plain `torch.nn.Module`."""

    level: str  # the pyramid level that the head reads

    def prepare(self, targets: Iterable[Targets]) -> None:
        """See the targets of the whole training split once, before training; keeps what it needs in buffers."""

    def forward(self, batch: Batch) -> Any:
        """The network alone: returns the head's own prediction type, the same in training and in evaluation."""

    def loss(self, prediction: Any, targets: list[Targets]) -> dict[str, Tensor]:
        """One `Targets` per window; the dictionary holds `total` and its named parts."""

    def decode(self, prediction: Any) -> list[Candidates]:
        """One `Candidates` per window; overlapping answers are thinned out later, over the whole video."""

