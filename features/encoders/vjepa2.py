"""`vjepa2`: V-JEPA 2 (arXiv 2506.09985) through transformers, any of its checkpoints that has its `VJEPA2Model` layout.

Only the encoder is built and loaded; the predictor stays without memory. transformers takes token positions from the
checkpoint's `crop_size`, not from the input, so that any other input size would give wrong tokens without an error: only
squares of that size are taken. On a CPU clips are encoded one by one, so that a token does not depend on its batch.

Shape legend: B clips, T steps, H x W cells, C channels.
"""

from typing import Any, Literal

import torch

from features.encoders._checkpoint import Checkpoint, find_checkpoint
from features.preprocess import normalise
from features.schema import EncoderSpec, Record
from features.tensor_digest import tensor_digest
from vjepa_loc.errors import ConfigError, WeightsError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# A bare model, and the same model inside transformers' video classifier.
ENCODER_PREFIXES = ("encoder.", "vjepa2.encoder.")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Config(Record):
    """`weights`: a hub id or a local folder; `revision`: a branch, tag or commit of the hub.

    `dtype`: of the computation; `auto` is bfloat16 on a GPU and float32 on a CPU. It is no part of the encoding.
    """

    weights: str = "facebook/vjepa2-vitl-fpc64-256"
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"


class Encoder:
    """See the module's docstring. Raises WeightsError where the weights are absent or do not fit the architecture."""

    def __init__(self, config: Config, device: str | torch.device = "cpu"):
        self.config = config
        self.device = torch.device(device)
        self.dtype = _dtype(config.dtype, self.device)
        checkpoint = find_checkpoint(config.weights, config.revision)
        model_config = _model_config(checkpoint)
        tensors = checkpoint.tensors(_name_in_encoder)
        processor = checkpoint.processor()
        self.spec = EncoderSpec(
            family="vjepa2",
            weights=checkpoint.weights,
            revision=checkpoint.revision,
            digest=tensor_digest(tensors),
            clip_frames=model_config.frames_per_clip,
            tubelet=model_config.tubelet_size,
            patch_px=model_config.patch_size,
            input_height=model_config.crop_size,
            input_width=model_config.crop_size,
            channels=model_config.hidden_size,
            mean=tuple(processor.get("image_mean", IMAGENET_MEAN)),
            std=tuple(processor.get("image_std", IMAGENET_STD)),
        )
        self._encoder = _build(model_config, tensors, checkpoint).to(self.device, self.dtype).eval().requires_grad_(False)

    @torch.no_grad()
    def encode(self, frames_BTHWC3: torch.Tensor) -> torch.Tensor:
        """uint8 (B, frames, crop, crop, 3) -> float32 (B, T, H, W, C) on the encoder's device.

        Any number of frames that is a multiple of the tubelet. Raises ConfigError for other shapes.
        """
        self._check(frames_BTHWC3)
        if self.device.type == "cpu":
            return torch.cat([self._encode(clip) for clip in frames_BTHWC3.split(1)])
        return self._encode(frames_BTHWC3)

    def _encode(self, frames_BTHWC3: torch.Tensor) -> torch.Tensor:
        pixels = normalise(frames_BTHWC3.to(self.device), self.spec.mean, self.spec.std)
        tokens_BNC = self._encoder(pixels.permute(0, 1, 4, 2, 3).to(self.dtype)).last_hidden_state
        num_clips, num_frames = frames_BTHWC3.shape[:2]
        rows, columns = self.spec.input_height // self.spec.patch_px, self.spec.input_width // self.spec.patch_px
        return tokens_BNC.float().reshape(num_clips, num_frames // self.spec.tubelet, rows, columns, self.spec.channels)

    def _check(self, frames_BTHWC3: torch.Tensor) -> None:
        spec, shape = self.spec, tuple(frames_BTHWC3.shape)
        if (
            frames_BTHWC3.dtype != torch.uint8 or len(shape) != 5 or shape[2:] != (spec.input_height, spec.input_width, 3)
            or 0 in shape or shape[1] % spec.tubelet
        ):
            raise ConfigError(
                f"encoder vjepa2: expected uint8 frames (clips, multiple of {spec.tubelet}, {spec.input_height}, "
                f"{spec.input_width}, 3), the only input size of {spec.weights}, got {frames_BTHWC3.dtype} {shape}"
            )


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        name = "float32" if device.type == "cpu" else "bfloat16"
    return DTYPES[name]


def _name_in_encoder(name: str) -> str | None:
    return next((name.removeprefix(prefix) for prefix in ENCODER_PREFIXES if name.startswith(prefix)), None)


def _model_config(checkpoint: Checkpoint) -> Any:
    """transformers' VJEPA2Config of the checkpoint. Raises WeightsError for another architecture."""
    from transformers import VJEPA2Config

    values = checkpoint.config()
    if values.get("model_type") != "vjepa2":
        raise WeightsError(
            f"encoder.weights: {checkpoint.weights}: expected a checkpoint of model_type vjepa2, got {values.get('model_type')!r}"
        )
    config = VJEPA2Config.from_dict(values)
    if not isinstance(config.patch_size, int) or config.crop_size % config.patch_size or config.in_chans != 3:
        raise WeightsError(
            f"encoder.weights: {checkpoint.weights}: expected RGB and a crop_size of whole square patches, got in_chans "
            f"{config.in_chans}, crop_size {config.crop_size}, patch_size {config.patch_size}"
        )
    return config


def _build(model_config: Any, tensors: dict[str, torch.Tensor], checkpoint: Checkpoint) -> torch.nn.Module:
    """The encoder with exactly these tensors. Raises WeightsError where names or shapes differ from the architecture's."""
    from transformers import VJEPA2Model

    with torch.device("meta"):
        encoder = VJEPA2Model(model_config).encoder
    expected = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if differing:
        name = differing[0]
        raise WeightsError(
            f"encoder.weights: {checkpoint.weights}: {len(differing)} of {len(expected)} encoder tensors do not fit config.json; "
            f"{name}: expected {expected.get(name, 'none')}, found {found.get(name, 'none')}; download the checkpoint again"
        )
    encoder.load_state_dict(tensors, assign=True)
    return encoder
