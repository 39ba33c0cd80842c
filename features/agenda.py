"""What an extraction does next: its decisions in their order, and attempts that are repeated after a while.

Several threads ask; nobody is told that there is nothing left while a video is in hand, because it may come back.
"""

import heapq
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from features.resume import Decision


class NotYet(Enum):
    """What an iterator of decisions gives where it has waited a moment and has none now, but may have one later."""

    NOT_YET = "not yet"


NOT_YET = NotYet.NOT_YET


@dataclass(order=True)
class Attempt:
    """The `number`-th attempt (from 1) at what was decided, not before `due_s` of the monotonic clock.

    A `is_last_look` at what another process holds is not due before everything else is settled.
    """

    due_s: float
    number: int
    decision: Decision = field(compare=False)
    is_last_look: bool = field(default=False, compare=False)


class Agenda:
    """Takes `decisions` when they are asked for, never by two threads at once. The iterator may block for as long as what is
    repeated, and the wish to stop, may wait; one that has nothing for longer gives `NOT_YET` in between.
    """

    def __init__(self, decisions: Iterable[Decision | NotYet]):
        self._decisions = iter(decisions)
        self._asking = threading.Lock()
        self._changed = threading.Condition()
        self._repeated: list[Attempt] = []
        self._last_looks: list[Attempt] = []
        self._num_in_hand = 0
        self._ended = self._stopped = False

    def next(self) -> Attempt | None:
        """The next attempt, to be answered by `settle`; waits while one may still come, None where none will."""
        while True:
            with self._changed:
                if self._stopped:
                    return None
                if self._repeated and self._repeated[0].due_s <= time.monotonic():
                    self._num_in_hand += 1
                    return heapq.heappop(self._repeated)
                if self._ended:
                    if not self._num_in_hand and not self._repeated:
                        if not self._last_looks:
                            return None
                        self._num_in_hand += 1
                        return self._last_looks.pop(0)
                    self._changed.wait(max(0.0, self._repeated[0].due_s - time.monotonic()) if self._repeated else None)
                    continue
            if (attempt := self._ask()) is not None:
                return attempt

    def _ask(self) -> Attempt | None:
        with self._asking:
            if self._ended or self._stopped:
                return None
            decision = next(self._decisions, None)
            if decision is NOT_YET:
                return None
            with self._changed:
                if decision is None:
                    self._ended = True
                    self._changed.notify_all()
                    return None
                if self._stopped:
                    return None
                self._num_in_hand += 1
                return Attempt(time.monotonic(), 1, decision)

    def settle(self) -> None:
        """What an attempt was for is done with."""
        with self._changed:
            self._num_in_hand -= 1
            self._changed.notify_all()

    def repeat(self, attempt: Attempt) -> bool:
        """An attempt has ended and `attempt` is to follow it; False, and nothing is settled, where nothing is begun any more."""
        with self._changed:
            if self._stopped:
                return False
            if attempt.is_last_look:
                self._last_looks.append(attempt)
            else:
                heapq.heappush(self._repeated, attempt)
            self.settle()
            return True

    def stop(self) -> list[Attempt]:
        """Nothing further is begun; the attempts that were still to be repeated."""
        with self._changed:
            self._stopped = True
            given_up = [*self._repeated, *self._last_looks]
            self._repeated, self._last_looks = [], []
            self._changed.notify_all()
            return given_up

    @property
    def is_settled(self) -> bool:
        """Whether nothing is in hand."""
        with self._changed:
            return not self._num_in_hand

    def wait_until_settled(self, timeout_s: float) -> bool:
        """Waits until nothing is in hand; False where that takes longer than `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._num_in_hand, timeout_s)
