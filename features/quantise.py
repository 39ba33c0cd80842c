"""Two-level int8: tokens are standardised per channel with one video's statistics, then scaled per token to -127..127.

The channel level takes the outlier channels away, so that one scale per token is enough and no unseen token can be
clipped. Values are torch tensors on any device; T, H, W, C are steps, rows, columns and channels.
"""

import torch
from torch import Tensor

MAX_CODE = 127
# A code is at most 127.4 after the rounding of the scale, so it never rounds to 128, which would read as a hole.
_MAX_BEFORE_ROUNDING = 127.4
# A channel that hardly moves in the first clip may move later: no channel is stretched by more than this against the
# others.
_STD_FLOOR = 0.01
# The same against the size of the tokens, for a first clip without any content (black frames).
_SIZE_FLOOR = 1e-3
# Of 16 x 16 tokens of 1024 channels: 32 MiB in float32, 64 MiB in the pyramid's float64.
_GPU_STEPS = 32


def channel_statistics(tokens_THWC: Tensor) -> tuple[Tensor, Tensor]:
    """(mean_C, std_C), float32, of a video's first clip; std is floored so that dividing by it is safe for later clips.
    """
    channels = tokens_THWC.shape[-1]
    count = tokens_THWC.numel() // channels
    # One step at a time on every device: the order of these sums decides bits of every code.
    mean_C = sum(step.reshape(-1, channels).double().sum(0) for step in tokens_THWC) / count
    power_C = sum((step.reshape(-1, channels).double() - mean_C).square_().sum(0) for step in tokens_THWC) / count
    typical_std = power_C.mean().sqrt()
    size = (power_C + mean_C.square()).mean().sqrt()
    floor = torch.maximum(_STD_FLOOR * typical_std, _SIZE_FLOOR * size)
    std_C = power_C.sqrt().clamp(min=float(floor) if float(floor) > 0 else 1.0)
    return mean_C.float(), std_C.float()


def quantise(tokens_THWC: Tensor, mean_C: Tensor, std_C: Tensor) -> tuple[Tensor, Tensor]:
    """(codes_THWC int8, scale_THW float16) with tokens = codes * scale * std + mean up to half a code.

    A token that is not finite, or too far from the first clip for a float16 scale, gives a scale that is not finite.
    """
    codes_THWC = torch.empty(tokens_THWC.shape, dtype=torch.int8, device=tokens_THWC.device)
    scale_THW = torch.empty(tokens_THWC.shape[:-1], dtype=torch.float16, device=tokens_THWC.device)
    inverse_std_C = 1 / std_C
    block = steps_at_once(tokens_THWC.device)
    for start in range(0, len(tokens_THWC), block):
        standard_nHWC = torch.sub(tokens_THWC[start : start + block], mean_C).mul_(inverse_std_C)
        peak_nHW = standard_nHWC.abs().amax(-1)
        scale_nHW = (peak_nHW / MAX_CODE).half()
        too_small_nHW = scale_nHW.float() * _MAX_BEFORE_ROUNDING < peak_nHW
        # The next float16 above a positive one is the next bit pattern; torch.nextafter knows no float16 on a GPU.
        scale_nHW = (scale_nHW.view(torch.int16) + too_small_nHW.short()).view(torch.float16)
        inverse_nHW = torch.where(scale_nHW > 0, 1 / scale_nHW.float(), 0)
        codes_THWC[start : start + block] = standard_nHWC.mul_(inverse_nHW[..., None]).round_()
        scale_THW[start : start + block] = scale_nHW
    return codes_THWC, scale_THW


def steps_at_once(device: torch.device) -> int:
    """How many steps to compute with at a time: one on a CPU, so that what lies between stays in the cache; on a GPU as
    many as keep it busy in little memory. It changes no number.
    """
    return 1 if device.type == "cpu" else _GPU_STEPS


def dequantise(codes_THWC: Tensor, scale_THW: Tensor, mean_C: Tensor, std_C: Tensor, out_THWC: Tensor) -> Tensor:
    """Tokens in raw units into `out_THWC` (float16 or float32), computed in float32; the inverse of `quantise`.

    With other constants than those of `quantise` the same gives standardised tokens: `codes * scale * std + mean`.
    """
    block = steps_at_once(codes_THWC.device)
    pieces = zip(codes_THWC.split(block), scale_THW.float()[..., None].split(block), out_THWC.split(block), strict=True)
    in_place = out_THWC.dtype == torch.float32 and out_THWC.is_contiguous()
    for codes_nHWC, scale_nHW1, out_nHWC in pieces if len(codes_THWC) else ():
        value_nHWC = out_nHWC if in_place else torch.empty_like(codes_nHWC, dtype=torch.float32)
        value_nHWC.copy_(codes_nHWC).mul_(scale_nHW1)
        torch.addcmul(mean_C, value_nHWC, std_C, out=value_nHWC)
        if not in_place:
            out_nHWC.copy_(value_nHWC)
    return out_THWC


def scale_and_shift(values_THWC: Tensor, gain_C: Tensor, bias_C: Tensor, out_THWC: Tensor) -> Tensor:
    """`values * gain + bias` into the float32 `out_THWC`."""
    block = steps_at_once(values_THWC.device)
    for values_nHWC, out_nHWC in zip(values_THWC.split(block), out_THWC.split(block), strict=True) if len(values_THWC) else ():
        out_nHWC.copy_(values_nHWC)
        torch.addcmul(bias_C, out_nHWC, gain_C, out=out_nHWC)
    return out_THWC
