import pytest
import torch

from heads.parts.boundaries import BIN_UNITS, NUM_BINS, DistanceBins


def sharp_logits(bins):
    """All weight on one bin for the start and one for the end."""
    logits = torch.full((1, 2, NUM_BINS), -50.0)
    logits[0, 0, bins[0]] = logits[0, 1, bins[1]] = 50.0
    return logits.flatten(1)


def test_expectation_of_one_bin_is_its_distance():
    assert DistanceBins().expectation(sharp_logits((3, NUM_BINS - 1)))[0].tolist() == pytest.approx([BIN_UNITS[3], BIN_UNITS[-1]])


@pytest.mark.parametrize("distance", [0.0, 0.2, 1.5, 6.4, 11.0, 64.0])
def test_the_best_distribution_has_the_true_distance_as_its_mean(distance):
    bins = DistanceBins()
    truth = torch.tensor([[distance, distance]])
    logits = torch.zeros(1, 2 * NUM_BINS, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.5)
    for _ in range(200):
        optimiser.zero_grad()
        bins.loss(logits, truth).sum().backward()
        optimiser.step()
    assert bins.expectation(logits)[0].tolist() == pytest.approx([distance, distance], abs=0.05)


def test_distances_beyond_the_bins_are_learnt_as_the_last_one():
    loss = DistanceBins().loss(sharp_logits((0, NUM_BINS - 1)), torch.tensor([[-1.0, 500.0]]))
    assert loss.tolist()[0] == pytest.approx([0, 0], abs=1e-4)
