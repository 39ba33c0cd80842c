"""The benchmark of extraction at its smallest size: every measure is there. How fast it is, a test cannot say."""

import json
import math
import os
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from extract_processes import MemoryWatch, descendants, machine_busy_s, read_process, tree_cpu_s
from extract_videos import VideoSpec, cached_long_video, cached_videos

ROOT = Path(__file__).parents[2]
# Slow machines, and a busy one, load a process's libraries for many seconds.
LONG_S = 900


def run_benchmark(*options):
    command = [sys.executable, str(ROOT / "benchmarks" / "extract.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=LONG_S)


@pytest.fixture(scope="module")
def answer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extract")
    done = run_benchmark(
        "--quick", "--rounds", "1", "--only", "cheap,sleeping,plain", "--json", "--folder", str(folder), "--videos", str(folder / "videos")
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.timeout(LONG_S)
def test_every_measure_is_there_and_finite(answer):
    names = [row["measure"] for row in answer["rows"]]
    assert [name.partition(" ")[0] for name in names] == ["cheap", "sleeping", "against", "against"]
    for row in answer["rows"]:
        assert math.isfinite(row["value"]) and row["value"] > 0 and row["passed"] is not None and "of the cores" in row["how"], row


@pytest.mark.timeout(LONG_S)
def test_each_stage_says_what_it_did(answer):
    for table in answer["stages"].values():
        assert set(table["alone_s"]) == {"decode", "encode", "write"} and table["num_frames"] == 160 + 128 + 96
        times = table["times"]
        assert all(times[name] > 0 for name in ("decode_s", "encode_s", "write_s", "encode_wait_s", "wall_s"))
        # What the pipeline says of itself and what a clock beside it says.
        assert times["wall_s"] <= table["whole_s"] + 0.1 and table["cpu_s"] > 0
        assert table["bytes_out"] > table["bytes_in"] > 0


@pytest.mark.timeout(LONG_S)
def test_the_sleeping_stage_is_the_slowest_and_takes_no_cpu_time(answer):
    table = answer["stages"]["sleeping"]
    # 3 + 2 + 2 clips of 64 frames, 4 at a time.
    assert table["times"]["encode_s"] >= 0.95 * table["alone_s"]["encode"] > 0
    assert table["alone_s"]["encode"] > table["alone_s"]["write"]


@pytest.mark.timeout(LONG_S)
def test_memory_of_the_process_and_its_children_is_measured(tmp_path):
    done = run_benchmark("--quick", "--only", "memory", "--json", "--folder", str(tmp_path), "--videos", str(tmp_path / "videos"))
    assert done.returncode == 0, done.stderr
    hour, length, number = json.loads(done.stdout)["rows"]
    # Two decoding processes and their parent load torch: less would be a part of them.
    assert 200 < hour["value"] < 1500 and hour["passed"], hour
    assert 0.5 < length["value"] < 1.3 and 0.5 < number["value"] < 1.3, (length, number)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--only", "cheep"), "expected groups of cheap, expensive, sleeping, plain, memory"), (("--rounds", "0"), "--rounds of 1 or more"),
        (("--folder", "/nowhere"), "/nowhere is not a folder"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    done = run_benchmark(*options)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def decoded(file):
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        return stream.average_rate, [(frame.pts * frame.time_base, frame.to_ndarray(format="gray")) for frame in container.decode(stream)]


def test_videos_move_and_have_the_stated_length(tmp_path):
    spec = VideoSpec(60, 160, 96, seed=1)
    [file] = cached_videos(tmp_path, [spec])
    rate, frames = decoded(file)
    assert rate == 25 and [time_s for time_s, _ in frames] == [Fraction(number, 25) for number in range(60)]
    assert frames[0][1].shape == (96, 160)
    assert np.abs(frames[0][1].astype(int) - frames[30][1]).mean() > 5
    changed = file.stat().st_mtime_ns
    assert cached_videos(tmp_path, [spec]) == [file] and file.stat().st_mtime_ns == changed


def test_a_long_video_repeats_its_segment_frame_by_frame(tmp_path):
    [segment] = cached_videos(tmp_path, [VideoSpec(50, 160, 96, seed=1)])
    long = cached_long_video(tmp_path, VideoSpec(130, 160, 96, seed=1), 50)
    (_, parts), (rate, frames) = decoded(segment), decoded(long)
    assert rate == 25 and [time_s for time_s, _ in frames] == [Fraction(number, 25) for number in range(130)]
    for number, (_, picture) in enumerate(frames):
        assert np.array_equal(picture, parts[number % 50][1]), number


def test_cpu_time_and_memory_of_children_count():
    code = "import time\nend = time.process_time() + 0.5\nblock = bytearray(200 << 20)\nwhile time.process_time() < end: pass\ntime.sleep(1)"
    before_s, machine_before_s = tree_cpu_s(os.getpid()), machine_busy_s()
    child = subprocess.Popen([sys.executable, "-c", code])
    assert child.pid in {process.pid for process in descendants(os.getpid())} and read_process(child.pid).is_alive()
    with MemoryWatch(child.pid, 0.02) as watch:
        end_s = time.monotonic() + 60
        while tree_cpu_s(os.getpid()) - before_s < 0.4 and time.monotonic() < end_s:
            time.sleep(0.02)
        assert tree_cpu_s(os.getpid()) - before_s >= 0.4
        child.wait()
    assert 200 < watch.peak_mib < 260 and watch.num_looks > 1
    assert 0.5 <= tree_cpu_s(os.getpid()) - before_s < 5 and machine_busy_s() - machine_before_s > 0.4
    assert read_process(child.pid) is None
