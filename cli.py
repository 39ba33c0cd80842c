"""The command line: `python cli.py COMMAND`, in a workspace folder. It parses, calls, and prints; the work is elsewhere.

Heavy libraries are imported inside the commands, so that `--help` is instant. A mistake of the user is one line on standard
error and exit code 2; `extract` ends with 1 where some videos failed, `store verify` where something is wrong.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Optional

import typer

from features import check_commands, dataset_commands, estimate_command, status_command, store_copy_commands
from features.options import (
    DatasetOption, EncoderOption, JsonOption, OnMismatchOption, RunOption, RunsOption, SetOption, StoreOption, StoresOption,
)
from features.terminal import count_bar, error_console, print_json, print_table, say, table_width
from features.termination import ends_on_sigterm, stops_on_signals
from vjepa_loc.errors import ConfigError, VjepaLocError
from vjepa_loc.workspace import read_workspace

app = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Localise events in time and space from the stored tokens of a frozen video encoder.",
)
app.add_typer(store_copy_commands.app, name="store")
app.add_typer(dataset_commands.app, name="dataset")
app.command("estimate")(estimate_command.estimate)
app.command("status")(status_command.status)

# Typer's own exceptions for a wrong command line are not public; their base is that of the one that is.
UsageError = typer.BadParameter.__mro__[1]

# As many rows of labels as can be looked over; --json has all.
MOST_LABELS = 40

# The exit code of a program that Ctrl-C ended; Typer returns it where it caught the interrupt itself.
INTERRUPTED = 130

# Tables with more columns than fit are printed in parts, and of more rows the first; files and --json have all.
TABLE_WIDTH, TABLE_ROWS = 100, 60


@app.command()
def extract(
    encoder: EncoderOption = None,
    dataset: DatasetOption = None,
    store: StoreOption = None,
    on_mismatch: OnMismatchOption = None,
    engine: Annotated[
        Optional[str], typer.Option(help="Who does the work, of features/engines/; default: local, or processes where there are several GPUs.", show_default=False)
    ] = None,
    workers: Annotated[Optional[int], typer.Option(help="Workers of the engine; default: one per GPU.", show_default=False)] = None,
    shard: Annotated[
        Optional[str], typer.Option(metavar="I/N", help="Only share I of N, from 0; default: as torchrun or Slurm say, or all.", show_default=False)
    ] = None,
    split: Annotated[Optional[str], typer.Option(help="Only the videos of this split.", show_default=False)] = None,
    video: Annotated[Optional[list[str]], typer.Option("--video", help="Only the video with this id; repeatable.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done with each video, and do nothing.")] = False,
    json_output: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Every video of the dataset into the token store; what is complete is skipped. Exit code 1 if some videos failed."""
    from features.heap import share_one_heap

    # Before there are threads, which it would not reach.
    share_one_heap()
    from features.engines import load_engine
    from features.extract import clips_of_videos, plan_extraction
    from features.extract_job import ExtractJob
    from features.extract_settings import read_extract_settings
    from features.progress import ExtractionProgress
    from features.shares import dataset_of_share, find_share, part_of_dataset
    from vjepa_loc.dataset import read_dataset

    settings = read_extract_settings(read_workspace(Path()), encoder, dataset, store, overrides or (), on_mismatch)
    say(*settings.notes)
    part = part_of_dataset(read_dataset(settings.dataset), split, video or ())
    videos, note = dataset_of_share(part, find_share(shard))
    say(*note)
    chosen = load_engine(engine, settings.recipe, workers)
    job = chosen.prepare(ExtractJob.of(videos.videos.values(), settings))
    if dry_run:
        plan = list(plan_extraction(videos, settings.store, job.encoding, settings.recipe))
        if json_output:
            print_json({decision.video.id: {"action": decision.action, "reason": decision.reason} for decision in plan})
        else:
            print_table("Would do", ("video", "action", "why"), [(d.video.id, d.action, d.reason) for d in plan])
        raise typer.Exit(int(any(decision.action == "refuse" for decision in plan)))
    with stops_on_signals() as stop, ExtractionProgress(clips_of_videos(videos, job.encoding), error_console()) as progress:
        report = chosen.run(job, progress, stop, workers)
    if json_output:
        print_json(report.to_dict())
    else:
        print(report.summary())
        print(f"store: {settings.store}")
    if stop.is_set():
        if stop.exit_code != INTERRUPTED:
            say(f"{stop}: ended; what is complete is kept, run the command again to continue")
        raise typer.Exit(stop.exit_code)
    raise typer.Exit(int(bool(report.failed)))


@app.command("train-head")
def train_head(
    head: Annotated[Optional[str], typer.Option(help="Head, of heads/; default: detr.", show_default=False)] = None,
    dataset: DatasetOption = None,
    stores: StoresOption = None,
    runs: RunsOption = None,
    epochs: Annotated[Optional[int], typer.Option(help="Passes over the training videos.", show_default=False)] = None,
    seed: Annotated[Optional[int], typer.Option(help="On a CPU the same seed gives the same run.", show_default=False)] = None,
    resume: Annotated[Optional[Path], typer.Option(help="Folder of an unfinished run to continue.", show_default=False)] = None,
    config: Annotated[Optional[Path], typer.Option(help="TOML file read over vjepa_loc.toml.", show_default=False)] = None,
    json_output: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Train a head on the split `train`, validated on `val`; prints the run folder."""
    from features import open_store
    from heads.training.fit import train_head as train
    from heads.training.train_settings import read_train_settings
    from vjepa_loc.dataset import read_dataset

    settings = read_train_settings(read_workspace(Path(), config), head, dataset, stores or (), runs, overrides or (), resume)
    say(*settings.notes)
    run = train(
        read_dataset(settings.dataset), [open_store(path) for path in settings.stores], settings.head_name, settings.head_overrides,
        settings.train_overrides, settings.runs, seed, resume, epochs,
    )
    print_json({"run": str(run)}) if json_output else print(run)


@app.command()
def evaluate(
    split: Annotated[str, typer.Option(help="Split to score; `all` is every video.")] = "val",
    run: RunOption = None,
    predictions: Annotated[Optional[Path], typer.Option(help="Prediction file to score instead of a run.", show_default=False)] = None,
    metrics: Annotated[
        Optional[list[str]], typer.Option("--metric", help="Metric, of vjepa_loc/metrics/, such as frame_map[coco], or all; repeatable; default: tal and stal.")
    ] = None,
    iou: Annotated[Optional[str], typer.Option(help="Thresholds, such as 0.25,0.5,0.5:0.05:0.95.", show_default=False)] = None,
    against: Annotated[
        Optional[Path], typer.Option(help="Run folder or prediction file to compare with.", show_default=False)
    ] = None,
    resamples: Annotated[int, typer.Option("--bootstrap", help="Resamples of the videos for 95% intervals; 0: none.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the resamples.")] = 0,
    out: Annotated[
        Optional[Path], typer.Option(help="Folder for metrics.json, predictions.json, report.html, tables/; default: in the run's.", show_default=False)
    ] = None,
    dataset: DatasetOption = None,
    stores: StoresOption = None,
    runs: RunsOption = None,
    json_output: JsonOption = False,
) -> None:
    """Score a run, or any prediction file, against the truth of a split."""
    from heads.training.against import other_predictions
    from vjepa_loc.bootstrap import Bootstrap
    from vjepa_loc.dataset import read_dataset, read_predictions
    from vjepa_loc.evaluation import evaluate as score
    from vjepa_loc.metric_names import check_metrics

    if out is not None and out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}: expected a folder, or a name that is free, got a file")
    names, bootstrap = metrics or ["tal", "stal"], Bootstrap(resamples, seed)
    check_metrics(names, iou)
    if predictions is not None and run is not None:
        raise ConfigError("--run and --predictions exclude each other; give one of them")
    here = read_workspace(Path())
    truth = read_dataset(here.dataset_path(dataset))
    if predictions is None or stores or (against is not None and against.is_dir()):
        # Files alone are scored without torch, which this would load.
        from features.extract_settings import use_cache

        use_cache(here)
    if predictions is not None:
        events = read_predictions(predictions, truth)
        seams = {}
        if stores:
            from features.seams import seams_of_stores

            seams = seams_of_stores(stores, [video.id for video in truth.videos_of_split(split)])
        other = None if against is None else other_predictions(against, truth, split, stores or ())
        evaluation, folder = score(
            truth, split, events, names, iou, bootstrap=bootstrap, against=other, seams=seams, predictions_file=str(predictions)
        ), out
    else:
        from heads import load_run
        from heads.training.run_folder import newest_finished_run
        from heads.training.scoring import evaluate_run, open_stores

        loaded = load_run(run or newest_finished_run(here.runs_path(runs)))
        opened = open_stores(loaded, stores or ())
        other = None if against is None else other_predictions(against, truth, split, stores or ())
        evaluation = evaluate_run(loaded, truth, opened, split, names, iou, bootstrap, other)
        folder = out or loaded.path / f"evaluation-{split}"
    files = None if folder is None else evaluation.write(folder)
    if json_output:
        print_json(evaluation.to_dict() | {"report": None if files is None else str(files.report)})
        return
    for table in evaluation.tables():
        for part in table.shortened(TABLE_ROWS).fitted(table_width(TABLE_WIDTH)):
            print_table(part.title, part.columns, part.texts())
    for note in evaluation.notes:
        print(note)
    if evaluation.missing_videos:
        print(f"not in the store, their events count as missed: {', '.join(evaluation.missing_videos)}")
    if files is not None:
        print(f"report: {files.report}")


@app.command()
def predict(
    more_videos: Annotated[Optional[list[Path]], typer.Argument(metavar="[FILE]...", help="More video files after --video.")] = None,
    run: RunOption = None,
    split: Annotated[Optional[str], typer.Option(help="Split whose stored videos are predicted.", show_default=False)] = None,
    video: Annotated[Optional[list[Path]], typer.Option(help="Video file that no store holds; repeatable.", show_default=False)] = None,
    out: Annotated[Path, typer.Option(help="File, or the folder of a format that writes several.")] = Path("predictions.json"),
    format_name: Annotated[str, typer.Option("--format", help="Format, of vjepa_loc/formats/.")] = "native",
    dataset: DatasetOption = None,
    stores: StoresOption = None,
    runs: RunsOption = None,
    json_output: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Events of a split's stored videos, or of video files, which are extracted with the run's encoding."""
    from heads import load_run
    from heads.training.run_folder import newest_finished_run
    from vjepa_loc.convert import check_prediction_format, write_predictions_as
    from vjepa_loc.dataset import read_dataset

    files = [*(video or ()), *(more_videos or ())]
    if bool(files) == (split is not None):
        raise ConfigError("expected either --split NAME or --video FILE; give one of them")
    check_prediction_format(format_name)
    here = read_workspace(Path())
    loaded = load_run(run or newest_finished_run(here.runs_path(runs)))
    if files:
        from features.extract import videos_of_files
        from features.progress import ExtractionProgress
        from heads.training.on_the_fly import predict_files

        with ends_on_sigterm(), ExtractionProgress({new.id: None for new in videos_of_files(files)}, error_console()) as progress:
            answer = predict_files(loaded, files, here, overrides or (), progress)
        failed = answer.failed
    else:
        from features.extract_settings import use_cache
        from heads.training.scoring import open_stores, predict_split

        use_cache(here)
        truth = read_dataset(here.dataset_path(dataset))
        answer = predict_split(loaded, truth, open_stores(loaded, stores or ()), split)
        failed = {video_id: "not in the store" for video_id in answer.missing}
    videos, events = answer.dataset, answer.events
    writing = write_predictions_as(format_name, events, videos, out)
    say(*writing["notes"])
    if json_output:
        print_json({"out": str(out), "videos": list(videos.videos), "events": len(events), "failed": failed})
    else:
        print(f"{len(events)} events in {len(videos.videos)} videos: {out}")
        say(*(f"no prediction for {video_id}: {reason}" for video_id, reason in failed.items()))
    raise typer.Exit(int(bool(failed)))


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="File or folder to read.")],
    target: Annotated[Path, typer.Argument(help="File or folder to write.")],
    from_format: Annotated[str, typer.Option("--from", help="Format of SOURCE, of vjepa_loc/formats/.")] = "native",
    to_format: Annotated[str, typer.Option("--to", help="Format of TARGET.")] = "native",
    predictions: Annotated[bool, typer.Option("--predictions", help="SOURCE holds predictions for --dataset.")] = False,
    probe: Annotated[bool, typer.Option("--probe/--no-probe", help="Decode videos for what SOURCE does not state of them.")] = True,
    dataset: DatasetOption = None,
    json_output: JsonOption = False,
) -> None:
    """Annotations or predictions from one format to another; prints what was read, left out and lost, and why."""
    from vjepa_loc.convert import convert_dataset, convert_predictions
    from vjepa_loc.dataset import read_dataset

    if predictions:
        truth = read_dataset(read_workspace(Path()).dataset_path(dataset))
        done = convert_predictions(source, truth, target, from_format, to_format)
    else:
        from features.check import probe_for_formats

        done = convert_dataset(source, target, from_format, to_format, probe_for_formats if probe else None)
    if json_output:
        print_json(done.to_dict() | {"out": str(target)})
        return
    for table in (done.label_table(most=MOST_LABELS), done.account_table()):
        if table.rows:
            print_table(table.title, table.columns, table.texts())
    for note in done.notes():
        print(note)
    print(f"written as {to_format}: {target}")


app.command("check-videos")(check_commands.check_videos)


@app.command()
def synthesize(
    out: Annotated[Path, typer.Argument(help="Folder for dataset.json and videos/.")],
    videos: Annotated[int, typer.Option(help="Number of videos, divided into train, val and test.")] = 66,
    train: Annotated[Optional[int], typer.Option(help="Number per split, instead of --videos.", show_default=False)] = None,
    val: Annotated[Optional[int], typer.Option(show_default=False)] = None,
    test: Annotated[Optional[int], typer.Option(show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same videos.")] = 0,
    json_output: JsonOption = False,
) -> None:
    """Synthetic cart videos with exactly known events."""
    from features.synthetic import synthesize as make

    given = {name: count for name, count in (("train", train), ("val", val), ("test", test)) if count is not None}
    with count_bar("synthesize") as on_video:
        path = make(out, given or videos, seed, on_video=on_video)
    print_json({"dataset": str(path)}) if json_output else print(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; what goes wrong is one line on standard error."""
    try:
        # Not standalone: Typer's own handling of errors prints several lines.
        code = app(args=arguments, prog_name="cli.py", standalone_mode=False)
    except UsageError as error:
        message = error.format_message()
        # A command without its sub-command comes with the whole help text as its message.
        say(message if "\n" in message else f"error: {message} (`--help` says what there is)")
        return 2
    except (VjepaLocError, OSError) as error:
        say(f"error: {' '.join(str(error).split())}")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:
        say("interrupted; what is complete is kept, run the command again to continue")
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
