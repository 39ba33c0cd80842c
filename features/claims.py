"""Leases on videos, so that several workers do not do the same work. Economy only: without any claim the store stays
right.

A claim is a file in `claims/`, made by whoever starts a video and renewed with every clip that is written. It lapses
when it was not renewed for an hour, or at once where its process ran on this machine and is gone, so that work after a
`kill -9` continues immediately.
"""

import contextlib
import json
import os
import secrets
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from features.commits import key_of
from features.durable import create_exclusively, replace_file, storage_errors

# What no commit names may be somebody's unfinished work until it is this old.
LEASE_S = 24 * 3600.0
# Longer than any encoder needs for a clip; short enough that a machine that vanished does not hold its videos for a
# day.
CLAIM_LEASE_S = 3600.0


@dataclass(frozen=True)
class Owner:
    """A running process: `started` tells it from a later one with the same number."""

    machine: str
    pid: int
    started: str

    @classmethod
    def this_process(cls) -> Self:
        return cls(machine_name(), os.getpid(), _process_start(os.getpid()))

    def is_gone(self) -> bool:
        """True only where this can be known: the process ran on this machine and does not any more."""
        return self.machine == machine_name() and _process_start(self.pid) != self.started


def machine_name() -> str:
    """Host name and, where the system tells it, its boot: process numbers mean something only within one."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()}.{boot.read_text().strip()[:8]}" if boot.exists() else socket.gethostname()


def _process_start(pid: int) -> str:
    """Clock ticks from boot to the start of a process; "running" where the system does not tell, "" for none."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "running" if not Path("/proc/self/stat").exists() and _answers(pid) else ""
    # The second field, the program's name in brackets, may hold spaces.
    fields = status.rpartition(")")[2].split()
    # A killed process whose parent has not asked for it stays listed, as Z.
    return "" if fields[0] in "ZX" else fields[19]


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@dataclass(frozen=True)
class Claim:
    """A held lease. Releasing it twice, or after it was taken over, does no harm."""

    path: Path
    token: str

    def is_mine(self) -> bool:
        record = read_claim(self.path)
        return record is not None and record[1] == self.token

    def renew(self) -> None:
        """Starts the lease again."""
        if self.is_mine():
            # Another worker that takes the claim over in this moment is told the time as well, which does no harm.
            with contextlib.suppress(FileNotFoundError):
                os.utime(self.path)

    def release(self) -> None:
        if self.is_mine():
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


def read_claim(path: Path) -> tuple[Owner, str] | None:
    """(owner, token) of a claim file; None where it is gone or unreadable."""
    try:
        record = json.loads(path.read_bytes())
        return Owner(**record["owner"]), record["token"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


class ClaimFolder:
    """`claims/` of one store."""

    def __init__(self, store_path: Path):
        self.path = store_path / "claims"
        self._staging = store_path / "staging"

    def acquire(self, video_id: str, lease_s: float = CLAIM_LEASE_S) -> Claim | None:
        """The claim, or None while another worker holds it. Raises `StoreError` where the store cannot be written."""
        path, token = self.path / f"{key_of(video_id)}.json", secrets.token_hex(8)
        raw = json.dumps({"owner": asdict(Owner.this_process()), "token": token, "id": video_id}).encode()
        temporary = self._staging / f"claim-{token}"
        with storage_errors(f"claiming video {video_id!r}", self.path):
            self.path.mkdir(exist_ok=True)
            self._staging.mkdir(exist_ok=True)
            if create_exclusively(path, raw, temporary, durable=False):
                return Claim(path, token)
            if not has_lapsed(path, lease_s):
                return None
            replace_file(path, raw, temporary, durable=False)
        claim = Claim(path, token)
        return claim if claim.is_mine() else None


def has_lapsed(path: Path, lease_s: float = CLAIM_LEASE_S) -> bool:
    """Whether a claim file holds nobody back any more."""
    try:
        age_s = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return True
    record = read_claim(path)
    return age_s > lease_s or record is None or record[0].is_gone()
