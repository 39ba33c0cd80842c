import json

import scoring

from vjepa_loc.dataset import read_dataset, read_predictions


def small(monkeypatch):
    for name, number in {"NUM_VIDEOS": 12, "NUM_LABELS": 3, "NUM_TRUTHS": 20, "NUM_PREDICTIONS": 30}.items():
        monkeypatch.setattr(scoring, name, number)


def test_the_files_are_of_the_asked_size_and_the_same_each_time(monkeypatch, tmp_path):
    small(monkeypatch)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        scoring.make(tmp_path / name, times=2)
    truth = read_dataset(tmp_path / "one" / "truth.json")
    predictions = read_predictions(tmp_path / "one" / "predictions.json", truth)
    assert (len(truth.videos), len(truth.events), len(predictions)) == (12, 20, 60)
    assert all(event.num_boxes == event.end_frame - event.start_frame for event in [*truth.events, *predictions])
    for file in ("truth.json", "predictions.json"):
        one, two = (json.loads((tmp_path / name / file).read_text()) for name in ("one", "two"))
        assert one["events"] == two["events"]


def test_growth_gives_a_row_per_metric(monkeypatch, tmp_path):
    small(monkeypatch)
    (row,) = scoring.growth(tmp_path, ["tal"], [1, 2])
    assert row["metric"] == "tal" and row["2x, s"] > 0 and row["growth / n log n"] > 0
