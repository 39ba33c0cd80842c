"""Events as CVAT tracks, in XML that CVAT imports into a task with the same labels.

What CVAT's importer asks for (`cvat-ai/cvat:cvat/apps/dataset_manager/formats/cvat.py`, `load_anno`): a track has a
label and at least one keyframe, a box `frame`, `keyframe` and its four edges, and no frame lies outside the task. Other
elements and unknown attributes are passed over; of unchanging attributes those of the last keyframe count.

Shape legend: K = frames with a box of one event, 4 = x1, y1, x2, y2, C = 4 and, where boxes have one, their score.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from vjepa_loc.dataset import Video
from vjepa_loc.errors import DatasetError
from vjepa_loc.events import Event
from vjepa_loc.formats._cvat_tracks import EVENT_ATTRIBUTE, SCORE_ATTRIBUTE
from vjepa_loc.formats._cvat_videos import NOTE_TAG
from vjepa_loc.formats._cvat_xml import MOST_FRAMES

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ATTRIBUTES = ((EVENT_ATTRIBUTE, "False"), (SCORE_ATTRIBUTE, "True"))


def document_text(video: Video, events: Sequence[Event], labels: str, number: int, note: dict) -> str:
    """The XML of one video; `labels` is that of `labels_text`, `note` is kept in the meta data.

    Raises `DatasetError` for what XML or JSON have no form for.
    """
    return "".join(
        (
            '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n',
            *(line + "\n" for line in _meta_lines(video, labels, number, note)),
            *(line + "\n" for index, event in enumerate(events) for line in _track_lines(index, event, video)),
            "</annotations>\n",
        )
    )


def labels_text(labels: Sequence[str]) -> str:
    """The `<labels>` of all files of a dataset. Raises `DatasetError` for a name that XML has no form for."""
    lines = ["      <labels>"]
    for label in labels:
        lines.append(f"        <label>\n          <name>{_text(_exact(label, 'label'))}</name>\n          <attributes>")
        lines += [
            f"            <attribute><name>{attribute}</name><mutable>{mutable}</mutable><input_type>text</input_type>"
            "<default_value></default_value><values></values></attribute>"
            for attribute, mutable in _ATTRIBUTES
        ]
        lines.append("          </attributes>\n        </label>")
    return "\n".join([*lines, "      </labels>"])


def _meta_lines(video: Video, labels: str, number: int, note: dict) -> Iterator[str]:
    name = video.id if video.file is None else video.file.name
    last = "" if video.num_frames is None else str(video.num_frames - 1)
    yield "  <meta>"
    yield f"    <{NOTE_TAG}>{_text(_json(note))}</{NOTE_TAG}>"
    yield "    <task>"
    yield f"      <id>{number}</id>"
    yield f"      <name>{_text(_shown(video.id))}</name>"
    yield f"      <size>{video.num_frames or ''}</size>"
    yield "      <mode>interpolation</mode>"
    yield f"      <subset>{_text(_shown(video.split or 'default'))}</subset>"
    yield f"      <start_frame>0</start_frame>\n      <stop_frame>{last}</stop_frame>\n      <frame_filter></frame_filter>"
    yield labels
    if video.width is not None and video.height is not None:
        yield f"      <original_size><width>{video.width}</width><height>{video.height}</height></original_size>"
    yield f"      <source>{_text(_shown(name))}</source>"
    yield "    </task>"
    yield "  </meta>"


def _track_lines(index: int, event: Event, video: Video) -> Iterator[str]:
    yield f'  <track id="{index}" label={quoteattr(_exact(event.label, "label"))} source="file">'
    if event.num_boxes:
        first, last = int(event.box_frames_K[0]), int(event.box_frames_K[-1])
        shapes, stand_in = _shapes(event), None
    else:
        # CVAT has no interval without shapes: the whole picture stands for the event.
        first, last = _shown_frames(event)
        stand_in = [0.0, 0.0, float(video.width or 1), float(video.height or 1)]
        shapes = iter([(frame, stand_in, 0, []) for frame in dict.fromkeys((first, last))] + [(last + 1, stand_in, 1, [])])
    if last + 1 >= MOST_FRAMES:
        raise DatasetError(f"end_frame: expected one below {MOST_FRAMES}, got {event.end_frame!r}")
    shapes = [shape for shape in shapes if video.num_frames is None or shape[0] < video.num_frames]
    note = (EVENT_ATTRIBUTE, _event_note(event, first, last, stand_in))
    for number, (frame, box, outside, attributes) in enumerate(shapes, start=1):
        edges = " ".join(f'{name}="{value!r}"' for name, value in zip(("xtl", "ytl", "xbr", "ybr"), box, strict=True))
        opening = f'    <box frame="{frame}" keyframe="1" outside="{outside}" occluded="0" {edges} z_order="0"'
        if number == len(shapes):
            attributes = [*attributes, note]
        inside = "".join(f'<attribute name="{name}">{_text(value)}</attribute>' for name, value in attributes)
        yield f"{opening}>{inside}</box>" if inside else f"{opening}/>"
    yield "  </track>"


def _shown_frames(event: Event) -> tuple[int, int]:
    """First and last frame on which an event without boxes is seen: those it covers, or the one in which its middle lies."""
    first, stop = event.covered_frames()
    middle = int((event.start_frame + event.end_frame) / 2)
    return (first, stop - 1) if first < stop else (middle, middle)


def _shapes(event: Event) -> Iterator[tuple[int, list[float], int, list[tuple[str, str]]]]:
    """(frame, box, outside, attributes): keyframes of every run of consecutive frames, each run closed by one outside."""
    frames_K, boxes_K4, scores_K = event.box_frames_K, event.boxes_K4, event.box_scores_K
    table_KC = boxes_K4 if scores_K is None else np.column_stack([boxes_K4, scores_K])
    run_starts = [0, *(np.flatnonzero(np.diff(frames_K) > 1) + 1).tolist(), len(frames_K)]
    for first, stop in itertools.pairwise(run_starts):
        for at in first + np.flatnonzero(_is_keyframe(table_KC[first:stop])):
            scores = [] if scores_K is None else [(SCORE_ATTRIBUTE, repr(float(scores_K[at])))]
            yield int(frames_K[at]), boxes_K4[at].tolist(), 0, scores
        yield int(frames_K[stop - 1]) + 1, boxes_K4[stop - 1].tolist(), 1, []


def _is_keyframe(table_KC: np.ndarray) -> np.ndarray:
    """All rows but those like the one before and the one after: in between, interpolating gives them to the bit."""
    moves_K = (table_KC[1:] != table_KC[:-1]).any(axis=1)
    return np.concatenate([[True], moves_K]) | np.concatenate([moves_K, [True]])


def _event_note(event: Event, first: int, last: int, stand_in: list[float] | None) -> str:
    """The exact interval with the frames that are seen, and what else a track has no place for."""
    note = {"start": event.start_frame, "end": event.end_frame, "first": first, "last": last}
    optional = {"stand_in": stand_in, "id": event.id, "score": event.score, "extra": event.extra or None}
    return _json(note | {key: value for key, value in optional.items() if value is not None})


def _json(value: dict) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise DatasetError(f"extra: cannot be written as JSON: {error}") from None


def _exact(text: str, name: str) -> str:
    wrong = _NO_XML.search(text)
    if wrong:
        raise DatasetError(f"{name}: XML has no form for the character {wrong[0]!r} in {text!r}; choose another name")
    return text


def _shown(text: str) -> str:
    """`text` for people, whose exact form is in the note."""
    return _NO_XML.sub("\ufffd", text)


def _text(text: str) -> str:
    # XML readers turn a carriage return into a line feed.
    return escape(text, {"\r": "&#13;"})
