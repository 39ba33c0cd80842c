import pytest
import torch

from heads.parts.refine import values_along
from heads.parts.trunk import GridFeatures


def features(starts, ends, valid):
    return GridFeatures([], [], [], torch.zeros(1, 1, 1, 4), torch.tensor([starts]), torch.tensor([ends]), torch.tensor([valid]), 100.0)


def values_at(times, starts, ends, valid, values):
    """Values at absolute times, through a span of length 1 that starts at 0."""
    got = values_along(
        torch.tensor(values)[None, None, :, None], torch.tensor([[[0.0, 1.0]]]), torch.tensor(times),
        features(starts, ends, valid),
    )
    return got[0, 0, :, 0].tolist()


def test_values_are_linear_between_uneven_steps_and_zero_outside():
    got = values_at([-1.0, 0.0, 1.0, 2.0, 4.5, 8.0, 9.0], [0.0, 2.0, 6.0], [2.0, 6.0, 8.0], [True] * 3, [10.0, 20.0, 50.0])
    # Centres 1, 4, 7: flat before the first and after the last centre, zero beyond the window's steps.
    assert got == pytest.approx([0, 10, 10, 10 + 10 / 3, 25, 50, 0])


def test_padded_steps_are_not_mixed_in():
    got = values_at([3.0, 3.9, 4.5], [0.0, 2.0, 4.0], [2.0, 4.0, 6.0], [True, True, False], [10.0, 20.0, 999.0])
    assert got == pytest.approx([20, 20, 0])


def test_one_step():
    assert values_at([0.5, 3.0], [0.0], [2.0], [True], [7.0]) == pytest.approx([7, 0])
