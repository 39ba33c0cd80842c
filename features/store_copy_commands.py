"""`cli.py store ...`: stores made from stores, and from other people's features. The commands join those of
`features.store_commands`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from features.options import JsonOption, StoreOption
from features.store_commands import app, given_store_path, open_given_store
from features.terminal import count_bar, print_json, say

if TYPE_CHECKING:
    from features.store_copy import CopyReport


LevelsOption = Annotated[
    Optional[str], typer.Option("--levels", metavar="LEVEL,...", help="Of tokens, pool1, pool2, pool4; default: all that are there.", show_default=False)
]
VideosOption = Annotated[Optional[list[str]], typer.Option("--video", metavar="ID", help="Only this video; repeatable.", show_default=False)]


def _levels(given: str | None) -> tuple[str, ...] | None:
    return None if given is None else tuple(level.strip() for level in given.split(","))


def _finish(report: "CopyReport", target: str, json_output: bool) -> None:
    """Prints what was copied; exit code 1 where the target holds something else under the same id."""
    counts = {"copied": list(report.copied), "present": list(report.present), "different": list(report.different)}
    if json_output:
        print_json(counts)
    else:
        print(", ".join(f"{len(ids)} {what}" for what, ids in counts.items()))
    if report.different:
        say(
            f"{target} holds other content under the same ids, which was kept: {', '.join(report.different)}; "
            "`cli.py store diff` says what differs"
        )
    raise typer.Exit(int(bool(report.different)))


@app.command("subset")
def store_subset(
    target: Annotated[str, typer.Argument(help="Store to make.")],
    store: StoreOption = None,
    levels: LevelsOption = None,
    videos: VideosOption = None,
    json_output: JsonOption = False,
) -> None:
    """Copy some videos or levels into another store: files as they are. Exit code 1 if a video is there with other content."""
    from features.store_copy import subset_store

    source = open_given_store(store)
    with count_bar("videos") as on_video:
        report = subset_store(source, target, _levels(levels), videos, on_video)
    _finish(report, target, json_output)


@app.command("convert")
def store_convert(
    target: Annotated[str, typer.Argument(help="Store to make.")],
    store: StoreOption = None,
    number_format: Annotated[Optional[str], typer.Option(metavar="int8|float16", help="Of the tokens.", show_default=False)] = None,
    compression: Annotated[Optional[str], typer.Option(metavar="none|zstd", help="Of every step.", show_default=False)] = None,
    levels: LevelsOption = None,
    shard_steps: Annotated[Optional[int], typer.Option(metavar="N", help="Steps per file.", show_default=False)] = None,
    videos: VideosOption = None,
    json_output: JsonOption = False,
) -> None:
    """Another number format, compression, shard size, or other levels, without the videos. What is not given stays as it is.

    Run it again to continue; exit code 1 if a video is there with other content.
    """
    from features.store_convert import StorageChange, convert_store

    change = StorageChange(number_format, compression, _levels(levels), shard_steps)
    source = open_given_store(store)
    with count_bar("videos") as on_video:
        report = convert_store(source, target, change, videos, on_video)
    _finish(report, target, json_output)


@app.command("merge")
def store_merge(
    target: Annotated[str, typer.Argument(help="Store that receives; made where there is none.")],
    sources: Annotated[list[str], typer.Argument(help="Stores of the same encoding.")],
    json_output: JsonOption = False,
) -> None:
    """Copy all videos of other stores into one. Exit code 1 if a video is there with other content, which is kept."""
    from features.store_copy import merge_stores

    with count_bar("videos") as on_video:
        report = merge_stores(target, [open_given_store(path) for path in sources], on_video)
    _finish(report, target, json_output)


@app.command("import")
def store_import(
    file: Annotated[Path, typer.Argument(help=".npy of shape (T, C) or (T, H, W, C).")],
    video_id: Annotated[str, typer.Option("--id", help="Id of the video.")],
    fps: Annotated[str, typer.Option(help="Frame rate of the video, as a number or a fraction (30000/1001).")],
    stride: Annotated[int, typer.Option(help="Frames from one step to the next.")],
    store: StoreOption = None,
    num_frames: Annotated[Optional[int], typer.Option(help="Frames of the video; default: steps times stride.", show_default=False)] = None,
    family: Annotated[str, typer.Option(help="Name of the features: one store holds one family.")] = "imported",
    width: Annotated[Optional[int], typer.Option(help="Displayed pixels; needed for events with boxes.", show_default=False)] = None,
    height: Annotated[Optional[int], typer.Option(help="Displayed pixels.", show_default=False)] = None,
    json_output: JsonOption = False,
) -> None:
    """Other people's features as one video of a store."""
    from features.store_import import import_array

    stored = import_array(
        file, given_store_path(store), video_id, fps, stride, num_frames=num_frames, family=family, width=width, height=height
    )
    print_json({"id": video_id, "stored": stored}) if json_output else print("stored" if stored else "already there")


ReplaceOption = Annotated[bool, typer.Option("--replace", help="Replace videos that the target holds with other content.")]


@app.command("push")
def store_push(
    url: Annotated[str, typer.Argument(metavar="URL", help="Store to send to (s3://, gs://); made where there is none.")],
    store: StoreOption = None,
    videos: VideosOption = None,
    replace: ReplaceOption = False,
    json_output: JsonOption = False,
) -> None:
    """Send videos to a store in object storage. Run it again to continue; exit code 1 if the two do not agree at the end."""
    _transfer(given_store_path(store), url, videos, replace, json_output)


@app.command("pull")
def store_pull(
    url: Annotated[str, typer.Argument(metavar="URL", help="Store to fetch from (s3://, gs://).")],
    store: StoreOption = None,
    videos: VideosOption = None,
    replace: ReplaceOption = False,
    json_output: JsonOption = False,
) -> None:
    """Fetch videos from a store in object storage. Run it again to continue; exit code 1 if the two do not agree at the end."""
    _transfer(url, given_store_path(store), videos, replace, json_output)


def _transfer(source: str, target: str, videos: list[str] | None, replace: bool, json_output: bool) -> None:
    from features import open_store
    from features.store_transfer import transfer_store

    with count_bar("videos") as on_video:
        report = transfer_store(open_store(source), target, videos, replace=replace, on_video=on_video)
    print_json(report.to_dict()) if json_output else print(report.summary())
    if report.different:
        say(f"{target} holds other content under these ids, which was kept (--replace replaces it): {', '.join(report.different)}")
    if report.busy:
        say(f"another process is writing these videos in {target}: {', '.join(report.busy)}")
    say(*(f"{video_id} cannot be copied: {reason}" for video_id, reason in report.damaged.items()))
    raise typer.Exit(int(not report.ok))
