"""Pixels on their way into an encoder: resize as uint8 on the CPU, then crop or pad, then normalise on any device.

Shape legend: n frames, H x W displayed pixels, h x w encoder input pixels, 3 = RGB.

Resizing stays in uint8 on the CPU so that a stored token does not depend on the device that encoded it. For `fit = "crop"`
the two steps together are bit-identical to transformers' `VJEPA2VideoProcessor` (tests/features/test_preprocess.py).
"""

from collections.abc import Sequence

import numpy as np
import torch

from vjepa_loc.spacegrid import SpaceGrid

RESIZE_VERSION = 1
"""Part of every encoding: must grow whenever `resize_uint8` or `normalise` gives other pixels for the same frame."""

LETTERBOX_RGB = (124, 116, 104)
"""Colour of letterbox bars: ImageNet's mean, so that they are close to zero after normalisation."""


def resize_uint8(
    frames_nHW3: np.ndarray | torch.Tensor, space_grid: SpaceGrid, out_nhw3: torch.Tensor | None = None
) -> torch.Tensor:
    """Displayed frames in the encoder's input size: antialiased bilinear, then cropped, or padded with `LETTERBOX_RGB`.

    Takes uint8 (n, H, W, 3) and returns a contiguous uint8 CPU tensor (n, h, w, 3): `out_nhw3`, which is filled, or a new one.
    Raises ValueError where the frames do not have the size that `space_grid` was built for, or `out_nhw3` is no such tensor.
    """
    frames_nHW3 = torch.as_tensor(frames_nHW3)
    expected = (space_grid.height, space_grid.width, 3)
    if frames_nHW3.dtype != torch.uint8 or frames_nHW3.ndim != 4 or tuple(frames_nHW3.shape[1:]) != expected:
        raise ValueError(
            f"resize_uint8: expected uint8 frames of shape (n, {expected[0]}, {expected[1]}, 3), "
            f"got {frames_nHW3.dtype} {tuple(frames_nHW3.shape)}"
        )
    out_nhw3 = _output(out_nhw3, (len(frames_nHW3), space_grid.input_height, space_grid.input_width, 3))
    size = (space_grid.resize_height, space_grid.resize_width)
    if len(frames_nHW3) == 0:
        return out_nhw3
    if size == expected[:2]:
        return _place(frames_nHW3, out_nhw3, space_grid)
    if size == tuple(out_nhw3.shape[1:3]) and not (space_grid.offset_x or space_grid.offset_y):
        return _interpolate(frames_nHW3, out_nhw3)
    return _place(_interpolate(frames_nHW3, frames_nHW3.new_empty((len(frames_nHW3), *size, 3))), out_nhw3, space_grid)


def _output(out_nhw3: torch.Tensor | None, shape: tuple[int, ...]) -> torch.Tensor:
    if out_nhw3 is None:
        return torch.empty(shape, dtype=torch.uint8)
    if out_nhw3.dtype != torch.uint8 or tuple(out_nhw3.shape) != shape or not out_nhw3.is_contiguous():
        raise ValueError(
            f"resize_uint8: out_nhw3: expected contiguous uint8 of shape {shape}, got {out_nhw3.dtype} {tuple(out_nhw3.shape)}"
        )
    return out_nhw3


def _interpolate(frames_nHW3: torch.Tensor, out_nhw3: torch.Tensor) -> torch.Tensor:
    """Fills `out_nhw3` with the whole frames."""
    height, width = frames_nHW3.shape[1:3]
    # One frame's stride along n can be anything, and torch reads from it whether channels come last: without this it goes over
    # two copies, twice as slow for a small frame.
    strides = (height * width * 3, width * 3, 3, 1)
    frames_nHW3 = frames_nHW3.contiguous().as_strided(frames_nHW3.shape, strides)
    # The operator below F.interpolate, which cannot write into memory that is given.
    torch.ops.aten._upsample_bilinear2d_aa.out(
        frames_nHW3.permute(0, 3, 1, 2), list(out_nhw3.shape[1:3]), False, None, None, out=out_nhw3.permute(0, 3, 1, 2)
    )
    return out_nhw3


def _place(resized_nhw3: torch.Tensor, out_nhw3: torch.Tensor, space_grid: SpaceGrid) -> torch.Tensor:
    """Cuts the input window out of resized frames; what lies outside of them becomes bars."""
    height, width = resized_nhw3.shape[1:3]
    top, left = space_grid.offset_y, space_grid.offset_x
    bottom, right = top + space_grid.input_height, left + space_grid.input_width
    inside = resized_nhw3[:, max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    if inside.shape != out_nhw3.shape:
        # A whole row at once: colour by colour it would take longer than the resizing of a small frame.
        out_nhw3[:] = torch.tensor(LETTERBOX_RGB, dtype=torch.uint8).repeat(space_grid.input_width, 1)
    y, x = max(-top, 0), max(-left, 0)
    out_nhw3[:, y : y + inside.shape[1], x : x + inside.shape[2]] = inside
    return out_nhw3


def normalise(frames_hw3: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """`(x - 255 * mean) / (255 * std)` in float32 for uint8 frames (..., 3); `mean` and `std` are of RGB in 0..1."""
    mean_3 = torch.tensor(mean, dtype=torch.float32, device=frames_hw3.device) * 255.0
    std_3 = torch.tensor(std, dtype=torch.float32, device=frames_hw3.device) * 255.0
    return (frames_hw3.to(torch.float32) - mean_3) / std_3
