import csv
import json
import signal
import sys

import pytest
import torch
from safetensors.torch import load_file

import heads
from heads.training.fit import train_head
from heads.training.run_folder import RunFolder
from tests.token_stores import LABELS, MemoryStore, make_encoding, make_split, make_video
from vjepa_loc.dataset import Dataset
from vjepa_loc.errors import ConfigError, DatasetError, RunError, StoreError, StoreMismatchError, UnknownNameError
from vjepa_loc.metrics import tal
from vjepa_loc.scoring_input import ScoringInput

QUICK = {"epochs": 6, "lr": 0.05, "batch_size": 2, "warmup_epochs": 1, "val_every": 2}


@pytest.fixture
def small():
    return make_split({"train": 4, "val": 2, "test": 2})


def train(small, tmp_path, head="toy", train=QUICK, head_config=(), **options):
    dataset, store = small
    return train_head(dataset, [store], head, dict(head_config), train, tmp_path / "runs", **options)


def rows(run):
    return [row for path in sorted(run.glob("logs/part*/metrics.csv")) for row in csv.DictReader(path.open())]


def test_a_head_is_trained_and_finds_events(toy_head, small, tmp_path):
    run_path = train(small, tmp_path)
    dataset, store = small
    run = heads.load_run(run_path)
    video_ids = [video.id for video in dataset.videos_of_split("test")]
    events = run.predict(dataset, [store], video_ids)
    assert tal.compute(ScoringInput.of(dataset, events, video_ids), thresholds=(0.25,)).values["tal/map@0.25"] > 0.3
    assert all(event.score is not None and event.num_boxes for event in events)
    alone = run.predict_video(store.video(video_ids[1]))
    assert [(e.label, e.start_frame, e.score) for e in alone] == [
        (e.label, e.start_frame, e.score) for e in events if e.video_id == video_ids[1]
    ]


def test_the_run_folder_says_what_was_done(toy_head, small, tmp_path):
    run = train(small, tmp_path, seed=3)
    assert run.name.startswith("toy-") and run.name.endswith("-seed3")
    info, metrics = json.loads((run / "run.json").read_text()), json.loads((run / "metrics.json").read_text())
    assert info["head"] == "toy" and info["train"]["seed"] == 3 and info["window_frames"] == 256
    assert info["labels"] == list(LABELS) and info["stores"][0]["fingerprint"] == make_encoding().fingerprint
    assert info["train_videos"] == ["train0", "train1", "train2", "train3"]
    assert metrics["best_epoch"] in (2, 4, 6) and metrics["epochs"] == 6
    assert set(metrics["figures"]) >= {"val/map", "val/tal/map@0.50", "val/stal/map@0.50", "val/loss"}
    assert (run / "finished").is_file() and not (run / "last.ckpt").exists()
    assert list(run.glob("logs/part0/events.out.tfevents*"))
    assert [row["train/loss"] for row in rows(run) if row["train/loss"]]
    assert load_file(run / "weights.safetensors")["num_prepared"] > 0, "the head saw the targets beforehand"


def test_a_seed_gives_the_same_run_twice(toy_head, small, tmp_path):
    state = torch.get_rng_state()
    first, second, other = (train(small, tmp_path, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state), "training leaves the caller's random numbers alone"
    assert not torch.are_deterministic_algorithms_enabled()
    weights = [load_file(run / "weights.safetensors") for run in (first, second, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["classify.weight"], weights[2]["classify.weight"])
    assert rows(first) == rows(second)


@pytest.mark.parametrize("fail_at_step", [3, 13, 16])
def test_a_stopped_run_continues_as_if_it_had_not(toy_head, small, tmp_path, monkeypatch, fail_at_step):
    """Stopped within the first, the fourth and the fifth epoch; an epoch has four steps."""
    whole = train(small, tmp_path / "whole")
    monkeypatch.setattr(sys.modules["heads.toy"], "FAIL_AT_STEP", fail_at_step)
    with pytest.raises(RuntimeError, match="the power is gone"):
        train(small, tmp_path)
    [stopped] = (tmp_path / "runs").iterdir()
    with pytest.raises(RunError, match="is not finished; continue it with `python cli.py train-head --resume"):
        heads.load_run(stopped)
    monkeypatch.setattr(sys.modules["heads.toy"], "FAIL_AT_STEP", None)
    assert train(small, tmp_path, train={}, resume=stopped) == stopped
    expected, got = (load_file(run / "weights.safetensors") for run in (whole, stopped))
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    figures = [json.loads((run / "metrics.json").read_text())["figures"] for run in (whole, stopped)]
    assert figures[0] == figures[1]
    assert (stopped / "logs" / "part1" / "metrics.csv").is_file(), "the first part of the logs is still there"


def test_ctrl_c_stays_an_interrupt_and_the_run_can_go_on(toy_head, small, tmp_path, monkeypatch):
    handler = signal.getsignal(signal.SIGINT)
    train(small, tmp_path / "first")
    monkeypatch.setattr(sys.modules["heads.toy"], "FAIL_AT_STEP", 6)
    monkeypatch.setattr(sys.modules["heads.toy"], "FAILURE", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        train(small, tmp_path)
    assert signal.getsignal(signal.SIGINT) is handler, "Lightning leaves Ctrl-C ignored"
    [stopped] = (tmp_path / "runs").iterdir()
    monkeypatch.setattr(sys.modules["heads.toy"], "FAIL_AT_STEP", None)
    assert heads.load_run(train(small, tmp_path, train={}, resume=stopped))


def test_training_stops_when_validation_does_not_improve(toy_head, small, tmp_path):
    patient = QUICK | {"epochs": 30, "lr": 1e-9, "val_every": 1, "patience": 3, "min_epochs": 5}
    metrics = json.loads((train(small, tmp_path, train=patient) / "metrics.json").read_text())
    assert metrics["best_epoch"] == 1 and metrics["epochs"] == 8


def test_without_validation_all_epochs_are_trained(toy_head, tmp_path, capsys):
    run = train(make_split({"train": 3}), tmp_path)
    assert "no video with events to validate on in 'val': training runs all 6 epochs" in capsys.readouterr().err
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["best_epoch"] is None and metrics["epochs"] == 6
    assert heads.load_run(run)


def test_events_without_boxes_are_enough(toy_head, small, tmp_path):
    dataset, store = small
    bare = Dataset(dataset.labels, dataset.videos, [e.replace(box_frames_K=[], boxes_K4=[]) for e in dataset.events])
    run = train((bare, store), tmp_path)
    assert "val/stal/map@0.50" not in json.loads((run / "metrics.json").read_text())["figures"]


def test_two_stores_are_read_side_by_side(toy_head, small, tmp_path):
    dataset, store = small
    coarse = MemoryStore(
        [make_video(v.id, dataset.events_of(v.id), v.num_frames, seed=9, frame_step=4) for v in dataset.videos.values()],
        make_encoding(frame_step=4),
        "memory/coarse",
    )
    finer = MemoryStore([make_video(v.id, dataset.events_of(v.id), v.num_frames, seed=8) for v in dataset.videos.values()])
    run = heads.load_run(train_head(dataset, [store, finer], "toy", {}, QUICK, tmp_path / "runs"))
    assert len(run.encodings) == 2
    assert run.predict(dataset, [store, finer], ["test0"])
    assert run.predict_video(store.video("test0"), finer.video("test0"))
    with pytest.raises(StoreMismatchError, match=r"store memory/coarse holds another encoding .*frame_step: 1 != 4"):
        run.predict(dataset, [store, coarse], ["test0"])
    with pytest.raises(StoreMismatchError, match="reads 2 stores, got 1"):
        run.predict(dataset, [store], ["test0"])


def test_stores_that_disagree_about_a_video_are_refused(toy_head, small, tmp_path):
    dataset, store = small
    shorter = MemoryStore([make_video(v.id, [], v.num_frames - 3, seed=8) for v in dataset.videos.values()])
    with pytest.raises(StoreError, match=r"video 'train0': the stores hold (\d+), (\d+) frames of it; extract it again"):
        train_head(dataset, [store, shorter], "toy", {}, QUICK, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_boxes_in_pixels_of_another_picture_are_refused(toy_head, small, tmp_path):
    """As of features that were imported without the size of their video."""
    dataset, store = small
    store.video("train1").width = store.video("train1").height = 1
    expected = "video 'train1': its boxes are in pixels of 320x180 .dataset., the stored video measures 1x1; .*--width 320"
    with pytest.raises(DatasetError, match=expected):
        train((dataset, store), tmp_path)
    bare = Dataset(dataset.labels, dataset.videos, [e.replace(box_frames_K=[], boxes_K4=[]) for e in dataset.events])
    assert train((bare, store), tmp_path), "without boxes the size does not matter"


def test_a_long_step_works(toy_head, tmp_path):
    dataset, store = make_split({"train": 3, "val": 1, "test": 1}, frame_step=6, num_frames=500)
    run = train((dataset, MemoryStore([store.video(v) for v in store.video_ids()], make_encoding(frame_step=6))), tmp_path)
    info = RunFolder(run).read_info()
    assert info.specs[0].step_frames == 12 and info.specs[0].clip_frames == 96


def test_videos_that_are_not_there_are_listed(toy_head, small, tmp_path, capsys):
    dataset, store = small
    partial = MemoryStore([store.video(v) for v in ("train1", "train2", "val0")])
    partial.video("train2").damaged = True
    run = train((dataset, partial), tmp_path)
    said = capsys.readouterr().err
    assert "2 of 4 training videos are not in the store and are left out: train0, train3" in said
    assert "1 of 4 training videos are damaged and are left out (train.use_damaged=true takes them): train2" in said
    assert "1 of 2 validation videos are not in the store and are left out: val1" in said
    assert RunFolder(run).read_info().train_videos == ("train1",)
    run = train((dataset, partial), tmp_path, train=QUICK | {"use_damaged": True})
    assert RunFolder(run).read_info().train_videos == ("train1", "train2")


def test_a_label_without_events_is_named(toy_head, small, tmp_path, capsys):
    dataset, store = small
    wider = Dataset((*dataset.labels, "drop"), dataset.videos, dataset.events)
    train((wider, store), tmp_path)
    assert "labels without an event in train, which cannot be learnt: drop" in capsys.readouterr().err


def test_no_events_to_train_on_is_one_line(toy_head, small, tmp_path):
    dataset, store = small
    with pytest.raises(RunError, match=r"dataset None: no event in the split 'train' \(4 videos\): there is nothing to learn from"):
        train((Dataset(dataset.labels, dataset.videos), store), tmp_path)
    with pytest.raises(RunError, match="store memory/features: no training video with events can be used; 4 of 4 .*run `make extract`"):
        train((dataset, MemoryStore([])), tmp_path)
    assert not (tmp_path / "runs").exists(), "nothing is left behind"


def test_wrong_names_and_settings_are_refused(toy_head, small, tmp_path):
    with pytest.raises(UnknownNameError, match="unknown head 'toi'.*Did you mean 'toy'"):
        train(small, tmp_path, head="toi")
    with pytest.raises(ConfigError, match="'epoch'.*Did you mean 'epochs'"):
        train(small, tmp_path, train={"epoch": 3})
    with pytest.raises(ConfigError, match=r"\[head\] has no key 'dropuot'.*Did you mean 'dropout'"):
        train(small, tmp_path, head_config={"dropuot": 0.1})
    with pytest.raises(RunError, match="the head reads the level 'pool2', the store holds tokens, pool1"):
        train(small, tmp_path, head_config={"level": "pool2"})
    assert not (tmp_path / "runs").exists()


@pytest.mark.filterwarnings("ignore:.*overflow.*")
def test_a_loss_that_is_not_finite_stops_with_advice(toy_head, small, tmp_path):
    with pytest.raises(RunError, match="the loss is (nan|inf) in epoch 0, batch [12].*train with a lower lr than 1e[+]30"):
        train(small, tmp_path, train=QUICK | {"lr": 1e30, "warmup_epochs": 0})


def test_a_run_continues_only_with_its_own_settings(toy_head, small, tmp_path):
    run = train(small, tmp_path)
    with pytest.raises(RunError, match="is finished, there is nothing to resume"):
        train(small, tmp_path, resume=run)
    (run / "finished").unlink()
    with pytest.raises(ConfigError, match="continues with its own settings: epochs is 6 there, got 9; leave it out"):
        train(small, tmp_path, resume=run, epochs=9)
    dataset, store = small
    other = MemoryStore([store.video(v) for v in store.video_ids()], make_encoding(fit="crop"))
    with pytest.raises(StoreMismatchError, match="fit: 'stretch' != 'crop'"):
        train((dataset, other), tmp_path, train={}, resume=run)
    with pytest.raises(RunError, match="is no run folder: it has no run.json"):
        train(small, tmp_path, resume=tmp_path)
