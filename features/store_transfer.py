"""`store push` and `store pull`: the videos of a store into one in object storage, or from there.

Files go as they are, each checked against its commit, under the name of the generation that they have; so a transfer that
was interrupted finds what has arrived already, and its commit comes last. What is committed in the target with other files
is kept, unless it is to be replaced.
"""

import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from features.array_files import open_local
from features.checksum import crc32c
from features.claims import LEASE_S
from features.commits import Commit, CommitFolder, FileStamp
from features.durable import make_folders, readable_size, storage_errors
from features.places.local import LocalPlace
from features.places.parallel import LARGE_AT_ONCE, side_by_side
from features.staged_video import commit_of_files, publish_commit
from features.store import Store
from features.store_copy import open_target
from features.stored_video import StoredVideo
from features.verify_video import exchanged_files
from vjepa_loc.errors import CorruptStoreError, StoreError, nearest_name

_READ_BYTES = 1 << 23
# What an upload left longer ago is not gone on with: `gc` may be about to remove it.
_RESUME_S = LEASE_S / 2
OnVideo = Callable[[int, int], object]


@dataclass
class TransferReport:
    """Video ids: `copied`, `present` (there already with the same files), `different` (there with others, which were
    kept), `busy` (another process is writing them), and `damaged` with the reason. `num_bytes` were sent this time.
    """

    copied: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    num_bytes: int = 0

    @property
    def ok(self) -> bool:
        """Whether the target now holds every video as the source does."""
        return not (self.different or self.busy or self.damaged)

    def summary(self) -> str:
        """One line for people."""
        counts = {name: len(getattr(self, name)) for name in ("copied", "present", "different", "busy", "damaged")}
        told = ", ".join(f"{count} {name}" for name, count in counts.items() if count or name in ("copied", "present"))
        return f"{told}; {readable_size(self.num_bytes)} sent"

    def to_dict(self) -> dict[str, Any]:
        """What `store push --json` prints."""
        return {
            "copied": self.copied, "present": self.present, "different": self.different, "busy": self.busy,
            "damaged": self.damaged, "bytes": self.num_bytes,
        }


def transfer_store(
    source: Store, target_path: Path | str, video_ids: Sequence[str] | None = None, *, replace: bool = False,
    on_video: OnVideo = lambda num_done, num_all: None,
) -> TransferReport:
    """Copies the given videos (all by default) of `source` into the store at `target_path`, a folder or a URL, which is
    made where there is none. With `replace` videos that the target holds with other files are replaced.

    Raises `StoreError` for a video that the source has not, or a disk or service that refuses; `StoreMismatchError` for a
    target of another encoding.
    """
    target = open_target(target_path, [source])
    chosen = source.video_ids() if video_ids is None else list(video_ids)
    commits = _commits(source, chosen)
    for video_id, commit in commits.items():
        if commit is None:
            raise StoreError(
                f"the store {source.path} has no valid video {video_id!r}.{nearest_name(video_id, source.video_ids())}"
            )
    there, report = _commits(target, chosen), TransferReport()
    for number, (video_id, commit) in enumerate(commits.items(), start=1):
        _transfer_video(source, target, commit, there[video_id], replace, report)
        on_video(number, len(commits))
    return report


def _commits(store: Store, video_ids: Sequence[str]) -> dict[str, Commit | None]:
    """The valid commits of these videos, read side by side."""
    commits, found = CommitFolder(store.place), {}
    files = [commits.file(video_id) for video_id in video_ids]
    for video_id, file, raw in zip(video_ids, files, store.place.read_many(files), strict=True):
        try:
            found[video_id] = None if raw is None else commits.parse(file, raw)
        except CorruptStoreError:
            found[video_id] = None
    return found


def _transfer_video(
    source: Store, target: Store, commit: Commit, present: Commit | None, replace: bool, report: TransferReport
) -> None:
    video_id, stamps = commit.video_id, commit.generation_files
    if present is not None and present.generation_files == stamps:
        report.present.append(video_id)
        return
    if present is not None and not replace:
        report.different.append(video_id)
        return
    claim = target.claim(video_id)
    if claim is None:
        report.busy.append(video_id)
        return
    with claim, storage_errors(f"copying video {video_id!r}", target.path, sum(stamp.size for stamp in stamps.values())):
        try:
            if isinstance(target.place, LocalPlace):
                visible = _download(source, target, commit, present, report)
            else:
                visible = _upload(source, target, commit, present, report)
        except CorruptStoreError as error:
            report.damaged[video_id] = str(error)
            return
    (report.copied if visible else report.present).append(video_id)


def _commit_in(target: Store, commit: Commit, generation: str) -> Commit:
    """The commit of a source as `target` will have it."""
    return commit_of_files(target, commit.video_id, generation, commit.storage, commit.summary, commit.generation_files)


def _upload(source: Store, target: Store, commit: Commit, replaced: Commit | None, report: TransferReport) -> bool:
    place, generation = target.place, _generation(commit, replaced)
    idle_s = place.idle_s(f"tokens.zarr/{commit.path}")
    if idle_s is not None and idle_s > _RESUME_S:
        generation = secrets.token_hex(8)
    sent = _commit_in(target, commit, generation)
    stamps = sent.generation_files
    _check_chunks(source, commit)

    def put_in_place(group: str) -> None:
        def send(file: str) -> int:
            return _send(source, f"tokens.zarr/{commit.path}/{file}", stamps[file], target, f"{group}/{file}")

        # First, and whatever is there: from now on `gc` takes the generation for one that is being written.
        report.num_bytes += send("zarr.json")
        there = place.sizes(f"{group}/{file}" for file in stamps)
        missing = [file for file, stamp in stamps.items() if there.get(f"{group}/{file}") != stamp.size]
        report.num_bytes += sum(side_by_side(send, missing, LARGE_AT_ONCE))
        place.check_arrived({f"{group}/{file}": stamp.size for file, stamp in stamps.items()})
        place.make_groups(group)

    return publish_commit(target, sent, replaced, put_in_place)


def _generation(commit: Commit, replaced: Commit | None) -> str:
    """The name that the generation has, so that what has arrived of it is found again; a new one where that is taken."""
    return secrets.token_hex(8) if replaced is not None and replaced.path == commit.path else commit.path.rpartition("/")[2]


def _send(source: Store, name: str, stamp: FileStamp, target: Store, target_name: str) -> int:
    """The bytes that were sent."""
    def send(path: Path) -> None:
        _compare(_state(path), stamp, source.place.where(name))
        target.place.upload(path, target_name)

    try:
        open_local(source.place, name, stamp, send)
    except FileNotFoundError:
        raise CorruptStoreError(f"{source.place.where(name)} is missing; `cli.py store verify` lists what is wrong") from None
    return stamp.size


def _download(source: Store, target: Store, commit: Commit, replaced: Commit | None, report: TransferReport) -> bool:
    generation = _generation(commit, replaced)
    group, place, fetched = f"tokens.zarr/{commit.path}", target.place, _commit_in(target, commit, generation)
    staged = place.staging / f"pull-{generation}"
    _take_back(place.path / f"tokens.zarr/{fetched.path}", staged, place.path)

    def fetch(name: str) -> int:
        file, stamp, where = staged / name, commit.files[f"{commit.path}/{name}"], source.place.where(f"{group}/{name}")
        if file.exists():
            if _state(file) == (stamp.size, stamp.crc32c):
                return 0
            file.unlink()
        make_folders(file.parent, staged)
        try:
            got = source.place.copy_out(f"{group}/{name}", file)
        except FileNotFoundError:
            raise CorruptStoreError(f"{where} is missing; `cli.py store verify` lists what is wrong") from None
        _compare(got, stamp, where)
        return stamp.size

    def put_in_place(generation: str) -> None:
        place.publish(staged, generation)
        _check_chunks(target, fetched)

    report.num_bytes += sum(side_by_side(fetch, commit.generation_files, LARGE_AT_ONCE))
    return publish_commit(target, fetched, replaced, put_in_place)


def _take_back(final: Path, staged: Path, store_path: Path) -> None:
    """What was moved to its place and not committed, because that was interrupted, is staged again. The claim is held."""
    if final.exists():
        shutil.rmtree(staged, ignore_errors=True)
        final.rename(staged)
    make_folders(staged, store_path)


def _check_chunks(store: Store, commit: Commit) -> None:
    """Raises where a file is whole, but not the one that was committed: what size and crc32c cannot tell."""
    for file, what in exchanged_files(StoredVideo(store.place, commit)):
        raise CorruptStoreError(f"video {commit.video_id!r}: {store.place.where(f'tokens.zarr/{commit.path}/{file}')}: {what}")


def _compare(got: tuple[int, str], stamp: FileStamp, where: str) -> None:
    if got != (stamp.size, stamp.crc32c):
        raise CorruptStoreError(
            f"{where}: expected {stamp.size} bytes with crc32c {stamp.crc32c}, got {got[0]} with {got[1]}; "
            "`cli.py store repair` extracts the video again"
        )


def _state(path: Path) -> tuple[int, str]:
    """Size and crc32c in hex."""
    crc = size = 0
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_READ_BYTES):
            crc = crc32c(block, crc)
            size += len(block)
    return size, f"{crc:08x}"
