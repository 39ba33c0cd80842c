import errno
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from features.decode import open_video
from features.decode_worker import DecodeSummary, DecodeWorker, FrameBatch, Prepare
from features.preprocess import resize_uint8
from vjepa_loc.errors import ConfigError, DecodeTimeoutError, UnknownNameError, VideoError

ROOT = Path(__file__).parents[2]
PREPARE = Prepare(fit="stretch", input_height=64, input_width=64, patch_px=8, batch_frames=8)


@pytest.fixture(scope="module")
def worker():
    with DecodeWorker(deadline_s=60) as worker:
        yield worker


def read(worker: DecodeWorker, path, prepare: Prepare = PREPARE, **settings):
    *batches, summary = worker.stream(path, prepare, **settings)
    assert all(isinstance(batch, FrameBatch) for batch in batches) and isinstance(summary, DecodeSummary)
    return batches, summary


def hanging_folder(folder: Path) -> Path:
    """A folder of images whose only image is never given: nobody writes into the FIFO."""
    folder.mkdir()
    os.mkfifo(folder / "0.png")
    return folder


def wait_until(condition, seconds: float = 20.0) -> bool:
    end_s = time.monotonic() + seconds
    while not condition() and time.monotonic() < end_s:
        time.sleep(0.02)
    return condition()


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
def test_frames_are_those_of_the_reader_resized(worker, clip, fit):
    path = clip("clip.mp4")
    prepare = Prepare(fit, 64, 64, 8, batch_frames=8)
    batches, summary = read(worker, path, prepare)
    reader = open_video(path)
    expected = torch.cat([resize_uint8(frame.rgb_HW3[None], prepare.space_grid(reader.info)) for frame in reader])
    assert [len(batch.frames_nhw3) for batch in batches] == [8, 8, 4]
    assert torch.equal(torch.cat([batch.frames_nhw3 for batch in batches]), expected)
    assert np.concatenate([batch.frame_numbers_n for batch in batches]).tolist() == list(range(20))
    assert (summary.num_frames, summary.num_sampled) == (20, 20)
    assert summary.info == reader.info and summary.damage is None and summary.source == reader.source
    assert np.array_equal(summary.frame_time_s, reader.frame_time_s)
    assert summary.space_grid == batches[0].space_grid == prepare.space_grid(reader.info)
    assert {"av", "ffmpeg", "torch"} <= set(summary.versions) and summary.busy_s > 0


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [({"frame_step": 6}, [0, 6, 12, 18]), ({"sample_fps": 10.0}, [0, 3, 5, 8, 10, 13, 15, 18]), ({"frame_step": 50}, [0])],
)
def test_sampled_frames_travel_with_their_numbers(worker, clip, read_number, sampling, expected):
    prepare = Prepare("stretch", 64, 144, 8, batch_frames=3, **sampling)
    batches, summary = read(worker, clip("clip.mp4"), prepare)
    assert np.concatenate([batch.frame_numbers_n for batch in batches]).tolist() == expected
    assert [read_number(frame.numpy()) for batch in batches for frame in batch.frames_nhw3] == expected
    assert summary.num_frames == 20 and summary.num_sampled == len(expected)


def test_errors_cross_over_and_the_child_stays(worker, clip, tmp_path):
    path = clip("clip.mp4")
    read(worker, path)
    pid = worker.pid
    (tmp_path / "zero.mp4").touch()
    with pytest.raises(VideoError, match="zero.mp4: expected a video, got an empty file"):
        read(worker, tmp_path / "zero.mp4")
    with pytest.raises(UnknownNameError, match="decoder: expected one of pyav, decord"):
        read(worker, path, decoder="opencv")
    with pytest.raises(VideoError, match=r"thin.mkv: fit crop would resize its 4096x2 frames"):
        read(worker, clip("thin.mkv", width=4096, height=2, num_frames=1, codec="ffv1"), Prepare("crop", 256, 256, 16))
    assert read(worker, path)[1].num_frames == 20
    assert worker.pid == pid


def test_a_video_left_early_does_not_leak_into_the_next(worker, clip, read_number):
    prepare = Prepare("stretch", 64, 144, 8, batch_frames=2)
    stream = worker.stream(clip("clip.mp4"), prepare)
    next(stream)
    stream.close()
    batches, _ = read(worker, clip("other.mp4", num_frames=3), prepare)
    assert [read_number(frame.numpy()) for batch in batches for frame in batch.frames_nhw3] == [0, 1, 2]


def test_the_child_waits_for_a_slow_consumer_and_its_time_does_not_count(worker, clip, monkeypatch):
    path = clip("clip.mp4")
    read(worker, path)
    monkeypatch.setattr(worker, "deadline_s", 1.0)
    stream = worker.stream(path, Prepare("stretch", 256, 256, 16, batch_frames=1))
    next(stream)
    time.sleep(1.5)
    assert sum(isinstance(item, FrameBatch) for item in stream) == 19


def test_ctrl_c_is_the_parent_s_business(worker, clip):
    stream = worker.stream(clip("clip.mp4"), Prepare("stretch", 256, 256, 16, batch_frames=1))
    next(stream)
    os.kill(worker.pid, signal.SIGINT)
    assert sum(isinstance(item, FrameBatch) for item in stream) == 19


def test_a_decoder_that_hangs_is_stopped_and_the_next_video_is_read(worker, clip, tmp_path, monkeypatch):
    hanging = hanging_folder(tmp_path / "hangs")
    read(worker, path := clip("clip.mp4"))
    child = psutil.Process(worker.pid)
    monkeypatch.setattr(worker, "deadline_s", 0.5)
    start_s = time.monotonic()
    with pytest.raises(DecodeTimeoutError, match="hangs: the decoder made no progress for 0.5 s and was stopped"):
        read(worker, hanging, nominal_fps=10)
    assert time.monotonic() - start_s < 10
    assert not child.is_running()
    monkeypatch.undo()
    assert read(worker, path)[1].num_frames == 20


@pytest.mark.parametrize(("killer", "name"), [(signal.SIGSEGV, "SIGSEGV"), (signal.SIGKILL, r"SIGKILL \(out of memory\?\)")])
def test_a_child_that_dies_costs_one_video(worker, clip, tmp_path, killer, name):
    hanging = hanging_folder(tmp_path / "crashes")
    read(worker, path := clip("clip.mp4"))
    threading.Timer(0.3, os.kill, (worker.pid, killer)).start()
    with pytest.raises(VideoError, match=f"crashes: the decoding process died with signal {name}"):
        read(worker, hanging, nominal_fps=10)
    assert read(worker, path)[1].num_frames == 20


def test_no_child_survives_its_parent_wherever_it_was_started(tmp_path):
    # A package of our name in the current folder must not be what the child imports.
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "__init__.py").write_text("raise SystemExit('wrong package')")
    script = textwrap.dedent("""
        import signal, sys
        # A shell that starts the tests in the background has them ignore Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from features.decode_worker import DecodeWorker, Prepare
        list(DecodeWorker(deadline_s=60).stream(sys.argv[1], Prepare("stretch", 64, 64, 8), nominal_fps=10))
    """)
    parents, writers = {}, []
    try:
        for killer in (signal.SIGKILL, signal.SIGINT):
            folder = hanging_folder(tmp_path / f"hangs_{killer}")
            parents[killer, folder / "0.png"] = subprocess.Popen(
                [sys.executable, "-P", "-c", script, str(folder)], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
                stderr=subprocess.DEVNULL,
            )
        for (killer, fifo), parent in parents.items():
            # A FIFO can be opened for writing only once someone reads it: from then on the child hangs in a read.
            assert wait_until(lambda: writers.append(_open_for_writing(fifo)) or writers[-1] >= 0, 60)
            (child,) = psutil.Process(parent.pid).children()
            parent.send_signal(killer)
            parent.wait(20)
            assert wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    finally:
        for parent in parents.values():
            parent.kill()
            parent.wait()
        for writer in writers:
            if writer >= 0:
                os.close(writer)


def _open_for_writing(fifo: Path) -> int:
    try:
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return -1


def test_a_folder_of_images_is_a_video(worker, tmp_path, draw_number, read_number):
    from PIL import Image

    for index in range(3):
        Image.fromarray(draw_number(index, 144, 64)).save(tmp_path / f"{index}.png")
    batches, summary = read(worker, tmp_path, Prepare("stretch", 64, 144, 8), nominal_fps=10.0)
    assert [read_number(frame.numpy()) for batch in batches for frame in batch.frames_nhw3] == [0, 1, 2]
    assert summary.info.fps == 10 and summary.times_made_up


def test_memory_does_not_grow_with_the_length(worker, clip):
    settings = {"width": 640, "height": 360, "options": {"preset": "ultrafast"}}
    num_frames, prepare = 300, Prepare("stretch", 64, 64, 8, frame_step=4)
    read(worker, clip("short.mkv", num_frames=20, **settings), prepare)
    before = psutil.Process(worker.pid).memory_info().rss
    _, summary = read(worker, clip("long.mkv", num_frames=num_frames, **settings), prepare)
    grown = psutil.Process(worker.pid).memory_info().rss - before
    assert summary.num_frames == num_frames
    assert grown < 40 * 2**20 < num_frames * 640 * 360 * 3


def test_memory_does_not_grow_with_the_number_of_videos(worker, clip):
    path = clip("short.mkv", num_frames=2, width=1280, height=720, options={"preset": "ultrafast"})
    prepare = Prepare("stretch", 64, 64, 8)
    for _ in range(5):
        read(worker, path, prepare)
    before = psutil.Process(worker.pid).memory_info().rss
    for _ in range(20):
        read(worker, path, prepare)
    # A picture of each video would be 28 MB.
    assert psutil.Process(worker.pid).memory_info().rss - before < 8 * 2**20


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="deadline_s: expected a positive number of seconds, got 0"):
        DecodeWorker(deadline_s=0)
    with pytest.raises(ConfigError, match="batch_frames: expected 1 or more, got 0"):
        Prepare("stretch", 64, 64, 8, batch_frames=0)


def test_a_child_that_cannot_be_started_leaves_no_file_open(clip, monkeypatch):
    def refuse(*args, **kwargs):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    # Files that earlier tests left to the collector are closed first.
    gc.collect()
    num_open = len(os.listdir("/proc/self/fd"))
    with DecodeWorker(30) as worker:
        for _ in range(3):
            with pytest.raises(BlockingIOError):
                read(worker, clip("a.mp4"))
        assert len(os.listdir("/proc/self/fd")) <= num_open
