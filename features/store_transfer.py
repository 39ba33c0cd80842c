"""`store push` and `store pull`: the videos of a store into one in object storage, or from there.

Files go as they are, each checked against its commit, under the name of the generation that they have; so a transfer that
was interrupted finds what has arrived already, and its commit comes last. What is committed in the target with other files
is kept, unless it is to be replaced.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from features.array_files import open_local
from features.checksum import crc32c
from features.commits import Commit, CommitFolder, FileStamp
from features.durable import readable_size, storage_errors
from features.places.local import LocalPlace
from features.places.parallel import LARGE_AT_ONCE, side_by_side
from features.staged_video import commit_of_files, publish_commit
from features.store import Store
from features.store_copy import open_target
from features.stored_video import StoredVideo
from features.verify_video import exchanged_files
from vjepa_loc.errors import CorruptStoreError, StoreError, nearest_name

_READ_BYTES = 1 << 23
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
    generation = commit.path.rpartition("/")[2]
    sent = commit_of_files(target, video_id, generation, commit.storage, commit.summary, stamps)
    with claim, storage_errors(f"copying video {video_id!r}", target.path, sum(stamp.size for stamp in stamps.values())):
        try:
            if isinstance(target.place, LocalPlace):
                visible = _download(source, target, sent, present, report)
            else:
                visible = _upload(source, target, sent, present, report)
        except CorruptStoreError as error:
            report.damaged[video_id] = str(error)
            return
    (report.copied if visible else report.present).append(video_id)


def _upload(source: Store, target: Store, commit: Commit, replaced: Commit | None, report: TransferReport) -> bool:
    group, place = f"tokens.zarr/{commit.path}", target.place
    stamps = {f"{group}/{name}": stamp for name, stamp in commit.generation_files.items()}
    _check_chunks(source, commit)

    def put_in_place(generation: str) -> None:
        # First, and whatever is there: from now on `gc` takes the generation for one that is being written.
        description = f"{generation}/zarr.json"
        _send(source, target, description, stamps[description], report)
        there = place.sizes(stamps)
        missing = [name for name, stamp in stamps.items() if there.get(name) != stamp.size]
        list(side_by_side(lambda name: _send(source, target, name, stamps[name], report), missing, LARGE_AT_ONCE))
        place.check_arrived({name: stamp.size for name, stamp in stamps.items()})
        place.make_groups(generation)

    return publish_commit(target, commit, replaced, put_in_place)


def _send(source: Store, target: Store, name: str, stamp: FileStamp, report: TransferReport) -> None:
    def send(path: Path) -> None:
        _check_file(path, stamp, source.place.where(name))
        target.place.upload(path, name)

    try:
        open_local(source.place, name, stamp, send)
    except FileNotFoundError:
        raise CorruptStoreError(f"{source.place.where(name)} is missing; `cli.py store verify` lists what is wrong") from None
    report.num_bytes += stamp.size


def _download(source: Store, target: Store, commit: Commit, replaced: Commit | None, report: TransferReport) -> bool:
    group, place = f"tokens.zarr/{commit.path}", target.place
    staged = place.staging / f"pull-{commit.path.rpartition('/')[2]}"
    _take_back(place.path / group, staged)

    def fetch(name: str) -> None:
        file, stamp, where = staged / name, commit.files[f"{commit.path}/{name}"], source.place.where(f"{group}/{name}")
        if file.exists():
            if _state(file) == (stamp.size, stamp.crc32c):
                return
            file.unlink()
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            got = source.place.copy_out(f"{group}/{name}", file)
        except FileNotFoundError:
            raise CorruptStoreError(f"{where} is missing; `cli.py store verify` lists what is wrong") from None
        _compare(got, stamp, where)
        report.num_bytes += stamp.size

    def put_in_place(generation: str) -> None:
        place.publish(staged, generation)
        _check_chunks(target, commit)

    list(side_by_side(fetch, commit.generation_files, LARGE_AT_ONCE))
    return publish_commit(target, commit, replaced, put_in_place)


def _take_back(final: Path, staged: Path) -> None:
    """What was moved to its place and not committed, because that was interrupted, is staged again. The claim is held."""
    if final.exists():
        shutil.rmtree(staged, ignore_errors=True)
        final.rename(staged)
    staged.mkdir(parents=True, exist_ok=True)


def _check_chunks(store: Store, commit: Commit) -> None:
    """Raises where a file is whole, but not the one that was committed: what size and crc32c cannot tell."""
    for file, what in exchanged_files(StoredVideo(store.place, commit)):
        raise CorruptStoreError(f"video {commit.video_id!r}: {store.place.where(f'tokens.zarr/{commit.path}/{file}')}: {what}")


def _check_file(path: Path, stamp: FileStamp, where: str) -> None:
    _compare(_state(path), stamp, where)


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
