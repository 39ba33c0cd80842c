"""Every kind of file of `benchmarks.decoding_clips`: the right frames, in order, turned right, at the right time; or a report."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.decoding_clips import CLIPS
from benchmarks.decoding_judge import Reading, judge, read, truth_of, wrong_times
from benchmarks.decoding_pictures import NUM_BITS, number_of, numbered_picture
from features.decode import probe_video

VIDEOS = [name for name, clip in CLIPS.items() if not clip.refused]
NO_VIDEOS = [name for name, clip in CLIPS.items() if clip.refused]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Callable[[str], Path]:
    """`made("h264.mp4")`: the clip's file, written once for all tests."""
    folder = tmp_path_factory.mktemp("kinds")

    def make(name: str) -> Path:
        return folder / name if (folder / name).exists() else CLIPS[name].make(folder)

    return make


@pytest.mark.parametrize("name", VIDEOS)
def test_the_right_frames_at_the_right_times(made, name):
    clip = CLIPS[name]
    path = made(clip.name)
    truth, reading = truth_of(clip, path), read("pyav", path)
    assert reading.error is None
    assert len(truth) and str(judge(truth, reading)) == "0"
    assert wrong_times(clip, reading) == []
    # What is lost or broken is reported, and nothing else is.
    assert bool(reading.damage) == clip.damaged, reading.damage


@pytest.mark.parametrize("name", NO_VIDEOS)
def test_what_cannot_be_used_is_reported_in_one_line(made, name):
    reading = read("pyav", made(name))
    assert reading.error.startswith("VideoError: ") and re.search(CLIPS[name].refused, reading.error)


@pytest.mark.parametrize("name", list(CLIPS))
def test_decord_gives_the_right_frames_or_refuses(made, name):
    pytest.importorskip("decord", reason="decord has no wheel for this machine")
    clip = CLIPS[name]
    path = made(clip.name)
    reading = read("decord", path)
    if clip.refused or reading.error:
        assert reading.error.startswith("VideoError: ")
        return
    assert str(judge(truth_of(clip, path), reading)) == "0"
    assert wrong_times(clip, reading) == []
    assert bool(reading.damage) == clip.damaged


def test_decord_is_not_refused_where_it_is_right(made):
    pytest.importorskip("decord", reason="decord has no wheel for this machine")
    names = ("h264_b_frames.mp4", "h264_open_gop.mkv", "hevc_open_gop.mp4", "vp9_alt_ref.webm", "mpeg4.mp4", "turned_270.mov")
    for name in names:
        assert read("decord", made(name)).error is None, name


def test_every_kind_of_the_measurements_is_there():
    endings = {name.rpartition(".")[2] for name in CLIPS}
    assert {"mp4", "mkv", "mov", "flv", "ts", "avi", "mpg", "vob", "webm", "wmv", "gif", "h264"} <= endings
    assert len(VIDEOS) >= 100 and len(NO_VIDEOS) >= 7


@pytest.mark.parametrize("number", [0, 1, 2, 511, 512, 1023])
def test_a_picture_gives_its_number_back_and_only_the_right_way_round(number):
    picture_HW3 = numbered_picture(number, 171, 171)
    assert number_of(picture_HW3) == number
    noisy_HW3 = picture_HW3.astype(float) + np.random.default_rng(number).normal(0, 25, picture_HW3.shape)
    assert number_of(noisy_HW3.clip(0, 255).astype(np.uint8)) == number
    turned = [np.rot90(picture_HW3, quarters) for quarters in (1, 2, 3)]
    for turned_HW3 in (*turned, picture_HW3[:, ::-1], picture_HW3[::-1]):
        assert number_of(turned_HW3) is None
    assert number_of(picture_HW3.swapaxes(0, 1)) is None
    with pytest.raises(ValueError, match="number: expected 0 to 1023"):
        numbered_picture(1 << NUM_BITS)


def test_half_of_one_picture_and_half_of_another_is_no_number():
    first, second = numbered_picture(5), numbered_picture(6)
    assert number_of(((first.astype(int) + second) // 2).astype(np.uint8)) is None


def test_the_judge_counts_every_wrong_place():
    def verdict(numbers: list[int | None], error: str | None = None) -> str:
        return str(judge([0, 1, 2, 3], Reading(numbers=numbers, error=error)))

    assert verdict([0, 1, 2, 3]) == "0"
    assert verdict([0, 2, 1, 3]) == "2 of 4"
    assert verdict([0, 1]) == "2 of 4"
    assert verdict([0, 1, 2, 3, 3]) == "1 of 4"
    assert verdict([1, 2, 3, None]) == "4 of 4"
    assert verdict([0, 1], "VideoError: x") == "2 of 4, then VideoError: x"
    assert verdict([], "RuntimeError: x") == "RuntimeError: x"


def test_the_judge_sees_wrong_times(made):
    clip = CLIPS["h264.mp4"]
    reading = read("pyav", made(clip.name))
    assert wrong_times(clip, reading) == []
    reading.time_s[100] += 0.01
    reading.fps, reading.variable, reading.rotation = "24", True, 90
    assert wrong_times(clip, reading) == [
        "rotation 90 for 0", "a time is off by 10.0 ms", "24 frames/s for 25", "variable rate",
    ]


def test_sample_aspects_do_not_scale(made):
    info = probe_video(made("wide_samples.mp4"))
    assert (info.width, info.height) == (160, 96)
