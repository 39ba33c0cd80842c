"""A store in a folder. Creating is a hard link and replacing a rename, so nobody ever sees a part of a file."""

import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from features.checksum import crc32c
from features.durable import create_exclusively, replace_file, sync_folder, sync_tree, write_all
from features.places import Entry, Tree
from features.zarr_layout import GROUP_BYTES
from vjepa_loc.errors import StoreError

if TYPE_CHECKING:
    from features.commits import Commit, FileStamp

FOLDERS = ("tokens.zarr", "commits", "manifest", "ledger", "claims", "staging", "workers")
_COPY_BYTES = 1 << 23


class LocalPlace:
    """See `Place`."""

    appends = True
    knows_outcome = True

    def __init__(self, path: Path):
        self.path = path
        self.staging = path / "staging"

    def where(self, name: str) -> str:
        return str(self.path / name)

    def make(self) -> None:
        path = self.path
        if path.exists() and (not path.is_dir() or {entry.name for entry in path.iterdir()} - set(FOLDERS)):
            raise StoreError(f"{path} exists and is not a store; choose another path for the store, or an empty folder")
        path.mkdir(parents=True, exist_ok=True)
        for name in FOLDERS:
            (path / name).mkdir(exist_ok=True)
        sync_folder(path)

    def missing_folders(self) -> list[str]:
        return [name for name in ("commits", "tokens.zarr") if not (self.path / name).is_dir()]

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def read_versioned(self, name: str) -> tuple[bytes, str]:
        with open(self.path / name, "rb") as file:
            return file.read(), _version(os.fstat(file.fileno()))

    def read_many(self, names: Iterable[str]) -> Iterator[bytes | None]:
        for name in names:
            try:
                yield self.read(name)
            except FileNotFoundError:
                yield None

    def entry(self, name: str) -> Entry | None:
        try:
            return _entry(name, os.stat(self.path / name))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def entries(self, folder: str) -> list[Entry]:
        found = []
        try:
            with os.scandir(self.path / folder) as files:
                for file in files:
                    if file.is_file():
                        found.append(_entry(f"{folder}/{file.name}", file.stat()))
        except FileNotFoundError:
            return []
        return sorted(found)

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        found, root = {}, str(self.path)
        for name in names:
            try:
                found[name] = os.stat(f"{root}/{name}").st_size
            except (FileNotFoundError, NotADirectoryError):
                continue
        return found

    def local_file(self, name: str, stamp: "FileStamp") -> Path:
        return self.path / name

    def local_folder(self, folder: str, stamps: dict[str, "FileStamp"]) -> Path:
        return self.path / folder

    def fetch_soon(self, name: str, stamp: "FileStamp") -> bool:
        return True

    def forget(self, name: str) -> str:
        return ""

    @contextmanager
    def folder_of(self, commit: "Commit") -> Iterator[Path]:
        yield self.path

    def copy_out(self, name: str, target: Path) -> tuple[int, str]:
        crc = size = 0
        with open(self.path / name, "rb", buffering=0) as file, open(target, "xb", buffering=0) as copy:
            while block := file.read(_COPY_BYTES):
                crc = crc32c(block, crc)
                size += len(block)
                write_all(copy.fileno(), block)
        return size, f"{crc:08x}"

    def create(self, name: str, data: bytes, durable: bool = True) -> bool:
        path = self.path / name
        # One level: where the store itself has vanished nothing must grow in its place.
        path.parent.mkdir(exist_ok=True)
        return create_exclusively(path, data, self._temporary(), durable)

    def replace(self, name: str, data: bytes, version: str | None = None, durable: bool = True) -> bool:
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        # Between this look and the rename another could write: who replaces a commit holds its claim.
        if version is not None and ((now := self.entry(name)) is None or now.version != version):
            return False
        replace_file(path, data, self._temporary(), durable)
        return True

    def append_line(self, folder: str, writer: str, line: bytes) -> None:
        path = self.path / folder / f"{writer}.jsonl"
        path.parent.mkdir(exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(fd).st_size
            try:
                write_all(fd, line)
            except OSError:
                os.ftruncate(fd, size)
                raise
        finally:
            os.close(fd)

    def renew(self, name: str) -> None:
        try:
            os.utime(self.path / name)
        except FileNotFoundError:
            return

    def publish(self, staged: Path, generation: str) -> None:
        final = self.path / generation
        videos = final.parent.parent
        self._make_group(videos, durable=True)
        # The sync below takes this one along.
        self._make_group(final.parent, durable=False)
        os.rename(staged, final)
        sync_tree(final.parent)
        sync_folder(videos)

    def renew_generation(self, generation: str) -> None:
        self.renew(generation)

    def generations(self) -> list[Tree]:
        folders = sorted((self.path / "tokens.zarr" / "videos").glob("*/*/"))
        # Looking at the folder is enough: moving it into place was the last that happened to it.
        return [Tree(str(folder.relative_to(self.path)), _idle_s(folder)) for folder in folders]

    def staged(self) -> list[Tree]:
        return [
            Tree(f"staging/{path.name}", min(_idle_s(inner) for inner in [path, *path.rglob("*")]))
            for path in sorted(self.staging.glob("*"))
        ]

    def tree_bytes(self, name: str) -> int:
        path = self.path / name
        if not path.is_dir():
            return path.stat().st_size if path.exists() else 0
        return sum(os.path.getsize(os.path.join(folder, file)) for folder, _, files in os.walk(path) for file in files)

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def remove_tree(self, name: str) -> None:
        path = self.path / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def _make_group(self, folder: Path, durable: bool) -> None:
        folder.mkdir(exist_ok=True)
        file = folder / "zarr.json"
        if not file.exists() or file.read_bytes() != GROUP_BYTES:
            replace_file(file, GROUP_BYTES, self._temporary(), durable)

    def _temporary(self) -> Path:
        self.staging.mkdir(exist_ok=True)
        return self.staging / f"new-{secrets.token_hex(8)}"


def _version(status: os.stat_result) -> str:
    return str(status.st_mtime_ns)


def _entry(name: str, status: os.stat_result) -> Entry:
    return Entry(name, status.st_size, _version(status), status.st_mtime)


def _idle_s(path: Path) -> float:
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0.0
    # Moving a folder into place changes its ctime only.
    return time.time() - max(status.st_mtime, status.st_ctime)
