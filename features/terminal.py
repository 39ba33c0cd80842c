"""How commands print: tables and bars for people, JSON for programs; answers on standard output, everything else on standard error."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

_ANY_WIDTH = 10_000


def error_console() -> Console:
    """A console on standard error."""
    return Console(stderr=True)


def say(*lines: str) -> None:
    """Remarks for a person, on standard error."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """One line of JSON."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table, None as an empty cell; without a terminal as wide as its contents, so that nothing is cut."""
    table = Table()
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:
        console.width = Console(width=_ANY_WIDTH).measure(table).maximum
    # Not the table's own title, which would be broken at the table's width.
    console.print(Text(title), soft_wrap=True)
    console.print(table)


def table_width(most: int) -> int:
    """How many characters a table may take: those of the terminal, and `most` where there is more room or no terminal."""
    console = Console()
    return min(most, console.width) if console.is_terminal else most


def readable_time(seconds: float) -> str:
    """`4.2 s`, `42 s`, `3:05 min`, `2:07 h`, `4.2 d`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"
    if seconds < 48 * 3600:
        return f"{int(seconds) // 3600}:{int(seconds) % 3600 // 60:02d} h"
    return f"{seconds / 86400:.1f} d"


@contextmanager
def count_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error for work that calls back with (number done, number in all)."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = error_console()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(description, total=None)
        yield lambda num_done, num_all: progress.update(task, completed=num_done, total=num_all)
