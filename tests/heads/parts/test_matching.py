import itertools

import pytest
import torch

from heads.parts.matching import match, set_cost


@pytest.mark.parametrize(("num_queries", "num_truths"), [(5, 3), (3, 5), (4, 4), (6, 1)])
def test_match_equals_brute_force(num_queries, num_truths):
    cost = torch.rand(num_queries, num_truths, generator=torch.Generator().manual_seed(num_queries * 7 + num_truths))
    query, truth = match(cost)
    count = min(cost.shape)
    best = min(
        sum(cost[q, t].item() for q, t in zip(queries, truths))
        for queries in itertools.combinations(range(num_queries), count)
        for truths in itertools.permutations(range(num_truths), count)
    )
    assert len(query) == len(set(query.tolist())) == len(set(truth.tolist())) == count
    assert cost[query, truth].sum().item() == pytest.approx(best)


def test_nothing_to_match():
    query, truth = match(torch.zeros(4, 0))
    assert len(query) == len(truth) == 0


def test_diverged_predictions_are_named():
    with pytest.raises(ValueError, match="expected finite costs, got NaN"):
        match(torch.tensor([[float("nan")]]))


def cost_of(logits, spans, boxes, has_box=True):
    truth_boxes = torch.tensor([[[0.1, 0.1, 0.3, 0.3]] * 2])
    return set_cost(
        torch.tensor(logits), torch.tensor(spans), torch.tensor(boxes)[:, None].expand(-1, 2, -1), torch.tensor([1]),
        torch.tensor([[0.2, 0.4]]), truth_boxes, torch.full((1, 2), has_box),
    )[:, 0]


def test_each_part_of_the_cost_prefers_the_truth():
    right_box, wrong_box = [0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.8, 0.8]
    base = cost_of([[0.0, 2.0]], [[0.2, 0.4]], [right_box])
    assert base < cost_of([[2.0, 0.0]], [[0.2, 0.4]], [right_box])
    assert base < cost_of([[0.0, 2.0]], [[0.25, 0.45]], [right_box])
    assert base < cost_of([[0.0, 2.0]], [[0.2, 0.4]], [wrong_box])
    # Without a true box the boxes cannot matter.
    assert cost_of([[0.0, 2.0]], [[0.2, 0.4]], [right_box], False) == cost_of([[0.0, 2.0]], [[0.2, 0.4]], [wrong_box], False)
