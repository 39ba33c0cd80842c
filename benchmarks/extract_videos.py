"""Videos for measuring extraction: H.264 as a camera in a shop sends it, made with PyAV and kept in a folder between runs.

A still scene with the spectrum of natural pictures, things that move through it, the noise of a sensor; 25 frames per second,
one key frame every two seconds, no B-frames, 4 Mbit/s at 1280 x 720. A plain picture would decode several times as fast.
Shape legend: H x W pixels of a plane.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

FPS = 25
_GOP_FRAMES = 50
_BITS_PER_PX = 4_000_000 / (1280 * 720 * FPS)
_NUM_THINGS = 6
_NOISE_LEVELS = 1.5
# Grows whenever the pictures or the encoder's options change: files of older versions are then made anew.
_VERSION = 1


@dataclass(frozen=True)
class VideoSpec:
    """What decides a file's content."""

    num_frames: int
    width: int = 1280
    height: int = 720
    seed: int = 0

    @property
    def name(self) -> str:
        return f"v{_VERSION}_{self.width}x{self.height}_{self.num_frames}_{self.seed}.mp4"


def cached_videos(folder: Path, specs: list[VideoSpec]) -> list[Path]:
    """One file per spec below `folder`, made where it is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / spec.name for spec in specs]
    for spec, file in zip(specs, files, strict=True):
        if not file.exists():
            # Beside, then renamed: a run that is interrupted leaves no half video that the next one would take.
            beside = file.with_suffix(f".{os.getpid()}.mp4")
            make_video(beside, spec)
            beside.rename(file)
    return files


def cached_long_video(folder: Path, spec: VideoSpec, segment_frames: int = 20 * _GOP_FRAMES) -> Path:
    """A video of `spec.num_frames`, which repeats a segment: decoding it costs what a real one of its length costs, making it
    costs little.
    """
    file = folder / f"long_{spec.name}"
    if not file.exists():
        segment = cached_videos(folder, [VideoSpec(segment_frames, spec.width, spec.height, spec.seed)])[0]
        beside = file.with_suffix(f".{os.getpid()}.mp4")
        repeat_video(segment, beside, spec.num_frames)
        beside.rename(file)
    return file


def make_video(file: Path, spec: VideoSpec) -> None:
    """Draws and encodes the frames of `spec`."""
    scene = _Scene(spec)
    bit_rate = int(_BITS_PER_PX * spec.width * spec.height * FPS)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = spec.width, spec.height, "yuv420p"
        stream.bit_rate = bit_rate
        stream.codec_context.gop_size = _GOP_FRAMES
        stream.options = {
            "preset": "veryfast", "bf": "0", "sc_threshold": "0", "maxrate": str(bit_rate), "bufsize": str(2 * bit_rate),
        }
        for number in range(spec.num_frames):
            frame = av.VideoFrame.from_ndarray(scene.draw(number), format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def repeat_video(source: Path, target: Path, num_frames: int) -> None:
    """The packets of `source` over and over, times shifted, until there are `num_frames`; `source` starts with a key frame and
    has no B-frames, so that the last round can end anywhere.
    """
    with av.open(str(source)) as opened, av.open(str(target), "w") as container:
        stream = opened.streams.video[0]
        packets = [packet for packet in opened.demux(stream) if packet.size]
        copied = container.add_stream_from_template(stream)
        ticks_per_frame = packets[1].pts - packets[0].pts
        contents = [(bytes(packet), packet.is_keyframe) for packet in packets]
        for number in range(num_frames):
            content, is_keyframe = contents[number % len(contents)]
            packet = av.Packet(content)
            packet.stream, packet.time_base, packet.is_keyframe = copied, stream.time_base, is_keyframe
            packet.pts = packet.dts = number * ticks_per_frame
            packet.duration = ticks_per_frame
            container.mux(packet)


class _Scene:
    """Draws frames as planes of YUV 4:2:0, (3/2 H, W) uint8."""

    def __init__(self, spec: VideoSpec):
        self._spec = spec
        rng = np.random.default_rng(spec.seed)
        # Wider than the frame: the camera trembles a little.
        self._luma_HW = _texture(rng, spec.height + 16, spec.width + 16, 30.0)
        self._chroma_2HW = [_texture(rng, spec.height // 2 + 8, spec.width // 2 + 8, 10.0) for _ in range(2)]
        self._things = [_Thing(rng, spec) for _ in range(_NUM_THINGS)]
        self._noise_nHW = [
            np.round(rng.normal(0, _NOISE_LEVELS, (spec.height, spec.width))).astype(np.int16) for _ in range(7)
        ]

    def draw(self, number: int) -> np.ndarray:
        height, width = self._spec.height, self._spec.width
        # Even, so that luma and chroma move together.
        y, x = (8 + 2 * int(np.round(np.sin(number / period))) for period in (13.0, 29.0))
        luma_HW = self._luma_HW[y : y + height, x : x + width].copy()
        chroma_2HW = [plane[y // 2 : y // 2 + height // 2, x // 2 : x // 2 + width // 2].copy() for plane in self._chroma_2HW]
        for thing in self._things:
            thing.paint(number, luma_HW, chroma_2HW)
        noise_HW = self._noise_nHW[(number * 3) % len(self._noise_nHW)]
        noisy_HW = np.clip(luma_HW + np.roll(noise_HW, number * 37 % height, axis=0), 16, 235).astype(np.uint8)
        return np.concatenate([noisy_HW.ravel(), *(plane.ravel() for plane in chroma_2HW)]).reshape(-1, width)


class _Thing:
    """A textured rectangle that crosses the picture and comes back."""

    def __init__(self, rng: np.random.Generator, spec: VideoSpec):
        self._height = 2 * int(rng.integers(spec.height // 16, spec.height // 6))
        self._width = 2 * int(rng.integers(spec.width // 32, spec.width // 12))
        self._room = spec.height - self._height, spec.width - self._width
        self._luma_HW = _texture(rng, self._height, self._width, 35.0)
        self._chroma_2HW = [_texture(rng, self._height // 2, self._width // 2, 20.0) for _ in range(2)]
        self._phase, self._speed = rng.uniform(0, 2 * np.pi, 2), rng.uniform(0.01, 0.05, 2)

    def paint(self, number: int, luma_HW: np.ndarray, chroma_2HW: list[np.ndarray]) -> None:
        swing = (1 + np.sin(self._phase + self._speed * number)) / 2
        y, x = (2 * int(share * room / 2) for share, room in zip(swing, self._room, strict=True))
        luma_HW[y : y + self._height, x : x + self._width] = self._luma_HW
        for plane_HW, own_HW in zip(chroma_2HW, self._chroma_2HW, strict=True):
            plane_HW[y // 2 : (y + self._height) // 2, x // 2 : (x + self._width) // 2] = own_HW


def _texture(rng: np.random.Generator, height: int, width: int, levels: float) -> np.ndarray:
    """(H, W) uint8 around 128 with an amplitude that falls as 1 / frequency, as that of natural pictures does."""
    spectrum = np.fft.rfft2(rng.standard_normal((height, width)))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    plane_HW = np.fft.irfft2(spectrum / frequency, (height, width))
    return np.clip(128 + levels * plane_HW / plane_HW.std(), 16, 235).astype(np.uint8)
