"""One life of an extraction: `cli.py extract` in a session of its own, watched from outside until it ends or is ended."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from extract_memory import extract_command
from extract_processes import Process, all_processes, descendants, read_process

# A process that loads its libraries on a busy machine.
_BEGIN_S = 180.0
# For decoding processes whose parent was killed to see it, and for a killed process to be gone.
_GONE_S = 15.0
_LOOK_EVERY_S = 0.01


class Life:
    """Runs from when it is made; `close` ends whatever is left of it."""

    def __init__(self, dataset: Path, store: Path, folder: Path, *options: str):
        self.store = store
        self.started_s = time.monotonic()
        self._said_file = folder / "said.txt"
        with open(self._said_file, "wb") as said:
            self._process = subprocess.Popen(
                extract_command(dataset, store, *options), cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._family: dict[tuple[int, int], Process] = {}

    @property
    def code(self) -> int | None:
        """None while it runs, negative where a signal ended it."""
        return self._process.poll()

    @property
    def said(self) -> str:
        return self._said_file.read_text(errors="replace")

    @property
    def lived_s(self) -> float:
        return time.monotonic() - self.started_s

    def holds_claim(self) -> bool:
        """Whether it is at work on a video."""
        for file in (self.store / "claims").glob("*.json") if (self.store / "claims").is_dir() else ():
            try:
                if json.loads(file.read_bytes())["owner"]["pid"] == self.pid:
                    return True
            except (OSError, ValueError, KeyError):
                continue
        return False

    def wait_for_work(self) -> bool:
        """Until its first claim; False where it ended without one. Raises TimeoutError after minutes."""
        while self.code is None:
            if self.holds_claim():
                return True
            if self.lived_s > _BEGIN_S:
                raise TimeoutError(f"cli.py extract took no video within {_BEGIN_S:g} s; it said: {self.said[-500:]}")
            time.sleep(_LOOK_EVERY_S)
        return False

    def decode_children(self) -> list[Process]:
        return [process for process in self.remember_family() if "decode_child" in process.command_line()]

    def remember_family(self) -> list[Process]:
        """All that it has started, now; they are looked for again when it is gone."""
        found = descendants(self.pid)
        self._family |= {(process.pid, process.started): process for process in found}
        return found

    def strike(self, number: int, whole_group: bool) -> None:
        """Sends a signal; to the process alone, or to all of its group at once."""
        self.remember_family()
        os.killpg(self.pid, number) if whole_group else os.kill(self.pid, number)

    def wait(self, timeout_s: float) -> int | None:
        """Its exit code, None where it still runs after `timeout_s`."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def survivors(self) -> list[str]:
        """The command lines of processes of its that are still there some seconds after it has ended."""
        end_s = time.monotonic() + _GONE_S
        while True:
            left = [process for process in self._family.values() if process.is_alive()]
            left += [process for process in all_processes() if process.session == self.pid and process.state not in "ZX"]
            if not left or time.monotonic() > end_s:
                return sorted({process.command_line() for process in left})
            time.sleep(_LOOK_EVERY_S)

    def close(self) -> None:
        self.remember_family()
        if self.code is None:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        for process in self._family.values():
            now = read_process(process.pid)
            if now is not None and now.started == process.started:
                os.kill(process.pid, signal.SIGKILL)
