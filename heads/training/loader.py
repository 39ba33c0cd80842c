"""Batches of windows, read from stores by one background thread.

Worker processes cost more than they give here (fresh shared memory, three copies): one thread reads and dequantises ahead into a
small ring of reused buffers, because fresh tensors of this size are mostly page faults.

Shapes: B windows, T steps, H x W cells, C channels.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from heads.parts.contract import Batch, Targets, TokenStream
from heads.training.standardise import Standardisation
from heads.training.streams import CacheBudget, VideoStream
from heads.training.targets import VideoTargets
from heads.training.windows import Window, steps_in_window

Item = TypeVar("Item")

AHEAD = 2
# Beside the batches in the queue one is being filled and one is being used; one more for a caller that looks one ahead.
RING_SIZE = AHEAD + 3
NEIGHBOURS = 8


@dataclass
class WindowBatch:
    """A batch, the windows it shows, and their targets where there are any.

    The tokens lie in a reused buffer: they are good until the second batch after this one is asked for.
    """

    batch: Batch
    windows: list[Window]
    targets: list[Targets] | None = None

    def to(self, device) -> WindowBatch:
        targets = None if self.targets is None else [target.to(device) for target in self.targets]
        return WindowBatch(self.batch.to(device), self.windows, targets)


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

    def grids(self, window: Window) -> tuple[tuple[int, int], ...]:
        """(H, W) of each stream of the window's video."""
        return tuple(stream.grid for stream in self.streams[window.video_id])

    def read(self, windows: Sequence[Window], new_tokens: Callable[[tuple[int, ...]], Tensor] = torch.empty) -> Batch:
        """The windows as one batch, padded to the longest; their videos have one grid. `new_tokens(shape)` gives the memory."""
        streams = tuple(self._read_stream(windows, index, new_tokens) for index in range(len(self.standardisations)))
        return Batch(streams, float(windows[0].num_frames))

    def cut_targets(self, windows: Sequence[Window], targets: Mapping[str, VideoTargets]) -> list[Targets]:
        """The targets of the windows, on the steps of the first stream as `read` pads them."""
        ranges = [self._steps(window, 0) for window in windows]
        num_steps = max(stop - first for first, stop in ranges)
        return [targets[window.video_id].cut(window, first, num_steps) for window, (first, _) in zip(windows, ranges, strict=True)]

    def _steps(self, window: Window, index: int) -> tuple[int, int]:
        return steps_in_window(self.streams[window.video_id][index].extent.time_grid, window)

    def _read_stream(self, windows: Sequence[Window], index: int, new_tokens) -> TokenStream:
        videos = [self.streams[window.video_id][index] for window in windows]
        ranges = [self._steps(window, index) for window in windows]
        standardisation = self.standardisations[index]
        B, T = len(windows), max(stop - first for first, stop in ranges)
        H, W = videos[0].grid
        tokens_BTHWC = new_tokens((B, T, H, W, len(standardisation.mean_C)))
        valid_BTHW = torch.zeros(B, T, H, W, dtype=torch.bool)
        cell_box_BHW4 = torch.stack([video.cell_box_norm_HW4 for video in videos])
        start_BT, end_BT, first_seen_BT, last_seen_BT = torch.zeros(4, B, T)
        for row, (window, video, (first, stop)) in enumerate(zip(windows, videos, ranges, strict=True)):
            n = stop - first
            video.fill(tokens_BTHWC[row, :n], first, stop, standardisation, self.budget)
            tokens_BTHWC[row, n:] = 0
            valid_BTHW[row, :n] = video.valid_HW
            start_BT[row] = _padded(video.start_T[first:stop], T) - window.start_frame
            end_BT[row] = _padded(video.end_T[first:stop], T) - window.start_frame
            first_seen_BT[row] = _padded(video.first_seen_T[first:stop], T) - window.start_frame
            last_seen_BT[row] = _padded(video.last_seen_T[first:stop], T) - window.start_frame
        return TokenStream(tokens_BTHWC, valid_BTHW, cell_box_BHW4, start_BT, end_BT, first_seen_BT, last_seen_BT)


def _padded(values_n: Tensor, num_steps: int) -> Tensor:
    """Positions of padded steps repeat the last real one: finite, and inside the video."""
    return torch.cat([values_n, values_n[-1:].expand(num_steps - len(values_n))])


class WindowBatches:
    """Iterates over the batches of some windows, in their order, read ahead by a thread.

    The same windows give the same batches, however often it is iterated. A `ring` may be handed on to the next `WindowBatches`
    once this one is done with: new memory is slow at its first touch.
    """

    def __init__(
        self, reader: TokenReader, batches: Sequence[Sequence[Window]], targets: Mapping[str, VideoTargets] | None = None,
        ring: BufferRing | None = None,
    ):
        self.reader, self.batches, self.targets = reader, batches, targets
        self.ring = ring or BufferRing()

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[WindowBatch]:
        return read_ahead((self._load(windows) for windows in self.batches), AHEAD)

    def _load(self, windows: Sequence[Window]) -> WindowBatch:
        targets = None if self.targets is None else self.reader.cut_targets(windows, self.targets)
        return WindowBatch(self.reader.read(windows, self.ring.next), list(windows), targets)


class BufferRing:
    """Float32 buffers used in turn; each grows to the largest shape it was asked for."""

    def __init__(self, num_buffers: int = RING_SIZE):
        self._buffers: list[Tensor] = [torch.empty(0) for _ in range(num_buffers)]
        self._turn = 0

    def next(self, shape: tuple[int, ...]) -> Tensor:
        size = int(np.prod(shape))
        if len(self._buffers[self._turn]) < size:
            self._buffers[self._turn] = torch.empty(size)
        buffer = self._buffers[self._turn][:size].view(shape)
        self._turn = (self._turn + 1) % len(self._buffers)
        return buffer


def in_order(windows: Sequence[Window], reader: TokenReader, batch_size: int) -> list[list[Window]]:
    """Batches of consecutive windows; a new grid starts a new batch."""
    return [batch for _, run in groupby(windows, key=reader.grids) for batch in _cut(list(run), batch_size)]


def shuffled(
    windows: Sequence[Window], reader: TokenReader, batch_size: int, generator: np.random.Generator
) -> list[list[Window]]:
    """Batches in random order, of random windows of one grid and of similar length, so that little is padded."""
    windows = [windows[index] for index in generator.permutation(len(windows))]
    batches = []
    for _, alike in groupby(sorted(windows, key=reader.grids), key=reader.grids):
        for pool in _cut(list(alike), NEIGHBOURS * batch_size):
            batches += _cut(sorted(pool, key=reader.num_steps), batch_size)
    return [batches[index] for index in generator.permutation(len(batches))]


def _cut(windows: Sequence[Window], size: int) -> list[list[Window]]:
    return [list(windows[start : start + size]) for start in range(0, len(windows), size)]


def read_ahead(items: Iterator[Item], ahead: int) -> Iterator[Item]:
    """The same items, computed by a thread up to `ahead` before they are asked for; its exceptions are raised here.

    The thread ends when the iterator is exhausted, closed or collected.
    """
    ready: queue.Queue = queue.Queue(maxsize=ahead)
    stopped = threading.Event()

    def work():
        # Of this thread alone: a second team of threads beside the one that trains costs more than it gives.
        torch.set_num_threads(1)
        try:
            for item in items:
                if not _put(ready, (item, None), stopped):
                    return
            _put(ready, (None, StopIteration()), stopped)
        except BaseException as error:
            _put(ready, (None, error), stopped)

    thread = threading.Thread(target=work, name="window-reader", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
    finally:
        stopped.set()
        thread.join()


def _put(ready: queue.Queue, entry, stopped: threading.Event) -> bool:
    while not stopped.is_set():
        try:
            ready.put(entry, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False
