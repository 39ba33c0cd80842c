"""What encoding a clip costs in floating-point operations, and how many a device does per second at best."""

import time
from collections.abc import Sequence

import torch

from features.encoders._checkpoint import find_checkpoint
from features.encoders._vjepa2_weights import read_architecture


def clip_flops(weights: str, clip_fhw: Sequence[int]) -> float:
    """Of V-JEPA 2's encoder for one clip of (frames, height, width): matrix products and attention, a multiplication and an
    addition each counted; layer norms, positions and activations are left out (below 1%)."""
    arch = read_architecture(find_checkpoint(weights))
    frames, height, width = clip_fhw
    tokens = (frames // arch.tubelet) * (height // arch.patch_px) * (width // arch.patch_px)
    inputs = 3 * arch.tubelet * arch.patch_px**2
    per_layer = 4 * arch.channels**2 + 2 * arch.channels * arch.mlp_channels
    linear = 2 * tokens * (inputs * arch.channels + arch.num_layers * per_layer)
    attention = arch.num_layers * 4 * tokens**2 * arch.channels
    return float(linear + attention)


def matmul_flops_per_s(device: torch.device, dtype: torch.dtype) -> float:
    """The best of some products of two large square matrices."""
    side, calls = (8192, 20) if device.type == "cuda" else (2048, 2)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best_s = float("inf")
    for _ in range(6):
        _wait(device)
        started = time.perf_counter()
        for _ in range(calls):
            a @ b
        _wait(device)
        best_s = min(best_s, (time.perf_counter() - started) / calls)
    return 2 * side**3 / best_s


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
