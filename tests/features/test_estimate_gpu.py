"""Operations of an encoder: against the project's figures, and against torch's own count of every family's forward."""

import json

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from features.encoders import tiny, vjepa2
from features.estimate_gpu import (
    MATMUL_TFLOPS, PUBLISHED, matmul_tflops, published_spec, transformer_of, weights_are_here,
)
from tests import toy_checkpoints as toys
from vjepa_loc.errors import ConfigError
from vjepa_loc.plugins import load_plugin

VIT_L = PUBLISHED["facebook/vjepa2-vitl-fpc64-256"][0]


def test_vit_l_on_64_frames_is_what_was_measured_by_hand():
    # ENCODE.md section 4: 4.95 linear + 6.60 attention = 11.57 TFLOP, 68 clips per second at 790 TFLOP/s.
    total = VIT_L.flops(32, (16, 16), 2, 16)
    assert round(total / 1e12, 2) == 11.57 and round(790e12 / total) == 68
    assert round(VIT_L.flops(32, (12, 21), 2, 16) / 1e12, 1) == 11.3, "aspect: 192x336 for 16:9"
    assert [round(tflops * 1e12 / total) for tflops in map(MATMUL_TFLOPS.get, ("h100", "a100", "rtx4090"))] == [60, 22, 13]


@pytest.mark.parametrize("name", ["vjepa2", "videomae", "timesformer", "vivit", "videoprism", "dinov3"])
def test_the_formula_is_torch_s_count(name, tmp_path):
    module = load_plugin("features.encoders", name, "encoder")
    config = module.Config(**toys.toy_settings(name, tmp_path))
    encoder = module.Encoder(config)
    spec, shape = encoder.spec, transformer_of(name, config)
    frames = np.random.default_rng(0).integers(0, 256, (1, spec.clip_frames, *spec.input_hw, 3), np.uint8)
    # The counter does not know the CPU's fused attention.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        encoder.encode(torch.from_numpy(frames))
    grid = spec.input_height // spec.patch_px, spec.input_width // spec.patch_px
    expected = shape.flops(spec.clip_frames // spec.tubelet, grid, spec.tubelet, spec.patch_px)
    counted = counter.get_total_flops()
    # Tokens beside the cells, which are many in a toy: one per clip, in dinov3 five per frame.
    beside = {"vivit": 1 / (grid[0] * grid[1] * spec.clip_frames // spec.tubelet), "timesformer": 1 / (grid[0] * grid[1]), "dinov3": 5 / (grid[0] * grid[1])}
    assert counted / (1 + 2 * beside.get(name, 0.0)) * 0.99 <= expected <= counted * 1.01


def test_a_published_checkpoint_needs_no_weights():
    config = vjepa2.Config(weights="facebook/vjepa2-vitg-fpc64-384")
    spec = published_spec("vjepa2", config)
    assert (spec.clip_frames, spec.input_hw, spec.channels, spec.any_grid) == (64, (384, 384), 1408, True)
    assert published_spec("vjepa2", vjepa2.Config(input_px=512)).input_hw == (512, 512)
    assert published_spec("vjepa2", vjepa2.Config(weights="somebody/else")) is None
    assert published_spec("tiny", tiny.Config()) is None and transformer_of("tiny", tiny.Config()) is None


def test_whether_weights_are_here(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert weights_are_here(tiny.Config()) and weights_are_here(vjepa2.Config(weights=str(tmp_path)))
    assert not weights_are_here(vjepa2.Config(weights="nobody/has-this-checkpoint"))
    assert not weights_are_here(vjepa2.Config(weights="not a hub id"))


def test_a_shape_that_nobody_knows_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vjepa2", "hidden_size": 64}))
    with pytest.raises(ConfigError, match="the shape of encoder vjepa2 with weights .* is not known: expected a checkpoint on this machine"):
        transformer_of("vjepa2", vjepa2.Config(weights=str(tmp_path)))
    with pytest.raises(ConfigError, match="is not known"):
        transformer_of("vjepa2", vjepa2.Config(weights="nobody/has-this-checkpoint"))


def test_a_gpu_is_a_name_or_a_rate():
    assert (matmul_tflops("H200"), matmul_tflops("123.5")) == (790.0, 123.5)
    for wrong in ("h20", "-3", "0", "nan", "inf"):
        with pytest.raises(ConfigError, match="--gpu: expected one of h200, h100, a100, rtx4090, or a measured bf16 rate in TFLOP/s, got"):
            matmul_tflops(wrong)
