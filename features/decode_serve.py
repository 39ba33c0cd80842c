"""Decodes, samples and resizes one video for a request; runs inside the decoding process."""

import time
from multiprocessing.connection import Connection

import numpy as np
import torch

from features.decode import open_video
from features.decode_protocol import Alive, DecodeSummary, Failure, Frames, Opened, Request
from features.preprocess import resize_uint8
from features.sampling import FrameSampler
from vjepa_loc.errors import VideoError, VjepaLocError
from vjepa_loc.spacegrid import SpaceGrid

ALIVE_EVERY_S = 0.5
# A crop of a frame that is thousands of times wider than high would first be resized to gigabytes.
MAX_RESIZED_PX = 1 << 26


def serve(connection: Connection, request: Request) -> None:
    """Answers one request; the last message is a DecodeSummary or a Failure. Raises only what the connection raises."""
    try:
        summary = _decode(_Outbox(connection), request)
    except (EOFError, ConnectionError):
        raise
    except VjepaLocError as error:
        connection.send(Failure(error))
    except Exception as error:
        # Whatever a decoding library raises on a broken file must cost this one video, not the process.
        connection.send(Failure(VideoError(f"{request.path}: decoding failed with {type(error).__name__}: {error}")))
    else:
        connection.send(summary)


class _Outbox:
    """Sends messages and knows how long the sending blocked."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._last_s = time.monotonic()
        self.blocked_s = 0.0

    def send(self, message: object, pixels: memoryview | None = None) -> None:
        start_s = time.monotonic()
        self._connection.send(message)
        if pixels is not None:
            self._connection.send_bytes(pixels)
        self._last_s = time.monotonic()
        self.blocked_s += self._last_s - start_s

    def alive(self) -> None:
        if time.monotonic() - self._last_s > ALIVE_EVERY_S:
            self.send(Alive())


def _decode(outbox: _Outbox, request: Request) -> DecodeSummary:
    prepare = request.prepare
    sampler = FrameSampler(prepare.frame_step, prepare.sample_fps)

    def wanted(index: int, time_s: float) -> bool:
        outbox.alive()
        return sampler.takes(index, time_s)

    start_s = time.monotonic()
    with open_video(request.path, request.decoder, request.nominal_fps) as reader:
        space_grid = prepare.space_grid(reader.info)
        _check_resized_size(request.path, space_grid)
        versions = reader.versions() | {"torch": torch.__version__}
        outbox.send(Opened(reader.info, space_grid, versions))
        num_sampled = 0
        numbers: list[int] = []
        resized: list[torch.Tensor] = []
        for frame in reader.frames(wanted):
            numbers.append(frame.index)
            resized.append(resize_uint8(frame.rgb_HW3[None], space_grid))
            if len(numbers) == prepare.batch_frames:
                _send_frames(outbox, numbers, resized)
            num_sampled += 1
        if numbers:
            _send_frames(outbox, numbers, resized)
        source = reader.read_source(outbox.alive)
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
        busy_s=time.monotonic() - start_s - outbox.blocked_s,
    )


def _send_frames(outbox: _Outbox, numbers: list[int], resized: list[torch.Tensor]) -> None:
    """Sends and empties the batch."""
    frames_nhw3 = torch.cat(resized).numpy()
    outbox.send(Frames(np.array(numbers, dtype=np.int64), frames_nhw3.shape), memoryview(frames_nhw3).cast("B"))
    numbers.clear()
    resized.clear()


def _check_resized_size(path: str, space_grid: SpaceGrid) -> None:
    if space_grid.resize_width * space_grid.resize_height > MAX_RESIZED_PX:
        raise VideoError(
            f"{path}: fit crop would resize its {space_grid.width}x{space_grid.height} frames to "
            f"{space_grid.resize_width}x{space_grid.resize_height}; use fit stretch or letterbox"
        )
