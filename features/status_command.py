"""`cli.py status`: how far an extraction is, whoever does it. Parses, calls, and prints, as `cli.py` does."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from features.options import DatasetOption, JsonOption
from features.terminal import print_json
from vjepa_loc.errors import ConfigError
from vjepa_loc.workspace import read_workspace

if TYPE_CHECKING:
    from features.status import StoreStatus
    from vjepa_loc.dataset import Dataset

StorePath = Annotated[Optional[str], typer.Argument(metavar="[STORE]", help="Default: the workspace's store.", show_default=False)]
WatchOption = Annotated[
    Optional[float], typer.Option("--watch", metavar="SECONDS", help="Look again so often, until Ctrl-C.", show_default=False)
]
SHORTEST_WATCH_S = 0.5


def status(store: StorePath = None, dataset: DatasetOption = None, json_output: JsonOption = False, watch: WatchOption = None) -> None:
    """How far an extraction is: videos done, in hand, failed and why, clips per second, time left, per worker."""
    if watch is not None and not watch >= SHORTEST_WATCH_S:
        raise ConfigError(f"--watch: expected at least {SHORTEST_WATCH_S:g} seconds, got {watch:g}")
    try:
        _status(store, dataset, json_output, watch)
    except KeyboardInterrupt:
        if watch is None:
            raise
        # That is how watching ends, also where it has not begun.
        return


def _status(store: str | None, dataset: str | None, json_output: bool, watch: float | None) -> None:
    from features.extract_settings import store_path
    from features.status import store_status
    from vjepa_loc.dataset import read_dataset

    workspace = read_workspace(Path())
    path, file = store_path(workspace, store), workspace.dataset_path(dataset)
    # A store can be looked at without its dataset; one that was asked for has to be there.
    videos = read_dataset(file) if dataset is not None or (store is None and file.exists()) else None
    if watch is None:
        _print(store_status(path, videos), json_output)
    else:
        _watch(path, videos, json_output, watch)


def _watch(path: str, videos: "Dataset | None", json_output: bool, every_s: float) -> None:
    from rich.console import Console
    from rich.live import Live

    from features.status import store_status
    from features.status_view import render

    console = Console()
    if json_output or not console.is_terminal:
        while True:
            _print(store_status(path, videos), json_output)
            time.sleep(every_s)
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        while True:
            live.update(render(store_status(path, videos), console.width), refresh=True)
            time.sleep(every_s)


def _print(found: "StoreStatus", json_output: bool) -> None:
    from rich.console import Console

    from features.status_view import plain_width, render

    if json_output:
        print_json(found.to_dict())
        return
    console = Console()
    if not console.is_terminal:
        # Nothing is cut where nobody looks at columns.
        console.width = plain_width(render(found, 10_000))
    console.print(render(found, console.width), soft_wrap=False)
