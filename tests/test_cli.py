"""The command line: its names are frozen, a mistake is one line and exit code 2, answers are tables or JSON.

Commands run inside this process through `cli.main`; one test starts Python to see that nothing heavy is imported.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

import cli
from tests.features.conftest import write_clip
from vjepa_loc.dataset import read_dataset

ROOT = Path(cli.__file__).parent

SURFACE = {
    "extract": [
        "--encoder", "--dataset", "--store", "--on-mismatch", "--engine", "--workers", "--shard", "--split", "--video", "--dry-run", "--json", "--set",
    ],
    "estimate": ["--encoder", "--dataset", "--store", "--seconds", "--gpu", "--gpus", "--json", "--set"],
    "status": ["[STORE]", "--dataset", "--json", "--watch"],
    "train-head": ["--head", "--dataset", "--store", "--runs", "--epochs", "--seed", "--resume", "--config", "--json", "--set"],
    "evaluate": [
        "--split", "--run", "--predictions", "--metric", "--iou", "--against", "--bootstrap", "--seed", "--out", "--dataset", "--store",
        "--runs", "--json",
    ],
    "predict": ["[FILE]...", "--run", "--split", "--video", "--out", "--format", "--dataset", "--store", "--runs", "--json", "--set"],
    "convert": ["source", "target", "--from", "--to", "--predictions", "--probe", "--dataset", "--json"],
    "check-videos": [
        "[PATHS]...", "--csv", "--jobs", "--quarantine", "--remux", "--replace", "--hashes", "--cross-check", "--dataset", "--json",
    ],
    "dataset check": ["--dataset", "--decode", "--json"],
    "dataset split": ["--out", "--dataset", "--share", "--folds", "--by", "--stratify", "--keep", "--seed", "--json"],
    "dataset stats": ["--dataset", "--out", "--json"],
    "synthesize": ["out", "--videos", "--train", "--val", "--test", "--seed", "--json"],
    "store info": ["[STORE]", "--json"],
    "store list": ["[STORE]", "--json"],
    "store show": ["ID", "--store", "--out", "--dataset", "--json"],
    "store diff": ["A", "B", "--all", "--json"],
    "store verify": [
        "[STORE]", "--all", "--sample", "--reencode", "--seed", "--video", "--encoder", "--dataset", "--json", "--set"
    ],
    "store repair": ["--store", "--encoder", "--dataset", "--video", "--on-mismatch", "--json", "--set"],
    "store subset": ["target", "--store", "--levels", "--video", "--json"],
    "store convert": ["target", "--store", "--number-format", "--compression", "--levels", "--shard-steps", "--video", "--json"],
    "store merge": ["target", "sources", "--json"],
    "store import": ["file", "--id", "--fps", "--stride", "--store", "--num-frames", "--family", "--width", "--height", "--json"],
    "store push": ["URL", "--store", "--video", "--replace", "--json"],
    "store pull": ["URL", "--store", "--video", "--replace", "--json"],
    "store gc": ["[STORE]", "--dry-run", "--json"],
}


def surface_of(group, prefix="") -> dict[str, list[str]]:
    found = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= surface_of(command, f"{prefix}{name} ")
        else:
            found[prefix + name] = [
                parameter.opts[0] if parameter.param_type_name == "option" else parameter.metavar or parameter.name
                for parameter in command.params
            ]
    return found


def test_the_command_line_is_frozen():
    assert surface_of(typer.main.get_command(cli.app)) == SURFACE


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    """A workspace with two short videos, one event each, the tiny encoder, and a store in `features`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    videos, events = [], []
    for name, split in [("a", "train"), ("b", "val")]:
        write_clip(tmp_path / "data" / f"{name}.mp4", num_frames=24)
        videos.append({"id": name, "file": f"{name}.mp4", "fps": 25.0, "num_frames": 24, "width": 144, "height": 64, "split": split})
        boxes = {str(frame): [10, 10, 40, 50] for frame in range(4, 12)}
        events.append({"video_id": name, "label": "take", "start_frame": 4, "end_frame": 12, "boxes": boxes})
    content = {"format": "vjepa_loc", "version": 1, "labels": ["take"], "videos": videos, "events": events}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(content))
    (tmp_path / "vjepa_loc.toml").write_text("[store]\npath = 'features'\n[encoder]\nname = 'tiny'\n[extract]\nthreads = 1\n")
    return tmp_path


@pytest.fixture
def run(capsys):
    """`run("extract", "--json")` -> (exit code, standard output, standard error)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def last_json(text: str):
    return json.loads(text.strip().splitlines()[-1])


def test_without_arguments_the_help_is_printed(run):
    code, out, err = run("--help")
    assert code == 0 and "train-head" in out
    code, _, err = run()
    assert code == 2 and "train-head" in err
    code, _, err = run("store")
    assert code == 2 and "verify" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["extrct"], "error: No such command 'extrct'. Did you mean 'extract'?"),
        (["extract", "--sore", "x"], "error: No such option: --sore"),
        (["train-head", "--epochs", "many"], "error: Invalid value for '--epochs'"),
        (["extract", "--encoder", "tini"], "unknown encoder 'tini', expected one of: dinov3, timesformer, tiny, videomae, videoprism, vivit, vjepa2. Did you mean 'tiny'?"),
        (["extract", "--set", "extract.fits=crop"], "--set extract.fits=crop: [extract] has no key 'fits'"),
        (["extract", "--dataset", "absent.json"], "dataset file absent.json does not exist. Make one from other annotations with "
         "`python cli.py convert`, or try `make demo`, which needs no data."),
        (["extract", "--store", "data"], "data exists and is not a store; choose another path for the store, or an empty folder"),
        (["extract", "--set", "device=cuda:9"], "extract.device: 'cuda:9' cannot be used here"),
        (["train-head", "--head", "dets"], "unknown head 'dets', expected one of: dense, detr, mean_box"),
        (["train-head", "--head", "detr", "--set", "train.epoks=3"], "[train] has no key 'epoks'"),
        (["train-head", "--set", "num_proposal=3"], "Did you mean 'num_proposals'?"),
        (["train-head", "--config", "absent.toml"], "absent.toml: no such settings file"),
        (["train-head", "--store", "nowhere"], "nowhere does not exist"),
        (["evaluate"], "runs: no run found; train one with `python cli.py train-head --head=detr`"),
        (["evaluate", "--run", "data"], "data is no run folder: it has no run.json"),
        (["evaluate", "--predictions", "p.json", "--split", "vall"], "no video has the split 'vall', expected one of: train, val, all. Did you mean 'val'?"),
        (["evaluate", "--predictions", "p.json", "--metric", "tall"], "unknown metric 'tall'"),
        (["evaluate", "--predictions", "p.json", "--metric", "frame_map[coc]"], "unknown metric 'frame_map[coc]', expected one of: frame_map[act], "),
        (["evaluate", "--metric", "tal[]"], "unknown metric 'tal[]', expected one of: tal, tal[drop]"),
        (["evaluate", "--predictions", "p.json", "--iou", "0.5,0.5"], "two entries would both be named '0.50'; leave one out"),
        (["evaluate", "--predictions", "p.json", "--bootstrap", "-1"], "--bootstrap: expected 0 or more, got -1"),
        (["evaluate", "--predictions", "p.json", "--against", "absent"], "--against absent: expected a run folder or a prediction file, there is nothing"),
        (["evaluate", "--predictions", "p.json", "--against", "data"], "--against data: expected a run folder or a prediction file, got a folder without run.json"),
        (["evaluate", "--predictions", "p.json", "--against", "data/a.mp4"], "data/a.mp4: expected a JSON file"),
        (["evaluate", "--predictions", "p.json", "--against", "wrong_label.json"], "wrong_label.json: events[0], label: unknown name 'steal'"),
        (["evaluate", "--predictions", "p.json", "--store", "nowhere"], "nowhere does not exist"),
        (["evaluate", "--predictions", "p.json", "--iou", "2"], "--iou: expected a number (0.5)"),
        (["evaluate", "--predictions", "p.json", "--iou", "0.5:1e-7:0.9"], "--iou: expected a range of at most 1000 steps, got '0.5:1e-7:0.9'"),
        (["evaluate", "--predictions", "p.json", "--iou", "0.5:5e-324:0.9"], "--iou: expected a range of at most 1000 steps"),
        (["evaluate", "--predictions", "p.json", "--bootstrap", "1000000000"], "--bootstrap: expected at most 100000, got 1000000000"),
        (["evaluate", "--predictions", "p.json", "--out", "p.json"], "--out p.json: expected a folder, or a name that is free, got a file"),
        (["evaluate", "--predictions", "absent.json"], "prediction file absent.json does not exist"),
        (["evaluate", "--predictions", "p.json", "--run", "r"], "--run and --predictions exclude each other"),
        (["evaluate", "--predictions", "wrong_label.json"], "unknown name 'steal', expected one of: take"),
        (["predict"], "expected either --split NAME or --video FILE"),
        (["predict", "--split", "val", "--video", "x.mp4"], "expected either --split NAME or --video FILE"),
        (["predict", "--split", "val", "--format", "groceri"], "unknown format 'groceri', expected one of: activitynet, boris, cvat, grocery, label_studio, native"),
        (["convert", "data/dataset.json", "out", "--to", "grocery"], "format 'grocery' cannot write datasets; those that can: activitynet, boris, cvat, label_studio, native"),
        (["convert", "absent", "out.json", "--from", "grocery"], "absent"),
        (["check-videos", "--dataset", "absent.json"], "dataset file absent.json does not exist"),
        (["synthesize", "out", "--videos", "0"], "expected at least 1 video"),
        (["store", "info"], "features does not exist"),
        (["store", "show", "a", "--store", "nowhere"], "nowhere does not exist"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(workspace, run, arguments, message):
    event = {"video_id": "b", "label": "take", "start_frame": 4, "end_frame": 12, "score": 0.5}
    for name, entry in {"p.json": event, "wrong_label.json": event | {"label": "steal"}}.items():
        (workspace / name).write_text(json.dumps({"format": "vjepa_loc", "version": 1, "events": [entry]}))
    code, out, err = run(*arguments)
    assert code == 2
    assert message in err and len(err.strip().splitlines()) == 1 and "Traceback" not in err
    assert out == ""


def test_an_interrupted_command_says_so(workspace, run, monkeypatch):
    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("vjepa_loc.dataset.read_dataset", interrupted)
    code, _, err = run("evaluate")
    assert code == 130 and "run the command again to continue" in err


def test_sigterm_ends_a_repair_with_143_and_one_line(workspace, run, monkeypatch):
    def terminated(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("features.repair.repair_store", terminated)
    with pytest.raises(SystemExit, match="143"):
        cli.main(["store", "repair"])
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("number", "line", "code"), [(signal.SIGTERM, "SIGTERM: ended", 143), (signal.SIGINT, "interrupted", 130)]
)
def test_a_signal_lets_an_extraction_end_in_its_own_way(workspace, run, monkeypatch, number, line, code):
    from features.extract import extract_dataset

    def stopped(*args):
        os.kill(os.getpid(), number)
        return extract_dataset(*args)

    before = signal.getsignal(number)
    monkeypatch.setattr("features.engines.local.extract_dataset", stopped)
    found, out, err = run("extract")
    assert found == code and signal.getsignal(number) is before
    assert err.splitlines()[-1] == f"{line}; what is complete is kept, run the command again to continue"
    assert err.count("run the command again") == 1
    assert "0 done" in out, "asked to stop before the first video"


def test_extract_twice_then_the_store_commands(workspace, run):
    code, out, err = run("extract", "--dry-run", "--json")
    assert code == 0 and last_json(out) == {name: {"action": "extract", "reason": ""} for name in "ab"}
    assert not (workspace / "features").exists()

    code, out, err = run("extract", "--json")
    assert code == 0 and last_json(out) == {"done": ["a", "b"], "skipped": [], "failed": {}}
    assert "done    a: 24 frames, 12 steps" in err
    code, out, _ = run("extract")
    assert code == 0 and "0 done (0 damaged), 2 skipped, 0 failed" in out

    code, out, _ = run("store", "info", "--json")
    info = json.loads(out)
    assert list(info) == ["fingerprint", "encoding", "videos"] and info["encoding"]["family"] == "tiny"
    assert list(info["videos"]["a"]) == ["num_frames", "width", "height", "steps", "grid", "bytes", "damaged"]
    assert info["videos"]["a"] | {"bytes": 0} == {
        "num_frames": 24, "width": 144, "height": 64, "steps": 12, "grid": [16, 16], "bytes": 0, "damaged": False
    }
    assert info["fingerprint"] in run("store", "info")[1] and "num_frames" in run("store", "list")[1]
    assert json.loads(run("store", "list", "features", "--json")[1]) == info["videos"]
    shown = json.loads(run("store", "show", "a", "--json")[1])
    assert (shown["decoder"], shown["picture"], shown["problem"]) == ("pyav", "a.png", None) and (workspace / "a.png").stat().st_size > 9999
    assert "2 per step" in run("store", "show", "a", "--out", "pictures/a.png")[1] and (workspace / "pictures/a.png").exists()
    assert "no video 'c'" in run("store", "show", "c")[2]
    assert json.loads(run("store", "verify", "--json")[1])["ok"] is True
    assert json.loads(run("store", "subset", "small", "--levels", "pool4", "--video", "a", "--json")[1])["copied"] == ["a"]
    assert json.loads(run("store", "merge", "merged", "features", "--json")[1])["copied"] == ["a", "b"]
    assert "2 copied, 0 present, 0 different" in run("store", "convert", "float", "--number-format", "float16", "--compression", "zstd")[1]
    assert json.loads(run("store", "verify", "float", "--json")[1])["ok"] is True
    assert "levels_only_in_a" in run("store", "diff", "features", "small", "--json")[1]
    code, out, _ = run("store", "diff", "features", "float")
    assert code == 1 and "number_format: 'int8' != 'float16'" in out and "2 different, 0 the same" in out
    assert run("store", "diff", "features", "merged")[0] == 0
    code, out, err = run("store", "merge", "float", "features")
    assert code == 1 and "0 copied, 0 present, 2 different" in out and "other content under the same ids, which was kept: a, b" in err
    assert json.loads(run("store", "gc", "--json")[1]) == {"removed": [], "bytes": 0}

    code, _, err = run("extract", "--set", "extract.fit=crop")
    assert code == 2 and "fit: 'stretch' != 'crop'" in err
    code, out, _ = run("store", "repair", "--json")
    assert code == 0 and last_json(out) == {"restored": [], "done": [], "skipped": [], "failed": {}, "left": []}


def test_verify_draws_encodes_again_and_names_what_is_wrong(workspace, run):
    assert run("extract")[0] == 0
    code, out, _ = run("store", "verify", "--sample", "1", "--seed", "5", "--json")
    assert code == 0 and json.loads(out).items() >= {"ok": True, "videos": 2, "checked": 1, "seed": 5}.items()
    code, out, _ = run("store", "verify", "--all", "--reencode", "2", "--json")
    answer = json.loads(out)
    assert code == 0 and answer["ok"] and [clip["tolerance"] for clip in answer["clips"]] == ["exact", "exact"]
    code, out, _ = run("store", "verify", "--reencode", "1")
    assert code == 0 and "1 clips encoded again, drawn by --seed " in out and "2 of 2 videos" in out
    for arguments, message in (
        (["--all", "--sample", "1"], "--all, --sample and --video exclude each other"),
        (["--dataset", "data/dataset.json"], "give --reencode N with them"),
        (["--sample", "0"], "from 1 on"),
        (["--seed", "1"], "--seed draws for --sample and --reencode"),
        (["--reencode", "1", "--set", "extract.fit=crop"], "fit: 'stretch' != 'crop'"),
    ):
        code, _, err = run("store", "verify", *arguments)
        assert code == 2 and message in err and len(err.splitlines()) == 1

    (workspace / "data/b.mp4").rename(workspace / "b.mp4")
    code, out, err = run("store", "verify", "--reencode", "9", "--json")
    assert code == 0 and "b.mp4 is gone" in json.loads(out)["left_out"]["b"]
    assert {clip["video_id"] for clip in json.loads(out)["clips"]} == {"a"}
    (workspace / "data/a.mp4").rename(workspace / "a.mp4")
    code, out, err = run("store", "verify", "--reencode", "9")
    assert code == 2 and "no clip can be encoded again: a: its file" in err
    for name in ("a.mp4", "b.mp4"):
        (workspace / name).rename(workspace / "data" / name)

    root = workspace / "features/tokens.zarr/zarr.json"
    root.write_bytes(root.read_bytes()[:-9])
    code, out, err = run("store", "verify", "--reencode", "1")
    assert code == 1 and out.startswith("tokens.zarr/zarr.json: ") and "1 problems" in out
    code, out, _ = run("store", "repair", "--video", "a")
    assert code == 0 and "restored tokens.zarr/zarr.json" in out and run("store", "verify")[0] == 0


def test_a_changed_file_is_refused_or_redone_as_asked(workspace, run):
    assert run("extract")[0] == 0
    write_clip(workspace / "data" / "b.mp4", num_frames=24, options={"crf": "45"})
    code, out, err = run("extract", "--json")
    assert code == 1 and "has changed: " in last_json(out)["failed"]["b"] and last_json(out)["skipped"] == ["a"]
    code, out, _ = run("extract", "--dry-run", "--on-mismatch", "redo", "--json")
    assert code == 0 and last_json(out)["b"]["action"] == "replace"
    code, out, _ = run("extract", "--set", "on_mismatch=refuse", "--on-mismatch", "redo", "--json")
    assert code == 0 and last_json(out)["done"] == ["b"]
    code, _, err = run("extract", "--on-mismatch", "maybe")
    assert code == 2 and "'refuse', 'redo'" in err


def test_extract_ends_with_1_where_a_video_failed_and_names_it(workspace, run):
    (workspace / "data" / "b.mp4").write_bytes(b"")
    code, out, err = run("extract", "--json")
    answer = last_json(out)
    assert code == 1 and answer["done"] == ["a"] and "empty file (0 bytes)" in answer["failed"]["b"]
    assert "failed  b: " in err
    assert run("extract", "--dry-run")[0] == 1


def test_flags_override_the_workspace_file(workspace, run):
    (workspace / "vjepa_loc.toml").write_text("[encoder]\nname = 'vjepa2'\nweights = 'nowhere'\n")
    code, out, err = run("extract", "--encoder", "tiny", "--store", "other", "--dataset", "data/dataset.json", "--set", "threads=1", "--json")
    assert code == 0 and last_json(out)["done"] == ["a", "b"] and (workspace / "other" / "commits").is_dir()
    assert "--encoder tiny: the keys that vjepa_loc.toml gives to 'vjepa2' do not count: weights" in err


def test_a_prediction_file_is_scored_without_model_store_or_video(workspace, run):
    for path in (workspace / "data").glob("*.mp4"):
        path.unlink()
    truth = json.loads((workspace / "data" / "dataset.json").read_text())
    perfect = [event | {"score": 0.9} for event in truth["events"]]
    (workspace / "p.json").write_text(json.dumps({"format": "vjepa_loc", "version": 1, "events": perfect}))
    code, out, _ = run("evaluate", "--predictions", "p.json", "--out", "report", "--json")
    assert code == 0 and json.loads(out)["metrics"]["stal/map@0.50"] == 1.0
    metrics = json.loads((workspace / "report" / "metrics.json").read_text())
    assert metrics["split"] == "val" and metrics["run"] is None and metrics["store_fingerprints"] == []
    assert metrics["predictions_file"].endswith(".json") and metrics["dataset"].endswith("dataset.json")
    assert set(metrics["metrics"]) == {f"{kind}/map@{iou}" for kind in ("tal", "stal") for iou in ("0.25", "0.50", "0.50:0.95")}
    assert (workspace / "report" / "report.html").is_file() and (workspace / "report" / "predictions.json").is_file()
    code, out, _ = run("evaluate", "--predictions", "p.json", "--split", "all", "--metric", "tal", "--iou", "0.5")
    assert code == 0 and "tal/map@0.50" in out and "stal" not in out


def test_predictions_are_compared_with_others_and_drawn_from_the_seed(workspace, run):
    truth = json.loads((workspace / "data" / "dataset.json").read_text())
    for name, moved in {"good.json": 0, "bad.json": 8}.items():
        events = [event | {"start_frame": event["start_frame"] + moved, "end_frame": event["end_frame"] + moved, "score": 0.9} for event in truth["events"]]
        for event in events:
            del event["boxes"]
        (workspace / name).write_text(json.dumps({"format": "vjepa_loc", "version": 1, "events": events}))
    arguments = ["evaluate", "--predictions", "good.json", "--split", "all", "--against", "bad.json", "--metric", "tal", "--bootstrap", "50", "--seed", "7"]
    code, out, _ = run(*arguments, "--json")
    answer = json.loads(out)
    assert code == 0 and answer["bootstrap"] == {"resamples": 50, "seed": 7} and answer["intervals"]["tal/map@0.50"] == [1, 1]
    assert answer["against"]["name"] == "bad.json" and answer["against"]["differences"]["tal/map@0.50"] == {"difference": 1, "low": 1, "high": 1}
    code, out, _ = run(*arguments)
    assert code == 0 and "Difference to bad.json" in out and max(map(len, out.splitlines())) <= 100
    code, out, _ = run("evaluate", "--predictions", "good.json", "--metric", "tal", "--bootstrap", "0", "--json")
    assert code == 0 and json.loads(out)["intervals"] == {}


def test_train_evaluate_and_predict(workspace, run):
    assert run("extract")[0] == 0
    code, out, _ = run("train-head", "--head=mean_box", "--epochs", "1", "--seed", "3", "--set", "window_frames=64", "--json")
    assert code == 0
    run_path = last_json(out)["run"]

    code, out, _ = run("evaluate", "--json")
    answer = last_json(out)
    fingerprint = json.loads(run("store", "info", "--json")[1])["fingerprint"]
    assert code == 0 and answer["run"] == Path(run_path).name and answer["store_fingerprints"] == [fingerprint]
    assert (Path(run_path) / "evaluation-val" / "metrics.json").is_file()

    assert run("predict", "--split", "val", "--out", "stored.json", "--json")[0] == 0
    # The run against its own predictions, and the other way round, which takes the clip seams from the store.
    for arguments in (["--against", "stored.json"], ["--predictions", "stored.json", "--store", "features", "--against", run_path]):
        code, out, _ = run("evaluate", *arguments, "--json")
        assert code == 0 and {found["difference"] for found in last_json(out)["against"]["differences"].values()} == {0}

    code, out, _ = run("predict", "--split", "val", "--out", "stored.json", "--json")
    assert code == 0 and last_json(out)["videos"] == ["b"]
    code, out, err = run("predict", "--video", "data/b.mp4", "absent.mp4", "--out", "new.json", "--json")
    assert code == 1 and last_json(out)["videos"] == ["b"] and "no such video file" in last_json(out)["failed"]["absent"]
    stored, new = (json.loads((workspace / name).read_text()) for name in ("stored.json", "new.json"))
    assert stored["events"] == new["events"] and stored["events"], "tokens made on the fly are those of a store, to the bit"

    (workspace / "features").rename(workspace / "moved")
    code, _, err = run("evaluate")
    assert code == 2 and "cannot be opened" in err and "--store" in err
    assert run("evaluate", "--store", "moved", "--json")[0] == 0
    assert run("evaluate", "--predictions", "stored.json", "--store", "moved", "--against", run_path)[0] == 0
    assert run("extract", "--store", "cropped", "--set", "fit=crop")[0] == 0
    code, _, err = run("evaluate", "--store", "cropped")
    assert code == 2 and "fit: 'stretch' != 'crop'" in err


def test_no_events_to_train_on_is_one_line(workspace, run):
    path = workspace / "data" / "dataset.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"events": content["events"][1:]}))
    assert run("extract")[0] == 0
    code, _, err = run("train-head", "--head=dense")
    assert code == 2 and "no event in the split 'train' (1 videos): there is nothing to learn from" in err


def test_convert_between_formats_and_back(workspace, run):
    code, out, _ = run("convert", "data/dataset.json", "anet.json", "--to", "activitynet", "--json")
    answer = last_json(out)
    assert code == 0 and answer.items() >= {"videos": 2, "events": 2, "boxes": 16, "frames": 16, "out": "anet.json"}.items()
    assert answer["labels"] == [{"label": "take", "events": 2, "videos": 2, "frames": 16, "boxes": 16}]
    assert answer["writing"]["counts"]["boxes_of_events_left_out"] == 2
    code, out, _ = run("convert", "anet.json", "back.json", "--from", "activitynet")
    assert code == 0 and "videos without file" in out and out.endswith("written as native: back.json\n")
    assert [event.label for event in read_dataset(workspace / "back.json").events] == ["take", "take"]


def test_check_videos_says_what_is_in_them_and_ends_with_1_where_one_is_wrong(workspace, run):
    (workspace / "data" / "b.mp4").write_bytes(b"")
    code, out, _ = run("check-videos", "--json")
    good, bad = last_json(out)
    assert code == 1 and (good["id"], good["ok"], good["frames"]) == ("a", True, 24)
    assert bad["id"] == "b" and "empty file (0 bytes)" in bad["wrong"]
    code, out, _ = run("check-videos", "data/a.mp4")
    assert code == 0 and "h264" in out
    code, _, err = run("check-videos", "data", "--replace", "--remux")
    assert code == 2 and err.startswith("error: --replace keeps the original files in a quarantine") and len(err.splitlines()) == 1


def test_synthesize_writes_a_dataset(tmp_path, run):
    code, out, _ = run("synthesize", str(tmp_path / "made"), "--train", "1", "--seed", "1", "--json")
    assert code == 0
    assert list(read_dataset(last_json(out)["dataset"]).splits()) == ["train"]


def test_help_needs_no_heavy_library():
    script = "import sys, cli; cli.main(['--help']); print([m for m in ('torch', 'zarr', 'av', 'lightning', 'transformers', 'scipy') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip().endswith("[]")


def test_a_part_of_the_dataset_is_extracted(workspace, run):
    code, out, _ = run("extract", "--split", "val", "--json")
    assert code == 0 and last_json(out)["done"] == ["b"]
    code, out, _ = run("extract", "--video", "a", "--video", "b", "--json")
    assert code == 0 and (last_json(out)["done"], last_json(out)["skipped"]) == (["a"], ["b"])
    for arguments, message in [
        (["--video", "aa"], "has no such video. Did you mean 'a'?"), (["--split", "vall"], "vall"),
        (["--split", "val", "--video", "a"], "expected videos of the split 'val', got a"),
    ]:
        code, _, err = run("extract", *arguments)
        assert code == 2 and message in err and len(err.splitlines()) == 1


def test_a_run_that_has_no_room_makes_no_store(workspace, run):
    code, _, err = run("extract", "--set", "min_free_gib=1e9")
    assert code == 2 and "not enough space for 2 videos" in err and not (workspace / "features").exists()
