import numpy as np
import pytest

from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.events import Event
from vjepa_loc.metrics import _tube_overlap, _tube_suppression
from vjepa_loc.metrics._tube_overlap import Tubes, pairs_in_time, pairs_of_tubes, sums_on_common_frames
from vjepa_loc.metrics._tube_suppression import kept_tubes
from vjepa_loc.overlap import paired_box_iou
from vjepa_loc.scoring_input import ScoringInput


@pytest.fixture(params=[400_000, 3], ids=["one chunk", "many chunks"])
def chunks(request, monkeypatch):
    monkeypatch.setattr(_tube_overlap, "_CHUNK", request.param)


def random_tubes(rng, num, videos=("v", "w"), length=20, gaps=True):
    events = []
    for index in range(num):
        first = int(rng.integers(0, 60))
        frames = np.arange(first, first + int(rng.integers(1, length)))
        frames = frames[rng.random(len(frames)) < (0.6 if gaps and index % 2 else 1.1)]
        low = rng.uniform(0, 8, (len(frames), 2))
        boxes = np.hstack([low, low + rng.uniform(6, 12, (len(frames), 2))])
        events.append(Event(str(rng.choice(videos)), "take", first, first + length, frames, boxes, score=0.5))
    dataset = Dataset(("take",), {video: Video(video, num_frames=100) for video in videos}, [])
    return Tubes.of(ScoringInput.of(dataset, events).predictions, 1)


def test_pairs_in_time_are_those_of_comparing_all_with_all(chunks):
    rng = np.random.default_rng(0)
    for whole in (True, False):
        for _ in range(20):
            groups = [rng.integers(0, 3, num) for num in (30, 40)]
            firsts = [rng.integers(0, 30, len(group)) / (1 if whole else 3.3) for group in groups]
            lasts = [first + rng.integers(0, 8, len(first)) / (1 if whole else 2.7) for first in firsts]
            pairs = [np.stack(pair) for pair in pairs_in_time(groups[0], firsts[0], lasts[0], groups[1], firsts[1], lasts[1])]
            found = sorted(map(tuple, np.concatenate(pairs, axis=1).T.tolist()))
            expected = np.argwhere(
                (groups[0][:, None] == groups[1])
                & (firsts[0][:, None] <= lasts[1])
                & (firsts[1] <= lasts[0][:, None])
            )
            assert found == list(map(tuple, expected.tolist())) and len(found) > 10
    assert list(pairs_in_time(*[np.empty(0, dtype=np.int64)] * 6)) == []


def test_sums_on_common_frames_are_numpys_to_the_last_bit(chunks):
    rng = np.random.default_rng(1)
    a, b = random_tubes(rng, 30), random_tubes(rng, 40, length=60)
    sums = {}
    for a_K, b_K in pairs_of_tubes(a, b, a.with_boxes, b.with_boxes):
        sum_K, num_K = sums_on_common_frames(a, b, a_K, b_K, paired_box_iou)
        sums |= dict(zip(zip(a_K.tolist(), b_K.tolist(), strict=True), zip(sum_K, num_K, strict=True), strict=True))
    without_common = 0
    for at_a in range(30):
        for at_b in range(40):
            rows_a, rows_b = (slice(*tubes.first_box_N1[at : at + 2]) for tubes, at in ((a, at_a), (b, at_b)))
            common, in_a, in_b = np.intersect1d(a.frame_B[rows_a], b.frame_B[rows_b], return_indices=True)
            if a.group_N[at_a] != b.group_N[at_b] or not len(common):
                without_common += (at_a, at_b) in sums
                assert sums.pop((at_a, at_b), (0, 0)) == (0, 0)
                continue
            expected = np.sum(paired_box_iou(a.box_B4[rows_a][in_a], b.box_B4[rows_b][in_b]))
            assert sums.pop((at_a, at_b)) == (expected, len(common))
    assert not sums and without_common


@pytest.mark.parametrize("block", [1, 7, 512])
def test_suppression_is_that_of_comparing_each_with_all_kept(block, monkeypatch):
    monkeypatch.setattr(_tube_suppression, "_BLOCK", block)
    rng = np.random.default_rng(2)
    tubes = random_tubes(rng, 120)
    order = rng.permutation(120)

    def common_share(a_K, b_K):
        """Of the extents, as a similarity that needs no boxes."""
        first, last = np.maximum(tubes.first_N[a_K], tubes.first_N[b_K]), np.minimum(tubes.last_N[a_K], tubes.last_N[b_K])
        whole = np.maximum(tubes.last_N[a_K], tubes.last_N[b_K]) - np.minimum(tubes.first_N[a_K], tubes.first_N[b_K]) + 1
        return np.maximum(last - first + 1, 0) / whole

    compared = []

    def counted(a_K, b_K):
        compared.extend(common_share(a_K, b_K))
        return common_share(a_K, b_K)

    kept = []
    for at in order.tolist():
        others = np.array([other for other in kept if tubes.group_N[other] == tubes.group_N[at]], dtype=np.int64)
        boxless = tubes.num_boxes_N[at] == 0
        if boxless or not (common_share(others[tubes.num_boxes_N[others] > 0], np.array([at])) > 0.3).any():
            kept.append(at)
    mask = kept_tubes(tubes, order, 0.3, counted, common_share)
    assert np.flatnonzero(mask).tolist() == sorted(kept) and 10 < len(kept) < 100
    assert (tubes.num_boxes_N[kept] == 0).any()
    # Only pairs that the bound leaves open are compared.
    assert min(compared) > 0.3 - 1e-6 and len(compared) > 10
