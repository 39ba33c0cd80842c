import pytest
import torch

from heads.parts.similarity import NEIGHBOURHOODS, NUM_SIMILARITIES, SelfSimilarity


def similarities(z):
    """What the module computes before its linear layer."""
    module = SelfSimilarity(NUM_SIMILARITIES)
    with torch.no_grad():
        module.merge.weight.copy_(torch.eye(NUM_SIMILARITIES))
        module.merge.bias.zero_()
        return module(z)


@pytest.mark.parametrize("num_steps", [1, 3, 40])
def test_similarities_equal_a_loop(num_steps):
    torch.manual_seed(0)
    h, w = 3, 4
    z = torch.nn.functional.normalize(torch.randn(1, num_steps, h, w, 5), dim=-1)
    got = similarities(z)
    t, y, x = num_steps // 2, 1, 2
    expected = []
    for steps, reach in NEIGHBOURHOODS:
        for direction in (1, -1):
            for dy in range(-reach, reach + 1):
                for dx in range(-reach, reach + 1):
                    to = (t + direction * steps, y + dy, x + dx)
                    inside = all(0 <= i < size for i, size in zip(to, (num_steps, h, w)))
                    expected.append((z[0, t, y, x] @ z[(0, *to)]).item() if inside else 0.0)
    assert got[0, t, y, x].tolist() == pytest.approx(expected, abs=1e-5)


def test_it_does_not_matter_what_things_look_like():
    torch.manual_seed(0)
    z = torch.randn(1, 6, 3, 3, 4)
    rotation = torch.linalg.qr(torch.randn(4, 4))[0]
    assert torch.allclose(similarities(z), similarities(3 * z @ rotation), atol=1e-5)


def test_padding_is_similar_to_nothing():
    z = torch.zeros(1, 4, 2, 2, 3)
    z[:, 0] = 1.0
    assert not similarities(z).any()
