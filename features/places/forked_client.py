"""Object storage in a process that was forked: through a fresh child, because obstore's threads do not survive a fork.

A child of `os.fork` (a worker of a DataLoader) inherits obstore's state without its threads, and the next request would
wait for ever. So it starts `python -m features.places.forked_client FD URL`, which carries out the methods of
`ObjectClient` that are named to it on the socket, and ends with the process that started it. Files travel by their
names.
"""

import os
import socket
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from features.places.object_client import ObjectClient
from vjepa_loc.errors import StoreError

_PROJECT_FOLDER = Path(__file__).resolve().parents[2]


class ForkedClient:
    """The methods of `ObjectClient`, one request at a time."""

    def __init__(self, url: str):
        self._url = url
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair()
        search_path = [str(_PROJECT_FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "features.places.forked_client", str(theirs.fileno()), url],
                stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(search_path)},
            )
        self._connection = Connection(ours.detach())

    def __getattr__(self, method: str) -> Any:
        if method.startswith("_") or not hasattr(ObjectClient, method):
            raise AttributeError(method)

        def call(*arguments: Any) -> Any:
            with self._lock:
                try:
                    self._connection.send((method, arguments))
                    is_error, answer, number = self._connection.recv()
                except (EOFError, OSError):
                    raise StoreError(f"the store {self._url}: the process that reads it for this one has ended") from None
            if is_error:
                # Pickling an error keeps its arguments alone.
                if isinstance(answer, StoreError):
                    answer.errno = number
                raise answer
            return answer

        return call


def main() -> None:
    """Serves until the parent is gone: its end of the socket is then closed."""
    connection, url = Connection(int(sys.argv[1])), sys.argv[2]
    client = None
    try:
        while True:
            method, arguments = connection.recv()
            try:
                client = client or ObjectClient(url)
                answer = False, getattr(client, method)(*arguments), None
            except Exception as error:
                answer = True, error, getattr(error, "errno", None)
            connection.send(answer)
    except (EOFError, OSError, KeyboardInterrupt):
        return


if __name__ == "__main__":
    main()
