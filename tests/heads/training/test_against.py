"""What `--against` may name, and which stores a run among it reads."""

import json

import pytest

import heads
from heads.training import scoring
from heads.training.against import other_predictions
from heads.training.run_folder import INFO
from tests.heads.training.test_scoring import FakeRun, FakeStore
from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.errors import MissingFileError, RunError, StoreMismatchError
from vjepa_loc.events import Event

TRUTH = Event("a", "take", 0, 10)
DATASET = Dataset(("take",), {"a": Video("a", num_frames=100, split="val"), "b": Video("b", split="val")}, [TRUTH])


class RunOfOneStore(FakeRun):
    """Was trained on a store that holds one video, and refuses any other."""

    own = FakeStore(a=None)

    def open_stores(self):
        return [self.own]

    def check_stores(self, stores):
        if stores[0] is not self.own:
            raise StoreMismatchError("another encoding")


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    folder = tmp_path / "r0"
    folder.mkdir()
    (folder / INFO).write_text("{}")
    monkeypatch.setattr(heads, "load_run", lambda path: RunOfOneStore(path, "detr", [TRUTH]))
    return folder


def test_a_run_predicts_from_its_own_stores_where_those_given_are_of_another_encoding(run_folder, monkeypatch):
    monkeypatch.setattr(scoring, "open_store", lambda path: FakeStore(a=None, b=None))
    for stores in ((), ("another",)):
        other = other_predictions(run_folder, DATASET, "val", stores)
        assert (other.name, other.missing_videos) == ("r0", ("b",)) and [event.video_id for event in other.events] == ["a"]


def test_a_run_predicts_from_the_stores_given_where_they_fit(run_folder, monkeypatch):
    monkeypatch.setattr(RunOfOneStore, "check_stores", lambda self, stores: None)
    monkeypatch.setattr(scoring, "open_store", lambda path: FakeStore(a=None, b=None))
    assert other_predictions(run_folder, DATASET, "val", ("one like it",)).missing_videos == ()


def test_a_file_is_read_and_what_is_neither_is_refused(tmp_path):
    file = tmp_path / "p.json"
    event = {"video_id": "a", "label": "take", "start_frame": 1, "end_frame": 5, "score": 0.5}
    file.write_text(json.dumps({"format": "vjepa_loc", "version": 1, "labels": ["take"], "events": [event]}))
    other = other_predictions(file, DATASET, "val")
    assert other.name == str(file) and [one.start_frame for one in other.events] == [1]
    with pytest.raises(MissingFileError, match="absent: expected a run folder or a prediction file, there is nothing"):
        other_predictions(tmp_path / "absent", DATASET, "val")
    with pytest.raises(RunError, match=f"expected a run folder or a prediction file, got a folder without {INFO}"):
        other_predictions(tmp_path, DATASET, "val")
