"""What two stores have in common and what not."""

import json

import numpy as np
import pytest

from features.schema import Storage
from features.store import open_store
from features.store_convert import StorageChange, convert_store
from features.store_copy import merge_stores, subset_store
from features.store_diff import diff_stores
from tests.features.store_builder import add_video, simulated_tokens, small_store


@pytest.fixture
def store(tmp_path):
    store = small_store(tmp_path / "store")
    for seed, video_id in enumerate("abc"):
        add_video(store, video_id, simulated_tokens(100, seed=seed))
    return store


def test_copies_are_the_same_without_reading_them(store, tmp_path, monkeypatch):
    merge_stores(tmp_path / "copy", [store])
    monkeypatch.setattr("features.store.Store.video", None)
    difference = diff_stores(store, open_store(tmp_path / "copy"))
    assert difference.same and difference.num_same == 3
    assert difference.to_dict()["different"] == {}


def test_every_kind_of_difference_is_named(store, tmp_path):
    other = small_store(tmp_path / "other", overlap=8)
    tokens = simulated_tokens(100, seed=0)
    tokens[40] += 1
    add_video(other, "a", tokens)
    add_video(other, "b", simulated_tokens(100, seed=1))
    add_video(other, "d", simulated_tokens(10))
    difference = diff_stores(store, other, all_steps=True)
    assert not difference.same and difference.encoding == ("overlap: 0 != 8",)
    assert (difference.only_in_a, difference.only_in_b, difference.num_same) == (("c",), ("d",), 1)
    [video] = difference.different
    assert video.video_id == "a" and set(video.arrays) == {"tokens", "pool1", "pool2", "pool4"}
    found = video.arrays["tokens"]
    assert (found.num_compared, found.num_differing) == (100, 1) and 0.9 < found.max_error < 3
    a, b = (s.video("a").read("tokens", out=np.empty((100, 6, 6, 24), np.float32)) for s in (store, other))
    expected = np.sqrt(np.square(a - b).sum() / np.square(a - store.video("a").mean).sum())
    assert found.relative_error == pytest.approx(expected, rel=1e-3) and found.max_error == pytest.approx(np.abs(a - b).max())
    assert json.loads(json.dumps(difference.to_dict()))["different"]["a"]["arrays"]["tokens"]["num_differing"] == 1
    assert [line for line in video.lines() if line.startswith("tokens: 1 of 100 differ: relative error ")]


def test_a_sample_is_bounded_and_the_error_is_that_of_the_number_format(store, tmp_path):
    convert_store(store, tmp_path / "wide", StorageChange(number_format="float16"))
    again = open_store(tmp_path / "wide")
    convert_store(again, tmp_path / "small", StorageChange(number_format="int8"))
    difference = diff_stores(store, open_store(tmp_path / "small"))
    video = difference.different[0]
    assert video.description == ("earlier_formats: [] != ['int8', 'float16']",)
    difference = diff_stores(store, again)
    video = difference.different[0]
    assert video.storage == ("number_format: 'int8' != 'float16'",) and set(video.arrays) == {"tokens"}
    found = video.arrays["tokens"]
    assert found.num_compared == 64 and 0 < found.relative_error < 1e-3
    assert str(found).startswith("64 of 64 (a sample of 100) differ: relative error 0.000")
    convert_store(store, tmp_path / "compressed", StorageChange(compression="zstd"))
    assert "pool1: stored otherwise, equal values in all 64 (a sample of 100)" in diff_stores(
        store, open_store(tmp_path / "compressed")
    ).different[0].lines()


def test_levels_that_one_lacks(store, tmp_path):
    subset_store(store, tmp_path / "small", ["pool4"])
    video = diff_stores(store, open_store(tmp_path / "small")).different[0]
    assert video.lines() == ["only in A: tokens, pool1, pool2"] and video.arrays == {}
    assert video.to_dict()["levels_only_in_a"] == ["tokens", "pool1", "pool2"]


def test_shapes_that_differ_are_not_compared(store, tmp_path):
    other = small_store(tmp_path / "other")
    add_video(other, "a", simulated_tokens(90, seed=0))
    video = diff_stores(store, other).different[0]
    assert str(video.arrays["tokens"]) == "shape (100, 6, 6, 24) != (90, 6, 6, 24)"
    assert "num_frames: 200 != 180" in video.description and str(video.arrays["frames"]) == "shape (100, 2) != (90, 2)"


def test_a_changed_source_and_statistics_are_named(tmp_path):
    a, b = (small_store(tmp_path / name, Storage(levels=("tokens",))) for name in "ab")
    tokens = simulated_tokens(20)
    add_video(a, "v", tokens)
    add_video(b, "v", np.concatenate([tokens[:1] + 2, tokens[1:]]))
    [video] = diff_stores(a, b).different
    assert {"mean", "std", "tokens"} <= set(video.arrays)
    line = next(line for line in video.lines() if line.startswith("mean: "))
    assert line.startswith("mean: 24 of 24 differ: relative error")
