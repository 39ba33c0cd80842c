"""Scoring a run on a split: videos that are missing, and the floor below it."""

from types import SimpleNamespace

import numpy as np
import pytest

from features.encoders.tiny import Config, Encoder
from features.recipe import ExtractConfig
from heads.training import scoring
from heads.training.on_the_fly import predict_files
from vjepa_loc.bootstrap import Bootstrap
from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.errors import StoreMismatchError
from vjepa_loc.evaluation import OtherPredictions
from vjepa_loc.events import Event
from vjepa_loc.workspace import read_workspace


class FakeRun:
    """Answers with the truth, moved by `shift` frames."""

    def __init__(self, path, head, truth, shift=0.0, encodings=("e",)):
        self.path, self.encodings, self.labels, self.device = path, encodings, ("take",), "cpu"
        self.info = SimpleNamespace(head=head, labels=self.labels, encodings=encodings)
        self.fingerprints = tuple(f"fingerprint of {encoding}" for encoding in encodings)
        self._events = [
            event.replace(score=0.9, start_frame=event.start_frame + shift, end_frame=event.end_frame + shift) for event in truth
        ]

    def check_stores(self, stores):
        pass

    def predict(self, dataset, stores, video_ids):
        return [event for event in self._events if event.video_id in video_ids]


class FakeStore(dict):
    """Videos of 200x100 pixels and 100 frames, from clips of 40 frames with one step per 10."""

    def video(self, video_id):
        first_T = np.repeat([0, 40, 60], [4, 3, 3])
        grid = SimpleNamespace(start_T=np.arange(0.0, 100.0, 10.0))
        return SimpleNamespace(width=200, height=100, num_frames=100, first_frame_seen=first_T, time_grid=grid)


@pytest.fixture
def dataset() -> Dataset:
    videos = {name: Video(name, split="val", num_frames=100) for name in "ab"}
    return Dataset(("take",), videos, [Event("a", "take", 10, 20), Event("b", "take", 10, 20)])


def test_a_video_that_is_not_in_the_store_counts_as_missed_and_is_listed(dataset, tmp_path):
    run = FakeRun(tmp_path / "r", "detr", dataset.events)
    answer = scoring.predict_split(run, dataset, [FakeStore(a=None)], "val")
    assert list(answer.dataset.videos) == ["a"] and answer.missing == ["b"] and [event.video_id for event in answer.events] == ["a"]
    evaluation = scoring.evaluate_run(run, dataset, [FakeStore(a=None)], "val", ["tal"], "0.5")
    assert evaluation.missing_videos == ("b",) and evaluation.metrics == {"tal/map@0.50": pytest.approx(0.5, abs=0.01)}
    assert evaluation.run == "r" and evaluation.store_fingerprints == ("fingerprint of e",) and evaluation.baselines == {}


def test_the_floor_has_the_mean_training_box_at_the_times_of_the_run(tmp_path):
    def boxed(video_id, *boxes):
        return Event(video_id, "take", 10, 10 + len(boxes), box_frames_K=range(10, 10 + len(boxes)), boxes_K4=boxes)

    videos = {"t": Video("t", split="train", num_frames=100), "a": Video("a", split="val", num_frames=100)}
    left, right, middle = (0, 0, 20, 20), (20, 20, 40, 40), (10, 10, 30, 30)
    dataset = Dataset(("take",), videos, [boxed("t", left, right), boxed("a", middle, middle)])
    truth_elsewhere = [boxed("a", left, left)]
    store = FakeStore.fromkeys(videos)
    evaluation = scoring.evaluate_run(FakeRun(tmp_path / "r", "dense", truth_elsewhere), dataset, [store], "val", ["stal"], "0.9")
    assert evaluation.metrics == {"stal/map@0.90": 0.0}
    assert evaluation.baselines == {scoring.FLOOR: {"stal/map@0.90": 1.0}}
    assert scoring.with_mean_boxes(truth_elsewhere, dataset, FakeStore(a=None)) is None, "no training video is stored"


def test_seams_come_from_the_stores_and_a_comparison_from_another_run(dataset, tmp_path):
    run, stores = FakeRun(tmp_path / "r", "detr", dataset.events, shift=5.0), [FakeStore(a=None)]
    other = OtherPredictions("r0", FakeRun(tmp_path / "r0", "detr", dataset.events).predict(dataset, stores, ["a", "b"]))
    evaluation = scoring.evaluate_run(run, dataset, stores, "val", ["tal"], "0.5", Bootstrap(100, 1), other)
    assert {video: frames.tolist() for video, frames in evaluation.inputs.seams.items()} == {"a": [40, 70]}
    assert evaluation.metrics["tal/map@0.50"] == 0 and evaluation.against.differences["tal/map@0.50"].interval == (-1, -1)
    assert evaluation.bootstrap == Bootstrap(100, 1)


def test_a_file_is_not_predicted_with_another_encoder_than_the_runs(tmp_path):
    encoding = ExtractConfig().encoding(Encoder(Config()).spec)
    run = FakeRun(tmp_path / "r", "detr", [], encodings=(encoding.model_copy(update={"digest": "of other weights"}),))
    with pytest.raises(StoreMismatchError, match="run r was trained on another encoding .*digest: 'of other weights' != "):
        predict_files(run, [tmp_path / "a.mp4"], read_workspace(tmp_path))
