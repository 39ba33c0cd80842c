"""What a process and all its descendants take: CPU time and memory, read from /proc. Linux only."""

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_MIB = 2.0**20


@dataclass(frozen=True)
class Process:
    """A process as /proc showed it; `started` tells it from a later one with the same number.

    `cpu_s` is its own, `waited_cpu_s` that of children that ended and were asked for.
    """

    pid: int
    parent: int
    session: int
    started: int
    state: str
    cpu_s: float
    waited_cpu_s: float

    def is_alive(self) -> bool:
        now = read_process(self.pid)
        return now is not None and now.started == self.started and now.state not in "ZX"

    def command_line(self) -> str:
        try:
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            return ""


def read_process(pid: int) -> Process | None:
    """None where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field, the program's name in brackets, may hold spaces.
    fields = text.rpartition(")")[2].split()
    ticks = [int(field) / _TICKS_PER_S for field in fields[11:15]]
    return Process(
        pid, int(fields[1]), int(fields[3]), int(fields[19]), fields[0], ticks[0] + ticks[1], ticks[2] + ticks[3]
    )


def all_processes() -> list[Process]:
    found = (read_process(int(entry)) for entry in os.listdir("/proc") if entry.isdigit())
    return [process for process in found if process is not None]


def descendants(pid: int) -> list[Process]:
    """The children of `pid`, their children, and so on; `pid` is not among them."""
    processes, families = all_processes(), {pid}
    while True:
        more = {process.pid for process in processes if process.parent in families} - families
        if not more:
            return [process for process in processes if process.pid in families and process.pid != pid]
        families |= more


def tree_cpu_s(pid: int) -> float:
    """CPU seconds, user and system, of `pid`, of its descendants, and of those that have ended and were asked for."""
    tree = [process for process in (read_process(pid), *descendants(pid)) if process is not None]
    return sum(process.cpu_s + process.waited_cpu_s for process in tree)


def machine_busy_s() -> float:
    """CPU seconds that all processes of this machine have taken since it started."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    ticks = [int(field) for field in fields]
    # user, nice, system, and after idle and iowait: irq, softirq; steal is what other machines took.
    return (sum(ticks[0:3]) + sum(ticks[5:7])) / _TICKS_PER_S


def pss_bytes(pid: int) -> int:
    """Memory of a process, what it shares divided by those who share it; 0 for one that is gone or not ours."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def tree_pss_bytes(pid: int) -> int:
    return sum(pss_bytes(number) for number in (pid, *(process.pid for process in descendants(pid))))


class MemoryWatch:
    """The most memory that a process and its descendants took together while this was entered: `peak_mib`, by looking every
    `every_s`.
    """

    def __init__(self, pid: int, every_s: float = 0.1):
        self._pid = pid
        self._every_s = every_s
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._look, name="memory watch", daemon=True)
        self.peak_mib = 0.0
        self.num_looks = 0
        self.samples_mib: list[tuple[float, float]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._left.set()
        self._thread.join()

    def _look(self) -> None:
        start_s = time.monotonic()
        while not self._left.wait(self._every_s):
            mib = tree_pss_bytes(self._pid) / _MIB
            self.samples_mib.append((time.monotonic() - start_s, mib))
            self.peak_mib = max(self.peak_mib, mib)
            self.num_looks += 1
