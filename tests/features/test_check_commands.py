"""`cli.py check-videos` as a user calls it."""

import csv
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import psutil
import pytest

import cli
from features.check_partial import partial_file
from features.check_report import COLUMNS
from tests.features.check_clips import write_cut

ROOT = Path(cli.__file__).parent


@pytest.fixture
def run(capsys):
    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(["check-videos", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def folder(tmp_path, clip_writer, monkeypatch) -> Path:
    """`videos`, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    clip_writer(tmp_path / "videos" / "good.mp4", fps=Fraction(30000, 1001))
    write_cut(tmp_path / "videos" / "cut.mkv")
    (tmp_path / "videos" / "a, \"b\"\nc.mp4").write_bytes(b"no video")
    (tmp_path / "videos" / "notes.txt").write_text("notes")
    return tmp_path / "videos"


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        assert tuple(reader.fieldnames) == COLUMNS
        return {row["path"]: row for row in reader}


def test_the_csv_and_the_json_have_the_same_rows(folder, run):
    assert COLUMNS[:13] == (
        "path", "ok", "frames", "fps", "rate", "width", "height", "rotation", "codec", "duration_s", "decoding_errors", "wrong", "done"
    )
    code, out, err = run("videos", "--csv", "out/report.csv", "--hashes", "--json", "--jobs", "2")
    assert code == 1 and err == ""
    rows, objects = rows_of(folder.parent / "out" / "report.csv"), {row["path"]: row for row in json.loads(out)}
    assert rows.keys() == objects.keys() == {f"videos/{name}" for name in ("good.mp4", "cut.mkv", "a, \"b\"\nc.mp4", "notes.txt")}
    good = rows["videos/good.mp4"]
    assert [good[name] for name in COLUMNS[1:13]] == [
        "true", "20", "30000/1001", "constant", "144", "64", "0", "h264", "0.667333", "0", "", ""
    ]
    for name, row in objects.items():
        assert [rows[name][column] for column in COLUMNS] == [
            "" if value is None else str(value).lower() if isinstance(value, bool) else str(value) for value in row.values()
        ]
    assert objects["videos/notes.txt"]["ok"] is None and rows["videos/notes.txt"]["remarks"] == "not decoded: text by its name"
    assert Path(good["hashes"]).is_file() and Path(good["hashes"]).parent == Path("out/report.hashes")
    assert rows["videos/cut.mkv"]["ok"] == "false" and "its header says 8.000 s" in rows["videos/cut.mkv"]["wrong"]
    assert sorted(path.name for path in (folder.parent / "out").iterdir()) == ["report.csv", "report.hashes"]


def test_exit_codes(folder, run, tmp_path):
    assert run("videos/good.mp4")[0] == 0
    assert run("videos/cut.mkv")[0] == 1
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").touch()
    for arguments, message in (
        (["absent.mp4"], "absent.mp4: no such file or folder"),
        (["empty"], "empty: expected videos, found no file"),
        (["texts"], "expected videos, found none among 1 files"),
        (["videos", "--hashes"], "--hashes: expected --csv FILE too"),
        (["videos", "--csv", "videos"], "--csv videos: expected the name of a file that can be written"),
        (["videos", "--quarantine", "videos/good.mp4"], "expected a folder, or a name that is free, got a file"),
        (["videos/good.mp4", "--quarantine", "videos"], "expected a folder beside or below what is checked"),
        (["videos", "--replace"], "give --remux too"), (["videos", "--jobs", "0"], "--jobs: expected 1 or more"),
        (["videos", "--dataset", "x.json"], "--dataset and PATHS exclude each other"),
    ):
        code, _, err = run(*arguments)
        assert code == 2 and message in err and len(err.splitlines()) == 1, arguments
    assert run("--", "videos/good.mp4")[0] == 0


def test_a_quarantine_below_the_folder_is_not_checked(folder, run):
    code, out, _ = run("videos", "--remux", "--replace", "--quarantine", "videos/aside", "--json")
    assert code == 1 and len(json.loads(out)) == 4
    code, out, _ = run("videos", "--remux", "--replace", "--quarantine", "videos/aside", "--json")
    assert code == 0 and {row["path"]: row["ok"] for row in json.loads(out)} == {
        "videos/cut.mkv": True, "videos/good.mp4": True, "videos/notes.txt": None
    }


def test_a_carriage_return_in_a_name(folder, run):
    (folder / "good.mp4").rename("a\rb.mp4")
    assert run("a\rb.mp4", "--csv", "r.csv")[0] == 0
    assert list(rows_of(Path("r.csv"))) == ["a\rb.mp4"]


def test_a_report_that_cannot_be_written_is_still_printed(folder, run):
    with partial_file(folder / "r.csv"):
        code, out, err = run("videos", "--csv", folder / "r.csv", "--json")
    assert code == 2 and len(json.loads(out)) == 5 and len(err.splitlines()) == 1
    assert "r.csv: not written (" in err and not (folder / "r.csv").exists()


def test_names_that_begin_with_a_dash_or_are_not_utf_8(folder, run):
    (folder / "good.mp4").rename("-x.mp4")
    (folder / "cut.mkv").rename(os.fsdecode(b"\xff.mkv"))
    code, out, _ = run("--json", "--csv", "r.csv", "--", "-x.mp4", os.fsdecode(b"\xff.mkv"))
    assert code == 1 and [(row["path"], row["ok"]) for row in json.loads(out)] == [("-x.mp4", True), ("\\xff.mkv", False)]
    assert list(rows_of(Path("r.csv"))) == ["-x.mp4", "\\xff.mkv"]
    code, out, _ = run("--", "-x.mp4", os.fsdecode(b"\xff.mkv"))
    assert code == 1 and "\\xff.mkv" in out


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_the_terminal(folder, width):
    (folder / "a-very-long-name-of-a-video-that-somebody-has-given-it-0123456789.mp4").write_bytes((folder / "good.mp4").read_bytes())
    (folder / "esc\x1b[31m.mp4").write_bytes(b"")
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": str(width), "TERM": "dumb", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "cli.py"), "check-videos", "videos", "--cross-check"], stdout=theirs, stderr=subprocess.DEVNULL,
        env=environment, cwd=folder.parent,
    )
    os.close(theirs)
    text = b""
    try:
        while data := os.read(ours, 65536):
            text += data
    except OSError:
        # What Linux answers at the end of a terminal.
        pass
    os.close(ours)
    assert process.wait() == 1
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text.decode()).replace("\r\n", "\n").split("\n")
    assert max(map(len, lines)) <= width and "\x1b" not in "".join(lines)
    assert any("30000/1001" in line and "144x64" in line and "yes" in line for line in lines)
    assert "6 videos" not in "".join(lines) and "5 videos: 2 ok, 1 not all right, 2 cannot be used" in lines
    assert "1 other files: 1 not decoded: text by its name" in lines


def test_ctrl_c_ends_the_processes_and_writes_no_report(folder, clip_writer):
    clip_writer(folder / "long.mp4", num_frames=600, width=640, height=640)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "cli.py"), "check-videos", *["videos/long.mp4"], "--csv", "report.csv", "--cross-check"],
        stderr=subprocess.PIPE, text=True, cwd=folder.parent, env=os.environ | {"PYTHONPATH": str(ROOT)},
        # A shell that starts the tests in the background has them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    end_s = time.monotonic() + 60
    while not (children := psutil.Process(process.pid).children()) and time.monotonic() < end_s:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and error.startswith("interrupted") and len(error.splitlines()) == 1
    psutil.wait_procs(children, timeout=10)
    assert children and not any(child.is_running() for child in children)
    assert not (folder.parent / "report.csv").exists()


@pytest.mark.parametrize("cross_check", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_awkward_real_files(real_videos, tmp_path, run, cross_check):
    with (real_videos / "probe.csv").open(newline="") as file:
        known = {row["file"]: row for row in csv.DictReader(file)}
    before = {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in real_videos.rglob("*")}
    code, _, _ = run(real_videos, "--csv", tmp_path / "report.csv", "--jobs", "2", *["--cross-check"] * cross_check)
    assert code == 1
    assert {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in real_videos.rglob("*")} == before
    rows = {str(Path(path).relative_to(real_videos)): row for path, row in rows_of(tmp_path / "report.csv").items()}
    assert known.keys() == {name for name, row in rows.items() if row["ok"]}
    assert {name for name, row in rows.items() if row["ok"] == "false"} == {"decord/corrupted.mp4", "lfs_pointer/clip_4frames.mp4"}
    assert rows["decord/corrupted.mp4"]["decoding_errors"] == "2"
    for name, row in known.items():
        found = rows[name]
        assert found["frames"] == row["frames_decoded_by_ffmpeg"] and found["codec"] == row["codec"], name
        if row["fps"] not in ("", "90000/1"):
            assert Fraction(found["fps"]) == Fraction(row["fps"]), name
        if found["frames"]:
            assert found["rotation"] == (row["rotation"] or "0")
            size = (row["width"], row["height"])
            assert (found["width"], found["height"]) == (size[::-1] if row["rotation"] in ("90", "-90") else size)
    if cross_check:
        same = [name for name, row in rows.items() if row["cross_check"] == "same"]
        differs = {name for name, row in rows.items() if row["cross_check"].startswith("differs")}
        assert len(same) == 40 and all("(known: " in rows[name]["cross_check"] for name in differs) and len(differs) == 5


def test_an_unset_variable_is_not_the_current_folder(run):
    code, _, err = run("")
    assert code == 2 and "got an empty name" in err
