"""A dataset against its videos: what decoding them says, and what is suspicious in the dataset itself."""

import dataclasses
from collections.abc import Callable

from features.check import check_videos
from vjepa_loc.dataset import Dataset
from vjepa_loc.dataset_review import ERROR, WARNING, Finding, events_beyond, review


def check_dataset(
    dataset: Dataset, decode: bool = True, deadline_s: float = 60.0, on_video: Callable[[int], object] = lambda number: None
) -> list[Finding]:
    """All findings; with `decode` every video is decoded once, and sizes that the dataset leaves out come from there.

    Where no frame is decoded, a file that is not there is still an error.
    """
    if not decode:
        missing = [
            Finding(ERROR, "video that is not there", f"video {video.id!r}: {video.file or 'the dataset names no file for it'}")
            for video in dataset.videos.values()
            if video.file is None or not video.file.exists()
        ]
        return [*missing, *review(dataset)]
    videos = list(dataset.videos.values())
    findings, resolved, num_frames_of = [], {}, {}
    for video, found in zip(videos, check_videos(videos, deadline_s, on_video), strict=True):
        resolved[video.id] = video
        if not found.usable:
            findings.append(Finding(ERROR, "video that cannot be used", found.problem))
            continue
        if found.num_errors:
            findings.append(
                Finding(WARNING, "damaged video", f"video {video.id!r}: {found.num_errors} errors while decoding, the first: {found.damage}")
            )
        num_frames_of[video.id] = found.num_frames
        # Frames are left as stated: an event beyond the decoded ones is a finding, no error of reading.
        resolved[video.id] = video.resolved(width=found.width, height=found.height)
    return [*findings, *events_beyond(dataset, num_frames_of), *review(dataclasses.replace(dataset, videos=resolved))]
