"""`cli.py dataset ...`: is a dataset right, how is it divided, what is in it? Parses, calls, and prints, as `cli.py` does."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from features.options import DatasetOption, JsonOption
from features.terminal import count_bar, print_json, print_table
from vjepa_loc.errors import ConfigError
from vjepa_loc.workspace import read_workspace

if TYPE_CHECKING:
    from vjepa_loc.dataset import Dataset

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Is a dataset right, how is it divided, what is in it?")


def _read(dataset: str | None) -> "Dataset":
    from vjepa_loc.dataset import read_dataset

    return read_dataset(read_workspace(Path()).dataset_path(dataset))


@app.command("check")
def check(
    dataset: DatasetOption = None,
    decode: Annotated[bool, typer.Option("--decode/--no-decode", help="Decode every video and compare.")] = True,
    json_output: JsonOption = False,
) -> None:
    """Against the videos, and for what is suspicious in itself; exit code 1 where something is wrong."""
    from features.dataset_check import check_dataset
    from vjepa_loc.dataset_review import ERROR, summary_rows

    read = _read(dataset)
    with count_bar("check") as on_video:
        findings = check_dataset(read, decode, on_video=lambda number: on_video(number, len(read.videos)))
    num_errors = sum(finding.severity == ERROR for finding in findings)
    if json_output:
        print_json({"videos": len(read.videos), "events": len(read.events), "findings": [finding.to_dict() for finding in findings]})
    else:
        if findings:
            print_table("Findings", ("", "kind", "number", "first"), summary_rows(findings))
        looked = "decoded" if decode else "not decoded"
        print(f"{len(read.videos)} videos ({looked}), {len(read.events)} events: {num_errors} errors, {len(findings) - num_errors} warnings")
    raise typer.Exit(int(num_errors > 0))


@app.command("split")
def split(
    out: Annotated[Path, typer.Option(help="Dataset file to write; with --folds, a folder.", show_default=False)],
    dataset: DatasetOption = None,
    share: Annotated[Optional[list[str]], typer.Option("--share", metavar="NAME=PART", help="Repeatable; default: train=0.8, val=0.2.")] = None,
    folds: Annotated[Optional[int], typer.Option(help="So many datasets instead, in which each part is `val` once.", show_default=False)] = None,
    by: Annotated[str, typer.Option(help="`group` keeps the videos of a group together, `video` does not.")] = "group",
    stratify: Annotated[bool, typer.Option("--stratify/--no-stratify", help="Give each split its share of every label.")] = True,
    keep: Annotated[Optional[list[str]], typer.Option(help="Split whose videos stay in it; repeatable.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same splits.")] = 0,
    json_output: JsonOption = False,
) -> None:
    """Divide the videos anew, into splits or into folds; nothing else of the dataset changes."""
    from vjepa_loc.dataset import write_dataset
    from vjepa_loc.dataset_stats import split_table
    from vjepa_loc.splitting import draw_folds, draw_splits, parse_shares

    if by not in ("group", "video"):
        raise ConfigError(f"--by: expected group or video, got {by!r}")
    if folds is not None and share:
        raise ConfigError("--folds and --share exclude each other; give one of them")
    read = _read(dataset)
    rule = {"seed": seed, "by_group": by == "group", "stratified": stratify, "keep": keep or ()}
    if folds is None:
        written = {out: draw_splits(read, parse_shares(share or ["train=0.8", "val=0.2"]), **rule)}
    else:
        drawn = draw_folds(read, folds, **rule)
        written = {out / f"fold-{number}.json": fold for number, fold in enumerate(drawn, start=1)}
    for path, divided in written.items():
        write_dataset(divided, path)
    tables = {str(path): split_table(divided) for path, divided in written.items()}
    if json_output:
        print_json({path: table.to_dicts() for path, table in tables.items()})
        return
    for path, table in tables.items():
        print_table(path, table.columns, table.texts())


@app.command("stats")
def stats(
    dataset: DatasetOption = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder for stats.html with the plots, stats.json and tables/*.csv.", show_default=False)] = None,
    json_output: JsonOption = False,
) -> None:
    """Counts, lengths, overlaps and sizes of boxes, per split and label."""
    from vjepa_loc.dataset_stats import dataset_stats

    read = _read(dataset)
    found = dataset_stats(read)
    page = None if out is None else found.write(out, read)
    if json_output:
        print_json(found.to_dict() | {"page": None if page is None else str(page)})
        return
    for table in found.tables:
        print_table(table.title, table.columns, table.texts())
    print(f"plots: {page}" if page is not None else "with --out FOLDER, plots too")
