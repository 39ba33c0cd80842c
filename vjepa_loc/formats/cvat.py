"""CVAT for video 1.1 (XML): reads exports of tasks, jobs and projects, writes files that CVAT imports into a task.

Frames are those of the video, from 0, as CVAT writes them also for tasks with a start frame or a step: a shape on frame
f covers `[f, f + step)`. The files hold no seconds and no fps: it is the probe's, else a marked nominal one.

A track is an event per maximal stretch that is not `outside`, with the track's label and a box on every frame: as
listed, linear between listed ones. It ends where the next `outside` shape stands, else after its last shape. A value of
an attribute that changes from frame to frame is an event too, `<track label>:<attribute>=<value>`, with the track's
boxes, for as long as it holds; a box that is not ticked and `__undefined__` are none. Unchanging attributes are kept in
`extra`. Shapes that are no upright boxes count with the upright box around them.
Source: `cvat-ai/cvat:cvat/apps/dataset_manager/` (`annotation.py`, `bindings.py`, `formats/cvat.py`).

Rounding when writing: a track is seen on the frames that have a box; of an event without boxes on the whole frames it
covers, or the one in which its middle lies, with the whole picture as its box. The exact interval, id, score and what
else a track has no place for stand beside it in the attribute `vjepa_loc` and are read again.
"""

from __future__ import annotations

import os
import shutil
import uuid
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from vjepa_loc.atomic import write_text
from vjepa_loc.dataset import Dataset, Video, check_events, event_place, index_videos, unknown_text
from vjepa_loc.errors import DatasetError, MissingFileError
from vjepa_loc.events import Event
from vjepa_loc.formats._cvat_tracks import EVENT_ATTRIBUTE, TrackReader
from vjepa_loc.formats._cvat_videos import NOTE_TAG, NOTED_FIELDS, Task, build_video, read_tasks
from vjepa_loc.formats._cvat_writing import document_text, labels_text
from vjepa_loc.formats._cvat_xml import Document, Track, parse
from vjepa_loc.formats._grocery_submission import file_name
from vjepa_loc.formats._json_file import located
from vjepa_loc.formats._reading import Account

_MOST_NAME_BYTES = 180
_MARK_BYTES = 1024


def read(path: Path | str, probe=None) -> Dataset:
    """The dataset in one XML file, or in all XML files below a folder.

    A video is looked for under the name in `<source>`, else under that of the XML file, beside it and in `videos/`
    there; `probe(file)` then gives what the file does not state. Events are cut at the video's ends, boxes at
    the picture's; what has no part in them is left out; counts and first reasons are in `extra["reading"]`.
    Raises `MissingFileError`; `DatasetError`, naming file and line, for what is not CVAT for video 1.1.
    """
    path = Path(path)
    account = Account("cvat")
    account.counts.update(files=0, videos=0, tracks=0, shapes=0, boxes_interpolated=0, events=0)
    found: list[tuple[int, Video, list[Event]]] = []
    labels: dict[str, None] = {}
    value_labels: dict[str, None] = {}
    ids: set[str] = set()
    for file in _find_files(path):
        document = parse(file, account)
        declared = document.labels()
        labels |= dict.fromkeys(declared) | dict.fromkeys(track.given["label"] for track in document.tracks)
        reader = TrackReader(declared, document.tracks, account)
        for task, tracks in _tasks_with_tracks(document, account):
            with located(f"{file}: "):
                video = build_video(task, file, path, ids, probe, account)
            number, events = task.note.get("number"), []
            for index, track in tracks:
                name = track.given.get("id", str(index))
                events += reader.read(track, name, video, task.step, task.last_frame, str(file))
            found.append((number if isinstance(number, int) else 0, video, events))
            account.counts["tracks"] += len(tracks)
            account.counts["shapes"] += sum(len(track.frames) for _, track in tracks)
        account.counts["files"] += 1
        account.counts["boxes_interpolated"] += reader.num_interpolated
        value_labels |= reader.value_labels
    found.sort(key=lambda one: one[0])
    events = [event for _, _, own in found for event in own]
    account.counts["videos"] += len(found)
    account.counts["events"] += len(events)
    _remark_on_reading(account, value_labels)
    with located(f"{path}: "):
        videos = index_videos(video for _, video, _ in found)
        return Dataset(list(labels | value_labels), videos, events, path=path, extra={"reading": account.to_dict()})


def write(dataset: Dataset, path: Path | str) -> Account:
    """Write one XML file per video into the folder `path`; where `path` ends in `.xml`, that file for the only video.

    `read` gives the same events back. A folder that is there is replaced if all in it was written here. Returns the
    account of what was written. Raises `DatasetError` for a folder that holds anything else, several videos for one
    file, and names that XML has no form for.
    """
    path = Path(path)
    account = Account("cvat")
    account.counts.update(videos=0, events=0, boxes=0)
    for event in dataset.events:
        _count_written(event, account)
    account.leave_out_dataset_fields(dataset.extra)
    account.counts["videos"] += len(dataset.videos)
    account.counts["events"] += len(dataset.events)
    with located(f"{path}: "):
        if path.suffix.lower() != ".xml":
            _replace_folder(path, _files(dataset, path))
        elif len(dataset.videos) == 1:
            write_text(path, *(text for _, text in _files(dataset, path)))
        else:
            raise DatasetError(f"expected a folder for {len(dataset.videos)} videos, got the name of one XML file")
    return account


def read_predictions(path: Path | str, dataset: Dataset) -> list[Event]:
    """The scored events of `dataset`'s videos in files that `write_predictions` wrote, also after a visit to CVAT.

    A warning counts what was cut or left out. Raises `MissingFileError`, or `DatasetError` that names the entry, also for an
    event without a score.
    """
    found = read(path)
    account = found.extra["reading"]
    if any(key.endswith(("_cut", "_left_out")) for key in account["counts"]):
        warnings.warn(f"{path}: {'; '.join(account['notes'])}", stacklevel=2)
    with located(f"{path}: "):
        for video_id in found.videos:
            if video_id not in dataset.videos:
                raise DatasetError(f"video {video_id!r}: {unknown_text(video_id, dataset.videos)}")
        check_events(found.events, dataset.labels, dataset.videos)
        _check_scores(found.events)
    return list(found.events)


def write_predictions(events: Sequence[Event], dataset: Dataset, path: Path | str) -> Account:
    """Write scored events as `write` writes a dataset, for all its videos: tracks to look at and to correct in CVAT.

    Raises `DatasetError` for an event that has no score or does not fit the dataset.
    """
    with located(f"{path}: "):
        check_events(events, dataset.labels, dataset.videos)
        _check_scores(events)
    return write(Dataset(dataset.labels, dataset.videos, events), path)


def _find_files(path: Path) -> list[Path]:
    if not path.exists():
        raise MissingFileError(f"{path}: expected an XML file of CVAT for video 1.1, or a folder of such; it does not exist")
    if not path.is_dir():
        return [path]
    hidden_below = len(path.parts)
    files = [
        file
        for file in sorted(path.rglob("*.[xX][mM][lL]"))
        if file.is_file() and not any(part.startswith(".") for part in file.parts[hidden_below:])
    ]
    if not files:
        raise DatasetError(f"{path}: expected XML files of CVAT for video 1.1 in the folder, found none")
    return files


def _tasks_with_tracks(document: Document, account: Account) -> list[tuple[Task, list[tuple[int, Track]]]]:
    """The tasks of a file, each with its tracks and their numbers in the file."""
    tasks = read_tasks(document, account)
    numbered = list(enumerate(document.tracks))
    if len(tasks) == 1:
        return [(tasks[0], numbered)]
    of_task = {task.id: (task, []) for task in tasks}
    for index, track in numbered:
        task_id = track.given.get("task_id", "")
        if task_id in of_task:
            of_task[task_id][1].append((index, track))
        else:
            place = f"{document.path}, line {track.line}"
            account.left_out("tracks", f"{place}, task_id: {unknown_text(task_id, of_task)}")
    return list(of_task.values())


def _remark_on_reading(account: Account, value_labels: dict[str, None]) -> None:
    if value_labels:
        account.remark(
            f"labels made of attributes that change from frame to frame: {len(value_labels)} of the form "
            "track:attribute=value; their events have the boxes of their tracks"
        )
    if account.counts["tracks_without_outside_at_the_end"]:
        account.remark(
            f"tracks that end after their last shape: {account.counts['tracks_without_outside_at_the_end']}, since no "
            "outside shape says where; CVAT itself would show them to the end of the task"
        )
    if account.counts["videos_with_nominal_fps"]:
        account.remark(
            f"videos with an assumed fps: {account.counts['videos_with_nominal_fps']}, since CVAT states none and no file "
            "was read"
        )


def _check_scores(events: Sequence[Event]) -> None:
    for index, event in enumerate(events):
        if event.score is None:
            raise DatasetError(f"{event_place(index, event)}, score: expected a number, got none")


def _note(video: Video, number: int, path: Path) -> dict:
    """What CVAT has no place for; a file below the folder of the XML is noted relative to it."""
    note = {"number": number}
    note |= {name: getattr(video, name) for name in NOTED_FIELDS if getattr(video, name) not in (None, {})}
    if video.file is not None:
        folder = os.path.abspath(path.parent if path.suffix.lower() == ".xml" else path)
        below = video.file.is_relative_to(folder)
        note["file"] = video.file.relative_to(folder).as_posix() if below else str(video.file)
    return note


def _count_written(event: Event, account: Account) -> None:
    account.counts["boxes"] += event.num_boxes
    if not event.num_boxes:
        account.count("events_shown_as_the_whole_picture", f"they have no boxes; the attribute {EVENT_ATTRIBUTE} says so")
    if (event.start_frame, event.end_frame) != event.covered_frames():
        account.count("events_shown_on_whole_frames", f"the exact interval is in the attribute {EVENT_ATTRIBUTE}")


def _files(dataset: Dataset, path: Path) -> Iterator[tuple[str, str]]:
    """Name and text of the file of each video, one after the other: all of them at once may be gigabytes."""
    labels = labels_text(dataset.labels)
    taken: set[str] = set()
    for number, video in enumerate(dataset.videos.values()):
        with located(f"video {video.id!r}, "):
            text = document_text(video, dataset.events_of(video.id), labels, number, _note(video, number, path))
        name = _xml_name(video.id, number, taken)
        taken.add(name.lower())
        yield name, text


def _xml_name(video_id: str, number: int, taken: set[str]) -> str:
    """A file name for a video: its id where that can be one, with its number in front where it cannot.

    `taken` are the names so far in lower case, since some file systems do not tell cases apart.
    """
    name = file_name(video_id).encode("utf-8", "replace")[:_MOST_NAME_BYTES].decode("utf-8", "ignore")
    if name != video_id or name.startswith(".") or f"{name}.xml".lower() in taken:
        name = f"{number:05d}-{name}"
    return f"{name}.xml"


def _replace_folder(path: Path, files: Iterator[tuple[str, str]]) -> None:
    """Write the files beside, then put the folder in the place of the one that is there; of a link, the one behind it."""
    if path.exists() and not path.is_dir():
        raise DatasetError("expected the name of a folder, one XML file per video goes into it; a file is there")
    folder = Path(os.path.realpath(path))
    if folder == Path.cwd():
        raise DatasetError("the folder is replaced as a whole, and this is the one that you are in; name another folder")
    for entry in sorted(folder.iterdir()) if folder.exists() else ():
        if not _was_written_here(entry):
            raise DatasetError(f"the folder holds {entry.name!r}, which was not written here; name another folder")
    beside, old = (folder.with_name(f".{uuid.uuid4().hex}.partial") for _ in range(2))
    try:
        for name, text in files:
            write_text(beside / name, text)
        beside.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            os.replace(folder, old)
        os.replace(beside, folder)
    except OSError as error:
        # Not the name that the folder had for a moment.
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        if old.exists() and not folder.exists():
            os.replace(old, folder)
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _was_written_here(entry: Path) -> bool:
    if entry.suffix.lower() != ".xml" or not entry.is_file():
        return False
    with entry.open("rb") as file:
        return f"<{NOTE_TAG}>".encode() in file.read(_MARK_BYTES)
