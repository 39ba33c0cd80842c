"""`vivit`: ViViT with spatio-temporal attention (arXiv 2103.15691, model 1) through transformers, its `VivitModel` layout.

32 frames of 224 px in tubelets of 2 give 16 x 14 x 14 tokens: CLS first (dropped here), then (t, h, w). Positions are learned for
that size and length, so others are refused and a shorter video is padded. The tokens are the last hidden state after the final
norm.

Pixels: transformers' processor gives `x / 127.5 - 1` and then, as the checkpoint of Kinetics-400 says `do_normalize`, subtracts
0.5 and divides by 0.5 again: -3..1, while the network was trained on -1..1 (`zero_centering` in scenic's
projects/vivit/configs/kinetics400/vivit_base_k400.py). `pixels = "processor"` is what every user of transformers gets;
`pixels = "trained"` is -1..1. The choice is part of the encoding.
Licence of the weights: MIT.
"""

from typing import Any, Literal

import torch

from features.encoders._family_encoder import FamilyEncoder, Geometry, WeightsConfig
from features.encoders._family_pixels import PixelRule
from features.encoders._family_weights import TensorNames, build_model

HALF = (0.5, 0.5, 0.5)


class Config(WeightsConfig):
    """`pixels`: see the module's docstring."""

    weights: str = "google/vivit-b-16x2-kinetics400"
    pixels: Literal["processor", "trained"] = "processor"


class Encoder(FamilyEncoder):
    FAMILY = "vivit"
    MODEL_TYPES = ("vivit",)
    TENSORS = TensorNames(
        encoder=r"(vivit\.)?(?P<name>(embeddings|encoder|layers|layernorm)\..+)", others=r"(vivit\.)?pooler\.|classifier\."
    )
    PIXELS = PixelRule(mean=HALF, std=HALF, factor=1 / 127.5, offset=True)
    TRAINED_PIXELS = PixelRule(mean=HALF, std=HALF, fixed=True)

    def _pixels(self) -> PixelRule:
        return self.PIXELS if self.config.pixels == "processor" else self.TRAINED_PIXELS

    def _parse(self, values: dict[str, Any]) -> Any:
        from transformers import VivitConfig

        return VivitConfig.from_dict(values)

    def _geometry(self, model_config: Any) -> Geometry:
        tubelet, *patch = model_config.tubelet_size
        height, width, patch_px = self._square_patch(model_config.image_size, patch)
        num_frames = self._frames(model_config.num_frames, tubelet)
        return Geometry(num_frames, tubelet, patch_px, height, width, model_config.hidden_size)

    def _build(self, model_config: Any, tensors: dict[str, torch.Tensor], weights: str) -> torch.nn.Module:
        from transformers import VivitModel

        return build_model(VivitModel, model_config, tensors, self.dtype, weights, add_pooling_layer=False)

    def _tokens(self, pixels_BT3hw: torch.Tensor) -> torch.Tensor:
        return self._model(pixels_BT3hw).last_hidden_state[:, 1:].unflatten(1, self._grid(pixels_BT3hw))
