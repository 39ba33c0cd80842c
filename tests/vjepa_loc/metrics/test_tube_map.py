import json
from pathlib import Path

import numpy as np
import pytest

from vjepa_loc.dataset import Dataset, Video, read_dataset, read_predictions
from vjepa_loc.errors import DatasetError
from vjepa_loc.events import Event
from vjepa_loc.metrics import stal, tube_map
from vjepa_loc.metrics._result import steps
from vjepa_loc.scoring_input import ScoringInput

REFERENCE = Path(__file__).resolve().parents[4] / "shared" / "data" / "reference_scores" / "jhmdb_mix_a"
CONVENTIONS = tuple(tube_map.CONVENTIONS)

SQUARE = (0.0, 0.0, 10.0, 10.0)
HALF = (0.0, 0.0, 10.0, 5.0)
AWAY = (50.0, 50.0, 60.0, 60.0)


def tube(first, stop, score=None, box=SQUARE, label="take", video="v", frames=None):
    """The same box on every frame, or on `frames`."""
    frames = np.arange(first, stop) if frames is None else np.array(frames, dtype=np.int64)
    return Event(video, label, first, stop, frames, np.tile(np.array(box), (len(frames), 1)), score=score)


def bare(first, stop, score=None, label="take"):
    return tube(first, stop, score, label=label, frames=[])


def compute(convention, truths, predictions, thresholds=(0.5,), labels=("take",), videos=("v", "w")):
    dataset = Dataset(labels, {video: Video(video, num_frames=1000) for video in videos}, truths)
    return tube_map.compute(ScoringInput.of(dataset, predictions), convention, thresholds)


def average_precision(convention, truths, predictions, threshold=0.5):
    (value,) = compute(convention, truths, predictions, [threshold]).values.values()
    return value


def overlap(convention, truth, prediction):
    """The tube IoU, as the threshold that is just reached, by halving."""
    low, high = 0.0, 1.0
    if not average_precision(convention, [truth], [prediction.replace(score=1.0)], 1e-9):
        return 0.0
    for _ in range(22):
        middle = (low + high) / 2
        reached = average_precision(convention, [truth], [prediction.replace(score=1.0)], middle) == 1
        low, high = (middle, high) if reached else (low, middle)
    return high


@pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"needs the official evaluators' figures in {REFERENCE}")
def test_against_the_figures_of_the_official_evaluators():
    truth = read_dataset(REFERENCE / "truth.json")
    inputs = ScoringInput.of(truth, read_predictions(REFERENCE / "predictions.json", truth))
    act = json.loads((REFERENCE / "act_moc.json").read_text())
    values = tube_map.compute(inputs, "act").values
    for name in ("0.2", "0.5", "0.75", "0.5:0.95"):
        key = ":".join(f"{float(part):.2f}" for part in name.split(":"))
        assert values[f"tube_map[act]/map@{key}"] == pytest.approx(act[f"videoAP@{name}"] / 100, abs=1e-6), name
    multisports = json.loads((REFERENCE / "multisports.json").read_text())
    values = tube_map.compute(inputs, "multisports").values
    for name in ("0.2", "0.5"):
        key = f"tube_map[multisports]/map@{float(name):.2f}"
        assert values[key] == pytest.approx(multisports[f"videoAP@{name}"] / 100, abs=1e-6)
    for line in multisports["videoAP_all_output"]:
        name, _, printed = line.rpartition(":")
        value = values["tube_map[multisports]/map@" + name.removeprefix("VideoAP_")]
        assert f"{100 * value:.2f}" == printed.strip()


def test_tube_overlaps_by_hand():
    truth = tube(0, 10)
    # Half the box on 8 of 10 frames: the boxes' mean is 0.5.
    short = tube(0, 8, box=HALF)
    assert overlap("act", truth, short) == pytest.approx(0.5 * 8 / 10)
    # From frame 0 to 9 and to 7: 7 / 9.
    assert overlap("multisports", truth, short) == pytest.approx(0.5 * 7 / 9)
    assert overlap("volume", truth, short) == pytest.approx(8 * 50 / 1000)
    assert overlap("viou", truth, short) == pytest.approx(8 * 0.5 / 10)
    # Volume asks how much is common, vIoU frame by frame: twice the box on the second half.
    boxes = np.repeat([SQUARE, (0.0, 0.0, 10.0, 20.0)], 5, axis=0)
    grown = Event("v", "take", 0, 10, np.arange(10), boxes)
    assert overlap("volume", truth, grown) == pytest.approx(1000 / 1500)
    assert overlap("viou", truth, grown) == pytest.approx(0.75)


def test_inclusive_pixels_are_continuous_edges_less_one():
    # 10 x 10 pixels either way: 0..10 as edges, 0..9 as pixels. A shift by half a box: 50 / 150.
    for convention in CONVENTIONS:
        assert overlap(convention, tube(0, 4), tube(0, 4, box=(5.0, 0.0, 15.0, 10.0))) == pytest.approx(1 / 3), convention


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_threshold_itself_is_reached(convention):
    # Eight times a box IoU of 0.8 is 0.8 on paper and by numpy's mean; added one after the other it falls short.
    assert sum([0.8] * 8) / 8 < 0.8 == np.mean([0.8] * 8)
    assert average_precision(convention, [tube(0, 8)], [tube(0, 8, 0.9, (0.0, 0.0, 10.0, 8.0))], 0.8) == 1
    # Ten times 0.6 falls short by numpy's mean, and so it does in the tools that take it.
    reached = average_precision(convention, [tube(0, 10)], [tube(0, 10, 0.9, (0.0, 0.0, 10.0, 6.0))], 0.6)
    assert np.mean([0.6] * 10) < 0.6 and reached == (convention in ("volume", "viou"))


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_one_frame_tubes(convention):
    found = average_precision(convention, [tube(7, 8)], [tube(7, 8, 0.9)])
    # MultiSports measures an extent from its first to its last frame: none here, and 0 / 0 is no match.
    assert found == (0 if convention == "multisports" else 1)
    assert average_precision(convention, [tube(7, 8)], [tube(8, 9, 0.9)]) == 0
    # A common extent of one frame has no length there either.
    assert (overlap(convention, tube(0, 2), tube(1, 3)) > 0) == (convention != "multisports")


def test_one_frame_tubes_that_give_no_number_do_not_hide_other_truths():
    truths = [tube(7, 8), tube(5, 9)]
    assert average_precision("multisports", truths, [tube(5, 9, 0.9)]) == 0.5


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_fractional_intervals_count_nothing_only_frames_with_boxes_do(convention):
    frames = np.arange(2, 6)
    truth = Event("v", "take", 1.7, 6.4, frames, np.tile(SQUARE, (4, 1)))
    assert average_precision(convention, [truth], [tube(2, 6, 0.9)], 1.0) == 1


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_second_answer_takes_the_next_truth_except_in_multisports(convention):
    # Both answers prefer the first truth; the second truth is within reach (0.6 and more) of both.
    truths = [tube(0, 10), tube(0, 10, box=(0.0, 0.0, 10.0, 6.0))]
    # ACT would suppress an equal answer, so the second lies a little aside and is shorter.
    answers = [tube(0, 10, 0.9), tube(0, 10, 0.8, (0.0, 0.0, 10.0, 9.0))]
    if convention == "act":
        assert average_precision(convention, truths, answers, 0.5) == pytest.approx(0.5)
        return
    assert average_precision(convention, truths, answers, 0.5) == (0.5 if convention == "multisports" else 1)


def test_act_suppresses_above_0_3_before_it_scores():
    truths = [tube(0, 10), tube(20, 30)]
    # Temporal IoU of 3 / 10 frames with the better answer: not above 0.3, kept. 4 / 10: gone.
    third, fourth = tube(0, 3, 0.8), tube(0, 4, 0.8)
    later = tube(20, 30, 0.7)
    # true, false, true: 1/2 of the recall at precision 1, 1/2 between 1/2 and 2/3.
    assert average_precision("act", truths, [tube(0, 10, 0.9), third, later]) == pytest.approx(0.5 + 0.5 * (1 / 2 + 2 / 3) / 2)
    assert average_precision("act", truths, [tube(0, 10, 0.9), fourth, later]) == 1
    # What is suppressed suppresses nothing: the last overlaps the middle one, not the first.
    chain = [tube(0, 10, 0.9), tube(5, 15, 0.8), tube(10, 20, 0.7)]
    assert average_precision("act", [tube(0, 10), tube(10, 20)], chain) == 1
    # Other labels and other videos are left alone.
    result = compute("act", [tube(0, 10), tube(0, 10, label="return")], [tube(0, 10, 0.9), tube(0, 10, 0.8, label="return")], labels=("take", "return"))
    assert result.values == {"tube_map[act]/map@0.50": 1}
    assert average_precision("act", [tube(0, 10), tube(0, 10, video="w")], [tube(0, 10, 0.9), tube(0, 10, 0.8, video="w")]) == 1


def test_act_takes_the_last_of_equal_scores_first():
    right, wrong = tube(0, 10, 0.5), tube(0, 6, 0.5)
    assert average_precision("act", [tube(0, 10)], [wrong, right], 0.7) == 1
    assert average_precision("act", [tube(0, 10)], [right, wrong], 0.7) == 0
    # Between videos: in the dataset's order, whatever the file's.
    truths = [tube(0, 10, video="w")]
    for answers in ([tube(0, 10, 0.5, video="w"), tube(0, 10, 0.5)], [tube(0, 10, 0.5), tube(0, 10, 0.5, video="w")]):
        # false, true: the trapezoid between precision 0 and 1/2.
        assert average_precision("act", truths, answers) == 0.25


@pytest.mark.parametrize("convention", ["multisports", "volume", "viou"])
def test_other_conventions_keep_the_order_of_the_file(convention):
    truths = [tube(0, 10)]
    right, wrong = tube(0, 10, 0.5), tube(50, 60, 0.5)
    assert average_precision(convention, truths, [right, wrong]) == 1
    assert average_precision(convention, truths, [wrong, right]) == 0.5


def test_the_best_truth_of_multisports_is_the_first_of_equals():
    # Three equal truths, of which the first is tried by all; only one answer is true.
    truths = [tube(0, 10)] * 3
    assert average_precision("multisports", truths, [tube(0, 10, 0.9), tube(0, 10, 0.8)]) == pytest.approx(1 / 3)


def test_curves_by_hand():
    truths = [tube(0, 10), tube(20, 30)]
    answers = [tube(0, 10, 0.9), tube(50, 60, 0.8), tube(20, 30, 0.7)]
    # Precisions 1, 1/2, 2/3. Envelope: 1 and 2/3. Trapezoid: 1, then the line from 1/2 to 2/3.
    for convention in ("multisports", "volume", "viou"):
        assert average_precision(convention, truths, answers) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision("act", truths, answers) == pytest.approx((1 + (1 / 2 + 2 / 3) / 2) / 2)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_labels_without_truth(convention):
    result = compute(convention, [tube(0, 10)], [tube(0, 10, 0.9), tube(0, 10, 0.9, label="return")], labels=("take", "return", "rummage", "wave"))
    key = f"tube_map[{convention}]"
    if convention == "act":
        assert result.values == {f"{key}/map@0.50": 0.25}
        assert result.notes[0] == f"{key}: label 'return' has no truth tube here; its AP is 0 and lowers the mean over all labels"
        assert len(result.notes) == 3
    else:
        assert result.values == {f"{key}/map@0.50": 1.0}
        assert result.notes == [f"{key}: label 'return' has no truth tube here and is not scored; 1 predictions are not counted"]


def test_labels_that_multisports_does_not_evaluate():
    truths = [tube(0, 10), tube(0, 10, label="basketball save")]
    result = compute("multisports", truths, [tube(0, 10, 0.9)], labels=("take", "basketball save"))
    assert result.values == {"tube_map[multisports]/map@0.50": 1}
    assert result.notes == ["tube_map[multisports]: label 'basketball save' is not evaluated in MultiSports, nor here"]
    assert compute("volume", truths, [tube(0, 10, 0.9)], labels=("take", "basketball save")).values["tube_map[volume]/map@0.50"] == 0.5


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_truth_without_boxes_is_no_truth_and_a_prediction_without_boxes_is_false_where_the_tool_can_hold_one(convention):
    result = compute(convention, [tube(0, 10), bare(20, 30)], [bare(0, 10, 0.9), tube(0, 10, 0.8), tube(20, 30, 0.7)])
    left_out = convention in ("act", "multisports")
    assert result.values == pytest.approx({f"tube_map[{convention}]/map@0.50": 1 if left_out else 1 / 2})
    truth_note = f"tube_map[{convention}]: label 'take' has 1 truth events without boxes; they are left out"
    prediction_note = f"tube_map[{convention}]: 1 predictions have no box and do not count"
    assert result.notes == [truth_note, *([prediction_note] if left_out else [])]
    assert compute(convention, [bare(0, 10)], []).inapplicable == "none of the 1 truth events has a box"


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_no_predictions_and_no_truth(convention):
    assert average_precision(convention, [tube(0, 10)], []) == 0
    result = compute(convention, [], [tube(0, 10, 0.9)])
    assert result.values == {f"tube_map[{convention}]/map@0.50": 0}
    assert any("no truth" in note for note in result.notes)


def test_frames_without_a_box_are_no_common_frames():
    gaps = tube(0, 10, frames=[0, 1, 8, 9])
    # The boxes agree wherever both have one, and both extents are whole.
    assert overlap("act", tube(0, 10), gaps) == overlap("multisports", gaps, tube(0, 10)) == pytest.approx(1)
    assert overlap("viou", tube(0, 10), gaps) == overlap("volume", gaps, tube(0, 10)) == pytest.approx(0.4)
    for convention in CONVENTIONS:
        assert overlap(convention, gaps, tube(2, 8)) == 0


def test_ranges_are_over_thresholds_as_the_official_tools_add_them_up():
    # An overlap of exactly 0.15: 0.05 + 0.05 * 2 is a little more.
    truth, prediction = tube(0, 4), tube(0, 4, 0.9, (0.0, 0.0, 1.5, 10.0))
    for convention, expected in (("multisports", 2 / 9), ("viou", 3 / 9)):
        result = compute(convention, [truth], [prediction], [0.15, steps(0.05, 0.05, 0.45)])
        assert result.values == pytest.approx({f"tube_map[{convention}]/map@0.15": 1, f"tube_map[{convention}]/map@0.05:0.45": expected})
    # Thresholds that are not evenly spaced are taken as they are.
    assert compute("multisports", [truth], [prediction], [(0.1, 0.15, 0.9)]).values["tube_map[multisports]/map@0.10:0.90"] == pytest.approx(2 / 3)


def test_a_score_that_is_not_a_number_never_becomes_a_prediction():
    with pytest.raises(DatasetError, match="score: expected a finite number, got nan"):
        tube(0, 10, float("nan"))


def random_tubes(rng, num, scored, gaps=False):
    events = []
    for _ in range(num):
        first = int(rng.integers(0, 40))
        frames = np.arange(first, first + int(rng.integers(1, 20)))
        stop = int(frames[-1]) + 1
        if gaps:
            frames = frames[rng.random(len(frames)) < 0.7]
        low = rng.uniform(0, 8, (1, 2)) + rng.normal(0, 0.5, (len(frames), 2))
        boxes = np.hstack([low, low + rng.uniform(6, 12, (1, 2))])
        score = round(float(rng.random()), 1) if scored else None
        events.append(Event(str(rng.choice(["v", "w"])), str(rng.choice(["take", "return"])), first, stop, frames, boxes, score=score))
    return events


def test_stal_is_viou_where_every_truth_has_a_box_on_every_frame():
    rng, figures = np.random.default_rng(0), []
    for _ in range(20):
        truths, answers = random_tubes(rng, 20, False), random_tubes(rng, 60, True, gaps=True)
        dataset = Dataset(("take", "return"), {video: Video(video, num_frames=100) for video in "vw"}, truths)
        inputs = ScoringInput.of(dataset, answers)
        viou = tube_map.compute(inputs, "viou", [0.1, 0.3, 0.5, steps(0.1, 0.05, 0.5)]).values
        own = stal.compute(inputs, "", [0.1, 0.3, 0.5, steps(0.1, 0.05, 0.5)]).values
        assert list(viou.values()) == list(own.values())
        figures.append(own["stal/map@0.10"])
    assert 0.05 < np.mean(figures) < 0.5


def loop_overlap(convention, a, b):
    """The definitions, frame by frame."""
    boxes = [dict(zip(event.box_frames_K.tolist(), event.boxes_K4.tolist(), strict=True)) for event in (a, b)]
    if not boxes[0] or not boxes[1]:
        return 0.0
    common = sorted(set(boxes[0]) & set(boxes[1]))
    shared, whole = [], []
    for frame in common:
        (x1, y1, x2, y2), (u1, v1, u2, v2) = boxes[0][frame], boxes[1][frame]
        shared.append(max(0, min(x2, u2) - max(x1, u1)) * max(0, min(y2, v2) - max(y1, v1)))
        whole.append((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - shared[-1])
    ious = [part / union for part, union in zip(shared, whole, strict=True)]
    if convention == "volume":
        volumes = [sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in one.values()) for one in boxes]
        return sum(shared) / (sum(volumes) - sum(shared))
    if convention == "viou":
        return sum(ious) / len(set(boxes[0]) | set(boxes[1]))
    one = 1 if convention == "act" else 0
    inner = min(max(boxes[0]), max(boxes[1])) - max(min(boxes[0]), min(boxes[1])) + one
    outer = max(max(boxes[0]), max(boxes[1])) - min(min(boxes[0]), min(boxes[1])) + one
    return float(np.mean(ious)) * inner / outer if common and outer else 0.0


def loop_average_precision(convention, truths, answers, threshold):
    """The rules, answer by answer, of one label."""
    if convention == "act":
        ordered = sorted(enumerate(answers), key=lambda at: (-at[1].score, at[1].video_id, -at[0]))
        kept = []
        for _, answer in ordered:
            if all(other.video_id != answer.video_id or loop_overlap("act", other, answer) <= 0.3 for other in kept):
                kept.append(answer)
    else:
        kept = sorted(answers, key=lambda answer: -answer.score)
    if convention in ("act", "multisports"):
        kept = [answer for answer in kept if answer.num_boxes]
    taken, found = set(), []
    for answer in kept:
        ranked = sorted(
            ((loop_overlap(convention, truth, answer), -at) for at, truth in enumerate(truths) if truth.video_id == answer.video_id),
            reverse=True,
        )
        if convention == "multisports":
            ranked = ranked[:1]
        free = [at for iou, at in ranked if iou >= threshold and at not in taken]
        taken.update(free[:1])
        found.append(bool(free))
    precisions = np.cumsum(found) / np.arange(1, len(found) + 1)
    if convention == "act":
        before = np.concatenate([[1.0], precisions[:-1]])
        return sum((left + right) / 2 for left, right, true in zip(before, precisions, found, strict=True) if true) / len(truths)
    return sum(max(precisions[at:]) for at, true in enumerate(found) if true) / len(truths)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_against_a_loop_over_answers_and_frames(convention):
    rng = np.random.default_rng(1)
    figures = []
    for case in range(12):
        truths, answers = random_tubes(rng, 25, False, gaps=case % 2), random_tubes(rng, 80, True, gaps=case % 2)
        truths = [truth for truth in truths if truth.num_boxes]
        per_class = compute(convention, truths, answers, [0.1, 0.3, 0.6], labels=("take", "return")).per_class
        for label in ("take", "return"):
            own = [[event for event in events if event.label == label] for events in (truths, answers)]
            for threshold in (0.1, 0.3, 0.6):
                expected = loop_average_precision(convention, *own, threshold)
                assert per_class[label][f"tube_map[{convention}]/map@{threshold:.2f}"] == pytest.approx(expected, abs=1e-9)
                figures.append(expected)
    assert 0.02 < np.mean(figures) < 0.5 and len(set(figures)) > 30
