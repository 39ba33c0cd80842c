"""Into batches: the training loader against the bare reader on as many threads, and against what else one would write, a
`DataLoader` over zarr-python.

Batches are four random windows of 32 steps: int8 codes and their scales, as they go to a device. Shapes: B windows, n
steps, H x W cells, C channels.
"""

import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from features.store import open_store
from features.torch_dataset import StoredWindows
from heads.training.data import StreamedVideos
from heads.training.loader import TokenReader, WindowBatches
from heads.training.standardise import Standardisation
from store_data import CHANNELS, CLIP_STEPS, GRID, StoredTokens
from store_peers import zarr_python
from store_reading import Range, steps_in
from store_table import STEP_BYTES, Row, interleave, progress, ratio_row

NUM_THREADS = NUM_WORKERS = 2
BATCH_WINDOWS = 4
# Of each thread.
_RAW_BUFFERS = 2

_LOADER, _DECODED = "training loader", "training loader, decoded to float32"
_RAW, _RAW_ONE = "read_codes", "read_codes on one thread"
_ZARR, _ADAPTER = "DataLoader and zarr-python", "DataLoader and StoredWindows"


def measure_loading(tokens: StoredTokens, rounds: int) -> list[Row]:
    """Forks processes, so nothing in this process may have started threads of the other libraries before."""
    videos = StreamedVideos.open([open_store(tokens.folder / "int8")], tokens.video_ids, "tokens")
    reader = TokenReader(videos.streams, (Standardisation.identity(CHANNELS),))
    window_steps = min(CLIP_STEPS, tokens.video_steps)
    windows = videos.sliding(2 * window_steps, 2 * window_steps)
    order = np.random.default_rng(0).permutation(len(windows)).tolist()
    batches = [[windows[index] for index in order[start : start + BATCH_WINDOWS]] for start in range(0, len(order), BATCH_WINDOWS)]
    number_of = {video_id: number for number, video_id in enumerate(tokens.video_ids)}
    ranges = [
        [(number_of[window.video_id], window.start_frame // 2, (window.start_frame + window.num_frames) // 2) for window in batch]
        for batch in batches
    ]
    loader = WindowBatches(reader, batches, num_threads=NUM_THREADS)
    through_zarr = _data_loader(_ZarrWindows(tokens, ranges), ranges)
    named = [(tokens.video_ids[video], start, stop) for batch in ranges for video, start, stop in batch]
    through_adapter = _data_loader(StoredWindows(tokens.folder / "int8", named, codes=True), ranges)
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        progress("loading")
        timings = interleave({
            # First, so that their processes are forked before there are threads.
            _ZARR: lambda: _consume(through_zarr),
            _ADAPTER: lambda: _consume(through_adapter),
            _LOADER: lambda: _consume(loader),
            _DECODED: lambda: _consume(batch.to("cpu") for batch in loader),
            _RAW: _raw_reading(tokens, ranges, threads.map),
            _RAW_ONE: _raw_reading(tokens, ranges, map),
        }, rounds)
    num_bytes = STEP_BYTES * sum(map(steps_in, ranges))
    through = f"through the training loader, {NUM_THREADS} threads"
    shape = f"batches of {BATCH_WINDOWS} windows of {window_steps} steps, int8 codes and scales"
    return [
        ratio_row(f"{through}: against `read_codes` on {NUM_THREADS} threads", timings, _LOADER, _RAW, num_bytes, 0.6,
                  f"{shape}; both into reused buffers"),
        ratio_row(f"{through}: against `read_codes` on one thread", timings, _LOADER, _RAW_ONE, num_bytes),
        ratio_row(f"{through}: against DataLoader and zarr-python", timings, _LOADER, _ZARR, num_bytes, 10,
                  f"{NUM_WORKERS} worker processes, kept between rounds"),
        ratio_row(f"{through}, then standardised float32 on the CPU: against DataLoader and zarr-python", timings, _DECODED, _ZARR,
                  num_bytes, how="which leaves int8"),
        ratio_row(f"through a DataLoader and `features.torch_dataset`, {NUM_WORKERS} workers: against DataLoader and zarr-python", timings,
                  _ADAPTER, _ZARR, num_bytes, how="what worker processes cost, whoever reads"),
    ]


def _consume(batches: Any) -> None:
    for _ in batches:
        pass


def _raw_reading(tokens: StoredTokens, ranges: Sequence[Sequence[Range]], each: Callable[..., Any]) -> Callable[[], None]:
    """A task that reads every batch into one of a few buffers of the thread; `each` is `map`, or that of some threads."""
    videos = tokens.videos("int8")
    length = max(stop - start for batch in ranges for _, start, stop in batch)
    own = threading.local()

    def read(position: int) -> None:
        # Of each thread its own: two threads that fill one buffer would find each other's bytes in what they check.
        if not hasattr(own, "buffers"):
            own.buffers = itertools.cycle([
                (np.zeros((BATCH_WINDOWS, length, *GRID, CHANNELS), np.int8), np.zeros((BATCH_WINDOWS, length, *GRID), np.float16))
                for _ in range(_RAW_BUFFERS)
            ])
        codes_BnHWC, scale_BnHW = next(own.buffers)
        for row, (video, start, stop) in enumerate(ranges[position]):
            videos[video].read_codes(start, stop, (codes_BnHWC[row, : stop - start], scale_BnHW[row, : stop - start]))

    return lambda: _consume(each(read, range(len(ranges))))


class _ZarrWindows(Dataset):
    """Windows of codes and scales; a process opens the arrays when it first reads."""

    def __init__(self, tokens: StoredTokens, ranges: Sequence[Sequence[Range]]):
        self._tokens, self._windows, self._read = tokens, [window for batch in ranges for window in batch], None

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> Any:
        if self._read is None:
            self._read = zarr_python(self._tokens, "int8")
        return self._read(*self._windows[index])


def _data_loader(windows: Dataset, ranges: Sequence[Sequence[Range]]) -> DataLoader:
    """Worker processes that read the batches of `ranges`, whose windows `windows` gives in their order."""
    numbers = iter(range(len(windows)))
    batches = [[next(numbers) for _ in batch] for batch in ranges]
    return DataLoader(windows, batch_sampler=batches, num_workers=NUM_WORKERS, persistent_workers=True)
