"""What a worker says of itself: counted from events, written beside the work, never in its way, and readable after a kill."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from features.outcome import ClipsEncoded, Outcome, Stopping, VideoRetried, VideoStarted
from features.store import open_store
from features.store_gc import collect_garbage
from features.worker_status import WRITE_EVERY_S_REMOTE, WorkerStatus
from features.worker_status_record import InHand, read_workers
from tests.features.store_builder import add_video, simulated_tokens, small_encoding, small_store

ROOT = Path(__file__).parents[2]

WORKER = """
import sys, time
from features.outcome import ClipsEncoded, VideoStarted
from features.store import open_store
from features.worker_status import WorkerStatus
with WorkerStatus(open_store(sys.argv[1]), {"a": 8, "b": 4}, every_s=0.1) as status:
    status(VideoStarted("a"))
    status(ClipsEncoded("a", 3))
    time.sleep(0.3)
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def store(tmp_path):
    return small_store(tmp_path / "store")


def start_worker(store_path) -> subprocess.Popen:
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(store_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert worker.stdout.readline() == "ready\n"
    return worker


def the_worker(store):
    [record] = read_workers(store.place)
    return record


def test_events_are_counted(store):
    status = WorkerStatus(store, {"a": 10, "b": 6, "c": None, "d": 2}, device="cuda:1")
    for event in [
        VideoStarted("a"), ClipsEncoded("a", 4), Outcome("d", "skipped", "already stored"), VideoStarted("b"), ClipsEncoded("b", 2),
        VideoRetried("b", "the disk was slow", 1, 2.0),
    ]:
        status(event)
    record = status.record()
    assert (record.done, record.skipped, record.failed, record.clips) == (0, 1, 0, 6)
    assert record.in_hand == (InHand("a", 4, 10),), "one that is retried is in hand again when it is begun again"
    assert record.clips_left == 6 + 6 + 6, "a video of unknown length counts as the mean of the others, 6"
    for event in [Outcome("a", "done"), Outcome("b", "dropped", "SIGTERM"), Outcome("c", "failed", "no video")]:
        status(event)
    record = status.record()
    assert (record.done, record.skipped, record.failed, record.in_hand, record.clips_left) == (1, 1, 1, (), 6), "what was dropped is left"
    assert (record.device, record.list_size, record.owner.pid) == ("cuda:1", 4, os.getpid())


def test_the_recent_rate_forgets_and_the_mean_does_not(store, monkeypatch):
    now_s = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    status = WorkerStatus(store, {"a": 1000})
    for _ in range(20):
        now_s[0] += 1
        status(ClipsEncoded("a", 5))
    assert (status.record().recent_clips_per_s, status.record().mean_clips_per_s) == (5.0, 5.0), "also before a minute has passed"
    now_s[0] += 80
    assert (status.record().recent_clips_per_s, status.record().mean_clips_per_s) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("error", "how"),
    [(None, "finished"), (KeyboardInterrupt(), "interrupted"), (OSError("the disk is full"), "failed: the disk is full")],
)
def test_the_file_says_how_it_ended(store, error, how):
    try:
        with WorkerStatus(store, {"a": 2}):
            if error is not None:
                raise error
    except (KeyboardInterrupt, OSError):
        pass
    assert (the_worker(store).state, the_worker(store).how, the_worker(store).seems(time.time())) == ("ended", how, "ended")


def test_a_stop_is_seen_at_once_and_may_come_from_a_signal_handler(store):
    with WorkerStatus(store, {"a": 2}, every_s=0.05) as status:
        # The thread that a signal interrupts may hold the lock.
        with status._lock:
            status.stopping("SIGTERM")
        status(Stopping(finishing=("a",), dropping=()))
        deadline_s = time.monotonic() + 10
        while [record.state for record in read_workers(store.place)] != ["stopping"]:
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
    assert (the_worker(store).state, the_worker(store).how) == ("ended", "stopped: SIGTERM")


def test_it_writes_again_and_again_and_tells_what_the_stages_do(store):
    with WorkerStatus(store, {"a": 2}, every_s=0.05) as status:
        status.note_stages({"decode": 0.98765, "encode": 0.25})
        times = set()
        deadline_s = time.monotonic() + 10
        while len(times) < 3:
            assert time.monotonic() < deadline_s
            times.update(record.updated for record in read_workers(store.place))
            time.sleep(0.02)
    assert the_worker(store).stages == {"decode": 0.988, "encode": 0.25}
    assert not list((store.path / "staging").iterdir())


def test_a_killed_worker_is_gone_and_one_elsewhere_is_silent(store):
    worker = start_worker(store.path)
    record = the_worker(store)
    assert record.seems(time.time()) == "running" and record.in_hand == (InHand("a", 3, 8),) and record.clips_left == 9
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert the_worker(store).seems(time.time()) == "gone"
    [file] = (store.path / "workers").iterdir()
    values = json.loads(file.read_text())
    values["owner"]["machine"] = "elsewhere.12345678"
    file.write_text(json.dumps(values))
    assert the_worker(store).seems(values["updated"] + 0.3) == "running"
    assert the_worker(store).seems(values["updated"] + 10) == "silent"


def test_a_store_that_cannot_be_written_costs_nothing_but_the_file(store):
    (store.path / "workers").rmdir()
    (store.path / "workers").write_text("in the way")
    with WorkerStatus(store, {"a": 2}, every_s=0.02) as status:
        status(VideoStarted("a"))
        deadline_s = time.monotonic() + 10
        while status.problem is None:
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
    assert "File exists" in status.problem or "Not a directory" in status.problem


def test_a_disk_that_hangs_does_not_hold_events(store, monkeypatch):
    let_go = threading.Event()
    monkeypatch.setattr(store.place, "replace", lambda *arguments, **options: let_go.wait(20))
    with WorkerStatus(store, {"a": 2}) as status:
        start_s = time.monotonic()
        for _ in range(100):
            status(ClipsEncoded("a", 1))
        assert time.monotonic() - start_s < 1
        let_go.set()


def test_files_that_are_not_ours_or_cut_off_are_left_out(store):
    (store.path / "workers/x.json").write_bytes(b'{"version": 1, "own')
    (store.path / "workers/y.json").write_bytes(b'{"version": 2}')
    (store.path / "workers/z.json").write_bytes(b"[1]")
    (store.path / "workers/s.json").write_bytes(b'"text"')
    (store.path / "workers/notes.txt").write_bytes(b"?")
    with WorkerStatus(store, {"a": 2}):
        pass
    assert len(read_workers(store.place)) == 1


def test_readers_ignore_them_and_gc_takes_those_that_are_older_than_the_lease(store):
    add_video(store, "a", simulated_tokens(3))
    with WorkerStatus(store, {"a": 2}):
        pass
    assert store.verify().ok and collect_garbage(store.path).removed == ()
    [file] = (store.path / "workers").iterdir()
    os.utime(file, (time.time() - 25 * 3600,) * 2)
    assert collect_garbage(store.path).removed == (f"workers/{file.name}",)


def test_in_object_storage_it_is_one_object_that_is_written_rarely(service, url):
    from features.store import create_or_open_store

    store = create_or_open_store(url, small_encoding())
    with WorkerStatus(store, {"a": 2}) as status:
        for _ in range(50):
            status(ClipsEncoded("a", 1))
        assert status.record().every_s == WRITE_EVERY_S_REMOTE
    assert 1 <= len([name for name in service.sent("PUT") if "workers/" in name]) <= 2, "at the start and at the end"
    assert the_worker(open_store(url)).how == "finished"
    service.refuse = lambda request: request.method == "PUT" and "workers/" in request.name
    with WorkerStatus(store, {"a": 2}) as refused:
        refused(ClipsEncoded("a", 1))
    assert refused.problem is not None
