"""Clips of `decoding_clips`: damaged files, and files that are no videos."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.decoding_clip import NUM_FRAMES, Clip
from benchmarks.decoding_clips_codecs import B_FRAMES, X264, X265_CLOSED
from benchmarks.decoding_writer import blank_bytes, cut_short, flip_bytes, write_clip, write_sound

FAST_START = {"movflags": "faststart"}


def damaged(name: str, what: str, hurt: Callable[[Path], object], **settings) -> Clip:
    """A clip of which `hurt` takes something away."""

    def write(path: Path) -> None:
        write_clip(path, range(NUM_FRAMES), **({"options": B_FRAMES} | settings))
        hurt(path)

    return Clip(name, "damaged", what, write, None, damaged=True)


def no_video(name: str, what: str, write: Callable[[Path], object], refused: str) -> Clip:
    """A file that must be refused in a line that matches `refused`."""
    return Clip(name, "no video", what, write, (), refused=refused)


def clips() -> Iterator[Clip]:
    mpeg4 = {"codec": "mpeg4", "options": {"g": "24", "b": "2000000"}}
    fragments = {"movflags": "frag_keyframe+empty_moov"}
    yield damaged("cut.mp4", "cut at 70%, index first", lambda path: cut_short(path, 0.7), muxer_options=FAST_START)
    yield damaged("cut_fragmented.mp4", "cut at 70%, fragmented", lambda path: cut_short(path, 0.7), muxer_options=fragments)
    yield damaged("cut.mkv", "cut at 70%, .mkv", lambda path: cut_short(path, 0.7))
    yield damaged("cut.avi", "cut at 70%, .avi", lambda path: cut_short(path, 0.7), **mpeg4)
    yield damaged("flipped.mp4", "wrong bytes, .mp4", flip_bytes, muxer_options=FAST_START)
    yield damaged("flipped.mkv", "wrong bytes, .mkv", flip_bytes)
    yield damaged("flipped.ts", "wrong bytes, .ts", flip_bytes)
    yield damaged("flipped.avi", "wrong bytes, .avi", flip_bytes, **mpeg4)
    hevc = {"codec": "libx265", "options": X265_CLOSED}
    yield damaged("flipped_hevc.mp4", "wrong bytes, HEVC", flip_bytes, muxer_options=FAST_START, **hevc)
    yield damaged("blanked.mp4", "a tenth is zeroes, .mp4", lambda path: blank_bytes(path, 0.5, 0.6), muxer_options=FAST_START)
    yield damaged("blanked.ts", "a tenth is zeroes, .ts", lambda path: blank_bytes(path, 0.5, 0.6))
    yield damaged("blanked.mkv", "a tenth is zeroes, .mkv", lambda path: blank_bytes(path, 0.5, 0.6))
    # A transport stream has neither an index nor a length: nothing in it says that the end is gone.
    yield Clip("cut.ts", "damaged", "cut at 70%, .ts", _cut_transport_stream, None)
    twice = tuple([*range(NUM_FRAMES)] * 2)
    yield Clip("joined.ts", "damaged", "two files joined, .ts", _joined, twice, times_known=False, damaged=True)
    refused = "expected {}x{} pixels as in the first frame, got {}x{}"
    yield no_video("size_changes.ts", "the frame size changes", _changing_size, refused.format(160, 96, 192, 112))
    yield no_video("zero_bytes.mp4", "0 bytes", lambda path: path.write_bytes(b""), r"got an empty file \(0 bytes\)")
    yield no_video("no_moov.mp4", "index cut off", _without_moov, "cannot open .*cut short")
    yield no_video("garbage.mp4", "random bytes", lambda path: path.write_bytes(bytes(range(256)) * 40), "FFmpeg cannot open")
    yield no_video("text.mp4", "text", lambda path: path.write_text("take 3 return 4\n" * 99), "expected a video")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n"
    yield no_video("pointer.mp4", "a Git-LFS pointer", lambda path: path.write_text(pointer), "Git-LFS pointer")
    yield no_video("sound.mp4", "audio only", write_sound, "expected a video stream, found only audio")
    song = "found only a cover picture, audio"
    yield no_video("song.m4a", "audio with a cover", lambda path: write_sound(path, "mp4", True), song)


def _cut_transport_stream(path: Path) -> None:
    write_clip(path, range(NUM_FRAMES), options=B_FRAMES)
    cut_short(path, 0.7)


def _joined(path: Path) -> None:
    write_clip(path, range(NUM_FRAMES), options=X264)
    path.write_bytes(path.read_bytes() * 2)


def _changing_size(path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        other = Path(folder) / "other.ts"
        write_clip(path, range(NUM_FRAMES // 2), options=X264)
        write_clip(other, range(NUM_FRAMES // 2), size=(192, 112), options=X264)
        path.write_bytes(path.read_bytes() + other.read_bytes())


def _without_moov(path: Path) -> None:
    write_clip(path, range(NUM_FRAMES), options=B_FRAMES)
    cut_short(path, 0.6)
