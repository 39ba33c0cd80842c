"""Label Studio: its frames and rates, rectangles between keyframes, which annotation counts, and tasks as it imports them."""

import json
from pathlib import Path

import numpy as np
import pytest

from vjepa_loc.dataset import Dataset, Video, index_videos
from vjepa_loc.errors import DatasetError, UnknownNameError
from vjepa_loc.events import Event
from vjepa_loc.formats import label_studio

REAL = Path(__file__).parents[4] / "shared" / "data" / "annotations" / "label_studio"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the Label Studio files of shared/data are not here")


def probe(file):
    return {"fps": 50.0, "num_frames": 100, "width": 200, "height": 100}


def opossum_probe(file):
    return {"fps": 30000 / 1001, "num_frames": 35, "width": 1280, "height": 720}


def timeline(*ranges, label="run", **fields):
    value = {"ranges": [{"start": start, "end": end} for start, end in ranges], "timelinelabels": [label]}
    return {"type": "timelinelabels", "value": value} | fields


def keyframe(frame, x=10.0, enabled=True, rate=25.0, **fields):
    return {
        "frame": frame,
        "enabled": enabled,
        "x": x,
        "y": 10,
        "width": 20,
        "height": 40,
        "rotation": 0,
        "time": frame / rate,
    } | fields


def rectangle(*keys, labels=("cat",), **fields):
    return {"type": "videorectangle", "value": {"sequence": list(keys), "labels": list(labels)}} | fields


def task(*regions, video="clip.mp4", **fields):
    return {"id": 1, "data": {"video": video}, "annotations": [{"result": list(regions)}]} | fields


def read_tasks(tmp_path, *tasks, probe=None):
    (tmp_path / "export.json").write_text(json.dumps(list(tasks)))
    return label_studio.read(tmp_path / "export.json", probe)


def spans(events):
    return [(event.video_id, event.label, event.start_frame, event.end_frame) for event in events]


def notes(dataset):
    return " ".join(dataset.extra["reading"]["notes"])


def test_ranges_count_from_1_and_include_both_ends(tmp_path):
    dataset = read_tasks(tmp_path, task(timeline((1, 10), (12, 12), id="r"), rectangle(keyframe(1), keyframe(2, enabled=False))))
    assert spans(dataset.events) == [("clip", "run", 0, 10), ("clip", "run", 11, 12), ("clip", "cat", 0, 2)]
    assert [event.id for event in dataset.events] == ["r", "r/2", None]
    assert dataset.videos["clip"].fps == 25 and "taken as they are, at 25 fps; no probe" in notes(dataset)


def test_frames_of_another_rate_go_through_seconds(tmp_path):
    (tmp_path / "clip.mp4").touch()
    dataset = read_tasks(
        tmp_path, task(timeline((1, 10)), rectangle(keyframe(3, 10), keyframe(5, 14, enabled=False))), probe=probe
    )
    assert spans(dataset.events) == [("clip", "run", 0, 20), ("clip", "cat", 4, 10)]
    # The middles of frames 4 to 9 are at 0.09 to 0.19 s, and those of Label Studio's frames 3, 4, 5 at 0.1, 0.14, 0.18 s.
    assert dataset.events[1].box_frames_K.tolist() == [4, 5, 6, 7, 8, 9]
    np.testing.assert_allclose(dataset.events[1].boxes_K4[:, 0], [20, 21, 23, 25, 27, 28])
    assert "counts 25 frames per second, 'clip' has 50" in notes(dataset)


@pytest.mark.parametrize(
    ("video_tag", "data", "end"),
    [
        ('<Video name="v" value="$clip" framerate="25.0"/>', {}, 20),
        ('<Video name="v" value="$clip" frameRate="0.04"/>', {}, 20),
        ("<Video value='$clip' framerate='$rate' name='v'/>", {"rate": "10"}, 50),
        ('<Video name="v" value="$clip"/>', {}, 10 * 50 / 24),
    ],
)
def test_the_configuration_states_the_rate(tmp_path, video_tag, data, end):
    (tmp_path / "clip.mp4").touch()
    message = {
        "annotation": {"result": [timeline((1, 10))]},
        "task": {"data": {"clip": "clip.mp4"} | data},
        "project": {"label_config": f"<View>{video_tag}</View>"},
    }
    (tmp_path / "hook.json").write_text(json.dumps(message))
    assert label_studio.read(tmp_path / "hook.json", probe).events[0].end_frame == pytest.approx(end)


def test_the_rate_of_the_data_or_of_the_count_of_frames_where_keyframes_have_no_times(tmp_path):
    (tmp_path / "clip.mp4").touch()
    by_data = task(timeline((1, 10)))
    by_data["data"]["fps"] = 25
    counted = rectangle(keyframe(1, time=None), keyframe(10, time=None, enabled=False))
    counted["value"] |= {"framesCount": 20, "duration": 2.0}
    assert read_tasks(tmp_path, by_data, probe=probe).events[0].end_frame == 20
    assert read_tasks(tmp_path, task(counted), probe=probe).events[0].end_frame == 50
    unknown = read_tasks(tmp_path, task(timeline((1, 10))), probe=probe)
    assert unknown.events[0].end_frame == 10 and "does not say at how many frames per second it counts" in notes(unknown)


def test_a_rectangle_moves_between_keyframes_and_hides_after_one_that_is_off(tmp_path):
    (tmp_path / "clip.mp4").touch()
    keys = [keyframe(1, 10), keyframe(3, 20, enabled=False), keyframe(6, 0), keyframe(7, 8, enabled=False)]
    keys = [key | {"time": key["frame"] / 50} for key in keys]
    (event,) = read_tasks(tmp_path, task(rectangle(*reversed(keys))), probe=probe).events
    assert (event.start_frame, event.end_frame, event.box_frames_K.tolist()) == (0, 7, [0, 1, 2, 5, 6])
    np.testing.assert_allclose(
        event.boxes_K4, [[20, 10, 60, 50], [30, 10, 70, 50], [40, 10, 80, 50], [0, 10, 40, 50], [16, 10, 56, 50]]
    )


def test_a_hidden_stretch_does_not_pull_at_what_is_shown_beside_it(tmp_path):
    (tmp_path / "clip.mp4").touch()
    keys = [keyframe(3, 10, enabled=False), keyframe(6, 40), keyframe(7, 48, enabled=False)]
    (event,) = read_tasks(tmp_path, task(rectangle(*keys)), probe=probe).events
    assert event.box_frames_K.tolist() == [4, 5, 10, 11, 12, 13]
    np.testing.assert_allclose(event.boxes_K4[:, 0], [20, 20, 80, 84, 92, 96])


def test_a_last_keyframe_that_is_on_holds_to_the_videos_end(tmp_path):
    (tmp_path / "clip.mp4").touch()
    (event,) = read_tasks(tmp_path, task(rectangle(keyframe(96, rate=50))), probe=probe).events
    assert (event.start_frame, event.end_frame, event.num_boxes) == (95, 100, 5)


def test_a_turned_rectangle_becomes_the_upright_box_around_it(tmp_path):
    (tmp_path / "clip.mp4").touch()
    # 40 x 40 pixels, a quarter turn about (20, 10) to the right: it hangs left of its corner.
    dataset = read_tasks(tmp_path, task(rectangle(keyframe(1, rotation=90, enabled=False, rate=50))), probe=probe)
    np.testing.assert_allclose(dataset.events[0].boxes_K4, [[-20, 10, 20, 50]], atol=1e-9)
    assert "1 rotated rectangles" in notes(dataset)


def test_without_a_size_a_rectangle_is_an_interval_and_that_is_said(tmp_path):
    dataset = read_tasks(tmp_path, task(rectangle(keyframe(1, enabled=False))))
    assert dataset.events[0].num_boxes == 0 and "1 rectangles left out: nothing tells the size of 'clip'" in notes(dataset)


def test_one_annotation_of_a_task_counts(tmp_path):
    def annotation(label, **fields):
        return {"result": [timeline((1, 2), label=label)]} | fields

    skipped, first, second, truth = (
        annotation("skipped", was_cancelled=True),
        annotation("first"),
        annotation("second"),
        annotation("truth", ground_truth=True),
    )
    dataset = read_tasks(tmp_path, task() | {"annotations": [skipped, first, second], "predictions": [annotation("guess")]})
    assert dataset.labels == ("first",) and dataset.extra["reading"]["counts"]["predictions_left_out"] == 1
    assert "annotations[0] was skipped" in notes(dataset) and "annotations[2] is not the first of its task" in notes(dataset)
    assert read_tasks(tmp_path, task() | {"annotations": [first, truth]}).labels == ("truth",)


def test_a_task_that_nobody_annotated_is_a_video_without_events_and_that_is_said(tmp_path):
    result = {"result": [timeline((1, 2))]}
    dataset = read_tasks(tmp_path, task() | {"annotations": [result | {"was_cancelled": True}]})
    assert len(dataset.videos) == 1 and dataset.events == ()
    assert "1 tasks without annotation: tasks[0]: " in notes(dataset) and "is read as a video without events" in notes(dataset)
    assert "without annotation" not in notes(read_tasks(tmp_path, task() | {"annotations": [result]}))


def test_other_regions_and_those_without_a_label_are_counted(tmp_path):
    dataset = read_tasks(tmp_path, task({"type": "choices", "value": {}}, rectangle(keyframe(1), labels=()), timeline((5, 2))))
    assert dataset.events == () and dataset.extra["reading"]["counts"]["regions_left_out"] == 2
    assert (
        "'choices' is no range and no rectangle" in notes(dataset)
        and "has no label" in notes(dataset)
        and "empty, reversed" in notes(dataset)
    )


@pytest.mark.parametrize(
    ("reference", "video_id", "file"),
    [
        ("/data/upload/3/0123abcd-my%20clip.mp4", "my%20clip", "my%20clip.mp4"),
        ("/data/local-files/?d=a/b/clip.mp4", "clip", "clip.mp4"),
        ("s3://bucket/a/clip.webm", "clip", "clip.webm"),
        ("https://host/x/my%20clip.mp4?token=1", "my clip", "my clip.mp4"),
        ("C:\\videos\\clip.avi", "clip", "clip.avi"),
    ],
)
def test_a_video_is_called_and_found_by_its_name(tmp_path, reference, video_id, file):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / file).touch()
    (video,) = read_tasks(tmp_path, task(video=reference)).videos.values()
    assert (video.id, video.file) == (video_id, tmp_path / "videos" / file)


def test_a_video_beside_a_file_that_is_named_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("clip.mp4").touch()
    Path("clip_1.json").write_text(json.dumps([{"model_version": "m", "result": [timeline((1, 2))]}]))
    assert label_studio.read("clip_1.json").videos["clip"].file == tmp_path / "clip.mp4"


def test_videos_of_one_name_are_called_by_their_references_and_one_video_may_have_two_tasks(tmp_path):
    dataset = read_tasks(
        tmp_path,
        task(timeline((1, 2)), video="x/a.mp4"),
        task(timeline((1, 2)), video="y/a.mp4"),
        task(timeline((3, 4)), video="x/a.mp4"),
    )
    assert list(dataset.videos) == ["x/a.mp4", "y/a.mp4"] and len(dataset.events_of("x/a.mp4")) == 2
    assert "tasks[2] adds to the events of 'x/a.mp4'" in notes(dataset)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            [{"id": 1, "video": "a.mp4", "box": []}],
            "tasks[0]: data: expected an object (export as JSON, not as JSON-MIN), got null; the keys are: 'id', 'video', 'box'",
        ),
        (
            [{"data": {"image": "a.jpg"}}],
            "expected tasks with a video in their data, got none: tasks[0] has no video in its data",
        ),
        ([task(timeline((1, "x")))], "tasks[0], annotations[0], result[0], ranges[0], end: expected a number, got 'x'"),
        (
            [task(timeline((1.5, 2)))],
            "tasks[0], annotations[0], result[0], ranges[0], start: expected a whole frame from 1 to 1000000, got 1.5",
        ),
        ([task(rectangle(keyframe(1), keyframe(2, "wide")))], "result[0], sequence[1], x: expected a number, got 'wide'"),
        ([task({"type": 3})], "tasks[0]: annotations[0], result[0]: expected an object with a 'type'"),
        (7, "tasks[0]: expected a Label Studio task, an object with 'data' and 'annotations', got a number"),
    ],
)
def test_a_wrong_file_says_where_and_what_was_expected(tmp_path, document, message):
    (tmp_path / "wrong.json").write_text(json.dumps(document))
    with pytest.raises(DatasetError) as caught:
        label_studio.read(tmp_path / "wrong.json")
    assert str(caught.value).startswith(f"{tmp_path / 'wrong.json'}: ") and message in str(caught.value)


def toy_dataset(tmp_path):
    videos = [
        Video("v 1", tmp_path / "v.mp4", 25.0, 100, 64, 48, "train", "cage", "b", {"fps_nominal": True}),
        Video("v2", None, 30000 / 1001),
    ]
    events = [
        Event("v 1", "a", 1.5, 50, [2, 3, 7], [[0, 0, 64, 48], [1 / 3, 2, 3.7, 5], [1, 2, 3, 4]], id="e1"),
        Event("v2", "b", 5.625, 6.25, extra={"k": [1]}),
        Event("v2", "b", 0, 3),
        Event("v2", "a", 7.4, 7.45),
    ]
    return Dataset(["b", "a", "unused"], index_videos(videos), events)


def test_what_is_written_is_read_as_the_same_dataset(tmp_path):
    dataset = toy_dataset(tmp_path)
    account = label_studio.write(dataset, tmp_path / "tasks.json")
    again = label_studio.read(tmp_path / "tasks.json")
    assert again.labels == dataset.labels
    for name in ("id", "fps", "num_frames", "width", "height", "split", "group", "label", "extra"):
        assert [getattr(video, name) for video in again.videos.values()] == [
            getattr(video, name) for video in dataset.videos.values()
        ]
    assert spans(again.events) == spans(dataset.events)
    assert [(event.id, event.extra) for event in again.events] == [(event.id, event.extra) for event in dataset.events]
    assert again.events[0].box_frames_K.tolist() == [2, 3, 7]
    np.testing.assert_allclose(again.events[0].boxes_K4, dataset.events[0].boxes_K4, rtol=0, atol=1e-12)
    assert (account.counts["rectangles"], account.counts["ranges"], account.counts["intervals_rounded"]) == (1, 3, 3)
    assert 'framerate="$fps"' in account.remarks[0] and '<Label value="unused"/>' in account.remarks[0]


def test_written_tasks_have_the_fields_that_label_studio_imports(tmp_path):
    label_studio.write(toy_dataset(tmp_path), tmp_path / "tasks.json")
    first, second = json.loads((tmp_path / "tasks.json").read_text())
    assert first["data"] == {"video": str(tmp_path / "v.mp4"), "fps": 25.0}
    (region,) = first["annotations"][0]["result"]
    assert (region["type"], region["from_name"], region["to_name"]) == ("videorectangle", "box", "video")
    value = region["value"]
    assert (value["framesCount"], value["duration"], value["labels"]) == (100, 4.0, ["a"])
    assert [(key["frame"], key["enabled"], key["time"]) for key in value["sequence"]] == [
        (3, True, 0.12),
        (4, False, 0.16),
        (8, False, 0.32),
    ]
    assert {name: value["sequence"][0][name] for name in ("x", "y", "width", "height", "rotation")} == {
        "x": 0,
        "y": 0,
        "width": 100,
        "height": 100,
        "rotation": 0,
    }
    ranges = [region["value"] for region in second["annotations"][0]["result"]]
    # Covers no whole frame: the one of its middle. The second covers frames 0 to 2, the third lies in frame 7.
    assert ranges[0] == {"ranges": [{"start": 6, "end": 6}], "timelinelabels": ["b"]}
    assert [one["ranges"][0] for one in ranges[1:]] == [{"start": 1, "end": 3}, {"start": 8, "end": 8}]


def test_what_was_edited_in_label_studio_counts_more_than_what_was_kept(tmp_path):
    label_studio.write(toy_dataset(tmp_path), tmp_path / "tasks.json")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    tasks[1]["annotations"][0]["result"][0]["value"]["ranges"][0]["end"] = 9
    tasks[0]["annotations"][0]["result"][0]["value"]["sequence"].pop()
    events = read_tasks(tmp_path, *tasks).events
    assert [(event.start_frame, event.end_frame) for event in events[:2]] == [(2, 4), (5, 9)]


def test_predictions_come_back_with_the_scores_of_events_and_boxes(tmp_path):
    dataset = toy_dataset(tmp_path)
    events = [event.replace(score=0.25, box_scores_K=[0.5, 0.25, 1] if event.num_boxes else None) for event in dataset.events]
    label_studio.write_predictions(events, dataset, tmp_path / "p.json")
    assert [one["predictions"][0]["score"] for one in json.loads((tmp_path / "p.json").read_text())] == [0.25, 0.25]
    again = label_studio.read_predictions(tmp_path / "p.json", dataset)
    assert spans(again) == spans(events) and {event.score for event in again} == {0.25}
    assert again[0].box_scores_K.tolist() == [0.5, 0.25, 1]


def test_a_prediction_needs_a_score_a_known_video_and_a_known_label(tmp_path):
    dataset = Dataset(["run"], index_videos([Video("clip", None, 25.0)]))

    def predictions(*regions, video="clip.mp4", **fields):
        (tmp_path / "p.json").write_text(
            json.dumps([{"data": {"video": video, "fps": 25}, "predictions": [{"result": list(regions)} | fields]}])
        )
        return label_studio.read_predictions(tmp_path / "p.json", dataset)

    assert predictions(timeline((1, 2)), score=0.5)[0].score == 0.5
    assert predictions(timeline((1, 2), score=0.75), score=0.5)[0].score == 0.75
    with pytest.raises(DatasetError, match=r"p.json: tasks\[0\], predictions\[0\], result\[0\], score: expected a number"):
        predictions(timeline((1, 2)))
    with pytest.raises((DatasetError, UnknownNameError), match="unknown name 'clap'.*Did you mean 'clip'"):
        predictions(timeline((1, 2)), video="clap.mp4", score=1)
    with pytest.raises(DatasetError, match="label: unknown name 'fly'"):
        predictions(timeline((1, 2), label="fly"), score=1)


@needs_real
def test_a_real_tracks_rectangles_end_with_the_scene(tmp_path):
    """The scene is cut behind frame 28, counted from 0: what stood in it has its last box there, what comes has its first on 30."""
    dataset = label_studio.read(REAL / "opossum_snow_short_1.json", opossum_probe)
    assert dataset.videos["opossum_snow_short"].file == REAL / "opossum_snow_short.mp4"
    ends = [(int(event.box_frames_K[0]), int(event.box_frames_K[-1])) for event in dataset.events]
    assert ends[:6] == [(0, 28), (0, 28), (0, 28), (0, 0), (24, 27), (30, 34)] and min(start for start, _ in ends[5:]) == 30
    assert "the result of the model 'yolo', taken as truth" in notes(dataset)
    predictions = label_studio.read_predictions(REAL / "opossum_snow_short_1.json", dataset)
    assert predictions[0].score == 0.9261998534202576 and predictions[0].box_scores_K[0] == 0.9176380038261414
    label_studio.write(dataset, tmp_path / "again.json")
    for before, after in zip(dataset.events, label_studio.read(tmp_path / "again.json").events, strict=True):
        assert spans([before]) == spans([after])
        np.testing.assert_allclose(after.boxes_K4, before.boxes_K4, rtol=0, atol=1e-9)


@needs_real
def test_a_real_timeline_of_25_fps_over_a_video_of_29_97(tmp_path):
    dataset = label_studio.read(REAL / "test_timeline_labels_1.json", opossum_probe)
    rate = 30000 / 1001 / 25
    assert [(event.label, event.start_frame, event.end_frame) for event in dataset.events] == [
        ("Car", 0, pytest.approx(10 * rate)),
        ("croquet_ball", pytest.approx(4 * rate), pytest.approx(15 * rate)),
    ]
    label_studio.write(dataset, tmp_path / "again.json")
    assert spans(label_studio.read(tmp_path / "again.json").events) == spans(dataset.events)
