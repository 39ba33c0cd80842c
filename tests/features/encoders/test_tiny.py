import time

import numpy as np
import pytest
import torch

from features.encoders.tiny import INPUT_PX, NUM_FREQUENCIES, Config, Encoder, cosine_patch_weights
from vjepa_loc.errors import ConfigError

# Changes whenever the weights change: every store made by `tiny` is then another encoding.
DIGEST = "80069661f2aa26a1be628277a93cb78b7a450855b239c924daab501a443e3f4b"


def noise(num_clips: int, num_frames: int, seed: int = 0) -> torch.Tensor:
    shape = (num_clips, num_frames, INPUT_PX, INPUT_PX, 3)
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(Config(), "cpu")


def test_the_weights_are_the_same_everywhere(encoder):
    assert encoder.spec.digest == DIGEST


def test_shapes_follow_the_spec(encoder):
    spec = encoder.spec
    for num_frames in (2, 6, spec.clip_frames, 2 * spec.clip_frames):
        tokens = encoder.encode(noise(2, num_frames))
        assert tokens.shape == (
            2, num_frames // spec.tubelet, spec.input_height // spec.patch_px, spec.input_width // spec.patch_px, spec.channels
        )
        assert tokens.dtype == torch.float32 and torch.isfinite(tokens).all()


def test_a_clip_does_not_depend_on_its_batch(encoder):
    clips = noise(4, 16)
    together = encoder.encode(clips)
    for index in (3, 0):
        assert torch.equal(encoder.encode(clips[index : index + 1])[0], together[index])


def test_a_change_in_one_place_changes_the_token_of_that_place_only(encoder):
    clip = noise(1, 16)
    changed = clip.clone()
    changed[0, 5, 40:48, 80:88] = 255 - changed[0, 5, 40:48, 80:88]
    moved = (encoder.encode(changed) != encoder.encode(clip)).any(-1)[0]
    assert moved.nonzero().tolist() == [[5 // 2, 40 // 8, 80 // 8]]


def test_motion_inside_a_tubelet_shows_in_the_difference_channels(encoder):
    still = noise(1, 1).expand(-1, 2, -1, -1, -1)
    tokens_NC = encoder.encode(still).flatten(0, 3)
    is_difference_C = torch.cat([torch.full((num,), bool(time)) for nums in NUM_FREQUENCIES for time, num in enumerate(nums)])
    assert tokens_NC[:, is_difference_C].abs().max() < 1e-4
    assert tokens_NC[:, ~is_difference_C].std(0).min() > 0.01


def test_channels_are_linearly_independent():
    weight_CP = cosine_patch_weights()
    assert torch.linalg.matrix_rank(weight_CP) == len(weight_CP) == sum(map(sum, NUM_FREQUENCIES))


@pytest.mark.parametrize(
    "frames",
    [torch.zeros(1, 3, 128, 128, 3, dtype=torch.uint8), torch.zeros(1, 2, 64, 64, 3, dtype=torch.uint8),
     torch.zeros(1, 2, 128, 128, 3), torch.zeros(2, 128, 128, 3, dtype=torch.uint8), torch.zeros(1, 0, 128, 128, 3, dtype=torch.uint8)],
    ids=["odd", "size", "float", "no batch", "empty"],
)
def test_other_shapes_are_refused_with_expected_and_got(encoder, frames):
    with pytest.raises(ConfigError, match="encoder tiny: expected uint8 frames .* got torch"):
        encoder.encode(frames)


def test_64_frames_are_cheap_on_a_cpu(encoder):
    clips = noise(4, 16)
    encoder.encode(clips)
    start_s = time.process_time()
    encoder.encode(clips)
    assert time.process_time() - start_s < 1.0
