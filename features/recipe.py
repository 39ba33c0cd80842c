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
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ExtractConfig(Record):
    """The `[extract]` section.

    `fit`, `frame_step`, `sample_fps`, `overlap` and `keep` become part of the encoding; the rest says how the work is done.
    `overlap` is the fraction of a clip that it shares with the next, rounded to whole steps. `deadline_s` is the longest
    time a decoder may stay without progress. `compare = "hash"` compares stored videos with their files by content instead of by
    size and time. `on_mismatch` says what becomes of a stored video whose file has changed since: `refuse` keeps what is stored
    and lists the video as failed, `redo` extracts it again. `threads` are those of the encoder on a CPU, 0 for all cores but the one that decodes. `device` is a torch device, or `auto`: a GPU where there is one.
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
    batch_clips: PositiveInt = 1
    threads: Annotated[int, Field(ge=0)] = 0
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
        """`threads`, with 0 settled."""
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.threads or max(1, usable - 1)

    def resolved_device(self) -> str:
        """`device`, with `auto` settled. Imports torch."""
        if self.device != "auto":
            return self.device
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
