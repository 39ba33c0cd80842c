"""What every metric must do, run over whatever is in `vjepa_loc/metrics`, in each of its conventions."""

import json
import math
import re

import numpy as np
import pytest

from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.errors import ConfigError
from vjepa_loc.metric_names import metric_conventions
from vjepa_loc.events import Event
from vjepa_loc.scoring_input import ScoringInput
from vjepa_loc.metrics._result import metric_key
from vjepa_loc.plugins import load_plugin, plugin_names

LABELS = ("take", "return", "rummage")
VIDEOS = ("v0", "v1", "v2")
ALL = metric_conventions(["all"])
KEYS = [metric_key(*one) for one in ALL]

# Metrics over IoU thresholds of ranked events: `<key>/map@<threshold>`.
MEAN_AVERAGE_PRECISION = [one for one in ALL if one[0] in ("tal", "stal", "frame_map", "tube_map")]


class Metric:
    """One metric under one convention."""

    def __init__(self, name, convention):
        self.module = load_plugin("vjepa_loc.metrics", name, "metric")
        self.convention, self.key = convention, metric_key(name, convention)

    def __call__(self, truth, predictions, videos=VIDEOS, thresholds=None):
        inputs = ScoringInput.of(truth, predictions, videos)
        return self.module.compute(inputs, self.convention, thresholds or self.module.DEFAULT_THRESHOLDS)


@pytest.fixture(params=ALL, ids=KEYS)
def metric(request):
    return Metric(*request.param)


@pytest.fixture(params=MEAN_AVERAGE_PRECISION, ids=[metric_key(*one) for one in MEAN_AVERAGE_PRECISION])
def map_metric(request):
    return Metric(*request.param)


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


def dataset(events, labels_of_videos=("take", "return", "take")):
    videos = {
        video: Video(video, num_frames=100, width=64, height=64, label=label)
        for video, label in zip(VIDEOS, labels_of_videos, strict=True)
    }
    return Dataset(LABELS, videos, events)


TRUTH = dataset(random_events(0, 24, scored=False))
# As the metrics of queries want it.
ONE_PER_LABEL = dataset(list({(event.video_id, event.label): event for event in TRUTH.events[:12]}.values()))
GUESSES = [
    # Half of the truth, and as many guesses out of the air.
    *(event.replace(score=0.5) for event in TRUTH.events[:12]),
    *random_events(1, 12, scored=True),
]


@pytest.fixture(params=[TRUTH, ONE_PER_LABEL], ids=["any", "one-per-label"])
def truth(request):
    return request.param


def test_there_is_something_to_score(metric):
    assert metric(ONE_PER_LABEL, GUESSES).inapplicable is None


def test_figures_are_named_after_the_metric_and_lie_in_0_to_1(metric, truth):
    result = metric(truth, GUESSES)
    if result.inapplicable is not None:
        assert result.values == {} and result.inapplicable
        return
    assert result.values
    for key, value in result.values.items():
        assert re.fullmatch(re.escape(metric.key) + r"/[a-z0-9_]+(@[0-9.:@x]+)?", key)
        assert type(value) is float and math.isfinite(value) and value >= 0
        assert value <= 1 or key.partition("@")[0].endswith("_frames")
    for figures in result.per_class.values():
        assert set(figures) <= set(result.values)
        assert all(type(value) is float and math.isfinite(value) for value in figures.values())
    assert set(result.per_class) <= set(LABELS)
    assert all(isinstance(note, str) for note in result.notes)
    json.dumps([result.values, result.per_class, result.notes], allow_nan=False)


def test_every_convention_has_a_rule_in_one_line(metric):
    rule = metric.module.CONVENTIONS[metric.convention]
    assert rule and "\n" not in rule and metric.module.__doc__


def test_drawing_each_video_once_gives_the_figures_themselves(metric, truth):
    result = metric(truth, GUESSES)
    assert set(result.headline) <= set(result.values)
    assert bool(result.headline) == (result.inapplicable is None)
    if result.headline:
        once = result.resample(np.ones((2, len(VIDEOS)), dtype=np.int64))
        assert set(once) == set(result.headline)
        for key in result.headline:
            assert once[key] == pytest.approx([result.values[key]] * 2, abs=1e-12)


def test_a_video_drawn_twice_counts_as_two_videos(metric, truth):
    """Resampling gives what the metric gives for a dataset in which the drawn videos stand as often as drawn."""
    # All scores differ, since copies of a video that tie with other videos would stand in another order.
    guesses = [event.replace(score=0.9 - 0.01 * index) for index, event in enumerate(GUESSES)]
    result = metric(truth, guesses)
    weights = np.array([[2, 1, 0], [0, 0, 3], [1, 2, 1]])
    resampled = result.resample(weights) if result.headline else {}
    for row, times in enumerate(weights.tolist()):
        drawn = [(video, f"{video}-{copy}") for video, count in zip(VIDEOS, times) for copy in range(count)]
        videos = {new: Video(new, num_frames=100, width=64, height=64, label=truth.videos[old].label) for old, new in drawn}

        def copies(events):
            return [event.replace(video_id=new) for event in events for old, new in drawn if old == event.video_id]

        again = metric(Dataset(LABELS, videos, copies(truth.events)), copies(guesses), tuple(videos))
        for key in result.headline:
            assert resampled[key][row] == pytest.approx(again.values[key], abs=1e-9), (key, times)


def test_no_truth_gives_numbers_or_a_reason(metric):
    result = metric(dataset([], labels_of_videos=(None, None, None)), GUESSES)
    assert set(result.values.values()) <= {0.0}
    assert result.inapplicable or any("no truth" in note for note in result.notes)


def test_no_predictions_give_numbers_or_a_reason(metric):
    result = metric(ONE_PER_LABEL, [])
    assert result.inapplicable or result.values
    assert all(math.isfinite(value) for value in result.values.values())


def test_the_order_of_the_videos_counts_nothing(metric):
    plain = metric(ONE_PER_LABEL, GUESSES)
    assert metric(ONE_PER_LABEL, GUESSES, VIDEOS[::-1]).values == pytest.approx(plain.values, abs=1e-12)


def test_the_truth_itself_is_perfect_and_nothing_finds_nothing(map_metric):
    perfect = [event.replace(score=0.9 - 0.01 * index) for index, event in enumerate(TRUTH.events)]
    best = map_metric(TRUTH, perfect).values
    assert best == pytest.approx(dict.fromkeys(best, 1.0)) or map_metric.key in OFFICIALLY_IMPERFECT
    nothing = map_metric(TRUTH, []).values
    assert nothing == dict.fromkeys(best, 0.0)
    between = map_metric(TRUTH, GUESSES).values
    assert all(0 < value < 1 for value in between.values())


# Conventions by which even the truth does not reach 1, with the reason.
OFFICIALLY_IMPERFECT = {
    "tube_map[act]": "a label without truth counts 0",
    "frame_map[act]": "a label without truth counts 0",
    "frame_map[coco]": "one box on each frame does not find two truths there: recall@1",
}


def test_only_the_order_of_the_scores_counts(map_metric):
    plain = map_metric(TRUTH, GUESSES)
    squeezed = [event.replace(score=math.tanh(event.score) - 5) for event in GUESSES]
    again = map_metric(TRUTH, squeezed)
    assert (again.values, again.per_class, again.notes) == (plain.values, plain.per_class, plain.notes)


def test_false_answers_below_all_others_change_nothing(map_metric):
    plain = map_metric(TRUTH, GUESSES).values
    nowhere = Event("v0", "take", 99, 100, np.array([99]), np.array([[60.0, 60.0, 61.0, 61.0]]), score=-1.0)
    assert map_metric(TRUTH, [*GUESSES, nowhere]).values == plain
    above = map_metric(TRUTH, [*GUESSES, nowhere.replace(score=2.0)]).values
    # A recall counts what the first predictions find, which one false answer need not change.
    assert all(above[key] < plain[key] for key in plain if "/map@" in key)
    assert all(above[key] <= plain[key] for key in plain)


def test_thresholds_can_be_chosen(map_metric):
    result = map_metric(TRUTH, GUESSES, thresholds=[0.125, (0.3, 0.4, 0.5)])
    names = {key.split("@")[1] for key in result.values}
    assert names == {"0.125", "0.30:0.50"}
    with pytest.raises(ConfigError, match="IoU thresholds"):
        map_metric(TRUTH, GUESSES, thresholds=[1.5])


def test_the_names_of_all_metrics_are_there():
    assert {"tal", "stal"} <= set(KEYS) and len(set(KEYS)) == len(KEYS)
    assert set(plugin_names("vjepa_loc.metrics")) == {name for name, _ in ALL}
