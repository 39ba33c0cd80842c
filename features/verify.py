"""Is a store whole? Every byte that a commit names is checked, and what the arrays say is checked against each other.

Per video: the commit record; size and crc32c of every file, metadata included; files that nobody committed; each
chunk's crc32c; holes and values that are not finite; frames and times; and the pyramid against the decoded tokens,
within the error that the quantiser may make.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np

from features.commits import Commit, CommitFolder
from features.durable import crc32c_hex
from features.stored_video import StoredVideo
from features.zarr_layout import POOL_SIZES
from vjepa_loc.errors import CorruptStoreError, StoreError, VjepaLocError, nearest_name

if TYPE_CHECKING:
    from features.store import Store

_READ_BYTES = 1 << 23
_STEPS_AT_ONCE = 16
# Half a code is the quantiser's error; float32 arithmetic and the 127.4 of its scale stay within this factor.
_CODE_SLACK = 1.02
_FLOAT16_EPS = 2.0**-11


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `file` is relative to the store; `video_id` is None where the record itself is
    unreadable.
    """

    video_id: str | None
    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}" + (f" (video {self.video_id!r})" if self.video_id else "")


@dataclass(frozen=True)
class VerifyReport:
    """What `verify_store` found; `num_bytes` were read."""

    problems: tuple[Problem, ...]
    num_videos: int
    num_bytes: int

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def video_ids(self) -> list[str]:
        """The videos that have to be extracted again, as far as their ids can still be read."""
        return sorted({problem.video_id for problem in self.problems if problem.video_id is not None})

    def to_dict(self) -> dict[str, Any]:
        """What `store verify --json` prints."""
        return {
            "ok": self.ok,
            "videos": self.num_videos,
            "bytes": self.num_bytes,
            "problems": [problem.__dict__ for problem in self.problems],
        }


def verify_store(store: "Store", video_ids: Sequence[str] | None = None) -> VerifyReport:
    """Checks the given videos, by default all, and every commit record. Raises `StoreError` for an unknown id."""
    commits, problems = CommitFolder(store.path), []
    found: dict[str, Commit] = {}
    for entry in commits.files():
        try:
            commit = commits.load(Path(entry.path))
            found[commit.video_id] = commit
        except CorruptStoreError as error:
            problems.append(Problem(None, f"commits/{entry.name}", str(error)))
    chosen = list(found) if video_ids is None else list(video_ids)
    for video_id in chosen:
        if video_id not in found:
            raise StoreError(f"the store {store.path} has no valid video {video_id!r}.{nearest_name(video_id, found)}")
        problems += _verify_video(store.path, found[video_id])
    num_bytes = sum(stamp.size for video_id in chosen for stamp in found[video_id].generation_files.values())
    return VerifyReport(_once_per_file(problems), len(chosen), num_bytes)


def _once_per_file(problems: list[Problem]) -> tuple[Problem, ...]:
    # The metadata of the root belong to every commit; one line for one damaged file is enough.
    shared = {f"tokens.zarr/{name}" for name in ("zarr.json", "videos/zarr.json")}
    unique: dict[tuple[str, str], Problem] = {}
    for problem in problems:
        if problem.file in shared:
            problem = Problem(None, problem.file, problem.what)
        unique.setdefault((problem.file, problem.what), problem)
    return tuple(unique.values())


def _verify_video(store_path: Path, commit: Commit) -> list[Problem]:
    problems = [Problem(commit.video_id, file, what) for file, what in _wrong_files(store_path, commit)]
    if problems:
        return problems
    try:
        for file, what in _wrong_contents(store_path, commit):
            problems.append(Problem(commit.video_id, file, what))
    except VjepaLocError as error:
        problems.append(Problem(commit.video_id, f"tokens.zarr/{commit.path}", str(error)))
    return problems


def _wrong_files(store_path: Path, commit: Commit) -> Iterator[tuple[str, str]]:
    for name, stamp in commit.files.items():
        path = store_path / "tokens.zarr" / name
        try:
            size, crc = path.stat().st_size, _crc32c_of(path)
        except OSError as error:
            yield f"tokens.zarr/{name}", f"unreadable ({error.strerror})"
            continue
        if size != stamp.size:
            yield f"tokens.zarr/{name}", f"expected {stamp.size} bytes, got {size}"
        elif crc != stamp.crc32c:
            yield f"tokens.zarr/{name}", f"expected crc32c {stamp.crc32c}, got {crc}"
    generation = store_path / "tokens.zarr" / commit.path
    committed = {generation / name for name in commit.generation_files}
    for path in sorted(generation.rglob("*")):
        if path.is_file() and path not in committed:
            yield f"tokens.zarr/{commit.path}/{path.relative_to(generation)}", "a file that the commit does not name"


def _crc32c_of(path: Path) -> str:
    crc = 0
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_READ_BYTES):
            crc = google_crc32c.extend(crc, block)
    return f"{crc:08x}"


def exchanged_files(video: StoredVideo) -> Iterator[tuple[str, str]]:
    """Files whose chunks are whole but not those that were committed: exchanged, or of another generation."""
    for name, stamp in video.commit.generation_files.items():
        if stamp.chunks and (found := crc32c_hex(video.stored_checksums(name))) != stamp.chunks:
            yield name, f"expected chunks whose checksums have the crc32c {stamp.chunks}, got {found}"


def _wrong_contents(store_path: Path, commit: Commit) -> Iterator[tuple[str, str]]:
    """What the files say that cannot be; raises `CorruptStoreError` where they cannot be read."""
    video = StoredVideo(store_path, commit, verify="always")
    group = f"tokens.zarr/{commit.path}"
    yield from ((f"{group}/{file}", what) for file, what in exchanged_files(video))
    summary = commit.summary
    expected = (commit.video_id, summary.num_frames, summary.width, summary.height, summary.grid, summary.damaged)
    found = (video.id, video.num_frames, video.width, video.height, video.grid, video.damaged)
    if video.meta.id != commit.video_id or found != expected:
        yield f"{group}/zarr.json", f"the commit describes {expected}, the attributes {(video.meta.id, *found[1:])}"
    if not (video.std > 0).all():
        yield f"{group}/std", "a channel without a positive std"
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
    yield from _wrong_levels(video, group)


def _wrong_levels(video: StoredVideo, group: str) -> Iterator[tuple[str, str]]:
    from features.pyramid import pool_weights

    pools = [level for level in video.levels if level in POOL_SIZES]
    weights = {level: pool_weights(video.space_grid.valid_HW, POOL_SIZES[level]).astype(np.float32) for level in pools}
    wrong: dict[str, list[int]] = {level: [] for level in pools}
    for start in range(0, video.num_steps, _STEPS_AT_ONCE):
        stop = min(start + _STEPS_AT_ONCE, video.num_steps)
        pooled = {level: _read_float32(video, level, start, stop) for level in pools}
        if "tokens" not in video.levels:
            continue
        tokens_TNC = _read_float32(video, "tokens", start, stop).reshape(stop - start, -1, video.shape("tokens")[-1])
        error_TNC = _possible_error(video, start, stop, tokens_TNC)
        for level, weights_PN in weights.items():
            expected_TPC, bound_TPC = weights_PN @ tokens_TNC, weights_PN @ error_TNC
            stored_TPC = pooled[level].reshape(expected_TPC.shape)
            bound_TPC += _FLOAT16_EPS * np.abs(stored_TPC) + 1e-5 * np.abs(tokens_TNC).max() + 2.0**-24
            bad_T = (np.abs(stored_TPC - expected_TPC) > bound_TPC).any((1, 2))
            wrong[level] += (start + np.flatnonzero(bad_T)).tolist()
    for level, steps in wrong.items():
        if steps:
            yield f"{group}/{level}", f"not the mean of the tokens in {len(steps)} steps, the first is {steps[0]}"


def _read_float32(video: StoredVideo, level: str, start: int, stop: int) -> np.ndarray:
    return video.read(level, start, stop, out=np.empty((stop - start, *video.shape(level)[1:]), np.float32))


def _possible_error(video: StoredVideo, start: int, stop: int, tokens_TNC: np.ndarray) -> np.ndarray:
    """How far stored tokens may lie from the encoder's, (T, N, C) or broadcastable to it."""
    if video.storage.number_format == "float16":
        return _FLOAT16_EPS * np.abs(tokens_TNC)
    _, scale_THW = video.read_codes(start, stop)
    scale_TN1 = scale_THW.reshape(stop - start, -1, 1).astype(np.float32)
    return 0.5 * _CODE_SLACK * scale_TN1 * video.std
