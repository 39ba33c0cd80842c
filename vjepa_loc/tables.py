"""Tables as values: what a command prints, a report shows and a CSV file holds."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vjepa_loc.atomic import write_text

Cell = str | float | int | None
"""Text, a number, or None for nothing."""


@dataclass(frozen=True)
class ResultTable:
    """Rows of cells under named columns; the first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def slug(self) -> str:
        """The title as a file name."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-") or "table"

    def texts(self) -> list[tuple[str, ...]]:
        """The rows for people: see `cell_text`."""
        return [tuple(map(cell_text, row)) for row in self.rows]

    def csv(self) -> str:
        """A header line, then the rows; numbers in full, nothing for None."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([["" if cell is None else repr(cell) if isinstance(cell, float) else cell for cell in row] for row in self.rows])
        return buffer.getvalue()


def cell_text(cell: Cell) -> str:
    """A cell for people: three decimals below 100 and one above, counts with thousands marked, a dash for None."""
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:.3f}" if abs(cell) < 100 else f"{cell:,.1f}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def write_csvs(tables: Sequence[ResultTable], folder: Path) -> list[Path]:
    """Write each table as `<slug>.csv` into `folder` and remove other CSV files there, left by tables that are no more.

    Tables of one title are numbered.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for table in tables:
        name, number = table.slug, 1
        while folder / f"{name}.csv" in paths:
            number += 1
            name = f"{table.slug}-{number}"
        paths.append(folder / f"{name}.csv")
        write_text(paths[-1], table.csv())
    for old in set(folder.glob("*.csv")) - set(paths):
        old.unlink()
    return paths
