"""What `store show` says of one video: its facts, and its frames where the video file is at hand."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from features.decode_worker import DecodeWorker, FrameBatch, Prepare
from features.durable import readable_size
from features.schema import Source
from features.store import Store
from features.store_picture import Shown, draw_video
from features.stored_video import StoredVideo
from vjepa_loc.dataset import Dataset
from vjepa_loc.errors import DecodeTimeoutError, VideoError

_FRAME_HEIGHT_PX = 320


@dataclass(frozen=True)
class Description:
    """One video in the words of its picture (`facts`), and in full (`values`, what `store show --json` prints)."""

    facts: list[tuple[str, str]]
    values: dict[str, Any]


def show_video(store: Store, video_id: str, dataset: Dataset | None, out: Path) -> Description:
    """Draws the video to the PNG file `out`.

    Frames come from the file that `dataset` names; the picture says so where there is none. Raises `StoreError` for an
    id that is not in the store, `OSError` where `out` cannot be written.
    """
    video = store.video(video_id)
    file, problem = _video_file(video, dataset)
    frames: dict[int, np.ndarray] = {}
    if file is not None:
        try:
            frames = read_frames(file, Shown.of(video).frames, video)
        except (VideoError, DecodeTimeoutError) as error:
            problem = str(error)
    facts = _facts(store, video, problem)
    draw_video(video, facts, frames, problem, out)
    return Description(facts, video.meta.to_dict() | {
        "steps": video.num_steps, "storage": video.storage.to_dict(), "levels": list(video.levels), "path": video.commit.path,
        "fingerprint": store.fingerprint, "picture": str(out), "frames_from": None if file is None else str(file), "problem": problem,
    })


def default_picture(video_id: str) -> Path:
    """A file name in the current folder for any id."""
    return Path(re.sub(r"[^\w.-]+", "_", video_id).strip("._")[:100] or "video").with_suffix(".png")


def read_frames(file: Path, numbers: Sequence[int], video: StoredVideo) -> dict[int, np.ndarray]:
    """The frames with these numbers, as displayed and small: uint8 (height, width, 3). Raises `VideoError`,
    `DecodeTimeoutError`.
    """
    height = min(video.height, _FRAME_HEIGHT_PX)
    width = max(1, round(video.width * height / video.height))
    prepare = Prepare("stretch", height, width, patch_px=1, frame_step=max(math.gcd(*numbers), 1))
    wanted, found = set(numbers), {}
    with DecodeWorker() as worker:
        for message in worker.stream(file, prepare, nominal_fps=video.fps):
            if not isinstance(message, FrameBatch):
                break
            for number, frame_HW3 in zip(message.frame_numbers_n.tolist(), message.frames_nhw3, strict=True):
                if number in wanted:
                    found[number] = frame_HW3.numpy().copy()
            if len(found) == len(wanted):
                break
    return found


def _video_file(video: StoredVideo, dataset: Dataset | None) -> tuple[Path | None, str | None]:
    """The video's file, and what is wrong with it."""
    entry = None if dataset is None else dataset.videos.get(video.id)
    if entry is None or entry.file is None:
        return None, "no dataset names its video file" if entry is None else "the dataset names no file for it"
    if not entry.file.exists():
        return None, f"the video file is not there: {entry.file}"
    return entry.file, None if _is_unchanged(entry.file, video.meta.source) else "the video file has changed since its extraction"


def _is_unchanged(file: Path, source: Source) -> bool:
    # A folder of images has no size of its own.
    return file.is_dir() or file.stat().st_size == source.size


def _facts(store: Store, video: StoredVideo, problem: str | None) -> list[tuple[str, str]]:
    meta, encoding, storage = video.meta, store.encoding, video.storage
    rows, columns = video.grid
    sampling = f"{encoding.sample_fps:g} frames per second" if encoding.sample_fps else f"every {encoding.frame_step} frames"
    facts = [
        ("video", f"{video.width} x {video.height} px, {video.num_frames:,} frames, {float(video.fps):.6g} fps, {_length_s(video):.2f} s"),
        ("file", meta.source.name),
        ("tokens", f"{video.num_steps:,} step{'s' * (video.num_steps > 1)} of {rows} x {columns} cells, {len(video.mean)} channels"),
        ("sampling", f"{'every frame' if sampling == 'every 1 frames' else sampling}, {encoding.tubelet} per step, fit {video.space_grid.fit}"),
        ("encoder", f"{encoding.family}, {meta.dtype}" + ("" if meta.device == "none" else f" on {meta.device}")),
        ("fingerprint", store.fingerprint[:32]),
        ("storage", f"{storage.number_format}, compression {storage.compression}, {readable_size(video.commit.summary.bytes)}"),
        ("levels", ", ".join(video.levels)),
    ]
    if meta.earlier_formats:
        facts.append(("converted", f"tokens were {', then '.join(meta.earlier_formats)}"))
    if meta.pools_of_stored_tokens:
        facts.append(("pooled", f"{', '.join(meta.pools_of_stored_tokens)} from stored tokens"))
    if meta.damage is not None:
        facts.append(("damage", f"{meta.damage.num_errors} errors while decoding"))
    if problem is not None:
        facts.append(("frames", problem))
    return facts


def _length_s(video: StoredVideo) -> float:
    return float(video.frame_time_s[-1] + 1 / video.fps)
