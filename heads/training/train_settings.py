"""The settings of a training, put together from the workspace file, flags and `--set`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.extract_settings import store_path
from features.schema import Storage
from heads.training.config import TrainConfig
from heads.training.run_folder import RunFolder
from vjepa_loc.plugins import load_plugin
from vjepa_loc.settings import keys_of
from vjepa_loc.workspace import DataSettings, RunsSettings, StoreSettings, Workspace

HEADS_PACKAGE = "heads"
DEFAULT_HEAD = "detr"


@dataclass(frozen=True)
class TrainSettings:
    """What `train_head` is called with; the overrides hold the given values only. `notes` are lines that a person should see."""

    dataset: Path
    stores: tuple[str, ...]
    runs: Path
    head_name: str
    head_overrides: dict[str, Any]
    train_overrides: dict[str, Any]
    notes: tuple[str, ...] = ()


def read_train_settings(
    workspace: Workspace, head: str | None = None, dataset: str | None = None, stores: Sequence[str] = (), runs: str | None = None,
    overrides: Sequence[str] = (), resume: Path | None = None,
) -> TrainSettings:
    """`head`, `dataset`, `stores`, `runs` and `resume` are the values of flags, None or empty where they were not given.

    Raises `ConfigError` naming the file or flag, the key, and the nearest key; `UnknownNameError` for a head that is not there.
    """
    if resume is not None and head is None:
        head = RunFolder(resume).read_info().head
    workspace = workspace.with_plugin("head", DEFAULT_HEAD, head, overrides)
    name = workspace.plugin_name("head")
    config_model = load_plugin(HEADS_PACKAGE, name, "head").Config
    workspace = workspace.with_overrides(overrides, {
        "data": keys_of(DataSettings),
        "store": keys_of(StoreSettings, Storage),
        "head": ["name", *keys_of(config_model)],
        "train": keys_of(TrainConfig),
        "runs": keys_of(RunsSettings),
    })
    # Built here for the sake of its messages: they know which file or flag a wrong value came from.
    workspace.section("head", config_model, also=["name"])
    workspace.section("train", TrainConfig)
    return TrainSettings(
        dataset=workspace.dataset_path(dataset),
        stores=tuple(stores) or (store_path(workspace),),
        runs=workspace.runs_path(runs),
        head_name=name,
        head_overrides=workspace.values("head"),
        train_overrides=workspace.values("train"),
        notes=workspace.notes,
    )
