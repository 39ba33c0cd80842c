"""Where the files of a store lie: in a folder (`local.py`), or as objects of a bucket (`objects.py`).

A `Place` names every file relative to the store ("commits/a.json", "tokens.zarr/videos/..."). Whatever makes a store
safe is asked of it: create a file only if it is not there, replace it only if it is still the one that was read.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from features.commits import Commit, FileStamp


class Entry(NamedTuple):
    """A file as a listing shows it. `version` changes whenever the file is written."""

    name: str
    size: int
    version: str
    modified_s: float


class Tree(NamedTuple):
    """A file or folder that lives or dies as a whole: `idle_s` is the time since anything in it was written."""

    name: str
    idle_s: float


class Place(Protocol):
    """The files of one store. All names are relative to it, with `/`.

    Every method raises `OSError`, of which `StoreError` is one; a file that is not there is a `FileNotFoundError`
    where nothing else is said.
    """

    # For people, and for opening the store again.
    path: Path | str
    # A local folder for unfinished generations, on the disk that has to have room for them.
    staging: Path
    # Whether a line can be added to a file without writing all of it.
    appends: bool
    # Whether a write that failed is known not to have happened: not so where only its answer was lost.
    knows_outcome: bool

    def where(self, name: str) -> str:
        """The full name of a file, for messages."""

    def make(self) -> None:
        """Makes an empty store's folders. Raises `StoreError` where something else is there already."""

    def missing_folders(self) -> list[str]:
        """Folders that every store has and this one has not; in object storage there are none to miss."""

    def read(self, name: str) -> bytes: ...

    def read_versioned(self, name: str) -> tuple[bytes, str]:
        """The bytes and the version that `replace` takes."""

    def read_many(self, names: Iterable[str]) -> Iterator[bytes | None]:
        """The bytes of several files, in their order; None for one that is not there."""

    def entry(self, name: str) -> Entry | None:
        """None where there is no such file."""

    def entries(self, folder: str) -> list[Entry]:
        """The files directly in a folder, in the order of their names; none where there is no such folder."""

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        """The sizes in bytes of those files that are there."""

    def local_file(self, name: str, stamp: "FileStamp") -> Path:
        """A file on this machine with the committed bytes of `name`, which may be mapped.

        In a folder it is the file itself, whether it is there or not. An object is downloaded on first need and checked
        against `stamp`: `CorruptStoreError` where it is not there or another.
        """

    def local_folder(self, folder: str, stamps: dict[str, "FileStamp"]) -> Path:
        """As `local_file`, for all the files of these names below `folder`."""

    def fetch_soon(self, name: str, stamp: "FileStamp") -> bool:
        """Whether `local_file` would answer at once; where not, a thread begins to make it so."""

    def forget(self, name: str) -> str:
        """Told that `name`, as `local_file` gave it, is damaged: what was done about it, for the message."""

    def folder_of(self, commit: "Commit") -> AbstractContextManager[Path]:
        """A folder that holds the true bytes of one video under their names, files that nobody committed included."""

    def copy_out(self, name: str, target: Path) -> tuple[int, str]:
        """Copies the true bytes into the new file `target`: their size and crc32c in hex."""

    def create(self, name: str, data: bytes, durable: bool = True) -> bool:
        """A new file, all of it or nothing: False, and nothing done, where there is one."""

    def replace(self, name: str, data: bytes, version: str | None = None, durable: bool = True) -> bool:
        """Writes a file, all of it or nothing. With `version`: False, and nothing done, where it is another one now."""

    def append_line(self, folder: str, writer: str, line: bytes) -> None:
        """Adds a line, or nothing, to what `writer`, which nobody else is, has written into `folder`."""

    def renew(self, name: str) -> None:
        """The file was written just now, as far as its age goes; nothing where it is gone."""

    def publish(self, staged: Path, generation: str) -> None:
        """Moves a staged folder to `generation` ("tokens.zarr/videos/<key>/<generation>"), durably, and makes the
        groups above it. `staged` may be gone afterwards.
        """

    def renew_generation(self, generation: str) -> None:
        """The generation is old enough for `gc` only when the time that it has counts from now."""

    def generations(self) -> list[Tree]:
        """All generations, whether a commit names them or not."""

    def staged(self) -> list[Tree]:
        """What lies in staging."""

    def remove(self, name: str) -> None:
        """Removes a file; nothing where there is none."""

    def tree_bytes(self, name: str) -> int:
        """The bytes of a file, or of everything below a folder."""

    def remove_tree(self, name: str) -> None:
        """Removes a file, or everything below a folder; nothing where there is none."""


def place_of(path: Path | str) -> Place:
    """The place that a path or URL names. Raises `StoreError` for a URL of another kind than s3:// and gs://."""
    if "://" in str(path):
        from features.places.objects import ObjectPlace

        return ObjectPlace.of_url(str(path))
    from features.places.local import LocalPlace

    # An open store goes on reading wherever the program goes.
    return LocalPlace(Path(path).absolute())
