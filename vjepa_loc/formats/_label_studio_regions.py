"""Regions of Label Studio's video timelines: to events, and from events.

Frame n (counted from 1) of a project that plays at R frames per second is the time from (n - 1) / R to n / R, and so the video's
frames from (n - 1) * fps / R to n * fps / R; a range includes both its ends. Between keyframes a rectangle moves linearly. A
keyframe that is not `enabled` still shows its rectangle on its own frame, and hides it from there to the next keyframe.
Source: `HumanSignal/label-studio:web/libs/editor/src/regions/` (`VideoRegion.js`, `VideoRectangleRegion.js`, `TimelineRegion.js`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vjepa_loc.dataset import Video
from vjepa_loc.errors import DatasetError
from vjepa_loc.events import Event, finite_number
from vjepa_loc.formats._json_file import kind_of, located
from vjepa_loc.formats._reading import Account, kept_extra
from vjepa_loc.formats.native import EVENT_KEYS

OWN_KEY = "vjepa_loc"
"""Key in the `meta` of a region or a task under which `write` keeps what Label Studio has no field for."""

RECTANGLE, TIMELINE = "videorectangle", "timelinelabels"
_MOST_FRAMES = 1_000_000


@dataclass(frozen=True)
class Clock:
    """How Label Studio's frames lie on a video's: `scale` of the latter per one of the former, `end_frame` None where unknown."""

    scale: float
    end_frame: float | None


def read_region(region: dict, video: Video, clock: Clock, account: Account, scored: bool, default_score=None) -> list[Event]:
    """The events of one entry of `result`: one per range and label. Raises `DatasetError` that names the key."""
    value = region.get("value")
    if not isinstance(value, dict):
        raise DatasetError(f"value: expected an object, got {kind_of(value)}")
    labels = value.get(TIMELINE) or value.get("labels") or []
    if not isinstance(labels, list) or not all(isinstance(label, str) and label for label in labels):
        raise DatasetError(f"labels: expected a list of names, got {labels!r:.80}")
    if not labels:
        account.left_out("regions", f"{_name(region)} of {video.id!r} has no label")
        return []
    score = region.get("score")
    if scored:
        score = finite_number(default_score if score is None else score, "score")
    elif score is not None:
        account.counts["scores_left_out"] += 1
    is_rectangle = region["type"] == RECTANGLE
    spans = [_read_sequence(value, clock)] if is_rectangle else _read_ranges(value)
    events = []
    for number, span in enumerate(spans, start=1):
        interval = _interval(span, region, video, clock, account)
        if interval is None:
            continue
        boxes = _boxes(span, interval, value, video, clock, account, score if scored else None) if is_rectangle else {}
        own = _own(region)
        extra = own["extra"] if isinstance(own.get("extra"), dict) else {}
        extra = kept_extra(extra, (), EVENT_KEYS, account, f"{_name(region)} of {video.id!r}")
        for index, label in enumerate(dict.fromkeys(labels)):
            name = region.get("id") if isinstance(region.get("id"), str) and region["id"] else None
            if name is not None:
                name += f"/{number}" * (number > 1) + f"/{label}" * (index > 0)
            events.append(Event(video.id, label, *interval, score=score if scored else None, id=name, extra=dict(extra), **boxes))
    return events


@dataclass
class _Span:
    """First and last frame as Label Studio counts them; of a rectangle also its keyframes, ascending."""

    first: int
    last: int
    keys: list[dict]


def _read_ranges(value: dict) -> list[_Span]:
    ranges = value.get("ranges")
    if not isinstance(ranges, list):
        raise DatasetError(f"ranges: expected a list, got {kind_of(ranges)}")
    spans = []
    for index, entry in enumerate(ranges):
        with located(f"ranges[{index}], "):
            if not isinstance(entry, dict):
                raise DatasetError(f"expected an object, got {kind_of(entry)}")
            spans.append(_Span(_frame(entry, "start"), _frame(entry, "end"), []))
    return spans


def _read_sequence(value: dict, clock: Clock) -> _Span:
    sequence = value.get("sequence")
    if not isinstance(sequence, list) or not sequence:
        raise DatasetError(f"sequence: expected a list of keyframes, got {kind_of(sequence) if sequence else 'none'}")
    keys: dict[int, dict] = {}
    for index, entry in enumerate(sequence):
        with located(f"sequence[{index}], "):
            if not isinstance(entry, dict):
                raise DatasetError(f"expected an object, got {kind_of(entry)}")
            numbers = {name: finite_number(entry.get(name), name) for name in ("x", "y", "width", "height")}
            numbers["rotation"] = finite_number(entry.get("rotation") or 0.0, "rotation")
            if entry.get("score") is not None:
                numbers["score"] = finite_number(entry["score"], "score")
            keys.setdefault(_frame(entry, "frame"), numbers | {"enabled": entry.get("enabled", True) is not False})
    ordered = [keys[frame] | {"frame": frame} for frame in sorted(keys)]
    last = ordered[-1]["frame"]
    if ordered[-1]["enabled"]:
        count = value.get("framesCount")
        end = count if isinstance(count, int) and count < _MOST_FRAMES else last
        last = max(last, end if clock.end_frame is None else math.ceil(clock.end_frame / clock.scale))
    return _Span(ordered[0]["frame"], last, ordered)


def _frame(entry: dict, key: str) -> int:
    number = finite_number(entry.get(key), key)
    if not number.is_integer() or not 0 <= number <= _MOST_FRAMES:
        raise DatasetError(f"{key}: expected a whole frame from 1 to {_MOST_FRAMES}, got {number:g}")
    return int(number)


def _interval(span: _Span, region: dict, video: Video, clock: Clock, account: Account) -> tuple[float, float] | None:
    own = _own(region)
    if own.get("frames") == [span.first, span.last]:
        start, end = finite_number(own.get("start_frame"), "start_frame"), finite_number(own.get("end_frame"), "end_frame")
    else:
        start, end = (span.first - 1) * clock.scale, span.last * clock.scale
    start_cut, end_cut = max(start, 0.0), end if clock.end_frame is None else min(end, clock.end_frame)
    place = f"{_name(region)}, frames {span.first} to {span.last} of {video.id!r}"
    if not start_cut < end_cut:
        account.left_out("ranges", f"{place} is empty, reversed, or outside the video")
        return None
    if end_cut > _MOST_FRAMES:
        account.left_out("ranges", f"{place} ends beyond frame {_MOST_FRAMES}")
        return None
    # One frame of Label Studio may be begun and not finished at the video's end.
    if start_cut > start or end_cut < end - clock.scale:
        account.cut("ranges", f"{place} reaches beyond the video")
    return start_cut, end_cut


def _boxes(span: _Span, interval: tuple[float, float], value: dict, video: Video, clock: Clock, account: Account, score) -> dict:
    """The arrays of an event: on each frame of the video the rectangle of the moment in its middle."""
    width, height = video.width or value.get("original_width"), video.height or value.get("original_height")
    if not all(isinstance(side, int) and 0 < side < _MOST_FRAMES for side in (width, height)):
        account.left_out("rectangles", f"nothing tells the size of {video.id!r}; put the video beside the file, or use a probe")
        return {}
    frames = np.arange(math.ceil(interval[0] - 0.5), math.ceil(interval[1] - 0.5))
    key_frames = np.array([key["frame"] for key in span.keys])
    enabled = np.array([key["enabled"] for key in span.keys])
    shown = np.floor((frames + 0.5) / clock.scale).astype(np.int64) + 1
    at = np.searchsorted(key_frames, shown, side="right") - 1
    visible = (at >= 0) & (shown <= span.last) & (enabled[at] | (key_frames[at] == shown))
    frames, shown, at = frames[visible], shown[visible], at[visible]
    # Not beyond the keyframes that bound what is shown: on their other side the rectangle is hidden.
    position = (frames + 0.5) / clock.scale + 0.5
    position = np.where(enabled[at], position, np.minimum(position, key_frames[at]))
    begins = (key_frames[at] == shown) & ~np.append(False, enabled)[at]
    position = np.where(begins, np.maximum(position, key_frames[at]), position)

    def column(name: str) -> np.ndarray:
        values = np.array([key[name] for key in span.keys])
        return np.interp(position, key_frames, np.unwrap(values, period=360) if name == "rotation" else values)

    # Numbers too large for a float become infinite, and their boxes are left out below.
    with np.errstate(over="ignore", invalid="ignore"):
        corners_K4 = _corners(*(column(name) for name in ("x", "y", "width", "height", "rotation")), width, height)
    if any(key["rotation"] % 360 for key in span.keys):
        account.count("rotated_rectangles", f"of {video.id!r}, became the upright boxes around them")
    scores_K = column("score") if score is not None and all("score" in key for key in span.keys) else None
    usable = (corners_K4[:, 0] < corners_K4[:, 2]) & (corners_K4[:, 1] < corners_K4[:, 3]) & np.isfinite(corners_K4).all(axis=1)
    for frame in frames[~usable]:
        account.left_out("boxes", f"of {video.id!r}, frame {frame}: no area, or numbers too large")
    return {
        "box_frames_K": frames[usable],
        "boxes_K4": corners_K4[usable],
        "box_scores_K": None if scores_K is None else scores_K[usable],
    }


def _corners(x, y, box_width, box_height, rotation, width: int, height: int) -> np.ndarray:
    """(K, 4) xyxy in pixels, from percent; a rectangle is turned clockwise about its top left corner."""
    left, top = x / 100 * width, y / 100 * height
    right, bottom = (x + box_width) / 100 * width, (y + box_height) / 100 * height
    if not np.any(rotation % 360):
        return np.column_stack([left, top, right, bottom])
    cos, sin = np.cos(np.radians(rotation)), np.sin(np.radians(rotation))
    across, down = right - left, bottom - top
    xs = np.stack([left, left + across * cos, left - down * sin, left + across * cos - down * sin])
    ys = np.stack([top, top + across * sin, top + down * cos, top + across * sin + down * cos])
    return np.column_stack([xs.min(axis=0), ys.min(axis=0), xs.max(axis=0), ys.max(axis=0)])


def region_of(event: Event, video: Video) -> dict:
    """The region of one event: a rectangle where it has boxes, else a range of the timeline.

    The range is the whole frames the event covers; one that covers none becomes the frame of its middle. The exact interval,
    where it is another, and `extra` go into `meta`, from which `read_region` takes them unless the frames were edited since.
    Raises `DatasetError` for boxes in a video of unknown size.
    """
    region = {"id": event.id} if event.id is not None else {}
    if event.num_boxes:
        first, last = int(event.box_frames_K[0]) + 1, int(event.box_frames_K[-1]) + 1
        region |= {"from_name": "box", "to_name": "video", "type": RECTANGLE, "value": _rectangle(event, video)}
    else:
        start, stop = event.covered_frames()
        if start == stop:
            start = math.floor((event.start_frame + event.end_frame) / 2)
            stop = start + 1
        first, last = start + 1, stop
        ranges = [{"start": first, "end": last}]
        region |= {"from_name": "timeline", "to_name": "video", "type": TIMELINE}
        region |= {"value": {"ranges": ranges, TIMELINE: [event.label]}}
    own = {}
    if (event.start_frame, event.end_frame) != (first - 1, last):
        own = {"start_frame": event.start_frame, "end_frame": event.end_frame, "frames": [first, last]}
    own |= {"extra": event.extra} if event.extra else {}
    region |= {"meta": {OWN_KEY: own}} if own else {}
    return region | ({"score": event.score} if event.score is not None else {})


def _rectangle(event: Event, video: Video) -> dict:
    if video.width is None or video.height is None:
        raise DatasetError(f"video {video.id!r}, width and height: needed to write boxes as percent of the picture, state them")
    frames = event.box_frames_K.tolist()
    goes_on = [after == frame + 1 for frame, after in zip(frames, frames[1:], strict=False)] + [False]
    size_4 = np.array([video.width, video.height, video.width, video.height], dtype=np.float64)
    percent_K4 = (event.boxes_K4 / size_4 * 100).tolist()
    scores = event.box_scores_K.tolist() if event.box_scores_K is not None else None
    sequence = []
    for index, (frame, (x1, y1, x2, y2)) in enumerate(zip(frames, percent_K4, strict=True)):
        box = {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1, "rotation": 0}
        key = {"frame": frame + 1, "enabled": goes_on[index], "time": (frame + 1) / video.fps, **box}
        sequence.append(key | ({} if scores is None else {"score": scores[index]}))
    count = video.num_frames or frames[-1] + 1
    return {"framesCount": count, "duration": count / video.fps, "sequence": sequence, "labels": [event.label]}


def _own(region: dict) -> dict:
    meta = region.get("meta")
    own = meta.get(OWN_KEY) if isinstance(meta, dict) else None
    return own if isinstance(own, dict) else {}


def _name(region: dict) -> str:
    return f"region {region['id']!r}" if isinstance(region.get("id"), str) else f"a {region['type']}"
