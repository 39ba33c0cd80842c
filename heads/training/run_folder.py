"""What a run folder holds, and how it is found.

    runs/detr-20261120-101500-seed0/
      run.json                     head, settings, labels, stores with their encodings, dataset, versions
      standardisation.safetensors  mean and std per channel and store
      weights.safetensors          the averaged weights of the best validation
      last.ckpt                    to continue from; gone when the run is finished
      logs/part0/                  CSV and TensorBoard; one part per start of the training
      metrics.json                 figures of the best validation
      finished                     the mark, written last: the time it ended

Everything is written beside its name and then renamed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from features.schema import Encoding
from heads.parts.contract import TokenSpec
from heads.training.config import TrainConfig
from heads.training.standardise import Standardisation
from vjepa_loc.atomic import write_text
from vjepa_loc.errors import RunError, StoreMismatchError, VjepaLocError
from vjepa_loc.settings import Settings

RUN_VERSION = 1
CHECKPOINT = "last.ckpt"
INFO = "run.json"
WEIGHTS = "weights.safetensors"
STANDARDISATION = "standardisation.safetensors"
METRICS = "metrics.json"
LOGS = "logs"
FINISHED = "finished"


class StoreRecord(Settings):
    """A store as the run saw it."""

    path: str
    fingerprint: str
    encoding: dict[str, Any]


class SpecRecord(Settings):
    """A `TokenSpec` as JSON."""

    channels: int
    levels: tuple[str, ...]
    step_frames: float
    clip_frames: float

    def spec(self) -> TokenSpec:
        return TokenSpec(self.channels, self.levels, self.step_frames, self.clip_frames)


class RunInfo(Settings):
    """Everything but numbers that a run is made of. `notes` say what was left out of the training, and why."""

    version: int = RUN_VERSION
    head: str
    head_config: dict[str, Any]
    train: TrainConfig
    window_frames: int
    labels: tuple[str, ...]
    stores: tuple[StoreRecord, ...]
    specs: tuple[SpecRecord, ...]
    dataset: str | None
    train_videos: tuple[str, ...]
    val_videos: tuple[str, ...]
    versions: dict[str, str]
    notes: tuple[str, ...] = ()

    @property
    def encodings(self) -> tuple[Encoding, ...]:
        return tuple(Encoding.from_dict(store.encoding) for store in self.stores)


class RunFolder:
    """The files of one run at `path`."""

    def __init__(self, path: Path):
        self.path = Path(path)

    @classmethod
    def create(cls, runs_path: Path, head: str, seed: int, now: datetime) -> RunFolder:
        """A new empty folder, named after head, time and seed; a number is added where that name is taken."""
        name = f"{head}-{now:%Y%m%d-%H%M%S}-seed{seed}"
        try:
            Path(runs_path).mkdir(parents=True, exist_ok=True)
            for attempt in range(1, 1000):
                path = Path(runs_path) / (name if attempt == 1 else f"{name}-{attempt}")
                try:
                    path.mkdir()
                except FileExistsError:
                    continue
                return cls(path)
        except OSError as error:
            raise RunError(f"runs folder {runs_path}: cannot be written ({error.strerror}); choose another with --runs") from None
        raise RunError(f"runs folder {runs_path}: {name} and 998 numbered folders exist already; choose another with --runs")

    @property
    def finished(self) -> bool:
        return (self.path / FINISHED).is_file()

    @property
    def finished_at(self) -> str:
        """ISO time of the end of the training; sorts as time does."""
        return (self.path / FINISHED).read_text(encoding="utf-8").strip()

    @property
    def checkpoint(self) -> Path | None:
        """What training can continue from; None before the first one was saved."""
        path = self.path / CHECKPOINT
        return path if path.is_file() else None

    def write_info(self, info: RunInfo) -> None:
        self._write(INFO, json.dumps(info.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n")

    def read_info(self) -> RunInfo:
        """Raises `RunError` where the folder is no run, or one of another version."""
        try:
            values = json.loads((self.path / INFO).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunError(f"{self.path} is no run folder: it has no {INFO}; give the folder that train-head printed") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path / INFO}: cannot be read ({error}); train again") from None
        version = values.get("version") if isinstance(values, dict) else None
        if version != RUN_VERSION:
            raise RunError(f"{self.path / INFO}: expected a run of version {RUN_VERSION}, got {version}; train again")
        try:
            return RunInfo(**values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise RunError(f"{self.path / INFO}: {where}: {first['msg']}; train again") from None

    def save_weights(self, weights: Mapping[str, Tensor]) -> None:
        self._save_tensors(WEIGHTS, weights)

    def load_weights(self) -> dict[str, Tensor]:
        return self._load_tensors(WEIGHTS)

    def save_checkpoint(self, write: Callable[[Path], Any]) -> None:
        """`write(path)` writes what training can continue from; it takes the place of the checkpoint before."""
        self._replace(CHECKPOINT, write)

    def save_standardisations(self, standardisations: Sequence[Standardisation]) -> None:
        tensors = {}
        for index, standardisation in enumerate(standardisations):
            tensors |= {f"{index}.mean": standardisation.mean_C, f"{index}.std": standardisation.std_C}
        self._save_tensors(STANDARDISATION, tensors)

    def load_standardisations(self) -> tuple[Standardisation, ...]:
        tensors = self._load_tensors(STANDARDISATION)
        return tuple(Standardisation(tensors[f"{i}.mean"], tensors[f"{i}.std"]) for i in range(len(tensors) // 2))

    def new_log_part(self) -> str:
        """Name of the log folder of this start of the training, below the run folder."""
        return f"{LOGS}/part{len(list((self.path / LOGS).glob('part*')))}"

    def finish(self, metrics: Mapping[str, Any], now: datetime) -> None:
        """Write the figures, drop what only an unfinished run needs, and set the mark."""
        self._write(METRICS, json.dumps(metrics, indent=2) + "\n")
        (self.path / CHECKPOINT).unlink(missing_ok=True)
        self._write(FINISHED, now.isoformat() + "\n")

    def _write(self, name: str, text: str) -> None:
        try:
            write_text(self.path / name, text)
        except OSError as error:
            raise RunError(f"{self.path / name}: cannot be written ({error.strerror})") from None

    def _save_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        # safetensors refuses tensors that share memory, such as tied weights.
        copies = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
        self._replace(name, lambda path: save_file(copies, path))

    def _replace(self, name: str, write: Callable[[Path], Any]) -> None:
        # Always the same name: what a killed training leaves is written over by the next one.
        beside = self.path / f".{name}.partial"
        try:
            write(beside)
            os.replace(beside, self.path / name)
        except OSError as error:
            raise RunError(f"{self.path / name}: cannot be written ({error.strerror or error})") from None
        finally:
            beside.unlink(missing_ok=True)

    def _load_tensors(self, name: str) -> dict[str, Tensor]:
        try:
            return load_file(self.path / name)
        except (OSError, SafetensorError) as error:
            raise RunError(f"{self.path / name}: cannot be read ({error}); train again") from None


def finished_runs(runs_path: Path | str) -> list[RunFolder]:
    """The finished runs in a folder, the one that finished last first."""
    folders = [RunFolder(path.parent) for path in Path(runs_path).glob(f"*/{INFO}")]
    finished = [folder for folder in folders if folder.finished]
    return sorted(finished, key=lambda folder: (folder.finished_at, folder.path.name), reverse=True)


def newest_finished_run(runs_path: Path | str) -> Path:
    """The run folder that finished last. Raises `RunError` saying which unfinished ones there are, and what to do."""
    finished = finished_runs(runs_path)
    if finished:
        return finished[0].path
    unfinished = sorted(path.parent for path in Path(runs_path).glob(f"*/{INFO}"))
    if unfinished:
        raise RunError(
            f"{runs_path}: none of its {len(unfinished)} runs is finished; continue one with "
            f"`python cli.py train-head --resume {unfinished[-1]}`"
        )
    raise RunError(f"{runs_path}: no run found; train one with `python cli.py train-head --head=detr`, or give --runs or --run")


def check_encodings(run_path: Path, encodings: Sequence[Encoding], stores: Sequence) -> None:
    """Raises `StoreMismatchError`, naming both values, unless the stores hold the encodings that the run was trained on."""
    if len(stores) != len(encodings):
        raise StoreMismatchError(
            f"run {run_path.name} reads {len(encodings)} stores, got {len(stores)}: "
            "give --store once for each, in the order of the training"
        )
    for encoding, store in zip(encodings, stores, strict=True):
        if encoding.fingerprint != store.encoding.fingerprint:
            raise StoreMismatchError(
                f"store {store.path} holds another encoding than run {run_path.name} was trained on (run != store): "
                f"{'; '.join(encoding.diff(store.encoding))}; extract with the run's encoding or train again"
            )


def library_versions() -> dict[str, str]:
    """Versions of what decides a training's numbers."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("vjepa-loc", "lightning", "numpy", "scipy"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def open_recorded_stores(run_path: Path, records: Sequence[StoreRecord]) -> list:
    """The stores that the run was trained on. Raises `RunError` where one is gone."""
    from features import open_store

    stores = []
    for record in records:
        try:
            stores.append(open_store(record.path))
        except VjepaLocError as error:
            raise RunError(f"run {run_path.name} was trained on the store {record.path}, which cannot be opened ({error}); "
                           "name the store with --store") from None
    return stores
