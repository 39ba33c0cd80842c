"""Where files go that are taken out of a collection, and how a repaired copy takes a file's place.

At every moment each file is there in full, under its name or in the quarantine, and after a run that was killed the same command
goes on: what is done is found done, what is half done is done again.
"""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

from features.check_partial import partial_file, partial_of, remove_stale, write_whole
from features.durable import sync_folder
from vjepa_loc.errors import ConfigError, VideoError

REASON_SUFFIX = ".reason.json"
COPY_BYTES = 1 << 20
# What a file system answers that has no hard links, has no more of them, or is another one.
NO_LINK = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class FileState:
    """What must not have changed of a file between reading and replacing it."""

    def __init__(self, path: Path):
        stat = os.stat(path)
        self._path = path
        self._seen = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)

    def check(self) -> None:
        """Raises VideoError where the file is another one now, or gone."""
        try:
            stat = os.stat(self._path)
        except FileNotFoundError:
            stat = None
        if stat is None or (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns) != self._seen:
            raise VideoError(f"{self._path}: the file changed while it was checked; nothing was done to it, check it again")


class Quarantine:
    """A folder in which each file lies under its former absolute path, with `<name>.reason.json` beside it."""

    def __init__(self, folder: Path):
        """Raises ConfigError where `folder` is no folder."""
        self.folder = folder.absolute()
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(f"--quarantine {folder}: expected a folder, or a name that is free, got a file")

    def keep(self, path: Path, state: FileState, reason: dict[str, object]) -> Path:
        """Puts `path` into the quarantine too and returns its place there; both are durable. `reason` is written beside it.

        A hard link where that is possible, else a copy that is compared byte by byte. What an earlier run kept of the same
        bytes is used again; another file of the same former name stays, and this one gets a number.
        """
        # Before, too: of a file that is being written nothing is left here.
        state.check()
        absolute = Path(os.path.abspath(path))
        former = self.folder / absolute.relative_to(absolute.anchor)
        self._make_folders(former.parent)
        number = 1
        while True:
            place = former if number == 1 else former.with_name(f"{former.stem}~{number}{former.suffix}")
            if _same_bytes(path, place) or not os.path.lexists(place) and self._put(path, place):
                break
            number += 1
        # Of a run that was killed between giving the copy its name and forgetting the other one.
        remove_stale(partial_of(place))
        state.check()
        write_whole(_reason_file(place), json.dumps({"file": _text(absolute)} | reason, indent=1) + "\n")
        return place

    def take(self, path: Path, state: FileState, reason: dict[str, object]) -> Path:
        """Moves `path` into the quarantine and returns its place there."""
        place = self.keep(path, state, reason)
        os.unlink(path)
        sync_folder(path.parent)
        return place

    def _put(self, path: Path, place: Path) -> bool:
        """False where somebody else has put a file there meanwhile."""
        try:
            os.link(path, place, follow_symlinks=False)
            return True
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_LINK:
                raise
        with partial_file(place, path) as partial:
            copy_durably(path, partial)
            return publish(partial, place)

    def _make_folders(self, folder: Path) -> None:
        """Makes the folder and what is missing above it, durably."""
        missing = []
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        for new in reversed(missing):
            new.mkdir(exist_ok=True)
            sync_folder(new.parent)


def replace_with(partial: Path, path: Path, state: FileState, quarantine: Quarantine, reason: dict[str, object]) -> Path:
    """Puts the complete copy `partial`, which lies beside `path`, in its place; returns where the original is kept.

    Rights and attributes are the original's, the time of modification is now. Raises VideoError where the original changed.
    """
    shutil.copystat(path, partial)
    os.utime(partial)
    owner = os.stat(path)
    if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()) and os.geteuid() == 0:
        os.chown(partial, owner.st_uid, owner.st_gid)
    _sync_file(partial)
    place = quarantine.keep(path, state, reason)
    state.check()
    os.replace(partial, path)
    sync_folder(path.parent)
    return place


def publish(partial: Path, path: Path) -> bool:
    """Gives a complete unfinished file its name, durably. False, and nothing happened, where the name is taken."""
    _sync_file(partial)
    try:
        os.link(partial, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        if os.path.lexists(path):
            return False
        os.rename(partial, path)
    sync_folder(path.parent)
    return True


def copy_durably(path: Path, target: Path) -> None:
    """Copies bytes, rights and times into the file `target`. Raises OSError, and VideoError where the copy is not the same."""
    with path.open("rb") as source, target.open("r+b") as copy:
        shutil.copyfileobj(source, copy, COPY_BYTES)
        copy.flush()
        shutil.copystat(path, target)
        os.fsync(copy.fileno())
    if _digest(path) != _digest(target):
        raise VideoError(f"{path}: its copy {target.parent} differs; is the disk all right?")


def _same_bytes(path: Path, place: Path) -> bool:
    try:
        here, there = os.lstat(path), os.lstat(place)
    except FileNotFoundError:
        return False
    if os.path.samestat(here, there):
        return True
    return here.st_size == there.st_size and place.is_file() and _digest(path) == _digest(place)


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _reason_file(place: Path) -> Path:
    name = place.name + REASON_SUFFIX
    if len(os.fsencode(name)) > 255:
        # The longest that file systems take; the number of the sha256 keeps it apart.
        name = hashlib.sha256(os.fsencode(place.name)).hexdigest()[:32] + REASON_SUFFIX
    return place.with_name(name)


def _text(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")
