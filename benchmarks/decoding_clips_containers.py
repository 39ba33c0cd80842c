"""Clips of `decoding_clips`: what containers say about time, order, turns and further streams."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from benchmarks.decoding_clip import NUM_FRAMES, Clip, encoded
from benchmarks.decoding_clips_codecs import B_FRAMES, OPEN_GOP, X264, X265_OPEN
from benchmarks.decoding_writer import copy_packets, shift_by, write_clip

ONE = 1 << 16
FAR = 1 << 30
# Ticks of PyAV's and FFmpeg's .mp4 at 25 frames/s: 1/12800 s.
PERIOD = 512
# Long pauses, doubled rates and single early frames.
UNEVEN = tuple(int(tick) for tick in np.cumsum(np.random.default_rng(5).choice([1, 1, 1, 2, 3, 12], NUM_FRAMES)) - 1)
TURNS: dict[str, tuple[str, Sequence[int], Callable[[np.ndarray], np.ndarray], int]] = {
    # The display matrix turns what is coded; what is coded is the upright picture turned the other way.
    "turned_90.mp4": ("turned by 90 degrees", [0, ONE, 0, -ONE, 0, 0, 0, 0, FAR], lambda upright: np.rot90(upright, 1), -90),
    "turned_180.mp4": ("turned by 180 degrees", [-ONE, 0, 0, 0, -ONE, 0, 0, 0, FAR], lambda upright: np.rot90(upright, 2), -180),
    "turned_270.mov": ("turned by 270 degrees", [0, -ONE, 0, ONE, 0, 0, 0, 0, FAR], lambda upright: np.rot90(upright, 3), 90),
    "mirrored.mp4": ("mirrored left to right", [-ONE, 0, 0, 0, ONE, 0, 0, 0, FAR], lambda upright: upright[:, ::-1], 0),
    "upside_down.mp4": ("mirrored top to bottom", [ONE, 0, 0, 0, -ONE, 0, 0, 0, FAR], lambda upright: upright[::-1], 0),
    "transposed.mp4": ("turned and mirrored", [0, ONE, 0, ONE, 0, 0, 0, 0, FAR], lambda upright: upright.swapaxes(0, 1), 90),
}


def copied(
    name: str,
    group: str,
    what: str,
    numbers: Sequence[int] = tuple(range(NUM_FRAMES)),
    source: dict | None = None,
    source_name: str = "source.mp4",
    truth: dict | None = None,
    **settings,
) -> Clip:
    """A clip whose packets are those of another, with other times or other company: `settings` are those of `copy_packets`."""

    def write(path: Path) -> None:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            first = Path(folder) / source_name
            write_clip(first, range(NUM_FRAMES), **({"options": B_FRAMES} | (source or {})))
            copy_packets(first, path, **settings)

    return Clip(name, group, what, write, tuple(numbers), **(truth or {}))


def clips() -> Iterator[Clip]:
    yield from _times()
    yield from _layout()
    yield from _shown()


def _times() -> Iterator[Clip]:
    group = "times"
    for suffix in ("mp4", "mkv"):
        yield encoded(
            f"variable_rate.{suffix}", group, f"variable rate, .{suffix}", options=B_FRAMES, ticks=UNEVEN, variable=True
        )
    what = "cut by stream copy in the middle of a GOP"
    yield copied("edit_list.mp4", group, what, range(60, NUM_FRAMES), change=_from_frame(48, 60))
    yield copied(
        "edit_list_no_b_frames.mp4", group, "the same without B-frames", range(50, NUM_FRAMES), change=_from_frame(48, 50),
        source={"options": X264 | {"bf": "0"}},
    )
    yield copied("edit_list.mov", group, "the same, .mov", range(55, NUM_FRAMES), change=_from_frame(48, 55))
    for suffix, codec, options in (("mkv", "libx264", OPEN_GOP), ("mp4", "libx265", X265_OPEN), ("ts", "libx265", X265_OPEN)):
        # Packet 45 is the key picture 48; the pictures before it that follow it in the file lean on a part that is gone.
        yield copied(
            f"starts_in_open_gop.{suffix}", group, f"cut at a key frame of an open GOP, {codec[3:]}, .{suffix}",
            range(48, NUM_FRAMES), change=lambda packet, place: place >= 45, source={"codec": codec, "options": options},
            source_name=f"source.{suffix}",
        )
    yield copied("negative_start.mkv", group, "a first time below zero, .mkv", change=shift_by(-3 * PERIOD))
    yield copied(
        "late.mp4", group, "starts 2 s late (empty edit), .mp4", change=shift_by(50 * PERIOD), silent_audio=True
    )
    yield copied("late.mkv", group, "starts 2 s late, .mkv", change=shift_by(50 * PERIOD), silent_audio=True)
    yield copied("far_from_zero.ts", group, "starts at 20 h, .ts", change=shift_by(20 * 3600 * 12800))
    yield copied("far_from_zero.mkv", group, "starts at 20 h, .mkv", change=shift_by(20 * 3600 * 12800), silent_audio=True)
    # 33 bits of 1/90000 s: the clock starts again 3 s into the clip.
    yield copied("wrapping.ts", group, "the clock wraps, .ts", change=shift_by(((1 << 33) // 90000 - 3) * 12800))
    doubled = {"times_known": False, "variable": True}
    yield copied("doubled_time.mp4", group, "two frames with one time", change=_doubled_time, truth=doubled)
    bare = (("h264", "libx264", B_FRAMES), ("m2v", "mpeg2video", {"bf": "2"}), ("m4v", "mpeg4", {"bf": "2"}))
    for suffix, codec, options in bare:
        yield encoded(
            f"bare.{suffix}", group, f"no container and no times, .{suffix}", codec=codec, options=options,
            muxer={"m2v": "mpeg2video"}.get(suffix, suffix), fps_nominal=suffix == "h264",
        )


def _from_frame(first_packet: int, first_shown: int) -> Callable:
    """Keeps packets from a key frame on, with time zero at a later frame: what `ffmpeg -ss ... -c copy` writes."""

    def change(packet, place: int) -> bool:
        shift_by(-first_shown * PERIOD)(packet, place)
        return place >= first_packet

    return change


def _doubled_time(packet, place: int) -> None:
    if packet.pts == 90 * PERIOD:
        packet.pts = 89 * PERIOD


def _layout() -> Iterator[Clip]:
    group = "layout"
    fragments = "frag_keyframe+empty_moov+default_base_moof"
    yield encoded("fast_start.mp4", group, "index first", options=B_FRAMES, muxer_options={"movflags": "faststart"})
    yield encoded("fragmented.mp4", group, "fragmented, .mp4", options=B_FRAMES, muxer_options={"movflags": fragments})
    delayed = {"movflags": "frag_keyframe+delay_moov"}
    yield encoded("delayed_moov.mp4", group, "fragmented with an edit list", options=B_FRAMES, muxer_options=delayed)
    yield encoded("live.mkv", group, "no index, no duration, .mkv", options=B_FRAMES, muxer_options={"live": "1"})
    yield Clip("no_index.avi", group, "no index, .avi", _avi_without_index)
    yield Clip("wrong_index.avi", group, "wrong index, .avi", _avi_with_wrong_index)
    flags = {"flvflags": "no_duration_filesize"}
    yield encoded("no_duration.flv", group, "no duration, .flv", options=B_FRAMES, muxer_options=flags)
    yield encoded("with_audio.mp4", group, "with audio", options=B_FRAMES, audio_s=7.36)
    yield encoded("audio_first.mkv", group, "audio stored first, .mkv", options=B_FRAMES, audio_s=7.36, audio_first=True)
    yield encoded("audio_longer.mp4", group, "audio lasts 5 s longer", options=B_FRAMES, audio_s=12.36)
    yield encoded("audio_longer.mkv", group, "audio lasts 5 s longer, .mkv", options=B_FRAMES, audio_s=12.36)
    yield encoded("with_audio.ts", group, "with audio, .ts", options=B_FRAMES, audio_s=7.36)
    yield encoded("with_audio.webm", group, "with audio, .webm", codec="libvpx", options={"deadline": "realtime"}, audio_s=7.36)
    yield encoded("two_videos.mp4", group, "two video streams, the second larger", options=X264, second_video=(320, 192))
    yield encoded("two_videos.mkv", group, "the same, .mkv", options=X264, second_video=(320, 192))
    yield copied("cover_first.mp4", group, "a cover picture and the video", cover_first=True)


def _avi_without_index(path: Path) -> None:
    write_clip(path, range(NUM_FRAMES), codec="mpeg4", options={"g": "24"})
    path.write_bytes(path.read_bytes().replace(b"idx1", b"JUNK"))


def _avi_with_wrong_index(path: Path) -> None:
    write_clip(path, range(NUM_FRAMES), codec="mpeg4", options={"g": "24"})
    content = bytearray(path.read_bytes())
    place = content.rindex(b"idx1") + 8
    for entry in range(place + 40 * 16, place + 80 * 16, 16):
        # Flags, offset, size: the offsets of forty entries lie ten bytes too far.
        content[entry + 8] = (content[entry + 8] + 10) % 256
    path.write_bytes(bytes(content))


def _shown() -> Iterator[Clip]:
    group = "as displayed"
    for name, (what, matrix, undo, degrees) in TURNS.items():
        yield encoded(name, group, what, options=X264, turn=(matrix, undo), rotation=degrees)
    yield encoded("wide_samples.mp4", group, "sample aspect 16:11", options=X264, sample_aspect=Fraction(16, 11))
    yield encoded("wide_samples.mkv", group, "sample aspect 16:11, .mkv", options=X264, sample_aspect=Fraction(16, 11))
