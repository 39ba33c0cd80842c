"""Files that survive a crash: write, sync, then make visible by one atomic step; and what the disk's refusals mean.

`storage_errors` turns an `OSError` of the disk into one line for the user. Everything that writes into a store goes
through here.
"""

import contextlib
import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vjepa_loc.errors import StoreError, VjepaLocError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_PERMISSION = (errno.EROFS, errno.EACCES, errno.EPERM)
ABSENT = (errno.ENOENT, errno.ENOTDIR)
# What writing into a store gets where its disk or its mount went away in the middle.
VANISHED = (*ABSENT, errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT)


def readable_size(num_bytes: int) -> str:
    """`num_bytes` in binary units with one decimal."""
    size = float(num_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.1f} {unit}" if unit != "B" else f"{num_bytes} B"
        size /= 1024
    return f"{size:.1f} TiB"


@contextmanager
def storage_errors(doing: str, path: Path | str, needed_bytes: int | None = None) -> Iterator[None]:
    """Raises `StoreError` (its `errno` kept) for any `OSError` inside; `needed_bytes` is told where the disk is full.

    `path` is what is written to, a store's URL included: the disk is then that of the folder for unfinished videos.
    """
    try:
        yield
    except VjepaLocError:
        raise
    except OSError as error:
        raise _store_error(error, doing, path, needed_bytes) from error


def _store_error(error: OSError, doing: str, path: Path | str, needed_bytes: int | None) -> StoreError:
    if error.errno in NO_SPACE:
        limit = "the limit on file sizes (ulimit -f) is reached" if error.errno == errno.EFBIG else "no space left"
        known = [f"about {readable_size(needed_bytes)} needed"] if needed_bytes is not None else []
        if isinstance(path, Path):
            known.append(f"{readable_size(free_bytes(path))} free")
        else:
            limit += " on the disk of this machine"
        message = (
            f"{limit} while {doing} in {path}{': ' if known else ''}{', '.join(known)}; "
            "free some space and run the command again, what is complete is kept"
        )
    elif error.errno in NO_PERMISSION:
        message = f"cannot write to {path} while {doing}: {error.strerror}; the store is read-only or belongs to someone else"
    elif error.errno in VANISHED:
        message = (
            f"{doing} in {path} failed: {error.strerror}; is the disk or network share still there? "
            "Run the command again when it is, what is complete is kept"
        )
    else:
        message = f"{doing} in {path} failed: {error.strerror or error}"
    translated = StoreError(message)
    translated.errno = error.errno
    return translated


def unreadable(what: str, path: Path | str, error: OSError) -> StoreError:
    """The error (its `errno` kept) of a file that is there and cannot be read: of the disk or the mount, not of the data,
    which must not be taken for damaged and written again.
    """
    translated = StoreError(
        f"{what}: cannot read {path}: {error.strerror or error}; this is the disk's or the network's answer, not damage: "
        "see that the store's folder is mounted and readable, and run the command again"
    )
    translated.errno = error.errno
    return translated


def free_bytes(path: Path) -> int:
    """Bytes that are free on the file system of `path` or of its nearest existing parent."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def make_folders(path: Path, existing: Path) -> None:
    """Makes `path`, which lies below `existing`, and what is missing in between.

    Raises `FileNotFoundError` where `existing` is gone: made again with its parents it would lie on the disk that was below
    a mount, and be filled there.
    """
    folder = existing
    for part in path.relative_to(existing).parts:
        folder = folder / part
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)


def write_new(path: Path, data: bytes, durable: bool = True) -> None:
    """A new file with `data`, which is on the disk when this returns if it is to be `durable`."""
    with open(path, "xb", buffering=0) as file:
        write_all(file.fileno(), data)
        if durable:
            os.fsync(file.fileno())


def write_all(fd: int, data: bytes) -> None:
    """`os.write` until every byte is written: a nearly full disk answers with a short write first."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]


def sync_folder(path: Path) -> None:
    """Makes the names in a folder durable, as `fsync` does for a file's bytes."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path | str, flags: int) -> None:
    fd = os.open(path, flags)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_tree(path: Path) -> None:
    """Makes every file and folder below `path` durable.

    One `syncfs` where the system has it: for a video's many small files 10 to 30 times faster than an `fsync` for each,
    on a busy disk too, although it waits for what other programs have written.
    """
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        for folder, _, names in os.walk(path):
            for name in names:
                _sync(os.path.join(folder, name), os.O_RDONLY)
            sync_folder(Path(folder))
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if syncfs(fd):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(fd)


def create_exclusively(path: Path, data: bytes, temporary: Path, durable: bool = True) -> bool:
    """Creates `path` with all of `data`, or leaves what is there: True if this call created it.

    The bytes are written to `temporary` (same file system) and appear under `path` by a hard link, so nobody sees a
    part of them. A file system without hard links gets an exclusive create; what a crash can leave there is an
    incomplete file that its checksum gives away. `durable` is for files that must survive a power cut from now on.
    """
    try:
        write_new(temporary, data, durable)
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        try:
            write_new(path, data, durable)
        except FileExistsError:
            return False
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        sync_folder(path.parent)
    return True


def replace_file(path: Path, data: bytes, temporary: Path, durable: bool = True) -> None:
    """`path` holds `data` afterwards, whatever it held before; readers see the old bytes or the new ones."""
    try:
        write_new(temporary, data, durable)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)
