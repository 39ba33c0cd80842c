"""GroceryVision (RetailVision workshop, track 1): reads its annotations, writes both of its submissions.

Sources: the challenge pages (`Grocery-Vision/Grocery-Vision.github.io:past_challenge`) and the dataset's README as
kept in `DeveloperVishnuVardhan/Physical-Retail-challenge:README_TAL_STAL`. The layout is in `_grocery_layout.py`,
lines and events are in `_grocery_anns.py`, the submissions in `_grocery_submission.py`.

Frame numbers. Of images, the n-th by number is frame n (`vjepa_loc.image_folder`). Of video files nothing says whether
the annotation files count from 0 or 1, so all video files of a tree decide together: from 0 if any file has the number
0; from 1 if else the highest number of any video equals its number of frames; from 0, with a note, if neither tells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vjepa_loc.dataset import FPS_NOMINAL_KEY, Dataset, Video, index_videos
from vjepa_loc.errors import DatasetError, VideoError
from vjepa_loc.events import Event
from vjepa_loc.formats._grocery_anns import LABELS, Annotations, build_events, read_annotations
from vjepa_loc.formats._grocery_layout import VideoSource, find_sources
from vjepa_loc.formats._grocery_submission import FIRST_NUMBER_KEY, NUMBERS_KEY, write_predictions
from vjepa_loc.formats._json_file import located
from vjepa_loc.formats._reading import Account, Probed, ask
from vjepa_loc.image_folder import numbered_images

__all__ = ["LABELS", "NOMINAL_FPS", "read", "write_predictions"]

NOMINAL_FPS = 25.0
"""The fps, marked as assumed, of a folder of images: the cameras ran at about 25."""

# EXIF orientations under which width and height change places.
_TURNED_BY_90_DEGREES = (5, 6, 7, 8)


@dataclass(frozen=True)
class _Opened:
    """A video whose frames were found: its numbers in the file names (None for a video file) and what it says."""

    source: VideoSource
    annotations: Annotations
    numbers: list[int] | None
    probed: Probed


def read(path: Path | str, probe=None) -> Dataset:
    """The dataset of the tree at `path`.

    `probe(file)` gives width, height, fps and num_frames of a video file; folders of images need none. A video that
    cannot be read, a line or a box that says nothing, and frames outside the video are left out; the counts and the
    first reasons are in `extra["reading"]`.
    Raises `MissingFileError` without the folder; `DatasetError` where nothing in it is usable, where two sources of
    frames compete, or where boxes cannot become pixels because nothing tells the size of a video file.
    """
    root = Path(path)
    account = Account("grocery")
    opened = _open_all(find_sources(root, account), probe, account)
    if not opened:
        raise DatasetError(f"{root}: none of the videos can be read: {account.first_reason()}")
    lines, lost = account.counts["annotation_lines"], account.counts["annotation_lines_left_out"]
    if lines and lines == lost:
        raise DatasetError(
            f"{root}: none of the {lines} annotation lines can be read, the first: "
            f"{account.first_reason('annotation_lines_left_out')}"
        )
    first_number = _first_number_of_video_files(opened, account)
    videos, events = [], []
    for one in opened:
        videos.append(_build_video(one, first_number, account))
        events += _build_events(one, first_number, account)
    events = _with_unique_ids(events, account)
    account.counts.update(
        videos=len(videos),
        videos_without_anns=sum(one.source.anns is None for one in opened),
        frames=sum(video.num_frames or 0 for video in videos),
        annotated_frames=sum(len({box.number for box in one.annotations.boxes}) for one in opened),
        boxes=sum(event.num_boxes for event in events),
        events=len(events),
        **{f"events_{label}": sum(event.label == label for event in events) for label in LABELS},
    )
    return Dataset(LABELS, index_videos(videos), events, path=root, extra={"reading": account.to_dict()})


def _open_all(sources: list[VideoSource], probe, account: Account) -> list[_Opened]:
    opened = []
    for source in sources:
        try:
            numbers, probed = _open_frames(source, probe)
        except VideoError as error:
            account.left_out("videos", str(error))
            continue
        annotations = read_annotations(source.anns, account) if source.anns else Annotations([], [])
        opened.append(_Opened(source, annotations, numbers, probed))
    return opened


def _open_frames(source: VideoSource, probe) -> tuple[list[int] | None, Probed]:
    if source.frames.is_file():
        return None, ask(probe, source.frames)
    images = numbered_images(source.frames)
    width, height = _image_size(images[0][1])
    return [number for number, _ in images], Probed(width, height, NOMINAL_FPS, len(images))


def _image_size(path: Path) -> tuple[int, int]:
    """Width and height as displayed: with the orientation that a camera notes in the image applied."""
    # Imported here because only this reader of the core needs Pillow.
    from PIL import ExifTags, Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED_BY_90_DEGREES
            return (height, width) if turned else (width, height)
    except (UnidentifiedImageError, OSError) as error:
        raise VideoError(f"{path}: expected an image, cannot read its size: {error}") from None


def _first_number_of_video_files(opened: list[_Opened], account: Account) -> int:
    """0 or 1: the number of the first frame in the annotation files of videos that are no image folders."""
    annotated = [one for one in opened if one.numbers is None and one.annotations.file_numbers]
    if not annotated:
        return 0
    if any(0 in one.annotations.file_numbers for one in annotated):
        account.remark("annotation files of video files are numbered from 0: one has the number 0")
        return 0
    if any(max(one.annotations.file_numbers) == one.probed.num_frames for one in annotated):
        account.remark("annotation files of video files are numbered from 1: one has its video's number of frames")
        return 1
    account.remark("nothing tells whether annotation files of video files are numbered from 0 or 1; taken as from 0")
    return 0


def _build_video(one: _Opened, first_number: int, account: Account) -> Video:
    extra = {}
    if one.numbers is not None:
        extra[FPS_NOMINAL_KEY] = True
        first_number = one.numbers[0]
        missing = one.numbers[-1] - one.numbers[0] + 1 - len(one.numbers)
        if missing:
            reason = f"{one.source.frames}: {missing} numbers have no image, frames move together"
            account.count("image_sequences_with_gaps", reason)
            extra[NUMBERS_KEY] = one.numbers
    if first_number and NUMBERS_KEY not in extra:
        extra[FIRST_NUMBER_KEY] = first_number
    return Video(
        id=one.source.id,
        file=one.source.frames,
        fps=one.probed.fps,
        num_frames=one.probed.num_frames,
        width=one.probed.width,
        height=one.probed.height,
        split=one.source.split,
        extra=extra,
    )


def _build_events(one: _Opened, first_number: int, account: Account) -> list[Event]:
    boxes, probed = one.annotations.boxes, one.probed
    if not boxes:
        return []
    if probed.width is None or probed.height is None:
        raise DatasetError(
            f"{one.source.frames}: boxes are fractions of the picture, expected its width and height from the video; "
            "pass a probe, as `cli.py convert` does"
        )
    finder = _frame_finder(one, first_number)
    with located(f"{one.source.anns}: "):
        return build_events(one.source.id, boxes, finder, probed.width, probed.height, account)


def _frame_finder(one: _Opened, first_number: int) -> Callable[[int], int | None]:
    if one.numbers is not None:
        return {number: frame for frame, number in enumerate(one.numbers)}.get
    num_frames = one.probed.num_frames

    def frame_of_number(number: int) -> int | None:
        frame = number - first_number
        return frame if frame >= 0 and (num_frames is None or frame < num_frames) else None

    return frame_of_number


def _with_unique_ids(events: list[Event], account: Account) -> list[Event]:
    """Events whose uuid occurs in several videos get the video's id in front."""
    videos_of: dict[str, set[str]] = {}
    for event in events:
        videos_of.setdefault(event.id, set()).add(event.video_id)
    shared = {uuid for uuid, video_ids in videos_of.items() if len(video_ids) > 1}
    if shared:
        account.counts["uuids_in_several_videos"] = len(shared)
    return [
        event.replace(id=f"{event.video_id}/{event.id}") if event.id in shared else event for event in events
    ]
