"""The manifest: what listings need of every commit, so that a store of many videos opens without reading each record.

A cache and nothing more. A line counts only for a commit file of the same size and modification time; every other
commit is read itself, and where those are many the manifest is written anew.
"""

import contextlib
import os
import secrets
import time
from pathlib import Path
from typing import Any

from features.commits import Commit, CommitFolder, VideoSummary, seal, unseal
from features.durable import replace_file
from features.ledger import LineFile
from vjepa_loc.errors import CorruptStoreError

# Reading this many records takes about as long as reading the manifest of a large store.
_REBUILD_ABOVE = 200
_ALL = "all.jsonl"


class Manifest:
    """`manifest/` of one store."""

    def __init__(self, store_path: Path, writer: str):
        self.path = store_path / "manifest"
        self._commits = CommitFolder(store_path)
        self._writer = writer
        self._lines = LineFile(self.path / f"{writer}.jsonl")

    def add(self, commit: Commit) -> None:
        """Notes a commit that was just made."""
        file = self._commits.file(commit.video_id)
        # The commit stands; a cache that cannot be written only makes the next listing slower.
        with contextlib.suppress(OSError):
            self._lines.append(_line(file.name, file.stat(), commit.video_id, commit.summary))

    def summaries(self) -> dict[str, VideoSummary]:
        """Video id -> summary of every valid commit, sorted by id."""
        found, lines, num_read = self._read()
        if num_read > _REBUILD_ABOVE:
            # As above: a read-only store is listed all the same.
            with contextlib.suppress(OSError):
                self._rewrite(lines)
        return dict(sorted(found.items()))

    def compact(self, older_than_s: float) -> None:
        """Puts everything into one file and removes the files of writers that have been silent for `older_than_s`."""
        _, lines, _ = self._read()
        old = [file for file in self.path.glob("*.jsonl") if time.time() - file.stat().st_mtime > older_than_s]
        self._rewrite(lines)
        for file in old:
            if file.name != _ALL:
                file.unlink(missing_ok=True)

    def _rewrite(self, lines: list[bytes]) -> None:
        self.path.mkdir(exist_ok=True)
        replace_file(self.path / _ALL, b"".join(lines), self.path / f"{secrets.token_hex(8)}.tmp")

    def _read(self) -> tuple[dict[str, VideoSummary], list[bytes], int]:
        known = self._cached()
        found, lines, num_read = {}, [], 0
        for entry in self._commits.files():
            status = entry.stat()
            cached = known.get((entry.name, status.st_size, status.st_mtime_ns))
            if cached is None:
                num_read += 1
                try:
                    commit = self._commits.load(Path(entry.path))
                except (CorruptStoreError, FileNotFoundError):
                    continue
                cached = commit.video_id, commit.summary
            found[cached[0]] = cached[1]
            lines.append(_line(entry.name, status, *cached))
        return found, lines, num_read

    def _cached(self) -> dict[tuple[str, int, int], tuple[str, VideoSummary]]:
        known = {}
        for file in sorted(self.path.glob("*.jsonl")):
            for line in file.read_bytes().splitlines(keepends=True):
                record = _unsealed(line)
                if record is not None:
                    identity = record["file"], record["size"], record["mtime_ns"]
                    known[identity] = record["id"], VideoSummary.from_dict(record["video"])
        return known


def _line(name: str, status: os.stat_result, video_id: str, summary: VideoSummary) -> bytes:
    return seal({
        "file": name, "size": status.st_size, "mtime_ns": status.st_mtime_ns, "id": video_id, "video": summary.to_dict(),
    })


def _unsealed(line: bytes) -> dict[str, Any] | None:
    try:
        return unseal(line)
    except ValueError:
        return None
