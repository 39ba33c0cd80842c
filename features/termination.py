"""Being asked to end: Ctrl-C, and SIGTERM, which a scheduler or a shutdown sends before it takes the machine away."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from features.terminal import say

EXIT_CODE = 128 + signal.SIGTERM


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised where the program is."""


@contextmanager
def ends_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the work inside as Ctrl-C does: what is unfinished is discarded and claims are given back, so that another
    machine can go on at once. A line says so, and the exit code is 143. Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        # Cleaning up is not interrupted by the next one; who cannot wait sends SIGKILL.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except Terminated:
        say("SIGTERM: ended; what is complete is kept, run the command again to continue")
        raise SystemExit(EXIT_CODE) from None
    finally:
        # None stands for a handler that was not set by Python.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


class StopSignal(threading.Event):
    """Set by the first SIGINT or SIGTERM inside `stops_on_signals`; `number` is that signal's, None until then."""

    def __init__(self) -> None:
        super().__init__()
        self.number: int | None = None

    @property
    def exit_code(self) -> int:
        """What a shell expects of a program that a signal has ended."""
        return 128 + self.number

    def __str__(self) -> str:
        return "" if self.number is None else signal.Signals(self.number).name


@contextmanager
def stops_on_signals() -> Iterator[StopSignal]:
    """SIGINT and SIGTERM only set what is given out: the work inside looks at it, and ends in its own way and time.

    A second Ctrl-C interrupts at once (KeyboardInterrupt); a second SIGTERM changes nothing, who cannot wait sends SIGKILL. Does
    nothing outside the main thread.
    """
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.number is None:
            stop.number = number
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            # None stands for a handler that was not set by Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
