"""Claims keep workers apart while they live, and hold nobody back when they are gone."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from features.claims import CLAIM_LEASE_S, RENEW_EVERY_S, ClaimFolder, Owner, _process_start, has_lapsed, machine_name, read_claim
from features.places.local import LocalPlace

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def place(tmp_path):
    return LocalPlace(tmp_path)


@pytest.fixture
def claims(place):
    return ClaimFolder(place)


def rewrite(place, claim, **changes):
    record = json.loads(place.read(claim.name))
    record["owner"].update(changes)
    place.replace(claim.name, json.dumps(record).encode())


def lapsed(place, claim, lease_s=CLAIM_LEASE_S):
    return has_lapsed(place, place.entry(claim.name), lease_s)


def test_one_holder_at_a_time(claims):
    with claims.acquire("A b") as claim:
        assert claim.name == "claims/%41%20b~" + claim.name[-21:-5] + ".json"
        assert claims.acquire("A b") is None
        assert claims.acquire("a b") is not None
    assert claims.acquire("A b") is not None


def test_a_claim_lapses_after_its_lease_and_is_renewed(place, claims, monkeypatch):
    claim = claims.acquire("a")
    os.utime(place.path / claim.name, (0, 0))
    assert lapsed(place, claim)
    claim.renew()
    assert lapsed(place, claim), "a claim was renewed twice within a minute"
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + RENEW_EVERY_S)
    claim.renew()
    assert not lapsed(place, claim)
    os.utime(place.path / claim.name, (0, 0))
    other = claims.acquire("a")
    assert other is not None and not claim.is_mine()
    claim.release()
    assert other.is_mine()


def test_a_claim_of_a_process_that_is_gone_lapses_at_once(place, claims):
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    claim = claims.acquire("a")
    rewrite(place, claim, pid=int(child.stdout))
    assert claims.acquire("a") is not None


def test_a_killed_process_that_nobody_has_waited_for_is_gone(place, claims):
    child = subprocess.Popen(["sleep", "60"])
    owner = replace(Owner.this_process(), pid=child.pid, started=_process_start(child.pid))
    assert not owner.is_gone()
    child.kill()
    deadline = time.monotonic() + 10
    while not owner.is_gone() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert owner.is_gone()
    child.wait()


def test_a_number_that_another_process_has_now_does_not_keep_a_claim(place, claims):
    claim = claims.acquire("a")
    rewrite(place, claim, started="0")
    assert claims.acquire("a") is not None


def test_a_claim_of_another_machine_waits_for_its_lease(place, claims):
    claim = claims.acquire("a")
    rewrite(place, claim, machine="elsewhere", pid=1)
    assert claims.acquire("a") is None
    assert claims.acquire("a", lease_s=-1) is not None


def test_an_unreadable_claim_holds_nobody_back(place, claims):
    place.replace(claims.acquire("a").name, b"{")
    assert read_claim(place, "claims/a.json") is None
    assert claims.acquire("a") is not None


def test_this_process_is_not_gone():
    mine = Owner.this_process()
    assert not mine.is_gone()
    assert replace(mine, started="0").is_gone()
    assert not replace(mine, machine="elsewhere", started="0").is_gone()


def test_a_container_of_the_same_name_is_another_machine(place, claims):
    """Its process numbers mean something else: who looks one up here would find nobody, and take the claim."""
    if subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True).returncode:
        pytest.skip("this machine does not allow process namespaces")
    code = "from features.claims import machine_name; print(machine_name())"
    other = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code],
        capture_output=True, text=True, cwd=ROOT, check=True,
    ).stdout.strip()
    assert other.startswith(machine_name() + ".") and other != machine_name()
