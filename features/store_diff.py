"""Two stores compared: what they encode, which videos they hold, and by how much the values of a video differ.

Videos whose committed files have the same sizes and checksums are the same without being read; of the others the arrays
that differ are read, a sample of their steps by default.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from features.commits import Commit
from features.schema import LEVELS
from features.store import Store
from features.stored_video import StoredVideo

DESCRIBING_ARRAYS = ("mean", "std", "frames", "first_frame_seen", "last_frame_seen", "frame_time_s")
SAMPLED_STEPS = 64


@dataclass(frozen=True)
class ArrayDifference:
    """How two arrays differ. Where their shapes do, nothing else is known; otherwise `num_compared` steps (or entries)
    were compared, `num_differing` of them differ, by at most `max_error`, and by `relative_error`: the root of the sum
    of squared differences over that of a's squared distances from a's mean (per channel, for a level), None where a does
    not vary.
    """

    shape_a: tuple[int, ...]
    shape_b: tuple[int, ...]
    num_compared: int = 0
    num_differing: int = 0
    relative_error: float | None = None
    max_error: float | None = None

    def __str__(self) -> str:
        if self.shape_a != self.shape_b:
            return f"shape {self.shape_a} != {self.shape_b}"
        sample = f" (a sample of {self.shape_a[0]})" if self.num_compared < self.shape_a[0] else ""
        if not self.num_differing:
            return f"stored otherwise, equal values in all {self.num_compared}{sample}"
        relative = "" if self.relative_error is None else f"relative error {self.relative_error:.2g}, "
        error = f"{relative}at most {self.max_error:.3g}"
        return f"{self.num_differing} of {self.num_compared}{sample} differ: {error}"


@dataclass(frozen=True)
class VideoDifference:
    """What differs in a video that both stores hold; `storage` and `description` as `"field: a != b"`."""

    video_id: str
    storage: tuple[str, ...]
    description: tuple[str, ...]
    levels_only_in_a: tuple[str, ...]
    levels_only_in_b: tuple[str, ...]
    arrays: dict[str, ArrayDifference]

    def lines(self) -> list[str]:
        """One line per difference."""
        only = (("A", self.levels_only_in_a), ("B", self.levels_only_in_b))
        return [
            *self.storage,
            *(f"only in {store}: {', '.join(levels)}" for store, levels in only if levels),
            *self.description,
            *(f"{name}: {array}" for name, array in self.arrays.items()),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, without the id."""
        values = {name: list(value) for name, value in vars(self).items() if isinstance(value, tuple)}
        return values | {"arrays": {name: vars(array) for name, array in self.arrays.items()}}


@dataclass(frozen=True)
class StoreDifference:
    """`encoding` as `"field: a != b"`; ids of videos that one store lacks; the videos that differ; the number of those
    that are the same.
    """

    encoding: tuple[str, ...]
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    different: tuple[VideoDifference, ...]
    num_same: int

    @property
    def same(self) -> bool:
        return not (self.encoding or self.only_in_a or self.only_in_b or self.different)

    def to_dict(self) -> dict[str, Any]:
        """What `store diff --json` prints."""
        return {
            "same": self.same,
            "encoding": list(self.encoding),
            "only_in_a": list(self.only_in_a),
            "only_in_b": list(self.only_in_b),
            "different": {video.video_id: video.to_dict() for video in self.different},
            "num_same": self.num_same,
        }


def diff_stores(
    a: Store, b: Store, all_steps: bool = False, on_video: Callable[[int, int], object] = lambda num_done, num_all: None
) -> StoreDifference:
    """Compares every video that both hold, `all_steps` of it or a sample; `on_video` is called after each.

    Raises `CorruptStoreError` where what has to be compared cannot be read.
    """
    ids_a, ids_b = a.video_ids(), b.video_ids()
    common = sorted(set(ids_a) & set(ids_b))
    different = []
    for num_done, video_id in enumerate(common, start=1):
        if _stamps(a.commit_of(video_id)) != _stamps(b.commit_of(video_id)):
            different.append(_diff_videos(a.video(video_id), b.video(video_id), all_steps))
        on_video(num_done, len(common))
    return StoreDifference(
        encoding=tuple(a.encoding.diff(b.encoding)),
        only_in_a=tuple(sorted(set(ids_a) - set(ids_b))),
        only_in_b=tuple(sorted(set(ids_b) - set(ids_a))),
        different=tuple(different),
        num_same=len(common) - len(different),
    )


def _stamps(commit: Commit | None) -> Any:
    return None if commit is None else commit.generation_files


def _diff_videos(a: StoredVideo, b: StoredVideo, all_steps: bool) -> VideoDifference:
    arrays = {}
    for name in DESCRIBING_ARRAYS:
        if not _same_files(a, b, name):
            arrays[name] = _diff_describing(getattr(a, name), getattr(b, name))
    common = [level for level in LEVELS if level in a.levels and level in b.levels]
    for level in common:
        # Codes mean nothing without their scale, mean and std.
        names = [level] if level != "tokens" else ["tokens", "scale", "mean", "std"]
        if not all(_same_files(a, b, name) for name in names):
            arrays[level] = _diff_level(a, b, level, all_steps)
    return VideoDifference(
        video_id=a.id,
        storage=tuple(_fields(*(video.storage.model_dump(exclude={"levels"}) for video in (a, b)))),
        description=tuple(_fields(*(video.meta.model_dump(mode="json") for video in (a, b)))),
        levels_only_in_a=tuple(level for level in a.levels if level not in common),
        levels_only_in_b=tuple(level for level in b.levels if level not in common),
        arrays=arrays,
    )


def _same_files(a: StoredVideo, b: StoredVideo, name: str) -> bool:
    stamps = [
        {file: stamp for file, stamp in video.commit.generation_files.items() if file.startswith(f"{name}/")} for video in (a, b)
    ]
    return stamps[0] == stamps[1]


def _fields(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    """`"field: a != b"` for every leaf that differs."""
    found = []
    for name in dict.fromkeys([*a, *b]):
        mine, theirs = a.get(name), b.get(name)
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            found += _fields(mine, theirs, f"{prefix}{name}.")
        elif mine != theirs:
            found.append(f"{prefix}{name}: {mine!r} != {theirs!r}")
    return found


def _diff_describing(a: np.ndarray, b: np.ndarray) -> ArrayDifference:
    if a.shape != b.shape:
        return ArrayDifference(a.shape, b.shape)
    difference = np.abs(a.astype(np.float64) - b)
    power = np.square(a - a.astype(np.float64).mean()).sum()
    num_differing = int(difference.reshape(len(a), -1).any(1).sum())
    return ArrayDifference(
        a.shape, b.shape, len(a), num_differing, _relative(np.square(difference).sum(), power), float(difference.max())
    )


def _diff_level(a: StoredVideo, b: StoredVideo, level: str, all_steps: bool) -> ArrayDifference:
    shape = a.shape(level)
    if shape != b.shape(level):
        return ArrayDifference(shape, b.shape(level))
    num_steps = shape[0]
    steps = np.arange(num_steps)
    if not all_steps and num_steps > SAMPLED_STEPS:
        steps = np.unique(np.linspace(0, num_steps - 1, SAMPLED_STEPS).round().astype(int))
    values_a, values_b = np.empty((2, 1, *shape[1:]), np.float32)
    num_differing, largest, error, power = 0, 0.0, 0.0, 0.0
    for step in steps.tolist():
        a.read(level, step, step + 1, out=values_a)
        b.read(level, step, step + 1, out=values_b)
        difference = np.abs(values_a - values_b)
        num_differing += bool(difference.any())
        largest = max(largest, float(difference.max()))
        error += float(np.square(difference, dtype=np.float64).sum())
        power += float(np.square(values_a - a.mean, dtype=np.float64).sum())
    return ArrayDifference(shape, shape, len(steps), num_differing, _relative(error, power), largest)


def _relative(error: float, power: float) -> float | None:
    if error == 0:
        return 0.0
    return float(np.sqrt(error / power)) if power > 0 else None
