"""Small stores for tests: tokens with outlier channels, as an encoder's are, and the videos that hold them."""

from fractions import Fraction
from pathlib import Path

import numpy as np

from features.claims import Claim
from features.schema import Damage, Encoding, Source, Storage, VideoMeta
from features.store import Store, create_or_open_store
from vjepa_loc.spacegrid import SpaceGrid

CHANNELS = 24
FPS = Fraction(25)


def small_encoding(**changes) -> Encoding:
    values = {
        "family": "toy", "digest": "0" * 64, "channels": CHANNELS, "tubelet": 2, "patch_px": 8, "input_hw": (48, 48),
        "resize_version": 1, "clip_frames": 16, "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2),
    }
    return Encoding(**{**values, **changes})


def small_store(path: Path, storage: Storage | None = None, **encoding_changes) -> Store:
    return create_or_open_store(path, small_encoding(**encoding_changes), storage or Storage(shard_steps=16))


def simulated_tokens(num_steps: int, seed: int = 0, grid: tuple[int, int] = (6, 6), channels: int = CHANNELS) -> np.ndarray:
    """(T, H, W, C) float32 with channels of very different mean and size."""
    rng = np.random.default_rng(seed)
    size_C = np.where(np.arange(channels) % 8 == 0, 30.0, rng.uniform(0.3, 2, channels))
    tokens = rng.normal(size=(num_steps, *grid, channels)) * size_C + 3 * size_C * rng.normal(size=channels)
    return tokens.astype(np.float32)


def space_grid(grid: tuple[int, int] = (6, 6), fit: str = "stretch", width: int = 64, height: int = 48) -> SpaceGrid:
    return SpaceGrid.build(fit, width, height, grid[0] * 8, grid[1] * 8, 8)


def video_meta(video_id: str, num_frames: int, spaces: SpaceGrid, **changes) -> VideoMeta:
    values = {
        "id": video_id, "source": Source(name=f"{video_id}.mp4", size=1000, mtime_ns=5, sha256="ab" * 32),
        "num_frames": num_frames, "fps": FPS, "width": spaces.width, "height": spaces.height, "grid": spaces.grid,
        "space_grid": spaces.to_dict(), "decoder": "pyav", "versions": {"av": "1"}, "device": "cpu", "dtype": "float32",
        "weights": "toy",
    }
    return VideoMeta(**{**values, **changes})


def add_video(
    store: Store, video_id: str, tokens_THWC: np.ndarray, *, cuts: tuple[int, ...] = (), fit: str = "stretch",
    replace: bool = False, damage: Damage | None = None, claim: Claim | None = None,
) -> bool:
    """Writes a video in appends that end at `cuts`; True if this commit counts."""
    num_steps = len(tokens_THWC)
    spaces = space_grid(tokens_THWC.shape[1:3], fit)
    frames = np.arange(2 * num_steps).reshape(num_steps, 2)
    last = 2 * num_steps - 1
    with store.writer(video_id, spaces.grid, spaces.valid_HW, replace=replace, claim=claim) as writer:
        for start, stop in zip((0, *cuts), (*cuts, num_steps), strict=True):
            count = stop - start
            writer.append(tokens_THWC[start:stop], frames[start:stop], np.zeros(count), np.full(count, last))
        return writer.commit(video_meta(video_id, last + 1, spaces, damage=damage), np.arange(last + 1) / float(FPS))


def read_all(store: Store, video_id: str) -> dict[str, np.ndarray]:
    """Every array of a video as its reader gives it."""
    video = store.video(video_id)
    arrays = {level: video.read(level) for level in video.levels}
    names = ("mean", "std", "frames", "first_frame_seen", "last_frame_seen", "frame_time_s")
    return arrays | {name: getattr(video, name) for name in names}
