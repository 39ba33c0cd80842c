"""What is unusual about a video's container: every frame can be decoded once and in order, but other tools stumble."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import av
from av.container import InputContainer

from features.decoders.pyav_reader import BARE_CONTAINERS, choose_stream, open_container
from features.decoders.reader import VideoInfo

# Containers in which nobody can seek to a frame exactly, and what they are called.
INEXACT_CONTAINERS = {"mpegts": "MPEG transport stream", "mpeg": "MPEG program stream", "avi": "AVI"}


def oddities_of(path: Path, info: VideoInfo, alive: Callable[[], object]) -> tuple[str, ...]:
    """One line each. Reads the packets of an mp4 or mov file once more, without decoding them."""
    found = []
    if info.container in INEXACT_CONTAINERS:
        found.append(f"{INEXACT_CONTAINERS[info.container]}: players cannot seek to a frame exactly")
    elif info.container in BARE_CONTAINERS:
        found.append("bare bit stream: no times, no index")
    elif info.container == "images":
        return ()
    with open_container(path) as container:
        if info.container not in BARE_CONTAINERS and container.duration is None:
            found.append("no duration in the header")
        if "mp4" in info.container.split(",") and _has_edit_list(container, path, alive):
            found.append("edit list: other tools show frames that are cut away, or lose some")
    return tuple(found)


def _has_edit_list(container: InputContainer, path: Path, alive: Callable[[], object]) -> bool:
    """Whether frames are cut away or shown later than at 0; the usual one, which undoes the delay of reordering, is none."""
    stream = choose_stream(container, path)
    if stream.start_time:
        return True
    # What cannot be read has been counted where the file was decoded.
    with contextlib.suppress(av.error.FFmpegError, IndexError):
        for packet in container.demux(stream):
            alive()
            if packet.is_discard:
                return True
    return False
