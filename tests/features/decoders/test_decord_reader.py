import re

import numpy as np
import pytest

from features.decode import open_video
from vjepa_loc.errors import VideoError

pytest.importorskip("decord", reason="decord has no wheel for this machine")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("h264.mp4", {}), ("b_frames.mkv", {"options": {"bf": "3"}}), ("one.mp4", {"num_frames": 1}),
        ("vp9.webm", {"codec": "libvpx-vp9", "options": {"auto-alt-ref": "1", "lag-in-frames": "10", "deadline": "realtime"}}),
        ("turned.mp4", {"display_matrix": [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]}),
        ("odd_size.mkv", {"width": 147, "height": 71, "pixel_format": "yuv444p"}),
    ],
)
def test_both_decoders_give_the_same_frames(clip, name, settings):
    path = clip(name, **settings)
    readers = open_video(path), open_video(path, "decord")
    for ours, theirs in zip(*readers, strict=True):
        assert ours.index == theirs.index
        assert np.array_equal(ours.rgb_HW3, theirs.rgb_HW3)
    assert np.allclose(readers[0].frame_time_s, readers[1].frame_time_s, atol=1e-6)
    assert readers[0].info.fps == readers[1].info.fps
    assert readers[1].damage is None and "decord" in readers[1].versions()


@pytest.mark.parametrize(
    ("name", "settings", "what"),
    [
        ("clip.ts", {}, "MPEG transport streams"),
        ("clip.mpg", {"codec": "mpeg2video"}, "MPEG program streams"),
        ("clip.avi", {"codec": "mpeg4"}, "AVI"),
        ("ten_bits.mkv", {"codec": "ffv1", "pixel_format": "yuv422p10le"}, "more than 8 bits per colour (yuv422p10le)"),
    ],
)
def test_files_that_it_gets_wrong_are_refused(clip, name, settings, what):
    message = f"{name}: refused for decord, which is not exact on such files: {what}; use extract.decoder=pyav"
    with pytest.raises(VideoError, match=re.escape(message)):
        open_video(clip(name, **settings), "decord")


def test_mirrored_pictures_are_refused(clip):
    mirrored = clip("mirrored.mp4", display_matrix=[-(1 << 16), 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30])
    with pytest.raises(VideoError, match="mirrored.mp4: refused for decord, .*: mirrored pictures; use extract.decoder=pyav"):
        open_video(mirrored, "decord")


def test_a_damaged_file_is_refused_where_decord_would_go_on(clip):
    path = clip("hurt.mp4", num_frames=100, muxer_options={"movflags": "faststart"}, options={"bf": "3"})
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 2, len(content), 997):
        content[place] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(VideoError, match="hurt.mp4: .*(damaged|cannot decode).*use extract.decoder=pyav"):
        list(open_video(path, "decord"))


def test_real_files_are_equal_or_refused(real_videos):
    for name in ("decord/video_90.mov", "moviepy/fire2.mp4", "torchcodec/h265_video.mp4", "moviepy/big_buck_bunny_432_433.webm"):
        path = real_videos / name
        for ours, theirs in zip(open_video(path), open_video(path, "decord"), strict=True):
            assert np.array_equal(ours.rgb_HW3, theirs.rgb_HW3), (name, ours.index)
    refused = {
        "torchcodec/av1_video.mkv": "AV1", "torchcodec/nasa_13013.mp4": "several video streams",
        "moviepy/pigs_in_a_polka.gif": "decord cannot open it",
    }
    for name, what in refused.items():
        with pytest.raises(VideoError, match=what):
            list(open_video(real_videos / name, "decord"))
