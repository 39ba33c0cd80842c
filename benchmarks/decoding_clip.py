"""One clip of the decoders' benchmark and tests: a file that can be made, and the truth about it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from benchmarks.decoding_writer import write_clip

NUM_FRAMES = 184
FPS = Fraction(25)


@dataclass(frozen=True)
class Clip:
    """One file, and the truth about it.

    `numbers` are what its frames must show, in order; None for a damaged file, whose truth is what a linear reading gives.
    `refused` is a pattern of the one line that must come instead of frames. `ticks`: when each frame is shown, in 1/`fps` after
    the first; None where the container has lost that.
    """

    name: str
    group: str
    what: str
    write: Callable[[Path], object]
    numbers: Sequence[int] | None = tuple(range(NUM_FRAMES))
    refused: str | None = None
    fps: Fraction = FPS
    fps_nominal: bool = False
    variable: bool = False
    ticks: Sequence[float] | None = None
    times_known: bool = True
    rotation: int = 0
    damaged: bool = False

    def make(self, folder: Path) -> Path:
        """Writes the file into `folder`."""
        path = folder / self.name
        self.write(path)
        return path

    @property
    def time_s(self) -> list[float] | None:
        """When each frame is shown, or None where nobody can know."""
        if self.numbers is None or not self.times_known:
            return None
        ticks = range(len(self.numbers)) if self.ticks is None else self.ticks
        return [float((tick - ticks[0]) / self.fps) for tick in ticks]


def encoded(name: str, group: str, what: str, num_frames: int = NUM_FRAMES, **settings) -> Clip:
    """A clip as an encoder and a muxer write it. `settings` are those of `write_clip`, and what the Clip says of the truth."""
    truth = {key: settings.pop(key) for key in ("fps_nominal", "variable", "times_known", "rotation") if key in settings}
    numbers = tuple(range(num_frames))

    def write(path: Path) -> None:
        write_clip(path, numbers, **settings)

    return Clip(name, group, what, write, numbers, fps=settings.get("fps", FPS), ticks=settings.get("ticks"), **truth)
