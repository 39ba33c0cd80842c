"""Which tables an evaluation is shown in: few and short for a few figures, ordered by kind for a hundred and fifty."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vjepa_loc.tables import Cell, ResultTable

if TYPE_CHECKING:
    from vjepa_loc.evaluation import Evaluation

# Up to so many figures stand in the first table, whether they have an interval or not, and are all given per class.
FEW_FIGURES = 12

# `tal/map@0.50`, `tal[drop]/recall@0.50:0.95@1`: what is in front of the IoU threshold, the threshold, what is behind.
_BY_THRESHOLD = re.compile(r"(?P<front>[^@]+)@(?P<threshold>\d*\.\d+(:\d*\.\d+)?)(?P<rest>@.+)?")

_LOW, _HIGH = "95% \nlow", "95% \nhigh"


def shown_tables(evaluation: Evaluation) -> list[ResultTable]:
    """The figures for people: the main ones with intervals, all by threshold, the others, per class, counts, what does not apply."""
    first = list(evaluation.metrics) if len(evaluation.metrics) <= FEW_FIGURES else _headline(evaluation)
    tables = [_headline_table(evaluation, first), _difference_table(evaluation, first)]
    if len(first) < len(evaluation.metrics):
        by_threshold = _threshold_table(evaluation)
        in_matrix = {key for key in evaluation.metrics if _place(key)[0] in {row[0] for row in by_threshold.rows}}
        others = [key for key in evaluation.metrics if key not in in_matrix and key not in first]
        tables += [by_threshold, ResultTable("Other figures", ("figure", "value"), tuple((key, evaluation.metrics[key]) for key in others))]
    tables += [_class_table(evaluation), _count_table(evaluation)]
    tables.append(ResultTable("What does not apply", ("metric", "because"), tuple(evaluation.not_applicable.items())))
    return [table for table in tables if table.rows]


def csv_tables(evaluation: Evaluation) -> list[ResultTable]:
    """Everything that becomes a CSV file: what is shown, every figure and every figure per class, and what the report adds."""
    keys = list(evaluation.metrics)
    figures = ResultTable("Figures", *_figure_rows(evaluation, keys))
    counts = _class_counts(evaluation)
    per_class = ResultTable(
        "Figures per class",
        ("class", "truth", "predictions", *keys),
        tuple((label, *counts[label], *_class_cells(evaluation, label, keys)) for label in counts),
    )
    return [*shown_tables(evaluation), figures, per_class, *metric_tables(evaluation), *diagnosis_tables(evaluation)]


def metric_tables(evaluation: Evaluation) -> list[ResultTable]:
    """The tables that the metrics themselves make, under the metric's name."""
    return [
        ResultTable(f"{name}: {table.title}", table.columns, table.rows)
        for name, result in evaluation.results.items()
        for table in result.tables
    ]


def diagnosis_tables(evaluation: Evaluation) -> list[ResultTable]:
    """The tables of the diagnosis, named so that their CSV files stand together."""
    return [
        ResultTable(table.title, table.columns, table.rows, name=f"diagnosis {table.slug}") for table in evaluation.diagnosis.tables
    ]


def _headline(evaluation: Evaluation) -> list[str]:
    return [key for result in evaluation.results.values() for key in result.headline]


def _headline_table(evaluation: Evaluation, keys: Sequence[str]) -> ResultTable:
    num_videos = len(evaluation.videos)
    title = f"Split {evaluation.split}, {num_videos} video{'s' if num_videos != 1 else ''}"
    title += f": {evaluation.run}" if evaluation.run else ""
    return ResultTable(title, *_figure_rows(evaluation, keys), name="headline")


def _figure_rows(evaluation: Evaluation, keys: Sequence[str]) -> tuple[tuple[str, ...], tuple[tuple[Cell, ...], ...]]:
    """Columns and rows of figures with their intervals, where there are any, and the baselines'."""
    columns = ["figure", "value", *([_LOW, _HIGH] if evaluation.intervals else [])]
    rows = []
    for key in keys:
        interval = evaluation.intervals.get(key, (None, None)) if evaluation.intervals else ()
        rows.append((key, evaluation.metrics[key], *interval, *(figures.get(key) for figures in evaluation.baselines.values())))
    return (*columns, *map(_broken, evaluation.baselines)), tuple(rows)


def _difference_table(evaluation: Evaluation, keys: Sequence[str]) -> ResultTable:
    """The comparison with other predictions, in the order of `keys`; a star where the interval of the difference lies on one side of 0."""
    against = evaluation.against
    if against is None:
        return ResultTable("", (), ())
    with_intervals = any(found.interval for found in against.differences.values())
    columns = ["figure", "here", "there", "difference", *([_LOW, _HIGH, "not 0"] if with_intervals else [])]
    rows = []
    for key in (key for key in keys if key in against.differences):
        found = against.differences[key]
        row = [key, evaluation.metrics[key], against.metrics[key], found.difference]
        if with_intervals:
            low, high = found.interval or (None, None)
            row += [low, high, "*" if found.interval and found.interval.excludes_zero() else ""]
        rows.append(tuple(row))
    return ResultTable(f"Difference to {against.name}", tuple(columns), tuple(rows), name="differences")


def _threshold_table(evaluation: Evaluation) -> ResultTable:
    """Figures that exist at several thresholds: one row each, single thresholds first, then the means over several."""
    by_row: dict[str, dict[str, float]] = {}
    for key, value in evaluation.metrics.items():
        row, threshold = _place(key)
        if threshold is not None:
            by_row.setdefault(row, {})[threshold] = value
    by_row = {row: cells for row, cells in by_row.items() if len(cells) > 1}
    thresholds = dict.fromkeys(threshold for cells in by_row.values() for threshold in cells)
    ordered = sorted(thresholds, key=lambda name: (":" in name, [float(number) for number in name.split(":")]))
    rows = tuple((row, *(cells.get(threshold) for threshold in ordered)) for row, cells in by_row.items())
    return ResultTable("By threshold", ("figure", *(f"@{name}".replace(":", "\n:") for name in ordered)), rows)


def _place(key: str) -> tuple[str, str | None]:
    """Row and column of a figure in the table by threshold; the column is None for a figure that has none."""
    found = _BY_THRESHOLD.fullmatch(key)
    return (key, None) if found is None else (found["front"] + (found["rest"] or ""), found["threshold"])


def _class_table(evaluation: Evaluation) -> ResultTable:
    """All figures where there are few, else each metric's first."""
    known = {key for figures in evaluation.per_class.values() for key in figures}
    if len(evaluation.metrics) <= FEW_FIGURES:
        title, keys = "Per class", [key for key in evaluation.metrics if key in known]
    else:
        title = "Per class, one figure of each metric"
        keys = [next(iter(key for key in result.headline if key in known), None) for result in evaluation.results.values()]
    keys = [key for key in keys if key is not None]
    counts = _class_counts(evaluation)
    rows = tuple((label, *counts[label], *_class_cells(evaluation, label, keys)) for label in counts)
    # Broken behind the metric and before its convention, since the figures are narrow.
    headings = [re.sub(r"\[", "\n[", key).replace("/", "/\n").replace("@", "\n@", 1) for key in keys]
    return ResultTable(title, ("class", "truth", "predictions", *headings), rows, name="per class")


def _class_counts(evaluation: Evaluation) -> dict[str, tuple[int, int]]:
    """Numbers of truth events and predictions of the labels that have any."""
    labels = evaluation.dataset.labels
    counts = [np.bincount(table.label_N, minlength=len(labels)).tolist() for table in (evaluation.inputs.truths, evaluation.inputs.predictions)]
    return {label: both for label, both in zip(labels, zip(*counts, strict=True), strict=True) if any(both)}


def _class_cells(evaluation: Evaluation, label: str, keys: Sequence[str]) -> list[Cell]:
    figures = evaluation.per_class.get(label, {})
    return [figures.get(key) for key in keys]


def _count_table(evaluation: Evaluation) -> ResultTable:
    truths, predictions = evaluation.inputs.truths, evaluation.inputs.predictions
    counts = {
        "videos": len(evaluation.videos),
        "videos missing from the store": len(evaluation.missing_videos),
        "truth events": len(truths),
        "truth events with boxes": int((truths.num_boxes_N > 0).sum()),
        "predictions": len(predictions),
        "predictions with boxes": int((predictions.num_boxes_N > 0).sum()),
    }
    return ResultTable("Counts", ("count", "number"), tuple(counts.items()))


def _broken(name: str) -> str:
    """A name of several words as a narrow heading."""
    return " \n".join(textwrap.wrap(name, 10))
