"""Heads train on what is made from a store, and on other people's features, from the command line to predictions."""

import json

import numpy as np
import pytest

import cli
from features.schema import Source, Storage, VideoMeta
from features.store import create_or_open_store, open_store
from features.store_convert import StorageChange, convert_store
from heads.training.predict import load_run
from tests.token_stores import LABELS, make_split
from vjepa_loc.dataset import read_dataset, write_dataset

QUICK = ["--set", "train.batch_size=2", "--set", "train.warmup_epochs=1", "--set", "width=16", "--set", "stem_width=8", "--set", "num_levels=2"]


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A dataset of six videos and a store of theirs on the disk, `features`."""
    monkeypatch.chdir(tmp_path)
    dataset, memory = make_split({"train": 4, "val": 2}, num_frames=150)
    (tmp_path / "data").mkdir()
    write_dataset(dataset, tmp_path / "data" / "dataset.json")
    store = create_or_open_store(tmp_path / "features", memory.encoding, Storage(shard_steps=32))
    for video in map(memory.video, memory.video_ids()):
        meta = VideoMeta(
            id=video.id, source=Source(name="x", size=1, mtime_ns=1, sha256=""), num_frames=video.num_frames, fps=25, width=video.width,
            height=video.height, grid=video.grid, space_grid=video.space_grid.to_dict(), decoder="none", device="cpu", dtype="float32",
        )
        with store.writer(video.id, video.grid) as writer:
            tokens_THWC = np.asarray(video.read("tokens", 0, video.num_steps), np.float32)
            writer.append(tokens_THWC, video.frames, video.first_frame_seen, video.last_frame_seen)
            writer.commit(meta, np.arange(video.num_frames) / 25)
    return tmp_path


@pytest.fixture
def run(capsys):
    def call(*arguments):
        capsys.readouterr()
        code = cli.main(list(arguments))
        return (code, *capsys.readouterr())

    return call


def train(run, store, level, epochs=2):
    code, out, err = run("train-head", "--head", "dense", "--store", store, "--epochs", str(epochs), "--json", "--set", f"level={level}", *QUICK)
    assert code == 0, err
    return load_run(json.loads(out.strip().splitlines()[-1])["run"])


def test_a_head_trains_on_the_subset_that_fits_a_laptop(workspace, run):
    code, out, _ = run("store", "subset", "small", "--store", "features", "--levels", "pool4,pool1", "--json")
    assert code == 0 and len(json.loads(out)["copied"]) == 6
    small = open_store(workspace / "small")
    assert small.video("val0").levels == ("pool4", "pool1")
    for level in ("pool4", "pool1"):
        trained = train(run, "small", level)
        dataset = read_dataset(workspace / "data" / "dataset.json")
        events = trained.predict(dataset, [small], ["val0", "val1"])
        assert events and {event.label for event in events} <= set(LABELS)
        # The whole store has the same level, so it gives the same events.
        again = trained.predict(dataset, [open_store(workspace / "features")], ["val0", "val1"])
        assert [(event.start_frame, event.score) for event in again] == [(event.start_frame, event.score) for event in events]


def test_a_head_that_needs_a_level_which_is_not_there_is_told_so(workspace, run):
    run("store", "subset", "small", "--store", "features", "--levels", "pool4,pool1")
    for head in ("dense", "detr", "mean_box"):
        code, _, err = run("train-head", "--head", head, "--store", "small", "--epochs", "1")
        assert code == 2 and len(err.strip().splitlines()) == 1, err
        assert "'tokens'" in err and "pool4, pool1" in err and "--set level=pool4" in err, err


@pytest.mark.parametrize("change", [StorageChange(number_format="float16"), StorageChange(compression="zstd")], ids=["float16", "zstd"])
def test_a_head_trains_on_a_converted_store(workspace, run, change):
    store = open_store(workspace / "features")
    convert_store(store, workspace / "other", change)
    trained = train(run, "other", "tokens", epochs=1)
    dataset = read_dataset(workspace / "data" / "dataset.json")
    events = trained.predict(dataset, [store], ["val0"])
    other = trained.predict(dataset, [open_store(workspace / "other")], ["val0"])
    assert events and len(events) == len(other)
    assert np.allclose([event.score for event in events], [event.score for event in other], atol=0.02)


def test_other_peoples_features_are_trained_on(workspace, run):
    store = open_store(workspace / "features")
    for video_id in store.video_ids():
        video = store.video(video_id)
        np.save(f"{video_id}.npy", video.read("pool1")[:, 0, 0])
        code, _, err = run(
            "store", "import", f"{video_id}.npy", "--id", video_id, "--fps", "25", "--stride", "2", "--store", "imported",
            "--num-frames", str(video.num_frames), "--width", "320", "--height", "180",
        )
        assert code == 0, err
    imported = open_store(workspace / "imported")
    assert imported.video("val0").shape() == (imported.video("val0").num_steps, 1, 1, 8) and imported.verify().ok
    trained = train(run, "imported", "tokens", epochs=3)
    dataset = read_dataset(workspace / "data" / "dataset.json")
    events = trained.predict(dataset, [imported], ["val0", "val1"])
    assert events and all(0 <= event.start_frame < event.end_frame <= imported.video(event.video_id).num_frames for event in events)
