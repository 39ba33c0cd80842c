"""Several processes on one store: all videos once, and equal to one process's store, whatever happens to a process."""

import os
import signal
import threading
import time
from pathlib import Path
from textwrap import indent

import psutil
import pytest

from features.encoders.tiny import Config, Encoder
from features.engines import _crew as crew
from features.engines import processes
from features.extract import extract_dataset
from features.extract_job import ExtractJob
from features.extract_settings import ExtractSettings
from features.outcome import ClipsEncoded, Outcome
from features.recipe import ExtractConfig
from features.schema import Storage
from features.store import create_or_open_store, open_store
from features.store_diff import diff_stores
from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.errors import StoreMismatchError, WorkerError

RECIPE = ExtractConfig(threads=1, deadline_s=60)
NUM_VIDEOS = 6


@pytest.fixture(scope="module")
def videos(clip_writer, tmp_path_factory) -> list[Video]:
    folder = tmp_path_factory.mktemp("clips")
    return [
        Video(id=f"v{index}", file=clip_writer(folder / f"v{index}.mp4", num_frames=150 + 9 * index)) for index in range(NUM_VIDEOS)
    ]


@pytest.fixture(scope="module")
def alone(videos, tiny, tmp_path_factory):
    """The store of a single process."""
    path = tmp_path_factory.mktemp("alone") / "store"
    extract_dataset(Dataset((), {video.id: video for video in videos}), path, tiny, RECIPE)
    return open_store(path)


def job_of(videos: list[Video], store: Path, recipe: ExtractConfig = RECIPE) -> ExtractJob:
    return ExtractJob.of(videos, ExtractSettings(
        dataset=Path("dataset.json"), store=str(store), encoder_name="tiny", encoder_config=Config(), recipe=recipe, storage=Storage(),
    ))


def worker_processes() -> list[psutil.Process]:
    alive = (child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE)
    return [child for child in alive if any("_worker_process" in word for word in child.cmdline())]


def done_in_ledger(store: Path) -> list[str]:
    return sorted(entry["id"] for entry in open_store(store).ledger.entries() if entry["outcome"] == "done")


def assert_complete(store: Path, alone, outcomes: list[Outcome]) -> None:
    assert {outcome.video_id: outcome.status for outcome in outcomes} == dict.fromkeys(alone.video_ids(), "done")
    difference = diff_stores(open_store(store), alone, all_steps=True)
    assert difference.same, difference
    assert done_in_ledger(store) == alone.video_ids(), "no video was encoded twice"
    assert not list((store / "claims").iterdir())


def test_a_process_that_is_killed_costs_no_video(videos, alone, tmp_path, capfd):
    killed = []

    def kill_the_first(event):
        if isinstance(event, ClipsEncoded) and not killed:
            killed.append(max(worker_processes(), key=lambda child: child.cpu_times().user).pid)
            os.kill(killed[0], signal.SIGKILL)

    outcomes = processes.run(job_of(videos, tmp_path / "store"), kill_the_first, workers=2).outcomes
    assert_complete(tmp_path / "store", alone, outcomes)
    assert "was lost: signal 9 (SIGKILL)" in capfd.readouterr().err
    assert killed and not worker_processes()


def test_a_video_that_takes_its_process_down_is_set_aside(videos, alone, tmp_path, monkeypatch, capfd):
    """The encoder of the workers aborts on one video, as a library with a fault does."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "from features.store import Store\n"
        "writer = Store.writer\n"
        "def abort(self, video_id, *values, **more):\n"
        "    os.abort() if video_id == 'v3' else None\n"
        "    return writer(self, video_id, *values, **more)\n"
        "Store.writer = abort\n"
    )
    outcomes = {outcome.video_id: outcome for outcome in processes.run(job_of(videos, tmp_path / "store"), lambda event: None, workers=2).outcomes}
    assert {video_id for video_id, outcome in outcomes.items() if outcome.status == "done"} == set(alone.video_ids()) - {"v3"}
    assert outcomes["v3"].reason == "set aside: 3 workers ended while they had it, the last one: signal 6 (SIGABRT)"
    entries = [entry for entry in open_store(tmp_path / "store").ledger.entries() if entry["id"] == "v3"]
    assert entries[-1]["outcome"] == "failed" and entries[-1]["reason"].startswith("set aside")
    assert "to be done again: v3; started again (1 of 3)" in capfd.readouterr().err


def test_stop_ends_all_and_another_run_continues(videos, alone, tmp_path):
    stop, store, seen = threading.Event(), tmp_path / "store", []

    def stop_soon(event):
        seen.append(event)
        if isinstance(event, Outcome) and event.status == "done":
            stop.set()

    first = processes.run(job_of(videos, store), stop_soon, stop, workers=2).outcomes
    assert not worker_processes() and not list((store / "claims").iterdir())
    done = [outcome.video_id for outcome in first if outcome.status == "done"]
    assert 1 <= len(done) < NUM_VIDEOS and sorted(done) == open_store(store).video_ids()
    second = processes.run(job_of(videos, store), lambda event: None, workers=2).outcomes
    assert sorted(outcome.video_id for outcome in second if outcome.status == "skipped") == sorted(done)
    assert diff_stores(open_store(store), alone, all_steps=True).same
    assert done_in_ledger(store) == alone.video_ids()


def test_ctrl_c_leaves_no_process_and_no_claim(videos, tmp_path):
    def interrupt(event):
        if isinstance(event, ClipsEncoded):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        processes.run(job_of(videos, tmp_path / "store"), interrupt, workers=2).outcomes
    assert not worker_processes() and not list((tmp_path / "store" / "claims").iterdir())


def test_what_every_worker_would_meet_is_the_error_of_the_command(videos, tmp_path):
    other = ExtractConfig(threads=1, frame_step=2)
    create_or_open_store(tmp_path / "store", other.encoding(Encoder(Config()).spec))
    with pytest.raises(StoreMismatchError, match="frame_step: 2 != 1"):
        processes.run(job_of(videos, tmp_path / "store"), lambda event: None, workers=2).outcomes
    assert not worker_processes()


def test_workers_that_cannot_live_end_the_work(videos, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text("import os, sys\n'_worker_process' in ' '.join(sys.orig_argv) and os.abort()\n")
    with pytest.raises(WorkerError, match=r"lost more than 3 times in a row.*signal 6.*6 videos are not done"):
        processes.run(job_of(videos, tmp_path / "store"), lambda event: None, workers=2).outcomes


def test_what_another_process_holds_is_looked_at_again(videos, alone, tiny, tmp_path):
    store = create_or_open_store(tmp_path / "store", RECIPE.encoding(tiny.spec))
    claims = [store.claim("v4"), store.claim("v5")]

    def release_one(event):
        if isinstance(event, Outcome):
            claims[0].release()

    outcomes = {outcome.video_id: outcome for outcome in processes.run(job_of(videos, tmp_path / "store"), release_one, workers=1).outcomes}
    assert outcomes["v4"].status == "done"
    assert (outcomes["v5"].status, outcomes["v5"].reason) == ("skipped", "in the hands of another process")


def patch_workers(monkeypatch, folder: Path, code: str) -> None:
    """`code` runs first in every worker process that is started from now on."""
    monkeypatch.setenv("PYTHONPATH", str(folder))
    (folder / "sitecustomize.py").write_text(f"import os, sys, time\nif '_worker_process' in ' '.join(sys.orig_argv):\n{indent(code, '    ')}")


def test_a_worker_that_hangs_for_ever_costs_no_video(videos, alone, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(crew, "SILENT_S", 20.0)
    stopped = []

    def stop_the_first(event):
        if isinstance(event, ClipsEncoded) and not stopped:
            stopped.append(max(worker_processes(), key=lambda child: child.cpu_times().user).pid)
            os.kill(stopped[0], signal.SIGSTOP)

    outcomes = processes.run(job_of(videos, tmp_path / "store"), stop_the_first, workers=2).outcomes
    assert_complete(tmp_path / "store", alone, outcomes)
    assert "was lost: nothing was heard of it for 20 s" in capfd.readouterr().err
    assert stopped and not worker_processes()


def test_several_videos_that_take_processes_down_are_set_aside_and_no_other(videos, tmp_path, monkeypatch):
    """One worker that has all of them in hand at once."""
    patch_workers(monkeypatch, tmp_path, (
        "from features.store import Store\n"
        "writer = Store.writer\n"
        "def abort(self, video_id, *values, **more):\n"
        "    os.abort() if video_id in ('v4', 'v5') else None\n"
        "    return writer(self, video_id, *values, **more)\n"
        "Store.writer = abort\n"
    ))
    recipe = RECIPE.model_copy(update={"decode_workers": 3})
    report = processes.run(job_of(videos[3:], tmp_path / "store", recipe), lambda event: None, workers=1)
    assert report.ids("done") == ["v3"] and list(report.failed) == ["v4", "v5"]
    assert all(reason.startswith("set aside: 3 workers") for reason in report.failed.values())


def test_an_encoder_that_fails_in_one_worker_costs_no_video(videos, alone, tmp_path, monkeypatch, capfd):
    """As one GPU of several that is broken or full, which the others need not pay for."""
    patch_workers(monkeypatch, tmp_path, (
        "import features.extract\n"
        "def refuse(*values):\n"
        "    raise RuntimeError('CUDA error:\\nout of memory')\n"
        f"try:\n    os.close(os.open({str(tmp_path / 'first')!r}, os.O_CREAT | os.O_EXCL))\n"
        "    features.extract.load_encoder = refuse\n"
        "except FileExistsError:\n    pass\n"
    ))
    outcomes = processes.run(job_of(videos, tmp_path / "store"), lambda event: None, workers=2).outcomes
    assert_complete(tmp_path / "store", alone, outcomes)
    said = capfd.readouterr().err
    assert "was lost: RuntimeError: CUDA error: out of memory; to be done again: nothing; started again (1 of 3)" in said


def test_who_has_not_begun_when_all_is_done_is_not_waited_for(videos, alone, tmp_path, monkeypatch):
    patch_workers(monkeypatch, tmp_path, (
        f"try:\n    os.close(os.open({str(tmp_path / 'first')!r}, os.O_CREAT | os.O_EXCL))\n    time.sleep(600)\n"
        "except FileExistsError:\n    pass\n"
    ))
    start_s = time.monotonic()
    outcomes = processes.run(job_of(videos, tmp_path / "store"), lambda event: None, workers=2).outcomes
    assert_complete(tmp_path / "store", alone, outcomes)
    assert time.monotonic() - start_s < 300 and not worker_processes()
