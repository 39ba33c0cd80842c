"""Whole extractions: with a cheap, an expensive and a sleeping encoder beside their stages alone, and beside the plain loop."""

import math
import os
import shutil
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from extract_encoders import Sleeping, cheap, expensive
from extract_plain import extract_plainly
from extract_processes import machine_busy_s, tree_cpu_s
from extract_stages import NUM_CORES, Work, decode_alone, encode_alone, ready_clips, write_alone
from extract_videos import FPS, VideoSpec, cached_videos
from features.clips import expected_clips
from features.extract import ExtractReport, extract_dataset
from features.recipe import ExtractConfig
from features.schema import Storage
from store_table import Row, Timings, interleave, progress
from vjepa_loc.dataset import Video
from vjepa_loc.errors import VideoError

_MOST_OVERHEAD = 1.10
# The bar of a stage that sleeps says something only where it is the slowest, and not by far.
_SLEEP_SHARE = 1.3
_SLEEPING_BATCH_CLIPS = 4
_MB = 1e6

FULL = [
    *(VideoSpec(num_frames, seed=seed) for seed, num_frames in enumerate((800, 700, 700, 600, 600, 500, 500, 400))),
    VideoSpec(1200, 854, 480, seed=8), VideoSpec(800, 854, 480, seed=9), VideoSpec(300, 1920, 1080, seed=10),
]
QUICK = [VideoSpec(num_frames, 320, 180, seed) for seed, num_frames in enumerate((160, 128, 96))]


@dataclass
class StageTable:
    """What the stages of one kind of extraction did: seconds alone, and in the whole the medians over the rounds."""

    COLUMNS: ClassVar[tuple[str, ...]] = (
        "stage", "alone", "frames/s alone", "busy", "waiting for input", "waiting for room", "busy share",
    )
    about: str
    num_frames: int
    alone_s: dict[str, float]
    times: dict[str, float]
    whole_s: float
    cpu_s: float
    bytes_in: int
    bytes_out: int
    extra: dict[str, float] = field(default_factory=dict)

    def cells(self) -> list[tuple[str, ...]]:
        lines = []
        for stage, alone_s in self.alone_s.items():
            busy, wait, blocked = (self.times.get(f"{stage}_{what}", 0.0) for what in ("s", "wait_s", "blocked_s"))
            share = busy / total if (total := busy + wait + blocked) else 0.0
            lines.append((
                stage, f"{alone_s:.2f} s", f"{self.num_frames / alone_s:.0f}", f"{busy:.2f} s", f"{wait:.2f} s",
                f"{blocked:.2f} s", f"{share:.0%}",
            ))
        whole = f"{self.whole_s:.2f} s, {self.cpu_s:.2f} s of CPU on {NUM_CORES} cores"
        share = f"{self.cpu_s / self.whole_s / NUM_CORES:.0%} of the cores"
        return [*lines, ("whole", whole, f"{self.num_frames / self.whole_s:.0f}", "", "", "", share)]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Whole:
    """Extracts `work` again and again, each time into a store of its own; keeps what each run reported and took."""

    def __init__(self, work: Work, folder: Path):
        self.work = work
        self.folder = folder
        self.reports: list[ExtractReport] = []
        self.cpu_s: list[float] = []
        self.others_s: list[float] = []
        self.bytes_out = 0

    def __call__(self) -> None:
        before_s, all_before_s = tree_cpu_s(os.getpid()), machine_busy_s()
        report = extract_dataset(self.work.dataset, self.folder, self.work.encoder, self.work.config)
        self.cpu_s.append(tree_cpu_s(os.getpid()) - before_s)
        self.others_s.append(max(0.0, machine_busy_s() - all_before_s - self.cpu_s[-1]))
        if report.failed or len(report.ids("done")) != len(self.work.videos):
            raise VideoError(f"the extraction did not do every video: {report.failed or report.summary()}")
        self.reports.append(report)
        self.bytes_out = sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())

    def others(self, timings: Timings) -> str:
        """What the figures suffer from: the share of all cores that others took."""
        pairs = zip(self.others_s[1:], timings.seconds["whole"][1:], strict=True)
        share = statistics.median(others_s / whole_s / NUM_CORES for others_s, whole_s in pairs)
        return f"other processes took {share:.0%} of the cores"

    def median_times(self) -> dict[str, float]:
        """Of the rounds after the first."""
        names = vars(self.reports[0].times)
        return {name: statistics.median(vars(report.times)[name] for report in self.reports[1:]) for name in names}


def make_work(files: list[Path], specs: list[VideoSpec], encoder: Any, config: ExtractConfig, copies: int = 1) -> Work:
    """Videos with all that is known of them stated; with `copies`, each file is several videos."""
    videos = [
        Video(
            id=f"{file.stem}_{copy}", file=file.absolute(), fps=float(FPS), num_frames=spec.num_frames, width=spec.width,
            height=spec.height,
        )
        for file, spec in zip(files, specs, strict=True) for copy in range(copies)
    ]
    return Work(tuple(sorted(videos, key=lambda video: -video.num_frames * video.width * video.height)), encoder, config)


def measure_whole(kind: str, folder: Path, videos: Path, rounds: int, quick: bool) -> tuple[list[Row], StageTable]:
    """The row with the bar of `kind` (cheap, expensive, sleeping), and its stages."""
    specs = QUICK if quick else FULL
    config, copies = ExtractConfig(device="cpu"), 1
    if kind == "cheap":
        encoder = cheap()
    elif kind == "expensive":
        encoder, specs = expensive(folder / "checkpoint"), specs if quick else specs[3:7]
    else:
        # As a GPU is used: one thread, several clips at once.
        encoder = Sleeping(_SLEEPING_BATCH_CLIPS)
        config, copies = ExtractConfig(device="cpu", threads=1, batch_clips=_SLEEPING_BATCH_CLIPS), 1 if quick else 2
    work = make_work(cached_videos(videos, specs), specs, encoder, config, copies)
    num_clips = sum(expected_clips(work.encoding, video.num_frames, video.fps) for video in work.videos)
    if kind == "sleeping":
        encoder.batch_s = _time_to_sleep_s(work, folder, num_clips)
    whole, clips = Whole(work, folder / "store"), ready_clips(work)
    tokens_THWC = encoder.encode(clips[0][None])[0] if kind != "sleeping" else Sleeping(1).encode(clips[0][None])[0]
    tasks: dict[str, Callable[[], object]] = {
        "whole": whole,
        "decode": lambda: decode_alone(work),
        "encode": lambda: encode_alone(work, clips, num_clips),
        "write": lambda: write_alone(work, folder / "written", tokens_THWC, Storage()),
    }

    def between() -> None:
        for name in ("store", "written"):
            shutil.rmtree(folder / name, ignore_errors=True)

    timings = interleave(tasks, rounds, between)
    alone = [name for name in tasks if name != "whole"]
    in_rounds = {name: timings.seconds[name][1:] for name in tasks}
    cpu_s = whole.cpu_s[1:]
    slowest = max(alone, key=timings.median_s)
    # Beside the sleeping encoder the CPU is idle, or it would be no GPU; only the stage counts.
    floors = in_rounds["encode"] if kind == "sleeping" else [
        max(*(in_rounds[name][number] for name in alone), cpu_s[number] / NUM_CORES) for number in range(rounds)
    ]
    ratios = [whole_s / floor_s for whole_s, floor_s in zip(in_rounds["whole"], floors, strict=True)]
    against = "the sleeping stage" if kind == "sleeping" else "max(slowest stage alone, CPU seconds / cores)"
    stages = ", ".join(f"{name} {timings.median_s(name):.2f}" for name in alone)
    how = (
        f"whole {timings.median_s('whole'):.2f} s; alone: {stages} s, slowest {slowest}; CPU seconds / {NUM_CORES} cores "
        f"{statistics.median(cpu_s) / NUM_CORES:.2f} s; rounds {min(ratios):.2f} to {max(ratios):.2f}; {whole.others(timings)}"
    )
    row = Row(f"{kind} encoder: wall time against {against}", statistics.median(ratios), "x", how, at_most=_MOST_OVERHEAD)
    written = StageTable(
        about=f"{len(work.videos)} videos, {work.num_frames} frames, {num_clips} clips; "
        f"{work.bytes_in / _MB:.0f} MB in, {whole.bytes_out / _MB:.0f} MB out",
        num_frames=work.num_frames, alone_s={name: timings.median_s(name) for name in alone}, times=whole.median_times(),
        whole_s=timings.median_s("whole"), cpu_s=statistics.median(cpu_s), bytes_in=work.bytes_in, bytes_out=whole.bytes_out,
    )
    return [row], written


def _time_to_sleep_s(work: Work, folder: Path, num_clips: int) -> float:
    """Seconds per call that make the sleeping stage the slowest, but not by far: from an extraction that does not sleep."""
    unslept = Whole(work, folder / "store")
    # The second of two: the first reads files that are not in the page cache yet.
    seconds = interleave({"whole": unslept}, 1, lambda: shutil.rmtree(folder / "store")).seconds["whole"][1]
    batch_s = _SLEEP_SHARE * seconds / math.ceil(num_clips / _SLEEPING_BATCH_CLIPS)
    progress(f"without sleep {seconds:.1f} s; sleeping {batch_s:.3f} s per batch")
    return batch_s


def measure_plain(folder: Path, videos: Path, rounds: int, quick: bool) -> list[Row]:
    """Frames per second against the plain loop, with the cheap encoder, without overlap and with half of it."""
    specs = QUICK if quick else [spec for spec in FULL if spec.width == 1280]
    rows = []
    for overlap, at_least, count in ((0.0, 1.0, 4), (0.5, 3.0, 3)):
        config = ExtractConfig(device="cpu", overlap=overlap)
        chosen = specs[-count:]
        work = make_work(cached_videos(videos, chosen), chosen, cheap(), config)
        whole = Whole(work, folder / "store")
        tasks = {"whole": whole, "plain": lambda work=work: extract_plainly(work, folder / "plain")}

        def between() -> None:
            for name in ("store", "plain"):
                shutil.rmtree(folder / name, ignore_errors=True)

        timings = interleave(tasks, rounds, between)
        ratio = timings.ratio("whole", "plain")
        rates = [f"{work.num_frames / timings.median_s(name):.0f}" for name in tasks]
        how = (
            f"{rates[0]} against {rates[1]} frames/s; rounds {ratio.low:.2f} to {ratio.high:.2f}; {len(work.videos)} videos, "
            f"{work.num_frames} frames; {whole.others(timings)}"
        )
        rows.append(Row(f"against the plain loop, overlap {overlap:g}", ratio.median, "x", how, at_least=at_least))
    return rows
