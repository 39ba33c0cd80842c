"""`dinov3`: DINOv3 ViT (arXiv 2508.10104), an encoder of images, one frame at a time, through transformers' `DINOv3ViTModel`.

Every frame is a step of its own: a token knows nothing of other frames. `input_px` square pixels in patches of 16 give
H x W tokens in the order (h, w) behind CLS and 4 register tokens (dropped here). Rotary positions lie at the patches' centres in
-1..1 of each axis, computed from the input itself, so that any multiple of the patch and any rectangle is right. The tokens are
the last hidden state after the final norm.

Frames are handed over in clips of 16 only so that a GPU has work; on a CPU each goes through alone. A seam between clips means
nothing here, and overlap only costs time. `first_frame_seen` and `last_frame_seen` of the store span the clip: that is when a
token is known, not what it saw.

Pixels: ImageNet mean and deviation; the processors of checkpoints for satellite images state their own.
Licence of the weights: DINOv3 License (commercial use under its terms). The repositories are gated: accept it there, then
`hf auth login`.
"""

from typing import Annotated, Any

import torch
from pydantic import Field

from features.encoders._family_encoder import FamilyEncoder, Geometry, WeightsConfig
from features.encoders._family_pixels import PixelRule
from features.encoders._family_weights import TensorNames, build_model
from vjepa_loc.errors import ConfigError

CLIP_FRAMES = 16


class Config(WeightsConfig):
    """`input_px`: side of the square input, a multiple of the patch; 256 gives the grid of V-JEPA 2."""

    weights: str = "facebook/dinov3-vitl16-pretrain-lvd1689m"
    input_px: Annotated[int, Field(gt=0)] = 256


class Encoder(FamilyEncoder):
    FAMILY = "dinov3"
    MODEL_TYPES = ("dinov3_vit",)
    TENSORS = TensorNames(encoder=r"(model\.(?=layer\.))?(?P<name>(embeddings|layer|norm)\..+)", others=r"classifier\.")
    PIXELS = PixelRule(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

    def _hint(self, model_type: Any) -> str:
        return "; a ConvNeXt has no grid of patches to store: take a ViT" if model_type == "dinov3_convnext" else ""

    def _parse(self, values: dict[str, Any]) -> Any:
        from transformers import DINOv3ViTConfig

        return DINOv3ViTConfig.from_dict(values)

    def _geometry(self, model_config: Any) -> Geometry:
        _, _, patch_px = self._square_patch(model_config.image_size, model_config.patch_size)
        side = self.config.input_px
        if side % patch_px:
            raise ConfigError(
                f"encoder.input_px: expected a multiple of the patch of {self.config.weights}, {patch_px} px, got {side}"
            )
        return Geometry(CLIP_FRAMES, 1, patch_px, side, side, model_config.hidden_size, fixed_clip=False, any_grid=True)

    def _build(self, model_config: Any, tensors: dict[str, torch.Tensor], weights: str) -> torch.nn.Module:
        from transformers import DINOv3ViTModel

        return build_model(DINOv3ViTModel, model_config, tensors, self.dtype, weights)

    def _tokens(self, pixels_BT3hw: torch.Tensor) -> torch.Tensor:
        num_steps, rows, columns = self._grid(pixels_BT3hw)
        frames_N3hw = pixels_BT3hw.flatten(0, 1)
        # Frame by frame on a CPU: a token must not depend on how many frames a clip has.
        at_once = 1 if self.device.type == "cpu" else len(frames_N3hw)
        tokens_NLC = torch.cat([self._model(frames).last_hidden_state for frames in frames_N3hw.split(at_once)])
        patches_NLC = tokens_NLC[:, tokens_NLC.shape[1] - rows * columns :]
        return patches_NLC.unflatten(1, (rows, columns)).unflatten(0, (-1, num_steps))
