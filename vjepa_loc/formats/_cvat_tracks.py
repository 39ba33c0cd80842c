"""From CVAT tracks to events: keyframes, `outside`, and attributes that change from frame to frame.

    frame       10   11   12   13   14   15        shapes on 10, 12 and, outside, on 14
    box         #    +    #    +                   # listed, + halfway to the next listed one, also to an outside one
    event       [10                 14)

Shape legend: K = listed shapes of one track, N = frames of one stretch, 4 = x1, y1, x2, y2.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from vjepa_loc.dataset import Video
from vjepa_loc.errors import DatasetError
from vjepa_loc.events import Event
from vjepa_loc.formats._cvat_videos import load_note
from vjepa_loc.formats._cvat_xml import Declared, Track
from vjepa_loc.formats._json_file import located
from vjepa_loc.formats._reading import Account

EVENT_ATTRIBUTE = "vjepa_loc"
"""The attribute in which the writer keeps what a track has no place for, as JSON."""

SCORE_ATTRIBUTE = "box_score"
"""The changing attribute that holds a box's own score."""

_MOST_INTERPOLATED = 5_000_000
_ENDLESS = 2**62


@dataclass(frozen=True)
class _Shapes:
    """The shapes of a track by ascending frame, each frame once; per attribute the (frame, value) from which one holds."""

    frames_K: np.ndarray
    boxes_K4: np.ndarray
    outside_K: np.ndarray
    lines_K: np.ndarray
    changes: dict[str, list[tuple[int, str]]]


@dataclass(frozen=True)
class _Stretch:
    """A maximal stretch that is not outside: `[start, end)`, its last frame that is seen, and the frames with a box."""

    start: int
    end: int
    last: int
    frames_N: np.ndarray
    boxes_N4: np.ndarray


def interpolate(frames_K: np.ndarray, boxes_K4: np.ndarray, at_N: np.ndarray) -> np.ndarray:
    """Boxes at the frames `at_N`, which lie from the first of `frames_K` to the last: linear, listed ones to the bit."""
    before_N = np.searchsorted(frames_K, at_N, side="right") - 1
    after_N = np.minimum(before_N + 1, len(frames_K) - 1)
    length_N = np.maximum(frames_K[after_N] - frames_K[before_N], 1)
    part_N1 = ((at_N - frames_K[before_N]) / length_N)[:, None]
    with np.errstate(over="ignore", invalid="ignore"):
        moved_N4 = boxes_K4[before_N] + (boxes_K4[after_N] - boxes_K4[before_N]) * part_N1
    return np.where(part_N1 == 0, boxes_K4[before_N], moved_N4)


class TrackReader:
    """Makes the events of a file's tracks, and keeps the account of what they are made of."""

    def __init__(self, declared: dict[str, dict[str, Declared]], tracks: list[Track], account: Account):
        self.account = account
        self.kinds = _attribute_kinds(declared, tracks)
        self.value_labels: dict[str, None] = {}
        self.num_interpolated = 0

    def read(
        self, track: Track, name: str, video: Video, step: int, last_frame: int | None, place: str
    ) -> list[Event]:
        """The events of one track: the object's own by time, then those of its changing attributes.

        `step` is how many frames of the video a frame of the task stands for, `last_frame` where the task ends. Raises
        `DatasetError`, which begins with `place` and the line, for a note of the writer that contradicts itself.
        """
        place = f"{place}, line {track.line}"
        if not len(track.frames):
            self.account.left_out("tracks", f"{place}: it has no shapes")
            return []
        shapes = self._sorted(track, place)
        if shapes.outside_K.all():
            self.account.left_out("tracks", f"{place}: it is outside on all of its frames")
            return []
        label, extra = track.given["label"], {"track": name}
        fixed = {key: pairs[0][1] for key, pairs in shapes.changes.items() if not self._changes(label, key)}
        noted = fixed.pop(EVENT_ATTRIBUTE, None)
        with located(f"{place}, attribute {EVENT_ATTRIBUTE}: "):
            note = None if noted is None else load_note(noted)
        stretches = list(self._stretches(shapes, step, video, place, boxless=_is_stand_in(note, shapes)))
        if note is None:
            if not shapes.outside_K[-1] and (last_frame is None or shapes.frames_K[-1] + step <= last_frame):
                self.account.counts["tracks_without_outside_at_the_end"] += 1
            stretches = [self._usable(one, shapes, video, place) for one in stretches]
            own_extra = extra | ({"attributes": fixed} if fixed else {})
            events = [self._event(label, one, one.start, one.end, video, own_extra, place) for one in stretches]
        else:
            with located(f"{place}, attribute {EVENT_ATTRIBUTE}: "):
                events = [_noted_event(note, label, fixed, shapes, stretches, video)]
            self.account.counts["tracks_written_by_vjepa_loc"] += 1
        for one in stretches:
            for value_label, start, end in self._values(label, shapes, one):
                events.append(self._event(value_label, one, start, end, video, extra, place))
        return [event for event in events if event is not None]

    def _changes(self, label: str, name: str) -> bool:
        return name == SCORE_ATTRIBUTE or (name != EVENT_ATTRIBUTE and self.kinds[label, name].mutable)

    def _sorted(self, track: Track, place: str) -> _Shapes:
        frames_K = np.array(track.frames, dtype=np.int64)
        order_K = np.unique(frames_K, return_index=True)[1]
        if len(order_K) < len(frames_K):
            for at in np.setdiff1d(np.arange(len(frames_K)), order_K).tolist():
                self.account.left_out("shapes", f"{place}: a second one on frame {frames_K[at]}, line {track.lines[at]}")
        changes = {}
        for name, pairs in track.changes.items():
            # The file's order need not be that of the frames.
            run_K = (np.searchsorted([at for at, _ in pairs], np.arange(len(frames_K)), side="right") - 1)[order_K]
            new_K = np.flatnonzero(np.concatenate([[run_K[0] >= 0], run_K[1:] != run_K[:-1]]))
            changes[name] = [(int(frames_K[order_K[at]]), pairs[run_K[at]][1]) for at in new_K.tolist() if run_K[at] >= 0]
        return _Shapes(
            frames_K[order_K],
            np.array(track.boxes, dtype=np.float64).reshape(-1, 4)[order_K],
            np.array(track.outside, dtype=bool)[order_K],
            np.array(track.lines, dtype=np.int64)[order_K],
            {name: pairs for name, pairs in changes.items() if pairs},
        )

    def _stretches(
        self, shapes: _Shapes, step: int, video: Video, place: str, boxless: bool
    ) -> Iterator[_Stretch]:
        visible_K = np.concatenate([[False], ~shapes.outside_K, [False]])
        for first, stop in np.flatnonzero(visible_K[1:] != visible_K[:-1]).reshape(-1, 2).tolist():
            start, last = int(shapes.frames_K[first]), int(shapes.frames_K[stop - 1])
            if stop < len(shapes.frames_K):
                end = last_box = int(shapes.frames_K[stop])
                listed = slice(first, stop + 1)
            else:
                end, last_box = max(last + 1, min(last + step, video.num_frames or _ENDLESS)), last + 1
                listed = slice(first, stop)
            if boxless:
                yield _Stretch(start, end, last_box - 1, shapes.frames_K[:0], shapes.boxes_K4[:0])
                continue
            self.num_interpolated += last_box - start - (stop - first)
            if self.num_interpolated > _MOST_INTERPOLATED:
                raise DatasetError(
                    f"{place}: expected at most {_MOST_INTERPOLATED} boxes between those that are listed; are the frame "
                    "numbers right?"
                )
            at_N = np.arange(start, last_box)
            yield _Stretch(start, end, last_box - 1, at_N, interpolate(shapes.frames_K[listed], shapes.boxes_K4[listed], at_N))

    def _usable(self, one: _Stretch, shapes: _Shapes, video: Video, place: str) -> _Stretch:
        """Without boxes that have no area in the picture; others cut at its edges (the lower ones, where its size is unknown)."""
        width, height = video.width or np.inf, video.height or np.inf
        cut_N4 = np.clip(one.boxes_N4, 0, [width, height, width, height])
        good_N = np.isfinite(cut_N4).all(axis=1) & (cut_N4[:, :2] < cut_N4[:, 2:]).all(axis=1)
        changed_N = good_N & (cut_N4 != one.boxes_N4).any(axis=1)
        for key, marked_N, what in (
            ("boxes_left_out", ~good_N, "no area in the picture"),
            ("boxes_cut", changed_N, "reaches beyond the picture"),
        ):
            for at in np.flatnonzero(marked_N).tolist():
                line = shapes.lines_K[np.searchsorted(shapes.frames_K, one.frames_N[at], side="right") - 1]
                box = ", ".join(f"{value:g}" for value in one.boxes_N4[at])
                self.account.count(key, f"{place}, frame {one.frames_N[at]} (line {line}): {what}: {box}")
        return replace(one, frames_N=one.frames_N[good_N], boxes_N4=cut_N4[good_N])

    def _event(
        self, label: str, one: _Stretch, first: int, stop: int, video: Video, extra: dict, place: str
    ) -> Event | None:
        """`[first, stop)` of a stretch, cut at the video's ends; None where nothing of it remains."""
        start, end = max(first, 0), min(stop, video.num_frames or _ENDLESS)
        text = f"{place}: {label!r} from frame {first} to {stop}"
        limits = f"the video's frames 0 to {video.num_frames or '?'}"
        if start >= end:
            self.account.left_out("events", f"{text} lies outside {limits}")
            return None
        if (start, end) != (first, stop):
            self.account.cut("events", f"{text} reaches beyond {limits}")
        inside = slice(*np.searchsorted(one.frames_N, [start, end]))
        return Event(video.id, label, start, end, one.frames_N[inside], one.boxes_N4[inside], extra=dict(extra))

    def _values(self, label: str, shapes: _Shapes, one: _Stretch) -> Iterator[tuple[str, int, int]]:
        """(label, start, end) of every value that a changing attribute has within a stretch."""
        for name, changes in shapes.changes.items():
            kind = self.kinds[label, name]
            if not self._changes(label, name) or name == SCORE_ATTRIBUTE:
                continue
            if kind.input_type in ("number", "text"):
                self.account.left_out("changing_attributes", f"{label}:{name} is a {kind.input_type} and makes no classes")
                continue
            before = int(np.searchsorted([frame for frame, _ in changes], one.start, side="right")) - 1
            runs = [(max(frame, one.start), value) for frame, value in changes[max(before, 0) :] if frame < one.end]
            for (frame, value), (stop, _) in itertools.pairwise([*runs, (one.end, "")]):
                if value in ("", "__undefined__") or (kind.input_type == "checkbox" and value.lower() == "false"):
                    self.account.counts["attribute_values_unset"] += 1
                else:
                    value_label = f"{label}:{name}={value}"
                    self.value_labels[value_label] = None
                    yield value_label, frame, stop


def _is_stand_in(note: dict | None, shapes: _Shapes) -> bool:
    """Whether the boxes still are the one that the writer put where an event has none."""
    stand_in = None if note is None else note.get("stand_in")
    return stand_in is not None and all(box == stand_in for box in shapes.boxes_K4[~shapes.outside_K].tolist())


def _noted_event(
    note: dict, label: str, fixed: dict[str, str], shapes: _Shapes, stretches: list[_Stretch], video: Video
) -> Event:
    """The event that was written; its own interval holds at the ends where the track is still seen from and to.

    It does not hold where boxes have come to an event that had none: it need not cover their frames.
    """
    first, last = stretches[0].start, stretches[-1].last
    frames_N = np.concatenate([one.frames_N for one in stretches])
    if "stand_in" in note and len(frames_N):
        note = note | {"first": None, "last": None}
    extra = note.get("extra", {})
    if fixed and isinstance(extra, dict):
        extra = extra | {"attributes": fixed}
    has_scores = SCORE_ATTRIBUTE in shapes.changes and len(frames_N) > 0
    return Event(
        video_id=video.id,
        label=label,
        start_frame=note.get("start") if note.get("first") == first else first,
        end_frame=note.get("end") if note.get("last") == last else last + 1,
        box_frames_K=frames_N,
        boxes_K4=np.concatenate([one.boxes_N4 for one in stretches]),
        box_scores_K=_held(shapes.changes[SCORE_ATTRIBUTE], frames_N) if has_scores else None,
        score=note.get("score"),
        id=note.get("id"),
        extra=extra,
    )


def _attribute_kinds(declared: dict[str, dict[str, Declared]], tracks: list[Track]) -> dict[tuple[str, str], Declared]:
    """(label, attribute) -> what it is: as declared; else changing where it changes in any track, its type by its values."""
    seen: dict[tuple[str, str], set[str]] = {}
    changing = set()
    for track in tracks:
        for name, changes in track.changes.items():
            values = {value for _, value in changes}
            seen.setdefault((track.given["label"], name), set()).update(values)
            if len(values) > 1:
                changing.add((track.given["label"], name))
    return {
        (label, name): declared.get(label, {}).get(name) or Declared((label, name) in changing, _type_of(values))
        for (label, name), values in seen.items()
    }


def _type_of(values: set[str]) -> str:
    if {value.lower() for value in values} <= {"true", "false"}:
        return "checkbox"
    try:
        list(map(float, values))
    except ValueError:
        return "select"
    return "number"


def _held(changes: list[tuple[int, str]], frames_N: np.ndarray) -> np.ndarray:
    """The numbers of an attribute on some frames: each holds until the next."""
    try:
        values = np.array([float(value) for _, value in changes])
    except ValueError:
        raise DatasetError(f"{SCORE_ATTRIBUTE}: expected numbers, got {changes[0][1][:40]!r}") from None
    return values[np.maximum(np.searchsorted([frame for frame, _ in changes], frames_N, side="right") - 1, 0)]
