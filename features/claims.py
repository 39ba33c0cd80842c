"""Leases on videos, so that several workers do not do the same work. Economy only: without any claim the store stays
right.

A claim is a file in `claims/`, made by whoever starts a video and renewed while clips are written. It lapses
when it was not renewed for an hour, or at once where its process ran on this machine and is gone, so that work after a
`kill -9` continues immediately.
"""

import json
import os
import secrets
import socket
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from features.commits import key_of
from features.durable import storage_errors
from features.places import Entry, Place

# What no commit names may be somebody's unfinished work until it is this old.
LEASE_S = 24 * 3600.0
# Longer than any encoder needs for a clip; short enough that a machine that vanished does not hold its videos for a
# day.
CLAIM_LEASE_S = 3600.0
RENEW_EVERY_S = 60.0
FOLDER = "claims"
# PROC_PID_INIT_INO of Linux: the machine's own, outside all containers.
_FIRST_PID_NAMESPACE = 0xEFFFFFFC


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
    """Host name and, where the system tells it, its boot and its container: process numbers mean something only within one."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not boot.exists():
        return socket.gethostname()
    # Containers on one machine may have its name in common, and each counts its processes from 1.
    namespace = Path("/proc/self/ns/pid")
    number = namespace.stat().st_ino if namespace.exists() else _FIRST_PID_NAMESPACE
    container = "" if number == _FIRST_PID_NAMESPACE else f".{number:x}"
    return f"{socket.gethostname()}.{boot.read_text().strip()[:8]}{container}"


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


class Claim:
    """A held lease. Releasing it twice, or after it was taken over, does no harm."""

    def __init__(self, place: Place, name: str, token: str):
        self.name = name
        self._place = place
        self._token = token
        self._renewed_s = time.monotonic()

    def is_mine(self) -> bool:
        record = read_claim(self._place, self.name)
        return record is not None and record[1] == self._token

    def renew(self) -> None:
        """Starts the lease again; not oftener than once a minute, because that costs requests in object storage."""
        if time.monotonic() - self._renewed_s >= RENEW_EVERY_S and self.is_mine():
            # Another worker that takes the claim over in this moment is told the time as well, which does no harm.
            self._place.renew(self.name)
            self._renewed_s = time.monotonic()

    def release(self) -> None:
        if self.is_mine():
            self._place.remove(self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


def read_claim(place: Place, name: str) -> tuple[Owner, str] | None:
    """(owner, token) of a claim file; None where it is gone or unreadable."""
    try:
        record = json.loads(place.read(name))
        return Owner(**record["owner"]), record["token"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


class ClaimFolder:
    """`claims/` of one store."""

    def __init__(self, place: Place):
        self._place = place

    def acquire(self, video_id: str, lease_s: float = CLAIM_LEASE_S) -> Claim | None:
        """The claim, or None while another worker holds it. Raises `StoreError` where the store cannot be written."""
        name, token = f"{FOLDER}/{key_of(video_id)}.json", secrets.token_hex(8)
        raw = json.dumps({"owner": asdict(Owner.this_process()), "token": token, "id": video_id}).encode()
        with storage_errors(f"claiming video {video_id!r}", self._place.path):
            if self._place.create(name, raw, durable=False):
                return Claim(self._place, name, token)
            entry = self._place.entry(name)
            if entry is None or not has_lapsed(self._place, entry, lease_s):
                return None
            if not self._place.replace(name, raw, entry.version, durable=False):
                return None
        claim = Claim(self._place, name, token)
        return claim if claim.is_mine() else None

    def release_of(self, owner: Owner, video_ids: Iterable[str]) -> None:
        """Gives back the claims on these videos that `owner` holds, who is known not to run any more, on whatever machine."""
        for video_id in video_ids:
            name = f"{FOLDER}/{key_of(video_id)}.json"
            record = read_claim(self._place, name)
            # Whoever takes it over between this look and the removal does its video without a claim, which is only slower.
            if record is not None and record[0] == owner:
                with storage_errors(f"giving back the claim on video {video_id!r}", self._place.path):
                    self._place.remove(name)


def has_lapsed(place: Place, entry: Entry, lease_s: float = CLAIM_LEASE_S) -> bool:
    """Whether a claim file holds nobody back any more."""
    record = read_claim(place, entry.name)
    return time.time() - entry.modified_s > lease_s or record is None or record[0].is_gone()
