"""Looks at videos before they are extracted: decodes each once from start to end, and says what is in it and what is wrong."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from features.check_protocol import Look, Looked, Testimony
from features.killable_child import KillableChild
from vjepa_loc.dataset import Video, check_against_video
from vjepa_loc.errors import DecodeTimeoutError, VideoError

CHILD = "features.check_child"
DEADLINE_S = 60.0


@dataclass(frozen=True)
class VideoCheck:
    """What was found. `problem` is None for a video that can be used; the numbers are None where it cannot be decoded.

    `num_errors` counts what decoding skipped, `damage` is the first of its messages. `faults` are all that is wrong with a
    video that can be used all the same, `oddities` are no faults. `left_out`: why a file was not decoded, nothing against it.
    """

    path: Path | None
    problem: str | None
    id: str | None = None
    num_frames: int | None = None
    fps: str | None = None
    variable_rate: bool | None = None
    width: int | None = None
    height: int | None = None
    rotation: int | None = None
    codec: str | None = None
    container: str | None = None
    duration_s: float | None = None
    num_errors: int | None = None
    damage: str | None = None
    faults: tuple[str, ...] = ()
    oddities: tuple[str, ...] = ()
    testimony: Testimony | None = None
    done: str = ""
    hash_file: Path | None = None
    left_out: str | None = None

    @property
    def usable(self) -> bool:
        """Whether an extraction would take it, perhaps as damaged."""
        return self.problem is None and self.left_out is None

    @property
    def contradicted(self) -> bool:
        """Whether decord gives other frames although it is exact on files like this."""
        return self.testimony is not None and self.testimony.verdict == "differs" and self.testimony.known is None

    @property
    def ok(self) -> bool | None:
        """Whether nothing at all is wrong; None for a file that was not decoded."""
        return None if self.left_out is not None else not (self.problem or self.faults or self.contradicted)

    @property
    def wrong(self) -> str:
        """All that is wrong, in one text."""
        contradiction = (f"decord gives other frames: {self.testimony.text}",) if self.contradicted else ()
        problem = (without_path(self.problem, self.path),) if self.problem else ()
        return "; ".join([*problem, *self.faults, *contradiction])


@dataclass(frozen=True)
class Probe:
    """What formats ask of a video: displayed pixels, frames per second (None where it states none), frames that decode."""

    width: int
    height: int
    fps: float | None
    num_frames: int


def without_path(message: str, path: Path | None) -> str:
    """A message about a file, for a reader who knows which file."""
    if path is not None:
        for name in (str(path), str(path.absolute())):
            # Errors put their text into one line.
            message = message.removeprefix(f"{' '.join(name.split())}: ")
    return message


def described(path: Path, stated: Video | None, looked: Looked, faults: tuple[str, ...]) -> VideoCheck:
    """A video that was decoded; what a dataset states of it must hold."""
    info = looked.info
    disagreement = None
    if stated is not None:
        try:
            fps = None if info.fps_nominal else float(info.fps)
            check_against_video(stated, fps, looked.num_frames, info.width, info.height, info.variable_rate)
        except VideoError as error:
            disagreement = str(error)
    return VideoCheck(
        path, problem=disagreement, id=stated.id if stated else None, num_frames=looked.num_frames,
        fps=f"{info.fps} (assumed)" if info.fps_nominal else str(info.fps), variable_rate=info.variable_rate,
        width=info.width, height=info.height, rotation=info.rotation, codec=looked.codec, container=info.container,
        duration_s=round(looked.duration_s, 6), num_errors=looked.num_errors,
        damage=looked.damage.messages[0] if looked.damage else None, faults=faults, oddities=looked.oddities,
    )


def check_videos(
    videos: Iterable[Video], deadline_s: float = DEADLINE_S, on_video: Callable[[int], object] = lambda number: None,
    jobs: int | None = None,
) -> list[VideoCheck]:
    """One answer per video, in their order. `on_video(n)` is called when n videos are done; nothing is changed."""
    from features.check_files import files_of_dataset
    from features.check_run import CheckOptions, check_files

    files, options = files_of_dataset(list(videos)), CheckOptions(deadline_s=deadline_s, jobs=jobs)
    return check_files(files, options, lambda number, num_all: on_video(number))


def probe_for_formats(file: Path) -> Probe:
    """Decodes `file` once, because headers are wrong too often, in a process that is kept for the next. Raises VideoError."""
    try:
        looked = _prober().ask(file, Look(str(file.absolute())))
    except DecodeTimeoutError as error:
        raise VideoError(str(error)) from None
    info = looked.info
    return Probe(info.width, info.height, None if info.fps_nominal else float(info.fps), looked.num_frames)


@functools.cache
def _prober() -> KillableChild:
    return KillableChild(CHILD, DEADLINE_S)
