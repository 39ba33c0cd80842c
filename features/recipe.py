"""What a user chooses about an extraction, and the encoding that follows from it and from the encoder."""

import os
from typing import Annotated, Literal

from pydantic import Field, model_validator

from features.clips import overlap_frames
from features.preprocess import RESIZE_VERSION
from features.schema import EncoderSpec, Encoding, Fit, Keep, Record

Compare = Literal["time", "hash"]
OnMismatch = Literal["refuse", "redo"]

PositiveInt = Annotated[int, Field(gt=0)]
NaturalInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]


# A clip at work in ViT-L takes about a GB on a CPU.
MOST_CPU_ENCODERS = 8
# About what one H200 asks for, with sampling (docs/scale.md); each takes 0.25 GB.
MOST_DECODE_WORKERS = 32
GPU_BATCH_CLIPS = 4
# Far beyond any machine: a slip of the keyboard must not start threads and processes until the machine stands still.
MOST_ASKED_FOR = 1024

HowMany = Annotated[int, Field(ge=0, le=MOST_ASKED_FOR)]


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class ExtractConfig(Record):
    """The `[extract]` section.

    `fit`, `frame_step`, `sample_fps`, `overlap` and `keep` become part of the encoding; the rest says how the work is done.
    `overlap` is the fraction of a clip that it shares with the next, rounded to whole steps. `deadline_s` is the longest
    time a decoder may stay without progress. `compare = "hash"` compares stored videos with their files by content instead of by
    size and time. `on_mismatch` says what becomes of a stored video whose file has changed since: `refuse` keeps what is stored
    and lists the video as failed, `redo` extracts it again. `device` is a torch device, or `auto`: a GPU where there is one.

    Work: `decode_workers` processes decode, `threads` encode on a CPU (each a clip at a time; on a GPU there is one),
    `write_threads` write; 0 means as many as fit the machine. `batch_clips` clips are encoded at once, 0 for 1 on a CPU and 4 on a GPU.
    What may pass (a decoder that hung or died, a network) is tried `retries` times more, after `retry_wait_s`, then twice that, and
    so on. `min_free_gib` of the disk stay free. An extraction that is asked to stop has `stop_grace_s` to finish videos in hand.
    """

    fit: Fit = "stretch"
    frame_step: PositiveInt = 1
    sample_fps: PositiveFloat | None = None
    overlap: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0
    keep: Keep = "central"
    decoder: Literal["pyav", "decord"] = "pyav"
    compare: Compare = "time"
    on_mismatch: OnMismatch = "refuse"
    deadline_s: PositiveFloat = 60.0
    batch_clips: HowMany = 0
    decode_workers: HowMany = 0
    threads: HowMany = 0
    write_threads: Annotated[int, Field(gt=0, le=MOST_ASKED_FOR)] = 2
    retries: NaturalInt = 2
    retry_wait_s: PositiveFloat = 2.0
    min_free_gib: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    stop_grace_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 20.0
    device: str = Field(default="auto", min_length=1)

    @model_validator(mode="after")
    def _check_sampling(self) -> "ExtractConfig":
        if self.sample_fps is not None and self.frame_step != 1:
            raise ValueError("frame_step and sample_fps exclude each other; give one of them")
        return self

    def encoding(self, spec: EncoderSpec) -> Encoding:
        """The encoding of this recipe with the encoder that `spec` describes. Raises ConfigError where the two do not go together."""
        return Encoding.build(
            spec, fit=self.fit, resize_version=RESIZE_VERSION, frame_step=self.frame_step, sample_fps=self.sample_fps,
            overlap=overlap_frames(self.overlap, spec.clip_frames, spec.tubelet), keep=self.keep,
        )

    def with_encoding(self, encoding: Encoding) -> "ExtractConfig":
        """This recipe with everything that decides a token's value taken from `encoding`; the inverse of `encoding`.

        Raises `ConfigError` where no recipe of this version gives it.
        """
        return ExtractConfig(**{
            **self.to_dict(), "fit": encoding.fit, "frame_step": encoding.frame_step, "sample_fps": encoding.sample_fps,
            "overlap": encoding.overlap / encoding.clip_frames, "keep": encoding.keep,
        })

    def resolved_threads(self) -> int:
        """`threads`, with 0 settled; more clips at once than this take more memory than they save time."""
        return self.threads or min(MOST_CPU_ENCODERS, usable_cores())

    def torch_threads(self, on_gpu: bool) -> int:
        """Threads of torch within one encoding thread: cores that `MOST_CPU_ENCODERS` leaves over."""
        return 1 if on_gpu or self.threads else max(1, usable_cores() // self.resolved_threads())

    def resolved_decode_workers(self, on_gpu: bool) -> int:
        """`decode_workers`, with 0 settled: one per core, and one core for the GPU's side of the work."""
        cores = max(1, usable_cores() - 1) if on_gpu else min(MOST_CPU_ENCODERS, usable_cores())
        return self.decode_workers or min(cores, MOST_DECODE_WORKERS)

    def resolved_batch_clips(self, on_gpu: bool) -> int:
        """`batch_clips`, with 0 settled."""
        return self.batch_clips or (GPU_BATCH_CLIPS if on_gpu else 1)

    def resolved_device(self) -> str:
        """`device`, with `auto` settled. Imports torch."""
        if self.device != "auto":
            return self.device
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
