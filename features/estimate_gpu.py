"""What an encoder costs in floating-point operations, and how fast a GPU that is not here would encode: derived, not measured.

A vision transformer with C channels and N tokens per clip, a multiplication and an addition counted as two. For L layers in
which every token sees n tokens (all of its clip, those of its frame, or those at its place) and M channels are in the MLP:

    linear      L * N * (8 C^2 + 4 C M)        query, key, value and output; the two of the MLP
    attention   L * 4 N * n * C
    patches     2 * N * C * (3 tubelet patch^2)

The measured rates of bf16 matrix products, and the share of them that a compiled encoder can be expected to reach, are those
of the project's measurements (H200: 790 TFLOP/s measured; 36 to 44 of 68 clips per second expected for ViT-L).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from features.schema import EncoderSpec, Record
from vjepa_loc.errors import ConfigError, nearest_name

Sees = Literal["clip", "frame", "place"]

# TFLOP/s of bf16 matrix products: that of the H200 was measured, the others follow from their expected clips per second.
MATMUL_TFLOPS = {"h200": 790.0, "h100": 694.0, "a100": 255.0, "rtx4090": 150.0}
EXPECTED_SHARE = 36 / 68, 44 / 68

_BY_FRAME = ("dinov3",)

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Layers:
    """`number` layers alike."""

    number: int
    mlp_channels: int
    sees: Sees = "clip"


@dataclass(frozen=True)
class Transformer:
    """The shape of an encoder."""

    channels: int
    layers: tuple[Layers, ...]

    def flops(self, num_steps: int, grid_HW: tuple[int, int], tubelet: int, patch_px: int) -> float:
        """Of one clip of `num_steps` steps of H x W cells; the few tokens beside the cells are not counted."""
        per_step, c = grid_HW[0] * grid_HW[1], self.channels
        num_tokens = num_steps * per_step
        seen = {"clip": num_tokens, "frame": per_step, "place": num_steps}
        total = 2.0 * num_tokens * c * 3 * tubelet * patch_px**2
        for alike in self.layers:
            total += alike.number * num_tokens * (8.0 * c * c + 4.0 * c * alike.mlp_channels + 4.0 * seen[alike.sees] * c)
        return total


_VIT_L, _VIT_H = Transformer(1024, (Layers(24, 4096),)), Transformer(1280, (Layers(32, 5120),))
_VIT_G = Transformer(1408, (Layers(40, 6144),))
# Published checkpoints (arXiv 2506.09985): shape, frames of a clip, pixels. Their estimate needs no weights.
PUBLISHED: dict[str, tuple[Transformer, int, int]] = {
    "facebook/vjepa2-vitl-fpc64-256": (_VIT_L, 64, 256),
    "facebook/vjepa2-vith-fpc64-256": (_VIT_H, 64, 256),
    "facebook/vjepa2-vitg-fpc64-256": (_VIT_G, 64, 256),
    "facebook/vjepa2-vitg-fpc64-384": (_VIT_G, 64, 384),
    "facebook/vjepa2-vitl-fpc16-256-ssv2": (_VIT_L, 16, 256),
    "facebook/vjepa2-vitg-fpc64-384-ssv2": (_VIT_G, 64, 384),
    "facebook/vjepa2-vitl-fpc32-256-diving48": (_VIT_L, 32, 256),
    "facebook/vjepa2-vitg-fpc32-384-diving48": (_VIT_G, 32, 384),
}


def published_spec(name: str, config: Record) -> EncoderSpec | None:
    """What the encoder `name` would say of itself, for a published checkpoint; without a digest, so for sizes only."""
    weights = getattr(config, "weights", None)
    if name != "vjepa2" or weights not in PUBLISHED:
        return None
    shape, clip_frames, trained_px = PUBLISHED[weights]
    pixels = getattr(config, "input_px", None) or trained_px
    return EncoderSpec(
        family="vjepa2", weights=weights, digest="not loaded", clip_frames=clip_frames, tubelet=2, patch_px=16, input_height=pixels,
        input_width=pixels, channels=shape.channels, mean=_IMAGENET[0], std=_IMAGENET[1], any_grid=True,
        trained_hw=(trained_px, trained_px), positions=getattr(config, "positions", "extrapolate"),
    )


def weights_are_here(config: Record) -> bool:
    """Whether an encoder could be loaded without a download; True for one that has no weights."""
    weights = getattr(config, "weights", None)
    if not isinstance(weights, str) or Path(weights).expanduser().is_dir():
        return True
    return any(_in_hub_cache(config, name) for name in ("model.safetensors", "model.safetensors.index.json"))


def transformer_of(name: str, config: Record) -> Transformer | None:
    """The shape of the encoder `name`, of the published ones or from the checkpoint's config.json; None for one without weights,
    whose operations are nothing that a GPU would be needed for. Raises `ConfigError`.
    """
    weights = getattr(config, "weights", None)
    if weights in PUBLISHED:
        return PUBLISHED[weights][0]
    if not isinstance(weights, str):
        return None
    folder = Path(weights).expanduser()
    file = folder / "config.json" if folder.is_dir() else _in_hub_cache(config, "config.json")
    try:
        return _shape_of(name, json.loads(Path(file).read_text()))
    except (OSError, TypeError, ValueError, KeyError):
        raise ConfigError(
            f"--gpu: the shape of encoder {name} with weights {weights} is not known: expected a checkpoint on this machine "
            f"whose config.json has hidden_size and the number of layers, or one of {', '.join(PUBLISHED)}; leave --gpu out to measure it here"
        ) from None


def _shape_of(name: str, values: dict[str, Any]) -> Transformer:
    """From the config.json of transformers. Raises KeyError where it says something else."""
    values = values.get("vision_config") or values
    channels = values["hidden_size"]
    mlp = values.get("intermediate_size") or round(values.get("mlp_ratio", 4.0) * channels)
    if name == "videoprism":
        by_frame, by_place = Layers(values["num_spatial_layers"], mlp, "frame"), Layers(values["num_temporal_layers"], mlp, "place")
        return Transformer(channels, (by_frame, by_place))
    number = values["num_hidden_layers"]
    if name == "timesformer" and values.get("attention_type", "divided_space_time") == "divided_space_time":
        # Over time first, without an MLP but with one projection more, as of half the channels.
        return Transformer(channels, (Layers(number, channels // 2, "place"), Layers(number, mlp, "frame")))
    return Transformer(channels, (Layers(number, mlp, "frame" if name in _BY_FRAME else "clip"),))


def matmul_tflops(gpu: str) -> float:
    """The rate behind `--gpu`: a known name, or a number of TFLOP/s. Raises `ConfigError`."""
    name = gpu.strip().lower()
    if name in MATMUL_TFLOPS:
        return MATMUL_TFLOPS[name]
    try:
        tflops = float(name)
    except ValueError:
        tflops = 0.0
    if not 0 < tflops < 1e6:
        raise ConfigError(
            f"--gpu: expected one of {', '.join(MATMUL_TFLOPS)}, or a measured bf16 rate in TFLOP/s, got {gpu!r}."
            f"{nearest_name(name, MATMUL_TFLOPS)}"
        )
    return tflops


def _in_hub_cache(config: Record, name: str) -> str | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(config.weights, name, revision=getattr(config, "revision", None))
    except HFValidationError:
        return None
    return found if isinstance(found, str) else None
