import numpy as np
import pytest
import torch

from heads.training.standardise import Standardisation, measure_standardisation
from heads.training.streams import CacheBudget, VideoStream, level_cells
from tests.token_stores import make_event, make_space_grid, make_video
from vjepa_loc.errors import RunError

EVENT = make_event("v", "take", 10, 30)


def stream(level="tokens", **options):
    return VideoStream(make_video("v", [EVENT], 60, seed=1, **options), level)


@pytest.mark.parametrize("level", ["tokens", "pool1"])
def test_tokens_are_standardised_raw_units(level):
    video = stream(level)
    standardisation = Standardisation(torch.linspace(-1, 1, 8), torch.linspace(0.5, 3, 8))
    out = torch.empty(11, *video.grid, 8)
    video.fill(out, 4, 15, standardisation)
    raw = torch.from_numpy(video.stored.read(level, 4, 15).astype(np.float32))
    expected = (raw - standardisation.mean_C) / standardisation.std_C
    assert torch.allclose(out, expected, atol=5e-3)


def test_tokens_can_be_written_into_a_larger_grid():
    video = stream()
    large = torch.full((5, 6, 7, 8), 7.0)
    video.fill(large[1:4, :4, :4], 2, 5, Standardisation.identity(8))
    small = torch.empty(3, 4, 4, 8)
    video.fill(small, 2, 5, Standardisation.identity(8))
    assert torch.equal(large[1:4, :4, :4], small)
    assert (large[0] == 7).all() and (large[:, 4:] == 7).all() and (large[:, :, 4:] == 7).all()


def test_a_video_that_fits_is_read_once():
    video, budget = stream(), CacheBudget(1 << 20)
    out = torch.empty(3, 4, 4, 8)
    video.fill(out, 2, 5, Standardisation.identity(8), budget)
    first, reads = out.clone(), video.stored.num_reads
    video.fill(out, 2, 5, Standardisation.identity(8), budget)
    assert torch.equal(out, first) and video.stored.num_reads == reads
    assert budget.left == (1 << 20) - video.num_steps * (4 * 4 * 8 + 4 * 4 * 2)


def test_a_video_that_does_not_fit_is_read_again_and_takes_nothing():
    video, budget = stream(), CacheBudget(100)
    out = torch.empty(3, 4, 4, 8)
    for _ in range(2):
        video.fill(out, 2, 5, Standardisation.identity(8), budget)
    assert budget.left == 100 and video.stored.num_reads == 3, "one look at the size, then a read each time"


def test_a_level_that_is_not_stored_is_refused():
    with pytest.raises(RunError, match="video 'v': the head reads the level 'pool4', the store holds tokens, pool1"):
        stream("pool4")


def test_a_pooled_cell_covers_the_cells_that_it_averages():
    boxes_HW4, valid_HW = level_cells(make_space_grid(), "pool2")
    assert np.allclose(boxes_HW4[0, 1], [0.5, 0, 1, 0.5]) and valid_HW.all()
    boxes_HW4, valid_HW = level_cells(make_space_grid(fit="letterbox"), "pool1")
    assert valid_HW.all() and np.allclose(boxes_HW4[0, 0, [0, 2]], [0, 1])
    assert np.allclose(boxes_HW4[0, 0, [1, 3]], [1 / 18, 17 / 18]), "two rows of four; the others lie in the bars"
    boxes_HW4, valid_HW = level_cells(make_space_grid(input_hw=(64, 64), fit="letterbox"), "pool4")
    assert not valid_HW[0].any() and valid_HW[1:3].all(), "the first row of four lies in the bar"
    assert np.isfinite(boxes_HW4).all()


def test_standardisation_is_that_of_all_tokens():
    videos = [VideoStream(make_video(f"v{i}", [EVENT], 60, seed=i), "tokens") for i in range(3)]
    measured = measure_standardisation(videos)
    tokens_NC = np.concatenate([v.stored.read("tokens", 0, v.num_steps).astype(np.float64).reshape(-1, 8) for v in videos])
    assert np.allclose(measured.mean_C, tokens_NC.mean(0), atol=2e-3)
    assert np.allclose(measured.std_C, tokens_NC.std(0), atol=2e-3)


def test_bars_do_not_count_for_the_standardisation():
    video = VideoStream(make_video("v", [EVENT], 60, seed=1, input_hw=(64, 64), fit="letterbox"), "tokens")
    tokens = video.stored.read("tokens", 0, video.num_steps)[:, video.valid_HW.numpy()].astype(np.float64)
    assert not video.valid_HW.all()
    assert np.allclose(measure_standardisation([video]).mean_C, tokens.reshape(-1, 8).mean(0), atol=2e-3)


def test_a_constant_channel_is_not_blown_up():
    video = make_video("v", [EVENT], 60, seed=1)
    video._codes[..., 7] = 0
    measured = measure_standardisation([VideoStream(video, "tokens")])
    assert float(measured.std_C[7]) == pytest.approx(0.01 * float(measured.std_C.median()), rel=0.05)
