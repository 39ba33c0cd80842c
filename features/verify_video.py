"""One committed video, checked: every file against the commit, then what the arrays say against each other.

A shard is read from the disk once: its crc32c by plain reading, which on a broken disk gives an error where a mapping would
kill the process, and right after it its steps, while they are in the page cache. Memory does not grow with the video.

Shapes: n steps of a block, N cells of the grid (H x W), P cells of all pools, C channels.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from features.commits import Commit, FileStamp
from features.checksum import crc32c, crc32c_hex
from features.places.local import LocalPlace
from features.stored_video import StoredVideo
from features.zarr_layout import POOL_SIZES
from vjepa_loc.errors import CorruptStoreError, VjepaLocError

# A file that is wrong, relative to the store, and what is wrong with it.
Finding = tuple[str, str]

_READ_BYTES = 1 << 20
_BLOCK_STEPS = 4
_STEP_FILE = re.compile(r"(tokens|scale|pool1|pool2|pool4)/c/(\d+)(/\d+)*")
# Half a code is the quantiser's error; float32 arithmetic and the 127.4 of its scale stay within this factor.
CODE_SLACK = 1.02
FLOAT16_EPS = 2.0**-11
# The smallest float16 that is not 0 is 2^-24; anything nearer to 0 is rounded to a multiple of it.
FLOAT16_TINY = 2.0**-25
# Sums of float32 products over the cells of a grid.
_ARITHMETIC_EPS = 1e-5
_MAX_CODE = 127


def group_files(commit: Commit) -> dict[str, FileStamp]:
    """The stamps of the `zarr.json` above a video, by name below `tokens.zarr`: the same bytes in every store."""
    return {name: stamp for name, stamp in commit.files.items() if not name.startswith(f"{commit.path}/")}


def wrong_bytes(path: Path, stamp: FileStamp) -> str:
    """How a file differs from what was committed, "" where it does not; reads it once."""
    if what := _wrong_size(path, stamp):
        return what
    try:
        crc = _crc32c_of(path)
    except OSError as error:
        return f"unreadable ({error.strerror})"
    return "" if crc == stamp.crc32c else f"expected crc32c {stamp.crc32c}, got {crc}"


def wrong_video(store_path: Path, commit: Commit) -> Iterator[Finding]:
    """Everything that is wrong with the files of a video's generation and with what they say."""
    group, stamps = f"tokens.zarr/{commit.path}", commit.generation_files
    shards: defaultdict[int, list[str]] = defaultdict(list)
    for name in stamps:
        if match := _STEP_FILE.fullmatch(name):
            shards[int(match[2])].append(name)
    in_shards = {name for names in shards.values() for name in names}

    def wrong_files(names: list[str]) -> list[Finding]:
        found = ((f"{group}/{name}", wrong_bytes(store_path / group / name, stamps[name])) for name in names)
        return [(file, what) for file, what in found if what]

    yield from _stray_files(store_path, commit)
    wrong = wrong_files([name for name in stamps if name not in in_shards])
    yield from wrong
    levels = None
    if not wrong:
        try:
            video = StoredVideo(LocalPlace(store_path), commit, verify="always")
            yield from _wrong_description(video, group)
            levels = _Levels(video)
        except (VjepaLocError, ValueError) as error:
            # Files of another size have lines of their own.
            if not any(_wrong_size(store_path / "tokens.zarr" / name, stamp) for name, stamp in commit.files.items()):
                yield group, str(error)
    size = commit.storage.shard_steps
    for shard in sorted(shards.keys() | set(range(-(-commit.summary.steps // size)))):
        wrong = wrong_files(shards[shard])
        yield from wrong
        if levels is not None and not wrong:
            yield from ((f"{group}/{name}", what) for name, what in _exchanged(video, shards[shard]))
            yield from ((f"{group}/{name}", what) for name, what in levels.check(shard * size, (shard + 1) * size))
    if levels is not None:
        yield from ((f"{group}/{name}", what) for name, what in levels.summary())


def exchanged_files(video: StoredVideo) -> Iterator[Finding]:
    """Files whose chunks are whole but not those that were committed: exchanged, or of another generation. Names are
    relative to the generation.
    """
    yield from _exchanged(video, list(video.commit.generation_files))


def _exchanged(video: StoredVideo, names: list[str]) -> Iterator[Finding]:
    for name in names:
        stamp = video.commit.generation_files[name]
        try:
            if stamp.chunks and (found := crc32c_hex(video.stored_checksums(name))) != stamp.chunks:
                yield name, f"expected chunks whose checksums have the crc32c {stamp.chunks}, got {found}"
        except VjepaLocError as error:
            yield name, str(error)


def _wrong_size(path: Path, stamp: FileStamp) -> str:
    try:
        size = path.stat().st_size
    except OSError as error:
        return f"unreadable ({error.strerror})"
    return "" if size == stamp.size else f"expected {stamp.size} bytes, got {size}"


def _crc32c_of(path: Path) -> str:
    crc, buffer = 0, memoryview(bytearray(_READ_BYTES))
    with open(path, "rb", buffering=0) as file:
        while num_bytes := file.readinto(buffer):
            crc = crc32c(buffer[:num_bytes], crc)
    return f"{crc:08x}"


def _stray_files(store_path: Path, commit: Commit) -> Iterator[Finding]:
    """Files in a video's folders that no commit names; other generations are the business of `gc`."""
    generation = store_path / "tokens.zarr" / commit.path
    committed = {generation / name for name in commit.generation_files} | {generation.parent / "zarr.json"}
    for path in sorted([*generation.parent.glob("*"), *generation.rglob("*")]):
        if not path.is_dir() and path not in committed:
            yield str(path.relative_to(store_path)), "a file that the commit does not name"


def _wrong_description(video: StoredVideo, group: str) -> Iterator[Finding]:
    """What the attributes and the arrays over time say that cannot be; raises `CorruptStoreError` where they cannot be read."""
    plain = [name for name in video.commit.generation_files if not _STEP_FILE.fullmatch(name)]
    yield from ((f"{group}/{name}", what) for name, what in _exchanged(video, plain))
    commit, summary = video.commit, video.commit.summary
    expected = (commit.video_id, summary.num_frames, summary.width, summary.height, summary.grid, summary.damaged)
    found = (video.meta.id, video.num_frames, video.width, video.height, video.grid, video.damaged)
    if found != expected:
        yield f"{group}/zarr.json", f"the commit describes {expected}, the attributes {found}"
    if not (video.std > 0).all():
        yield f"{group}/std", "a channel without a positive std"
    for level in video.levels:
        grid = video.grid if level == "tokens" else (POOL_SIZES[level],) * 2
        if video.shape(level) != (expected_shape := (summary.steps, *grid, len(video.mean))):
            raise CorruptStoreError(f"video {video.id!r}, array {level!r}: expected shape {expected_shape}, got {video.shape(level)}")
    times = video.frame_time_s
    if times.shape != (video.num_frames,) or times[0] != 0 or (np.diff(times) < 0).any():
        yield f"{group}/frame_time_s", f"expected {video.num_frames} times that start at 0 and never decrease"
    try:
        num_steps = video.time_grid.num_steps
    except ValueError as error:
        yield f"{group}/frames", str(error)
        return
    first_seen, last_seen, frames = video.first_frame_seen, video.last_frame_seen, video.frames
    if not (num_steps == len(first_seen) == len(last_seen) == video.num_steps):
        yield f"{group}/frames", f"expected {video.num_steps} steps in frames, first_frame_seen and last_frame_seen"
    elif (first_seen > frames[:, 0]).any() or (last_seen < frames[:, -1]).any():
        yield f"{group}/first_frame_seen", "a clip that did not see the frames of its step"


class _Levels:
    """Reads every step of every level once: holes, numbers that are not finite, and pools that are not the tokens' mean."""

    def __init__(self, video: StoredVideo):
        from features.pyramid import pool_weights

        self._video = video
        self._pools = [level for level in video.levels if level in POOL_SIZES]
        self._steps_wrong: dict[str, list[int]] = {level: [] for level in self._pools}
        weights = [pool_weights(video.space_grid.valid_HW, POOL_SIZES[level]) for level in self._pools]
        # One product for all pools looks at the tokens once.
        self._weights_PN = np.concatenate(weights).astype(np.float32) if weights else None
        self._ends = np.cumsum([len(weights_pN) for weights_pN in weights])[:-1]

    def check(self, start: int, stop: int) -> Iterator[Finding]:
        """Levels that cannot be read in these steps; what is wrong between levels is kept for `summary`."""
        video = self._video
        unreadable: set[str] = set()
        for first in range(start, min(stop, video.num_steps), _BLOCK_STEPS):
            last = min(first + _BLOCK_STEPS, stop, video.num_steps)
            pooled = {}
            for level in video.levels:
                if level in unreadable:
                    continue
                try:
                    if level == "tokens":
                        expected = self._expected_pools(first, last)
                    else:
                        pooled[level] = video.read(level, first, last)
                except (VjepaLocError, ValueError) as error:
                    unreadable.add(level)
                    yield level, str(error)
            if "tokens" in video.levels and "tokens" not in unreadable and pooled:
                self._compare(first, pooled, *expected)

    def summary(self) -> Iterator[Finding]:
        for level, steps in self._steps_wrong.items():
            if steps:
                yield level, f"not the mean of the tokens in {len(steps)} steps, the first is {steps[0]}"

    def _compare(self, first: int, pooled: dict[str, np.ndarray], means_nPC: np.ndarray, bounds_nPC: np.ndarray) -> None:
        parts = zip(self._pools, np.split(means_nPC, self._ends, 1), np.split(bounds_nPC, self._ends, 1), strict=True)
        for level, mean_npC, bound_npC in parts:
            if level in pooled:
                stored_npC = pooled[level].reshape(mean_npC.shape).astype(np.float32)
                allowed_npC = bound_npC + FLOAT16_EPS * np.abs(stored_npC) + FLOAT16_TINY
                wrong_n = (np.abs(stored_npC - mean_npC) > allowed_npC).any((1, 2))
                self._steps_wrong[level] += (first + np.flatnonzero(wrong_n)).tolist()

    def _expected_pools(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Means of the stored tokens over the cells of all pools, (n, P, C), and how far the encoder's may lie from them."""
        video = self._video
        if video.storage.number_format != "int8":
            tokens_nNC = video.read("tokens", start, stop).astype(np.float32).reshape(stop - start, -1, video.shape("tokens")[-1])
            return self._expected_of_float16(tokens_nNC)
        codes_nHWC, scale_nHW = video.read_codes(start, stop)
        if self._weights_PN is None:
            return np.empty(0), np.empty(0)
        codes_nNC = codes_nHWC.reshape(stop - start, -1, codes_nHWC.shape[-1]).astype(np.float32)
        scale_n1N = scale_nHW.reshape(stop - start, 1, -1).astype(np.float32)
        means_nPC = (self._weights_PN * scale_n1N) @ codes_nNC * video.std + video.mean
        step_of_code_nP1 = (self._weights_PN * scale_n1N).sum(-1, keepdims=True)
        size_C = _MAX_CODE * scale_n1N.max() * video.std + np.abs(video.mean)
        # Every rounding to int8 on the way to these codes had about their scale.
        num_roundings = 1 + video.meta.earlier_formats.count("int8")
        bounds_nPC = num_roundings * 0.5 * CODE_SLACK * step_of_code_nP1 * video.std + _ARITHMETIC_EPS * size_C
        return means_nPC, bounds_nPC + video.meta.earlier_formats.count("float16") * FLOAT16_EPS * size_C

    def _expected_of_float16(self, tokens_nNC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        video, weights_PN = self._video, self._weights_PN
        if weights_PN is None:
            return np.empty(0), np.empty(0)
        sizes_nNC = np.abs(tokens_nNC)
        num_roundings = 1 + video.meta.earlier_formats.count("float16")
        bounds_nPC = num_roundings * FLOAT16_EPS * (weights_PN @ sizes_nNC) + _ARITHMETIC_EPS * sizes_nNC.max() + FLOAT16_TINY
        if num_codes := video.meta.earlier_formats.count("int8"):
            # A token's largest code is always 127, so its scale can still be told.
            peak_nN1 = (np.abs(tokens_nNC - video.mean) / video.std).max(-1, keepdims=True)
            bounds_nPC += num_codes * 0.5 * CODE_SLACK / _MAX_CODE * (weights_PN @ peak_nN1) * video.std
        return weights_PN @ tokens_nNC, bounds_nPC
