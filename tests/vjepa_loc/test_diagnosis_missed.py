"""The bins of truths, each edge by hand."""

import numpy as np
import pytest

from tests.diagnosis_cases import event, inputs_of
from vjepa_loc.diagnosis_missed import breakdowns, by_box_size, by_length, by_overlap, by_seam, covered_by_others


def texts(breakdown):
    return [breakdown.bins[index] for index in breakdown.bin_G.tolist()]


def test_lengths_double_from_bin_to_bin():
    ends = [1, 7.99, 8, 15, 16, 32, 64, 128, 256, 512, 1023, 1024, 1500]
    assert texts(by_length(inputs_of([event(0, end) for end in ends], []))) == [
        *["under 8"] * 2, *["8 to 16"] * 2, "16 to 32", "32 to 64", "64 to 128", "128 to 256", "256 to 512",
        *["512 to 1024"] * 2, *["1024 or more"] * 2,
    ]  # fmt: skip


def test_box_sizes_are_those_of_coco():
    # 31 x 33 is smaller than 32 x 32; 64 x 144 is as large as 96 x 96.
    boxes = [(0, 0, 31, 33), (0, 0, 32, 32), (0, 0, 64, 144), (5, 5, 197, 197), (0, 0, 384, 384), None]
    sizes = by_box_size(inputs_of([event(0, 3, box) for box in boxes], []))
    assert [text.split(",")[0] for text in texts(sizes)] == [
        "under 32", "32 to 96", "96 to 192", "192 to 384", "384 or more", "no box"
    ]  # fmt: skip
    assert texts(sizes)[0].endswith("COCO's small") and texts(sizes)[1].endswith("medium") and texts(sizes)[4].endswith("large")


def test_a_box_size_is_the_mean_over_the_event():
    growing = event(0, 2, (0, 0, 1, 1)).replace(boxes_K4=np.array([[0, 0, 10, 10], [0, 0, 60, 60.0]]))
    # The mean of 100 and 3600 is that of a square with a side of 43.
    assert texts(by_box_size(inputs_of([growing], []))) == ["32 to 96, medium"]


def test_overlap_is_the_share_that_others_cover_together():
    truths = [
        event(0, 100),
        event(0, 30),
        event(20, 50),  # together they cover half of the first
        event(99, 199, label="return"),
        event(199, 250),  # touches, and shares nothing
        event(0, 100, video="w"),
    ]
    assert texts(by_overlap(inputs_of(truths, []), same_label=True)) == ["half or more"] * 3 + ["none"] * 3
    assert texts(by_overlap(inputs_of(truths, []), same_label=False)) == ["half or more"] * 3 + ["under half", "none", "none"]
    fewer = [event(0, 100), event(0, 30), event(20, 49)]
    assert texts(by_overlap(inputs_of(fewer, []), same_label=True))[0] == "under half"


def test_an_identical_truth_covers_all_of_it():
    assert covered_by_others(np.array([0, 0, 1]), np.array([[5, 9], [5, 9], [5, 9]])).tolist() == [4, 4, 0]
    assert covered_by_others(np.empty(0, dtype=int), np.empty((0, 2))).tolist() == []


@pytest.mark.parametrize("seed", range(10))
def test_cover_against_counting_frames(seed):
    rng = np.random.default_rng(seed)
    starts, group = rng.integers(0, 30, 12), rng.integers(0, 3, 12)
    spans = np.stack([starts, starts + rng.integers(1, 20, 12)], axis=1)
    expected = []
    for at, (start, end) in enumerate(spans):
        others = [index for index in range(12) if index != at and group[index] == group[at]]
        expected.append(sum(any(spans[index][0] <= frame < spans[index][1] for index in others) for frame in range(start, end)))
    assert covered_by_others(group, spans).tolist() == expected


def test_distance_to_a_seam_is_that_of_the_nearest_frame():
    truths = [
        event(60, 70),  # 64 lies in it
        event(64, 70),  # begins at the seam
        event(50, 64),  # ends at it
        event(72, 73),
        event(48, 49),
        event(88, 96),
        event(200, 201),
        event(0, 9, video="w"),
        event(0, 9, video="x"),
    ]
    inputs = inputs_of(truths, [], ("v", "w", "x"), seams={"v": np.array([128, 64]), "w": np.array([])})
    assert texts(by_seam(inputs)) == [
        "a seam inside", "under 8", "under 8", "8 to 16", "8 to 16", "16 to 32", "32 or more",
        "no seam in the video", "not known",
    ]  # fmt: skip


def test_what_is_not_known_is_said_and_left_out():
    scored = np.ones(1, dtype=bool)
    known, notes = breakdowns(inputs_of([event(0, 9)], []), scored)
    assert [one.name for one in known] == ["length", "overlap with events of the same label", "overlap with events of any label"]
    assert "no scored truth has a box" in notes[0] and "the seams are known for no video" in notes[1]
    known, notes = breakdowns(inputs_of([event(0, 9, (0, 0, 9, 9))], [], seams={"v": np.array([4])}), scored)
    assert {"box size", "distance to a clip seam"} <= {one.name for one in known} and notes == []
    two = [event(0, 9), event(0, 9, video="w")]
    _, notes = breakdowns(inputs_of(two, [], seams={"v": np.array([4])}), np.ones(2, dtype=bool))
    assert "the seams of 1 of 2 videos with truth are not known" in notes[1]
