"""The token store: one folder or URL, one encoding, many videos. `open_store` is its door for readers, `create_or_open_store`
for writers.

What exists is said by the commit records alone (`features/commits.py`); `docs/store-format.md` specifies the layout.
"""

import hashlib
import json
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from features.claims import CLAIM_LEASE_S, Claim, ClaimFolder, machine_name
from features.commits import Commit, CommitFolder, FileStamp, VideoSummary
from features.checksum import crc32c_hex
from features.durable import storage_errors
from features.ledger import Ledger
from features.manifest import Manifest
from features.places import Place, place_of
from features.schema import Encoding, Storage, canonical_json
from features.step_array import Verify
from features.stored_video import StoredVideo
from features.zarr_layout import FORMAT_VERSION, group_metadata, metadata_bytes, root_attributes
from vjepa_loc.errors import ConfigError, CorruptStoreError, StoreError, StoreMismatchError, nearest_name

if TYPE_CHECKING:
    from features.store_writer import VideoWriter
    from features.verify import VerifyReport

ROOT_FILE = "tokens.zarr/zarr.json"


def open_store(path: Path | str, verify: Verify = "first") -> "Store":
    """Opens an existing store.

    `verify` says when a chunk's crc32c is checked: "first" (when it is first read), "always", or "never". Raises
    `StoreError` where there is no store, `CorruptStoreError` where its root is damaged.
    """
    return Store(place_of(path), Storage(), verify)


def create_or_open_store(
    path: Path | str, encoding: Encoding, storage: Storage | None = None, verify: Verify = "first"
) -> "Store":
    """Opens the store of `encoding` at `path`, made first where there is none; `storage` holds for the videos written
    from now on.

    Raises `StoreMismatchError` with both values where the store is of another encoding, `StoreError` for a folder that
    holds something else or cannot be written.
    """
    place = place_of(path)
    store = _find(place, encoding, storage, verify)
    if store is None:
        _create(place, encoding)
        store = _find(place, encoding, storage, verify)
    return store


def find_store(
    path: Path | str, encoding: Encoding, storage: Storage | None = None, verify: Verify = "first"
) -> "Store | None":
    """As `create_or_open_store`, but None where there is no store; writes nothing."""
    return _find(place_of(path), encoding, storage, verify)


def _find(place: Place, encoding: Encoding, storage: Storage | None, verify: Verify) -> "Store | None":
    if place.entry(ROOT_FILE) is None:
        return None
    store = Store(place, storage or Storage(), verify)
    if differences := store.encoding.diff(encoding):
        raise StoreMismatchError(
            f"the store {place.path} holds another encoding than the one asked for: {'; '.join(differences)} "
            "(store != asked for); one store has one encoding: choose another store, or the settings that this one was made with"
        )
    return store


@dataclass(frozen=True)
class PlannedStore:
    """A store that is not there yet: where it would be, and what it would hold. `path` and `place` as in `Store`."""

    path: Path | str
    place: Place
    encoding: Encoding
    storage: Storage

    def summaries(self) -> dict[str, VideoSummary]:
        return {}


def find_or_plan_store(path: Path | str, encoding: Encoding, storage: Storage | None = None) -> "Store | PlannedStore":
    """As `find_store`, but a plan where there is no store; writes nothing."""
    place = place_of(path)
    return _find(place, encoding, storage, "first") or PlannedStore(place.path, place, encoding, storage or Storage())


@contextmanager
def temporary_store(encoding: Encoding, storage: Storage | None = None, parent: Path | str | None = None) -> Iterator["Store"]:
    """A store that is removed at the end: what is read from it is, to the bit, what a kept store would give.

    `parent` is an existing folder with room for the tokens; by default the system's folder for temporary files.
    """
    with tempfile.TemporaryDirectory(prefix="vjepa_loc_", dir=parent) as folder:
        yield create_or_open_store(Path(folder) / "store", encoding, storage)


class Store:
    """An open store; made by `open_store` or `create_or_open_store`.

    `encoding` and `fingerprint` say what its tokens are, `storage` how new videos will be written. `path` is the folder or
    the URL, `place` its files.
    """

    def __init__(self, place: Place, storage: Storage, verify: Verify = "first"):
        self.path = place.path
        self.place = place
        self.storage = storage
        self._verify = verify
        self._commits = CommitFolder(place)
        self._videos: dict[str, StoredVideo] = {}
        self.encoding, self.root_stamp = _read_root(place)
        self.fingerprint = self.encoding.fingerprint

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r}, fingerprint {self.fingerprint[:12]})"

    def __contains__(self, video_id: str) -> bool:
        """Whether a valid commit says that the video exists; read from the disk each time."""
        return self._commits.get(video_id) is not None

    def video_ids(self) -> list[str]:
        """The ids of all committed videos, sorted."""
        return list(self.summaries())

    def summaries(self) -> dict[str, VideoSummary]:
        """Video id -> what listings show, sorted by id; opens no video."""
        return self._manifest.summaries()

    def commit_of(self, video_id: str) -> Commit | None:
        """The commit record of a video, None where it is absent or damaged."""
        return self._commits.get(video_id)

    def video(self, video_id: str) -> StoredVideo:
        """Opens a video as it is committed now; an object that was opened earlier goes on reading what it found then.

        Raises `StoreError` for an id that is not in the store, `CorruptStoreError` where a file is missing or has
        another size.
        """
        file = self._commits.file(video_id)
        try:
            commit = self._commits.load(file)
        except FileNotFoundError:
            ids = self.video_ids()
            raise StoreError(
                f"the store {self.path} has no video {video_id!r}; it has {len(ids)}, `cli.py store list` shows them."
                f"{nearest_name(video_id, ids)}"
            ) from None
        opened = self._videos.get(video_id)
        if opened is None or opened.commit != commit:
            opened = self._videos[video_id] = StoredVideo(self.place, commit, self._verify)
        return opened

    def info(self) -> dict[str, Any]:
        """What `store info --json` prints."""
        return {
            "fingerprint": self.fingerprint,
            "encoding": self.encoding.to_dict(),
            "videos": {video_id: summary.to_dict() for video_id, summary in self.summaries().items()},
        }

    def writer(
        self, video_id: str, grid: Sequence[int], valid_HW: np.ndarray | None = None, *,
        num_steps: int | None = None, replace: bool = False, claim: Claim | None = None,
    ) -> "VideoWriter":
        """A `VideoWriter` for one video: `grid` (H, W) cells, `valid_HW` False in letterbox bars, `num_steps` where
        known.

        With `replace` the video's present commit, if any, is replaced by the new one, under `claim` or a claim taken
        here; the old generation stays for its readers until `store gc`. Without, a video that exists already wins at
        `commit`.
        """
        from features.store_writer import VideoWriter

        if replace and claim is None:
            claim = self.claim(video_id)
            if claim is None:
                raise StoreError(
                    f"video {video_id!r} in {self.path} is being written by another process; "
                    f"wait for it, or remove {self.place.where('claims')} where it does not run any more"
                )
        try:
            replaced = self._commits.get(video_id) if replace else None
            return VideoWriter(
                self, video_id, grid, valid_HW, storage=self.storage, num_steps=num_steps, replaced=replaced, claim=claim
            )
        except BaseException:
            if claim is not None:
                claim.release()
            raise

    def claim(self, video_id: str, lease_s: float = CLAIM_LEASE_S) -> Claim | None:
        """A lease on a video, None while another worker holds it. It saves work and is never needed: of two workers
        that do the same video the first commit counts. Given to `writer`, it is renewed with every append.
        """
        return ClaimFolder(self.place).acquire(video_id, lease_s)

    def verify(self, video_ids: Sequence[str] | None = None) -> "VerifyReport":
        """Checks every byte of the given videos (all by default); see `features.verify`."""
        from features.verify import verify_store

        return verify_store(self.path, video_ids)

    @cached_property
    def ledger(self) -> Ledger:
        """One line per attempt; written to by whoever extracts."""
        return Ledger(self.place, self.writer_name)

    def note_commit(self, commit: Commit) -> None:
        """Tells the manifest about a commit that was just made."""
        self._manifest.add(commit)

    @cached_property
    def _manifest(self) -> Manifest:
        return Manifest(self.place, self.writer_name)

    @cached_property
    def writer_name(self) -> str:
        """Names this object among all that ever wrote: its files in `ledger/`, `manifest/` and `workers/`."""
        return f"{machine_name()}-{secrets.token_hex(4)}"


def _create(place: Place, encoding: Encoding) -> None:
    with storage_errors("making the store", place.path):
        place.make()
        # Whoever is first decides the encoding; the other one is told by the comparison that follows.
        place.create(ROOT_FILE, metadata_bytes(group_metadata(root_attributes(encoding))))


def _read_root(place: Place) -> tuple[Encoding, FileStamp]:
    path, file = place.path, place.where(ROOT_FILE)
    try:
        raw = place.read(ROOT_FILE)
    except (FileNotFoundError, NotADirectoryError):
        what = "is not a store" if isinstance(path, Path) and path.exists() else "does not exist"
        raise StoreError(
            f"the store {path} {what}: there is no {file}; `cli.py extract` makes one (`--store` says where)"
        ) from None
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"cannot read the store {path}: {file}: {error.strerror}") from None
    try:
        attributes = json.loads(raw)["attributes"]
        if attributes["format"] != "vjepa_loc_store":
            raise KeyError(attributes["format"])
        version, encoding, fingerprint = attributes["version"], attributes["encoding"], attributes["fingerprint"]
    except (ValueError, KeyError, TypeError):
        raise CorruptStoreError(
            f"{file} is not the root of a token store, or is damaged; restore it from a copy of the store"
        ) from None
    if version != FORMAT_VERSION:
        raise StoreError(
            f"the store {path} has format version {version!r}, this program reads {FORMAT_VERSION}; use a matching version"
        )
    found = hashlib.sha256(canonical_json(encoding)).hexdigest()
    if found != fingerprint:
        raise CorruptStoreError(
            f"{file} is damaged: its encoding has the fingerprint {found}, recorded {fingerprint}; restore it from a copy"
        )
    try:
        return Encoding.from_dict(encoding), FileStamp(len(raw), crc32c_hex(raw))
    except ConfigError as error:
        raise CorruptStoreError(f"{file} holds an encoding that this version does not know: {error}") from None
