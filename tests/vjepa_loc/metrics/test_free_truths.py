import numpy as np
import pytest

from vjepa_loc.metrics import _free_truths
from vjepa_loc.metrics._free_truths import match_pairs


def matches(similarity_PG, thresholds, **options):
    """Per threshold, the pairs (prediction, truth) that `match_pairs` finds among all that are above 0."""
    rows, columns = np.nonzero(similarity_PG)
    matched_KR = match_pairs(rows, columns, similarity_PG[rows, columns], np.asarray(thresholds), **options)
    assert matched_KR.shape == (len(rows), len(thresholds))
    return [sorted(zip(rows[taken].tolist(), columns[taken].tolist())) for taken in matched_KR.T]


def match_loop(similarity_PG, threshold, last_of_equals):
    """The evaluator's locking, one prediction after the other."""
    locked, found = set(), []
    for row, similarity in enumerate(similarity_PG):
        columns = sorted(range(len(similarity)), key=lambda g: (-similarity[g], -g if last_of_equals else g))
        free = [g for g in columns if similarity[g] >= threshold and g not in locked]
        if free:
            found.append((row, free[0]))
            locked.add(free[0])
    return found


@pytest.mark.parametrize("last_of_equals", [False, True])
@pytest.mark.parametrize("chunk", [1, 4_000_000])
def test_against_taking_turns(last_of_equals, chunk, monkeypatch):
    monkeypatch.setattr(_free_truths, "_CHUNK", chunk)
    rng = np.random.default_rng(1)
    thresholds = np.array([0.25, 0.5, 0.75])
    for _ in range(150):
        # Few values, so that many are equal, and often many predictions for few truths.
        similarity = rng.integers(0, 9, (rng.integers(0, 15), rng.integers(0, 7))) / 8
        expected = [match_loop(similarity, threshold, last_of_equals) for threshold in thresholds]
        assert matches(similarity, thresholds, last_of_equals=last_of_equals) == expected


def test_a_taken_truth_leads_to_the_next_best_one():
    similarity = np.array([[0.9, 0.6], [0.8, 0.6], [0.9, 0.9]])
    assert matches(similarity, [0.5, 0.7]) == [[(0, 0), (1, 1)], [(0, 0), (2, 1)]]


def test_who_is_put_out_asks_on_before_who_comes_later():
    # All want truth 0. It goes to prediction 0; then 1 before 2 takes truth 1, though 2 was as close to it.
    similarity = np.array([[0.9, 0.5, 0.5], [0.9, 0.8, 0.5], [0.9, 0.8, 0.7]])
    assert matches(similarity, [0.1]) == [[(0, 0), (1, 1), (2, 2)]]


def test_of_equals_the_first_or_the_last():
    similarity = np.array([[0.5, 0.5], [0.6, 0.0]])
    assert matches(similarity, [0.5]) == [[(0, 0)]]
    assert matches(similarity, [0.5], last_of_equals=True) == [[(0, 1), (1, 0)]]


def test_numbers_may_have_gaps_pairs_any_order_and_a_similarity_any_sign():
    prediction, truth, closeness = np.array([90, 7, 7]), np.array([3, 500, 3]), np.array([0.0, -2.0, -1.0])
    assert match_pairs(prediction, truth, closeness, np.array([-2.0, 0.0])).tolist() == [
        [False, True],
        [False, False],
        [True, False],
    ]


def test_no_pairs():
    nothing = np.empty(0, dtype=np.int64)
    assert match_pairs(nothing, nothing, np.empty(0), np.array([0.5, 0.7])).shape == (0, 2)
    assert match_pairs(np.array([0]), np.array([0]), np.array([0.4]), np.array([0.5])).tolist() == [[False]]
