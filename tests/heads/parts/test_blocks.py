import pytest
import torch
import torch.nn.functional as F

from heads.parts.blocks import DropPath, GridBlock, SpatialConv, TemporalConv, TimeHalving


@pytest.mark.parametrize(("dilation", "stride", "num_steps"), [(1, 1, 7), (2, 1, 7), (4, 1, 3), (1, 2, 8), (1, 2, 7)])
def test_temporal_conv_is_a_convolution(dilation, stride, num_steps):
    torch.manual_seed(0)
    conv = TemporalConv(5, 6, dilation)
    x = torch.randn(2, num_steps, 2, 3, 5)
    weight = conv.weight.unflatten(1, (3, 5)).permute(0, 2, 1)
    expected = F.conv1d(x.permute(0, 2, 3, 4, 1).flatten(0, 2), weight, conv.bias, stride, dilation, dilation)
    expected = expected.unflatten(0, (2, 2, 3)).permute(0, 4, 1, 2, 3)
    assert torch.allclose(conv(x, stride), expected, atol=1e-5)


@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
def test_spatial_conv_is_a_convolution_of_every_step(stride):
    torch.manual_seed(0)
    conv = SpatialConv(5, 6)
    x = torch.randn(2, 4, 6, 7, 5)
    expected = torch.stack([F.conv2d(x[:, t].permute(0, 3, 1, 2), conv.weight, conv.bias, stride, 1) for t in range(4)], 1)
    assert torch.allclose(conv(x, stride), expected.permute(0, 1, 3, 4, 2), atol=1e-5)


@pytest.mark.parametrize("num_steps", [5, 6])
def test_what_lies_on_invalid_positions_does_not_matter(num_steps):
    torch.manual_seed(0)
    block, halving = GridBlock(4, dilation=2), TimeHalving(4)
    x = torch.randn(1, num_steps + 3, 3, 3, 4)
    valid = torch.ones(1, num_steps + 3, 3, 3, 1, dtype=torch.bool)
    valid[:, num_steps:] = False
    noisy = torch.where(valid, x, 9.0)
    short = halving(block(x[:, :num_steps], None), None)
    long = halving(block(noisy, valid), valid)
    assert torch.allclose(short, long[:, : short.shape[1]], atol=1e-5)


def test_drop_path_keeps_the_mean_and_rests_in_evaluation():
    drop = DropPath(0.4)
    x = torch.ones(4000, 3)
    torch.manual_seed(0)
    assert drop(x).mean().item() == pytest.approx(1, abs=0.05)
    assert drop(x).unique().tolist() == pytest.approx([0, 1 / 0.6])
    assert torch.equal(drop.eval()(x), x)
