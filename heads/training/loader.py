"""Batches of windows, read from stores by threads into a ring of reused buffers.

Worker processes cost more than they give here (fresh shared memory, three copies). Threads do not: numpy and torch let the others
run while they copy and decode.

Shapes: B windows, T steps, n steps of one window, H x W cells, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from heads.parts.contract import Targets
from heads.training.announce import Announcer
from heads.training.read_ahead import ReadAhead
from heads.training.ring import BatchRing, Slot
from heads.training.standardise import Standardisation
from heads.training.stored_batch import StoredBatch, StoredStream
from heads.training.streams import CacheBudget, VideoStream
from heads.training.targets import VideoTargets
from heads.training.windows import Window, steps_in_window
from vjepa_loc.errors import RunError

READER_THREADS = 2


@dataclass(frozen=True)
class TokenReader:
    """The streams of some videos, one per store, and how they are standardised."""

    streams: Mapping[str, tuple[VideoStream, ...]]
    standardisations: tuple[Standardisation, ...]
    budget: CacheBudget | None = None

    def num_steps(self, window: Window) -> int:
        """Steps of the window in its first stream."""
        first, stop = self._steps(window, 0)
        return stop - first

    def layout(self, window: Window) -> tuple[tuple[int, int, bool], ...]:
        """(H, W, whether it is stored as codes) of each stream of the window's video."""
        return tuple((*stream.grid, stream.coded) for stream in self.streams[window.video_id])

    def read(self, windows: Sequence[Window], memory: Slot | None = None) -> StoredBatch:
        """The windows as one batch in `memory`, padded to the longest; their videos have one layout."""
        memory = memory or Slot()
        streams = tuple(self._read_stream(windows, index, memory) for index in range(len(self.standardisations)))
        return StoredBatch(streams, list(windows), None, memory)

    def will_read(self, windows: Sequence[Window]) -> None:
        """Asks the system to fetch the windows from the disk now; returns at once."""
        for window in windows:
            for index, stream in enumerate(self.streams[window.video_id]):
                stream.will_read(*self._steps(window, index))

    def num_bytes(self, windows: Sequence[Window]) -> int:
        """How much is read for the windows, about: as if all streams had the steps of the first."""
        return sum(
            self.num_steps(window) * sum(stream.bytes_per_step for stream in self.streams[window.video_id]) for window in windows
        )

    def cut_targets(self, windows: Sequence[Window], targets: Mapping[str, VideoTargets]) -> list[Targets]:
        """The targets of the windows, on the steps of the first stream as `read` pads them."""
        ranges = [self._steps(window, 0) for window in windows]
        num_steps = max(stop - first for first, stop in ranges)
        return [targets[window.video_id].cut(window, first, num_steps) for window, (first, _) in zip(windows, ranges, strict=True)]

    @cached_property
    def _standard(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(each.mean_C.numpy(), each.std_C.numpy()) for each in self.standardisations]

    def _steps(self, window: Window, index: int) -> tuple[int, int]:
        return steps_in_window(self.streams[window.video_id][index].extent.time_grid, window)

    def _read_stream(self, windows: Sequence[Window], index: int, memory: Slot) -> StoredStream:
        videos = [self.streams[window.video_id][index] for window in windows]
        ranges = [self._steps(window, index) for window in windows]
        num_steps = tuple(stop - first for first, stop in ranges)
        coded, (H, W) = videos[0].coded, videos[0].grid
        B, T, C = len(windows), max(num_steps), videos[0].channels
        values_BTHWC = memory.tensor((index, "values"), (B, T, H, W, C), torch.int8 if coded else torch.float16)
        scale_BTHW = memory.tensor((index, "scale"), (B, T, H, W), torch.float16) if coded else None
        values, scale = values_BTHWC.numpy(), None if scale_BTHW is None else scale_BTHW.numpy()
        valid_BTHW = np.zeros((B, T, H, W), bool)
        positions_4BT = np.empty((4, B, T), np.float32)
        for row, (window, video, (first, stop)) in enumerate(zip(windows, videos, ranges, strict=True)):
            n = stop - first
            video.read_into(values[row, :n], None if scale is None else scale[row, :n], first, stop, self.budget)
            valid_BTHW[row, :n] = video.valid_HW
            for positions_BT, positions_T in zip(positions_4BT, video.positions, strict=True):
                positions_BT[row, :n] = positions_T[first:stop] - window.start_frame
            # Positions of padded steps repeat the last real one: finite, and inside the video.
            positions_4BT[:, row, n:] = positions_4BT[:, row, n - 1 : n]
        mean_C, std_C = self._standard[index]
        levels_BC = [np.stack(level) for level in zip(*(video.channel_level for video in videos), strict=True)]
        cell_box_BHW4 = np.stack([video.cell_box_norm_HW4 for video in videos])
        return StoredStream(
            values_BTHWC, scale_BTHW, torch.from_numpy(levels_BC[1] / std_C), torch.from_numpy((levels_BC[0] - mean_C) / std_C),
            num_steps, torch.from_numpy(valid_BTHW), torch.from_numpy(cell_box_BHW4), *map(torch.from_numpy, positions_4BT),
        )


class WindowBatches:
    """Iterates over the batches of some windows as `StoredBatch`, in their order, read ahead by threads.

    The same windows give the same batches, however often it is iterated and by however many threads. A `ring` may be handed on to
    the next `WindowBatches` once this one is done with: new memory is slow at its first touch. With `decode_ahead` the threads
    decode, too, for a training on the CPU. `state_dict` says how many batches were handed out; after `load_state_dict` the next
    iteration begins behind them.
    """

    def __init__(
        self, reader: TokenReader, batches: Sequence[Sequence[Window]], targets: Mapping[str, VideoTargets] | None = None,
        ring: BatchRing | None = None, num_threads: int = READER_THREADS, decode_ahead: bool = False,
    ):
        self.reader, self.batches, self.targets = reader, batches, targets
        self.ring, self.num_threads, self.decode_ahead = ring or BatchRing(), num_threads, decode_ahead
        self._start = self._handed_out = 0

    def __len__(self) -> int:
        """All batches, also those before the place where an iteration begins."""
        return len(self.batches)

    def __iter__(self) -> Iterator[StoredBatch]:
        self._handed_out, self._start = self._start, 0
        batches = self.batches[self._handed_out :]
        announcer = Announcer(
            lambda position: self.reader.will_read(batches[position]),
            lambda position: self.reader.num_bytes(batches[position]), len(batches),
        )
        # One more than are being read at a time, so that no thread has to wait until the last batch is done with.
        ahead = self.num_threads + 1
        self.ring.begin(ahead + 1)

        def read(position: int) -> StoredBatch:
            announcer.ask_ahead(position)
            return self._read(batches[position], self.ring.slot(position))

        reading = self.ring.reading = ReadAhead(read, len(batches), self.num_threads, ahead)
        try:
            for batch in reading:
                self._handed_out += 1
                yield batch
        finally:
            reading.close()

    def state_dict(self) -> dict[str, int]:
        return {"handed_out": self._handed_out, "batches": len(self)}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Raises `RunError` where the windows are not those of the state."""
        if state["batches"] != len(self):
            raise RunError(
                f"the training stopped after batch {state['handed_out']} of {state['batches']} of its epoch, which now has "
                f"{len(self)}: dataset or store have changed since; train again"
            )
        self._start = state["handed_out"]

    def _read(self, windows: Sequence[Window], memory: Slot) -> StoredBatch:
        batch = self.reader.read(windows, memory)
        if self.targets is not None:
            batch.targets = self.reader.cut_targets(windows, self.targets)
        if self.decode_ahead:
            batch.decode_ahead()
        return batch
