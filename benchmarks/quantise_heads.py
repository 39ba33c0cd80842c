"""What int8 costs a head: the same training on the float16 tokens of a store and on their int8, seed by seed."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from features import Store, open_store
from features.store_convert import StorageChange, convert_store
from heads import load_run
from heads.training.fit import train_head
from heads.training.scoring import evaluate_run
from heads.training.train_settings import HEADS_PACKAGE, read_train_settings
from store_table import progress
from vjepa_loc.dataset import read_dataset
from vjepa_loc.errors import ConfigError
from vjepa_loc.plugins import load_plugin
from vjepa_loc.workspace import read_workspace

METRIC = "tal"
_BOTH = ("float16", "int8")


@dataclass(frozen=True)
class Score:
    """One trained head on one split: `figures` as in `metrics.json`, by name."""

    trained_on: str
    read_from: str
    seed: int
    figures: dict[str, float]


def train_on_each_format(
    store: Store, dataset_path: Path, folder: Path, head: str, epochs: int | None, num_seeds: int, split: str | None,
    overrides: Sequence[str],
) -> list[Score]:
    """Scores of one head per number format and seed, and of those trained on float16 when they read int8.

    Runs and the int8 store are made below `folder`. Raises `ConfigError` where the comparison would say nothing: a store
    that is int8 already, or a head that reads a pool level, which is float16 in every store.
    """
    settings = read_train_settings(read_workspace(Path()), head, str(dataset_path), [str(store.path)], str(folder / "runs"), overrides)
    dataset = read_dataset(settings.dataset)
    split = split or ("test" if any(video.split == "test" for video in dataset.videos.values()) else "val")
    ids = [video_id for video_id in dataset.videos if video_id in store]
    _check_formats(store, ids)
    config = load_plugin(HEADS_PACKAGE, settings.head_name, "head").Config(**settings.head_overrides)
    level = getattr(config, "level", "tokens")
    if level != "tokens":
        raise ConfigError(f"head.level: expected tokens, got {level!r}: the pools are float16 in every store; leave the option out")
    progress(f"int8: converting {len(ids)} videos")
    convert_store(store, folder / "int8", StorageChange(number_format="int8"), ids)
    stores = {"float16": store, "int8": open_store(folder / "int8")}
    scores = []
    for seed in range(num_seeds):
        for number, trained_on in enumerate(_BOTH, 1 + seed * len(_BOTH)):
            progress(f"training {number} of {len(_BOTH) * num_seeds}: {head} on {trained_on}, seed {seed}")
            run = load_run(train_head(
                dataset, [stores[trained_on]], settings.head_name, settings.head_overrides, settings.train_overrides,
                folder / "runs" / trained_on, seed, None, epochs,
            ))
            for read_from in _BOTH if trained_on == "float16" else ("int8",):
                figures = evaluate_run(run, dataset, [stores[read_from]], split, [METRIC], None).metrics
                scores.append(Score(trained_on, read_from, seed, figures))
                progress(f"  read from {read_from}: " + ", ".join(f"{name} {value:.4f}" for name, value in figures.items()))
    return scores


def _check_formats(store: Store, video_ids: Sequence[str]) -> None:
    if not video_ids:
        raise ConfigError(f"the store {store.path} holds no video of the dataset; give the dataset that it was extracted from")
    for video_id in video_ids:
        storage = store.video(video_id).storage
        if storage.number_format != "float16" or "tokens" not in storage.levels:
            raise ConfigError(
                f"video {video_id!r} of {store.path}: expected float16 tokens, got {', '.join(storage.levels)} as "
                f"{storage.number_format}; extract the dataset with --set store.number_format=float16 to see what int8 costs"
            )


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation over the seeds; one seed has no deviation."""

    mean: float
    spread: float | None

    def __str__(self) -> str:
        return f"{self.mean:.4f}" if self.spread is None else f"{self.mean:.4f} ± {self.spread:.4f}"


def summarise(scores: Sequence[Score]) -> dict[str, dict[str, Summary]]:
    """Line -> figure -> summary; the lines that compare take the difference seed by seed first."""
    by_line: dict[str, dict[int, dict[str, float]]] = {}
    for score in scores:
        line = f"trained on {score.trained_on}, read from {score.read_from}"
        by_line.setdefault(line, {})[score.seed] = score.figures
    lines = {line: list(by_seed.values()) for line, by_seed in by_line.items()}
    reference = by_line["trained on float16, read from float16"]
    for line, by_seed in by_line.items():
        if by_seed is not reference:
            lines[f"difference: {line}"] = [
                {name: value - reference[seed][name] for name, value in figures.items()} for seed, figures in by_seed.items()
            ]
    return {
        line: {name: _summary([figures[name] for figures in per_seed]) for name in per_seed[0]} for line, per_seed in lines.items()
    }


def _summary(values: Sequence[float]) -> Summary:
    return Summary(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)
