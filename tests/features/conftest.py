"""Clips whose frames carry their own number, so that tests see which frame a decoder gave; and an object storage service.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from features import clip_encoder, pipeline
from features.decode_worker import DecodeWorker
from features.encoders.tiny import Config, Encoder

BLOCK_PX = 8
NUM_BITS = 8


def numbered_frame(number: int, width: int, height: int) -> np.ndarray:
    """uint8 (height, width, 3): the number in black and white blocks in the middle rows, a white block marks the top left."""
    rgb_HW3 = np.full((height, width, 3), 90, np.uint8)
    rgb_HW3[: BLOCK_PX * 2, : BLOCK_PX * 2] = 250
    top = height // 2 - BLOCK_PX
    for bit in range(NUM_BITS):
        left = bit * 2 * BLOCK_PX
        rgb_HW3[top : top + 2 * BLOCK_PX, left : left + 2 * BLOCK_PX] = 235 if number >> bit & 1 else 20
    return rgb_HW3


def number_of(rgb_HW3: np.ndarray) -> int:
    """The inverse of `numbered_frame`, after lossy coding."""
    row = rgb_HW3.shape[0] // 2
    return sum(
        int(rgb_HW3[row, bit * 2 * BLOCK_PX + BLOCK_PX].mean() > 128) << bit for bit in range(NUM_BITS)
    )


def write_clip(
    path: Path,
    num_frames: int = 20,
    codec: str = "libx264",
    width: int = 144,
    height: int = 64,
    fps: Fraction | int = 25,
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    muxer: str | None = None,
    muxer_options: dict[str, str] | None = None,
    frame_ticks: Sequence[int] | None = None,
    display_matrix: Sequence[int] | None = None,
    audio: bool = False,
) -> Path:
    """Encodes numbered frames; `frame_ticks` are their times in frame periods (0, 1, 2, ... without it)."""
    fps = Fraction(fps)
    with av.open(str(path), "w", format=muxer, options=muxer_options or {}) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.options = options or {}
        stream.codec_context.thread_count = 1
        if frame_ticks is not None:
            stream.codec_context.time_base = 1 / fps
        if display_matrix is not None:
            stream.set_display_matrix(display_matrix)
        sound = container.add_stream("aac", rate=16000) if audio else None
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(numbered_frame(index, width, height), format="rgb24")
            frame.pts, frame.time_base = (frame_ticks[index] if frame_ticks is not None else index), 1 / fps
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 16000, 0
            container.mux(sound.encode(silence))
            container.mux(sound.encode(None))
    return path


@pytest.fixture(scope="session")
def clip_writer() -> Callable[..., Path]:
    """`write_clip` itself, for fixtures of a wider scope."""
    return write_clip


@pytest.fixture
def clip(tmp_path) -> Callable[..., Path]:
    """`clip("name.mp4", num_frames=..., ...)`: writes numbered frames below the test's own folder."""
    return lambda name, **settings: write_clip(tmp_path / name, **settings)


@pytest.fixture
def read_number() -> Callable[[np.ndarray], int]:
    return number_of


@pytest.fixture
def draw_number() -> Callable[[int, int, int], np.ndarray]:
    return numbered_frame


@pytest.fixture(scope="session")
def real_videos() -> Path:
    """The folder of awkward real videos; skips where it is absent."""
    folder = Path(__file__).parents[2] / ".." / "shared" / "data" / "videos"
    if not (folder / "probe.csv").is_file():
        pytest.skip("../shared/data/videos is not here")
    return folder.resolve()


@pytest.fixture(scope="session")
def kept_workers():
    """Decoding processes that outlive their extraction: starting one takes longer than most tests."""
    kept: list[DecodeWorker] = []
    yield kept
    for worker in kept:
        worker.close()


@pytest.fixture
def kept_decoding_processes(kept_workers, monkeypatch) -> None:
    """Every extraction of the test borrows its decoding processes, each for itself."""
    lent: set[int] = set()

    class Lent:
        """The first of the kept workers that nobody has; `close` gives it back."""

        def __init__(self, deadline_s: float):
            number = next(number for number in range(len(lent) + 1) if number not in lent)
            lent.add(number)
            if number == len(kept_workers):
                kept_workers.append(DecodeWorker(30))
            self._number, self._worker = number, kept_workers[number]

        def close(self) -> None:
            lent.discard(self._number)

        def __getattr__(self, name: str):
            return getattr(self._worker, name)

    for module in (pipeline, clip_encoder):
        monkeypatch.setattr(module, "DecodeWorker", Lent)


@pytest.fixture(scope="session")
def tiny() -> Encoder:
    return Encoder(Config())


@pytest.fixture(scope="session")
def running_service():
    # Late: moto and flask take a second to import.
    from tests.features.object_service import serve_objects

    with serve_objects() as service:
        yield service


@pytest.fixture
def service(running_service, monkeypatch, tmp_path):
    """An S3 service on loopback that the environment names, and a cache of this test's own."""
    running_service.reset()
    for name, value in {
        "AWS_ENDPOINT_URL": running_service.address, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "VJEPA_LOC_CACHE": str(tmp_path / "cache"),
        "VJEPA_LOC_CACHE_GIB": "10",
    }.items():
        monkeypatch.setenv(name, value)
    return running_service


@pytest.fixture
def url(service):
    """Of a store in a bucket of its own; there is nothing yet."""
    return f"s3://{service.new_bucket()}/features/of-a"
