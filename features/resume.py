"""What to do with each video of a dataset, given what its store holds already.

A stored video is kept where its file has the size and time it had when it was stored, or the same bytes. Where the file has
changed, the video is refused or extracted again, as the user chooses: what was made from the old bytes cannot be made again once
they are gone. It is extracted again where files of the store are gone.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from features.decoders.source import check_video_file, file_state, read_source
from features.recipe import Compare, OnMismatch
from features.schema import Source, VideoMeta
from features.store import Store, open_store
from vjepa_loc.dataset import Video, check_against_video
from vjepa_loc.errors import CorruptStoreError, VideoError
from vjepa_loc.image_folder import numbered_images


class Action(StrEnum):
    """`REPLACE` is `EXTRACT` over a video that the store holds."""

    EXTRACT = "extract"
    REPLACE = "replace"
    SKIP = "skip"
    REFUSE = "refuse"


@dataclass(frozen=True)
class Decision:
    """`reason` is empty where there is nothing to explain; `replaces` is the generation that a `REPLACE` was decided upon."""

    video: Video
    action: Action
    reason: str = ""
    replaces: str | None = None


def decide(video: Video, store: Store | None, compare: Compare = "time", on_mismatch: OnMismatch = "refuse") -> Decision:
    """The decision for one video; `store` is None where there is none yet. `compare = "hash"` reads every stored video's file.

    What is wrong with a video is the reason of a refusal. Raises `StoreError` where the store itself cannot be read.
    """
    try:
        if video.file is None:
            raise VideoError(f"video {video.id!r}: the dataset names no `file` for it")
        commit = None if store is None else store.commit_of(video.id)
        if commit is None:
            source_files(video.file)
            return Decision(video, Action.EXTRACT)
        decision = _decide_stored(video, store, compare, on_mismatch)
        return replace(decision, replaces=commit.path) if decision.action is Action.REPLACE else decision
    except VideoError as error:
        return Decision(video, Action.REFUSE, str(error))


def _decide_stored(video: Video, store: Store, compare: Compare, on_mismatch: OnMismatch) -> Decision:
    try:
        stored = store.video(video.id).meta
    except CorruptStoreError as error:
        # Where the whole store is gone, a disk that is not there any more is nothing to be repaired.
        open_store(store.path)
        source_files(video.file)
        return Decision(video, Action.REPLACE, f"the stored video is damaged: {error}")
    if not video.file.exists():
        _check_stored(video, stored)
        return Decision(video, Action.SKIP, f"stored; its file {video.file} is gone and cannot be compared")
    changed = changed_source(video.file, stored.source, compare)
    if not changed:
        _check_stored(video, stored)
        return Decision(video, Action.SKIP)
    if on_mismatch == "redo":
        return Decision(video, Action.REPLACE, f"the file has changed: {changed}")
    raise VideoError(
        f"video {video.id!r}: its file {video.file} has changed: {changed}; put the old file back, give the new one an id of its own, "
        "or run `extract --on-mismatch redo` to replace what is stored"
    )


def _check_stored(video: Video, stored: VideoMeta) -> None:
    # The rate was compared when the video was decoded; whether it varies is not stored.
    check_against_video(video, None, stored.num_frames, stored.width, stored.height)


def changed_source(path: Path, stored: Source, compare: Compare) -> str:
    """How a file differs from the one that was stored, both values; empty where it does not. Raises `VideoError`."""
    files = source_files(path)
    size, mtime_ns = file_state(files)
    if size != stored.size:
        return f"{stored.size} bytes when it was stored, now {size}"
    if mtime_ns == stored.mtime_ns and compare == "time":
        return ""
    sha256 = read_source(path, files).sha256
    if sha256 == stored.sha256:
        return ""
    return f"sha256 {stored.sha256[:12]} when it was stored, now {sha256[:12]}"


def source_files(path: Path) -> list[Path]:
    """The files behind a video. Raises `VideoError` for one that no decoder needs to see."""
    if path.is_dir():
        return [file for _, file in numbered_images(path)]
    check_video_file(path)
    return [path]
