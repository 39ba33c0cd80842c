"""Files that are damaged or no videos: readable frames and a count, or one line. Never a traceback, never noise."""

import os
import subprocess
import sys

import av
import numpy as np
import pytest

from features.decode import open_video
from vjepa_loc.errors import VideoError, VideoReadError


def damage_bytes(path, seed: int = 0, num_bytes: int = 6) -> None:
    content = bytearray(path.read_bytes())
    for place in np.random.default_rng(seed).integers(len(content) // 3, len(content) * 9 // 10, num_bytes):
        content[place] ^= 0xFF
    path.write_bytes(bytes(content))


def cut_short(path, fraction: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("zero.mp4", b"", r"zero.mp4: expected a video, got an empty file \(0 bytes\)"),
        ("garbage.mp4", bytes(range(256)) * 40, "garbage.mp4: expected a video, got a file that FFmpeg cannot open"),
        ("notes.txt", b"take 3 return 4\n" * 50, "notes.txt: expected a video, got a text file"),
        ("pointer.mp4", b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n", "pointer.mp4: a Git-LFS pointer .*`git lfs pull`"),
    ],
)
def test_what_is_no_video_is_refused_in_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VideoError, match=message) as caught:
        open_video(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(VideoError, match="nowhere.mp4: no such video file"):
        open_video(tmp_path / "nowhere.mp4")


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoError, match="pipe.mp4: expected a video file, got a pipe"):
        open_video(tmp_path / "pipe.mp4")
    with pytest.raises(VideoError, match="/dev/null: expected a video file, got a device"):
        open_video("/dev/null")


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="a file whose reading fails with EIO is at hand on Linux only")
def test_a_disk_that_does_not_answer_may_answer_later():
    with pytest.raises(VideoReadError, match="mem: cannot be read .Input/output error.; check the disk or the network") as caught:
        open_video("/proc/self/mem")
    assert caught.value.passing


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(clip):
    path = clip("secret.mp4")
    path.chmod(0)
    with pytest.raises(VideoError, match="secret.mp4: cannot be read .*Permission denied"):
        open_video(path)


def test_audio_alone_is_no_video(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16000
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match="sound.mp4: expected a video stream, found only audio"):
        open_video(path)


def test_a_file_cut_before_its_index_is_refused(clip):
    path = clip("no_index.mp4")
    cut_short(path, 0.6)
    with pytest.raises(VideoError, match="no_index.mp4: .*cut short"):
        open_video(path)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("cut.mp4", {"muxer_options": {"movflags": "faststart"}}), ("cut.mkv", {}), ("cut.avi", {"codec": "mpeg4"})],
)
def test_a_file_cut_in_its_middle_gives_its_frames_and_says_so(clip, read_number, name, settings):
    path = clip(name, num_frames=100, **settings)
    cut_short(path, 0.7)
    reader = open_video(path)
    numbers = [read_number(frame.rgb_HW3) for frame in reader]
    assert 20 < len(numbers) < 100
    assert numbers[:-1] == list(range(len(numbers) - 1))
    lost = reader.damage.gaps[-1]
    assert lost["after_frame"] == reader.num_frames - 1
    assert lost["missing_frames"] == pytest.approx(100 - reader.num_frames, abs=1)
    assert any("header says 4.000 s" in message for message in reader.damage.messages)


@pytest.mark.parametrize(("name", "settings"), [("hurt.mp4", {}), ("hurt.ts", {}), ("hurt.avi", {"codec": "mpeg4"})])
def test_broken_packets_are_counted_and_the_rest_is_given(clip, name, settings):
    path = clip(name, num_frames=100, muxer_options={"movflags": "faststart"} if name.endswith("mp4") else None, **settings)
    damage_bytes(path)
    reader = open_video(path)
    assert len(list(reader)) >= 80
    assert reader.damage.num_errors > 0 and reader.damage.messages
    assert np.all(np.diff(reader.frame_time_s) > 0)


def test_damage_is_reproducible(clip):
    path = clip("hurt.mp4", num_frames=100, muxer_options={"movflags": "faststart"})
    damage_bytes(path)
    first, second = open_video(path), open_video(path)
    pixels = [[frame.rgb_HW3 for frame in reader] for reader in (first, second)]
    assert all(np.array_equal(a, b) for a, b in zip(*pixels, strict=True))
    assert first.damage == second.damage


def test_a_frame_size_that_changes_is_refused(tmp_path, clip):
    small, large = clip("small.ts"), clip("large.ts", width=160, height=96)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    with pytest.raises(VideoError, match="joined.ts: frame 20: expected 144x64 pixels as in the first frame, got 160x96"):
        list(open_video(joined))


def test_joined_transport_streams_have_one_clock(tmp_path, clip):
    part = clip("part.ts", num_frames=60).read_bytes()
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part + part)
    reader = open_video(joined)
    assert len(list(reader)) == 120
    assert np.all(np.diff(reader.frame_time_s) > 0) and reader.times_made_up
    assert reader.frame_time_s[-1] == pytest.approx(119 / 25, abs=0.1)


def test_nothing_is_written_to_standard_error(clip):
    path = clip("hurt.mp4", num_frames=100, muxer_options={"movflags": "faststart"})
    damage_bytes(path)
    script = "import sys; from features.decode import open_video; print(len(list(open_video(sys.argv[1]))))"
    root = os.path.join(os.path.dirname(__file__), "..", "..")
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, cwd=root, timeout=60)
    assert done.stderr == "" and int(done.stdout) >= 80
