"""The second decoder: decord, read once from start to end with one thread; an independent witness of the first.

decord is silently wrong on several kinds of files, so those are refused: transport and program streams, AVI, AV1, edit lists,
several video streams, and more than 8 bits (other pixels). PyAV says what a file is and when its frames are shown. decord decodes ahead as fast as it can and keeps what it has: while a consumer waits, memory
grows up to the decoded size of the whole video. That is why it is not the default.
"""

import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av

from features.decoders.pyav_reader import PyavReader, choose_stream, open_container
from features.decoders.reader import Decoded, VideoInfo, VideoReader
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
        facts = _facts(path)
        self._time_s = facts.time_s
        self._version = decord.__version__
        self._errors = (decord.DECORDError, RuntimeError)
        with PyavReader(path, nominal_fps) as reader:
            info: VideoInfo = reader.info
        try:
            self._reader = decord.VideoReader(str(path.absolute()), ctx=decord.cpu(0), num_threads=1)
        except self._errors as error:
            raise VideoError(f"{path}: decord cannot open it ({_reason(error)}){USE_PYAV}") from None
        if len(self._reader) != len(self._time_s):
            raise _refusal(path, f"it counts {len(self._reader)} frames where the file has {len(self._time_s)} packets")
        super().__init__(path, [path], replace(info, num_frames_in_header=len(self._reader)), facts.tick_s)

    def _decoded(self) -> Iterator[Decoded]:
        for time_s in self._time_s:
            try:
                pixels = self._reader.next()
            except StopIteration:
                raise VideoError(f"{self.path}: decord ended early{USE_PYAV}") from None
            except self._errors as error:
                raise VideoError(f"{self.path}: decord cannot decode it ({_reason(error)}){USE_PYAV}") from None
            if pixels.shape[-1] != 3:
                raise _refusal(self.path, f"its pixels come as {tuple(pixels.shape)}")
            yield Decoded(time_s, None, False, pixels.asnumpy)

    def versions(self) -> dict[str, str]:
        return {"python": platform.python_version(), "decord": self._version, "av": av.__version__}

    def close(self) -> None:
        # decord has no close; its threads end with the object.
        self._reader = None


@dataclass(frozen=True)
class _Facts:
    time_s: list[float | None]
    tick_s: float


def _facts(path: Path) -> _Facts:
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
        start, ticks = stream.start_time, []
        try:
            for packet in container.demux(stream):
                if packet.is_discard or is_mp4 and start:
                    raise _refusal(path, "an edit list")
                if packet.size:
                    ticks.append(packet.pts)
        except av.error.FFmpegError as error:
            raise VideoError(f"{path}: damaged ({error.strerror}), decord cannot read a part{USE_PYAV}") from None
        tick_s = float(stream.time_base or 0)
    if any(tick is None for tick in ticks):
        return _Facts([None] * len(ticks), tick_s)
    # Packets lie in decoding order.
    return _Facts([tick * tick_s for tick in sorted(ticks)], tick_s)


def _refusal(path: Path, what: str) -> VideoError:
    return VideoError(f"{path}: refused for decord, which is not exact on such files: {what}{USE_PYAV}")


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    # Without the times and places in decord's sources that its messages begin with.
    return re.sub(r"\[[\d:]+\] \S+\.cc:\d+: ", "", lines[0])[:120].strip() if lines else type(error).__name__
