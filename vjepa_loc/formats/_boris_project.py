"""BORIS projects (`.boris`, JSON): to codings, and from events.

In a project a state is coded twice, and which coding starts it and which stops it follows from their order alone: of one subject,
behaviour and modifiers every second one stops. Source: `olivierfriard/BORIS:boris/project_functions.py` (`events_start_stop`),
`boris/import_observations.py`; the project format is version 7.0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from vjepa_loc.dataset import FPS_NOMINAL_KEY, Dataset, Video
from vjepa_loc.errors import DatasetError
from vjepa_loc.events import Event, check_name, finite_number
from vjepa_loc.formats._boris_table import Coding, Media, Observation
from vjepa_loc.formats._json_file import kind_of, located
from vjepa_loc.formats._reading import Account
from vjepa_loc.timegrid import nominal_frames_to_seconds

VIDEO_VARIABLES = ("split", "group", "label", "num_frames", "width", "height")
"""Fields of a video that are kept as independent variables of its observation; `video_id` is another."""

KEPT_EXTRA = ("subject", "modifiers", "comment", "comment_stop")
"""What a coding holds of an event's `extra`."""

KEPT_VIDEO_EXTRA = (FPS_NOMINAL_KEY, "media_file", "duration_s")
"""What a project holds of a video's `extra`: whether its fps is an assumed one, the media file, and its length."""

_DATE = "1970-01-01T00:00:00"
_PLAYERS = 8


def read_project(document: dict, account: Account) -> tuple[list[str], list[Observation]]:
    """Codes of the ethogram in its order, and the observations. Raises `DatasetError`, naming the key."""
    is_state = _ethogram(document)
    observations = []
    for name, entry in _object(document, "observations").items():
        with located(f"observations {name!r}, "):
            if not isinstance(entry, dict):
                raise DatasetError(f"expected an object, got {kind_of(entry)}")
            if entry.get("type") == "IMAGES":
                account.left_out("observations", f"{name!r} is of single pictures, whose codings have no times")
                continue
            check_name(name, "name")
            observations.append(_observation(name, entry, is_state, account))
    return list(is_state), observations


def _ethogram(document: dict) -> dict[str, bool]:
    codes = {}
    for key, entry in _object(document, "behaviors_conf").items():
        with located(f"behaviors_conf {key!r}, "):
            if not isinstance(entry, dict):
                raise DatasetError(f"expected an object, got {kind_of(entry)}")
            check_name(entry.get("code"), "code")
            check_name(entry.get("type"), "type")
            codes[entry["code"]] = entry["type"].lower().startswith("state")
    return codes


def _observation(name: str, entry: dict, is_state: dict[str, bool], account: Account) -> Observation:
    # A live observation has an empty list here.
    files = _object(entry, "file", {}).get("1") or [] if entry.get("file") else []
    if not isinstance(files, list) or not all(isinstance(file, str) and file for file in files):
        raise DatasetError(f"file, '1': expected a list of paths, got {files!r:.80}")
    info = _object(entry, "media_info", {})
    lengths, rates = _object(info, "length", {}), _object(info, "fps", {})
    offset_s = finite_number(entry.get("time offset") or 0.0, "time offset")
    media = [Media(file, _number(rates.get(file)), _number(lengths.get(file))) for file in dict.fromkeys(files)]
    observation = Observation(name, media, offset_s, variables=_object(entry, "independent_variables", {}))
    coded = entry.get("events")
    if not isinstance(coded, list):
        raise DatasetError(f"events: expected a list, got {kind_of(coded)}")
    for index, values in enumerate(coded):
        try:
            observation.codings.append(_coding(values, is_state, f"{name}, events[{index}]"))
        except DatasetError as error:
            account.left_out("codings", str(error))
    observation.codings.sort(key=lambda coding: coding.time_s)
    running: dict[tuple, bool] = defaultdict(bool)
    for coding in observation.codings:
        if coding.kind != "POINT":
            key = (coding.subject, coding.behavior, coding.modifiers)
            coding.kind = "STOP" if running[key] else "START"
            running[key] = not running[key]
    return observation


def _coding(values, is_state: dict[str, bool], place: str) -> Coding:
    with located(f"{place}: "):
        if not isinstance(values, list) or len(values) < 3:
            raise DatasetError(f"expected [time, subject, behaviour, modifiers, comment], got {values!r:.80}")
        time_s = finite_number(values[0], "time")
        check_name(values[2], "behaviour")
        if values[2] not in is_state:
            raise DatasetError(f"behaviour: {values[2]!r} is not in behaviors_conf, which would say if it is a state or a point")
        subject, modifiers, comment = (value if isinstance(value, str) else "" for value in [values[1], *values[3:5], "", ""][:3])
    kind = "START" if is_state[values[2]] else "POINT"
    return Coding(kind, time_s, values[2], place, None, subject, modifiers, None, {"comment": comment} if comment else {})


def _object(holder: dict, key: str, default: dict | None = None) -> dict:
    value = holder.get(key, default)
    if not isinstance(value, dict):
        raise DatasetError(f"{key}: expected an object, got {'nothing' if key not in holder else kind_of(value)}")
    return value


def _number(value) -> float | None:
    try:
        return finite_number(value, "")
    except DatasetError:
        return None


def project_of(dataset: Dataset, account: Account) -> dict:
    """The project with one observation per video and one state per event; what has no place is counted in `account`.

    Codings of one subject, behaviour and modifiers toggle, so an event that overlaps another of its kind is written under
    a subject of its own: `#2`, `#3`, ... Raises `DatasetError` for a video without fps.
    """
    subjects: dict[str, None] = {}
    observations = {}
    for video in dataset.videos.values():
        codings = _codings_of(video, dataset.events_of(video.id), account)
        subjects |= dict.fromkeys(subject for _, subject, *_ in codings if subject)
        observations[video.id] = _observation_entry(video, codings)
    variables = dict.fromkeys(name for entry in observations.values() for name in entry["independent_variables"])
    return {
        "time_format": "hh:mm:ss",
        "project_date": _DATE,
        "project_name": "vjepa_loc",
        "project_description": "",
        "project_format_version": "7.0",
        "subjects_conf": _numbered({"key": "", "name": name, "description": ""} for name in subjects),
        "behaviors_conf": _numbered(_behavior_entry(label) for label in dataset.labels),
        "observations": observations,
        "behavioral_categories": [],
        "independent_variables": _numbered(
            {"label": name, "description": "", "type": "text", "default value": "", "possible values": ""} for name in variables
        ),
        "coding_map": {},
        "behaviors_coding_map": [],
        "converters": {},
    }


def _codings_of(video: Video, events: Sequence[Event], account: Account) -> list[list]:
    if video.fps is None:
        raise DatasetError(f"video {video.id!r}, fps: needed to turn frames into seconds, state it in the dataset")
    until: dict[tuple, float] = {}
    codings = []
    for event in sorted(events, key=lambda event: event.start_frame):
        subject, modifiers, comment, comment_stop = (str(event.extra.get(key, "")) for key in KEPT_EXTRA)
        lane, number = subject, 1
        while until.get((event.label, lane, modifiers), 0.0) > event.start_frame:
            number += 1
            lane = f"{subject} #{number}".strip()
        if number > 1:
            account.count(
                "subjects_added", f"{event.label!r} at frame {event.start_frame:g} of {video.id!r} overlaps another one"
            )
        until[event.label, lane, modifiers] = event.end_frame
        start_s, stop_s = nominal_frames_to_seconds([event.start_frame, event.end_frame], video.fps).tolist()
        codings += [[start_s, lane, event.label, modifiers, comment], [stop_s, lane, event.label, modifiers, comment_stop]]
    return sorted(codings, key=lambda coding: coding[0])


def _observation_entry(video: Video, codings: list[list]) -> dict:
    path = str(video.file or _extra_of(video, "media_file", str) or video.id)
    variables = {name: str(getattr(video, name)) for name in VIDEO_VARIABLES if getattr(video, name) is not None}
    if video.fps_nominal:
        variables[FPS_NOMINAL_KEY] = "True"
    seconds = _extra_of(video, "duration_s", (int, float))
    if video.num_frames is not None:
        seconds = float(nominal_frames_to_seconds(video.num_frames, video.fps))
    return {
        "file": {str(player): [path] if player == 1 else [] for player in range(1, _PLAYERS + 1)},
        "type": "MEDIA",
        "date": _DATE,
        "description": "",
        "time offset": 0.0,
        "events": codings,
        "observation time interval": [0, 0],
        "independent_variables": {"video_id": video.id} | variables,
        "visualize_spectrogram": False,
        "visualize_waveform": False,
        "close_behaviors_between_videos": False,
        "media_info": {
            "length": {} if seconds is None else {path: seconds},
            "fps": {path: video.fps},
            "hasVideo": {path: True},
            "hasAudio": {path: False},
            "offset": {"1": 0.0},
        },
    }


def _extra_of(video: Video, key: str, kind):
    value = video.extra.get(key)
    return value if isinstance(value, kind) and not isinstance(value, bool) else None


def _behavior_entry(label: str) -> dict:
    empty = dict.fromkeys(("key", "description", "category", "modifiers", "excluded", "coding map"), "")
    return {"type": "State event", "code": label} | empty


def _numbered(entries) -> dict[str, dict]:
    return {str(number): entry for number, entry in enumerate(entries)}
