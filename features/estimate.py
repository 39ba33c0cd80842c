"""What an extraction will cost: clips, steps and bytes counted, the speed here measured on the real pipeline, that of a GPU derived.

`work_of` counts, `measure_here` runs the pipeline into a store that is removed, `derive_gpu` calculates. Clips and steps are
those of `features.clips`, bytes those of the writer's own specifications (`features.estimate_bytes`).
"""

import os
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from features.clips import expected_clips, expected_steps
from features.disk_space import DiskSpace
from features.encode_stage import Encoder
from features.estimate_bytes import expected_bytes, grid_of
from features.estimate_gpu import EXPECTED_SHARE, Transformer
from features.extract import run_decisions
from features.encode_stage import Encoder
from features.outcome import ClipsEncoded, Outcome, Progress, StageTimes
from features.recipe import ExtractConfig
from features.resume import Action, Decision
from features.schema import Encoding, Storage
from features.store import temporary_store
from vjepa_loc.dataset import Video


# Stages that share cores wait for them without knowing it: what they take together is then near all there is.
_CORES_ARE_TAKEN = 0.85
# An encoder that waits for less than the rest is what the others wait for.
_ENCODER_IS_BUSY = 0.8


@dataclass(frozen=True)
class Work:
    """What there is to do. `num_frames` are those that are decoded, `num_bytes` is what the store grows by."""

    num_videos: int
    num_frames: int
    num_clips: int
    num_steps: int
    num_bytes: int
    hours_of_video: float | None

    @property
    def frames_per_clip(self) -> float:
        return self.num_frames / max(1, self.num_clips)

    @property
    def bytes_per_clip(self) -> float:
        return self.num_bytes / max(1, self.num_clips)


@dataclass(frozen=True)
class MeasuredRun:
    """The real pipeline for a short time, here. Rates do not count the time to the first clip.

    `busy` are the parts of each stage's own time in which it worked, `limit` says what held the run back; both are empty where
    nothing was timed.
    """

    device: str
    num_clips: int
    num_videos: int
    seconds: float
    first_clip_s: float
    clips_per_s: float
    frames_per_s: float
    busy: dict[str, float]
    limit: str
    failed: dict[str, str]

    def hours(self, work: Work) -> float:
        return work.num_clips / self.clips_per_s / 3600


@dataclass(frozen=True)
class DerivedGpu:
    """What a GPU could do: derived from operations, unmeasured. Ranges are (low, high), over the expected share of the ideal.

    `decode_cores` decode fast enough for all GPUs, None where decoding was not measured; `write_bytes_per_s` is what they write.
    `limit` names what holds back this machine's cores with such GPUs, if they were all there were.
    """

    gpu: str
    num_gpus: int
    tflops: float
    tflop_per_clip: float
    ideal_clips_per_s: float
    clips_per_s: tuple[float, float]
    hours: tuple[float, float]
    frames_per_s: tuple[float, float]
    write_bytes_per_s: tuple[float, float]
    decode_cores: tuple[float, float] | None
    limit: str


def work_of(videos: Sequence[Video], encoding: Encoding, storage: Storage) -> Work:
    """The sum over `videos`, of which each has a length (`features.estimate_lengths`)."""
    frames = clips = steps = total = 0
    seconds: float | None = 0.0
    for video in videos:
        frames += video.num_frames
        clips += expected_clips(encoding, video.num_frames, video.fps)
        steps += expected_steps(encoding, video.num_frames, video.fps)
        total += expected_bytes(encoding, storage, video)
        seconds = seconds + video.num_frames / video.fps if seconds is not None and video.fps else None
    return Work(len(videos), frames, clips, steps, total, None if seconds is None else seconds / 3600)


class _Meter:
    """Counts clips from the end of the first batch on: what came before is loading and warming up. Sets `stop` when the time is up."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self.stop = threading.Event()
        self.start_s = time.monotonic()
        self.first_s: float | None = None
        self.last_s = self.start_s
        self.num_clips = self.num_first = 0
        self.failed: dict[str, str] = {}
        self.videos: set[str] = set()

    def __call__(self, event: Progress) -> None:
        if isinstance(event, ClipsEncoded) and not self.stop.is_set():
            self.last_s = time.monotonic()
            self.videos.add(event.video_id)
            self.num_clips += event.num_clips
            if self.first_s is None:
                self.first_s, self.num_first = self.last_s, event.num_clips
            # Counted from the first clip, so that a slow encoder is measured too.
            if self.last_s - self.first_s >= self._seconds:
                self.stop.set()
        elif isinstance(event, Outcome) and event.status == "failed":
            self.failed[event.video_id] = event.reason


def measure_here(
    videos: Sequence[Video], work: Work, encoder: Encoder, recipe: ExtractConfig, storage: Storage, seconds: float
) -> MeasuredRun | None:
    """Extracts some of `videos`, drawn at random, for `seconds` after the first clip; None where not one clip came of it.

    Into a store in the system's folder for temporary files, which is removed. Raises `StoreError` where there is no room for it.
    """
    encoding, meter = recipe.encoding(encoder.spec), _Meter(seconds)
    order = random.Random(0).sample(list(videos), len(videos))
    decisions = (Decision(video, Action.EXTRACT) for video in order)
    # What is in hand when the time is up is dropped, not finished.
    recipe = recipe.model_copy(update={"stop_grace_s": 0.0, "retries": 0})
    with temporary_store(encoding, storage) as store:
        space = DiskSpace(store, recipe.min_free_gib)
        times = run_decisions(decisions, store, encoder, recipe, meter, meter.stop, space.check).times
    if meter.first_s is None:
        return None
    num_clips, span_s = meter.num_clips - meter.num_first, meter.last_s - meter.first_s
    if not num_clips or span_s <= 0:
        # One batch only: its time with the start-up is all there is.
        num_clips, span_s = meter.num_clips, meter.last_s - meter.start_s
    busy = busy_shares(times)
    rate = num_clips / span_s
    return MeasuredRun(
        device=str(encoder.device), num_clips=meter.num_clips, num_videos=len(meter.videos),
        seconds=round(meter.last_s - meter.start_s, 1), first_clip_s=round(meter.first_s - meter.start_s, 1),
        clips_per_s=rate, frames_per_s=rate * work.frames_per_clip, busy=busy,
        limit=what_limits(times, encoder.device.type == "cpu"), failed=meter.failed,
    )


def busy_shares(times: StageTimes) -> dict[str, float]:
    """The part of each stage's own time in which it worked and did not wait for its neighbours; without a stage that was not timed.

    Decoding is timed by the video: a run that no video has come through knows nothing of it.
    """
    own = {
        "decode": (times.decode_s, times.decode_blocked_s),
        "encode": (times.encode_s, times.encode_wait_s + times.encode_blocked_s),
        "write": (times.write_s, times.write_wait_s),
    }
    return {stage: round(busy / (busy + waited), 3) for stage, (busy, waited) in own.items() if busy > 0}


def what_limits(times: StageTimes, on_cpu: bool) -> str:
    """The cores, where all stages work on them and they are taken; otherwise what the encoder, in the middle, waited for."""
    cores, work = usable_cores(), {"decoding": times.decode_s, "encoding": times.encode_s, "writing": times.write_s}
    total = sum(work.values())
    if not times.encode_s:
        return ""
    if on_cpu and times.wall_s > 0 and total >= _CORES_ARE_TAKEN * cores * times.wall_s:
        return f"the {cores} cores: " + ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in work.items())
    if times.encode_s >= _ENCODER_IS_BUSY * (times.encode_s + times.encode_wait_s + times.encode_blocked_s):
        return "encode"
    return "decode" if times.encode_wait_s >= times.encode_blocked_s else "write"


def derive_gpu(
    work: Work, videos: Sequence[Video], encoding: Encoding, shape: Transformer, gpu: str, tflops: float, num_gpus: int,
    frames_per_core_s: float | None,
) -> DerivedGpu:
    """`num_gpus` GPUs that multiply bf16 matrices at `tflops`; one core decodes `frames_per_core_s` frames per second."""
    per_clip = _mean_tflop(videos, encoding, shape)
    ideal = tflops / per_clip
    rates = tuple(ideal * share * num_gpus for share in EXPECTED_SHARE)
    frames = tuple(rate * work.frames_per_clip for rate in rates)
    cores = None if not frames_per_core_s else tuple(rate / frames_per_core_s for rate in frames)
    here = usable_cores()
    limit = "encode" if cores is not None else "not known: how fast this machine decodes was not measured"
    if cores is not None and cores[0] > here:
        limit = f"decode, with the {here} cores of this machine: {here * frames_per_core_s / work.frames_per_clip:.1f} clips/s"
    return DerivedGpu(
        gpu=gpu, num_gpus=num_gpus, tflops=tflops, tflop_per_clip=per_clip, ideal_clips_per_s=ideal * num_gpus, clips_per_s=rates,
        hours=tuple(work.num_clips / rate / 3600 for rate in reversed(rates)), frames_per_s=frames,
        write_bytes_per_s=tuple(rate * work.bytes_per_clip for rate in rates), decode_cores=cores, limit=limit,
    )


def _mean_tflop(videos: Sequence[Video], encoding: Encoding, shape: Transformer) -> float:
    """Per clip, over some of the videos: a video shorter than a clip costs less, a grid of its own may cost less."""
    total = clips = 0.0
    for video in videos[:1000]:
        steps = expected_steps(encoding, video.num_frames, video.fps)
        clip_steps = encoding.clip_frames // encoding.tubelet
        number = expected_clips(encoding, video.num_frames, video.fps)
        length = clip_steps if encoding.fixed_clip else min(steps, clip_steps)
        total += number * shape.flops(length, grid_of(encoding, video), encoding.tubelet, encoding.patch_px)
        clips += number
    return total / clips / 1e12


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Estimate:
    """The whole answer of `cli.py estimate`: all videos, those that the store has not got yet, and how fast."""

    dataset: str
    encoder: str
    num_stored: int
    all: Work
    left: Work
    frames_per_core_s: float | None
    measured: MeasuredRun | None
    gpu: DerivedGpu | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """What `estimate --json` prints."""
        here = None if self.measured is None else asdict(self.measured) | {"hours": self.measured.hours(self.left)}
        gpu = None if self.gpu is None else asdict(self.gpu) | {"derived": True, "measured": False}
        return {
            "dataset": self.dataset, "encoder": self.encoder, "stored": self.num_stored,
            "all": asdict(self.all), "left": asdict(self.left),
            "decode_frames_per_core_s": self.frames_per_core_s, "here": here, "gpu": gpu, "notes": list(self.notes),
        }
