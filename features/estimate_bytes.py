"""How many bytes a video takes in a store, before it is extracted: the sizes of the files that the writer will make.

The arrays are counted from the same specifications that the writer lays them out by, so they are exact where the length is;
compressed ones are counted as if they were not, which is the most that they take. What a group says of its video (names,
hashes, versions) is taken from an example of the usual length.
"""

from functools import lru_cache
from typing import Any

from features.clips import expected_steps
from features.schema import Encoding, Storage
from features.zarr_layout import array_metadata, group_metadata, metadata_bytes, plain_specs, step_specs
from vjepa_loc.dataset import Video
from vjepa_loc.errors import ConfigError
from vjepa_loc.spacegrid import SpaceGrid

# Of a frame in a dataset that does not state its size: only `fit = "aspect"` depends on it.
_USUAL_WIDTH_HEIGHT = 1280, 720
# An entry of a commit: a file's name of about 60 characters, its size and two checksums.
_COMMIT_ENTRY_BYTES = 90


def grid_of(encoding: Encoding, video: Video) -> tuple[int, int]:
    """(H, W) cells of a video; where they depend on a size that the dataset does not state, those of a 16:9 video."""
    size = (video.width, video.height) if video.width and video.height else _USUAL_WIDTH_HEIGHT
    return _grid(encoding.fit, *size, *encoding.input_hw, encoding.patch_px)


@lru_cache(maxsize=4096)
def _grid(fit: str, width: int, height: int, input_height: int, input_width: int, patch_px: int) -> tuple[int, int]:
    if fit in ("stretch", "letterbox", "crop"):
        return input_height // patch_px, input_width // patch_px
    return SpaceGrid.build(fit, width, height, input_height, input_width, patch_px).grid


def expected_bytes(encoding: Encoding, storage: Storage, video: Video) -> int | None:
    """Bytes of the video's files once it is stored; None where the dataset does not state its length."""
    num_steps = expected_steps(encoding, video.num_frames, video.fps)
    if num_steps is None or video.num_frames is None:
        return None
    return stored_bytes(encoding, storage, num_steps, video.num_frames, grid_of(encoding, video))


def stored_bytes(encoding: Encoding, storage: Storage, num_steps: int, num_frames: int, grid_HW: tuple[int, int]) -> int:
    """The bytes of `num_steps` steps made of `num_frames` frames: data, metadata and the video's part of the commit record."""
    if num_steps < 1 or num_frames < 1:
        raise ConfigError(f"expected at least one step of one frame, got {num_steps} of {num_frames}")
    steps = step_specs(storage, num_steps, grid_HW, encoding.channels)
    plain = plain_specs(num_steps, encoding.tubelet, encoding.channels, num_frames)
    data = sum(spec.total_size for spec in steps.values()) + sum(spec.shard_size(0) for spec in plain.values())
    specs = [*steps.values(), *plain.values()]
    num_files = sum(spec.num_shards for spec in specs) + len(specs) + 4
    return data + _metadata_bytes(encoding, storage, grid_HW) + num_files * _COMMIT_ENTRY_BYTES


def bytes_per_step(encoding: Encoding, storage: Storage, grid_HW: tuple[int, int]) -> float:
    """What one more step of a long video adds."""
    many = storage.shard_steps * 64
    return stored_bytes(encoding, storage, many, many * encoding.tubelet, grid_HW) / many


@lru_cache(maxsize=256)
def _metadata_bytes(encoding: Encoding, storage: Storage, grid_HW: tuple[int, int]) -> int:
    # Only the digits of a few numbers depend on the length.
    specs = step_specs(storage, 1000, grid_HW, encoding.channels) | plain_specs(1000, encoding.tubelet, encoding.channels, 1000)
    arrays = sum(len(metadata_bytes(array_metadata(spec))) for spec in specs.values())
    return arrays + len(metadata_bytes(group_metadata(_example_attributes(encoding, grid_HW))))


def _example_attributes(encoding: Encoding, grid_HW: tuple[int, int]) -> dict[str, Any]:
    numbers = dict.fromkeys(("width", "height", "resize_width", "resize_height", "offset_x", "offset_y", "input_width"), 1000)
    return {
        "id": "a-video-of-a-dataset",
        "source": {"name": "a-video-of-a-dataset.mp4", "size": 10**8, "mtime_ns": 10**18, "sha256": "0" * 64},
        "num_frames": 10000, "fps": "30000/1001", "fps_nominal": False, "times_made_up": False, "width": 1000, "height": 1000,
        "rotation": 0, "grid": list(grid_HW),
        "space_grid": {"fit": encoding.fit, **numbers, "input_height": 1000, "patch_px": encoding.patch_px},
        "decoder": "pyav", "versions": dict.fromkeys(("av", "libavcodec", "libavformat", "libswscale", "torch"), "00.00.000"),
        "device": "cpu", "dtype": "float32", "damage": None, "weights": "owner/name-of-weights", "revision": None,
    }
