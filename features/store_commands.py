"""`cli.py store ...`: what is in a token store, and is it whole? Parses, calls, and prints, as `cli.py` does."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from features.options import DatasetOption, EncoderOption, JsonOption, SetOption, StoreOption
from features.terminal import count_bar, error_console, print_json, print_table
from vjepa_loc.workspace import read_workspace

if TYPE_CHECKING:
    from features import Store

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What is in a token store, and is it whole?")

StorePath = Annotated[Optional[str], typer.Argument(metavar="[STORE]", help="Default: the workspace's store.", show_default=False)]


def given_store_path(given: str | None) -> str:
    """The store that a command was given, or the workspace's."""
    from features.extract_settings import store_path

    return store_path(read_workspace(Path()), given)


def open_given_store(given: str | None) -> "Store":
    """The store that a command was given, or the workspace's, opened."""
    from features import open_store

    return open_store(given_store_path(given))


@app.command("info")
def store_info(store: StorePath = None, json_output: JsonOption = False) -> None:
    """Encoding, fingerprint and size."""
    info = open_given_store(store).info()
    if json_output:
        print_json(info)
        return
    videos = info["videos"].values()
    print_table(f"fingerprint {info['fingerprint']}", ("encoding", ""), info["encoding"].items())
    print(f"{len(videos)} videos, {sum(v['steps'] for v in videos)} steps, {sum(v['bytes'] for v in videos):,} bytes")


@app.command("list")
def store_list(store: StorePath = None, json_output: JsonOption = False) -> None:
    """The videos."""
    videos = open_given_store(store).info()["videos"]
    if json_output:
        print_json(videos)
        return
    columns = ("num_frames", "width", "height", "steps", "grid", "bytes", "damaged")
    print_table(f"{len(videos)} videos", ("id", *columns), [(name, *(video[key] for key in columns)) for name, video in videos.items()])


@app.command("show")
def store_show(
    video_id: Annotated[str, typer.Argument(metavar="ID")],
    store: StoreOption = None,
    out: Annotated[Optional[Path], typer.Option(help="PNG file to write; default: the id in this folder.", show_default=False)] = None,
    dataset: DatasetOption = None,
    json_output: JsonOption = False,
) -> None:
    """What is known of one video, and a picture: frames, the colours of their tokens, which times resemble which."""
    from features.store_show import default_picture, show_video
    from vjepa_loc.dataset import read_dataset

    file = read_workspace(Path()).dataset_path(dataset)
    # A store can be looked at without its dataset; one that was asked for has to be there.
    videos = read_dataset(file) if dataset is not None or file.exists() else None
    out = out or default_picture(video_id)
    description = show_video(open_given_store(store), video_id, videos, out)
    print_json(description.values) if json_output else print_table(video_id, ("", ""), [*description.facts, ("picture", out)])


@app.command("diff")
def store_diff(
    a: Annotated[str, typer.Argument(metavar="A")],
    b: Annotated[str, typer.Argument(metavar="B")],
    all_steps: Annotated[bool, typer.Option("--all", help="Compare every step; otherwise 64 of each video.")] = False,
    json_output: JsonOption = False,
) -> None:
    """What differs between two stores: encodings, videos, values. Exit code 1 if anything does."""
    from features import open_store
    from features.store_diff import diff_stores

    with count_bar("videos") as on_video:
        difference = diff_stores(open_store(a), open_store(b), all_steps, on_video)
    if json_output:
        print_json(difference.to_dict())
    else:
        if difference.encoding:
            print_table("encodings", ("A != B",), [(line,) for line in difference.encoding])
        rows = [(video_id, "only in A") for video_id in difference.only_in_a]
        rows += [(video_id, "only in B") for video_id in difference.only_in_b]
        rows += [(video.video_id, line) for video in difference.different for line in video.lines()]
        if rows:
            print_table("videos", ("id", "difference"), rows)
        counts = len(difference.only_in_a), len(difference.only_in_b), len(difference.different), difference.num_same
        print("{} only in A, {} only in B, {} different, {} the same".format(*counts))
    raise typer.Exit(int(not difference.same))


@app.command("verify")
def store_verify(
    store: StorePath = None,
    videos: Annotated[Optional[list[str]], typer.Option("--video", help="Only this video; repeatable.", show_default=False)] = None,
    json_output: JsonOption = False,
) -> None:
    """Check every byte that a commit names; exit code 1 if something is wrong."""
    report = open_given_store(store).verify(videos)
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
    damaged = open_given_store(settings.store)
    loaded = load_encoder(settings.encoder_name, settings.encoder_config, settings.recipe.resolved_device())
    with ExtractionProgress({}, error_console()) as progress:
        report = repair_store(videos, damaged, loaded, settings.recipe, progress)
    print_json(report.to_dict()) if json_output else print(report.summary())
    raise typer.Exit(int(bool(report.failed)))


@app.command("gc")
def store_gc(
    store: StorePath = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Remove what no commit names, once it is a day old."""
    from features.store_gc import collect_garbage

    report = collect_garbage(open_given_store(store).path, dry_run=dry_run)
    if json_output:
        print_json({"removed": list(report.removed), "bytes": report.num_bytes})
    else:
        print(f"{'would remove' if dry_run else 'removed'} {report}")
