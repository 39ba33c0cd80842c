"""Where a GroceryVision tree keeps its videos.

    root/[train|val|test/].../<video>/frames/   one image per frame, or one video file; or frames.mp4 beside anns/
                                     /anns/     one text file per annotated frame; absent for test videos
    root/frames/<video>/, root/anns/<video>/    the same the other way round; root may also be a single video
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from vjepa_loc.errors import DatasetError, MissingFileError
from vjepa_loc.formats._reading import Account
from vjepa_loc.image_folder import list_images

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"})

SPLIT_OF_FOLDER = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class VideoSource:
    """One video of the tree: `frames` is a folder of images or a video file, `anns` None where there is none."""

    id: str
    frames: Path
    anns: Path | None
    split: str


def find_sources(root: Path, account: Account) -> list[VideoSource]:
    """The videos below `root`, sorted by path.

    The split is the name of the top folder; without such a folder annotated videos are `train`, others `test`.
    A video's id is its path below the split's folder, and below `root` where that would not be unique.
    Raises `MissingFileError` without the folder, `DatasetError` where it holds no video or one has two sources.
    """
    if not root.is_dir():
        got = "a file is there" if root.exists() else "it does not exist"
        raise MissingFileError(f"{root}: expected a folder of videos, each with frames/ and anns/; {got}")
    root = root.absolute()
    sources = []
    tops = [child for child in _sub_folders(root) if child.name.lower() in SPLIT_OF_FOLDER]
    for top in tops:
        sources += _sources_below(top, top, SPLIT_OF_FOLDER[top.name.lower()], account)
    sources += _sources_below(root, root, None, account, skip=tops)
    if not sources:
        reason = account.first_reason()
        raise DatasetError(
            f"{root}: expected videos, each a folder with frames/ (images or a video) and anns/, found none"
            + (f" ({reason})" if reason else "")
        )
    if len({source.id for source in sources}) < len(sources):
        sources = [replace(source, id=f"{source.split}/{source.id}") for source in sources]
        account.remark("the same name occurs in several splits, so ids begin with the split")
    return sources


def _sources_below(folder: Path, base: Path, split: str | None, account: Account, skip=()) -> list[VideoSource]:
    stated = _frame_sources(folder, account)
    if stated is not None:
        return [
            VideoSource(
                id=_id_of(folder, base, name),
                frames=frames,
                anns=anns if anns.is_dir() else None,
                split=split or ("train" if anns.is_dir() else "test"),
            )
            for name, frames, anns in stated
        ]
    sources = []
    for child in _sub_folders(folder):
        if child not in skip:
            sources += _sources_below(child, base, split, account)
    return sources


def _frame_sources(folder: Path, account: Account) -> list[tuple[str | None, Path, Path]] | None:
    """`(name, frames, anns)` of the videos that `folder` itself states; None where it is only a folder above videos."""
    frames, anns = folder / "frames", folder / "anns"
    single = _video_files(folder, stem="frames")
    named: list[Path] = []
    if frames.is_dir():
        if list_images(frames):
            single.append(frames)
        inside = _video_files(frames)
        is_only_one = len(inside) == 1 and not (anns / inside[0].stem).is_dir()
        (single if is_only_one else named).extend(inside)
        named += _sub_folders(frames)
    if len(single) > 1 or (single and named):
        first, second = [*single, *named][:2]
        raise DatasetError(f"{folder}: expected one source of frames, found {first} and {second}; remove one")
    if single:
        return [(None, single[0], anns)]
    if named:
        names = [path.stem if path.is_file() else path.name for path in named]
        return [(name, path, anns / name) for name, path in zip(names, named, strict=True)]
    if frames.is_dir() or anns.is_dir():
        account.left_out("videos", f"{folder} has no images and no video in or beside frames/")
        return []
    return None


def _id_of(folder: Path, base: Path, name: str | None) -> str:
    parts = [*folder.relative_to(base).parts, *([name] if name else [])]
    return "/".join(parts) or folder.name or "video"


def _sub_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _video_files(folder: Path, stem: str | None = None) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in VIDEO_SUFFIXES
        and not path.name.startswith(".")
        and (stem is None or path.stem == stem)
        and path.is_file()
    )
