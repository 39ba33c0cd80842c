"""The pyramid against torch's adaptive pooling and against a loop, with and without letterbox bars."""

import numpy as np
import pytest
import torch

from features.pyramid import Pyramid, pool_valid

LEVELS = ("pool1", "pool2", "pool4")


def tokens(height, width, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(3, height, width, 7)).astype(np.float32))


@pytest.mark.parametrize("grid", [(16, 16), (8, 8), (12, 21), (5, 7), (2, 3), (1, 1)])
def test_without_bars_it_is_adaptive_pooling(grid):
    values = tokens(*grid)
    pooled = Pyramid(np.ones(grid, bool), LEVELS).pool(values)
    for level, size in zip(LEVELS, (1, 2, 4), strict=True):
        expected = torch.nn.functional.adaptive_avg_pool2d(values.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1)
        assert torch.allclose(pooled[level], expected, atol=1e-6)


def test_bars_are_left_out():
    valid = np.zeros((16, 16), bool)
    valid[3:12] = True
    values = tokens(16, 16)
    values[:, ~valid] += 100
    pooled = Pyramid(valid, LEVELS).pool(values)
    assert torch.allclose(pooled["pool1"][:, 0, 0], values[:, 3:12].mean((1, 2)), atol=1e-5)
    assert torch.allclose(pooled["pool2"][:, 0, 1], values[:, 3:8, 8:].mean((1, 2)), atol=1e-5)
    assert torch.allclose(pooled["pool4"][:, 0, 2], values[:, 3:4, 8:12].mean((1, 2)), atol=1e-5)


def test_a_pool_cell_in_a_bar_is_finite_and_not_valid():
    valid = np.zeros((16, 16), bool)
    valid[4:12] = True
    values = tokens(16, 16)
    pooled = Pyramid(valid, LEVELS).pool(values)
    assert torch.allclose(pooled["pool4"][:, 3, 0], values[:, 12:, :4].mean((1, 2)), atol=1e-5)
    assert pool_valid(valid, 4).all(1).tolist() == [False, True, True, False]
    assert pool_valid(valid, 2).all() and pool_valid(valid, 1).all()


def test_a_step_does_not_depend_on_its_neighbours_in_a_call():
    values = tokens(16, 16)
    pyramid = Pyramid(np.ones((16, 16), bool), LEVELS)
    together = pyramid.pool(values)
    for step in range(3):
        alone = pyramid.pool(values[step : step + 1])
        assert all(torch.equal(alone[level].half(), together[level][step : step + 1].half()) for level in LEVELS)


def test_only_the_levels_that_are_asked_for():
    assert list(Pyramid(np.ones((4, 4), bool), ("tokens", "pool2")).pool(tokens(4, 4))) == ["pool2"]
    assert Pyramid(np.ones((4, 4), bool), ("tokens",)).pool(tokens(4, 4)) == {}
