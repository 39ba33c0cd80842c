"""The decoding process: `python -m features.decode_child FD RING`, started and killed by `features.decode_worker`.

It answers requests on the socket `FD`, with frames in the ring behind the descriptor `RING`; it ignores Ctrl-C and SIGTERM, which
a terminal and a scheduler send to whole groups (its parent decides), and ends when its parent does: then the socket or its standard input, which the parent holds open and never writes
to, is closed.
"""

import gc
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection


def main() -> None:
    """Serve until the parent is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Loaded only now, so that neither Ctrl-C nor the parent's end meets a process that is still importing.
    import torch

    from features.decode_protocol import Ready, Release
    from features.decode_serve import serve
    from features.frame_ring import FrameRing
    from features.heap import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()
    # What was imported stays: the collector need not look at it again and again.
    gc.freeze()
    connection, ring = Connection(int(sys.argv[1])), FrameRing(int(sys.argv[2]))
    try:
        connection.send(Ready())
        while True:
            request = connection.recv()
            # The last frames of a video are given back after its end.
            if not isinstance(request, Release):
                serve(connection, ring, request)
                # PyAV's first picture and its side data hold each other: megabytes that count as a few small objects.
                gc.collect()
    except (EOFError, ConnectionError):
        return


def _end_with_parent() -> None:
    # A decoder that hangs never looks at the socket; this thread sees the parent's end all the same.
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
