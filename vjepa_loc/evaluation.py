"""Scoring predictions of one split with any metrics, and what is kept of it: figures with intervals, tables, a report.

`evaluate` needs no model, no store and no video, so that predictions from anywhere can be scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vjepa_loc.atomic import write_text
from vjepa_loc.bootstrap import Bootstrap, Difference, Interval, intervals_of, outside_note, percentile_interval, undefined_note
from vjepa_loc.dataset import Dataset, Video, write_predictions
from vjepa_loc.events import Event
from vjepa_loc.evaluation_tables import csv_tables, shown_tables
from vjepa_loc.metric_names import compute_metrics, parse_iou
from vjepa_loc.metrics._result import MetricResult, Thresholds
from vjepa_loc.scoring_input import ScoringInput
from vjepa_loc.tables import ResultTable, write_csvs

if TYPE_CHECKING:
    from vjepa_loc.diagnosis import Diagnosis


@dataclass(frozen=True)
class EvaluationFiles:
    """Paths of what `Evaluation.write` wrote; `tables` is the folder of the CSV files."""

    metrics: Path
    predictions: Path
    report: Path
    tables: Path


@dataclass(frozen=True)
class OtherPredictions:
    """Predictions to compare with. `missing_videos` are ids that none could be made for."""

    name: str
    events: Sequence[Event]
    missing_videos: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """The figures of other predictions of the same videos, and how far the evaluated ones lie above them, by headline key."""

    name: str
    metrics: dict[str, float]
    differences: dict[str, Difference]

    def to_dict(self) -> dict:
        differences = {}
        for key, found in self.differences.items():
            low, high = found.interval or (None, None)
            differences[key] = {"difference": found.difference, "low": low, "high": high}
        return {"name": self.name, "metrics": self.metrics, "differences": differences}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Figures of one split, with what they were computed from.

    `inputs` hold the split's truth and predictions; `results` are those of the metrics that apply, `protocols` each
    one's rule in a line, `not_applicable` why the others do not. `intervals` are 95% intervals by headline key, made as
    `bootstrap` says. `missing_videos` are ids of the split that no prediction could be made for; `baselines` the same
    figures of other predictions, by name; `against` a comparison with intervals.
    """

    inputs: ScoringInput
    split: str
    results: dict[str, MetricResult]
    protocols: dict[str, str]
    not_applicable: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    intervals: dict[str, Interval] = field(default_factory=dict)
    bootstrap: Bootstrap = Bootstrap(0)
    run: str | None = None
    predictions_file: str | None = None
    store_fingerprints: tuple[str, ...] = ()
    missing_videos: tuple[str, ...] = ()
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)
    against: Comparison | None = None

    @property
    def dataset(self) -> Dataset:
        return self.inputs.dataset

    @cached_property
    def videos(self) -> list[Video]:
        return [self.dataset.videos[video_id] for video_id in self.inputs.video_ids]

    @property
    def predictions(self) -> list[Event]:
        """Those in the split's videos, in the order of their file."""
        return list(self.inputs.predictions.events)

    @property
    def truths(self) -> list[Event]:
        """Truth of the split's videos, in the order of the file."""
        return list(self.inputs.truths.events)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Every figure by key, over all metrics."""
        return figures_of(self.results)

    @cached_property
    def per_class(self) -> dict[str, dict[str, float]]:
        """By label, then by key."""
        by_label: dict[str, dict[str, float]] = {label: {} for label in self.dataset.labels}
        for result in self.results.values():
            for label, figures in result.per_class.items():
                by_label[label] |= figures
        return {label: figures for label, figures in by_label.items() if figures}

    @cached_property
    def diagnosis(self) -> Diagnosis:
        """Where the missing points go; made when it is first asked for."""
        from vjepa_loc.diagnosis import diagnose

        return diagnose(self.inputs)

    def to_dict(self) -> dict:
        """The content of `metrics.json`."""
        content = {
            "dataset": None if self.dataset.path is None else str(self.dataset.path),
            "split": self.split,
            "run": self.run,
            "predictions_file": self.predictions_file,
            "store_fingerprints": list(self.store_fingerprints),
            "protocols": self.protocols,
            "metrics": self.metrics,
            "intervals": {key: list(interval) for key, interval in self.intervals.items()},
            "bootstrap": {"resamples": self.bootstrap.resamples, "seed": self.bootstrap.seed},
            "per_class": self.per_class,
            "not_applicable": self.not_applicable,
            "missing_videos": list(self.missing_videos),
            "notes": self.notes,
        }
        if self.baselines:
            content["baselines"] = self.baselines
        if self.against is not None:
            content["against"] = self.against.to_dict()
        return content | {"diagnosis": self.diagnosis.to_dict()}

    def tables(self) -> list[ResultTable]:
        """What a person is shown of the figures: see `evaluation_tables`."""
        return shown_tables(self)

    def write(self, out_dir: Path | str) -> EvaluationFiles:
        """Write `metrics.json`, `predictions.json`, `report.html` and `tables/*.csv` into `out_dir`, each all or nothing.

        `metrics.json` comes last: where it is, the others are. CSV files that an earlier evaluation left in `tables` are
        removed.
        """
        import json

        from vjepa_loc.report import render_report

        out_dir = Path(out_dir)
        files = EvaluationFiles(
            metrics=out_dir / "metrics.json",
            predictions=out_dir / "predictions.json",
            report=out_dir / "report.html",
            tables=out_dir / "tables",
        )
        # What can go wrong goes wrong before the first file is touched.
        content = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        report = render_report(self)
        write_predictions(self.predictions, self.dataset, files.predictions)
        write_csvs(csv_tables(self), files.tables)
        write_text(files.report, report)
        write_text(files.metrics, content)
        return files


def evaluate(
    dataset: Dataset,
    split: str,
    predictions: Sequence[Event],
    metrics: Sequence[str] = ("tal", "stal"),
    iou: str | Thresholds | None = None,
    run: str | None = None,
    fingerprints: Sequence[str] = (),
    missing_videos: Sequence[str] = (),
    baselines: Mapping[str, Mapping[str, float]] | None = None,
    bootstrap: Bootstrap = Bootstrap(),
    against: OtherPredictions | None = None,
    seams: Mapping[str, np.ndarray] | None = None,
    predictions_file: str | None = None,
) -> Evaluation:
    """Score `predictions` against the truth of a split (`all` is every video).

    `metrics` are names of metrics, or `all`. `iou` replaces the metrics' own thresholds: text as `parse_iou` reads
    it, or numbers. `fingerprints` are those of the stores behind the predictions. `missing_videos` keep their truth
    as misses and are listed. Predictions in other videos of the dataset are left out, and noted. `against` are
    compared on the same resamples of the videos. `seams` as in `ScoringInput`. `predictions_file` is where the
    predictions come from, to be told.

    Raises UnknownNameError for a split, metric or missing video that does not exist, ConfigError for wrong
    thresholds or no metric, DatasetError for a prediction without a score.
    """
    video_ids = [video.id for video in dataset.videos_of_split(split)]
    for video_id in missing_videos:
        dataset.events_of(video_id)
    thresholds = parse_iou(iou) if isinstance(iou, str) else iou
    inputs = ScoringInput.of(dataset, predictions, video_ids, seams)
    computed = compute_metrics(inputs, metrics, thresholds)
    applicable = {name: result for name, (_, result) in computed.items() if result.inapplicable is None}
    notes = [f"{inputs.num_elsewhere} predictions in other videos are not counted"] if inputs.num_elsewhere else []
    notes += _merged_notes(applicable)

    weights_WV = bootstrap.weights(len(video_ids))
    resampled = resampled_figures(applicable, weights_WV)
    comparison = None
    if against is not None:
        other_inputs = ScoringInput.of(dataset, against.events, video_ids, seams)
        other = {name: result for name, (_, result) in compute_metrics(other_inputs, metrics, thresholds).items()}
        comparison = compare(against.name, applicable, other, resampled, weights_WV)
        notes += _notes_of_other(against, applicable, other, other_inputs.num_elsewhere)
    intervals = intervals_of(resampled)
    own_notes = bootstrap.missing_note(len(video_ids)), undefined_note(resampled), outside_note(figures_of(applicable), intervals)
    notes += [note for note in own_notes if note is not None]
    in_split = set(video_ids)
    return Evaluation(
        inputs=inputs,
        split=split,
        results=applicable,
        protocols={name: computed[name][0] for name in applicable},
        not_applicable={name: result.inapplicable for name, (_, result) in computed.items() if result.inapplicable is not None},
        notes=notes,
        intervals=intervals,
        bootstrap=Bootstrap(len(weights_WV), bootstrap.seed),
        run=run,
        predictions_file=predictions_file,
        store_fingerprints=tuple(fingerprints),
        missing_videos=tuple(video_id for video_id in dict.fromkeys(missing_videos) if video_id in in_split),
        baselines={name: dict(figures) for name, figures in (baselines or {}).items()},
        against=comparison,
    )


def figures_of(results: Mapping[str, MetricResult]) -> dict[str, float]:
    """The figures of several metrics in one."""
    return {key: value for result in results.values() for key, value in result.values.items()}


def resampled_figures(results: Mapping[str, MetricResult], weights_WV: np.ndarray) -> dict[str, np.ndarray]:
    """Every headline figure in each resample, (W,) by key; empty without resamples."""
    if not len(weights_WV):
        return {}
    return {key: figure_W for result in results.values() if result.headline for key, figure_W in result.resample(weights_WV).items()}


def compare(
    name: str,
    results: Mapping[str, MetricResult],
    others: Mapping[str, MetricResult],
    resampled: Mapping[str, np.ndarray],
    weights_WV: np.ndarray,
) -> Comparison:
    """How far the headline figures of `results` lie above those of `others`, on the resamples that gave `resampled`."""
    figures, other_figures = figures_of(results), figures_of(others)
    other_resampled = resampled_figures(others, weights_WV)
    differences = {}
    for key in (key for result in results.values() for key in result.headline if key in other_figures):
        interval = percentile_interval(resampled[key] - other_resampled[key]) if key in resampled and key in other_resampled else None
        differences[key] = Difference(figures[key] - other_figures[key], interval)
    return Comparison(name, other_figures, differences)


def _notes_of_other(
    against: OtherPredictions, results: Mapping[str, MetricResult], others: Mapping[str, MetricResult], num_elsewhere: int
) -> list[str]:
    notes = [f"{name} does not apply: {others[name].inapplicable}" for name in results if others[name].inapplicable is not None]
    comparable = {name: result for name, result in results.items() if others[name].inapplicable is None}
    if undefined := [key for name, result in comparable.items() for key in result.headline if key not in others[name].values]:
        notes.append(f"no difference for figures that are undefined there: {', '.join(undefined)}")
    # What is said of the truth holds for both.
    own = _merged_notes(results)
    notes += [note for note in _merged_notes({name: others[name] for name in comparable}) if note not in own]
    if against.missing_videos:
        notes.append(f"not in its store, their events count as missed: {', '.join(against.missing_videos)}")
    if num_elsewhere:
        notes.append(f"{num_elsewhere} predictions in other videos are not counted")
    return [f"{against.name}: {note}" for note in notes]


def _merged_notes(results: Mapping[str, MetricResult]) -> list[str]:
    """The notes of all metrics; what several say in the same words stands once, behind all their names."""
    names_of: dict[str, list[str]] = {}
    for name, result in results.items():
        for note in result.notes:
            own = note.startswith(f"{name}: ")
            names_of.setdefault(note.removeprefix(f"{name}: "), []).extend([name] if own else [])
    return [f"{', '.join(names)}: {note}" if names else note for note, names in names_of.items()]
