"""The two submissions of the GroceryVision challenge: one file per video for TAL, one for STAL.

TAL, `tal/<video>.txt`: a line `start_frame, end_frame, action_class, confidence` per event, the last frame inclusive.
STAL, `stal/<video>.json`: a list of `{"track": [[f, x0, y0, x1, y1, c], ...], "conf", "cat"}`, corners in 0..1.

Rounding: an event becomes the whole frames it covers; one so short that it covers none becomes the frame in which its
middle lies. A track runs from the event's first box to its last; between two boxes the frames without one are filled
linearly, since the challenge wants consecutive frames. Frame numbers are those of the files the video was read from.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vjepa_loc.atomic import write_text
from vjepa_loc.dataset import Dataset, Video, check_events, unknown_text
from vjepa_loc.errors import DatasetError, UnknownNameError
from vjepa_loc.events import Event
from vjepa_loc.formats._grocery_anns import LABELS
from vjepa_loc.formats._reading import Account

FIRST_NUMBER_KEY = "first_frame_number"
"""Key in `Video.extra`: the number of frame 0 in the file names, where it is not 0."""

NUMBERS_KEY = "frame_numbers"
"""Key in `Video.extra`: the numbers of all frames in the file names, where some are missing."""

_MOST_NAME_BYTES = 240
_UNSAFE_IN_NAMES = re.compile(r'[/\\:*?"<>|%\x00-\x1f]')


def write_predictions(
    events: Sequence[Event], dataset: Dataset, path: Path | str, video_ids: Sequence[str] | None = None
) -> Account:
    """Write both submissions of `video_ids` (default: every video, also those without events) below the folder `path`.

    Returns the account, with the counts `videos`, `tal_events`, `stal_tubes` and `events_only_in_tal`.
    Raises `DatasetError` for an event without a score in 0..1, of another label, of a video that is not written, or
    with boxes in a video of unknown size. Nothing is written unless everything can be.
    """
    path = Path(path)
    check_events(events, dataset.labels, dataset.videos)
    of_video: dict[str, list[Event]] = {}
    for video_id in dataset.videos if video_ids is None else video_ids:
        if video_id not in dataset.videos:
            raise UnknownNameError(f"video_ids: {unknown_text(video_id, dataset.videos)}")
        of_video[video_id] = []
    for index, event in enumerate(events):
        _check(index, event, of_video)
        of_video[event.video_id].append(event)
    texts: dict[Path, str] = {}
    for video_id, own in of_video.items():
        video, name = dataset.videos[video_id], file_name(video_id)
        if len(name.encode()) > _MOST_NAME_BYTES:
            raise DatasetError(
                f"video {video_id[:40]!r}...: expected an id of at most {_MOST_NAME_BYTES} bytes, files are named by it"
            )
        texts[path / "tal" / f"{name}.txt"] = "".join(_tal_line(event, video) for event in own)
        tubes = [_stal_tube(event, video) for event in own if event.num_boxes]
        texts[path / "stal" / f"{name}.json"] = json.dumps(tubes) + "\n"
    for file, text in texts.items():
        write_text(file, text)
    account = Account("grocery")
    for file in sorted(file for folder in {file.parent for file in texts} for file in folder.iterdir()):
        if file not in texts:
            name = file.relative_to(path)
            account.count("other_files_there", f"{name} was there before and is of no video written now; remove it")
    account.counts.update(
        videos=len(of_video), tal_events=len(events), stal_tubes=sum(event.num_boxes > 0 for event in events)
    )
    for event in events:
        if not event.num_boxes:
            account.count("events_only_in_tal", "they have no boxes")
        if (event.start_frame, event.end_frame) != event.covered_frames():
            account.count("events_rounded", "the challenge counts whole frames")
        if event.id is not None:
            account.left_out("ids_of_events", "the challenge has no place for ids")
    return account


def file_name(video_id: str) -> str:
    """The video's id as a file name: characters that file systems refuse are percent-encoded."""
    return _UNSAFE_IN_NAMES.sub(lambda match: f"%{ord(match[0]):02X}", video_id)


def _check(index: int, event: Event, of_video: dict[str, list[Event]]) -> None:
    place = f"events[{index}] of video {event.video_id!r}"
    if event.label not in LABELS:
        raise DatasetError(f"{place}, label: GroceryVision has no such class: {unknown_text(event.label, LABELS)}")
    if event.video_id not in of_video:
        raise DatasetError(f"{place}, video_id: expected one of the {len(of_video)} videos to write")
    scores = [event.score] if event.box_scores_K is None else [event.score, *event.box_scores_K.tolist()]
    for score in scores:
        if score is None or not 0 <= score <= 1:
            raise DatasetError(f"{place}, score: the challenge wants a confidence from 0 to 1, got {score}")


def _tal_line(event: Event, video: Video) -> str:
    first, stop = event.covered_frames()
    if first == stop:
        first = math.floor((event.start_frame + event.end_frame) / 2)
        stop = first + 1
    start, end = _file_number(video, first), _file_number(video, stop - 1)
    return f"{start}, {end}, {LABELS.index(event.label)}, {event.score!r}\n"


def _stal_tube(event: Event, video: Video) -> dict:
    if video.width is None or video.height is None:
        raise DatasetError(
            f"video {video.id!r}, width and height: needed to write boxes as fractions of the picture, "
            "state them in the dataset"
        )
    scores_K = event.box_scores_K if event.box_scores_K is not None else np.full(event.num_boxes, event.score)
    size_4 = np.array([video.width, video.height, video.width, video.height], dtype=np.float64)
    values_K5 = np.column_stack([event.boxes_K4 / size_4, scores_K])
    frames = np.arange(event.box_frames_K[0], event.box_frames_K[-1] + 1)
    columns = [np.interp(frames, event.box_frames_K, values_K5[:, column]).tolist() for column in range(5)]
    track = [[_file_number(video, frame), *row] for frame, *row in zip(frames.tolist(), *columns, strict=True)]
    return {"track": track, "conf": event.score, "cat": event.label}


def _file_number(video: Video, frame: int) -> int:
    numbers = video.extra.get(NUMBERS_KEY)
    return numbers[frame] if numbers is not None else frame + video.extra.get(FIRST_NUMBER_KEY, 0)
