"""What check-videos answers: the columns of its CSV and JSON, and what a person sees."""

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from features.check import VideoCheck

COLUMNS = (
    "path", "ok", "frames", "fps", "rate", "width", "height", "rotation", "codec", "duration_s", "decoding_errors", "wrong",
    "done", "container", "remarks", "cross_check", "hashes", "id",
)
# A larger table is not looked over: then only what is wrong is printed.
MOST_ROWS = 60
# Without a terminal nothing is cut, but lines stay readable.
PLAIN_WIDTH = 120


def plain(text: str) -> str:
    r"""Text that can be written as UTF-8: bytes of a name that are no UTF-8 become `\xNN`."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def shown(text: str) -> str:
    """Text for a terminal: no control characters, so that a name is one line and can do nothing to the screen."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in plain(text))


def row_of(check: VideoCheck) -> dict[str, str | int | float | bool | None]:
    """One row, by `COLUMNS`; None is an empty cell."""
    rate = None if check.variable_rate is None else "variable" if check.variable_rate else "constant"
    testimony, remarks = check.testimony, [*filter(None, [check.left_out]), *check.oddities]
    values = (
        None if check.path is None else plain(str(check.path)), check.ok, check.num_frames, check.fps, rate, check.width,
        check.height, check.rotation, check.codec, check.duration_s, check.num_errors, plain(check.wrong), plain(check.done), check.container,
        plain("; ".join(remarks)), None if testimony is None else plain(str(testimony)),
        None if check.hash_file is None else plain(str(check.hash_file)), check.id,
    )
    return dict(zip(COLUMNS, values, strict=True))


def csv_of(checks: Sequence[VideoCheck]) -> str:
    """A header, then a row per file; `true` and `false`, nothing for None; names with commas and line breaks are quoted."""
    rows = [COLUMNS, *([_cell(value) for value in row_of(check).values()] for check in checks)]
    return "".join(_csv_line(row) for row in rows)


def _csv_line(cells: Sequence[str]) -> str:
    buffer = io.StringIO()
    # Python quotes only what occurs in its line terminator; a bare carriage return makes its own reader raise.
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue().removesuffix("\r\n") + "\n"


def _cell(value: object) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def print_checks(checks: Sequence[VideoCheck]) -> None:
    """A table of the files, or, of many, of those that are not all right; then what is wrong, what was done, and the sum."""
    console = Console()
    if not console.is_terminal:
        console.width = max(PLAIN_WIDTH, console.width)
    decoded = [check for check in checks if check.left_out is None]
    listed = decoded if len(decoded) <= MOST_ROWS else [check for check in decoded if not check.ok][:MOST_ROWS]
    folder = _common_folder([check.path for check in checks if check.path is not None])
    if listed:
        console.print(_table(listed, folder))
    lines = [check for check in checks if check.wrong or check.done or check.testimony and check.testimony.verdict != "same"]
    for check in lines[:MOST_ROWS]:
        _print_lines(console, check, folder)
    if len(lines) > MOST_ROWS:
        console.print(f"... and {len(lines) - MOST_ROWS} more; --csv FILE has all")
    for line in summary_of(checks):
        console.print(Text(line))


def summary_of(checks: Sequence[VideoCheck]) -> list[str]:
    """How many are all right, damaged and useless; and what was not decoded, by its reason."""
    decoded = [check for check in checks if check.left_out is None]
    unusable = sum(not check.usable for check in decoded)
    whole = sum(bool(check.ok) for check in decoded)
    lines = [f"{len(decoded)} videos: {whole} ok, {len(decoded) - whole - unusable} not all right, {unusable} cannot be used"]
    left_out = [check for check in checks if check.left_out is not None]
    if left_out:
        reasons = Counter(check.left_out for check in left_out)
        lines.append(f"{len(left_out)} other files: " + "; ".join(f"{count} {reason}" for reason, count in reasons.most_common()))
    return lines


def _table(checks: Sequence[VideoCheck], folder: Path | None) -> Table:
    title = "Videos" if folder is None else f"Videos in {shown(str(folder))}"
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("file", overflow="fold", ratio=1)
    for name in ("ok", "frames", "fps", "size", "codec", "s", "errors"):
        table.add_column(name, no_wrap=True, justify="left" if name in ("ok", "codec") else "right")
    asked = any(check.testimony is not None for check in checks)
    if asked:
        table.add_column("decord", no_wrap=True)
    for check in checks:
        turn = f" {check.rotation:+d}°" if check.rotation else ""
        size = None if check.width is None else f"{check.width}x{check.height}{turn}"
        fps = None if check.fps is None else f"{check.fps.removesuffix(' (assumed)')}{' var' if check.variable_rate else ''}"
        seconds = None if check.duration_s is None else f"{check.duration_s:.2f}"
        ok = "yes" if check.ok else "NO"
        cells = [_name(check, folder), ok, check.num_frames, fps, size, check.codec, seconds, check.num_errors]
        if asked:
            cells.append(None if check.testimony is None else _short(check))
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in cells))
    return table


def _short(check: VideoCheck) -> str:
    """The testimony in a word; `inexact` where decord is known to be wrong on files like this."""
    return "inexact" if check.testimony.known and check.testimony.verdict == "differs" else check.testimony.verdict


def _print_lines(console: Console, check: VideoCheck, folder: Path | None) -> None:
    console.print(Text(_name(check, folder)))
    said = "" if check.testimony is None or check.testimony.verdict == "same" or check.contradicted else str(check.testimony)
    for name, text in (("wrong", check.wrong), ("done", check.done), ("decord", said)):
        if text:
            console.print(Text(f"  {name}: {shown(text)}"), soft_wrap=False)


def _name(check: VideoCheck, folder: Path | None) -> str:
    if check.path is None or check.id is not None:
        return shown(str(check.id))
    return shown(os.path.relpath(check.path, folder) if folder is not None else str(check.path))


def _common_folder(paths: Sequence[Path]) -> Path | None:
    """The folder that all lie in, where their names are shorter without it."""
    if len(paths) < 2 or len({path.is_absolute() for path in paths}) > 1:
        return None
    common = os.path.commonpath([path.parent for path in paths])
    return Path(common) if common not in ("", "/") else None
