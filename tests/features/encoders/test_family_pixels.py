"""Pixels of the families against transformers' processors where they run without torchvision, else against their rule by hand."""

import json

import numpy as np
import pytest
import torch
import transformers

from features.encoders import dinov3, timesformer, videomae, videoprism, vivit
from features.encoders._family_pixels import PixelRule
from features.preprocess import normalise
from tests import toy_checkpoints as toys
from vjepa_loc.errors import WeightsError

AS_IT_IS = {"do_resize": False, "do_center_crop": False}
# The processors' files on the hub, without what is about sizes.
HUB_VIDEOMAE = {"do_normalize": True, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
SCALED = {"do_normalize": True, "do_rescale": True}
HUB_TIMESFORMER = {**SCALED, "rescale_factor": 0.00392156862745098, "image_mean": [0.45] * 3, "image_std": [0.225] * 3}
HUB_VIVIT = {**SCALED, "rescale_factor": 0.00784313725490196, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
HUB_VIVIT_WITHOUT_HEAD = {**HUB_VIVIT, "do_normalize": False, "do_zero_centering": True}


def every_byte() -> np.ndarray:
    """(1 frame, 16, 16, 3): every value in every colour."""
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    return np.stack([values, values[:, ::-1], values[:, :, ::-1]], axis=-1)


def ours(rule: PixelRule, processor: dict) -> torch.Tensor:
    mean, std = rule.mean_and_std(processor, "weights")
    return normalise(torch.from_numpy(every_byte()), mean, std)


def processed(processor) -> torch.Tensor:
    """transformers' processor on the same frame, as (frames, height, width, 3)."""
    pixels_n3hw = np.asarray(processor(list(every_byte()), return_tensors="np")["pixel_values"][0])
    return torch.as_tensor(pixels_n3hw).permute(0, 2, 3, 1).float()


@pytest.mark.parametrize(
    ("rule", "kind", "settings"),
    [
        (videomae.Encoder.PIXELS, "VideoMAEImageProcessorPil", HUB_VIDEOMAE),
        (timesformer.Encoder.PIXELS, "VideoMAEImageProcessorPil", HUB_TIMESFORMER),
        (vivit.Encoder.PIXELS, "VivitImageProcessor", HUB_VIVIT),
        (vivit.Encoder.PIXELS, "VivitImageProcessor", HUB_VIVIT_WITHOUT_HEAD),
        (vivit.Encoder.PIXELS, "VivitImageProcessor", {}),
        (vivit.Encoder.PIXELS, "VivitImageProcessor", {"offset": False, "rescale_factor": 1 / 255, "image_mean": [0.1, 0.2, 0]}),
        (vivit.Encoder.PIXELS, "VivitImageProcessor", {"offset": False, "do_rescale": False, "image_std": [1.0, 2.0, 3.0]}),
    ],
    ids=["videomae", "timesformer", "vivit", "vivit-without-head", "vivit-default", "vivit-changed", "vivit-unscaled"],
)
def test_pixels_are_those_of_transformers(rule, kind, settings):
    expected = processed(getattr(transformers, kind)(**{**AS_IT_IS, **settings}))
    torch.testing.assert_close(ours(rule, settings), expected, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize(
    ("rule", "settings", "black", "white"),
    [
        (videomae.Encoder.PIXELS, {}, (0 - 0.485) / 0.229, (1 - 0.485) / 0.229),
        (timesformer.Encoder.PIXELS, {}, -2.0, (1 - 0.45) / 0.225),
        (vivit.Encoder.PIXELS, {}, -3.0, 1.0),
        (vivit.Encoder.TRAINED_PIXELS, HUB_VIVIT, -1.0, 1.0),
        (videoprism.Encoder.PIXELS, {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}, 0.0, 1.0),
        (dinov3.Encoder.PIXELS, {}, (0 - 0.485) / 0.229, (1 - 0.485) / 0.229),
        (dinov3.Encoder.PIXELS, {"image_mean": [0.43, 0.41, 0.3], "image_std": [0.2, 0.16, 0.14]}, -0.43 / 0.2, 0.57 / 0.2),
        (dinov3.Encoder.PIXELS, {"image_mean": 0.5, "image_std": 0.25, "do_rescale": None}, -2.0, 2.0),
    ],
    ids=["videomae", "timesformer", "vivit", "vivit-trained", "videoprism", "dinov3", "dinov3-satellite", "one-number"],
)
def test_black_and_white_are_where_the_rule_puts_them(rule, settings, black, white):
    red = ours(rule, settings)[0, ..., 0].flatten()
    assert red[0].item() == pytest.approx(black, abs=1e-6) and red[255].item() == pytest.approx(white, abs=1e-6)


def test_a_mean_keeps_the_digits_it_is_written_with():
    assert PixelRule(mean=(0.1, 0.2, 0.3), std=(0.7, 0.8, 0.9)).mean_and_std({}, "w") == ((0.1, 0.2, 0.3), (0.7, 0.8, 0.9))
    assert videoprism.Encoder.PIXELS.mean_and_std({}, "w") == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    for factor in (1 / 127.5, 0.00784313725490196, 0.0078431372549):
        assert vivit.Encoder.PIXELS.mean_and_std({**HUB_VIVIT, "rescale_factor": factor}, "w") == ((0.75,) * 3, (0.25,) * 3)


@pytest.mark.parametrize(
    "settings",
    [
        {"image_std": [0.0, 1.0, 1.0]}, {"image_mean": [0.1, 0.2]}, {"image_mean": [None] * 3}, {"rescale_factor": "a"},
        {"rescale_factor": 0},
    ],
    ids=str,
)
def test_a_rule_that_makes_no_numbers_is_refused(settings):
    with pytest.raises(WeightsError, match="encoder.weights: here: its processor's configuration cannot be used .* download"):
        videomae.Encoder.PIXELS.mean_and_std(settings, "here")


def test_the_processor_of_the_checkpoint_decides_and_is_part_of_the_spec(tmp_path):
    toys.vivit_model().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(HUB_VIVIT_WITHOUT_HEAD))
    spec = vivit.Encoder(vivit.Config(weights=str(tmp_path))).spec
    assert (spec.mean, spec.std) == ((0.5,) * 3, (0.5,) * 3)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(HUB_VIVIT))
    weights = str(tmp_path)
    said, trained = (vivit.Encoder(vivit.Config(weights=weights, pixels=pixels)).spec for pixels in ("processor", "trained"))
    assert said.mean == (0.75,) * 3 and trained.mean == (0.5,) * 3 and said.digest == trained.digest == spec.digest
