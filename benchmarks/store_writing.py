"""Writing: the shard writer against raw `write()` of the same bytes, both synced; a whole video from float32 tokens; and
the memory that a video takes while it is written.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from features.durable import sync_tree
from features.shards import ShardWriter
from features.store import create_or_open_store
from features.zarr_layout import ArraySpec
from store_data import CHANNELS, CLIP_STEPS, GRID, VIDEO_STEPS, append_clip, commit_video, encoding, simulated_clips
from store_table import STEP_BYTES, Row, interleave, memory_bytes, ratio_row

_RAW, _SHARDS, _VIDEO = "raw write() and fsync", "shard writer", "video writer"
_CLIPS_IN_MEMORY = 4
# A video of 2 clips already needs all that a writer ever needs.
_SHORT_STEPS, _TIMES_LONGER = 2 * CLIP_STEPS, 8
_GROWTH_LIMIT = 1.1


def measure_writing(folder: Path, num_steps: int, rounds: int) -> list[Row]:
    """`num_steps` is rounded down to whole clips, and to whole shards where there is one."""
    num_steps -= num_steps % (VIDEO_STEPS if num_steps >= VIDEO_STEPS else CLIP_STEPS)
    clips = list(simulated_clips(_CLIPS_IN_MEMORY * CLIP_STEPS, seed=0))
    codes = [np.clip(np.rint(clip * 20), -127, 127).astype(np.int8) for clip in clips]
    spec = ArraySpec((num_steps, *GRID, CHANNELS), "int8", ("step", "row", "column", "channel"), VIDEO_STEPS)
    pieces = [(start, (start // CLIP_STEPS) % _CLIPS_IN_MEMORY) for start in range(0, num_steps, CLIP_STEPS)]
    target = folder / "written"

    def shards() -> None:
        writer = ShardWriter(target, spec)
        for _, number in pieces:
            writer.append(codes[number])
        writer.close()
        sync_tree(target)

    def empty() -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()

    empty()
    shards()
    written = [file.read_bytes() for file in sorted(target.rglob("*")) if file.is_file()]
    empty()

    def raw() -> None:
        for number, data in enumerate(map(memoryview, written)):
            with open(target / str(number), "xb", buffering=0) as file:
                for start in range(0, len(data), CLIP_STEPS * spec.chunk_bytes):
                    file.write(data[start : start + CLIP_STEPS * spec.chunk_bytes])
        sync_tree(target)

    def video() -> None:
        with create_or_open_store(target / "store", encoding()).writer("v", GRID) as writer:
            for start, number in pieces:
                append_clip(writer, start, clips[number])
            commit_video(writer, num_steps)

    timings = interleave({_RAW: raw, _SHARDS: shards, _VIDEO: video}, rounds, between=empty)
    fp16_bytes = num_steps * STEP_BYTES
    return [
        ratio_row("write int8 with checksums and fsync", timings, _SHARDS, _RAW, fp16_bytes, 0.75,
                  "raw write() of the same bytes in clips, then fsync"),
        ratio_row("write a video from float32 tokens", timings, _VIDEO, _RAW, fp16_bytes,
                  how="quantised, with scales, pyramid and commit, on one thread"),
        _memory_row(folder),
    ]


def _memory_row(folder: Path) -> Row:
    lengths = (_SHORT_STEPS, _SHORT_STEPS * _TIMES_LONGER)
    short_mb, long_mb = (_memory_of_writing_mb(folder, num_steps) for num_steps in lengths)
    how = f"peak memory of the writer: {short_mb:.0f} MB for {lengths[0]} steps, {long_mb:.0f} MB for {lengths[1]}"
    return Row(f"memory while writing a video that is {_TIMES_LONGER} times as long", long_mb / short_mb, "x", how, at_most=_GROWTH_LIMIT)


def _memory_of_writing_mb(folder: Path, num_steps: int) -> float:
    """What a process of its own grows by while it writes a video of `num_steps`."""
    with tempfile.TemporaryDirectory(dir=folder) as target:
        command = [sys.executable, __file__, f"{target}/store", str(num_steps)]
        return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def _write_one_video(store: Path, num_steps: int) -> float:
    """Writes a video that is made on the way, clip by clip; returns the growth of this process's peak memory in MB."""
    clip = next(simulated_clips(CLIP_STEPS, seed=0))
    # The first use of torch's kernels loads them.
    with create_or_open_store(store, encoding()).writer("first", GRID) as writer:
        append_clip(writer, 0, clip[:1])
        commit_video(writer, 1)
    before = memory_bytes("VmRSS")
    # Lets the peak start from here: imports have had one of their own.
    Path("/proc/self/clear_refs").write_text("5")
    with create_or_open_store(store, encoding()).writer("v", GRID) as writer:
        for start in range(0, num_steps, CLIP_STEPS):
            clip += 0.01
            append_clip(writer, start, clip)
        commit_video(writer, num_steps)
    return (memory_bytes("VmHWM") - before) / 1e6


if __name__ == "__main__":
    print(_write_one_video(Path(sys.argv[1]), int(sys.argv[2])))
