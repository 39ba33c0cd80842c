"""A child process that answers requests over a connection, and is killed where it makes no progress or is no longer wanted.

    child = KillableChild("features.check_child", deadline_s=60)
    answer = child.ask(path, request)

The child is `python -m MODULE FD`: it sends `Ready`, then for each request any number of `Alive` and one answer, or a `Failure`.
It is kept for many requests and replaced after a hang or a crash.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

from features.check_protocol import Alive, Failure, Ready
from vjepa_loc.errors import ConfigError, DecoderDiedError, DecodeTimeoutError

# Loading the libraries on a busy machine is slow and says nothing about a video.
START_DEADLINE_S = 180.0
REAP_DEADLINE_S = 5.0
PROJECT_FOLDER = Path(__file__).resolve().parents[1]


class Stopped(Exception):
    """The work was given up, by `KillableChild.stop`."""


class KillableChild:
    """See the module's docstring. `deadline_s` is the longest time without progress. A context manager, which ends the child."""

    def __init__(self, module: str, deadline_s: float):
        if not deadline_s > 0:
            raise ConfigError(f"deadline_s: expected a positive number of seconds, got {deadline_s}")
        self.deadline_s = deadline_s
        self._module = module
        self._process: subprocess.Popen | None = None
        self._connection: Connection | None = None
        self._stderr = None
        self._stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the child, None while there is none."""
        return None if self._process is None else self._process.pid

    def ask(self, path: str | Path, request: object) -> object:
        """The answer to `request`, which is about the file `path`.

        Raises the error of a Failure, DecoderDiedError where the child died of it, DecodeTimeoutError where it made no progress;
        the next request finds a child that works either way.
        """
        try:
            return self._ask(path, request)
        finally:
            if self._stopped:
                # Whatever the killed child's end looks like.
                raise Stopped

    def _ask(self, path: str | Path, request: object) -> object:
        if self._stopped:
            raise Stopped
        if self._process is not None and self._process.poll() is not None:
            # It was interrupted, or somebody killed it, while it had nothing to do.
            self._kill()
        if self._process is None:
            self._start(path)
        try:
            self._connection.send(request)
        except OSError:
            raise self._death(path) from None
        except BaseException:
            self._kill()
            raise
        try:
            while isinstance(answer := self._receive(path, self.deadline_s), Alive):
                pass
        except BaseException:
            # A child in the middle of a request would answer the next one with the rest of this one.
            self._kill()
            raise
        if isinstance(answer, Failure):
            raise answer.error
        return answer

    def stop(self) -> None:
        """For good, and from another thread: an `ask` that waits, and every later one, raises Stopped."""
        self._stopped = True
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """Ends the child. Where it was not stopped it can be asked again; another one is then started."""
        self._kill()

    def _start(self, path: str | Path) -> None:
        ours, theirs = socket.socketpair()
        search_path = [str(PROJECT_FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(search_path), "OMP_NUM_THREADS": "1"}
        self._stderr = tempfile.TemporaryFile()
        with theirs:
            # -P: a folder named like one of our packages in the current folder must not be imported instead.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", self._module, str(theirs.fileno())],
                stdin=subprocess.PIPE, stdout=self._stderr, stderr=self._stderr, pass_fds=[theirs.fileno()], env=environment,
            )
        self._connection = Connection(ours.detach())
        try:
            message = self._receive(path, START_DEADLINE_S)
            if not isinstance(message, Ready):
                raise RuntimeError(f"{self._module} sent {type(message).__name__} first")
        except BaseException:
            self._kill()
            raise

    def _receive(self, path: str | Path, deadline_s: float) -> object:
        try:
            if not self._connection.poll(deadline_s):
                raise DecodeTimeoutError(
                    f"{path}: the decoder made no progress for {deadline_s:g} s and was stopped; look at the file"
                )
            return self._connection.recv()
        except (EOFError, ConnectionError):
            raise self._death(path) from None

    def _death(self, path: str | Path) -> DecoderDiedError:
        """The error for a child that is gone; forgets the child."""
        status = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        self._kill()
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit code {status}"
        hint = " (out of memory?)" if status == -signal.SIGKILL else ""
        return DecoderDiedError(f"{path}: the decoding process died with {how}{hint}{': ' + lines[-1] if lines else ''}")

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            # A process inside a hanging file system cannot even be killed; it goes when the file system answers.
            process.wait(REAP_DEADLINE_S)
        self._connection.close()
        self._stderr.close()
        self._connection = self._stderr = None
