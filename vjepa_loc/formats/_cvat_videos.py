"""The videos of CVAT files: what the meta data say of tasks, and where the video itself lies."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from vjepa_loc.dataset import FPS_NOMINAL_KEY, Video
from vjepa_loc.errors import DatasetError
from vjepa_loc.events import check_name
from vjepa_loc.formats._cvat_xml import Document, Node, whole_number
from vjepa_loc.formats._grocery_layout import SPLIT_OF_FOLDER, VIDEO_SUFFIXES
from vjepa_loc.formats._json_file import located
from vjepa_loc.formats._reading import Account, Probed, ask_or_count
from vjepa_loc.formats._video_files import find_video

NOMINAL_FPS = 25.0
"""The fps, marked as assumed, of a video whose file is not at hand."""

NOTE_TAG = "vjepa_loc"
"""The element in the meta data in which the writer keeps what CVAT has no place for, as JSON."""

NOTED_FIELDS = ("id", "fps", "num_frames", "width", "height", "split", "group", "label", "extra")

_STEP = re.compile(r"step\s*=\s*([0-9]{1,9})")


@dataclass(frozen=True)
class Task:
    """A video as the meta data of a file state it. `note` is what the writer kept of it, empty in other files.

    `step`: one frame of the task stands for so many of the video. `last_frame`: the last one of the video that it has.
    """

    id: str = ""
    name: str = ""
    source: str = ""
    subset: str = ""
    width: int | None = None
    height: int | None = None
    step: int = 1
    last_frame: int | None = None
    stated: dict = field(default_factory=dict)
    note: dict = field(default_factory=dict)


def read_tasks(document: Document, account: Account) -> list[Task]:
    """The tasks of a file, or its only job; one that says nothing where the file has no meta data."""
    meta = document.meta
    project = meta.child("project")
    nodes = project.below("task") if project is not None else [meta.child("task") or meta.child("job") or meta]
    with located(f"{document.path}, "):
        return [_read_task(node, meta, account) for node in nodes or [meta]]


def build_video(task: Task, file: Path, root: Path, taken: set[str], probe, account: Account) -> Video:
    """The video of a task in the XML file `file`; its id is made unlike those in `taken`, and added to them."""
    note = task.note
    video_file = _noted_file(note, file) if note else _find_video(task.source, file)
    known = {name: note.get(name) for name in NOTED_FIELDS if note.get(name) is not None} if note else {}
    if not note:
        known = {"id": _new_id(task, file, root, taken, account), "split": _split(task.subset)}
        known |= {"width": task.width, "height": task.height}
        known["extra"] = {"cvat": task.stated} if task.stated else {}
    check_name(known.get("id"), "id")
    taken.add(known["id"])
    probed = Probed()
    found = video_file if video_file is not None and video_file.exists() else None
    if found is None or any(known.get(name) is None for name in ("fps", "num_frames", "width", "height")):
        probed = ask_or_count(probe, found, account)
    for name in ("width", "height"):
        if None not in (known.get(name), getattr(probed, name)) and known[name] != getattr(probed, name):
            reason = f"{file}: it states {name} {known[name]}, {video_file} has {getattr(probed, name)}"
            account.count("videos_of_another_size", reason)
    video = Video(file=video_file, **known).resolved(probed.fps, probed.num_frames, probed.width, probed.height)
    if video.fps is None and not note:
        account.counts["videos_with_nominal_fps"] += 1
        return Video(file=video_file, **known | {"extra": known["extra"] | {FPS_NOMINAL_KEY: True}}).resolved(
            NOMINAL_FPS, probed.num_frames, probed.width, probed.height
        )
    return video


def _read_task(node: Node, meta: Node, account: Account) -> Task:
    # In files before 2022 and in jobs, source and size stand beside the task.
    size = node.child("original_size") or meta.child("original_size") or Node("original_size", meta.line)
    with located(f"line {size.line}, <original_size>, "):
        width, height = (_positive(size.text_of(name), name) for name in ("width", "height"))
    with located(f"line {node.line}, <{node.tag}>, "):
        numbers = {
            name: whole_number(node.text_of(name), name)
            for name in ("size", "start_frame", "stop_frame")
            if node.text_of(name)
        }
    with located(f"<{NOTE_TAG}>: "):
        note_node = meta.child(NOTE_TAG)
        note = {} if note_node is None else load_note(note_node.text)
    step = 1
    if node.text_of("frame_filter"):
        given = _STEP.fullmatch(node.text_of("frame_filter"))
        step = max(int(given[1]), 1) if given else 1
        if not given:
            account.remark(f"frame_filter {node.text_of('frame_filter')!r} is not of the form step=N and is taken for 1")
    last_frame = numbers.get("stop_frame")
    if last_frame is None and "size" in numbers:
        last_frame = numbers.get("start_frame", 0) + (numbers["size"] - 1) * step
    stated = {name: node.text_of(name) for name in ("id", "name") if node.text_of(name)}
    stated |= {name: numbers[name] for name in ("start_frame", "stop_frame") if name in numbers}
    return Task(
        id=node.text_of("id"),
        name=node.text_of("name"),
        source=node.text_of("source") or meta.text_of("source"),
        subset=node.text_of("subset"),
        width=width,
        height=height,
        step=step,
        last_frame=last_frame,
        stated=stated | ({"frame_step": step} if step > 1 else {}),
        note=note,
    )


def load_note(text: str) -> dict:
    """The JSON object that the writer left in a file. Raises `DatasetError` for anything else."""

    def refuse(constant: str):
        raise ValueError(f"{constant} is no number")

    try:
        note = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"expected JSON as `convert` writes it: {error}") from None
    if not isinstance(note, dict):
        raise DatasetError(f"expected a JSON object as `convert` writes it, got {text[:40]!r}")
    return note


def _positive(text: str, name: str) -> int | None:
    if not text:
        return None
    number = whole_number(text, name)
    if number <= 0:
        raise DatasetError(f"{name}: expected a whole number above 0, got {number}")
    return number


def _split(subset: str) -> str | None:
    """The usual names of splits in lower case; CVAT's `default` is none."""
    return None if subset.lower() in ("", "default") else SPLIT_OF_FOLDER.get(subset.lower(), subset)


def _new_id(task: Task, file: Path, root: Path, taken: set[str], account: Account) -> str:
    """The source's name without its suffix, else the task's name, else that of the XML file, or of its folder."""
    own = file.parent.name if file.stem == "annotations" and file.parent.name else file.stem
    video_id = Path(_base_name(task.source)).stem or task.name or own
    if video_id in taken:
        where = file.relative_to(root).with_suffix("").as_posix() if file != root else f"task {task.id}"
        reason = f"{file}: {video_id!r} is there already, and this is another video of the dataset; export whole tasks, not jobs"
        account.count("videos_with_a_name_that_is_taken", reason)
        number = 1
        while (video_id := f"{video_id.split(' @ ')[0]} @ {where}" + (f" {number}" if number > 1 else "")) in taken:
            number += 1
    return video_id


def _base_name(source: str) -> str:
    return re.split(r"[\\/]", source)[-1]


def _noted_file(note: dict, file: Path) -> Path | None:
    given = note.get("file")
    if given is None:
        return None
    if not isinstance(given, str) or not given or "\0" in given:
        raise DatasetError(f"{NOTE_TAG}, file: expected a path, got {given!r}")
    return Path(os.path.abspath(file.parent / given))


def _find_video(source: str, file: Path) -> Path | None:
    names = [_base_name(source)] if source else [file.stem + suffix for suffix in sorted(VIDEO_SUFFIXES)]
    found = find_video(file.parent, source, names)
    return None if found is None else Path(os.path.abspath(found))
