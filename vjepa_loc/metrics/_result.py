"""What every metric returns, and the thresholds that its figures are named after."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vjepa_loc.errors import ConfigError
from vjepa_loc.picture import Picture
from vjepa_loc.tables import ResultTable

Thresholds = Sequence[float | Sequence[float]]
"""Entries of one figure each: a threshold, or several whose mean is reported."""


def steps(start: float, step: float, end: float) -> tuple[float, ...]:
    """Thresholds from `start` to `end`, both included. Rounded, so that an overlap of exactly 11/20 reaches 0.55."""
    return tuple(round(start + step * index, 9) for index in range(round((end - start) / step) + 1))


GROCERY_VISION_THRESHOLDS: Thresholds = (0.25, 0.5, steps(0.5, 0.05, 0.95))
"""The triple of the GroceryVision challenge."""

ALL_THRESHOLDS: Thresholds = (
    *(0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.9),
    steps(0.3, 0.1, 0.7),
    steps(0.5, 0.05, 0.95),
    steps(0.05, 0.05, 0.45),
    steps(0.1, 0.1, 0.9),
)
"""What the metrics over IoU report when all metrics are asked for: single thresholds, then the means that papers of
THUMOS, ActivityNet and MultiSports give."""

Resample = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""From weights (W, V) - how often each of V videos is drawn, whole numbers, in each of W resamples - to figures (W,)
by key: what the metric would give for those videos, each copy a video of its own; NaN where it would be undefined."""


@dataclass(frozen=True, eq=False)
class MetricResult:
    """Figures of one metric under one convention.

    `values` by name, such as `tal/map@0.50`: 0..1, or frames where the name ends in `_frames`; `per_class` by label
    and then by the same names (some may be missing there). `notes` say in words what was left out and how often.
    `headline` are the keys that get an interval, and `resample` computes exactly those.
    `inapplicable`, where set, says why there are no figures.
    """

    values: dict[str, float]
    per_class: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    headline: tuple[str, ...] = ()
    resample: Resample | None = None
    tables: tuple[ResultTable, ...] = ()
    pictures: tuple[Picture, ...] = ()
    inapplicable: str | None = None


def not_applicable(reason: str) -> MetricResult:
    """The result of a metric that has nothing to score here; `reason` says why in words."""
    return MetricResult({}, inapplicable=reason)


def together(*results: MetricResult, notes: Sequence[str] = ()) -> MetricResult:
    """One result of several with figures of their own and a `resample` each; `notes` come before theirs, each once."""
    per_class: dict[str, dict[str, float]] = {}
    for result in results:
        for label, figures in result.per_class.items():
            per_class[label] = per_class.get(label, {}) | figures

    def resample(weights_WV: np.ndarray) -> dict[str, np.ndarray]:
        return {key: figure_W for result in results for key, figure_W in result.resample(weights_WV).items()}

    return MetricResult(
        {key: value for result in results for key, value in result.values.items()},
        per_class,
        list(dict.fromkeys([*notes, *(note for result in results for note in result.notes)])),
        tuple(key for result in results for key in result.headline),
        resample,
        tuple(table for result in results for table in result.tables),
        tuple(picture for result in results for picture in result.pictures),
    )


def metric_key(metric: str, convention: str) -> str:
    """The name of a metric under a convention: `tal`, `frame_map[coco]`."""
    return f"{metric}[{convention}]" if convention else metric


def threshold_names(thresholds: Thresholds) -> dict[str, tuple[float, ...]]:
    """The name of each entry's figure (`0.50`, `0.50:0.95`) with the thresholds it is the mean over.

    Raises ConfigError for no entries, an empty one, one outside 0 < threshold <= 1, or two of the same name.
    """
    names: dict[str, tuple[float, ...]] = {}
    for entry in thresholds:
        values = tuple(float(value) for value in (entry if isinstance(entry, Sequence) else (entry,)))
        if not values or not all(0 < value <= 1 for value in values):
            raise ConfigError(f"IoU thresholds: expected numbers above 0 and up to 1, got {list(values)}")
        name = ":".join(threshold_text(value) for value in dict.fromkeys((values[0], values[-1])))
        if name in names:
            raise ConfigError(f"IoU thresholds: two entries would both be named {name!r}; leave one out")
        names[name] = values
    if not names:
        raise ConfigError("IoU thresholds: expected at least one, got none")
    return names


def added_up(values: tuple[float, ...]) -> tuple[float, ...]:
    """Evenly spaced thresholds as `start + step * i` gives them, unrounded: how ACT and MultiSports compute
    theirs. 0.05 + 0.05 * 2 lies above 0.15, so that an overlap of exactly 0.15 is not enough there. Others as they are."""
    if len(values) < 2:
        return values
    step = round(values[1] - values[0], 9)
    added = tuple(values[0] + step * index for index in range(len(values)))
    return added if np.allclose(added, values, rtol=0, atol=1e-9) else values


def linearly_spaced(values: tuple[float, ...]) -> tuple[float, ...]:
    """Evenly spaced thresholds as numpy's linspace gives them, unrounded: how ActivityNet and pycocotools compute
    theirs. 0.30000000000000004 is the third of nine from 0.1 to 0.9. Others as they are."""
    spaced = np.linspace(values[0], values[-1], len(values))
    return tuple(spaced.tolist()) if np.allclose(spaced, values, rtol=0, atol=1e-9) else values


def threshold_text(value: float) -> str:
    return f"{value:.2f}" if round(value, 2) == value else repr(value)
