"""The annotation files of a GroceryVision video: lines to boxes, boxes to events."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vjepa_loc.errors import DatasetError
from vjepa_loc.events import Event
from vjepa_loc.formats._reading import Account
from vjepa_loc.image_folder import name_number

LABELS = ("take", "return", "rummage")
"""Labels in the order of their class numbers 0, 1, 2."""

_WRAPPING = str.maketrans("", "", "[]()'\"")


@dataclass(frozen=True)
class AnnotatedBox:
    """One line: the frame's number in the file names, the event's uuid, its class, the box in 0..1, and the place."""

    number: int
    uuid: str
    label: str
    box_norm_4: tuple[float, float, float, float]
    place: str


@dataclass(frozen=True)
class Annotations:
    """The lines of one video, and the numbers of all its annotation files, also of empty ones."""

    boxes: list[AnnotatedBox]
    file_numbers: list[int]


def read_annotations(folder: Path, account: Account) -> Annotations:
    """All lines of the `.txt` files in `folder`, by frame number. What cannot be read is counted in `account`."""
    numbered: list[tuple[int, Path]] = []
    for path in sorted(folder.glob("*.txt")):
        number = name_number(path)
        if number is None:
            account.left_out("annotation_files", f"{path} has no frame number in its name")
        else:
            numbered.append((number, path))
    boxes = []
    for number, path in sorted(numbered):
        for index, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
            if not line.strip():
                continue
            account.counts["annotation_lines"] += 1
            try:
                boxes.append(_parse_line(line, number, f"{path}, line {index}"))
            except DatasetError as error:
                account.left_out("annotation_lines", str(error))
    return Annotations(boxes, [number for number, _ in numbered])


def _parse_line(line: str, number: int, place: str) -> AnnotatedBox:
    fields = [field.strip() for field in line.translate(_WRAPPING).strip().rstrip(",").split(",")]
    if len(fields) != 6 or not fields[0]:
        raise DatasetError(f"{place}: expected 'uuid, class, x0, y0, x1, y1', got {line.strip()[:80]!r}")
    try:
        class_number, *box = (float(field) for field in fields[1:])
    except ValueError:
        raise DatasetError(f"{place}: expected five numbers after the uuid, got {line.strip()[:80]!r}") from None
    if class_number not in range(len(LABELS)):
        raise DatasetError(f"{place}: expected class 0, 1 or 2 ({', '.join(LABELS)}), got {fields[1]}")
    if not all(map(math.isfinite, box)):
        raise DatasetError(f"{place}: expected finite corners, got {fields[2:]}")
    return AnnotatedBox(number, fields[0], LABELS[int(class_number)], tuple(box), place)


def build_events(
    video_id: str,
    boxes: list[AnnotatedBox],
    frame_of_number: Callable[[int], int | None],
    width: int,
    height: int,
    account: Account,
) -> list[Event]:
    """The events of one video: all frames that share a uuid and a class, from the first to the last of them.

    `frame_of_number` gives the 0-based frame of a number in the file names, None outside the video. The last frame
    is inclusive in the files, so the event ends one later. A uuid that changes its class becomes one event per class.
    A frame whose box is unusable (no area, outside the picture, a second one) counts for the interval alone.
    """
    by_event: dict[tuple[str, str], list[AnnotatedBox]] = {}
    for box in boxes:
        by_event.setdefault((box.uuid, box.label), []).append(box)
    classes_of: dict[str, list[str]] = {}
    for uuid, label in by_event:
        classes_of.setdefault(uuid, []).append(label)
    events = []
    for (uuid, label), rows in by_event.items():
        name = f"{uuid} of video {video_id}"
        if label != classes_of[uuid][0]:
            account.counts["uuids_with_several_classes"] += 1
        placed = [(frame_of_number(row.number), row) for row in rows]
        outside = [row for frame, row in placed if frame is None]
        inside = [(frame, row) for frame, row in placed if frame is not None]
        if not inside:
            account.left_out("events", f"{name} has none of its frames in the video ({outside[0].place})")
            continue
        if outside:
            share = f"{len(outside)} of {len(rows)} frames"
            account.cut("events", f"{name} has {share} outside the video ({outside[0].place})")
        frames = [frame for frame, _ in inside]
        usable = _usable_boxes(inside, account)
        scale_4 = np.array([width, height, width, height], dtype=np.float64)
        boxes_norm_K4 = np.array([row.box_norm_4 for row in usable.values()], dtype=np.float64).reshape(-1, 4)
        events.append(
            Event(
                video_id=video_id,
                label=label,
                start_frame=min(frames),
                end_frame=max(frames) + 1,
                box_frames_K=np.array(list(usable), dtype=np.int64),
                boxes_K4=boxes_norm_K4 * scale_4,
                id=uuid if len(classes_of[uuid]) == 1 else f"{uuid}/{label}",
            )
        )
    return events


def _usable_boxes(inside: list[tuple[int, AnnotatedBox]], account: Account) -> dict[int, AnnotatedBox]:
    """Per frame, ascending, the first box with an area in the picture."""
    usable: dict[int, AnnotatedBox] = {}
    for frame, row in sorted(inside, key=lambda pair: pair[0]):
        x0, y0, x1, y1 = row.box_norm_4
        if not (x0 < x1 and y0 < y1):
            account.left_out("boxes", f"{row.place}: no area in {row.box_norm_4}")
        elif x1 <= 0 or y1 <= 0 or x0 >= 1 or y0 >= 1:
            account.left_out("boxes", f"{row.place}: outside the picture (0 to 1): {row.box_norm_4}")
        elif frame in usable:
            if usable[frame].box_norm_4 != row.box_norm_4:
                account.left_out("boxes", f"{row.place}: a second box of {row.uuid} on this frame")
        else:
            usable[frame] = row
    return usable
