"""Wrong frames per kind of video file: ours, and decord as most code uses it.

    python -m benchmarks.decoding [--only PATTERN] [--real FOLDER] [--jobs 2] [--deadline-s 20] [--json]

makes every clip of `decoding_clips` (the number of each frame is in its pixels), reads each with both of our decoders and with
plain decord (64-frame windows, stride 32, `get_batch`), every reading in a process of its own that is killed after the deadline,
and prints a Markdown table. Exit code 1 where one of ours gave a wrong frame, a wrong time, or did not report a damaged file.
docs/decoding.md holds the table and says how to read it.

`--real FOLDER`: instead, every video below it, which must have a `probe.csv` with the frames that ffmpeg decodes; compared by the
hashes of a linear reading.
"""

import argparse
import csv
import fnmatch
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.decoding_clip import Clip
from benchmarks.decoding_clips import CLIPS
from benchmarks.decoding_judge import Reading, Verdict, judge, read_killable, truth_of, wrong_times

NO_WAY = "not installed"


@dataclass(frozen=True)
class Line:
    """One row of the table; `failures` are what makes the exit code 1."""

    name: str
    group: str
    what: str
    num_frames: int
    pyav: str
    decord: str
    plain: str
    times: str
    failures: tuple[str, ...]


def measure(clip: Clip, folder: Path, deadline_s: float) -> Line:
    """Makes a clip and reads it in every way."""
    path = clip.make(folder)
    readings = {way: read_killable(way, path, deadline_s) for way in ("pyav", "decord", "plain")}
    for reading in readings.values():
        reading.error = reading.error and shortened(reading.error, path)
    if clip.refused:
        return _refused(clip, readings)
    truth = truth_of(clip, path)
    verdicts = {way: judge(truth, reading) for way, reading in readings.items()}
    failures = _failures("pyav", verdicts["pyav"], readings["pyav"], clip, may_refuse=False)
    failures += _failures("decord", verdicts["decord"], readings["decord"], clip, may_refuse=True)
    times = "reported" if clip.damaged else "not known" if clip.time_s is None else "right"
    return Line(
        clip.name, clip.group, clip.what, len(truth), str(verdicts["pyav"]),
        _ours_decord(readings["decord"], verdicts["decord"]), str(verdicts["plain"]), "; ".join(failures) or times,
        tuple(failures),
    )


def _failures(way: str, verdict: Verdict, reading: Reading, clip: Clip, may_refuse: bool) -> list[str]:
    if verdict.wrong is None:
        # A VideoError is a report; anything else is an accident.
        return [] if may_refuse and reading.error.startswith("VideoError") else [f"{way}: {reading.error}"]
    if reading.error and may_refuse and reading.error.startswith("VideoError"):
        # Its frames up to here were given, the video as a whole is refused.
        return []
    failures = [f"{way}: {verdict}"] if verdict.wrong or reading.error else []
    if bool(reading.damage) != clip.damaged:
        failures.append(f"{way}: damage {reading.damage or 'not reported'}")
    if not reading.error:
        failures += [f"{way}: {problem}" for problem in wrong_times(clip, reading)]
    return failures


def _ours_decord(reading: Reading, verdict: Verdict) -> str:
    if reading.error and reading.error.startswith("VideoError"):
        reason = re.search(r"not exact on such files: ([^;]*)", reading.error)
        return f"refused: {reason[1]}" if reason else "refused: " + reading.error.partition(": ")[2].partition("; use")[0]
    return str(verdict)


def _refused(clip: Clip, readings: dict[str, Reading]) -> Line:
    """A file that is no video, or no usable one: the report must come, whatever was read before."""
    failures, cells = [], {}
    for way, reading in readings.items():
        frames = f"{len(reading.numbers)} frames, " if reading.numbers else ""
        cells[way] = f"{frames}{reading.error}" if reading.error else f"{len(reading.numbers)} frames, no error"
        if way != "plain" and not (reading.error or "").startswith("VideoError"):
            failures.append(f"{way}: {cells[way]}")
    if not re.search(clip.refused, readings["pyav"].error or ""):
        failures.append(f"pyav: expected a message like {clip.refused!r}, got {readings['pyav'].error}")
    else:
        cells["pyav"] = "reported"
    if (readings["decord"].error or "").startswith("VideoError"):
        cells["decord"] = "reported"
    columns = (cells["pyav"], cells["decord"], cells["plain"], "; ".join(failures))
    return Line(clip.name, clip.group, clip.what, 0, *columns, failures=tuple(failures))


def shortened(error: str, path: Path) -> str:
    """Without the folder, and without the times and places in decord's sources that its messages begin with."""
    error = re.sub(r"\[[\d:]+\] \S+\.cc:\d+: ", "", error.replace(f"{path}", path.name))
    return error.replace(str(path.parent), "").strip()


def real_clips(folder: Path) -> Iterator[Clip]:
    """The videos of a `probe.csv`, by their linear reading; where ffmpeg decoded none they must be refused."""
    with (folder / "probe.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            source = (folder / row["file"]).resolve()
            count = row["frames_decoded_by_ffmpeg"]
            yield Clip(
                row["file"].replace("/", "_"), row["file"].partition("/")[0], row["codec"] or "-",
                lambda path, source=source: path.symlink_to(source), None if count else (),
                refused=None if count else "VideoError", rotation=int(row["rotation"] or 0),
                damaged=row["file"] == "decord/corrupted.mp4",
            )


def as_table(lines: list[Line]) -> str:
    """Markdown, a heading row per group."""
    rows = [
        '| clip | what | frames | ours | ours, `decoder = "decord"` | plain decord | times, rate, turn |',
        "|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        cells = (line.name, line.what, str(line.num_frames or ""), line.pyav, line.decord, line.plain, line.times)
        rows.append("| " + " | ".join(cell.replace("|", "/")[:110] for cell in cells) + " |")
    return "\n".join(rows)


def summary(lines: list[Line]) -> str:
    """One sentence per way."""
    videos = [line for line in lines if line.num_frames]

    def counted(column: str) -> str:
        cells = [getattr(line, column) for line in videos]
        right = sum(cell == "0" for cell in cells)
        wrong = sum(bool(re.match(r"\d+ of \d+", cell)) for cell in cells)
        return f"{right} right, {wrong} with wrong or missing frames, {len(cells) - right - wrong} not read"

    return "\n".join(
        f"- {name}: {counted(column)} of {len(videos)} kinds"
        for name, column in (("ours", "pyav"), ("ours with decord", "decord"), ("plain decord", "plain"))
    )


def main() -> int:
    options = _options()
    clips = list(real_clips(options.real)) if options.real else list(CLIPS.values())
    clips = [clip for clip in clips if fnmatch.fnmatch(clip.name, options.only)]
    with tempfile.TemporaryDirectory(prefix="vjepa_loc_decoding_") as folder, ThreadPoolExecutor(options.jobs) as pool:
        lines = list(pool.map(lambda clip: measure(clip, Path(folder), options.deadline_s), clips))
    print(json.dumps([asdict(line) for line in lines], indent=1) if options.json else f"{summary(lines)}\n\n{as_table(lines)}")
    failed = [line for line in lines if line.failures]
    for line in failed:
        print(f"{line.name}: {'; '.join(line.failures)}", file=sys.stderr)
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="a pattern of clip names, as in a shell")
    parser.add_argument("--real", type=Path, help="a folder of videos with a probe.csv")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--deadline-s", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
