"""Tables as values: what a command prints, a report shows and a CSV file holds."""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path

from vjepa_loc.atomic import write_text

Cell = str | float | int | None
"""Text, a number, or None for nothing."""

INDEX = "index.csv"
_INDEX_COLUMNS = "file", "table"

# What a printed column takes beside its cells: a space on each side, and a line.
_COLUMN_FRAME = 3

# Names of rows are not broken below this width: that of the longest key of a figure.
_NAME_WIDTH = 40


@dataclass(frozen=True)
class ResultTable:
    """Rows of cells under named columns; the first column names the row.

    A column's name may be broken into lines, which a CSV file puts together again. `name` is that of the CSV file, by
    default the title.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    name: str | None = None

    @property
    def slug(self) -> str:
        """The name as a file name."""
        return re.sub(r"[^a-z0-9]+", "-", (self.name or self.title).lower()).strip("-") or "table"

    def texts(self) -> list[tuple[str, ...]]:
        """The rows for people: see `cell_text`."""
        return [tuple(map(cell_text, row)) for row in self.rows]

    def to_dicts(self) -> list[dict[str, Cell]]:
        """The rows for JSON: each an object from column to cell, the first column under `name` where it has no name."""
        names = (self.columns[0] or "name", *self.columns[1:])
        return [dict(zip(names, row, strict=True)) for row in self.rows]

    def csv(self) -> str:
        """A header line, then the rows; numbers in full, nothing for None."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow([column.replace("\n", "") for column in self.columns])
        writer.writerows([[_csv_cell(cell) for cell in row] for row in self.rows])
        return buffer.getvalue()

    def shortened(self, most: int) -> ResultTable:
        """This table with at most so many rows; of a longer one, a last row says how many more there are."""
        if len(self.rows) <= most:
            return self
        more = f"... {len(self.rows) - most} more", *[""] * (len(self.columns) - 1)
        return replace(self, rows=(*self.rows[:most], more))

    def fitted(self, width: int) -> list[ResultTable]:
        """This table where it can be printed in `width` characters, else several with a part of the columns each.

        All of them begin with the first column, which is broken where it takes more than half of the width. Text that is
        too long for a line beside it is broken, too.
        """
        widths = [
            max(len(line) for text in (column, *(row[index] for row in self.texts())) for line in text.split("\n")) + _COLUMN_FRAME
            for index, column in enumerate(self.columns)
        ]
        first = max(width // 2, _NAME_WIDTH)
        if sum(widths) >= width and widths[0] > first:
            lines = first - _COLUMN_FRAME
            rows = tuple((textwrap.fill(row[0], lines) if isinstance(row[0], str) else row[0], *row[1:]) for row in self.rows)
            if rows != self.rows:
                return replace(self, rows=rows).fitted(width)
        room = width - 1 - widths[0]
        if 2 * _COLUMN_FRAME < room < max(widths[1:], default=0):
            lines = room - _COLUMN_FRAME
            rows = [[row[0], *(textwrap.fill(cell, lines) if isinstance(cell, str) else cell for cell in row[1:])] for row in self.rows]
            return replace(self, rows=tuple(map(tuple, rows))).fitted(width) if rows != [list(row) for row in self.rows] else [self]
        parts = _parts(widths, width)
        if len(parts) < 2:
            return [self]
        # As few parts as that, and none of them much narrower than the others.
        parts = next(narrow for limit in range(width + 1) if len(narrow := _parts(widths, limit)) == len(parts))
        return [
            replace(
                self,
                title=self.title if number == 0 else f"{self.title} (continued)",
                columns=tuple(self.columns[index] for index in (0, *part)),
                rows=tuple(tuple(row[index] for index in (0, *part)) for row in self.rows),
            )
            for number, part in enumerate(parts)
        ]


def _parts(widths: Sequence[int], width: int) -> list[list[int]]:
    """The columns after the first in as few groups as possible, each no wider than `width` together with the first."""
    parts: list[list[int]] = []
    for index in range(1, len(widths)):
        if not parts or 1 + widths[0] + sum(widths[other] for other in parts[-1]) + widths[index] > width:
            parts.append([])
        parts[-1].append(index)
    return parts


def cell_text(cell: Cell) -> str:
    """A cell for people: three decimals below 100 and one above, counts with thousands marked, a dash for None."""
    if cell is None:
        return "–"
    if isinstance(cell, Integral):
        return f"{cell:,}"
    if isinstance(cell, Real):
        return f"{cell:z.3f}" if abs(cell) < 100 else f"{cell:,.1f}"
    return cell


def _csv_cell(cell: Cell) -> str:
    if cell is None:
        return ""
    return repr(float(cell)) if isinstance(cell, Real) and not isinstance(cell, Integral) else str(cell)


def write_csvs(tables: Sequence[ResultTable], folder: Path) -> list[Path]:
    """Write each table as `<slug>.csv` into `folder`, and `index.csv`, which says what each file holds.

    Tables of one name are numbered. Files that an earlier call wrote there, and this one does not, are removed; no other.
    """
    index, earlier = folder / INDEX, _listed(folder / INDEX)
    contents: dict[str, ResultTable] = {}
    for table in tables:
        name, number = f"{table.slug}.csv", 1
        while name in contents or name == INDEX:
            number += 1
            name = f"{table.slug}-{number}.csv"
        contents[name] = table
    titles = {name: table.title for name, table in contents.items()}
    # Both the old and the new files are listed until both are as they should be, so that an interruption loses track of none.
    write_text(index, _index_table(earlier | titles).csv())
    for name, table in contents.items():
        write_text(folder / name, table.csv())
    for name in earlier.keys() - contents.keys():
        (folder / name).unlink(missing_ok=True)
    write_text(index, _index_table(titles).csv())
    return [folder / name for name in contents]


def _index_table(titles: dict[str, str]) -> ResultTable:
    return ResultTable("Index", _INDEX_COLUMNS, tuple(titles.items()))


def _listed(index: Path) -> dict[str, str]:
    """File names and titles from an index that `write_csvs` wrote; nothing from any other file."""
    try:
        header, *rows = csv.reader(index.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError, csv.Error):
        return {}
    if tuple(header) != _INDEX_COLUMNS:
        return {}
    return {row[0]: row[1] for row in rows if len(row) == 2 and re.fullmatch(r"[a-z0-9-]+\.csv", row[0])}
