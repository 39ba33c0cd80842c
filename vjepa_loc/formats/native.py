"""The native dataset and prediction file: one JSON object that is checked in full when it is read.

Every error names file, entry and field. Keys that the format does not know are kept under `extra` and written back.
Numbers are never rounded: what is read, written and read again is the same.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vjepa_loc.dataset import Dataset, Video, check_events, check_labels, index_videos, unknown_text
from vjepa_loc.errors import DatasetError
from vjepa_loc.events import Event, finite_number
from vjepa_loc.formats._json_file import all_finite, dump_object, kind_of, load_object, located

FORMAT_NAME = "vjepa_loc"
VERSION = 1

_FILE_KEYS = ("format", "version", "labels", "videos", "events")
VIDEO_KEYS = ("id", "file", "fps", "num_frames", "width", "height", "split", "group", "label")
EVENT_KEYS = ("id", "video_id", "label", "start_frame", "end_frame", "boxes", "score")
_EXACT_INTEGERS = 2**53


def read(path: Path | str, probe=None) -> Dataset:
    """The dataset in the file `path`. `probe` is not needed: what the file leaves out stays None.

    Raises `MissingFileError`, or `DatasetError` that names file, entry and field.
    """
    path = Path(path)
    document = load_object(
        path,
        f"dataset file {path} does not exist. Make one from other annotations with `python cli.py convert`, "
        "or try `make demo`, which needs no data.",
    )
    with located(f"{path}: "):
        _check_header(document, required=_FILE_KEYS)
        return Dataset(
            labels=_list_of(document, "labels"),
            videos=index_videos(_read_videos(document, path)),
            events=_read_events(document, scored=False),
            path=path,
            extra=_extra_of(document, _FILE_KEYS),
        )


def write(dataset: Dataset, path: Path | str) -> None:
    """Write `dataset` all or nothing; `read` gives the same back.

    A video's file below the folder of `path` is written relative to it, any other as an absolute path.
    Raises `DatasetError` for an `extra` that JSON cannot hold or that hides a field.
    """
    path = Path(path)
    with located(f"{path}: "):
        fields = {"format": FORMAT_NAME, "version": VERSION, "labels": list(dataset.labels)}
        fields |= _safe_extra(dataset.extra, _FILE_KEYS, "top level")
        videos = [_video_entry(video, path) for video in dataset.videos.values()]
        events = [_event_entry(event) for event in dataset.events]
    dump_object(path, fields, {"videos": videos, "events": events})


def read_predictions(path: Path | str, dataset: Dataset) -> list[Event]:
    """The scored events in the file `path`, in its order, checked against `dataset`.

    The file may leave `videos` out; where it has them they must agree with the dataset's. A box without its own
    score, in an event where others have one, takes its event's.
    Raises `MissingFileError`, or `DatasetError` that names file, entry and field, also for an event without a score.
    """
    path = Path(path)
    document = load_object(
        path, f"prediction file {path} does not exist. Write one with `python cli.py predict`, or correct the path."
    )
    with located(f"{path}: "):
        _check_header(document, required=("format", "version", "events"))
        labels = _list_of(document, "labels") if "labels" in document else dataset.labels
        check_labels(labels)
        _check_same_videos(_read_videos(document, path) if "videos" in document else [], dataset)
        events = _read_events(document, scored=True)
        check_events(events, labels, dataset.videos)
        check_events(events, dataset.labels, dataset.videos)
    return events


def write_predictions(events: Sequence[Event], dataset: Dataset, path: Path | str) -> None:
    """Write scored events of `dataset`'s videos all or nothing; `read_predictions` gives the same back.

    Raises `DatasetError` for an event that has no score or does not fit the dataset.
    """
    path = Path(path)
    with located(f"{path}: "):
        check_events(events, dataset.labels, dataset.videos)
        for index, event in enumerate(events):
            if event.score is None:
                raise DatasetError(f"events[{index}], score: expected a number, as every prediction has one, got none")
        entries = [_event_entry(event) for event in events]
    fields = {"format": FORMAT_NAME, "version": VERSION, "labels": list(dataset.labels)}
    dump_object(path, fields, {"events": entries})


def _check_header(document: dict, required: Sequence[str]) -> None:
    for key in required:
        if key not in document:
            hint = " (write [] for none)" if key in ("labels", "videos", "events") else ""
            raise DatasetError(f"top level, {key}: missing{hint}")
    if document["format"] != FORMAT_NAME:
        raise DatasetError(
            f"top level, format: expected {FORMAT_NAME!r}, got {document['format']!r}; "
            "bring other formats over with `python cli.py convert`"
        )
    version = document["version"]
    if type(version) is not int or version != VERSION:
        raise DatasetError(f"top level, version: expected {VERSION}, got {version!r}")


def _list_of(document: dict, key: str) -> list:
    if not isinstance(document[key], list):
        raise DatasetError(f"top level, {key}: expected a list, got {kind_of(document[key])}")
    return document[key]


def _read_videos(document: dict, path: Path) -> list[Video]:
    videos = []
    for index, entry in enumerate(_list_of(document, "videos")):
        with located(_place("videos", index, entry)):
            fields = {key: entry[key] for key in VIDEO_KEYS if entry.get(key) is not None}
            _require(entry, ("id",))
            if "file" in fields:
                fields["file"] = _absolute_file(fields["file"], path)
            videos.append(Video(**fields, extra=_extra_of(entry, VIDEO_KEYS)))
    return videos


def _read_events(document: dict, scored: bool) -> list[Event]:
    required = ("video_id", "label", "start_frame", "end_frame") + (("score",) if scored else ())
    events = []
    for index, entry in enumerate(_list_of(document, "events")):
        with located(_place("events", index, entry)):
            _require(entry, required)
            boxes, score = entry.get("boxes"), entry.get("score")
            if score is not None:
                score = finite_number(score, "score")
            events.append(
                Event(
                    video_id=entry["video_id"],
                    label=entry["label"],
                    start_frame=entry["start_frame"],
                    end_frame=entry["end_frame"],
                    score=score,
                    id=entry.get("id"),
                    extra=_extra_of(entry, EVENT_KEYS),
                    **(_read_boxes(boxes, score) if boxes is not None else {}),
                )
            )
    return events


def _place(list_name: str, index: int, entry) -> str:
    """`events[3] ('e4'), `; raises where the entry is no object."""
    if not isinstance(entry, dict):
        raise DatasetError(f"{list_name}[{index}]: expected an object, got {kind_of(entry)}")
    name = f" ({entry['id']!r})" if isinstance(entry.get("id"), str) else ""
    return f"{list_name}[{index}]{name}, "


def _require(entry: dict, keys: Sequence[str]) -> None:
    for key in keys:
        if entry.get(key) is None:
            raise DatasetError(f"{key}: missing")


def _read_boxes(boxes, score) -> dict:
    """The arrays of an event from `{"<frame>": [x1, y1, x2, y2(, score)]}`, ascending by frame."""
    if not isinstance(boxes, dict):
        raise DatasetError(f"boxes: expected an object from frame to box, got {kind_of(boxes)}")
    for key, box in boxes.items():
        if not isinstance(box, list) or not (len(box) == 4 or (len(box) == 5 and score is not None)):
            got = f"{len(box)} numbers" if isinstance(box, list) else kind_of(box)
            raise DatasetError(
                f"boxes, frame {key}: expected 4 numbers x1, y1, x2, y2 (a fifth, its score, only where the event "
                f"has a score), got {got}"
            )
    frames_K = _read_frames(boxes)
    if not set(map(type, itertools.chain.from_iterable(boxes.values()))) <= {int, float}:
        for key, box in boxes.items():
            for value in box:
                finite_number(value, f"boxes, frame {key}")
    order_K = np.argsort(frames_K, kind="stable")
    own_scores = {len(box) for box in boxes.values()} - {4}
    rows = [box if len(box) == 5 else [*box, score] for box in boxes.values()] if own_scores else boxes.values()
    try:
        table = np.array(list(rows), dtype=np.float64).reshape(len(boxes), 5 if own_scores else 4)[order_K]
    except OverflowError:
        raise DatasetError("boxes: expected numbers that a float can hold") from None
    return {
        "box_frames_K": frames_K[order_K],
        "boxes_K4": table[:, :4],
        "box_scores_K": table[:, 4] if own_scores else None,
    }


def _read_frames(boxes: dict) -> np.ndarray:
    frames = []
    for key in boxes:
        if not (key.isascii() and key.isdecimal() and (key == "0" or key[0] != "0")) or len(key) > 15:
            raise DatasetError(f"boxes, frame {key!r}: expected a whole frame number such as '140'")
        frames.append(int(key))
    return np.array(frames, dtype=np.int64)


def _absolute_file(file, path: Path) -> Path:
    if not isinstance(file, str) or not file:
        raise DatasetError(f"file: expected a path, got {file!r}")
    # Not resolved: a symbolic link to a big disk stays below the dataset's folder.
    return Path(os.path.abspath(path.parent / file))


def _extra_of(entry: dict, known: Sequence[str]) -> dict:
    extra = {key: value for key, value in entry.items() if key not in known}
    for key, value in extra.items():
        if not all_finite(value):
            raise DatasetError(f"{key}: expected finite numbers, got NaN or infinity")
    return extra


def _check_same_videos(videos: Sequence[Video], dataset: Dataset) -> None:
    for index, video in enumerate(index_videos(videos).values()):
        if video.id not in dataset.videos:
            raise DatasetError(f"videos[{index}], id: {unknown_text(video.id, dataset.videos)}")
        for name in ("fps", "num_frames", "width", "height"):
            here, there = getattr(video, name), getattr(dataset.videos[video.id], name)
            if here is not None and there is not None and here != there:
                raise DatasetError(
                    f"videos[{index}] ({video.id!r}), {name}: expected {there} as in the dataset, got {here}"
                )


def _video_entry(video: Video, path: Path) -> dict:
    entry = {key: getattr(video, key) for key in VIDEO_KEYS if getattr(video, key) is not None}
    if video.file is not None:
        folder, file = os.path.abspath(path.parent), os.path.abspath(video.file)
        below = Path(file).is_relative_to(folder)
        entry["file"] = Path(file).relative_to(folder).as_posix() if below else str(file)
    return entry | _safe_extra(video.extra, VIDEO_KEYS, f"video {video.id!r}")


def _event_entry(event: Event) -> dict:
    entry = {"id": event.id} if event.id is not None else {}
    entry |= {
        "video_id": event.video_id,
        "label": event.label,
        "start_frame": _short_number(event.start_frame),
        "end_frame": _short_number(event.end_frame),
    }
    if event.score is not None:
        entry["score"] = event.score
    if event.num_boxes:
        rows = event.boxes_K4.tolist()
        if event.box_scores_K is not None:
            if event.score is None:
                raise DatasetError(
                    f"event {event.id or event.label!r} of {event.video_id!r}, boxes: "
                    "scores of boxes need the event's own score"
                )
            rows = [[*row, score] for row, score in zip(rows, event.box_scores_K.tolist(), strict=True)]
        entry["boxes"] = dict(zip(map(str, event.box_frames_K.tolist()), rows, strict=True))
    return entry | _safe_extra(event.extra, EVENT_KEYS, f"event {event.id or event.label!r} of {event.video_id!r}")


def _safe_extra(extra: dict, known: Sequence[str], owner: str) -> dict:
    hidden = [key for key in extra if key in known]
    if hidden:
        raise DatasetError(f"{owner}, extra: the key {hidden[0]!r} is a field of the format, set the field instead")
    return extra


def _short_number(number: float) -> int | float:
    """A whole frame without its `.0`; the value is the same."""
    return int(number) if number.is_integer() and abs(number) < _EXACT_INTEGERS else number
