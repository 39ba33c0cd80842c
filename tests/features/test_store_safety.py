"""Interruption anywhere: no partial video is ever visible, no complete one is ever lost."""

import errno
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import time

import pytest
import torch

from features.durable import free_bytes
from features.schema import Storage
from features.store import open_store
from features.store_gc import collect_garbage
from tests.features.store_builder import add_video, simulated_tokens, small_encoding, small_store
from vjepa_loc.errors import StoreError

IDS = [f"v{number}" for number in range(12)]
NUM_STEPS = 40
fork = multiprocessing.get_context("fork")


def extract_all(path, order):
    # OpenMP's threads do not survive a fork.
    torch.set_num_threads(1)
    store = open_store(path)
    for video_id in order:
        if video_id not in store:
            add_video(store, video_id, simulated_tokens(NUM_STEPS, seed=IDS.index(video_id)), cuts=(8, 16, 24, 32))


def test_writers_that_are_killed_lose_nothing_and_leave_nothing_half(tmp_path):
    reference = small_store(tmp_path / "reference")
    extract_all(reference.path, IDS)
    expected = {video_id: reference.commit_of(video_id).generation_files for video_id in IDS}
    store = small_store(tmp_path / "store")
    chance, complete, num_kills = random.Random(0), set(), 0
    while num_kills < 12:
        orders = [chance.sample(IDS, len(IDS)) for _ in range(3)]
        workers = [fork.Process(target=extract_all, args=(store.path, order)) for order in orders]
        [worker.start() for worker in workers]
        for worker in workers:
            time.sleep(chance.uniform(0, 0.08))
            if worker.is_alive():
                os.kill(worker.pid, signal.SIGKILL)
                num_kills += 1
            worker.join()
        found = set(open_store(store.path).video_ids())
        assert found >= complete
        complete = found
        for video_id in found:
            assert store.commit_of(video_id).generation_files == expected[video_id]
        if found == set(IDS):
            # All done before enough kills: the oldest videos are taken away and have to come again.
            for video_id in IDS[:6]:
                (store.path / "commits" / f"{video_id}.json").unlink()
            complete -= set(IDS[:6])
    extract_all(store.path, IDS)
    collect_garbage(store.path, lease_s=-1)
    report = store.verify()
    assert report.ok and report.num_videos == len(IDS), report
    assert not list((store.path / "staging").iterdir())
    assert len(list((store.path / "tokens.zarr/videos").glob("*/*/"))) == len(IDS)


@pytest.mark.parametrize("name", ["write", "writev", "fsync", "open", "mkdir", "rename", "replace", "link", "close"])
def test_a_disk_that_refuses_at_any_point_leaves_the_store_whole(tmp_path, monkeypatch, name):
    store = small_store(tmp_path / "store")
    for video_id in ("a", "b"):
        add_video(store, video_id, simulated_tokens(5))
    genuine, calls, fail_at = getattr(os, name), [], 0

    def refuse_one(*args, **kwargs):
        calls.append(1)
        if len(calls) == fail_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return genuine(*args, **kwargs)

    def attempt():
        calls.clear()
        with monkeypatch.context() as patched:
            patched.setattr(os, name, refuse_one)
            add_video(store, "b", simulated_tokens(20, seed=1), cuts=(7,), replace=True)

    attempt()
    num_calls = len(calls)
    assert num_calls, f"os.{name} is not used"
    points = {*range(1, num_calls + 1, max(num_calls // 4, 1)), max(num_calls - 1, 1), num_calls}
    for fail_at in sorted(points):
        try:
            attempt()
        except StoreError as error:
            assert error.errno == errno.ENOSPC and "no space left while" in str(error) and " free; " in str(error)
        report = store.verify()
        assert report.ok and store.video_ids() == ["a", "b"], report
        collect_garbage(store.path, lease_s=-1)
        assert store.verify().ok


def in_child(task):
    """What `task` returns, from a process of its own, so that limits end with it."""
    receiver, sender = fork.Pipe(duplex=False)

    def run():
        torch.set_num_threads(1)
        sender.send(task())

    child = fork.Process(target=run)
    child.start()
    assert receiver.poll(60)
    answer = receiver.recv()
    child.join()
    return answer


def test_a_limit_on_file_sizes_is_one_line(tmp_path):
    store = small_store(tmp_path / "store", Storage())
    add_video(store, "a", simulated_tokens(5))

    def write():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            add_video(store, "b", simulated_tokens(NUM_STEPS), cuts=(8, 30))
        except StoreError as error:
            return str(error)

    message = in_child(write)
    assert message.startswith("the limit on file sizes (ulimit -f) is reached while writing video 'b' in ")
    assert "needed" in message and "\n" not in message
    assert store.video_ids() == ["a"] and store.verify().ok and not list((store.path / "staging").iterdir())


def test_a_disk_that_is_known_to_be_too_small_is_refused_before_the_work(tmp_path):
    store = small_store(tmp_path / "store")
    steps = 2 * free_bytes(store.path) // (6 * 6 * 24)
    with pytest.raises(StoreError, match=r"no space left for video 'b' in .*: about .*iB needed, .*iB free; free some space"):
        store.writer("b", (6, 6), num_steps=steps)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one mebibyte, and a way to make it read-only."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"mounting a small file system is not allowed here: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def test_a_full_disk_keeps_what_is_complete(small_disk):
    store = small_store(small_disk / "store")
    with pytest.raises(StoreError) as caught:
        for number in range(100):
            add_video(store, f"v{number:02d}", simulated_tokens(NUM_STEPS, seed=number))
    message = str(caught.value)
    assert caught.value.errno == errno.ENOSPC and "no space left while" in message and "free; free some space" in message
    ids = store.video_ids()
    assert 3 < len(ids) < 100 and store.verify().ok
    assert not list((store.path / "staging").iterdir())


def test_a_read_only_store_is_read_and_says_so_when_written(small_disk):
    store = small_store(small_disk / "store")
    add_video(store, "a", simulated_tokens(5))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    store = open_store(store.path)
    assert store.video_ids() == ["a"] and store.video("a").read("tokens").shape[0] == 5 and store.verify().ok
    for write in (
        lambda: add_video(store, "b", simulated_tokens(5)),
        lambda: store.claim("b"),
        lambda: store.ledger.record("b", "failed", "x"),
        lambda: small_store(small_disk / "another"),
        lambda: collect_garbage(store.path),
    ):
        with pytest.raises(StoreError, match="cannot write to .* while .*: Read-only file system; the store is read-only or"):
            write()
    assert small_store(store.path).encoding == small_encoding()
