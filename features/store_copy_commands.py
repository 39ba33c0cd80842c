"""`cli.py store ...`: stores made from stores, and from other people's features. The commands join those of
`features.store_commands`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from features.options import JsonOption, StoreOption
from features.store_commands import app, given_store_path, open_given_store
from features.terminal import print_json

if TYPE_CHECKING:
    from features.store_copy import CopyReport


def _print_copied(report: "CopyReport", json_output: bool) -> None:
    counts = {"copied": list(report.copied), "present": list(report.present), "different": list(report.different)}
    if json_output:
        print_json(counts)
    else:
        print(", ".join(f"{len(ids)} {what}" for what, ids in counts.items()))


@app.command("subset")
def store_subset(
    target: Annotated[str, typer.Argument(help="Store to make.")],
    store: StoreOption = None,
    levels: Annotated[Optional[list[str]], typer.Option("--level", help="Level to copy; repeatable.", show_default=False)] = None,
    videos: Annotated[Optional[list[str]], typer.Option("--video", help="Video to copy; repeatable.", show_default=False)] = None,
    json_output: JsonOption = False,
) -> None:
    """Copy some videos or levels into another store."""
    from features.store_copy import subset_store

    source = open_given_store(store)
    _print_copied(subset_store(source, target, levels or source.storage.levels, videos), json_output)


@app.command("merge")
def store_merge(
    target: Annotated[str, typer.Argument(help="Store that receives.")],
    sources: Annotated[list[str], typer.Argument(help="Stores of the same encoding.")],
    json_output: JsonOption = False,
) -> None:
    """Copy all videos of other stores into one."""
    from features import open_store
    from features.store import create_or_open_store
    from features.store_copy import merge_stores

    opened_sources = [open_store(path) for path in sources]
    merged = create_or_open_store(target, opened_sources[0].encoding)
    _print_copied(merge_stores(merged, opened_sources), json_output)


@app.command("import")
def store_import(
    file: Annotated[Path, typer.Argument(help=".npy of shape (T, C) or (T, H, W, C).")],
    video_id: Annotated[str, typer.Argument()],
    fps: Annotated[float, typer.Option(help="Frame rate of the video.")],
    frames_per_step: Annotated[int, typer.Option(help="Frames that one step stands for.")],
    store: StoreOption = None,
    family: Annotated[str, typer.Option(help="Name of the features: one store holds one family.")] = "imported",
    width: Annotated[Optional[int], typer.Option(help="Displayed pixels.", show_default=False)] = None,
    height: Annotated[Optional[int], typer.Option(help="Displayed pixels.", show_default=False)] = None,
) -> None:
    """Other people's features as one video of a store."""
    from features.store_import import import_array

    stored = import_array(file, given_store_path(store), video_id, fps, frames_per_step, family=family, width=width, height=height)
    print("stored" if stored else "already there")
