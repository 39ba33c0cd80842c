"""Checkpoints of every encoder family at toy size: random weights, saved by transformers in the layout of the hub.

Inputs are rectangles wherever the architecture takes them, and no two sizes of a family are equal, so that a wrong order of
tokens cannot give the right shape by chance. `config.json` and the tensors are all that is saved: processors are written by the tests.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

SMALL = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}


def _drawn(model_class: type, config: Any, **options: Any) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(config, **options).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if not parameter.any():
                    # Positions and biases start as zeros, which would hide one that is forgotten or misplaced.
                    parameter.normal_(std=0.02)
    return model


def vjepa2_model() -> torch.nn.Module:
    from transformers import VJEPA2Config, VJEPA2Model

    sizes = {"patch_size": 8, "crop_size": 32, "frames_per_clip": 8}
    sizes |= {"hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 1}
    predictor = {"pred_hidden_size": 24, "pred_num_attention_heads": 4, "pred_num_hidden_layers": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VJEPA2Model(VJEPA2Config(**sizes, **predictor)).eval()


def videomae_model(kind: str = "VideoMAEForPreTraining", **changes: Any) -> torch.nn.Module:
    """8 frames of 24x40 px: 4 x 3 x 5 tokens, and a decoder behind them."""
    import transformers

    decoder = {
        "decoder_hidden_size": 24, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1,
        "decoder_intermediate_size": 32,
    }
    sizes = {"image_size": [24, 40], "patch_size": 8, "num_frames": 8, "tubelet_size": 2, "use_mean_pooling": False}
    return _drawn(getattr(transformers, kind), transformers.VideoMAEConfig(**{**SMALL, **decoder, **sizes, **changes}))


def timesformer_model(kind: str = "TimesformerForVideoClassification", **changes: Any) -> torch.nn.Module:
    """4 frames of 24 px: 4 x 3 x 3 tokens."""
    import transformers

    sizes = {"image_size": 24, "patch_size": 8, "num_frames": 4}
    return _drawn(getattr(transformers, kind), transformers.TimesformerConfig(**{**SMALL, **sizes, **changes}))


def vivit_model(kind: str = "VivitForVideoClassification", **changes: Any) -> torch.nn.Module:
    """8 frames of 24x40 px: 4 x 3 x 5 tokens."""
    import transformers

    sizes = {"image_size": [24, 40], "tubelet_size": [2, 8, 8], "num_frames": 8}
    return _drawn(getattr(transformers, kind), transformers.VivitConfig(**{**SMALL, **sizes, **changes}))


def videoprism_model(kind: str = "VideoPrismVisionModel", **changes: Any) -> torch.nn.Module:
    """6 frames of 27x45 px in patches of 9: 6 x 3 x 5 tokens."""
    import transformers

    small = {name: size for name, size in SMALL.items() if name != "num_hidden_layers"}
    layers = {"num_spatial_layers": 2, "num_temporal_layers": 1, "num_auxiliary_layers": 1}
    sizes = {"image_size": [27, 45], "tubelet_size": [1, 9, 9], "num_frames": 6}
    vision = {**small, **layers, **sizes, **changes}
    if kind == "VideoPrismClipModel":
        text = {**SMALL, "vocab_size": 20, "max_position_embeddings": 8}
        config = transformers.VideoPrismConfig(vision_config=vision, text_config=text)
    else:
        config = transformers.VideoPrismVisionConfig(**vision)
    return _drawn(getattr(transformers, kind), config)


def dinov3_model(kind: str = "DINOv3ViTModel", **changes: Any) -> torch.nn.Module:
    """Patches of 8 px, 4 register tokens."""
    import transformers

    sizes = {"image_size": 32, "patch_size": 8, "num_register_tokens": 4}
    return _drawn(getattr(transformers, kind), transformers.DINOv3ViTConfig(**{**SMALL, **sizes, **changes}))


MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "vjepa2": vjepa2_model, "videomae": videomae_model, "timesformer": timesformer_model, "vivit": vivit_model,
    "videoprism": videoprism_model, "dinov3": dinov3_model,
}
# What a toy needs besides its weights.
OPTIONS: dict[str, dict[str, Any]] = {"dinov3": {"input_px": 32}}


def toy_settings(name: str, folder: Path) -> dict[str, Any]:
    """Saves the family's toy in `folder`; the settings of its `Config`. Empty for an encoder that needs no checkpoint."""
    if name not in MODELS:
        return {}
    MODELS[name]().save_pretrained(folder)
    return {"weights": str(folder), **OPTIONS.get(name, {})}
