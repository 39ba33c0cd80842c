"""What metrics, conventions and thresholds a request names, and their figures."""

from __future__ import annotations

from collections.abc import Sequence

from vjepa_loc.errors import ConfigError, UnknownNameError, nearest_name
from vjepa_loc.metrics._result import ALL_THRESHOLDS, MetricResult, Thresholds, metric_key, steps, threshold_names
from vjepa_loc.plugins import load_plugin, plugin_names
from vjepa_loc.scoring_input import ScoringInput

METRICS_PACKAGE = "vjepa_loc.metrics"
ALL_METRICS = "all"

# A step so small that a range has more thresholds is a slip; each of them costs time and memory.
MOST_STEPS = 1000


def check_metrics(names: Sequence[str], iou: str | None = None) -> None:
    """Raise what `evaluate` would for wrong names or thresholds, before anything is read or predicted."""
    metric_conventions(names)
    if iou is not None:
        threshold_names(parse_iou(iou))


def parse_iou(text: str) -> list[float | tuple[float, ...]]:
    """Thresholds from `0.25,0.5,0.5:0.05:0.95`; `start:step:end` is the mean over a range that includes its end.

    Raises ConfigError where an entry is neither.
    """
    return [_parse_iou_entry(entry.strip()) for entry in text.split(",")]


def _parse_iou_entry(entry: str) -> float | tuple[float, ...]:
    wrong = ConfigError(
        f"--iou: expected a number (0.5) or a range with its end on a step (0.5:0.05:0.95), all above 0 and up to 1, "
        f"got {entry!r}"
    )
    try:
        numbers = [float(part) for part in entry.split(":")]
    except ValueError:
        raise wrong from None
    if len(numbers) not in (1, 3) or not all(0 < number <= 1 for number in numbers):
        raise wrong
    if len(numbers) == 1:
        return numbers[0]
    start, step, end = numbers
    if (end - start) / step > MOST_STEPS:
        raise ConfigError(f"--iou: expected a range of at most {MOST_STEPS} steps, got {entry!r}; choose a larger step")
    num_steps = round((end - start) / step)
    if num_steps < 1 or abs(start + num_steps * step - end) > 1e-9:
        raise wrong
    return steps(start, step, end)


def compute_metrics(
    inputs: ScoringInput, names: Sequence[str], thresholds: Thresholds | None = None
) -> dict[str, tuple[str, MetricResult]]:
    """By metric and convention (`tal`, `frame_map[coco]`), in order: the rule in a line, and the result.

    `thresholds` replaces the metrics' own; with `all` among the names, theirs are `ALL_THRESHOLDS` for those over IoU.
    Raises UnknownNameError for a metric or convention that does not exist, ConfigError for wrong thresholds.
    """
    if thresholds is None and ALL_METRICS in names:
        thresholds = ALL_THRESHOLDS
    results = {}
    for name, convention in metric_conventions(names):
        module = load_plugin(METRICS_PACKAGE, name, "metric")
        result = module.compute(inputs, convention, module.DEFAULT_THRESHOLDS if thresholds is None else thresholds)
        results[metric_key(name, convention)] = module.CONVENTIONS[convention], result
    return results


def metric_conventions(names: Sequence[str]) -> list[tuple[str, str]]:
    """The metrics and conventions that names stand for, each once.

    `tal` is the plain convention where a metric has one, else all of them (`frame_map`); `frame_map[coco]` is one;
    `all` is every convention of every metric.
    """
    if not names:
        raise ConfigError(
            f"metrics: expected at least one of: {', '.join([*plugin_names(METRICS_PACKAGE), ALL_METRICS])}; got none"
        )
    chosen: dict[tuple[str, str], None] = {}
    for full_name in names:
        if full_name == ALL_METRICS:
            for name in plugin_names(METRICS_PACKAGE):
                chosen |= dict.fromkeys((name, convention) for convention in _conventions(name))
            continue
        name, bracket, rest = full_name.partition("[")
        conventions = _conventions(name)
        if not bracket:
            chosen |= dict.fromkeys((name, convention) for convention in ([""] if "" in conventions else conventions))
            continue
        convention = rest.removesuffix("]")
        if not rest.endswith("]") or not convention or convention not in conventions:
            known = [metric_key(name, one) for one in conventions]
            raise UnknownNameError(
                f"unknown metric {full_name!r}, expected one of: {', '.join(known)}.{nearest_name(full_name, known)}"
            )
        chosen[name, convention] = None
    return list(chosen)


def _conventions(name: str) -> dict[str, str]:
    return load_plugin(METRICS_PACKAGE, name, "metric").CONVENTIONS
