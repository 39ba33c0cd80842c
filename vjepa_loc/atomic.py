"""Files that are there in full or not at all."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 `text` beside `path`, sync it, and rename it over; folders are made.

    An interruption at any point leaves the old file or the new one, never a part. Of a link the file behind it is written.
    Raises `OSError`, naming `path`, where it cannot be written, also where a folder or a device is there.
    """
    # Renaming over a link, or over a device like /dev/null, would put a plain file in its place.
    file_path = Path(os.path.realpath(path))
    try:
        if file_path.is_dir():
            raise OSError(errno.EISDIR, "expected the name of a file, a folder is there")
        if file_path.exists() and not file_path.is_file():
            raise OSError(errno.EINVAL, "expected the name of a file, no plain file is there")
        _replace(file_path, text)
    except OSError as error:
        # Not the name that the file had for a moment.
        raise OSError(error.errno, error.strerror, str(path)) from None


def _replace(path: Path, text: str) -> None:
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
