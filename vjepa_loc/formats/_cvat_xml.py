"""CVAT XML as it stands in the file: what its meta data say, and its tracks as plain columns.

Read as a stream: of a track only numbers and changes of attributes are kept, so memory grows with the shapes and not
with the text. A DOCTYPE is refused, and with it every entity that a file could define.
"""

from __future__ import annotations

import math
import re
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from vjepa_loc.errors import DatasetError
from vjepa_loc.formats._json_file import located
from vjepa_loc.formats._reading import Account

MOST_FRAMES = 10_000_000
"""A frame number from here on is taken for a mistake: at 100 frames per second it is more than a day."""

_LONG_LINE = 200
_CHUNK_BYTES = 1 << 16
# Of <annotations>, <track>, <box>.
_SHAPE_DEPTH = 3
_POINTS = ("polygon", "polyline", "points")
_SHAPES = ("box", "ellipse", "mask", "cuboid", "skeleton", *_POINTS)
_OLD_ATTRIBUTE = re.compile(r"([@~])(\w+)=([^:]*):?(.*)", re.DOTALL)


@dataclass
class Node:
    """An element of the meta data."""

    tag: str
    line: int
    children: list[Node] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def child(self, tag: str) -> Node | None:
        """The first child of that name."""
        return next((node for node in self.children if node.tag == tag), None)

    def text_of(self, tag: str) -> str:
        """The text of a child without the space around it; empty where there is none."""
        node = self.child(tag)
        return "" if node is None else node.text.strip()

    def below(self, tag: str) -> list[Node]:
        """All elements of that name, at any depth."""
        found, waiting = [], [self]
        while waiting:
            node = waiting.pop()
            waiting += reversed(node.children)
            if node.tag == tag:
                found.append(node)
        return found


@dataclass
class Track:
    """The shapes of a track, in the file's order: frame, enclosing box and line of each; `outside` is 0 or 1.

    `changes` holds per attribute the (number of the shape, value) where its value is another than before.
    """

    line: int
    given: dict[str, str]
    frames: array = field(default_factory=lambda: array("q"))
    boxes: array = field(default_factory=lambda: array("d"))
    outside: array = field(default_factory=lambda: array("b"))
    lines: array = field(default_factory=lambda: array("q"))
    changes: dict[str, list[tuple[int, str]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Declared:
    """What the labels of a file say about an attribute."""

    mutable: bool
    input_type: str


@dataclass
class Document:
    """One file: its meta data (an empty node where it has none) and its tracks."""

    path: Path
    meta: Node
    tracks: list[Track]

    def labels(self) -> dict[str, dict[str, Declared]]:
        """The declared labels in their order, each with its attributes; parts of skeletons are none."""
        labels = {}
        for node in self.meta.below("label"):
            name = node.child("name")
            if name is not None and name.text and node.child("parent") is None:
                declared = map(_declared, node.below("attribute"))
                labels.setdefault(name.text, {}).update(filter(None, declared))
        return labels


def parse(path: Path, account: Account) -> Document:
    """The file `path`. What is in it besides tracks is counted in `account`.

    Raises `DatasetError`, naming file and line, for what is not CVAT for video 1.1.
    """
    reader = _Reader(account, str(path))
    try:
        with path.open("rb") as file:
            head = file.read(4)
            if head == b"PK\x03\x04":
                raise DatasetError(f"{path}: expected an XML file, got a zip archive; unpack it, annotations.xml is inside")
            file.seek(0)
            while chunk := file.read(_CHUNK_BYTES):
                reader.parser.Parse(chunk)
            reader.parser.Parse(b"", True)
    except expat.ExpatError as error:
        reason = expat.ErrorString(error.code)
        place = f"{path}, {_line_of(error.lineno, error.offset)}"
        raise DatasetError(f"{place}: expected CVAT XML, cannot read it as XML: {reason}") from None
    except (LookupError, ValueError) as error:
        if isinstance(error, DatasetError):
            raise
        # An encoding that Python does not know, or that is no encoding of single bytes.
        raise DatasetError(f"{path}, line 1: expected CVAT XML, cannot read it as XML: {error}") from None
    except OSError as error:
        raise DatasetError(f"{path}: expected a readable XML file: {error.strerror}") from None
    return Document(path, reader.meta, reader.tracks)


def whole_number(text: str, name: str) -> int:
    """`text` as an integer; `DatasetError` for anything else."""
    try:
        return int(_plain(text))
    except ValueError:
        raise DatasetError(f"{name}: expected a whole number, got {text[:40]!r}") from None


def _line_of(line: int, column: int) -> str:
    """`line 3`; with the column in a long line, since there are files of a single one."""
    return f"line {line}" + (f", column {column}" if column > _LONG_LINE else "")


def _plain(text: str) -> str:
    if "_" in text or not text.isascii():
        # As Python reads numbers in programs, and no XML file means them.
        raise ValueError
    return text


class _Reader:
    """Receives the elements one after the other."""

    def __init__(self, account: Account, name: str):
        self.account, self.name = account, name
        self.meta, self.tracks = Node("meta", 1), []
        self.depth = 0
        self.meta_path: list[Node] = []
        self.track: Track | None = None
        self.shape: str | None = None
        self.parts: list[tuple[float, ...]] = []
        self.attribute: str | None = None
        self.text: list[str] = []
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self.on_start
        self.parser.EndElementHandler = self.on_end
        self.parser.CharacterDataHandler = self.on_text
        self.parser.StartDoctypeDeclHandler = self.on_doctype

    def place(self) -> str:
        return f"{self.name}, {_line_of(self.parser.CurrentLineNumber, self.parser.CurrentColumnNumber)}"

    def on_doctype(self, *_) -> None:
        raise DatasetError(f"{self.place()}: expected no DOCTYPE, as CVAT writes none; remove it")

    def on_start(self, tag: str, given: dict[str, str]) -> None:
        self.depth += 1
        if self.meta_path:
            node = Node(tag, self.parser.CurrentLineNumber)
            self.meta_path[-1].children.append(node)
            self.meta_path.append(node)
        elif self.track is not None:
            with located(f"{self.place()}, <{tag}>: "):
                self.on_track_content(tag, given)
        elif self.depth == 1:
            if tag != "annotations":
                raise DatasetError(f"{self.place()}: expected <annotations> of CVAT for video 1.1, got <{tag}>")
        elif self.depth == 2:
            self.on_top_level(tag, given)

    def on_top_level(self, tag: str, given: dict[str, str]) -> None:
        if tag == "meta":
            self.meta.line = self.parser.CurrentLineNumber
            self.meta_path.append(self.meta)
        elif tag == "track":
            if not given.get("label"):
                raise DatasetError(f"{self.place()}, <track>: expected a label, got {given.get('label')!r}")
            self.track = Track(self.parser.CurrentLineNumber, given)
        elif tag == "image":
            raise DatasetError(
                f"{self.place()}: expected <track> of CVAT for video 1.1, got <image> of CVAT for images 1.1; export "
                "the task again as 'CVAT for video 1.1'"
            )
        elif tag != "version":
            self.account.left_out("elements", f"{self.place()}: <{tag}> is no track")

    def on_track_content(self, tag: str, given: dict[str, str]) -> None:
        if self.depth == _SHAPE_DEPTH and tag in _SHAPES:
            self.start_shape(tag, given)
        elif self.depth == _SHAPE_DEPTH + 1 and self.shape is not None and tag == "attribute":
            self.attribute, self.text = given.get("name"), []
            if not self.attribute:
                raise DatasetError(f"name: expected the name of an attribute, got {self.attribute!r}")
        elif self.depth == _SHAPE_DEPTH + 1 and self.shape == "skeleton" and tag in _SHAPES:
            if not _flag(given, "outside"):
                self.parts.append(_enclosing(tag, given, self.account, self.place()))
        elif not (self.shape == "skeleton" and tag == "attribute"):
            self.account.left_out("elements", f"{self.place()}: <{tag}> is no shape that can be read")

    def start_shape(self, tag: str, given: dict[str, str]) -> None:
        frame = whole_number(_required(given, "frame"), "frame")
        if abs(frame) >= MOST_FRAMES:
            raise DatasetError(f"frame: expected a number below {MOST_FRAMES}, got {frame}")
        self.shape = tag
        self.parts = [] if tag == "skeleton" else [_enclosing(tag, given, self.account, self.place())]
        if tag != "box":
            self.account.counts[f"shapes_{tag}_enclosed"] += 1
        self.track.frames.append(frame)
        self.track.outside.append(_flag(given, "outside"))
        self.track.lines.append(self.parser.CurrentLineNumber)

    def on_text(self, data: str) -> None:
        if self.meta_path:
            self.meta_path[-1].pieces.append(data)
        elif self.attribute is not None:
            self.text.append(data)

    def on_end(self, tag: str) -> None:
        if self.meta_path:
            self.meta_path.pop()
        elif self.track is not None and self.depth == 2:
            self.tracks.append(self.track)
            self.track = None
        elif self.depth == _SHAPE_DEPTH and self.shape is not None:
            self.end_shape()
        elif self.depth == _SHAPE_DEPTH + 1 and self.attribute is not None:
            self.end_attribute()
        self.depth -= 1

    def end_attribute(self) -> None:
        changes = self.track.changes.setdefault(self.attribute, [])
        value = "".join(self.text)
        if not changes or changes[-1][1] != value:
            changes.append((len(self.track.frames) - 1, value))
        self.attribute = None

    def end_shape(self) -> None:
        if self.parts:
            columns = list(zip(*self.parts, strict=True))
            box = (min(columns[0]), min(columns[1]), max(columns[2]), max(columns[3]))
        else:
            # A skeleton of which nothing can be seen.
            box = (0.0, 0.0, 0.0, 0.0)
            self.track.outside[-1] = 1
        self.track.boxes.extend(box)
        self.shape = None


def _declared(node: Node) -> tuple[str, Declared] | None:
    """Name and kind of an attribute; in files of 2018 it is one text, `~select=action:standing,walking`, ~ for mutable."""
    name = node.child("name")
    if name is not None:
        return name.text, Declared(node.text_of("mutable").lower() == "true", node.text_of("input_type").lower())
    old = _OLD_ATTRIBUTE.fullmatch(node.text.strip())
    return (old[3], Declared(old[1] == "~", old[2].lower())) if old else None


def _required(given: dict[str, str], name: str) -> str:
    if name not in given:
        raise DatasetError(f"{name}: missing")
    return given[name]


def _flag(given: dict[str, str], name: str) -> int:
    value = given.get(name, "0")
    if value not in ("0", "1"):
        raise DatasetError(f"{name}: expected 0 or 1, got {value[:40]!r}")
    return int(value)


def _number(text: str, name: str) -> float:
    try:
        number = float(_plain(text))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DatasetError(f"{name}: expected a finite number, got {text[:40]!r}")
    return number


def _numbers(given: dict[str, str], *names: str) -> tuple[float, ...]:
    return tuple(_number(_required(given, name), name) for name in names)


def _enclosing(tag: str, given: dict[str, str], account: Account, place: str) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 of the upright box around a shape."""
    angle = math.radians(_number(given.get("rotation", "0"), "rotation"))
    if tag == "box":
        x1, y1, x2, y2 = _numbers(given, "xtl", "ytl", "xbr", "ybr")
        if not angle:
            return x1, y1, x2, y2
        account.count("boxes_rotated", f"{place}: turned by {given['rotation']} degrees, the upright box around it is taken")
        half_x, half_y = (x2 - x1) / 2, (y2 - y1) / 2
        cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
        return _around((x1 + x2) / 2, (y1 + y2) / 2, half_x * cos + half_y * sin, half_x * sin + half_y * cos)
    if tag == "ellipse":
        x, y, rx, ry = _numbers(given, "cx", "cy", "rx", "ry")
        cos, sin = math.cos(angle), math.sin(angle)
        return _around(x, y, math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos))
    if tag == "mask":
        x, y, width, height = _numbers(given, "left", "top", "width", "height")
        return x, y, x + width, y + height
    if tag == "cuboid":
        corners = [f"{side}{number}" for side in ("tl", "bl", "tr", "br") for number in (1, 2)]
        xs, ys = (_numbers(given, *(f"{axis}{corner}" for corner in corners)) for axis in "xy")
        return min(xs), min(ys), max(xs), max(ys)
    if tag in _POINTS:
        pairs = [pair.split(",") for pair in _required(given, "points").split(";")]
        if any(len(pair) != 2 for pair in pairs):
            raise DatasetError(f"points: expected 'x,y;x,y;...', got {given['points'][:40]!r}")
        xs, ys = ([_number(pair[axis], "points") for pair in pairs] for axis in (0, 1))
        return min(xs), min(ys), max(xs), max(ys)
    raise DatasetError("a skeleton inside a skeleton cannot be read")


def _around(x: float, y: float, half_x: float, half_y: float) -> tuple[float, float, float, float]:
    return x - half_x, y - half_y, x + half_x, y + half_y
