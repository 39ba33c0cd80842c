"""Subsets and merged stores hold the same files as their sources, under the same guarantees."""

import shutil

import numpy as np
import pytest

from features.schema import Damage, Storage
from features.store import open_store
from features.store_copy import merge_stores, subset_store
from tests.features.store_builder import add_video, read_all, simulated_tokens, small_store
from vjepa_loc.errors import ConfigError, CorruptStoreError, StoreError, StoreMismatchError


@pytest.fixture
def store(tmp_path):
    store = small_store(tmp_path / "store")
    for seed, video_id in enumerate("ab"):
        add_video(store, video_id, simulated_tokens(20, seed=seed))
    return store


def test_a_subset_has_the_levels_that_were_asked_for(store, tmp_path):
    report = subset_store(store, tmp_path / "small", ["pool4", "pool1"])
    assert report.copied == ("a", "b")
    small = open_store(tmp_path / "small")
    assert small.fingerprint == store.fingerprint and small.verify().ok
    assert small.video("a").levels == ("pool4", "pool1")
    for name, values in read_all(small, "a").items():
        assert np.array_equal(values, read_all(store, "a")[name])
    assert small.summaries()["a"].bytes < 0.6 * store.summaries()["a"].bytes
    assert not (tmp_path / "small/tokens.zarr" / small.commit_of("a").path / "scale").exists()
    again = subset_store(store, tmp_path / "small", ["pool4", "pool1"])
    assert again.copied == () and again.present == ("a", "b")


def test_a_subset_of_videos(store, tmp_path):
    assert subset_store(store, tmp_path / "small", ["tokens"], ["b"]).copied == ("b",)
    small = open_store(tmp_path / "small")
    assert np.array_equal(small.video("b").read_codes()[0], store.video("b").read_codes()[0])
    with pytest.raises(StoreError, match="video 'b' has no level pool2; it stores tokens"):
        subset_store(small, tmp_path / "smaller", ["pool2"])
    with pytest.raises(ConfigError, match="expected levels of tokens, pool1, pool2, pool4, got 'pool3'. Did you mean"):
        subset_store(store, tmp_path / "none", ["pool3"])


def test_stores_are_merged(store, tmp_path):
    other = small_store(tmp_path / "other")
    add_video(other, "b", simulated_tokens(20, seed=1))
    add_video(other, "a", simulated_tokens(20, seed=7))
    add_video(other, "c", simulated_tokens(20, seed=2))
    before = store.commit_of("a")
    report = merge_stores(store.path, [other])
    assert (report.copied, report.present, report.different) == (("c",), ("b",), ("a",))
    assert store.commit_of("a") == before and store.verify().ok
    assert store.commit_of("c").generation_files == other.commit_of("c").generation_files


def test_stores_of_different_encodings_are_not_merged(store, tmp_path):
    other = small_store(tmp_path / "other", overlap=8)
    with pytest.raises(StoreMismatchError, match="holds another encoding than the one asked for: overlap: 0 != 8"):
        merge_stores(store.path, [other])
    with pytest.raises(StoreMismatchError, match="hold different encodings: overlap: 0 != 8; only stores of one"):
        merge_stores(store.path.parent / "new", [store, other])
    assert not (store.path.parent / "new").exists()


def test_several_stores_become_a_new_one(store, tmp_path):
    other = small_store(tmp_path / "other")
    add_video(other, "c", simulated_tokens(20, seed=2))
    seen = []
    report = merge_stores(tmp_path / "new", [store, other], lambda *done: seen.append(done))
    assert report.copied == ("a", "b", "c") and seen == [(1, 3), (2, 3), (3, 3)]
    assert open_store(tmp_path / "new").verify().ok


def test_a_store_is_not_copied_into_itself(store):
    for copy in (lambda: merge_stores(store.path, [store]), lambda: subset_store(store, store.path, ["pool1"])):
        with pytest.raises(ConfigError, match="store is source and target at once; name another store as target"):
            copy()


def test_compressed_and_damaged_videos_keep_what_they_say(tmp_path):
    store = small_store(tmp_path / "store", Storage(shard_steps=16, compression="zstd"))
    add_video(store, "a", simulated_tokens(20), damage=Damage(num_errors=2))
    assert subset_store(store, tmp_path / "small", ["tokens"]).copied == ("a",)
    small = open_store(tmp_path / "small")
    assert small.video("a").damaged and small.video("a").storage.compression == "zstd"
    assert np.array_equal(small.video("a").read(), store.video("a").read())


def test_damage_is_not_copied(store, tmp_path):
    path = store.path / "tokens.zarr" / store.commit_of("a").path / "pool2/c/0/0/0/0"
    raw = bytearray(path.read_bytes())
    raw[50] ^= 1
    path.write_bytes(raw)
    other = small_store(tmp_path / "other")
    with pytest.raises(CorruptStoreError, match="pool2/c/0/0/0/0: expected .* bytes with crc32c"):
        merge_stores(other.path, [store])
    assert other.video_ids() == [] and not list((other.path / "staging").iterdir())


def test_a_target_that_vanishes_is_not_made_again(store, tmp_path, monkeypatch):
    gone = []

    def vanish(video):
        gone.append(shutil.move(tmp_path / "small", tmp_path / "unmounted"))
        return iter(())

    monkeypatch.setattr("features.store_copy.exchanged_files", vanish)
    with pytest.raises(StoreError, match="copying video 'a'"):
        subset_store(store, tmp_path / "small", ["pool4"])
    assert gone and not (tmp_path / "small").exists()
