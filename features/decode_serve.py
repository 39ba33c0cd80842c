"""Decodes, samples and resizes one video for a request; runs inside the decoding process."""

import time
from multiprocessing.connection import Connection

import numpy as np
import torch

from features.decode import open_video
from features.decode_protocol import Alive, DecodeSummary, Failure, Frames, Opened, Release, Request
from features.frame_ring import FrameRing
from features.preprocess import resize_uint8
from features.sampling import FrameSampler
from vjepa_loc.errors import VideoError, VjepaLocError
from vjepa_loc.spacegrid import SpaceGrid

ALIVE_EVERY_S = 0.5
# A crop of a frame that is thousands of times wider than high would first be resized to gigabytes.
MAX_RESIZED_PX = 1 << 26


def serve(connection: Connection, ring: FrameRing, request: Request) -> None:
    """Answers one request; the last message is a DecodeSummary or a Failure. Raises only what the connection raises."""
    try:
        summary = _decode(_Parent(connection, request), ring, request)
    except (EOFError, ConnectionError):
        raise
    except VjepaLocError as error:
        connection.send(Failure(error))
    except Exception as error:
        # Whatever a decoding library raises on a broken file must cost this one video, not the process.
        connection.send(Failure(VideoError(f"{request.path}: decoding failed with {type(error).__name__}: {error}")))
    else:
        connection.send(summary)


class _Parent:
    """The other end: takes messages, gives slots back; knows how long this end waited for it."""

    def __init__(self, connection: Connection, request: Request):
        self._connection = connection
        self._num_slots = request.ring_frames
        self._num_released = 0
        self._last_s = time.monotonic()
        self.blocked_s = 0.0

    def send(self, message: object) -> None:
        start_s = time.monotonic()
        self._connection.send(message)
        # Read as they come, or the parent would at last block on a full connection.
        while self._connection.poll():
            self._take_release()
        self._last_s = time.monotonic()
        self.blocked_s += self._last_s - start_s

    def alive(self) -> None:
        if time.monotonic() - self._last_s > ALIVE_EVERY_S:
            self.send(Alive())

    def slot(self, num_sampled: int) -> int:
        """The slot of the next sampled frame; waits until it may be written."""
        if num_sampled - self._num_released >= self._num_slots:
            start_s = time.monotonic()
            while num_sampled - self._num_released >= self._num_slots:
                self._take_release()
            self._last_s = time.monotonic()
            self.blocked_s += self._last_s - start_s
        return num_sampled % self._num_slots

    def _take_release(self) -> None:
        message: Release = self._connection.recv()
        self._num_released = message.num_frames


def _decode(parent: _Parent, ring: FrameRing, request: Request) -> DecodeSummary:
    prepare = request.prepare
    sampler = FrameSampler(prepare.frame_step, prepare.sample_fps)

    def wanted(index: int, time_s: float) -> bool:
        parent.alive()
        return sampler.takes(index, time_s)

    start_s = time.monotonic()
    with open_video(request.path, request.decoder, request.nominal_fps) as reader:
        space_grid = prepare.space_grid(reader.info)
        _check_resized_size(request.path, space_grid)
        versions = reader.versions() | {"torch": torch.__version__}
        parent.send(Opened(reader.info, space_grid, versions))
        slots_nhw3 = torch.from_numpy(ring.frames(request.ring_frames, space_grid.input_height, space_grid.input_width))
        num_sampled = 0
        numbers: list[int] = []
        for frame in reader.frames(wanted):
            slot = parent.slot(num_sampled)
            resize_uint8(frame.rgb_HW3[None], space_grid, slots_nhw3[slot : slot + 1])
            numbers.append(frame.index)
            num_sampled += 1
            if len(numbers) == prepare.batch_frames:
                _announce(parent, numbers)
        if numbers:
            _announce(parent, numbers)
        source = reader.read_source(parent.alive)
    return DecodeSummary(
        info=reader.info,
        num_frames=reader.num_frames,
        num_sampled=num_sampled,
        frame_time_s=reader.frame_time_s,
        times_made_up=reader.times_made_up,
        damage=reader.damage,
        source=source,
        space_grid=space_grid,
        decoder=request.decoder,
        versions=versions,
        busy_s=time.monotonic() - start_s - parent.blocked_s,
        blocked_s=parent.blocked_s,
    )


def _announce(parent: _Parent, numbers: list[int]) -> None:
    """Tells of the frames with these numbers, and empties the list."""
    parent.send(Frames(np.array(numbers, dtype=np.int64)))
    numbers.clear()


def _check_resized_size(path: str, space_grid: SpaceGrid) -> None:
    if space_grid.resize_width * space_grid.resize_height > MAX_RESIZED_PX:
        raise VideoError(
            f"{path}: fit crop would resize its {space_grid.width}x{space_grid.height} frames to "
            f"{space_grid.resize_width}x{space_grid.resize_height}; use fit stretch or letterbox"
        )
