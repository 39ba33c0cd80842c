"""In which number format a head computes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import torch

Precision = Literal["auto", "bf16", "fp32"]

# What Linux calls the instructions; without them bfloat16 on a CPU is emulated and slower than float32.
CPU_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
CPU_INFO = Path("/proc/cpuinfo")


def uses_bf16(precision: Precision, device: torch.device | str) -> bool:
    """Whether matrix products run in bfloat16 on a device; "auto" says so where the hardware has it."""
    if precision != "auto":
        return precision == "bf16"
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.device(device).type == "cpu" and _cpu_has_bf16()


@cache
def _cpu_has_bf16() -> bool:
    try:
        text = CPU_INFO.read_text()
    except OSError:
        return False
    return bool(CPU_BF16_FLAGS & set(next((line for line in text.splitlines() if line.startswith("flags")), "").split()))
