"""What is freed stays with a process that asked for it."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import resource, sys
from features.heap import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
for round in range(60):
    if round == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    frames = [b"x" * 6_220_800 for _ in range(4)]
    del frames
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=60, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have other thresholds")
def test_frames_do_not_pay_for_their_pages_again():
    assert page_faults("kept") < 500
    assert page_faults("as it is") > 5000
