"""`cli.py store ...`: what is in a token store, and is it whole? Parses, calls, and prints, as `cli.py` does."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from features.options import DatasetOption, EncoderOption, JsonOption, OnMismatchOption, SetOption, StoreOption
from features.terminal import count_bar, error_console, print_json, print_table, say
from features.termination import ends_on_sigterm
from vjepa_loc.errors import ConfigError, StoreError
from vjepa_loc.workspace import read_workspace

if TYPE_CHECKING:
    from features import Store
    from features.reencode import ReencodeReport
    from features.verify import VerifyReport

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What is in a token store, and is it whole?")

StorePath = Annotated[Optional[str], typer.Argument(metavar="[STORE]", help="Default: the workspace's store.", show_default=False)]

VideosOption = Annotated[Optional[list[str]], typer.Option("--video", help="Only this video; repeatable.", show_default=False)]


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
    from features.store_diff import diff_stores

    with count_bar("videos") as on_video:
        difference = diff_stores(open_given_store(a), open_given_store(b), all_steps, on_video)
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
    every: Annotated[bool, typer.Option("--all", help="Every byte of every video (the default).")] = False,
    sample: Annotated[Optional[int], typer.Option(help="Every byte of so many random videos; of the others commits and sizes.", show_default=False)] = None,
    reencode: Annotated[Optional[int], typer.Option(help="Encode so many random clips again from their video files and compare.", show_default=False)] = None,
    seed: Annotated[Optional[int], typer.Option(help="Draws the same videos and clips again.", show_default=False)] = None,
    videos: VideosOption = None,
    encoder: EncoderOption = None,
    dataset: DatasetOption = None,
    json_output: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Check every byte that a commit names; exit code 1 if something is wrong."""
    from features.verify import verify_store

    if every + (sample is not None) + bool(videos) > 1:
        raise ConfigError("store verify: --all, --sample and --video exclude each other; give one of them")
    if reencode is None and (encoder or dataset or overrides):
        raise ConfigError("store verify: --encoder, --dataset and --set say how clips are encoded again; give --reencode N with them")
    if seed is not None and sample is None and reencode is None:
        raise ConfigError("store verify: --seed draws for --sample and --reencode; give it with one of them")
    path = given_store_path(store)
    again = None if reencode is None else _Reencoding(path, encoder, dataset, overrides)
    with count_bar("verify") as on_video:
        report = verify_store(path, videos or None, sample=sample, seed=seed, on_video=on_video)
    clips = None
    if again is not None and (whole := again.whole_videos(report)):
        clips = again.run(reencode, whole, seed)
        report = report.with_problems(clips.problems)
    elif again is not None:
        say("no clip was encoded again: of the videos that have a file, none is whole")
    if json_output:
        print_json(report.to_dict() | (clips.to_dict() if clips is not None else {}))
    else:
        if clips is not None:
            print_table(*clips.table())
            say(*(f"left out {video_id}: {reason}" for video_id, reason in clips.left_out.items()))
        print(report.summary())
    raise typer.Exit(int(not report.ok))


class _Reencoding:
    """What `--reencode` needs, refused before the bytes are read where it does not fit the store."""

    def __init__(self, path: str, encoder: str | None, dataset: str | None, overrides: Sequence[str] | None):
        from features.extract import load_encoder
        from features.extract_settings import read_extract_settings
        from features.reencode import videos_without_files
        from features.store import find_store
        from vjepa_loc.dataset import read_dataset

        settings = read_extract_settings(read_workspace(Path()), encoder, dataset, path, overrides or ())
        self._recipe = settings.recipe
        self._dataset = read_dataset(settings.dataset)
        self._encoder = load_encoder(settings.encoder_name, settings.encoder_config, settings.recipe.resolved_device())
        try:
            self._store = find_store(path, settings.recipe.encoding(self._encoder.spec))
        except StoreError:
            # Verifying names the file that is damaged, or refuses the store.
            self._store = None
        self._left_out = {} if self._store is None else videos_without_files(self._dataset, self._store.video_ids())

    def whole_videos(self, report: "VerifyReport") -> list[str]:
        """The videos that were checked and found whole, if one of them can be compared."""
        whole = set(report.checked) - set(report.video_ids)
        return sorted(whole) if self._store is not None and whole - self._left_out.keys() else []

    def run(self, num_clips: int, video_ids: list[str], seed: int | None) -> "ReencodeReport":
        from features.reencode import reencode_clips

        with count_bar("encode again") as on_clip:
            return reencode_clips(self._dataset, self._store, self._encoder, self._recipe, num_clips, video_ids, seed, on_clip)


@app.command("repair")
def store_repair(
    store: StoreOption = None,
    encoder: EncoderOption = None,
    dataset: DatasetOption = None,
    videos: VideosOption = None,
    on_mismatch: OnMismatchOption = None,
    json_output: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Put right what `store verify` finds wrong. Exit code 1 if something is left."""
    from features.extract import load_encoder
    from features.extract_settings import read_extract_settings
    from features.progress import ExtractionProgress
    from features.repair import repair_store
    from vjepa_loc.dataset import read_dataset

    settings = read_extract_settings(read_workspace(Path()), encoder, dataset, store, overrides or (), on_mismatch)
    read = read_dataset(settings.dataset)
    loaded = load_encoder(settings.encoder_name, settings.encoder_config, settings.recipe.resolved_device())
    with ends_on_sigterm(), ExtractionProgress({}, error_console()) as progress:
        report = repair_store(read, settings.store, loaded, settings.recipe, videos, progress)
    print_json(report.to_dict()) if json_output else print(report.summary())
    raise typer.Exit(int(not report.ok))


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
