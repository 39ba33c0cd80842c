"""Clips on their way to the encoder: copied into a fixed number of buffers, taken in batches of one shape across videos.

A full set of buffers stops those who decode, so memory does not grow with the lead of the decoder.
Shape legend: T frames, H x W encoder input pixels.
"""

import threading
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from features.clips import Clip

if TYPE_CHECKING:
    from features.video_job import VideoJob


@dataclass(frozen=True, eq=False)
class QueuedClip:
    """The `number`-th clip of a video: its frames in a buffer of the queue, and what is stored of it (as in `Clip`)."""

    job: "VideoJob"
    number: int
    frames_THW3: torch.Tensor
    keep: slice
    frame_numbers_nu: np.ndarray
    first_seen: int
    last_seen: int
    buffer: torch.Tensor


class ClipQueue:
    """Filled by any number of threads with `put`, emptied by any number with `take`; clips of one shape keep their order.

    `num_buffers` of `clip_bytes` each, in page-locked memory where `pinned`; they are made when they are first needed. Whoever
    took clips gives them back (`give_back`) when their frames are no longer needed.
    """

    def __init__(self, num_buffers: int, clip_bytes: int, pinned: bool = False):
        self._changed = threading.Condition()
        self._clip_bytes = clip_bytes
        self._pinned = pinned
        self._num_unmade = num_buffers
        self._free: list[torch.Tensor] = []
        self._clips: deque[QueuedClip] = deque()
        self._num_of_shape: Counter[tuple[int, ...]] = Counter()
        self._num_taken = 0
        self._num_producing = 0
        self._closed = False

    def start_producing(self) -> None:
        """Tells that clips of one more video will come: until its `end_producing` it is worth waiting for a full batch."""
        with self._changed:
            self._num_producing += 1

    def end_producing(self) -> None:
        with self._changed:
            self._num_producing -= 1
            self._changed.notify_all()

    def put(self, job: "VideoJob", number: int, clip: Clip) -> bool:
        """Copies the clip's frames into a buffer, for which it waits; False, and nothing done, for a job that has failed."""
        with self._changed:
            while not job.failed and not self._free and not self._num_unmade:
                self._changed.wait()
            if job.failed:
                return False
            if self._free:
                buffer = self._free.pop()
            else:
                self._num_unmade -= 1
                buffer = None
        shape = clip.shape_THW3
        try:
            if buffer is None:
                buffer = torch.empty(self._clip_bytes, dtype=torch.uint8, pin_memory=self._pinned)
            frames_THW3 = buffer[: int(np.prod(shape))].view(shape)
            np.stack(clip.frames, out=frames_THW3.numpy())
        except BaseException:
            # No memory can be locked, say: one buffer fewer for ever would at last stop everybody.
            with self._changed:
                if buffer is None:
                    self._num_unmade += 1
                else:
                    self._free.append(buffer)
                self._changed.notify_all()
            raise
        queued = QueuedClip(
            job, number, frames_THW3, clip.keep, clip.frame_numbers_nu, clip.first_seen, clip.last_seen, buffer
        )
        with self._changed:
            self._clips.append(queued)
            self._num_of_shape[shape] += 1
            self._changed.notify_all()
        return True

    def take(self, num_clips: int, wait: bool = True) -> list[QueuedClip]:
        """The oldest clips of one shape, `num_clips` of them.

        Fewer where no more can come before some are taken: nobody produces, or every buffer is in the queue. Waits for that
        with `wait`; without, empty. Empty after `close`.
        """
        with self._changed:
            while True:
                shape = self._shape_to_take(num_clips)
                if shape is not None:
                    return self._pop(shape, num_clips)
                if self._closed or not wait:
                    return []
                self._changed.wait()

    def _shape_to_take(self, num_clips: int) -> tuple[int, ...] | None:
        # By age of their oldest clip, so that a rare shape is not starved by a common one.
        for clip in self._clips:
            if self._num_of_shape[shape := tuple(clip.frames_THW3.shape)] >= num_clips:
                return shape
        full = not self._free and not self._num_unmade and not self._num_taken
        if self._clips and (full or not self._num_producing):
            return tuple(self._clips[0].frames_THW3.shape)
        return None

    def _pop(self, shape: tuple[int, ...], num_clips: int) -> list[QueuedClip]:
        taken, left = [], deque()
        for clip in self._clips:
            if len(taken) < num_clips and tuple(clip.frames_THW3.shape) == shape:
                taken.append(clip)
            else:
                left.append(clip)
        self._clips = left
        self._num_of_shape[shape] -= len(taken)
        self._num_taken += len(taken)
        return taken

    def give_back(self, clips: list[QueuedClip]) -> None:
        """The frames of clips that were taken are no longer needed."""
        with self._changed:
            self._free += [clip.buffer for clip in clips]
            self._num_taken -= len(clips)
            self._changed.notify_all()

    def drop_failed(self) -> None:
        """Removes the clips of jobs that have failed, and wakes whoever waits to put one."""
        with self._changed:
            kept = deque(clip for clip in self._clips if not clip.job.failed)
            self._free += [clip.buffer for clip in self._clips if clip.job.failed]
            self._clips = kept
            self._num_of_shape = Counter(tuple(clip.frames_THW3.shape) for clip in kept)
            self._changed.notify_all()

    def close(self) -> None:
        """No more clips will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
