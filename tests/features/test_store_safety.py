"""Interruption anywhere: no partial video is ever visible, no complete one is ever lost. Writers that are killed are in
`tests/benchmarks/test_store_faults.py`.
"""

import errno
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess

import numpy as np
import pytest
import torch

from features.durable import free_bytes
from features.schema import Storage
from features.store import open_store
from features.store_gc import collect_garbage
from tests.features.store_builder import add_video, simulated_tokens, small_encoding, small_store, space_grid, video_meta
from vjepa_loc.errors import CorruptStoreError, StoreError

NUM_STEPS = 40
fork = multiprocessing.get_context("fork")


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


@pytest.mark.parametrize("name", ["write", "writev", "fsync", "open", "mkdir", "rename", "replace", "link", "unlink"])
def test_a_process_that_dies_at_any_call_leaves_debris_that_gc_collects(tmp_path, name):
    reference = small_store(tmp_path / "reference")
    add_video(reference, "b", simulated_tokens(20, seed=1), cuts=(7,))
    store = small_store(tmp_path / "store")
    add_video(store, "a", simulated_tokens(5))

    def write_and_die_at(number):
        torch.set_num_threads(1)
        genuine, calls = getattr(os, name), [0]

        def dying(*args, **options):
            calls[0] += 1
            if calls[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return genuine(*args, **options)

        setattr(os, name, dying)
        with store.claim("b") as claim:
            add_video(store, "b", simulated_tokens(20, seed=1), cuts=(7,), claim=claim)
        os._exit(calls[0] < number)

    def run(number):
        child = fork.Process(target=write_and_die_at, args=(number,))
        child.start()
        child.join()
        return child.exitcode

    number, num_deaths = 1, 0
    while run(number) == -signal.SIGKILL:
        num_deaths += 1
        number += 1 if number < 4 else number
        found = open_store(store.path)
        assert found.verify().ok and found.video_ids() in (["a"], ["a", "b"])
        staged, num_claims = list((store.path / "staging").iterdir()), len(list((store.path / "claims").iterdir()))
        removed = collect_garbage(store.path).removed
        assert not [path for path in staged if path.is_dir() and path.exists()], "a process that is gone needs no lease"
        assert not list((store.path / "claims").iterdir()) and len(removed) >= num_claims
        collect_garbage(store.path, lease_s=-1)
        assert not list((store.path / "staging").iterdir())
        assert len(list((store.path / "tokens.zarr/videos").glob("*/*/"))) == len(found.video_ids())
        if "b" in found:
            (store.path / "commits/b.json").unlink()
            collect_garbage(store.path, lease_s=-1)
    assert num_deaths, f"os.{name} is not used"
    assert open_store(store.path).commit_of("b").generation_files == reference.commit_of("b").generation_files


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


def half_written(store):
    """A writer of video b that holds its claim and has written some of its steps."""
    claim = store.claim("b")
    writer = store.writer("b", (6, 6), claim=claim, replace=True)
    tokens, frames = simulated_tokens(NUM_STEPS, seed=1), np.arange(2 * NUM_STEPS).reshape(-1, 2)
    writer.append(tokens, frames, frames[:, 0], frames[:, 1])
    return writer


def finish(writer):
    last = 2 * NUM_STEPS
    with writer:
        more = simulated_tokens(NUM_STEPS, seed=2)
        frames = np.arange(last, 2 * last).reshape(-1, 2)
        writer.append(more, frames, frames[:, 0], frames[:, 1])
        writer.commit(video_meta("b", 2 * last, space_grid()), np.arange(2 * last) / 25)


@pytest.mark.parametrize("leaves_mount_point", [False, True], ids=["gone", "an empty folder instead"])
@pytest.mark.parametrize("holds_b", [False, True])
def test_a_mount_that_vanishes_in_the_middle_of_writing_is_one_line_and_loses_nothing(tmp_path, leaves_mount_point, holds_b):
    store = small_store(tmp_path / "store")
    for video_id in ("a", "b") if holds_b else ("a",):
        add_video(store, video_id, simulated_tokens(5))
    before = {video_id: store.commit_of(video_id) for video_id in store.video_ids()}
    writer = half_written(store)
    store.path.rename(tmp_path / "away")
    if leaves_mount_point:
        store.path.mkdir()
    with pytest.raises(StoreError, match="failed: .*; is the disk or network share still there") as caught:
        finish(writer)
    assert caught.value.errno == errno.ENOENT and "\n" not in str(caught.value)
    if leaves_mount_point:
        assert not [path for path in store.path.rglob("*") if path.is_file()], "nothing is written below the mount point"
        shutil.rmtree(store.path)
    (tmp_path / "away").rename(store.path)
    store = open_store(store.path)
    assert {video_id: store.commit_of(video_id) for video_id in store.video_ids()} == before and store.verify().ok
    # What could not be tidied up is collected, and the video can be written.
    collect_garbage(store.path, lease_s=-1)
    assert not list((store.path / "staging").iterdir()) and not list((store.path / "claims").iterdir())
    assert len(list((store.path / "tokens.zarr/videos").glob("*/*/"))) == len(before)
    finish(half_written(store))
    assert store.verify().ok and store.video("b").num_steps == 2 * NUM_STEPS


def test_a_mount_that_vanishes_while_it_is_read_is_no_damage_of_the_others(tmp_path):
    store = small_store(tmp_path / "store")
    add_video(store, "a", simulated_tokens(NUM_STEPS))
    video = store.video("a")
    first = video.read("tokens", 0, 4).copy()
    store.path.rename(tmp_path / "away")
    for read in (lambda: open_store(store.path), lambda: store.video("a"), lambda: store.claim("b")):
        with pytest.raises(StoreError) as caught:
            read()
        assert "\n" not in str(caught.value)
    (tmp_path / "away").rename(store.path)
    np.testing.assert_array_equal(store.video("a").read("tokens", 0, 4), first)
    assert video.read("tokens").shape[0] == NUM_STEPS and store.verify().ok


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN])
@pytest.mark.parametrize("name", ["writev", "fsync", "rename", "link"])
def test_a_disk_that_fails_while_it_is_written_loses_nothing(tmp_path, monkeypatch, name, number):
    store = small_store(tmp_path / "store")
    for video_id in ("a", "b"):
        add_video(store, video_id, simulated_tokens(5))
    before = {video_id: store.commit_of(video_id) for video_id in "ab"}

    def fail(*args, **options):
        raise OSError(number, os.strerror(number))

    writer = half_written(store)
    with monkeypatch.context() as patched:
        patched.setattr(os, name, fail)
        with pytest.raises(StoreError, match="is the disk or network share still there") as caught:
            finish(writer)
            add_video(store, "c", simulated_tokens(5))
    assert caught.value.errno == number and "\n" not in str(caught.value)
    # A replacement has no link; whichever video was not stored is not there, and the others are as they were.
    assert store.verify().ok and store.commit_of("a") == before["a"] and store.commit_of("c") is None
    assert name == "link" or store.commit_of("b") == before["b"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_disk_that_fails_while_it_is_read_is_not_taken_for_damage(tmp_path, monkeypatch, number):
    store = small_store(tmp_path / "store")
    add_video(store, "a", simulated_tokens(5))
    genuine = os.stat

    def fail(path, *args, **options):
        if str(path).endswith("tokens/c/0/0/0/0"):
            raise OSError(number, os.strerror(number))
        return genuine(path, *args, **options)

    monkeypatch.setattr(os, "stat", fail)
    with pytest.raises(StoreError, match="not damage") as caught:
        open_store(store.path).video("a")
    assert caught.value.errno == number and not isinstance(caught.value, CorruptStoreError)


@pytest.mark.parametrize("name", ["commits", "tokens.zarr/zarr.json", "."])
def test_garbage_is_not_collected_where_a_part_of_the_store_is_away(tmp_path, name):
    store = small_store(tmp_path / "store")
    add_video(store, "a", simulated_tokens(5))
    (store.path / name).resolve().rename(tmp_path / "away")
    with pytest.raises(StoreError, match="nothing is removed"):
        collect_garbage(store.path, lease_s=-1)
    (tmp_path / "away").rename(store.path / name)
    assert store.verify().ok and store.video("a").read("tokens").shape[0] == 5
