"""Videos, labels and events together, checked as one; and the doors to the native files.

A `Dataset` that exists is consistent: every event names a known video and label and lies inside its video.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path

from vjepa_loc.errors import DatasetError, UnknownNameError, VideoError, nearest_name
from vjepa_loc.events import Event, check_name, finite_number
from vjepa_loc.splits import ALL_VIDEOS, select_split

FPS_TOLERANCE = 1e-3
"""Two frame rates agree when they differ by at most this part of the larger one."""

FPS_NOMINAL_KEY = "fps_nominal"
"""Key in `Video.extra` that marks an fps as assumed, because the source states none."""


@dataclass(frozen=True)
class Video:
    """One video of a dataset. What is None is not stated and is read from the video itself.

    `file` is an absolute path of a video file or of a folder of numbered images. `width` and `height` are displayed
    pixels. `group` keeps videos together when splits are drawn. `label` is the whole video's class.

    Raises `DatasetError`, naming the field, when a value breaks these rules.
    """

    id: str
    file: Path | None = None
    fps: float | None = None
    num_frames: int | None = None
    width: int | None = None
    height: int | None = None
    split: str | None = None
    group: str | None = None
    label: str | None = None
    extra: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.id, "id")
        for name in ("split", "group", "label"):
            if getattr(self, name) is not None:
                check_name(getattr(self, name), name)
        if self.split == ALL_VIDEOS:
            raise DatasetError(f"split: {ALL_VIDEOS!r} is reserved for every video, use another name")
        if self.fps is not None:
            object.__setattr__(self, "fps", finite_number(self.fps, "fps"))
            if self.fps <= 0:
                raise DatasetError(f"fps: expected more than 0, got {self.fps!r}")
        for name in ("num_frames", "width", "height"):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, Integral) or isinstance(value, bool) or value <= 0:
                raise DatasetError(f"{name}: expected a whole number above 0, got {value!r}")
            object.__setattr__(self, name, int(value))
        if self.file is not None:
            if not Path(self.file).is_absolute():
                raise DatasetError(f"file: expected an absolute path, got {str(self.file)!r}")
            object.__setattr__(self, "file", Path(self.file))

    @property
    def fps_nominal(self) -> bool:
        """Whether `fps` is assumed, not measured."""
        return bool(self.extra.get(FPS_NOMINAL_KEY, False))

    def resolved(
        self,
        fps: float | None = None,
        num_frames: int | None = None,
        width: int | None = None,
        height: int | None = None,
    ) -> Video:
        """A copy in which fields that are None take the given values (those read from the video)."""
        found = {"fps": fps, "num_frames": num_frames, "width": width, "height": height}
        missing = {name: value for name, value in found.items() if getattr(self, name) is None and value is not None}
        if "fps" in missing:
            missing["fps"] = float(missing["fps"])
        return dataclasses.replace(self, **missing)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labels in their order, videos by id in the file's order, and events in the file's order.

    `path` is the file or folder it was read from. `extra` keeps what that says beyond the native fields; a reader of
    a foreign format puts its account there under `reading`.

    Raises `DatasetError`, naming entry and field, when the parts contradict each other.
    """

    labels: Sequence[str]
    videos: dict[str, Video]
    events: Sequence[Event] = ()
    path: Path | None = None
    extra: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        object.__setattr__(self, "events", tuple(self.events))
        check_labels(self.labels)
        self._check_videos()
        check_events(self.events, self.labels, self.videos)
        events_of: dict[str, list[Event]] = {video_id: [] for video_id in self.videos}
        for event in self.events:
            events_of[event.video_id].append(event)
        object.__setattr__(self, "_events_of", events_of)

    def _check_videos(self) -> None:
        for index, (video_id, video) in enumerate(self.videos.items()):
            if video_id != video.id:
                raise DatasetError(f"videos[{index}], id: expected {video_id!r} as its key says, got {video.id!r}")
            if video.label is not None and video.label not in self.labels:
                raise DatasetError(f"videos[{index}] ({video_id!r}), label: {unknown_text(video.label, self.labels)}")

    def splits(self) -> list[str]:
        """Names of the splits, in the order in which the videos name them."""
        return list(dict.fromkeys(video.split for video in self.videos.values() if video.split is not None))

    def videos_of_split(self, split: str) -> list[Video]:
        """Videos of one split in the file's order; `all` is every video. Raises `UnknownNameError` for another name."""
        return select_split(self.videos.values(), split, self.path)

    def events_of(self, video_id: str) -> list[Event]:
        """Events of one video in the file's order. Raises `UnknownNameError` for an id that is not in the dataset."""
        if video_id not in self.videos:
            raise UnknownNameError(f"video {video_id!r} is not in the dataset.{nearest_name(video_id, self.videos)}")
        return list(self._events_of[video_id])


def index_videos(videos: Iterable[Video]) -> dict[str, Video]:
    """Videos by id in their order. Raises `DatasetError` where two have the same id."""
    by_id: dict[str, Video] = {}
    for index, video in enumerate(videos):
        if video.id in by_id:
            first = list(by_id).index(video.id)
            raise DatasetError(f"videos[{index}], id: {video.id!r} is already the id of videos[{first}]")
        by_id[video.id] = video
    return by_id


def check_labels(labels: Sequence[str]) -> None:
    """Raise `DatasetError`, naming the entry, unless `labels` are non-empty strings of which each stands once."""
    seen = set()
    for index, label in enumerate(labels):
        check_name(label, f"labels[{index}]")
        if label in seen:
            raise DatasetError(f"labels[{index}]: {label!r} stands twice, a label may stand once")
        seen.add(label)


def check_events(events: Sequence[Event], labels: Iterable[str], videos: dict[str, Video]) -> None:
    """Raise `DatasetError`, naming entry and field, unless each event fits the labels, its video and the other ids."""
    known_labels = dict.fromkeys(labels)
    index_of_id: dict[str, int] = {}
    for index, event in enumerate(events):
        if event.video_id not in videos:
            raise DatasetError(f"{event_place(index, event)}, video_id: {unknown_text(event.video_id, videos)}")
        if event.label not in known_labels:
            raise DatasetError(f"{event_place(index, event)}, label: {unknown_text(event.label, known_labels)}")
        num_frames = videos[event.video_id].num_frames
        if num_frames is not None and event.end_frame > num_frames:
            name = "start_frame" if event.start_frame >= num_frames else "end_frame"
            raise DatasetError(
                f"{event_place(index, event)}, {name}: {getattr(event, name)!r} lies outside the video "
                f"{event.video_id!r} of {num_frames} frames"
            )
        if event.id is not None and index_of_id.setdefault(event.id, index) != index:
            first = index_of_id[event.id]
            raise DatasetError(f"events[{index}], id: {event.id!r} is already the id of events[{first}]")


def event_place(index: int, event: Event) -> str:
    """How a message names the event at `index` of its file."""
    return f"events[{index}]" if event.id is None else f"events[{index}] ({event.id!r})"


def unknown_text(name: str, names: Iterable[str]) -> str:
    """The end of a message about a name that is not among `names`, with the nearest match."""
    known = list(names)
    shown = ", ".join(known[:8]) + (f", ... ({len(known)} in all)" if len(known) > 8 else "")
    return f"unknown name {name!r}, expected one of: {shown or 'none'}.{nearest_name(name, known)}"


def check_against_video(
    video: Video,
    fps: float | None,
    num_frames: int | None,
    width: int | None,
    height: int | None,
    variable_rate: bool = False,
) -> None:
    """Raise `VideoError` with both values where the video itself disagrees with what the dataset states.

    Values that either side leaves out are not compared; nor is fps for a video of variable rate. Two rates agree
    within `FPS_TOLERANCE`.
    """
    for name, found in (("width", width), ("height", height), ("num_frames", num_frames)):
        stated = getattr(video, name)
        if stated is not None and found is not None and stated != found:
            raise VideoError(_disagreement(video, name, stated, found))
    if video.fps is not None and fps is not None and not variable_rate:
        if abs(video.fps - fps) > FPS_TOLERANCE * max(video.fps, fps):
            raise VideoError(_disagreement(video, "fps", f"{video.fps:.6g}", f"{float(fps):.6g}"))


def _disagreement(video: Video, name: str, stated, found) -> str:
    where = f" ({video.file})" if video.file is not None else ""
    return (
        f"video {video.id!r}{where}: the dataset states {name} {stated}, the video has {found}. "
        "Correct the dataset, or leave the value out to take the video's."
    )


def read_dataset(path: Path | str) -> Dataset:
    """The dataset of a native JSON file. Raises `MissingFileError` or `DatasetError` (file, entry, field)."""
    from vjepa_loc.formats import native

    return native.read(path)


def write_dataset(dataset: Dataset, path: Path | str) -> None:
    """Write a native JSON file, beside and then renamed; reading it gives the same dataset."""
    from vjepa_loc.formats import native

    native.write(dataset, path)


def read_predictions(path: Path | str, dataset: Dataset) -> list[Event]:
    """The scored events of a native prediction file, checked against `dataset`, in the file's order.

    Raises `MissingFileError` or `DatasetError` (file, entry, field), also for an event without a score.
    """
    from vjepa_loc.formats import native

    return native.read_predictions(path, dataset)


def write_predictions(events: Sequence[Event], dataset: Dataset, path: Path | str) -> None:
    """Write scored events of `dataset`'s videos as a native prediction file, beside and then renamed."""
    from vjepa_loc.formats import native

    native.write_predictions(events, dataset, path)
