"""One committed video of a store, opened for reading.

Shapes: T steps, H x W cells, C channels, h x w the cells of a level (`tokens`: H x W, `pool2`: 2 x 2, ...), n steps of
a read.
"""

import json
import re
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from features.array_files import ArrayFiles, open_local
from features.checksum import CRC_BYTES, crc32c_hex
from features.commits import Commit
from features.compressed_shards import CompressedArray
from features.durable import ABSENT, unreadable
from features.places import Place
from features.schema import LEVELS, Storage, VideoMeta
from features.step_array import Part, ShardedArray, Verify, ZarrArray, read_whole
from features.step_values import StepArray, convert_steps, decode_steps
from features.zarr_layout import POOL_SIZES, ArraySpec, spec_of
from vjepa_loc.errors import CorruptStoreError, StoreError, UnknownNameError, VjepaLocError, nearest_name

if TYPE_CHECKING:
    from torch import Tensor

    from vjepa_loc.spacegrid import SpaceGrid
    from vjepa_loc.timegrid import TimeGrid

_INT8, _FLOAT16 = np.dtype(np.int8), np.dtype(np.float16)
_RAW_DTYPES = _FLOAT16, np.dtype(np.float32)
_STANDARD_DTYPES = (np.dtype(np.float32),)

_SHARD = re.compile(rf"({'|'.join((*LEVELS, 'scale'))})/c/")


class StoredVideo:
    """The tokens and the description of one video; made by `Store.video`.

    `meta` is its `VideoMeta`. Opening checks that every file of the commit is there in its size; contents are checked
    when they are touched (`verify`, see `open_store`). All reading raises `CorruptStoreError` naming video, array and
    file.
    """

    def __init__(self, place: Place, commit: Commit, verify: Verify = "first"):
        self.id = commit.video_id
        self.commit = commit
        self.place = place
        self._group = f"tokens.zarr/{commit.path}"
        self._verify = verify
        self._stamps = commit.generation_files
        self._arrays: dict[str, StepArray] = {}
        self._coded: tuple[StepArray, StepArray] | None = None
        self._has_small_files = False
        self._check_sizes()
        attributes = self._metadata("zarr.json").get("attributes", {})
        try:
            # A later version may say more than this one knows.
            known = {name: value for name, value in attributes.items() if name in VideoMeta.model_fields}
            self.meta = VideoMeta.from_dict(known)
        except VjepaLocError as error:
            file = self.where("zarr.json")
            raise CorruptStoreError(f"video {self.id!r}: the attributes in {file} are wrong: {error}") from None

    def __repr__(self) -> str:
        height, width = self.grid
        return f"StoredVideo({self.id!r}, {self.num_frames} frames, {self.num_steps} steps of {height}x{width})"

    @property
    def group_path(self) -> Path:
        """The folder of the video's files, in a store that is a folder."""
        return Path(self.place.path) / self._group

    def where(self, file: str) -> str:
        """The path or URL of one of the video's files."""
        return self.place.where(f"{self._group}/{file}")

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

    def read(
        self, level: str = "tokens", start: int = 0, stop: int | None = None, out: Any = None, *, part: Part | None = None,
        standard: tuple[Any, Any] | None = None,
    ) -> Any:
        """Steps start..stop of a level in raw units: (n, h, w, C) float16, or `out` filled and returned.

        `out` is a numpy array or CPU tensor of that shape, float16 or float32. `part` is a pair of slices, the rows and
        columns of the level to read; h and w are then theirs. With `standard`, a pair (mean_C, std_C), the values are
        `(x - mean) / std` and float32. Raises `UnknownNameError` for a level that is not stored, `IndexError` for steps
        outside the video, `ValueError` for an `out` or `standard` that does not fit.
        """
        array = self._arrays.get(level) or self._level(level)
        shape = array.spec.shape
        if stop is None:
            stop = shape[0]
        if not 0 <= start <= stop <= shape[0]:
            raise self._outside(start, stop)
        shape = (stop - start, *(shape[1:] if part is None else _part_shape(shape, part)))
        dtypes = _RAW_DTYPES if standard is None else _STANDARD_DTYPES
        values = np.empty(shape, dtypes[0]) if out is None else out
        if type(values) is not np.ndarray:
            values = np.asarray(values)
        if values.shape != shape or values.dtype not in dtypes:
            raise _wrong_out(values, shape, dtypes)
        if array.spec.dtype == "int8":
            decode_steps(self._coded or self._open_coded(), self._channel_level, start, stop, values, part, standard)
        elif values.dtype == np.float16:
            array.read(start, stop, values, part)
        else:
            convert_steps(array, start, stop, values, part, standard)
        return values if out is None else out

    def read_codes(
        self, start: int = 0, stop: int | None = None, out: Any = None, *, part: Part | None = None
    ) -> tuple[Any, Any]:
        """What is stored: (codes_THWC int8, scale_THW float16); `mean` and `std` decode them.

        `out` is a pair of numpy arrays or CPU tensors, `part` as for `read`. Raises as `read`, and `StoreError` where
        tokens are not int8.
        """
        codes, scale = self._coded or self._open_coded()
        shape = codes.spec.shape
        if stop is None:
            stop = shape[0]
        if not 0 <= start <= stop <= shape[0]:
            raise self._outside(start, stop)
        shape = (stop - start, *(shape[1:] if part is None else _part_shape(shape, part)))
        if out is None:
            out = np.empty(shape, np.int8), np.empty(shape[:3], np.float16)
        codes_THWC, scale_THW = out
        # As an array already nothing has to be asked: this is called for single steps as well.
        if type(codes_THWC) is not np.ndarray or type(scale_THW) is not np.ndarray:
            codes_THWC, scale_THW = np.asarray(codes_THWC), np.asarray(scale_THW)
        if codes_THWC.shape != shape or codes_THWC.dtype != _INT8:
            raise _wrong_out(codes_THWC, shape, (_INT8,))
        if scale_THW.shape != shape[:3] or scale_THW.dtype != _FLOAT16:
            raise _wrong_out(scale_THW, shape[:3], (_FLOAT16,))
        codes.read(start, stop, codes_THWC, part)
        scale.read(start, stop, scale_THW, part)
        return out

    def will_read(self, level: str, start: int, stop: int) -> None:
        """Asks the system to fetch steps start..stop of a level from the disk now, so that a read a little later does not
        wait; returns at once. Raises as `read`.
        """
        array = self._arrays.get(level) or self._level(level)
        if not 0 <= start <= stop <= self.num_steps:
            raise self._outside(start, stop)
        array.will_read(start, stop)
        if array.spec.dtype == "int8":
            self._array("scale").will_read(start, stop)

    def stored_checksums(self, file: str) -> bytes:
        """The checksums of the chunks in one of the video's data files (`tokens/c/0/0/0/0`), in the order of the
        chunks.
        """
        name, _, chunk = file.partition("/")
        array = self._array(name) if name in (*LEVELS, "scale") else None
        if array is None:
            return self._files(name).read_bytes(chunk)[-CRC_BYTES:]
        return array.checksums(int(chunk.split("/")[1]))

    @cached_property
    def _channel_level(self) -> "tuple[Tensor, Tensor]":
        import torch

        return torch.tensor(self.mean), torch.tensor(self.std)

    def _outside(self, start: int, stop: int) -> IndexError:
        return IndexError(f"video {self.id!r}: expected steps within 0..{self.num_steps}, got {start}..{stop}")

    def _level(self, level: str) -> StepArray:
        if level not in self.levels:
            known, nearest = ", ".join(self.levels), nearest_name(level, self.levels)
            raise UnknownNameError(f"video {self.id!r}: expected a level of {known}, got {level!r}.{nearest}")
        return self._array(level)

    def _open_coded(self) -> tuple[StepArray, StepArray]:
        if "tokens" not in self.levels or self.storage.number_format != "int8":
            stored = f"{', '.join(self.levels)} as {self.storage.number_format}"
            raise StoreError(f"video {self.id!r} has no int8 codes: it stores {stored}")
        self._coded = self._array("tokens"), self._array("scale")
        return self._coded

    def _array(self, name: str) -> StepArray:
        if name not in self._arrays:
            files, spec = self._files(name), spec_of(self._metadata(f"{name}/zarr.json"))
            array = _opened(files, spec, self._verify)
            if array.spec.shape[0] != self.num_steps:
                raise files.error("zarr.json", f"expected {self.num_steps} steps, got shape {array.spec.shape}")
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
        if not self._has_small_files:
            # From object storage side by side: one after the other they would take longer than a shard.
            self.place.local_folder(self._group, {file: stamp for file, stamp in self._stamps.items() if not _SHARD.match(file)})
            self._has_small_files = True
        return ArrayFiles(self.id, name, self.place, self._group, self._stamps)

    def _metadata(self, file: str) -> dict[str, Any]:
        """A `zarr.json` of this video, which has to be exactly the one that was committed."""
        where, stamp = self.where(file), self._stamps.get(file)
        if stamp is None:
            raise CorruptStoreError(f"video {self.id!r}: {where} is a file that the commit does not name")
        try:
            raw = open_local(self.place, f"{self._group}/{file}", stamp, Path.read_bytes)
        except StoreError:
            raise
        except OSError as error:
            if error.errno not in ABSENT:
                raise unreadable(f"video {self.id!r}", where, error) from None
            raise CorruptStoreError(f"video {self.id!r}: unreadable file {where} ({error.strerror})") from None
        if crc32c_hex(raw) != stamp.crc32c:
            done = self.place.forget(f"{self._group}/{file}")
            raise CorruptStoreError(
                f"video {self.id!r}: {where} has crc32c {crc32c_hex(raw)}, its commit says {stamp.crc32c}{done and f'; {done}'}"
            )
        return json.loads(raw)

    def _check_sizes(self) -> None:
        names = {f"tokens.zarr/{name}": stamp.size for name, stamp in self.commit.files.items()}
        try:
            found = self.place.sizes(names)
        except StoreError:
            raise
        except OSError as error:
            raise unreadable(f"video {self.id!r}", self.where(""), error) from None
        for name, size in names.items():
            if found.get(name) != size:
                got = f"{found[name]}" if name in found else "no such file"
                raise CorruptStoreError(
                    f"video {self.id!r}: {self.place.where(name)}: expected {size} bytes, got {got}; "
                    "`cli.py store verify` lists what is wrong, `cli.py store repair` extracts it again"
                )


def _opened(files: ArrayFiles, spec: ArraySpec | None, verify: Verify) -> StepArray:
    if spec is None or spec.shard_steps is None:
        return ZarrArray(files)
    return ShardedArray(files, spec, verify) if spec.compression == "none" else CompressedArray(files, spec, verify)


def _part_shape(shape: tuple[int, ...], part: Part) -> tuple[int, ...]:
    """(h, w, C) of a part of steps (n, H, W, C)."""
    rows, columns = part
    return len(range(*rows.indices(shape[1]))), len(range(*columns.indices(shape[2]))), shape[3]


def _wrong_out(values: np.ndarray, shape: tuple[int, ...], dtypes: tuple[np.dtype, ...]) -> ValueError:
    return ValueError(
        f"out: expected a {shape} {' or '.join(map(str, dtypes))} array, got {values.shape} {values.dtype}"
    )
