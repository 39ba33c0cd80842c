import json
from pathlib import Path

import numpy as np
import pytest

from vjepa_loc.dataset import Dataset, Video, read_dataset, read_predictions
from vjepa_loc.events import Event
from vjepa_loc.metrics import _frame_boxes, frame_map
from vjepa_loc.metrics._frame_boxes import places_in_runs
from vjepa_loc.metrics._result import ALL_THRESHOLDS, steps
from vjepa_loc.scoring_input import ScoringInput

REFERENCE = Path(__file__).resolve().parents[4] / "shared" / "data" / "reference_scores" / "jhmdb_mix_a"
NEEDS_REFERENCE = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason=f"needs the official evaluators' figures in {REFERENCE}"
)
CONVENTIONS = list(frame_map.CONVENTIONS)


def dataset(*events, labels=("take", "return"), videos=("v", "w")):
    return Dataset(labels, {video: Video(video, num_frames=1000) for video in videos}, events)


def one(box, score=None, frame=0, label="take", video="v", own=None):
    """An event of one frame with one box."""
    own = None if own is None else np.array([own])
    return Event(video, label, frame, frame + 1, np.array([frame]), np.array([box], dtype=float), own, score)


def compute(convention, truth, predictions, thresholds=(0.5,)):
    return frame_map.compute(ScoringInput.of(truth, predictions), convention, thresholds)


def scores(truth, predictions, threshold=0.5, conventions=CONVENTIONS):
    """The figure under each convention; of `take` alone, so that empty labels play no part."""
    name = f"map@{threshold:.2f}"
    return {
        convention: result.per_class["take"][f"frame_map[{convention}]/{name}"]
        for convention in conventions
        for result in [compute(convention, truth, predictions, [threshold])]
    }


def same(value):
    return pytest.approx(dict.fromkeys(CONVENTIONS, value), abs=1e-9)


SQUARE, ELSEWHERE = [0, 0, 10, 10], [50, 50, 60, 60]


@NEEDS_REFERENCE
def test_against_the_figures_of_the_official_tools():
    truth = read_dataset(REFERENCE / "truth.json")
    inputs = ScoringInput.of(truth, read_predictions(REFERENCE / "predictions.json", truth))
    act, multisports, frame = (json.loads((REFERENCE / f"{name}.json").read_text()) for name in ("act_moc", "multisports", "frame"))
    results = {convention: frame_map.compute(inputs, convention) for convention in CONVENTIONS}
    expected = {f"frame_map[act]/map@{at}": act[f"frameAP@{float(at)}"] / 100 for at in ("0.50", "0.75")}
    expected |= {f"frame_map[multisports]/map@{at}": multisports[f"frameAP@{float(at)}"] / 100 for at in ("0.50", "0.75")}
    expected["frame_map[voc]/map@0.50"] = frame["yowo_pascalvoc@0.5"]["mAP"]
    names = {"AP": "map@0.50:0.95", "AP50": "map@0.50", "AP75": "map@0.75", "APm": "map_medium@0.50:0.95", "APl": "map_large@0.50:0.95"}
    names |= {f"AR{most}": f"recall@0.50:0.95@{most}" for most in (1, 10, 100)}
    names |= {"ARm": "recall_medium@0.50:0.95@100", "ARl": "recall_large@0.50:0.95@100"}
    expected |= {f"frame_map[coco]/{name}": frame["coco"][official] for official, name in names.items()}
    values = {key: value for result in results.values() for key, value in result.values.items()}
    assert {key: values[key] for key in expected} == pytest.approx(expected, abs=1e-6)
    assert frame["coco"]["APs"] == -1 and not any("small" in key for key in values)
    for label, value in frame["yowo_pascalvoc@0.5"]["per_class"].items():
        assert results["voc"].per_class[label]["frame_map[voc]/map@0.50"] == pytest.approx(value, abs=1e-6)


def test_curves_by_hand():
    truth = dataset(one(SQUARE), one(SQUARE, frame=1))
    ranked = [one(SQUARE, 0.9), one(ELSEWHERE, 0.8), one(SQUARE, 0.7, frame=1)]
    # True, false, true of two: precisions 1, 1/2, 2/3 at recalls 0.5, 0.5, 1.
    assert scores(truth, ranked) == pytest.approx(
        {
            "act": 0.5 + 0.5 * (1 / 2 + 2 / 3) / 2,
            "multisports": 0.5 + 0.5 * 2 / 3,
            "voc": 0.5 + 0.5 * 2 / 3,
            "coco": (51 + 50 * 2 / 3) / 101,
        }
    )


def test_who_may_take_the_second_best_truth():
    truth = dataset(one(SQUARE), one([2, 0, 12, 10]))
    twice = [one(SQUARE, 0.9), one(SQUARE, 0.8)]
    assert scores(truth, twice) == pytest.approx({"act": 1, "multisports": 0.5, "voc": 0.5, "coco": 1})
    # The second truth is overlapped by 8 of 12 columns.
    assert scores(truth, twice, 0.7) == pytest.approx({"act": 0.5, "multisports": 0.5, "voc": 0.5, "coco": 51 / 101})


def test_equal_overlaps_go_to_the_first_truth_but_in_coco_to_the_last():
    truth = dataset(one(SQUARE), one([4, 0, 14, 10]))
    between, second = one([2, 0, 12, 10], 0.9), one([4, 0, 14, 10], 0.8)
    assert scores(truth, [between, second]) == pytest.approx({"act": 1, "multisports": 1, "voc": 1, "coco": 51 / 101})
    swapped = dataset(one([4, 0, 14, 10]), one(SQUARE))
    assert scores(swapped, [between, second]) == pytest.approx({"act": 0.5, "multisports": 0.5, "voc": 0.5, "coco": 1})


def test_a_repeated_detection_is_false():
    truth = dataset(one(SQUARE), one(SQUARE, frame=5))
    again = [one(SQUARE, 0.9), one(SQUARE, 0.8), one(SQUARE, 0.7, frame=5)]
    assert scores(truth, again)["voc"] == pytest.approx(0.5 + 0.5 * 2 / 3)
    # A repeated truth is one more to find, which only the rules of the best free truth can.
    assert scores(dataset(one(SQUARE), one(SQUARE)), again[:2]) == pytest.approx(
        {"act": 1, "multisports": 0.5, "voc": 0.5, "coco": 1}
    )


def test_the_threshold_itself_is_reached():
    assert scores(dataset(one(SQUARE)), [one([0, 0, 10, 5], 0.5)]) == same(1)
    assert scores(dataset(one(SQUARE)), [one([0, 0, 10, 4.99], 0.5)]) == same(0)
    assert scores(dataset(one(SQUARE)), [one(SQUARE, 0.5)], 1.0) == same(1)
    # COCO asks for no more than 1 - 1e-10.
    nearly = scores(dataset(one(SQUARE)), [one([0, 0, 10, 10 - 1e-10], 0.5)], 1.0)
    assert nearly == pytest.approx({"act": 0, "multisports": 0, "voc": 0, "coco": 1})


def test_means_over_thresholds_add_them_up_as_the_official_tools():
    # 150 of 1000 pixels are 0.15, which 0.05 + 0.05 * 2 exceeds by one bit.
    truth, guess = dataset(one([0, 0, 100, 10])), [one([0, 0, 15, 10], 0.5)]
    found = {
        convention: compute(convention, truth, guess, [(0.05, 0.1, 0.15), 0.15]).per_class["take"]
        for convention in CONVENTIONS
    }
    means = {convention: one[f"frame_map[{convention}]/map@0.05:0.15"] for convention, one in found.items()}
    assert means == pytest.approx({"act": 2 / 3, "multisports": 2 / 3, "voc": 1, "coco": 1})
    assert all(one[f"frame_map[{convention}]/map@0.15"] == pytest.approx(1) for convention, one in found.items())
    # The ninth of numpy's ten from 0.5 to 0.95 is 0.8999999999999999, and this overlap is no more.
    nearly = [one([0, 0, 0.009000000000000001, 1], 0.5)]
    result = compute("coco", dataset(one([0, 0, 0.01, 1])), nearly, [steps(0.5, 0.05, 0.95)])
    assert result.per_class["take"]["frame_map[coco]/map@0.50:0.95"] == pytest.approx(0.9)


def test_boxes_that_share_less_than_a_pixel_do_not_overlap_in_voc():
    truth, shifted = dataset(one([0, 0, 1, 10])), [one([0.5, 0, 1.5, 10], 0.5)]
    assert scores(truth, shifted, 0.3) == pytest.approx({"act": 1, "multisports": 1, "voc": 0, "coco": 1})
    # One whole pixel is enough.
    wide = dataset(one([0, 0, 2, 10]))
    assert scores(wide, [one([1, 0, 3, 10], 0.5)], 0.3) == same(1)
    assert scores(dataset(one([1, 0, 3, 10])), [one([0, 0, 2, 10], 0.5)], 0.3) == same(1)
    assert scores(dataset(one([0.5, 0, 1.5, 10])), [one([0, 0, 1, 10], 0.5)], 0.3)["voc"] == 0


def test_another_frame_label_or_video_is_another_image():
    truth = dataset(one(SQUARE))
    for wrong in (one(SQUARE, 0.9, frame=1), one(SQUARE, 0.9, label="return"), one(SQUARE, 0.9, video="w")):
        assert scores(truth, [wrong]) == same(0)


def test_a_box_ranks_by_its_own_score_else_by_that_of_its_event():
    truth = dataset(one(SQUARE))
    assert scores(truth, [one(SQUARE, 0.1, own=0.9), one(ELSEWHERE, 0.5)]) == same(1)
    late = scores(truth, [one(SQUARE, 0.9, own=0.1), one(ELSEWHERE, 0.5)])
    assert late == pytest.approx({"act": 0.25, "multisports": 0.5, "voc": 0.5, "coco": 0.5})


def test_ties_keep_the_order_of_the_file_but_in_coco_that_of_the_images():
    truth = dataset(one(SQUARE, frame=5))
    right, wrong = one(SQUARE, 0.5, frame=5), one(ELSEWHERE, 0.5, frame=0)
    assert scores(truth, [right, wrong]) == pytest.approx({"act": 1, "multisports": 1, "voc": 1, "coco": 0.5})
    assert scores(truth, [wrong, right]) == pytest.approx({"act": 0.25, "multisports": 0.5, "voc": 0.5, "coco": 0.5})
    # On one frame all keep that of the file, and so do the frames of one event.
    beside = one(ELSEWHERE, 0.5, frame=5)
    assert scores(truth, [right, beside]) == same(1)
    both = Event("v", "take", 0, 9, np.array([5, 8]), np.array([SQUARE, ELSEWHERE], dtype=float), score=0.5)
    assert scores(truth, [both]) == same(1)


def test_the_mean_is_over_all_labels_in_act_and_over_those_with_truth_elsewhere():
    truth, guesses = dataset(one(SQUARE)), [one(SQUARE, 0.9), one(SQUARE, 0.8, label="return")]
    for convention in CONVENTIONS:
        result = compute(convention, truth, guesses)
        zero = convention == "act"
        assert result.values[f"frame_map[{convention}]/map@0.50"] == pytest.approx(0.5 if zero else 1)
        effect = "counts 0" if zero else "is not scored"
        assert result.notes == [
            f"frame_map[{convention}]: label 'return' has no truth with boxes here and {effect}; 1 predicted boxes"
        ]
        assert set(result.per_class) == ({"take", "return"} if zero else {"take"})
        # Where nobody predicts the label either, it is named only if it changes the mean.
        silent = compute(convention, truth, guesses[:1]).notes
        named = "frame_map[act]: label 'return' has no truth with boxes here and counts 0; 0 predicted boxes"
        assert silent == ([named] if zero else [])
    # One that nobody predicts is missed, not left out.
    both = dataset(one(SQUARE), one(SQUARE, label="return"))
    assert all(compute(c, both, guesses[:1]).values[f"frame_map[{c}]/map@0.50"] == pytest.approx(0.5) for c in CONVENTIONS)


def test_multisports_leaves_out_the_labels_that_its_script_names():
    labels = ("take", "basketball save")
    truth = dataset(one(SQUARE), one(SQUARE, label="basketball save"), labels=labels)
    result = compute("multisports", truth, [one(SQUARE, 0.9)])
    assert result.values == {"frame_map[multisports]/map@0.50": 1} and set(result.per_class) == {"take"}
    assert result.notes == [
        "frame_map[multisports]: as in its official tool, these labels are not scored: basketball save"
    ]
    assert compute("voc", truth, [one(SQUARE, 0.9)]).values == {"frame_map[voc]/map@0.50": 0.5}


def test_events_without_boxes_are_counted_in_notes():
    bare = Event("v", "take", 0, 9)
    for convention in CONVENTIONS:
        result = compute(convention, dataset(one(SQUARE), bare), [one(SQUARE, 0.9), bare.replace(score=1.0)])
        assert result.per_class["take"][f"frame_map[{convention}]/map@0.50"] == pytest.approx(1)
        assert f"frame_map[{convention}]: 1 truth events have no box and do not count" in result.notes
        assert f"frame_map[{convention}]: 1 predictions have no box and do not count" in result.notes
        alone = compute(convention, dataset(bare), [one(SQUARE, 0.9)])
        assert alone.inapplicable == "none of the 1 truth events has a box" and alone.values == {}


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_many_pairs_are_looked_at_in_parts(convention, monkeypatch):
    truth, guesses = random_set(3)
    whole = compute(convention, truth, guesses, ALL_THRESHOLDS).values
    monkeypatch.setattr(_frame_boxes, "_CHUNK", 3)
    assert compute(convention, truth, guesses, ALL_THRESHOLDS).values == whole


@pytest.mark.parametrize("seed", range(6))
def test_against_loops_over_boxes(seed):
    truth, guesses = random_set(seed)
    for threshold in (0.3, 0.5):
        for convention in ("act", "multisports", "voc"):
            result = compute(convention, truth, guesses, [threshold])
            for label, figures in result.per_class.items():
                expected = loop_precision(convention, truth, guesses, label, threshold)
                assert figures == {f"frame_map[{convention}]/map@{threshold:.2f}": pytest.approx(expected, abs=1e-9)}


def random_set(seed, num_truths=40, num_guesses=120):
    """Boxes on a coarse grid with few scores: ties of overlap and of score are common."""
    rng = np.random.default_rng(seed)

    def event(scored):
        frames = np.flatnonzero(rng.random(4) < 0.7)
        low = rng.integers(0, 4, (len(frames), 2)) * 5.0
        own = rng.integers(0, 6, len(frames)) / 5 if scored and len(frames) and rng.random() < 0.5 else None
        return Event(
            str(rng.choice(["v", "w"])),
            str(rng.choice(["take", "return"])),
            0,
            4,
            frames,
            np.hstack([low, low + rng.integers(1, 4, (len(frames), 2)) * 5.0]),
            own,
            float(rng.integers(0, 6)) / 5 if scored else None,
        )

    return dataset(*(event(False) for _ in range(num_truths))), [event(True) for _ in range(num_guesses)]


def loop_precision(convention, truth, guesses, label, threshold):
    """The rules, one box after the other."""

    def boxes(events):
        for event in events:
            if event.label == label:
                own = [event.score] * event.num_boxes if event.box_scores_K is None else event.box_scores_K
                for frame, box, score in zip(event.box_frames_K, event.boxes_K4.tolist(), own, strict=True):
                    yield (event.video_id, int(frame)), box, score

    truths = {}
    for image, box, _ in boxes(truth.events):
        truths.setdefault(image, []).append([box, True])
    num_truths, true, points = sum(map(len, truths.values())), 0, [(1.0, 0.0)]
    for rank, (image, box, _) in enumerate(sorted(boxes(guesses), key=lambda one: -one[2]), start=1):
        among = [one for one in truths.get(image, []) if one[1] or convention != "act"]
        best = max(among, key=lambda one: overlap(one[0], box), default=None)
        if best is not None and overlap(best[0], box) >= threshold and best[1]:
            best[1], true = False, true + 1
        points.append((true / rank, true / num_truths))
    if convention == "act":
        return sum((b[1] - a[1]) * (a[0] + b[0]) / 2 for a, b in zip(points, points[1:], strict=False))
    return sum(
        (b[1] - a[1]) * max(point[0] for point in points[at:])
        for at, (a, b) in enumerate(zip(points, points[1:], strict=False), start=1)
    )


def overlap(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def test_places_in_runs_by_hand():
    assert places_in_runs(np.array([5, 5, 7, 5])).tolist() == [0, 1, 0, 0]
    assert places_in_runs(np.array([], dtype=int)).tolist() == []
