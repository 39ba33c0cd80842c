"""Reading JSON files with nothing lost on the way, and messages that name the place in them."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from vjepa_loc.atomic import write_text
from vjepa_loc.errors import DatasetError, MissingFileError

_DEEPEST = 100
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@contextlib.contextmanager
def located(place: str) -> Iterator[None]:
    """Put `place` in front of the message of a `DatasetError` from the block."""
    try:
        yield
    except DatasetError as error:
        raise DatasetError(f"{place}{error}") from None


def load_object(path: Path, missing_message: str) -> dict:
    """The JSON object in the file `path`.

    Raises `MissingFileError` with `missing_message` where there is no file, and `DatasetError` for what is not JSON,
    not an object, or has one key twice in an object (of which the json module would silently keep the last).
    """
    document = load_document(path, missing_message)
    if not isinstance(document, dict):
        raise DatasetError(f"{path}: expected a JSON object, got {kind_of(document)}")
    return document


def load_document(path: Path, missing_message: str):
    """As `load_object`, for any JSON value."""
    if not path.exists():
        raise MissingFileError(missing_message)
    repeated: list[tuple[dict, str]] = []

    def build(pairs: list[tuple[str, object]]) -> dict:
        result = dict(pairs)
        if len(result) != len(pairs):
            keys = [key for key, _ in pairs]
            repeated.append((result, next(key for key in keys if keys.count(key) > 1)))
        return result

    try:
        # A byte-order mark, as some editors write it, is not part of the text.
        text = path.read_text(encoding="utf-8-sig")
        document = json.loads(text, object_pairs_hook=build)
        if _ESCAPED_SURROGATE.search(text):
            json.dumps(document, ensure_ascii=False).encode()
    # Also half of a surrogate pair, which no file could hold, and numbers of thousands of digits.
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: expected a JSON file, cannot read it as one: {error}") from None
    except OSError as error:
        raise DatasetError(f"{path}: expected a readable JSON file: {error.strerror}") from None
    _check_depth(document, path)
    if repeated:
        holder, key = repeated[0]
        raise DatasetError(f"{path}: {_place_of(holder, document) or 'top level'}: the key {key!r} stands twice")
    return document


def dump_object(path: Path, fields: dict, lists: dict[str, list]) -> None:
    """Write one JSON object, all or nothing: `fields` first, then `lists`, whose entries take one line each.

    Raises `DatasetError` for a value that JSON has no form for (NaN under `extra`, an object).
    """
    with _encodable(path) as encode:
        blocks = {key: ("[]", [encode(entry) for entry in entries]) for key, entries in lists.items()}
        text = _object_text(encode, fields, blocks)
    write_text(path, text)


def dump_entries(path: Path, fields: dict, key: str, entries: dict[str, object]) -> None:
    """Write one JSON object, all or nothing: `fields` first, then under `key` the object `entries`, a line each.

    Raises `DatasetError` as `dump_object` does.
    """
    with _encodable(path) as encode:
        lines = [f"{encode(name)}: {encode(entry)}" for name, entry in entries.items()]
        text = _object_text(encode, fields, {key: ("{}", lines)})
    write_text(path, text)


def dump_list(path: Path, entries: list) -> None:
    """Write a JSON list, an entry per line, all or nothing. Raises `DatasetError` as `dump_object` does."""
    with _encodable(path) as encode:
        lines = ",\n".join(map(encode, entries))
    write_text(path, f"[\n{lines}\n]\n" if lines else "[]\n")


@contextlib.contextmanager
def _encodable(path: Path) -> Iterator[Callable[[object], str]]:
    try:
        yield json.JSONEncoder(allow_nan=False).encode
    except (TypeError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: cannot be written as JSON: {error}") from None


def _object_text(encode: Callable[[object], str], fields: dict, blocks: dict[str, tuple[str, list[str]]]) -> str:
    """Fields, then blocks: key to the brackets around it and its lines."""
    parts = [f"{encode(key)}: {encode(value)}" for key, value in fields.items()]
    for key, (brackets, lines) in blocks.items():
        inside = "\n" + ",\n".join(lines) + "\n" if lines else ""
        parts.append(f"{encode(key)}: {brackets[0]}{inside}{brackets[1]}")
    return "{" + ",\n".join(parts) + "}\n"


def kind_of(value) -> str:
    """What JSON calls the type of `value`."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def all_finite(value) -> bool:
    """Whether no number in a JSON value is NaN or infinite."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(all_finite, value.values()))
    return all(map(all_finite, value)) if isinstance(value, list) else True


def _check_depth(document, path: Path) -> None:
    """Refuse nesting that later steps, which call themselves per level, could not walk."""
    level = [document] if isinstance(document, (dict, list)) else []
    for _ in range(_DEEPEST):
        if not level:
            return
        level = [
            child
            for value in level
            for child in (value.values() if type(value) is dict else value)
            if type(child) is dict or type(child) is list
        ]
    raise DatasetError(f"{path}: expected at most {_DEEPEST} levels of lists and objects inside each other, got more")


def _place_of(wanted: dict, value, place: str = "") -> str | None:
    if value is wanted:
        return place
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        below = f"{place}[{key}]" if isinstance(value, list) else f"{place}.{key}" if place else str(key)
        found = _place_of(wanted, child, below)
        if found is not None:
            return found
    return None
