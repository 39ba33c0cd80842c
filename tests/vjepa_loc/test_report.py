import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from vjepa_loc import report
from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.evaluation import evaluate
from vjepa_loc.events import Event
from vjepa_loc.report import build_timelines, first_shown_score, metric_cards, not_drawn_note, pack_rows, render_report, tick_frames

ROOT = Path(__file__).resolve().parents[2]
VOID = {"meta", "input"}


def event(video, start, end, score=None, label="take"):
    return Event(video, label, start, end, score=score)


def evaluation(predictions, videos=None, truths=None, **options):
    videos = videos or {"v": Video("v", num_frames=200, fps=25), "w": Video("w", num_frames=50)}
    truths = [event("v", 0, 20), event("v", 10, 30), event("v", 100, 140, label="put")] if truths is None else truths
    return evaluate(Dataset(("take", "put"), videos, truths), "all", predictions, **options)


class Page(HTMLParser):
    """Counts elements by name and class, and checks that they nest."""

    def __init__(self, text):
        super().__init__()
        self.classes, self.open, self.links, self.text = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.classes.append(f"{tag} {attrs.get('class', '')}".split())
        self.links += [value for key, value in attrs.items() if key in ("src", "href", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def count(self, *names):
        return sum(set(names) <= set(classes) for classes in self.classes)


def test_the_page_is_whole_and_loads_nothing():
    text = render_report(evaluation([event("v", 1, 20, 0.9), event("v", 100, 110, 0.2, "put")], run="r1"))
    page = Page(text)
    assert all(link.startswith("#") for link in page.links)
    assert not re.search(r"https?://|@import|url\((?!#)", re.sub(r'xmlns(:xlink)?="[^"]+"', "", text))
    assert page.count("section", "video") == 2
    assert page.count("rect", "truth") == 3 and page.count("rect", "predicted") == 2
    visible = "".join(page.text)
    for part in ("r1", "tal/map@0.50:0.95", "Where the missing points go", "Rules and notes", "tal/map@0.25", "200 frames (8.0 s)", "50 frames", "no events"):
        assert part in visible


def test_missing_videos_baselines_and_notes_are_shown():
    stranger = event("v", 0, 5, 0.1, "put")
    result = evaluation(
        [stranger], truths=[event("v", 0, 20)], missing_videos=["w"], baselines={"mean_box": {"tal/map@0.50": 0.125}}
    )
    visible = " ".join(Page(render_report(result)).text)
    assert "Videos that are not in the store" in visible and "not in the store" in visible
    assert "mean_box" in visible and "0.125" in visible
    assert "label 'put' has no truth here" in visible


def test_names_cannot_become_markup():
    hostile = "</title><script>alert(1)</script>\"'"
    text = render_report(
        evaluate(
            Dataset((hostile,), {hostile: Video(hostile, num_frames=10)}, [event(hostile, 0, 5, label=hostile)]),
            "all",
            [event(hostile, 0, 5, 0.5, hostile)],
            run=hostile,
        )
    )
    assert "alert(1)</script>" not in text and text.count("<script>") == 1
    Page(text)


def test_truth_is_missed_unless_a_shown_prediction_of_its_label_overlaps_it():
    # Three truths: three predictions are shown at first, from score 0.4 on; 0.1 would find the second truth.
    predictions = [
        event("v", 0, 20, 0.9),
        event("v", 100, 140, 0.8),
        event("w", 0, 5, 0.4),
        event("v", 14, 30, 0.1),
    ]
    result = evaluation(predictions)
    (take, put) = build_timelines(result)[0].lanes
    assert [bar.found_score for bar in take.truths] == [0.9, 0.1] and put.truths[0].found_score is None
    page = Page(render_report(result))
    assert page.count("rect", "truth", "missed") == 2
    assert page.count("rect", "predicted") == 4 and page.count("rect", "predicted", "off") == 1


def test_bars_lie_where_the_events_do():
    (timeline, _) = build_timelines(evaluation([event("v", 50, 150, 0.5), event("v", 0, 10, 1.0)]))
    per_frame = (report.WIDTH - report.GUTTER - report.MARGIN) / 200
    lane = timeline.lanes[0]
    assert [(bar.x, bar.width) for bar in lane.truths] == [
        (report.GUTTER, 20 * per_frame),
        (report.GUTTER + 10 * per_frame, 20 * per_frame),
    ]
    # Overlapping truths lie in rows of their own, all predictions below them, the best one drawn last.
    assert lane.truths[0].y < lane.truths[1].y < lane.predictions[0].y
    assert [bar.score for bar in lane.predictions] == [0.5, 1.0]
    assert lane.predictions[0].opacity < lane.predictions[1].opacity == 1
    assert timeline.ticks[1] == (report.GUTTER + 20 * per_frame, "20")
    assert timeline.ticks[-1][0] == report.WIDTH - report.MARGIN
    lowest = max(bar.y for lane in timeline.lanes for bar in (*lane.truths, *lane.predictions))
    assert lowest + report.BAR <= timeline.axis_y < timeline.height


def test_a_long_list_of_predictions_is_cut_and_said_so(monkeypatch):
    monkeypatch.setattr(report, "MAX_DRAWN_PREDICTIONS", 5)
    (timeline, _) = build_timelines(evaluation([event("v", i, i + 5, i / 100) for i in range(9)]))
    assert sorted(bar.score for bar in timeline.lanes[0].predictions) == [0.04, 0.05, 0.06, 0.07, 0.08]
    assert timeline.facts[-2:] == ["9 predictions", "the best 5 drawn"]


def test_a_page_of_many_videos_stays_small_and_says_what_is_not_drawn(monkeypatch):
    result = evaluation([event(video, i, i + 5, i / 100) for video in "vw" for i in range(9)])
    assert not_drawn_note(result, build_timelines(result)) is None
    monkeypatch.setattr(report, "MAX_BARS", 8)
    assert [timeline.num_drawn for timeline in build_timelines(result)] == [4, 4]
    assert "of each video at most the best 4 predictions are drawn; predictions.json has all" in render_report(result)
    monkeypatch.setattr(report, "MAX_TIMELINES", 1)
    (timeline,) = build_timelines(result)
    assert timeline.num_drawn == 8 and "only the first 1 of 2 videos are drawn" in render_report(result)


def test_cards_show_the_main_figures_with_their_intervals():
    result = evaluation([event("v", 0, 20, 0.9)], metrics=["tal"])
    (card,) = metric_cards(result)
    assert [line.short for line in card.lines] == ["map@0.50", "map@0.50:0.95", "map@0.25"] and card.name == "tal"
    assert [line.interval for line in card.lines] == [result.intervals[f"tal/{line.short}"] for line in card.lines]
    low, high = card.lines[0].interval
    assert f"{low:.3f} – {high:.3f}" in render_report(result)


def test_tables_and_pictures_of_a_metric_are_in_the_page():
    text = render_report(evaluation([event("v", 0, 20, 0.9)], metrics=["calibration"]))
    page = Page(text)
    assert "calibration: " in "".join(page.text) and page.count("details") >= 1
    (card,) = [part for part in text.split("<section") if "calibration: " in part]
    assert "<svg" in card


def test_a_video_of_unknown_length_ends_with_its_last_event():
    (timeline,) = build_timelines(evaluation([event("v", 0, 80, 0.5)], {"v": Video("v")}, [event("v", 0, 60)]))
    assert timeline.facts[0] == "events up to frame 80"
    assert timeline.lanes[0].predictions[0].width == report.WIDTH - report.GUTTER - report.MARGIN


@pytest.mark.parametrize("scores", [[], [0.0], [-3.0, -2.0]])
def test_odd_scores_give_a_page(scores):
    Page(render_report(evaluation([event("v", 0, 10, score) for score in scores])))


def test_rows_hold_no_overlap():
    spans = np.array([[0, 10], [5, 15], [10, 20], [0, 30], [15, 16]], dtype=float)
    assert pack_rows(spans) == [0, 1, 0, 2, 1]
    assert pack_rows(spans, max_rows=2) == [0, 1, 0, 1, 1]
    assert pack_rows(np.zeros((0, 2))) == []


@pytest.mark.parametrize(("num_frames", "step"), [(1, 1), (12, 1), (13, 2), (356, 50), (1500, 200), (90_000, 10_000)])
def test_ticks_are_round(num_frames, step):
    ticks = tick_frames(num_frames)
    assert ticks[:2] == [0, step] and ticks[-1] <= num_frames < ticks[-1] + step


def test_as_many_predictions_as_truth_are_shown_at_first():
    assert first_shown_score([0.1, 0.9, 0.5], 2) == 0.5
    assert first_shown_score([0.1, 0.9], 5) == 0.1
    assert first_shown_score([0.1, 0.9], 0) == 0.1, "nothing says how many are too many"
    assert first_shown_score([], 3) == 0.0


def test_the_template_is_part_of_the_package():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["vjepa_loc"]
    package = ROOT / "vjepa_loc"
    packed = {path for pattern in patterns for path in package.glob(pattern)}
    assert {path for path in (package / "templates").iterdir() if path.is_file()} == packed != set()
