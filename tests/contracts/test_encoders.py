"""What every encoder in features/encoders/ must do, for whichever modules are there."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from features.schema import EncoderSpec, Record
from tests.toy_checkpoints import toy_settings
from vjepa_loc.errors import ConfigError, WeightsError
from vjepa_loc.plugins import load_plugin, plugin_names


@pytest.fixture(scope="module", params=plugin_names("features.encoders"))
def encoder(request, tmp_path_factory):
    """Encoders that need a checkpoint get a toy; one without a toy is built with its defaults."""
    module = load_plugin("features.encoders", request.param, "encoder")
    settings = toy_settings(request.param, tmp_path_factory.mktemp(request.param))
    try:
        return module.Encoder(module.Config(**settings), "cpu")
    except WeightsError as error:
        pytest.skip(f"{request.param} has no weights here: {error}")


def noise(spec: EncoderSpec, num_clips: int, num_frames: int, height: int = 0, width: int = 0) -> torch.Tensor:
    shape = (num_clips, num_frames, height or spec.input_height, width or spec.input_width, 3)
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


def test_the_token_of_a_changed_patch_changes_most(encoder):
    spec = encoder.spec
    check_places(encoder, noise(spec, 1, spec.clip_frames))


def test_other_grids_are_right_or_refused(encoder):
    spec = encoder.spec
    rows, columns = spec.input_height // spec.patch_px, spec.input_width // spec.patch_px
    for cells in ((rows // 2, columns * 2), (rows, columns - 1)):
        clip = noise(spec, 1, spec.clip_frames, *(num * spec.patch_px for num in cells))
        if spec.any_grid:
            assert encoder.encode(clip).shape == (1, spec.clip_frames // spec.tubelet, *cells, spec.channels)
            check_places(encoder, clip)
        else:
            with pytest.raises(ConfigError, match="expected uint8 frames"):
                encoder.encode(clip)


def check_places(encoder, clip: torch.Tensor) -> None:
    """One patch of one tubelet becomes its negative: the token there changes most, at all corners and inside of the clip."""
    spec = encoder.spec
    before_THWC = encoder.encode(clip)[0]
    corners = itertools.product(*((0, size - 1) for size in before_THWC.shape[:3]))
    inside = [(size // 2 for size in before_THWC.shape[:3]), (0, 1, before_THWC.shape[2] - 2)]
    for step, row, column in (*corners, *inside):
        changed = clip.clone()
        frames = slice(step * spec.tubelet, (step + 1) * spec.tubelet)
        rows = slice(row * spec.patch_px, (row + 1) * spec.patch_px)
        columns = slice(column * spec.patch_px, (column + 1) * spec.patch_px)
        changed[0, frames, rows, columns] = 255 - changed[0, frames, rows, columns]
        moved_THW = (encoder.encode(changed)[0] - before_THWC).norm(dim=-1)
        assert np.unravel_index(int(moved_THW.argmax()), moved_THW.shape) == (step, row, column)


def test_threads_that_share_it_get_the_same_tokens(encoder):
    clips = noise(encoder.spec, 6, encoder.spec.clip_frames)
    expected = encoder.encode(clips)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = encoder.encode(clips)
        with ThreadPoolExecutor(3) as pool:
            shared = list(pool.map(lambda clip: encoder.encode(clip[None])[0], clips))
    finally:
        torch.set_num_threads(threads_before)
    assert torch.equal(torch.stack(shared), alone)
    torch.testing.assert_close(alone, expected, atol=1e-4, rtol=1e-4)


def test_frames_that_do_not_fit_are_refused(encoder):
    spec = encoder.spec
    clip = noise(spec, 1, spec.clip_frames)
    for frames in (clip.float(), clip[:, :, :-1], clip[0]):
        with pytest.raises(ConfigError, match="expected uint8 frames .* got torch"):
            encoder.encode(frames)


def test_a_caller_s_autocast_changes_nothing(encoder):
    clip = noise(encoder.spec, 1, encoder.spec.clip_frames)
    expected = encoder.encode(clip)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(encoder.encode(clip), expected)
