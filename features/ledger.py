"""The ledger: one line per attempt at a video, so that nothing fails or is skipped in silence. Information only.

Every writer appends to a file of its own (`ledger/<writer>.jsonl`), so that writers never meet.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from features.durable import storage_errors, write_all


class LineFile:
    """A file of JSON lines that only this process appends to; it appears with its first line."""

    def __init__(self, path: Path):
        self.path = path

    def append(self, line: bytes) -> None:
        """Writes one line that ends in a newline, or nothing. Raises `OSError`."""
        self.path.parent.mkdir(exist_ok=True)
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(fd).st_size
            try:
                write_all(fd, line)
            except OSError:
                os.ftruncate(fd, size)
                raise
        finally:
            os.close(fd)


class Ledger:
    """`ledger/` of one store. `writer` names this process among all that ever wrote."""

    def __init__(self, store_path: Path, writer: str):
        self.path = store_path / "ledger"
        self._writer = writer
        self._lines = LineFile(self.path / f"{writer}.jsonl")

    def record(self, video_id: str, outcome: str, reason: str = "", **details: Any) -> None:
        """One attempt: `outcome` is "done", "skipped" or "failed"; `details` are JSON values. Raises `StoreError`."""
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "writer": self._writer,
            "id": video_id,
            "outcome": outcome,
            "reason": reason,
            **details,
        }
        with storage_errors("writing the ledger", self.path):
            self._lines.append((json.dumps(entry, ensure_ascii=False) + "\n").encode(errors="backslashreplace"))

    def entries(self) -> Iterator[dict[str, Any]]:
        """All attempts of all writers, oldest first; lines that a crash cut off are left out."""
        found = []
        for file in sorted(self.path.glob("*.jsonl")):
            for line in file.read_bytes().splitlines():
                entry = _parsed(line)
                if entry is not None:
                    found.append(entry)
        yield from sorted(found, key=lambda entry: str(entry.get("time", "")))


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
