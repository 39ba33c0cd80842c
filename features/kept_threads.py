"""Threads that outlive their work and are used again: none of them ever ends before the process does.

MKL, which torch multiplies matrices with on a CPU, frees a thread's buffers when the thread ends; two threads that ended at once were
seen to run in circles there (`mm_cleanup_thread_cbk`, torch 2.13) and with them the process, which could not end any more.
"""

import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable

_idle: list["_KeptThread"] = []
_lock = threading.Lock()
# The threads of a parent do not exist in a forked child.
os.register_at_fork(after_in_child=_idle.clear)


class Task:
    """Work that was given to a thread."""

    def __init__(self, work: Callable[[], object]):
        self._work = work
        self._ended = threading.Event()

    def join(self, timeout_s: float | None = None) -> bool:
        """Waits until the work has ended; False where that takes longer."""
        return self._ended.wait(timeout_s)


class _KeptThread:
    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="kept", daemon=True).start()

    def give(self, task: Task) -> None:
        self._tasks.put(task)

    def _run(self) -> None:
        while True:
            task = self._tasks.get()
            try:
                task._work()
            except BaseException:
                # As in a thread of its own.
                print(traceback.format_exc(), file=sys.stderr)
            ended = task._ended
            # What the work holds is not kept until the next one.
            del task
            with _lock:
                _idle.append(self)
            ended.set()


def run_in_kept_thread(work: Callable[[], object]) -> Task:
    """Runs `work` beside, in a thread that has nothing to do, or a new one. Raises RuntimeError where the system gives no more."""
    with _lock:
        thread = _idle.pop() if _idle else None
    task = Task(work)
    (thread or _KeptThread()).give(task)
    return task
