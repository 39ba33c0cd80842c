"""BORIS' exported tables (tabular and aggregated events, csv or tsv), of all versions: rows to codings.

Older tables begin with lines about the observation (`Observation id`, `Player #1`, ...) and then have one row per START, STOP
or POINT; newer ones repeat the observation in each row. Aggregated tables have one row per state or point, with start and stop.
Source: `olivierfriard/BORIS:boris/export_observation.py` and its `tests/files`.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vjepa_loc.errors import DatasetError
from vjepa_loc.formats._reading import Account

_ABSENT = ("", "na", "nan", "none", "not found", "no focal subject")
_PLAYER = re.compile(r"player #(\d+):", re.IGNORECASE)
_CLOCK = re.compile(r"^(-?)(\d{1,4}):(\d{1,2}):(\d{1,2}(?:\.\d*)?)$")
_TIME_COLUMNS = ("time", "start (s)")


@dataclass
class Media:
    """A video file as BORIS names it; `seconds` is its length where the source says it."""

    path: str
    fps: float | None = None
    seconds: float | None = None


@dataclass
class Coding:
    """START, STOP or POINT of a behaviour at `time_s` of the observation's time, or a STATE until `stop_s`."""

    kind: str
    time_s: float
    behavior: str
    place: str
    stop_s: float | None = None
    subject: str = ""
    modifiers: str = ""
    media: str | None = None
    extra: dict = field(default_factory=dict)


@dataclass
class Observation:
    """`media` are the files of the first player, played one after the other for `seconds`; `offset_s` was added to all times."""

    id: str
    media: list[Media] = field(default_factory=list)
    offset_s: float = 0.0
    seconds: float | None = None
    variables: dict = field(default_factory=dict)
    codings: list[Coding] = field(default_factory=list)


def read_table(path: Path, text: str, account: Account) -> list[Observation]:
    """The observations of an exported table. What a row does not say is counted in `account`.

    Raises `DatasetError` where no line is a header with a behaviour and a time.
    """
    observations: dict[str, Observation] = {}
    about: dict[str, list[str]] = {}
    columns: dict[str, int] = {}
    for number, row in _split(path, text):
        cells = [cell.strip() for cell in row]
        names = [cell.lower() for cell in cells]
        if "behavior" in names and any(name in names for name in _TIME_COLUMNS):
            columns = {name: index for index, name in reversed(list(enumerate(names)))}
        elif names and names[0] == "observation id" and not (columns and "observation id" in columns):
            about, columns = {"observation id": cells[1:]}, {}
        elif not columns:
            if any(cells):
                about.setdefault("player #1" if names[0].startswith("player #1") else names[0], []).extend(cells[1:])
        elif any(cells):
            account.counts["rows"] += 1
            try:
                _read_row(_Row(cells, columns, f"line {number}"), about, observations, path)
            except DatasetError as error:
                account.left_out("rows", str(error))
    if not columns and not observations:
        raise DatasetError(
            f"{path}: expected a table of BORIS events with the columns 'Behavior' and 'Time' or 'Start (s)' "
            f"(comma, semicolon or tab between them), or a BORIS project; the first line is {text.splitlines()[:1]!r:.120}"
        )
    if about and not observations:
        _observation(_Row([], {}, ""), about, observations, path)
    for observation in observations.values():
        _order_media(observation)
    return list(observations.values())


def _order_media(observation: Observation) -> None:
    """Files that the table names only beside codings played in the order of their first codings."""
    first_s: dict[str | None, float] = {}
    for coding in observation.codings:
        first_s[coding.media] = min(coding.time_s, first_s.get(coding.media, math.inf))
    if all(one.seconds is None for one in observation.media):
        observation.media.sort(key=lambda one: first_s.get(one.path, math.inf))
    if len(observation.media) == 1 and observation.media[0].seconds is None:
        observation.media[0].seconds = observation.seconds


class _Row:
    """The cells of a line by the names of the header, in lower case; an absent cell is an empty string, as is for `text` one that says so."""

    def __init__(self, cells: list[str], columns: dict[str, int], place: str):
        self.cells, self.columns, self.place = cells, columns, place

    def cell(self, name: str) -> str:
        index = self.columns.get(name)
        return self.cells[index] if index is not None and index < len(self.cells) else ""

    def text(self, *names: str) -> str:
        return next((cell for cell in map(self.cell, names) if cell.lower() not in _ABSENT), "")

    def number(self, name: str) -> float:
        value = seconds_of(self.text(name))
        if value is None:
            raise DatasetError(f"{self.place}, {name!r}: expected seconds, got {self.text(name)!r}")
        return value


def _read_row(row: _Row, about: dict[str, list[str]], observations: dict[str, Observation], path: Path) -> None:
    # A behaviour may well be called `none`.
    behavior = row.cell("behavior")
    if not behavior:
        raise DatasetError(f"{row.place}, 'behavior': expected a name, got none")
    kind = row.text("status", "behavior type", "type").upper()
    if "start (s)" in row.columns:
        if kind not in ("STATE", "POINT"):
            raise DatasetError(f"{row.place}, 'behavior type': expected STATE or POINT, got {kind!r}")
        time_s = row.number("start (s)")
        stop_s = row.number("stop (s)") if kind == "STATE" else None
    else:
        if kind not in ("START", "STOP", "POINT"):
            raise DatasetError(f"{row.place}, 'status': expected START, STOP or POINT, got {kind!r}")
        time_s, stop_s = row.number("time"), None
    modifiers = [row.text("modifiers"), *(row.text(name) for name in sorted(row.columns) if name.startswith("modifier #"))]
    notes = {
        "category": row.text("behavioral category"),
        "comment": row.text("comment", "comment start"),
        "comment_stop": row.text("comment stop"),
    }
    observation = _observation(row, about, observations, path)
    media = row.text("media file name", "media file path", "media file") or None
    if media and not row.text("source") and media not in [one.path for one in observation.media]:
        observation.media.append(Media(media))
    observation.seconds = observation.seconds or seconds_of(row.text("total length"))
    fps = number_of(row.text("fps", "fps (frame/s)"))
    for one in observation.media:
        if one.fps is None and fps and one.path == (media or one.path):
            one.fps = fps
    observation.codings.append(
        Coding(
            kind,
            time_s,
            behavior,
            row.place,
            stop_s,
            row.text("subject"),
            "|".join(filter(None, modifiers)),
            media,
            {key: value for key, value in notes.items() if value},
        )
    )


def _observation(row: _Row, about: dict[str, list[str]], observations: dict[str, Observation], path: Path) -> Observation:
    """The observation that a row or the lines above the header name; made when it is first named."""

    def line_above(name: str) -> list[str]:
        return [cell for cell in about.get(name, []) if cell.lower() not in _ABSENT]

    name = row.text("observation id") or next(iter(line_above("observation id")), "") or path.stem
    if name not in observations:
        source, lengths, rates = (
            _first_player(row.text(*names)) for names in (["source"], ["media duration (s)"], ["fps", "fps (frame/s)"])
        )
        media = [Media(path) for path in dict.fromkeys(source)] if row.text("source") and _is_media(row) else []
        for one, length, rate in zip(media, lengths, rates, strict=False):
            one.seconds, one.fps = seconds_of(length), number_of(rate)
        media += [Media(path) for path in dict.fromkeys(line_above("player #1"))]
        offset = row.text("time offset (s)") or next(iter(line_above("time offset (s)")), "")
        observations[name] = Observation(name, media, seconds_of(offset) or 0.0)
    return observations[name]


def _is_media(row: _Row) -> bool:
    return row.text("observation type").lower() in ("", "media file", "media file(s)")


def _first_player(text: str) -> list[str]:
    """The parts that belong to player 1 of `player #1:a;b|player #2:c`, which older versions write without the names."""
    parts = _PLAYER.split(text)
    own = parts[parts.index("1") + 1] if "1" in parts[1::2] else parts[0]
    return [part.strip() for part in own.split("|")[0].split(";") if part.strip()]


def seconds_of(text: str) -> float | None:
    """Seconds as a number, or as a clock `hh:mm:ss.zzz`; None where it is neither."""
    clock = _CLOCK.match(text.replace(",", "."))
    if clock is None:
        return number_of(text)
    sign, hours, minutes, seconds = clock.groups()
    total = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    return -total if sign else total


def number_of(text: str) -> float | None:
    """A finite number, also with a decimal comma; None for anything else."""
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _split(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells; the separator is the one that the header has most of."""
    header = next((line for line in text.splitlines() if "behavior" in line.lower() and "subject" in line.lower()), text[:1000])
    separator = max("\t;,", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise DatasetError(f"{path}: expected a table of BORIS events, cannot read line {reader.line_num}: {error}") from None
