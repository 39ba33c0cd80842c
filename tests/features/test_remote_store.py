"""A store by URL: the life of one, who wins a race, and what is said where the service or the bytes are wrong."""

import errno
import multiprocessing
import os
import threading
import time

import numpy as np
import pytest
from torch.utils.data import DataLoader

from features.durable import readable_size
from features.places.file_cache import LIMIT_VARIABLE
from features.schema import Storage
from features.store import create_or_open_store, open_store
from features.store_gc import collect_garbage
from features.torch_dataset import StoredWindows
from tests.features.store_builder import add_video, read_all, simulated_tokens, small_encoding, small_store
from vjepa_loc.errors import CorruptStoreError, StoreError

pytestmark = pytest.mark.timeout(60)
DAY_S = 24 * 3600


def lean_store(url):
    """With two levels, because each file costs the service milliseconds."""
    return small_store(url, Storage(shard_steps=16, levels=("tokens", "pool4")))


def later(monkeypatch, seconds):
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + seconds)


def same_arrays(a, b) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_a_store_by_url_is_written_listed_and_read_as_one_in_a_folder(service, url, tmp_path):
    local, remote = small_store(tmp_path / "store"), small_store(url)
    for number, video_id in enumerate(["A b", "ü.mp4"]):
        for store in (local, remote):
            assert add_video(store, video_id, simulated_tokens(37, seed=number), cuts=(5, 20))
    opened = open_store(url)
    assert opened.video_ids() == ["A b", "ü.mp4"] and "A b" in opened and "c" not in opened
    assert opened.info() == local.info() and opened.path == url
    for video_id in opened.video_ids():
        assert same_arrays(read_all(opened, video_id), read_all(local, video_id))
    video = opened.video("A b")
    assert np.array_equal(video.read("tokens", 14, 18), local.video("A b").read("tokens", 14, 18))
    # The bytes of the objects are those of the files.
    path, local_path = opened.commit_of("ü.mp4").path, local.commit_of("ü.mp4").path
    for name in local.commit_of("ü.mp4").generation_files:
        assert service.body(url, f"tokens.zarr/{path}/{name}") == (local.path / "tokens.zarr" / local_path / name).read_bytes()
    assert not [name for name in service.names(url) if name.startswith(("staging/", "claims/"))]
    assert opened.verify().ok
    with pytest.raises(StoreError, match=r"of-a has no video 'A c'; .* Did you mean 'A b'\?"):
        opened.video("A c")


def test_an_object_is_downloaded_once(service, url, tmp_path):
    add_video(lean_store(url), "a", simulated_tokens(37))
    service.requests.clear()
    first = read_all(open_store(url), "a")
    downloads = [name for name in service.sent("GET") if "/videos/" in name]
    assert len(downloads) == len(set(downloads)) > 10
    service.requests.clear()
    assert same_arrays(read_all(open_store(url), "a"), first)
    assert service.sent("GET") == ["features/of-a/tokens.zarr/zarr.json", "features/of-a/commits/a.json", ""]


@pytest.mark.parametrize("replace", [False, True])
def test_of_two_writers_one_commits_and_the_other_leaves_nothing(service, url, replace):
    store = lean_store(url)
    if replace:
        add_video(store, "a", simulated_tokens(9))
    tokens, start, outcomes = [simulated_tokens(20, seed=seed) for seed in (1, 2)], threading.Barrier(2), {}

    def write(number):
        writer = open_store(url)
        if replace:
            # Two claims at once are possible where a lease has lapsed: the commit decides.
            writer.claim = lambda video_id: store_claims[number]
        start.wait()
        outcomes[number] = add_video(writer, "a", tokens[number], replace=replace)

    class NoClaim:
        renew = release = lambda self: None

    store_claims = [NoClaim(), NoClaim()]
    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    [thread.start() for thread in threads]
    [thread.join(timeout=30) for thread in threads]
    [winner] = [number for number, won in outcomes.items() if won]
    alone = create_or_open_store(f"{url}-alone", store.encoding)
    add_video(alone, "a", tokens[winner])
    assert same_arrays(read_all(open_store(url), "a"), read_all(alone, "a"))
    generations = {name.split("/")[3] for name in service.names(url) if name.count("/") > 3}
    assert len(generations) == 1 + replace
    assert store.verify().ok and not [name for name in service.names(url) if name.startswith("claims/")]


def test_a_claim_keeps_other_workers_away(url):
    store = lean_store(url)
    with store.claim("a") as claim:
        assert open_store(url).claim("a") is None and claim.is_mine()
        with pytest.raises(StoreError, match="'a' in s3://.* is being written by another process; wait for it, or remove s3://.*/claims"):
            store.writer("a", (6, 6), replace=True)
        other = open_store(url).claim("a", lease_s=-1)
        assert other.is_mine() and not claim.is_mine()
        claim.renew()
        assert other.is_mine()
    assert other.is_mine()
    other.release()
    assert store.claim("a") is not None


def test_a_service_that_ignores_conditions_is_refused(service, url):
    service.ignore_conditions = True
    with pytest.raises(StoreError, match="this service ignores conditional puts .*; use a service that honours them"):
        lean_store(url)
    assert service.names(url) == []


def test_a_put_whose_answer_was_lost_has_won(service, url):
    """The service carries out a put and its answer does not arrive: the repeated put is refused, by our own object."""
    store = lean_store(url)
    put_new = store.place._client.put_new
    store.place._client.put_new = lambda name, data: put_new(name, data) and put_new(name, data)
    assert store.claim("b") is not None
    assert add_video(store, "a", simulated_tokens(5)) and store.verify().ok


def test_an_interrupted_commit_removes_nothing_that_may_still_be_committed(service, url, monkeypatch):
    store = lean_store(url)
    service.refuse = lambda request: request.method == "PUT" and "/commits/" in request.name
    with pytest.raises(StoreError, match="the store s3://.*: writing commits/a.json is not allowed") as caught:
        add_video(store, "a", simulated_tokens(5))
    assert caught.value.errno is not None, "an extraction would go on with the next video"
    service.reset()
    assert "a" not in store and [name for name in service.names(url) if name.endswith("tokens/c/0/0/0/0")]
    assert collect_garbage(url).removed == ()
    later(monkeypatch, 2 * DAY_S)
    [removed] = collect_garbage(url).removed
    assert removed.startswith("tokens.zarr/videos/a/")
    assert [name for name in service.names(url) if name.startswith("tokens.zarr")] == [
        "tokens.zarr/videos/a/zarr.json", "tokens.zarr/videos/zarr.json", "tokens.zarr/zarr.json",
    ]


def test_readers_of_a_replaced_video_go_on_until_its_lease_is_over(service, url, monkeypatch, tmp_path):
    store, tokens = lean_store(url), [simulated_tokens(20, seed=seed) for seed in (1, 2)]
    add_video(store, "a", tokens[0])
    reader = open_store(url)
    old = reader.video("a")
    before = old.read("tokens", 0, 4)
    later(monkeypatch, 2 * DAY_S)
    add_video(store, "a", tokens[1], replace=True)
    monkeypatch.undo()
    monkeypatch.setenv("AWS_ENDPOINT_URL", service.address)
    new = reader.video("a")
    assert new is not old and not np.array_equal(new.read("tokens", 0, 4), before)
    assert np.array_equal(old.read("tokens", 0, 4), before)
    assert old.read("pool4").shape == (20, 4, 4, 24), "an array that was not read before"
    renewed = [name for name in service.names(url) if name.startswith("staging/renewed-a-")]
    assert len(renewed) == 1


def test_the_lease_of_a_replaced_generation_starts_when_it_is_replaced(service, url, monkeypatch):
    store = lean_store(url)
    add_video(store, "a", simulated_tokens(5))
    old = store.commit_of("a").path
    add_video(store, "a", simulated_tokens(6), replace=True)
    trees = {tree.name: tree.idle_s for tree in store.place.generations()}
    name = f"tokens.zarr/{old}"
    marker = next(name for name in service.names(url) if name.startswith("staging/renewed-"))
    service.delete(url, marker)
    later(monkeypatch, 100)
    assert trees[name] < 50 and {tree.name: tree.idle_s for tree in store.place.generations()}[name] > 90


def test_garbage_is_collected_and_what_is_committed_stays(service, url, monkeypatch):
    store = lean_store(url)
    for video_id in "ab":
        add_video(store, video_id, simulated_tokens(5))
    add_video(store, "a", simulated_tokens(6), replace=True)
    store.claim("c")
    later(monkeypatch, 2 * DAY_S)
    planned = collect_garbage(url, dry_run=True)
    report = collect_garbage(url)
    assert report == planned and report.num_bytes > 1000, readable_size(report.num_bytes)
    kinds = sorted(name.rpartition("/")[0] if "videos" in name else name.partition("-")[0] for name in report.removed)
    assert kinds == ["claims/c.json", "staging/renewed", "tokens.zarr/videos/a"]
    assert store.verify().ok and open_store(url).video_ids() == ["a", "b"]
    assert [name for name in service.names(url) if name.startswith("manifest/")] == ["manifest/all.jsonl"]
    assert collect_garbage(url).removed == ()


def test_the_manifest_saves_reading_every_commit(service, url, monkeypatch):
    store = lean_store(url)
    for video_id in "abc":
        add_video(store, video_id, simulated_tokens(5))
    monkeypatch.setattr("features.manifest._REBUILD_ABOVE", 2)
    assert open_store(url).video_ids() == ["a", "b", "c"]
    service.requests.clear()
    assert open_store(url).video_ids() == ["a", "b", "c"]
    assert [name.partition("of-a/")[2] for name in service.sent("GET") if name] == ["tokens.zarr/zarr.json", "manifest/all.jsonl"]


def test_the_ledger_keeps_every_line(url, monkeypatch):
    monkeypatch.setattr("features.places.objects._LINES_BYTES", 300)
    store = lean_store(url)
    for number in range(5):
        store.ledger.record(str(number), "done", "x" * 50)
    open_store(url).ledger.record("5", "failed")
    assert sorted(entry["id"] for entry in open_store(url).ledger.entries()) == list("012345")
    assert len(store.place.entries("ledger")) > 2


def flipped(raw: bytes) -> bytes:
    return raw[:20] + bytes([raw[20] ^ 1]) + raw[21:]


def test_a_damaged_copy_is_named_and_downloaded_again(service, url, tmp_path):
    store = lean_store(url)
    add_video(store, "a", simulated_tokens(20))
    expected = read_all(store, "a")
    for file in ("tokens/c/1/0/0/0", "scale/c/0/0/0", "mean/c/0", "pool4/zarr.json", "zarr.json"):
        [copy] = (tmp_path / "cache").rglob(f"{store.commit_of('a').path}/{file}")
        copy.write_bytes(flipped(copy.read_bytes()))
        with pytest.raises(CorruptStoreError, match=f"video 'a'.*s3://.*{file}.*this machine's copy of it was removed, reading it again"):
            read_all(open_store(url), "a")
        assert same_arrays(read_all(open_store(url), "a"), expected)
        copy.write_bytes(copy.read_bytes()[:-1])
        assert same_arrays(read_all(open_store(url), "a"), expected), "a copy that was cut"
    assert store.verify().ok


def test_a_damaged_object_is_named_though_its_copy_is_good(service, url):
    store = lean_store(url)
    add_video(store, "a", simulated_tokens(20))
    read_all(store, "a")
    for file in ("tokens/c/1/0/0/0", "frames/c/0/0", "zarr.json"):
        name = f"tokens.zarr/{store.commit_of('a').path}/{file}"
        raw = service.body(url, name)
        service.overwrite(url, name, flipped(raw))
        assert [problem.file for problem in store.verify().problems] == [name]
        store.place.forget(name)
        with pytest.raises(CorruptStoreError, match=f"s3://.*{file}: expected .* crc32c .*, got .*store repair"):
            read_all(open_store(url), "a")
        service.delete(url, name)
        with pytest.raises(CorruptStoreError, match=f"video 'a': s3://.*{file}: expected .* bytes, got no such file"):
            open_store(url).video("a")
        assert [problem.file for problem in store.verify().problems] == [name]
        service.overwrite(url, name, raw)
    service.overwrite(url, f"tokens.zarr/{store.commit_of('a').path}/stray", b"1")
    assert ["does not name" in problem.what for problem in store.verify().problems] == [True]
    service.delete(url, name)
    assert add_video(store, "a", simulated_tokens(20), replace=True) and store.verify().ok


def test_what_is_used_least_is_evicted_and_a_mapping_of_it_stays_good(service, url, monkeypatch, tmp_path):
    store = lean_store(url)
    for video_id in "abc":
        add_video(store, video_id, simulated_tokens(64))
    size = sum(stamp.size for stamp in store.commit_of("a").generation_files.values())
    monkeypatch.setenv(LIMIT_VARIABLE, str(2.2 * size / 2**30))
    reader = open_store(url)
    expected = {}
    for video_id in "abcab":
        read = read_all(reader, video_id)
        assert video_id not in expected or same_arrays(read, expected[video_id])
        expected[video_id] = read
        held = sum(file.stat().st_size for file in (tmp_path / "cache/stores").rglob("*") if file.is_file())
        assert held <= 2.2 * size
    assert not list((tmp_path / "cache/partial").iterdir())


def test_downloads_that_were_asked_for_ahead_arrive(service, url, tmp_path):
    store = lean_store(url)
    add_video(store, "a", simulated_tokens(37))
    video = store.video("a")
    service.requests.clear()
    asked, local_file = [], video.place.local_file
    video.place.local_file = lambda name, stamp: asked.append(name) or local_file(name, stamp)
    for _ in range(50):
        video.will_read("tokens", 0, 20)
    deadline = time.monotonic() + 20
    while len([*(tmp_path / "cache/stores").rglob("tokens/c/*/0/0/0")]) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert video.read("tokens", 0, 20).shape[0] == 20
    assert len([name for name in service.sent("GET") if "tokens/c" in name]) == 2
    assert len([name for name in asked if "tokens/c" in name]) <= 2 + 2, "asked for again while they were on their way"


def _read_in_child(store, queue):
    queue.put(store.video("a").read("tokens", 0, 20).astype(np.float32).sum())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_process_reads_what_its_parent_opened(service, url, method):
    store = lean_store(url)
    add_video(store, "a", simulated_tokens(20))
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_read_in_child, args=(store, queue), daemon=True)
    child.start()
    try:
        child.join(timeout=40)
        assert child.exitcode == 0
        assert queue.get(timeout=5) == store.video("a").read("tokens", 0, 20).astype(np.float32).sum()
    finally:
        child.kill()


def test_the_forked_workers_of_a_data_loader_read_by_url(service, url, tmp_path):
    store = lean_store(url)
    for number, video_id in enumerate("ab"):
        add_video(store, video_id, simulated_tokens(20, seed=number))
    windows = [(video_id, start, start + 4) for video_id in "ab" for start in range(0, 20, 4)]
    # The parent has used the network; each worker opens the store for itself and shares its copies.
    loader = DataLoader(StoredWindows(url, windows), batch_size=1, num_workers=2, multiprocessing_context="fork", timeout=40)
    for (video_id, start, stop), batch in zip(windows, loader, strict=True):
        assert np.array_equal(batch["values"][0], store.video(video_id).read("tokens", start, stop))
    downloads = [name for name in service.sent("GET") if "tokens/c" in name]
    assert len(downloads) == len(set(downloads)) == 4


def test_what_is_wrong_with_the_service_is_one_line(service, url, monkeypatch):
    with pytest.raises(StoreError, match="the store s3://.* does not exist: there is no s3://.*zarr.json; `cli.py extract` makes one"):
        open_store(url)
    for open_it in (open_store, lambda path: create_or_open_store(path, small_encoding())):
        with pytest.raises(StoreError, match="the store s3://no-such-bucket/x: there is no such bucket; make it, or check the URL"):
            open_it("s3://no-such-bucket/x")
    service.refuse = lambda request: True
    with pytest.raises(StoreError, match="reading tokens.zarr/zarr.json is not allowed .*AccessDenied.*check the credentials"):
        open_store(url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("features.places.object_client._FIRST_ANSWER_S", 1)
    with pytest.raises(StoreError, match="the store s3://.*: reading .* failed .*check the network, the address"):
        open_store(url)


@pytest.mark.parametrize(("given", "message"), [
    ("s3://bucket", "expected a name below the bucket, such as s3://bucket/features"),
    ("https://bucket/x", "expected a folder, s3://BUCKET/NAME or gs://BUCKET/NAME"),
    ("s3:///x", "expected a folder, s3://BUCKET/NAME"),
])
def test_urls_that_are_no_store_are_refused(given, message):
    with pytest.raises(StoreError, match=message):
        open_store(given)


def test_without_obstore_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "obstore", None)
    with pytest.raises(StoreError, match=r"needs the package obstore, .*; install it with: pip install 'vjepa-loc\[remote\]'"):
        open_store("s3://bucket/x")


def test_a_full_disk_of_this_machine_is_said(service, url, monkeypatch):
    store = lean_store(url)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(StoreError, match="no space left on the disk of this machine while .*video 'a' in s3://.*: about .* needed; free") as caught:
        patched.setattr(os, "writev", full)
        add_video(store, "a", simulated_tokens(20))
    assert caught.value.errno == errno.ENOSPC and not list(store.place.staging.iterdir())
    monkeypatch.setattr("features.store_writer.free_bytes", lambda path: 10 * (path == store.place.staging))
    with pytest.raises(StoreError, match="no space left for video 'a' in s3://.*: about .* needed, 10 B free"):
        store.writer("a", (6, 6), num_steps=20)
