"""The process that checks videos: `python -m features.check_child FD`, started and killed by a `KillableChild`.

Like the decoding process it ignores Ctrl-C (its parent decides) and ends when its parent does: then the socket, or its standard
input, which the parent holds open and never writes to, is closed. It loads no torch: it is there in a third of a second.
"""

import os
import signal
import sys
import threading
from multiprocessing.connection import Connection


def main() -> None:
    """Serve until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Loaded only now, so that neither Ctrl-C nor the parent's end meets a process that is still importing.
    from features.check_protocol import Ready
    from features.check_serve import serve

    connection = Connection(int(sys.argv[1]))
    try:
        connection.send(Ready())
        while True:
            serve(connection, connection.recv())
    except (EOFError, ConnectionError):
        return


def _end_with_parent() -> None:
    # A decoder that hangs never looks at the socket; this thread sees the parent's end all the same.
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
