"""`cli.py check-videos`: parses, calls, and prints, as `cli.py` does."""

import os
from pathlib import Path
from typing import Annotated, Optional

import typer

from features.options import DatasetOption, JsonOption
from features.terminal import count_bar, print_json, say
from features.termination import ends_on_sigterm
from vjepa_loc.errors import ConfigError, VideoError
from vjepa_loc.workspace import read_workspace


def check_videos(
    names: Annotated[
        Optional[list[str]],
        typer.Argument(metavar="[PATHS]...", help="Files, and folders with all below them; default: the dataset's videos."),
    ] = None,
    csv: Annotated[Optional[Path], typer.Option(help="Write a row per file, as docs/check-videos.md says.", show_default=False)] = None,
    jobs: Annotated[Optional[int], typer.Option(help="Decoding processes at once; default: the cores.", show_default=False)] = None,
    quarantine: Annotated[
        Optional[Path],
        typer.Option(
            "--quarantine", metavar="DIR", show_default=False,
            help="Move files that cannot be used at all there, with the reason beside each; --replace keeps originals there too.",
        ),
    ] = None,
    remux: Annotated[
        bool,
        typer.Option("--remux", help="Copy packets of files that are not right into a new container; keep it beside if better."),
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put such a copy into the file's place; needs --remux and --quarantine.")
    ] = False,
    hashes: Annotated[bool, typer.Option("--hashes", help="The sha256 of every RGB24 frame, in <CSV's name>.hashes/.")] = False,
    cross_check: Annotated[bool, typer.Option("--cross-check", help="Compare every pixel with decord's.")] = False,
    dataset: DatasetOption = None,
    json_output: JsonOption = False,
) -> None:
    """Decode videos and say what is in them and what is wrong; exit code 1 if something is. Nothing is changed unless told to."""
    from features.check_files import files_of_dataset, find_files
    from features.check_partial import write_whole
    from features.check_quarantine import Quarantine
    from features.check_report import csv_of, print_checks, row_of
    from features.check_run import CheckOptions, check_files
    from vjepa_loc.dataset import read_dataset

    if hashes and csv is None:
        raise ConfigError("--hashes: expected --csv FILE too, whose name decides where the hashes lie")
    paths = [Path(name) for name in names or ()]
    if "" in (names or ()):
        # Path("") is the current folder, which an unset variable of a shell does not mean.
        raise ConfigError("PATHS: expected files and folders, got an empty name; is a variable of the shell unset?")
    if paths and dataset is not None:
        raise ConfigError("--dataset and PATHS exclude each other; give one of them")
    if csv is not None:
        _check_writable(csv)
    options = CheckOptions(
        jobs, remux, replace, None if quarantine is None else Quarantine(quarantine),
        csv.with_name(f"{csv.stem}.hashes") if hashes else None, cross_check,
    )
    leave = [folder for folder in (quarantine, options.hash_folder) if folder is not None]
    if paths:
        _check_apart(paths, quarantine)
        files = find_files(paths, leave)
    else:
        files = files_of_dataset(list(read_dataset(read_workspace(Path()).dataset_path(dataset)).videos.values()))
    with ends_on_sigterm(), count_bar("check") as on_file:
        checks = check_files(files, options, on_file)
    failure = None
    if csv is not None:
        try:
            write_whole(csv, csv_of(checks))
        except (OSError, VideoError) as error:
            # What hours found out, and what was done, is still shown.
            failure = ConfigError(f"--csv {csv}: not written ({getattr(error, 'strerror', None) or error})")
    if json_output:
        print_json([row_of(check) for check in checks])
    else:
        print_checks(checks)
        if csv is not None and failure is None:
            say(f"report: {csv}")
    if failure is not None:
        raise failure
    if all(check.ok is None for check in checks):
        raise ConfigError(f"expected videos, found none among {len(checks)} files")
    raise typer.Exit(int(any(check.ok is False for check in checks)))


def _check_writable(csv: Path) -> None:
    """Refused now, and not after hours of decoding."""
    folder = Path(os.path.realpath(csv)).parent
    while not folder.exists():
        folder = folder.parent
    if os.path.exists(csv) and not csv.is_file() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(f"--csv {csv}: expected the name of a file that can be written")


def _check_apart(paths: list[Path], quarantine: Path | None) -> None:
    if quarantine is None:
        return
    inside = Path(os.path.realpath(quarantine))
    for path in paths:
        if Path(os.path.realpath(path)).is_relative_to(inside):
            raise ConfigError(
                f"--quarantine {quarantine}: expected a folder beside or below what is checked, but {path} lies in it"
            )
