"""Several processes on this machine, one per GPU; without GPUs as many as asked for, which share the cores.

Each opens encoder and store itself and does one video after the other; one that is lost is started again.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path

from features.engines._crew import Crew
from features.engines._machine import num_gpus, worker_recipes
from features.extract import ExtractReport
from features.extract_job import ExtractJob
from features.outcome import Outcome, Progress
from features.recipe import ExtractConfig
from vjepa_loc.dataset import Video
from vjepa_loc.errors import VjepaLocError

_LOOK_S = 0.2
_PROJECT_FOLDER = Path(__file__).resolve().parents[2]


def prepare(job: ExtractJob) -> ExtractJob:
    """The job as it is; what is open is settled for each worker."""
    return job


def run(
    job: ExtractJob, on_progress: Callable[[Progress], object], stop: threading.Event | None = None, workers: int | None = None,
) -> ExtractReport:
    """Every video of the job once; ends early where `stop` is set, after the videos in hand are finished or dropped.

    Raises what every worker would meet: `StoreError` where the disk refuses, `StoreMismatchError`, `WeightsError`; `WorkerError`
    where workers are lost again and again; `ConfigError` for a number of workers below 1.
    """
    # A worker without a video would be started for nothing.
    shares = worker_recipes(job.settings.recipe, workers, num_gpus())[: max(1, len(job.videos))]
    crew = Crew(job, len(shares), lambda index: _Child(job.for_worker(**shares[index])), on_progress, stop)
    return crew.report(_run(crew, job))


def _run(crew: Crew, job: ExtractJob) -> Iterator[Outcome]:
    finished = False
    try:
        while crew.is_at_work:
            yield from _hear_all(crew)
            yield from crew.lose_silent()
        yield from _wind_up(crew, job)
        finished = True
    finally:
        try:
            if not finished:
                # Nobody takes outcomes any more: they are in the ledger, and told as progress. The first error is to be seen.
                with contextlib.suppress(VjepaLocError):
                    for _ in _wind_up(crew, job):
                        pass
        finally:
            for member in crew.members:
                member.worker.close()


def _wind_up(crew: Crew, job: ExtractJob) -> Iterator[Outcome]:
    """Ends those who are still at work, and takes what they finish or drop."""
    crew.stop()
    for member in crew.running:
        # One that has not started has nothing to end.
        member.worker.end() if member.owner is not None else member.worker.kill()
    deadline_s = time.monotonic() + grace_s(job.settings.recipe)
    while crew.running and time.monotonic() < deadline_s:
        yield from _hear_all(crew)
    for member in crew.running:
        member.worker.kill()
        yield from crew.lose(member, "it did not end in time")


def _hear_all(crew: Crew) -> Iterator[Outcome]:
    members = {member.worker.connection: member for member in crew.running}
    for connection in wait(list(members), timeout=_LOOK_S):
        member = members[connection]
        try:
            message = connection.recv()
        except (EOFError, OSError):
            yield from crew.lose(member, member.worker.how_it_ended())
            continue
        yield from crew.hear(member, message)


def grace_s(recipe: ExtractConfig) -> float:
    """How long a worker has to end its work, with some seconds to tear down."""
    return recipe.stop_grace_s + 10.0


class _Child:
    """One worker process; see `features.engines._crew.Worker`."""

    def __init__(self, job: ExtractJob):
        ours, theirs = socket.socketpair()
        path = os.pathsep.join(filter(None, (str(_PROJECT_FOLDER), os.environ.get("PYTHONPATH"))))
        with theirs:
            # A session of its own: Ctrl-C is answered by the parent, which ends its workers in good order.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "features.engines._worker_process", str(theirs.fileno())],
                stdin=subprocess.PIPE, pass_fds=[theirs.fileno()], start_new_session=True, env=os.environ | {"PYTHONPATH": path},
            )
        self.connection = Connection(ours.detach())
        # One that is gone already is found to be lost by whoever listens to it.
        with contextlib.suppress(OSError):
            self.connection.send(job)

    @property
    def pid(self) -> int:
        return self._process.pid

    def give(self, video: Video | None) -> None:
        self.connection.send(video)

    def how_it_ended(self) -> str:
        """Waits for the end of a process whose connection is closed."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"

    def end(self) -> None:
        """Asks the process to end its work; it goes on answering until it has."""
        if self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """Ends the process at once."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Waits a little for the end of the process, or ends it."""
        self.connection.close()
        if self._process.poll() is None:
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.stdin.close()
        self._process.wait()
