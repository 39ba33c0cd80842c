"""From the windows of many videos to their events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from heads.parts.contract import Candidates
from heads.training.joining import JoinConfig, VideoJoiner
from heads.training.streams import VideoExtent
from heads.training.targets import answer_to_event
from heads.training.windows import Window
from vjepa_loc.events import Event


class EventCollector:
    """Takes windows video after video; holds the answers of one video, and the events of those that are done."""

    def __init__(self, extents: Mapping[str, VideoExtent], labels: Sequence[str], config: JoinConfig):
        self.extents, self.labels, self.config = extents, tuple(labels), config
        self._events: list[Event] = []
        self._joiner: VideoJoiner | None = None

    def add(self, windows: Sequence[Window], candidates: Sequence[Candidates]) -> None:
        """A batch; the windows of one video come in a row and by time."""
        for window, answers in zip(windows, candidates, strict=True):
            if self._joiner is None or self._joiner.extent.video_id != window.video_id:
                self._finish_video()
                self._joiner = VideoJoiner(self.extents[window.video_id], self.labels, self.config)
            self._joiner.add(window, answers)

    def finish(self) -> list[Event]:
        """The events of all videos, per video by descending score; the collector is empty again."""
        self._finish_video()
        events, self._events = self._events, []
        return events

    def _finish_video(self) -> None:
        if self._joiner is None:
            return
        found = [answer_to_event(answer, self._joiner.extent) for answer in self._joiner.answers()]
        self._events += [event for event in found if event is not None]
        self._joiner = None
