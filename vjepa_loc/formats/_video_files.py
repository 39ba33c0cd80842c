"""Where the video lies that a foreign file names by a path of another machine."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_FOLDERS = ("", "videos")


def find_video(folder: Path, path: str, names: Iterable[str]) -> Path | None:
    """The file at `path` (as it is, or from `folder`), else one of `names` in `folder` or in `videos/` there; absolute."""
    here = folder.absolute()
    for candidate in (here / path, *(here / place / name for place in _FOLDERS for name in names if name)):
        try:
            if candidate.is_file():
                return candidate
        except (OSError, ValueError):
            # A name that this system has no file for.
            continue
    return None
