"""SIGTERM: what a scheduler or a shutdown sends before it takes the machine away."""

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
