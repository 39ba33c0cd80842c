import numpy as np
import pytest

from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.events import Event
from vjepa_loc.metrics import classification
from vjepa_loc.scoring_input import ScoringInput

LABELS = tuple("abcdef")


def clip(video, start, probabilities):
    """Events of one clip, 10 frames from `start`: a probability per label."""
    return [Event(video, label, start, start + 10, score=score) for label, score in probabilities.items()]


def result(labels_of_videos, *clips, labels=LABELS):
    videos = {video: Video(video, num_frames=100, label=label) for video, label in labels_of_videos.items()}
    predictions = [event for one in clips for event in one]
    return classification.compute(ScoringInput.of(Dataset(labels, videos), predictions))


def figures(*arguments, **options):
    values = result(*arguments, **options).values
    return {name.removeprefix("classification/"): value for name, value in values.items()}


def test_a_videos_probabilities_are_the_mean_over_its_clips():
    # Two of three clips prefer b, and the mean prefers a: 1.6 against 1.4.
    clips = [clip("v", 0, {"a": 0.4, "b": 0.6}), clip("v", 10, {"a": 0.4, "b": 0.6}), clip("v", 20, {"a": 0.8, "b": 0.2})]
    values = figures({"v": "a"}, *clips)
    assert values["video_acc@1"] == 1 and values["clip_acc@1"] == pytest.approx(1 / 3)
    assert figures({"v": "b"}, *clips)["clip_acc@1"] == pytest.approx(2 / 3)


def test_a_label_that_a_clip_leaves_out_has_probability_0_there():
    # a: (1.0 + 0) / 2, b: (0 + 0.6) / 2
    clips = [clip("v", 0, {"a": 1.0}), clip("v", 10, {"b": 0.6, "c": 0.4})]
    assert figures({"v": "a"}, *clips)["video_acc@1"] == 1
    # Nothing is won by leaving labels out: 0 is never among the first five.
    silent = figures({"v": "d"}, *clips)
    assert silent["video_acc@5"] == silent["clip_acc@5"] == 0
    assert figures({"v": "b"}, clip("v", 0, {"a": 1.0, "b": 0.0}))["video_acc@5"] == 0


def test_five_are_the_five_most_probable():
    scores = dict(zip(LABELS, (0.3, 0.25, 0.2, 0.12, 0.08, 0.05)))
    assert figures({"v": "e"}, clip("v", 0, scores))["video_acc@5"] == 1
    assert figures({"v": "f"}, clip("v", 0, scores))["video_acc@5"] == 0


def test_equal_probabilities_stand_in_the_order_of_the_labels():
    even = {"b": 0.5, "a": 0.5}
    assert figures({"v": "a"}, clip("v", 0, even))["video_acc@1"] == 1
    assert figures({"v": "b"}, clip("v", 0, even))["video_acc@1"] == 0
    sixths = dict.fromkeys(LABELS, 1 / 6)
    assert figures({"v": "e"}, clip("v", 0, sixths))["clip_acc@5"] == 1
    assert figures({"v": "f"}, clip("v", 0, sixths))["clip_acc@5"] == 0


def test_mean_class_accuracy_is_over_the_classes_that_have_truth():
    # a: 2 of 3 right, b: 0 of 1; c is only predicted.
    right, wrong = {"a": 1.0}, {"c": 1.0}
    truth = {"v1": "a", "v2": "a", "v3": "a", "v4": "b"}
    found = result(truth, clip("v1", 0, right), clip("v2", 0, right), clip("v3", 0, wrong), clip("v4", 0, wrong))
    assert found.values["classification/video_acc@1"] == 0.5
    assert found.values["classification/video_mean_class_acc"] == pytest.approx((2 / 3 + 0) / 2)
    assert found.per_class["a"]["classification/video_acc@1"] == pytest.approx(2 / 3)
    assert set(found.per_class) == {"a", "b"}


def test_resampled_class_accuracy_is_over_the_classes_drawn():
    truth = {"v1": "b", "v2": "a", "v3": "b"}
    found = result(truth, clip("v1", 0, {"b": 1.0}), clip("v2", 0, {"b": 1.0}), clip("v3", 0, {"a": 1.0}))
    drawn = found.resample(np.array([[2, 1, 0], [2, 0, 1], [0, 3, 0], [1, 1, 1]]))
    assert drawn["classification/video_mean_class_acc"] == pytest.approx([1 / 2, 2 / 3, 0, 1 / 4])


def test_a_video_without_predictions_is_one_wrong_video_and_one_wrong_clip():
    clips = [clip("v", 0, {"a": 1.0}), clip("v", 10, {"a": 1.0})]
    found = result({"v": "a", "w": "a"}, *clips)
    assert found.values["classification/video_acc@1"] == 0.5
    assert found.values["classification/clip_acc@1"] == pytest.approx(2 / 3)
    assert found.notes == ["classification: 1 of 2 labelled videos have no prediction, such as 'w'"]
    assert set(figures({"v": "a"}).values()) == {0}


def test_videos_without_a_label_are_left_out():
    found = result({"v": "a", "w": None}, clip("v", 0, {"a": 1.0}), clip("w", 0, {"a": 1.0}))
    assert found.values["classification/clip_acc@1"] == 1
    assert found.notes == [
        "classification: 1 of 2 videos have no label and are not scored; 1 predictions there are not counted"
    ]
    assert "no truth" in result({"v": None}, clip("v", 0, {"a": 1.0})).inapplicable


def test_what_is_no_probability_is_refused():
    assert "1 of 2 scores lie outside 0..1, such as 1.5" in result({"v": "a"}, clip("v", 0, {"a": 1.5, "b": 0.2})).inapplicable
    assert "outside 0..1, such as -0.1" in result({"v": "a"}, clip("v", 0, {"a": -0.1})).inapplicable
    twice = [*clip("v", 0, {"a": 0.5}), *clip("v", 0, {"a": 0.5})]
    assert "1 labels stand several times in one clip, such as 'a' in 0 to 10 of video 'v'" in result({"v": "a"}, twice).inapplicable


def test_probabilities_that_do_not_sum_to_1_are_noted():
    assert result({"v": "a"}, clip("v", 0, {"a": 0.333, "b": 0.333, "c": 0.333})).notes == []
    assert "1 of 1 clips" in result({"v": "a"}, clip("v", 0, {"a": 0.5, "b": 0.48})).notes[0]
    assert "1 of 2 clips do not sum to 1 but to 0.7 to 0.7" in result(
        {"v": "a"}, clip("v", 0, {"a": 0.7}), clip("v", 10, {"a": 1.0})
    ).notes[0]


def test_with_few_labels_top_5_is_left_out():
    found = result({"v": "a"}, clip("v", 0, {"a": 1.0}), labels=LABELS[:4])
    assert set(figures({"v": "a"}, labels=LABELS[:4])) == {
        "clip_acc@1", "clip_mean_class_acc", "video_acc@1", "video_mean_class_acc"
    }
    assert found.notes == ["classification: Acc@5 is left out, there are only 4 labels"]
    assert "video_acc@5" in figures({"v": "a"}, labels=LABELS[:5])


def test_against_dense_probabilities_one_video_after_the_other():
    rng = np.random.default_rng(0)
    labels = tuple(f"l{index:02d}" for index in range(20))
    truth, clips, hits = {}, [], {name: [] for name in ("clip1", "clip5", "video1", "video5")}
    class_hits = {}
    for number in range(60):
        video, label = f"v{number:02d}", int(rng.integers(12))
        truth[video] = labels[label]
        # Coarse, so that probabilities tie.
        dense = np.round(rng.dirichlet(np.ones(20) * 0.5, size=int(rng.integers(1, 5))), 2) + 0.01
        dense[:, label] += 0.05
        dense = np.minimum(dense, 1)
        for at, scores in enumerate(dense):
            clips.append(clip(video, 10 * at, dict(zip(labels, scores.tolist()))))
            order = np.argsort(-scores, kind="stable").tolist()
            hits["clip1"].append(order[0] == label)
            hits["clip5"].append(label in order[:5])
        order = np.argsort(-(dense.sum(axis=0) / len(dense)), kind="stable").tolist()
        hits["video1"].append(order[0] == label)
        hits["video5"].append(label in order[:5])
        class_hits.setdefault(label, []).append(order[0] == label)
    shuffled = [clips[at] for at in rng.permutation(len(clips))]
    values = figures(truth, *sorted(shuffled, key=lambda one: one[0].start_frame), labels=labels)
    assert [values[f"{what}_acc@{top}"] for what in ("clip", "video") for top in (1, 5)] == pytest.approx(
        [np.mean(hits[f"{what}{top}"]) for what in ("clip", "video") for top in (1, 5)]
    )
    assert values["video_mean_class_acc"] == pytest.approx(np.mean([np.mean(one) for one in class_hits.values()]))
    assert 0 < values["video_acc@1"] < values["video_acc@5"] < 1
