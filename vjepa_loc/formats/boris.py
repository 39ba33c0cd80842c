"""BORIS: reads exported events (csv, tsv) and projects (`.boris`), writes projects, which are what BORIS opens and imports.

Time: second t is frame t * fps, real-valued; fps is what the caller's probe says of the file, else what the BORIS file says, else
a marked nominal one. A POINT is the one frame that contains its second. BORIS itself keeps milliseconds.

A label is a behaviour; subject, modifiers and comments are in an event's `extra`, where `write` finds them again. Tables come in
the versions that `_boris_table` names; a state of a table is a START and the next STOP of its subject, behaviour and modifiers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from vjepa_loc.dataset import FPS_NOMINAL_KEY, Dataset, Video, index_videos
from vjepa_loc.errors import DatasetError, MissingFileError
from vjepa_loc.events import Event
from vjepa_loc.formats._boris_project import KEPT_EXTRA, KEPT_VIDEO_EXTRA, VIDEO_VARIABLES, project_of, read_project
from vjepa_loc.formats._boris_table import Coding, Media, Observation, number_of, read_table
from vjepa_loc.formats._json_file import dump_entries, load_object, located
from vjepa_loc.formats._reading import Account, Probed, ask_or_count
from vjepa_loc.formats._video_files import find_video
from vjepa_loc.timegrid import nominal_seconds_to_frames

NOMINAL_FPS = 25.0
"""The fps, marked as assumed, of a video of which neither its file nor BORIS says one."""

_ROUNDING_S = 0.002


@dataclass
class _Clip:
    """A video, and where each of its observations begins in that observation's time, in seconds."""

    media: Media
    id: str
    probed: Probed
    variables: dict
    file: Path | None


def read(path: Path | str, probe=None) -> Dataset:
    """The dataset of an exported table or of a project.

    A media file is looked for where BORIS says, beside `path`, and in `videos/` there; `probe(file)` then gives its width,
    height, fps and num_frames. Codings without their START or STOP, and what lies outside the video, are left out or cut;
    counts and first reasons are in `extra["reading"]`.
    Raises `MissingFileError`; `DatasetError` for a file that is none of these.
    """
    path = Path(path)
    account = Account("boris")
    ethogram, observations = _observations(path, account)
    with located(f"{path}: "):
        clips = _find_clips(observations, path.parent, probe, account)
        videos = {key: _build_video(clip, account) for key, clip in clips.items()}
        seen = Counter(videos[key].id for observation in observations for key in _keys(observation))
        shared = {video_id for video_id, times in seen.items() if times > 1}
        events = []
        for observation in observations:
            events += _build_events(observation, videos, shared, account)
        order = {video.id: index for index, video in enumerate(videos.values())}
        events.sort(key=lambda event: (order[event.video_id], event.start_frame))
        account.counts.update(observations=len(observations), videos=len(videos), events=len(events))
        labels = ethogram or sorted({event.label for event in events})
        named = index_videos(_with_known_labels(videos.values(), labels, account))
        return Dataset(labels, named, events, path=path, extra={"reading": account.to_dict()})


def write(dataset: Dataset, path: Path | str) -> Account:
    """Write `dataset` as a BORIS project, all or nothing: an observation per video, a state per event, seconds by its fps.

    Times are written in full, BORIS rounds them to milliseconds when it opens the project. Boxes, scores, ids and what an
    event's `extra` holds beyond subject, modifiers and comments have no place there; the account returned counts them.
    Raises `DatasetError` for a video without an fps.
    """
    path = Path(path)
    account = Account("boris")
    with located(f"{path}: "):
        project = project_of(dataset, account)
    observations = project.pop("observations")
    dump_entries(path, project, "observations", observations)
    for event in dataset.events:
        if event.num_boxes:
            account.left_out("boxes_of_events", "BORIS codes times, not places")
        if event.id is not None:
            account.left_out("ids", "BORIS has no names for events")
        if event.score is not None:
            account.left_out("scores", "BORIS has no scores")
        others = [key for key in event.extra if key not in KEPT_EXTRA]
        if others:
            account.left_out("extras", f"{others[0]!r} of {event.label!r} in {event.video_id!r}")
    account.leave_out_dataset_fields(dataset.extra)
    for video in dataset.videos.values():
        for key in video.extra:
            if key not in KEPT_VIDEO_EXTRA:
                account.left_out("video_fields", f"{key!r} of {video.id!r} has no place in a project")
    account.counts.update(videos=len(dataset.videos), events=len(dataset.events))
    return account


def _observations(path: Path, account: Account) -> tuple[list[str], list[Observation]]:
    """The codes of the ethogram (none from a table), and the observations."""
    if not path.exists():
        raise MissingFileError(f"BORIS file {path} does not exist")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: expected a readable BORIS file: {error.strerror}") from None
    if data[:2] in (b"PK", b"\x1f\x8b", b"\xd0\xcf"):
        raise DatasetError(
            f"{path}: expected text, got a packed file or a spreadsheet; export from BORIS as csv or tsv, or unpack it"
        )
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DatasetError(
            f"{path}, line {line}: expected UTF-8 text, got byte 0x{data[error.start]:02x}; save the file as UTF-8"
        ) from None
    if text.lstrip()[:1] not in ("{", "["):
        return [], read_table(path, text, account)
    document = load_object(path, "")
    if "observations" not in document:
        keys = ", ".join(map(repr, list(document)[:8])) or "none"
        raise DatasetError(f"{path}: expected a BORIS project with the key 'observations'; the file's keys are: {keys}")
    with located(f"{path}: "):
        return read_project(document, account)


def _find_clips(observations: list[Observation], folder: Path, probe, account: Account) -> dict[tuple, _Clip]:
    """One per media file, and per observation without any; keys as `_keys` makes them."""
    clips: dict[tuple, _Clip] = {}
    for observation in observations:
        for media, key in zip(observation.media or [Media("")], _keys(observation), strict=True):
            if key in clips:
                account.count("observations_of_a_video_seen_before", f"{observation.id!r} adds to the events of {media.path!r}")
                continue
            file = find_video(folder, media.path, [_file_name(media.path).name]) if media.path else None
            probed = ask_or_count(probe, file, account)
            name = _video_name(observation) or _file_name(media.path).stem or media.path or observation.id
            clips[key] = _Clip(media, name, probed, observation.variables, file)
    for by_path in (True, False):
        # Two files of one name in different folders are called by their paths; two videos on one file differ in their observation.
        named: dict[str, list[tuple]] = {}
        for key, clip in clips.items():
            named.setdefault(clip.id, []).append(key)
        for key in (key for keys in named.values() if len(keys) > 1 for key in keys):
            clips[key].id = (clips[key].media.path if by_path else "") or "/".join(filter(None, key))
    return clips


def _keys(observation: Observation) -> list[tuple[str, str]]:
    """Per media file what tells its video: a file is one video in all observations, unless they name different ones."""
    if not observation.media:
        return [(_video_name(observation) or observation.id, "")]
    return [(_video_name(observation), media.path) for media in observation.media]


def _video_name(observation: Observation) -> str:
    return _text(observation.variables.get("video_id")) or "" if len(observation.media) <= 1 else ""


def _file_name(path: str):
    return PureWindowsPath(path) if "\\" in path else PurePosixPath(path)


def _build_video(clip: _Clip, account: Account) -> Video:
    fps = clip.probed.fps or (clip.media.fps if clip.media.fps and clip.media.fps > 0 else None)
    extra = {"media_file": clip.media.path} if clip.media.path else {}
    if fps is None:
        fps = NOMINAL_FPS
        extra[FPS_NOMINAL_KEY] = True
        account.counts["videos_with_nominal_fps"] += 1
    elif clip.probed.fps is None and clip.variables.get(FPS_NOMINAL_KEY) == "True":
        extra[FPS_NOMINAL_KEY] = True
    if clip.media.seconds:
        extra["duration_s"] = clip.media.seconds
    stated = {name: _text(clip.variables.get(name)) for name in VIDEO_VARIABLES}
    sizes = {}
    for name in ("num_frames", "width", "height"):
        number = number_of(stated[name] or "")
        whole = int(number) if number is not None and number > 0 and number.is_integer() else None
        sizes[name] = getattr(clip.probed, name) or whole
    return Video(
        clip.id, clip.file, fps, split=stated["split"], group=stated["group"], label=stated["label"], extra=extra, **sizes
    )


def _with_known_labels(videos, labels: list[str], account: Account) -> Iterator[Video]:
    for video in videos:
        if video.label is not None and video.label not in labels:
            account.left_out("video_labels", f"{video.label!r} of {video.id!r} is no behaviour")
            video = Video(**{name: getattr(video, name) for name in Video.__dataclass_fields__} | {"label": None})
        yield video


def _build_events(observation: Observation, videos: dict[tuple, Video], shared: set[str], account: Account) -> list[Event]:
    """Events of one observation; those of a video in `shared`, which has several observations, say which."""
    media = observation.media or [Media("")]
    own = [videos[key] for key in _keys(observation)]
    starts_s = _starts(media, own)
    events = []
    for start, stop in _pairs(observation, account):
        begin_s = start.time_s - observation.offset_s
        index = _media_index(start, begin_s, media, starts_s)
        if index is None or starts_s[index] is None:
            reason = (
                "is in none of the media files"
                if index is None
                else "follows media files of which nothing says how long they are"
            )
            account.left_out("codings", f"{start.place}: {start.behavior!r} at {start.time_s:g} s {reason}")
            continue
        video = own[index]
        end_s = stop - observation.offset_s - starts_s[index]
        interval = _interval(start, begin_s - starts_s[index], end_s, video, account)
        if interval is not None:
            extra = {"subject": start.subject, "modifiers": start.modifiers, **start.extra}
            if video.id in shared:
                extra["observation"] = observation.id
            events.append(Event(video.id, start.behavior, *interval, extra={key: value for key, value in extra.items() if value}))
    return events


def _pairs(observation: Observation, account: Account) -> Iterator[tuple[Coding, float]]:
    """START or POINT, and the second at which it ends, in the order of the starts."""
    running: dict[tuple, Coding] = {}
    pairs = []

    def unpaired(coding: Coding) -> None:
        reason = f"{coding.place}: {coding.kind} of {coding.behavior!r} at {coding.time_s:g} s"
        account.left_out("unpaired_codings", f"{reason} has no {'STOP' if coding.kind == 'START' else 'START'}")

    for coding in sorted(observation.codings, key=lambda coding: (coding.time_s, coding.kind == "START")):
        key = (coding.subject, coding.behavior, coding.modifiers)
        if coding.kind in ("POINT", "STATE"):
            account.counts["points" if coding.kind == "POINT" else "states"] += 1
            pairs.append((coding, coding.time_s if coding.stop_s is None else coding.stop_s))
        elif coding.kind == "START":
            if key in running:
                unpaired(running[key])
            running[key] = coding
        elif key not in running:
            unpaired(coding)
        else:
            account.counts["states"] += 1
            start = running.pop(key)
            comment = coding.extra.get("comment")
            start.extra |= {"comment_stop": comment} if comment else {}
            pairs.append((start, coding.time_s))
    for coding in running.values():
        unpaired(coding)
    yield from sorted(pairs, key=lambda pair: pair[0].time_s)


def _starts(media: list[Media], videos: list[Video]) -> list[float | None]:
    """Where each file begins when all are played one after the other; None behind a file of unknown length."""
    starts: list[float | None] = [0.0]
    for one, video in zip(media[:-1], videos[:-1], strict=True):
        length = one.seconds or (video.num_frames / video.fps if video.num_frames and not video.fps_nominal else None)
        starts.append(None if length is None or starts[-1] is None else starts[-1] + length)
    return starts


def _media_index(coding: Coding, second: float, media: list[Media], starts_s: list[float | None]) -> int | None:
    paths = [one.path for one in media]
    if coding.media is not None:
        names = [_file_name(path).name for path in paths]
        name = _file_name(coding.media).name
        return paths.index(coding.media) if coding.media in paths else names.index(name) if name in names else None
    known = [index for index, start in enumerate(starts_s) if start is not None and start <= second + _ROUNDING_S]
    return known[-1] if known and (None not in starts_s) else 0 if len(media) == 1 else None


def _interval(coding: Coding, start_s: float, end_s: float, video: Video, account: Account) -> tuple[float, float] | None:
    """Start and end in frames, cut at the video's; None where nothing is left. Counted in `account`."""
    place = f"{coding.place}: {coding.behavior!r} from {start_s:g} to {end_s:g} s of {video.id!r}"
    start, end = nominal_seconds_to_frames([start_s, end_s], video.fps).tolist()
    if not (math.isfinite(start) and math.isfinite(end)):
        account.left_out("events", f"{place} is beyond any number of frames")
        return None
    if coding.kind == "POINT":
        start = float(math.floor(start))
        end = start + 1
    length = video.num_frames
    if length is None and "duration_s" in video.extra:
        length = float(nominal_seconds_to_frames(video.extra["duration_s"], video.fps))
    start_cut, end_cut = max(start, 0.0), end if length is None else min(end, length)
    if not start_cut < end_cut:
        account.left_out("events", f"{place} is empty, reversed, or outside the video")
        return None
    rounding = _ROUNDING_S * video.fps
    if start < -rounding or end > end_cut + rounding:
        account.cut("events", f"{place} reaches beyond the video")
    return start_cut, end_cut


def _text(value) -> str | None:
    return str(value) if isinstance(value, (str, int, float)) and str(value) else None
