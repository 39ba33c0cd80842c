"""An extraction as a person sees it: a bar with clips per second and the time left, or, without a terminal, a line per video."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from features.outcome import ClipsEncoded, Note, Outcome, Stopping, VideoRetried, VideoStarted
from features.outcome import Progress as Event

MOST_ID_LETTERS, FEWEST_ID_LETTERS = 24, 8

# What the columns beside the description take, with a short bar.
_OTHER_COLUMNS = 45


class ClipRateColumn(ProgressColumn):
    """Encoded clips per second of this run."""

    def render(self, task: Task) -> Text:
        rate = task.fields.get("clips_per_s")
        return Text("- clips/s" if rate is None else f"{rate:.1f} clips/s")


class ExtractionProgress:
    """Call it with what `extract_dataset` reports; a context manager around the extraction.

    `expected_clips` maps video ids to about how many clips they have. The bar counts clips; videos of unknown length count as the
    mean of those that are known, skipped ones leave the total.
    """

    def __init__(self, expected_clips: dict[str, int | None], console: Console):
        known = [number for number in expected_clips.values() if number is not None]
        mean = sum(known) / len(known) if known else 1.0
        self._clips_left = {video_id: mean if number is None else number for video_id, number in expected_clips.items()}
        self._num_videos = len(expected_clips)
        self._num_finished = 0
        self._in_hand: dict[str, None] = {}
        self._num_clips = 0
        self._start_s = time.monotonic()
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), ClipRateColumn(Column(no_wrap=True)),
            TimeRemainingColumn(), console=console, disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("extract", total=self.num_clips_left)

    @property
    def num_clips_left(self) -> int:
        """About how many clips are still to be encoded."""
        return round(sum(self._clips_left.values()))

    def __enter__(self) -> Self:
        self._start_s = time.monotonic()
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Note):
            self._print(event.text)
        elif isinstance(event, VideoStarted):
            self._in_hand[event.video_id] = None
            self._update()
        elif isinstance(event, ClipsEncoded):
            self._num_clips += event.num_clips
            self._clips_left[event.video_id] = max(0.0, self._clips_left.get(event.video_id, 0.0) - event.num_clips)
            self._update()
        elif isinstance(event, VideoRetried):
            self._in_hand.pop(event.video_id, None)
            self._print(f"again in {event.wait_s:g} s  {event.video_id}: {event.reason}")
        elif isinstance(event, Stopping):
            self._print(f"stopping; finishing: {', '.join(event.finishing) or 'none'}; dropping: {', '.join(event.dropping) or 'none'}")
        else:
            self._finish(event)

    def _finish(self, outcome: Outcome) -> None:
        self._num_finished += outcome.status != "dropped"
        self._in_hand.pop(outcome.video_id, None)
        self._clips_left[outcome.video_id] = 0.0
        self._update()
        if outcome.status in ("failed", "dropped"):
            self._print(f"{outcome.status:<8}{outcome.video_id}: {outcome.reason}")
        elif outcome.status == "done":
            extracted = outcome.extracted
            damaged = ", damaged" if extracted.damaged else ""
            if damaged or not self._console.is_terminal:
                self._print(f"done    {outcome.video_id}: {extracted.num_frames} frames, {extracted.num_steps} steps{damaged}")

    def _update(self) -> None:
        elapsed_s = time.monotonic() - self._start_s
        rate = self._num_clips / elapsed_s if self._num_clips and elapsed_s > 0 else None
        self._bar.update(
            self._task, completed=self._num_clips, total=self._num_clips + self.num_clips_left, clips_per_s=rate,
            description=self._description(),
        )

    def _description(self) -> str:
        """Short enough to leave the other columns their places, whatever the ids are like and however narrow the terminal is."""
        place = f"{self._num_finished} of {self._num_videos} videos"
        if not self._in_hand:
            return place
        first, *others = self._in_hand
        more = f" and {len(others)} more" if others else ""
        room = min(MOST_ID_LETTERS, self._console.width - _OTHER_COLUMNS - len(place) - len(", ") - len(more))
        if room < FEWEST_ID_LETTERS:
            return place
        # A line break in an id would tear the bar apart; some letters are two columns wide.
        name = Text(" ".join(first.split()))
        name.truncate(room, overflow="ellipsis")
        return f"{place}, {escape(name.plain)}{more}"

    def _print(self, line: str) -> None:
        # Plain text: what stands in brackets in a file's name is no markup, and a line is not cut at the terminal's width.
        self._console.print(line.replace("\n", " "), markup=False, highlight=False, soft_wrap=True)
