"""`tiny`: the embedded encoder for the demo and the tests. No download, no training, the same weights everywhere.

It is the patch embedding of a small V-JEPA 2 (tubelets of 2 frames, 8 x 8 px patches of a 128 px square: 16 x 16 cells), built
instead of drawn: each token is a cosine transform of its patch. 32 low spatial frequencies x (sum, difference) of the two
frames x 3 opponent colours give 192 channels, scaled so that each has a variance near 1 on natural video. Random transformer
layers on top lose place and motion rather than add anything, so there are none; what a clip boundary would change in
V-JEPA 2 changes nothing here.

Shape legend: B clips, T steps, H x W cells, C channels, P = tubelet * patch_px * patch_px * 3 input numbers of a token.
"""

import math

import numpy as np
import torch

from features.preprocess import normalise
from features.schema import EncoderSpec, Record
from features.tensor_digest import tensor_digest
from vjepa_loc.errors import ConfigError

CLIP_FRAMES = 16
TUBELET = 2
PATCH_PX = 8
INPUT_PX = 128
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# How many of the lowest spatial frequencies are kept, per colour and for (sum, difference) of the two frames.
NUM_FREQUENCIES = ((32, 32), (32, 32), (32, 32))

# Rows: luma, red against blue, green against both. Halves and thirds are kept out so that float32 holds them exactly.
OPPONENT_COLOURS_33 = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (-0.5, 1.0, -0.5))

# Standard deviation over 23 real videos of the constant and of spatial frequency 1, and the exponent of the fall-off with
# frequency, per colour and for (sum, difference) of the two frames. Below the floor there is only rounding noise of uint8.
SPECTRUM = (
    ((40.0, 7.5, 1.47), (2.6, 1.3, 1.13)),
    ((5.4, 1.5, 2.19), (0.47, 0.25, 1.82)),
    ((3.1, 0.73, 2.05), (0.31, 0.13, 1.61)),
)
SPECTRUM_FLOOR = 0.05

# Weights are rounded to multiples of this: cosines of different C libraries differ in the last bits, the weights must not.
WEIGHT_UNIT = 2.0**-16


class Config(Record):
    """`tiny` has nothing to choose."""


class Encoder:
    """See the module's docstring. `spec` says what it is; `device` is any torch device."""

    def __init__(self, config: Config, device: str | torch.device = "cpu"):
        self.config = config
        self.device = torch.device(device)
        self.dtype = torch.float32
        weight_CP = cosine_patch_weights()
        self.spec = EncoderSpec(
            family="tiny",
            weights="built-in",
            digest=tensor_digest({"weight": weight_CP}),
            clip_frames=CLIP_FRAMES,
            tubelet=TUBELET,
            patch_px=PATCH_PX,
            input_height=INPUT_PX,
            input_width=INPUT_PX,
            channels=len(weight_CP),
            mean=MEAN,
            std=STD,
        )
        self._weight_PC = weight_CP.T.contiguous().to(self.device)

    @torch.no_grad()
    def encode(self, frames_BTHWC3: torch.Tensor) -> torch.Tensor:
        """uint8 (B, frames, 128, 128, 3) -> float32 (B, steps, 16, 16, 192) on the encoder's device.

        Any number of frames that is a multiple of the tubelet. Raises `ConfigError` for other shapes.
        """
        shape = tuple(frames_BTHWC3.shape)
        if (
            frames_BTHWC3.dtype != torch.uint8 or len(shape) != 5 or shape[2:] != (INPUT_PX, INPUT_PX, 3)
            or shape[1] == 0 or shape[1] % TUBELET
        ):
            raise ConfigError(
                f"encoder tiny: expected uint8 frames (clips, multiple of {TUBELET}, {INPUT_PX}, {INPUT_PX}, 3), "
                f"got {frames_BTHWC3.dtype} {shape}"
            )
        # Clip by clip: a matrix product's last bits depend on its number of rows, a token must not depend on its batch.
        # A caller's autocast would give other tokens than a store has.
        with torch.autocast(self.device.type, enabled=False):
            return torch.stack([self._encode_clip(frames_THW3) for frames_THW3 in frames_BTHWC3])

    def _encode_clip(self, frames_THW3: torch.Tensor) -> torch.Tensor:
        pixels_THW3 = normalise(frames_THW3.to(self.device), MEAN, STD)
        num_cells = INPUT_PX // PATCH_PX
        patches = pixels_THW3.reshape(-1, TUBELET, num_cells, PATCH_PX, num_cells, PATCH_PX, 3)
        patches_THWP = patches.permute(0, 2, 4, 1, 3, 5, 6).flatten(3)
        return patches_THWP @ self._weight_PC


def cosine_patch_weights() -> torch.Tensor:
    """The patch embedding, float32 (C, P), P ordered (frame, y, x, RGB); channels ordered (colour, sum/difference, frequency)."""
    basis_88 = _cosine_basis(PATCH_PX)
    by_frequency = sorted(
        ((u, v) for u in range(PATCH_PX) for v in range(PATCH_PX)), key=lambda uv: (uv[0] ** 2 + uv[1] ** 2, uv)
    )
    time_22 = np.array([[1.0, 1.0], [1.0, -1.0]]) / math.sqrt(2.0)
    rows = []
    for colour_3, spectra, nums in zip(OPPONENT_COLOURS_33, SPECTRUM, NUM_FREQUENCIES, strict=True):
        for time_2, spectrum, num in zip(time_22, spectra, nums, strict=True):
            for u, v in by_frequency[:num]:
                kernel_tyx3 = np.einsum("t,y,x,c->tyxc", time_2, basis_88[u], basis_88[v], np.array(colour_3))
                rows.append(kernel_tyx3.ravel() / _expected_std(math.hypot(u, v), *spectrum))
    weight_CP = np.round(np.stack(rows) / WEIGHT_UNIT) * WEIGHT_UNIT
    return torch.from_numpy(weight_CP.astype(np.float32))


def _cosine_basis(size: int) -> np.ndarray:
    """The orthonormal DCT-II basis (size, size), one frequency per row."""
    frequency, position = np.arange(size)[:, None], np.arange(size)[None]
    basis = np.cos(np.pi * (position + 0.5) * frequency / size) * math.sqrt(2.0 / size)
    basis[0] /= math.sqrt(2.0)
    return basis


def _expected_std(frequency: float, constant: float, first: float, exponent: float) -> float:
    if frequency == 0.0:
        return constant
    return max(first * frequency**-exponent, SPECTRUM_FLOOR)
