"""Awkward real videos against what ffprobe and ffmpeg said about them (`probe.csv` beside them)."""

import csv
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from features.decode import open_video
from vjepa_loc.errors import VideoError

FOLDER = Path(__file__).parents[2] / ".." / "shared" / "data" / "videos"
# Taken from the header by ffprobe; no rate at which frames were shown.
NONSENSE_RATES = {"90000/1"}


def rows() -> list[dict[str, str]]:
    if not (FOLDER / "probe.csv").is_file():
        return []
    with (FOLDER / "probe.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("row", [pytest.param(row, id=row["file"]) for row in rows()] or [pytest.param(None, id="absent")])
def test_as_many_frames_as_ffmpeg_shows(real_videos, row):
    path = real_videos / row["file"]
    if not row["frames_decoded_by_ffmpeg"]:
        with pytest.raises(VideoError, match="Git-LFS pointer"):
            open_video(path)
        return
    reader = open_video(path)
    # Every tenth frame becomes pixels, so that the test stays quick; all are decoded.
    for frame in reader.frames(lambda index, time_s: index % 10 == 0):
        assert frame.rgb_HW3.shape == (reader.info.height, reader.info.width, 3)
    info = reader.info
    assert reader.num_frames == int(row["frames_decoded_by_ffmpeg"])
    assert info.rotation == int(row["rotation"] or 0)
    size = (int(row["width"]), int(row["height"]))
    assert (info.width, info.height) == (size if info.rotation in (0, -180) else size[::-1])
    if row["fps"] not in NONSENSE_RATES:
        assert info.fps == Fraction(row["fps"])
    assert np.all(np.diff(reader.frame_time_s) > 0) and reader.frame_time_s[0] == 0
    assert (reader.damage is not None) == (row["file"] == "decord/corrupted.mp4")


def test_turned_recordings_show_the_same_keyboard_upright(real_videos):
    # Of the four recordings of one keyboard, a wrong turn would put the dark keys beside the light rest instead of above it.
    frame = next(iter(open_video(real_videos / "decord" / "video_270.mov"))).rgb_HW3.astype(np.float32).mean(-1)
    assert frame.shape == (568, 320)
    contrast_of_rows = np.abs(np.diff(frame, axis=1)).mean(1)
    assert contrast_of_rows[:200].mean() > 1.5 * contrast_of_rows[-200:].mean()
    dog = next(iter(open_video(real_videos / "moviepy" / "fire2.mp4"))).rgb_HW3.astype(np.float32)
    assert dog[200:400, 100:300].mean() < dog[200:400, -150:].mean()


def test_a_corrupted_file_says_where(real_videos):
    reader = open_video(real_videos / "decord" / "corrupted.mp4")
    list(reader)
    assert reader.damage.num_errors == 2
    assert [gap["after_frame"] for gap in reader.damage.gaps] == [29]
    assert reader.damage.gaps[0]["missing_frames"] == 1
