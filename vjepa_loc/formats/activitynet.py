"""ActivityNet JSON: reads and writes the ground truth (`database`) and the results (`results`).

Times are seconds there and frames here. The frame rate of a video is, in this order, what the caller's probe says of
its file, the entry's own `fps` (no field of the official file, but some copies have it), or a marked nominal one.
Source: `activitynet/ActivityNet:Evaluation/eval_detection.py`, whose fields these are.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from vjepa_loc.dataset import FPS_NOMINAL_KEY, Dataset, Video, check_events, event_place, index_videos, unknown_text
from vjepa_loc.errors import DatasetError
from vjepa_loc.events import Event, check_name, finite_number
from vjepa_loc.formats._json_file import dump_entries, kind_of, load_object, located
from vjepa_loc.formats._reading import Account, ask_or_count, kept_extra
from vjepa_loc.formats.native import EVENT_KEYS, VIDEO_KEYS
from vjepa_loc.timegrid import nominal_frames_to_seconds, nominal_seconds_to_frames

NOMINAL_FPS = 25.0
"""The fps, marked as assumed, of a video of which neither its file nor its entry says one."""

VERSION = "VERSION 1.3"

SPLIT_OF_SUBSET = {"training": "train", "validation": "val", "testing": "test"}
SUBSET_OF_SPLIT = {split: subset for subset, split in SPLIT_OF_SUBSET.items()}

_FILE_FOLDERS = ("", "videos")
_FILE_PREFIXES = ("", "v_")
_FILE_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v")
_ENTRY_KEYS = ("subset", "fps", "annotations")
_ANNOTATION_KEYS = ("label", "segment")
_LOST_VIDEO_FIELDS = ("file", "width", "height", "group", "label")
_ROUNDING_FRAMES = 1e-6


def read(path: Path | str, probe=None) -> Dataset:
    """The dataset in the ground-truth file `path`.

    A video's file is looked for as `<id>` or `v_<id>` beside the JSON file and in `videos/` there; `probe(file)` then
    gives its width, height, fps and num_frames; where it refuses the file, the entry's own values hold. Segments are
    cut at the video's end (`num_frames`, else `duration`); reversed, empty and unreadable ones are left out; counts
    and first reasons are in `extra["reading"]`.
    Raises `MissingFileError`; `DatasetError` for a file that is none of this kind.
    """
    path = Path(path)
    database = _load(path, "database", "annotations")
    account = Account("activitynet")
    files = _find_files(path.parent)
    videos, events = [], []
    with located(f"{path}: "):
        for video_id, entry in database.items():
            with located(f"database {video_id!r}, "):
                if not isinstance(entry, dict):
                    raise DatasetError(f"expected an object, got {kind_of(entry)}")
                file = next((files[stem] for stem in _stems(video_id) if stem in files), None)
                video = _build_video(video_id, entry, file, probe, account)
                videos.append(video)
                events += _build_events(video, entry, account)
        account.counts.update(videos=len(videos), events=len(events))
        labels = sorted({event.label for event in events})
        return Dataset(labels, index_videos(videos), events, path=path, extra={"reading": account.to_dict()})


def write(dataset: Dataset, path: Path | str) -> Account:
    """Write `dataset` as ground truth, all or nothing: intervals in seconds by each video's fps.

    Boxes, scores and ids of events, labels without events, and what ActivityNet does not say of a video have no place
    there; the account returned counts them. Splits `train`, `val` and `test` become ActivityNet's subsets, other names
    stay. Raises `DatasetError` for a video without an fps.
    """
    path = Path(path)
    with located(f"{path}: "):
        entries = {video.id: _video_entry(video, dataset.events_of(video.id)) for video in dataset.videos.values()}
    dump_entries(path, {"version": VERSION, "taxonomy": []}, "database", entries)
    account = Account("activitynet")
    account.counts.update(videos=len(dataset.videos), events=len(dataset.events))
    _count_lost(dataset.events, account)
    account.leave_out_dataset_fields(dataset.extra)
    for video in dataset.videos.values():
        for name in _LOST_VIDEO_FIELDS:
            if getattr(video, name) is not None:
                account.left_out(f"{name}s_of_videos", f"ActivityNet states no {name} of a video")
    for label in set(dataset.labels) - {event.label for event in dataset.events}:
        account.left_out("labels", f"{label!r} has no events, and ActivityNet has no list of labels")
    return account


def read_predictions(path: Path | str, dataset: Dataset) -> list[Event]:
    """The scored events in the results file `path`, in its order; frames by the fps of `dataset`'s videos.

    Segments are cut at the video's end, and left out where nothing remains; a warning counts both. Raises
    `MissingFileError`, or `DatasetError` that names file and entry, for what does not fit the dataset.
    """
    path = Path(path)
    results = _load(path, "results", "predictions")
    events: list[Event] = []
    account = Account("activitynet")
    with located(f"{path}: "):
        for video_id, entries in results.items():
            with located(f"results {video_id!r}, "):
                if video_id not in dataset.videos:
                    raise DatasetError(unknown_text(video_id, dataset.videos))
                if not isinstance(entries, list):
                    raise DatasetError(f"expected a list, got {kind_of(entries)}")
            video = dataset.videos[video_id]
            for index, entry in enumerate(entries):
                with located(f"results {video_id!r}[{index}], "):
                    events += _read_result(video, entry, f"{video_id}[{index}]", account)
        check_events(events, dataset.labels, dataset.videos)
    if account.counts:
        warnings.warn(f"{path}: {'; '.join(account.to_dict()['notes'])}", stacklevel=2)
    return events


def write_predictions(
    events: Sequence[Event], dataset: Dataset, path: Path | str, video_ids: Sequence[str] | None = None
) -> Account:
    """Write scored events as ActivityNet results, all or nothing, for `video_ids` (default: every video).

    A video without events gets an empty list; the account returned counts what has no place there. Raises `DatasetError` for an
    event without a score or that does not fit the dataset, and for a video without an fps.
    """
    path = Path(path)
    with located(f"{path}: "):
        check_events(events, dataset.labels, dataset.videos)
        results = {video_id: [] for video_id in (dataset.videos if video_ids is None else video_ids)}
        for index, event in enumerate(events):
            if event.score is None:
                raise DatasetError(f"{event_place(index, event)}, score: expected a number, got none")
            if event.video_id not in results:
                raise DatasetError(f"{event_place(index, event)}, video_id: expected one of the videos to write")
            entry = _annotation_entry(event, dataset.videos[event.video_id])
            results[event.video_id].append({"score": event.score} | entry)
    external = {"used": False, "details": ""}
    dump_entries(path, {"version": VERSION, "external_data": external}, "results", results)
    account = Account("activitynet")
    account.counts.update(videos=len(results), events=len(events))
    _count_lost([event.replace(score=None) for event in events], account)
    return account


def _count_lost(events: Sequence[Event], account: Account) -> None:
    for event in events:
        for key, is_there in (("boxes", event.num_boxes), ("scores", event.score is not None), ("ids", event.id is not None)):
            if is_there:
                account.left_out(f"{key}_of_events", f"ActivityNet has no place for {key}")


def _load(path: Path, key: str, what: str) -> dict:
    document = load_object(path, f"ActivityNet {what} file {path} does not exist")
    if not isinstance(document.get(key), dict):
        keys = ", ".join(map(repr, document)) or "none"
        raise DatasetError(f"{path}: expected ActivityNet {what} under the key {key!r}; the file's keys are: {keys}")
    return document[key]


def _find_files(folder: Path) -> dict[str, Path]:
    """Video files by their name without suffix."""
    found: dict[str, Path] = {}
    for name in _FILE_FOLDERS:
        place = (folder / name).absolute()
        for file in sorted(place.iterdir()) if place.is_dir() else ():
            if file.suffix.lower() in _FILE_SUFFIXES and file.is_file():
                found.setdefault(file.stem, file)
    return found


def _stems(video_id: str) -> list[str]:
    return [prefix + video_id for prefix in _FILE_PREFIXES]


def _build_video(video_id: str, entry: dict, file: Path | None, probe, account: Account) -> Video:
    subset = entry.get("subset")
    extra = kept_extra(entry, _ENTRY_KEYS, VIDEO_KEYS, account, repr(video_id))
    probed = ask_or_count(probe, file, account)
    fps = probed.fps if probed.fps is not None else entry.get("fps")
    if fps is None:
        fps = NOMINAL_FPS
        extra[FPS_NOMINAL_KEY] = True
        account.counts["videos_with_nominal_fps"] += 1
    return Video(
        id=video_id,
        file=file,
        fps=fps,
        num_frames=probed.num_frames,
        width=probed.width,
        height=probed.height,
        split=SPLIT_OF_SUBSET.get(subset, subset) if isinstance(subset, str) else subset,
        extra=extra,
    )


def _build_events(video: Video, entry: dict, account: Account) -> list[Event]:
    annotations = entry.get("annotations") or []
    if not isinstance(annotations, list):
        raise DatasetError(f"annotations: expected a list, got {kind_of(annotations)}")
    end_frame = _end_frame(video)
    events = []
    for index, annotation in enumerate(annotations):
        place = f"{video.id}[{index}]"
        try:
            label, start, end = _read_annotation(annotation, video)
        except DatasetError as error:
            account.left_out("segments", f"{place}: {error}")
            continue
        interval = _cut_to_video(start, end, end_frame, f"{place}: {annotation['segment']}", account)
        if interval is not None:
            extra = kept_extra(annotation, _ANNOTATION_KEYS, EVENT_KEYS, account, place)
            events.append(Event(video.id, label, *interval, extra=extra))
    return events


def _cut_to_video(
    start: float, end: float, end_frame: float | None, place: str, account: Account
) -> tuple[float, float] | None:
    """The part of an interval in frames that lies in the video, None where there is none; counted in `account`."""
    start_cut, end_cut = max(start, 0.0), end if end_frame is None else min(end, end_frame)
    if not start_cut < end_cut:
        account.left_out("segments", f"{place} is empty, reversed, or outside the video")
        return None
    if start < -_ROUNDING_FRAMES or end > end_cut + _ROUNDING_FRAMES:
        account.cut("segments", f"{place} reaches beyond the video")
    return start_cut, end_cut


def _read_annotation(annotation, video: Video) -> tuple[str, float, float]:
    """Label, start and end in frames."""
    if not isinstance(annotation, dict):
        raise DatasetError(f"expected an object, got {kind_of(annotation)}")
    check_name(annotation.get("label"), "label")
    segment = annotation.get("segment")
    if not isinstance(segment, list) or len(segment) != 2:
        raise DatasetError(f"segment: expected [start, end] in seconds, got {segment!r}")
    seconds = [finite_number(value, "segment") for value in segment]
    start, end = nominal_seconds_to_frames(seconds, _fps_of(video)).tolist()
    return annotation["label"], start, end


def _read_result(video: Video, entry, place: str, account: Account) -> list[Event]:
    """One event, or none where its segment has no part in the video."""
    label, start, end = _read_annotation(entry, video)
    if entry.get("score") is None:
        raise DatasetError("score: missing")
    interval = _cut_to_video(start, end, _end_frame(video), f"{place}: {entry['segment']}", account)
    if interval is None:
        return []
    extra = kept_extra(entry, (*_ANNOTATION_KEYS, "score"), EVENT_KEYS, account, place)
    return [Event(video.id, label, *interval, score=entry["score"], extra=extra)]


def _end_frame(video: Video) -> float | None:
    """Where the video ends, in frames: by its count, else by the duration that its entry states."""
    if video.num_frames is not None:
        return float(video.num_frames)
    duration_s = video.extra.get("duration")
    if duration_s is None:
        return None
    return float(nominal_seconds_to_frames(finite_number(duration_s, "duration"), _fps_of(video)))


def _video_entry(video: Video, events: Sequence[Event]) -> dict:
    entry = {"subset": SUBSET_OF_SPLIT.get(video.split, video.split)} if video.split is not None else {}
    if video.num_frames is not None:
        entry["duration"] = float(nominal_frames_to_seconds(video.num_frames, _fps_of(video)))
    entry |= {key: value for key, value in video.extra.items() if key not in _ENTRY_KEYS}
    return entry | {"fps": _fps_of(video), "annotations": [_annotation_entry(event, video) for event in events]}


def _annotation_entry(event: Event, video: Video) -> dict:
    seconds = nominal_frames_to_seconds([event.start_frame, event.end_frame], _fps_of(video)).tolist()
    extra = {key: value for key, value in event.extra.items() if key not in (*_ANNOTATION_KEYS, "score")}
    return extra | {"label": event.label, "segment": seconds}


def _fps_of(video: Video) -> float:
    if video.fps is None:
        raise DatasetError(f"video {video.id!r}, fps: needed to turn frames into seconds, state it in the dataset")
    return video.fps
