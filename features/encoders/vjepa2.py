"""`vjepa2`: V-JEPA 2 (arXiv 2506.09985), any checkpoint of transformers' `VJEPA2Model` or of its video classifier.

An encoder-only forward of our own (`_vjepa2_model.py`); neither the predictor nor a model class of transformers is needed. At the
checkpoint's own square it equals transformers' encoder; at every other size, rectangles included, it is right where transformers,
which takes positions from the checkpoint's `crop_size` and not from the input, gives wrong tokens without an error.

On a CPU clips are encoded one by one, so that a token does not depend on its batch; any number of threads may encode at once.
On a GPU full clips (`spec.clip_frames` frames) run compiled, once per shape, so that batches of one size never compile again in a
run; shorter clips, of which a video has at most one, run without compilation.

Shape legend: B clips, T steps, H x W cells, C channels.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Literal

import torch
from pydantic import Field

from features.encoders._checkpoint import find_checkpoint
from features.encoders._family_pixels import PixelRule
from features.encoders._vjepa2_compile import Compile, LayerRunner
from features.encoders._vjepa2_rope import RopeTables
from features.encoders._vjepa2_weights import build_encoder, read_architecture, read_tensors
from features.schema import EncoderSpec, Positions, Record
from features.tensor_digest import tensor_digest
from vjepa_loc.errors import ConfigError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PIXELS = PixelRule(mean=IMAGENET_MEAN, std=IMAGENET_STD)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Config(Record):
    """`weights`: a hub id or a local folder; `revision`: a branch, tag or commit of the hub.

    `input_px`: the side of the square input, and with `fit = "aspect"` the budget of cells; None is the checkpoint's own.
    `positions`: how rows and columns are placed that the checkpoint was not trained on: `extrapolate` counts on, as Meta's code
    does; `interpolate` keeps them between the first and the last trained one. Both are part of the encoding.

    The rest is not. `dtype`: of the computation; `auto` is bfloat16 on a GPU and float32 on a CPU. `compile`: `auto` compiles
    on a GPU where there is a compiler. `attention`: which of torch's attention kernels runs on a GPU; `auto` is torch's choice.
    """

    weights: str = "facebook/vjepa2-vitl-fpc64-256"
    revision: str | None = None
    input_px: Annotated[int, Field(gt=0)] | None = None
    positions: Positions = "extrapolate"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: Compile = "auto"
    attention: Literal["auto", "cudnn", "flash"] = "auto"


class Encoder:
    """See the module's docstring. Raises WeightsError where the weights are absent or do not fit the architecture, ConfigError
    for an input size that whole patches do not fill."""

    def __init__(self, config: Config, device: str | torch.device = "cpu"):
        self.config = config
        self.device = torch.device(device)
        self.dtype = _dtype(config.dtype, self.device)
        checkpoint = find_checkpoint(config.weights, config.revision)
        architecture = read_architecture(checkpoint)
        tensors = read_tensors(checkpoint, architecture)
        mean, std = PIXELS.mean_and_std(checkpoint.processor(), checkpoint.weights)
        side = config.input_px or architecture.crop_px
        if side % architecture.patch_px:
            raise ConfigError(f"encoder.input_px: expected a multiple of the patch size {architecture.patch_px}, got {side}")
        self.spec = EncoderSpec(
            family="vjepa2",
            weights=checkpoint.weights,
            revision=checkpoint.revision,
            digest=tensor_digest(tensors),
            clip_frames=architecture.clip_frames,
            tubelet=architecture.tubelet,
            patch_px=architecture.patch_px,
            input_height=side,
            input_width=side,
            channels=architecture.channels,
            mean=mean,
            std=std,
            any_grid=True,
            trained_hw=(architecture.crop_px, architecture.crop_px),
            positions=config.positions,
        )
        self._encoder = build_encoder(architecture, tensors, self.dtype, self.device).eval()
        self._tables = RopeTables(
            architecture.head_dim, architecture.crop_px // architecture.patch_px, config.positions, self.device
        )
        self._runner = LayerRunner(config.compile, self.device)
        # As `features.preprocess.normalise`, from tensors that are on the device already: copying them for every batch would
        # make the host wait until a GPU has done all its work.
        self._mean_3 = torch.tensor(self.spec.mean, device=self.device) * 255.0
        self._std_3 = torch.tensor(self.spec.std, device=self.device) * 255.0

    @torch.no_grad()
    def encode(self, frames_BTHWC3: torch.Tensor) -> torch.Tensor:
        """uint8 (B, frames, height, width, 3) -> float32 (B, T, H, W, C) on the encoder's device.

        Any number of frames that is a multiple of the tubelet, and any grid of whole patches that has no more cells than
        the spec's input. Raises ConfigError for other shapes.
        """
        self._check(frames_BTHWC3)
        if self.device.type == "cpu":
            # Written into one tensor: a cat would hold every clip's tokens twice.
            tokens_BTHWC = self._empty(frames_BTHWC3.shape)
            for clip, tokens_THWC in zip(frames_BTHWC3, tokens_BTHWC, strict=True):
                tokens_THWC.copy_(self._encode(clip[None])[0])
            return tokens_BTHWC
        return self._encode(frames_BTHWC3)

    def _encode(self, frames_BTHWC3: torch.Tensor) -> torch.Tensor:
        num_frames, height, width = frames_BTHWC3.shape[1:4]
        spec = self.spec
        pixels = (frames_BTHWC3.to(self.device, non_blocking=True).float() - self._mean_3) / self._std_3
        table = self._tables.table(num_frames // spec.tubelet, height // spec.patch_px, width // spec.patch_px)
        # A caller's autocast would give other tokens than a store has.
        with self._attention(), torch.autocast(self.device.type, enabled=False):
            return self._encoder(pixels, table, self._runner.of(is_full_clip=num_frames == spec.clip_frames))

    def _attention(self) -> AbstractContextManager:
        if self.config.attention == "auto" or self.device.type != "cuda":
            return nullcontext()
        from torch.nn.attention import SDPBackend, sdpa_kernel

        return sdpa_kernel({"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}[self.config.attention])

    def _empty(self, frames_shape: torch.Size) -> torch.Tensor:
        spec = self.spec
        num_clips, num_frames, height, width = frames_shape[:4]
        return torch.empty(num_clips, num_frames // spec.tubelet, height // spec.patch_px, width // spec.patch_px, spec.channels)

    def _check(self, frames_BTHWC3: torch.Tensor) -> None:
        spec, shape = self.spec, tuple(frames_BTHWC3.shape)
        max_cells = (spec.input_height // spec.patch_px) * (spec.input_width // spec.patch_px)
        if (
            frames_BTHWC3.dtype != torch.uint8 or len(shape) != 5 or shape[4] != 3 or 0 in shape or shape[1] % spec.tubelet
            or shape[2] % spec.patch_px or shape[3] % spec.patch_px
            or (shape[2] // spec.patch_px) * (shape[3] // spec.patch_px) > max_cells
        ):
            raise ConfigError(
                f"encoder vjepa2: expected uint8 frames (clips, multiple of {spec.tubelet}, height, width, 3) of whole patches of "
                f"{spec.patch_px} px, at most {max_cells} of them as in {spec.input_height}x{spec.input_width}, got "
                f"{frames_BTHWC3.dtype} {shape}"
            )


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        name = "float32" if device.type == "cpu" else "bfloat16"
    return DTYPES[name]
