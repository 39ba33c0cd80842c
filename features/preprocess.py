"""Pixels on their way into an encoder: resize as uint8 on the CPU, then crop or pad, then normalise on any device.

Shape legend: n frames, H x W displayed pixels, h x w encoder input pixels, 3 = RGB.

Resizing stays in uint8 on the CPU so that a stored token does not depend on the device that encoded it. For `fit = "crop"`
the two steps together are bit-identical to transformers' `VJEPA2VideoProcessor` (tests/features/test_preprocess.py).
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from vjepa_loc.spacegrid import SpaceGrid

RESIZE_VERSION = 1
"""Part of every encoding: must grow whenever `resize_uint8` or `normalise` gives other pixels for the same frame."""

LETTERBOX_RGB = (124, 116, 104)
"""Colour of letterbox bars: ImageNet's mean, so that they are close to zero after normalisation."""


def resize_uint8(frames_nHW3: np.ndarray | torch.Tensor, space_grid: SpaceGrid) -> torch.Tensor:
    """Displayed frames in the encoder's input size: antialiased bilinear, then cropped, or padded with `LETTERBOX_RGB`.

    Takes uint8 (n, H, W, 3) and returns a contiguous uint8 CPU tensor (n, h, w, 3).
    Raises ValueError where the frames do not have the size that `space_grid` was built for.
    """
    frames_nHW3 = torch.as_tensor(frames_nHW3)
    expected = (space_grid.height, space_grid.width, 3)
    if frames_nHW3.dtype != torch.uint8 or frames_nHW3.ndim != 4 or tuple(frames_nHW3.shape[1:]) != expected:
        raise ValueError(
            f"resize_uint8: expected uint8 frames of shape (n, {expected[0]}, {expected[1]}, 3), "
            f"got {frames_nHW3.dtype} {tuple(frames_nHW3.shape)}"
        )
    resized_n3hw = frames_nHW3.permute(0, 3, 1, 2)
    size = (space_grid.resize_height, space_grid.resize_width)
    if size != expected[:2]:
        resized_n3hw = F.interpolate(resized_n3hw, size=size, mode="bilinear", antialias=True)
    return _placed(resized_n3hw.permute(0, 2, 3, 1), space_grid)


def _placed(resized_nhw3: torch.Tensor, space_grid: SpaceGrid) -> torch.Tensor:
    """Cuts the input window out of resized frames; what lies outside of them becomes bars."""
    height, width = resized_nhw3.shape[1:3]
    top, left = space_grid.offset_y, space_grid.offset_x
    bottom, right = top + space_grid.input_height, left + space_grid.input_width
    inside = resized_nhw3[:, max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    if inside.shape[1:3] == (space_grid.input_height, space_grid.input_width):
        return inside.contiguous()
    bars = torch.tensor(LETTERBOX_RGB, dtype=torch.uint8)
    canvas = bars.repeat(len(resized_nhw3), space_grid.input_height, space_grid.input_width, 1)
    y, x = max(-top, 0), max(-left, 0)
    canvas[:, y : y + inside.shape[1], x : x + inside.shape[2]] = inside
    return canvas


def normalise(frames_hw3: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """`(x - 255 * mean) / (255 * std)` in float32 for uint8 frames (..., 3); `mean` and `std` are of RGB in 0..1."""
    mean_3 = torch.tensor(mean, dtype=torch.float32, device=frames_hw3.device) * 255.0
    std_3 = torch.tensor(std, dtype=torch.float32, device=frames_hw3.device) * 255.0
    return (frames_hw3.to(torch.float32) - mean_3) / std_3
