"""Other people's features as a store: an .npy file of shape (T, C) or (T, H, W, C) becomes one video.

What is not known is stated as the most careful guess: each step may have seen the whole video, and a grid spans the
whole frame. Such a store is an encoding of its own, named by its family, and cannot be confused with extracted tokens.
"""

import hashlib
import math
from fractions import Fraction
from pathlib import Path

import numpy as np

from features.schema import Encoding, Source, Storage, VideoMeta, as_fraction
from features.store import create_or_open_store
from vjepa_loc.errors import ConfigError, MissingFileError, StoreError
from vjepa_loc.spacegrid import SpaceGrid

_STEPS_AT_ONCE = 64
# A last step that stands for more than this many others is a wrong stride, not a tail without features.
_LONGEST_TAIL = 16


def import_array(
    file: Path | str, store_path: Path | str, video_id: str, fps: Fraction | float | str, stride: int, *,
    num_frames: int | None = None, family: str = "imported", width: int | None = None, height: int | None = None,
    storage: Storage | None = None,
) -> bool:
    """Stores the array as video `video_id`; False where the store has that video already, imported from the same bytes.

    Step t stands for the frames from t * `stride` to the next step's first, the last one for those to the video's end;
    `num_frames` is T * stride if it is not given. `fps` may be a fraction such as "30000/1001". `width` and `height`
    are displayed pixels, by default one per cell: events with boxes need the true ones. Raises `MissingFileError`,
    `ConfigError` for an array of another shape or type, for values that are not finite and for numbers that do not fit
    together, `StoreMismatchError` where the store holds other features, `StoreError` where it holds other data as this
    video.
    """
    file = Path(file)
    features_THWC = _load(file)
    num_steps, rows, columns, channels = features_THWC.shape
    rate = _checked_rate(fps)
    num_frames = _checked_length(file, num_steps, stride, num_frames)
    if (width is None) != (height is None) or min(width or 1, height or 1) < 1:
        raise ConfigError(f"import: expected a width and a height of at least 1 pixel, or neither, got {width} and {height}")
    # Before the store is made: a mistake in the first file must not decide what the store holds.
    for start in range(0, num_steps, _STEPS_AT_ONCE):
        _check_finite(file, features_THWC[start : start + _STEPS_AT_ONCE], start)
    encoding = Encoding(
        family=family, digest=family, channels=channels, tubelet=1, patch_px=1, input_hw=(rows, columns), resize_version=0,
        frame_step=stride, clip_frames=_STEPS_AT_ONCE, mean=(0, 0, 0), std=(1, 1, 1),
    )
    store = create_or_open_store(store_path, encoding, storage)
    grid = SpaceGrid.build("stretch", width or columns, height or rows, rows, columns, patch_px=1)
    meta = VideoMeta(
        id=video_id, source=_source(file),
        num_frames=num_frames, fps=rate, times_made_up=True, width=grid.width, height=grid.height, grid=grid.grid,
        space_grid=grid.to_dict(), decoder="none", device="none", dtype=features_THWC.dtype.name, weights=family,
    )
    if video_id in store:
        _check_same(store.video(video_id).meta, meta)
        return False
    frames_T = np.arange(num_steps) * stride
    with store.writer(video_id, grid.grid, num_steps=num_steps) as writer:
        for start in range(0, num_steps, _STEPS_AT_ONCE):
            tokens_nHWC = np.asarray(features_THWC[start : start + _STEPS_AT_ONCE], np.float32)
            n = len(tokens_nHWC)
            writer.append(tokens_nHWC, frames_T[start : start + n, None], np.zeros(n), np.full(n, num_frames - 1))
        return writer.commit(meta, np.arange(num_frames) / float(rate))


def _load(file: Path) -> np.ndarray:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise MissingFileError(f"there is no file {file} to import") from None
    except (ValueError, EOFError, OSError) as error:
        raise ConfigError(f"{file} is not an .npy file of numbers: {error}") from None
    if not isinstance(array, np.ndarray):
        raise ConfigError(f"{file} holds several arrays; save the one with the features as an .npy file")
    if array.ndim not in (2, 4) or array.dtype.kind not in "fiu" or 0 in array.shape:
        raise ConfigError(f"{file}: expected numbers of shape (T, C) or (T, H, W, C), got {array.dtype} {array.shape}")
    return array[:, None, None, :] if array.ndim == 2 else array


def _source(file: Path) -> Source:
    status = file.stat()
    with open(file, "rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return Source(name=file.name, size=status.st_size, mtime_ns=status.st_mtime_ns, sha256=sha256)


def _check_same(stored: VideoMeta, wanted: VideoMeta) -> None:
    for name, old, new in (
        ("sha256 of the file", stored.source.sha256, wanted.source.sha256), ("num_frames", stored.num_frames, wanted.num_frames),
        ("fps", stored.fps, wanted.fps), ("size", (stored.width, stored.height), (wanted.width, wanted.height)),
    ):
        if old != new:
            raise StoreError(
                f"video {stored.id!r} is in the store already, with another {name} ({old}, now {new}); import under another id, "
                "or into another store"
            )


def _checked_rate(fps: Fraction | float | str) -> Fraction:
    try:
        # Through its decimals, so that 29.97 stays 2997/100.
        return as_fraction(str(fps))
    except ValueError:
        raise ConfigError(f"fps: expected a positive number or a fraction such as 30000/1001, got {fps!r}") from None


def _checked_length(file: Path, num_steps: int, stride: int, num_frames: int | None) -> int:
    if stride < 1:
        raise ConfigError(f"stride: expected at least 1 frame per step, got {stride}")
    if num_frames is None:
        return num_steps * stride
    first, last = (num_steps - 1) * stride + 1, (num_steps + _LONGEST_TAIL) * stride
    if not first <= num_frames <= last:
        raise ConfigError(
            f"{file}: {num_steps} steps of {stride} frames are a video of about {num_steps * stride} frames, got num_frames "
            f"{num_frames} (expected {first} to {last}); is the stride {math.ceil(num_frames / num_steps)}?"
        )
    return num_frames


def _check_finite(file: Path, values_nHWC: np.ndarray, first_step: int) -> None:
    with np.errstate(over="ignore"):
        bad = np.argwhere(~np.isfinite(values_nHWC.astype(np.float32)))
    if len(bad):
        step, row, column, channel = bad[0].tolist()
        place = f"step {first_step + step}, " + (f"row {row}, column {column}, " if values_nHWC.shape[1:3] != (1, 1) else "")
        value = values_nHWC[step, row, column, channel]
        raise ConfigError(f"{file}: {place}channel {channel}: expected a finite number, got {value}; nothing of it is stored")
