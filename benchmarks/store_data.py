"""The tokens that the store's benchmark reads: simulated, of the ViT-L shape, as an int8 store, as a float16 store, and
as plain `.npy` files of fp16.

Shapes: T steps, H x W cells, C channels, n steps of a piece.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from features.schema import Encoding, Source, Storage, VideoMeta
from features.store import Store, create_or_open_store, open_store
from features.stored_video import StoredVideo
from store_table import STEP_BYTES
from vjepa_loc.spacegrid import SpaceGrid

if TYPE_CHECKING:
    # Importing it for real takes torch along, which a process that only reads does not need.
    from features.store_writer import VideoWriter

_READ_BYTES = 1 << 20
GRID, CHANNELS, CLIP_STEPS, VIDEO_STEPS = (16, 16), 1024, 32, 512
# A part of the picture, such as the sky, whose tokens have a norm of their own.
_HIGH_NORM_SHARE, _HIGH_NORM = 0.02, 4.0
_OUTLIER_CHANNELS = 12


def simulated_clips(num_steps: int, seed: int) -> Iterator[np.ndarray]:
    """(n, 16, 16, 1024) float32, n up to 32: outlier channels, tokens of high norm, slowly changing in time."""
    rng = np.random.default_rng(seed)
    scene_HWC = rng.standard_normal((*GRID, CHANNELS), np.float32)
    size_C = np.ones(CHANNELS, np.float32)
    size_C[rng.choice(CHANNELS, _OUTLIER_CHANNELS, replace=False)] = rng.uniform(10, 40, _OUTLIER_CHANNELS)
    size_HWC = size_C * np.where(rng.random(GRID) < _HIGH_NORM_SHARE, _HIGH_NORM, 1).astype(np.float32)[..., None]
    noise_HWC = np.empty_like(scene_HWC)
    for start in range(0, num_steps, CLIP_STEPS):
        clip_nHWC = np.empty((min(CLIP_STEPS, num_steps - start), *GRID, CHANNELS), np.float32)
        for step_HWC in clip_nHWC:
            rng.standard_normal(out=noise_HWC, dtype=np.float32)
            scene_HWC += 0.3 * (noise_HWC - 0.15 * scene_HWC)
            np.multiply(scene_HWC + 1, size_HWC, out=step_HWC)
        yield clip_nHWC


def encoding() -> Encoding:
    return Encoding(
        family="simulated", digest="0", channels=CHANNELS, tubelet=2, patch_px=16, input_hw=(256, 256), resize_version=1,
        clip_frames=2 * CLIP_STEPS, mean=(0, 0, 0), std=(1, 1, 1),
    )


def describe_video(video_id: str, num_steps: int) -> VideoMeta:
    space = SpaceGrid.build("stretch", 1280, 720, 256, 256, 16)
    return VideoMeta(
        id=video_id, source=Source(name="none", size=0, mtime_ns=0, sha256=""), num_frames=2 * num_steps, fps=Fraction(25),
        width=1280, height=720, grid=GRID, space_grid=space.to_dict(), decoder="none", device="cpu", dtype="float32",
    )


def append_clip(writer: "VideoWriter", start: int, clip_nHWC: np.ndarray) -> None:
    """The steps from `start` on, two frames each."""
    frames_n2 = np.arange(2 * start, 2 * (start + len(clip_nHWC))).reshape(-1, 2)
    first_seen_n, last_seen_n = (np.full(len(frames_n2), frames_n2.ravel()[end]) for end in (0, -1))
    writer.append(clip_nHWC, frames_n2, first_seen_n, last_seen_n)


def commit_video(writer: "VideoWriter", num_steps: int) -> None:
    writer.commit(describe_video(writer.id, num_steps), np.arange(2 * num_steps) / 25)


@dataclass(frozen=True)
class StoredTokens:
    """The same videos three times below `folder`; made by `make_tokens`."""

    folder: Path
    video_ids: tuple[str, ...]
    video_steps: int

    @property
    def num_steps(self) -> int:
        return len(self.video_ids) * self.video_steps

    @property
    def fp16_bytes(self) -> int:
        return self.num_steps * STEP_BYTES

    def videos(self, number_format: str, verify: str = "first") -> list[StoredVideo]:
        """Opened by a store object of their own."""
        store = open_store(self.folder / number_format, verify)
        return [store.video(video_id) for video_id in self.video_ids]

    def memory_map_files(self) -> list[Path]:
        return [self.folder / f"{video_id}.npy" for video_id in self.video_ids]

    def memory_maps(self) -> list[np.ndarray]:
        """(T, H, W, C) float16; as plain arrays, which slice faster than `np.memmap` objects."""
        return [np.asarray(np.load(file, mmap_mode="r")) for file in self.memory_map_files()]

    def array_files(self, number_format: str) -> list[Path]:
        """The files of tokens and scales, data and metadata."""
        return [
            file
            for video in self.videos(number_format)
            for name in ("tokens", "scale")
            for file in sorted((video.group_path / name).rglob("*"))
            if file.is_file()
        ]

    def read_into_page_cache(self) -> None:
        """Every file from its start to its end, by plain reads: how pages lie in the cache, and how fast they are copied from
        there, depends on who brought them in.
        """
        for file in [*self.memory_map_files(), *self.array_files("int8"), *self.array_files("float16")]:
            with open(file, "rb", buffering=0) as opened:
                os.fsync(opened.fileno())
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                while opened.read(_READ_BYTES):
                    pass

    def stored_share(self, number_format: str) -> float:
        """Bytes of tokens, scales, index, checksums and metadata, relative to fp16."""
        return sum(file.stat().st_size for file in self.array_files(number_format)) / self.fp16_bytes


def make_tokens(folder: Path, num_steps: int) -> StoredTokens:
    """Videos of 512 steps, or two shorter ones; `num_steps` is rounded down to whole videos."""
    num_videos = max(2, num_steps // VIDEO_STEPS)
    tokens = StoredTokens(folder, tuple(f"v{number}" for number in range(num_videos)), num_steps // num_videos)
    stores = [create_or_open_store(folder / name, encoding(), Storage(number_format=name)) for name in ("int8", "float16")]
    for seed, (video_id, file) in enumerate(zip(tokens.video_ids, tokens.memory_map_files(), strict=True)):
        _write_video(stores, video_id, file, tokens.video_steps, seed)
    return tokens


def _write_video(stores: Sequence[Store], video_id: str, file: Path, num_steps: int, seed: int) -> None:
    writers = [store.writer(video_id, GRID) for store in stores]
    start = 0
    # Written as `np.save` does. A file that is filled through a memory map lies in the page cache in pieces of a page, and is
    # read at half the speed: no fair opponent.
    with open(file, "wb") as plain:
        header = {"descr": "<f2", "fortran_order": False, "shape": (num_steps, *GRID, CHANNELS)}
        np.lib.format.write_array_header_1_0(plain, header)
        for clip_nHWC in simulated_clips(num_steps, seed):
            clip_nHWC.astype("<f2").tofile(plain)
            for writer in writers:
                append_clip(writer, start, clip_nHWC)
            start += len(clip_nHWC)
    for writer in writers:
        commit_video(writer, num_steps)
