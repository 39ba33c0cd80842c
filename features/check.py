"""Looks at videos before they are extracted: decodes each once from start to end, and says what is in it and what is wrong.

Where decord takes a file too it is the witness: both decoders must give the same frames. It is an independent build of FFmpeg
with its own way of reading; of frames that both give alike neither has invented any.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from features.decode_worker import DecodeSummary, DecodeWorker, FrameBatch, Prepare
from features.decoders.decord_reader import USE_PYAV
from vjepa_loc.dataset import Video, check_against_video
from vjepa_loc.errors import ConfigError, DecodeTimeoutError, VideoError

# Small pictures of some frames: a frame that is another one, or turned, differs in them as well.
GLANCE = Prepare(fit="stretch", input_height=32, input_width=32, patch_px=32, frame_step=10)
# No frame but the first is resized where only the counts matter.
FIRST_ONLY = Prepare(fit="stretch", input_height=32, input_width=32, patch_px=32, frame_step=2**31)


@dataclass(frozen=True)
class VideoCheck:
    """One row of the answer. `problem` is None for a video that can be used; the numbers are None where it cannot be decoded.

    `num_errors` counts what decoding skipped, `damage` is the first of its messages; `witness` says whether decord agrees:
    `same`, `no answer` with the reason, or what differs.
    """

    path: str
    problem: str | None
    num_frames: int | None = None
    fps: str | None = None
    variable_rate: bool | None = None
    width: int | None = None
    height: int | None = None
    rotation: int | None = None
    codec: str | None = None
    container: str | None = None
    num_errors: int | None = None
    damage: str | None = None
    witness: str | None = None

    @property
    def ok(self) -> bool:
        return self.problem is None

    def to_dict(self) -> dict[str, object]:
        """JSON-ready, `ok` first."""
        return {"ok": self.ok} | asdict(self)


@dataclass(frozen=True)
class Probe:
    """What formats ask of a video: displayed pixels, frames per second (None where the source states none), frames that decode."""

    width: int
    height: int
    fps: float | None
    num_frames: int


def check_videos(
    videos: Iterable[Video], deadline_s: float = 60.0, witness: bool = True, on_video: Callable[[int], object] = lambda number: None
) -> list[VideoCheck]:
    """One row per video, in their order; what a dataset states of a video must hold. `on_video(n)` is called after the n-th."""
    checks = []
    with DecodeWorker(deadline_s) as worker:
        for number, video in enumerate(videos, start=1):
            checks.append(check_video(worker, video, witness))
            on_video(number)
    return checks


def check_video(worker: DecodeWorker, video: Video, witness: bool = True) -> VideoCheck:
    """Never raises for what is wrong with the video: that is in the answer."""
    if video.file is None:
        return VideoCheck(video.id, problem=f"video {video.id!r}: the dataset names no file for it")
    path = str(video.file)
    try:
        numbers_n, glances_nhw3, summary = _look(worker, video, "pyav")
    except (VideoError, DecodeTimeoutError) as error:
        return VideoCheck(path, problem=str(error))
    info, damage = summary.info, summary.damage
    disagreement = None
    try:
        fps = None if info.fps_nominal else float(info.fps)
        check_against_video(video, fps, summary.num_frames, info.width, info.height, info.variable_rate)
    except VideoError as error:
        disagreement = str(error)
    testimony = None
    if witness and info.container != "images":
        testimony = _ask(worker, video, numbers_n, glances_nhw3, summary)
    return VideoCheck(
        path,
        problem=disagreement,
        num_frames=summary.num_frames,
        fps=f"{info.fps} (assumed)" if info.fps_nominal else str(info.fps),
        variable_rate=info.variable_rate,
        width=info.width,
        height=info.height,
        rotation=info.rotation,
        codec=info.codec,
        container=info.container,
        num_errors=damage.num_errors if damage else 0,
        damage=damage.messages[0] if damage else None,
        witness=testimony,
    )


def probe_for_formats(file: Path) -> Probe:
    """Decodes `file` once, because headers are wrong too often, in a process that is kept for the next. Raises VideoError."""
    try:
        *_, summary = _prober().stream(file, FIRST_ONLY)
    except DecodeTimeoutError as error:
        raise VideoError(str(error)) from None
    info = summary.info
    return Probe(info.width, info.height, None if info.fps_nominal else float(info.fps), summary.num_frames)


@functools.cache
def _prober() -> DecodeWorker:
    return DecodeWorker()


def _look(worker: DecodeWorker, video: Video, decoder: str) -> tuple[np.ndarray, torch.Tensor, DecodeSummary]:
    """Numbers and small pictures of every tenth frame, and the summary."""
    *batches, summary = worker.stream(video.file, GLANCE, decoder, video.fps)
    frames: list[FrameBatch] = batches
    return np.concatenate([batch.frame_numbers_n for batch in frames]), torch.cat([batch.frames_nhw3 for batch in frames]), summary


def _ask(worker: DecodeWorker, video: Video, numbers_n: np.ndarray, glances_nhw3: torch.Tensor, summary: DecodeSummary) -> str:
    try:
        _, theirs_nhw3, their_summary = _look(worker, video, "decord")
    except (VideoError, DecodeTimeoutError, ConfigError) as error:
        return f"no answer: {str(error).removeprefix(f'{video.file}: ').removesuffix(USE_PYAV)}"
    if their_summary.num_frames != summary.num_frames:
        return f"differs: decord gives {their_summary.num_frames} frames"
    differing_n = (theirs_nhw3 != glances_nhw3).flatten(1).any(1).numpy()
    return f"differs at frame {numbers_n[differing_n][0]}" if differing_n.any() else "same"
