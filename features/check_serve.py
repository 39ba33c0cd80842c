"""Answers the requests of `check_protocol`; runs inside the process that checks videos."""

import hashlib
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import av

from features.check_decord import ask_decord
from features.check_oddities import oddities_of
from features.check_protocol import Alive, AskDecord, Failure, Look, Looked, Remux
from features.decode import open_video
from features.decoders.source import READ_BYTES
from features.remux import remux
from vjepa_loc.errors import VideoError, VideoReadError, VjepaLocError

ALIVE_EVERY_S = 0.5


class Pulse:
    """Tells the parent that there is progress, not more often than it needs to know."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._last_s = time.monotonic()

    def __call__(self) -> None:
        now_s = time.monotonic()
        if now_s - self._last_s > ALIVE_EVERY_S:
            self._connection.send(Alive())
            self._last_s = now_s


def serve(connection: Connection, request: Look | AskDecord | Remux) -> None:
    """Sends one answer or a Failure. Raises only what the connection raises."""
    pulse = Pulse(connection)
    try:
        if isinstance(request, Look):
            answer = look(request, pulse)
        elif isinstance(request, AskDecord):
            answer = ask_decord(request, pulse)
        else:
            answer = remux(request, pulse)
    except (EOFError, ConnectionError):
        raise
    except VjepaLocError as error:
        answer = Failure(error)
    except Exception as error:
        # Whatever a decoding library raises on a broken file must cost this one video, not the process.
        path = request.source if isinstance(request, Remux) else request.path
        kind = VideoReadError if isinstance(error, (MemoryError, OSError)) else VideoError
        answer = Failure(kind(f"{path}: failed with {type(error).__name__}: {error}"))
    connection.send(answer)


def look(request: Look, alive: Pulse) -> Looked:
    """Every frame becomes RGB, also where nobody looks at it: a frame that cannot is a finding."""

    def wanted(index: int, time_s: float) -> bool:
        alive()
        return True

    try:
        return _decoded(request, wanted, alive)
    except VideoError as error:
        if not error.passing:
            # A library that cannot read says of a whole file, too, that it is no video.
            _check_readable(Path(request.path), alive)
        raise


def _decoded(request: Look, wanted: Callable[[int, float], bool], alive: Pulse) -> Looked:
    digests = bytearray()
    with open_video(request.path, "pyav", request.nominal_fps) as reader:
        versions = reader.versions()
        for frame in reader.frames(wanted):
            if request.digests:
                digests += hashlib.sha256(frame.rgb_HW3).digest()
        source = reader.read_source(alive)
    return Looked(
        info=reader.info, codec=_format_name(reader.info.codec), num_frames=reader.num_frames, frame_time_s=reader.frame_time_s,
        times_made_up=reader.times_made_up, damage=reader.damage, source=source, versions=versions,
        oddities=oddities_of(Path(request.path), reader.info, alive), digests=bytes(digests),
    )


def _check_readable(path: Path, alive: Pulse) -> None:
    """Raises VideoReadError where the disk does not give every byte."""
    try:
        if path.is_file():
            with path.open("rb") as file:
                while file.read(READ_BYTES):
                    alive()
    except OSError as error:
        raise VideoReadError(f"{path}: cannot be read ({error.strerror}); check the disk or the network") from None


def _format_name(decoder: str) -> str:
    """`av1` for `libdav1d`; an image's suffix as it is."""
    try:
        return av.Codec(decoder, "r").canonical_name
    except av.codec.codec.UnknownCodecError:
        return decoder
