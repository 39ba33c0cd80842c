"""A process that extracts for the engine `processes`: `python -m features.engines._worker_process FD`.

It is told its job and its videos over the socket `FD`. Ctrl-C is its parent's to answer; SIGTERM ends its work cleanly. It
ends at once where its parent does: then its standard input, which the parent holds open and never writes to, is closed.
"""

import os
import signal
import sys
import threading
from multiprocessing.connection import Connection

from features.heap import share_one_heap


class ConnectionLink:
    """See `features.extract_job.Link`."""

    def __init__(self, connection: Connection):
        self.stop = threading.Event()
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, message: object) -> None:
        with self._sending:
            self._connection.send(message)

    def receive(self, wait_s: float) -> object:
        from features.agenda import NOT_YET

        return self._connection.recv() if self._connection.poll(wait_s) else NOT_YET


def main() -> None:
    """Works until the parent says that there is no more, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    share_one_heap()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    connection = Connection(int(sys.argv[1]))
    link = ConnectionLink(connection)
    signal.signal(signal.SIGTERM, lambda number, frame: link.stop.set())
    # Loaded only now, so that no signal meets a process that is still importing.
    from features.extract_job import work

    try:
        work(connection.recv(), link)
    except (EOFError, ConnectionError):
        return


def _end_with_parent() -> None:
    # Not sys.stdin, whose lock a thread must not hold when the interpreter ends.
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    main()
