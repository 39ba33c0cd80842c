"""How the store's benchmark times, compares and prints: interleaved rounds, ratios within a round, bars, Markdown."""

import datetime
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

STEP_BYTES = 16 * 16 * 1024 * 2
"""Bytes of a step of the ViT-L shape as fp16; all GB/s count these, whatever lies on the disk."""

LIBRARIES = ("numpy", "torch", "zarr", "numcodecs", "awscrt", "zarrs", "tensorstore", "h5py")


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one task was as another: the median over the rounds, and the extremes."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Timings:
    """Seconds of each task, round by round. The first round warms up: it counts for `first_s` alone."""

    seconds: Mapping[str, Sequence[float]]

    def first_s(self, task: str) -> float:
        return self.seconds[task][0]

    def median_s(self, task: str) -> float:
        return statistics.median(self.seconds[task][1:])

    def ratio(self, task: str, reference: str) -> Ratio:
        """Compared within each round, so that a machine that slows down meanwhile slows down both."""
        pairs = zip(self.seconds[reference][1:], self.seconds[task][1:], strict=True)
        ratios = [reference_s / task_s for reference_s, task_s in pairs]
        return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def interleave(
    tasks: Mapping[str, Callable[[], object]], rounds: int, between: Callable[[], object] = lambda: None
) -> Timings:
    """Runs every task once per round, after one round that warms up; each round starts with another task, so that none
    of them always follows the same one. `between` runs after each task, untimed.
    """
    names = list(tasks)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            started = time.perf_counter()
            tasks[name]()
            seconds[name].append(time.perf_counter() - started)
            between()
    return Timings(seconds)


@dataclass(frozen=True)
class Row:
    """One measure. `unit` is "x" for a ratio; a row without a bar is there to explain the others; `value` is None where
    it could not be measured, and `how` says why.
    """

    measure: str
    value: float | None
    unit: str
    how: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def passed(self) -> bool | None:
        """None for a row without a bar."""
        if self.at_least is None and self.at_most is None:
            return None
        if self.value is None or not math.isfinite(self.value):
            return False
        return (self.at_least is None or self.value >= self.at_least) and (self.at_most is None or self.value <= self.at_most)

    @property
    def bar(self) -> str:
        limits = ((">=", self.at_least), ("<=", self.at_most))
        return " ".join(f"{sign} {limit:g}{_spaced(self.unit)}" for sign, limit in limits if limit is not None)

    def cells(self) -> tuple[str, ...]:
        verdict = {True: "pass", False: "**FAIL**", None: ""}[self.passed]
        value = "not measured" if self.value is None else f"{self.value:.{_digits(self.value)}f}{_spaced(self.unit)}"
        return self.measure, value, self.bar, verdict, self.how

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"passed": self.passed}


def ratio_row(
    measure: str, timings: Timings, task: str, reference: str, fp16_bytes: int, at_least: float | None = None, how: str = ""
) -> Row:
    """`task` against `reference`, both of which handle `fp16_bytes` fp16-equivalent bytes per round."""
    ratio = timings.ratio(task, reference)
    rates = [f"{fp16_bytes / timings.median_s(name) / 1e9:.2f}" for name in (task, reference)]
    text = f"{rates[0]} against {rates[1]} GB/s; rounds {ratio.low:.2f} to {ratio.high:.2f}"
    return Row(measure, ratio.median, "x", f"{text}; {how}" if how else text, at_least)


def _spaced(unit: str) -> str:
    return unit if unit in ("x", "") else f" {unit}"


def _digits(value: float) -> int:
    return 3 if abs(value) < 1 else 2 if abs(value) < 10 else 1


@dataclass(frozen=True)
class Reader:
    """One way to read the same tokens. `stored` is its bytes relative to fp16; `ratios` maps patterns to its speed
    against a memory map; without any, `missing` says why.
    """

    name: str
    stored: float | None
    ratios: Mapping[str, Ratio]
    missing: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def bars_table(rows: Sequence[Row]) -> str:
    return markdown(("measure", "got", "bar", "", "how"), [row.cells() for row in rows])


def readers_table(readers: Sequence[Reader]) -> str:
    """A line per reader, a column per pattern of the first reader, which has them all."""
    lines, patterns = [], tuple(readers[0].ratios)
    for reader in readers:
        ratios = [f"{reader.ratios[name].median:.2f}x" if name in reader.ratios else reader.missing for name in patterns]
        lines.append((reader.name, "" if reader.stored is None else f"{reader.stored:.3f}", *ratios))
    return markdown(("reader", "bytes of fp16", *patterns), lines)


def machine() -> dict[str, Any]:
    """What the figures depend on; no names of machines, users or folders."""
    return {
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _first_value(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "libraries": {name: version for name in LIBRARIES if (version := _version(name)) is not None},
    }


def describe(about: Mapping[str, Any]) -> str:
    """`machine()` in two lines."""
    libraries = ", ".join(f"{name} {version}" for name, version in about["libraries"].items())
    return (
        f"{about['date']}, commit {about['commit']}: {about['cores']} cores ({about['cpu']}), {about['memory_gib']} GiB, "
        f"{about['system']}, Python {about['python']};\n{libraries}."
    )


def memory_bytes(name: str) -> int:
    """An entry of this process's account: VmRSS is resident now, VmHWM the most so far. (`ru_maxrss` would be that of the
    process that started this one, where it was larger.)
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _commit() -> str:
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return git.stdout.strip() or "unknown"


def _first_value(file: Path, key: str) -> str | None:
    lines = file.read_text().splitlines() if file.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
