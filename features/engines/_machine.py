"""What a worker has of its machine: a GPU of its own, and its part of the cores."""

import os
from collections.abc import Mapping
from typing import Any

from features.recipe import MOST_CPU_ENCODERS, MOST_DECODE_WORKERS, ExtractConfig, usable_cores
from vjepa_loc.errors import ConfigError


# More processes than this for every core or GPU only take memory, each some hundred MB before its first frame.
MOST_WORKERS_EACH = 4


def num_gpus() -> int:
    """The GPUs that torch sees."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def default_engine(recipe: ExtractConfig, environment: Mapping[str, str] = os.environ) -> str:
    """One process per GPU where the choice is open and no launcher has started a process per GPU already."""
    return "processes" if recipe.device == "auto" and _neighbour(environment) is None and num_gpus() > 1 else "local"


def worker_recipes(recipe: ExtractConfig, workers: int | None, gpus: int) -> list[dict[str, Any]]:
    """What each worker's recipe has otherwise: a GPU of its own, where `device` leaves the choice, and its part of the cores.

    Raises `ConfigError` for a number below 1, and for one far beyond what the machine has.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers: expected at least 1, got {workers}")
    cores = usable_cores()
    if workers is not None and workers > MOST_WORKERS_EACH * max(cores, gpus):
        raise ConfigError(
            f"--workers: expected at most {MOST_WORKERS_EACH * max(cores, gpus)} on a machine with {cores} cores and {gpus} GPUs, got {workers}; "
            "one per GPU is enough, or 1 or 2 without"
        )
    on_gpus = gpus > 0 and recipe.device in ("auto", "cuda")
    number = workers or (gpus if on_gpus else 1)
    changes = cores_of_worker(recipe, usable_cores() // number)
    return [changes | ({"device": f"cuda:{index % gpus}"} if on_gpus else {}) for index in range(number)]


def cores_of_worker(recipe: ExtractConfig, cores: int) -> dict[str, int]:
    """The numbers of threads and decoding processes that the recipe leaves open, for a worker that has `cores`."""
    return {
        "threads": recipe.threads or max(1, min(cores, MOST_CPU_ENCODERS)),
        "decode_workers": recipe.decode_workers or max(1, min(cores, MOST_DECODE_WORKERS)),
    }


def launched_recipe(recipe: ExtractConfig, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """As `worker_recipes`, for this process, where torchrun or srun has started several on this machine."""
    neighbour = _neighbour(environment)
    if neighbour is None:
        return {}
    index, count = neighbour
    gpus = num_gpus() if recipe.device == "auto" else 0
    # Slurm has divided the cores already, and says so by the affinity.
    changes = cores_of_worker(recipe, usable_cores() // count) if count > 1 else {}
    return changes | ({"device": f"cuda:{index % gpus}"} if gpus > 1 else {})


def _neighbour(environment: Mapping[str, str]) -> tuple[int, int] | None:
    """(which of this machine's processes, how many of them share its cores), None where nobody says."""
    try:
        if "LOCAL_RANK" in environment:
            return int(environment["LOCAL_RANK"]), int(environment.get("LOCAL_WORLD_SIZE", 1))
        if "SLURM_STEP_ID" in environment and "SLURM_LOCALID" in environment:
            return int(environment["SLURM_LOCALID"]), 1
    except ValueError:
        names = ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "SLURM_LOCALID")
        found = ", ".join(f"{name}={environment[name]!r}" for name in names if name in environment)
        raise ConfigError(f"expected whole numbers from the launcher, got {found}; unset them, or set extract.device") from None
    return None
