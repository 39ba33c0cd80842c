"""Steps of a level as values: decoded from int8, converted to float32, standardised, each straight into the array that is filled.

Shapes: n steps of a read, h x w cells, C channels.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from features.compressed_shards import CompressedArray
from features.step_array import Part, ShardedArray, ZarrArray

if TYPE_CHECKING:
    from torch import Tensor

StepArray = ShardedArray | CompressedArray | ZarrArray

# Steps that are decoded from int8 at a time: enough to copy in one go, few enough to stay in the cache.
_BLOCK_STEPS = 8


def decode_steps(
    coded: tuple[StepArray, StepArray],
    channel_level: "tuple[Tensor, Tensor]",
    start: int,
    stop: int,
    values_nhwC: np.ndarray,
    part: Part | None,
    standard: tuple[Any, Any] | None,
) -> None:
    """Fill `values_nhwC` from the codes and scales `coded` and the mean and std (C,) `channel_level` they were made with.

    `part` and `standard` as `StoredVideo.read` takes them. Raises ValueError for a `standard` that does not fit.
    """
    import torch

    from features.quantise import dequantise

    mean_C, std_C = channel_level
    if standard is not None:
        # (code * scale * std + mean - its mean) / its std is the same decoding with other constants.
        its_mean_C, its_std_C = _constants(standard, values_nhwC.shape[-1:])
        mean_C, std_C = (mean_C - its_mean_C) / its_std_C, std_C / its_std_C
    codes, scale = coded
    out_nhwC = torch.from_numpy(values_nhwC)
    stored = codes.in_place(start, stop), scale.in_place(start, stop)
    if stored[0] is not None and stored[1] is not None:
        dequantise(*(_part_of(each, part) for each in stored), mean_C, std_C, out_nhwC)
        return
    block = min(_BLOCK_STEPS, max(stop - start, 1))
    codes_nhwC = np.empty((block, *values_nhwC.shape[1:]), np.int8)
    scale_nhw = np.empty((block, *values_nhwC.shape[1:3]), np.float16)
    for first in range(start, stop, block):
        n = min(block, stop - first)
        codes.read(first, first + n, codes_nhwC[:n], part)
        scale.read(first, first + n, scale_nhw[:n], part)
        block_nhwC = out_nhwC[first - start : first - start + n]
        dequantise(torch.from_numpy(codes_nhwC[:n]), torch.from_numpy(scale_nhw[:n]), mean_C, std_C, block_nhwC)


def convert_steps(
    array: StepArray, start: int, stop: int, values_nhwC: np.ndarray, part: Part | None, standard: tuple[Any, Any] | None
) -> None:
    """Fill `values_nhwC`, float32, from a level that is stored as float16. The rest as `decode_steps`."""
    import torch

    from features.quantise import scale_and_shift

    stored = array.in_place(start, stop)
    if stored is None:
        stored = np.empty(values_nhwC.shape, np.float16)
        array.read(start, stop, stored, part)
        part = None
    stored_nhwC, out_nhwC = _part_of(stored, part), torch.from_numpy(values_nhwC)
    if standard is None:
        out_nhwC.copy_(stored_nhwC)
    else:
        mean_C, std_C = _constants(standard, values_nhwC.shape[-1:])
        scale_and_shift(stored_nhwC, 1 / std_C, -mean_C / std_C, out_nhwC)


def _constants(standard: tuple[Any, Any], expected: tuple[int, ...]) -> "tuple[Tensor, Tensor]":
    import torch

    mean_C, std_C = (torch.tensor(np.asarray(values), dtype=torch.float32) for values in standard)
    if mean_C.shape != expected or std_C.shape != expected or not (std_C > 0).all():
        got = f"{tuple(mean_C.shape)} and {tuple(std_C.shape)}"
        raise ValueError(f"standard: expected a mean and a positive std of shape {expected}, got {got}")
    return mean_C, std_C


def _part_of(steps: np.ndarray, part: Part | None) -> "Tensor":
    import torch

    return torch.from_numpy(steps if part is None else steps[:, *part])
