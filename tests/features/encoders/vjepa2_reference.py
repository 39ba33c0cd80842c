"""V-JEPA 2's encoder written down position by position, in float64: slow, and with nothing of ours or of transformers in it.

Loops over tokens, axes and channel pairs; the tensors are those of a checkpoint under their names inside transformers' encoder.
"""

import math

import numpy as np
from scipy.special import erf, softmax


def axis_position(index: int, num_cells: int, trained_cells: int, positions: str) -> float:
    """Where row (or column) `index` of `num_cells` lies, in rows of the grid of the training."""
    if positions == "extrapolate" or num_cells == trained_cells:
        return float(index)
    if num_cells == 1:
        return (trained_cells - 1) / 2
    return index * (trained_cells - 1) / (num_cells - 1)


def rotated(vector_D: np.ndarray, position_3: tuple[float, float, float]) -> np.ndarray:
    """One head's query or key of the token at (step, row, column)."""
    result_D = vector_D.copy()
    channels_per_axis = 2 * (len(vector_D) // 3 // 2)
    num_frequencies = channels_per_axis // 2
    for axis in range(3):
        for pair in range(num_frequencies):
            first = axis * channels_per_axis + 2 * pair
            # The frequencies stand once after the other (f0 f1 .. f0 f1 ..), the pairs side by side: the two channels of a pair
            # have frequencies 2 * pair and 2 * pair + 1, counted round.
            angles = [
                position_3[axis] * 10000.0 ** (-((2 * pair + member) % num_frequencies) / num_frequencies) for member in (0, 1)
            ]
            x, y = vector_D[first], vector_D[first + 1]
            result_D[first] = x * math.cos(angles[0]) - y * math.sin(angles[0])
            result_D[first + 1] = y * math.cos(angles[1]) + x * math.sin(angles[1])
    return result_D


def layer_norm(x_NC: np.ndarray, weight_C: np.ndarray, bias_C: np.ndarray, eps: float) -> np.ndarray:
    mean, variance = x_NC.mean(-1, keepdims=True), x_NC.var(-1, keepdims=True)
    return (x_NC - mean) / np.sqrt(variance + eps) * weight_C + bias_C


def encode(
    tensors: dict[str, np.ndarray], pixels_FHW3: np.ndarray, *, num_heads: int, tubelet: int, patch_px: int, trained_cells: int,
    eps: float, positions: str = "extrapolate",
) -> np.ndarray:
    """Normalised frames -> tokens (T, H, W, C), float64."""
    tensors = {name: np.asarray(tensor, np.float64) for name, tensor in tensors.items()}
    num_frames, height, width, _ = pixels_FHW3.shape
    T, H, W = num_frames // tubelet, height // patch_px, width // patch_px
    kernel = tensors["embeddings.patch_embeddings.proj.weight"]
    tokens, places = [], []
    for step in range(T):
        for row in range(H):
            for column in range(W):
                block_tyx3 = pixels_FHW3[
                    step * tubelet : (step + 1) * tubelet, row * patch_px : (row + 1) * patch_px, column * patch_px : (column + 1) * patch_px
                ]
                tokens.append(np.einsum("tyxr,crtyx->c", block_tyx3, kernel) + tensors["embeddings.patch_embeddings.proj.bias"])
                places.append((
                    float(step), axis_position(row, H, trained_cells, positions), axis_position(column, W, trained_cells, positions)
                ))
    x_NC = np.stack(tokens)
    num_layers = sum(name.endswith("norm1.weight") for name in tensors)
    for number in range(num_layers):
        part = {name.removeprefix(f"layer.{number}."): tensor for name, tensor in tensors.items() if name.startswith(f"layer.{number}.")}

        def linear(x: np.ndarray, name: str, part=part) -> np.ndarray:
            return x @ part[f"{name}.weight"].T + part.get(f"{name}.bias", 0.0)

        normed = layer_norm(x_NC, part["norm1.weight"], part["norm1.bias"], eps)
        query, key, value = (linear(normed, f"attention.{name}") for name in ("query", "key", "value"))
        head_dim = query.shape[1] // num_heads
        heads = []
        for head in range(num_heads):
            channels = slice(head * head_dim, (head + 1) * head_dim)
            q = np.stack([rotated(vector, place) for vector, place in zip(query[:, channels], places, strict=True)])
            k = np.stack([rotated(vector, place) for vector, place in zip(key[:, channels], places, strict=True)])
            heads.append(softmax(q @ k.T / math.sqrt(head_dim), axis=-1) @ value[:, channels])
        x_NC = x_NC + linear(np.concatenate(heads, axis=1), "attention.proj")
        inside = linear(layer_norm(x_NC, part["norm2.weight"], part["norm2.bias"], eps), "mlp.fc1")
        x_NC = x_NC + linear(inside * 0.5 * (1 + erf(inside / math.sqrt(2))), "mlp.fc2")
    return layer_norm(x_NC, tensors["layernorm.weight"], tensors["layernorm.bias"], eps).reshape(T, H, W, -1)
