"""What a person sees of an extraction: a line per video without a terminal, a bar with rate and time left on one."""

import io

import pytest
from rich.console import Console

from features.outcome import ClipsEncoded, Extracted, Outcome, VideoStarted
from features.progress import ExtractionProgress


def shown(events, expected_clips, terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None)
    with ExtractionProgress(expected_clips, console) as progress:
        for event in events:
            progress(event)
    return console.file.getvalue()


DONE = Outcome("a", "done", extracted=Extracted(num_frames=40, num_steps=20))
EVENTS = [VideoStarted("a"), ClipsEncoded("a", 2), ClipsEncoded("a", 1), DONE, Outcome("b", "skipped", "already stored")]


def test_without_a_terminal_there_is_a_line_per_video_that_was_done_or_failed():
    bad = Outcome("[c]", "failed", "cannot be opened " * 20)
    damaged = Outcome("d", "done", extracted=Extracted(num_frames=4, num_steps=2, damaged=True))
    assert shown([*EVENTS, bad, damaged], {"a": 3, "b": 3, "[c]": None, "d": 1}, terminal=False).splitlines() == [
        "done    a: 40 frames, 20 steps",
        f"failed  [c]: {'cannot be opened ' * 20}",
        "done    d: 4 frames, 2 steps, damaged",
    ]


def test_on_a_terminal_there_is_a_bar_with_a_rate():
    text = shown(EVENTS, {"a": 3, "b": 3}, terminal=True)
    assert "clips/s" in text and "3/3" in text, "the clips of a skipped video leave the total"
    assert "done    a" not in text


def test_a_video_of_unknown_length_counts_as_the_mean_of_the_others():
    progress = ExtractionProgress({"a": 2, "b": 4, "c": None}, Console(file=io.StringIO()))
    assert progress.num_clips_left == 9
    progress(ClipsEncoded("c", 5))
    assert progress.num_clips_left == 6, "a video that is longer than expected does not make the others shorter"


def bar_with(events, width: int) -> list[str]:
    """The lines of the bar after `events` that took five seconds."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    progress = ExtractionProgress({f"v{number}": 92 for number in range(40)}, console)
    progress._start_s -= 5.0
    for event in events:
        progress(event)
    console.print(progress._bar)
    return [line for line in console.file.getvalue().splitlines() if line.strip()]


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("first", ["日本語の動画ファイル名はとても長いです", "line\nbreak", "[bold]x", "c" * 200])
def test_the_bar_is_one_line_in_narrow_terminals_whatever_the_ids_are_like(width, first):
    lines = bar_with([VideoStarted(first), VideoStarted("v1"), ClipsEncoded("v1", 12)], width)
    assert len(lines) == 1, lines
    assert "0 of 40 videos" in lines[0] and "12/3680" in lines[0] and "2.4 clips/s" in lines[0] and "-:--:--" in lines[0]
    assert ("and 1 more" in lines[0]) == (width > 60), lines


def test_videos_that_were_dropped_are_not_counted_as_finished():
    assert "1 of 40 videos" in bar_with([DONE, Outcome("v1", "dropped", "stopped")], 80)[-1]


def test_a_line_break_in_an_id_or_a_reason_does_not_break_its_line():
    text = shown([Outcome("a\nb", "failed", "because\nof that")], {"a\nb": 1}, terminal=False)
    assert text == "failed  a b: because of that\n"
