"""This process alone, which decodes, encodes and writes at once (`features.pipeline`).

Where torchrun or srun has started several processes on this machine, each takes a GPU of its own.
"""

import threading
from collections.abc import Callable
from dataclasses import replace

from features.engines._machine import launched_recipe
from features.extract import ExtractReport, extract_dataset
from features.extract_job import ExtractJob
from features.outcome import Progress
from vjepa_loc.dataset import Dataset
from vjepa_loc.errors import ConfigError


def prepare(job: ExtractJob) -> ExtractJob:
    """The job with this process's GPU and cores, its encoder loaded."""
    job = job.with_recipe(**launched_recipe(job.settings.recipe))
    job.load_encoder()
    return job


def run(
    job: ExtractJob, on_progress: Callable[[Progress], object], stop: threading.Event | None = None, workers: int | None = None,
) -> ExtractReport:
    """Raises as `features.extract.extract_dataset`, and `ConfigError` for several workers."""
    if workers not in (None, 1):
        raise ConfigError(f"--workers {workers}: --engine local is one process; choose --engine processes or ray")
    settings = job.settings
    # Only the videos of this job: their labels and events are not needed here.
    videos = Dataset((), {video.id: replace(video, label=None) for video in job.videos})
    return extract_dataset(videos, settings.store, job.load_encoder(), settings.recipe, settings.storage, on_progress, stop)
