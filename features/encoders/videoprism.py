"""`videoprism`: VideoPrism (arXiv 2402.13217) through transformers, checkpoints that hold its `VideoPrismVisionModel`.

16 frames (base) or 8 (large) of 288 px in patches of 18 px give 16 x 16 x 16 or 8 x 16 x 16 tokens, one step per frame, in the
order (t, h, w), no CLS. Space is attended to first, then time. Positions are learned for that size and length; transformers would
interpolate others, here they are refused and a shorter video is padded. The tokens are the last hidden state after the final
norm. Of video-text checkpoints (`lvt`) the same vision encoder is taken, without the layers, the pooling and the text tower behind it.

Pixels: 0..1, neither mean nor deviation, whatever the processor's file says: transformers' VideoPrismProcessor switches them off.
Licence of the weights: Apache 2.0.
"""

from typing import Any

import torch

from features.encoders._family_encoder import FamilyEncoder, Geometry, WeightsConfig
from features.encoders._family_pixels import PixelRule
from features.encoders._family_weights import TensorNames, build_model

PARTS = "spatial_embeddings|temporal_embeddings|spatial_layers|temporal_layers|layernorm1|layernorm2"


class Config(WeightsConfig):
    weights: str = "google/videoprism-base-f16r288"


class Encoder(FamilyEncoder):
    FAMILY = "videoprism"
    MODEL_TYPES = ("videoprism_vision_model", "videoprism")
    TENSORS = TensorNames(
        encoder=rf"(video_model\.)?(vision_model\.)?(?P<name>({PARTS})\..+)",
        others=r"(video_model\.)?(auxiliary_layers|head|head_layernorm)\.|text_model\.|classifier\.",
    )
    PIXELS = PixelRule(fixed=True)

    def _parse(self, values: dict[str, Any]) -> Any:
        from transformers import VideoPrismConfig, VideoPrismVisionConfig

        if values["model_type"] == "videoprism":
            return VideoPrismConfig.from_dict(values).vision_config
        return VideoPrismVisionConfig.from_dict(values)

    def _geometry(self, model_config: Any) -> Geometry:
        tubelet, *patch = model_config.tubelet_size
        if tubelet != 1:
            # Its output is taken apart by frames.
            raise self._refused("a tubelet of 1 frame", f"tubelet_size {model_config.tubelet_size}")
        height, width, patch_px = self._square_patch(model_config.image_size, patch)
        return Geometry(self._frames(model_config.num_frames, 1), 1, patch_px, height, width, model_config.hidden_size)

    def _build(self, model_config: Any, tensors: dict[str, torch.Tensor], weights: str) -> torch.nn.Module:
        from transformers import VideoPrismVisionModel

        return build_model(VideoPrismVisionModel, model_config, tensors, self.dtype, weights)

    def _tokens(self, pixels_BT3hw: torch.Tensor) -> torch.Tensor:
        return self._model(pixels_BT3hw).last_hidden_state.unflatten(1, self._grid(pixels_BT3hw))
