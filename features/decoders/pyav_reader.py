"""The default decoder: PyAV (FFmpeg), read once from start to end with one thread.

Nothing is ever sought: seeking is not exact in several containers. Broken packets are skipped and counted, as ffmpeg does.
"""

import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from features.decoders.missing_pictures import MissingPictures
from features.decoders.orientation import Orientation
from features.decoders.reader import DEFAULT_NOMINAL_FPS, Decoded, VideoInfo, VideoReader
from features.decoders.source import is_passing, read_error
from features.decoders.timeline import sane_rate
from vjepa_loc.errors import VideoError, VideoReadError

# FFmpeg takes any text for the art of terminals, and would draw it.
TEXT_CONTAINERS = frozenset({"tty", "bin", "xbin", "adf", "idf"})
# Bare bit streams carry no times; FFmpeg answers with a rate of its own.
BARE_CONTAINERS = frozenset({"h264", "hevc", "vvc", "m4v", "mpegvideo", "mjpeg", "mjpeg_2000", "obu", "cavsvideo", "dirac"})


def open_container(path: Path) -> InputContainer:
    """Raises VideoError with FFmpeg's reason where the file is not a container that it can open."""
    try:
        # Absolute, because FFmpeg takes what stands before a colon for a protocol.
        container = av.open(str(path.absolute()), options={"protocol_whitelist": "file"}, metadata_errors="replace")
    except av.error.FFmpegError as error:
        if is_passing(error):
            raise VideoReadError(f"{path}: cannot be read ({error.strerror}); check the disk or the network") from None
        raise VideoError(
            f"{path}: expected a video, got a file that FFmpeg cannot open ({error.strerror}); it may be cut short or no video"
        ) from None
    if container.format.name in TEXT_CONTAINERS:
        container.close()
        raise VideoError(f"{path}: expected a video, got a text file")
    return container


def choose_stream(container: InputContainer, path: Path) -> VideoStream:
    """The first video stream that is not an attached picture. Raises VideoError where there is none or no decoder for it."""
    kinds = sorted({"a cover picture" if stream.type == "video" else stream.type for stream in container.streams})
    for stream in container.streams.video:
        if not stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails):
            if stream.codec_context is None:
                raise VideoError(f"{path}: this build of FFmpeg has no decoder for its video stream; convert it to H.264")
            stream.thread_type = "NONE"
            stream.codec_context.thread_count = 1
            return stream
    if not kinds:
        raise VideoError(f"{path}: expected a video stream, found no stream at all; the file may be cut short")
    raise VideoError(f"{path}: expected a video stream, found only {', '.join(kinds)}")


def orientation_of(frame: VideoFrame, path: Path) -> Orientation:
    """How `frame` is turned before it is shown. Raises VideoError for oblique angles.

    Not for every frame: PyAV's side data and their frame refer to each other, so the frame's pixels stay until the garbage
    collector runs, which counts objects and not their megabytes.
    """
    try:
        matrix = frame.side_data.get(SideDataType.DISPLAYMATRIX)
    except ValueError:
        # PyAV stumbles over kinds of side data that are newer than itself, whichever kind is asked for.
        return Orientation.of_degrees(frame.rotation, path)
    return Orientation() if matrix is None else Orientation.of_display_matrix(bytes(matrix), path)


@dataclass
class PacketErrors:
    """What went wrong while pictures were read; `report` is told each."""

    report: Callable[[str], None]

    def demuxing(self, error: Exception) -> None:
        self.report(f"reading stopped: {_reason(error)}")

    def decoding(self, error: Exception) -> None:
        self.report(f"a packet cannot be decoded: {_reason(error)}")


def decode_all(
    container: InputContainer, stream: VideoStream, errors: PacketErrors, missing: MissingPictures
) -> Iterator[VideoFrame]:
    """Every picture that FFmpeg's own command line would show, in its order; `missing` is told of packets and pictures."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            break
        except IndexError:
            # PyAV at the end of a file in which further streams turned up; all packets have been read.
            break
        except av.error.FFmpegError as error:
            if isinstance(error, OSError):
                raise read_error(error, f"cannot be read to its end ({_reason(error)}); check the disk or the network") from None
            errors.demuxing(error)
            break
        # Empty packets stand for dropped pictures in AVI; a decoder would take one for the end.
        if packet.size:
            if packet.is_corrupt:
                errors.report("a packet is incomplete")
            if not packet.is_discard:
                missing.packet(packet.pts)
            yield from _decode(stream, packet, errors, missing)
    yield from _decode(stream, None, errors, missing)


def _decode(
    stream: VideoStream, packet: av.Packet | None, errors: PacketErrors, missing: MissingPictures
) -> list[VideoFrame]:
    try:
        pictures = stream.codec_context.decode(packet)
    except av.error.EOFError:
        return []
    except av.error.FFmpegError as error:
        errors.decoding(error)
        missing.accounted(packet and packet.pts)
        return []
    for picture in pictures:
        missing.picture(picture.pts)
    return pictures


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


class PyavReader(VideoReader):
    """See the module's docstring. Opening decodes the first picture: only it tells the displayed size."""

    def __init__(self, path: Path, nominal_fps: Fraction | None = None):
        self._container = open_container(path)
        try:
            self._open(path, nominal_fps)
        except BaseException:
            self._container.close()
            raise

    def _open(self, path: Path, nominal_fps: Fraction | None) -> None:
        self._stream = stream = choose_stream(self._container, path)
        # A list, not a method of this reader: in a cycle of references the decoder's memory would wait for the garbage collector.
        self._reported: list[str] = []
        self._missing = MissingPictures(stream.codec_context.codec.canonical_name)
        self._pictures = decode_all(self._container, stream, PacketErrors(self._reported.append), self._missing)
        self._reformatter = VideoReformatter()
        first = self._next_picture(path)
        if first is None:
            reason = self._reported[0] if self._reported else "no error was reported"
            raise VideoError(f"{path}: expected frames, got none that can be decoded ({reason})")
        self._first = first
        self._orientation, self._rotation = orientation_of(first, path), first.rotation
        orientation = self._orientation
        width, height = (first.height, first.width) if orientation.swap else (first.width, first.height)
        stated, bare = stated_rate(stream), self._container.format.name in BARE_CONTAINERS
        if bare and first.pts is None:
            stated = nominal_fps
        info = VideoInfo(
            width=width,
            height=height,
            rotation=orientation.degrees,
            fps=stated or nominal_fps or DEFAULT_NOMINAL_FPS,
            fps_nominal=stated is None or (bare and first.pts is None),
            variable_rate=rates_differ(stream),
            num_frames_in_header=stream.frames or None,
            codec=stream.codec_context.name,
            container=self._container.format.name,
            duration_s=stream_duration_s(self._container, stream),
        )
        super().__init__(path, [path], info, float(stream.time_base or 0))

    def _next_picture(self, path: Path) -> VideoFrame | None:
        try:
            return next(self._pictures, None)
        except VideoError as error:
            raise type(error)(f"{path}: {error}") from None

    def decoded(self) -> Iterator[Decoded]:
        picture: VideoFrame | None = self._first
        del self._first
        self._count_reported()
        while picture is not None:
            ticks = picture.pts if picture.pts is not None else picture.dts
            yield Decoded(
                self._seconds(ticks, picture), self._seconds(picture.duration, picture), picture.is_corrupt,
                lambda: self._rgb(picture),
            )
            picture = self._next_picture(self.path)
            self._count_reported()
        self._count_missing()

    def _count_missing(self) -> None:
        base = self._stream.time_base
        if base:
            for ticks in self._missing.ticks(float(1 / (self.info.fps * base))):
                self._num_errors += 1
                self._note(f"the picture that belongs at {float(ticks * base):.3f} s of the container's clock is missing")

    def _count_reported(self) -> None:
        for message in self._reported:
            self._count_error(message)
        self._reported.clear()

    def _seconds(self, ticks: int | None, picture: VideoFrame) -> float | None:
        # Pictures that were waiting in the decoder at the end of the file come without a time base.
        base = picture.time_base or self._stream.time_base
        # Whole numbers divide as exactly as fractions, ten times faster.
        return None if ticks is None or not base else ticks * base.numerator / base.denominator

    def _rgb(self, picture: VideoFrame) -> np.ndarray:
        # One thread and one context for all pictures: PyAV's defaults start threads and build a new context for each.
        rgb_HW3 = self._reformatter.reformat(picture, format="rgb24", threads=1).to_ndarray()
        if picture.rotation != self._rotation:
            self._orientation, self._rotation = orientation_of(picture, self.path), picture.rotation
        return self._orientation.apply(rgb_HW3)

    @property
    def orientation(self) -> Orientation:
        """How the pictures are turned, as of the last one that became RGB."""
        return self._orientation

    def versions(self) -> dict[str, str]:
        return {"python": platform.python_version(), "av": av.__version__, "ffmpeg": av.ffmpeg_version_info}

    def close(self) -> None:
        self._container.close()


def stated_rate(stream: VideoStream) -> Fraction | None:
    """The container's average rate, else its guess, where it can be one."""
    return sane_rate(stream.average_rate) or sane_rate(stream.guessed_rate) or sane_rate(stream.base_rate)


def rates_differ(stream: VideoStream) -> bool:
    """Whether the container's average and base rates disagree by more than 1%: a sign of uneven frames."""
    average, base = stream.average_rate, stream.base_rate
    return bool(average and base and abs(float(base / average) - 1) > 0.01 and sane_rate(average))


def stream_duration_s(container: InputContainer, stream: VideoStream) -> float | None:
    """From the first frame to the end as the container states it; None where it states only what streams share."""
    if container.format.name == "avi" and stream.frames and sane_rate(stream.average_rate):
        # FFmpeg shortens the duration of a cut file to what its size allows; the number of frames stays as written.
        return float(stream.frames / stream.average_rate)
    if stream.duration is not None and stream.time_base:
        return float(stream.duration * stream.time_base)
    # Matroska states where streams end, counted from the file's zero and not from their first frame.
    start_s = float((stream.start_time or 0) * (stream.time_base or 0)) if "matroska" in container.format.name else 0.0
    written = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", "").strip())
    if written:
        hours, minutes, seconds = written.groups()
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds) - start_s
    if container.duration is not None and len(container.streams) == 1:
        return container.duration / av.time_base - start_s
    return None
