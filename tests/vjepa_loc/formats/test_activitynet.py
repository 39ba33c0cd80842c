"""ActivityNet: seconds to frames and back, subsets, probes, and what is cut or left out."""

import json
from pathlib import Path

import pytest

from vjepa_loc.dataset import Dataset, Video, index_videos
from vjepa_loc.errors import DatasetError, MissingFileError, VideoError
from vjepa_loc.events import Event
from vjepa_loc.formats import activitynet, native

REAL_FOLDER = Path(__file__).parents[4] / "shared" / "data" / "annotations" / "activitynet13"


def write_json(path: Path, document) -> Path:
    path.write_text(json.dumps(document))
    return path


def truth(tmp_path, **entries) -> Path:
    return write_json(tmp_path / "truth.json", {"version": "VERSION 1.3", "taxonomy": [], "database": entries})


def entry(*segments, label="Ballet", **fields) -> dict:
    annotations = [{"label": label, "segment": list(segment)} for segment in segments]
    return {"subset": "training", "duration": 10.0, "fps": 20.0, "annotations": annotations} | fields


def spans(events) -> list[tuple]:
    return [(event.video_id, event.label, event.start_frame, event.end_frame) for event in events]


def counts(dataset: Dataset) -> dict:
    return dataset.extra["reading"]["counts"]


def test_segments_become_frames_and_subsets_splits(tmp_path):
    dataset = activitynet.read(
        truth(
            tmp_path,
            a=entry([0.5, 2.25], url="https://example.org/a"),
            b=entry([1, 2], label="Archery", subset="validation", fps=30),
            c={"subset": "testing", "duration": 3.0},
            d=entry(subset="holdout"),
        )
    )
    assert dataset.labels == ("Archery", "Ballet")
    assert spans(dataset.events) == [("a", "Ballet", 10.0, 45.0), ("b", "Archery", 30.0, 60.0)]
    assert [video.split for video in dataset.videos.values()] == ["train", "val", "test", "holdout"]
    video = dataset.videos["a"]
    assert (video.fps, video.num_frames, video.file, video.fps_nominal) == (20.0, None, None, False)
    assert video.extra == {"duration": 10.0, "url": "https://example.org/a"}
    assert dataset.videos["c"].fps == 25.0 and dataset.videos["c"].fps_nominal
    assert counts(dataset) == {"videos_without_file": 4, "videos_with_nominal_fps": 1, "videos": 4, "events": 2}


@pytest.mark.parametrize("name", ["a.mp4", "v_a.mkv", "videos/v_a.webm"])
def test_a_file_beside_is_found_and_its_probe_decides(tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.touch()
    path = truth(tmp_path, a=entry([1, 2], [9, 10]))
    dataset = activitynet.read(path, lambda asked: {"width": 4, "height": 3, "fps": 10, "num_frames": 95})
    video = dataset.videos["a"]
    assert (video.file, video.width, video.height, video.fps, video.num_frames) == (file, 4, 3, 10.0, 95)
    assert spans(dataset.events) == [("a", "Ballet", 10, 20), ("a", "Ballet", 90, 95)]
    assert counts(dataset)["segments_cut"] == 1


def test_a_file_that_the_probe_refuses_keeps_its_entry(tmp_path):
    (tmp_path / "a.mp4").touch()

    def probe(file):
        raise VideoError(f"{file}: empty file")

    dataset = activitynet.read(truth(tmp_path, a=entry([1, 2])), probe)
    assert dataset.videos["a"].file == tmp_path / "a.mp4" and dataset.videos["a"].fps == 20.0
    assert counts(dataset)["videos_unreadable"] == 1 and "empty file" in dataset.extra["reading"]["notes"][0]


@pytest.mark.parametrize(
    ("segment", "kept", "counted"),
    [
        ([9, 10.5], [(180, 200)], "segments_cut"),
        ([-1, 1], [(0, 20)], "segments_cut"),
        ([9, 10.00000001], [(180, 200)], None),
        ([10, 11], [], "segments_left_out"),
        ([3, 3], [], "segments_left_out"),
        ([4, 3], [], "segments_left_out"),
        ([4], [], "segments_left_out"),
        ([4, float("nan")], [], "segments_left_out"),
        (["4", 5], [], "segments_left_out"),
    ],
)
def test_segments_are_cut_at_the_end_or_left_out_and_counted(tmp_path, segment, kept, counted):
    dataset = activitynet.read(truth(tmp_path, a=entry(segment, [1, 2])))
    assert [(event.start_frame, event.end_frame) for event in dataset.events] == [*kept, (20, 40)]
    found = {key for key in counts(dataset) if key.startswith("segments")}
    assert found == ({counted} if counted else set())
    assert all("a[0]: " in note for note in dataset.extra["reading"]["notes"])


@pytest.mark.parametrize(
    ("database", "message"),
    [
        ({"a": []}, "database 'a', expected an object, got a list"),
        ({"a": {"annotations": {}, "x": 1, "fps": 1}}, None),
        ({"a": {"annotations": {"label": "x"}}}, "database 'a', annotations: expected a list, got an object"),
        ({"a": {"fps": 0}}, "database 'a', fps: expected more than 0"),
        ({"a": {"subset": 3}}, "database 'a', split: expected a non-empty string, got 3"),
        ({"a": {"duration": "long", "annotations": []}}, "database 'a', duration: expected a number, got 'long'"),
    ],
)
def test_a_broken_database_is_named(tmp_path, database, message):
    path = write_json(tmp_path / "truth.json", {"database": database})
    if message is None:
        assert len(activitynet.read(path).videos) == 1
        return
    with pytest.raises(DatasetError, match=message) as caught:
        activitynet.read(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_other_files_are_refused(tmp_path):
    path = write_json(tmp_path / "results.json", {"version": "1", "results": {}})
    with pytest.raises(DatasetError, match="expected ActivityNet annotations under the key 'database'.*: 'version', "):
        activitynet.read(path)
    with pytest.raises(MissingFileError, match="ActivityNet annotations file .*none.json does not exist"):
        activitynet.read(tmp_path / "none.json")


def test_ground_truth_goes_there_and_back(tmp_path):
    videos = [
        Video("a", fps=25.0, num_frames=250, split="train"),
        Video("b", fps=25.0, split="val", extra={"duration": 9.5, "fps_nominal": True}),
        Video("c", fps=30000 / 1001),
    ]
    events = [Event("a", "x", 1, 250), Event("b", "y", 0.5, 3.75, extra={"note": "n"}), Event("a", "y", 3, 4, id="e")]
    activitynet.write(Dataset(("x", "y"), index_videos(videos), events), tmp_path / "truth.json")
    database = json.loads((tmp_path / "truth.json").read_text())["database"]
    assert database["a"] == {
        "subset": "training",
        "duration": 10.0,
        "fps": 25.0,
        "annotations": [{"label": "x", "segment": [0.04, 10.0]}, {"label": "y", "segment": [0.12, 0.16]}],
    }
    again = activitynet.read(tmp_path / "truth.json")
    assert again.videos["b"] == videos[1] and again.videos["c"].fps == 30000 / 1001
    assert [video.split for video in again.videos.values()] == ["train", "val", None]
    assert spans(again.events) == [("a", "x", 1, 250), ("a", "y", 3, 4), ("b", "y", 0.5, 3.75)]
    assert again.events[2].extra == {"note": "n"}


def test_a_video_without_fps_cannot_be_written(tmp_path):
    dataset = Dataset(("x",), {"a": Video("a")}, [Event("a", "x", 0, 1, score=1)])
    with pytest.raises(DatasetError, match="video 'a', fps: needed to turn frames into seconds"):
        activitynet.write(dataset, tmp_path / "truth.json")
    with pytest.raises(DatasetError, match="video 'a', fps: needed"):
        activitynet.write_predictions(dataset.events, dataset, tmp_path / "results.json")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def dataset() -> Dataset:
    return Dataset(("x", "y"), index_videos([Video("a", fps=25.0, num_frames=250), Video("b", fps=10.0)]))


def test_results_go_there_and_back(tmp_path, dataset):
    events = [Event("a", "x", 1, 250, score=0.5), Event("a", "y", 0.5, 3, score=0.25)]
    activitynet.write_predictions(events, dataset, tmp_path / "results.json")
    written = json.loads((tmp_path / "results.json").read_text())
    assert written == {
        "version": "VERSION 1.3",
        "external_data": {"used": False, "details": ""},
        "results": {
            "a": [
                {"score": 0.5, "label": "x", "segment": [0.04, 10.0]},
                {"score": 0.25, "label": "y", "segment": [0.02, 0.12]},
            ],
            "b": [],
        },
    }
    again = activitynet.read_predictions(tmp_path / "results.json", dataset)
    assert spans(again) == spans(events) and [event.score for event in again] == [0.5, 0.25]
    activitynet.write_predictions(events, dataset, tmp_path / "results.json", video_ids=["a"])
    assert list(json.loads((tmp_path / "results.json").read_text())["results"]) == ["a"]


def test_results_beyond_the_end_are_cut_or_left_out_with_a_warning(tmp_path, dataset):
    segments = [[9, 11], [1, 2], [2, 1], [12, 13]]
    results = {"a": [{"label": "x", "score": 1, "segment": segment} for segment in segments]}
    path = write_json(tmp_path / "results.json", {"results": results})
    with pytest.warns(UserWarning, match=r"1 segments cut: a\[0\].*; 2 segments left out: a\[2\].*a\[3\]"):
        events = activitynet.read_predictions(path, dataset)
    assert spans(events) == [("a", "x", 225, 250), ("a", "x", 25, 50)]


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({"z": []}, "results 'z', unknown name 'z', expected one of: a, b"),
        ({"a": {}}, "results 'a', expected a list, got an object"),
        ({"a": [7]}, r"results 'a'\[0\], expected an object, got a number"),
        ({"a": [{"label": "x", "segment": [1, 2]}]}, r"results 'a'\[0\], score: missing"),
        ({"a": [{"label": "x", "segment": [1, 2], "score": "1"}]}, r"results 'a'\[0\], score: expected a number, got"),
        ({"a": [{"label": "x", "segment": [1], "score": 1}]}, r"results 'a'\[0\], segment: expected \[start, end\]"),
        ({"a": [{"label": "z", "segment": [1, 2], "score": 1}]}, r"events\[0\], label: unknown name 'z'"),
    ],
)
def test_broken_results_are_named(tmp_path, dataset, results, message):
    path = write_json(tmp_path / "results.json", {"results": results})
    with pytest.raises(DatasetError, match=message) as caught:
        activitynet.read_predictions(path, dataset)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (Event("a", "x", 0, 1), r"events\[0\], score: expected a number, got none"),
        (Event("b", "x", 0, 1, score=1), r"events\[0\], video_id: expected one of the videos to write"),
    ],
)
def test_events_that_are_no_results_are_named(tmp_path, dataset, event, message):
    with pytest.raises(DatasetError, match=message):
        activitynet.write_predictions([event], dataset, tmp_path / "results.json", video_ids=["a"])


@pytest.mark.skipif(not REAL_FOLDER.is_dir(), reason=f"needs the real material in {REAL_FOLDER}")
def test_the_real_annotations_are_read_in_full(tmp_path):
    """19,228 videos and 22,152 segments, of which 12 have no length and 215 end after their video."""
    dataset = activitynet.read(REAL_FOLDER / "activity_net.v1-3.rebuilt.json")
    assert (len(dataset.videos), len(dataset.labels), len(dataset.events)) == (19_228, 200, 22_140)
    assert counts(dataset)["segments_left_out"] == 12 and counts(dataset)["segments_cut"] == 215
    assert dataset.splits() == ["train", "val", "test"]
    native.write(dataset, tmp_path / "native.json")
    assert spans(native.read(tmp_path / "native.json").events) == spans(dataset.events)


@pytest.mark.skipif(not REAL_FOLDER.is_dir(), reason=f"needs the real material in {REAL_FOLDER}")
def test_the_real_submission_is_read_for_the_videos_there_are(tmp_path):
    submission = json.loads((REAL_FOLDER / "sample_detection_prediction.json").read_text())
    dataset = activitynet.read(REAL_FOLDER / "activity_net.v1-3.rebuilt.json")
    with pytest.raises(DatasetError, match="sample_detection_prediction.json: results '.*', unknown name"):
        activitynet.read_predictions(REAL_FOLDER / "sample_detection_prediction.json", dataset)
    known = {video_id: found for video_id, found in submission["results"].items() if video_id in dataset.videos}
    path = write_json(tmp_path / "results.json", {"results": known})
    with pytest.warns(UserWarning, match="segments left out"):
        events = activitynet.read_predictions(path, dataset)
    num_empty = sum(found["segment"][0] >= found["segment"][1] for entries in known.values() for found in entries)
    assert len(events) == sum(map(len, known.values())) - num_empty > 5000


def test_a_field_that_the_native_format_cannot_hold_is_left_out_and_said(tmp_path):
    strange = entry((1, 2), rating=float("nan"), width=7)
    strange["annotations"][0] |= {"boxes": [], "note": "kept"}
    dataset = activitynet.read(truth(tmp_path, v=strange))
    assert dataset.events[0].extra == {"note": "kept"} and dataset.videos["v"].extra == {"duration": 10.0}
    assert counts(dataset)["fields_left_out"] == 3
    native.write(dataset, tmp_path / "native.json")
