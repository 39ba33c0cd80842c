"""Collecting what no commit names: generations that were replaced or never committed, staging, claims, old manifests,
and what workers said of themselves.

Nothing is touched before it is older than the lease, except what a process of this machine left that is gone. The
generations of a video whose commit record is damaged are kept: the record may be restored.
"""

import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from features.claims import CLAIM_LEASE_S, LEASE_S, Owner, has_lapsed
from features.claims import FOLDER as CLAIMS
from features.commits import CommitFolder
from features.durable import readable_size, storage_errors
from features.manifest import Manifest
from features.places import Place, place_of
from features.store import ROOT_FILE
from features.worker_status_record import FOLDER as WORKERS
from vjepa_loc.errors import CorruptStoreError, StoreError


@dataclass(frozen=True)
class GcReport:
    """What was removed, or would be: paths relative to the store, and their bytes."""

    removed: tuple[str, ...]
    num_bytes: int

    def __str__(self) -> str:
        return f"{len(self.removed)} items, {readable_size(self.num_bytes)}"


def collect_garbage(path: Path | str, lease_s: float = LEASE_S, dry_run: bool = False) -> GcReport:
    """Removes debris that is older than `lease_s` from the store at `path`. Raises `StoreError` where it cannot be
    written.
    """
    place, removed, num_bytes = place_of(path), [], 0
    # Without its root or its commits, because they were moved or are not mounted, every video would look like debris.
    missing = place.missing_folders()
    if place.entry(ROOT_FILE) is None:
        missing.append(ROOT_FILE)
    if missing:
        raise StoreError(f"the store {place.path} has no {missing[0]}; nothing is removed: see that all of it is there")
    with storage_errors("collecting garbage", place.path):
        debris = [find(place, lease_s) for find in (_dead_generations, _dead_staging, _dead_claims, _old_workers)]
        for name in itertools.chain(*debris):
            removed.append(name)
            num_bytes += place.tree_bytes(name)
            if not dry_run:
                place.remove_tree(name)
        if not dry_run:
            Manifest(place, "gc").compact(lease_s)
    return GcReport(tuple(removed), num_bytes)


def _dead_generations(place: Place, lease_s: float) -> list[str]:
    generations = place.generations()
    # The commits are read after the folders are listed: a video that is committed in between is seen.
    commits, named, damaged = CommitFolder(place), set(), set()
    files = [entry.name for entry in commits.files()]
    for file, raw in zip(files, place.read_many(files), strict=True):
        try:
            if raw is not None:
                named.add(f"tokens.zarr/{commits.parse(file, raw).path}")
        except CorruptStoreError:
            damaged.add(Path(file).stem)
    return [
        tree.name for tree in generations
        if tree.name not in named and tree.name.split("/")[-2] not in damaged and tree.idle_s > lease_s
    ]


def _dead_staging(place: Place, lease_s: float) -> Iterator[str]:
    for tree in place.staged():
        if tree.idle_s > lease_s or _owner_is_gone(place.staging / Path(tree.name).name):
            yield tree.name


def _dead_claims(place: Place, lease_s: float) -> Iterator[str]:
    for entry in place.entries(CLAIMS):
        if has_lapsed(place, entry, min(lease_s, CLAIM_LEASE_S)):
            yield entry.name


def _old_workers(place: Place, lease_s: float) -> Iterator[str]:
    for entry in place.entries(WORKERS):
        if time.time() - entry.modified_s > lease_s:
            yield entry.name


def _owner_is_gone(folder: Path) -> bool:
    try:
        return Owner(**json.loads((folder / "owner.json").read_bytes())).is_gone()
    except (OSError, ValueError, TypeError):
        return False
