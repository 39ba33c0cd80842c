"""From one file format to another, for datasets and for predictions; the formats themselves are in `vjepa_loc/formats/`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from vjepa_loc.dataset import Dataset
from vjepa_loc.errors import ConfigError
from vjepa_loc.events import Event
from vjepa_loc.plugins import load_plugin, plugin_names

FORMATS_PACKAGE = "vjepa_loc.formats"


def convert_dataset(source: Path, target: Path, from_format: str, to_format: str, probe: Callable | None = None) -> Dataset:
    """Read `source`, write it to `target`, and return it; `probe` as the formats' `read` takes it.

    Raises `UnknownNameError` for a format that is not there, `ConfigError` for one that cannot write, and whatever is wrong with
    the source.
    """
    # Asked first, so that a long reading is not for nothing.
    write = _function(to_format, "write", "datasets")
    dataset = _format(from_format).read(source, probe)
    write(dataset, target)
    return dataset


def convert_predictions(source: Path, dataset: Dataset, target: Path, from_format: str, to_format: str) -> list[Event]:
    """As `convert_dataset`, for scored events of `dataset`'s videos."""
    write = _function(to_format, "write_predictions", "predictions")
    events = _function(from_format, "read_predictions", "predictions", "read")(source, dataset)
    write(events, dataset, target)
    return events


def write_predictions_as(format_name: str, events: Sequence[Event], dataset: Dataset, path: Path) -> None:
    """Write scored events in a format by its name; videos of `dataset` without events are written too, where the format has them."""
    _function(format_name, "write_predictions", "predictions")(events, dataset, path)


def check_prediction_format(format_name: str) -> None:
    """Raises as `write_predictions_as` would for the format, before there are any predictions."""
    _function(format_name, "write_predictions", "predictions")


def _format(name: str) -> ModuleType:
    return load_plugin(FORMATS_PACKAGE, name, "format")


def _function(format_name: str, function: str, what: str, verb: str = "write") -> Callable:
    module = _format(format_name)
    if not hasattr(module, function):
        able = [name for name in plugin_names(FORMATS_PACKAGE) if hasattr(_format(name), function)]
        raise ConfigError(f"format {format_name!r} cannot {verb} {what}; those that can: {', '.join(able)}")
    return getattr(module, function)
