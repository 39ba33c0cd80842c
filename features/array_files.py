"""The files of one stored array: opened on this machine wherever the store lies, and named where something is wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from features.commits import FileStamp
from features.durable import ABSENT, unreadable
from features.mapped_files import FILES, MappedFile
from features.places import Place
from vjepa_loc.errors import CorruptStoreError, StoreError

_T = TypeVar("_T")


class ArrayFiles:
    """Where one array lies and how to say what is wrong with it.

    `group` is the folder of its video relative to the store; `stamps` are those of the video's files, by name below it.
    Files are named relative to the array's folder.
    """

    def __init__(self, video_id: str, name: str, place: Place, group: str, stamps: dict[str, FileStamp]):
        self.name = name
        self._video_id = video_id
        self._place = place
        self._folder = f"{group}/{name}"
        self._stamps = stamps

    def error(self, file: str, what: str) -> CorruptStoreError:
        """What is wrong in a file, or with "" in the array."""
        name = f"{self._folder}/{file}".rstrip("/")
        done = self._place.forget(name) if file else ""
        return CorruptStoreError(
            f"video {self._video_id!r}, array {self.name!r}: {what} in {self._place.where(name)}; "
            f"{done and f'{done}; '}the other videos are not concerned, `cli.py store repair` extracts this one again"
        )

    def stamp(self, file: str) -> FileStamp:
        """What the commit says about a file."""
        try:
            return self._stamps[f"{self.name}/{file}"]
        except KeyError:
            raise self.error(file, "a file that the commit does not name") from None

    def map(self, file: str) -> MappedFile:
        """A file, opened now, its size checked against the commit."""
        size = self.stamp(file).size
        try:
            mapped = self._open(file, lambda path: FILES.open(str(path)))
        except ValueError as error:
            raise self.error(file, f"unreadable file ({error})") from None
        if mapped.size != size:
            raise self.error(file, f"expected {size} bytes, got {mapped.size}")
        return mapped

    def check_whole(self, file: str, mapped: MappedFile) -> None:
        """Raises for a file that was cut while it was open."""
        if not mapped.is_whole():
            raise self.error(file, f"expected {mapped.size} bytes, got fewer: it was cut while it was open,")

    def read_bytes(self, file: str) -> bytes:
        """As `map`, for a small file that is needed whole."""
        data, size = self._open(file, Path.read_bytes), self.stamp(file).size
        if len(data) != size:
            raise self.error(file, f"expected {size} bytes, got {len(data)}")
        return data

    def fetch_soon(self, file: str) -> bool:
        """Whether a file is on this machine; where it is not, fetching it begins."""
        return self._place.fetch_soon(f"{self._folder}/{file}", self.stamp(file))

    def local_folder(self) -> Path:
        """The array's folder on this machine, with all files that were committed."""
        below = {name: stamp for name, stamp in self._stamps.items() if name.startswith(f"{self.name}/")}
        group = self._folder.removesuffix(f"/{self.name}")
        return self._place.local_folder(group, below) / self.name

    def _open(self, file: str, opened: Callable[[Path], _T]) -> _T:
        stamp = self.stamp(file)
        try:
            return open_local(self._place, f"{self._folder}/{file}", stamp, opened)
        except StoreError:
            raise
        except OSError as error:
            if error.errno in ABSENT:
                raise self.error(file, f"unreadable file ({error.strerror})") from None
            raise unreadable(f"video {self._video_id!r}", self._place.where(f"{self._folder}/{file}"), error) from None


def open_local(place: Place, name: str, stamp: FileStamp, opened: Callable[[Path], _T]) -> _T:
    """`opened` of the file on this machine that holds `name`."""
    try:
        return opened(place.local_file(name, stamp))
    except FileNotFoundError:
        # A copy of an object can be evicted before it is opened.
        return opened(place.local_file(name, stamp))
