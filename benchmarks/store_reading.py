"""Warm reads: what the store gives against a memory map of fp16 that is copied into a reused buffer.

All on one thread, page cache warm, into buffers that are made once. Shapes: n steps, H x W cells, C channels.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

from features.stored_video import StoredVideo
from store_data import CHANNELS, CLIP_STEPS, GRID, StoredTokens
from store_table import STEP_BYTES, Reader, Row, Timings, interleave, ratio_row

Range = tuple[int, int, int]
"""Number of a video, first step, stop."""
Read = Callable[[int, int, int], object]

CLIPS, WINDOWS, STEPS, WHOLE = "clips of 32 steps", "random 8-step windows", "single steps", "whole videos"
PATTERNS = (CLIPS, WINDOWS, STEPS, WHOLE)
# All other reads fill the same rows again, so that a single step's target stays in the cache; here it does not.
BATCHES = "single steps into a batch of 32"
MEMORY_MAP = "np.memmap fp16"
INT8, INT8_ALWAYS, FLOAT16 = "int8, `read_codes`", "int8, `read_codes`, every checksum on every read", "float16, `read`"
BARS = {
    INT8: dict.fromkeys((*PATTERNS, BATCHES), 1.6),
    INT8_ALWAYS: dict.fromkeys((*PATTERNS, BATCHES), 0.95),
    FLOAT16: dict.fromkeys((*PATTERNS, BATCHES), 0.95) | {WHOLE: 0.85},
}
_WINDOW_STEPS = 8
# Half a code, relative to the standard deviation of the channel, on the worst token.
_INT8_ERROR = 0.1


def ranges_of(tokens: StoredTokens, seed: int = 0) -> dict[str, list[Range]]:
    """Pattern -> ranges that cover as many steps as there are: clips in order, windows anywhere, steps shuffled."""
    rng = np.random.default_rng(seed)
    videos, length = range(len(tokens.video_ids)), tokens.video_steps
    window = min(_WINDOW_STEPS, length)
    clips = [(video, start, min(start + CLIP_STEPS, length)) for video in videos for start in range(0, length, CLIP_STEPS)]
    windows = [
        (int(rng.integers(len(videos))), start, start + window)
        for start in rng.integers(0, length - window + 1, tokens.num_steps // window).tolist()
    ]
    steps = [(video, step, step + 1) for video in videos for step in range(length)]
    rng.shuffle(steps)
    return {CLIPS: clips, WINDOWS: windows, STEPS: steps, WHOLE: [(video, 0, length) for video in videos]}


def steps_in(ranges: Sequence[Range]) -> int:
    return sum(stop - start for _, start, stop in ranges)


def loop(read: Read, ranges: Sequence[Range]) -> Callable[[], None]:
    """A task that reads all ranges."""
    def task() -> None:
        for video, start, stop in ranges:
            read(video, start, stop)

    return task


class Buffers:
    """What everybody reads into: made and touched once, as large as a whole video. Every read begins at the first row;
    with `batch_steps` single steps fill the rows of a batch of so many, one after the other, again and again.
    """

    def __init__(self, num_steps: int, batch_steps: int | None = None):
        self.codes_nHWC = np.zeros((num_steps, *GRID, CHANNELS), np.int8)
        self.scale_nHW = np.zeros((num_steps, *GRID), np.float16)
        self.half_nHWC = np.zeros((num_steps, *GRID, CHANNELS), np.float16)
        self._batch_steps = batch_steps

    def read_memory_map(self, maps: Sequence[np.ndarray]) -> Read:
        half, rows = self.half_nHWC, self._first_rows()
        return lambda video, start, stop: np.copyto(half[(row := next(rows)) : row + stop - start], maps[video][start:stop])

    def read_codes(self, videos: Sequence[StoredVideo]) -> Read:
        codes, scale, rows = self.codes_nHWC, self.scale_nHW, self._first_rows()

        def read(video: int, start: int, stop: int) -> None:
            row = next(rows)
            videos[video].read_codes(start, stop, (codes[row : row + stop - start], scale[row : row + stop - start]))

        return read

    def read_half(self, videos: Sequence[StoredVideo]) -> Read:
        half, rows = self.half_nHWC, self._first_rows()
        return lambda video, start, stop: videos[video].read("tokens", start, stop, half[(row := next(rows)) : row + stop - start])

    def _first_rows(self) -> Iterator[int]:
        return itertools.repeat(0) if self._batch_steps is None else itertools.cycle(range(self._batch_steps))


def measure_reading(tokens: StoredTokens, rounds: int) -> tuple[list[Row], list[Reader]]:
    tokens.read_into_page_cache()
    buffers, maps = Buffers(tokens.video_steps), tokens.memory_maps()
    int8, always = tokens.videos("int8"), tokens.videos("int8", "always")
    half = tokens.videos("float16")
    _check_contents(maps, int8, half)
    def reads_into(buffers: Buffers) -> dict[str, Read]:
        return {
            MEMORY_MAP: buffers.read_memory_map(maps), INT8: buffers.read_codes(int8),
            INT8_ALWAYS: buffers.read_codes(always), FLOAT16: buffers.read_half(half),
        }

    def timed(reads: Mapping[str, Read], ranges: Sequence[Range]) -> Timings:
        return interleave({name: loop(read, ranges) for name, read in reads.items()}, rounds)

    reads = reads_into(buffers)
    timings = {pattern: timed(reads, ranges) for pattern, ranges in ranges_of(tokens).items()}
    batches = reads_into(Buffers(tokens.video_steps, min(CLIP_STEPS, tokens.video_steps)))
    timings[BATCHES] = timed(batches, ranges_of(tokens)[STEPS])
    stored = {MEMORY_MAP: 1.0, INT8: tokens.stored_share("int8"), INT8_ALWAYS: tokens.stored_share("int8"),
              FLOAT16: tokens.stored_share("float16")}
    rows = _reading_rows(tokens, timings)
    rows.append(Row("int8: bytes of tokens, scales and index", stored[INT8], "x", "of the same tokens as fp16", at_most=0.51))
    rows += [_first_touch_row(tokens, buffers, maps, rounds), _standardised_row(tokens, maps, int8, rounds)]
    rows += _latency_rows(tokens, buffers, maps, int8, rounds)
    readers = [
        Reader(name, stored[name], {pattern: timings[pattern].ratio(name, MEMORY_MAP) for pattern in PATTERNS})
        for name in reads
    ]
    return rows, readers


def _reading_rows(tokens: StoredTokens, timings: Mapping[str, Timings]) -> list[Row]:
    sizes = {pattern: steps_in(ranges) * STEP_BYTES for pattern, ranges in ranges_of(tokens).items()}
    sizes[BATCHES] = sizes[STEPS]
    return [
        ratio_row(f"{reader}, warm: {pattern}", timings[pattern], reader, MEMORY_MAP, sizes[pattern], bar)
        for reader, bars in BARS.items()
        for pattern, bar in bars.items()
    ]


def _check_contents(maps: Sequence[np.ndarray], int8: Sequence[StoredVideo], half: Sequence[StoredVideo]) -> None:
    """A reader that is fast because it reads something else is no reader."""
    for video, expected in enumerate(maps):
        for step in (0, len(expected) - 1):
            exact = half[video].read("tokens", step, step + 1)
            close = int8[video].read("tokens", step, step + 1, np.empty(exact.shape, np.float32))
            error = np.abs(close - expected[step].astype(np.float32)) / int8[video].std
            if not np.array_equal(exact[0], expected[step]) or error.mean() > _INT8_ERROR:
                raise RuntimeError(f"video {video}, step {step}: the stores do not hold the tokens of the memory map")


def _first_touch_row(tokens: StoredTokens, buffers: Buffers, maps: Sequence[np.ndarray], rounds: int) -> Row:
    clips = ranges_of(tokens)[CLIPS]
    timings = interleave({
        MEMORY_MAP: loop(buffers.read_memory_map(maps), clips),
        INT8: lambda: loop(buffers.read_codes(tokens.videos("int8")), clips)(),
    }, rounds)
    how = "the store is opened anew each round, so every checksum is due"
    return ratio_row(f"{INT8}, the first read of every chunk: {CLIPS}", timings, INT8, MEMORY_MAP, tokens.fp16_bytes, how=how)


def _standardised_row(tokens: StoredTokens, maps: Sequence[np.ndarray], videos: Sequence[StoredVideo], rounds: int) -> Row:
    """Both make the same float32 batch of 32 steps, `(x - mean) / std` with the same mean and std, the memory map's
    step by step, which keeps the intermediate values in the cache (measured: the fastest of seven ways).
    """
    rng = np.random.default_rng(0)
    mean_C = torch.from_numpy(rng.standard_normal(CHANNELS, np.float32))
    std_C = torch.from_numpy(rng.uniform(0.5, 2, CHANNELS).astype(np.float32))
    batch_nHWC = torch.zeros(CLIP_STEPS, *GRID, CHANNELS)
    gain_C, bias_C = 1 / std_C, -mean_C / std_C
    half_maps = [_shared(values) for values in maps]
    def from_memory_map(video: int, start: int, stop: int) -> None:
        for out_HWC, values_HWC in zip(batch_nHWC, half_maps[video][start:stop], strict=False):
            out_HWC.copy_(values_HWC)
            torch.addcmul(bias_C, out_HWC, gain_C, out=out_HWC)

    def from_codes(video: int, start: int, stop: int) -> None:
        videos[video].read("tokens", start, stop, batch_nHWC[: stop - start], standard=(mean_C, std_C))

    clips = ranges_of(tokens)[CLIPS]
    from_memory_map(*clips[0])
    expected_nHWC = batch_nHWC.clone()
    from_codes(*clips[0])
    relative = float((batch_nHWC - expected_nHWC).norm() / expected_nHWC.norm())
    if not relative < _INT8_ERROR:
        raise RuntimeError(f"the two standardised batches differ by {relative:.3f} of their size")
    timings = interleave({"int8": loop(from_codes, clips), MEMORY_MAP: loop(from_memory_map, clips)}, rounds)
    measure = "standardised float32 batch from int8 on the CPU"
    return ratio_row(measure, timings, "int8", MEMORY_MAP, tokens.fp16_bytes, 1.0, "the same batch from np.memmap fp16")


def _shared(values: np.ndarray) -> torch.Tensor:
    """A read-only array as a tensor without a copy; torch has no read-only tensors, and nobody writes to this one."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(values)


def _latency_rows(
    tokens: StoredTokens, buffers: Buffers, maps: Sequence[np.ndarray], videos: Sequence[StoredVideo], rounds: int
) -> list[Row]:
    steps = ranges_of(tokens)[STEPS]
    int8, plain = buffers.read_codes(videos), buffers.read_memory_map(maps)
    taken = [(_latencies_us(int8, steps), _latencies_us(plain, steps)) for _ in range(rounds + 1)]
    int8_us, plain_us = (np.concatenate(latencies) for latencies in zip(*taken[1:], strict=True))
    how = f"one `read_codes` call at a time, in random order; np.memmap fp16: {np.median(plain_us):.1f} us"
    return [
        Row("latency of one step, median", float(np.median(int8_us)), "us", how, at_most=50),
        Row("latency of one step, 99th percentile", float(np.quantile(int8_us, 0.99)), "us",
            f"np.memmap fp16: {np.quantile(plain_us, 0.99):.1f} us"),
    ]


def _latencies_us(read: Read, ranges: Sequence[Range]) -> np.ndarray:
    taken = np.empty(len(ranges))
    for number, (video, start, stop) in enumerate(ranges):
        started = time.perf_counter_ns()
        read(video, start, stop)
        taken[number] = time.perf_counter_ns() - started
    return taken / 1000
