"""Which videos a split name stands for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from vjepa_loc.errors import UnknownNameError, nearest_name

if TYPE_CHECKING:
    from vjepa_loc.dataset import Video

ALL_VIDEOS = "all"
"""The reserved split name that stands for every video."""


def select_split(videos: Iterable[Video], split: str, path: Path | None = None) -> list[Video]:
    """Videos of one split in their order; `all` is every video, also those without a split.

    Raises `UnknownNameError` that lists the splits there are and names `path`, the dataset's file.
    """
    videos = list(videos)
    if split == ALL_VIDEOS:
        return videos
    selected = [video for video in videos if video.split == split]
    if not selected:
        names = list(dict.fromkeys(video.split for video in videos if video.split is not None))
        where = f"{path}: " if path is not None else ""
        raise UnknownNameError(
            f"{where}no video has the split {split!r}, expected one of: "
            f"{', '.join([*names, ALL_VIDEOS])}.{nearest_name(split, [*names, ALL_VIDEOS])}"
        )
    return selected
