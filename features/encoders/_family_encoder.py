"""What the encoders that run through transformers share; a family's own file holds the facts of the family.

A family says which checkpoints are its own, where the encoder lies in them, what the configuration means, what happens to pixels,
and which of the model's outputs is the token of step t, row h, column w. Everything else is here: weights, shapes, batches.

Shape legend: B clips, T steps, H x W cells, C channels; pixels are (B, frames, 3, height, width).
"""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch

from features.encoders._checkpoint import Checkpoint, find_checkpoint
from features.encoders._family_pixels import PixelRule
from features.encoders._family_weights import TensorNames, build_model
from features.preprocess import normalise
from features.schema import EncoderSpec, Record
from features.tensor_digest import tensor_digest
from vjepa_loc.errors import ConfigError, WeightsError

# How to run a model and what to return is decided here; `quantization_config` belongs to tensors that are refused.
NOT_READ = (
    "return_dict", "use_return_dict", "output_hidden_states", "output_attentions", "attn_implementation", "_attn_implementation",
    "quantization_config",
)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class WeightsConfig(Record):
    """`weights`: a hub id or a local folder; `revision`: a branch, tag or commit of the hub.

    `dtype`: of the computation; `auto` is bfloat16 on a GPU and float32 on a CPU. It is no part of the encoding.
    """

    weights: str
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"


@dataclass(frozen=True)
class Geometry:
    """What a model's configuration says about its input and output, as in EncoderSpec; sizes in pixels."""

    clip_frames: int
    tubelet: int
    patch_px: int
    input_height: int
    input_width: int
    channels: int
    fixed_clip: bool = True
    any_grid: bool = False


class FamilyEncoder(ABC):
    """An encoder of the contract. Raises WeightsError where the weights are absent, of another family, or do not fit.

    On a CPU clips are encoded one by one, so that a token does not depend on its batch; nothing is kept between calls, so that
    threads may share it. Floating-point numbers are in `dtype`, tokens leave as float32.
    """

    FAMILY: ClassVar[str]
    MODEL_TYPES: ClassVar[tuple[str, ...]]
    TENSORS: ClassVar[TensorNames]
    PIXELS: ClassVar[PixelRule]

    def __init__(self, config: WeightsConfig, device: str | torch.device = "cpu"):
        self.config = config
        self.device = torch.device(device)
        self.dtype = _dtype(config.dtype, self.device)
        checkpoint = find_checkpoint(config.weights, config.revision)
        model_config = self._read_config(checkpoint)
        geometry = self._geometry(model_config)
        tensors = self.TENSORS.read(checkpoint)
        mean, std = self._pixels().mean_and_std(checkpoint.processor(), checkpoint.weights)
        self.spec = EncoderSpec(
            family=self.FAMILY, weights=checkpoint.weights, revision=checkpoint.revision, digest=tensor_digest(tensors),
            mean=mean, std=std, **asdict(geometry),
        )
        self._model = self._build(model_config, tensors, checkpoint.weights).to(self.device)

    @torch.no_grad()
    def encode(self, frames_BTHWC3: torch.Tensor) -> torch.Tensor:
        """uint8 (B, frames, height, width, 3) -> float32 (B, T, H, W, C) on the encoder's device.

        Raises ConfigError for frames of another type, size or number than `spec` says.
        """
        self._check(frames_BTHWC3)
        if self.device.type == "cpu":
            tokens = [self._encode(clip) for clip in frames_BTHWC3.split(1)]
            return tokens[0] if len(tokens) == 1 else torch.cat(tokens)
        return self._encode(frames_BTHWC3)

    def _encode(self, frames_BTHWC3: torch.Tensor) -> torch.Tensor:
        pixels = normalise(frames_BTHWC3.to(self.device), self.spec.mean, self.spec.std)
        # A caller's autocast would give other tokens than a store has.
        with torch.autocast(self.device.type, enabled=False):
            return self._tokens(pixels.permute(0, 1, 4, 2, 3).to(self.dtype)).float()

    @abstractmethod
    def _parse(self, values: dict[str, Any]) -> Any:
        """transformers' configuration of the encoder, from the values of a config.json."""

    @abstractmethod
    def _geometry(self, model_config: Any) -> Geometry:
        """Raises WeightsError for a model that this family's file cannot serve."""

    @abstractmethod
    def _build(self, model_config: Any, tensors: dict[str, torch.Tensor], weights: str) -> torch.nn.Module:
        """The model, by `build_model`."""

    @abstractmethod
    def _tokens(self, pixels_BT3hw: torch.Tensor) -> torch.Tensor:
        """Normalised pixels -> (B, T, H, W, C): the order of tokens and the prefix tokens end here."""

    def _pixels(self) -> PixelRule:
        return self.PIXELS

    def _grid(self, pixels_BT3hw: torch.Tensor) -> tuple[int, int, int]:
        """(T, H, W) of these pixels."""
        num_frames, _, height, width = pixels_BT3hw.shape[1:]
        return num_frames // self.spec.tubelet, height // self.spec.patch_px, width // self.spec.patch_px

    def _read_config(self, checkpoint: Checkpoint) -> Any:
        values = checkpoint.config()
        if values.get("model_type") not in self.MODEL_TYPES:
            raise WeightsError(
                f"encoder.weights: {checkpoint.weights}: expected a checkpoint of model_type {' or '.join(self.MODEL_TYPES)}, "
                f"got {values.get('model_type')!r}{self._hint(values.get('model_type'))}"
            )
        from huggingface_hub.errors import StrictDataclassError

        try:
            config = self._parse({name: value for name, value in values.items() if name not in NOT_READ})
        except (StrictDataclassError, TypeError, ValueError, KeyError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            file = checkpoint.folder / "config.json"
            raise WeightsError(f"{file}: cannot be used ({reason}); download the checkpoint again") from None
        if config.num_channels != 3:
            raise self._refused("RGB", f"num_channels {config.num_channels}")
        if config.num_attention_heads < 1 or config.hidden_size % config.num_attention_heads:
            sizes = f"{config.num_attention_heads} heads, {config.hidden_size} channels"
            raise self._refused("heads that share the channels evenly", sizes)
        return config

    def _hint(self, model_type: Any) -> str:
        return ""

    def _refused(self, expected: str, got: str) -> WeightsError:
        return WeightsError(
            f"encoder.weights: {self.config.weights}: encoder {self.FAMILY} expected {expected}, got {got}; "
            f"choose another checkpoint"
        )

    def _square_patch(self, size: Any, patch: Any) -> tuple[int, int, int]:
        """(height, width, patch) in pixels of a configuration's sizes.

        Raises WeightsError unless whole square patches fill the input.
        """
        height, width = _pair(size)
        patch_height, patch_width = _pair(patch)
        is_square = patch_height == patch_width > 0
        if not is_square or min(height, width) < 1 or height % patch_height or width % patch_width:
            raise self._refused("an input of whole square patches", f"image_size {size}, patch {patch}")
        return height, width, patch_height

    def _frames(self, num_frames: int, tubelet: int) -> int:
        """`num_frames`. Raises WeightsError where they are no whole tubelets."""
        if num_frames < 1 or tubelet < 1 or num_frames % tubelet:
            raise self._refused("a clip of whole tubelets", f"num_frames {num_frames}, tubelet {tubelet}")
        return num_frames

    def _check(self, frames_BTHWC3: torch.Tensor) -> None:
        spec, shape = self.spec, tuple(frames_BTHWC3.shape)
        if (
            frames_BTHWC3.dtype != torch.uint8 or len(shape) != 5 or shape[4] != 3 or 0 in shape
            or (shape[1] != spec.clip_frames if spec.fixed_clip else shape[1] % spec.tubelet) or not self._takes_size(*shape[2:4])
        ):
            frames = f"{spec.clip_frames}" if spec.fixed_clip else f"multiple of {spec.tubelet}"
            size = f"{spec.input_height}, {spec.input_width}"
            if spec.any_grid:
                size = f"height, width of whole patches of {spec.patch_px} px, no more of them than in {size.replace(', ', 'x')}"
            raise ConfigError(
                f"encoder {spec.family}: expected uint8 frames (clips, {frames}, {size}, 3), got {frames_BTHWC3.dtype} {shape}"
            )

    def _takes_size(self, height: int, width: int) -> bool:
        spec = self.spec
        if not spec.any_grid:
            return (height, width) == spec.input_hw
        fits = height * width <= spec.input_height * spec.input_width
        return fits and height % spec.patch_px == 0 and width % spec.patch_px == 0


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        name = "float32" if device.type == "cpu" else "bfloat16"
    return DTYPES[name]


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)
