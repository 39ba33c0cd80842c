"""`videomae`: VideoMAE (arXiv 2203.12602) through transformers, any checkpoint of its `VideoMAEModel` layout.

16 frames of 224 px give 8 x 14 x 14 tokens in the order (t, h, w), no CLS. Positions are a fixed table for that size and length,
so other sizes and lengths are refused and a shorter video is padded. Checkpoints of pre-training hold a decoder, those of
classification a head: neither is loaded. The tokens are the last hidden state: after the final norm in checkpoints of
pre-training, without one in classifiers (`use_mean_pooling`), whose norm works on the mean over all tokens.

Pixels: ImageNet mean and deviation, which the checkpoints' processors state.
Licence of the weights: CC BY-NC 4.0, not for commercial use.
"""

from typing import Any

import torch

from features.encoders._family_encoder import FamilyEncoder, Geometry, WeightsConfig
from features.encoders._family_pixels import PixelRule
from features.encoders._family_weights import TensorNames, build_model


class Config(WeightsConfig):
    weights: str = "MCG-NJU/videomae-base"


class Encoder(FamilyEncoder):
    FAMILY = "videomae"
    MODEL_TYPES = ("videomae",)
    TENSORS = TensorNames(
        encoder=r"(videomae\.)?(?P<name>(embeddings|encoder|layernorm)\..+)",
        others=r"decoder\.|encoder_to_decoder\.|mask_token$|fc_norm\.|classifier\.",
    )
    PIXELS = PixelRule(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

    def _parse(self, values: dict[str, Any]) -> Any:
        from transformers import VideoMAEConfig

        return VideoMAEConfig.from_dict(values)

    def _geometry(self, model_config: Any) -> Geometry:
        height, width, patch_px = self._square_patch(model_config.image_size, model_config.patch_size)
        tubelet = model_config.tubelet_size
        num_frames = self._frames(model_config.num_frames, tubelet)
        return Geometry(num_frames, tubelet, patch_px, height, width, model_config.hidden_size)

    def _build(self, model_config: Any, tensors: dict[str, torch.Tensor], weights: str) -> torch.nn.Module:
        from transformers import VideoMAEModel

        return build_model(VideoMAEModel, model_config, tensors, self.dtype, weights)

    def _tokens(self, pixels_BT3hw: torch.Tensor) -> torch.Tensor:
        return self._model(pixels_BT3hw).last_hidden_state.unflatten(1, self._grid(pixels_BT3hw))
