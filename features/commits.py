"""Commit records: the one truth about which videos a store holds.

A video exists when `commits/<key>.json` is valid; whatever else lies in the store is invisible. The record names the
folder of the video's generation and the size and crc32c of every file that reading it touches, metadata included. It is
created by a hard link or a conditional put, so the first of several writers wins; a record that is damaged counts as
absent.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from features.checksum import crc32c_hex
from features.durable import storage_errors
from features.places import Entry, Place
from features.schema import Storage
from vjepa_loc.errors import CorruptStoreError, StoreError, VjepaLocError

COMMIT_VERSION = 1
KEY_BYTES = 120
_FOLDER = "commits"
_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-")
_CAPITAL = re.compile(rb"[A-Z]")
_SEAL = re.compile(rb',"crc32c":"([0-9a-f]{8})"}\n')
_GENERATION = re.compile("[0-9a-z]+")
_SEAL_BYTES = len(b',"crc32c":"01234567"}\n')


def key_of(video_id: str) -> str:
    """The name of a video's files: readable, at most 137 bytes, and distinct on file systems that ignore case.

    Percent-encoded UTF-8, cut at 120 bytes; where it was cut, or the id holds one of A-Z, `~` and 16 digits of the id's
    sha256 follow. Raises `StoreError` for an id that is empty or not Unicode.
    """
    try:
        raw = video_id.encode()
    except UnicodeEncodeError:
        raise StoreError(f"the video id {video_id!r} is not valid Unicode; rename it in the dataset") from None
    if not raw:
        raise StoreError("a video id is empty; every video of the dataset needs one")
    key = "".join(chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in raw)
    if len(key) <= KEY_BYTES and not _CAPITAL.search(raw):
        return key
    return f"{key[:KEY_BYTES]}~{hashlib.sha256(raw).hexdigest()[:16]}"


def seal(record: dict[str, Any]) -> bytes:
    """One line of JSON whose last entry, `crc32c`, covers every byte before it."""
    body = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()[:-1]
    return body + f',"crc32c":"{crc32c_hex(body)}"}}\n'.encode()


def unseal(raw: bytes) -> dict[str, Any]:
    """The inverse of `seal`. Raises `ValueError` where a byte is missing or changed."""
    body, tail = raw[:-_SEAL_BYTES], raw[-_SEAL_BYTES:]
    match = _SEAL.fullmatch(tail)
    if match is None:
        raise ValueError("it is cut off")
    found = crc32c_hex(body)
    if match[1].decode() != found:
        raise ValueError(f"its crc32c is {found}, recorded {match[1].decode()}")
    return json.loads(body + b"}")


class FileStamp(NamedTuple):
    """What a committed file must be: its size in bytes and its crc32c in hex.

    Data that are followed by their own crc32c give every file of one length the same crc32c. So a file of chunks
    carries `chunks` as well: the crc32c of its chunks' checksums, in the order of the chunks, which tells one content
    from another.
    """

    size: int
    crc32c: str
    chunks: str = ""

    def to_list(self) -> list[int | str]:
        return list(self if self.chunks else self[:2])


@dataclass(frozen=True)
class VideoSummary:
    """What listings say about a video, in the words of `store info --json`. `bytes` counts the files of its generation.
    """

    num_frames: int
    width: int
    height: int
    steps: int
    grid: tuple[int, int]
    bytes: int
    damaged: bool

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "grid": list(self.grid)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "VideoSummary":
        return cls(**{**values, "grid": tuple(values["grid"])})


@dataclass(frozen=True)
class Commit:
    """One committed video. `path` and the names in `files` are relative to `tokens.zarr`."""

    video_id: str
    path: str
    storage: Storage
    summary: VideoSummary
    files: dict[str, FileStamp]

    def to_bytes(self) -> bytes:
        return seal({
            "version": COMMIT_VERSION,
            "id": self.video_id,
            "path": self.path,
            "storage": self.storage.to_dict(),
            "video": self.summary.to_dict(),
            "files": {name: stamp.to_list() for name, stamp in self.files.items()},
        })

    @classmethod
    def from_bytes(cls, raw: bytes) -> "Commit":
        """Raises `ValueError` saying why these bytes are no valid commit."""
        record = unseal(raw)
        if record.get("version") != COMMIT_VERSION:
            raise ValueError(f"its version is {record.get('version')!r}, this program reads {COMMIT_VERSION}")
        try:
            commit = cls(
                video_id=record["id"],
                path=record["path"],
                storage=Storage.from_dict(record["storage"]),
                summary=VideoSummary.from_dict(record["video"]),
                files={name: FileStamp(*stamp) for name, stamp in record["files"].items()},
            )
        except (KeyError, TypeError, VjepaLocError) as error:
            raise ValueError(f"it is incomplete ({error})") from None
        folder, _, generation = commit.path.rpartition("/")
        if folder != f"videos/{key_of(commit.video_id)}" or not _GENERATION.fullmatch(generation):
            raise ValueError(f"its path {commit.path!r} does not belong to the id {commit.video_id!r}")
        return commit

    @property
    def generation_files(self) -> dict[str, FileStamp]:
        """The stamps of the video's own files, by name below its generation folder."""
        prefix = self.path + "/"
        return {name.removeprefix(prefix): stamp for name, stamp in self.files.items() if name.startswith(prefix)}


class CommitFolder:
    """`commits/` of one store."""

    def __init__(self, place: Place):
        self._place = place

    def file(self, video_id: str) -> str:
        """The name of a video's record, relative to the store."""
        return f"{_FOLDER}/{key_of(video_id)}.json"

    def files(self) -> list[Entry]:
        """The record files, in the order of their names."""
        return [entry for entry in self._place.entries(_FOLDER) if entry.name.endswith(".json")]

    def load(self, file: str) -> Commit:
        """Raises `CorruptStoreError` for an invalid record, `FileNotFoundError` where there is none."""
        return self.parse(file, self._place.read(file))

    def parse(self, file: str, raw: bytes) -> Commit:
        """The commit that `file` holds. Raises `CorruptStoreError` for an invalid record."""
        try:
            commit = Commit.from_bytes(raw)
            if self.file(commit.video_id) != file:
                raise ValueError(f"it belongs to the id {commit.video_id!r}")
        except ValueError as error:
            where = self._place.where(file)
            raise CorruptStoreError(
                f"the commit record {where} is damaged: {error}; its video counts as absent until it is extracted again"
            ) from None
        return commit

    def get(self, video_id: str) -> Commit | None:
        """The commit of a video; None where it is absent or damaged."""
        return self._current(video_id)[0]

    def create(self, commit: Commit) -> bool:
        """Makes a staged video visible unless a valid commit of the same id is there already: True if this one counts.
        """
        return self._write(commit, None)

    def replace(self, commit: Commit, replaced: Commit | None) -> bool:
        """As `create`, but over the commit `replaced`; False where another writer has changed it meanwhile.

        The caller holds the video's claim. In a folder without one two writers could both succeed, the later one being
        kept.
        """
        return self._write(commit, replaced)

    def _write(self, commit: Commit, replaced: Commit | None) -> bool:
        file, raw = self.file(commit.video_id), commit.to_bytes()
        with storage_errors(f"committing video {commit.video_id!r}", self._place.path):
            if replaced is None and self._place.create(file, raw):
                return True
            current, version = self._current(commit.video_id)
            if current not in (None, replaced):
                return False
            if version is not None:
                return self._place.replace(file, raw, version)
            # What was there is gone, which nobody but a person does.
            return self._place.create(file, raw)

    def _current(self, video_id: str) -> tuple[Commit | None, str | None]:
        """The commit, None where it is absent or damaged, and the version of its file, None where there is none."""
        file = self.file(video_id)
        try:
            raw, version = self._place.read_versioned(file)
        except FileNotFoundError:
            return None, None
        try:
            return self.parse(file, raw), version
        except CorruptStoreError:
            return None, version
