"""Files that are there in full or not at all."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 `text` beside `path`, sync it, and rename it over; folders are made.

    An interruption at any point leaves the old file or the new one, never a part.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        with beside.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
