"""This process alone, which decodes, encodes and writes at once (`features.pipeline`).

An engine module has `run(job, on_progress, stop, workers) -> ExtractReport`; one bad video never stops the others.
"""

import threading
from collections.abc import Callable
from dataclasses import replace

from features.extract import ExtractReport, extract_dataset
from features.extract_job import ExtractJob
from features.outcome import Progress
from vjepa_loc.dataset import Dataset
from vjepa_loc.errors import ConfigError


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
