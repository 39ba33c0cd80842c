"""Which files a check is about: those that are named, and all below the folders that are named.

Every file is accounted for: it is decoded, or it is listed with the reason why not.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from features.check_partial import is_partial
from vjepa_loc.dataset import Video
from vjepa_loc.errors import ConfigError, MissingFileError

# By their names clearly no videos, where they are found in a folder; a file that is named itself is always decoded.
NOT_VIDEO = {
    "text": "txt md rst log nfo csv tsv json jsonl ndjson xml yaml yml toml ini cfg conf html htm css framehash",
    "subtitles": "srt vtt ass ssa sub idx sbv lrc",
    "an image": "jpg jpeg png bmp tif tiff webp heic ico svg psd exr xcf",
    "sound": "mp3 wav flac aac m4a ogg oga opus wma aif aiff",
    "a document": "pdf doc docx ppt pptx xls xlsx odt ods odp tex",
    "an archive": "zip tar gz tgz bz2 xz 7z rar zst",
    "a program": "py sh c h cpp js ipynb pyc so dll exe bat m",
    "data": "npy npz pt pth ckpt safetensors h5 hdf5 pkl parquet db sqlite mat bib lock md5 sha256 sha1 torrent",
}
KIND_OF_SUFFIX = {f".{suffix}": kind for kind, suffixes in NOT_VIDEO.items() for suffix in suffixes.split()}
NOT_VIDEO_NAMES = frozenset({
    "license", "licence", "readme", "makefile", "thumbs.db", ".ds_store", ".gitignore", ".gitattributes", "desktop.ini"
})
SPECIAL = {
    stat.S_ISFIFO: "a named pipe", stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device", stat.S_ISBLK: "a device",
}


@dataclass(frozen=True)
class FileToCheck:
    """One file, or one video of a dataset, which is then `stated`.

    `left_out`: why it is not decoded, which is nothing against it. `fault`: what is wrong, where that is known without decoding.
    `through_link`: it is a link, or lies in a folder that was reached through one; such files are never changed.
    `stale`: an unfinished file of a run that was interrupted.
    """

    path: Path | None
    stated: Video | None = None
    left_out: str | None = None
    fault: str | None = None
    through_link: bool = False
    stale: bool = False


def files_of_dataset(videos: Sequence[Video]) -> list[FileToCheck]:
    """A dataset's videos, each once."""
    return [
        FileToCheck(
            video.file, video, fault=None if video.file else f"video {video.id!r}: the dataset names no file for it",
            through_link=video.file is not None and video.file.is_symlink(),
        )
        for video in videos
    ]


def find_files(paths: Sequence[Path], leave: Sequence[Path] = ()) -> list[FileToCheck]:
    """The files of `paths`, in their order and sorted in folders, each path once; the folders `leave` are not looked at.

    Links to folders are followed, each folder once. Raises MissingFileError for a path that is not there, and ConfigError where
    there is no file at all.
    """
    for path in paths:
        if not os.path.lexists(path):
            raise MissingFileError(f"{path}: no such file or folder")
    left = {os.path.realpath(folder) for folder in leave}
    found: dict[str, FileToCheck] = {}
    for path in paths:
        new = _walk(path, False, left, set()) if path.is_dir() else [_judge(path, named=True, through_link=False)]
        for file in new:
            key = os.path.abspath(file.path)
            # Named itself it is decoded, whatever its name.
            if key not in found or not path.is_dir():
                found[key] = file
    if not found:
        raise ConfigError(f"{', '.join(map(str, paths))}: expected videos, found no file")
    return list(found.values())


def _walk(folder: Path, through_link: bool, leave: set[str], seen: set[tuple[int, int]]) -> Iterator[FileToCheck]:
    try:
        state = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        yield _file(folder, fault=f"the folder cannot be read ({error.strerror})")
        return
    if (state.st_dev, state.st_ino) in seen or os.path.realpath(folder) in leave:
        return
    seen.add((state.st_dev, state.st_ino))
    for entry in entries:
        path = folder / entry.name
        try:
            is_folder = entry.is_dir()
        except OSError:
            is_folder = False
        if is_folder:
            yield from _walk(path, through_link or entry.is_symlink(), leave, seen)
        else:
            yield _judge(path, named=False, through_link=through_link)


def _judge(path: Path, named: bool, through_link: bool) -> FileToCheck:
    linked = through_link or path.is_symlink()
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if path.is_symlink():
            return _file(path, fault=f"a link to {os.readlink(path)}, which is not there", through_link=True)
        return _file(path, fault=f"cannot be read ({error.strerror})", through_link=linked)
    for is_special, name in SPECIAL.items():
        if is_special(mode):
            return _file(path, fault=f"expected a video, got {name}", through_link=linked)
    if is_partial(path.name):
        return _file(path, left_out="left by a check-videos that was interrupted", through_link=linked, stale=True)
    if not named:
        kind = "no video" if path.name.lower() in NOT_VIDEO_NAMES else KIND_OF_SUFFIX.get(path.suffix.lower())
        if kind is not None:
            return _file(path, left_out=f"not decoded: {kind} by its name", through_link=linked)
    return _file(path, through_link=linked)


def _file(path: Path, **what) -> FileToCheck:
    return FileToCheck(path, **what)
