import json

import numpy as np
import pytest

from vjepa_loc.dataset import Dataset, Video, read_predictions
from vjepa_loc.errors import ConfigError, DatasetError, UnknownNameError
from vjepa_loc.evaluation import evaluate, parse_iou
from vjepa_loc.events import Event
from vjepa_loc.plugins import plugin_names

KEYS = [
    f"{metric}/map@{name}" for metric in ("tal", "stal") for name in ("0.25", "0.50", "0.50:0.95")
]


def event(video, start, end, score=None, label="take", boxes=True):
    frames = np.arange(start, end if boxes else start)
    return Event(video, label, start, end, frames, np.tile([1.0, 2.0, 11.0, 12.0], (len(frames), 1)), score=score)


@pytest.fixture
def dataset():
    videos = {
        "t0": Video("t0", num_frames=100, split="train"),
        "v0": Video("v0", num_frames=100, fps=25, split="val"),
        "v1": Video("v1", split="val"),
    }
    truths = [event("t0", 0, 10), event("v0", 0, 10), event("v0", 20, 40, label="return"), event("v1", 5, 25)]
    return Dataset(("take", "return", "rummage"), videos, truths)


@pytest.fixture
def predictions():
    return [event("v0", 0, 10, 0.9), event("v0", 20, 40, 0.8, "return", boxes=False), event("t0", 0, 10, 0.7)]


def test_metrics_json_has_the_agreed_content(dataset, predictions, tmp_path):
    evaluation = evaluate(dataset, "val", predictions, run="runs/r1", fingerprints=["f" * 64], missing_videos=["v1"])
    files = evaluation.write(tmp_path / "made" / "here")
    content = json.loads(files.metrics.read_text())
    assert files.metrics == tmp_path / "made" / "here" / "metrics.json"
    assert content["split"] == "val" and content["run"] == "runs/r1" and content["store_fingerprints"] == ["f" * 64]
    assert content["missing_videos"] == ["v1"] and "baselines" not in content
    assert list(content["metrics"]) == KEYS
    # take: one of two found; return: found in time, but without boxes.
    assert content["metrics"]["tal/map@0.50"] == pytest.approx((0.5 + 1) / 2)
    assert content["metrics"]["stal/map@0.50"] == pytest.approx((0.5 + 0) / 2)
    assert content["per_class"]["return"]["tal/map@0.50"] == 1
    assert {label: list(figures) for label, figures in content["per_class"].items()} == {"take": KEYS, "return": KEYS}
    assert content["notes"] == ["1 predictions in other videos are not counted"]


def test_the_written_predictions_are_those_of_the_split_and_score_the_same(dataset, predictions, tmp_path):
    evaluation = evaluate(dataset, "val", predictions)
    files = evaluation.write(tmp_path)
    again = read_predictions(files.predictions, dataset)
    assert [(found.label, found.score) for found in again] == [("take", 0.9), ("return", 0.8)]
    assert evaluate(dataset, "val", again).metrics == evaluation.metrics
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json", "predictions.json", "report.html"]


def test_nothing_is_left_or_lost_when_writing_fails(dataset, predictions, tmp_path, monkeypatch):
    evaluate(dataset, "val", predictions).write(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        evaluate(dataset, "val", []).write(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_all_is_every_video_and_without_a_run_there_are_no_fingerprints(dataset, predictions):
    evaluation = evaluate(dataset, "all", predictions)
    assert [video.id for video in evaluation.videos] == ["t0", "v0", "v1"] and evaluation.notes == []
    content = evaluation.to_dict()
    assert content["run"] is None and content["store_fingerprints"] == []


def test_metrics_and_thresholds_can_be_chosen(dataset, predictions):
    assert list(evaluate(dataset, "val", predictions, ["tal"], "0.3, 0.5:0.25:1").metrics) == [
        "tal/map@0.30",
        "tal/map@0.50:1.00",
    ]
    assert list(evaluate(dataset, "val", predictions, ["tal", "tal"], [0.5]).metrics) == ["tal/map@0.50"]
    everything = evaluate(dataset, "val", predictions, ["all"])
    assert {key.split("/")[0] for key in everything.metrics} == set(plugin_names("vjepa_loc.metrics"))
    assert list(everything.protocols) == plugin_names("vjepa_loc.metrics")


def test_tables_show_the_run_its_baselines_and_every_class(dataset, predictions):
    floor = evaluate(dataset, "val", [], ["tal"]).metrics
    overall, per_class, counts = evaluate(
        dataset, "val", predictions, run="r1", missing_videos=["v1"], baselines={"mean_box": floor, "r1": floor}
    ).tables()
    assert overall.title == "Split val, 2 videos" and overall.columns == ("", *KEYS)
    assert overall.rows[0] == ("r1", "0.750", "0.750", "0.750", "0.250", "0.250", "0.250")
    assert overall.rows[1] == ("mean_box", "0.000", "0.000", "0.000", "–", "–", "–")
    # A baseline of the run's own name hides nothing.
    assert [row[0] for row in overall.rows] == ["r1", "mean_box", "r1"]
    assert [row[:3] for row in per_class.rows] == [("take", "2", "1"), ("return", "1", "1")]
    assert counts.rows == (
        ("videos", "2"),
        ("videos missing from the store", "1"),
        ("truth events", "3"),
        ("truth events with boxes", "3"),
        ("predictions", "2"),
        ("predictions with boxes", "1"),
    )


def test_a_label_without_truth_is_shown_without_figures(dataset):
    _, per_class, _ = evaluate(dataset, "val", [event("v0", 0, 10, 0.9, "rummage")], ["tal"]).tables()
    assert per_class.rows[-1] == ("rummage", "0", "1", "–", "–", "–")


def test_unknown_names_are_refused_with_what_there_is(dataset):
    with pytest.raises(UnknownNameError, match=r"unknown metric 'tall', expected one of: .*Did you mean 'tal'\?"):
        evaluate(dataset, "val", [], ["tall"])
    with pytest.raises(UnknownNameError, match="'vall'.*train, val, all"):
        evaluate(dataset, "vall", [])
    with pytest.raises(UnknownNameError, match=r"video 'v2' is not in the dataset. Did you mean"):
        evaluate(dataset, "val", [], missing_videos=["v2"])
    with pytest.raises(ConfigError, match="expected at least one of: .*all; got none"):
        evaluate(dataset, "val", [], [])
    with pytest.raises(DatasetError, match="expected a score, got none"):
        evaluate(dataset, "val", [event("v0", 0, 10)])


def test_iou_from_text():
    assert parse_iou("0.25, 0.5,0.5:0.05:0.95") == [
        0.25,
        0.5,
        (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
    ]


@pytest.mark.parametrize(
    "text", ["", "half", "0", "1.5", "50", "nan", "0.5:0.95", "0.5:0.1:0.95", "0.9:0.1:0.5", "0.5,"]
)
def test_wrong_iou_text_is_refused(text):
    with pytest.raises(ConfigError, match="--iou: expected a number"):
        parse_iou(text)
