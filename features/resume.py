"""What to do with each video of a dataset, given what its store holds already.

A stored video is kept where its file has the size and time it had when it was stored, or the same bytes; it is replaced where
the file has changed, or where files of the store are gone.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from features.decoders.source import check_video_file, file_state, read_source
from features.recipe import Compare
from features.schema import Source
from features.store import Store
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
    """`reason` is empty where there is nothing to explain."""

    video: Video
    action: Action
    reason: str = ""


def decide(video: Video, store: Store | None, compare: Compare = "time") -> Decision:
    """The decision for one video; `store` is None where there is none yet. `compare = "hash"` reads every stored video's file.

    Never raises for a video: what is wrong with it is the reason of a refusal.
    """
    try:
        if video.file is None:
            raise VideoError(f"video {video.id!r}: the dataset names no `file` for it")
        if store is None or store.commit_of(video.id) is None:
            _source_files(video.file)
            return Decision(video, Action.EXTRACT)
        return _decide_stored(video, store, compare)
    except VideoError as error:
        return Decision(video, Action.REFUSE, str(error))


def _decide_stored(video: Video, store: Store, compare: Compare) -> Decision:
    try:
        stored = store.video(video.id).meta
    except CorruptStoreError as error:
        _source_files(video.file)
        return Decision(video, Action.REPLACE, f"the stored video is damaged: {error}")
    # The rate was compared when the video was decoded; whether it varies is not stored.
    check_against_video(video, None, stored.num_frames, stored.width, stored.height)
    if not video.file.exists():
        return Decision(video, Action.SKIP, f"stored; its file {video.file} is gone and cannot be compared")
    changed = _change(video.file, stored.source, compare)
    return Decision(video, Action.REPLACE, changed) if changed else Decision(video, Action.SKIP)


def _change(path: Path, stored: Source, compare: Compare) -> str:
    """How the file differs from the one that was stored; empty where it does not."""
    files = _source_files(path)
    size, mtime_ns = file_state(files)
    if size != stored.size:
        return f"the file has changed: {stored.size} bytes when it was stored, now {size}"
    if mtime_ns == stored.mtime_ns and compare == "time":
        return ""
    sha256 = read_source(path, files).sha256
    if sha256 == stored.sha256:
        return ""
    return f"the file has changed: sha256 {stored.sha256[:12]} when it was stored, now {sha256[:12]}"


def _source_files(path: Path) -> list[Path]:
    """The files behind a video. Raises `VideoError` for one that no decoder needs to see."""
    if path.is_dir():
        return [file for _, file in numbered_images(path)]
    check_video_file(path)
    return [path]
