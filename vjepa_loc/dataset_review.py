"""What is suspicious in a dataset that is consistent in itself: leaks between splits, boxes off the picture, doubles, jumps.

What contradicts itself is refused when a dataset is read; what contradicts the videos is found by decoding them. Here is
the rest: each finding is an error (figures or features would be wrong) or a warning (somebody should look).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.events import Event
from vjepa_loc.overlap import paired_box_iou

ERROR, WARNING = "error", "warning"

OFF_PICTURE_PX = 1.0
"""How far a box may reach beyond the picture: annotation tools round."""


@dataclass(frozen=True)
class Finding:
    """`severity` is "error" or "warning", `kind` a few words that are the same for all findings of a kind."""

    severity: str
    kind: str
    text: str

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def review(dataset: Dataset) -> list[Finding]:
    """All findings that need no video to be decoded; files are read where two have the same size, to compare them."""
    return [*_leaks(dataset), *_same_content(dataset), *_labels(dataset), *_events(dataset), *_boxes(dataset)]


def _leaks(dataset: Dataset) -> Iterator[Finding]:
    groups: dict[str, dict[str | None, str]] = {}
    files: dict[Path, Video] = {}
    for video in dataset.videos.values():
        if video.group is not None:
            groups.setdefault(video.group, {}).setdefault(video.split, video.id)
        if video.file is not None:
            first = files.setdefault(video.file, video)
            if first is not video:
                yield _same_video(first, video, f"have the same file {video.file}")
        if video.split is None and dataset.splits():
            yield Finding(WARNING, "video without a split", f"video {video.id!r} has no split and is used by `all` alone")
        if video.fps_nominal:
            yield Finding(WARNING, "assumed frame rate", f"video {video.id!r}: its {video.fps:g} fps are assumed, not measured")
    for group, video_of in groups.items():
        if len(video_of) > 1:
            places = ", ".join(f"{split or 'no split'} ({video_id!r})" for split, video_id in video_of.items())
            yield Finding(ERROR, "group in several splits", f"group {group!r} is in {places}")


def _same_content(dataset: Dataset) -> Iterator[Finding]:
    by_size: dict[int, dict[Path, Video]] = {}
    for video in dataset.videos.values():
        if video.file is not None and video.file.is_file():
            by_size.setdefault(video.file.stat().st_size, {}).setdefault(video.file, video)
    for videos in by_size.values():
        first_of: dict[str, Video] = {}
        for video in videos.values() if len(videos) > 1 else ():
            with video.file.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            first = first_of.setdefault(digest, video)
            if first is not video:
                yield _same_video(first, video, "have files of the same content")


def _same_video(first: Video, second: Video, what: str) -> Finding:
    leak = first.split != second.split
    kind = "one video in several splits" if leak else "one video under several ids"
    where = f" and are in {first.split or 'no split'} and {second.split or 'no split'}" if leak else ""
    return Finding(ERROR if leak else WARNING, kind, f"videos {first.id!r} and {second.id!r} {what}{where}")


def _labels(dataset: Dataset) -> Iterator[Finding]:
    used = Counter(event.label for event in dataset.events)
    used.update(video.label for video in dataset.videos.values() if video.label is not None)
    for label in dataset.labels:
        if not used[label]:
            yield Finding(WARNING, "unused label", f"label {label!r} has no event and no video")
    if "train" in dataset.splits():
        trained = {event.label for event in dataset.events if dataset.videos[event.video_id].split == "train"}
        for split in dataset.splits():
            labels = {event.label for event in dataset.events if dataset.videos[event.video_id].split == split}
            for label in sorted(labels - trained):
                yield Finding(WARNING, "label without training events", f"label {label!r} is in {split!r} but not in 'train'")


def _events(dataset: Dataset) -> Iterator[Finding]:
    first_of: dict[tuple, str] = {}
    for index, event in enumerate(dataset.events):
        name = _name(index, event)
        first, stop = event.covered_frames()
        if stop <= first:
            yield Finding(
                WARNING, "event that covers no frame",
                f"{name}: {event.start_frame:g} to {event.end_frame:g} lies between the middles of two frames",
            )
        elif 0 < event.num_boxes < stop - first:
            unbroken = event.box_frames_K == first + np.arange(event.num_boxes)
            yield Finding(
                WARNING, "event with boxes on some frames only",
                f"{name}: {stop - first - event.num_boxes} of {stop - first} frames have none, the first is "
                f"{first + int(unbroken.sum())}; they count as hidden",
            )
        same = (event.video_id, event.label, event.start_frame, event.end_frame, event.boxes_K4.tobytes(), event.box_frames_K.tobytes())
        if first_of.setdefault(same, name) != name:
            yield Finding(WARNING, "event that stands twice", f"{name} equals {first_of[same]} in every number")


def _boxes(dataset: Dataset) -> Iterator[Finding]:
    for index, event in enumerate(dataset.events):
        if not event.num_boxes:
            continue
        name = _name(index, event)
        video = dataset.videos[event.video_id]
        if video.width is not None and video.height is not None:
            yield from _off_picture(event, video, name)
        follows = np.diff(event.box_frames_K) == 1
        apart = follows & (paired_box_iou(event.boxes_K4[:-1], event.boxes_K4[1:]) == 0)
        if apart.any():
            frame = event.box_frames_K[1:][apart][0]
            yield Finding(
                WARNING, "box that jumps",
                f"{name}: the boxes of {int(apart.sum())} frames do not touch the one before, the first on frame {frame}",
            )


def _off_picture(event: Event, video: Video, name: str) -> Iterator[Finding]:
    width, height = video.width, video.height
    x1, y1, x2, y2 = event.boxes_K4.T
    outside = (x2 <= 0) | (y2 <= 0) | (x1 >= width) | (y1 >= height)
    beyond = np.maximum.reduce([-x1, -y1, x2 - width, y2 - height])
    if outside.any():
        at = int(np.argmax(outside))
        yield Finding(
            ERROR, "box outside the picture",
            f"{name}, frame {event.box_frames_K[at]}: {event.boxes_K4[at].tolist()} in a picture of {width}x{height}"
            f" ({int(outside.sum())} of its {event.num_boxes} boxes)",
        )
    elif beyond.max() > OFF_PICTURE_PX:
        at = int(np.argmax(beyond))
        yield Finding(
            WARNING, "box beyond the picture's edge",
            f"{name}, frame {event.box_frames_K[at]}: by {beyond[at]:.4g} px"
            f" ({int((beyond > OFF_PICTURE_PX).sum())} of its {event.num_boxes} boxes reach beyond {width}x{height})",
        )


def events_beyond(dataset: Dataset, num_frames_of: dict[str, int]) -> list[Finding]:
    """Events that end after their video does, where only the videos themselves (frames by id) say how long they are."""
    found = []
    for index, event in enumerate(dataset.events):
        num_frames = num_frames_of.get(event.video_id)
        if num_frames is not None and event.end_frame > num_frames:
            found.append(
                Finding(ERROR, "event beyond the video's end", f"{_name(index, event)} ends at {event.end_frame:g}, the video has {num_frames} frames")
            )
    return found


def summary_rows(findings: Sequence[Finding], most_examples: int = 3) -> list[tuple[str, str, int, str]]:
    """Severity, kind, number and the first examples, errors first and then by number."""
    by_kind: dict[tuple[str, str], list[str]] = {}
    for finding in findings:
        by_kind.setdefault((finding.severity, finding.kind), []).append(finding.text)
    ordered = sorted(by_kind.items(), key=lambda item: (item[0][0] != ERROR, -len(item[1])))
    return [
        (severity, kind, len(texts), "; ".join(texts[:most_examples]) + ("; ..." if len(texts) > most_examples else ""))
        for (severity, kind), texts in ordered
    ]


def _name(index: int, event: Event) -> str:
    return f"events[{index}]{f' ({event.id!r})' if event.id is not None else ''} of {event.video_id!r}"
