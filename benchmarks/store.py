"""How fast the token store is, against np.memmap fp16 and raw writes of the same tokens, and what int8 costs.

    python benchmarks/store.py [--steps 1024] [--rounds 7] [--folder DIR] [--cpu-time]

One process, interleaved rounds, medians, page cache warm, tokens of the ViT-L shape. GB/s are fp16-equivalent: one
step of 16 x 16 x 1024 tokens counts 524,288 bytes whatever it takes on disk.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from features.quantise import channel_statistics, dequantise, quantise
from features.schema import Encoding, Source, Storage, VideoMeta
from features.shards import ShardWriter
from features.store import Store, create_or_open_store, open_store
from features.zarr_layout import ArraySpec
from vjepa_loc.spacegrid import SpaceGrid

GRID, CHANNELS, CLIP_STEPS = (16, 16), 1024, 32
STEP_BYTES = GRID[0] * GRID[1] * CHANNELS * 2


def simulated_tokens(num_steps: int, num_outliers: int = 12, seed: int = 0) -> np.ndarray:
    """(T, 16, 16, 1024) float32 with outlier channels and tokens of high norm, slowly changing in time."""
    rng = np.random.default_rng(seed)
    scene = rng.normal(size=(*GRID, CHANNELS)).astype(np.float32)
    tokens = np.empty((num_steps, *GRID, CHANNELS), np.float32)
    size_C = np.ones(CHANNELS, np.float32)
    size_C[rng.choice(CHANNELS, num_outliers, replace=False)] = rng.uniform(10, 40, num_outliers)
    for step in range(num_steps):
        scene += 0.3 * (rng.standard_normal(scene.shape, np.float32) - 0.15 * scene)
        tokens[step] = scene * size_C + size_C
    tokens[:, rng.random(GRID) < 0.02] *= 4
    return tokens


def medians(tasks: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Seconds of `clock` per task; rounds of all tasks are interleaved, the first one warms up."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds + 1):
        for name, task in tasks.items():
            started = clock()
            task()
            times[name].append(clock() - started)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def encoding() -> Encoding:
    return Encoding(
        family="simulated", digest="0", channels=CHANNELS, tubelet=2, patch_px=16, input_hw=(256, 256), resize_version=1,
        clip_frames=64, mean=(0, 0, 0), std=(1, 1, 1),
    )


def write_video(store: Store, video_id: str, tokens: np.ndarray) -> None:
    num_frames = 2 * len(tokens)
    space = SpaceGrid.build("stretch", 1280, 720, 256, 256, 16)
    meta = VideoMeta(
        id=video_id, source=Source(name="none", size=0, mtime_ns=0, sha256=""), num_frames=num_frames, fps=Fraction(25),
        width=1280, height=720, grid=GRID, space_grid=space.to_dict(), decoder="none", device="cpu", dtype="float32",
    )
    frames = np.arange(num_frames).reshape(-1, 2)
    with store.writer(video_id, GRID) as writer:
        for start in range(0, len(tokens), CLIP_STEPS):
            part = frames[start : start + CLIP_STEPS]
            first, last = np.full(len(part), part[0, 0]), np.full(len(part), part[-1, -1])
            writer.append(tokens[start : start + CLIP_STEPS], part, first, last)
        writer.commit(meta, np.arange(num_frames) / 25)


def reading(folder: Path, tokens: np.ndarray, rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Seconds per pass over the video in clips, single steps and as a whole."""
    num_steps = len(tokens)
    np.save(folder / "fp16.npy", tokens.astype(np.float16))
    memmap = np.load(folder / "fp16.npy", mmap_mode="r")
    video, always = open_store(folder / "int8").video("v"), open_store(folder / "int8", verify="always").video("v")
    half = open_store(folder / "fp16").video("v")
    codes, scale = np.empty((num_steps, *GRID, CHANNELS), np.int8), np.empty((num_steps, *GRID), np.float16)
    out16, out32 = np.empty((num_steps, *GRID, CHANNELS), np.float16), np.empty((CLIP_STEPS, *GRID, CHANNELS), np.float32)
    mean, std = torch.tensor(video.mean), torch.tensor(video.std)
    tasks: dict[str, Callable[[], object]] = {}
    for name, length in (("clips", CLIP_STEPS), ("steps", 1), ("whole", num_steps)):
        ranges = [(start, start + length) for start in range(0, num_steps, length)]

        def loop(read: Callable[[int, int], object], ranges: Iterable[tuple[int, int]] = ranges) -> Callable[[], object]:
            return lambda: [read(start, stop) for start, stop in ranges]

        tasks |= {
            f"{name}/memmap fp16": loop(lambda a, b: np.copyto(out16[: b - a], memmap[a:b])),
            f"{name}/fp16": loop(lambda a, b: half.read("tokens", a, b, out16[: b - a])),
            f"{name}/int8 codes": loop(lambda a, b: video.read_codes(a, b, (codes[: b - a], scale[: b - a]))),
            f"{name}/int8 codes, always": loop(lambda a, b: always.read_codes(a, b, (codes[: b - a], scale[: b - a]))),
        }
    clips = [(start, start + CLIP_STEPS) for start in range(0, num_steps, CLIP_STEPS)]

    def standardised(a: int, b: int) -> None:
        out = torch.from_numpy(out32[: b - a])
        np.copyto(out16[: b - a], memmap[a:b])
        out.copy_(torch.from_numpy(out16[: b - a])).sub_(mean).div_(std)

    tasks["fp32/memmap fp16, standardised"] = lambda: [standardised(a, b) for a, b in clips]
    tasks["fp32/int8 read, raw units"] = lambda: [video.read("tokens", a, b, out32[: b - a]) for a, b in clips]
    return medians(tasks, rounds, clock)


def writing(folder: Path, tokens: np.ndarray, rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Seconds to write the same codes with write() + fsync and with the shard writer + fsync, and for the whole store."""
    codes = np.ascontiguousarray(tokens.astype(np.int8))
    spec = ArraySpec(codes.shape, "int8", ("step", "row", "column", "channel"), 512)

    def fresh() -> Path:
        return Path(tempfile.mkdtemp(dir=folder))

    def raw() -> None:
        with open(fresh() / "raw", "wb", buffering=0) as file:
            for start in range(0, len(codes), CLIP_STEPS):
                file.write(codes[start : start + CLIP_STEPS].data)
            os.fsync(file.fileno())

    def shards() -> None:
        writer = ShardWriter(fresh(), spec)
        for start in range(0, len(codes), CLIP_STEPS):
            writer.append(codes[start : start + CLIP_STEPS])
        writer.close()

    return medians({
        "write/raw int8": raw,
        "write/shard writer int8": shards,
        "write/store, quantised with pyramid": lambda: write_video(create_or_open_store(fresh(), encoding()), "v", tokens),
    }, rounds, clock)


def quantisation() -> dict[str, float]:
    """Relative error of the standardised tokens after int8, statistics of the first clip against those of the whole video."""
    errors = {}
    for num_outliers in (0, 12, 24):
        tokens = torch.from_numpy(simulated_tokens(128, num_outliers, seed=num_outliers))
        mean_all, std_all = channel_statistics(tokens)
        for name, part in (("first clip", tokens[:CLIP_STEPS]), ("whole video", tokens)):
            mean, std = channel_statistics(part)
            decoded = dequantise(*quantise(tokens, mean, std), mean, std, torch.empty_like(tokens))
            error = ((decoded - tokens) / std_all).norm() / ((tokens - mean_all) / std_all).norm()
            errors[f"int8 error/{num_outliers} outlier channels, {name}"] = float(error)
    return errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--cpu-time", action="store_true", help="count CPU time, not waiting: for a busy machine")
    options = parser.parse_args()
    torch.set_num_threads(1)
    clock = time.process_time if options.cpu_time else time.perf_counter
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        tokens = simulated_tokens(options.steps)
        for number_format in ("int8", "float16"):
            storage = Storage(number_format=number_format)
            write_video(create_or_open_store(folder / number_format.replace("float", "fp"), encoding(), storage), "v", tokens)
        group = folder / "int8/tokens.zarr" / open_store(folder / "int8").video("v").commit.path
        stored = sum(path.stat().st_size for array in ("tokens", "scale") for path in (group / array).rglob("*") if path.is_file())
        seconds = reading(folder, tokens, options.rounds, clock) | writing(folder, tokens[: options.steps // 2], 3, clock)
    for name, value in seconds.items():
        steps = options.steps // 2 if name.startswith("write") else options.steps
        print(f"{name:45s} {steps * STEP_BYTES / value / 1e9:7.2f} GB/s")
    for name, value in quantisation().items():
        print(f"{name:45s} {value:9.5f}")
    print(f"{'bytes of tokens, scale and index / fp16':45s} {stored / (options.steps * STEP_BYTES):9.5f}")
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
