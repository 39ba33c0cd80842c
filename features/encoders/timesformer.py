"""`timesformer`: TimeSformer (arXiv 2102.05095) through transformers, any checkpoint of its `TimesformerModel` layout.

8 frames of 224 px give 8 x 14 x 14 tokens, one step per frame: CLS first (dropped here), then **(h, w, t)**, put in order here.
Time positions are learned for the checkpoint's number of frames and its layers count on it (8, 16 for `hr`, 96 for `long`), so
other lengths are refused and a shorter video is padded. The tokens are the last hidden state after the final norm. Divided and
joint attention over space and time are taken; `space_only` has no time in it and is refused.

Pixels: mean 0.45 and deviation 0.225 of every colour, which the checkpoints' processors state.
Licence of the weights: CC BY-NC 4.0, not for commercial use.
"""

from typing import Any

import torch

from features.encoders._family_encoder import FamilyEncoder, Geometry, WeightsConfig
from features.encoders._family_pixels import PixelRule
from features.encoders._family_weights import TensorNames, build_model

ATTENTION = ("divided_space_time", "joint_space_time")


class Config(WeightsConfig):
    weights: str = "facebook/timesformer-base-finetuned-k400"


class Encoder(FamilyEncoder):
    FAMILY = "timesformer"
    MODEL_TYPES = ("timesformer",)
    TENSORS = TensorNames(encoder=r"(timesformer\.)?(?P<name>(embeddings|encoder|layernorm)\..+)", others=r"classifier\.")
    PIXELS = PixelRule(mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225))

    def _parse(self, values: dict[str, Any]) -> Any:
        from transformers import TimesformerConfig

        return TimesformerConfig.from_dict(values)

    def _geometry(self, model_config: Any) -> Geometry:
        if model_config.attention_type not in ATTENTION:
            raise self._refused(f"attention_type {' or '.join(ATTENTION)}", f"{model_config.attention_type!r}")
        if not isinstance(model_config.image_size, int) or not isinstance(model_config.patch_size, int):
            # The layers of transformers divide these two as whole numbers.
            raise self._refused("a square image_size and patch_size", f"{model_config.image_size} and {model_config.patch_size}")
        height, width, patch_px = self._square_patch(model_config.image_size, model_config.patch_size)
        return Geometry(self._frames(model_config.num_frames, 1), 1, patch_px, height, width, model_config.hidden_size)

    def _build(self, model_config: Any, tensors: dict[str, torch.Tensor], weights: str) -> torch.nn.Module:
        from transformers import TimesformerModel

        return build_model(TimesformerModel, model_config, tensors, self.dtype, weights)

    def _tokens(self, pixels_BT3hw: torch.Tensor) -> torch.Tensor:
        num_steps, rows, columns = self._grid(pixels_BT3hw)
        tokens_BNC = self._model(pixels_BT3hw).last_hidden_state[:, 1:]
        return tokens_BNC.unflatten(1, (rows, columns, num_steps)).permute(0, 3, 1, 2, 4).contiguous()
