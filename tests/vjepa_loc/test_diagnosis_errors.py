"""Kinds of false positives, worked by hand and against loops that follow the definitions word for word."""

import numpy as np
import pytest

from tests.diagnosis_cases import APART, CLOSE, LOOSE, PLACE, event, inputs_of, random_case, tube_iou_loop
from vjepa_loc.diagnosis_errors import FOUND, KINDS, LEFT_OUT, find_errors
from vjepa_loc.overlap import box_iou, span_iou


def kinds(metric, truths, predictions, threshold=0.5):
    found = find_errors(inputs_of(truths, predictions), metric, threshold)
    names = {FOUND: "true", LEFT_OUT: "left out"} | dict(enumerate(KINDS))
    return [names[kind] for kind in found.kind_P.tolist()], found


@pytest.mark.parametrize(
    "kind, prediction",
    [
        ("true", event(0, 100)),
        ("true", event(0, 50)),
        ("wrong label", event(0, 50, label="return")),
        ("bad boundary", event(0, 49)),
        ("bad boundary", event(0, 10)),
        ("background", event(0, 9)),
        ("several faults", event(0, 49, label="return")),
        ("several faults", event(0, 10, label="return")),
        ("background", event(0, 9, label="return")),
        ("background", event(0, 100, video="w")),
    ],
)
def test_kinds_in_time_alone(kind, prediction):
    assert kinds("tal", [event(0, 100)], [prediction.replace(score=0.5)])[0] == [kind]


@pytest.mark.parametrize(
    "kind, prediction",
    [
        ("true", event(0, 100, CLOSE)),
        ("true", event(0, 50, PLACE)),
        ("wrong label", event(0, 100, CLOSE, label="return")),
        # The place is right as far as it goes, the time is not.
        ("bad boundary", event(0, 49, PLACE)),
        ("bad boundary", event(0, 10, CLOSE)),
        ("bad boundary", event(0, 49, (0, 0, 10, 5))),
        ("several faults", event(0, 49, (0, 0, 10, 4.9))),
        ("background", event(0, 9, CLOSE)),
        # The time is right, the place is not: a little, wholly, or without a box.
        ("bad box", event(0, 100, LOOSE)),
        ("bad box", event(0, 100, APART)),
        ("bad box", event(0, 100)),
        # Time 0.8 and place 0.6 are each enough, but not together: boxes are asked for first.
        ("bad box", event(0, 80, CLOSE)),
        ("several faults", event(0, 49, LOOSE)),
        ("several faults", event(0, 49, APART)),
        ("several faults", event(0, 49)),
        ("several faults", event(0, 100, LOOSE, label="return")),
        ("several faults", event(0, 49, PLACE, label="return")),
        ("background", event(0, 100, APART, label="return")),
        ("background", event(0, 9, APART)),
    ],
)
def test_kinds_in_time_and_place(kind, prediction):
    assert kinds("stal", [event(0, 100, PLACE)], [prediction.replace(score=0.5)])[0] == [kind]


def test_a_truth_that_is_found_makes_doubles_and_no_others():
    truth, best = event(0, 100, PLACE), event(0, 100, PLACE, 0.9)
    more = [event(0, 100, CLOSE, 0.8), event(0, 100, LOOSE, 0.7), event(0, 100, APART, 0.6), event(0, 49, APART, 0.5)]
    # What is wholly elsewhere was not meant for a truth that has its answer.
    assert kinds("stal", [truth], [best, *more])[0] == ["true", "double detection", "bad box", "background", "background"]


def test_the_better_score_is_true_and_ties_keep_the_order_of_the_file():
    truth = [event(0, 100)]
    assert kinds("tal", truth, [event(0, 90, score=0.4), event(0, 60, score=0.5)])[0] == ["double detection", "true"]
    assert kinds("tal", truth, [event(0, 60, score=0.5), event(0, 100, score=0.5)])[0] == ["true", "double detection"]


@pytest.mark.parametrize("metric", ["tal", "stal"])
def test_of_truths_that_are_overlapped_equally_the_last_is_found(metric):
    _, found = kinds(metric, [event(0, 60, PLACE), event(40, 100, PLACE)], [event(0, 100, PLACE, 0.5)])
    assert found.truth_P.tolist() == [1] and found.found_G.tolist() == [False, True]


def test_a_prediction_over_two_truths_finds_one_and_stands_nearest_to_the_other():
    names, found = kinds("tal", [event(0, 60), event(60, 100)], [event(0, 100, score=0.5)])
    assert names == ["true"] and found.truth_P.tolist() == [0]
    assert found.found_G.tolist() == [True, False]
    assert found.nearest_G.tolist() == [-1, 0] and found.nearest_time_iou_G.tolist() == [0, 0.4]


def test_with_truths_of_two_labels_in_one_place_the_own_label_comes_first():
    truths = [event(0, 100), event(0, 100, label="return")]
    names, found = kinds("tal", truths, [event(0, 100, score=0.9), event(0, 90, score=0.8)])
    assert names == ["true", "double detection"] and found.truth_P.tolist() == [0, 0]
    # The missed truth is overlapped most by what found the other one.
    assert found.nearest_G.tolist() == [-1, 0] and found.nearest_overlap_G[1] == 1
    # A wrong label beats a poor boundary with the own label: it lies right on something.
    assert kinds("tal", [event(0, 100), event(60, 100, label="return")], [event(60, 100, score=0.9)])[0] == ["wrong label"]


def test_the_nearest_truth_is_the_one_of_the_largest_overlap_and_rather_one_that_is_missed():
    truths = [event(0, 100, label="return"), event(10, 100, label="return"), event(10, 100, label="rummage")]
    answers = [event(10, 100, score=0.9, label="return"), event(10, 100, score=0.8)]
    names, found = kinds("tal", truths, answers)
    # Two truths from 10 to 100 are as near; one of them is found.
    assert names == ["true", "wrong label"] and found.truth_P.tolist() == [1, 2]


def test_among_equals_the_first_truth_is_nearest_and_the_best_ranked_prediction():
    names, found = kinds("tal", [event(0, 100), event(0, 100)], [event(0, 100, score=0.5, label="return")])
    assert names == ["wrong label"] and found.truth_P.tolist() == [0]
    _, found = kinds("tal", [event(0, 100)], [event(0, 20, score=0.4), event(0, 20, score=0.5)])
    assert found.nearest_G.tolist() == [1]


def test_overlap_tells_before_time_which_truth_is_nearest():
    truths = [event(0, 60, CLOSE), event(0, 90, LOOSE)]
    # Only the first has boxes that touch: 10 of 100 pixels, for 0.6 of the time. With the place all wrong, time is left.
    similar, elsewhere = event(0, 100, (0, 5, 10, 10), 0.5), event(0, 100, APART, 0.4)
    names, found = kinds("stal", truths, [similar, elsewhere])
    assert names == ["bad box", "bad box"] and found.truth_P.tolist() == [0, 1]
    assert found.overlap_P.tolist() == [pytest.approx(0.06), 0] and found.time_iou_P.tolist() == [0.6, 0.9]


def test_what_is_left_out_is_near_no_missed_truth():
    truths = [event(0, 100), event(0, 60, PLACE)]
    names, found = kinds("stal", truths, [event(0, 100, APART, 0.5)])
    assert names == ["left out"] and found.nearest_G.tolist() == [-1, -1]


def test_what_stal_leaves_out_is_neither_true_nor_false():
    truths = [event(0, 100), event(200, 300, PLACE)]
    predictions = [
        event(0, 100, PLACE, 0.9),
        event(0, 100, PLACE, 0.8),
        event(0, 49, PLACE, 0.7),
        event(0, 100, None, 0.6),
        event(0, 100, PLACE, 0.5, label="return"),
    ]
    names, found = kinds("stal", truths, predictions)
    assert names == ["left out", "left out", "bad boundary", "bad box", "wrong label"]
    assert found.scored_G.tolist() == [False, True] and found.missed_G.tolist() == [False, True]
    assert found.nearest_G.tolist() == [-1, -1]


def test_another_threshold():
    truth = [event(0, 100)]
    assert kinds("tal", truth, [event(0, 70, score=0.5)], 0.7)[0] == ["true"]
    assert kinds("tal", truth, [event(0, 69, score=0.5)], 0.7)[0] == ["bad boundary"]
    assert kinds("tal", truth, [event(0, 5, score=0.5)], 0.05)[0] == ["true"]
    assert kinds("tal", truth, [event(0, 4, score=0.5)], 0.05)[0] == ["background"]
    names, found = kinds("tal", truth, [event(0, 7, score=0.5, label="return")], 0.05)
    assert names == ["wrong label"] and found.nearest_G.tolist() == [0]


def test_a_threshold_that_is_reached_on_paper_is_reached():
    # Ten times 0.6, added up, is less than 6.
    assert kinds("stal", [event(0, 10, PLACE)], [event(0, 10, CLOSE, 0.5)], 0.6)[0] == ["true"]
    assert kinds("stal", [event(0, 100, PLACE)], [event(0, 10, CLOSE, 0.5)], 0.6)[0] == ["bad boundary"]


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("metric", ["tal", "stal"])
def test_every_kind_against_a_loop_over_its_definition(metric, seed):
    truths, predictions = random_case(seed)
    names, found = kinds(metric, truths, predictions)
    is_scored = [metric == "tal" or truth.num_boxes > 0 for truth in truths]
    assert found.scored_G.tolist() == is_scored

    def same_label(prediction, truth):
        return prediction.label == truth.label

    def time(prediction, truth):
        spans = [[(one.start_frame, one.end_frame)] for one in (prediction, truth)]
        return span_iou(*spans)[0, 0]

    def overlap(prediction, truth):
        if metric == "tal":
            return time(prediction, truth)
        if truth.num_boxes == 0:
            return time(prediction, truth) if prediction.num_boxes else 0
        return round(tube_iou_loop(truth, prediction), 12)

    def in_place(prediction, truth):
        if metric == "tal" or truth.num_boxes == 0:
            return metric == "tal" or prediction.num_boxes > 0
        common = np.intersect1d(prediction.box_frames_K, truth.box_frames_K)
        boxes = zip(prediction.box_frames_K, prediction.boxes_K4), zip(truth.box_frames_K, truth.boxes_K4)
        ours, theirs = map(dict, boxes)
        return len(common) > 0 and round(np.mean([box_iou([ours[at]], [theirs[at]])[0, 0] for at in common]), 12) >= 0.5

    free = {index for index, scored in enumerate(is_scored) if scored}
    finds = {}
    for at in sorted(range(len(predictions)), key=lambda at: -predictions[at].score):
        one = predictions[at]
        own = [
            index
            for index in sorted(free)
            if truths[index].video_id == one.video_id and same_label(one, truths[index]) and overlap(one, truths[index]) >= 0.5
        ]
        if own:
            finds[at] = max(own, key=lambda index: (overlap(one, truths[index]), index))
            free.discard(finds[at])
    assert np.flatnonzero(found.missed_G).tolist() == sorted(free)

    for at, one in enumerate(predictions):
        there = [index for index, truth in enumerate(truths) if truth.video_id == one.video_id]
        own = [index for index in there if same_label(one, truths[index])]
        other = [index for index in there if index not in own]
        meant = [index for index in own if overlap(one, truths[index]) >= 0.1 or index not in finds.values()]

        def timely(index):
            return time(one, truths[index]) >= 0.5

        def early(index):
            return 0.1 <= time(one, truths[index]) < 0.5

        if at in finds:
            expected = "true"
        elif metric == "stal" and one.num_boxes and any(timely(index) and not is_scored[index] for index in own):
            expected = "left out"
        elif any(overlap(one, truths[index]) >= 0.5 and is_scored[index] for index in own):
            expected = "double detection"
        elif any(overlap(one, truths[index]) >= 0.5 for index in other):
            expected = "wrong label"
        elif any(timely(index) for index in meant):
            expected = "bad box"
        elif any(early(index) and in_place(one, truths[index]) for index in own):
            expected = "bad boundary"
        elif any(time(one, truths[index]) >= 0.1 for index in meant) or any(
            overlap(one, truths[index]) >= 0.1 for index in there
        ):
            expected = "several faults"
        else:
            expected = "background"
        assert names[at] == expected, (at, one)
