"""What every metric returns, and the IoU thresholds that its figures are named after."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from vjepa_loc.errors import ConfigError

Thresholds = Sequence[float | Sequence[float]]
"""Entries of one figure each: a threshold, or several whose mean is reported."""

GROCERY_VISION_THRESHOLDS: Thresholds = (0.25, 0.5, tuple(round(0.5 + 0.05 * i, 2) for i in range(10)))
"""The triple of the GroceryVision challenge. Rounded, so that an overlap of exactly 11/20 reaches 0.55."""


@dataclass(frozen=True)
class MetricResult:
    """Figures of one metric, each 0..1.

    `values` by name, such as `tal/map@0.50`; `per_class` by label and then by the same names; `notes` say in words
    what was left out and how often.
    """

    values: dict[str, float]
    per_class: dict[str, dict[str, float]]
    notes: list[str] = field(default_factory=list)


def threshold_names(thresholds: Thresholds) -> dict[str, tuple[float, ...]]:
    """The name of each entry's figure (`0.50`, `0.50:0.95`) with the thresholds it is the mean over.

    Raises ConfigError for no entries, an empty one, one outside 0 < threshold <= 1, or two of the same name.
    """
    names: dict[str, tuple[float, ...]] = {}
    for entry in thresholds:
        values = tuple(float(value) for value in (entry if isinstance(entry, Sequence) else (entry,)))
        if not values or not all(0 < value <= 1 for value in values):
            raise ConfigError(f"IoU thresholds: expected numbers above 0 and up to 1, got {list(values)}")
        name = ":".join(_threshold_text(value) for value in dict.fromkeys((values[0], values[-1])))
        if name in names:
            raise ConfigError(f"IoU thresholds: two entries would both be named {name!r}; leave one out")
        names[name] = values
    if not names:
        raise ConfigError("IoU thresholds: expected at least one, got none")
    return names


def _threshold_text(value: float) -> str:
    return f"{value:.2f}" if round(value, 2) == value else repr(value)
