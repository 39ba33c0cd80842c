"""What is in a dataset, split by split: how many, how long, how much at once, how large; as tables and as pictures.

Lengths are frames. Two events overlap when their intervals do. The size of a box is the side of a square of the same area,
in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vjepa_loc.atomic import write_text
from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.events import Event
from vjepa_loc.page import render_page
from vjepa_loc.picture import COLOURS, Picture, drawing, figure_svg
from vjepa_loc.tables import Cell, ResultTable, write_csvs
from vjepa_loc.timegrid import nominal_frames_to_seconds

USUAL_SPLITS = "train", "val", "test"
NO_SPLIT = "(no split)"
ALL = "all"

MOST_LABELS_DRAWN = 24
MOST_LETTERS_DRAWN = 28


@dataclass(frozen=True)
class DatasetStats:
    """Tables of numbers, and pictures of what numbers hide."""

    tables: tuple[ResultTable, ...]
    pictures: tuple[Picture, ...]

    def to_dict(self) -> dict:
        """The rows of each table, by its name."""
        return {table.slug: table.to_dicts() for table in self.tables}

    def write(self, folder: Path | str, dataset: Dataset) -> Path:
        """Write `tables/*.csv`, `stats.json` and `stats.html` with the plots into `folder`; returns the page."""
        import json

        folder = Path(folder)
        write_csvs(self.tables, folder / "tables")
        write_text(folder / "stats.json", json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        write_text(folder / "stats.html", render_page("stats.html", dataset=dataset, stats=self))
        return folder / "stats.html"


@dataclass(frozen=True)
class _Part:
    """The videos and events of one split, or of all."""

    name: str
    videos: Sequence[Video]
    events: Sequence[Event]


def dataset_stats(dataset: Dataset) -> DatasetStats:
    """Numbers of each split and of all, per label too."""
    parts = _parts(dataset)
    tables = (
        ResultTable("Counts", ("", *(part.name for part in parts)), _count_rows(parts)),
        ResultTable("Events per label", ("", *(part.name for part in parts)), _label_rows(dataset.labels, parts)),
        ResultTable(
            "Lengths of events in frames", ("", "number", "shortest", "10%", "median", "mean", "90%", "longest"),
            _distribution_rows(dataset.labels, parts, _lengths),
        ),
        ResultTable(
            "Overlaps of events",
            ("", "events", "overlap another", "of the same label", "most at once", "share of frames with an event"),
            _overlap_rows(parts),
        ),
        ResultTable(
            "Sizes of boxes in pixels", ("", "number", "smallest", "10%", "median", "mean", "90%", "largest"),
            _distribution_rows(dataset.labels, parts, _box_sides),
        ),
    )
    return DatasetStats(tables, tuple(_pictures(dataset, parts)) if dataset.events else ())


def split_table(dataset: Dataset) -> ResultTable:
    """What each split got: videos, groups, events, and events per label, as numbers and as a share of all."""
    parts = _parts(dataset)
    counts = [
        ("videos", *(len(part.videos) for part in parts)),
        ("groups", *(len({video.group for video in part.videos if video.group is not None}) for part in parts)),
        ("events", *(len(part.events) for part in parts)),
        *_label_rows(dataset.labels, parts),
    ]
    total = [row[-1] for row in counts]
    rows = [
        (row[0], *(cell if part.name == ALL else _with_share(cell, whole) for part, cell in zip(parts, row[1:], strict=True)))
        for row, whole in zip(counts, total, strict=True)
    ]
    return ResultTable("Splits", ("", *(part.name for part in parts)), tuple(rows))


def _with_share(number: int, whole: int) -> str:
    return f"{number} ({100 * number / whole:.0f}%)" if whole else str(number)


def overlapping(events: Sequence[Event]) -> tuple[np.ndarray, int]:
    """Whether each event (N,) overlaps another one of its video, and how many run at once at most."""
    overlaps_N = np.zeros(len(events), dtype=bool)
    most = 0
    by_video: dict[str, list[int]] = {}
    for index, event in enumerate(events):
        by_video.setdefault(event.video_id, []).append(index)
    for indices in by_video.values():
        own = np.array(indices)
        start_n = np.array([events[index].start_frame for index in indices])
        end_n = np.array([events[index].end_frame for index in indices])
        # What has begun before an event ends, less what has ended before it begins: the event itself is one of them.
        begun_n = np.searchsorted(np.sort(start_n), end_n, side="left")
        ended_n = np.searchsorted(np.sort(end_n), start_n, side="right")
        overlaps_N[own] = begun_n - ended_n > 1
        running_n = np.searchsorted(np.sort(start_n), start_n, side="right") - ended_n
        most = max(most, int(running_n.max()))
    return overlaps_N, most


def _parts(dataset: Dataset) -> list[_Part]:
    """The splits, the usual ones first, and all of it where there are several."""
    by_split: dict[str, list[Video]] = {split: [] for split in USUAL_SPLITS}
    for video in dataset.videos.values():
        by_split.setdefault(video.split or NO_SPLIT, []).append(video)
    parts = [_Part(name, videos, _events_of(dataset, videos)) for name, videos in by_split.items() if videos]
    return parts if len(parts) == 1 else [*parts, _Part(ALL, list(dataset.videos.values()), dataset.events)]


def _events_of(dataset: Dataset, videos: Sequence[Video]) -> list[Event]:
    return [event for video in videos for event in dataset.events_of(video.id)]


def _count_rows(parts: Sequence[_Part]) -> tuple[tuple[Cell, ...], ...]:
    counts: dict[str, Callable[[_Part], Cell]] = {
        "videos": lambda part: len(part.videos),
        "groups": lambda part: len({video.group for video in part.videos if video.group is not None}),
        "frames": lambda part: _sum(video.num_frames for video in part.videos),
        "seconds": lambda part: _sum(_seconds(video) for video in part.videos),
        "videos without events": lambda part: len(part.videos) - len({event.video_id for event in part.events}),
        "events": lambda part: len(part.events),
        "events with boxes": lambda part: sum(event.num_boxes > 0 for event in part.events),
        "events with a box on every frame": lambda part: sum(_boxed_throughout(event) for event in part.events),
        "boxes": lambda part: sum(event.num_boxes for event in part.events),
        "events per video": lambda part: len(part.events) / len(part.videos) if part.videos else None,
    }
    return tuple((name, *(count(part) for part in parts)) for name, count in counts.items())


def _label_rows(labels: Sequence[str], parts: Sequence[_Part]) -> tuple[tuple[Cell, ...], ...]:
    counts = {part.name: {label: 0 for label in labels} for part in parts}
    for part in parts:
        for event in part.events:
            counts[part.name][event.label] += 1
    return tuple((label, *(counts[part.name][label] for part in parts)) for label in labels)


def _distribution_rows(
    labels: Sequence[str], parts: Sequence[_Part], values_of: Callable[[Sequence[Event]], np.ndarray]
) -> tuple[tuple[Cell, ...], ...]:
    """A row per split, then one per label over all splits."""
    rows = [(part.name, *_distribution(values_of(part.events))) for part in parts]
    for label in labels:
        events = [event for event in parts[-1].events if event.label == label]
        rows.append((label, *_distribution(values_of(events))))
    return tuple(rows)


def _distribution(values: np.ndarray) -> tuple[Cell, ...]:
    if not len(values):
        return 0, None, None, None, None, None, None
    low, median, high = np.percentile(values, [10, 50, 90])
    summary = values.min(), low, median, values.mean(), high, values.max()
    return len(values), *map(float, summary)


def _overlap_rows(parts: Sequence[_Part]) -> tuple[tuple[Cell, ...], ...]:
    rows = []
    for part in parts:
        overlaps_N, most = overlapping(part.events)
        same = 0
        for label in dict.fromkeys(event.label for event in part.events):
            same += int(overlapping([event for event in part.events if event.label == label])[0].sum())
        frames = _sum(video.num_frames for video in part.videos)
        share = _covered_frames(part.events) / frames if frames else None
        rows.append((part.name, len(part.events), int(overlaps_N.sum()), same, most, share))
    return tuple(rows)


def _covered_frames(events: Sequence[Event]) -> float:
    """Length of the union of the events' intervals, over all videos."""
    total = 0.0
    by_video: dict[str, list[Event]] = {}
    for event in events:
        by_video.setdefault(event.video_id, []).append(event)
    for own in by_video.values():
        reached = 0.0
        for event in sorted(own, key=lambda event: event.start_frame):
            total += max(event.end_frame - max(event.start_frame, reached), 0.0)
            reached = max(reached, event.end_frame)
    return total


def _lengths(events: Sequence[Event]) -> np.ndarray:
    return np.array([event.end_frame - event.start_frame for event in events])


def _box_sides(events: Sequence[Event]) -> np.ndarray:
    boxes = [event.boxes_K4 for event in events if event.num_boxes]
    if not boxes:
        return np.empty(0)
    boxes_B4 = np.concatenate(boxes)
    return np.sqrt((boxes_B4[:, 2:] - boxes_B4[:, :2]).prod(axis=1))


def _boxed_throughout(event: Event) -> bool:
    first, stop = event.covered_frames()
    return event.num_boxes > 0 and event.num_boxes == stop - first


def _seconds(video: Video) -> float | None:
    if video.fps is None or video.num_frames is None:
        return None
    return float(nominal_frames_to_seconds(video.num_frames, video.fps))


def _sum(values) -> Cell:
    """The sum, None where a value is not stated."""
    values = list(values)
    return None if any(value is None for value in values) else sum(values)


def _pictures(dataset: Dataset, parts: Sequence[_Part]) -> list[Picture]:
    splits = parts if len(parts) == 1 else parts[:-1]
    pictures = [
        _label_picture(dataset.labels, splits),
        _histogram("Lengths of events", "frames, on a logarithmic axis", splits, _lengths),
    ]
    if any(event.num_boxes for event in dataset.events):
        pictures += [
            _histogram(
                "Sizes of boxes", "side of a square of the same area in pixels, on a logarithmic axis", splits,
                _box_sides,
            )
        ]
        if places := _place_picture(dataset):
            pictures.append(places)
    return pictures


def _label_picture(labels: Sequence[str], parts: Sequence[_Part]) -> Picture:
    counts = {row[0]: row[1:] for row in _label_rows(labels, parts)}
    shown = sorted(labels, key=lambda label: -sum(counts[label]))[:MOST_LABELS_DRAWN]
    height = 0.22 * len(shown) * max(len(parts), 1) + 0.9
    with drawing(6.4, max(1.6, min(height, 12))) as figure:
        axes = figure.subplots()
        width = 0.8 / len(parts)
        for index, part in enumerate(parts):
            totals = max(sum(counts[label][index] for label in labels), 1)
            places = np.arange(len(shown)) + (index - (len(parts) - 1) / 2) * width
            axes.barh(places, [100 * counts[label][index] / totals for label in shown], width, label=_drawn_name(part.name), color=COLOURS[index % len(COLOURS)])
        axes.set_yticks(np.arange(len(shown)), [_drawn_name(label) for label in shown])
        axes.invert_yaxis()
        axes.set_xlabel("share of the split's events, %")
        axes.legend(frameon=False)
        rest = f" The {MOST_LABELS_DRAWN} most frequent of {len(labels)}." if len(shown) < len(labels) else ""
        return Picture("Labels", f"How the labels are mixed in each split.{rest}", figure_svg(figure))


def _drawn_name(name: str) -> str:
    """A name that leaves room for the picture beside it."""
    name = " ".join(name.split())
    return name if len(name) <= MOST_LETTERS_DRAWN else f"{name[: MOST_LETTERS_DRAWN - 1]}…"


def _histogram(title: str, unit: str, parts: Sequence[_Part], values_of: Callable[[Sequence[Event]], np.ndarray]) -> Picture:
    values = {part.name: values_of(part.events) for part in parts}
    everything = np.concatenate(list(values.values()))
    low, high = max(float(everything.min()), 1e-3), float(everything.max())
    edges = np.geomspace(low, max(high, low * 1.5) * 1.0001, 25)
    with drawing() as figure:
        axes = figure.subplots()
        for index, (name, own) in enumerate(values.items()):
            if len(own):
                weights = np.full(len(own), 100 / len(own))
                axes.hist(np.maximum(own, low), edges, weights=weights, histtype="step", linewidth=1.6, label=_drawn_name(name), color=COLOURS[index % len(COLOURS)])
        axes.set_xscale("log")
        ticks = _round_numbers(low, edges[-1])
        axes.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
        axes.xaxis.minorticks_off()
        axes.set_xlabel(unit)
        axes.set_ylabel("share of the split, %")
        axes.legend(frameon=False)
        return Picture(title, "Each split on its own, so that splits of different size can be compared.", figure_svg(figure))


def _round_numbers(low: float, high: float) -> list[float]:
    """Numbers to write on a logarithmic axis: 1, 2, 5, 10, ..., and more of them where the range is narrow."""
    found: list[float] = []
    for bases in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), range(10, 100, 5)):
        scale = 10 if bases[0] == 10 else 1
        numbers = (base / scale * 10.0**power for power in range(-3, 9) for base in bases)
        found = [number for number in numbers if low / 1.02 <= number <= high * 1.02]
        if len(found) >= 4:
            break
    return found


def _place_picture(dataset: Dataset) -> Picture | None:
    """Where in the picture boxes lie; None where no video with boxes states its size."""
    heat = np.zeros((36, 36))
    for event in dataset.events:
        video = dataset.videos[event.video_id]
        if event.num_boxes and video.width and video.height:
            edges = np.clip(event.boxes_K4 / np.array([video.width, video.height] * 2), 0, 1) * 36
            middle = ((edges[:, :2] + edges[:, 2:]) / 2).clip(0, 35.999).astype(int)
            np.add.at(heat, (middle[:, 1], middle[:, 0]), 1)
    if not heat.any():
        return None
    with drawing(6.4, 3.8) as figure:
        axes = figure.subplots()
        axes.grid(False)
        image = axes.imshow(100 * heat / heat.sum(), extent=(0, 1, 1, 0), cmap="viridis", interpolation="nearest", aspect="auto")
        figure.colorbar(image, ax=axes, label="% of all boxes")
        axes.set_xlabel("from left to right")
        axes.set_ylabel("from top to bottom")
        return Picture("Places of boxes", "Where the middles of the boxes lie, over all videos that state their size.", figure_svg(figure))
