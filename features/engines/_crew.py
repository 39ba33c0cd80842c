"""The workers of one extraction, whatever they run on: videos go out, events and outcomes come back, losses are made good.

An engine gives a `Crew` the means to start a worker, and tells it what it hears of one (`hear`) and which are lost (`lose`).
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from features.claims import CLAIM_LEASE_S, ClaimFolder, Owner
from features.disk_space import DiskSpace
from features.dispatch import Answer, Dispatcher
from features.extract import ExtractReport
from features.extract_job import Broken, ExtractJob, Failed, Finished, Message, Ready, Want
from features.outcome import Note, Outcome, Progress, StageTimes
from features.shares import longest_first
from features.store import create_or_open_store, find_or_plan_store, open_store
from features.terminal import say
from vjepa_loc.dataset import Video
from vjepa_loc.errors import StoreError, WorkerError

# In a row, with nothing done between: beyond this it is no accident, and starting again would only hide it.
MOST_RESTARTS = 3
SILENT_S = CLAIM_LEASE_S


class Worker(Protocol):
    """One life of one worker."""

    def give(self, video: Video | None) -> None:
        """Answers its wish for a video; None: there are no more."""

    def kill(self) -> None:
        """Ends it at once, whatever it does."""


@dataclass(eq=False)
class Member:
    """A place in the crew and who has it now."""

    name: str
    worker: Worker
    num_restarts: int = 0
    owner: Owner | None = None
    wants: bool = False
    ended: bool = False
    heard_s: float = 0.0
    """When it last said something or was given something, by the monotonic clock."""


class Crew:
    """`start(index)` starts a worker for a place, counted from 0."""

    def __init__(
        self, job: ExtractJob, num_workers: int, start: Callable[[int], Worker], on_progress: Callable[[Progress], object],
        stop: threading.Event | None = None,
    ):
        self._job = job
        for note in _check_store(job):
            on_progress(Note(note))
        self._dispatcher = Dispatcher(longest_first(job.videos))
        self._start = start
        self._on_progress = on_progress
        self._times = StageTimes()
        # A scheduler tells the command and its workers at once: who is told here too has not been lost.
        self._stop = stop
        self._is_over = False
        self.members = [Member(f"worker {index}", start(index)) for index in range(num_workers)]

    @property
    def stopping(self) -> bool:
        """No video is handed out any more."""
        return self._is_over or self._stop is not None and self._stop.is_set()

    @property
    def is_at_work(self) -> bool:
        """Whether there is something to wait for: not for who has not started when nothing is left."""
        return not self.stopping and any(member.owner is not None or self._dispatcher.num_left for member in self.running)

    @property
    def running(self) -> list[Member]:
        return [member for member in self.members if not member.ended]

    def report(self, outcomes: Iterator[Outcome]) -> ExtractReport:
        """What became of all videos, when `outcomes` have ended, in the order of the job."""
        start_s = time.monotonic()
        report = ExtractReport(outcomes=list(outcomes), times=self._times)
        report.times.wall_s = time.monotonic() - start_s
        report.sort(self._job.videos)
        return report

    def hear(self, member: Member, message: Message) -> Iterator[Outcome]:
        """Does what a message of a worker asks for. Raises what makes the whole work end."""
        member.heard_s = time.monotonic()
        if isinstance(message, Ready):
            member.owner = message.owner
        elif isinstance(message, Want):
            member.wants = True
        elif isinstance(message, Broken):
            raise message.error
        elif isinstance(message, Failed):
            member.worker.kill()
            yield from self.lose(member, message.reason)
        elif isinstance(message, Finished):
            member.ended = True
            self._times += message.times
            if not self.stopping:
                # Nothing is left of what it had, unless somebody else stopped it.
                yield from self._take_back(member, "it was stopped")
                self._check_somebody_is_left("it was stopped")
        elif isinstance(message, Outcome):
            # What one worker dropped because it alone was stopped is nobody's answer yet.
            if message.status != "dropped" or self.stopping:
                member.num_restarts = 0
                yield from self._answered(self._dispatcher.finish(member.worker, message))
        else:
            self._on_progress(message)
        self._serve()

    def lose(self, member: Member, how: str) -> Iterator[Outcome]:
        """A worker does not run any more: its videos go to others, its place to a new one, a bounded number of times in a row.

        Raises `WorkerError` where nobody is left to do what is left.
        """
        if member.ended:
            return
        held = self._dispatcher.held_by(member.worker)
        aside = list(self._take_back(member, how))
        yield from aside
        again = [video_id for video_id in held if video_id not in {outcome.video_id for outcome in aside}]
        member.owner, member.wants = None, False
        if aside:
            # An answer, too.
            member.num_restarts = 0
        if self._dispatcher.num_left and not self.stopping and member.num_restarts < MOST_RESTARTS:
            member.num_restarts += 1
            what = f"started again ({member.num_restarts} of {MOST_RESTARTS})"
            member.worker = self._start(self.members.index(member))
        else:
            what, member.ended = "not started again", True
        if self.stopping:
            for video_id in again:
                yield from self._answered(Outcome(video_id, "dropped", f"its worker ended: {how}"))
            return
        say(f"{member.name} was lost: {how}; to be done again: {_list(again)}; {what}")
        self._check_somebody_is_left(how)
        self._serve()

    def lose_silent(self) -> Iterator[Outcome]:
        """Gives up who has videos and says nothing for longer than a claim lasts: stopped, or hanging in a driver or a disk."""
        for member in self.running:
            if self._dispatcher.held_by(member.worker) and time.monotonic() - member.heard_s > SILENT_S:
                member.worker.kill()
                yield from self.lose(member, f"nothing was heard of it for {SILENT_S:g} s")

    def stop(self) -> None:
        """From now on no video is handed out."""
        self._is_over = True
        self._serve()

    def _take_back(self, member: Member, how: str) -> Iterator[Outcome]:
        held = self._dispatcher.held_by(member.worker)
        aside = self._dispatcher.lost(member.worker, how)
        if held and member.owner is not None:
            store = open_store(self._job.settings.store)
            # Nobody on another machine can know that this owner is gone.
            ClaimFolder(store.place).release_of(member.owner, held)
            for outcome in aside:
                store.ledger.record(outcome.video_id, outcome.status, outcome.reason)
        for outcome in aside:
            yield from self._answered(outcome)

    def _answered(self, outcome: Outcome | None) -> Iterator[Outcome]:
        if outcome is not None:
            self._on_progress(outcome)
            yield outcome

    def _serve(self) -> None:
        for member in self.running:
            if not member.wants:
                continue
            answer = Answer.END if self.stopping else self._dispatcher.next_for(member.worker)
            if answer is Answer.WAIT:
                continue
            member.wants, member.heard_s = False, time.monotonic()
            # A worker that cannot be reached is found to be lost by whoever listens to it.
            with contextlib.suppress(OSError):
                member.worker.give(None if answer is Answer.END else answer)

    def _check_somebody_is_left(self, how: str) -> None:
        if self._dispatcher.num_left and not self.running:
            raise WorkerError(
                f"every worker was lost more than {MOST_RESTARTS} times in a row, the last one: {how}; "
                f"{self._dispatcher.num_left} videos are not done; run the command again to continue, with fewer --workers where memory ran out"
            )


def _check_store(job: ExtractJob) -> list[str]:
    """Makes the store where there is none, before anything is started; what is not known about its room. Raises `StoreError`,
    and `StoreMismatchError` for a store of another encoding.
    """
    settings = job.settings
    notes = []
    if "://" not in settings.store:
        # What is staged for a URL takes room where the workers are, which is where they look themselves.
        planned = find_or_plan_store(settings.store, job.encoding, settings.storage)
        notes = DiskSpace(planned, settings.recipe.min_free_gib).check_ahead(job.videos)
    create_or_open_store(settings.store, job.encoding, settings.storage)
    return notes


def _list(ids: list[str]) -> str:
    return ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "") if ids else "nothing"
