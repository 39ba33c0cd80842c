"""What every encoder in features/encoders/ must do, for whichever modules are there."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from features.schema import EncoderSpec, Record
from vjepa_loc.errors import ConfigError, WeightsError
from vjepa_loc.plugins import load_plugin, plugin_names


def small_vjepa2(folder: Path) -> dict[str, str]:
    from transformers import VJEPA2Config, VJEPA2Model

    sizes = {"patch_size": 8, "crop_size": 32, "frames_per_clip": 8, "hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 1}
    predictor = {"pred_hidden_size": 24, "pred_num_attention_heads": 4, "pred_num_hidden_layers": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        VJEPA2Model(VJEPA2Config(**sizes, **predictor)).save_pretrained(folder)
    return {"weights": str(folder)}


# Settings for encoders whose defaults need a download; an encoder that is not named here is built with its defaults.
SETTINGS: dict[str, Callable[[Path], dict[str, str]]] = {"vjepa2": small_vjepa2}


@pytest.fixture(scope="module", params=plugin_names("features.encoders"))
def encoder(request, tmp_path_factory):
    module = load_plugin("features.encoders", request.param, "encoder")
    settings = SETTINGS.get(request.param, lambda folder: {})(tmp_path_factory.mktemp(request.param))
    try:
        return module.Encoder(module.Config(**settings), "cpu")
    except WeightsError as error:
        pytest.skip(f"{request.param} has no weights here: {error}")


def noise(spec: EncoderSpec, num_clips: int, num_frames: int) -> torch.Tensor:
    shape = (num_clips, num_frames, spec.input_height, spec.input_width, 3)
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


def clip_lengths(spec: EncoderSpec) -> list[int]:
    return [spec.clip_frames] if spec.fixed_clip else [spec.tubelet, spec.clip_frames]


def test_it_says_what_it_is(encoder):
    assert isinstance(encoder.spec, EncoderSpec) and len(encoder.spec.digest) == 64
    assert encoder.device == torch.device("cpu") and isinstance(encoder.dtype, torch.dtype)


def test_its_settings_refuse_what_they_do_not_know(encoder):
    assert isinstance(encoder.config, Record)
    with pytest.raises(ConfigError, match="no_such_setting"):
        type(encoder.config)(no_such_setting=1)


def test_tokens_have_the_shape_of_the_spec(encoder):
    spec = encoder.spec
    for num_frames in clip_lengths(spec):
        tokens_BTHWC = encoder.encode(noise(spec, 2, num_frames))
        rows, columns = spec.input_height // spec.patch_px, spec.input_width // spec.patch_px
        assert tokens_BTHWC.shape == (2, num_frames // spec.tubelet, rows, columns, spec.channels)
        assert tokens_BTHWC.dtype == torch.float32 and not tokens_BTHWC.requires_grad
        assert torch.isfinite(tokens_BTHWC).all() and tokens_BTHWC.std() > 0.01


def test_the_same_frames_give_the_same_tokens_in_any_batch(encoder):
    clips = noise(encoder.spec, 3, encoder.spec.clip_frames)
    together = encoder.encode(clips)
    assert torch.equal(encoder.encode(clips), together)
    assert torch.equal(encoder.encode(clips[1:2])[0], together[1])


def test_a_second_encoder_is_the_same_encoder(encoder):
    other = type(encoder)(encoder.config, "cpu")
    assert other.spec == encoder.spec
    clip = noise(encoder.spec, 1, encoder.spec.clip_frames)
    assert torch.equal(other.encode(clip), encoder.encode(clip))


def test_steps_rows_and_columns_are_in_order(encoder):
    spec = encoder.spec
    clip = noise(spec, 1, spec.clip_frames)
    before = encoder.encode(clip)[0]
    step, row, column = spec.clip_frames // spec.tubelet - 1, 1, spec.input_width // spec.patch_px - 2
    changed = clip.clone()
    rows = slice(row * spec.patch_px, (row + 1) * spec.patch_px)
    columns = slice(column * spec.patch_px, (column + 1) * spec.patch_px)
    changed[0, step * spec.tubelet :, rows, columns] = 255 - changed[0, step * spec.tubelet :, rows, columns]
    moved_THW = (encoder.encode(changed)[0] - before).norm(dim=-1)
    assert np.unravel_index(int(moved_THW.argmax()), moved_THW.shape) == (step, row, column)


def test_frames_that_do_not_fit_are_refused(encoder):
    spec = encoder.spec
    for frames in (noise(spec, 1, spec.clip_frames).float(), noise(spec, 1, spec.clip_frames)[:, :, :-1], noise(spec, 1, spec.clip_frames)[0]):
        with pytest.raises(ConfigError, match="expected uint8 frames .* got torch"):
            encoder.encode(frames)
