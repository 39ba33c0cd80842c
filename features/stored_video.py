"""One committed video of a store, opened for reading.

Shapes: T steps, H x W cells, C channels, h x w the cells of a level (`tokens`: H x W, `pool2`: 2 x 2, ...), n steps of
a read.
"""

import json
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from features.commits import Commit
from features.durable import crc32c_hex
from features.schema import LEVELS, Storage, VideoMeta
from features.step_array import ArrayFiles, ShardedArray, Verify, ZarrArray, read_whole
from features.zarr_layout import CRC_BYTES, POOL_SIZES, spec_of
from vjepa_loc.errors import CorruptStoreError, StoreError, UnknownNameError, VjepaLocError, nearest_name

if TYPE_CHECKING:
    from torch import Tensor

    from vjepa_loc.spacegrid import SpaceGrid
    from vjepa_loc.timegrid import TimeGrid

# Steps that are decoded from int8 at a time: enough to copy in one go, few enough to stay in the cache.
_BLOCK_STEPS = 8
_RAW_DTYPES = np.dtype(np.float16), np.dtype(np.float32)
_CODE_DTYPES = (np.dtype(np.int8),)
_SCALE_DTYPES = (np.dtype(np.float16),)


class StoredVideo:
    """The tokens and the description of one video; made by `Store.video`.

    `meta` is its `VideoMeta`. Opening checks that every file of the commit is there in its size; contents are checked
    when they are touched (`verify`, see `open_store`). All reading raises `CorruptStoreError` naming video, array and
    file.
    """

    def __init__(self, store_path: Path, commit: Commit, verify: Verify = "first"):
        self.id = commit.video_id
        self.commit = commit
        self._zarr_path = store_path / "tokens.zarr"
        self.group_path = self._zarr_path / commit.path
        self._verify = verify
        self._stamps = commit.generation_files
        self._arrays: dict[str, ShardedArray | ZarrArray] = {}
        self._check_sizes()
        attributes = self._metadata("zarr.json").get("attributes", {})
        try:
            # A later version may say more than this one knows.
            known = {name: value for name, value in attributes.items() if name in VideoMeta.model_fields}
            self.meta = VideoMeta.from_dict(known)
        except VjepaLocError as error:
            file = self.group_path / "zarr.json"
            raise CorruptStoreError(f"video {self.id!r}: the attributes in {file} are wrong: {error}") from None

    def __repr__(self) -> str:
        height, width = self.grid
        return f"StoredVideo({self.id!r}, {self.num_frames} frames, {self.num_steps} steps of {height}x{width})"

    @property
    def storage(self) -> Storage:
        return self.commit.storage

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels that are stored, of "tokens", "pool1", "pool2", "pool4"."""
        return self.commit.storage.levels

    @property
    def num_steps(self) -> int:
        return self.commit.summary.steps

    @property
    def num_frames(self) -> int:
        return self.meta.num_frames

    @property
    def width(self) -> int:
        """Displayed pixels."""
        return self.meta.width

    @property
    def height(self) -> int:
        """Displayed pixels."""
        return self.meta.height

    @property
    def fps(self) -> Fraction:
        return self.meta.fps

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W) cells."""
        return self.meta.grid

    @property
    def damaged(self) -> bool:
        """Whether decoding lost frames; `meta.damage` says which."""
        return self.meta.damaged

    @cached_property
    def frames(self) -> np.ndarray:
        """(T, tubelet) int32: the frames each step was made from."""
        return self._whole("frames")

    @cached_property
    def first_frame_seen(self) -> np.ndarray:
        """(T,) int32: the first frame of the clip each step comes from."""
        return self._whole("first_frame_seen")

    @cached_property
    def last_frame_seen(self) -> np.ndarray:
        """(T,) int32: the last frame of the clip each step comes from."""
        return self._whole("last_frame_seen")

    @cached_property
    def frame_time_s(self) -> np.ndarray:
        """(num_frames,) float64: presentation times, 0 at the first frame."""
        return self._whole("frame_time_s")

    @cached_property
    def mean(self) -> np.ndarray:
        """(C,) float32, with `std` the channel level of the int8 code: token = code * scale * std + mean."""
        return self._whole("mean")

    @cached_property
    def std(self) -> np.ndarray:
        """(C,) float32."""
        return self._whole("std")

    @cached_property
    def time_grid(self) -> "TimeGrid":
        from vjepa_loc.timegrid import TimeGrid

        return TimeGrid(self.frames, self.num_frames)

    @cached_property
    def space_grid(self) -> "SpaceGrid":
        from vjepa_loc.spacegrid import SpaceGrid

        return SpaceGrid.from_dict(self.meta.space_grid)

    def valid(self, level: str = "tokens") -> np.ndarray:
        """(h, w) bool: the cells of a level that show the video; False in letterbox bars."""
        from features.pyramid import pool_valid

        valid_HW = self.space_grid.valid_HW
        return valid_HW if level == "tokens" else pool_valid(valid_HW, POOL_SIZES[level])

    def shape(self, level: str = "tokens") -> tuple[int, int, int, int]:
        """(T, h, w, C) of a level."""
        return self._array(level).spec.shape

    def read(self, level: str = "tokens", start: int = 0, stop: int | None = None, out: Any = None) -> Any:
        """Steps start..stop of a level in raw units: (n, h, w, C) float16, or `out` filled and returned.

        `out` is a numpy array or CPU tensor of that shape, float16 or float32. Raises `UnknownNameError` for a level
        that is not stored, `IndexError` for steps outside the video, `ValueError` for an `out` that does not fit.
        """
        if level not in self.levels:
            known, nearest = ", ".join(self.levels), nearest_name(level, self.levels)
            raise UnknownNameError(f"video {self.id!r}: expected a level of {known}, got {level!r}.{nearest}")
        array = self._array(level)
        start, stop = self._checked_range(start, stop)
        shape = (stop - start, *array.spec.shape[1:])
        values = np.empty(shape, np.float16) if out is None else self._checked_out(out, shape, _RAW_DTYPES)
        if array.spec.dtype == "int8":
            self._decode(start, stop, values)
        elif values.dtype == np.float16 and values.flags.c_contiguous:
            array.read(start, stop, values)
        else:
            self._convert(array, start, stop, values)
        return values if out is None else out

    def read_codes(self, start: int = 0, stop: int | None = None, out: Any = None) -> tuple[Any, Any]:
        """What is stored: (codes_THWC int8, scale_THW float16); `mean` and `std` decode them.

        `out` is a pair of C-contiguous numpy arrays or CPU tensors. Raises as `read`, and `StoreError` where tokens are
        not int8.
        """
        if "tokens" not in self.levels or self.storage.number_format != "int8":
            stored = f"{', '.join(self.levels)} as {self.storage.number_format}"
            raise StoreError(f"video {self.id!r} has no int8 codes: it stores {stored}")
        start, stop = self._checked_range(start, stop)
        codes, scale = self._array("tokens"), self._array("scale")
        codes_shape, scale_shape = (stop - start, *codes.spec.shape[1:]), (stop - start, *scale.spec.shape[1:])
        if out is None:
            out = np.empty(codes_shape, np.int8), np.empty(scale_shape, np.float16)
        codes_THWC = self._checked_out(out[0], codes_shape, _CODE_DTYPES, contiguous=True)
        scale_THW = self._checked_out(out[1], scale_shape, _SCALE_DTYPES, contiguous=True)
        codes.read(start, stop, codes_THWC)
        scale.read(start, stop, scale_THW)
        return out[0], out[1]

    def stored_checksums(self, file: str) -> bytes:
        """The checksums of the chunks in one of the video's data files (`tokens/c/0/0/0/0`), in the order of the
        chunks.
        """
        name, _, chunk = file.partition("/")
        array = self._array(name) if name in (*LEVELS, "scale") else None
        if array is None:
            return self._files(name).read_bytes(chunk)[-CRC_BYTES:]
        return array.checksums(int(chunk.split("/")[1]))

    def _decode(self, start: int, stop: int, values: np.ndarray) -> None:
        import torch

        from features.quantise import dequantise

        mean_C, std_C = self._channel_level
        block = min(_BLOCK_STEPS, max(stop - start, 1))
        codes_THWC = np.empty((block, *values.shape[1:]), np.int8)
        scale_THW = np.empty((block, *values.shape[1:3]), np.float16)
        for first in range(start, stop, block):
            count = min(block, stop - first)
            self.read_codes(first, first + count, (codes_THWC[:count], scale_THW[:count]))
            dequantise(
                torch.from_numpy(codes_THWC[:count]), torch.from_numpy(scale_THW[:count]), mean_C, std_C,
                torch.from_numpy(values[first - start : first - start + count]),
            )

    @cached_property
    def _channel_level(self) -> "tuple[Tensor, Tensor]":
        import torch

        return torch.tensor(self.mean), torch.tensor(self.std)

    def _convert(self, array: ShardedArray | ZarrArray, start: int, stop: int, values: np.ndarray) -> None:
        import torch

        stored = np.empty(values.shape, np.float16)
        array.read(start, stop, stored)
        torch.from_numpy(values).copy_(torch.from_numpy(stored))

    def _checked_range(self, start: int, stop: int | None) -> tuple[int, int]:
        stop = self.num_steps if stop is None else stop
        if not 0 <= start <= stop <= self.num_steps:
            raise IndexError(f"video {self.id!r}: expected steps within 0..{self.num_steps}, got {start}..{stop}")
        return int(start), int(stop)

    @staticmethod
    def _checked_out(
        out: Any, shape: tuple[int, ...], dtypes: tuple[np.dtype, ...], contiguous: bool = False
    ) -> np.ndarray:
        values = np.asarray(out)
        if values.shape != shape or values.dtype not in dtypes or (contiguous and not values.flags.c_contiguous):
            expected = f"{'C-contiguous ' if contiguous else ''}{shape} {' or '.join(map(str, dtypes))}"
            raise ValueError(f"out: expected a {expected} array, got {values.shape} {values.dtype}")
        return values

    def _array(self, name: str) -> ShardedArray | ZarrArray:
        if name not in self._arrays:
            files, spec = self._files(name), spec_of(self._metadata(f"{name}/zarr.json"))
            sharded = spec is not None and spec.shard_steps is not None
            array = ShardedArray(files, spec, self._verify) if sharded else ZarrArray(files)
            if array.spec.shape[0] != self.num_steps:
                raise files.error(files.folder / "zarr.json", f"expected {self.num_steps} steps, got shape {array.spec.shape}")
            self._arrays[name] = array
        return self._arrays[name]

    def _whole(self, name: str) -> np.ndarray:
        files, spec = self._files(name), spec_of(self._metadata(f"{name}/zarr.json"))
        if spec is not None and spec.shard_steps is None:
            return read_whole(files, spec)
        array = ZarrArray(files)
        values = np.empty(array.spec.shape, array.spec.dtype)
        array.read(0, len(values), values)
        return values

    def _files(self, name: str) -> ArrayFiles:
        return ArrayFiles(self.id, name, self.group_path / name, self._stamps)

    def _metadata(self, file: str) -> dict[str, Any]:
        """A `zarr.json` of this video, which has to be exactly the one that was committed."""
        path = self.group_path / file
        stamp = self._stamps.get(file)
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise CorruptStoreError(f"video {self.id!r}: unreadable file {path} ({error.strerror})") from None
        if stamp is None or crc32c_hex(raw) != stamp.crc32c:
            expected = stamp.crc32c if stamp else "no such file"
            raise CorruptStoreError(f"video {self.id!r}: {path} has crc32c {crc32c_hex(raw)}, its commit says {expected}")
        return json.loads(raw)

    def _check_sizes(self) -> None:
        for name, stamp in self.commit.files.items():
            path = self._zarr_path / name
            try:
                size = path.stat().st_size
            except OSError as error:
                size = error.strerror
            if size != stamp.size:
                raise CorruptStoreError(
                    f"video {self.id!r}: {path}: expected {stamp.size} bytes, got {size}; "
                    "`cli.py store verify` lists what is wrong, `cli.py store repair` extracts it again"
                )
