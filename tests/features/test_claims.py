"""Claims keep workers apart while they live, and hold nobody back when they are gone."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from features.claims import CLAIM_LEASE_S, ClaimFolder, Owner, _process_start, has_lapsed, read_claim


@pytest.fixture
def claims(tmp_path):
    return ClaimFolder(tmp_path)


def rewrite(claim, **changes):
    record = json.loads(claim.path.read_bytes())
    record["owner"].update(changes)
    claim.path.write_text(json.dumps(record))


def test_one_holder_at_a_time(claims):
    with claims.acquire("A b") as claim:
        assert claim.path.name == "%41%20b~" + claim.path.name[-21:-5] + ".json"
        assert claims.acquire("A b") is None
        assert claims.acquire("a b") is not None
    assert claims.acquire("A b") is not None


def test_a_claim_lapses_after_its_lease_and_is_renewed(claims):
    claim = claims.acquire("a")
    os.utime(claim.path, (0, 0))
    assert has_lapsed(claim.path)
    claim.renew()
    assert not has_lapsed(claim.path) and not has_lapsed(claim.path, CLAIM_LEASE_S)
    os.utime(claim.path, (0, 0))
    other = claims.acquire("a")
    assert other is not None and not claim.is_mine()
    claim.release()
    assert other.is_mine()


def test_a_claim_of_a_process_that_is_gone_lapses_at_once(claims):
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    claim = claims.acquire("a")
    rewrite(claim, pid=int(child.stdout))
    assert claims.acquire("a") is not None


def test_a_killed_process_that_nobody_has_waited_for_is_gone(claims):
    child = subprocess.Popen(["sleep", "60"])
    owner = replace(Owner.this_process(), pid=child.pid, started=_process_start(child.pid))
    assert not owner.is_gone()
    child.kill()
    deadline = time.monotonic() + 10
    while not owner.is_gone() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert owner.is_gone()
    child.wait()


def test_a_number_that_another_process_has_now_does_not_keep_a_claim(claims):
    claim = claims.acquire("a")
    rewrite(claim, started="0")
    assert claims.acquire("a") is not None


def test_a_claim_of_another_machine_waits_for_its_lease(claims):
    claim = claims.acquire("a")
    rewrite(claim, machine="elsewhere", pid=1)
    assert claims.acquire("a") is None
    assert claims.acquire("a", lease_s=-1) is not None


def test_an_unreadable_claim_holds_nobody_back(claims):
    claims.acquire("a").path.write_bytes(b"{")
    assert read_claim(claims.path / "a.json") is None
    assert claims.acquire("a") is not None


def test_this_process_is_not_gone():
    mine = Owner.this_process()
    assert not mine.is_gone()
    assert replace(mine, started="0").is_gone()
    assert not replace(mine, machine="elsewhere", started="0").is_gone()
