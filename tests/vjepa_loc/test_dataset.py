"""A dataset is consistent or is not built; a video that disagrees with it is refused with both values."""

import dataclasses
from fractions import Fraction
from pathlib import Path

import pytest

from vjepa_loc.dataset import Dataset, Video, check_against_video, index_videos, read_dataset, read_predictions
from vjepa_loc.errors import DatasetError, MissingFileError, UnknownNameError, VideoError
from vjepa_loc.events import Event

FILE = Path("/videos/v1.mp4")


def make(videos=None, events=(), labels=("take", "return")) -> Dataset:
    videos = videos or [Video("v1", num_frames=50, split="train"), Video("v2", split="val"), Video("v3")]
    return Dataset(labels, index_videos(videos), events)


def test_events_and_videos_keep_their_order():
    events = [Event("v2", "take", 5, 6), Event("v1", "return", 1, 2), Event("v2", "take", 0, 3)]
    dataset = make(events=events)
    assert dataset.events == tuple(events)
    assert dataset.events_of("v2") == [events[0], events[2]]
    assert dataset.events_of("v3") == []
    assert dataset.splits() == ["train", "val"]
    assert [video.id for video in dataset.videos_of_split("all")] == ["v1", "v2", "v3"]
    assert [video.id for video in dataset.videos_of_split("val")] == ["v2"]


def test_a_dataset_may_be_empty():
    dataset = Dataset((), {})
    assert dataset.events == () and dataset.splits() == [] and dataset.videos_of_split("all") == []


def test_unknown_split_is_answered_with_the_splits():
    with pytest.raises(UnknownNameError, match="no video has the split 'vall', expected one of: train, val, all. Did"):
        make().videos_of_split("vall")


def test_unknown_video_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="video 'w1' is not in the dataset. Did you mean 'v1'?"):
        make().events_of("w1")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"labels": ["take", "take"]}, r"labels\[1\]: 'take' stands twice"),
        ({"labels": ["take", ""]}, r"labels\[1\]: expected a non-empty string"),
        ({"videos": [Video("v1"), Video("v1")]}, r"videos\[1\], id: 'v1' is already the id of videos\[0\]"),
        ({"videos": [Video("v1", label="tak")]}, r"videos\[0\] \('v1'\), label: unknown name 'tak'.* mean 'take'"),
        ({"events": [Event("v9", "take", 0, 1, id="e")]}, r"events\[0\] \('e'\), video_id: unknown name 'v9'"),
        ({"events": [Event("v1", "rummage", 0, 1)]}, r"events\[0\], label: unknown name 'rummage', .*: take, return"),
        ({"events": [Event("v1", "take", 49, 50.5)]}, r"events\[0\], end_frame: 50.5 lies outside the video 'v1'"),
        ({"events": [Event("v1", "take", 50, 51)]}, r"events\[0\], start_frame: 50.0 lies outside"),
        (
            {"events": [Event("v1", "take", 0, 1, id="e"), Event("v2", "take", 0, 1, id="e")]},
            r"events\[1\], id: 'e' is already the id of events\[0\]",
        ),
    ],
)
def test_contradictions_are_named(parts, message):
    with pytest.raises(DatasetError, match=message):
        make(**parts)


def test_a_key_that_is_not_the_videos_id_is_refused():
    with pytest.raises(DatasetError, match=r"videos\[0\], id: expected 'v2' as its key says, got 'v1'"):
        Dataset((), {"v2": Video("v1")})


def test_events_may_touch_the_end_and_lie_anywhere_in_a_video_of_unknown_length():
    assert len(make(events=[Event("v1", "take", 49.5, 50), Event("v2", "take", 1e6, 1e6 + 1)]).events) == 2


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("id", "", "id: expected a non-empty string"),
        ("split", "all", "split: 'all' is reserved for every video"),
        ("split", 3, "split: expected a non-empty string, got 3"),
        ("group", "", "group: expected a non-empty string"),
        ("fps", 0, "fps: expected more than 0, got 0.0"),
        ("fps", float("nan"), "fps: expected a finite number"),
        ("fps", "25", "fps: expected a number, got '25'"),
        ("num_frames", 0, "num_frames: expected a whole number above 0, got 0"),
        ("width", 320.0, "width: expected a whole number above 0, got 320.0"),
        ("height", True, "height: expected a whole number above 0, got True"),
        ("file", Path("videos/v1.mp4"), "file: expected an absolute path, got 'videos/v1.mp4'"),
    ],
)
def test_values_of_a_video_are_checked(field, value, message):
    with pytest.raises(DatasetError, match=message):
        dataclasses.replace(Video("v1", file=FILE), **{field: value})


def test_resolved_fills_only_what_is_missing():
    video = Video("v1", fps=25.0, width=320).resolved(fps=Fraction(30000, 1001), num_frames=7, width=999, height=None)
    assert (video.fps, video.num_frames, video.width, video.height) == (25.0, 7, 320, None)
    assert Video("v1").resolved(fps=Fraction(30000, 1001)).fps == 30000 / 1001


def test_nominal_fps_is_marked():
    assert Video("v1", fps=25.0, extra={"fps_nominal": True}).fps_nominal
    assert not Video("v1", fps=25.0).fps_nominal


STATED = Video("v1", file=FILE, fps=30.0, num_frames=100, width=320, height=240)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"fps": 29.9}, "the dataset states fps 30, the video has 29.9"),
        ({"fps": Fraction(25)}, "the dataset states fps 30, the video has 25"),
        ({"num_frames": 99}, "the dataset states num_frames 100, the video has 99"),
        ({"width": 240}, "the dataset states width 320, the video has 240"),
        ({"height": 320}, "the dataset states height 240, the video has 320"),
    ],
)
def test_a_video_that_disagrees_is_refused_with_both_values(found, message):
    agreeing = {"fps": 30.0, "num_frames": 100, "width": 320, "height": 240}
    check_against_video(STATED, **agreeing)
    with pytest.raises(VideoError, match=rf"video 'v1' \(/videos/v1.mp4\): {message}"):
        check_against_video(STATED, **(agreeing | found))


def test_rates_within_a_thousandth_unknown_values_and_variable_rates_agree():
    check_against_video(STATED, Fraction(30000, 1001), 100, 320, 240)
    check_against_video(STATED, None, None, None, None)
    check_against_video(Video("v1"), 25, 10, 3, 4)
    check_against_video(STATED, 12.5, 100, 320, 240, variable_rate=True)


def test_missing_files_say_what_to_do(tmp_path):
    with pytest.raises(MissingFileError, match="no.json does not exist.*cli.py convert.*make demo") as caught:
        read_dataset(tmp_path / "no.json")
    assert isinstance(caught.value, FileNotFoundError) and "\n" not in str(caught.value)
    with pytest.raises(MissingFileError, match="prediction file .*no.json does not exist.*cli.py predict"):
        read_predictions(tmp_path / "no.json", make())
