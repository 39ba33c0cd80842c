"""When a copy is better, and what must not be taken for a file that cannot be used."""

import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from features.check_files import find_files
from features.check_partial import is_partial, partial_file, partial_of, write_whole
from features.check_protocol import Look, Looked, Remux
from features.check_quarantine import FileState, Quarantine
from features.check_repair import repair, why_not_better
from features.check_run import CheckOptions, check_files
from features.check_serve import look
from features.decoders.reader import VideoInfo
from features.remux import remux
from features.schema import Damage, Source
from tests.features.check_clips import copy_packets
from tests.features.conftest import write_clip
from vjepa_loc.errors import VideoError, VideoReadError

INFO = VideoInfo(64, 48, 0, Fraction(25), False, False, 10, "h264", "mpegts", 0.4)
TS = Looked(
    INFO, "h264", 10, np.arange(10) / 25, False, None, Source(name="a.ts", size=1, mtime_ns=1, sha256="0" * 64), {}, ("a remark",),
    bytes(range(10)) * 32,
)
MP4 = replace(TS, oddities=())
BROKEN = replace(TS, damage=Damage(num_errors=3, gaps=(), messages=("broken",)))


@pytest.mark.parametrize(("before", "after", "reason"), [
    (TS, MP4, None),
    (TS, TS, "a copy changes nothing"),
    (BROKEN, BROKEN, "a copy has the same fault"),
    (BROKEN, MP4, None),
    (None, MP4, None),
    (None, BROKEN, "the copy is not whole either: broken"),
    (TS, replace(MP4, digests=MP4.digests[:-1] + b"x"), "the copy gives other frames"),
    (TS, replace(MP4, num_frames=9), "the copy gives 9 frames, the file 10"),
    (BROKEN, replace(MP4, num_frames=9), "the copy gives 9 frames, the file 10"),
    (TS, replace(MP4, info=replace(INFO, rotation=90)), "the copy is turned"),
    (TS, replace(MP4, frame_time_s=np.arange(10) / 24), "the copy shows frame 9 0.015 s apart"),
    (replace(TS, times_made_up=True), replace(MP4, frame_time_s=np.arange(10) / 24), None),
    (TS, replace(MP4, times_made_up=True), "a copy changes nothing"),
])
def test_a_copy_is_better_only_if(before, after, reason):
    found = why_not_better(before, after)
    assert found is None if reason is None else found.startswith(reason)


def test_a_disk_that_does_not_answer_is_no_reason_to_move_a_file():
    # The memory of this process at address 0 is a plain file that cannot be read.
    with pytest.raises(VideoReadError, match=r"cannot be read"):
        look(Look("/proc/self/mem"), lambda: None)


def test_a_file_that_takes_too_long_is_not_moved(clip, tmp_path):
    path = clip("clip.mp4", num_frames=100, width=640, height=480)
    options = CheckOptions(jobs=1, remux=True, quarantine=Quarantine(tmp_path / "aside"), deadline_s=1e-3)
    (row,) = check_files(find_files([path]), options)
    assert "no progress for 0.001 s" in row.wrong and row.done == ""
    assert path.exists() and not (tmp_path / "aside").exists()


def test_a_file_that_changed_meanwhile_is_left_alone(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"as it was decoded")
    state = FileState(path)
    path.write_bytes(b"as it is being written")
    with pytest.raises(VideoError, match="the file changed while it was checked"):
        Quarantine(tmp_path / "aside").take(path, state, {})
    assert path.read_bytes() == b"as it is being written" and not (tmp_path / "aside").exists()
    repaired = repair(None, path, None, state, None, None)
    assert repaired.done.startswith("not repaired: the file changed while it was checked") and os.listdir(tmp_path) == [path.name]


def test_unfinished_files(tmp_path):
    path = tmp_path / "report.csv"
    partial_of(path).write_bytes(b"a longer text, left by a run that was killed")
    with partial_file(path) as partial:
        assert partial.read_bytes() == b"" and is_partial(partial.name)
        with pytest.raises(VideoError, match="another check-videos is at work on it"), partial_file(path):
            pass
    assert not partial.exists()
    path.write_text("old")
    path.chmod(0o640)
    link = tmp_path / "link.csv"
    link.symlink_to(path)
    write_whole(link, "new")
    assert link.is_symlink() and path.read_text() == "new" and path.stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(tmp_path)) == ["link.csv", "report.csv"]


def test_leftovers_of_a_killed_run_are_listed_and_removed_when_told_to(tmp_path, clip_writer):
    clip_writer(tmp_path / "clip.mp4", num_frames=2)
    left = partial_of(Path(tmp_path / "gone.mp4"))
    left.write_bytes(b"half")
    rows = check_files(find_files([tmp_path]), CheckOptions(jobs=1))
    assert left.exists() and [row.left_out for row in rows] == ["left by a check-videos that was interrupted", None]
    with partial_file(tmp_path / "gone.mp4"):
        rows = check_files(find_files([tmp_path]), CheckOptions(jobs=1, remux=True))
        assert rows[0].done == "another check-videos is at work on it"
    left.write_bytes(b"half")
    assert check_files(find_files([tmp_path]), CheckOptions(jobs=1, remux=True))[0].done == "removed" and not left.exists()


def test_times_of_packets_of_which_one_is_broken(tmp_path):
    def broken(number: int, packet: av.Packet) -> None:
        if number == 5:
            packet.update(b"\xff" * packet.size)

    source = copy_packets(write_clip(tmp_path / "source.mkv", num_frames=20), tmp_path / "broken.mkv", broken)
    request = Remux(str(source), str(tmp_path / "copy.mkv"), "matroska", np.arange(20) / 25)
    with pytest.raises(VideoError, match="broken.mkv: packet 6 cannot be decoded .*unknown which packet has which time"):
        remux(request, lambda: None)
