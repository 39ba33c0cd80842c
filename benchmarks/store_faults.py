"""What becomes of a store when bits flip and writers are killed.

    python benchmarks/store_faults.py [--flips 200] [--videos 60] [--writers 3] [--kills 30] [--seed 0] [--folder DIR]

First one bit after the other is flipped, in any file under `tokens.zarr/` and `commits/`: is it found by `verify`, is its file
named, does reading what it lies in raise, do the other videos go on, and is the store green again when it is restored? Half of
the places are drawn by file, half by byte. Then several processes write the same videos, with claims, and are killed with
`kill -9` at random moments: is ever a video visible that is not complete, is ever one lost, and are the arrays in the end those
of a single run? Exit code 1 if any answer is wrong.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from features.commits import key_of
from features.schema import Encoding, Source, Storage, VideoMeta
from features.store import Store, create_or_open_store, open_store
from features.store_gc import collect_garbage
from features.stored_video import StoredVideo
from features.verify import verify_store
from features.zarr_layout import spec_of
from vjepa_loc.errors import StoreError
from vjepa_loc.spacegrid import SpaceGrid

GRID, CHANNELS, PATCH_PX, FPS = (6, 6), 24, 8, Fraction(25)
# Several shards, the last of them not full. Videos of writers that are killed take longer than starting a writer.
STEPS, KILLED_STEPS, SHARD_STEPS, STEPS_PER_APPEND = 40, 160, 16, 8
PLAIN = ("mean", "std", "frames", "first_frame_seen", "last_frame_seen", "frame_time_s")


def make_store(path: Path) -> Store:
    """An empty store of small tokens."""
    encoding = Encoding(
        family="simulated", digest="0" * 64, channels=CHANNELS, tubelet=2, patch_px=PATCH_PX,
        input_hw=(GRID[0] * PATCH_PX, GRID[1] * PATCH_PX), resize_version=1, clip_frames=16, mean=(0.5,) * 3, std=(0.2,) * 3,
    )
    return create_or_open_store(path, encoding, Storage(shard_steps=SHARD_STEPS))


def write_video(store: Store, video_id: str, num_steps: int = STEPS) -> bool:
    """Writes the video of that id, whose tokens follow from it, unless another process holds its claim."""
    claim = store.claim(video_id)
    if claim is None:
        return False
    # Not `hash`, which differs between processes.
    tokens_THWC = np.random.default_rng(list(video_id.encode())).normal(size=(num_steps, *GRID, CHANNELS)).astype(np.float32)
    spaces = SpaceGrid.build("stretch", 64, 48, GRID[0] * PATCH_PX, GRID[1] * PATCH_PX, PATCH_PX)
    meta = VideoMeta(
        id=video_id, source=Source(name=f"{video_id}.mp4", size=1, mtime_ns=1, sha256="0" * 64), num_frames=2 * num_steps, fps=FPS,
        width=64, height=48, grid=GRID, space_grid=spaces.to_dict(), decoder="none", device="cpu", dtype="float32",
    )
    frames = np.arange(2 * num_steps).reshape(num_steps, 2)
    with claim, store.writer(video_id, GRID, spaces.valid_HW, claim=claim) as writer:
        for start in range(0, num_steps, STEPS_PER_APPEND):
            part = slice(start, start + STEPS_PER_APPEND)
            writer.append(tokens_THWC[part], frames[part], frames[part, 0], frames[part, 1])
        return writer.commit(meta, np.arange(2 * num_steps) / float(FPS))


def arrays_of(video: StoredVideo) -> dict[str, np.ndarray]:
    """Every array of a video, each read with its checks."""
    codes_THWC, scale_THW = video.read_codes()
    pools = {level: video.read(level) for level in video.levels if level != "tokens"}
    return {"codes": codes_THWC, "scale": scale_THW, **pools, **{name: getattr(video, name) for name in PLAIN}}


def is_equal(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    """Whether two videos have the same arrays to the bit."""
    return first.keys() == second.keys() and all(np.array_equal(values, second[name]) for name, values in first.items())


@dataclass
class FlipCounts:
    """Of `flips` flipped bits; of those, `touched` lie where a reader looks. `wrong` says what should not have happened."""

    flips: int = 0
    found: int = 0
    named: int = 0
    touched: int = 0
    reads_raised: int = 0
    others_went_on: int = 0
    green_again: int = 0
    by_kind: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        all_found = self.found == self.named == self.green_again == self.others_went_on == self.flips
        return all_found and self.reads_raised == self.touched and not self.wrong


def flip_bits(store_path: Path, num_flips: int, seed: int) -> FlipCounts:
    """Flips, looks, and restores one bit after the other in a store that is whole."""
    chance, counts = random.Random(seed), FlipCounts()
    files = sorted(path for name in ("tokens.zarr", "commits") for path in (store_path / name).rglob("*") if path.is_file())
    sizes = [path.stat().st_size for path in files]
    store = open_store(store_path)
    expected = {video_id: arrays_of(store.video(video_id)) for video_id in store.video_ids()}
    owners = {store.commit_of(video_id).path: video_id for video_id in expected}
    readers = {path: _reader(store, path, store_path, owners) for path in files}
    for number in range(num_flips):
        path = chance.choice(files) if number % 2 else chance.choices(files, sizes)[0]
        place, bit = chance.randrange(path.stat().st_size), chance.randrange(8)
        name = str(path.relative_to(store_path))
        _flip(path, place, bit)
        problems = verify_store(store_path).problems
        counts.flips += 1
        counts.found += bool(problems)
        counts.named += name in {problem.file for problem in problems}
        owner, kind, read = readers[path]
        counts.by_kind[kind] += 1
        if read is not None:
            counts.touched += 1
            counts.reads_raised += _raises(lambda: read(place))
        others = {video_id: arrays for video_id, arrays in expected.items() if video_id != owner}
        counts.others_went_on += kind == "root" or all(
            is_equal(arrays, arrays_of(open_store(store_path).video(video_id))) for video_id, arrays in others.items()
        )
        _flip(path, place, bit)
        counts.green_again += verify_store(store_path).ok
        if name not in {problem.file for problem in problems}:
            counts.wrong.append(f"{name}, byte {place}, bit {bit}: {[str(problem) for problem in problems]}")
    return counts


def _flip(path: Path, place: int, bit: int) -> None:
    with open(path, "r+b", buffering=0) as file:
        file.seek(place)
        byte = file.read(1)[0] ^ 1 << bit
        file.seek(place)
        file.write(bytes([byte]))


def _raises(read: Callable[[], object]) -> bool:
    try:
        read()
    except StoreError:
        return True
    return False


def _reader(
    store: Store, path: Path, store_path: Path, owners: dict[str, str]
) -> tuple[str | None, str, Callable[[int], object] | None]:
    """For a file: the video it belongs to, its kind, and how a fresh reader reads what lies at a byte of it; None where no
    reader looks.
    """
    name = path.relative_to(store_path)
    if name.parts[0] == "commits":
        video_id = next(video_id for video_id in owners.values() if f"{key_of(video_id)}.json" == name.name)
        return video_id, "commit record", lambda place: open_store(store_path).video(video_id)
    if name == Path("tokens.zarr/zarr.json"):
        return None, "root", lambda place: open_store(store_path)
    if len(name.parts) <= 4:
        return None, "group above the videos", None
    video_id = owners["/".join(name.parts[1:4])]
    if len(name.parts) == 5:
        return video_id, "group of a video", lambda place: open_store(store_path).video(video_id)
    array = name.parts[4]

    def read(start: int, stop: int) -> object:
        video = open_store(store_path).video(video_id)
        if array in PLAIN:
            return getattr(video, array)
        return video.read_codes(start, stop) if array in ("tokens", "scale") else video.read(array, start, stop)

    if name.name == "zarr.json":
        return video_id, "metadata of an array", lambda place: read(0, 1)
    spec = spec_of(json.loads((path.parents[len(name.parts) - 6] / "zarr.json").read_bytes()))
    if spec.shard_steps is None:
        return video_id, "array in one chunk", lambda place: read(0, 1)
    first = int(name.parts[6]) * spec.shard_steps
    last = min(first + spec.shard_steps, spec.shape[0]) - 1

    def read_step(place: int) -> object:
        # The index belongs to every step.
        step = min(first + place // (spec.chunk_bytes + 4), last)
        return read(step, step + 1)

    return video_id, "shard", read_step


@dataclass
class KillCounts:
    """What was seen while writers were killed: `kills` of `kills_wanted` met a writer at work."""

    videos: int
    kills_wanted: int
    kills: int = 0
    observations: int = 0
    partial: int = 0
    lost: int = 0
    equal: int = 0
    debris_left: int = 0

    @property
    def ok(self) -> bool:
        return self.partial == self.lost == self.debris_left == 0 and self.equal == self.videos and self.kills == self.kills_wanted


def kill_writers(folder: Path, num_videos: int, num_writers: int, num_kills: int, seed: int) -> KillCounts:
    """Lets `num_writers` processes write the same videos, kills one at a time and starts it again, looks all the while.

    Where they are done before `num_kills` of them are killed, as on a busy machine, they write another store.
    """
    chance, counts = random.Random(seed), KillCounts(0, num_kills)
    ids = [f"video {number}" for number in range(num_videos)]
    reference = make_store(folder / "single run")
    started = time.monotonic()
    for video_id in ids:
        write_video(reference, video_id, KILLED_STEPS)
    # A writer lives about as long as a video takes, so that the kills meet it in every phase and the work goes on.
    pause_s = 0.15 * (time.monotonic() - started) / num_videos
    expected = {video_id: arrays_of(reference.video(video_id)) for video_id in ids}
    number = 0
    while counts.kills < num_kills:
        number += 1
        counts.videos += num_videos
        _kill_writers_of(make_store(folder / f"killed {number}").path, expected, num_writers, pause_s, chance, counts)
    return counts


def _kill_writers_of(
    path: Path, expected: dict[str, dict[str, np.ndarray]], num_writers: int, pause_s: float, chance: random.Random, counts: KillCounts
) -> None:
    """One store, written until it is whole; adds to `counts`."""
    writers: list = [None] * num_writers
    seen: set[str] = set()
    while seen != set(expected) or any(writer.is_alive() for writer in writers):
        for number, writer in enumerate(writers):
            if writer is None or (not writer.is_alive() and seen != set(expected)):
                writers[number] = _start_writer(path, chance.sample(list(expected), len(expected)))
        time.sleep(chance.uniform(0, pause_s))
        victim = chance.choice(writers)
        if counts.kills < counts.kills_wanted and victim.is_alive():
            os.kill(victim.pid, signal.SIGKILL)
            victim.join()
            counts.kills += 1
        # A look takes as long as several videos: the others would be done before the next kill.
        with _standing_still(writers):
            seen = _observe(path, expected, seen, counts)
    for writer in writers:
        writer.join()
    seen = _observe(path, expected, seen, counts)
    counts.equal += sum(is_equal(expected[video_id], arrays_of(open_store(path).video(video_id))) for video_id in seen)
    collect_garbage(path, lease_s=-1)
    left = [*(path / "staging").iterdir(), *(path / "claims").iterdir()]
    counts.debris_left += len(left) + len(list((path / "tokens.zarr/videos").glob("*/*/"))) - len(seen)
    counts.partial += not verify_store(path).ok


def _start_writer(path: Path, order: Sequence[str]) -> multiprocessing.process.BaseProcess:
    # A fork starts at once, so that a kill meets work and not the loading of libraries.
    process = multiprocessing.get_context("fork").Process(target=_write_all, args=(path, order))
    process.start()
    return process


@contextlib.contextmanager
def _standing_still(writers: Sequence[multiprocessing.process.BaseProcess]) -> Iterator[None]:
    alive = [writer for writer in writers if writer.is_alive()]
    for writer in alive:
        os.kill(writer.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for writer in alive:
            os.kill(writer.pid, signal.SIGCONT)


def _write_all(path: Path, order: Sequence[str]) -> None:
    # OpenMP's threads do not survive a fork.
    torch.set_num_threads(1)
    store = open_store(path)
    missing = list(order)
    while missing:
        for video_id in missing:
            if video_id not in store:
                write_video(store, video_id, KILLED_STEPS)
        missing = [video_id for video_id in missing if video_id not in store]


def _observe(path: Path, expected: dict[str, dict[str, np.ndarray]], seen: set[str], counts: KillCounts) -> set[str]:
    """A reader's look: whatever is visible has to be there whole, whatever was has to be there still."""
    store = open_store(path)
    visible = set(store.video_ids())
    counts.observations += 1
    counts.lost += len(seen - visible)
    for video_id in visible - seen:
        try:
            counts.partial += not is_equal(expected[video_id], arrays_of(store.video(video_id)))
        except StoreError:
            counts.partial += 1
    return seen | visible


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("flips", 200), ("videos", 60), ("writers", 3), ("kills", 30), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--folder", type=Path, help="existing folder on the disk to try; default: the system's for temporary files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        store = make_store(folder / "flipped")
        for video_id in ("a", "B", "c d"):
            write_video(store, video_id)
        flips = flip_bits(store.path, options.flips, options.seed)
        print(
            f"{flips.flips} bits flipped: {flips.found} found, {flips.named} named, {flips.green_again} green again when restored; "
            f"{flips.reads_raised} of {flips.touched} reads raised; {flips.others_went_on} times the other videos went on"
        )
        print("  " + ", ".join(f"{kind}: {number}" for kind, number in flips.by_kind.most_common()))
        print("".join(f"  {line}\n" for line in flips.wrong), end="")
        kills = kill_writers(folder, options.videos, options.writers, options.kills, options.seed)
        print(
            f"{options.writers} writers, {kills.videos} videos, {kills.kills} kill -9: {kills.partial} partial visible in "
            f"{kills.observations} looks, {kills.lost} lost, {kills.equal} equal to a single run's, {kills.debris_left} pieces of debris "
            "left by gc"
        )
    return int(not (flips.ok and kills.ok))


if __name__ == "__main__":
    sys.exit(main())
