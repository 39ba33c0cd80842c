"""What every metric must do, run over whatever is in `vjepa_loc/metrics`."""

import json
import math
import re

import numpy as np
import pytest

from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.errors import ConfigError, DatasetError, UnknownNameError
from vjepa_loc.events import Event
from vjepa_loc.plugins import load_plugin, plugin_names

LABELS = ("take", "return", "rummage")
VIDEOS = ("v0", "v1", "v2")


@pytest.fixture(params=plugin_names("vjepa_loc.metrics"))
def metric(request):
    return load_plugin("vjepa_loc.metrics", request.param, "metric")


def random_events(seed, num, scored):
    rng = np.random.default_rng(seed)
    events = []
    for _ in range(num):
        start = int(rng.integers(0, 80))
        frames = np.arange(start, start + int(rng.integers(4, 20)))
        low = rng.uniform(0, 40, (1, 2))
        events.append(
            Event(
                str(rng.choice(VIDEOS)),
                str(rng.choice(LABELS[:2])),
                start,
                int(frames[-1]) + 1,
                frames,
                np.repeat(np.hstack([low, low + 20]), len(frames), axis=0),
                score=float(rng.random()) if scored else None,
            )
        )
    return events


def dataset(events):
    return Dataset(LABELS, {video: Video(video, num_frames=100, width=64, height=64) for video in VIDEOS}, events)


TRUTH = dataset(random_events(0, 24, scored=False))
GUESSES = [
    # Half of the truth, and as many guesses out of the air.
    *(event.replace(score=0.5) for event in TRUTH.events[:12]),
    *random_events(1, 12, scored=True),
]


def name_of(metric):
    return metric.__name__.rsplit(".", 1)[-1]


def test_figures_are_named_after_the_metric_and_lie_in_0_to_1(metric):
    result = metric.compute(TRUTH, GUESSES, VIDEOS, metric.DEFAULT_THRESHOLDS)
    assert result.values
    for figures in (result.values, *result.per_class.values()):
        assert set(figures) == set(result.values)
        for key, value in figures.items():
            assert re.fullmatch(rf"{name_of(metric)}/[a-z_]+(@[0-9.:]+)?", key)
            assert type(value) is float and 0 <= value <= 1
    assert set(result.per_class) == {"take", "return"}
    assert all(isinstance(note, str) for note in result.notes)
    json.dumps([result.values, result.per_class, result.notes], allow_nan=False)


def test_the_truth_itself_is_perfect_and_nothing_finds_nothing(metric):
    perfect = [event.replace(score=0.9) for event in TRUTH.events]
    best = metric.compute(TRUTH, perfect, VIDEOS, metric.DEFAULT_THRESHOLDS).values
    assert best == pytest.approx(dict.fromkeys(best, 1.0))
    nothing = metric.compute(TRUTH, [], VIDEOS, metric.DEFAULT_THRESHOLDS).values
    assert nothing == dict.fromkeys(best, 0.0)
    between = metric.compute(TRUTH, GUESSES, VIDEOS, metric.DEFAULT_THRESHOLDS).values
    assert all(0 < value < 1 for value in between.values())


def test_only_the_order_of_the_scores_counts(metric):
    plain = metric.compute(TRUTH, GUESSES, VIDEOS, metric.DEFAULT_THRESHOLDS)
    squeezed = [event.replace(score=math.tanh(event.score) - 5) for event in GUESSES]
    assert metric.compute(TRUTH, squeezed, VIDEOS, metric.DEFAULT_THRESHOLDS) == plain
    assert metric.compute(TRUTH, GUESSES, VIDEOS[::-1], metric.DEFAULT_THRESHOLDS).values == plain.values


def test_false_answers_below_all_others_change_nothing(metric):
    plain = metric.compute(TRUTH, GUESSES, VIDEOS, metric.DEFAULT_THRESHOLDS).values
    nowhere = Event("v0", "take", 99, 100, np.array([99]), np.array([[60.0, 60.0, 61.0, 61.0]]), score=-1.0)
    assert metric.compute(TRUTH, [*GUESSES, nowhere], VIDEOS, metric.DEFAULT_THRESHOLDS).values == plain
    above = metric.compute(TRUTH, [*GUESSES, nowhere.replace(score=2.0)], VIDEOS, metric.DEFAULT_THRESHOLDS).values
    assert all(above[key] < plain[key] for key in plain)


def test_thresholds_can_be_chosen(metric):
    result = metric.compute(TRUTH, GUESSES, VIDEOS, [0.125, (0.3, 0.4, 0.5)])
    assert [key.split("@")[1] for key in result.values] == ["0.125", "0.30:0.50"]
    with pytest.raises(ConfigError, match="IoU thresholds"):
        metric.compute(TRUTH, GUESSES, VIDEOS, [1.5])


def test_no_truth_gives_numbers_and_says_so(metric):
    result = metric.compute(dataset([]), GUESSES, VIDEOS, metric.DEFAULT_THRESHOLDS)
    assert set(result.values.values()) == {0.0} and result.per_class == {}
    assert any("no truth" in note for note in result.notes)


def test_wrong_input_is_refused(metric):
    with pytest.raises(DatasetError, match="expected a score, got none"):
        metric.compute(TRUTH, TRUTH.events, VIDEOS, metric.DEFAULT_THRESHOLDS)
    with pytest.raises(UnknownNameError, match="'v9'"):
        metric.compute(TRUTH, GUESSES, ["v9"], metric.DEFAULT_THRESHOLDS)
