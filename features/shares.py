"""Which videos of a dataset one of several processes does: every video in exactly one share, the shares equally long.

A share is `--shard I/N`, or what a launcher says in the environment: torchrun, a Slurm array, the tasks of srun. Everybody
works it out alone, so it depends on nothing but the videos, never on their order in the dataset file. Longest video first
into the share that has least (R. L. Graham, "Bounds on multiprocessing timing anomalies", 1969: at most 4/3 of the best).
"""

import hashlib
import heapq
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.errors import ConfigError, UnknownNameError, nearest_name

Unit = Literal["frames", "bytes", "videos"]

_SHARD = re.compile(r"(\d{1,9})/(\d{1,9})", re.ASCII)
_SLURM_ARRAY = "SLURM_ARRAY_TASK_ID"


@dataclass(frozen=True)
class Share:
    """Share `index` of `count`, counted from 0; `why` names what said so. Raises `ConfigError` for an index outside."""

    index: int
    count: int
    why: str

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ConfigError(
                f"{self.why}: expected a share I of N with 0 <= I < N (shares count from 0), got {self.index} of {self.count}"
            )

    def within(self, outer: "Share") -> "Share":
        """This share of the share `outer`: with 2 tasks in each of 3 jobs, task 1 of job 2 has share 5 of 6."""
        return Share(outer.index * self.count + self.index, outer.count * self.count, f"{outer.why} x {self.why}")


@dataclass(frozen=True)
class Lengths:
    """How long videos are, in `unit`: comparable with each other, so one unit for all. `of` is by video id."""

    unit: Unit
    of: Mapping[str, int]


def parse_shard(text: str) -> Share:
    """`I/N` of the command line. Raises `ConfigError`."""
    match = _SHARD.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"--shard: expected I/N with 0 <= I < N, such as 0/4 for the first of four, got {text!r}")
    return Share(int(match[1]), int(match[2]), f"--shard {match[0]}")


def find_share(flag: str | None, environment: Mapping[str, str] = os.environ) -> Share:
    """The share of this process: the flag, or else the environment, or else everything.

    In the environment a Slurm array (`SLURM_ARRAY_TASK_ID`) multiplies with the processes of one job, which are those of
    torchrun (`RANK` of `WORLD_SIZE`) or else those of srun (`SLURM_PROCID` of `SLURM_NTASKS`). Raises `ConfigError` where
    these are incomplete or contradict each other.
    """
    if flag is not None:
        return parse_shard(flag)
    parts = [part for part in (_array_share(environment), _process_share(environment)) if part is not None]
    if not parts:
        return Share(0, 1, "no --shard")
    return parts[0] if len(parts) == 1 else parts[1].within(parts[0])


def _process_share(environment: Mapping[str, str]) -> Share | None:
    # torchrun under srun: there is one task of srun per machine, and torchrun counts the processes of all machines.
    if "RANK" in environment or "WORLD_SIZE" in environment:
        rank, count = _number(environment, "RANK"), _number(environment, "WORLD_SIZE")
        return Share(rank, count, f"RANK {rank} of WORLD_SIZE {count}")
    # A batch script itself has SLURM_PROCID 0 too; only what srun starts is one of several tasks.
    if "SLURM_STEP_ID" in environment and "SLURM_PROCID" in environment:
        rank, count = _number(environment, "SLURM_PROCID"), _number(environment, "SLURM_NTASKS")
        return Share(rank, count, f"SLURM_PROCID {rank} of SLURM_NTASKS {count}")
    return None


def _array_share(environment: Mapping[str, str]) -> Share | None:
    if _SLURM_ARRAY not in environment:
        return None
    task, count, first, step, last = (
        _number(environment, f"SLURM_ARRAY_TASK_{name}", default)
        for name, default in (("ID", None), ("COUNT", None), ("MIN", 0), ("STEP", 1), ("MAX", None))
    )
    index, remainder = divmod(task - first, max(step, 1))
    if remainder or first + (count - 1) * max(step, 1) != last:
        raise ConfigError(
            f"{_SLURM_ARRAY}: expected an evenly spaced array such as --array=0-{count - 1}, got task {task} of {count} from "
            f"{first} to {last}, whose place in it cannot be told; submit such an array, or give --shard I/N"
        )
    return Share(index, count, f"{_SLURM_ARRAY} {task}, {index} of {count} in its array")


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.strip().isdecimal():
        got = "it is not set" if text is None else f"got {text!r}"
        raise ConfigError(f"{name}: expected a whole number beside the other variables of this launcher, {got}; give --shard I/N")
    return int(text)


def expected_lengths(videos: Iterable[Video]) -> Lengths:
    """The stated numbers of frames where every video has one; else the sizes of the files where all are there; else 1 each."""
    videos = list(videos)
    frames = {video.id: video.num_frames for video in videos}
    if None not in frames.values():
        return Lengths("frames", frames)
    sizes = {video.id: _size_bytes(video.file) for video in videos}
    if None not in sizes.values():
        return Lengths("bytes", sizes)
    return Lengths("videos", dict.fromkeys(sizes, 1))


def _size_bytes(file: Path | None) -> int | None:
    """The bytes of a file, or of the files in a folder; None where there is nothing to be seen."""
    try:
        if file is None:
            return None
        if not file.is_dir():
            return file.stat().st_size
        with os.scandir(file) as entries:
            return sum(entry.stat().st_size for entry in entries if entry.is_file())
    except OSError:
        return None


def longest_first(videos: Iterable[Video], lengths: Lengths | None = None) -> list[Video]:
    """The videos by falling length, ids break ties: a long one that is begun last would keep everybody waiting."""
    videos = list(videos)
    lengths = lengths or expected_lengths(videos)
    return sorted(videos, key=lambda video: (-lengths.of[video.id], video.id))


def divide(videos: Iterable[Video], count: int, lengths: Lengths | None = None) -> list[list[Video]]:
    """`count` shares, each longest first; where there are fewer videos than shares some are empty."""
    videos = list(videos)
    lengths = lengths or expected_lengths(videos)
    shares: list[list[Video]] = [[] for _ in range(count)]
    # (length so far, number of videos, share): videos of no length are spread as well.
    loads = [(0, 0, index) for index in range(count)]
    for video in longest_first(videos, lengths):
        load, number, index = heapq.heappop(loads)
        shares[index].append(video)
        heapq.heappush(loads, (load + lengths.of[video.id], number + 1, index))
    return shares


def part_of_dataset(dataset: Dataset, split: str | None = None, ids: Sequence[str] = ()) -> Dataset:
    """The videos of a split, or with these ids, without events; all of them where neither is given.

    Raises `UnknownNameError` for a split or an id that the dataset does not have.
    """
    videos = list(dataset.videos.values()) if split is None else dataset.videos_of_split(split)
    for video_id in ids:
        if video_id not in dataset.videos:
            raise UnknownNameError(
                f"--video {video_id!r}: the dataset {dataset.path} has no such video.{nearest_name(video_id, dataset.videos)}"
            )
    chosen = {video.id: video for video in videos if not ids or video.id in ids}
    if not chosen and videos:
        raise ConfigError(f"--video and --split: expected videos of the split {split!r}, got {', '.join(ids)}")
    return Dataset(dataset.labels, chosen, path=dataset.path)


def dataset_of_share(dataset: Dataset, share: Share) -> tuple[Dataset, list[str]]:
    """The videos of `share`, in the dataset's order and without events, and lines for people, none where there is one share.

    A line ends with a digest of the division. Processes that print another one have divided otherwise (a file that one
    of them sees is another one, or not there), and some videos may be in no share.
    """
    if share.count == 1:
        return dataset, []
    videos = list(dataset.videos.values())
    lengths = expected_lengths(videos)
    # Beyond one share per video all are empty, however many a launcher speaks of.
    shares = divide(videos, min(share.count, max(1, len(videos))), lengths)
    ids = {video.id for video in shares[share.index]} if share.index < len(shares) else set()
    mine = [video for video in videos if video.id in ids]
    note = (
        f"share {share.index} of {share.count} (from 0; {share.why}): {len(mine)} of {len(videos)} videos, "
        f"{_total(mine, lengths)} of {_total(videos, lengths)} {lengths.unit}; division {_digest(shares, share.count)}"
    )
    return Dataset(dataset.labels, {video.id: video for video in mine}, path=dataset.path), [note]


def _total(videos: Iterable[Video], lengths: Lengths) -> str:
    return f"{sum(lengths.of[video.id] for video in videos):,}"


def _digest(shares: Sequence[Sequence[Video]], count: int) -> str:
    digest = hashlib.sha256(b"" if count == len(shares) else str(count).encode())
    for share in shares:
        for video in share:
            digest.update(video.id.encode(errors="surrogatepass") + b"\0")
        digest.update(b"\n")
    return digest.hexdigest()[:8]
