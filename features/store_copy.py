"""Copying committed videos from one store into another: `subset` (some videos, some levels) and `merge` (several stores
into one); `features.store_convert` builds on it.

Files are copied as they are, checked against their commit on the way, and committed in the target like a video that was
extracted there; an interrupted copy is simply started again.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from features.array_files import open_local
from features.checksum import crc32c
from features.durable import make_folders, storage_errors, write_all
from features.schema import LEVELS, Storage
from features.staged_video import StagedVideo
from features.store import Store, create_or_open_store
from features.stored_video import StoredVideo
from features.verify_video import exchanged_files
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


OnVideo = Callable[[int, int], object]


def subset_store(
    source: Store, target_path: Path | str, levels: Sequence[str] | None = None, video_ids: Sequence[str] | None = None,
    on_video: OnVideo = lambda num_done, num_all: None,
) -> CopyReport:
    """Copies `levels` of the given videos (by default all of either) into a store at `target_path`; `on_video` is called
    after each.

    Raises `ConfigError` for an unknown level and `StoreError` for a video that is absent or lacks a level.
    """
    chosen = None if levels is None else checked_levels(levels)
    target = open_target(target_path, [source], chosen and Storage(levels=chosen))
    jobs = [(source, video_id) for video_id in video_ids or source.video_ids()]
    return copy_each(jobs, lambda video: _copy_video(video, target, chosen or video.levels), on_video)


def merge_stores(
    target_path: Path | str, sources: Sequence[Store], on_video: OnVideo = lambda num_done, num_all: None
) -> CopyReport:
    """Copies what `sources` have into the store at `target_path`, made where there is none; a video that is there
    already stays as it is.

    Raises `StoreMismatchError` where a source has another encoding, before anything is copied.
    """
    for source in sources[1:]:
        if differences := sources[0].encoding.diff(source.encoding):
            raise StoreMismatchError(
                f"the stores {sources[0].path} and {source.path} hold different encodings: {'; '.join(differences)}; "
                "only stores of one encoding can be merged"
            )
    target = open_target(target_path, sources)
    jobs = [(source, video_id) for source in sources for video_id in source.video_ids()]
    return copy_each(jobs, lambda video: _copy_video(video, target, video.levels), on_video)


def checked_levels(levels: Sequence[str]) -> tuple[str, ...]:
    """`levels` as they are. Raises `ConfigError` for one that does not exist, with the nearest that does."""
    for level in levels:
        if level not in LEVELS:
            raise ConfigError(f"expected levels of {', '.join(LEVELS)}, got {level!r}.{nearest_name(level, LEVELS)}")
    return tuple(levels)


def open_target(path: Path | str, sources: Sequence[Store], storage: Storage | None = None) -> Store:
    """The store of the sources' encoding at `path`, made where there is none. Raises `ConfigError` where it is one of
    the sources.
    """
    target = create_or_open_store(path, sources[0].encoding, storage)
    for source in sources:
        if target.path == source.path:
            raise ConfigError(f"the store {source.path} is source and target at once; name another store as target")
    return target


def copy_each(
    jobs: Sequence[tuple[Store, str]], copy: Callable[[StoredVideo], str], on_video: OnVideo
) -> CopyReport:
    """The outcomes of `copy` for every (store, video id), in order."""
    by_outcome: dict[str, list[str]] = {"copied": [], "present": [], "different": []}
    for num_done, (source, video_id) in enumerate(jobs, start=1):
        by_outcome[copy(source.video(video_id))].append(video_id)
        on_video(num_done, len(jobs))
    return CopyReport(**{outcome: tuple(ids) for outcome, ids in by_outcome.items()})


def copy_files(video: StoredVideo, files: Iterable[str], staged: StagedVideo) -> None:
    """Copies files of a committed video as they are, each checked against its commit on the way. Raises
    `CorruptStoreError`.
    """
    files = list(files)
    refuse_exchanged(video, files)
    for name in files:
        _copy_file(video, name, staged.path)
        staged.stamps[name] = video.commit.generation_files[name]


def refuse_exchanged(video: StoredVideo, files: Iterable[str]) -> None:
    """Raises `CorruptStoreError` for a file whose chunks are whole, but not those that were committed."""
    exchanged = dict(exchanged_files(video))
    for name in files:
        if name in exchanged:
            raise CorruptStoreError(f"video {video.id!r}: {video.where(name)}: {exchanged[name]}; {_REPAIR}")


def _copy_video(video: StoredVideo, target: Store, levels: Sequence[str]) -> str:
    if missing := [level for level in levels if level not in video.levels]:
        raise StoreError(f"video {video.id!r} has no level {', '.join(missing)}; it stores {', '.join(video.levels)}")
    left_out = {level for level in LEVELS if level not in levels} | (set() if "tokens" in levels else {"scale"})
    files = video.commit.generation_files
    wanted = {name: stamp for name, stamp in files.items() if name.partition("/")[0] not in left_out}
    present = target.commit_of(video.id)
    if present is not None:
        return "present" if present.generation_files == wanted else "different"
    staged = StagedVideo(target, video.id)
    try:
        with storage_errors(f"copying video {video.id!r}", target.path, sum(stamp.size for stamp in wanted.values())):
            copy_files(video, wanted, staged)
        storage = video.storage.model_copy(update={"levels": tuple(levels)})
        copied = staged.publish(storage, video.meta, video.num_steps, replaced=None)
    finally:
        staged.discard()
    return "copied" if copied else "present"


def _copy_file(video: StoredVideo, name: str, folder: Path) -> None:
    source, stamp, target = video.where(name), video.commit.generation_files[name], folder / name
    full = f"tokens.zarr/{video.commit.path}/{name}"
    make_folders(target.parent, folder)
    crc = size = 0
    try:
        file = open_local(video.place, full, stamp, lambda path: open(path, "rb", buffering=0))
    except FileNotFoundError:
        raise CorruptStoreError(f"{source} is missing; `cli.py store verify` lists what is wrong") from None
    with file, open(target, "xb", buffering=0) as copy:
        while block := file.read(_COPY_BYTES):
            crc = crc32c(block, crc)
            size += len(block)
            write_all(copy.fileno(), block)
    if (size, f"{crc:08x}") != (stamp.size, stamp.crc32c):
        raise CorruptStoreError(
            f"{source}: expected {stamp.size} bytes with crc32c {stamp.crc32c}, got {size} with {crc:08x}; {_REPAIR}"
        )
