"""A folder of numbered images as a video: which image is which frame.

The rule: an image's number is the last run of digits in its name, whatever its padding (`7.png`, `cart_000007.jpg`);
the images in ascending order of their numbers are the frames 0, 1, 2, ... A first number other than 0 and missing
numbers therefore shift nothing but the names.
"""

from __future__ import annotations

import re
from pathlib import Path

from vjepa_loc.errors import VideoError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})

_LAST_NUMBER = re.compile(r"^(?P<before>.*?)(?P<number>[0-9]+)(?P<after>[^0-9]*)$")


def name_number(path: Path) -> int | None:
    """The last run of digits in a file's name without its suffix, or None where it has none."""
    match = _LAST_NUMBER.match(path.stem)
    return int(match["number"]) if match else None


def list_images(folder: Path) -> list[Path]:
    """The image files directly in `folder`, in no particular order. Hidden files are not images."""
    return [
        path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]


def numbered_images(folder: Path) -> list[tuple[int, Path]]:
    """`(number, path)` of the images of one video, ascending: the n-th is frame n.

    Raises `VideoError` where the folder is none, holds no image, an image without a number, two with the same number,
    or the images of several videos (names that differ before or after the number).
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise VideoError(f"{folder}: expected a folder of numbered images, found {found}")
    images = list_images(folder)
    if not images:
        raise VideoError(f"{folder}: expected numbered images ({', '.join(sorted(IMAGE_SUFFIXES))}), found none")
    by_number: dict[int, Path] = {}
    names_around: dict[tuple[str, str], Path] = {}
    for path in sorted(images):
        match = _LAST_NUMBER.match(path.stem)
        if match is None:
            raise VideoError(f"{path}: expected a number in the image's name, found none; rename or remove it")
        number = int(match["number"])
        if by_number.setdefault(number, path) != path:
            raise VideoError(f"{folder}: {by_number[number].name} and {path.name} have the same number, remove one")
        names_around.setdefault((match["before"], match["after"]), path)
    if len(names_around) > 1:
        shown = " and ".join(path.name for path in list(names_around.values())[:2])
        raise VideoError(f"{folder}: expected the images of one video, found {shown}; use one folder per video")
    return sorted(by_number.items())
