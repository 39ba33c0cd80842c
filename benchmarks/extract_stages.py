"""The stages of an extraction, each alone: decode and resize; encode ready frames; quantise and write ready tokens.

Each does the work of the whole extraction with as many workers as there are cores, or with one where the encoder stands for a
GPU. What a stage starts, decoding processes above all, it starts within its time, as the extraction does.
Shape legend: n frames of a batch, T frames or steps, H x W, C channels.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from extract_encoders import Sleeping
from features.clips import ClipAssembler, ClipRule
from features.decode_worker import DecodeWorker, FrameBatch, Prepare
from features.encode_stage import Encoder
from features.encode_stage import Encoder
from features.recipe import ExtractConfig
from features.schema import Encoding, Source, Storage, VideoMeta
from features.store import create_or_open_store
from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.spacegrid import SpaceGrid

NUM_CORES = len(os.sched_getaffinity(0))
_READY_CLIPS = 8


@dataclass(frozen=True)
class Work:
    """Videos, longest first, and how they are extracted."""

    videos: tuple[Video, ...]
    encoder: Encoder
    config: ExtractConfig

    @property
    def encoding(self) -> Encoding:
        return self.config.encoding(self.encoder.spec)

    @property
    def dataset(self) -> Dataset:
        return Dataset(labels=(), videos={video.id: video for video in self.videos}, events=())

    @property
    def num_frames(self) -> int:
        return sum(video.num_frames for video in self.videos)

    @property
    def bytes_in(self) -> int:
        return sum(video.file.stat().st_size for video in self.videos)


def decode_alone(work: Work) -> None:
    """Every frame of every video, resized, and thrown away."""
    prepare = Prepare.of(work.encoding)

    def decode(videos: Callable[[], Video | None]) -> None:
        with DecodeWorker(work.config.deadline_s) as worker:
            while (video := videos()) is not None:
                num_frames = 0
                for message in worker.stream_shared(video.file, prepare, 0, work.config.decoder, video.fps):
                    if isinstance(message, FrameBatch):
                        num_frames += len(message.frame_numbers_n)
                        worker.release(num_frames)

    _share(work.videos, decode, NUM_CORES)


def ready_clips(work: Work) -> list[torch.Tensor]:
    """The first clips of the first video, uint8 (T, H, W, 3)."""
    clips: list[torch.Tensor] = []
    assembler = ClipAssembler(ClipRule.of(work.encoding))
    prepare = Prepare.of(work.encoding)
    with DecodeWorker(work.config.deadline_s) as worker:
        for message in worker.stream(work.videos[0].file, prepare):
            is_frames = isinstance(message, FrameBatch)
            made = assembler.push(message.frame_numbers_n, message.frames_nhw3.numpy()) if is_frames else assembler.finish()
            clips += [torch.from_numpy(clip.frames_THW3) for clip in made]
            if len(clips) >= _READY_CLIPS:
                break
    return clips[:_READY_CLIPS]


def encode_alone(work: Work, clips: Sequence[torch.Tensor], num_clips: int) -> None:
    """So many clips, those of `clips` over and over."""
    sleeping = isinstance(work.encoder, Sleeping)
    size = work.config.batch_clips if sleeping else 1
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)

    def encode(numbers: Callable[[], int | None]) -> None:
        while (number := numbers()) is not None:
            work.encoder.encode(torch.stack([clips[(number + place) % len(clips)] for place in range(size)]))

    _share(range(0, num_clips, size), encode, 1 if sleeping else NUM_CORES)
    torch.set_num_threads(threads_before)


def write_alone(work: Work, folder: Path, tokens_THWC: torch.Tensor, storage: Storage) -> None:
    """The videos with their numbers of steps, all of their tokens those of one clip; into a new store at `folder`."""
    encoding = work.encoding
    store = create_or_open_store(folder, encoding, storage)
    tubelet, num_rows = encoding.tubelet, len(tokens_THWC)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)

    def write(videos: Callable[[], Video | None]) -> None:
        while (video := videos()) is not None:
            space = SpaceGrid.build(encoding.fit, video.width, video.height, *encoding.input_hw, encoding.patch_px)
            num_steps = -(-video.num_frames // tubelet)
            meta = VideoMeta(
                id=video.id, source=Source(name=video.file.name, size=1, mtime_ns=1, sha256="0" * 64),
                num_frames=video.num_frames, fps=video.fps, width=video.width, height=video.height, grid=space.grid,
                space_grid=space.to_dict(), decoder="none", device="cpu", dtype="float32",
            )
            with store.writer(video.id, space.grid, space.valid_HW, num_steps=num_steps) as writer:
                for start in range(0, num_steps, num_rows):
                    num = min(num_rows, num_steps - start)
                    frames_nu = np.arange(start * tubelet, (start + num) * tubelet).reshape(num, tubelet)
                    frames_nu = np.minimum(frames_nu, video.num_frames - 1)
                    seen = np.ones(num, np.int32)
                    writer.append(tokens_THWC[:num], frames_nu, frames_nu[0, 0] * seen, frames_nu[-1, -1] * seen)
                writer.commit(meta, np.arange(video.num_frames) / video.fps)

    _share(work.videos, write, NUM_CORES)
    torch.set_num_threads(threads_before)


def _share(items: Sequence, body: Callable[[Callable[[], object]], None], num_workers: int) -> None:
    """Runs `body` in so many threads, each of which takes the next item until there is none; raises the first error."""
    waiting, errors = deque(items), []

    def run() -> None:
        try:
            body(lambda: waiting.popleft() if waiting else None)
        except BaseException as error:
            errors.append(error)
            waiting.clear()

    threads = [threading.Thread(target=run) for _ in range(min(num_workers, len(items)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
