"""Clips of `decoding_clips`: what encoders differ in."""

from collections.abc import Iterator
from fractions import Fraction

from benchmarks.decoding_clip import Clip, encoded

X264 = {"preset": "veryfast", "g": "48"}
B_FRAMES = X264 | {"bf": "3", "x264-params": "b-adapt=0:b-pyramid=normal:ref=4"}
OPEN_GOP = X264 | {"g": "24", "bf": "3", "x264-params": "open-gop=1:scenecut=0:b-adapt=0"}
X265_CLOSED = {"preset": "ultrafast", "x265-params": "log-level=none:open-gop=0:keyint=24:bframes=4"}
X265_OPEN = {"preset": "ultrafast", "x265-params": "log-level=none:open-gop=1:keyint=24:bframes=4:scenecut=0"}
VP9 = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "auto-alt-ref": "0"}
VP9_ALT_REF = {"deadline": "good", "cpu-used": "5", "lag-in-frames": "16", "auto-alt-ref": "1", "g": "60"}
AV1 = {"preset": "8", "crf": "10", "svtav1-params": "lp=1"}


def clips() -> Iterator[Clip]:
    yield from _h264()
    yield from _hevc_and_web()
    yield from _mpeg()
    yield from _intra()


def _h264() -> Iterator[Clip]:
    group = "H.264"
    for suffix in ("mp4", "mkv", "mov", "flv", "ts", "avi"):
        yield encoded(f"h264.{suffix}", group, f"no B-frames, .{suffix}", options=X264 | {"bf": "0"})
    for suffix in ("mp4", "mkv", "mov", "flv", "ts"):
        yield encoded(f"h264_b_frames.{suffix}", group, f"B-frames in a pyramid, .{suffix}", options=B_FRAMES)
    for suffix in ("mp4", "mkv", "ts"):
        yield encoded(f"h264_open_gop.{suffix}", group, f"open GOP, .{suffix}", num_frames=208, options=OPEN_GOP)
    yield encoded("h264_one_key_frame.mp4", group, "one key frame", options=X264 | {"g": "9999"})
    yield encoded("h264_intra_refresh.mp4", group, "intra refresh", options=X264 | {"x264-params": "intra-refresh=1"})
    yield encoded("h264_all_key_frames.mp4", group, "key frames only", options=X264 | {"g": "1"})
    yield encoded("h264_interlaced.mp4", group, "interlaced (MBAFF)", interlaced=True, options=X264 | {"x264-params": "tff=1"})
    yield encoded("h264_10_bit.mp4", group, "10 bit", pixel_format="yuv420p10le", options=X264)
    yield encoded("h264_422_10_bit.mp4", group, "4:2:2, 10 bit", pixel_format="yuv422p10le", options=X264)
    yield encoded("h264_422.mp4", group, "4:2:2", pixel_format="yuv422p", options=X264)
    yield encoded("h264_444.mkv", group, "4:4:4, 171x107", pixel_format="yuv444p", size=(171, 107), options=X264)
    yield encoded("h264_gray.mkv", group, "grey", pixel_format="gray", options=X264)
    yield encoded("h264_cropped.mp4", group, "cropped from whole blocks, 170x98", size=(170, 98), options=X264)
    yield encoded("h264_full_range.mp4", group, "full range", pixel_format="yuvj420p", options=X264, colours=(5, 2))
    yield encoded("h264_bt709.mp4", group, "BT.709", options=X264, colours=(1, 1))
    yield encoded("h264_ntsc.mp4", group, "30000/1001 frames/s", fps=Fraction(30000, 1001), options=X264)
    yield encoded("h264_120_fps.mkv", group, "120 frames/s in a clock of ms", fps=Fraction(120), options=X264)
    yield encoded("h264_one_frame.mp4", group, "one frame", num_frames=1, options=X264)
    yield encoded("h264_one_frame.ts", group, "one frame, .ts", num_frames=1, options=X264)
    yield encoded("h264_two_frames.mp4", group, "two frames", num_frames=2, options=X264)


def _hevc_and_web() -> Iterator[Clip]:
    group = "HEVC, VP8, VP9, AV1"
    yield encoded("hevc_closed_gop.mp4", group, "HEVC, closed GOP", codec="libx265", options=X265_CLOSED)
    for suffix in ("mp4", "mkv", "ts"):
        yield encoded(f"hevc_open_gop.{suffix}", group, f"HEVC, open GOP, .{suffix}", 208, codec="libx265", options=X265_OPEN)
    yield encoded("hevc_10_bit.mp4", group, "HEVC, 10 bit", codec="libx265", pixel_format="yuv420p10le", options=X265_CLOSED)
    yield encoded("vp8.webm", group, "VP8", codec="libvpx", options={"deadline": "realtime", "cpu-used": "8"})
    yield encoded("vp8_alt_ref.webm", group, "VP8 with alt-ref", codec="libvpx", options=VP9_ALT_REF)
    yield encoded("vp9.webm", group, "VP9", codec="libvpx-vp9", options=VP9)
    yield encoded("vp9_alt_ref.webm", group, "VP9 with alt-ref", codec="libvpx-vp9", options=VP9_ALT_REF)
    yield encoded("vp9_alt_ref.mp4", group, "VP9 with alt-ref, .mp4", codec="libvpx-vp9", options=VP9_ALT_REF)
    yield encoded("vp9_odd.webm", group, "VP9, 171x107", codec="libvpx-vp9", size=(171, 107), options=VP9)
    yield encoded("av1.mp4", group, "AV1, .mp4", codec="libsvtav1", options=AV1)
    yield encoded("av1.mkv", group, "AV1, .mkv", codec="libsvtav1", options=AV1)
    yield encoded("av1_10_bit.mp4", group, "AV1, 10 bit", codec="libsvtav1", pixel_format="yuv420p10le", options=AV1)


def _mpeg() -> Iterator[Clip]:
    group = "MPEG-1, MPEG-2, MPEG-4 and older"
    good = {"b": "2000000", "g": "24"}
    yield encoded("mpeg4.avi", group, "MPEG-4, .avi", codec="mpeg4", options=good)
    # In AVI a B-frame makes the container's clock run ahead of the pictures; FFmpeg's own command line shows the same frames.
    yield encoded("mpeg4_b_frames.avi", group, "MPEG-4 with B-frames, .avi", codec="mpeg4", options=good | {"bf": "2"})
    yield encoded("xvid.avi", group, "MPEG-4 tagged XVID, .avi", codec="mpeg4", tag="XVID", options=good)
    yield encoded("mpeg4.mp4", group, "MPEG-4 with B-frames, .mp4", codec="mpeg4", options=good | {"bf": "2"})
    yield encoded("mpeg4_odd.mkv", group, "MPEG-4, 171x107", codec="mpeg4", size=(171, 107), options=good)
    yield encoded("mpeg1.mpg", group, "MPEG-1, .mpg", codec="mpeg1video", options=good)
    yield encoded("mpeg2.mpg", group, "MPEG-2 with B-frames, .mpg", codec="mpeg2video", options=good | {"bf": "2"})
    yield encoded("mpeg2.ts", group, "MPEG-2 with B-frames, .ts", codec="mpeg2video", options=good | {"bf": "2"})
    yield encoded("mpeg2.vob", group, "MPEG-2, .vob", codec="mpeg2video", options=good)
    yield encoded("mpeg2_interlaced.mpg", group, "MPEG-2, interlaced", codec="mpeg2video", interlaced=True, options=good)
    yield encoded("wmv2.wmv", group, "WMV 8, .wmv", codec="wmv2", options=good)
    yield encoded("flv1.flv", group, "Sorenson H.263, .flv", codec="flv", options=good)


def _intra() -> Iterator[Clip]:
    group = "key frames only"
    yield encoded("motion_jpeg.avi", group, "Motion JPEG, .avi", codec="mjpeg", pixel_format="yuvj420p", options={"q:v": "3"})
    yield encoded("motion_jpeg.mov", group, "Motion JPEG, .mov", codec="mjpeg", pixel_format="yuvj422p", options={"q:v": "3"})
    yield encoded("prores.mov", group, "ProRes 4:2:2, 10 bit", codec="prores_ks", pixel_format="yuv422p10le")
    yield encoded("ffv1.mkv", group, "FFV1", codec="ffv1")
    yield encoded("ffv1_rgb.mkv", group, "FFV1, RGB", codec="ffv1", pixel_format="bgr0")
    yield encoded("huffyuv.avi", group, "HuffYUV, .avi", codec="huffyuv", pixel_format="yuv422p")
    yield encoded("raw.avi", group, "uncompressed, .avi", codec="rawvideo", pixel_format="bgr24")
    yield encoded("png.mov", group, "PNG, .mov", codec="png", pixel_format="rgb24")
    yield encoded("pictures.gif", group, "GIF", codec="gif", pixel_format="rgb8")
    yield encoded("pictures.apng", group, "APNG", codec="apng", pixel_format="rgb24", muxer="apng")
