"""What becomes of an extraction that is killed, stopped, or loses its decoding processes at random moments.

    python benchmarks/extract_faults.py [--videos 12] [--kills 30] [--stops 10] [--children 10] [--seed 0] [--quick] [--json]

Three rounds, each against a store of its own and a reference that was written without interruption. `kill -9`, by turns of the
process alone and of its whole group; SIGTERM and SIGINT, by turns; `kill -9` of a decoding process. After each the same command is
run again. Asked are: is ever a video visible that is not complete, is ever one lost or replaced, is a video encoded again after
it was committed (its ledger entries tell), does a decoding process survive, does a stopped run end in time and leave nothing
behind, and are the arrays in the end those of the uninterrupted run, bit by bit? Exit code 1 if any answer is wrong. Linux only.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from extract_lives import Life
from extract_memory import write_dataset_file
from extract_videos import VideoSpec, cached_videos
from features.store import open_store
from features.store_gc import collect_garbage
from features.verify import verify_store
from store_faults import arrays_of, is_equal
from store_table import progress
from vjepa_loc.errors import StoreError, VideoError

# Part of the faults that come at any moment from the start of the process; the others come while it is at work.
_EARLY_SHARE = 0.2
# Of the time from the first claim to the first commit, in which most faults come: few lives finish several videos, some do one.
_SPAN = 1.3
_STOP_S, _RUN_S, _LOOK_EVERY_S = 60.0, 1800.0, 0.01
_RETRY_SOON = ("--set", "extract.retry_wait_s=0.2", "--set", "extract.retries=20")


@dataclass
class FaultCounts:
    """What was seen in one round. `stores` extractions of `videos` videos each took the faults; `by_kind` says which they were.

    `again` are attempts at videos that were committed before; `replaced` videos that changed their generation.
    """

    wanted: int
    faults: int = 0
    at_work: int = 0
    lives: int = 0
    stores: int = 0
    videos: int = 0
    equal: int = 0
    looks: int = 0
    partial: int = 0
    lost: int = 0
    replaced: int = 0
    again: int = 0
    survivors: int = 0
    debris: int = 0
    by_kind: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        bad = self.partial + self.lost + self.replaced + self.again + self.survivors + self.debris + len(self.wrong)
        return not bad and self.equal == self.videos > 0 and self.faults == self.wanted

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "by_kind": dict(self.by_kind), "ok": self.ok}

    def __str__(self) -> str:
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(self.by_kind.items()))
        lines = [
            f"{self.faults} of {self.wanted} faults ({kinds}), {self.at_work} of them at work on videos, in {self.lives} lives of "
            f"{self.stores} extractions: {self.equal} of {self.videos} videos equal to the uninterrupted run's; {self.partial} "
            f"partial visible in {self.looks} looks, {self.lost} lost, {self.replaced} replaced, {self.again} encoded again after "
            f"their commit, {self.survivors} surviving processes, {self.debris} pieces of debris left by gc",
            *(f"  {line}" for line in self.wrong),
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Reference:
    """The uninterrupted run: its arrays, and how long it took to begin, and from there to its first commit."""

    dataset: Path
    arrays: dict[str, dict[str, np.ndarray]]
    begin_s: float
    first_s: float


class Watch:
    """What a reader and the ledger say of one store between lives; adds to `counts`."""

    def __init__(self, store: Path, reference: Reference, counts: FaultCounts):
        self._store = store
        self._reference = reference
        self._counts = counts
        self._writers: set[str] = set()
        self._encoded: Counter[str] = Counter()
        self.generations: dict[str, str] = {}

    def look(self) -> None:
        """Whatever is visible has to be whole, whatever was has to be there still, and be the same generation."""
        counts = self._counts
        counts.looks += 1
        if not (self._store / "tokens.zarr" / "zarr.json").exists():
            return
        store = open_store(self._store)
        visible = {video_id: store.commit_of(video_id).path for video_id in store.video_ids()}
        for video_id, generation in self.generations.items():
            counts.lost += video_id not in visible
            counts.replaced += visible.get(video_id, generation) != generation
        for video_id in visible.keys() - self.generations.keys():
            try:
                counts.partial += not is_equal(self._reference.arrays[video_id], arrays_of(store.video(video_id)))
            except StoreError:
                counts.partial += 1
        self.generations |= visible

    def read_ledger(self, committed_before: set[str]) -> None:
        """The entries of the life that has ended: only "skipped" may stand for a video that was committed before it, and an
        attempt that encoded a video to its end stands once per video in all.
        """
        if not (self._store / "ledger").is_dir():
            return
        entries = [entry for entry in open_store(self._store).ledger.entries() if entry["writer"] not in self._writers]
        self._writers |= {entry["writer"] for entry in entries}
        for entry in entries:
            video_id, encoded = entry["id"], "steps" in entry
            self._counts.again += entry["outcome"] != "skipped" and video_id in committed_before
            self._counts.again += encoded and self._encoded[video_id] > 0 and video_id not in committed_before
            self._encoded[video_id] += encoded

    def settle(self) -> None:
        """The store is whole: is it right, and does garbage collection leave nothing of the lives that ended early?"""
        counts, store = self._counts, open_store(self._store)
        counts.stores += 1
        counts.videos += len(self._reference.arrays)
        counts.equal += sum(is_equal(arrays, arrays_of(store.video(video_id))) for video_id, arrays in self._reference.arrays.items())
        if not verify_store(self._store).ok:
            counts.wrong.append("the finished store does not pass verify")
        collect_garbage(self._store, lease_s=-1)
        folders = [self._store / name for name in ("staging", "claims")]
        left = sum(len(list(folder.iterdir())) for folder in folders if folder.is_dir())
        counts.debris += left + len(list((self._store / "tokens.zarr" / "videos").glob("*/*/"))) - len(self.generations)


def run_reference(folder: Path, specs: list[VideoSpec], files: list[Path]) -> Reference:
    """Extracts the videos without interruption. Raises `VideoError` where that does not do them all."""
    dataset, store = folder / "dataset.json", folder / "reference"
    ids = write_dataset_file(dataset, files, specs)
    life = Life(dataset, store, folder)
    try:
        life.wait_for_work()
        begin_s = life.lived_s
        commits = store / "commits"
        while life.code is None and not (commits.is_dir() and any(commits.glob("*.json"))):
            time.sleep(0.01)
        first_s = life.lived_s - begin_s
        if life.wait(_RUN_S) != 0:
            raise VideoError(f"the uninterrupted extraction ended with code {life.code}: {life.said[-500:]}")
    finally:
        life.close()
    opened = open_store(store)
    return Reference(dataset, {video_id: arrays_of(opened.video(video_id)) for video_id in ids}, begin_s, first_s)


def interrupt(
    folder: Path, reference: Reference, num_faults: int, chance: random.Random,
    strike: Callable[[Life, FaultCounts, Callable[[], float]], None], *options: str,
) -> FaultCounts:
    """Extracts the videos again and again into the same store, with a fault in every life, until it is whole; and into another
    one where the faults are not all done by then. When they are, the last life is left alone.
    """
    counts = FaultCounts(num_faults)

    def pause_s() -> float:
        return chance.uniform(0, _SPAN * reference.first_s)

    while counts.faults < num_faults:
        store = folder / f"store {counts.stores}"
        watch = Watch(store, reference, counts)
        while watch.generations.keys() != reference.arrays.keys():
            before = set(watch.generations)
            life = Life(reference.dataset, store, folder, *options)
            counts.lives += 1
            try:
                if counts.faults < num_faults:
                    if chance.random() > _EARLY_SHARE:
                        life.wait_for_work()
                        delay_s = pause_s()
                    else:
                        delay_s = chance.uniform(0, reference.begin_s)
                    _sleep_and_look(life, watch, delay_s)
                    if life.code is None:
                        strike(life, counts, pause_s)
                code = life.wait(_RUN_S)
                if left := life.survivors():
                    counts.survivors += len(left)
                    counts.wrong.append(f"survived: {left}")
                # Below 0: ended by a signal, which was ours. An exit code that a stop asks for is judged with it.
                if code is None or code > 0 and strike is not stop:
                    counts.wrong.append(f"exit code {code}: {life.said.strip()[-300:]}")
                    # Whatever is wrong with it would be so in every life.
                    return counts
            finally:
                life.close()
            watch.look()
            watch.read_ledger(before)
        watch.settle()
    return counts


def _sleep_and_look(life: Life, watch: Watch, delay_s: float) -> None:
    """A look in the middle of the work as well."""
    time.sleep(delay_s / 2)
    before_s = time.monotonic()
    watch.look()
    time.sleep(max(0.0, delay_s / 2 - (time.monotonic() - before_s)))


def _note(life: Life, counts: FaultCounts, kind: str) -> None:
    counts.faults += 1
    counts.by_kind[kind] += 1
    counts.at_work += life.holds_claim()


def kill(life: Life, counts: FaultCounts, pause_s: Callable[[], float]) -> None:
    """`kill -9`, which nothing can be done about."""
    whole_group = counts.faults % 2 == 1
    _note(life, counts, "kill -9 of the whole group" if whole_group else "kill -9 of the process alone")
    life.strike(signal.SIGKILL, whole_group)


def stop(life: Life, counts: FaultCounts, pause_s: Callable[[], float]) -> None:
    """What a user or a scheduler sends: it has to end in time, say so, and give back what it held."""
    number = (signal.SIGTERM, signal.SIGINT)[counts.faults % 2]
    at_work = life.holds_claim()
    _note(life, counts, number.name)
    life.strike(number, whole_group=False)
    code = life.wait(_STOP_S)
    if code is None:
        counts.wrong.append(f"{number.name}: still running after {_STOP_S:g} s")
    elif at_work and code not in (0, 128 + number):
        counts.wrong.append(f"{number.name} at work: exit code {code}: {life.said.strip()[-300:]}")
    elif at_work and code and ("interrupted" if number is signal.SIGINT else number.name) not in life.said:
        counts.wrong.append(f"{number.name} is not told of: {life.said.strip()[-300:]}")
    if at_work and life.holds_claim():
        counts.wrong.append(f"{number.name}: claims are still held")
    if at_work and (left := [path.name for path in (life.store / "staging").iterdir()]):
        counts.wrong.append(f"{number.name}: left in staging: {left}")


def kill_children(life: Life, counts: FaultCounts, pause_s: Callable[[], float]) -> None:
    """`kill -9` of one decoding process, again and again: the extraction has to go on, and to try their videos again."""
    while life.code is None and counts.faults < counts.wanted:
        if children := life.decode_children():
            # It may have ended by itself since.
            with contextlib.suppress(ProcessLookupError):
                os.kill(children[counts.faults % len(children)].pid, signal.SIGKILL)
                _note(life, counts, "kill -9 of a decoding process")
        life.wait(pause_s() + _LOOK_EVERY_S)


ROUNDS = {"kills": (kill, ()), "stops": (stop, ()), "children": (kill_children, _RETRY_SOON)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("videos", 12), ("kills", 30), ("stops", 10), ("children", 10), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--cache", type=Path, help="where the videos are kept between runs; default: made anew")
    parser.add_argument("--folder", type=Path, help="existing folder on the disk to try; default: the system's for temporary files")
    parser.add_argument("--quick", action="store_true", help="small videos: 320x180 instead of 1280x720")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    size, lengths = ((320, 180), (150, 250)) if options.quick else ((1280, 720), (250, 500))
    chance = random.Random(options.seed)
    found = {}
    with tempfile.TemporaryDirectory(prefix="vjepa_loc_faults_", dir=options.folder) as name:
        folder = Path(name)
        specs = [VideoSpec(chance.randint(*lengths), *size, seed=number) for number in range(options.videos)]
        progress(f"making {options.videos} videos")
        files = cached_videos(options.cache or folder / "videos", specs)
        reference = run_reference(folder, specs, files)
        progress(f"uninterrupted: {reference.begin_s:.1f} s to begin, {reference.first_s:.1f} s more to the first commit")
        for kind, (strike, settings) in ROUNDS.items():
            if wanted := getattr(options, kind):
                (folder / kind).mkdir()
                found[kind] = interrupt(folder / kind, reference, wanted, chance, strike, *settings)
                progress(f"{kind}: {found[kind]}")
    if options.json:
        print(json.dumps({kind: counts.to_dict() for kind, counts in found.items()}, indent=1))
    else:
        print("\n".join(f"{kind}: {counts}" for kind, counts in found.items()))
    return int(not all(counts.ok for counts in found.values()))


if __name__ == "__main__":
    sys.exit(main())
