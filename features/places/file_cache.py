"""Copies of a store's objects on this machine, so that they are downloaded once and can be mapped.

A file appears when all of it is there. Several processes share a cache; one of them downloads a file, the others wait
for it. Where the files outgrow the limit, those that were not opened for longest are removed; a mapping of a removed file
stays good for whoever has it.
"""

import contextlib
import errno
import fcntl
import hashlib
import math
import os
import secrets
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from features.durable import NO_SPACE
from vjepa_loc.errors import ConfigError

FOLDER_VARIABLE = "VJEPA_LOC_CACHE"
LIMIT_VARIABLE = "VJEPA_LOC_CACHE_GIB"
DEFAULT_LIMIT_GIB = 100.0
# Evicting goes this far below the limit, so that it is not needed for every file.
_EVICT_TO = 0.9
_NUM_LOCKS = 256
# Writing the time of each opening would cost more than it tells.
_OPENED_EVERY_S = 60
_ABANDONED_S = 24 * 3600


@dataclass(frozen=True)
class CacheSettings:
    """Where copies of objects are kept, and how many bytes of them."""

    folder: Path
    limit_bytes: int

    @classmethod
    def from_environment(cls) -> "CacheSettings":
        """`VJEPA_LOC_CACHE` and `VJEPA_LOC_CACHE_GIB`; the user's cache folder and 100 GiB where they are not set."""
        folder = os.environ.get(FOLDER_VARIABLE)
        limit = os.environ.get(LIMIT_VARIABLE, str(DEFAULT_LIMIT_GIB))
        try:
            limit_gib = float(limit)
            if not 0 < limit_gib < math.inf:
                raise ValueError
        except ValueError:
            raise ConfigError(f"{LIMIT_VARIABLE}: expected a positive number of GiB, got {limit!r}") from None
        return cls(Path(folder).absolute() if folder else _user_cache(), int(limit_gib * 2**30))


def keep_copies(folder: Path | None, limit_gib: float | None) -> None:
    """Settles where stores by URL keep copies from now on, in this process and in those that it starts; None leaves what
    the environment says.
    """
    if folder is not None:
        os.environ[FOLDER_VARIABLE] = str(folder)
    if limit_gib is not None:
        os.environ[LIMIT_VARIABLE] = str(limit_gib)


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vjepa_loc"


class FileCache:
    """The files of one store, below `settings.folder`, which caches of other stores share with their own."""

    def __init__(self, url: str, settings: CacheSettings):
        self._root = settings.folder
        self._limit_bytes = settings.limit_bytes
        # The bucket's name is for people.
        name = "".join(letter if letter.isalnum() else "-" for letter in url.partition("://")[2])[:40]
        self.folder = self._root / "stores" / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
        self._locks: dict[int, threading.Lock] = {}
        # Of all copies, as far as this process knows, and those of them that it has added since it looked.
        self._held_bytes: int | None = None
        self._new_bytes = 0

    def path(self, name: str) -> Path:
        return self.folder / name

    def has(self, name: str, size: int) -> bool:
        """Whether `get` would answer at once."""
        return self._is_there(self.path(name), size)

    def get(self, name: str, size: int, download: Callable[[Path], None]) -> Path:
        """The copy of an object of `size` bytes; where there is none `download(target)` makes it, or raises."""
        path = self.path(name)
        if not self._is_there(path, size):
            with self._lock(name):
                if not self._is_there(path, size):
                    self._add(path, size, download)
        return path

    def forget(self, name: str) -> None:
        """The next `get` downloads the object again."""
        self.path(name).unlink(missing_ok=True)

    def _is_there(self, path: Path, size: int) -> bool:
        try:
            status = path.stat()
        except FileNotFoundError:
            return False
        if time.time() - status.st_atime > _OPENED_EVERY_S:
            # The modification time stays: readers take a file with another one for another file.
            with contextlib.suppress(OSError):
                os.utime(path, ns=(time.time_ns(), status.st_mtime_ns))
        return status.st_size == size

    def _add(self, path: Path, size: int, download: Callable[[Path], None]) -> None:
        partial = self._root / "partial" / secrets.token_hex(8)
        partial.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._make_room(size)
        try:
            try:
                download(partial)
            except OSError as error:
                if error.errno not in NO_SPACE or not self._evict(4 * size):
                    raise
                # Others fill this disk as well: the limit was too high for it.
                partial.unlink(missing_ok=True)
                download(partial)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        # One lock per process: one that a thread held when the process was forked would never be given back.
        with self._locks.setdefault(os.getpid(), threading.Lock()):
            # What other processes have added is seen when this one has added a twentieth of the limit.
            is_old = self._held_bytes is None or self._new_bytes > self._limit_bytes / 20
            if is_old or self._held_bytes + size > self._limit_bytes:
                self._held_bytes, self._new_bytes = sum(copy.size for copy in self._copies()), 0
            if self._held_bytes + size > self._limit_bytes:
                self._held_bytes -= self._evict(self._held_bytes + size - int(_EVICT_TO * self._limit_bytes))
            self._held_bytes += size
            self._new_bytes += size

    def _evict(self, num_bytes: int) -> int:
        """Removes the copies that were not opened for longest until `num_bytes` are free: the bytes that were."""
        freed = 0
        for copy in sorted(self._copies(), key=lambda copy: copy.opened_s):
            if freed >= num_bytes:
                break
            Path(copy.path).unlink(missing_ok=True)
            freed += copy.size
        return freed

    def _copies(self) -> Iterator["_Copy"]:
        for folder, _, names in os.walk(self._root / "stores"):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(path := os.path.join(folder, name))
                    yield _Copy(path, status.st_size, max(status.st_atime, status.st_mtime))
        for path in (self._root / "partial").glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        """One process and thread at a time; given back by the system where the process is killed."""
        file = self._root / "locks" / str(zlib.crc32(name.encode()) % _NUM_LOCKS)
        file.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
            except OSError as error:
                # Without locks (some network file systems) a file may be downloaded twice, which is only slower.
                if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                    raise
            yield
        finally:
            # Closing alone would leave the lock to a process that was forked meanwhile.
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)


@dataclass(frozen=True)
class _Copy:
    path: str
    size: int
    opened_s: float
