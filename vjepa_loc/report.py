"""The HTML report of an evaluation: one file that needs no network, with its tables and a timeline per video.

This module decides what is drawn and where; `templates/report.html` draws it. Lengths are SVG units, of which a
timeline is `WIDTH` wide at any size of the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vjepa_loc.evaluation_tables import FEW_FIGURES, metric_tables
from vjepa_loc.overlap import event_spans, span_iou
from vjepa_loc.page import render_page
from vjepa_loc.picture import COLOURS
from vjepa_loc.timegrid import nominal_frames_to_seconds

if TYPE_CHECKING:
    from vjepa_loc.dataset import Video
    from vjepa_loc.evaluation import Evaluation
    from vjepa_loc.events import Event

WIDTH, GUTTER, MARGIN = 1000, 150, 14
ROW, BAR, LANE_GAP, AXIS = 13, 10, 9, 22
MAX_PREDICTION_ROWS = 3
# A page of more bars than this takes a browser seconds to open.
MAX_DRAWN_PREDICTIONS, MAX_BARS, MAX_TIMELINES = 300, 20_000, 2_000
FOUND_IOU = 0.5


@dataclass(frozen=True)
class Bar:
    """One event in a timeline. `score` is None for truth; `found_score` is, for truth, the best score of a prediction
    of its label with a temporal IoU of at least `FOUND_IOU`, None where there is none."""

    x: float
    y: float
    width: float
    text: str
    has_boxes: bool
    score: float | None = None
    opacity: float = 1.0
    found_score: float | None = None


@dataclass(frozen=True)
class Lane:
    """One label of a timeline: rows of truth above rows of predictions."""

    label: str
    colour: str
    top: float
    height: float
    split_y: float
    truths: list[Bar]
    predictions: list[Bar]


@dataclass(frozen=True)
class Timeline:
    """One video: lanes, ticks as (x, text), and what its heading says."""

    video_id: str
    height: float
    axis_y: float
    lanes: list[Lane]
    ticks: list[tuple[float, str]]
    facts: list[str]
    num_truths: int
    num_predictions: int
    num_drawn: int
    missing: bool


@dataclass(frozen=True)
class FigureLine:
    """One headline figure of a metric's card; `short` is its key without the metric."""

    short: str
    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class MetricCard:
    """The headline figures of one metric, and its rule in a line."""

    name: str
    rule: str
    lines: list[FigureLine]


def render_report(evaluation: Evaluation) -> str:
    """The whole report as HTML text. Names are escaped; nothing is loaded from elsewhere."""
    scores = evaluation.inputs.predictions.score_N.tolist()
    timelines = build_timelines(evaluation)
    return render_page(
        "report.html",
        evaluation=evaluation,
        cards=metric_cards(evaluation),
        tables=evaluation.tables(),
        metric_tables=metric_tables(evaluation),
        metric_pictures=[(name, picture) for name, result in evaluation.results.items() for picture in result.pictures],
        diagnosis=evaluation.diagnosis,
        timelines=timelines,
        not_drawn=not_drawn_note(evaluation, timelines),
        first_score=first_shown_score(scores, len(evaluation.inputs.truths)),
        lowest_score=min(scores, default=0.0),
        highest_score=max(scores, default=1.0),
        found_iou=FOUND_IOU,
        geometry={"width": WIDTH, "gutter": GUTTER, "margin": MARGIN, "bar": BAR},
    )


def metric_cards(evaluation: Evaluation) -> list[MetricCard]:
    """A card per metric with its headline figures, and all others behind them where there are few."""
    few = len(evaluation.metrics) <= FEW_FIGURES
    cards = []
    for name, result in evaluation.results.items():
        keys = list(dict.fromkeys([*result.headline, *(result.values if few else ())]))
        lines = [FigureLine(key.partition("/")[2], result.values[key], evaluation.intervals.get(key)) for key in keys]
        cards.append(MetricCard(name, evaluation.protocols[name], lines))
    return cards


def not_drawn_note(evaluation: Evaluation, timelines: Sequence[Timeline]) -> str | None:
    """What the timelines leave out, and where it is; None where they leave out nothing."""
    notes = []
    if len(timelines) < len(evaluation.videos):
        notes.append(f"only the first {len(timelines)} of {len(evaluation.videos)} videos are drawn")
    if any(timeline.num_drawn < timeline.num_predictions for timeline in timelines):
        notes.append(f"of each video at most the best {_most_drawn(len(timelines))} predictions are drawn")
    return f"To keep this page small, {' and '.join(notes)}; predictions.json has all." if notes else None


def first_shown_score(scores: Sequence[float], num_truths: int) -> float:
    """The score from which on there are as many predictions as truth events: what a report shows at first.

    Without truth it is the lowest, so that all of them are shown.
    """
    ranked = sorted(scores, reverse=True)
    return ranked[min(num_truths, len(ranked)) - 1] if ranked else 0.0


def build_timelines(evaluation: Evaluation) -> list[Timeline]:
    """The timelines of the split's first videos, in the order of the dataset."""
    colours = {label: COLOURS[index % len(COLOURS)] for index, label in enumerate(evaluation.dataset.labels)}
    predictions: dict[str, list[Event]] = {video.id: [] for video in evaluation.videos}
    missing, drawn_videos = set(evaluation.missing_videos), evaluation.videos[:MAX_TIMELINES]
    for event in evaluation.predictions:
        predictions[event.video_id].append(event)
    top_score = max((event.score for event in evaluation.predictions), default=1.0)
    return [
        _timeline(
            video,
            evaluation.dataset.events_of(video.id),
            predictions[video.id],
            colours,
            top_score,
            video.id in missing,
            _most_drawn(len(drawn_videos)),
        )
        for video in drawn_videos
    ]


def _timeline(
    video: Video,
    truths: list[Event],
    predictions: list[Event],
    colours: dict[str, str],
    top_score: float,
    missing: bool,
    most_drawn: int,
) -> Timeline:
    drawn = sorted(predictions, key=lambda event: -event.score)[:most_drawn]
    num_frames = video.num_frames or max((event.end_frame for event in [*truths, *drawn]), default=1)
    scale = (WIDTH - GUTTER - MARGIN) / num_frames
    lanes, top = [], 4.0
    for label, colour in colours.items():
        own_truths = [event for event in truths if event.label == label]
        own_drawn = [event for event in drawn if event.label == label]
        if own_truths or own_drawn:
            lanes.append(_lane(label, colour, own_truths, own_drawn, top, scale, top_score))
            top += lanes[-1].height + LANE_GAP
    axis_y = max(top, ROW)
    ticks = [(GUTTER + frame * scale, f"{frame:,}") for frame in tick_frames(num_frames)]
    facts = _facts(video, num_frames, len(truths), len(predictions), len(drawn))
    return Timeline(
        video.id, axis_y + AXIS, axis_y, lanes, ticks, facts, len(truths), len(predictions), len(drawn), missing
    )


def _most_drawn(num_videos: int) -> int:
    """How many predictions of a video are drawn at most."""
    return max(min(MAX_DRAWN_PREDICTIONS, MAX_BARS // max(num_videos, 1)), 1)


def _lane(label, colour, truths, predictions, top, scale, top_score) -> Lane:
    truth_rows = pack_rows(event_spans(truths))
    # By descending score, so that the best predictions get a row to themselves.
    prediction_rows = pack_rows(event_spans(predictions), MAX_PREDICTION_ROWS)
    split_y = top + max(max(truth_rows, default=0) + 1, 1) * ROW
    iou_TP = span_iou(event_spans(truths), event_spans(predictions))
    scores_P = np.array([event.score for event in predictions])
    truth_bars = []
    for index, (event, row) in enumerate(zip(truths, truth_rows, strict=True)):
        found = scores_P[iou_TP[index] >= FOUND_IOU]
        truth_bars.append(
            Bar(
                *_place(event, top + row * ROW, scale),
                f"truth: {_event_text(event)}",
                event.num_boxes > 0,
                found_score=float(found.max()) if len(found) else None,
            )
        )
    prediction_bars = []
    for index, (event, row) in enumerate(zip(predictions, prediction_rows, strict=True)):
        best_iou = iou_TP[:, index].max(initial=0.0)
        prediction_bars.append(
            Bar(
                *_place(event, split_y + row * ROW, scale),
                f"predicted: {_event_text(event)}, score {event.score:.3f}, best temporal IoU {best_iou:.2f}",
                event.num_boxes > 0,
                score=event.score,
                opacity=0.15 + 0.85 * min(max(event.score / top_score, 0.0), 1.0) if top_score > 0 else 1.0,
            )
        )
    # The best are drawn last and lie on top.
    prediction_bars.reverse()
    height = split_y + max(max(prediction_rows, default=0) + 1, 1) * ROW - top
    return Lane(label, colour, top, height, split_y, truth_bars, prediction_bars)


def pack_rows(spans_N2: np.ndarray, max_rows: int | None = None) -> list[int]:
    """A row for each interval (N, 2), in the given order, so that none overlaps another in its row.

    With `max_rows`, what finds no free row shares the last one.
    """
    rows: list[list[tuple[float, float]]] = []
    chosen = []
    for start, end in spans_N2.tolist():
        free = (
            index
            for index, row in enumerate(rows)
            if all(end <= other_start or other_end <= start for other_start, other_end in row)
        )
        row = next(free, len(rows))
        if max_rows is not None and row >= max_rows:
            row = max_rows - 1
        if row == len(rows):
            rows.append([])
        rows[row].append((start, end))
        chosen.append(row)
    return chosen


def tick_frames(num_frames: float, most: int = 12) -> list[int]:
    """Round frame numbers from 0 to the video's end, at most `most` + 1, spaced by 1, 2 or 5 times a power of ten."""
    step = 1
    while num_frames / step > most:
        leading = int(str(step)[0])
        step = step * 5 // 2 if leading == 2 else step * 2
    return list(range(0, int(num_frames) + 1, step))


def _place(event: Event, y: float, scale: float) -> tuple[float, float, float]:
    # A bar keeps a width that can be seen and pointed at.
    return GUTTER + event.start_frame * scale, y, max((event.end_frame - event.start_frame) * scale, 2.0)


def _event_text(event: Event) -> str:
    boxes = f"{event.num_boxes} boxes" if event.num_boxes else "no boxes"
    return f"{event.label}, frames {event.start_frame:.6g} to {event.end_frame:.6g}, {boxes}"


def _facts(video: Video, num_frames: float, num_truths: int, num_predictions: int, num_drawn: int) -> list[str]:
    length = f"{num_frames:,.0f} frames" if video.num_frames else f"events up to frame {num_frames:,.0f}"
    if video.num_frames and video.fps:
        length += f" ({float(nominal_frames_to_seconds(num_frames, video.fps)):.1f} s)"
    facts = [length, f"{num_truths} truth events", f"{num_predictions} predictions"]
    if num_drawn < num_predictions:
        facts.append(f"the best {num_drawn} drawn")
    return facts
