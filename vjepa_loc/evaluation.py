"""Scoring predictions of one split with any metrics, and what is kept of it: figures, predictions, a report.

`evaluate` needs no model, no store and no video, so that predictions from anywhere can be scored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vjepa_loc.atomic import write_text
from vjepa_loc.dataset import Dataset, Video, write_predictions
from vjepa_loc.errors import ConfigError, UnknownNameError, nearest_name
from vjepa_loc.events import Event
from vjepa_loc.scoring_input import ScoringInput
from vjepa_loc.metrics._result import ALL_THRESHOLDS, MetricResult, Thresholds, metric_key
from vjepa_loc.plugins import load_plugin, plugin_names

METRICS_PACKAGE = "vjepa_loc.metrics"
ALL_METRICS = "all"


@dataclass(frozen=True)
class Table:
    """A table for people: every cell is text, the first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class EvaluationFiles:
    """Paths of what `Evaluation.write` wrote."""

    metrics: Path
    predictions: Path
    report: Path


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Figures of one split, with what they were computed from.

    `metrics` and `per_class` as in `MetricResult`, over all metrics; `protocols` names each metric's rule in a line;
    `predictions` are those in the split's videos; `missing_videos` are ids of the split that no prediction could be
    made for; `baselines` are the same figures of other runs, by name.
    """

    dataset: Dataset
    split: str
    videos: list[Video]
    predictions: list[Event]
    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]
    protocols: dict[str, str]
    notes: list[str] = field(default_factory=list)
    run: str | None = None
    store_fingerprints: tuple[str, ...] = ()
    missing_videos: tuple[str, ...] = ()
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def truths(self) -> list[Event]:
        """Truth of the split's videos, in the order of the videos."""
        return [event for video in self.videos for event in self.dataset.events_of(video.id)]

    def to_dict(self) -> dict:
        """The content of `metrics.json`."""
        content = {
            "split": self.split,
            "run": self.run,
            "store_fingerprints": list(self.store_fingerprints),
            "metrics": self.metrics,
            "per_class": self.per_class,
            "missing_videos": list(self.missing_videos),
            "notes": self.notes,
        }
        return content | ({"baselines": self.baselines} if self.baselines else {})

    def tables(self) -> list[Table]:
        """Overall figures (with the baselines below), figures per class, and counts."""
        return [self._overall_table(), self._class_table(), self._count_table()]

    def write(self, out_dir: Path | str) -> EvaluationFiles:
        """Write `metrics.json`, `predictions.json` and `report.html` into `out_dir`, each all or nothing.

        `metrics.json` comes last: where it is, the others are.
        """
        import json

        from vjepa_loc.report import render_report

        out_dir = Path(out_dir)
        files = EvaluationFiles(
            metrics=out_dir / "metrics.json",
            predictions=out_dir / "predictions.json",
            report=out_dir / "report.html",
        )
        write_predictions(self.predictions, self.dataset, files.predictions)
        write_text(files.report, render_report(self))
        write_text(files.metrics, json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        return files

    def _overall_table(self) -> Table:
        rows = [(self.run or "predictions", self.metrics), *self.baselines.items()]
        return Table(
            f"Split {self.split}, {len(self.videos)} video{'s' if len(self.videos) != 1 else ''}",
            ("", *self.metrics),
            tuple((name, *_figures(figures, self.metrics)) for name, figures in rows),
        )

    def _class_table(self) -> Table:
        truths, predictions = self.truths, self.predictions
        rows = []
        for label in self.dataset.labels:
            num_truths = sum(event.label == label for event in truths)
            num_predictions = sum(event.label == label for event in predictions)
            if num_truths or num_predictions:
                figures = _figures(self.per_class.get(label, {}), self.metrics)
                rows.append((label, str(num_truths), str(num_predictions), *figures))
        return Table("Per class", ("class", "truth", "predictions", *self.metrics), tuple(rows))

    def _count_table(self) -> Table:
        truths = self.truths
        counts = {
            "videos": len(self.videos),
            "videos missing from the store": len(self.missing_videos),
            "truth events": len(truths),
            "truth events with boxes": sum(event.num_boxes > 0 for event in truths),
            "predictions": len(self.predictions),
            "predictions with boxes": sum(event.num_boxes > 0 for event in self.predictions),
        }
        return Table("Counts", ("", "number"), tuple((name, str(count)) for name, count in counts.items()))


def evaluate(
    dataset: Dataset,
    split: str,
    predictions: Sequence[Event],
    metrics: Sequence[str] = ("tal", "stal"),
    iou: str | Sequence[float | Sequence[float]] | None = None,
    run: str | None = None,
    fingerprints: Sequence[str] = (),
    missing_videos: Sequence[str] = (),
    baselines: Mapping[str, Mapping[str, float]] | None = None,
) -> Evaluation:
    """Score `predictions` against the truth of a split (`all` is every video).

    `metrics` are names of metrics, or `all`. `iou` replaces the metrics' own thresholds: text as `parse_iou` reads
    it, or numbers. `fingerprints` are those of the stores behind the predictions. `missing_videos` keep their truth
    as misses and are listed. Predictions in other videos of the dataset are left out, and noted.

    Raises UnknownNameError for a split, metric or missing video that does not exist, ConfigError for wrong
    thresholds or no metric, DatasetError for a prediction without a score.
    """
    videos = dataset.videos_of_split(split)
    video_ids = [video.id for video in videos]
    for video_id in missing_videos:
        dataset.events_of(video_id)
    thresholds = parse_iou(iou) if isinstance(iou, str) else iou
    inputs = ScoringInput.of(dataset, predictions, video_ids)
    results = compute_metrics(inputs, metrics, thresholds)

    values: dict[str, float] = {}
    per_class: dict[str, dict[str, float]] = {label: {} for label in dataset.labels}
    protocols, notes = {}, []
    if inputs.num_elsewhere:
        notes.append(f"{inputs.num_elsewhere} predictions in other videos are not counted")
    for name, (rule, result) in results.items():
        if result.inapplicable is not None:
            notes.append(f"{name} does not apply: {result.inapplicable}")
            continue
        values |= result.values
        for label, figures in result.per_class.items():
            per_class[label] |= figures
        protocols[name] = rule
        notes += result.notes
    in_split = set(video_ids)
    return Evaluation(
        dataset=dataset,
        split=split,
        videos=videos,
        predictions=[event for event in predictions if event.video_id in in_split],
        metrics=values,
        per_class={label: figures for label, figures in per_class.items() if figures},
        protocols=protocols,
        notes=notes,
        run=run,
        store_fingerprints=tuple(fingerprints),
        missing_videos=tuple(video_id for video_id in dict.fromkeys(missing_videos) if video_id in in_split),
        baselines={name: dict(figures) for name, figures in (baselines or {}).items()},
    )


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
    num_steps = round((end - start) / step)
    if num_steps < 1 or abs(start + num_steps * step - end) > 1e-9:
        raise wrong
    # Rounded, so that 0.5 + 0.05 + 0.05 is the 0.6 that an overlap of three fifths reaches.
    return tuple(round(start + index * step, 9) for index in range(num_steps + 1))


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
    if ALL_METRICS in names:
        return [
            (name, convention)
            for name in plugin_names(METRICS_PACKAGE)
            for convention in load_plugin(METRICS_PACKAGE, name, "metric").CONVENTIONS
        ]
    chosen: dict[tuple[str, str], None] = {}
    for full_name in names:
        name, bracket, rest = full_name.partition("[")
        conventions = load_plugin(METRICS_PACKAGE, name, "metric").CONVENTIONS
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


def _figures(figures: Mapping[str, float], keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{figures[key]:.3f}" if key in figures else "–" for key in keys)
