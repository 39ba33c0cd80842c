"""The same tokens through other libraries, the best sensible call of each: zarr-python, zarrs and tensorstore on the
arrays of the store itself, HDF5 on a copy. All but zarr-python come with the optional extra `peers`.

Each is compared with a memory map in rounds of its own, over a quarter of the reads: some take thirty times as long. They
may use all cores, as they do by default.
"""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from store_data import StoredTokens
from store_reading import MEMORY_MAP, Buffers, Range, Read, loop, ranges_of
from store_table import Ratio, Reader, interleave, progress

_SHARE = 4
_FORMATS = ("int8", "float16")
_READ_ARRAYS = {"int8": ("tokens", "scale"), "float16": ("tokens",)}


def measure_peers(tokens: StoredTokens, rounds: int) -> list[Reader]:
    """Leaves threads of the libraries behind, which a process that forks afterwards would not survive."""
    tokens.read_into_page_cache()
    buffers, maps = Buffers(tokens.video_steps), tokens.memory_maps()
    readers = []
    for name, (library, read_of) in _PEERS.items():
        for number_format in _FORMATS:
            label = f"{name}, {number_format}"
            if importlib.util.find_spec(library) is None:
                readers.append(Reader(label, None, {}, "not installed"))
                continue
            progress(f"peers: {label}")
            read = read_of(tokens, number_format, buffers)
            _check(read, buffers, tokens, number_format)
            tasks = {MEMORY_MAP: buffers.read_memory_map(maps), label: read}
            readers.append(Reader(label, _stored_share(tokens, name, number_format), _ratios(tasks, tokens, rounds)))
    return readers


def _ratios(tasks: dict[str, Read], tokens: StoredTokens, rounds: int) -> dict[str, Ratio]:
    reference, label = tasks
    ratios = {}
    for pattern, ranges in ranges_of(tokens).items():
        timings = interleave({name: loop(read, _some(ranges)) for name, read in tasks.items()}, rounds)
        ratios[pattern] = timings.ratio(label, reference)
    return ratios


def _some(ranges: Sequence[Range]) -> Sequence[Range]:
    return ranges[:: _SHARE] if len(ranges) > _SHARE else ranges[:1]


def _outputs(buffers: Buffers, number_format: str) -> tuple[np.ndarray, ...]:
    return (buffers.codes_nHWC, buffers.scale_nHW) if number_format == "int8" else (buffers.half_nHWC,)


def _check(read: Callable[[int, int, int], Any], buffers: Buffers, tokens: StoredTokens, number_format: str) -> None:
    """Whatever a reader returns, or puts into the buffers, has to be what the store gives."""
    got = read(0, 0, 1)
    video = tokens.videos(number_format)[0]
    expected = video.read_codes(0, 1) if number_format == "int8" else (video.read("tokens", 0, 1),)
    arrays = [buffer[:1] for buffer in _outputs(buffers, number_format)] if got is None else got
    if not all(np.array_equal(mine, theirs) for mine, theirs in zip(expected, arrays, strict=True)):
        raise RuntimeError(f"another library reads other {number_format} tokens than the store")


def _array_folders(tokens: StoredTokens, number_format: str) -> list[list[Path]]:
    """By video: the folders of the arrays that make up its tokens."""
    return [[video.group_path / name for name in _READ_ARRAYS[number_format]] for video in tokens.videos(number_format)]


def zarr_python(tokens: StoredTokens, number_format: str, buffers: Buffers | None = None) -> Read:
    """New arrays each time: filling one's own through `out` was not faster."""
    import zarr

    arrays = [[zarr.open_array(str(path), mode="r") for path in paths] for paths in _array_folders(tokens, number_format)]
    return lambda video, start, stop: [array[start:stop] for array in arrays[video]]


def _zarrs(tokens: StoredTokens, number_format: str, buffers: Buffers) -> Read:
    import zarr
    import zarrs  # noqa: F401  (its pipeline is named below)
    from zarr.buffer.cpu import NDBuffer

    # An array keeps the pipeline that it was opened with.
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        arrays = [[zarr.open_array(str(path), mode="r") for path in paths] for paths in _array_folders(tokens, number_format)]
    outputs = _outputs(buffers, number_format)

    def read(video: int, start: int, stop: int) -> None:
        for array, out in zip(arrays[video], outputs, strict=True):
            array.get_basic_selection(slice(start, stop), out=NDBuffer.from_numpy_array(out[: stop - start]))

    return read


def _tensorstore(tokens: StoredTokens, number_format: str, buffers: Buffers) -> Read:
    import tensorstore

    arrays = [
        [
            tensorstore.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}, open=True, read=True).result()
            for path in paths
        ]
        for paths in _array_folders(tokens, number_format)
    ]
    outputs = _outputs(buffers, number_format)

    def read(video: int, start: int, stop: int) -> None:
        started = [
            tensorstore.array(out[: stop - start]).write(array[start:stop])
            for array, out in zip(arrays[video], outputs, strict=True)
        ]
        for future in started:
            future.result()

    return read


def _hdf5(tokens: StoredTokens, number_format: str, buffers: Buffers) -> Read:
    import h5py

    path = _hdf5_file(tokens, number_format)
    with h5py.File(path, "w") as file:
        for video, maps in zip(tokens.videos(number_format), tokens.memory_maps(), strict=True):
            arrays = video.read_codes() if number_format == "int8" else (maps,)
            for name, values in zip(_READ_ARRAYS[number_format], arrays, strict=True):
                file.create_dataset(f"{video.id}/{name}", data=values)
    opened = h5py.File(path, "r")
    arrays = [[opened[f"{video_id}/{name}"] for name in _READ_ARRAYS[number_format]] for video_id in tokens.video_ids]
    outputs = _outputs(buffers, number_format)

    def read(video: int, start: int, stop: int) -> None:
        for array, out in zip(arrays[video], outputs, strict=True):
            array.read_direct(out, np.s_[start:stop], np.s_[: stop - start])

    return read


def _hdf5_file(tokens: StoredTokens, number_format: str) -> Path:
    return tokens.folder / f"{number_format}.h5"


def _stored_share(tokens: StoredTokens, name: str, number_format: str) -> float:
    if name == _HDF5:
        return _hdf5_file(tokens, number_format).stat().st_size / tokens.fp16_bytes
    return tokens.stored_share(number_format)


_HDF5 = "HDF5 contiguous, no checksums (h5py)"
# Name -> the module that has to be there, and what makes its reader.
_PEERS: dict[str, tuple[str, Callable[[StoredTokens, str, Buffers], Read]]] = {
    "zarr-python": ("zarr", zarr_python),
    "zarrs, called through zarr-python": ("zarrs", _zarrs),
    "tensorstore": ("tensorstore", _tensorstore),
    _HDF5: ("h5py", _hdf5),
}
