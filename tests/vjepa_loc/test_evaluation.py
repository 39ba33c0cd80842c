import csv
import json

import numpy as np
import pytest

from vjepa_loc.bootstrap import Bootstrap
from vjepa_loc.dataset import Dataset, Video, read_predictions
from vjepa_loc.errors import ConfigError, DatasetError, UnknownNameError
from vjepa_loc.evaluation import OtherPredictions, evaluate
from vjepa_loc.events import Event
from vjepa_loc.metric_names import check_metrics, metric_conventions, parse_iou
from vjepa_loc.metrics._result import metric_key

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
    assert set(content["intervals"]) == set(KEYS)
    assert content["bootstrap"] == {"resamples": 1000, "seed": 0} and content["not_applicable"] == {} and content["diagnosis"]


def test_the_written_predictions_are_those_of_the_split_and_score_the_same(dataset, predictions, tmp_path):
    evaluation = evaluate(dataset, "val", predictions)
    files = evaluation.write(tmp_path)
    again = read_predictions(files.predictions, dataset)
    assert [(found.label, found.score) for found in again] == [("take", 0.9), ("return", 0.8)]
    assert evaluate(dataset, "val", again).metrics == evaluation.metrics
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json", "predictions.json", "report.html", "tables"]


def test_every_table_is_a_csv_file_and_none_stays_of_an_earlier_evaluation(dataset, predictions, tmp_path):
    evaluate(dataset, "val", predictions, against=OtherPredictions("o", [])).write(tmp_path)
    assert (tmp_path / "tables" / "differences.csv").is_file()
    evaluation = evaluate(dataset, "val", predictions, iou=[1 / 3])
    files = evaluation.write(tmp_path)
    assert not (files.tables / "differences.csv").exists()
    names = {path.stem for path in files.tables.iterdir()}
    assert {"headline", "per-class", "counts", "figures", "figures-per-class"} <= names
    rows = list(csv.reader((files.tables / "headline.csv").open()))
    assert rows[0] == ["figure", "value", "95% low", "95% high"]
    key = f"tal/map@{1 / 3!r}"
    low, high = evaluation.intervals[key]
    assert rows[1] == [key, repr(evaluation.metrics[key]), repr(low), repr(high)]
    assert next(csv.reader((files.tables / "per-class.csv").open()))[3] == key


def test_nothing_is_left_or_lost_when_writing_fails(dataset, predictions, tmp_path, monkeypatch):
    evaluate(dataset, "val", predictions).write(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        evaluate(dataset, "val", []).write(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


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
    everything = evaluate(dataset, "val", predictions, ["all"], bootstrap=Bootstrap(0))
    known = [metric_key(*one) for one in metric_conventions(["all"])]
    assert set(everything.protocols) | set(everything.not_applicable) == set(known)
    assert {key.split("/")[0] for key in everything.metrics} == set(everything.protocols)
    assert set(everything.not_applicable) >= {"classification"}


def test_a_metric_that_does_not_apply_says_why(dataset):
    bare = Dataset(dataset.labels, dataset.videos, [event("v0", 0, 10, boxes=False)])
    evaluation = evaluate(bare, "val", [event("v0", 0, 10, 0.5)])
    assert evaluation.not_applicable == {"stal": "none of the 1 truth events has a box"}
    assert evaluation.tables()[-1].rows == (("stal", "none of the 1 truth events has a box"),)
    assert all(key.startswith("tal/") for key in evaluation.metrics)


def test_tables_show_the_run_its_baselines_and_every_class(dataset, predictions):
    floor = evaluate(dataset, "val", [], ["tal"]).metrics
    overall, per_class, counts = evaluate(
        dataset, "val", predictions, run="r1", missing_videos=["v1"], baselines={"mean box": floor}, bootstrap=Bootstrap(0)
    ).tables()
    assert overall.title == "Split val, 2 videos: r1" and overall.columns == ("figure", "value", "mean box")
    assert overall.rows[:2] == (("tal/map@0.25", 0.75, 0.0), ("tal/map@0.50", 0.75, 0.0))
    assert overall.texts()[-1] == ("stal/map@0.50:0.95", "0.250", "–")
    assert [row[:3] for row in per_class.rows] == [("take", 2, 1), ("return", 1, 1)]
    assert [column.replace("\n", "") for column in per_class.columns[3:]] == KEYS
    assert counts.rows == (
        ("videos", 2),
        ("videos missing from the store", 1),
        ("truth events", 3),
        ("truth events with boxes", 3),
        ("predictions", 2),
        ("predictions with boxes", 1),
    )


def test_many_figures_stand_in_a_matrix_and_the_main_ones_in_front(dataset, predictions):
    evaluation = evaluate(dataset, "val", predictions, ["tal", "stal", "spotting", "frame_map[coco]"], "0.3,0.5,0.7,0.9,0.5:0.05:0.95,0.3:0.2:0.7")
    headline, matrix, others, per_class, *_ = evaluation.tables()
    assert [row[0] for row in headline.rows] == [key for key in evaluation.metrics if key in evaluation.intervals]
    assert [column.replace("\n", "") for column in matrix.columns[1:]] == [
        "@0.30", "@0.50", "@0.70", "@0.90", "@0.30:0.70", "@0.50:0.95"
    ]
    assert dict(zip(matrix.columns, matrix.rows[0]))["@0.90"] == evaluation.metrics["tal/map@0.90"]
    assert [row[0] for row in matrix.rows] == ["tal/map", "stal/map", "frame_map[coco]/map"]
    main, listed = {row[0] for row in headline.rows}, {row[0] for row in others.rows}
    in_matrix = {key for key in evaluation.metrics if "map@0." in key}
    assert main & listed == set() and main | listed | in_matrix == set(evaluation.metrics)
    assert "frame_map[coco]/recall@0.50:0.95@1" in listed and "spotting/start_map@4" in listed
    assert [column.replace("\n", "") for column in per_class.columns[3:5]] == ["tal/map@0.50", "stal/map@0.50"]
    for table in evaluation.tables():
        for part in table.fitted(100):
            cells = zip(part.columns, *part.texts(), strict=True)
            assert sum(max(len(line) for text in column for line in text.split("\n")) + 3 for column in cells) < 100


def test_intervals_are_those_of_the_resampled_videos(dataset, predictions):
    first = evaluate(dataset, "val", predictions, ["tal"], "0.5", bootstrap=Bootstrap(200, 1))
    # v0 twice gives 1; v0 and v1 (1/2 + 1) / 2; v1 twice 0 over the label `take` alone.
    assert first.intervals == {"tal/map@0.50": (0.0, 1.0)} and first.bootstrap.resamples == 200
    assert evaluate(dataset, "val", predictions, ["tal"], "0.5", bootstrap=Bootstrap(0)).intervals == {}
    alone = evaluate(dataset, "train", predictions, ["tal"], "0.5")
    assert alone.intervals == {} and alone.to_dict()["bootstrap"]["resamples"] == 0
    assert any("there is one video" in note for note in alone.notes)


def test_a_comparison_is_paired(dataset, predictions):
    against = OtherPredictions("other.json", predictions, ("v1",))
    same = evaluate(dataset, "val", predictions, ["tal"], "0.5", against=against)
    found = same.against.differences["tal/map@0.50"]
    # Both sides see the same videos, so that nothing is left of the spread of either.
    assert found.difference == 0 and found.interval == (0, 0)
    assert same.tables()[1].rows[0][-1] == "", "no star"
    assert same.notes == [
        "1 predictions in other videos are not counted",
        "other.json: not in its store, their events count as missed: v1",
        "other.json: 1 predictions in other videos are not counted",
    ]
    better = evaluate(dataset, "val", [event("v0", 0, 10, 0.9), event("v1", 5, 25, 0.8)], ["tal"], "0.5", against=OtherPredictions("o", []))
    content = better.to_dict()["against"]
    assert content["name"] == "o" and content["metrics"] == {"tal/map@0.50": 0}
    assert content["differences"]["tal/map@0.50"] == {"difference": 0.5, "low": 0.5, "high": 1.0}
    table = better.tables()[1]
    assert table.title == "Difference to o" and table.rows == (("tal/map@0.50", 0.5, 0.0, 0.5, 0.5, 1.0, "*"),)
    without = evaluate(dataset, "val", predictions, ["tal"], "0.5", against=against, bootstrap=Bootstrap(0))
    assert without.to_dict()["against"]["differences"]["tal/map@0.50"] == {"difference": 0, "low": None, "high": None}
    assert without.tables()[1].columns == ("figure", "here", "there", "difference")


def test_differences_stand_in_the_order_of_the_figures_and_undefined_ones_are_named(dataset, predictions):
    evaluation = evaluate(dataset, "val", predictions, ["tal", "spotting"], "0.25,0.5,0.75", against=OtherPredictions("o", []))
    first, differences = evaluation.tables()[:2]
    compared = [row[0] for row in differences.rows]
    assert compared == [row[0] for row in first.rows if row[0] in compared] and "tal/map@0.25" in compared
    assert "o: no difference for figures that are undefined there: spotting/start_error_frames, spotting/end_error_frames" in evaluation.notes


def test_what_metrics_say_of_the_other_predictions_is_noted_once(dataset, predictions):
    odd = [*predictions, event("v0", 0, 10, 0.9, "rummage")]

    def said(own):
        notes = evaluate(dataset, "val", own, ["tal"], against=OtherPredictions("o", odd)).notes
        return [note.partition(" has")[0] for note in notes if "rummage" in note]

    assert said(predictions) == ["o: tal: label 'rummage'"] and said(odd) == ["tal: label 'rummage'"]


def test_all_metrics_are_asked_for_the_thresholds_that_papers_give(dataset, predictions):
    singles = ("0.20", "0.25", "0.30", "0.40", "0.50", "0.60", "0.70", "0.75", "0.90")
    means = ("0.30:0.70", "0.50:0.95", "0.05:0.45", "0.10:0.90")
    figures = evaluate(dataset, "val", predictions, ["all"], bootstrap=Bootstrap(0)).metrics
    for metric in ("tal", "stal", "tube_map[multisports]", "frame_map[coco]"):
        assert [key for key in figures if key.startswith(f"{metric}/map@")] == [f"{metric}/map@{name}" for name in (*singles, *means)]
    # What is asked for stands above it.
    asked = evaluate(dataset, "val", predictions, ["all"], "0.35", bootstrap=Bootstrap(0)).metrics
    assert [key for key in asked if key.startswith("tal/")] == ["tal/map@0.35"]


@pytest.mark.parametrize("with_truth", [True, False])
@pytest.mark.parametrize("with_predictions", [True, False])
def test_all_metrics_give_files_also_where_there_is_nothing(dataset, predictions, tmp_path, with_truth, with_predictions):
    truth = dataset if with_truth else Dataset(dataset.labels, dataset.videos)
    found = predictions if with_predictions else []
    evaluation = evaluate(truth, "val", found, ["all"], bootstrap=Bootstrap(20), against=OtherPredictions("o", predictions))
    content = json.loads(evaluation.write(tmp_path).metrics.read_text())
    assert set(content["intervals"]) <= set(content["metrics"]) and "NaN" not in (tmp_path / "metrics.json").read_text()


@pytest.mark.parametrize("nothing", [Dataset(("take",), {}), Dataset((), {"v0": Video("v0")})], ids=["no videos", "no labels"])
def test_all_metrics_give_files_also_without_videos_and_without_labels(nothing, tmp_path):
    content = json.loads(evaluate(nothing, "all", [], ["all"]).write(tmp_path).metrics.read_text())
    assert content["metrics"]["tal/map@0.50"] == 0 and content["intervals"] == {}


def test_what_metrics_say_in_the_same_words_stands_once(dataset):
    evaluation = evaluate(dataset, "val", [event("v0", 0, 10, 0.9, "rummage")], ["tal", "stal"])
    said = "label 'rummage' has no truth here and is not scored; 1 predictions are not counted"
    assert evaluation.notes[0] == f"tal, stal: {said}"


def test_a_label_without_truth_is_shown_without_figures(dataset):
    _, per_class, _ = evaluate(dataset, "val", [event("v0", 0, 10, 0.9, "rummage")], ["tal"]).tables()
    assert per_class.rows[-1] == ("rummage", 0, 1, None, None, None)


def test_unknown_names_are_refused_with_what_there_is(dataset):
    with pytest.raises(UnknownNameError, match=r"unknown metric 'tall', expected one of: .*Did you mean 'tal'\?"):
        evaluate(dataset, "val", [], ["tall"])
    with pytest.raises(UnknownNameError, match=r"unknown metric 'frame_map\[coc\]'.*Did you mean 'frame_map\[coco\]'"):
        check_metrics(["frame_map[coc]"])
    with pytest.raises(UnknownNameError, match="unknown metric 'tall'"):
        check_metrics(["all", "tall"])
    with pytest.raises(ConfigError, match="two entries would both be named '0.50'"):
        check_metrics(["all"], "0.5,0.5")
    with pytest.raises(UnknownNameError, match="'vall'.*train, val, all"):
        evaluate(dataset, "vall", [])
    with pytest.raises(UnknownNameError, match=r"video 'v2' is not in the dataset. Did you mean"):
        evaluate(dataset, "val", [], missing_videos=["v2"])
    with pytest.raises(ConfigError, match="expected at least one of: .*all; got none"):
        evaluate(dataset, "val", [], [])
    with pytest.raises(DatasetError, match=r"in video 'v1' .*: expected an end before frame 1099511627776, got 1.7e\+18; are these nanoseconds"):
        evaluate(dataset, "val", [event("v0", 0, 10, 0.9), Event("v1", "take", 0, 1.7e18, score=0.9)])
    with pytest.raises(DatasetError, match="expected an end before frame 1099511627776"):
        evaluate(dataset, "val", [Event("v1", "take", 0, 2**40, score=0.9)])
    assert evaluate(dataset, "val", [Event("v1", "take", 0, 2**40 - 1, score=0.9)], bootstrap=Bootstrap(0)).metrics
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
