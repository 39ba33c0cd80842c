"""How far an extraction is, as the store tells it: with and without workers, a dataset, a terminal."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import cli
from features.claims import Owner
from features.outcome import ClipsEncoded, Outcome, VideoStarted
from features.status import store_status
from features.status_view import render
from features.store import create_or_open_store
from features.worker_status import WorkerStatus
from features.worker_status_record import FOLDER, InHand
from tests.features.conftest import write_clip
from tests.features.store_builder import add_video, simulated_tokens, small_encoding, small_store
from tests.features.test_worker_status import start_worker
from vjepa_loc.dataset import Dataset, Video, read_dataset
from vjepa_loc.errors import StoreError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path):
    store = small_store(tmp_path / "store")
    for video_id in ("a", "b"):
        add_video(store, video_id, simulated_tokens(20))
    return store


def dataset_of(names: str, **facts) -> Dataset:
    facts = {"num_frames": 400, "fps": 25.0, **facts}
    return Dataset((), {name: Video(id=name, **facts) for name in names}, path=Path("dataset.json"))


def put_worker(store, name: str, **changes) -> None:
    """A worker's file as another process would have left it."""
    status = WorkerStatus(store, {"a": 25})
    owner = changes.pop("owner", Owner("elsewhere.12345678", 7, "1"))
    record = replace(status.record(), owner=owner, **changes)
    store.place.replace(f"{FOLDER}/{name}.json", record.to_json())


def text_of(status, width: int) -> str:
    console = Console(width=width, record=True, file=open(os.devnull, "w"))
    console.print(render(status, width))
    return console.export_text()


def test_without_workers_the_store_and_the_dataset_are_counted(store):
    status = store_status(store.path, dataset_of("abcd"))
    assert (status.num_videos, status.num_done, status.num_waiting, status.failed, status.in_hand) == (4, 2, 2, {}, ())
    assert (status.clips_per_s, status.clips_left, status.seconds_left, status.workers) == (0.0, 50, None, ())
    assert status.stored_bytes == sum(summary.bytes for summary in store.summaries().values()) and status.free_bytes > 0
    assert "2 of 4 videos done, 0 in hand, 2 left, 0 failed\nnobody is extracting, about 50 clips left\n" in text_of(status, 80)


def test_an_empty_store_and_one_that_is_complete(tmp_path, store):
    empty = small_store(tmp_path / "empty")
    status = store_status(empty.path, dataset_of("ab"))
    assert (status.num_done, status.num_waiting, status.clips_left) == (0, 2, 50)
    assert store_status(empty.path).to_dict()["videos"] == 0
    whole = store_status(store.path, dataset_of("ab"))
    assert (whole.num_done, whole.clips_left, whole.seconds_left) == (2, 0, 0.0)


def test_the_last_attempt_says_whether_a_video_failed(store):
    for video_id, outcome, reason in [
        ("a", "failed", "committed since"), ("c", "failed", "no such file"), ("c", "skipped", "another process is extracting it"),
        ("d", "failed", "the first time"), ("d", "dropped", "SIGTERM"), ("e", "failed", "interrupted"), ("f", "failed", "old"),
        ("f", "failed", "new"), ("x", "failed", "not in the dataset"),
    ]:
        store.ledger.record(video_id, outcome, reason)
    status = store_status(store.path, dataset_of("abcdef"))
    assert status.failed == {"c": "no such file", "f": "new"} and status.num_waiting == 2
    assert status.clips_left == 50, "what failed is not counted as work that is left"
    assert "no such file" in text_of(status, 80)
    assert store_status(store.path).failed == {"c": "no such file", "f": "new", "x": "not in the dataset"}


def test_rates_of_all_workers_add_up_and_what_is_in_hand_is_not_left_twice(store):
    put_worker(store, "one", recent_clips_per_s=3.0, in_hand=(InHand("c", 5, 25),), done=1)
    put_worker(store, "two", recent_clips_per_s=2.0, in_hand=(InHand("d", 15, 25), InHand("a", 25, 25)))
    put_worker(store, "three", recent_clips_per_s=9.0, state="ended", how="finished")
    put_worker(store, "four", recent_clips_per_s=9.0, updated=time.time() - 100, in_hand=(InHand("e", 1, 25),))
    status = store_status(store.path, dataset_of("abcdef"))
    assert sorted(worker.seems for worker in status.workers) == ["ended", "running", "running", "silent"]
    assert (status.clips_per_s, status.num_done, status.num_waiting) == (5.0, 2, 1)
    assert sorted(video.id for video in status.in_hand) == ["c", "d", "e"], "a is committed already"
    assert status.clips_left == 4 * 25 - 5 - 15 - 1 and status.seconds_left == round(79 / 5.0, 1)


def test_without_a_dataset_workers_of_one_list_are_not_counted_twice(store):
    put_worker(store, "one", clips_left=40, list_digest="x", recent_clips_per_s=1.0)
    put_worker(store, "two", clips_left=30, list_digest="x", recent_clips_per_s=1.0)
    put_worker(store, "three", clips_left=7, list_digest="y", recent_clips_per_s=1.0)
    put_worker(store, "old", clips_left=7, list_digest="z", state="ended")
    status = store_status(store.path)
    assert (status.clips_left, status.num_waiting, status.num_videos) == (37, None, 2)


def test_unknown_lengths_count_as_the_mean_of_what_is_known(store):
    videos = dataset_of("abcd").videos | dataset_of("ef", num_frames=None).videos | dataset_of("gh", num_frames=80).videos
    status = store_status(store.path, Dataset((), videos, path=Path("d.json")))
    # c and d have 25 clips, g and h 5, the stored a and b 3; e and f the mean of these.
    assert status.clips_left == round(60 + 2 * (60 + 6) / 6)
    none = Dataset((), dataset_of("xy", num_frames=None).videos, path=Path("d.json"))
    assert store_status(store.path, none).clips_left is None


def test_a_worker_that_was_killed_shows_as_gone_and_its_video_is_left(store):
    worker = start_worker(store.path)
    during = store_status(store.path, dataset_of("abc"))
    assert during.num_done == 2 and during.clips_per_s > 0 and during.workers[0].seems == "running"
    worker.kill()
    worker.wait()
    after = store_status(store.path, dataset_of("abc"))
    assert (after.workers[0].seems, after.clips_per_s, after.in_hand, after.num_waiting) == ("gone", 0.0, (), 1)
    assert "gone, last heard" in " ".join(text_of(after, 120).split())


def test_several_workers_write_while_it_is_read(store):
    workers = [start_worker(store.path) for _ in range(3)]
    try:
        for _ in range(20):
            status = store_status(store.path, dataset_of("abc"))
            assert [worker.seems for worker in status.workers] == ["running"] * 3
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


@pytest.mark.parametrize("width", [80, 120])
def test_nothing_is_wider_than_the_terminal(store, width):
    for number in range(60):
        store.ledger.record(f"video-{number}", "failed", "a reason " * 20 if number % 2 else f"reason {number}")
    put_worker(store, "one", in_hand=tuple(InHand(f"a-video-of-a-long-name-{n}", n, 25) for n in range(4)), stages={"decode": 0.5})
    put_worker(store, "gone", owner=replace(Owner.this_process(), started="0"))
    lines = text_of(store_status(store.path), width).splitlines()
    assert max(map(len, lines)) <= width and len(lines) < 120
    joined = " ".join(" ".join(lines).split())
    assert "60 failed" in joined and "more, --json lists all" in joined and "gone, last" in joined


def test_in_object_storage(service, url):
    store = create_or_open_store(url, small_encoding())
    with WorkerStatus(store, {"a": 25, "b": 25}) as worker:
        worker(VideoStarted("a"))
        worker(ClipsEncoded("a", 2))
        add_video(store, "b", simulated_tokens(20))
        worker(Outcome("c", "failed", "no file"))
        store.ledger.record("c", "failed", "no file")
    status = store_status(url, dataset_of("abc"))
    assert (status.num_done, status.failed, status.num_waiting) == (1, {"c": "no file"}, 1)
    assert status.workers[0].record.how == "finished" and "here for unfinished videos" in text_of(status, 120)


@pytest.fixture
def workspace(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    videos = [{"id": name, "file": f"{name}.mp4", "fps": 25.0, "num_frames": 400} for name in "abcd"]
    (tmp_path / "dataset.json").write_text(json.dumps({"format": "vjepa_loc", "version": 1, "labels": [], "videos": videos, "events": []}))
    (tmp_path / "vjepa_loc.toml").write_text("[data]\ndataset = 'dataset.json'\n[store]\npath = 'store'\n")
    return tmp_path


def test_the_command_takes_store_and_dataset_of_the_workspace(workspace, capsys):
    assert cli.main(["status"]) == 0
    assert capsys.readouterr().out.startswith("2 of 4 videos done, 0 in hand, 2 left, 0 failed\n")
    assert cli.main(["status", "store", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["done"], answer["dataset"], answer["waiting"]) == (2, None, None)
    assert cli.main(["status", "store", "--dataset", "dataset.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["waiting"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere does not exist"), (["--dataset", "absent.json"], "absent.json does not exist"),
        (["--watch", "0.1"], "--watch: expected at least 0.5 seconds, got 0.1"),
    ],
)
def test_a_mistake_is_one_line(workspace, capsys, arguments, message):
    assert cli.main(["status", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_watching_looks_again_until_it_is_interrupted(workspace):
    command = [sys.executable, str(ROOT / "cli.py"), "status", "--watch", "0.5", "--json"]
    watch = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell that starts the tests in the background has them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert json.loads(watch.stdout.readline())["done"] == 2
    (workspace / "store/commits/a.json").unlink()
    answers = [json.loads(watch.stdout.readline())["done"] for _ in range(3)]
    assert answers[-1] == 1
    watch.send_signal(signal.SIGINT)
    assert watch.wait(60) == 0 and watch.stderr.read() == ""


def test_real_extractions_at_once_one_of_them_killed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = write_clip(tmp_path / "a.mp4", num_frames=400)
    videos = [{"id": f"v{number}", "file": str(file), "fps": 25.0, "num_frames": 400} for number in range(16)]
    broken = {"id": "broken", "file": str(tmp_path / "absent.mp4"), "fps": 25.0, "num_frames": 400}
    content = {"format": "vjepa_loc", "version": 1, "labels": [], "videos": [*videos, broken], "events": []}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    (tmp_path / "vjepa_loc.toml").write_text(
        "[data]\ndataset = 'dataset.json'\n[store]\npath = 'store'\n[encoder]\nname = 'tiny'\n[extract]\nthreads = 1\ndecode_workers = 1\nmin_free_gib = 0.0\n"
    )
    command = [sys.executable, str(ROOT / "cli.py"), "extract"]
    extractions = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
    dataset = read_dataset(tmp_path / "dataset.json")

    def status_when(is_so):
        deadline_s = time.monotonic() + 240
        while True:
            try:
                status = store_status(tmp_path / "store", dataset)
            except StoreError:
                # There is no store yet.
                status = None
            if status is not None and is_so(status):
                return status
            assert time.monotonic() < deadline_s
            time.sleep(0.05)

    try:
        begun = status_when(lambda status: len(status.workers) == 2 and status.num_done > 0)
        assert {worker.seems for worker in begun.workers} <= {"running", "ended"} and begun.num_videos == 17
        extractions[0].kill()
        extractions[0].wait()
        killed = status_when(lambda status: True)
        assert {worker.seems for worker in killed.workers if worker.record.owner.pid == extractions[0].pid} == {"gone"}
        assert extractions[1].wait(240) == 1, "one video has no file"
    finally:
        for extraction in extractions:
            extraction.kill()
            extraction.wait()
    done = store_status(tmp_path / "store", dataset)
    assert (done.num_done, done.num_waiting, done.in_hand, done.clips_left, list(done.failed)) == (16, 0, (), 0, ["broken"])
    assert {worker.record.how for worker in done.workers if worker.seems == "ended"} == {"finished"}
    assert sum(worker.record.clips for worker in done.workers) > 0 and "absent.mp4" in done.failed["broken"]
