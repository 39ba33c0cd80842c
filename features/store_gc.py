"""Collecting what no commit names: generations that were replaced or never committed, staging, claims, old manifests.

Nothing is touched before it is older than the lease, except what a process of this machine left that is gone. The
generations of a video whose commit record is damaged are kept: the record may be restored.
"""

import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from features.claims import CLAIM_LEASE_S, LEASE_S, Owner, has_lapsed
from features.commits import CommitFolder
from features.durable import readable_size, storage_errors
from features.manifest import Manifest
from vjepa_loc.errors import CorruptStoreError


@dataclass(frozen=True)
class GcReport:
    """What was removed, or would be: paths relative to the store, and their bytes."""

    removed: tuple[str, ...]
    num_bytes: int

    def __str__(self) -> str:
        return f"{len(self.removed)} items, {readable_size(self.num_bytes)}"


def collect_garbage(store_path: Path, lease_s: float = LEASE_S, dry_run: bool = False) -> GcReport:
    """Removes debris that is older than `lease_s`. Raises `StoreError` where the store cannot be written."""
    removed, num_bytes = [], 0
    with storage_errors("collecting garbage", store_path):
        debris = [find(store_path, lease_s) for find in (_dead_generations, _dead_staging, _dead_claims)]
        for path in itertools.chain(*debris):
            removed.append(str(path.relative_to(store_path)))
            num_bytes += _size_of(path)
            if not dry_run:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if not dry_run:
            Manifest(store_path, "gc").compact(lease_s)
    return GcReport(tuple(removed), num_bytes)


def _dead_generations(store_path: Path, lease_s: float) -> list[Path]:
    generations = sorted((store_path / "tokens.zarr" / "videos").glob("*/*/"))
    # The commits are read after the folders are listed: a video that is committed in between is seen.
    commits, named, damaged = CommitFolder(store_path), set(), set()
    for entry in commits.files():
        try:
            named.add(store_path / "tokens.zarr" / commits.load(Path(entry.path)).path)
        except CorruptStoreError:
            damaged.add(entry.name.removesuffix(".json"))
    return [
        path for path in generations
        if path not in named and path.parent.name not in damaged and _age_s(path) > lease_s
    ]


def _dead_staging(store_path: Path, lease_s: float) -> Iterator[Path]:
    for path in sorted((store_path / "staging").glob("*")):
        if _owner_is_gone(path) or min(_age_s(inner) for inner in [path, *path.rglob("*")]) > lease_s:
            yield path


def _dead_claims(store_path: Path, lease_s: float) -> Iterator[Path]:
    for path in sorted((store_path / "claims").glob("*.json")):
        if has_lapsed(path, min(lease_s, CLAIM_LEASE_S)):
            yield path


def _owner_is_gone(path: Path) -> bool:
    try:
        return Owner(**json.loads((path / "owner.json").read_bytes())).is_gone()
    except (OSError, ValueError, TypeError):
        return False


def _age_s(path: Path) -> float:
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0.0
    # Moving a folder into place changes its ctime only.
    return time.time() - max(status.st_mtime, status.st_ctime)


def _size_of(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size if path.exists() else 0
    return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)
