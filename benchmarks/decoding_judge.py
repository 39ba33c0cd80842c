"""Reads a clip in one of four ways and says how many frames came out wrong.

    pyav, decord   our decoders of these names, in a line
    plain          decord as most code uses it: 64-frame windows, stride 32, `get_batch`
    linear         the reference for damaged files: PyAV's demuxer and decoder without anything of ours

`python -m benchmarks.decoding_judge WAY FILE` prints what it read as one line of JSON. `read_killable` runs that with a deadline
and a limit of memory: decord hangs on some files and takes all memory on others.
"""

import hashlib
import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from benchmarks.decoding_clip import Clip
from benchmarks.decoding_pictures import number_of

WAYS = ("pyav", "decord", "plain", "linear")
WINDOW, STRIDE = 64, 32
MEMORY_BYTES = 4 << 30
# Half a tick of the coarsest clock, milliseconds, on either side; AVI and MP4 are exact.
TIME_TOLERANCE_S = 1.05e-3


@dataclass
class Reading:
    """What came out: of every position the number in its picture and the picture's hash; `error` is why no more came."""

    numbers: list[int | None] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    error: str | None = None
    time_s: list[float] = field(default_factory=list)
    times_made_up: bool = False
    fps: str | None = None
    fps_nominal: bool = False
    variable: bool = False
    rotation: int = 0
    damage: str | None = None

    def add(self, rgb_HW3: np.ndarray) -> None:
        self.numbers.append(number_of(rgb_HW3))
        self.hashes.append(picture_hash(rgb_HW3))


def picture_hash(rgb_HW3: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(rgb_HW3), digest_size=8).hexdigest()


def read(way: str, path: Path) -> Reading:
    """Raises nothing for a bad file: what a way raised is the reading's `error`."""
    reading = Reading()
    try:
        {"pyav": _ours, "decord": _ours, "plain": _plain_decord, "linear": _linear}[way](reading, path, way)
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        reading.error = f"{type(error).__name__}: {lines[0][:200]}"
    return reading


def _ours(reading: Reading, path: Path, way: str) -> None:
    from features.decode import open_video

    with open_video(path, way) as reader:
        for frame in reader:
            reading.add(frame.rgb_HW3)
    reading.time_s, reading.times_made_up = reader.frame_time_s.tolist(), reader.times_made_up
    reading.fps, reading.fps_nominal = str(reader.info.fps), reader.info.fps_nominal
    reading.variable, reading.rotation = reader.info.variable_rate, reader.info.rotation
    reading.damage = reader.damage and "; ".join(reader.damage.messages)


def _plain_decord(reading: Reading, path: Path, way: str) -> None:
    import decord

    reader = decord.VideoReader(str(path))
    num_frames = len(reader)
    starts = [*range(0, num_frames - WINDOW + 1, STRIDE)] or [0]
    if starts[-1] + WINDOW < num_frames:
        starts.append(num_frames - WINDOW)
    seen: dict[int, np.ndarray] = {}
    for start in starts:
        indices = list(range(start, min(start + WINDOW, num_frames)))
        for index, rgb_HW3 in zip(indices, reader.get_batch(indices).asnumpy(), strict=True):
            # A position that gave two pictures in two windows keeps the later one; one of them is wrong.
            if index in seen and not np.array_equal(seen[index], rgb_HW3):
                rgb_HW3 = rgb_HW3 if number_of(rgb_HW3) != index else seen[index]
            seen[index] = rgb_HW3.copy()
    for index in sorted(seen):
        reading.add(seen[index])


def _linear(reading: Reading, path: Path, way: str) -> None:
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        for packet in container.demux(stream):
            try:
                frames = packet.decode() if packet.size or packet.dts is None else []
            except av.error.FFmpegError:
                continue
            for frame in frames:
                # Both count quarter turns against the clock; mirrored files are not read in this way.
                reading.add(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))


@dataclass(frozen=True)
class Verdict:
    """`wrong`: positions whose picture is not the one that belongs there, missing and surplus ones too; None: nothing came."""

    num_frames: int
    wrong: int | None
    error: str | None

    def __str__(self) -> str:
        if self.wrong is None:
            return self.error or "nothing"
        counted = f"{self.wrong} of {self.num_frames}" if self.wrong else "0"
        return f"{counted}, then {self.error}" if self.error else counted


def judge(expected: Sequence, reading: Reading) -> Verdict:
    """`expected`: numbers, or, where they are strings, hashes."""
    got = reading.hashes if expected and isinstance(expected[0], str) else reading.numbers
    if reading.error and not got:
        return Verdict(len(expected), None, reading.error)
    wrong = sum(a != b for a, b in zip(expected, got)) + abs(len(expected) - len(got))
    return Verdict(len(expected), wrong, reading.error)


def truth_of(clip: Clip, path: Path) -> Sequence:
    """What the frames of a clip must be: its numbers, or a linear reading's hashes."""
    return clip.numbers if clip.numbers is not None else read("linear", path).hashes


def wrong_times(clip: Clip, reading: Reading) -> list[str]:
    """What a reading says about time and turn that is not so, in words; empty where all is right."""
    problems = []
    if any(later <= earlier for earlier, later in zip(reading.time_s, reading.time_s[1:])) or reading.time_s[:1] != [0.0]:
        problems.append("times do not rise from 0")
    if reading.rotation != clip.rotation:
        problems.append(f"rotation {reading.rotation} for {clip.rotation}")
    if clip.time_s is None:
        return problems
    if len(reading.time_s) == len(clip.time_s):
        worst_s = max(abs(got - right) for got, right in zip(reading.time_s, clip.time_s))
        if worst_s > TIME_TOLERANCE_S:
            problems.append(f"a time is off by {worst_s * 1000:.1f} ms")
    if not clip.variable and (len(clip.numbers) > 2) and Fraction(reading.fps) != clip.fps:
        problems.append(f"{reading.fps} frames/s for {clip.fps}")
    if reading.variable != clip.variable:
        problems.append("variable rate" if reading.variable else "constant rate")
    if reading.fps_nominal != clip.fps_nominal:
        problems.append("rate taken for nominal" if reading.fps_nominal else "rate taken for stated")
    return problems


def read_killable(way: str, path: Path, deadline_s: float = 20.0) -> Reading:
    """`read` in a process of its own, which is killed after `deadline_s` or where it takes more than `MEMORY_BYTES`."""
    command = [sys.executable, "-m", "benchmarks.decoding_judge", way, str(path)]
    root = Path(__file__).parents[1]
    settings = {"capture_output": True, "text": True, "cwd": root, "timeout": deadline_s, "preexec_fn": _limit_memory}
    try:
        done = subprocess.run(command, **settings)
    except subprocess.TimeoutExpired:
        return Reading(error=f"hung, killed after {deadline_s:g} s")
    if done.returncode < 0:
        return Reading(error=f"crashed with signal {-done.returncode}")
    if done.returncode:
        return Reading(error=(done.stderr.strip().splitlines() or ["nothing said"])[-1][:200])
    return Reading(**json.loads(done.stdout.splitlines()[-1]))


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


if __name__ == "__main__":
    print(json.dumps(asdict(read(sys.argv[1], Path(sys.argv[2])))))
