"""Actors of a Ray cluster, the one that `RAY_ADDRESS` names or a local one for this run; the extra `ray`.

Each actor opens encoder and store itself. Only what the dataset says of a video travels to it, and events and outcomes back. The
driver asks every actor in long polls and hands out videos itself, so there is no other process whose loss could matter.
Method: https://docs.ray.io/en/latest/ray-core/fault_tolerance/actors.html (restarts are ours, since a new life is a new worker).
"""

import contextlib
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from features.agenda import NOT_YET, NotYet
from features.engines._crew import Crew, Member
from features.engines._machine import cores_of_worker
from features.engines.processes import grace_s
from features.extract import ExtractReport
from features.extract_job import ExtractJob, Message, work
from features.outcome import Outcome, Progress
from features.terminal import say
from vjepa_loc.dataset import Video
from vjepa_loc.errors import ConfigError, WorkerError

_POLL_S = 1.0
_TELL_AFTER_S = 60.0
_KNOCK_S = 10.0
# Nothing but messages is kept in Ray's shared memory.
_OBJECT_STORE_BYTES = 100 << 20


def prepare(job: ExtractJob) -> ExtractJob:
    """The job as it is; what is open is settled for each worker."""
    return job


def run(
    job: ExtractJob, on_progress: Callable[[Progress], object], stop: threading.Event | None = None, workers: int | None = None,
) -> ExtractReport:
    """`workers` actors, by default one per GPU of the cluster, or one per machine where there is none.

    Raises as `features.engines.processes.run`, and `ConfigError` where Ray is not installed or its cluster does not answer.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers: expected at least 1, got {workers}")
    with _cluster() as ray:
        number, needs = _resources(ray, workers)
        told = job.for_worker(**cores_of_worker(job.settings.recipe, needs["num_cpus"]))
        actor = ray.remote(_Actor).options(max_concurrency=3, max_restarts=0, scheduling_strategy="SPREAD", **needs)
        crew = Crew(job, min(number, max(1, len(job.videos))), lambda index: _Remote(ray, actor, told), on_progress, stop)
        return crew.report(_run(ray, crew, job))


def _run(ray: Any, crew: Crew, job: ExtractJob) -> Iterator[Outcome]:
    finished, start_s, was_told = False, time.monotonic(), False
    try:
        while crew.is_at_work:
            yield from _hear_all(ray, crew)
            yield from crew.lose_silent()
            if not was_told and time.monotonic() - start_s > _TELL_AFTER_S:
                was_told = True
                waiting = [member.name for member in crew.running if member.owner is None]
                if waiting:
                    say(f"not started after {_TELL_AFTER_S:.0f} s: {', '.join(waiting)}; the cluster may have no room for them")
        yield from _wind_up(ray, crew, job)
        finished = True
    finally:
        try:
            if not finished:
                # Nobody takes outcomes any more: they are in the ledger, and told as progress. The first error is to be seen.
                with contextlib.suppress(Exception):
                    for _ in _wind_up(ray, crew, job):
                        pass
        finally:
            for member in crew.members:
                member.worker.kill()


def _wind_up(ray: Any, crew: Crew, job: ExtractJob) -> Iterator[Outcome]:
    crew.stop()
    for member in crew.running:
        # One that has not started has nothing to end.
        member.worker.end() if member.owner is not None else member.worker.kill()
    deadline_s = time.monotonic() + grace_s(job.settings.recipe)
    while any(member.owner is not None for member in crew.running) and time.monotonic() < deadline_s:
        yield from _hear_all(ray, crew)
    for member in crew.running:
        member.worker.kill()
        yield from crew.lose(member, "it did not end in time")


def _hear_all(ray: Any, crew: Crew) -> Iterator[Outcome]:
    members = {member.worker.poll(): member for member in crew.running}
    ready, _ = ray.wait(list(members), num_returns=1, timeout=_POLL_S)
    for reference in ready:
        yield from _hear(ray, crew, members[reference], reference)


def _hear(ray: Any, crew: Crew, member: Member, reference: Any) -> Iterator[Outcome]:
    try:
        messages = ray.get(reference)
    except ray.exceptions.RayError as error:
        # Also where it only cannot be reached: nobody waits for it any more, so it must not go on.
        member.worker.kill()
        yield from crew.lose(member, f"{type(error).__name__}: {_first_sentence(error)}")
        return
    member.worker.heard()
    for message in messages:
        yield from crew.hear(member, message)


@contextlib.contextmanager
def _cluster() -> Iterator[Any]:
    """The module ray, connected; what was not connected before is left again at the end."""
    # Read when ray is imported. A cluster of one's own is reached from this machine only and needs no password.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        # Named for other systems, it does on every one what is wanted: loopback is the only address that is listened on.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ConfigError(f"--engine ray needs the package ray ({error}): pip install 'vjepa-loc[ray]'") from None
    if ray.is_initialized():
        yield ray
        return
    local = {} if address else {
        "address": "local", "include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES,
    }
    where = f"RAY_ADDRESS={address}" if address else "a local cluster"
    before = signal.getsignal(signal.SIGTERM)
    try:
        _knock(address)
        ray.init(configure_logging=False, log_to_driver=True, **local)
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"--engine ray: {where} does not answer: {_first_sentence(error)}") from None
    finally:
        # Ray's own handler would exit past the work's clean end.
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str | None) -> None:
    """Raises `OSError` where nobody listens at HOST:PORT, which Ray itself tries for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).partition(". ")[0][:200].removesuffix(".")


def _resources(ray: Any, workers: int | None) -> tuple[int, dict[str, int]]:
    """How many actors, and what each asks of Ray. Raises `WorkerError` where the cluster has nothing to give."""
    there = ray.cluster_resources()
    cpus, gpus = int(there.get("CPU", 0)), int(there.get("GPU", 0))
    if cpus < 1:
        raise WorkerError("--engine ray: the cluster has no CPUs; start its machines with `ray start --num-cpus N`")
    number = workers or gpus or len([node for node in ray.nodes() if node["Alive"]])
    needs = {"num_cpus": max(1, cpus // number)}
    return number, needs | ({"num_gpus": 1} if gpus else {})


class _Remote:
    """An actor as the driver sees it; see `features.engines._crew.Worker`."""

    def __init__(self, ray: Any, actor: Any, job: ExtractJob):
        self._ray = ray
        self._handle = actor.remote(job)
        self._reference: Any = None

    def give(self, video: Video | None) -> None:
        self._handle.take.remote(video)

    def poll(self) -> Any:
        """The reference to the next messages."""
        if self._reference is None:
            self._reference = self._handle.messages.remote(_POLL_S)
        return self._reference

    def heard(self) -> None:
        """The messages of the reference have come."""
        self._reference = None

    def end(self) -> None:
        self._handle.end.remote()

    def kill(self) -> None:
        """Ends the actor at once; the same again does no harm."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(self._handle, no_restart=True)


class _Actor:
    """A worker: the work runs in a thread of its own, and the driver asks what it has to say. See `Link`."""

    def __init__(self, job: ExtractJob):
        self.stop = threading.Event()
        self._said: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._given: queue.SimpleQueue[Video | None] = queue.SimpleQueue()
        # The same relative paths as where the command was given, where that folder is there.
        if job.folder.is_dir():
            os.chdir(job.folder)
        threading.Thread(target=work, args=[job, self], daemon=True).start()

    def send(self, message: Message) -> None:
        self._said.put(message)

    def receive(self, wait_s: float) -> Video | None | NotYet:
        try:
            return self._given.get(timeout=wait_s)
        except queue.Empty:
            return NOT_YET

    def take(self, video: Video | None) -> None:
        """Answers a wish."""
        self._given.put(video)

    def messages(self, wait_s: float) -> list[Message]:
        """What was said since the last time; waits for the first."""
        said = []
        with contextlib.suppress(queue.Empty):
            said.append(self._said.get(timeout=wait_s))
            while True:
                said.append(self._said.get_nowait())
        return said

    def end(self) -> None:
        """The work is to end; the driver goes on listening until it has."""
        self.stop.set()
