"""The two-level int8 code: its error, its limits, and that it is the formula of the format."""

import numpy as np
import pytest
import torch

import features.pyramid
import features.quantise
from features.pyramid import Pyramid
from features.quantise import channel_statistics, dequantise, quantise


def tokens(seed=0, steps=8, outliers=0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn((steps, 4, 5, 96), generator=generator)
    values[..., :outliers] *= 40
    return values + shift


def decoded(codes, scale, mean, std, dtype=torch.float32):
    return dequantise(codes, scale, mean, std, torch.empty(codes.shape, dtype=dtype))


@pytest.mark.parametrize("outliers", [0, 2, 8])
def test_the_error_does_not_depend_on_outlier_channels(outliers):
    values = tokens(outliers=outliers)
    mean, std = channel_statistics(values)
    error = (decoded(*quantise(values, mean, std), mean, std) - values) / std
    assert float(error.square().mean().sqrt()) < 0.0075


def test_an_error_is_at_most_half_a_code():
    values = tokens(seed=1, outliers=3)
    mean, std = channel_statistics(values[:2])
    codes, scale = quantise(values, mean, std)
    bound = 0.5 * scale.float()[..., None] * std * 1.001
    assert ((decoded(codes, scale, mean, std) - values).abs() <= bound + 1e-6).all()


@pytest.mark.parametrize("size", [1e-20, 1e-7, 1e-6, 3e-5, 1.0, 6e4])
def test_no_token_becomes_a_hole(size):
    values = tokens(seed=2) * size
    codes, scale = quantise(values, torch.zeros(96), torch.ones(96))
    assert codes.min() >= -127 and codes.max() <= 127
    assert torch.isfinite(scale).all()


def test_every_rounding_of_the_scale_is_safe():
    # All float16 mantissas over two binades, and the subnormals, where the rounding is coarsest.
    peaks = torch.cat([torch.linspace(127, 4 * 127, 40001), torch.linspace(1e-8, 1e-3, 40001)])
    values = torch.stack([peaks, -peaks], -1)[None, None]
    codes, scale = quantise(values, torch.zeros(2), torch.ones(2))
    assert codes[..., 0].max() <= 127 and codes[..., 1].min() >= -127
    assert (scale > 0).all()


def test_decoding_is_the_formula_of_the_format():
    values = tokens(seed=3)
    mean, std = channel_statistics(values)
    codes, scale = quantise(values, mean, std)
    by_hand = codes.numpy().astype(np.float64) * scale.numpy().astype(np.float64)[..., None] * std.numpy() + mean.numpy()
    assert np.allclose(decoded(codes, scale, mean, std).numpy(), by_hand, rtol=1e-5, atol=1e-6)
    half = decoded(codes, scale, mean, std, torch.float16)
    assert torch.equal(half, decoded(codes, scale, mean, std).half())


@pytest.mark.parametrize("value", [0.0, 0.7, -300.0])
def test_a_first_clip_without_content_does_not_spoil_the_rest(value):
    first = torch.full((4, 4, 5, 96), value)
    mean, std = channel_statistics(first)
    later = tokens(seed=4) * (abs(value) or 1)
    for values in (first, later):
        codes, scale = quantise(values, mean, std)
        assert torch.isfinite(scale).all()
        error = decoded(codes, scale, mean, std) - values
        assert float(error.norm()) <= 0.02 * max(float(values.norm()), 1e-3)


def test_a_channel_that_wakes_up_late_costs_little():
    first, later = tokens(seed=5), tokens(seed=6)
    first[..., 0] = 0.25
    mean, std = channel_statistics(first)
    error = decoded(*quantise(later, mean, std), mean, std) - later
    # The channel is 100 times its own first std: its peak coarsens its own token only, and stays bounded.
    assert float(error.norm() / later.norm()) < 0.5


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf"), 1e20])
def test_a_value_that_cannot_be_stored_gives_a_scale_that_is_not_finite(wrong):
    values = tokens()
    values[3, 1, 2, 7] = wrong
    _, scale = quantise(values, torch.zeros(96), torch.ones(96))
    assert not torch.isfinite(scale[3, 1, 2])
    assert int((~torch.isfinite(scale)).sum()) == 1


@pytest.mark.parametrize("block", [2, 7, 32])
def test_the_blocks_of_a_gpu_change_no_number(monkeypatch, block):
    values = tokens(steps=9, outliers=5)
    mean, std = channel_statistics(values)
    pyramid = Pyramid(np.ones((4, 5), bool), ("pool1", "pool2", "pool4"))
    codes, scale = quantise(values, mean, std)
    single, half = decoded(codes, scale, mean, std), decoded(codes, scale, mean, std, torch.float16)
    pooled = pyramid.pool(values)
    for module in (features.quantise, features.pyramid):
        monkeypatch.setattr(module, "steps_at_once", lambda device: block)
    again = quantise(values, mean, std)
    assert torch.equal(again[0], codes) and torch.equal(again[1], scale)
    assert torch.equal(decoded(codes, scale, mean, std), single)
    assert torch.equal(decoded(codes, scale, mean, std, torch.float16), half)
    for level, expected in pooled.items():
        assert torch.equal(pyramid.pool(values)[level].half(), expected.half())
