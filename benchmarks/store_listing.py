"""A store of 10,000 videos: how long it takes to open and list, and how much memory, in a process of its own."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from features.commits import Commit, FileStamp, key_of
from features.checksum import crc32c_hex
from features.schema import Encoding, Source, VideoMeta
from features.store import Store, create_or_open_store, open_store
from features.zarr_layout import group_metadata, metadata_bytes
from store_table import Row, memory_bytes, progress
from vjepa_loc.spacegrid import SpaceGrid

_SECONDS, _MEGABYTES = 1.0, 200.0
_NUM_STEPS, _CHANNELS = 4, 8


def measure_listing(folder: Path, num_videos: int, rounds: int) -> list[Row]:
    progress(f"making a store of {num_videos} videos")
    path = folder / "many"
    make_many(path, num_videos)
    rows = []
    for state, prepare in (("with its manifest", _list), ("its manifest removed", _remove_manifest)):
        figures = []
        for number in range(rounds + 1):
            progress(f"listing {num_videos} videos, {state}, round {number + 1} of {rounds + 1}")
            prepare(path)
            figures.append(_list(path))
        if any(figure["videos"] != num_videos for figure in figures):
            raise RuntimeError(f"expected {num_videos} videos in the listing, got {figures[0]['videos']}")
        seconds, megabytes, opening = (
            float(np.median([figure[name] for figure in figures[1:]])) for name in ("seconds", "megabytes", "one_video_ms")
        )
        what = f"{num_videos} videos, {state}"
        rows += [
            Row(f"{what}: open and list", seconds, "s", f"then opening one of them takes {opening:.1f} ms", at_most=_SECONDS),
            Row(f"{what}: peak memory", megabytes, "MB", "of the whole process, Python and its libraries included", at_most=_MEGABYTES),
        ]
    shutil.rmtree(path)
    return rows


def make_many(path: Path, num_videos: int) -> None:
    """One video by the store's writer; the others are the same bytes under other ids, with group metadata and commits of
    their own. Data files are hard links, nothing is synced.
    """
    encoding = Encoding(
        family="simulated", digest="0", channels=_CHANNELS, tubelet=2, patch_px=16, input_hw=(32, 32), resize_version=1,
        clip_frames=2 * _NUM_STEPS, mean=(0, 0, 0), std=(1, 1, 1),
    )
    store = create_or_open_store(path, encoding)
    first = _write_first(store)
    meta = store.video(first.video_id).meta
    for number in range(1, num_videos):
        _copy_video(path, first, meta.model_copy(update={"id": f"video-{number:06d}"}), f"{number:016x}")


def _write_first(store: Store) -> Commit:
    num_frames = 2 * _NUM_STEPS
    meta = VideoMeta(
        id="video-000000", source=Source(name="none", size=0, mtime_ns=0, sha256=""), num_frames=num_frames, fps=Fraction(25),
        width=64, height=64, grid=(2, 2), space_grid=SpaceGrid.build("stretch", 64, 64, 32, 32, 16).to_dict(), decoder="none",
        device="cpu", dtype="float32",
    )
    tokens_THWC = np.random.default_rng(0).standard_normal((_NUM_STEPS, 2, 2, _CHANNELS), np.float32)
    frames_T2 = np.arange(num_frames).reshape(-1, 2)
    with store.writer(meta.id, (2, 2)) as writer:
        writer.append(tokens_THWC, frames_T2, np.zeros(_NUM_STEPS), np.full(_NUM_STEPS, num_frames - 1))
        writer.commit(meta, np.arange(num_frames) / 25)
    return store.commit_of(meta.id)


def _copy_video(path: Path, first: Commit, meta: VideoMeta, generation: str) -> None:
    key = key_of(meta.id)
    own = metadata_bytes(group_metadata(meta.to_dict()))
    zarr_path, first_key = path / "tokens.zarr", key_of(first.video_id)
    files: dict[str, FileStamp] = {}
    folders: set[Path] = set()
    for name, stamp in first.files.items():
        copy = name.replace(first.path, f"videos/{key}/{generation}").replace(f"videos/{first_key}/", f"videos/{key}/")
        files[copy] = stamp
        if name == f"{first.path}/zarr.json":
            files[copy] = FileStamp(len(own), crc32c_hex(own))
        if copy == name:
            continue
        folder = (zarr_path / copy).parent
        if folder not in folders:
            folders.add(folder)
            folder.mkdir(parents=True, exist_ok=True)
        if name == f"{first.path}/zarr.json":
            (zarr_path / copy).write_bytes(own)
        else:
            os.link(zarr_path / name, zarr_path / copy)
    commit = replace(first, video_id=meta.id, path=f"videos/{key}/{generation}", files=files)
    (path / "commits" / f"{key}.json").write_bytes(commit.to_bytes())


def _remove_manifest(path: Path) -> None:
    for file in (path / "manifest").iterdir():
        file.unlink()


def _list(path: Path) -> Mapping[str, float]:
    """What a new process measures of itself."""
    answer = subprocess.run([sys.executable, __file__, str(path)], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(answer.stdout)


def _list_here(path: Path) -> dict[str, float]:
    started = time.perf_counter()
    store = open_store(path)
    summaries = store.summaries()
    seconds = time.perf_counter() - started
    peak = memory_bytes("VmHWM") / 1e6
    middle = list(summaries)[len(summaries) // 2]
    started = time.perf_counter()
    store.video(middle)
    one_video_ms = (time.perf_counter() - started) * 1e3
    return {"videos": len(summaries), "seconds": seconds, "megabytes": peak, "one_video_ms": one_video_ms}


if __name__ == "__main__":
    print(json.dumps(_list_here(Path(sys.argv[1]))))
