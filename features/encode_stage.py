"""The encoding threads of an extraction: batches of clips in, tokens out.

On a CPU each thread encodes with the threads of torch that the pipeline sets, and a clip's tokens do not depend on its batch.
On a GPU there is one thread; it always gives the encoder `batch_clips` clips, the remainder black and discarded, so that a
token does not depend on how many neighbours it had and nothing is compiled anew; it sends the next batch to the GPU before
it waits for the last one. Shape legend: B clips, T steps, H x W cells, C channels; frames are uint8 (B, T, H, W, 3).
"""

import ctypes
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from features.clip_queue import ClipQueue, QueuedClip
from features.outcome import StageTimes
from features.schema import EncoderSpec
from features.video_job import EncodedClip
from vjepa_loc.errors import ConfigError


class Encoder(Protocol):
    """What a module `features/encoders/<name>.py` offers as `Encoder(config, device)`."""

    spec: EncoderSpec
    device: torch.device
    dtype: torch.dtype

    def encode(self, frames_BTHWC3: torch.Tensor) -> torch.Tensor:
        """uint8 (B, frames, height, width, 3) -> float32 tokens (B, T, H, W, C); no gradient, the same every time.

        Several threads call it at once on a CPU. What it returns is the caller's.
        """


class Outbox(Protocol):
    """Where the tokens go; bounded."""

    def reserve(self, num_clips: int, wait: bool) -> bool:
        """Room for so many clips; waits for it with `wait`, False where there is none or never will be."""

    def unreserve(self, num_clips: int) -> None:
        """So much room was not needed."""

    def deliver(self, encoded: EncodedClip) -> None:
        """Takes the place of one reserved clip."""

    def fail_batch(self, clips: list[QueuedClip], error: BaseException) -> None:
        """The clips could not be encoded; their reserved room is free again."""


def ends_the_run(error: BaseException) -> bool:
    """Whether no other video can be encoded either: the GPU's memory has run out, or it answers nothing any more."""
    return isinstance(error, (torch.OutOfMemoryError, torch.AcceleratorError)) or not isinstance(error, Exception)


@dataclass
class _Launched:
    clips: list[QueuedClip]
    tokens_BTHWC: torch.Tensor
    encode_s: float = 0.0
    started: Any = None
    ended: Any = None


class EncodeStage:
    """`run` is the body of an encoding thread. `times` adds up over all of them when they have ended."""

    def __init__(self, encoder: Encoder, queue: ClipQueue, outbox: Outbox, batch_clips: int, on_clips: Callable[[list[QueuedClip]], object]):
        self.times = StageTimes()
        self._adding = threading.Lock()
        self._inside: set[int] = set()
        self._entering = threading.Lock()
        self._encoder = encoder
        self._queue = queue
        self._outbox = outbox
        self._batch_clips = batch_clips
        self._on_clips = on_clips
        self._on_gpu = encoder.device.type == "cuda"

    def interrupt(self, error: type[Exception]) -> None:
        """Raises `error` in every thread that is inside the encoder, where it next executes Python: a clip may take minutes."""
        with self._entering:
            for thread_id in self._inside:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(error))

    def run(self) -> None:
        """Encodes until the queue is closed. Raises what the encoder raises besides `Exception`s."""
        times = StageTimes()
        launched: deque[_Launched] = deque()
        try:
            while True:
                clips = self._take(times, wait=not launched)
                if clips:
                    launched += self._launch(clips, times)
                elif not launched:
                    return
                while launched and (not clips or not self._on_gpu or len(launched) > 1):
                    self._finish(launched.popleft(), times)
        finally:
            with self._adding:
                self.times += times

    def _take(self, times: StageTimes, wait: bool) -> list[QueuedClip]:
        start_s = time.monotonic()
        if not self._outbox.reserve(self._batch_clips, wait):
            times.encode_blocked_s += time.monotonic() - start_s
            return []
        reserved_s = time.monotonic()
        clips = self._queue.take(self._batch_clips, wait)
        self._outbox.unreserve(self._batch_clips - len(clips))
        times.encode_blocked_s += reserved_s - start_s
        times.encode_wait_s += time.monotonic() - reserved_s
        return clips

    def _launch(self, clips: list[QueuedClip], times: StageTimes) -> list[_Launched]:
        start_s = time.monotonic()
        try:
            if self._on_gpu:
                return [self._launch_on_gpu(clips)]
            frames = [clip.frames_THW3 for clip in clips]
            # A batch of one is looked at where it lies.
            frames_BTHWC3 = frames[0][None] if len(frames) == 1 else torch.stack(frames)
            tokens_BTHWC = self._encode(frames_BTHWC3)
            return [_Launched(clips, tokens_BTHWC, time.monotonic() - start_s)]
        except Exception as error:
            jobs = {clip.job: None for clip in clips}
            if len(jobs) == 1 or ends_the_run(error) or any(job.failed for job in jobs):
                self._give_up(clips, error)
                return []
        finally:
            if not self._on_gpu:
                times.encode_s += time.monotonic() - start_s
        # Its neighbours in the batch must not pay for a video that the encoder cannot take.
        return [batch for job in jobs for batch in self._launch([clip for clip in clips if clip.job is job], times)]

    def _launch_on_gpu(self, clips: list[QueuedClip]) -> _Launched:
        started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with torch.cuda.device(self._encoder.device):
            started.record()
            shape = (self._batch_clips, *clips[0].frames_THW3.shape)
            frames_BTHWC3 = torch.zeros(shape, dtype=torch.uint8, device=self._encoder.device)
            for number, clip in enumerate(clips):
                frames_BTHWC3[number].copy_(clip.frames_THW3, non_blocking=True)
            tokens_BTHWC = self._encode(frames_BTHWC3)
            ended.record()
        return _Launched(clips, tokens_BTHWC, started=started, ended=ended)

    def _encode(self, frames_BTHWC3: torch.Tensor) -> torch.Tensor:
        thread_id = threading.get_ident()
        with self._entering:
            self._inside.add(thread_id)
        try:
            tokens_BTHWC = self._encoder.encode(frames_BTHWC3)
        finally:
            with self._entering:
                self._inside.discard(thread_id)
                # An interruption that comes too late must not strike where a lock has just been taken.
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), None)
        self._check(tokens_BTHWC, frames_BTHWC3)
        return tokens_BTHWC

    def _check(self, tokens_BTHWC: object, frames_BTHWC3: torch.Tensor) -> None:
        # A clip without tokens would be waited for, and tokens too many be taken for others. The grid is checked by the writer.
        spec = self._encoder.spec
        num_clips, num_steps = len(frames_BTHWC3), frames_BTHWC3.shape[1] // spec.tubelet
        got = tuple(tokens_BTHWC.shape) if isinstance(tokens_BTHWC, torch.Tensor) else type(tokens_BTHWC).__name__
        if len(got) != 5 or (*got[:2], got[4]) != (num_clips, num_steps, spec.channels):
            raise ConfigError(
                f"encoder {spec.family}: expected tokens of shape ({num_clips}, {num_steps}, rows, columns, {spec.channels}) for "
                f"frames of shape {tuple(frames_BTHWC3.shape)}, got {got}; the encoder is broken"
            )

    def _finish(self, batch: _Launched, times: StageTimes) -> None:
        if batch.ended is not None:
            try:
                batch.ended.synchronize()
            except Exception as error:
                self._give_up(batch.clips, error)
                return
            batch.encode_s = batch.started.elapsed_time(batch.ended) / 1000
            times.encode_s += batch.encode_s
        self._queue.give_back(batch.clips)
        # Told first: nothing is said of a video after its outcome.
        self._on_clips(batch.clips)
        for clip, tokens_THWC in zip(batch.clips, batch.tokens_BTHWC, strict=False):
            self._outbox.deliver(EncodedClip(clip, tokens_THWC, batch.encode_s / len(batch.clips)))

    def _give_up(self, clips: list[QueuedClip], error: Exception) -> None:
        self._queue.give_back(clips)
        self._outbox.fail_batch(clips, error)
