"""V-JEPA 2's tensors from a checkpoint of transformers into ours, with every key of the file accounted for.

A file holds a bare model (`encoder.*`, `predictor.*`) or a classifier (`vjepa2.encoder.*`, `vjepa2.predictor.*`, `pooler.*`,
`classifier.*`). The encoder's tensors have to be exactly those that config.json asks for; predictor and classifier are left
unread; any other key is refused, because a file with it is not what this code takes it for.
"""

from dataclasses import dataclass
from typing import Any

import torch

from features.encoders._checkpoint import Checkpoint
from features.encoders._vjepa2_model import Layer, VJepa2Encoder
from features.encoders._vjepa2_rope import channel_order
from vjepa_loc.errors import WeightsError

# A bare model, and the same model inside transformers' video classifier.
ENCODER_PREFIXES = ("encoder.", "vjepa2.encoder.")
UNREAD_PREFIXES = ("predictor.", "vjepa2.predictor.", "pooler.", "classifier.")
PATCH = "embeddings.patch_embeddings.proj"


@dataclass(frozen=True)
class Architecture:
    """What config.json says of the encoder."""

    channels: int
    num_layers: int
    num_heads: int
    mlp_channels: int
    qkv_bias: bool
    eps: float
    clip_frames: int
    tubelet: int
    patch_px: int
    crop_px: int

    @property
    def head_dim(self) -> int:
        return self.channels // self.num_heads

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name inside the encoder -> shape, of all tensors of transformers' `VJEPA2Encoder`."""
        C, F = self.channels, self.mlp_channels
        shapes = {f"{PATCH}.weight": (C, 3, self.tubelet, self.patch_px, self.patch_px), f"{PATCH}.bias": (C,)}
        linears = {"attention.proj": (C, C), "mlp.fc1": (F, C), "mlp.fc2": (C, F)}
        for number in range(self.num_layers):
            layer = f"layer.{number}."
            for name in ("norm1", "norm2"):
                shapes |= {f"{layer}{name}.weight": (C,), f"{layer}{name}.bias": (C,)}
            for name in ("query", "key", "value"):
                shapes[f"{layer}attention.{name}.weight"] = (C, C)
                if self.qkv_bias:
                    shapes[f"{layer}attention.{name}.bias"] = (C,)
            for name, shape in linears.items():
                shapes |= {f"{layer}{name}.weight": shape, f"{layer}{name}.bias": shape[:1]}
        return shapes | {"layernorm.weight": (C,), "layernorm.bias": (C,)}


def read_architecture(checkpoint: Checkpoint) -> Architecture:
    """Of config.json, with transformers' defaults for what it leaves out. Raises WeightsError for what this code does not compute."""
    from transformers import VJEPA2Config

    values = checkpoint.config()
    if values.get("model_type") != "vjepa2":
        raise WeightsError(
            f"encoder.weights: {checkpoint.weights}: expected a checkpoint of model_type vjepa2, got {values.get('model_type')!r}"
        )
    try:
        config = VJEPA2Config.from_dict(values)
    except Exception as error:
        # Whatever transformers' validation raises, it is about this file.
        raise WeightsError(f"encoder.weights: {checkpoint.weights}: config.json: {' '.join(str(error).split())[:200]}") from None
    _check(config, checkpoint)
    return Architecture(
        channels=config.hidden_size, num_layers=config.num_hidden_layers, num_heads=config.num_attention_heads,
        mlp_channels=int(config.hidden_size * config.mlp_ratio), qkv_bias=bool(config.qkv_bias), eps=config.layer_norm_eps,
        clip_frames=config.frames_per_clip, tubelet=config.tubelet_size, patch_px=config.patch_size, crop_px=config.crop_size,
    )


def _check(config: Any, checkpoint: Checkpoint) -> None:
    counts = ("hidden_size", "num_hidden_layers", "num_attention_heads", "frames_per_clip", "tubelet_size", "patch_size", "crop_size")
    for name in counts:
        value = getattr(config, name)
        if not isinstance(value, int) or value < 1:
            raise WeightsError(f"encoder.weights: {checkpoint.weights}: config.json: {name}: expected a whole number from 1 on, got {value!r}")
    if config.crop_size % config.patch_size or config.in_chans != 3:
        raise WeightsError(
            f"encoder.weights: {checkpoint.weights}: expected RGB and a crop_size of whole square patches, got in_chans "
            f"{config.in_chans}, crop_size {config.crop_size}, patch_size {config.patch_size}"
        )
    if config.hidden_size % config.num_attention_heads:
        raise WeightsError(
            f"encoder.weights: {checkpoint.weights}: expected a hidden_size of whole heads, got {config.hidden_size} for "
            f"{config.num_attention_heads} heads"
        )
    if config.frames_per_clip % config.tubelet_size or not config.layer_norm_eps > 0:
        raise WeightsError(
            f"encoder.weights: {checkpoint.weights}: config.json: expected frames_per_clip of whole tubelets and a positive layer_norm_eps, "
            f"got {config.frames_per_clip} frames, tubelet_size {config.tubelet_size}, layer_norm_eps {config.layer_norm_eps}"
        )
    if config.hidden_act != "gelu":
        raise WeightsError(f"encoder.weights: {checkpoint.weights}: expected hidden_act 'gelu', got {config.hidden_act!r}")


def read_tensors(checkpoint: Checkpoint, architecture: Architecture) -> dict[str, torch.Tensor]:
    """The encoder's tensors as they stand in the file, named as inside transformers' encoder.

    Raises WeightsError for a key that is missing, unknown, there twice, or of another shape.
    """
    seen: set[str] = set()
    unknown: list[str] = []

    def name_in_encoder(key: str) -> str | None:
        if key.startswith(UNREAD_PREFIXES):
            return None
        name = next((key.removeprefix(prefix) for prefix in ENCODER_PREFIXES if key.startswith(prefix)), None)
        if name is None:
            unknown.append(key)
            return None
        if name in seen:
            raise WeightsError(f"encoder.weights: {checkpoint.weights}: expected the encoder's {name} once, found it twice; download the checkpoint again")
        seen.add(name)
        return name

    tensors = checkpoint.tensors(name_in_encoder)
    if unknown:
        raise WeightsError(
            f"encoder.weights: {checkpoint.weights}: {len(unknown)} tensors belong to no part of V-JEPA 2, the first is "
            f"{min(unknown)!r}; expected names that begin with {', '.join((*ENCODER_PREFIXES, *UNREAD_PREFIXES))}"
        )
    expected = architecture.shapes()
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if differing:
        name = differing[0]
        raise WeightsError(
            f"encoder.weights: {checkpoint.weights}: {len(differing)} of {len(expected)} encoder tensors do not fit config.json; "
            f"{name}: expected {expected.get(name, 'none')}, found {found.get(name, 'none')}; download the checkpoint again"
        )
    if wrong := sorted(name for name, tensor in tensors.items() if not tensor.is_floating_point()):
        raise WeightsError(f"encoder.weights: {checkpoint.weights}: {wrong[0]}: expected floating-point numbers, found {tensors[wrong[0]].dtype}")
    return tensors


def build_encoder(
    architecture: Architecture, tensors: dict[str, torch.Tensor], dtype: torch.dtype, device: torch.device
) -> VJepa2Encoder:
    """The encoder in our layout: matrices in `dtype`, layer norms in float32. Empties `tensors` on the way, so that the memory of
    a layer's copy is free before the next is made."""
    order = channel_order(architecture.head_dim)

    def take(name: str, to: torch.dtype) -> torch.Tensor | None:
        tensor = tensors.pop(name, None)
        return None if tensor is None else tensor.to(device, to)

    def reordered(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.unflatten(0, (architecture.num_heads, -1))[:, order.to(tensor.device)].flatten(0, 1)

    def layer(number: int) -> Layer:
        def part(name: str) -> str:
            return f"layer.{number}.{name}"

        def fused(kind: str) -> torch.Tensor | None:
            query, key, value = (take(part(f"attention.{name}.{kind}"), dtype) for name in ("query", "key", "value"))
            return None if query is None else torch.cat([reordered(query), reordered(key), value])

        return Layer(
            take(part("norm1.weight"), torch.float32), take(part("norm1.bias"), torch.float32), fused("weight"), fused("bias"),
            take(part("attention.proj.weight"), dtype), take(part("attention.proj.bias"), dtype),
            take(part("norm2.weight"), torch.float32), take(part("norm2.bias"), torch.float32),
            take(part("mlp.fc1.weight"), dtype), take(part("mlp.fc1.bias"), dtype),
            take(part("mlp.fc2.weight"), dtype), take(part("mlp.fc2.bias"), dtype),
        )

    # (C, RGB, frame, y, x) of the convolution into the order of the pixels.
    patch_weight_CK = take(f"{PATCH}.weight", dtype).permute(0, 2, 3, 4, 1).flatten(1).contiguous()
    return VJepa2Encoder(
        patch_weight_CK, take(f"{PATCH}.bias", dtype), [layer(number) for number in range(architecture.num_layers)],
        take("layernorm.weight", torch.float32), take("layernorm.bias", torch.float32), num_heads=architecture.num_heads,
        eps=architecture.eps, tubelet=architecture.tubelet, patch_px=architecture.patch_px,
    )
