"""Variations of stored tokens during training: the frozen encoder cannot see the same video twice, a head can.

Shapes: B windows, T steps, H x W cells, C channels, N events.
"""

from __future__ import annotations

import dataclasses

import torch
from pydantic import Field
from torch import Tensor

from heads.parts.contract import Batch, Targets, TokenStream
from vjepa_loc.settings import Settings

SEEN_PART = 0.5
"""A box that a shift pushes over the edge counts while at least this part of it is still seen."""


class AugmentConfig(Settings):
    """How much training windows are varied; 0 switches a variation off. Standardised tokens have a deviation of 1."""

    augment_gain: float = Field(0.2, ge=0, description="deviation of a random log-gain per channel and window")
    augment_offset: float = Field(0.2, ge=0, description="deviation of a random offset per channel and window")
    augment_shift: float = Field(0.125, ge=0, le=0.5, description="largest shift of a window's grid with its boxes, as a part of the frame")


def augmented(batch: Batch, targets: list[Targets], config: AugmentConfig) -> tuple[Batch, list[Targets]]:
    """A varied copy; draws from torch's global generator of the CPU, so that it is the same on every device."""
    streams = [_with_channel_noise(stream, config.augment_gain, config.augment_offset) for stream in batch.streams]
    if config.augment_shift:
        cells_B2 = _draw_shifts(streams, config.augment_shift)
        streams = [_shifted(stream, cells_B2) for stream in streams]
        cell_box_BHW4 = streams[0].cell_box_norm_BHW4
        targets = [
            _shifted_targets(target, cells, cell_box)
            for target, cells, cell_box in zip(targets, cells_B2.tolist(), cell_box_BHW4, strict=True)
        ]
    return Batch(tuple(streams), batch.window_frames), targets


def _with_channel_noise(stream: TokenStream, gain: float, offset: float) -> TokenStream:
    tokens = stream.tokens_BTHWC
    shape = (len(tokens), 1, 1, 1, tokens.shape[-1])
    gain_B111C = torch.exp(gain * torch.randn(shape)).to(tokens.device)
    offset_B111C = (offset * torch.randn(shape)).to(tokens.device)
    return dataclasses.replace(stream, tokens_BTHWC=torch.addcmul(offset_B111C, tokens, gain_B111C))


def _draw_shifts(streams: list[TokenStream], part: float) -> Tensor:
    """Whole cells (down, across) per window, (B, 2). Zero where a shift would not mean the same everywhere: stores with other
    grids beside each other, and windows with bars."""
    B, _, H, W = streams[0].valid_BTHW.shape
    reach = torch.tensor([int(part * H), int(part * W)])
    cells_B2 = (torch.rand(B, 2) * (2 * reach + 1)).floor().long() - reach
    movable = torch.ones(B, dtype=torch.bool)
    for stream in streams:
        valid_BTn = stream.valid_BTHW.flatten(2).cpu()
        movable &= (valid_BTn.all(-1) == valid_BTn.any(-1)).all(-1)
        movable &= stream.valid_BTHW.shape[2:] == (H, W)
    return cells_B2 * movable[:, None]


def _shifted(stream: TokenStream, cells_B2: Tensor) -> TokenStream:
    """The content moves over the cells, which stay where they are; cells that nothing moves into hold the mean token, zero."""
    tokens = torch.zeros_like(stream.tokens_BTHWC)
    H, W = tokens.shape[2:4]
    for row, (down, across) in enumerate(cells_B2.tolist()):
        to_y, from_y = _overlap(H, down)
        to_x, from_x = _overlap(W, across)
        tokens[row, :, to_y, to_x] = stream.tokens_BTHWC[row, :, from_y, from_x]
    return dataclasses.replace(stream, tokens_BTHWC=tokens)


def _overlap(size: int, shift: int) -> tuple[slice, slice]:
    return slice(max(shift, 0), size + min(shift, 0)), slice(max(-shift, 0), size + min(-shift, 0))


def _shifted_targets(target: Targets, cells: list[int], cell_box_HW4: Tensor) -> Targets:
    """Boxes moved by as many cells, and cut at the edge of the grid; what is then hardly seen has no box."""
    if not any(cells) or not len(target):
        return target
    cell_box = cell_box_HW4.to(target.boxes_NT4.device)
    size_2 = cell_box[0, 0, 2:] - cell_box[0, 0, :2]
    move_2 = torch.tensor([cells[1], cells[0]], device=size_2.device) * size_2
    low_2, high_2 = cell_box[0, 0, :2], cell_box[-1, -1, 2:]
    moved = target.boxes_NT4 + move_2.repeat(2)
    cut = torch.cat([torch.maximum(moved[..., :2], low_2), torch.minimum(moved[..., 2:], high_2)], -1)
    seen = _area(cut) >= SEEN_PART * _area(target.boxes_NT4)
    has_box = target.has_box_NT & seen & (_area(cut) > 0)
    return dataclasses.replace(target, boxes_NT4=cut * has_box[..., None], has_box_NT=has_box)


def _area(boxes_NT4: Tensor) -> Tensor:
    return (boxes_NT4[..., 2:] - boxes_NT4[..., :2]).clamp(min=0).prod(-1)
