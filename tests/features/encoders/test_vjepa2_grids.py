"""Tokens of `vjepa2` on any grid: equal to transformers where that is right, and to a slow reference everywhere."""

import numpy as np
import pytest
import torch

from features.encoders.vjepa2 import IMAGENET_MEAN, IMAGENET_STD, Config, Encoder
from tests.features.encoders import vjepa2_reference
from vjepa_loc.errors import ConfigError

SMALL = {
    "patch_size": 8, "crop_size": 32, "frames_per_clip": 8, "hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2,
    "pred_hidden_size": 24, "pred_num_attention_heads": 4, "pred_num_hidden_layers": 1,
}
# (hidden_size, heads): channels per head 12 (3 x 4), 16 (3 x 4 + 4), 15 (odd: 3 x 4 + 3), 64 (3 x 20 + 4), 5 (no rotation at all), 6.
HEADS = [(48, 4), (48, 3), (45, 3), (128, 2), (40, 8), (48, 8)]


def checkpoint(folder, *, seed: int = 0, **settings):
    """A model whose every tensor is drawn, so that none of them can be left out unseen. Returns (folder, model)."""
    from transformers import VJEPA2Config, VJEPA2Model

    model = VJEPA2Model(VJEPA2Config(**{**SMALL, **settings})).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.encoder.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator)
            fan_in = tensor[0].numel() if tensor.ndim > 1 else 1
            # Queries and keys large enough that attention is far from even, so that positions matter.
            size = 2.0 if "query" in name or "key" in name else 1.0
            tensor.copy_(1 + 0.2 * noise if "norm" in name and name.endswith("weight") else size * noise / fan_in**0.5 if tensor.ndim > 1 else 0.2 * noise)
    model.save_pretrained(folder)
    return folder, model


def noise(num_clips: int, num_frames: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (num_clips, num_frames, height, width, 3), np.uint8))


def normalised(frames: torch.Tensor) -> torch.Tensor:
    return (frames.double() / 255 - torch.tensor(IMAGENET_MEAN).double()) / torch.tensor(IMAGENET_STD).double()


def by_transformers(model, frames_BTHWC3: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.encoder(normalised(frames_BTHWC3).float().permute(0, 1, 4, 2, 3)).last_hidden_state


def by_reference(model, frames_THWC3: torch.Tensor, positions: str = "extrapolate") -> np.ndarray:
    config = model.config
    return vjepa2_reference.encode(
        {name: tensor.numpy() for name, tensor in model.encoder.state_dict().items()}, normalised(frames_THWC3).numpy(),
        num_heads=config.num_attention_heads, tubelet=config.tubelet_size, patch_px=config.patch_size,
        trained_cells=config.crop_size // config.patch_size, eps=config.layer_norm_eps, positions=positions,
    )


def relative(found, expected) -> float:
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize(("channels", "num_heads"), HEADS)
@pytest.mark.parametrize("num_frames", [2, 6, 8, 12])
def test_the_native_square_equals_transformers(tmp_path, channels, num_heads, num_frames):
    folder, model = checkpoint(tmp_path / "w", hidden_size=channels, num_attention_heads=num_heads)
    frames = noise(2, num_frames, 32, 32)
    tokens = Encoder(Config(weights=str(folder))).encode(frames)
    assert relative(tokens.flatten(1, 3), by_transformers(model, frames)) < 1e-5


@pytest.mark.parametrize("settings", [{"qkv_bias": False}, {"tubelet_size": 4}, {"mlp_ratio": 48 / 11}, {"num_hidden_layers": 5}, {"layer_norm_eps": 1e-2}], ids=str)
def test_other_architectures_equal_transformers(tmp_path, settings):
    folder, model = checkpoint(tmp_path / "w", **settings)
    frames = noise(1, 8, 32, 32)
    assert relative(Encoder(Config(weights=str(folder))).encode(frames).flatten(1, 3), by_transformers(model, frames)) < 1e-5


@pytest.mark.parametrize(("channels", "num_heads"), HEADS)
def test_the_reference_equals_transformers_at_the_native_square(tmp_path, channels, num_heads):
    _, model = checkpoint(tmp_path / "w", hidden_size=channels, num_attention_heads=num_heads)
    frames = noise(1, 4, 32, 32)
    assert relative(by_reference(model, frames[0]).reshape(-1, channels), by_transformers(model, frames)[0]) < 1e-5


@pytest.mark.parametrize("positions", ["extrapolate", "interpolate"])
@pytest.mark.parametrize(("channels", "num_heads"), [(48, 3), (45, 3)])
@pytest.mark.parametrize("size", [(24, 40), (40, 24), (8, 128), (16, 16), (48, 48), (32, 32), (8, 8)], ids=str)
def test_every_size_equals_the_reference(tmp_path, size, channels, num_heads, positions):
    folder, model = checkpoint(tmp_path / "w", hidden_size=channels, num_attention_heads=num_heads)
    frames = noise(1, 4, *size)
    tokens = Encoder(Config(weights=str(folder), positions=positions, input_px=48)).encode(frames)
    assert relative(tokens[0], by_reference(model, frames[0], positions)) < 1e-5


def test_transformers_is_wrong_where_the_grid_is_not_its_own(tmp_path):
    # Were this to end, the comparison with transformers could cover every size.
    _, model = checkpoint(tmp_path / "w")
    frames = noise(1, 4, 24, 40)
    assert relative(by_transformers(model, frames)[0], by_reference(model, frames[0]).reshape(-1, 48)) > 0.05


def test_the_two_kinds_of_positions_differ_and_agree_at_the_native_square(tmp_path):
    folder, _ = checkpoint(tmp_path / "w")
    extrapolating, interpolating = (Encoder(Config(weights=str(folder), positions=positions)) for positions in ("extrapolate", "interpolate"))
    square, rectangle = noise(1, 4, 32, 32), noise(1, 4, 16, 64)
    assert torch.equal(extrapolating.encode(square), interpolating.encode(square))
    assert relative(extrapolating.encode(rectangle), interpolating.encode(rectangle)) > 0.05


def test_more_grids_than_tables_are_kept_change_nothing(tmp_path):
    from features.encoders._vjepa2_rope import CACHED_TABLES

    folder, _ = checkpoint(tmp_path / "w", num_hidden_layers=1)
    encoder = Encoder(Config(weights=str(folder)))
    first = encoder.encode(noise(1, 2, 16, 24))
    for num_frames in range(2, 2 * CACHED_TABLES + 6, 2):
        encoder.encode(noise(1, num_frames, 8, 8))
    assert len(encoder._tables._tables) == CACHED_TABLES
    assert torch.equal(encoder.encode(noise(1, 2, 16, 24)), first)


def test_threads_encode_different_grids_at_once(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    folder, _ = checkpoint(tmp_path / "w")
    encoder = Encoder(Config(weights=str(folder)))
    clips = [noise(1, 2 * (1 + seed % 4), *[(24, 40), (32, 32), (40, 24)][seed % 3], seed=seed) for seed in range(24)]
    alone = [encoder.encode(clip) for clip in clips]
    encoder = Encoder(Config(weights=str(folder)))
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(encoder.encode, clips))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("size", [(36, 32), (32, 20), (40, 40), (0, 32)], ids=str)
def test_parts_of_patches_and_more_cells_than_the_budget_are_refused(tmp_path, size):
    folder, _ = checkpoint(tmp_path / "w", num_hidden_layers=1)
    with pytest.raises(ConfigError, match=r"encoder vjepa2: expected uint8 frames .* at most 16 of them as in 32x32, got torch.uint8"):
        Encoder(Config(weights=str(folder))).encode(noise(1, 2, *size))


@pytest.mark.slow
def test_the_full_vit_l_equals_transformers(tmp_path):
    folder, model = checkpoint(
        tmp_path / "w", patch_size=16, crop_size=256, frames_per_clip=64, hidden_size=1024, num_attention_heads=16, num_hidden_layers=24,
    )
    frames = noise(1, 8, 256, 256)
    expected = by_transformers(model, frames)
    del model
    assert relative(Encoder(Config(weights=str(folder))).encode(frames).flatten(1, 3), expected) < 1e-5
