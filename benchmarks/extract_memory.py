"""How much memory extraction takes: of an hour of 720p, against a sixth of it, and of many videos against few.

The command `cli.py extract` runs in a process of its own with the encoder `tiny`, whose weights are too small to matter; what it
and its decoding processes take is added up (PSS: shared memory counts once) ten times per second.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from extract_processes import MemoryWatch
from extract_videos import FPS, VideoSpec, cached_long_video, cached_videos
from store_table import Row, progress
from vjepa_loc.errors import VideoError

ROOT = Path(__file__).resolve().parents[1]
_MOST_MB = 1500.0
_MOST_GROWTH = 1.1
_MIB_IN_MB = 2**20 / 1e6
_HOUR, _TEN_MINUTES, _SHORT = 3600 * FPS, 600 * FPS, 8 * FPS
_MANY, _FEW = 200, 10


def extract_command(dataset: Path, store: Path, *options: str) -> list[str]:
    """`cli.py extract` with the embedded encoder on the CPU."""
    return [
        sys.executable, str(ROOT / "cli.py"), "extract", "--dataset", str(dataset), "--store", str(store), "--encoder", "tiny",
        "--set", "extract.device=cpu", *options,
    ]


def write_dataset_file(path: Path, files: list[Path], specs: list[VideoSpec]) -> list[str]:
    """A native dataset of these files, each a video of its own even where two are the same file; returns the ids."""
    videos = [
        {
            "id": f"v{number:03}", "file": str(file.absolute()), "fps": float(FPS), "num_frames": spec.num_frames,
            "width": spec.width, "height": spec.height,
        }
        for number, (file, spec) in enumerate(zip(files, specs, strict=True))
    ]
    path.write_text(json.dumps({"format": "vjepa_loc", "version": 1, "labels": [], "videos": videos, "events": []}))
    return [video["id"] for video in videos]


def peak_memory_mb(folder: Path, files: list[Path], specs: list[VideoSpec]) -> float:
    """Of one extraction of these videos, which has to do them all. Raises `VideoError` where it does not."""
    dataset, store = folder / "memory.json", folder / "memory_store"
    write_dataset_file(dataset, files, specs)
    # In a file: a pipe that nobody reads would block a process that says much.
    with open(folder / "memory.txt", "w+") as said:
        process = subprocess.Popen(extract_command(dataset, store), cwd=folder, stdout=said, stderr=said)
        with MemoryWatch(process.pid) as watch:
            code = process.wait()
        said.seek(0)
        lines = said.read().strip().splitlines()
    shutil.rmtree(store, ignore_errors=True)
    if code or not watch.num_looks:
        raise VideoError(f"cli.py extract ended with code {code}: {lines[-1] if lines else 'it said nothing'}")
    return watch.peak_mib * _MIB_IN_MB


def measure_memory(folder: Path, videos: Path, quick: bool) -> list[Row]:
    """Rows with the bars: an hour within 1.5 GB, no growth with the length, none with the number."""
    if quick:
        hour, part, short, size = 4000, 800, 50, (320, 180)
    else:
        hour, part, short, size = _HOUR, _TEN_MINUTES, _SHORT, (1280, 720)
    many, few = (20, 4) if quick else (_MANY, _FEW)
    long_specs = [VideoSpec(num_frames, *size, seed=20) for num_frames in (part, hour)]
    short_spec = VideoSpec(short, *size, seed=21)
    progress("memory: making the videos")
    long_files = [cached_long_video(videos, spec, 500) for spec in long_specs]
    short_file = cached_videos(videos, [short_spec])[0]
    peaks = []
    for files, specs in [([file], [spec]) for file, spec in zip(long_files, long_specs, strict=True)] + [
        ([short_file] * number, [short_spec] * number) for number in (few, many)
    ]:
        progress(f"memory: {len(files)} videos, {sum(spec.num_frames for spec in specs)} frames")
        peaks.append(peak_memory_mb(folder, files, specs))
    minutes = [f"{spec.num_frames / FPS / 60:.3g} minutes of {spec.width}x{spec.height}" for spec in long_specs]
    return [
        Row(
            f"memory: {minutes[1]}", peaks[1], "MB",
            "peak of the process and its decoding processes (PSS), libraries included; encoder tiny", at_most=_MOST_MB,
        ),
        Row(
            f"memory: {minutes[1]} against {minutes[0]}", peaks[1] / peaks[0], "x", f"{peaks[1]:.0f} against {peaks[0]:.0f} MB",
            at_most=_MOST_GROWTH,
        ),
        Row(
            f"memory: {many} videos against {few}", peaks[3] / peaks[2], "x",
            f"{peaks[3]:.0f} against {peaks[2]:.0f} MB; videos of {short} frames", at_most=_MOST_GROWTH,
        ),
    ]
