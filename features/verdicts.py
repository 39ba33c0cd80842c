"""What becomes of an attempt at a video: done, tried again after a while, set aside, dropped, or the end of the whole run."""

import errno
import threading
import time
import traceback
from collections.abc import Callable

from features.agenda import Agenda, Attempt
from features.encode_stage import ends_the_run
from features.ledger import Ledger
from features.outcome import Outcome, VideoRetried
from features.recipe import ExtractConfig
from features.video_job import VideoJob
from vjepa_loc.errors import StoreError, VjepaLocError

# Answers of a disk or a network that may be others a while later.
PASSING = (
    errno.EIO, errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT, errno.ESTALE, errno.ENOTCONN, errno.ECONNRESET, errno.EHOSTDOWN,
    errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH,
)


class Dropped(Exception):
    """A video in hand is given up because the extraction stops; what was written of it is discarded."""


def is_passing(error: BaseException) -> bool:
    """Whether the same work may succeed when it is tried again."""
    return isinstance(error, VjepaLocError) and (error.passing or isinstance(error, StoreError) and error.errno in PASSING)


class Verdicts:
    """Settles attempts in the agenda, notes them in the ledger, and tells `listen`; for any number of threads.

    `listen` gets the events, and the exceptions that end the run: a disk that refuses, a GPU that does not go on.
    """

    def __init__(
        self, ledger: Ledger, agenda: Agenda, config: ExtractConfig, listen: Callable[[Outcome | VideoRetried | BaseException], object]
    ):
        self._ledger = ledger
        self._agenda = agenda
        self._config = config
        self._listen = listen
        self._writing = threading.Lock()

    def of_job(self, job: VideoJob) -> None:
        """A job has ended."""
        if job.failed:
            return self.of_error(job.attempt, job.error)
        status, reason = ("done", job.decision.reason) if job.result.stored else ("skipped", "another process stored it first")
        self.settle(Outcome(job.video.id, status, reason, job.result))

    def of_error(self, attempt: Attempt, error: BaseException) -> None:
        """An attempt has failed."""
        video_id, reason = attempt.decision.video.id, " ".join(str(error).split())
        if isinstance(error, Dropped):
            return self.settle(Outcome(video_id, "dropped", reason))
        if ends_the_run(error):
            self._listen(error)
            return self.settle(Outcome(video_id, "dropped", f"{type(error).__name__}: the extraction ends"))
        if is_passing(error):
            if attempt.number <= self._config.retries:
                return self._repeat(attempt, reason)
            reason = f"set aside after {attempt.number} attempts: {reason}"
        if isinstance(error, VjepaLocError):
            if isinstance(error, StoreError) and error.errno is not None:
                self._listen(error)
            return self.settle(Outcome(video_id, "failed", reason))
        # A fault of ours or of a library: the other videos must not pay for it, and the trace must not be lost.
        trace = "".join(traceback.format_exception(error))
        self.settle(Outcome(video_id, "failed", f"{type(error).__name__}: {reason}", traceback=trace))

    def _repeat(self, attempt: Attempt, reason: str) -> None:
        video_id, wait_s = attempt.decision.video.id, self._config.retry_wait_s * 2 ** (attempt.number - 1)
        # Told first: what follows may begin at once.
        self.tell(VideoRetried(video_id, reason, attempt.number, wait_s))
        if not self._agenda.repeat(Attempt(time.monotonic() + wait_s, attempt.number + 1, attempt.decision)):
            self.settle(Outcome(video_id, "dropped", f"stopped before it was tried again: {reason}"))

    def settle(self, outcome: Outcome) -> None:
        """The last word on a video that was handed out."""
        self.tell(outcome)
        self._agenda.settle()

    def tell(self, event: Outcome | VideoRetried) -> None:
        """Into the ledger by whoever knows first, so that nothing is lost between threads when the program is ended."""
        if isinstance(event, Outcome):
            status, details = event.status, event.details()
        else:
            status, details = "failed", {"attempt": event.attempt, "repeated_after_s": event.wait_s}
        try:
            with self._writing:
                self._ledger.record(event.video_id, status, event.reason, **details)
        except StoreError as error:
            # Of a run that ends already, the first refusal of the disk is the one that is told.
            self._listen(error)
        self._listen(event)
