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
