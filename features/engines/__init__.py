"""Who runs the work of an extraction. An engine is a module file with `prepare(job) -> job`, which settles what is open before
anything is shown or planned, and `run(job, on_progress, stop, workers) -> ExtractReport`.
"""

from types import ModuleType

from features.recipe import ExtractConfig
from vjepa_loc.plugins import load_plugin


def load_engine(name: str | None, recipe: ExtractConfig, workers: int | None) -> ModuleType:
    """The engine `name`, or the one that fits the machine. Raises `UnknownNameError`."""
    from features.engines._machine import default_engine

    if name is None:
        name = "processes" if (workers or 1) > 1 else default_engine(recipe)
    return load_plugin("features.engines", name, "engine")
