"""Random clips, decoded and encoded again from their video files and compared with what a store holds of them.

Checksums say that the bytes are those that were written; this says that they are the tokens of these frames. Only the frames of
one clip are in memory.

How far a stored value may lie from the one computed again has two parts. What storing does to a value is known: int8 rounds to
half a code, a code being the token's largest `|x - mean| / std` divided by 127, times `std` (here from the tokens computed again,
so that a wrong scale hides nothing), and float16 rounds to 2^-11 of the value. How far two computations differ depends on where
they ran:

- *exact*: on a CPU, in float32, with the same versions of all libraries, only the order of sums may differ (threads, width of
  vectors). Every value has to lie within the rounding and 1e-4 of its channel's deviation.
- *close*: on anything else. A GPU chooses its kernels by batch and model; float32 there may multiply in TF32 (10 bits); the whole
  ViT-L in bfloat16 differs from float32 by a relative 1.3e-2. Every step's error, as a norm, has to lie within that of the
  rounding and a part of the step's own `x - mean`: 5e-3 where both computed in float32, else 3e-2.

A step of other frames or other weights is far outside; one frame later in a scene without motion is the same step.
Shapes: n steps, H x W cells, C channels.
"""

import random
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any, Literal

import numpy as np

from features.clips import ClipRule, PlannedClip, plan_clips
from features.clip_encoder import ClipEncoder, StoredPart
from features.encode_stage import Encoder
from features.pyramid import Pyramid
from features.recipe import ExtractConfig
from features.resume import changed_source
from features.store import Store
from features.stored_video import StoredVideo
from features.verify import Problem
from features.verify_video import CODE_SLACK, FLOAT16_EPS, FLOAT16_TINY
from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.errors import ConfigError, CorruptStoreError, DecodeTimeoutError, VideoError

Tolerance = Literal["exact", "close"]

_MAX_CODE = 127
# Of a channel's deviation: the order of sums in float32, through 24 layers.
_SUM_ORDER = 1e-4
_CLOSE = {"float32": 5e-3, "other": 3e-2}


@dataclass(frozen=True)
class ClipCheck:
    """One clip: its steps that were compared, at `level`, the finest that is stored. `max_error` is in raw units;
    `relative_error` is that of the worst step, `|stored - again| / |again - mean|`. `problem` is "" for a clip within the
    tolerance.
    """

    video_id: str
    start_step: int
    stop_step: int
    level: str
    max_error: float
    relative_error: float
    tolerance: Tolerance
    problem: str


@dataclass(frozen=True)
class ReencodeReport:
    """`left_out` are videos of which no clip could be drawn, with the reason; `seed` drew the clips."""

    clips: tuple[ClipCheck, ...]
    problems: tuple[Problem, ...]
    left_out: dict[str, str]
    seed: int

    def table(self) -> tuple[str, tuple[str, ...], list[tuple]]:
        """Title, columns and rows, for people."""
        rows = [
            (clip.video_id, f"{clip.start_step}..{clip.stop_step - 1}", clip.level, f"{clip.max_error:.3g}", f"{clip.relative_error:.2g}",
             clip.tolerance, "wrong" if clip.problem else "ok")
            for clip in self.clips
        ]
        columns = ("video", "steps", "level", "max error", "relative", "tolerance", "")
        return f"{len(rows)} clips encoded again, drawn by --seed {self.seed}", columns, rows

    def to_dict(self) -> dict[str, Any]:
        """What `store verify --reencode --json` prints besides the rest."""
        return {"clips": [asdict(clip) for clip in self.clips], "left_out": self.left_out, "clip_seed": self.seed}


def reencode_clips(
    dataset: Dataset, store: Store, encoder: Encoder, config: ExtractConfig, num_clips: int, video_ids: Iterable[str] | None = None,
    seed: int | None = None, on_clip: Callable[[int, int], object] = lambda num_done, num_all: None,
) -> ReencodeReport:
    """Compares `num_clips` random clips of the given videos (all by default), or all clips where there are fewer.

    The caller has made sure that encoder and recipe are the store's (`find_store`). A file that has changed since it was stored
    is a problem of its video. Raises `ConfigError` where no video has a file to compare with, `StoreError` for a store that
    cannot be read.
    """
    if num_clips < 1:
        raise ConfigError(f"reencode: expected a number of clips from 1 on, got {num_clips}")
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    summaries = store.summaries()
    steps = {video_id: summaries[video_id].steps for video_id in (sorted(summaries) if video_ids is None else video_ids)}
    left_out = videos_without_files(dataset, steps)
    drawn = _draw({video_id: num for video_id, num in steps.items() if video_id not in left_out}, store, num_clips, seed)
    checks: list[ClipCheck] = []
    problems: list[Problem] = []
    num_all = sum(map(len, drawn.values()))
    with ClipEncoder(store.encoding, encoder, config) as clip_encoder:
        for video_id, clips in drawn.items():
            try:
                found = _check_video(dataset.videos[video_id], store, clips, clip_encoder)
            except (VideoError, DecodeTimeoutError, CorruptStoreError) as error:
                file = store.commit_of(video_id).path
                problems.append(Problem(video_id, f"tokens.zarr/{file}", str(error)))
                continue
            for check in found:
                checks.append(check)
                on_clip(len(checks), num_all)
    problems += [
        Problem(check.video_id, f"tokens.zarr/{store.commit_of(check.video_id).path}/{check.level}", check.problem)
        for check in checks if check.problem
    ]
    return ReencodeReport(tuple(checks), tuple(problems), left_out, seed)


def videos_without_files(dataset: Dataset, video_ids: Iterable[str]) -> dict[str, str]:
    """The videos that cannot be decoded, and why. Raises `ConfigError` where that leaves none."""
    video_ids = list(video_ids)
    left_out = {video_id: reason for video_id in video_ids if (reason := _no_file(dataset, video_id))}
    if len(left_out) == len(video_ids):
        example = next(iter(left_out.items()), ("", "the store is empty"))
        raise ConfigError(f"no clip can be encoded again: {': '.join(filter(None, example))}; name the dataset that the store was made from")
    return left_out


def _no_file(dataset: Dataset, video_id: str) -> str:
    """Why a video cannot be decoded; "" where it can."""
    video = dataset.videos.get(video_id)
    if video is None:
        return f"not in the dataset {dataset.path}"
    if video.file is None:
        return "the dataset names no `file` for it"
    return "" if video.file.exists() else f"its file {video.file} is gone"


def _draw(steps: dict[str, int], store: Store, num_clips: int, seed: int) -> dict[str, list[PlannedClip]]:
    """Video id -> its clips that were drawn, in order; every clip of every video is equally likely."""
    rule = ClipRule.of(store.encoding)
    plans = {video_id: plan_clips(num * rule.tubelet, rule) for video_id, num in steps.items()}
    ends = list(accumulate(map(len, plans.values())))
    num_all = ends[-1] if ends else 0
    names = list(plans)
    drawn = defaultdict(list)
    for number in sorted(random.Random(seed).sample(range(num_all), min(num_clips, num_all))):
        video = bisect_right(ends, number)
        drawn[names[video]].append(plans[names[video]][number - ends[video]])
    return dict(drawn)


def _check_video(video: Video, store: Store, clips: list[PlannedClip], clip_encoder: ClipEncoder) -> list[ClipCheck]:
    stored = store.video(video.id)
    if changed := changed_source(video.file, stored.meta.source, clip_encoder.config.compare):
        raise VideoError(f"its file {video.file} has changed: {changed}; `extract --on-mismatch redo` replaces what is stored")
    comparison = _Comparison(stored, clip_encoder.encoder)
    planned = {clip.start: range(clip.keep_start, clip.keep_stop) for clip in clips}
    checks = []
    for again in clip_encoder.encode_clips(video, list(planned)):
        expected = planned.pop(again.clip.start_step)
        found = range(again.clip.start_step + again.clip.keep.start, again.clip.start_step + again.clip.keep.stop)
        if found != expected:
            planned[again.clip.start_step] = expected
            break
        checks.append(comparison.check(again, expected))
    if planned:
        raise VideoError(f"its file {video.file} does not give the {stored.num_steps} steps that are stored")
    return checks


class _Comparison:
    """What is stored of one video against clips that were encoded again."""

    def __init__(self, stored: StoredVideo, encoder: Encoder):
        self._stored = stored
        self._encoder = encoder
        self._level = next(level for level in ("tokens", "pool4", "pool2", "pool1") if level in stored.levels)
        self._pyramid = Pyramid(stored.space_grid.valid_HW, [self._level])

    def check(self, again: StoredPart, steps: range) -> ClipCheck:
        """`steps` are those of the video that are stored from this clip."""
        stored = self._stored
        tokens_nHWC = again.tokens_nHWC.cpu()
        pooled_nhwC = tokens_nHWC if self._level == "tokens" else self._pyramid.pool(tokens_nHWC)[self._level]
        values_nhwC = pooled_nhwC.numpy()
        stored_nhwC = stored.read(self._level, steps.start, steps.stop, out=np.empty(values_nhwC.shape, np.float32))
        error_nhwC = np.abs(stored_nhwC - values_nhwC)
        rounding_nhwC = self._rounding(tokens_nHWC.numpy(), values_nhwC)
        error_n, rounding_n, size_n = (_norms(v) for v in (error_nhwC, rounding_nhwC, values_nhwC - stored.mean))
        tolerance, part = self._tolerance(again.versions)
        if tolerance == "exact":
            wrong_n = (error_nhwC > rounding_nhwC + _SUM_ORDER * stored.std).any((1, 2, 3))
            allowed = "half a code and the rounding of sums"
        else:
            wrong_n = error_n > rounding_n + part * size_n
            allowed = f"half a code and a relative {part:g}"
        max_error, relative_error = float(error_nhwC.max()), float((error_n / np.maximum(size_n, np.finfo(np.float32).tiny)).max())
        problem = self._other_frames(again, steps)
        if not problem and wrong_n.any():
            first = steps.start + int(np.flatnonzero(wrong_n)[0])
            problem = (
                f"{int(wrong_n.sum())} of the steps {steps.start} to {steps.stop - 1} are not what their frames give, the first is "
                f"{first}: largest error {max_error:.3g}, relative error {relative_error:.3g}, allowed {allowed} ({tolerance})"
            )
        return ClipCheck(stored.id, steps.start, steps.stop, self._level, max_error, relative_error, tolerance, problem)

    def _other_frames(self, again: StoredPart, steps: range) -> str:
        stored, clip = self._stored, again.clip
        kept = slice(steps.start, steps.stop)
        first_seen, last_seen = stored.first_frame_seen[kept], stored.last_frame_seen[kept]
        same_frames = np.array_equal(stored.frames[kept], clip.frame_numbers_nu)
        if same_frames and (first_seen == clip.first_seen).all() and (last_seen == clip.last_seen).all():
            return ""
        return (
            f"steps {steps.start} to {steps.stop - 1}: expected frames {clip.frame_numbers_nu.min()} to {clip.frame_numbers_nu.max()} "
            f"of a clip that saw {clip.first_seen} to {clip.last_seen}, stored are others"
        )

    def _tolerance(self, versions: dict[str, str]) -> tuple[Tolerance, float]:
        """Which tolerance holds, and the relative part of a close one."""
        meta = self._stored.meta
        dtypes = {meta.dtype, str(self._encoder.dtype).removeprefix("torch.")}
        part = _CLOSE["float32" if dtypes == {"float32"} else "other"]
        is_cpu = meta.device == self._encoder.device.type == "cpu"
        return ("exact" if is_cpu and dtypes == {"float32"} and versions == meta.versions else "close"), part

    def _rounding(self, tokens_nHWC: np.ndarray, values_nhwC: np.ndarray) -> np.ndarray:
        """How far storing may have moved each value; broadcastable to `values_nhwC`."""
        meta, storage = self._stored.meta, self._stored.storage
        formats = [*meta.earlier_formats, storage.number_format]
        peak_nHW1 = (np.abs(tokens_nHWC - self._stored.mean) / self._stored.std).max(-1, keepdims=True)
        if self._level != "tokens":
            # A mean moves by no more than the largest move of a token; pools of the encoder's own tokens are rounded once.
            peak_nHW1 = peak_nHW1.max((1, 2), keepdims=True)
            formats = [*(formats if self._level in meta.pools_of_stored_tokens else []), "float16"]
        half_a_code_nhwC = 0.5 * CODE_SLACK / _MAX_CODE * peak_nHW1 * self._stored.std
        return formats.count("int8") * half_a_code_nhwC + formats.count("float16") * FLOAT16_EPS * np.abs(values_nhwC) + FLOAT16_TINY


def _norms(values_nhwC: np.ndarray) -> np.ndarray:
    """One norm per step, of values that broadcast to (n, h, w, C)."""
    return np.sqrt((values_nhwC.astype(np.float64) ** 2).sum((1, 2, 3)))
