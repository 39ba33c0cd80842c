"""The encoder of V-JEPA 2 (arXiv 2506.09985): a plain pre-norm vision transformer over tubelets with rotary positions.

It computes what `VJEPA2Model(...).encoder` of transformers computes, in fewer and larger operations: the patch embedding is one
matrix product, queries, keys and values are another, and the position tables are made once per grid. Matrix products and
attention run in the model's dtype; the residual stream, layer norms and positions stay in float32, so that in bfloat16 it is
nearer to float32 than a model whose every operation rounds.

Shape legend: B clips, T steps, H x W cells, N = T * H * W tokens, C channels, h heads, D = C / h, F channels inside the MLP, K input numbers of a token.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from features.encoders._vjepa2_rope import rotate


class Layer(NamedTuple):
    """The tensors of one layer. Of queries and keys, the channels of each head are in `channel_order`."""

    norm1_weight_C: Tensor
    norm1_bias_C: Tensor
    qkv_weight: Tensor
    qkv_bias: Tensor | None
    proj_weight_CC: Tensor
    proj_bias_C: Tensor
    norm2_weight_C: Tensor
    norm2_bias_C: Tensor
    fc1_weight_FC: Tensor
    fc1_bias_F: Tensor
    fc2_weight_CF: Tensor
    fc2_bias_C: Tensor


def run_layer(x_BNC: Tensor, table_4NP: Tensor, layer: Layer, num_heads: int, eps: float) -> Tensor:
    """The residual stream, float32, after one layer. A function of tensors alone: compiled once, it serves all layers."""
    num_clips, num_tokens, channels = x_BNC.shape
    dtype = layer.qkv_weight.dtype
    normed_BNC = F.layer_norm(x_BNC, (channels,), layer.norm1_weight_C, layer.norm1_bias_C, eps).to(dtype)
    qkv = F.linear(normed_BNC, layer.qkv_weight, layer.qkv_bias).view(num_clips, num_tokens, 3 * num_heads, channels // num_heads)
    # Queries and keys lie side by side: one operation gives both their positions.
    query_BhND, key_BhND = rotate(qkv[:, :, : 2 * num_heads].transpose(1, 2), table_4NP).split(num_heads, dim=1)
    value_BhND = qkv[:, :, 2 * num_heads :].transpose(1, 2)
    if value_BhND.device.type == "cpu":
        # Attention on a CPU reads rows that lie far apart up to a tenth slower; on a GPU the copy costs more than it gives.
        value_BhND = value_BhND.contiguous()
    seen_BhND = F.scaled_dot_product_attention(query_BhND, key_BhND, value_BhND)
    x_BNC = x_BNC + F.linear(seen_BhND.transpose(1, 2).reshape(num_clips, num_tokens, channels), layer.proj_weight_CC, layer.proj_bias_C)
    normed_BNC = F.layer_norm(x_BNC, (channels,), layer.norm2_weight_C, layer.norm2_bias_C, eps).to(dtype)
    inside_BNF = F.gelu(F.linear(normed_BNC, layer.fc1_weight_FC, layer.fc1_bias_F))
    return x_BNC + F.linear(inside_BNF, layer.fc2_weight_CF, layer.fc2_bias_C)


class VJepa2Encoder(nn.Module):
    """Holds the tensors; `layers` are `Layer`s. `forward` is the whole encoder; what runs a layer is the caller's choice."""

    def __init__(
        self, patch_weight_CK: Tensor, patch_bias_C: Tensor, layers: list[Layer], norm_weight_C: Tensor, norm_bias_C: Tensor, *,
        num_heads: int, eps: float, tubelet: int, patch_px: int,
    ):
        super().__init__()
        self.num_heads, self.eps, self.tubelet, self.patch_px = num_heads, eps, tubelet, patch_px
        for name, tensor in {
            "patch_weight_CK": patch_weight_CK, "patch_bias_C": patch_bias_C, "norm_weight_C": norm_weight_C, "norm_bias_C": norm_bias_C,
        }.items():
            self.register_buffer(name, tensor)
        for number, layer in enumerate(layers):
            for name, tensor in layer._asdict().items():
                self.register_buffer(f"layer{number}_{name}", tensor)
        self._num_layers = len(layers)

    def layers(self) -> list[Layer]:
        return [Layer(*(getattr(self, f"layer{number}_{name}") for name in Layer._fields)) for number in range(self._num_layers)]

    def forward(self, pixels_BFHWx3: Tensor, table_4NP: Tensor, run=run_layer) -> Tensor:
        """Normalised frames (B, frames, height, width, 3) -> float32 tokens (B, T, H, W, C)."""
        patches_BTHWK = self.patches(pixels_BFHWx3)
        grid = patches_BTHWK.shape[:4]
        x_BNC = F.linear(patches_BTHWK.flatten(1, 3).to(self.patch_weight_CK.dtype), self.patch_weight_CK, self.patch_bias_C).float()
        for layer in self.layers():
            x_BNC = run(x_BNC, table_4NP, layer, self.num_heads, self.eps)
        tokens_BNC = F.layer_norm(x_BNC, x_BNC.shape[-1:], self.norm_weight_C, self.norm_bias_C, self.eps)
        return tokens_BNC.reshape(*grid, -1)

    def patches(self, pixels_BFHWx3: Tensor) -> Tensor:
        """(B, T, H, W, K), the numbers of a token in the order (frame, y, x, RGB): that of the pixels, so that rows are copied whole."""
        num_clips, num_frames, height, width, _ = pixels_BFHWx3.shape
        patch_px = self.patch_px
        split = pixels_BFHWx3.reshape(
            num_clips, num_frames // self.tubelet, self.tubelet, height // patch_px, patch_px, width // patch_px, patch_px, 3
        )
        return split.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4)
