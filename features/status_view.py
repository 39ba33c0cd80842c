"""`cli.py status` for people: a few lines, what failed, and a row per worker, in the width of the terminal."""

import time
from collections import Counter
from collections.abc import Iterator
from textwrap import shorten

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from features.durable import readable_size
from features.status import ShownWorker, StoreStatus
from features.terminal import readable_time
from features.worker_status_record import InHand

# Workers that ended longer ago than this are only counted.
_SHOW_ENDED_S = 3600.0
_LONGEST_STATE = 80
MOST_FAILED, MOST_WORKERS = 12, 40
_NARROW = 100


def render(status: StoreStatus, width: int) -> RenderableType:
    """Everything there is to see, at most `width` characters wide."""
    parts: list[RenderableType] = [Text(line) for line in _lines(status)]
    if status.failed:
        parts.append(_failed_table(status))
    shown = [worker for worker in status.workers if worker.alive or worker.silent_s < _SHOW_ENDED_S]
    if shown:
        parts.append(_worker_table(shown[-MOST_WORKERS:], narrow=width < _NARROW))
    if hidden := len(status.workers) - len(shown[-MOST_WORKERS:]):
        parts.append(Text(f"{hidden} more workers, --json lists all"))
    return Group(*parts)


def plain_width(renderable: RenderableType) -> int:
    """The width in which nothing is cut, for output that is no terminal."""
    return Console(width=10_000).measure(renderable).maximum


def _lines(status: StoreStatus) -> Iterator[str]:
    damaged = f" ({status.num_damaged} damaged)" if status.num_damaged else ""
    of = f" of {status.num_videos:,}" if status.dataset is not None else ""
    counts = [f"{status.num_done:,}{of} videos done{damaged}", f"{len(status.in_hand):,} in hand"]
    if status.num_waiting is not None:
        counts.append(f"{status.num_waiting:,} left")
    counts.append(f"{len(status.failed):,} failed")
    yield ", ".join(counts)
    yield ", ".join(_speed(status))
    others = status.stored_videos - status.num_done
    also = f", {others:,} of its videos are not in the dataset" if others else ""
    free = "free space unknown" if status.free_bytes is None else f"{readable_size(status.free_bytes)} free"
    where = "" if "://" not in status.store else " here for unfinished videos"
    yield f"store {status.store}: {readable_size(status.stored_bytes)}{also}; {free}{where}"
    if status.dataset is None:
        yield "no dataset: counted is what the store has heard of; --dataset FILE says what there is to do"


def _speed(status: StoreStatus) -> Iterator[str]:
    num_alive = sum(worker.alive for worker in status.workers)
    if not num_alive:
        yield "nobody is extracting" + (f", about {status.clips_left:,} clips left" if status.clips_left else "")
        return
    yield f"{status.clips_per_s:.1f} clips/s by {num_alive} worker{'s' if num_alive > 1 else ''}"
    if status.clips_left is not None:
        yield f"about {status.clips_left:,} clips left"
    if status.seconds_left is not None:
        yield f"{readable_time(status.seconds_left)} to go"


def _failed_table(status: StoreStatus) -> Table:
    reasons = Counter(status.failed.values())
    table = _table(f"{len(status.failed):,} failed", "video", "reason of the last attempt")
    if len(reasons) < len(status.failed) and len(status.failed) > MOST_FAILED:
        # Many videos with few reasons: the reasons are what there is to do.
        first = {reason: video_id for video_id, reason in reversed(status.failed.items())}
        rows = [(f"{first[reason]} and {number - 1:,} more" if number > 1 else first[reason], reason) for reason, number in reasons.most_common()]
    else:
        rows = list(status.failed.items())
    for row in rows[:MOST_FAILED]:
        table.add_row(*map(Text, row))
    if len(rows) > MOST_FAILED:
        table.add_row(Text("..."), Text(f"{len(rows) - MOST_FAILED:,} more, --json lists all"))
    return table


def _worker_table(workers: list[ShownWorker], narrow: bool) -> Table:
    machines = {worker.record.owner.machine.rpartition(".")[0] for worker in workers}
    columns = ["worker", "state", "done", "failed", "clips/s", "in hand"]
    if not narrow:
        busy = ["busy"] if any(worker.record.stages for worker in workers) else []
        columns = ["worker", "state", "device", "up", "done", "skipped", "failed", "clips/s", "mean", *busy, "in hand"]
    table = _table("workers", *columns)
    for worker in workers:
        cells = _cells(worker, with_machine=len(machines) > 1 or not narrow)
        table.add_row(*(Text(cells[column]) for column in columns))
    return table


def _cells(worker: ShownWorker, with_machine: bool) -> dict[str, str]:
    record = worker.record
    host = record.owner.machine.rpartition(".")[0] or record.owner.machine
    state = worker.seems
    if state == "silent" or state == "gone":
        state += f", last heard {readable_time(worker.silent_s)} ago"
    elif record.how:
        # A long reason would take the room of the other columns.
        state = shorten(f"{state}: {record.how}", _LONGEST_STATE, placeholder=" ...")
    active = worker.seems in ("running", "stopping")
    rate = f"{record.recent_clips_per_s:.1f}" if active else "-"
    end = time.time() if worker.alive else record.updated
    return {
        "worker": f"{host} {record.owner.pid}" if with_machine else str(record.owner.pid),
        "state": state, "device": record.device, "up": readable_time(max(0.0, end - record.started)),
        "done": f"{record.done:,}", "failed": f"{record.failed:,}", "skipped": f"{record.skipped:,}",
        "clips/s": rate, "mean": f"{record.mean_clips_per_s:.1f}",
        "busy": " ".join(f"{name} {share:.0%}" for name, share in record.stages.items()),
        "in hand": ", ".join(map(_progress_of, record.in_hand)) if worker.alive else "",
    }


def _progress_of(video: InHand) -> str:
    return f"{video.id} {video.clips}" + (f"/{video.expected}" if video.expected is not None else " clips")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=Text(title), title_justify="left")
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    return table
