"""The files of a video before it exists, and the one step that makes it exist.

A generation is made in a local folder (the store's `staging/`, where the store is one), brought to its place, and
committed; wherever that stops, what is left is invisible.
"""

import contextlib
import secrets
import shutil
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from features.checksum import CRC_BYTES, crc32c_hex, with_crc32c
from features.claims import Owner
from features.commits import Commit, CommitFolder, FileStamp, VideoSummary, key_of
from features.durable import make_folders, storage_errors, write_new
from features.schema import Storage, VideoMeta, canonical_json
from features.zarr_layout import GROUP_BYTES

if TYPE_CHECKING:
    from features.store import Store


class StagedVideo:
    """The files of one generation while they are made, in `staging/<generation>/video`; `publish` makes them visible.
    """

    def __init__(self, store: "Store", video_id: str):
        self.video_id = video_id
        self.generation = secrets.token_hex(8)
        self.stamps: dict[str, FileStamp] = {}
        self._store = store
        self._folder = store.place.staging / self.generation
        self.path = self._folder / "video"
        with storage_errors(f"starting video {video_id!r}", store.path):
            try:
                make_folders(self.path, store.place.staging.parent)
                (self._folder / "owner.json").write_bytes(canonical_json(asdict(Owner.this_process())))
            except BaseException:
                self.discard()
                raise

    def write_chunk(self, name: str, data: bytes) -> None:
        """The file of an array that is one chunk: `data` and its crc32c."""
        self.write(name, with_crc32c(data))
        self.stamps[name] = self.stamps[name]._replace(chunks=crc32c_hex(with_crc32c(data)[-CRC_BYTES:]))

    def write(self, name: str, data: bytes) -> None:
        """One small file, below the generation's folder; `publish` syncs it."""
        path = self.path / name
        make_folders(path.parent, self.path)
        write_new(path, data, durable=False)
        self.stamps[name] = FileStamp(len(data), crc32c_hex(data))

    def publish(self, storage: Storage, meta: VideoMeta, num_steps: int, replaced: Commit | None) -> bool:
        """Moves the files into place and commits them. False, and nothing kept, where another writer was first."""
        summary = VideoSummary(
            meta.num_frames, meta.width, meta.height, num_steps, meta.grid,
            sum(stamp.size for stamp in self.stamps.values()), meta.damaged,
        )
        commit = commit_of_files(self._store, self.video_id, self.generation, storage, summary, self.stamps)
        place = self._store.place
        with storage_errors(f"storing video {self.video_id!r}", self._store.path):
            visible = publish_commit(
                self._store, commit, replaced, lambda generation: place.publish(self.path, generation)
            )
        self.discard()
        return visible

    def discard(self) -> None:
        """Removes what is left in `staging/`."""
        shutil.rmtree(self._folder, ignore_errors=True)


def commit_of_files(
    store: "Store", video_id: str, generation: str, storage: Storage, summary: VideoSummary, stamps: dict[str, FileStamp]
) -> Commit:
    """The commit of a generation whose files, by name below it, have these stamps."""
    key = key_of(video_id)
    stamp = FileStamp(len(GROUP_BYTES), crc32c_hex(GROUP_BYTES))
    return Commit(
        video_id=video_id,
        path=f"videos/{key}/{generation}",
        storage=storage,
        summary=summary,
        files={
            "zarr.json": store.root_stamp,
            "videos/zarr.json": stamp,
            f"videos/{key}/zarr.json": stamp,
            **{f"videos/{key}/{generation}/{name}": stamp for name, stamp in sorted(stamps.items())},
        },
    )


def publish_commit(
    store: "Store", commit: Commit, replaced: Commit | None, put_in_place: Callable[[str], object]
) -> bool:
    """`put_in_place` is given the folder of the generation and brings its files there; then they are committed.

    False, and the files removed, where another writer was first.
    """
    place, commits = store.place, CommitFolder(store.place)
    generation = f"tokens.zarr/{commit.path}"
    visible = None
    try:
        put_in_place(generation)
        visible = commits.replace(commit, replaced)
    finally:
        # Also where committing was interrupted: the record in the store decides, not how far this program came. Where
        # the record may still arrive, `gc` does it later.
        if visible is False or (visible is None and place.knows_outcome):
            # What is left where even this fails is debris, and not what the caller has to hear of.
            with contextlib.suppress(OSError):
                current = commits.get(commit.video_id)
                if current is None or current.path != commit.path:
                    place.remove_tree(generation)
    if visible:
        store.note_commit(commit)
        if replaced is not None:
            # The old generation is kept for its readers: its lease counts from now, if it is still there and ours.
            with contextlib.suppress(OSError):
                place.renew_generation(f"tokens.zarr/{replaced.path}")
    return visible
