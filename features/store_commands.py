"""`cli.py store ...`: what is in a token store, and is it whole? Parses, calls, and prints, as `cli.py` does."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from features.options import DatasetOption, EncoderOption, JsonOption, SetOption, StoreOption
from features.terminal import error_console, print_json, print_table
from vjepa_loc.workspace import read_workspace

if TYPE_CHECKING:
    from features import Store
    from features.store_copy import CopyReport

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What is in a token store, and is it whole?")

StorePath = Annotated[Optional[str], typer.Argument(metavar="[STORE]", help="Default: the workspace's store.", show_default=False)]


def _path(given: str | None) -> str:
    from features.extract_settings import store_path

    return store_path(read_workspace(Path()), given)


def _open(given: str | None) -> "Store":
    from features import open_store

    return open_store(_path(given))


def _print_copied(report: "CopyReport", json_output: bool) -> None:
    counts = {"copied": list(report.copied), "present": list(report.present), "different": list(report.different)}
    if json_output:
        print_json(counts)
    else:
        print(", ".join(f"{len(ids)} {what}" for what, ids in counts.items()))


@app.command("info")
def store_info(store: StorePath = None, json_output: JsonOption = False) -> None:
    """Encoding, fingerprint and size."""
    info = _open(store).info()
    if json_output:
        print_json(info)
        return
    videos = info["videos"].values()
    print_table(f"fingerprint {info['fingerprint']}", ("encoding", ""), info["encoding"].items())
    print(f"{len(videos)} videos, {sum(v['steps'] for v in videos)} steps, {sum(v['bytes'] for v in videos):,} bytes")


@app.command("list")
def store_list(store: StorePath = None, json_output: JsonOption = False) -> None:
    """The videos."""
    videos = _open(store).info()["videos"]
    if json_output:
        print_json(videos)
        return
    columns = ("num_frames", "width", "height", "steps", "grid", "bytes", "damaged")
    print_table(f"{len(videos)} videos", ("id", *columns), [(name, *(video[key] for key in columns)) for name, video in videos.items()])


@app.command("show")
def store_show(video_id: Annotated[str, typer.Argument()], store: StorePath = None, json_output: JsonOption = False) -> None:
    """What is known of one video."""
    video = _open(store).video(video_id)
    facts = video.meta.to_dict() | {"steps": video.num_steps, "levels": list(video.levels), "path": video.commit.path}
    print_json(facts) if json_output else print_table(video_id, ("", ""), facts.items())


@app.command("verify")
def store_verify(
    store: StorePath = None,
    videos: Annotated[Optional[list[str]], typer.Option("--video", help="Only this video; repeatable.", show_default=False)] = None,
    json_output: JsonOption = False,
) -> None:
    """Check every byte that a commit names; exit code 1 if something is wrong."""
    report = _open(store).verify(videos)
    if json_output:
        print_json(report.to_dict())
    else:
        for problem in report.problems:
            print(problem)
        print(f"{report.num_videos} videos, {report.num_bytes:,} bytes, {len(report.problems)} problems")
    raise typer.Exit(int(not report.ok))


@app.command("repair")
def store_repair(
    store: StoreOption = None,
    encoder: EncoderOption = None,
    dataset: DatasetOption = None,
    json_output: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Extract again what `store verify` finds wrong. Exit code 1 if some videos failed."""
    from features.extract import load_encoder, repair_store
    from features.extract_settings import read_extract_settings
    from features.progress import ExtractionProgress
    from vjepa_loc.dataset import read_dataset

    settings = read_extract_settings(read_workspace(Path()), encoder, dataset, store, overrides or ())
    videos = read_dataset(settings.dataset)
    damaged = _open(settings.store)
    loaded = load_encoder(settings.encoder_name, settings.encoder_config, settings.recipe.resolved_device())
    with ExtractionProgress({}, error_console()) as progress:
        report = repair_store(videos, damaged, loaded, settings.recipe, progress)
    print_json(report.to_dict()) if json_output else print(report.summary())
    raise typer.Exit(int(bool(report.failed)))


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

    source = _open(store)
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

    stored = import_array(file, _path(store), video_id, fps, frames_per_step, family=family, width=width, height=height)
    print("stored" if stored else "already there")


@app.command("gc")
def store_gc(
    store: StorePath = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Remove what no commit names, once it is a day old."""
    from features.store_gc import collect_garbage

    report = collect_garbage(_open(store).path, dry_run=dry_run)
    if json_output:
        print_json({"removed": list(report.removed), "bytes": report.num_bytes})
    else:
        print(f"{'would remove' if dry_run else 'removed'} {report}")
