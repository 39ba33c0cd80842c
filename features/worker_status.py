"""What every extracting process says about itself: a small file `workers/<writer>.json` in the store, for `cli.py status`.

Information only: nothing else reads it, and an extraction goes on where it cannot be written. A thread of its own writes
it, so that neither a slow network nor a video that hangs delays the other; a process that was killed leaves its last one,
from which readers see that it is gone.
"""

import hashlib
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from features.claims import Owner
from features.outcome import ClipsEncoded, Outcome, Stopping, VideoRetried, VideoStarted
from features.outcome import Progress as Event
from features.places import Place
from features.store import Store
from features.worker_status_record import FOLDER, InHand, State, WorkerRecord

# A file in a folder costs next to nothing; an object costs a request.
WRITE_EVERY_S = 10.0
WRITE_EVERY_S_REMOTE = 30.0
# A worker writes in between as well when it ends or stops; nobody has to wait for more than this for that.
_LOOK_EVERY_S = 0.5
_RECENT_S = 60.0
_END_WRITE_S = 10.0


class WorkerStatus:
    """Call it with what `extract_dataset` reports, from any thread; a context manager around the extraction. Never raises.

    `expected_clips` maps the ids of this process's videos to about how many clips they have, None where that is not known.
    `problem` says why the file could not be written, once that happened.
    """

    def __init__(
        self, store: Store, expected_clips: Mapping[str, int | None], device: str = "cpu", every_s: float | None = None,
    ):
        self.problem: str | None = None
        self.name = f"{FOLDER}/{store.writer_name}.json"
        self._place: Place = store.place
        self._every_s = every_s or (WRITE_EVERY_S if store.place.appends else WRITE_EVERY_S_REMOTE)
        self._device = device
        self._owner = Owner.this_process()
        known = [number for number in expected_clips.values() if number is not None]
        self._mean_clips = sum(known) / len(known) if known else 1.0
        self._expected = dict(expected_clips)
        self._unseen = set(expected_clips)
        self._list_digest = _digest(expected_clips)
        self._counts = {"done": 0, "skipped": 0, "failed": 0}
        self._in_hand: dict[str, int] = {}
        self._num_clips = 0
        self._recent: deque[tuple[float, int]] = deque()
        self._stages: dict[str, float] = {}
        # Assigned only, never under the lock: a signal handler may do it while this thread holds the lock.
        self._said: tuple[State, str] = ("running", "")
        self._lock = threading.Lock()
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._write_on, name="worker status", daemon=True)
        self._started = time.time()
        self._started_s = time.monotonic()

    def __enter__(self) -> Self:
        self._started, self._started_s = time.time(), time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            # What it was told to stop for is how it ended.
            how = f"stopped{': ' if self._said[1] else ''}{self._said[1]}" if self._said[0] == "stopping" else "finished"
        elif issubclass(kind, KeyboardInterrupt):
            how = "interrupted"
        else:
            how = f"failed: {error}"
        self._said = "ended", how
        self._left.set()
        # A share or a service that hangs must not keep the program from ending.
        self._thread.join(_END_WRITE_S)

    def __call__(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, VideoStarted):
                self._in_hand[event.video_id] = 0
            elif isinstance(event, ClipsEncoded):
                self._num_clips += event.num_clips
                self._in_hand[event.video_id] = self._in_hand.get(event.video_id, 0) + event.num_clips
                self._recent.append((time.monotonic(), event.num_clips))
                self._forget_old()
            elif isinstance(event, VideoRetried):
                self._in_hand.pop(event.video_id, None)
            elif isinstance(event, Stopping):
                self._said = "stopping", self._said[1]
            elif isinstance(event, Outcome):
                self._in_hand.pop(event.video_id, None)
                # One that was dropped is as it was before.
                if event.status in self._counts:
                    self._counts[event.status] += 1
                    self._unseen.discard(event.video_id)

    def note_stages(self, busy_shares: Mapping[str, float]) -> None:
        """The part of its time, 0 to 1, in which each stage of the pipeline was busy."""
        with self._lock:
            self._stages = {name: round(share, 3) for name, share in busy_shares.items()}

    def stopping(self, why: str) -> None:
        """No other video will be begun. May be called by a signal handler."""
        self._said = "stopping", why

    def record(self) -> WorkerRecord:
        """What the file would say now."""
        with self._lock:
            now_s = time.monotonic()
            self._forget_old()
            elapsed_s = max(1e-3, now_s - self._started_s)
            state, how = self._said
            return WorkerRecord(
                owner=self._owner, device=self._device, started=round(self._started, 3), updated=round(time.time(), 3),
                every_s=self._every_s, state=state, how=how, **self._counts, clips=self._num_clips,
                recent_clips_per_s=round(sum(number for _, number in self._recent) / min(elapsed_s, _RECENT_S), 3),
                mean_clips_per_s=round(self._num_clips / elapsed_s, 3), clips_left=self._clips_left(), list_size=len(self._expected),
                list_digest=self._list_digest,
                in_hand=tuple(InHand(video_id, clips, self._expected.get(video_id)) for video_id, clips in self._in_hand.items()),
                stages=dict(self._stages),
            )

    def _clips_left(self) -> int:
        left = 0.0
        for video_id in self._unseen:
            expected = self._expected[video_id]
            left += max(0.0, (self._mean_clips if expected is None else expected) - self._in_hand.get(video_id, 0))
        return round(left)

    def _forget_old(self) -> None:
        oldest_s = time.monotonic() - _RECENT_S
        while self._recent and self._recent[0][0] < oldest_s:
            self._recent.popleft()

    def _write_on(self) -> None:
        written_s, written_said = float("-inf"), None
        while not self._left.is_set():
            if time.monotonic() - written_s >= self._every_s or self._said != written_said:
                written_said = self._said
                self._write()
                written_s = time.monotonic()
            self._left.wait(min(_LOOK_EVERY_S, self._every_s))
        self._write()

    def _write(self) -> None:
        try:
            self._place.replace(self.name, self.record().to_json(), durable=False)
        except Exception as error:
            # Information only: whatever the disk or the network says, it must not cost the extraction.
            self.problem = self.problem or " ".join(f"{type(error).__name__}: {error}".split())


def _digest(video_ids: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(sorted(video_ids)).encode(errors="backslashreplace")).hexdigest()[:12]
