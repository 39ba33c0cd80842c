"""Label Studio: reads exports (JSON) of video projects with `TimelineLabels` and `VideoRectangle`, writes tasks to import.

Time: its frames count from 1, ends included, at the rate that the project plays at (configuration, task data or keyframe times),
and become the video's frames through seconds, real-valued, at the fps of the caller's probe; without one they are taken as they are.

A rectangle is an event with boxes, a range of the timeline is an event without; they are not joined. Of several annotations of a
task the first ground truth counts, else the first that was not skipped. Export as JSON, not JSON-MIN.
Source: `HumanSignal/label-studio-sdk:src/label_studio_sdk/label_interface/control_tags.py`, and as `_label_studio_regions` names.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from xml.sax.saxutils import quoteattr

from vjepa_loc.dataset import FPS_NOMINAL_KEY, Dataset, Video, check_events, event_place, index_videos, unknown_text
from vjepa_loc.errors import DatasetError
from vjepa_loc.events import Event
from vjepa_loc.formats._json_file import dump_list, located
from vjepa_loc.formats._label_studio_regions import OWN_KEY, Clock, read_region, region_of
from vjepa_loc.formats._label_studio_tasks import DEFAULT_FRAME_RATE, Task, load_tasks, regions_of
from vjepa_loc.formats._reading import Account, ask_or_count, kept_extra
from vjepa_loc.formats.native import VIDEO_KEYS

_OWN_FIELDS = ("num_frames", "width", "height", "split", "group", "label")


def read(path: Path | str, probe=None) -> Dataset:
    """The dataset of an export, of one task, or of a model's bare results (then of the video beside the file).

    A task's video is looked for where the task says, beside `path`, and in `videos/` there; `probe(file)` then gives its width,
    height, fps and num_frames. Percent need a size: without one, rectangles are left without boxes. Ranges are cut at the video's
    end. Predictions, other regions and surplus annotations are left out; counts and first reasons are in `extra["reading"]`.
    Raises `MissingFileError`; `DatasetError` that names task, annotation, region and key.
    """
    path = Path(path)
    account = Account("label_studio")
    tasks = load_tasks(path, account)
    with located(f"{path}: "):
        ids = _video_ids(tasks)
        videos: dict[str, Video] = {}
        events: list[Event] = []
        for task in tasks:
            with located(f"{task.place}, "):
                video_id = ids[id(task)]
                if video_id in videos:
                    account.count("tasks_of_a_video_seen_before", f"{task.place} adds to the events of {video_id!r}")
                else:
                    videos[video_id] = _build_video(video_id, task, path.parent, probe, account)
                account.counts["predictions_left_out"] += sum(one not in task.annotations for one in task.predictions)
                chosen = _chosen(task, account)
                if not chosen:
                    account.count("tasks_without_annotation", f"{task.place}: {video_id!r} is read as a video without events")
                for place, annotation in chosen:
                    events += _read_regions(place, annotation, videos[video_id], task, account, scored=False)
        events = _with_unique_ids(events)
        labels = _labels(tasks, events)
        account.counts = +account.counts
        account.counts.update(tasks=len(tasks), videos=len(videos), events=len(events))
        known = [video if video.label in (None, *labels) else replace(video, label=None) for video in videos.values()]
        return Dataset(labels, index_videos(known), events, path=path, extra={"reading": account.to_dict()})


def read_predictions(path: Path | str, dataset: Dataset) -> list[Event]:
    """The scored events of the tasks' `predictions` (of each task the first), or of a model's bare results.

    A region without a score takes its prediction's. Frames, sizes and rates are those of `dataset`'s videos. A warning counts what
    was cut or left out. Raises as `read`, and for a video or label that is not in the dataset, or where no score is given.
    """
    path = Path(path)
    account = Account("label_studio")
    tasks = load_tasks(path, account)
    events: list[Event] = []
    with located(f"{path}: "):
        ids = _video_ids(tasks)
        for task in tasks:
            with located(f"{task.place}, "):
                video_id = ids[id(task)]
                if video_id not in dataset.videos and not task.data and len(dataset.videos) == 1:
                    video_id = next(iter(dataset.videos))
                if video_id not in dataset.videos:
                    raise DatasetError(f"video: {unknown_text(video_id, dataset.videos)}")
                for place, _ in task.predictions[1:]:
                    account.left_out("predictions", f"{task.place}, {place} is not the first of its task")
                for place, prediction in task.predictions[:1]:
                    events += _read_regions(place, prediction, dataset.videos[video_id], task, account, scored=True)
        events = _with_unique_ids(events)
        check_events(events, dataset.labels, dataset.videos)
    notes = account.to_dict()["notes"]
    if notes:
        warnings.warn(f"{path}: {'; '.join(notes)}", stacklevel=2)
    return events


def write(dataset: Dataset, path: Path | str) -> Account:
    """Write `dataset` as tasks that Label Studio imports, all or nothing: one per video, with one annotation.

    Frames count at the video's own fps, which the task's data hold as `fps`: the project's configuration, given in the account's
    remarks, plays at it. An event with boxes becomes a rectangle with a keyframe per box, one without a range of whole frames:
    those it covers, else the one of its middle. What Label Studio has no field for (exact intervals, sizes, splits, `extra`) is
    kept in `meta`, so that reading gives the same; boxes within 1e-9 pixels.
    Raises `DatasetError` for a video without fps, or with boxes and without a size.
    """
    account = _write(path, dataset, dataset.events, "annotations", lambda regions: {"result": regions, "was_cancelled": False})
    account.leave_out_dataset_fields(dataset.extra)
    return account


def write_predictions(events: Sequence[Event], dataset: Dataset, path: Path | str) -> Account:
    """As `write`, with the scored `events` as the tasks' predictions. Raises `DatasetError` also for one without a score."""
    with located(f"{path}: "):
        check_events(events, dataset.labels, dataset.videos)
        for index, event in enumerate(events):
            if event.score is None:
                raise DatasetError(f"{event_place(index, event)}, score: expected a number, got none")

    def prediction(regions: list[dict]) -> dict:
        score = max((region["score"] for region in regions), default=0.0)
        return {"model_version": OWN_KEY, "score": score, "result": regions}

    return _write(path, dataset, events, "predictions", prediction)


def _write(path: Path | str, dataset: Dataset, events: Sequence[Event], key: str, holder) -> Account:
    path = Path(path)
    account = Account("label_studio")
    regions: dict[str, list[dict]] = {video_id: [] for video_id in dataset.videos}
    with located(f"{path}: "):
        for video in dataset.videos.values():
            if video.fps is None:
                raise DatasetError(f"video {video.id!r}, fps: needed to number frames, state it in the dataset")
        for event in events:
            region = region_of(event, dataset.videos[event.video_id])
            regions[event.video_id].append(region)
            account.counts["rectangles" if event.num_boxes else "ranges"] += 1
            if "start_frame" in region.get("meta", {}).get(OWN_KEY, {}):
                account.count(
                    "intervals_rounded", f"{event.start_frame:g} to {event.end_frame:g} of {event.video_id!r}; exact in meta"
                )
    tasks = [
        {"data": _data_of(video), "meta": {OWN_KEY: _own_of(video, dataset)}, key: [holder(regions[video.id])]}
        for video in dataset.videos.values()
    ]
    dump_list(path, tasks)
    account.counts.update(videos=len(tasks), events=len(events))
    account.remark(f"labeling configuration for the project: {_configuration(dataset.labels)}")
    return account


def _data_of(video: Video) -> dict:
    return {"video": video.id if video.file is None else str(video.file), "fps": video.fps}


def _own_of(video: Video, dataset: Dataset) -> dict:
    own = {"id": video.id, "labels": list(dataset.labels)}
    own |= {name: getattr(video, name) for name in _OWN_FIELDS if getattr(video, name) is not None}
    return own | ({"extra": video.extra} if video.extra else {})


def _configuration(labels: Sequence[str]) -> str:
    values = "".join(f"<Label value={quoteattr(label)}/>" for label in labels)
    return (
        '<View><Video name="video" value="$video" framerate="$fps"/><VideoRectangle name="box" toName="video"/>'
        f'<Labels name="labels" toName="video">{values}</Labels>'
        f'<TimelineLabels name="timeline" toName="video">{values}</TimelineLabels></View>'
    )


def _video_ids(tasks: Sequence[Task]) -> dict[int, str]:
    """The id of each task's video: its name, or how the task refers to it where two videos have the same name."""
    references: dict[str, set[str]] = {}
    for task in tasks:
        references.setdefault(task.video_id, set()).add(task.reference)
    return {
        id(task): task.reference if len(references[task.video_id]) > 1 and "id" not in task.own else task.video_id
        for task in tasks
    }


def _chosen(task: Task, account: Account) -> list[tuple[str, dict]]:
    kept = [one for one in task.annotations if not one[1].get("was_cancelled")]
    chosen = ([one for one in kept if one[1].get("ground_truth") is True] or kept)[:1]
    for place, annotation in task.annotations:
        if not any(annotation is one for _, one in chosen):
            why = "was skipped" if annotation.get("was_cancelled") else "is not the first of its task"
            account.left_out("annotations", f"{task.place}, {place} {why}")
    for place, annotation in chosen:
        if annotation.get("model_version") and not task.data:
            account.remark(f"{place} is the result of the model {str(annotation['model_version'])[:80]!r}, taken as truth")
    return chosen


def _build_video(video_id: str, task: Task, folder: Path, probe, account: Account) -> Video:
    file = task.find_file(folder)
    probed = ask_or_count(probe, file, account)
    own = task.own if isinstance(task.own.get("extra", {}), dict) else {}
    extra = kept_extra(own.get("extra", {}), (), VIDEO_KEYS, account, repr(video_id))
    fps = probed.fps or task.frame_rate()
    if probed.fps is None and fps is not None and FPS_NOMINAL_KEY not in extra and not own:
        account.count(
            "videos_at_the_rate_of_the_project", f"frames of {video_id!r} are taken as they are, at {fps:g} fps; no probe"
        )
    if fps is None:
        fps = DEFAULT_FRAME_RATE
        extra[FPS_NOMINAL_KEY] = True
        account.counts["videos_with_nominal_fps"] += 1
    fields = {name: own[name] for name in _OWN_FIELDS if own.get(name) is not None}
    fields |= {name: value for name in ("num_frames", "width", "height") if (value := getattr(probed, name)) is not None}
    return Video(id=video_id, file=file, fps=fps, extra=extra, **fields)


def _read_regions(place: str, holder: dict, video: Video, task: Task, account: Account, scored: bool) -> Iterator[Event]:
    clock = _clock(video, task, account)
    for where, region in regions_of(holder, place, account):
        with located(f"{where}, "):
            yield from read_region(region, video, clock, account, scored, holder.get("score"))


def _clock(video: Video, task: Task, account: Account) -> Clock:
    end_frame = None if video.num_frames is None else float(video.num_frames)
    rate = task.frame_rate()
    if rate is None or video.fps is None:
        account.count(
            "tasks_without_frame_rate",
            f"{task.place} does not say at how many frames per second it counts, its frames are taken as the video's own; a "
            f"project that sets no framerate counts {DEFAULT_FRAME_RATE:g}: then put 'fps' into the task's data",
        )
        return Clock(1.0, end_frame)
    scale = video.fps / rate
    # The same numbers for every frame of the video, or of an hour of it: then they are its frames.
    if abs(scale - 1) * (video.num_frames or 3600 * video.fps) < 0.5:
        return Clock(1.0, end_frame)
    account.count("tasks_of_another_rate", f"{task.place} counts {rate:g} frames per second, {video.id!r} has {video.fps:g}")
    return Clock(scale, end_frame)


def _with_unique_ids(events: list[Event]) -> list[Event]:
    """An id that stands twice gets its video in front, and its number behind where that is not enough."""
    seen: set[str] = set()
    unique = []
    for event in events:
        name, number = event.id, 1
        while name in seen and name is not None:
            name = f"{event.video_id}/{event.id}" + f"#{number}" * (number > 1)
            number += 1
        if name is not None:
            seen.add(name)
        unique.append(event if name == event.id else event.replace(id=name))
    return unique


def _labels(tasks: Sequence[Task], events: Sequence[Event]) -> list[str]:
    """The labels that `write` kept, then the others by name."""
    kept = [label for task in tasks if isinstance(task.own.get("labels"), list) for label in task.own["labels"]]
    kept = list(dict.fromkeys(label for label in kept if isinstance(label, str) and label))
    return kept + sorted({event.label for event in events} - set(kept))
