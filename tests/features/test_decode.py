import gc
import hashlib
import weakref
from fractions import Fraction

import av
import numpy as np
import pytest

from features.decode import open_video, probe_video
from vjepa_loc.errors import ConfigError, UnknownNameError, VideoError

CLIPS = {
    "h264.mp4": {},
    "h264.mkv": {},
    "h264.ts": {},
    "b_frames.mp4": {"options": {"bf": "3", "g": "12"}},
    "hevc_open_gop.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg2.mpg": {"codec": "mpeg2video"},
    "motion_jpeg.avi": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
    "vp8.webm": {"codec": "libvpx"},
    "vp9_alt_ref.webm": {"codec": "libvpx-vp9", "options": {"auto-alt-ref": "1", "lag-in-frames": "10", "deadline": "realtime"}},
    "one_frame.mp4": {"num_frames": 1},
    "odd_size.mkv": {"width": 147, "height": 71, "pixel_format": "yuv444p"},
    "with_audio.mp4": {"audio": True},
    "gray.mkv": {"codec": "ffv1", "pixel_format": "gray"},
    "ten_bits.mkv": {"codec": "ffv1", "pixel_format": "yuv422p10le"},
    "pictures.gif": {"codec": "gif", "pixel_format": "rgb8"},
    "ntsc.mp4": {"fps": Fraction(30000, 1001)},
}


@pytest.mark.parametrize("name", CLIPS)
def test_every_frame_once_and_in_order(clip, read_number, name):
    settings = CLIPS[name]
    reader = open_video(clip(name, **settings))
    frames = list(reader)
    num_frames, fps = settings.get("num_frames", 20), Fraction(settings.get("fps", 25))
    assert [frame.index for frame in frames] == list(range(num_frames))
    assert [read_number(frame.rgb_HW3) for frame in frames] == list(range(num_frames))
    assert reader.num_frames == num_frames
    assert reader.info.fps == fps and not reader.info.fps_nominal and not reader.info.variable_rate
    assert (reader.info.width, reader.info.height) == (settings.get("width", 144), settings.get("height", 64))
    np.testing.assert_allclose(reader.frame_time_s, np.arange(num_frames) / float(fps), atol=1e-3)
    assert [frame.time_s for frame in frames] == reader.frame_time_s.tolist()
    assert not reader.times_made_up and reader.damage is None
    assert all(frame.rgb_HW3.dtype == np.uint8 and frame.rgb_HW3.flags.c_contiguous for frame in frames)


def test_a_variable_rate_keeps_its_times(clip, read_number):
    ticks = [0, 1, 2, 5, 6, 12, 13, 14, 20, 21]
    reader = open_video(clip("variable.mp4", num_frames=10, frame_ticks=ticks))
    assert [read_number(frame.rgb_HW3) for frame in reader] == list(range(10))
    np.testing.assert_allclose(reader.frame_time_s, np.array(ticks) / 25, atol=1e-6)
    assert reader.info.variable_rate and reader.damage is None


def test_frames_before_an_edit_list_s_start_are_not_shown(clip, read_number, tmp_path):
    source, cut = clip("source.mp4", num_frames=40, options={"g": "20", "bf": "2"}), tmp_path / "cut.mp4"
    with av.open(str(source)) as given, av.open(str(cut), "w") as taken:
        stream = taken.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts - 12 * 512, packet.dts - 12 * 512, stream
                taken.mux(packet)
    reader = open_video(cut)
    assert [read_number(frame.rgb_HW3) for frame in reader] == list(range(12, 40))
    assert reader.frame_time_s[0] == 0 and reader.damage is None
    with pytest.raises(VideoError, match="cut.mp4: refused for decord, .*: an edit list; use extract.decoder=pyav"):
        open_video(cut, "decord")


@pytest.mark.parametrize("name", ["late.mp4", "late.mkv", "late.ts"])
def test_a_video_that_starts_late_begins_at_zero_and_lacks_nothing(clip, read_number, tmp_path, name):
    with av.open(str(clip("source.mp4"))) as given, av.open(str(tmp_path / name), "w") as taken:
        stream = taken.add_stream_from_template(given.streams.video[0])
        # Declared but silent, so that the file has a start of its own.
        taken.add_stream("aac", rate=16000)
        for packet in given.demux(video=0):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts + 50 * 512, packet.dts + 50 * 512, stream
                taken.mux(packet)
    reader = open_video(tmp_path / name)
    assert [read_number(frame.rgb_HW3) for frame in reader] == list(range(20))
    np.testing.assert_allclose(reader.frame_time_s, np.arange(20) / 25, atol=1e-6)
    assert reader.damage is None


def test_a_bare_bit_stream_has_a_nominal_rate(clip, read_number):
    path = clip("bare.h264", muxer="h264")
    reader = open_video(path)
    assert [read_number(frame.rgb_HW3) for frame in reader] == list(range(20))
    assert reader.info.fps == 25 and reader.info.fps_nominal and reader.times_made_up
    stated = open_video(path, nominal_fps=12.5)
    assert len(list(stated)) == 20
    np.testing.assert_allclose(stated.frame_time_s, np.arange(20) / 12.5)


ONE = 1 << 16
TURNS = {
    "clockwise": ([0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30], -90, "top right"),
    "counter-clockwise": ([0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30], 90, "bottom left"),
    "half": ([-ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30], -180, "bottom right"),
    "upside down mirror": ([ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30], 0, "bottom left"),
}


@pytest.mark.parametrize("name", TURNS)
def test_pictures_are_turned_as_players_show_them(clip, name):
    matrix, rotation, corner = TURNS[name]
    reader = open_video(clip("turned.mp4", num_frames=2, display_matrix=matrix))
    frame = next(iter(reader)).rgb_HW3
    assert reader.info.rotation == rotation
    assert frame.shape[:2] == ((144, 64) if abs(rotation) == 90 else (64, 144)) == (reader.info.height, reader.info.width)
    bright = {
        "top left": frame[:12, :12], "top right": frame[:12, -12:], "bottom left": frame[-12:, :12], "bottom right": frame[-12:, -12:]
    }
    assert {place for place, pixels in bright.items() if pixels.mean() > 180} == {corner}


def test_an_oblique_turn_is_refused(clip):
    with pytest.raises(VideoError, match="oblique.mp4: display matrix .* multiple of 90 degrees"):
        open_video(clip("oblique.mp4", display_matrix=[46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30]))


def add_cover(container: av.container.OutputContainer) -> None:
    cover = container.add_stream("mjpeg", rate=1)
    cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
    cover.disposition = av.stream.Disposition.attached_pic
    container.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
    container.mux(cover.encode(None))


def test_a_cover_is_not_the_video(clip, read_number, tmp_path):
    with_cover = tmp_path / "cover.mp4"
    with av.open(str(clip("plain.mp4"))) as given, av.open(str(with_cover), "w") as taken:
        stream = taken.add_stream_from_template(given.streams.video[0])
        add_cover(taken)
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                taken.mux(packet)
    with av.open(str(with_cover)) as container:
        assert len(container.streams.video) == 2
    reader = open_video(with_cover)
    assert [read_number(frame.rgb_HW3) for frame in reader] == list(range(20))


def test_sound_with_a_cover_is_no_video(tmp_path):
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=16000)
        add_cover(container)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16000
        container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
    with pytest.raises(VideoError, match="song.m4a: expected a video stream, found only a cover picture, audio"):
        open_video(path)


def test_unwanted_frames_are_counted_and_not_given(clip):
    reader = open_video(clip("clip.mp4"))
    assert [frame.index for frame in reader.frames(lambda index, time_s: index % 7 == 3)] == [3, 10, 17]
    assert reader.num_frames == 20 and len(reader.frame_time_s) == 20


def test_the_source_is_hashed(clip):
    path = clip("clip.mp4")
    reader = open_video(path)
    list(reader)
    assert reader.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (reader.source.name, reader.source.size) == ("clip.mp4", path.stat().st_size)
    assert reader.source.mtime_ns == path.stat().st_mtime_ns


def test_a_file_that_grows_while_it_is_read_is_refused(clip):
    path = clip("clip.mp4")
    reader = open_video(path)
    list(reader)
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(VideoError, match="clip.mp4: the file changed while it was decoded"):
        _ = reader.source


def test_results_are_known_only_after_the_end_and_a_reader_is_read_once(clip):
    reader = open_video(clip("clip.mp4"))
    with pytest.raises(RuntimeError, match="known only after the last frame"):
        _ = reader.num_frames
    list(reader)
    with pytest.raises(RuntimeError, match="read once"):
        list(reader)


def test_probing_reads_the_header_and_one_frame(clip):
    info = probe_video(clip("clip.mp4"))
    assert (info.width, info.height, info.fps, info.num_frames_in_header, info.codec) == (144, 64, 25, 20, "h264")
    assert info.duration_s == pytest.approx(0.8)


def test_a_relative_name_that_looks_like_an_option_or_a_protocol(clip, tmp_path, monkeypatch):
    source = clip("source.mp4").read_bytes()
    monkeypatch.chdir(tmp_path)
    for name in ("-dash.mp4", "http:clip.mp4", "with space and ü.mp4", "%03d.mp4"):
        (tmp_path / name).write_bytes(source)
        assert probe_video(name).num_frames_in_header == 20


def test_unknown_decoders_and_rates_are_refused(clip):
    with pytest.raises(UnknownNameError, match="decoder: expected one of pyav, decord, got 'pyaf'. Did you mean 'pyav'?"):
        open_video(clip("clip.mp4"), "pyaf")
    with pytest.raises(ConfigError, match="nominal_fps: expected a positive frame rate, got -1"):
        open_video(clip("clip.mp4"), nominal_fps=-1)


def test_frames_and_readers_are_freed_at_once(clip):
    path = clip("a.mp4", num_frames=40)
    gc.collect()
    gc.disable()
    try:
        with open_video(path) as reader:
            assert sum(1 for _ in reader) == 40
        freed = weakref.ref(reader)
        del reader
        # In cycles of references their megabytes would wait until the garbage collector has counted enough objects.
        assert freed() is None
        assert sum(type(thing) is av.VideoFrame for thing in gc.get_objects()) <= 1
    finally:
        gc.enable()
