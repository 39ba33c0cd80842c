"""Whether the disk has room for what is to be extracted: asked before any work, and while it goes on.

Free space is what the file system offers this user. Quotas that it does not count with, and the limits of a bucket, are not
known before they are met: then writing is refused, which stops the run in the same way. In object storage the disk in
question is that of the folder for unfinished videos, which must have room for those in hand.
"""

import errno
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from features.clips import expected_clips
from features.durable import free_bytes, readable_size, storage_errors
from features.estimate_bytes import expected_bytes, grid_of
from features.outcome import ClipsEncoded, Outcome, VideoRetried, VideoStarted
from features.outcome import Progress as Event
from features.store import PlannedStore, Store
from features.zarr_layout import step_specs
from vjepa_loc.dataset import Video
from vjepa_loc.errors import StoreError

LOOK_EVERY_S = 1.0
GIB = 1 << 30
# zstd leaves at least about this part of int8 tokens (docs/workspace.md): what may fit is not refused.
COMPRESSED_PART = 0.75


@dataclass
class _Expected:
    """A video of the run: bytes that it will take and clips that it has, both None where its length is not known."""

    num_bytes: int | None
    num_clips: int | None


@dataclass
class _InHand:
    expected: _Expected
    clips_done: int = 0

    def needed_bytes(self) -> float:
        if self.expected.num_bytes is None or not self.expected.num_clips:
            return 0.0
        return self.expected.num_bytes * max(0.0, 1.0 - self.clips_done / self.expected.num_clips)


class DiskSpace:
    """The disk of one store during one run. `reserve_gib` of it stay free.

    `check_ahead` before the run; during it, the object is called with what the run reports, and `check` before writing.
    All but `check_ahead` may be used from any thread.
    """

    def __init__(self, store: Store | PlannedStore, reserve_gib: float):
        self._store = store
        self._reserve = round(reserve_gib * GIB)
        self._is_local = isinstance(store.path, Path)
        self._expected: dict[str, _Expected] = {}
        self._in_hand: dict[str, _InHand] = {}
        self._lock = threading.Lock()
        self._looked_s = float("-inf")

    def check_ahead(self, videos: Iterable[Video], at_once: int = 1) -> list[str]:
        """Raises `StoreError` where what is still to be stored of `videos` does not fit; returns lines for a person: what is not known.

        Videos that the store holds take nothing (one that is replaced is not foreseen). `at_once` are in hand at the same time.
        """
        with storage_errors("looking for free space", self._store.path):
            stored, free = self._store.summaries(), self._free()
        encoding, storage = self._store.encoding, self._store.storage
        to_do = [video for video in videos if video.id not in stored]
        self._expected = {
            video.id: _Expected(expected_bytes(encoding, storage, video), expected_clips(encoding, video.num_frames, video.fps))
            for video in to_do
        }
        sizes = sorted((known.num_bytes for known in self._expected.values() if known.num_bytes is not None), reverse=True)
        num_unknown = len(to_do) - len(sizes)
        needed = sum(sizes if self._is_local else sizes[:at_once])
        least = round(needed * (COMPRESSED_PART if storage.compression != "none" else 1.0))
        if to_do and least + self._reserve > free:
            raise self._refusal(least, free, len(to_do) if self._is_local else min(at_once, len(to_do)), num_unknown)
        self._check_file_limit(to_do)
        return self._notes(needed, free, num_unknown, len(to_do))

    def __call__(self, event: Event) -> None:
        """Keeps account of the videos in hand; never raises."""
        with self._lock:
            if isinstance(event, VideoStarted):
                self._in_hand[event.video_id] = _InHand(self._expected.get(event.video_id, _Expected(None, None)))
            elif isinstance(event, ClipsEncoded) and event.video_id in self._in_hand:
                self._in_hand[event.video_id].clips_done += event.num_clips
            elif isinstance(event, Outcome | VideoRetried):
                self._in_hand.pop(event.video_id, None)

    def check(self) -> None:
        """Raises `StoreError` (`errno` ENOSPC) where the free space less what the videos in hand still need is below the reserve.

        Looks at most once a second, so that it may be called before every write.
        """
        with self._lock:
            now_s = time.monotonic()
            if now_s - self._looked_s < LOOK_EVERY_S:
                return
            self._looked_s = now_s
            videos = list(self._in_hand.values())
            needed = round(sum(video.needed_bytes() for video in videos))
            num_unknown = sum(video.expected.num_bytes is None for video in videos)
        try:
            free = self._free()
        except OSError:
            # The write that follows says what is wrong.
            return
        if free - needed < self._reserve:
            unknown = f" ({num_unknown} of them are of unknown length)" if num_unknown else ""
            raise _no_space(
                f"the disk of {self._where()} has {readable_size(free)} free, the {len(videos)} videos in hand still need about "
                f"{readable_size(needed)}{unknown}; expected to keep {readable_size(self._reserve)} free (extract.min_free_gib); "
                "free some space and run the command again, what is complete is kept"
            )

    def _free(self) -> int:
        return free_bytes(self._store.path if self._is_local else self._store.place.staging)

    def _where(self) -> str:
        return str(self._store.path) if self._is_local else f"{self._store.place.staging} (unfinished videos of {self._store.path})"

    def _refusal(self, needed: int, free: int, num_videos: int, num_unknown: int) -> StoreError:
        more = f", {num_unknown} more of unknown length" if num_unknown else ""
        reserve = f" and {readable_size(self._reserve)} to stay free (extract.min_free_gib)" if self._reserve else ""
        remedy = "free some space, choose another --store, fewer store.levels" if self._is_local else "free some space, set store.cache"
        return _no_space(
            f"not enough space for {num_videos} videos in {self._where()}: {readable_size(needed)} needed{more}{reserve}, "
            f"{readable_size(free)} free, {readable_size(needed + self._reserve - free)} short; {remedy}, "
            "or extract a part of the videos (--split, --video)"
        )

    def _check_file_limit(self, to_do: list[Video]) -> None:
        """A limit on file sizes would be met in the middle of the first long video."""
        limit = _file_size_limit()
        if limit is None or not to_do:
            return
        encoding, storage = self._store.encoding, self._store.storage
        specs = step_specs(storage, storage.shard_steps, grid_of(encoding, to_do[0]), encoding.channels)
        largest = max(spec.shard_size(0) for spec in specs.values())
        longest = max((known.num_bytes or largest for known in self._expected.values()), default=0)
        if min(largest, longest) > limit:
            raise _no_space(
                f"files in {self._where()} will have up to {readable_size(min(largest, longest))}, "
                f"the limit on file sizes (ulimit -f) is {readable_size(limit)}; raise it, or lower store.shard_steps"
            )

    def _notes(self, needed: int, free: int, num_unknown: int, num_videos: int) -> list[str]:
        notes = []
        if num_unknown:
            others = f"the others: {readable_size(needed)}, " if num_unknown < num_videos else ""
            notes.append(
                f"disk space: {num_unknown} of {num_videos} videos have no num_frames in the dataset, "
                f"what they need is not known ahead ({others}free: {readable_size(free)})"
            )
        if num_videos and needed + self._reserve > free:
            notes.append(f"disk space: up to {readable_size(needed)} needed before compression, {readable_size(free)} free")
        return notes


def _no_space(message: str) -> StoreError:
    error = StoreError(message)
    error.errno = errno.ENOSPC
    return error


def _file_size_limit() -> int | None:
    """Bytes, None where there is no limit or the system has none."""
    try:
        import resource
    except ImportError:
        return None
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit == resource.RLIM_INFINITY else limit
