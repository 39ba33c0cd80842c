"""Writes, copies and damages clips of numbered pictures with PyAV: what `decoding_clips` is made of."""

import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from benchmarks.decoding_pictures import HEIGHT_PX, WIDTH_PX, numbered_picture

AUDIO_RATE = 16000
# SVT-AV1 writes about itself into standard error; 1 is errors only.
os.environ.setdefault("SVT_LOG", "1")


def write_clip(
    path: Path,
    numbers: Sequence[int],
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    fps: Fraction = Fraction(25),
    ticks: Sequence[int] | None = None,
    size: tuple[int, int] = (WIDTH_PX, HEIGHT_PX),
    pixel_format: str = "yuv420p",
    muxer: str | None = None,
    muxer_options: dict[str, str] | None = None,
    tag: str | None = None,
    turn: tuple[Sequence[int], Callable[[np.ndarray], np.ndarray]] | None = None,
    interlaced: bool = False,
    sample_aspect: Fraction | None = None,
    colours: tuple[int, int] | None = None,
    audio_s: float | None = None,
    audio_first: bool = False,
    second_video: tuple[int, int] | None = None,
) -> None:
    """One picture for each of `numbers`, shown at `ticks` of 1/fps (0, 1, 2, ... without them).

    `turn`: a display matrix, and what makes of an upright picture the one that is coded. `colours`: space and range, in FFmpeg's
    numbers. `second_video`: the size of a further stream, with numbers 500 higher.
    """
    with av.open(str(path), "w", format=muxer, options=muxer_options or {}) as container:
        stream = container.add_stream(codec, rate=fps)
        width, height = size
        first_HW3 = turn[1](numbered_picture(0, width, height)) if turn else numbered_picture(0, width, height)
        stream.height, stream.width = first_HW3.shape[:2]
        stream.pix_fmt, stream.options = pixel_format, options or {}
        stream.codec_context.thread_count = 1
        if ticks is not None:
            stream.codec_context.time_base = 1 / fps
        if tag:
            stream.codec_context.codec_tag = tag
        if turn:
            stream.set_display_matrix(turn[0])
        if interlaced:
            # FFmpeg's flags for interlaced transform and motion estimation.
            stream.codec_context.flags |= 1 << 18 | 1 << 29
        if sample_aspect:
            stream.codec_context.sample_aspect_ratio = sample_aspect
        if colours:
            stream.codec_context.colorspace, stream.codec_context.color_range = colours
        second = None
        if second_video:
            second = container.add_stream(codec, rate=fps)
            (second.width, second.height), second.pix_fmt = second_video, pixel_format
        sound = container.add_stream("aac" if path.suffix != ".webm" else "libopus", rate=AUDIO_RATE) if audio_s else None
        if sound and audio_first:
            _add_sound(container, sound, audio_s)
        for place, number in enumerate(numbers):
            tick = place if ticks is None else ticks[place]
            picture_HW3 = numbered_picture(number, width, height)
            _add_picture(container, stream, turn[1](picture_HW3) if turn else picture_HW3, tick, fps, colours)
            if second:
                _add_picture(container, second, numbered_picture(number + 500, *second_video), tick, fps, None)
        container.mux(stream.encode(None))
        if second:
            container.mux(second.encode(None))
        if sound and not audio_first:
            _add_sound(container, sound, audio_s)


def _add_picture(container, stream, rgb_HW3: np.ndarray, tick: int, fps: Fraction, colours: tuple[int, int] | None) -> None:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb_HW3), format="rgb24")
    if colours:
        frame = frame.reformat(format=stream.pix_fmt, dst_colorspace=colours[0], dst_color_range=colours[1])
    frame.pts, frame.time_base = tick, 1 / fps
    container.mux(stream.encode(frame))


def _add_sound(container, sound, seconds: float) -> None:
    samples = np.zeros((1, int(seconds * AUDIO_RATE)), np.float32)
    silence = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    silence.sample_rate, silence.pts = AUDIO_RATE, 0
    resampler = av.AudioResampler(format=sound.format.name, layout="mono", rate=sound.rate, frame_size=sound.frame_size or None)
    for frame in [*resampler.resample(silence), *resampler.resample(None)]:
        container.mux(sound.encode(frame))
    container.mux(sound.encode(None))


def write_sound(path: Path, muxer: str | None = None, cover: bool = False) -> None:
    """A second of silence, with a cover picture where asked."""
    with av.open(str(path), "w", format=muxer) as container:
        picture = _cover_stream(container) if cover else None
        sound = container.add_stream("aac", rate=AUDIO_RATE)
        if picture:
            _add_cover(container, picture)
        _add_sound(container, sound, 1.0)


def copy_packets(
    source: Path,
    target: Path,
    change: Callable[[av.Packet, int], object] = lambda packet, place: None,
    cover_first: bool = False,
    silent_audio: bool = False,
    muxer_options: dict[str, str] | None = None,
) -> None:
    """The first video stream without coding it again. `change(packet, place)` may move its times; False drops the packet."""
    with av.open(str(source)) as given, av.open(str(target), "w", options=muxer_options or {}) as taken:
        picture = _cover_stream(taken) if cover_first else None
        stream = taken.add_stream_from_template(given.streams.video[0])
        if silent_audio:
            taken.add_stream("aac", rate=AUDIO_RATE)
        if picture:
            _add_cover(taken, picture)
        for place, packet in enumerate(packet for packet in given.demux(video=0) if packet.size):
            if change(packet, place) is not False:
                packet.stream = stream
                taken.mux(packet)


def shift_by(ticks: int) -> Callable[[av.Packet, int], None]:
    """For `copy_packets`: all times later by `ticks` of the source's time base."""

    def shift(packet: av.Packet, place: int) -> None:
        packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks

    return shift


def _cover_stream(container):
    picture = container.add_stream("mjpeg", rate=1)
    picture.width, picture.height, picture.pix_fmt = 200, 120, "yuvj420p"
    picture.disposition = av.stream.Disposition.attached_pic
    return picture


def _add_cover(container, picture) -> None:
    container.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((120, 200, 3), np.uint8), format="rgb24")))
    container.mux(picture.encode(None))


def cut_short(path: Path, share: float) -> None:
    """Only the first `share` of the bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def flip_bytes(path: Path, num_bytes: int = 8, seed: int = 0) -> None:
    """Turns bytes between a third and nine tenths of the file into their complement."""
    content = bytearray(path.read_bytes())
    for place in np.random.default_rng(seed).integers(len(content) // 3, len(content) * 9 // 10, num_bytes):
        content[place] ^= 0xFF
    path.write_bytes(bytes(content))


def blank_bytes(path: Path, start: float, end: float) -> None:
    """Zeroes between two shares of the file: a block that a disk or a download lost."""
    content = bytearray(path.read_bytes())
    first, last = int(len(content) * start), int(len(content) * end)
    content[first:last] = bytes(last - first)
    path.write_bytes(bytes(content))
