"""`gc` takes debris and nothing else."""

import json
import os
import time
from dataclasses import asdict

import numpy as np
import pytest

from features.claims import Owner
from features.store import open_store
from features.store_gc import collect_garbage
from tests.features.store_builder import add_video, simulated_tokens, small_store
from vjepa_loc.errors import StoreError

DAY_S = 24 * 3600


@pytest.fixture
def store(tmp_path):
    store = small_store(tmp_path / "store")
    for video_id in ("a", "b"):
        add_video(store, video_id, simulated_tokens(3))
    return store


def later(monkeypatch, seconds):
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + seconds)


def test_nothing_young_and_nothing_committed_is_removed(store, monkeypatch):
    assert collect_garbage(store.path).removed == ()
    add_video(store, "a", simulated_tokens(3, seed=1), replace=True)
    assert collect_garbage(store.path).removed == ()
    later(monkeypatch, 10 * DAY_S)
    removed = collect_garbage(store.path, dry_run=True).removed
    assert len(removed) == 1 and removed[0].startswith("tokens.zarr/videos/a/")
    report = collect_garbage(store.path)
    assert report.removed == removed and report.num_bytes > 1000 and "1 items" in str(report)
    assert store.verify().ok and store.video_ids() == ["a", "b"]


def test_the_lease_of_a_replaced_generation_starts_when_it_is_replaced(store, monkeypatch):
    generation = store.path / "tokens.zarr" / store.commit_of("a").path
    os.utime(generation, (0, 0))
    before = generation.stat().st_mtime
    add_video(store, "a", simulated_tokens(3, seed=1), replace=True)
    assert before == 0 and time.time() - generation.stat().st_mtime < 60


def test_a_generation_without_a_commit_goes(store, monkeypatch):
    (store.path / "commits/a.json").unlink()
    later(monkeypatch, 2 * DAY_S)
    [removed] = collect_garbage(store.path).removed
    assert removed.startswith("tokens.zarr/videos/a/")
    assert np.array_equal(store.video("b").frames[0], [0, 1]) and store.verify().ok


def test_the_generations_behind_a_damaged_record_stay(store, monkeypatch):
    record = store.path / "commits/a.json"
    raw = record.read_bytes()
    record.write_bytes(raw[:-1])
    later(monkeypatch, 2 * DAY_S)
    assert collect_garbage(store.path).removed == ()
    record.write_bytes(raw)
    assert store.verify().ok and "a" in store


def staging_of(store, owner):
    folder = store.path / "staging" / "00ff"
    (folder / "video").mkdir(parents=True)
    (folder / "owner.json").write_text(json.dumps(asdict(owner)))
    return folder


def test_staging_of_a_living_process_stays_until_the_lease_is_over(store, monkeypatch):
    folder = staging_of(store, Owner.this_process())
    assert collect_garbage(store.path).removed == () and folder.exists()
    later(monkeypatch, 2 * DAY_S)
    (folder / "video/x").write_bytes(b"")
    os.utime(folder / "video/x", (time.time(), time.time()))
    assert collect_garbage(store.path).removed == ()
    os.utime(folder / "video/x", (0, 0))
    later(monkeypatch, 2 * DAY_S)
    assert collect_garbage(store.path).removed == ("staging/00ff",)


def test_staging_of_a_process_that_is_gone_goes_at_once(store):
    mine = Owner.this_process()
    staging_of(store, Owner(mine.machine, mine.pid, "another start"))
    assert collect_garbage(store.path).removed == ("staging/00ff",)


def test_staging_of_another_machine_waits(store):
    staging_of(store, Owner("elsewhere", 1, "1"))
    assert collect_garbage(store.path).removed == ()


def test_lapsed_claims_go_and_the_manifest_becomes_one_file(store, monkeypatch):
    store.claim("c")
    for _ in range(3):
        add_video(open_store(store.path), f"v{_}", simulated_tokens(2))
    assert len(list((store.path / "manifest").iterdir())) == 4
    later(monkeypatch, 2 * DAY_S)
    assert collect_garbage(store.path).removed == ("claims/c.json",)
    assert [path.name for path in (store.path / "manifest").iterdir()] == ["all.jsonl"]
    assert open_store(store.path).video_ids() == ["a", "b", "v0", "v1", "v2"]


def test_a_store_without_its_commits_or_root_is_left_alone(store, monkeypatch):
    later(monkeypatch, 2 * DAY_S)
    for name in ("commits", "tokens.zarr/zarr.json"):
        (store.path / name).rename(store.path / "away")
        with pytest.raises(StoreError, match=f"has no {name}; nothing is removed"):
            collect_garbage(store.path)
        (store.path / "away").rename(store.path / name)
    assert collect_garbage(store.path).removed == () and store.verify().ok
