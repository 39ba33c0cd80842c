"""Who does which video, where several workers do those of one dataset: what is left, who has what, what comes back on a loss.

Videos are handed out one by one, to whoever asks. A worker that is lost gives its videos back; what took it down is not known
if it had several, so each of them is done again alone, and a video that loses workers even so is set aside with the reason.
Nothing here waits, runs or writes; the engines do (`features/engines`).
"""

from collections import Counter, deque
from collections.abc import Hashable, Iterable
from enum import Enum

from features.outcome import IN_OTHER_HANDS, Outcome
from vjepa_loc.dataset import Video

# The first loss may be that of a neighbour, and the second a machine that was taken away.
MOST_LOSSES = 3


class Answer(Enum):
    """To a worker that gets no video: `WAIT` until something changes, or `END`, as all videos are answered."""

    WAIT = "wait"
    END = "end"


class Dispatcher:
    """The videos of one run. A worker is any key that stands for one life of it: one that was started again is another.

    A video that another process of somebody else's holds is looked at once more when all others are answered, since its owner
    may have died; what is said of it then stands.
    """

    def __init__(self, videos: Iterable[Video]):
        self._pending = deque(videos)
        self._suspects: deque[Video] = deque()
        self._deferred: list[Video] = []
        self._looked_again: set[str] = set()
        self._hands: dict[Hashable, dict[str, Video]] = {}
        self._losses: Counter[str] = Counter()

    @property
    def num_left(self) -> int:
        """Videos without an answer."""
        return len(self._pending) + len(self._suspects) + len(self._deferred) + sum(map(len, self._hands.values()))

    def held_by(self, worker: Hashable) -> list[str]:
        """The ids of the videos that a worker has."""
        return list(self._hands.get(worker, ()))

    def next_for(self, worker: Hashable) -> Video | Answer:
        """The next video for a worker, which has it from now on."""
        held = self._hands.setdefault(worker, {})
        if any(self._losses[video_id] for video_id in held):
            return Answer.WAIT
        if self._pending:
            return self._hand(self._pending, held)
        if self._suspects:
            return Answer.WAIT if held else self._hand(self._suspects, held)
        if any(self._hands.values()):
            return Answer.WAIT
        if self._deferred:
            self._pending.extend(self._deferred)
            self._deferred.clear()
            return self._hand(self._pending, held)
        return Answer.END

    def finish(self, worker: Hashable, outcome: Outcome) -> Outcome | None:
        """Takes a worker's outcome of a video; None where it does not count yet, or no more, since somebody else has it."""
        video = self._hands.get(worker, {}).pop(outcome.video_id, None)
        if video is None:
            return None
        if outcome.reason == IN_OTHER_HANDS and video.id not in self._looked_again:
            self._looked_again.add(video.id)
            self._deferred.append(video)
            return None
        return outcome

    def lost(self, worker: Hashable, how: str) -> list[Outcome]:
        """Takes back what a worker had that does not run any more, `how` it ended; the outcomes of videos that are set aside."""
        aside = []
        for video in self._hands.pop(worker, {}).values():
            self._losses[video.id] += 1
            if self._losses[video.id] < MOST_LOSSES:
                # One that has done so alone is settled first: between the losses of several, workers would be given up.
                self._suspects.append(video) if self._losses[video.id] == 1 else self._suspects.appendleft(video)
                continue
            times = self._losses[video.id]
            aside.append(Outcome(video.id, "failed", f"set aside: {times} workers ended while they had it, the last one: {how}"))
        return aside

    @staticmethod
    def _hand(videos: deque[Video], held: dict[str, Video]) -> Video:
        video = videos.popleft()
        held[video.id] = video
        return video
