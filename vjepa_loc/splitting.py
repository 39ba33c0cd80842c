"""Drawing splits: which videos train, which validate, so that every label has its share in each and no group is torn apart.

Videos of one `group` always come into one part. Within that, parts are balanced by iterative stratification (Sechidis,
Tsoumakas and Vlahavas, 2011): the label that is rarest among what is left goes first, each time to the part that still
wants most of it. That is greedy and leaves ties open, so it is drawn several times and the most even drawing is kept.
A drawing depends on the seed and on the order of the videos alone.

Shapes: U units (groups, and videos without one), F things counted (videos, and events and videos per label), S parts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.errors import ConfigError, DatasetError, UnknownNameError, nearest_name
from vjepa_loc.splits import ALL_VIDEOS

NUM_DRAWINGS = 32


@dataclass(frozen=True)
class _Units:
    """What is drawn as a whole: its videos, and what they hold."""

    videos: list[list[str]]
    counts_UF: np.ndarray


def draw_splits(
    dataset: Dataset,
    shares: Mapping[str, float],
    seed: int = 0,
    by_group: bool = True,
    stratified: bool = True,
    keep: Sequence[str] = (),
) -> Dataset:
    """The same dataset with every video in one of the splits that `shares` names.

    Shares are relative (`{"train": 7, "val": 3}`). Videos that already have one of the splits `keep` stay there and
    are not drawn. Without `by_group` a video's group counts nothing; without `stratified` only numbers of videos do.
    Raises ConfigError for wrong shares, UnknownNameError for a kept split without videos, DatasetError where there are
    fewer groups than splits.
    """
    _check_shares(shares, keep)
    part_of = _draw(dataset, list(shares.values()), seed, by_group, stratified, keep)
    names = list(shares)
    return _with_splits(dataset, {video_id: names[part] for video_id, part in part_of.items()})


def draw_folds(
    dataset: Dataset,
    num_folds: int,
    seed: int = 0,
    by_group: bool = True,
    stratified: bool = True,
    keep: Sequence[str] = (),
) -> list[Dataset]:
    """`num_folds` datasets: in the n-th the n-th part is `val` and the rest `train`, so that each video is `val` once.

    The rest as `draw_splits`.
    """
    if num_folds < 2:
        raise ConfigError(f"--folds: expected 2 or more, got {num_folds}")
    _check_shares({"train": 1.0, "val": 1.0}, keep)
    part_of = _draw(dataset, [1.0] * num_folds, seed, by_group, stratified, keep)
    return [
        _with_splits(dataset, {video_id: "val" if part == fold else "train" for video_id, part in part_of.items()})
        for fold in range(num_folds)
    ]


def parse_shares(texts: Sequence[str]) -> dict[str, float]:
    """Shares from `train=0.8`, `val=0.2`. Raises ConfigError where an entry is no name with a number."""
    shares: dict[str, float] = {}
    for text in texts:
        name, equals, number = text.partition("=")
        try:
            share = float(number)
        except ValueError:
            share = None
        if not name or not equals or share is None or name in shares:
            raise ConfigError(f"--share: expected NAME=PART, such as train=0.8, each name once, got {text!r}")
        shares[name] = share
    return shares


def _check_shares(shares: Mapping[str, float], keep: Sequence[str]) -> None:
    for name, share in shares.items():
        if not (np.isfinite(share) and share > 0):
            raise ConfigError(f"share of {name!r}: expected a number above 0, got {share}")
        if name == ALL_VIDEOS:
            raise ConfigError(f"share of {name!r}: the name is reserved for every video, use another one")
        if name in keep:
            raise ConfigError(f"split {name!r} is to be kept and to be drawn; give it either a share or --keep")
    if len(shares) < 2:
        raise ConfigError(f"shares: expected two splits or more, got {len(shares)}; name another one with --share")


def _draw(dataset, shares, seed, by_group, stratified, keep) -> dict[str, int]:
    """The part of every video that is drawn."""
    if seed < 0:
        raise ConfigError(f"--seed: expected 0 or more, got {seed}")
    for split in keep:
        if split not in dataset.splits():
            raise UnknownNameError(
                f"--keep: no video has the split {split!r}, expected one of: {', '.join(dataset.splits()) or 'none'}."
                f"{nearest_name(split, dataset.splits())}"
            )
    drawn = [video for video in dataset.videos.values() if video.split not in keep]
    _check_groups(dataset, drawn, by_group, keep)
    units = _units(dataset, drawn, by_group, stratified)
    if len(units.videos) < len(shares):
        raise DatasetError(
            f"{len(drawn)} videos make {len(units.videos)} groups, expected at least {len(shares)}, one for each part; "
            "ask for fewer parts, or take videos one by one with --by video"
        )
    shares_S = np.asarray(shares, dtype=np.float64) / sum(shares)
    rng = np.random.default_rng(seed)
    drawings = [_drawing(units.counts_UF, shares_S, rng) for _ in range(NUM_DRAWINGS)]
    best = min(drawings, key=lambda part_U: _unevenness(units.counts_UF, shares_S, part_U))
    return {video_id: int(part) for videos, part in zip(units.videos, best, strict=True) for video_id in videos}


def _check_groups(dataset: Dataset, drawn: Sequence[Video], by_group: bool, keep: Sequence[str]) -> None:
    if not by_group:
        return
    kept = {video.group: video for video in dataset.videos.values() if video.split in keep and video.group is not None}
    for video in drawn:
        if video.group in kept:
            other = kept[video.group]
            raise DatasetError(
                f"group {video.group!r} would be torn apart: video {other.id!r} stays in {other.split!r}, "
                f"{video.id!r} is to be drawn; keep the split of both, or take videos one by one with --by video"
            )


def _units(dataset: Dataset, drawn: Sequence[Video], by_group: bool, stratified: bool) -> _Units:
    members: dict[tuple[str, str], list[Video]] = {}
    for video in drawn:
        key = ("group", video.group) if by_group and video.group is not None else ("video", video.id)
        members.setdefault(key, []).append(video)
    label_index = {label: index for index, label in enumerate(dataset.labels)}
    num_labels = len(dataset.labels) if stratified else 0
    counts_UF = np.zeros((len(members), 1 + 2 * num_labels))
    for row, videos in zip(counts_UF, members.values(), strict=True):
        row[0] = len(videos)
        for video in videos if stratified else ():
            if video.label is not None:
                row[1 + num_labels + label_index[video.label]] += 1
            for event in dataset.events_of(video.id):
                row[1 + label_index[event.label]] += 1
    return _Units([[video.id for video in videos] for videos in members.values()], counts_UF)


def _drawing(counts_UF: np.ndarray, shares_S: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The part (U,) of each unit."""
    wanted_SF = shares_S[:, None] * counts_UF.sum(axis=0)
    part_U = np.full(len(counts_UF), -1)
    # Random among equals: of units here, of parts below.
    order = rng.permutation(len(counts_UF))
    left_F = counts_UF.sum(axis=0)
    while (part_U < 0).any():
        # Videos are counted last: every unit has some.
        labels = np.flatnonzero(left_F[1:] > 0) + 1
        rarest = int(labels[np.argmin(left_F[labels])]) if len(labels) else 0
        having = order[(part_U[order] < 0) & (counts_UF[order, rarest] > 0)]
        for unit in having[np.argsort(-counts_UF[having, rarest], kind="stable")]:
            part = max(
                range(len(shares_S)),
                key=lambda one: (wanted_SF[one, rarest], wanted_SF[one, 0], rng.random()),
            )
            part_U[unit] = part
            wanted_SF[part] -= counts_UF[unit]
            left_F -= counts_UF[unit]
    return _fill_empty_parts(part_U, counts_UF, len(shares_S))


def _fill_empty_parts(part_U: np.ndarray, counts_UF: np.ndarray, num_parts: int) -> np.ndarray:
    """Gives each part without units the smallest unit of the part with most."""
    for part in range(num_parts):
        if not (part_U == part).any():
            largest = np.argmax(np.bincount(part_U, minlength=num_parts))
            units = np.flatnonzero(part_U == largest)
            part_U[units[np.argmin(counts_UF[units].sum(axis=1))]] = part
    return part_U


def _unevenness(counts_UF: np.ndarray, shares_S: np.ndarray, part_U: np.ndarray) -> float:
    """How far the parts are from their shares: relative deviations, squared, of everything that is there at all."""
    total_F = counts_UF.sum(axis=0)
    counted = total_F > 0
    got_SF = np.stack([counts_UF[part_U == part].sum(axis=0) for part in range(len(shares_S))])[:, counted]
    wanted_SF = shares_S[:, None] * total_F[counted]
    return float((((got_SF - wanted_SF) / np.maximum(wanted_SF, 1.0)) ** 2).sum())


def _with_splits(dataset: Dataset, split_of: Mapping[str, str]) -> Dataset:
    videos = {
        video_id: dataclasses.replace(video, split=split_of.get(video_id, video.split))
        for video_id, video in dataset.videos.items()
    }
    return dataclasses.replace(dataset, videos=videos)
