from pathlib import Path

import pytest

from features.check import Probe, VideoCheck, check_videos, probe_for_formats
from vjepa_loc.dataset import Video
from vjepa_loc.errors import VideoError


@pytest.fixture(scope="module")
def checks(tmp_path_factory, clip_writer) -> dict[str, VideoCheck]:
    folder = tmp_path_factory.mktemp("videos")
    clip_writer(folder / "whole.mp4")
    (folder / "zero.mp4").touch()
    videos = [
        Video(id="whole", file=folder / "whole.mp4", fps=25.0, num_frames=20, width=144, height=64),
        Video(id="disagrees", file=folder / "whole.mp4", num_frames=21),
        Video(id="zero", file=folder / "zero.mp4"),
        Video(id="no file"),
    ]
    seen: list[int] = []
    rows = check_videos(videos, on_video=seen.append, jobs=2)
    assert seen == [0, 1, 2, 3, 4]
    return {video.id: row for video, row in zip(videos, rows, strict=True)}


def test_a_whole_video_is_described(checks):
    row = checks["whole"]
    assert row.ok and row.usable and row.problem is None and row.wrong == ""
    assert (row.num_frames, row.fps, row.width, row.height, row.rotation, row.codec) == (20, "25", 144, 64, 0, "h264")
    assert row.num_errors == 0 and row.damage is None and row.variable_rate is False and row.duration_s == 0.8


def test_what_is_wrong_is_said(checks):
    assert not checks["disagrees"].ok and not checks["disagrees"].usable
    assert "the dataset states num_frames 21, the video has 20" in checks["disagrees"].problem
    assert checks["disagrees"].num_frames == 20
    assert "expected a video, got an empty file" in checks["zero"].problem and checks["zero"].num_frames is None
    assert "'no file': the dataset names no file" in checks["no file"].problem
    assert checks["zero"].ok is False


def test_formats_are_told_what_decodes(clip, tmp_path):
    assert probe_for_formats(clip("clip.mp4")) == Probe(width=144, height=64, fps=25.0, num_frames=20)
    assert probe_for_formats(clip("bare.h264", muxer="h264")).fps is None
    (tmp_path / "zero.mp4").touch()
    with pytest.raises(VideoError, match="zero.mp4: expected a video"):
        probe_for_formats(Path(tmp_path / "zero.mp4"))
