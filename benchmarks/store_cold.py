"""Cold reads: windows in random order from files that are not in the page cache.

Every reading is a process of its own, because the system keeps pages that somebody has mapped. Before each one the files
are dropped from the page cache, and the system is asked whether they really are gone. Below a virtual disk the host may
still hold them: that is as cold as a guest can make it.
"""

import ctypes
import json
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from features.store import open_store
from store_data import CHANNELS, GRID, StoredTokens
from store_table import STEP_BYTES, Row, Timings, progress, ratio_row

PLAIN, PLAIN_AHEAD = "np.memmap fp16", "np.memmap fp16, asked for ahead"
INT8, INT8_AHEAD = "int8, `read_codes`", "int8, `read_codes` after `will_read`"
_WINDOW_STEPS = 8
# Of a store that is larger than the memory, what the system reads around a window is gone before it is needed. Here it
# would be kept, so most windows are left out.
_WINDOW_SHARE = 0.25
# As many windows as a loader that fills a batch ahead knows of.
_WINDOWS_AHEAD = 8
# Metadata of the file system may keep a page or two.
_RESIDENT_LIMIT = 0.01


def measure_cold(tokens: StoredTokens, rounds: int) -> list[Row]:
    """Has to run before anything in this process has mapped the files."""
    files = tokens.memory_map_files() + tokens.array_files("int8")
    window = min(_WINDOW_STEPS, tokens.video_steps)
    ranges = [
        (video, start, start + window)
        for video in range(len(tokens.video_ids)) for start in range(0, tokens.video_steps - window + 1, window)
    ]
    np.random.default_rng(0).shuffle(ranges)
    ranges = ranges[: max(2, round(_WINDOW_SHARE * len(ranges)))]
    measure, num_bytes = "cold: windows in random order", len(ranges) * window * STEP_BYTES
    seconds: dict[str, list[float]] = {name: [] for name in (PLAIN, INT8_AHEAD, PLAIN_AHEAD, INT8)}
    # Rounds as in `interleave`; here the first one warms up nothing, but it is left out all the same.
    for number in range(rounds + 1):
        progress(f"cold, round {number + 1} of {rounds + 1}")
        for reader in np.roll(list(seconds), -number).tolist():
            share = drop_from_page_cache(files)
            if share > _RESIDENT_LIMIT:
                how = f"the system kept {share:.0%} of the files in memory: use another --folder, on a disk"
                return [Row(measure, None, "x", how, at_least=3)]
            seconds[reader].append(_read_in_a_process(tokens, reader, ranges))
    timings = Timings(seconds)
    how = "dropped from the page cache before each reading, checked by mincore"
    return [
        ratio_row(f"{measure}, {INT8_AHEAD}", timings, INT8_AHEAD, PLAIN, num_bytes, 3.0, how),
        ratio_row(f"{measure}, {INT8}", timings, INT8, PLAIN, num_bytes, how="nothing asked for ahead"),
        ratio_row(f"{measure}, {PLAIN_AHEAD}", timings, PLAIN_AHEAD, PLAIN, num_bytes, how="posix_fadvise for the memory map, too"),
    ]


def drop_from_page_cache(files: Sequence[Path]) -> float:
    """Asks the system to forget the files' pages; returns the share of them that it kept."""
    resident = total = 0
    for file in files:
        fd = os.open(file, os.O_RDONLY)
        try:
            # Pages that are not on the disk yet are not dropped.
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            kept = resident_pages(fd)
        finally:
            os.close(fd)
        resident, total = resident + int(kept.sum()), total + len(kept)
    return resident / total


def resident_pages(fd: int) -> np.ndarray:
    """(pages,) bool: which pages of a file lie in the page cache, as mincore(2) says."""
    libc = ctypes.CDLL(None, use_errno=True)
    size = os.fstat(fd).st_size
    with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as mapping:
        pages = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
        data = np.frombuffer(mapping, np.uint8)
        failed = libc.mincore(ctypes.c_void_p(data.ctypes.data), ctypes.c_size_t(size), ctypes.c_void_p(pages.ctypes.data))
        # The mapping closes only when nothing looks into it any more.
        del data
    if failed:
        raise OSError(ctypes.get_errno(), "mincore failed")
    return (pages & 1).astype(bool)


def _read_in_a_process(tokens: StoredTokens, reader: str, ranges: Sequence[tuple[int, int, int]]) -> float:
    task = {"folder": str(tokens.folder), "video_ids": tokens.video_ids, "steps": tokens.video_steps, "reader": reader, "ranges": ranges}
    command = [sys.executable, __file__]
    return float(subprocess.run(command, input=json.dumps(task), check=True, stdout=subprocess.PIPE, text=True).stdout)


def _read(tokens: StoredTokens, reader: str, ranges: Sequence[tuple[int, int, int]]) -> float:
    """Seconds for all ranges, each into the same buffer; files are opened before."""
    window = ranges[0][2] - ranges[0][1]
    ask, take = (_memory_map_reader if reader in (PLAIN, PLAIN_AHEAD) else _store_reader)(tokens, window)
    ahead = _WINDOWS_AHEAD if reader in (PLAIN_AHEAD, INT8_AHEAD) else 0
    started = time.perf_counter()
    for asked in ranges[:ahead]:
        ask(*asked)
    for number, taken in enumerate(ranges):
        if ahead and number + ahead < len(ranges):
            ask(*ranges[number + ahead])
        take(*taken)
    return time.perf_counter() - started


def _memory_map_reader(tokens: StoredTokens, window: int) -> tuple[Callable[..., object], Callable[..., object]]:
    out = np.zeros((window, *GRID, CHANNELS), np.float16)
    maps = [np.load(file, mmap_mode="r") for file in tokens.memory_map_files()]
    fds = [os.open(file, os.O_RDONLY) for file in tokens.memory_map_files()]

    def ask(video: int, start: int, stop: int) -> None:
        first = maps[video].offset + start * STEP_BYTES
        os.posix_fadvise(fds[video], first, (stop - start) * STEP_BYTES, os.POSIX_FADV_WILLNEED)

    return ask, lambda video, start, stop: np.copyto(out, maps[video][start:stop])


def _store_reader(tokens: StoredTokens, window: int) -> tuple[Callable[..., object], Callable[..., object]]:
    out = np.zeros((window, *GRID, CHANNELS), np.int8), np.zeros((window, *GRID), np.float16)
    store = open_store(tokens.folder / "int8")
    videos = [store.video(video_id) for video_id in tokens.video_ids]
    return (
        lambda video, start, stop: videos[video].will_read("tokens", start, stop),
        lambda video, start, stop: videos[video].read_codes(start, stop, out),
    )


if __name__ == "__main__":
    given = json.load(sys.stdin)
    stored = StoredTokens(Path(given["folder"]), tuple(given["video_ids"]), given["steps"])
    print(_read(stored, given["reader"], given["ranges"]))
