"""A training that was stopped anywhere ends with the bits of one that was not."""

import csv
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from heads.training.fit import train_head
from heads.training.run_folder import RunFolder
from tests.token_stores import make_split

ROOT = Path(__file__).parents[3]
EVERY_BATCH = 1e-9
COUNTS = {"train": 5, "val": 2}
# Five training videos of two windows each: an epoch has five batches.
SETTINGS = {"epochs": 4, "lr": 0.05, "batch_size": 2, "warmup_epochs": 1, "val_every": 2, "checkpoint_minutes": EVERY_BATCH}


def train(tmp_path, settings=SETTINGS, **options):
    dataset, store = make_split(COUNTS)
    return train_head(dataset, [store], "toy", {}, settings, tmp_path / "runs", **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run folder of a training that nothing stopped, in a process of its own."""
    folder = tmp_path_factory.mktemp("whole")
    process = start(folder, SETTINGS | {"checkpoint_minutes": 1000})
    assert process.wait(120) == 0
    [run] = (folder / "runs").iterdir()
    return run


def start(folder, settings, stop_at_step=None, how=None, resume=None):
    """Trains in a process that does `how` to itself in the given step."""
    program = f"""
import os, signal, sys, time
sys.path.insert(0, {str(ROOT)!r})
import heads
heads.__path__.append({str(Path(__file__).parent / "toy_heads")!r})
import torch
torch.set_num_threads(1)
import heads.toy
from pathlib import Path
from tests.heads.training import test_resume
losses = heads.toy.Head.loss
def loss(head, prediction, targets):
    result = losses(head, prediction, targets)
    if head.training and head.num_losses == {stop_at_step}:
        os.kill(os.getpid(), {int(how or 0)})
    return result
heads.toy.Head.loss = loss
test_resume.train(Path({str(folder)!r}), {settings!r}, resume={None if resume is None else str(resume)!r})
"""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, env=environment)


def assert_same_training(whole, run):
    expected, got = (load_file(path / "weights.safetensors") for path in (whole, run))
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    figures = [json.loads((path / "metrics.json").read_text()) for path in (whole, run)]
    assert figures[0]["figures"] == figures[1]["figures"] and figures[0]["best_epoch"] == figures[1]["best_epoch"]
    assert logged(run) == logged(whole)
    assert not list(run.glob(".*")) and not (run / "last.ckpt").exists()


def logged(run):
    """(step, name, value) of everything, whichever start of the training wrote it; nothing twice."""
    rows = [row for path in sorted(run.glob("logs/part*/metrics.csv")) for row in csv.DictReader(path.open())]
    found = [
        (int(row["step"]), name, value) for row in rows for name, value in row.items() if value and name not in ("step", "epoch")
    ]
    assert len(set(found)) == len(found)
    return sorted(found)


def toy_module():
    return importlib.import_module("heads.toy")


def batches_per_epoch(run):
    return (max(step for step, _, _ in logged(run)) + 1) // SETTINGS["epochs"]


@pytest.mark.parametrize("step", [1, 3, 5, 6, 10])
def test_stopped_in_any_batch_it_ends_with_the_same_bits(toy_head, whole, tmp_path, monkeypatch, step):
    assert batches_per_epoch(whole) == 5, "the steps are those of the first two epochs; the second ends with a validation"
    monkeypatch.setattr(toy_module(), "FAIL_AT_STEP", step)
    with pytest.raises(RuntimeError, match="the power is gone"):
        train(tmp_path)
    [stopped] = (tmp_path / "runs").iterdir()
    monkeypatch.setattr(toy_module(), "FAIL_AT_STEP", None)
    assert train(tmp_path, {}, resume=stopped) == stopped
    assert_same_training(whole, stopped)


def test_stopped_in_a_validation_it_validates_again(toy_head, whole, tmp_path, monkeypatch):
    def fail(head, prediction):
        raise RuntimeError("the power is gone")

    decode = toy_module().Head.decode
    monkeypatch.setattr(toy_module().Head, "decode", fail)
    with pytest.raises(RuntimeError, match="the power is gone"):
        train(tmp_path)
    monkeypatch.setattr(toy_module().Head, "decode", decode)
    [stopped] = (tmp_path / "runs").iterdir()
    assert_same_training(whole, train(tmp_path, {}, resume=stopped))


def test_it_may_be_stopped_again_and_again(toy_head, whole, tmp_path, monkeypatch):
    resume = None
    for _ in range(4):
        monkeypatch.setattr(toy_module(), "FAIL_AT_STEP", 3)
        with pytest.raises(RuntimeError, match="the power is gone"):
            train(tmp_path, {} if resume else SETTINGS, resume=resume)
        [resume] = (tmp_path / "runs").iterdir()
    monkeypatch.setattr(toy_module(), "FAIL_AT_STEP", None)
    assert_same_training(whole, train(tmp_path, {}, resume=resume))


@pytest.mark.parametrize("step", [2, 8])
def test_killed_without_warning_it_goes_on(toy_head, whole, tmp_path, step):
    process = start(tmp_path, SETTINGS, step, signal.SIGKILL)
    assert process.wait(120) == -signal.SIGKILL
    [stopped] = (tmp_path / "runs").iterdir()
    assert RunFolder(stopped).checkpoint is not None
    assert_same_training(whole, train(tmp_path, {}, resume=stopped))


def test_asked_to_end_it_saves_where_it_is_and_says_how_to_go_on(toy_head, whole, tmp_path):
    process = start(tmp_path, SETTINGS | {"checkpoint_minutes": 1000}, 8, signal.SIGTERM)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signal.SIGTERM
    [stopped] = (tmp_path / "runs").iterdir()
    assert f"SIGTERM: the training stops; continue with `python cli.py train-head --resume {stopped}`" in said
    assert "Traceback" not in said
    checkpoint = torch.load(stopped / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 8, "not the end of the first epoch"
    assert_same_training(whole, train(tmp_path, {}, resume=stopped))


def test_within_an_epoch_a_checkpoint_comes_as_often_as_it_should(toy_head, tmp_path, monkeypatch):
    saved = []
    save = RunFolder.save_checkpoint
    monkeypatch.setattr(RunFolder, "save_checkpoint", lambda *arguments: saved.append(time.monotonic()) or save(*arguments))
    train(tmp_path, SETTINGS | {"checkpoint_minutes": 1000})
    assert len(saved) == 4, "one per epoch"
    train(tmp_path, SETTINGS)
    assert len(saved) == 4 + 4 * 5, "the end of the epoch stands for its last batch"
