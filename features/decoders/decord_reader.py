"""The second decoder: decord, read once from start to end with one thread; an independent witness of the first.

decord is silently wrong on several kinds of files, so those are refused: transport and program streams, AVI, AV1, edit lists,
mirrored pictures, several video streams, and more than 8 bits (other pixels). It also leaves out or repeats frames of damaged
files without a word: PyAV decodes beside it, says what a file is, when its frames are shown and where it is damaged, which
takes twice the time of one decoder. decord decodes ahead as fast as it can and keeps what it has: while a consumer waits, memory
grows up to the decoded size of the whole video. That is why it is not the default.
"""

import platform
import re
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from features.decoders.pyav_reader import PyavReader, choose_stream, open_container
from features.decoders.reader import Decoded, VideoReader
from features.decoders.source import read_error
from vjepa_loc.errors import ConfigError, VideoError

USE_PYAV = "; use extract.decoder=pyav"
WRONG_CONTAINERS = {"mpegts": "MPEG transport streams", "mpeg": "MPEG program streams", "avi": "AVI"}
WRONG_CODECS = {"av1": "AV1", "libdav1d": "AV1", "libaom-av1": "AV1"}


class DecordReader(VideoReader):
    """See the module's docstring. Raises VideoError for refused and for damaged files, which decord cannot read partly."""

    def __init__(self, path: Path, nominal_fps: Fraction | None = None):
        try:
            import decord
        except ImportError:
            raise ConfigError(f"extract.decoder: decord is not installed, this machine may have no package of it{USE_PYAV}") from None
        num_packets = _count_packets(path)
        self._version = decord.__version__
        self._errors = (decord.DECORDError, RuntimeError)
        self._beside = PyavReader(path, nominal_fps)
        if self._beside.orientation.is_mirrored:
            raise _refusal(path, "mirrored pictures")
        try:
            self._reader = decord.VideoReader(str(path.absolute()), ctx=decord.cpu(0), num_threads=1)
        except self._errors as error:
            raise VideoError(f"{path}: decord cannot open it ({_reason(error)}){USE_PYAV}") from None
        if len(self._reader) != num_packets:
            raise _refusal(path, f"it counts {len(self._reader)} frames where the file has {num_packets} packets")
        info = replace(self._beside.info, num_frames_in_header=len(self._reader))
        super().__init__(path, [path], info, self._beside.tick_s)

    def decoded(self) -> Iterator[Decoded]:
        for picture in self._beside.decoded():
            self._check_whole(picture.corrupt)
            pixels = self._next_pixels()
            if pixels is None:
                raise VideoError(f"{self.path}: decord ended early{USE_PYAV}")
            if pixels.shape[-1] != 3:
                raise _refusal(self.path, f"its pixels come as {tuple(pixels.shape)}")
            yield Decoded(picture.container_time_s, picture.duration_s, False, pixels.asnumpy)
        self._check_whole(False)
        if self._next_pixels() is not None:
            raise VideoError(f"{self.path}: decord gives more frames than there are{USE_PYAV}")

    def _check_whole(self, corrupt: bool) -> None:
        if corrupt or self._beside.num_errors:
            raise VideoError(f"{self.path}: damaged, decord leaves out or repeats frames{USE_PYAV}")

    def _next_pixels(self) -> Any:
        try:
            return self._reader.next()
        except StopIteration:
            return None
        except self._errors as error:
            raise VideoError(f"{self.path}: decord cannot decode it ({_reason(error)}){USE_PYAV}") from None

    def versions(self) -> dict[str, str]:
        return {"python": platform.python_version(), "decord": self._version, "av": av.__version__}

    def close(self) -> None:
        # decord has no close; its threads end with the object.
        self._reader = None
        self._beside.close()


def _count_packets(path: Path) -> int:
    """Reads all packets without decoding them. Raises VideoError for the kinds of files that decord gets wrong."""
    with open_container(path) as container:
        stream = choose_stream(container, path)
        for wrong, name in ((WRONG_CONTAINERS, container.format.name), (WRONG_CODECS, stream.codec_context.name)):
            if name in wrong:
                raise _refusal(path, wrong[name])
        if len(container.streams.video) > 1:
            raise _refusal(path, "several video streams, of which it takes its own choice")
        if stream.format is not None and any(component.bits > 8 for component in stream.format.components):
            raise _refusal(path, f"more than 8 bits per colour ({stream.format.name})")
        is_mp4 = "mp4" in container.format.name.split(",")
        start, num_packets = stream.start_time, 0
        try:
            for packet in container.demux(stream):
                if packet.is_discard or is_mp4 and start:
                    raise _refusal(path, "an edit list")
                num_packets += bool(packet.size)
        except av.error.FFmpegError as error:
            raise read_error(error, f"{path}: damaged ({error.strerror}), decord cannot read a part{USE_PYAV}") from None
    return num_packets


def _refusal(path: Path, what: str) -> VideoError:
    return VideoError(f"{path}: refused for decord, which is not exact on such files: {what}{USE_PYAV}")


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    # Without the times and places in decord's sources that its messages begin with.
    return re.sub(r"\[[\d:]+\] \S+\.cc:\d+: ", "", lines[0])[:120].strip() if lines else type(error).__name__
