"""Copying committed videos from one store into another: `subset` (some videos, some levels) and `merge` (several stores
into one).

Files are copied as they are, checked against their commit on the way, and committed in the target like a video that was
extracted there; an interrupted copy is simply started again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from features.commits import FileStamp
from features.durable import storage_errors, write_all
from features.schema import LEVELS, Storage
from features.staged_video import StagedVideo
from features.store import Store, create_or_open_store
from features.stored_video import StoredVideo
from features.verify import exchanged_files
from vjepa_loc.errors import ConfigError, CorruptStoreError, StoreError, StoreMismatchError, nearest_name

_COPY_BYTES = 1 << 23
_REPAIR = "`cli.py store repair` extracts the video again"


@dataclass(frozen=True)
class CopyReport:
    """Video ids: `copied`, `present` (there already with the same files), `different` (there already with others;
    kept).
    """

    copied: tuple[str, ...]
    present: tuple[str, ...]
    different: tuple[str, ...]


def subset_store(
    source: Store, target_path: Path | str, levels: Sequence[str], video_ids: Sequence[str] | None = None
) -> CopyReport:
    """Copies `levels` of the given videos (all by default) into a store at `target_path`.

    Raises `ConfigError` for an unknown level and `StoreError` for a video that is absent or lacks a level.
    """
    for level in levels:
        if level not in LEVELS:
            raise ConfigError(f"expected levels of {', '.join(LEVELS)}, got {level!r}.{nearest_name(level, LEVELS)}")
    target = create_or_open_store(target_path, source.encoding, Storage(levels=tuple(levels)))
    return _report(_copy_video(source.video(video_id), target, levels) for video_id in video_ids or source.video_ids())


def merge_stores(target: Store, sources: Sequence[Store]) -> CopyReport:
    """Copies what `sources` have into `target`; a video that is there already stays as it is.

    Raises `StoreMismatchError` where a source has another encoding, before anything is copied.
    """
    for source in sources:
        if differences := target.encoding.diff(source.encoding):
            raise StoreMismatchError(
                f"the stores {target.path} and {source.path} hold different encodings: {'; '.join(differences)}; "
                "only stores of one encoding can be merged"
            )
    return _report(
        _copy_video(source.video(video_id), target, None) for source in sources for video_id in source.video_ids()
    )


def _report(outcomes: Iterator[tuple[str, str]]) -> CopyReport:
    by_outcome: dict[str, list[str]] = {"copied": [], "present": [], "different": []}
    for video_id, outcome in outcomes:
        by_outcome[outcome].append(video_id)
    return CopyReport(**{outcome: tuple(ids) for outcome, ids in by_outcome.items()})


def _copy_video(video: StoredVideo, target: Store, levels: Sequence[str] | None) -> tuple[str, str]:
    levels = video.levels if levels is None else tuple(levels)
    if missing := [level for level in levels if level not in video.levels]:
        raise StoreError(f"video {video.id!r} has no level {', '.join(missing)}; it stores {', '.join(video.levels)}")
    left_out = {level for level in LEVELS if level not in levels} | (set() if "tokens" in levels else {"scale"})
    files = video.commit.generation_files
    wanted = {name: stamp for name, stamp in files.items() if name.partition("/")[0] not in left_out}
    present = target.commit_of(video.id)
    if present is not None:
        return video.id, "present" if present.generation_files == wanted else "different"
    for file, what in exchanged_files(video):
        if file in wanted:
            raise CorruptStoreError(f"video {video.id!r}: {video.group_path / file}: {what}; {_REPAIR}")
    staged = StagedVideo(target, video.id)
    try:
        with storage_errors(f"copying video {video.id!r}", target.path, sum(stamp.size for stamp in wanted.values())):
            for name, stamp in wanted.items():
                _copy_file(video.group_path / name, staged.path / name, stamp)
                staged.stamps[name] = stamp
        storage = video.storage.model_copy(update={"levels": levels})
        copied = staged.publish(storage, video.meta, video.num_steps, replaced=None)
    finally:
        staged.discard()
    return video.id, "copied" if copied else "present"


def _copy_file(source: Path, target: Path, stamp: FileStamp) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    crc = size = 0
    try:
        file = open(source, "rb", buffering=0)
    except FileNotFoundError:
        raise CorruptStoreError(f"{source} is missing; `cli.py store verify` lists what is wrong") from None
    with file, open(target, "xb", buffering=0) as copy:
        while block := file.read(_COPY_BYTES):
            crc = google_crc32c.extend(crc, block)
            size += len(block)
            write_all(copy.fileno(), block)
    if (size, f"{crc:08x}") != (stamp.size, stamp.crc32c):
        raise CorruptStoreError(
            f"{source}: expected {stamp.size} bytes with crc32c {stamp.crc32c}, got {size} with {crc:08x}; {_REPAIR}"
        )
