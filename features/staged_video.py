"""The files of a video before it exists, and the one step that makes it exist.

A generation is made in `staging/`, moved to its place, synced, and committed; wherever that stops, what is left is
invisible.
"""

import contextlib
import os
import secrets
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from features.checksum import CRC_BYTES, crc32c_hex, with_crc32c
from features.claims import Owner
from features.commits import Commit, CommitFolder, FileStamp, VideoSummary, key_of
from features.durable import (
    replace_file, storage_errors, sync_folder, sync_tree, write_new,
)
from features.schema import Storage, VideoMeta, canonical_json
from features.zarr_layout import group_metadata, metadata_bytes

if TYPE_CHECKING:
    from features.store import Store

GROUP_BYTES = metadata_bytes(group_metadata({}))


class StagedVideo:
    """The files of one generation while they are made, in `staging/<generation>/video`; `publish` makes them visible.
    """

    def __init__(self, store: "Store", video_id: str):
        self.video_id = video_id
        self.generation = secrets.token_hex(8)
        self.stamps: dict[str, FileStamp] = {}
        self._store = store
        self._folder = store.path / "staging" / self.generation
        self.path = self._folder / "video"
        with storage_errors(f"starting video {video_id!r}", store.path):
            self.path.mkdir(parents=True)
            (self._folder / "owner.json").write_bytes(canonical_json(asdict(Owner.this_process())))

    def write_chunk(self, name: str, data: bytes) -> None:
        """The file of an array that is one chunk: `data` and its crc32c."""
        self.write(name, with_crc32c(data))
        self.stamps[name] = replace(self.stamps[name], chunks=crc32c_hex(with_crc32c(data)[-CRC_BYTES:]))

    def write(self, name: str, data: bytes) -> None:
        """One small file, below the generation's folder; `publish` syncs it."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_new(path, data, durable=False)
        self.stamps[name] = FileStamp(len(data), crc32c_hex(data))

    def publish(self, storage: Storage, meta: VideoMeta, num_steps: int, replaced: Commit | None) -> bool:
        """Moves the files into place and commits them. False, and nothing kept, where another writer was first."""
        key = key_of(self.video_id)
        zarr_path = self._store.path / "tokens.zarr"
        final = zarr_path / "videos" / key / self.generation
        stamp = FileStamp(len(GROUP_BYTES), crc32c_hex(GROUP_BYTES))
        commit = Commit(
            video_id=self.video_id,
            path=f"videos/{key}/{self.generation}",
            storage=storage,
            summary=VideoSummary(
                meta.num_frames, meta.width, meta.height, num_steps, meta.grid,
                sum(stamp.size for stamp in self.stamps.values()), meta.damaged,
            ),
            files={
                "zarr.json": self._store.root_stamp,
                "videos/zarr.json": stamp,
                f"videos/{key}/zarr.json": stamp,
                **{f"videos/{key}/{self.generation}/{name}": stamp for name, stamp in sorted(self.stamps.items())},
            },
        )
        try:
            with storage_errors(f"storing video {self.video_id!r}", self._store.path):
                self._make_group(zarr_path / "videos", durable=True)
                # The sync below takes this one along.
                self._make_group(final.parent, durable=False)
                os.rename(self.path, final)
                sync_tree(final.parent)
                sync_folder(zarr_path / "videos")
            visible = CommitFolder(self._store.path).replace(commit, replaced)
        finally:
            self._remove_unless_committed(commit, final)
        self.discard()
        if visible:
            self._store.note_commit(commit)
            if replaced is not None:
                # The old generation is kept for its readers: its lease counts from now, if it is still there and ours.
                with contextlib.suppress(OSError):
                    os.utime(zarr_path / replaced.path)
        return visible

    def discard(self) -> None:
        """Removes what is left in `staging/`."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _remove_unless_committed(self, commit: Commit, final: Path) -> None:
        # Also where committing was interrupted: the record on the disk decides, not how far this program came.
        current = CommitFolder(self._store.path).get(self.video_id)
        if current is None or current.path != commit.path:
            shutil.rmtree(final, ignore_errors=True)

    def _make_group(self, folder: Path, durable: bool) -> None:
        folder.mkdir(exist_ok=True)
        file = folder / "zarr.json"
        if not file.exists() or file.read_bytes() != GROUP_BYTES:
            replace_file(file, GROUP_BYTES, self._folder / "group.json", durable)
