"""Conversions between formats by their names, and what formats that cannot are answered with."""

import json

import pytest

from vjepa_loc.convert import check_prediction_format, convert_dataset, convert_predictions, write_predictions_as
from vjepa_loc.dataset import Dataset, Video, read_dataset, read_predictions, write_dataset
from vjepa_loc.errors import ConfigError, UnknownNameError
from vjepa_loc.events import Event


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    videos = {name: Video(name, tmp_path / f"{name}.mp4", 25.0, 100, 320, 180, "test") for name in "ab"}
    return Dataset(("take", "return", "rummage"), videos, [Event("a", "take", 10, 20), Event("b", "return", 5, 9)])


def test_a_dataset_goes_to_another_format_and_back(dataset, tmp_path):
    write_dataset(dataset, tmp_path / "native.json")
    convert_dataset(tmp_path / "native.json", tmp_path / "anet.json", "native", "activitynet")
    convert_dataset(tmp_path / "anet.json", tmp_path / "back.json", "activitynet", "native")
    back = read_dataset(tmp_path / "back.json")
    assert [(event.video_id, event.label, event.start_frame, event.end_frame) for event in back.events] == [
        ("a", "take", 10, 20), ("b", "return", 5, 9)
    ]


def test_predictions_go_to_the_files_of_a_challenge(dataset, tmp_path):
    scored = [event.replace(score=0.5) for event in dataset.events]
    write_predictions_as("native", scored, dataset, tmp_path / "p.json")
    assert len(convert_predictions(tmp_path / "p.json", dataset, tmp_path / "out", "native", "grocery").events) == 2
    assert sorted(path.name for path in (tmp_path / "out" / "tal").iterdir()) == ["a.txt", "b.txt"]
    assert len(read_predictions(tmp_path / "p.json", dataset)) == 2


def test_a_conversion_says_what_was_read_and_what_was_lost(dataset, tmp_path):
    boxed = dataset.events[0].replace(box_frames_K=[10, 11], boxes_K4=[[0, 0, 5, 5]] * 2, id="e1")
    write_dataset(Dataset(dataset.labels, dataset.videos, [boxed, dataset.events[1]]), tmp_path / "native.json")
    done = convert_dataset(tmp_path / "native.json", tmp_path / "anet.json", "native", "activitynet")
    assert done.counts() == {"videos": 2, "events": 2, "boxes": 2, "frames": 14}
    assert done.label_table().rows == (("take", 1, 1, 10, 2), ("return", 1, 1, 4, 0), ("rummage", 0, 0, 0, 0), ("all", 2, 2, 14, 2))
    assert done.label_table(most=1).rows == (("take", 1, 1, 10, 2), ("all, also 2 more labels", 2, 2, 14, 2))
    assert ("boxes of events left out", "writing activitynet", 1) in done.account_table().rows
    notes = "\n".join(done.notes())
    assert "writing activitynet: 1 boxes of events left out: ActivityNet has no place for boxes" in notes
    assert "1 labels left out: 'rummage' has no events" in notes and "2 widths of videos left out" in notes
    assert json.loads(json.dumps(done.to_dict()))["writing"]["counts"]["ids_of_events_left_out"] == 1


def test_warnings_of_a_reader_are_notes(dataset, tmp_path):
    beyond = {"results": {"a": [{"label": "take", "score": 0.5, "segment": [3, 5]}], "b": []}}
    (tmp_path / "r.json").write_text(json.dumps(beyond))
    done = convert_predictions(tmp_path / "r.json", dataset, tmp_path / "p.json", "activitynet", "native")
    assert done.counts()["events"] == 1 and "reaches beyond the video" in done.notes()[0]


def test_a_format_that_cannot_is_told_with_those_that_can(dataset, tmp_path):
    write_dataset(dataset, tmp_path / "native.json")
    with pytest.raises(ConfigError, match="format 'grocery' cannot write datasets; those that can: activitynet, boris, cvat, label_studio, native"):
        convert_dataset(tmp_path / "native.json", tmp_path / "out", "native", "grocery")
    with pytest.raises(ConfigError, match="format 'grocery' cannot read predictions; those that can: activitynet, cvat.*native"):
        convert_predictions(tmp_path / "p", dataset, tmp_path / "out", "grocery", "native")
    with pytest.raises(UnknownNameError, match=r"unknown format 'nativ', expected one of: .*Did you mean 'native'\?"):
        check_prediction_format("nativ")


def test_the_target_format_is_asked_before_the_source_is_read(tmp_path):
    (tmp_path / "broken.json").write_text(json.dumps([]))
    with pytest.raises(ConfigError, match="cannot write datasets"):
        convert_dataset(tmp_path / "broken.json", tmp_path / "out", "native", "grocery")
