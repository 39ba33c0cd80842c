"""From one file format to another, for datasets and for predictions, with an account of what was read, dropped and lost.

The formats themselves are in `vjepa_loc/formats/`.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from vjepa_loc.dataset import Dataset
from vjepa_loc.errors import ConfigError
from vjepa_loc.events import Event
from vjepa_loc.plugins import load_plugin, plugin_names
from vjepa_loc.tables import ResultTable

FORMATS_PACKAGE = "vjepa_loc.formats"


@dataclass(frozen=True)
class Conversion:
    """What a conversion did. `reading` and `writing` are the accounts of the formats: `{"format", "counts", "notes"}`."""

    dataset: Dataset
    events: Sequence[Event]
    reading: dict
    writing: dict

    def counts(self) -> dict[str, int]:
        """What was read, all in all; a frame counts once for every event that covers it."""
        return {
            "videos": len(self.dataset.videos),
            "events": len(self.events),
            "boxes": sum(event.num_boxes for event in self.events),
            "frames": sum(map(_num_frames, self.events)),
        }

    def label_table(self, most: int | None = None) -> ResultTable:
        """A row per label: its events, the videos they lie in, the frames they cover, and their boxes; then all together.

        With `most`, only so many labels, those with the most events.
        """
        counts = {label: Counter() for label in self.dataset.labels}
        videos: dict[str, set[str]] = {label: set() for label in self.dataset.labels}
        for event in self.events:
            counts[event.label].update(events=1, frames=_num_frames(event), boxes=event.num_boxes)
            videos[event.label].add(event.video_id)
        shown = list(counts)
        if most is not None and len(shown) > most:
            shown = sorted(shown, key=lambda label: -counts[label]["events"])[:most]
        rows = [
            (label, counts[label]["events"], len(videos[label]), counts[label]["frames"], counts[label]["boxes"])
            for label in shown
        ]
        total = self.counts()
        last = "all" if len(shown) == len(counts) else f"all, also {len(counts) - len(shown)} more labels"
        rows.append((last, total["events"], total["videos"], total["frames"], total["boxes"]))
        return ResultTable("What was read", ("label", "events", "videos", "frames", "boxes"), tuple(rows))

    def account_table(self) -> ResultTable:
        """A row per count of the two accounts that is not 0."""
        rows = [
            (name.replace("_", " "), f"{doing} {account['format']}", count)
            for doing, account in (("reading", self.reading), ("writing", self.writing))
            for name, count in account["counts"].items()
            if count
        ]
        return ResultTable("Account", ("what", "when", "number"), tuple(rows))

    def notes(self) -> list[str]:
        """The notes of both accounts, each with what it is about in front."""
        return [
            f"{doing} {account['format']}: {note}"
            for doing, account in (("reading", self.reading), ("writing", self.writing))
            for note in account["notes"]
        ]

    def to_dict(self) -> dict:
        """All of it for JSON."""
        return self.counts() | {
            "labels": self.label_table().to_dicts()[:-1],
            "reading": self.reading,
            "writing": self.writing,
        }


def convert_dataset(
    source: Path, target: Path, from_format: str, to_format: str, probe: Callable | None = None
) -> Conversion:
    """Read `source` and write it to `target`; `probe` as the formats' `read` takes it.

    Raises `UnknownNameError` for a format that is not there, `ConfigError` for one that cannot write, and whatever is wrong with
    the source.
    """
    # Asked first, so that a long reading is not for nothing.
    write = _function(to_format, "write", "datasets")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        dataset = _format(from_format).read(source, probe)
    reading = _account(dataset.extra.get("reading") if from_format != "native" else None, from_format, caught)
    return Conversion(dataset, dataset.events, reading, _written(write, to_format, dataset, target))


def convert_predictions(source: Path, dataset: Dataset, target: Path, from_format: str, to_format: str) -> Conversion:
    """As `convert_dataset`, for scored events of `dataset`'s videos."""
    write = _function(to_format, "write_predictions", "predictions")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        events = _function(from_format, "read_predictions", "predictions", "read")(source, dataset)
    reading = _account(None, from_format, caught)
    return Conversion(dataset, events, reading, _written(write, to_format, events, dataset, target))


def write_predictions_as(format_name: str, events: Sequence[Event], dataset: Dataset, path: Path) -> dict:
    """Write scored events in a format by its name, and return the format's account.

    Videos of `dataset` without events are written too, where the format has them.
    """
    return _written(_function(format_name, "write_predictions", "predictions"), format_name, events, dataset, path)


def check_prediction_format(format_name: str) -> None:
    """Raises as `write_predictions_as` would for the format, before there are any predictions."""
    _function(format_name, "write_predictions", "predictions")


def _written(write: Callable, format_name: str, *arguments) -> dict:
    account = write(*arguments)
    return _account(None if account is None else account.to_dict(), format_name, ())


def _account(stated: dict | None, format_name: str, caught: Sequence[warnings.WarningMessage]) -> dict:
    """A format's account, or an empty one, with the warnings that came beside it as notes."""
    account = stated if isinstance(stated, dict) else {}
    notes = [*account.get("notes", ()), *(str(warning.message) for warning in caught)]
    return {"format": format_name, "counts": account.get("counts", {}), "notes": notes}


def _num_frames(event: Event) -> int:
    first, stop = event.covered_frames()
    return stop - first


def _format(name: str) -> ModuleType:
    return load_plugin(FORMATS_PACKAGE, name, "format")


def _function(format_name: str, function: str, what: str, verb: str = "write") -> Callable:
    module = _format(format_name)
    if not hasattr(module, function):
        able = [name for name in plugin_names(FORMATS_PACKAGE) if hasattr(_format(name), function)]
        raise ConfigError(f"format {format_name!r} cannot {verb} {what}; those that can: {', '.join(able)}")
    return getattr(module, function)
