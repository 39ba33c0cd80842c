"""The settings of a training; they are kept in its run."""

from __future__ import annotations

from pydantic import Field

from heads.training.augment import AugmentConfig
from heads.training.joining import JoinConfig
from heads.training.loader import READER_THREADS
from heads.training.precision import Precision


class TrainConfig(AugmentConfig, JoinConfig):
    """How any head is trained, on what variations, and (from `JoinConfig`) how the run slides over a video afterwards."""

    epochs: int = Field(40, ge=1)
    batch_size: int = Field(1, ge=1, description="windows per optimiser step")
    lr: float = Field(3e-3, gt=0, description="highest learning rate of AdamW")
    weight_decay: float = Field(0.05, ge=0, description="on matrices and kernels only")
    warmup_epochs: float = Field(2.0, ge=0, description="linear rise of the learning rate; a cosine follows")
    clip_norm: float = Field(1.0, gt=0, description="largest norm of the gradient")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="of the averaged weights, reached slowly; 0 takes the last weights")
    window_frames: int | None = Field(None, ge=2, description="window length; None takes it from the training events")
    val_every: int = Field(2, ge=1, description="epochs between validations")
    patience: int = Field(15, ge=1, description="epochs without a better validation until training stops")
    min_epochs: int = Field(15, ge=0, description="training does not stop before")
    precision: Precision = Field("auto", description="bf16, fp32, or auto: bf16 where the hardware computes in it")
    num_threads: int | None = Field(None, ge=1, description="threads of torch; None leaves them as they are")
    use_damaged: bool = Field(False, description="train on videos of which decoding lost frames, too")
    checkpoint_minutes: float = Field(5.0, gt=0, description="between checkpoints within an epoch; one follows every epoch")
    reader_threads: int = Field(READER_THREADS, ge=1, description="threads that read batches ahead; no number depends on it")
    cache_bytes: int = Field(4 * 2**30, ge=0, description="memory for tokens of compressed stores, to decompress them once")
    seed: int = Field(0, ge=0)
