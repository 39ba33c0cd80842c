"""Copies the packets of a file into a new container with PyAV: nothing is decoded into it or encoded again.

That gives a file a whole index, true durations and, on request, other times. Whether the copy is better than the file is for its
reader to say (`check_repair`): here only what cannot be copied raises.
"""

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags
from av.container import InputContainer, OutputContainer
from av.video.stream import VideoStream

from features.check_protocol import Remux, Remuxed
from features.decoders.pyav_reader import choose_stream, open_container
from vjepa_loc.errors import VideoError

MP4_MUXERS = frozenset({"mp4", "mov"})
# What a copy may lose of the sound before the first frame.
MOST_PREROLL_S = 1.0
# Fine enough for any times, and what transport streams count in.
FINE_TICK = Fraction(1, 90000)


def remux(request: Remux, alive: Callable[[], object]) -> Remuxed:
    """Writes `request.target`; to sync it is the caller's. Raises VideoError where the packets cannot be copied."""
    source = Path(request.source)
    ticks = None if request.frame_time_s is None else _packet_ticks(source, request.frame_time_s, request.fps, alive)
    # The index at the front.
    options = {"movflags": "+faststart"} if request.muxer in MP4_MUXERS else {}
    try:
        with open_container(source) as container:
            with av.open(os.path.abspath(request.target), "w", format=request.muxer, options=options) as copy:
                left_out = _copy(container, copy, source, ticks, alive)
    except VideoError:
        raise
    except (av.error.FFmpegError, ValueError) as error:
        raise VideoError(f"{source}: its packets cannot be copied ({getattr(error, 'strerror', None) or error})") from None
    return Remuxed(tuple(left_out))


class _Ticks:
    """Presentation and decoding times of a video's packets in decoding order, in ticks of `time_base`."""

    def __init__(self, presented: np.ndarray, time_base: Fraction):
        in_order = np.sort(presented)
        self.time_base = time_base
        self.presented = presented
        # The n-th packet is decoded at the n-th time, early enough that none is shown before it is decoded.
        self.decoded = in_order - int(np.max(in_order - presented, initial=0))


def _packet_ticks(path: Path, frame_time_s: np.ndarray, fps: Fraction | None, alive: Callable[[], object]) -> _Ticks:
    """Times for packets from those of frames: decodes the file to see which packet becomes which frame.

    With `fps`, frame k is shown at k periods. Raises VideoError where a packet becomes no frame, or two.
    """
    packet_of_frame: list[int | None] = []
    num_packets = 0
    with open_container(path) as container:
        stream = choose_stream(container, path)
        stream.codec_context.flags |= Flags.copy_opaque
        try:
            for packet in container.demux(stream):
                alive()
                if packet.size:
                    packet.opaque = num_packets
                    num_packets += 1
                    pictures = stream.codec_context.decode(packet)
                else:
                    pictures = []
                packet_of_frame += [picture.opaque for picture in pictures]
            packet_of_frame += [picture.opaque for picture in stream.codec_context.decode(None)]
        except av.error.FFmpegError as error:
            if isinstance(error, OSError):
                raise
            raise VideoError(
                f"{path}: packet {num_packets} cannot be decoded ({error.strerror}), so it is unknown which packet has which time"
            ) from None
    if sorted(packet_of_frame, key=str) != sorted(range(num_packets), key=str) or num_packets != len(frame_time_s):
        raise VideoError(
            f"{path}: its {num_packets} packets give {len(packet_of_frame)} frames, so it is unknown which packet has which time"
        )
    ticks = np.arange(num_packets) if fps else np.round(frame_time_s / float(FINE_TICK)).astype(np.int64)
    presented = np.empty(num_packets, np.int64)
    presented[np.array(packet_of_frame)] = ticks
    return _Ticks(presented, 1 / fps if fps else FINE_TICK)


def _start_s(container: InputContainer, video: VideoStream) -> float:
    """When the copy begins: with the first frame, or with another stream that begins much earlier."""
    start_s = float((video.start_time or 0) * (video.time_base or 0))
    first_s = (container.start_time or 0) / av.time_base
    return start_s if abs(start_s - first_s) < MOST_PREROLL_S else first_s


def _copy(
    container: InputContainer, copy: OutputContainer, path: Path, ticks: _Ticks | None, alive: Callable[[], object]
) -> list[str]:
    """Returns the streams that were left out, as text."""
    video = choose_stream(container, path)
    copies, left_out = {}, []
    for stream in container.streams:
        try:
            copies[stream.index] = copy.add_stream_from_template(stream)
        except (av.error.FFmpegError, ValueError, TypeError, NotImplementedError, AttributeError) as error:
            if stream is video:
                raise VideoError(f"{path}: {video.codec_context.name} does not fit into {copy.format.name} ({error})") from None
            left_out.append(f"stream {stream.index} ({stream.type})")
    if ticks is not None:
        copies[video.index].time_base = ticks.time_base
    copy.metadata.update(container.metadata)
    number, start_s = 0, 0.0 if ticks is not None else _start_s(container, video)
    streams = [container.streams[index] for index in copies]
    packets = container.demux(*streams)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, IndexError):
            # PyAV ends with an IndexError where further streams turned up.
            break
        except av.error.FFmpegError as error:
            if isinstance(error, OSError):
                raise VideoError(f"{path}: cannot be read to its end ({error.strerror}); check the disk or the network") from None
            break
        alive()
        if not packet.size:
            continue
        if packet.stream is video and ticks is not None:
            packet.time_base = ticks.time_base
            packet.pts, packet.dts = int(ticks.presented[number]), int(ticks.decoded[number])
            packet.duration = 0
            number += 1
        elif packet.time_base:
            shift = round(start_s / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts = None if packet.dts is None else packet.dts - shift
        packet.stream = copies[packet.stream.index]
        copy.mux(packet)
    return left_out
