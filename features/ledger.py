"""The ledger: one line per attempt at a video, so that nothing fails or is skipped in silence. Information only.

Every writer appends to a file of its own (`ledger/<writer>.jsonl`; in object storage several small ones, one after the
other), so that writers never meet.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

from features.durable import storage_errors
from features.places import Place

_FOLDER = "ledger"


class Ledger:
    """`ledger/` of one store. `writer` names this process among all that ever wrote."""

    def __init__(self, place: Place, writer: str):
        self._place = place
        self._writer = writer

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
        line = (json.dumps(entry, ensure_ascii=False) + "\n").encode(errors="backslashreplace")
        with storage_errors("writing the ledger", self._place.path):
            self._place.append_line(_FOLDER, self._writer, line)

    def entries(self) -> Iterator[dict[str, Any]]:
        """All attempts of all writers, oldest first; lines that a crash cut off are left out."""
        found = []
        files = [entry.name for entry in self._place.entries(_FOLDER) if entry.name.endswith(".jsonl")]
        for raw in self._place.read_many(files):
            for line in (raw or b"").splitlines():
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
