"""What check-videos finds, repairs, keeps and compares, on files made for it."""

import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from features.check import VideoCheck
from features.check_files import find_files
from features.check_quarantine import Quarantine
from features.check_run import CheckOptions, check_files
from features.decode import open_video
from features.frame_hashes import hash_file_name, read_frame_hashes
from tests.features.check_clips import write_cut, write_edited, write_jittered, write_late
from vjepa_loc.errors import ConfigError

ROOT = Path(__file__).parents[2]


def check(*paths: Path, jobs: int = 1, **options) -> dict[str, VideoCheck]:
    """By the file's name."""
    return {found.path.name: found for found in check_files(find_files(paths), CheckOptions(jobs=jobs, **options))}


def digests(path: Path) -> list[str]:
    return [hashlib.sha256(frame.rgb_HW3).hexdigest() for frame in open_video(path)]


@pytest.fixture
def bad_videos(tmp_path, clip_writer) -> Path:
    folder = tmp_path / "bad"
    folder.mkdir()
    clip_writer(folder / "good.mp4", audio=True)
    clip_writer(folder / "plain.ts", audio=True)
    clip_writer(folder / "xvid.avi", codec="mpeg4", options={"bf": "2"})
    clip_writer(folder / "bare.h264", muxer="h264")
    write_late(folder / "late.mp4")
    write_edited(folder / "edited.mp4")
    write_jittered(folder / "jittered.mkv")
    write_cut(folder / "cut.mkv")
    whole = clip_writer(folder / "nomoov.mp4").read_bytes()
    (folder / "nomoov.mp4").write_bytes(whole[: len(whole) // 2])
    return folder


def test_nothing_is_changed_without_being_told_to(bad_videos):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in bad_videos.iterdir()}
    found = check(bad_videos, jobs=2, cross_check=True)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in bad_videos.iterdir()} == before
    assert {name for name, row in found.items() if not row.ok} == {"jittered.mkv", "cut.mkv", "nomoov.mp4"}
    assert found["cut.mkv"].wrong.startswith("the stream ends at 3.600 s, its header says 8.000 s") and found["cut.mkv"].usable
    assert found["jittered.mkv"].wrong == "frames without a time, or with one that goes back"
    assert "FFmpeg cannot open" in found["nomoov.mp4"].wrong and not found["nomoov.mp4"].usable
    assert "edit list" in found["edited.mp4"].oddities[0] and found["edited.mp4"].num_frames == 32
    assert not found["good.mp4"].oddities and all(row.done == "" for row in found.values())


def test_copies_are_kept_beside_where_they_are_better(bad_videos):
    originals = {path.name: path.read_bytes() for path in bad_videos.iterdir()}
    found = check(bad_videos, jobs=2, remux=True)
    assert {path.name: path.read_bytes() for path in bad_videos.iterdir() if path.name in originals} == originals
    made = {path.name for path in bad_videos.iterdir()} - originals.keys()
    assert made == {
        "plain.remuxed.mp4", "xvid.remuxed.mp4", "bare.remuxed.mp4", "late.remuxed.mp4", "jittered.remuxed.mkv", "cut.remuxed.mkv"
    }
    assert found["good.mp4"].done == "" and found["nomoov.mp4"].done == "not repaired: there is nothing to copy"
    assert found["edited.mp4"].done.startswith("not repaired")
    for source, copy in [("plain.ts", "plain.remuxed.mp4"), ("xvid.avi", "xvid.remuxed.mp4"), ("cut.mkv", "cut.remuxed.mkv"),
                         ("late.mp4", "late.remuxed.mp4"), ("bare.h264", "bare.remuxed.mp4"), ("jittered.mkv", "jittered.remuxed.mkv")]:
        assert digests(bad_videos / source) == digests(bad_videos / copy), source
    again = check(bad_videos, jobs=2, remux=True)
    assert all(again[name].ok and again[name].oddities == () and again[name].done == "" for name in made)
    assert again["plain.ts"].done == "a repaired copy is there: plain.remuxed.mp4"
    assert not again["jittered.remuxed.mkv"].variable_rate and again["jittered.remuxed.mkv"].duration_s == pytest.approx(1.6)
    (bad_videos / "late.remuxed.mp4").write_bytes(originals["good.mp4"])
    assert "is there and is not a better copy" in check(bad_videos / "late.mp4", remux=True)["late.mp4"].done
    assert (bad_videos / "late.remuxed.mp4").read_bytes() == originals["good.mp4"]


def test_sound_comes_along(bad_videos):
    import av

    check(bad_videos / "plain.ts", remux=True)
    with av.open(str(bad_videos / "plain.remuxed.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
        assert sum(frame.samples for frame in container.decode(audio=0)) >= 16000


def test_a_replaced_file_keeps_its_name_and_the_original_is_kept(bad_videos, tmp_path):
    original, frames = (bad_videos / "late.mp4").read_bytes(), digests(bad_videos / "late.mp4")
    (bad_videos / "late.mp4").chmod(0o640)
    quarantine = Quarantine(tmp_path / "aside")
    found = check(bad_videos, remux=True, replace=True, quarantine=quarantine)
    row = found["late.mp4"]
    assert row.ok and not row.oddities and row.done.startswith("replaced: packets copied into a new container; was: edit list")
    assert digests(bad_videos / "late.mp4") == frames and (bad_videos / "late.mp4").read_bytes() != original
    assert (bad_videos / "late.mp4").stat().st_mode & 0o777 == 0o640
    place = quarantine.folder / bad_videos.relative_to("/") / "late.mp4"
    assert place.read_bytes() == original
    reason = json.loads(place.with_name("late.mp4.reason.json").read_text())
    assert reason["file"] == str(bad_videos / "late.mp4") and "edit list" in reason["was_wrong"]
    assert found["cut.mkv"].ok and "was: the stream ends at 3.600 s" in found["cut.mkv"].done
    assert (bad_videos / "plain.ts").exists() and (bad_videos / "plain.remuxed.mp4").exists(), "another kind of file has another name"
    assert not (bad_videos / "nomoov.mp4").exists() and found["nomoov.mp4"].done.endswith(f"moved to {place.with_name('nomoov.mp4')}")
    assert found["jittered.mkv"].ok and (place.with_name("jittered.mkv")).exists()


def test_a_quarantine_takes_what_cannot_be_used_and_says_why(bad_videos, tmp_path):
    junk = bad_videos / "nomoov.mp4"
    content = junk.read_bytes()
    found = check(bad_videos, quarantine=Quarantine(tmp_path / "aside"))
    assert "moved to" in found["nomoov.mp4"].done and found["nomoov.mp4"].ok is False
    (place,) = (tmp_path / "aside").rglob("nomoov.mp4")
    assert place.read_bytes() == content and not junk.exists()
    assert "FFmpeg cannot open" in json.loads(place.with_name("nomoov.mp4.reason.json").read_text())["was_wrong"]
    assert (bad_videos / "cut.mkv").exists(), "what can be used in part stays"
    junk.write_bytes(b"another")
    check(junk, quarantine=Quarantine(tmp_path / "aside"))
    assert {path.read_bytes() for path in (tmp_path / "aside").rglob("nomoov*.mp4")} == {content, b"another"}


def test_links_are_looked_at_and_never_changed(bad_videos, tmp_path):
    links = tmp_path / "links"
    links.mkdir()
    (links / "late.mp4").symlink_to(bad_videos / "late.mp4")
    (links / "nomoov.mp4").symlink_to(bad_videos / "nomoov.mp4")
    (links / "nowhere.mp4").symlink_to(bad_videos / "absent")
    (links / "folder").symlink_to(bad_videos)
    (links / "loop").symlink_to(links)
    before = {path: path.read_bytes() for path in bad_videos.iterdir()}
    rows = check_files(find_files([links]), CheckOptions(jobs=2, remux=True, replace=True, quarantine=Quarantine(tmp_path / "aside")))
    assert {path: path.read_bytes() for path in bad_videos.iterdir()} == before and not (tmp_path / "aside").exists()
    assert {path.name for path in links.iterdir()} == {"late.mp4", "nomoov.mp4", "nowhere.mp4", "folder", "loop"}
    assert len(rows) == 12 and len({row.path for row in rows}) == 12
    by_name = {row.path.name: row for row in rows if row.path.parent == links}
    assert "which is not there" in by_name["nowhere.mp4"].wrong
    reached = {row.path.name: row.done for row in rows if row.path.parent != links}
    assert "never changed" in reached["late.mp4"] and "never changed" in reached["nomoov.mp4"]
    assert sum(row.done.startswith("the same file as") for row in rows) == 2


def test_names_that_are_hard_to_handle(tmp_path, clip_writer):
    clip = clip_writer(tmp_path / "clip.mp4", num_frames=2).read_bytes()
    names = [b"-dash.mp4", b"comma, \"quote\".mp4", b"new\nline.mp4", b"not utf-8 \xff.mp4", b"esc\x1b[31m.mp4", "ü漢.mp4".encode(), b"colon:x.mp4"]
    folder = tmp_path / "names"
    (folder / "below").mkdir(parents=True)
    for name in names:
        (folder / os.fsdecode(name)).write_bytes(clip)
        (folder / "below" / os.fsdecode(name)).write_bytes(clip[:700])
    rows = check_files(find_files([folder]), CheckOptions(
        jobs=2, remux=True, quarantine=Quarantine(tmp_path / "aside"), hash_folder=tmp_path / "hashes", cross_check=True,
    ))
    assert [row.ok for row in rows if row.path.parent == folder] == [True] * 7
    assert [row.ok for row in rows if row.path.parent != folder] == [False] * 7
    assert len(list((tmp_path / "hashes").iterdir())) == 7
    assert sorted(os.fsencode(path.name) for path in (tmp_path / "aside").rglob("*.mp4")) == sorted(names)
    assert not list((folder / "below").iterdir())


def test_every_frame_has_its_hash(clip, tmp_path):
    path = clip("turned.mp4", display_matrix=[0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30])
    row = check(path, hash_folder=tmp_path / "hashes")["turned.mp4"]
    assert row.rotation and row.hash_file == tmp_path / "hashes" / hash_file_name(path)
    assert read_frame_hashes(row.hash_file) == digests(path)
    lines = row.hash_file.read_text().splitlines()
    assert lines[:3] == ["#format: frame checksums", "#version: 2", "#hash: SHA256"] and f"#dimensions 0: {row.width}x{row.height}" in lines
    assert lines[-1].split(",")[:5] == ["0", "     760000", "     760000", "    40000", "    27648"]


def test_hashes_are_those_of_ffmpeg(clip, tmp_path):
    import av

    path = clip("clip.mp4")
    row = check(path, hash_folder=tmp_path / "hashes")["clip.mp4"]
    with av.open(str(path)) as container, av.open(str(tmp_path / "theirs"), "w", format="framehash", options={"hash": "sha256"}) as theirs:
        stream = theirs.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 144, 64, "rgb24"
        for frame in container.decode(video=0):
            theirs.mux(stream.encode(frame.reformat(format="rgb24")))
        theirs.mux(stream.encode(None))
    assert read_frame_hashes(row.hash_file) == read_frame_hashes(tmp_path / "theirs")


def test_decord_is_asked_for_every_pixel(bad_videos, clip):
    pytest.importorskip("decord", reason="decord has no wheel for this machine")
    found = check(bad_videos, clip("turned.mp4", display_matrix=[0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30]), cross_check=True)
    assert found["good.mp4"].testimony.verdict == found["turned.mp4"].testimony.verdict == "same"
    assert found["plain.ts"].testimony.known == "MPEG transport streams" and found["plain.ts"].ok
    edited = found["edited.mp4"].testimony
    assert edited.verdict == "differs" and edited.known == "an edit list" and (edited.num_frames, edited.first_differing) == (40, 32)
    assert found["nomoov.mp4"].testimony is None


def test_a_difference_that_decord_should_not_have_is_a_fault(clip, tmp_path):
    """The digests of another video stand for a decoder that gives other frames."""
    pytest.importorskip("decord", reason="decord has no wheel for this machine")
    from features.check_decord import ask_decord
    from features.check_protocol import AskDecord

    path = clip("clip.mp4")
    digest = [hashlib.sha256(frame.rgb_HW3).digest() for frame in open_video(path)]
    swapped = ask_decord(AskDecord(str(path), b"".join([*digest[:5], digest[6], digest[5], *digest[7:]])), lambda: None)
    assert (swapped.verdict, swapped.known, swapped.num_differing, swapped.first_differing) == ("differs", None, 2, 5)
    shorter = ask_decord(AskDecord(str(path), b"".join(digest[:-1])), lambda: None)
    assert shorter.verdict == "differs" and shorter.first_differing == 19 and "20 frames, not 19" in shorter.text
    assert VideoCheck(path, None, testimony=swapped).ok is False and "decord gives other frames" in VideoCheck(path, None, testimony=swapped).wrong


def test_what_is_no_file_and_what_is_no_video(tmp_path, clip_writer):
    folder = tmp_path / "mixed"
    (folder / "empty").mkdir(parents=True)
    os.mkfifo(folder / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket.mp4"))
        for name in ("notes.txt", "cover.JPG", "LICENSE", "README"):
            (folder / name).write_text("text")
        (folder / "unknown.xyz").write_text("no video")
        clip_writer(folder / "extensionless", muxer="mp4", num_frames=2)
        found = check(folder, folder / "notes.txt", folder / "unknown.xyz")
    assert found["pipe.mp4"].wrong == "expected a video, got a named pipe" and found["socket.mp4"].wrong == "expected a video, got a socket"
    assert {name for name, row in found.items() if row.ok is None} == {"cover.JPG", "LICENSE", "README"}
    assert found["cover.JPG"].left_out == "not decoded: an image by its name"
    assert found["extensionless"].ok and found["unknown.xyz"].ok is False
    assert found["notes.txt"].ok is False, "a file that is named is decoded"
    with pytest.raises(ConfigError, match="expected videos, found no file"):
        find_files([folder / "empty"])


def test_a_read_only_folder_costs_no_file_and_no_run(tmp_path, clip_writer):
    folder = tmp_path / "videos"
    folder.mkdir(mode=0o755)
    write_late(folder / "late.mp4")
    (folder / "junk.mp4").write_bytes(b"junk")
    tmp_path.chmod(0o755)
    folder.chmod(0o555)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from features.check_files import find_files\n"
        "from features.check_quarantine import Quarantine\n"
        "from features.check_run import CheckOptions, check_files\n"
        "folder = Path(sys.argv[1])\n"
        "if os.geteuid() == 0:\n"
        "    import ctypes\n"
        "    capabilities = ctypes.CDLL(None).prctl\n"
        "    for number in (0, 1, 2, 3): assert capabilities(24, number, 0, 0, 0) == 0\n"
        "    os.execv(sys.executable, [sys.executable, '-P', '-c', os.environ['SCRIPT'].replace('geteuid() == 0', 'geteuid() < 0'), str(folder)])\n"
        "for row in check_files(find_files([folder]), CheckOptions(jobs=1, remux=True, replace=True, quarantine=Quarantine(folder.parent / 'q'))):\n"
        "    print(row.path.name, row.done)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SCRIPT": script}
    answer = subprocess.run([sys.executable, "-P", "-c", script, str(folder)], env=environment, capture_output=True, text=True)
    folder.chmod(0o755)
    assert answer.returncode == 0, answer.stderr
    lines = sorted(answer.stdout.splitlines())
    assert lines[0].startswith("junk.mp4 ") and "not moved into the quarantine: Permission denied" in lines[0]
    assert lines[1].startswith("late.mp4 not repaired: ") and "cannot be written (Permission denied)" in lines[1]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_options_that_contradict_each_other(tmp_path):
    for wrong, message in (
        ({"jobs": 0}, "--jobs: expected 1 or more"), ({"replace": True}, "give --remux too"),
        ({"replace": True, "remux": True}, "say where with --quarantine DIR"),
    ):
        with pytest.raises(ConfigError, match=message):
            CheckOptions(**wrong)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="expected a folder"):
        Quarantine(tmp_path / "file")
