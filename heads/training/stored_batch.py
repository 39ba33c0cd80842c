"""A batch as it is stored, and as a head sees it: int8 codes go to the device, which decodes and standardises them.

Shapes: B windows, T steps, H x W cells, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from heads.parts.contract import Batch, Targets, TokenStream
from heads.training.ring import Slot
from heads.training.windows import Window

CPU_BLOCK_VALUES = 1 << 18
"""On a CPU so many values are decoded at a time: 1 MiB of float32, which stays in the cache from one operation to the next."""


@dataclass
class StoredStream:
    """The tokens of one store for a batch of windows: a standardised token is `value * scale * gain + bias`.

    `values_BTHWC` are int8 codes with one float16 `scale_BTHW` per token, or float16 values without a scale. The channel
    constants `gain_BC` and `bias_BC` hold the video's own level and the head's standardisation. Row b has `num_steps[b]` steps;
    what follows them is undefined. The rest is as in `TokenStream`.
    """

    values_BTHWC: Tensor
    scale_BTHW: Tensor | None
    gain_BC: Tensor
    bias_BC: Tensor
    num_steps: tuple[int, ...]
    valid_BTHW: Tensor
    cell_box_norm_BHW4: Tensor
    step_start_BT: Tensor
    step_end_BT: Tensor
    first_seen_BT: Tensor
    last_seen_BT: Tensor

    def standardised(self, device: torch.device, memory: Slot, index: int) -> TokenStream:
        """Stream `index` of its batch on `device`, padded with zeros; on the CPU in `memory`, elsewhere in memory of its own."""
        if device.type == "cpu":
            tokens_BTHWC = memory.tensor((index, "tokens"), tuple(self.values_BTHWC.shape), torch.float32)
            for row, num_steps in enumerate(self.num_steps):
                self._decode_in_blocks(row, tokens_BTHWC[row, :num_steps])
        else:
            tokens_BTHWC = self._decode_at_once(device)
        for row, num_steps in enumerate(self.num_steps):
            if num_steps < tokens_BTHWC.shape[1]:
                tokens_BTHWC[row, num_steps:] = 0
        positions = self.step_start_BT, self.step_end_BT, self.first_seen_BT, self.last_seen_BT
        return TokenStream(
            tokens_BTHWC,
            *(values.to(device, non_blocking=True) for values in (self.valid_BTHW, self.cell_box_norm_BHW4, *positions)),
        )

    def _decode_at_once(self, device: torch.device) -> Tensor:
        values_BTHWC, gain_BC, bias_BC = (
            values.to(device, non_blocking=True) for values in (self.values_BTHWC, self.gain_BC, self.bias_BC)
        )
        if self.scale_BTHW is None:
            tokens_BTHWC = values_BTHWC.float()
        else:
            tokens_BTHWC = values_BTHWC * self.scale_BTHW.to(device, non_blocking=True).float()[..., None]
        gain_B111C, bias_B111C = gain_BC[:, None, None, None], bias_BC[:, None, None, None]
        return torch.addcmul(bias_B111C, tokens_BTHWC, gain_B111C, out=tokens_BTHWC)

    def _decode_in_blocks(self, row: int, out_nHWC: Tensor) -> None:
        values_THWC, gain_C, bias_C = self.values_BTHWC[row], self.gain_BC[row], self.bias_BC[row]
        steps = max(1, CPU_BLOCK_VALUES // out_nHWC[0].numel())
        for start in range(0, len(out_nHWC), steps):
            block = out_nHWC[start : start + steps]
            piece = slice(start, start + len(block))
            # Multiplying int8 by float32 in one operation takes four times as long as these two.
            block.copy_(values_THWC[piece])
            if self.scale_BTHW is not None:
                block.mul_(self.scale_BTHW[row, piece].float()[..., None])
            torch.addcmul(bias_C, block, gain_C, out=block)


@dataclass
class WindowBatch:
    """A batch, the windows it shows, and their targets where there are any. On the CPU its tokens last as long as the stored
    batch's.
    """

    batch: Batch
    windows: list[Window]
    targets: list[Targets] | None = None


@dataclass
class StoredBatch:
    """A batch as `WindowBatches` reads it. Its tokens lie in reused memory: they are good until the next batch is asked for."""

    streams: tuple[StoredStream, ...]
    windows: list[Window]
    targets: list[Targets] | None
    memory: Slot
    _on_cpu: WindowBatch | None = field(default=None, init=False)

    def to(self, device: torch.device | str) -> WindowBatch:
        """The batch on a device, decoded and standardised there."""
        device = torch.device(device)
        if device.type == "cpu" and self._on_cpu is not None:
            return self._on_cpu
        streams = tuple(stream.standardised(device, self.memory, index) for index, stream in enumerate(self.streams))
        targets = None if self.targets is None else [target.to(device) for target in self.targets]
        self.memory.mark_copied(device)
        return WindowBatch(Batch(streams, float(self.windows[0].num_frames)), self.windows, targets)

    def decode_ahead(self) -> None:
        """Decode for the CPU now, so that `to("cpu")` costs nothing then."""
        self._on_cpu = self.to("cpu")
