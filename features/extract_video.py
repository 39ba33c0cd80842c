"""One video from its file into a store: frames from a decoding process, tokens from the encoder, steps to a writer.

Decoding runs ahead in a child process and a thread while the encoder works; memory does not grow with the video's length.
Shape legend: B clips, T steps, H x W cells, C channels; n steps that are stored.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import numpy as np
import torch

from features.claims import Claim
from features.clips import Clip, ClipAssembler, ClipRule, expected_steps
from features.decode_worker import DecodeSummary, DecodeWorker, FrameBatch, Prepare
from features.prefetch import Prefetched
from features.recipe import ExtractConfig
from features.schema import EncoderSpec, VideoMeta
from features.store import Store
from features.store_writer import VideoWriter
from vjepa_loc.dataset import Video, check_against_video


class Encoder(Protocol):
    """What a module `features/encoders/<name>.py` offers as `Encoder(config, device)`."""

    spec: EncoderSpec
    device: torch.device
    dtype: torch.dtype

    def encode(self, frames_BTHWC3: torch.Tensor) -> torch.Tensor:
        """uint8 (B, frames, height, width, 3) -> float32 tokens (B, T, H, W, C); no gradient, the same every time."""


@dataclass
class StageTimes:
    """Where the time went, in seconds: `wait_s` for frames, `encode_s` in the encoder, `write_s` in the store; `decode_s` is
    the decoding process's own work, which runs beside the others."""

    wait_s: float = 0.0
    encode_s: float = 0.0
    write_s: float = 0.0
    decode_s: float = 0.0

    def __iadd__(self, other: "StageTimes") -> "StageTimes":
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self


@dataclass
class Extracted:
    """What was stored of one video. `stored` is False where another writer's commit was first, whose video counts."""

    num_frames: int = 0
    num_steps: int = 0
    num_clips: int = 0
    damaged: bool = False
    stored: bool = False
    times: StageTimes = field(default_factory=StageTimes)


@dataclass(frozen=True, eq=False)
class EncodedClip:
    """A clip and its tokens of the steps that are stored from it, (n, H, W, C) float32; decoded by these versions of libraries."""

    clip: Clip
    tokens_nHWC: torch.Tensor
    versions: dict[str, str]


class VideoExtractor:
    """Everything that turns videos into tokens of one store; one per process, used for one video at a time.

    A context manager: inside it torch has the threads of the recipe; leaving it ends the decoding process.
    """

    def __init__(self, store: Store, encoder: Encoder, config: ExtractConfig):
        self.store = store
        self.encoder = encoder
        self.config = config
        self._encoding = encoding = store.encoding
        self._rule = ClipRule.of(encoding)
        self._prepare = Prepare(
            fit=encoding.fit, input_height=encoding.input_hw[0], input_width=encoding.input_hw[1], patch_px=encoding.patch_px,
            frame_step=encoding.frame_step, sample_fps=encoding.sample_fps,
        )
        self._worker = DecodeWorker(config.deadline_s)

    def __enter__(self) -> "VideoExtractor":
        # More busy threads than cores make torch's small operations ten times slower.
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(self.config.resolved_threads())
        return self

    def __exit__(self, *exc_info: object) -> None:
        torch.set_num_threads(self._threads_before)
        self._worker.close()

    def extract(
        self, video: Video, claim: Claim | None = None, replace: bool = False, on_clips: Callable[[int], object] = lambda number: None
    ) -> Extracted:
        """Stores `video`; `on_clips(n)` is called when n more clips have been encoded.

        Raises `VideoError` where it cannot be decoded or disagrees with what `video` states, `DecodeTimeoutError` where the
        decoder hangs, and `StoreError` where it cannot be written. Nothing of it is visible then.
        """
        result = Extracted()
        stream = self._worker.stream(video.file, self._prepare, self.config.decoder, video.fps)
        # Enough frames that the decoder works on while one batch of clips is encoded.
        num_ahead = -(-self._rule.clip_frames * (1 + self.config.batch_clips) // self._prepare.batch_frames)
        with Prefetched(stream, num_ahead, self._worker.interrupt) as messages:
            source = _VideoSource(video, self._rule, _timed(messages, result.times))
            first = source.open()
            grid = first.space_grid
            num_steps = expected_steps(self._encoding, video.num_frames or first.info.num_frames_in_header, float(first.info.fps))
            with self.store.writer(
                video.id, grid.grid, grid.valid_HW, num_steps=num_steps, replace=replace, claim=claim
            ) as writer:
                for clips in _batched(source.clips(), self.config.batch_clips):
                    self._encode_into(writer, clips, result)
                    on_clips(len(clips))
                summary = source.summary
                start_s = time.monotonic()
                result.stored = writer.commit(self._meta(video, summary), summary.frame_time_s)
                result.times.write_s += time.monotonic() - start_s
        result.num_frames, result.damaged = summary.num_frames, summary.damage is not None
        result.times.decode_s = summary.busy_s
        return result

    def encode_clips(self, video: Video, start_steps: Iterable[int]) -> Iterator[EncodedClip]:
        """The clips of `video` that start at these steps, encoded one by one as they were for the store; stores nothing.

        Decoding ends with the last of them; a clip that the video does not have is left out. Raises as `extract`, but does not
        compare the video with what `video` states.
        """
        wanted = set(start_steps)
        assembler = ClipAssembler(self._rule)
        stream = self._worker.stream(video.file, self._prepare, self.config.decoder, video.fps)
        with contextlib.closing(stream):
            for message in stream:
                is_frames = isinstance(message, FrameBatch)
                clips = assembler.push(message.frame_numbers_n, message.frames_nhw3.numpy()) if is_frames else assembler.finish()
                for clip in clips:
                    if clip.start_step in wanted:
                        tokens_THWC = self.encoder.encode(torch.from_numpy(clip.frames_THW3[None]))[0]
                        yield EncodedClip(clip, tokens_THWC[clip.keep], message.versions)
                        wanted.remove(clip.start_step)
                if not wanted:
                    return

    def _encode_into(self, writer: VideoWriter, clips: list[Clip], result: Extracted) -> None:
        start_s = time.monotonic()
        frames_BTHWC3 = torch.from_numpy(np.stack([clip.frames_THW3 for clip in clips]))
        tokens_BTHWC = self.encoder.encode(frames_BTHWC3)
        if tokens_BTHWC.device.type == "cuda":
            # Otherwise the wait for the GPU would be counted as writing.
            torch.cuda.synchronize(tokens_BTHWC.device)
        encoded_s = time.monotonic()
        for clip, tokens_THWC in zip(clips, tokens_BTHWC, strict=True):
            seen = np.ones(clip.num_kept, np.int32)
            writer.append(tokens_THWC[clip.keep], clip.frame_numbers_nu, clip.first_seen * seen, clip.last_seen * seen)
            result.num_steps += clip.num_kept
        result.num_clips += len(clips)
        result.times.encode_s += encoded_s - start_s
        result.times.write_s += time.monotonic() - encoded_s

    def _meta(self, video: Video, summary: DecodeSummary) -> VideoMeta:
        info, spec = summary.info, self.encoder.spec
        return VideoMeta(
            id=video.id,
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
            device=str(self.encoder.device),
            dtype=str(self.encoder.dtype).removeprefix("torch."),
            damage=summary.damage,
            weights=spec.weights,
            revision=spec.revision,
        )


class _VideoSource:
    """The clips of one video, from the messages of a decoding process; refuses a video that disagrees with the dataset.

    `open` first, then `clips`; `summary` stands when those have ended.
    """

    def __init__(self, video: Video, rule: ClipRule, messages: Iterator[FrameBatch | DecodeSummary]):
        self._video = video
        self._rule = rule
        self._messages = messages
        self._first: FrameBatch | None = None
        self.summary: DecodeSummary | None = None

    def open(self) -> FrameBatch:
        """The first frames. Raises `VideoError` where their size disagrees."""
        self._first = next(self._messages)
        check_against_video(self._video, None, None, self._first.info.width, self._first.info.height)
        return self._first

    def clips(self) -> Iterator[Clip]:
        """All clips in order. Raises `VideoError` at the end where length or rate disagree."""
        assembler = ClipAssembler(self._rule)
        message: FrameBatch | DecodeSummary = self._first
        self._first = None
        while isinstance(message, FrameBatch):
            yield from assembler.push(message.frame_numbers_n, message.frames_nhw3.numpy())
            message = next(self._messages)
        # Read to the end before anything is refused: a decoding process that is done need not be stopped.
        for unexpected in self._messages:
            raise RuntimeError(f"the decoding process sent {type(unexpected).__name__} after its summary")
        info = message.info
        fps = None if info.fps_nominal else float(info.fps)
        # Before the last clips are encoded: a refused video costs no more than it has to.
        check_against_video(self._video, fps, message.num_frames, info.width, info.height, info.variable_rate)
        self.summary = message
        yield from assembler.finish()


def _timed(messages: Iterable[FrameBatch | DecodeSummary], times: StageTimes) -> Iterator[FrameBatch | DecodeSummary]:
    iterator = iter(messages)
    while True:
        start_s = time.monotonic()
        message = next(iterator, None)
        times.wait_s += time.monotonic() - start_s
        if message is None:
            return
        yield message


def _batched(clips: Iterator[Clip], batch_clips: int) -> Iterator[list[Clip]]:
    """Batches of up to `batch_clips` clips of equal length."""
    while batch := list(islice(clips, batch_clips)):
        yield batch
