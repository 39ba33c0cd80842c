"""Unfinished files: written beside the place they are for, under a name that the next run knows, locked while a run is alive."""

import contextlib
import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from features.durable import sync_folder
from vjepa_loc.errors import VideoError

_NAME = re.compile(r"\.check-videos-[0-9a-f]{16}\.partial")


def is_partial(name: str) -> bool:
    """Whether a file's name is that of an unfinished one."""
    return _NAME.fullmatch(name) is not None


def partial_of(path: Path) -> Path:
    """Where `path` is written before it is there: the same name in every run, so that nothing piles up."""
    return path.with_name(f".check-videos-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.partial")


@contextmanager
def partial_file(path: Path, like: Path | None = None) -> Iterator[Path]:
    """An empty unfinished file for `path`, with the rights of the file `like`; removed at the end unless it has been renamed.

    Raises VideoError where another run has it.
    """
    partial = partial_of(path)
    fd = _locked(partial)
    if fd is None:
        raise VideoError(f"{path}: another check-videos is at work on it")
    try:
        os.ftruncate(fd, 0)
        if like is not None:
            os.fchmod(fd, stat.S_IMODE(os.stat(like).st_mode))
        yield partial
    finally:
        # While the lock is held, the name is this run's: nobody else has put a file there.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(partial), os.fstat(fd)):
                partial.unlink()
        os.close(fd)


def remove_stale(partial: Path) -> bool:
    """Removes what a run that was killed left; not what one that lives is writing. Says whether it is gone."""
    if not os.path.lexists(partial):
        return True
    fd = _locked(partial)
    if fd is None:
        return False
    partial.unlink(missing_ok=True)
    os.close(fd)
    return True


def write_whole(path: Path, text: str) -> None:
    """Writes UTF-8 `text` under `path`, durably and in one step; of a link the file behind it.

    Raises OSError, and VideoError where another run writes it.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial_file(path, path if path.exists() else None) as partial:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    sync_folder(path.parent)


def _locked(partial: Path) -> int | None:
    """A descriptor of the file under this name, made where there is none, with its lock; None where another process has that."""
    while True:
        fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(partial), os.fstat(fd)):
                    return fd
        except BlockingIOError:
            os.close(fd)
            return None
        # Renamed or removed by the run that had the lock before.
        os.close(fd)
