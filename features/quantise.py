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


def channel_statistics(tokens_THWC: Tensor) -> tuple[Tensor, Tensor]:
    """(mean_C, std_C), float32, of a video's first clip; std is floored so that dividing by it is safe for later clips.
    """
    channels = tokens_THWC.shape[-1]
    count = tokens_THWC.numel() // channels
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
    # One step at a time: the intermediate values stay in the cache.
    for step, tokens_HWC in enumerate(tokens_THWC):
        standard_HWC = torch.sub(tokens_HWC, mean_C).mul_(inverse_std_C)
        peak_HW = standard_HWC.abs().amax(-1)
        scale_HW = (peak_HW / MAX_CODE).half()
        too_small_HW = scale_HW.float() * _MAX_BEFORE_ROUNDING < peak_HW
        # The next float16 above a positive one is the next bit pattern; torch.nextafter knows no float16 on a GPU.
        scale_HW = (scale_HW.view(torch.int16) + too_small_HW.short()).view(torch.float16)
        inverse_HW = torch.where(scale_HW > 0, 1 / scale_HW.float(), 0)
        codes_THWC[step] = standard_HWC.mul_(inverse_HW[..., None]).round_()
        scale_THW[step] = scale_HW
    return codes_THWC, scale_THW


def dequantise(codes_THWC: Tensor, scale_THW: Tensor, mean_C: Tensor, std_C: Tensor, out_THWC: Tensor) -> Tensor:
    """Tokens in raw units into `out_THWC` (float16 or float32), computed in float32; the inverse of `quantise`."""
    buffer_HWC = torch.empty(codes_THWC.shape[1:], dtype=torch.float32, device=codes_THWC.device)
    for codes_HWC, scale_HW, out_HWC in zip(codes_THWC, scale_THW, out_THWC, strict=True):
        value_HWC = out_HWC if out_HWC.dtype == torch.float32 and out_HWC.is_contiguous() else buffer_HWC
        value_HWC.copy_(codes_HWC).mul_(scale_HW.float()[..., None])
        torch.addcmul(mean_C, value_HWC, std_C, out=value_HWC)
        if value_HWC is not out_HWC:
            out_HWC.copy_(value_HWC)
    return out_THWC
