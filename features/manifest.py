"""The manifest: what listings need of every commit, so that a store of many videos opens without reading each record.

A cache and nothing more. A line counts only for a commit file of the same size and modification time; every other
commit is read itself, and where those are many the manifest is written anew.
"""

import contextlib
import time
from typing import Any

from features.commits import Commit, CommitFolder, VideoSummary, seal, unseal
from features.places import Entry, Place
from vjepa_loc.errors import CorruptStoreError

# Reading this many records takes about as long as reading the manifest of a large store.
_REBUILD_ABOVE = 200
_FOLDER = "manifest"
_ALL = f"{_FOLDER}/all.jsonl"

# A record's file, its video's id, and what listings show of it.
_Known = tuple[Entry, str, VideoSummary]


class Manifest:
    """`manifest/` of one store."""

    def __init__(self, place: Place, writer: str):
        self._place = place
        self._commits = CommitFolder(place)
        self._writer = writer

    def add(self, commit: Commit) -> None:
        """Notes a commit that was just made; in object storage, where a line costs a file, listings do that."""
        if not self._place.appends:
            return
        # The commit stands; a cache that cannot be written only makes the next listing slower.
        with contextlib.suppress(OSError):
            entry = self._place.entry(self._commits.file(commit.video_id))
            if entry is not None:
                self._place.append_line(_FOLDER, self._writer, _line(entry, commit.video_id, commit.summary))

    def summaries(self) -> dict[str, VideoSummary]:
        """Video id -> summary of every valid commit, sorted by id."""
        found, num_read = self._read()
        if num_read > _REBUILD_ABOVE:
            # As above: a read-only store is listed all the same.
            with contextlib.suppress(OSError):
                self._rewrite(found)
        return dict(sorted((video_id, summary) for _, video_id, summary in found))

    def compact(self, older_than_s: float) -> None:
        """Puts everything into one file and removes the files of writers that have been silent for `older_than_s`."""
        found, _ = self._read()
        old = [entry for entry in self._place.entries(_FOLDER) if time.time() - entry.modified_s > older_than_s]
        self._rewrite(found)
        for entry in old:
            if entry.name != _ALL:
                self._place.remove(entry.name)

    def _rewrite(self, found: list[_Known]) -> None:
        self._place.replace(_ALL, b"".join(_line(*known) for known in found))

    def _read(self) -> tuple[list[_Known], int]:
        """What is known of every valid commit, and how many records had to be read for it."""
        cached, found, unknown = self._cached(), [], []
        for entry in self._commits.files():
            known = cached.get((entry.name, entry.size, entry.version))
            found.append((entry, *known)) if known is not None else unknown.append(entry)
        raw_records = self._place.read_many(entry.name for entry in unknown)
        for entry, raw in zip(unknown, raw_records, strict=True):
            # One that was removed since it was listed is no longer there.
            with contextlib.suppress(CorruptStoreError):
                if raw is not None:
                    commit = self._commits.parse(entry.name, raw)
                    found.append((entry, commit.video_id, commit.summary))
        return found, len(unknown)

    def _cached(self) -> dict[tuple[str, int, str], tuple[str, VideoSummary]]:
        known = {}
        files = [entry.name for entry in self._place.entries(_FOLDER) if entry.name.endswith(".jsonl")]
        for raw in self._place.read_many(files):
            for line in (raw or b"").splitlines(keepends=True):
                record = _unsealed(line)
                if record is not None:
                    identity = record["file"], record["size"], record["version"]
                    known[identity] = record["id"], VideoSummary.from_dict(record["video"])
        return known


def _line(entry: Entry, video_id: str, summary: VideoSummary) -> bytes:
    return seal({
        "file": entry.name, "size": entry.size, "version": entry.version, "id": video_id, "video": summary.to_dict(),
    })


def _unsealed(line: bytes) -> dict[str, Any] | None:
    try:
        record = unseal(line)
    except ValueError:
        return None
    return record if "version" in record else None
