"""The store's benchmark at its smallest size: every measure is there and finite. How fast it is, a test cannot say."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from store_cold import drop_from_page_cache, resident_pages
from store_table import Ratio, Reader, Row, Timings, bars_table, interleave, ratio_row, readers_table

ROOT = Path(__file__).parents[2]
MEASURES = {
    "cold: windows": 3, "int8, `read_codes`, warm": 5, "every checksum on every read": 5, "float16, `read`, warm": 5,
    "bytes of tokens, scales and index": 1, "the first read of every chunk": 1, "standardised float32 batch": 1,
    "latency of one step": 2, "through the training loader": 4, "features.torch_dataset": 1, "write int8": 1,
    "write a video": 1, "memory while writing": 1,
    "20 videos, with its manifest": 2, "20 videos, its manifest removed": 2,
}


def run_benchmark(*options):
    command = [sys.executable, str(ROOT / "benchmarks" / "store.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=280)


@pytest.fixture(scope="module")
def answer(tmp_path_factory):
    done = run_benchmark(
        "--steps", "64", "--rounds", "1", "--videos", "20", "--json", "--folder", str(tmp_path_factory.mktemp("benchmark"))
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_measure_is_there_and_finite(answer):
    names = [row["measure"] for row in answer["rows"]]
    found = {part: sum(part in name for name in names) for part in MEASURES}
    # Some file systems cannot forget what was just written; then one row says so.
    cold = [row for row in answer["rows"] if row["measure"].startswith("cold")]
    could_not = len(cold) == 1 and cold[0]["value"] is None and "kept" in cold[0]["how"]
    assert found == MEASURES | ({"cold: windows": 1} if could_not else {})
    for row in answer["rows"]:
        assert row in cold and could_not or math.isfinite(row["value"]) and row["value"] > 0, row
        assert row["how"]


def test_what_does_not_depend_on_speed_passes(answer):
    for part in ("bytes of tokens", "memory while writing", "peak memory"):
        rows = [row for row in answer["rows"] if part in row["measure"]]
        assert rows and all(row["passed"] for row in rows), rows


def test_every_reader_is_compared_or_listed_as_missing(answer):
    names = " ".join(reader["name"] for reader in answer["readers"])
    assert all(library in names for library in ("np.memmap", "read_codes", "zarr-python", "zarrs", "tensorstore", "HDF5"))
    for reader in answer["readers"]:
        assert len(reader["ratios"]) == 4 or reader["missing"] == "not installed", reader
    assert len(next(reader for reader in answer["readers"] if reader["name"] == "zarr-python, int8")["ratios"]) == 4


def test_the_machine_is_described_without_names(answer):
    assert answer["machine"]["cores"] >= 1 and answer["machine"]["libraries"]["zarr"]
    assert os.uname().nodename not in json.dumps(answer["machine"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--only", "reeding"), "expected groups of cold, reading"), (("--steps", "8"), "--steps of 64 or more"),
        (("--steps", "999999999"), "use fewer --steps"), (("--videos", "70000"), "expected 60000 or fewer"),
        (("--folder", "/nowhere"), "/nowhere is not a folder"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    done = run_benchmark(*options)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_tasks_are_interleaved_and_the_first_round_does_not_count():
    calls = []
    timings = interleave({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, between=lambda: calls.append("-"))
    assert "".join(calls) == "a-b-b-a-a-b-"
    assert all(len(seconds) == 3 for seconds in timings.seconds.values())
    timings = Timings({"task": [100.0, 1.0, 2.0, 3.0], "reference": [1.0, 2.0, 2.0, 9.0]})
    assert timings.ratio("task", "reference") == Ratio(2.0, 1.0, 3.0)
    assert (timings.median_s("task"), timings.first_s("task")) == (2.0, 100.0)
    row = ratio_row("m", timings, "task", "reference", 4_000_000_000, at_least=2.5)
    assert row.passed is False and row.how == "2.00 against 2.00 GB/s; rounds 1.00 to 3.00"


@pytest.mark.parametrize(
    ("value", "limits", "passed", "cells"),
    [
        (1.6, {"at_least": 1.6}, True, ("1.60x", ">= 1.6x", "pass")),
        (1.59, {"at_least": 1.6}, False, ("1.59x", ">= 1.6x", "**FAIL**")),
        (0.502, {"at_most": 0.51}, True, ("0.502x", "<= 0.51x", "pass")),
        (0.52, {"at_most": 0.51}, False, ("0.520x", "<= 0.51x", "**FAIL**")),
        (None, {"at_least": 3}, False, ("not measured", ">= 3x", "**FAIL**")),
        (math.nan, {"at_most": 1}, False, ("nanx", "<= 1x", "**FAIL**")),
        (math.inf, {"at_least": 3}, False, ("infx", ">= 3x", "**FAIL**")),
        (12.3, {}, None, ("12.3x", "", "")),
    ],
)
def test_bars(value, limits, passed, cells):
    row = Row("measure", value, "x", "how", **limits)
    assert row.passed is passed
    assert row.cells() == ("measure", *cells, "how")
    assert bars_table([row]).splitlines()[2] == f"| measure | {' | '.join(cells)} | how |"


def test_a_reader_that_is_missing_says_so_in_every_column():
    there, missing = Reader("a", 0.5, dict.fromkeys("pq", Ratio(1.0, 0.9, 1.1))), Reader("b", None, {}, "not installed")
    assert readers_table([there, missing]).splitlines()[2:] == [
        "| a | 0.500 | 1.00x | 1.00x |", "| b |  | not installed | not installed |"
    ]


def test_the_page_cache_is_looked_at(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(os.urandom(1 << 20))
    file.read_bytes()
    with open(file, "rb") as opened:
        assert resident_pages(opened.fileno()).shape == (256,) and resident_pages(opened.fileno()).all()
        share = drop_from_page_cache([file])
        assert share == resident_pages(opened.fileno()).mean()
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if resident_pages(opened.fileno()).any():
            pytest.skip("this file system keeps its files in memory")
    assert share == 0
