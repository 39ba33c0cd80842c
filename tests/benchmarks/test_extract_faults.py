"""The faults of `benchmarks/extract_faults.py` in small numbers, and that what it asks for would be noticed."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from extract_faults import FaultCounts, Reference, Watch, interrupt, kill, kill_children, run_reference, stop
from extract_lives import Life
from extract_videos import VideoSpec, cached_videos
from features.store import open_store
from store_faults import arrays_of, make_store, write_video

ROOT = Path(__file__).parents[2]
LONG_S = 900


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    specs = [VideoSpec(num_frames, 160, 96, seed) for seed, num_frames in enumerate((120, 90, 60))]
    return run_reference(folder, specs, cached_videos(folder / "videos", specs))


@pytest.mark.timeout(LONG_S)
@pytest.mark.parametrize(("strike", "num_faults"), [(kill, 2), (stop, 1), (kill_children, 1)])
def test_an_extraction_goes_on_as_if_nothing_had_happened(reference, tmp_path, strike, num_faults):
    counts = interrupt(tmp_path, reference, num_faults, random.Random(3), strike)
    assert counts.ok and counts.faults == num_faults and counts.equal == counts.videos >= 3, str(counts)


def plain_store(path, ids):
    store = make_store(path)
    for video_id in ids:
        assert write_video(store, video_id)
        store.ledger.record(video_id, "done", steps=40)
    arrays = {video_id: arrays_of(store.video(video_id)) for video_id in ids}
    return store, Reference(path / "none.json", arrays, 0.0, 0.0)


def test_a_whole_store_is_right(tmp_path):
    store, reference = plain_store(tmp_path / "store", "ab")
    counts = FaultCounts(0)
    watch = Watch(store.path, reference, counts)
    watch.look()
    watch.read_ledger(set())
    watch.settle()
    assert counts.ok and counts.equal == 2, str(counts)


def test_what_should_not_happen_would_be_noticed(tmp_path):
    store, reference = plain_store(tmp_path / "store", "ab")
    counts = FaultCounts(0)
    watch = Watch(store.path, reference, counts)
    watch.look()
    watch.read_ledger(set())
    # Another process encodes a committed video again, loses the race, and says so.
    other = open_store(store.path)
    other.ledger.record("a", "skipped", "another process stored it first", steps=40)
    watch.read_ledger({"b"})
    assert counts.again == 1
    open_store(store.path).ledger.record("b", "failed", "interrupted")
    watch.read_ledger({"b"})
    assert counts.again == 2
    open_store(store.path).ledger.record("b", "skipped", "already stored")
    watch.read_ledger({"b"})
    assert counts.again == 2
    (store.path / "commits" / "a.json").unlink()
    (store.path / "staging" / "left").mkdir(parents=True, exist_ok=True)
    watch.look()
    assert counts.lost == 1 and not counts.ok
    # A video whose values differ.
    shutil.rmtree(tmp_path / "store")
    changed, _ = plain_store(tmp_path / "store", "b")
    reference.arrays["b"]["scale"][0] += 1
    counts = FaultCounts(0)
    Watch(changed.path, reference, counts).look()
    assert counts.partial == 1 and not counts.ok


@pytest.mark.timeout(LONG_S)
def test_a_process_that_outlives_its_parent_is_found(tmp_path, monkeypatch):
    code = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True); time.sleep(600)"
    monkeypatch.setattr("extract_lives.extract_command", lambda *arguments: [sys.executable, "-c", code])
    monkeypatch.setattr("extract_lives._GONE_S", 0.5)
    life = Life(tmp_path / "none.json", tmp_path / "store", tmp_path)
    try:
        while not life.remember_family():
            assert life.code is None
        life.strike(9, whole_group=False)
        assert life.wait(30) == -9 and any("time.sleep(600)" in command for command in life.survivors())
    finally:
        life.close()
    assert not life.survivors()


@pytest.mark.timeout(LONG_S)
def test_the_program_says_what_it_saw(tmp_path):
    command = [
        sys.executable, str(ROOT / "benchmarks" / "extract_faults.py"), "--quick", "--videos", "2", "--kills", "1", "--stops", "0",
        "--children", "0", "--json", "--folder", str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG_S)
    assert done.returncode == 0, done.stderr
    kills = json.loads(done.stdout)["kills"]
    assert kills["ok"] and kills["faults"] == 1 and kills["videos"] % 2 == 0
