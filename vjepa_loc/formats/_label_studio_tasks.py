"""Label Studio's files: which tasks they hold, which video each is about, and at how many frames per second it was annotated."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from statistics import median
from urllib.parse import parse_qs, unquote, urlsplit

from vjepa_loc.errors import DatasetError
from vjepa_loc.formats._json_file import kind_of, load_document, located
from vjepa_loc.formats._label_studio_regions import OWN_KEY, RECTANGLE, TIMELINE
from vjepa_loc.formats._reading import Account
from vjepa_loc.formats._video_files import find_video

DEFAULT_FRAME_RATE = 24.0
"""What Label Studio's `<Video>` plays at where its configuration does not say."""

_VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ogv", ".ogg")
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-(?=.)")
_VIDEO_TAG = re.compile(r"<\s*Video\b[^>]*>", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"""([A-Za-z]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_SLOWEST, _FASTEST = 0.01, 1000.0
_AGREE = 0.01


@dataclass
class Task:
    """One task: the video as it is named there, its fields, and its annotations or predictions with their places."""

    place: str
    reference: str
    annotations: list[tuple[str, dict]]
    predictions: list[tuple[str, dict]]
    data: dict = field(default_factory=dict)
    own: dict = field(default_factory=dict)
    config_rate: float | None = None

    @property
    def video_id(self) -> str:
        """The id that `write` kept, else the video's name without suffix and without what an upload put in front."""
        name = self.own.get("id")
        return name if isinstance(name, str) and name else _clean_name(self.reference) or self.reference

    def frame_rate(self) -> float | None:
        """Frames per second that the frame numbers count: by the configuration, the task's data, or the keyframes' times."""
        if self.config_rate is not None:
            return self.config_rate
        stated, measured = _rate(self.data.get("fps")), self._measured_rate()
        if stated is not None and (measured is None or abs(stated - measured) <= _AGREE * stated):
            return stated
        return measured

    def _measured_rate(self) -> float | None:
        rates, counts = [], []
        for _, holder in (*self.annotations, *self.predictions):
            for region in holder["result"]:
                value = region.get("value") if isinstance(region, dict) else None
                if not isinstance(value, dict):
                    continue
                count, duration = _positive(value.get("framesCount")), _positive(value.get("duration"))
                if count and duration:
                    counts.append((count, duration))
                for key in value["sequence"] if isinstance(value.get("sequence"), list) else ():
                    if isinstance(key, dict) and _positive(key.get("frame")) and _positive(key.get("time")):
                        rates.append(_rate(key["frame"] / key["time"]))
        rates = [rate for rate in rates if rate is not None]
        by_count = next(filter(None, (_rate(count / duration) for count, duration in counts)), None)
        if not rates:
            return by_count
        rate = median(rates)
        # The number of frames is rounded; where it is off by more, the times are none of this video's.
        return rate if by_count is None or all(abs(rate * duration - count) <= 1.5 for count, duration in counts) else by_count

    def find_file(self, folder: Path) -> Path | None:
        """The video where the task says, beside the JSON file, or in `videos/` there."""
        named = _file_of(self.reference).name
        return find_video(folder, self.reference, dict.fromkeys([named, _UPLOAD_PREFIX.sub("", named)]))


def load_tasks(path: Path, account: Account) -> list[Task]:
    """The tasks of an export (a list of tasks), of one task, of a webhook's message, or of bare results of a model.

    Raises `MissingFileError`, and `DatasetError` for a file that is none of these or whose tasks name no video at all.
    """
    document = load_document(path, f"Label Studio file {path} does not exist")
    entries = document if isinstance(document, list) else [document]
    tasks = []
    with located(f"{path}: "):
        for index, entry in enumerate(entries):
            place = f"tasks[{index}]"
            with located(f"{place}: "):
                task = _read_task(entry, place, path)
            if task is None:
                account.left_out("tasks", f"{place} has no video in its data")
            else:
                tasks.append(task)
        if entries and not tasks:
            raise DatasetError(f"expected tasks with a video in their data, got none: {account.first_reason('tasks_left_out')}")
    return tasks


def _read_task(entry, place: str, path: Path) -> Task | None:
    if not isinstance(entry, dict):
        raise DatasetError(f"expected a Label Studio task, an object with 'data' and 'annotations', got {kind_of(entry)}")
    config = ""
    if isinstance(entry.get("task"), dict) and isinstance(entry.get("annotation"), dict):
        project = entry.get("project")
        config = project.get("label_config") if isinstance(project, dict) else ""
        entry = entry["task"] | {"annotations": [entry["annotation"]]}
    if "data" not in entry and "result" in entry:
        _check_result(entry)
        return Task(place, _video_beside(path), [(place, entry)], [(place, entry)])
    data = entry.get("data")
    if not isinstance(data, dict):
        hint = " (export as JSON, not as JSON-MIN)" if "data" not in entry else ""
        keys = ", ".join(map(repr, list(entry)[:8])) or "none"
        raise DatasetError(f"data: expected an object{hint}, got {kind_of(data)}; the keys are: {keys}")
    attributes = _video_attributes(config if isinstance(config, str) else "")
    reference = _reference(data, attributes.get("value", ""))
    if reference is None:
        return None
    meta = entry.get("meta")
    own = meta.get(OWN_KEY) if isinstance(meta, dict) else None
    rate = attributes.get("framerate") if attributes else None
    if rate is not None and rate.startswith("$"):
        rate = data.get(rate[1:])
    return Task(
        place,
        reference,
        _holders(entry, "annotations" if "annotations" in entry else "completions"),
        _holders(entry, "predictions"),
        data,
        own if isinstance(own, dict) else {},
        (_rate(rate, inverted=True) or DEFAULT_FRAME_RATE) if attributes else None,
    )


def _holders(entry: dict, key: str) -> list[tuple[str, dict]]:
    holders = entry.get(key) or []
    if not isinstance(holders, list):
        raise DatasetError(f"{key}: expected a list, got {kind_of(holders)}")
    placed = []
    for index, holder in enumerate(holders):
        with located(f"{key}[{index}], "):
            if not isinstance(holder, dict):
                raise DatasetError(f"expected an object, got {kind_of(holder)}")
            _check_result(holder)
        placed.append((f"{key}[{index}]", holder))
    return placed


def _check_result(holder: dict) -> None:
    if not isinstance(holder.get("result"), list):
        raise DatasetError(f"result: expected a list of regions, got {kind_of(holder.get('result'))}")
    for index, region in enumerate(holder["result"]):
        if not isinstance(region, dict) or not isinstance(region.get("type"), str):
            raise DatasetError(f"result[{index}]: expected an object with a 'type', got {str(region)[:80]!r}")


def regions_of(holder: dict, place: str, account: Account) -> Iterator[tuple[str, dict]]:
    """Ranges and rectangles with their places; other regions are counted."""
    for index, region in enumerate(holder["result"]):
        if region["type"] in (RECTANGLE, TIMELINE):
            yield f"{place}, result[{index}]", region
        else:
            account.left_out(
                "regions", f"{place}, result[{index}]: {region['type'][:40]!r} is no range and no rectangle of a video"
            )


def _reference(data: dict, value: str) -> str | None:
    named = [data.get(value[1:])] if value.startswith("$") else []
    named += [data.get("video")] + [one for one in data.values() if isinstance(one, str) and _is_video(one)]
    return next((one for one in named if isinstance(one, str) and one), None)


def _is_video(reference: str) -> bool:
    return _file_of(reference).suffix.lower() in _VIDEO_SUFFIXES


def _file_of(reference: str) -> PurePosixPath | PureWindowsPath:
    """The path in a URL, in Label Studio's `/data/local-files/?d=...`, or as it is."""
    try:
        parts = urlsplit(reference)
    except ValueError:
        return PurePosixPath(reference)
    local = parse_qs(parts.query).get("d")
    if local:
        return PurePosixPath(local[0])
    if parts.scheme and parts.netloc:
        return PurePosixPath(unquote(parts.path))
    return PureWindowsPath(reference) if "\\" in reference else PurePosixPath(reference)


def _clean_name(reference: str) -> str:
    file = _file_of(reference)
    stem = file.stem if _is_video(reference) else file.name
    return _UPLOAD_PREFIX.sub("", stem) if "/upload/" in reference else stem


def _video_beside(path: Path) -> str:
    """What a model's bare result is about: the video in its folder whose name the JSON file's name begins with."""
    beside = sorted(
        (file for file in path.parent.iterdir() if _is_video(file.name) and path.stem.startswith(file.stem)),
        key=lambda file: -len(file.stem),
    )
    return beside[0].name if beside else path.stem


def _video_attributes(config: str) -> dict[str, str]:
    tag = _VIDEO_TAG.search(config)
    if tag is None:
        return {}
    return {"": ""} | {name.lower(): double or single for name, double, single in _ATTRIBUTE.findall(tag[0])}


def _positive(value) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    # Compared as they are: a number may be too long for a float.
    return float(value) if 0 < value < 1e15 else None


def _rate(value, inverted: bool = False) -> float | None:
    """Frames per second within reason; `inverted` takes seconds per frame too, as Label Studio's configuration does."""
    try:
        number = _positive(float(value) if isinstance(value, str) else value)
    except ValueError:
        return None
    if number is not None and inverted and number < 1:
        number = 1 / number
    return number if number is not None and _SLOWEST <= number <= _FASTEST else None
