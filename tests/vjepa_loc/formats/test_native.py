"""The native format: exact round trips, and every error named by file, entry and field."""

import copy
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vjepa_loc.dataset import (
    Dataset,
    Video,
    index_videos,
    read_dataset,
    read_predictions,
    write_dataset,
    write_predictions,
)
from vjepa_loc.errors import DatasetError
from vjepa_loc.events import Event

SHARED_DATA = Path(__file__).parents[4] / "shared" / "data"
BOX = [10.0, 20.5, 30.0, 40.25]
GOOD = {
    "format": "vjepa_loc",
    "version": 1,
    "labels": ["take", "return"],
    "source": {"camera": "cart", "lens_mm": 2.5},
    "videos": [
        {
            "id": "v1",
            "file": "videos/v1.mp4",
            "fps": 25.0,
            "num_frames": 50,
            "width": 320,
            "height": 180,
            "split": "train",
            "group": "store-7",
            "label": None,
            "weather": ["sun", None],
        },
        {"id": "v2"},
    ],
    "events": [
        {
            "id": "e1",
            "video_id": "v1",
            "label": "take",
            "start_frame": 3,
            "end_frame": 6.25,
            "boxes": {"5": BOX, "3": [0, 0, 1e-9, 320]},
            "annotator": "ann",
        },
        {"video_id": "v2", "label": "return", "start_frame": 0.1, "end_frame": 0.2},
    ],
}
GOOD_PREDICTIONS = {
    "format": "vjepa_loc",
    "version": 1,
    "labels": ["take", "return"],
    "events": [
        {
            "video_id": "v1",
            "label": "take",
            "start_frame": 3,
            "end_frame": 6,
            "score": 0.85,
            "boxes": {"3": [*BOX, 0.5], "4": BOX},
        },
        {"video_id": "v2", "label": "take", "start_frame": 3, "end_frame": 6, "score": -7, "boxes": {"3": BOX}},
    ],
}


def write_json(path: Path, document) -> Path:
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return path


def changed(document, *keys_and_value):
    """A copy of `document` in which the place given by the keys has the value; DELETE takes it away."""
    *keys, last, value = keys_and_value
    result = copy.deepcopy(document)
    holder = result
    for key in keys:
        holder = holder[key]
    if value is DELETE:
        del holder[last]
    else:
        holder[last] = value
    return result


DELETE = object()


def as_values(event: Event) -> tuple:
    scores_K = event.box_scores_K
    return (
        event.video_id,
        event.label,
        event.start_frame,
        event.end_frame,
        event.box_frames_K.tolist(),
        event.boxes_K4.tolist(),
        None if scores_K is None else scores_K.tolist(),
        event.score,
        event.id,
        event.extra,
    )


def test_everything_a_file_says_is_read(tmp_path):
    dataset = read_dataset(write_json(tmp_path / "d.json", GOOD))
    assert dataset.labels == ("take", "return")
    assert dataset.extra == {"source": {"camera": "cart", "lens_mm": 2.5}}
    assert dataset.path == tmp_path / "d.json"
    assert dataset.videos["v1"] == Video(
        id="v1",
        file=tmp_path / "videos" / "v1.mp4",
        fps=25.0,
        num_frames=50,
        width=320,
        height=180,
        split="train",
        group="store-7",
        extra={"weather": ["sun", None]},
    )
    assert dataset.videos["v2"] == Video("v2")
    first, second = dataset.events
    assert as_values(first) == (
        "v1", "take", 3.0, 6.25, [3, 5], [[0, 0, 1e-9, 320], BOX], None, None, "e1", {"annotator": "ann"},
    )  # fmt: skip
    assert as_values(second) == ("v2", "return", 0.1, 0.2, [], [], None, None, None, {})


def test_writing_and_reading_gives_the_same(tmp_path):
    dataset = read_dataset(write_json(tmp_path / "d.json", GOOD))
    write_dataset(dataset, tmp_path / "again.json")
    again = read_dataset(tmp_path / "again.json")
    assert (again.labels, again.videos, again.extra) == (dataset.labels, dataset.videos, dataset.extra)
    assert [as_values(event) for event in again.events] == [as_values(event) for event in dataset.events]
    assert json.loads((tmp_path / "again.json").read_text())["events"][1] == GOOD["events"][1]
    assert sorted(os.listdir(tmp_path)) == ["again.json", "d.json"]


def test_a_file_below_the_folder_is_written_relative_and_any_other_absolute(tmp_path):
    here, there = tmp_path / "data" / "videos" / "v1.mp4", tmp_path / "elsewhere" / "v2.mp4"
    dataset = Dataset((), index_videos([Video("v1", file=here), Video("v2", file=there), Video("v3")]))
    write_dataset(dataset, tmp_path / "data" / "d.json")
    entries = json.loads((tmp_path / "data" / "d.json").read_text())["videos"]
    assert [entry.get("file") for entry in entries] == ["videos/v1.mp4", str(there), None]
    assert read_dataset(tmp_path / "data" / "d.json").videos == dataset.videos
    upward = changed(GOOD, "videos", 0, "file", "../elsewhere/v2.mp4")
    assert read_dataset(write_json(tmp_path / "data" / "up.json", upward)).videos["v1"].file == there


def test_a_relative_path_of_the_dataset_gives_absolute_files(tmp_path, monkeypatch):
    write_json(tmp_path / "d.json", GOOD)
    monkeypatch.chdir(tmp_path)
    assert read_dataset("d.json").videos["v1"].file == tmp_path / "videos" / "v1.mp4"


def test_an_empty_dataset_goes_there_and_back(tmp_path):
    write_dataset(Dataset((), {}), tmp_path / "d.json")
    dataset = read_dataset(tmp_path / "d.json")
    assert (dataset.labels, dataset.videos, dataset.events) == ((), {}, ())


def test_a_byte_order_mark_and_other_scripts_are_read(tmp_path):
    document = json.dumps(changed(GOOD, "labels", ["take", "return", "取る"]), ensure_ascii=False)
    assert read_dataset(write_json(tmp_path / "d.json", "\ufeff" + document)).labels[2] == "取る"


names = st.text(min_size=1, max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | finite | names
extra_keys = names.map(lambda name: f"x-{name}")
extras = st.dictionaries(extra_keys, json_values | st.lists(json_values, max_size=3), max_size=2)


@st.composite
def events(draw, scored: bool):
    start = draw(st.floats(0, 1e5))
    event = Event("v", "l", start, start + draw(st.floats(1e-3, 30)))
    covered = range(*event.covered_frames())
    frames_K = sorted(draw(st.sets(st.sampled_from(covered), max_size=4))) if covered else []
    corners = st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
    boxes_K4 = [(x1, y1, x1 + w, y1 + h) for x1, y1, w, h in draw(st.tuples(*[corners] * len(frames_K)))]
    return event.replace(
        box_frames_K=np.array(frames_K, dtype=np.int64),
        boxes_K4=np.array(boxes_K4).reshape(-1, 4),
        box_scores_K=draw(st.tuples(*[finite] * len(frames_K))) if scored and draw(st.booleans()) else None,
        score=draw(finite) if scored else None,
        extra=draw(extras),
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(events(scored=False), max_size=3), extras, extras)
def test_any_dataset_survives_the_round_trip(tmp_path_factory, some_events, video_extra, file_extra):
    path = tmp_path_factory.mktemp("native") / "d.json"
    video = Video("v", file=path.parent / "v.mp4", fps=29.97, extra=video_extra)
    write_dataset(Dataset(("l",), {"v": video}, some_events, extra=file_extra), path)
    dataset = read_dataset(path)
    assert dataset.videos == {"v": video} and dataset.extra == file_extra
    assert [as_values(event) for event in dataset.events] == [as_values(event) for event in some_events]


@settings(max_examples=60, deadline=None)
@given(st.lists(events(scored=True), max_size=3))
def test_any_predictions_survive_the_round_trip(tmp_path_factory, some_events):
    path = tmp_path_factory.mktemp("native") / "p.json"
    dataset = Dataset(("l",), {"v": Video("v")})
    write_predictions(some_events, dataset, path)
    assert list(map(as_values, read_predictions(path, dataset))) == list(map(as_values, some_events))


def boxes(value):
    return ("events", 0, "boxes", value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("format", "coco"), "top level, format: expected 'vjepa_loc', got 'coco'.*cli.py convert"),
        (("format", DELETE), "top level, format: missing"),
        (("version", 2), "top level, version: expected 1, got 2"),
        (("version", True), "top level, version: expected 1, got True"),
        (("version", DELETE), "top level, version: missing"),
        (("labels", DELETE), r"top level, labels: missing \(write \[\] for none\)"),
        (("videos", DELETE), "top level, videos: missing"),
        (("events", DELETE), "top level, events: missing"),
        (("labels", "take"), "top level, labels: expected a list, got a string"),
        (("labels", 1, ["return"]), r"labels\[1\]: expected a non-empty string, got \['return'\]"),
        (("labels", ["take", "return", "take"]), r"labels\[2\]: 'take' stands twice"),
        (("videos", {}), "top level, videos: expected a list, got an object"),
        (("videos", 1, "v2"), r"videos\[1\]: expected an object, got a string"),
        (("videos", 1, "id", DELETE), r"videos\[1\], id: missing"),
        (("videos", 1, "id", ""), r"videos\[1\] \(''\), id: expected a non-empty string"),
        (("videos", 1, "id", 7), r"videos\[1\], id: expected a non-empty string, got 7"),
        (("videos", 1, "id", "v1"), r"videos\[1\], id: 'v1' is already the id of videos\[0\]"),
        (("videos", 0, "file", 7), r"videos\[0\] \('v1'\), file: expected a path, got 7"),
        (("videos", 0, "fps", "25"), r"videos\[0\] \('v1'\), fps: expected a number, got '25'"),
        (("videos", 0, "fps", float("nan")), r"videos\[0\] \('v1'\), fps: expected a finite number"),
        (("videos", 0, "fps", -25), r"videos\[0\] \('v1'\), fps: expected more than 0"),
        (("videos", 0, "num_frames", 50.5), r"videos\[0\] \('v1'\), num_frames: expected a whole number above 0"),
        (("videos", 0, "width", 0), r"videos\[0\] \('v1'\), width: expected a whole number above 0, got 0"),
        (("videos", 0, "height", [1]), r"videos\[0\] \('v1'\), height: expected a whole number above 0"),
        (("videos", 0, "split", "all"), r"videos\[0\] \('v1'\), split: 'all' is reserved"),
        (("videos", 0, "label", "tkae"), r"videos\[0\] \('v1'\), label: unknown name 'tkae', .*Did you mean 'take'?"),
        (("videos", 0, "weather", float("inf")), r"videos\[0\] \('v1'\), weather: expected finite numbers, got NaN"),
        (("source", "lens_mm", float("nan")), "source: expected finite numbers, got NaN or infinity"),
        (("events", 0, None), r"events\[0\]: expected an object, got null"),
        (("events", 0, "video_id", "v9"), r"events\[0\] \('e1'\), video_id: unknown name 'v9', .*: v1, v2"),
        (("events", 0, "video_id", DELETE), r"events\[0\] \('e1'\), video_id: missing"),
        (("events", 1, "label", "retrun"), r"events\[1\], label: unknown name 'retrun', .*Did you mean 'return'?"),
        (("events", 1, "label", {}), r"events\[1\], label: expected a non-empty string, got {}"),
        (("events", 1, "id", "e1"), r"events\[1\], id: 'e1' is already the id of events\[0\]"),
        (("events", 1, "start_frame", DELETE), r"events\[1\], start_frame: missing"),
        (("events", 1, "start_frame", -0.1), r"events\[1\], start_frame: expected 0 or later, got -0.1"),
        (("events", 1, "start_frame", "0"), r"events\[1\], start_frame: expected a number, got '0'"),
        (("events", 1, "start_frame", 0.2), r"events\[1\], end_frame: expected later than start_frame 0.2, got 0.2"),
        (("events", 0, "end_frame", 2), r"events\[0\] \('e1'\), end_frame: expected later than start_frame 3.0, got 2"),
        (("events", 0, "end_frame", 50.01), r"events\[0\] \('e1'\), end_frame: 50.01 lies outside the video 'v1'"),
        (("events", 1, "end_frame", float("inf")), r"events\[1\], end_frame: expected a finite number, got inf"),
        (("events", 1, "score", float("nan")), r"events\[1\], score: expected a finite number, got nan"),
        (boxes([]), r"events\[0\] \('e1'\), boxes: expected an object from frame to box, got a list"),
        (boxes({"5.0": BOX}), r"events\[0\] \('e1'\), boxes, frame '5.0': expected a whole frame number such as '140'"),
        (boxes({"05": BOX}), r"events\[0\] \('e1'\), boxes, frame '05': expected a whole frame number"),
        (boxes({"-1": BOX}), r"events\[0\] \('e1'\), boxes, frame '-1': expected a whole frame number"),
        (boxes({"9" * 30: BOX}), r"events\[0\] \('e1'\), boxes, frame '9+': expected a whole frame number"),
        (boxes({"6": BOX}), r"events\[0\] \('e1'\), boxes, frame 6: expected a frame that the event covers \(3 to 5\)"),
        (boxes({"60": BOX}), r"events\[0\] \('e1'\), boxes, frame 60: expected a frame that the event covers"),
        (boxes({"3": BOX[:3]}), r"events\[0\] \('e1'\), boxes, frame 3: expected 4 numbers .*, got 3 numbers"),
        (boxes({"3": [*BOX, 0.5]}), r"events\[0\] \('e1'\), boxes, frame 3: expected 4 numbers .*, got 5 numbers"),
        (boxes({"3": "0 0 1 1"}), r"events\[0\] \('e1'\), boxes, frame 3: expected 4 numbers .*, got a string"),
        (boxes({"3": [1, 2, 3, "4"]}), r"events\[0\] \('e1'\), boxes, frame 3: expected a number, got '4'"),
        (boxes({"3": [1, 2, 3, None]}), r"events\[0\] \('e1'\), boxes, frame 3: expected a number, got None"),
        (boxes({"3": [1, 2, 3, True]}), r"events\[0\] \('e1'\), boxes, frame 3: expected a number, got True"),
        (boxes({"3": [1, 2, 3, float("nan")]}), r"events\[0\] \('e1'\), boxes, frame 3: expected finite numbers"),
        (boxes({"3": [1, 2, 3, 10**400]}), r"events\[0\] \('e1'\), boxes: expected numbers that a float can hold"),
        (boxes({"3": [10, 20, 10, 40]}), r"events\[0\] \('e1'\), boxes, frame 3: .* a box without area \[10.0, 20"),
        (boxes({"3": [30, 20, 10, 40]}), r"events\[0\] \('e1'\), boxes, frame 3: .* a box without area"),
    ],
)
def test_each_error_names_file_entry_and_field(tmp_path, change, message):
    path = write_json(tmp_path / "bad.json", changed(GOOD, *change))
    with pytest.raises(DatasetError, match=message) as caught:
        read_dataset(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a JSON file, cannot read it as one: Expecting value: line 1 column 1"),
        ('{"format": ', "expected a JSON file, cannot read it as one: Expecting value: line 1 column 12"),
        ("[" * 200_000, "expected a JSON file, cannot read it as one"),
        ("[1, 2]", "expected a JSON object, got a list"),
        (json.dumps(GOOD).replace('"5": [', '"3": ['), r"events\[0\].boxes: the key '3' stands twice"),
        (json.dumps(GOOD)[:-1] + ', "labels": []}', "top level: the key 'labels' stands twice"),
    ],
)
def test_what_is_not_one_json_object_is_refused(tmp_path, text, message):
    path = write_json(tmp_path / "bad.json", text)
    with pytest.raises(DatasetError, match=message) as caught:
        read_dataset(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_bytes_that_are_no_text_and_folders_are_refused(tmp_path):
    (tmp_path / "video.mp4").write_bytes(b"\x00\x00\x00\x18ftyp\xff\xfe")
    with pytest.raises(DatasetError, match="video.mp4: expected a JSON file, cannot read it as one"):
        read_dataset(tmp_path / "video.mp4")
    with pytest.raises(DatasetError, match="expected a readable JSON file: Is a directory"):
        read_dataset(tmp_path)


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    return read_dataset(write_json(tmp_path / "d.json", GOOD))


def test_predictions_need_no_videos_and_boxes_may_have_scores(tmp_path, dataset):
    first, second = read_predictions(write_json(tmp_path / "p.json", GOOD_PREDICTIONS), dataset)
    assert first.score == 0.85 and first.box_scores_K.tolist() == [0.5, 0.85]
    assert second.score == -7 and second.box_scores_K is None
    without_labels = changed(GOOD_PREDICTIONS, "labels", DELETE)
    assert len(read_predictions(write_json(tmp_path / "p.json", without_labels), dataset)) == 2
    with_videos = changed(GOOD_PREDICTIONS, "videos", GOOD["videos"])
    assert len(read_predictions(write_json(tmp_path / "p.json", with_videos), dataset)) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("format", DELETE), "top level, format: missing"),
        (("events", DELETE), "top level, events: missing"),
        (("events", 0, "score", DELETE), r"events\[0\], score: missing"),
        (("events", 0, "score", "high"), r"events\[0\], score: expected a number, got 'high'"),
        (("events", 0, "video_id", "v9"), r"events\[0\], video_id: unknown name 'v9', expected one of: v1, v2"),
        (("events", 0, "label", "retrun"), r"events\[0\], label: unknown name 'retrun', .*Did you mean 'return'?"),
        (("labels", ["take", "rummage"]), None),
        (("labels", ["return"]), r"events\[0\], label: unknown name 'take', expected one of: return"),
        (("labels", [["take"]]), r"labels\[0\]: expected a non-empty string"),
        (("events", 0, "end_frame", 51), r"events\[0\], end_frame: 51.0 lies outside the video 'v1' of 50 frames"),
        (("events", 0, "boxes", "3", 4, float("nan")), r"events\[0\], boxes, frame 3: expected a finite score"),
        (("events", 0, "boxes", "3", [1, 2, 3, 4, 5, 6]), r"events\[0\], boxes, frame 3: expected 4 numbers .* got 6"),
        (("videos", [{"id": "v9"}]), r"videos\[0\], id: unknown name 'v9'"),
        (("videos", [{"id": "v1", "fps": 30}]), r"videos\[0\] \('v1'\), fps: expected 25.0 .*, got 30.0"),
    ],
)
def test_predictions_are_checked_against_the_dataset(tmp_path, dataset, change, message):
    path = write_json(tmp_path / "p.json", changed(GOOD_PREDICTIONS, *change))
    if message is None:
        assert len(read_predictions(path, dataset)) == 2
        return
    with pytest.raises(DatasetError, match=message) as caught:
        read_predictions(path, dataset)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (Event("v1", "take", 0, 1), r"events\[0\], score: expected a number, as every prediction has one, got none"),
        (Event("v9", "take", 0, 1, score=1), r"events\[0\], video_id: unknown name 'v9'"),
        (Event("v1", "take", 49, 51, score=1), r"events\[0\], end_frame: 51.0 lies outside"),
        (Event("v1", "take", 0, 1, score=1, extra={"x": float("nan")}), "cannot be written as JSON"),
        (Event("v1", "take", 0, 1, score=1, extra={"score": 2}), "extra: the key 'score' is a field of the format"),
    ],
)
def test_predictions_that_could_not_be_read_are_not_written(tmp_path, dataset, event, message):
    with pytest.raises(DatasetError, match=message):
        write_predictions([event], dataset, tmp_path / "p.json")
    assert not (tmp_path / "p.json").exists()


def test_scores_of_boxes_need_the_events_score(tmp_path):
    event = Event("v", "l", 0, 1, [0], [BOX], [0.5])
    with pytest.raises(DatasetError, match="event 'l' of 'v', boxes: scores of boxes need the event's own score"):
        write_dataset(Dataset(("l",), {"v": Video("v")}, [event]), tmp_path / "d.json")


def test_thirty_thousand_boxes_are_read_at_once(tmp_path):
    rng = np.random.default_rng(0)
    boxes_N154 = rng.random((2_000, 15, 4)) * 100
    boxes_N154[..., 2:] += boxes_N154[..., :2] + 1
    starts_N = rng.integers(0, 2000, len(boxes_N154))
    some_events = [
        Event("v", "l", start, start + 15, np.arange(start, start + 15), boxes_154)
        for start, boxes_154 in zip(starts_N.tolist(), boxes_N154, strict=True)
    ]
    write_dataset(Dataset(("l",), {"v": Video("v", num_frames=2250)}, some_events), tmp_path / "d.json")
    began = time.perf_counter()
    dataset = read_dataset(tmp_path / "d.json")
    assert time.perf_counter() - began < 5, "expected about 0.2 s: a loop over single boxes has come in"
    assert np.array_equal(dataset.events[-1].boxes_K4, boxes_N154[-1])


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"needs the real material in {SHARED_DATA}")
@pytest.mark.parametrize(
    ("name", "num_videos", "num_events"),
    [
        ("pick_pour_push/dataset.json", 40, 137),
        ("flies/dataset.json", 1, 13),
        ("reference_scores/jhmdb_mix_a/truth.json", 12, 40),
    ],
)
def test_real_files_go_there_and_back(tmp_path, name, num_videos, num_events):
    dataset = read_dataset(SHARED_DATA / name)
    assert (len(dataset.videos), len(dataset.events)) == (num_videos, num_events)
    assert all(video.file.is_file() for video in dataset.videos.values())
    write_dataset(dataset, tmp_path / "d.json")
    written = json.loads((tmp_path / "d.json").read_text())
    assert written["events"] == json.loads((SHARED_DATA / name).read_text())["events"]
    assert read_dataset(tmp_path / "d.json").videos == dataset.videos
