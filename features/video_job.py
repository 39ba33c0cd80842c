"""One video in hand: what is known of it between its first frame and its commit, and the writing of its tokens in order."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from features.agenda import Attempt
from features.claims import Claim
from features.decode_protocol import DecodeSummary, FrameBatch
from features.decode_worker import DecodeWorker
from features.outcome import Extracted
from features.resume import Action
from features.schema import EncoderSpec, VideoMeta
from features.store import Store
from features.store_writer import VideoWriter
from vjepa_loc.dataset import check_against_video

if TYPE_CHECKING:
    from features.clip_queue import QueuedClip


class EncodedClip(NamedTuple):
    """A clip, the tokens of all its steps, (T, H, W, C) float32 on the encoder's device, and its part of the encoder's time."""

    clip: QueuedClip
    tokens_THWC: torch.Tensor
    encode_s: float


class VideoJob:
    """An attempt at one video. One thread decodes it and one at a time writes it (`features.pipeline` sees to that).

    `error` is why it failed; what was written until then is discarded by `close`.
    """

    def __init__(self, attempt: Attempt, claim: Claim, worker: DecodeWorker):
        self.attempt = attempt
        self.decision = attempt.decision
        self.video = attempt.decision.video
        self.worker: DecodeWorker | None = worker
        """Whoever decodes it, while it does."""
        self.result = Extracted()
        self.error: BaseException | None = None
        self.is_committing = False
        self.num_queued = 0
        self.num_clips: int | None = None
        """Clips in all, known when the last frame has been decoded."""
        self.encoded: dict[int, EncodedClip] = {}
        """Clips that wait to be written, by number; they may come in another order than they are written in."""
        self.num_written = 0
        self._claim = claim
        self._closing = threading.Lock()
        self._writer: VideoWriter | None = None
        self._summary: DecodeSummary | None = None

    @property
    def is_open(self) -> bool:
        return self._writer is not None

    @property
    def failed(self) -> bool:
        return self.error is not None

    @property
    def is_decoded(self) -> bool:
        """Whether its last frame has been read and what the dataset states was found to hold."""
        return self._summary is not None

    def open(self, store: Store, first: FrameBatch, num_steps: int | None) -> None:
        """Begins its generation. Raises `VideoError` where the frames' size disagrees, `StoreError` where the disk refuses."""
        check_against_video(self.video, None, None, first.info.width, first.info.height)
        grid = first.space_grid
        self._writer = store.writer(
            self.video.id, grid.grid, grid.valid_HW, num_steps=num_steps,
            replace=self.decision.action is Action.REPLACE, claim=self._claim,
        )

    def check_end(self, summary: DecodeSummary) -> None:
        """Raises `VideoError` where length or rate disagree with what the dataset states."""
        info = summary.info
        fps = None if info.fps_nominal else float(info.fps)
        check_against_video(self.video, fps, summary.num_frames, info.width, info.height, info.variable_rate)
        self._summary = summary
        self.result.num_frames, self.result.damaged = summary.num_frames, summary.damage is not None
        self.result.times.decode_s, self.result.times.decode_blocked_s = summary.busy_s, summary.blocked_s

    @property
    def can_write(self) -> bool:
        """Whether the next clip is there, or there is none any more."""
        return self.num_written in self.encoded or self.num_written == self.num_clips

    def write_next(self) -> None:
        """Writes the next clip that waits. Raises `StoreError`."""
        start_s = time.monotonic()
        clip, tokens_THWC, encode_s = self.encoded[self.num_written]
        num_kept = clip.keep.stop - clip.keep.start
        seen = np.ones(num_kept, np.int32)
        self._writer.append(tokens_THWC[clip.keep], clip.frame_numbers_nu, clip.first_seen * seen, clip.last_seen * seen)
        self.result.num_steps += num_kept
        self.result.num_clips += 1
        self.result.times.encode_s += encode_s
        self.result.times.write_s += time.monotonic() - start_s

    def commit(self, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> None:
        """Makes the video visible. Raises `StoreError`."""
        start_s = time.monotonic()
        meta = self._meta(spec, device, dtype)
        self.result.stored = self._writer.commit(meta, self._summary.frame_time_s)
        self.result.times.write_s += time.monotonic() - start_s

    def close(self) -> None:
        """Discards what was not committed and gives the claim back; the same again, also by another thread, does no harm."""
        # What a disk or a network refuses here, a later look at old staging and lapsed claims puts right.
        with self._closing:
            if self._writer is not None:
                with contextlib.suppress(OSError):
                    self._writer.abort()
            with contextlib.suppress(OSError):
                self._claim.release()

    def _meta(self, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> VideoMeta:
        summary = self._summary
        info = summary.info
        return VideoMeta(
            id=self.video.id,
            source=summary.source,
            num_frames=summary.num_frames,
            fps=info.fps,
            fps_nominal=info.fps_nominal,
            times_made_up=summary.times_made_up,
            width=info.width,
            height=info.height,
            rotation=info.rotation,
            grid=summary.space_grid.grid,
            space_grid=summary.space_grid.to_dict(),
            decoder=summary.decoder,
            versions=summary.versions,
            device=str(device),
            dtype=str(dtype).removeprefix("torch."),
            damage=summary.damage,
            weights=spec.weights,
            revision=spec.revision,
        )
