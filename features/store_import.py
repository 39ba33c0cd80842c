"""Other people's features as a store: an .npy file of shape (T, C) or (T, H, W, C) becomes one video.

What is not known is stated as the most careful guess: each step may have seen the whole video, and a grid spans the
whole frame. Such a store is an encoding of its own, named by its family, and cannot be confused with extracted tokens.
"""

from fractions import Fraction
from pathlib import Path

import numpy as np

from features.schema import Encoding, Source, Storage, VideoMeta
from features.store import create_or_open_store
from vjepa_loc.errors import ConfigError, MissingFileError
from vjepa_loc.spacegrid import SpaceGrid

_STEPS_AT_ONCE = 64


def import_array(
    file: Path | str, store_path: Path | str, video_id: str, fps: float, frames_per_step: int, *, family: str = "imported",
    width: int | None = None, height: int | None = None, storage: Storage | None = None,
) -> bool:
    """Stores the array; False where the store has the video already. Step t stands for the frames from t *
    frames_per_step.

    `width` and `height` are displayed pixels, by default one per cell. Raises `MissingFileError`, `ConfigError` for an
    array of another shape or type, `StoreMismatchError` where the store holds other features.
    """
    file = Path(file)
    features_THWC = _load(file)
    num_steps, rows, columns, channels = features_THWC.shape
    if frames_per_step < 1 or not fps > 0:
        raise ConfigError(f"import: expected a positive fps and at least one frame per step, got {fps} and {frames_per_step}")
    encoding = Encoding(
        family=family, digest=family, channels=channels, tubelet=1, patch_px=1, input_hw=(rows, columns), resize_version=0,
        frame_step=frames_per_step, clip_frames=_STEPS_AT_ONCE, mean=(0, 0, 0), std=(1, 1, 1),
    )
    store = create_or_open_store(store_path, encoding, storage)
    if video_id in store:
        return False
    num_frames = num_steps * frames_per_step
    grid = SpaceGrid.build("stretch", width or columns, height or rows, rows, columns, patch_px=1)
    status = file.stat()
    meta = VideoMeta(
        id=video_id, source=Source(name=file.name, size=status.st_size, mtime_ns=status.st_mtime_ns, sha256=""),
        num_frames=num_frames, fps=Fraction(fps).limit_denominator(1001), times_made_up=True, width=grid.width,
        height=grid.height, grid=grid.grid, space_grid=grid.to_dict(), decoder="none", device="none",
        dtype=features_THWC.dtype.name, weights=family,
    )
    frames_T = np.arange(num_steps) * frames_per_step
    with store.writer(video_id, grid.grid, num_steps=num_steps) as writer:
        for start in range(0, num_steps, _STEPS_AT_ONCE):
            tokens_nHWC = features_THWC[start : start + _STEPS_AT_ONCE].astype(np.float32)
            n = len(tokens_nHWC)
            writer.append(tokens_nHWC, frames_T[start : start + n, None], np.zeros(n), np.full(n, num_frames - 1))
        return writer.commit(meta, np.arange(num_frames) / fps)


def _load(file: Path) -> np.ndarray:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise MissingFileError(f"there is no file {file} to import") from None
    except (ValueError, EOFError, OSError) as error:
        raise ConfigError(f"{file} is not an .npy file of numbers: {error}") from None
    if array.ndim not in (2, 4) or array.dtype.kind not in "fiu" or 0 in array.shape:
        raise ConfigError(f"{file}: expected numbers of shape (T, C) or (T, H, W, C), got {array.dtype} {array.shape}")
    return array[:, None, None, :] if array.ndim == 2 else array
