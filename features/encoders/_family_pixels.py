"""What a family of encoders does to pixels before its first layer, as one mean and one standard deviation of RGB in 0..1.

The processors of transformers multiply uint8 by a factor, some subtract 1 (`offset`), then normalise with mean and deviation:
`(x * factor - offset - mean) / std`. With x = 255 v that is `(v - (offset + mean) / (255 factor)) / (std / (255 factor))`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from features.schema import Rgb
from vjepa_loc.errors import WeightsError

BYTE = 1.0 / 255.0


@dataclass(frozen=True)
class PixelRule:
    """A family's own rule, which stands where a checkpoint's processor does not say otherwise.

    `factor` multiplies uint8, `offset` is subtracted then, `mean` and `std` follow unless `normalises` is False. `fixed` families
    are given the same pixels whatever the file says.
    """

    mean: Rgb = (0.0, 0.0, 0.0)
    std: Rgb = (1.0, 1.0, 1.0)
    factor: float = BYTE
    offset: bool = False
    fixed: bool = False

    def mean_and_std(self, processor: Mapping[str, Any], weights: str) -> tuple[Rgb, Rgb]:
        """Of RGB in 0..1, under the settings of a checkpoint's processor (empty where it has none).

        Raises WeightsError where the settings are no numbers to work with.
        """
        said = {} if self.fixed else {name: value for name, value in processor.items() if value is not None}
        try:
            factor = float(said.get("rescale_factor", self.factor)) if said.get("do_rescale", True) else 1.0
            offset = 1.0 if said.get("offset", self.offset) and said.get("do_rescale", True) else 0.0
            normalises = said.get("do_normalize", True)
            mean = _rgb(said.get("image_mean", self.mean)) if normalises else (0.0, 0.0, 0.0)
            std = _rgb(said.get("image_std", self.std)) if normalises else (1.0, 1.0, 1.0)
            # Factors are written with 10 to 17 digits: the same rule must give the same encoding.
            scale = round(255.0 * factor, 9)
            if not (scale > 0 and min(std) > 0 and all(map(math.isfinite, (scale, *mean, *std)))):
                raise ValueError("the factor and every deviation must be positive")
        except (TypeError, ValueError) as error:
            raise WeightsError(
                f"encoder.weights: {weights}: its processor's configuration cannot be used ({error}); expected rescale_factor, "
                f"image_mean and image_std as numbers; download the checkpoint again"
            ) from None
        return tuple((offset + m) / scale for m in mean), tuple(s / scale for s in std)


def _rgb(value: Any) -> Rgb:
    if not isinstance(value, Sequence):
        value = [value] * 3
    if len(value) != 3:
        raise ValueError(f"expected 3 values, one per colour, got {len(value)}")
    return tuple(float(x) for x in value)
