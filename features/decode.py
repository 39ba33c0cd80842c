"""From a video file, or a folder of numbered images, to frames: frame-exact, in presentation order, as displayed.

`open_video` is the only door to a decoder in this process. A decoder can hang or crash on a broken file, so extraction goes
through `features.decode_worker`, which runs the same readers in a process that can be killed.
"""

import math
from fractions import Fraction
from pathlib import Path

from features.decoders.reader import Frame, VideoInfo, VideoReader
from features.decoders.source import check_video_file
from vjepa_loc.errors import ConfigError, UnknownNameError, nearest_name

__all__ = ["DECODERS", "Frame", "VideoInfo", "VideoReader", "open_video", "probe_video"]

DECODERS = ("pyav", "decord")


def open_video(path: str | Path, decoder: str = "pyav", nominal_fps: float | Fraction | None = None) -> VideoReader:
    """A reader at the first frame; iterate it once, for `(index, time_s, rgb_HW3)` of each frame.

    `nominal_fps` is the rate of a source that states none: required for a folder of images (which no `decoder` is asked for),
    25 for a bare bit stream. Raises VideoError, one line, for whatever cannot be decoded, and UnknownNameError for a decoder
    that is not in `DECODERS`.
    """
    path = Path(path)
    rate = _as_rate(nominal_fps)
    if decoder not in DECODERS:
        raise UnknownNameError(
            f"decoder: expected one of {', '.join(DECODERS)}, got {decoder!r}.{nearest_name(decoder, DECODERS)}"
        )
    # Decoders are imported late: each brings a library that the others can do without.
    if path.is_dir():
        from features.decoders.image_folder import ImageFolderReader

        return ImageFolderReader(path, rate)
    check_video_file(path)
    if decoder == "decord":
        from features.decoders.decord_reader import DecordReader

        return DecordReader(path, rate)
    from features.decoders.pyav_reader import PyavReader

    return PyavReader(path, rate)


def probe_video(path: str | Path, nominal_fps: float | Fraction | None = None) -> VideoInfo:
    """What the header and the first frame say; cheap, and as unreliable as headers are (`num_frames_in_header`, `fps`)."""
    with open_video(path, nominal_fps=nominal_fps) as reader:
        return reader.info


def _as_rate(fps: float | Fraction | None) -> Fraction | None:
    if fps is None or isinstance(fps, Fraction) and fps > 0:
        return fps
    if not math.isfinite(fps) or fps <= 0:
        raise ConfigError(f"nominal_fps: expected a positive frame rate, got {fps}")
    # Through its decimals, so that 29.97 stays 2997/100.
    return Fraction(str(fps))
