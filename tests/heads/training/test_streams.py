import threading
import time

import numpy as np
import pytest

from heads.training.standardise import measure_standardisation
from heads.training.streams import CacheBudget, VideoStream, level_cells
from tests.token_stores import make_event, make_space_grid, make_video
from vjepa_loc.errors import RunError

EVENT = make_event("v", "take", 10, 30)


def stream(level="tokens", **options):
    return VideoStream(make_video("v", [EVENT], 60, seed=1, **options), level)


@pytest.mark.parametrize("level", ["tokens", "pool1"])
def test_what_is_stored_is_read_with_what_decodes_it(level):
    video = stream(level)
    values, scale, mean_C, std_C = read_some(video, 4, 15)
    decoded = values.astype(np.float32) * (1 if scale is None else scale[..., None].astype(np.float32)) * std_C + mean_C
    assert video.coded == (level == "tokens") == (scale is not None)
    assert np.allclose(decoded, video.stored.read(level, 4, 15), atol=2e-3)


def read_some(video, start, stop, budget=None):
    values = np.empty((stop - start, *video.grid, video.channels), np.int8 if video.coded else np.float16)
    scale = np.empty(values.shape[:3], np.float16) if video.coded else None
    video.read_into(values, scale, start, stop, budget)
    return values, scale, *video.channel_level


def compressed_stream(level="tokens"):
    video = stream(level)
    video.stored.storage.compression = "zstd"
    return VideoStream(video.stored, level)


@pytest.mark.parametrize("level", ["tokens", "pool1"])
def test_a_compressed_video_that_fits_is_read_once(level):
    video, budget = compressed_stream(level), CacheBudget(1 << 20)
    expected = read_some(video, 2, 5)
    reads = video.stored.num_reads
    for _ in range(3):
        got = read_some(video, 2, 5, budget)
        assert all(np.array_equal(a, b) for a, b in zip(got[:1], expected[:1], strict=True))
    assert video.stored.num_reads == reads + 1
    assert budget.left == (1 << 20) - video.num_steps * video.bytes_per_step
    assert video.bytes_per_step == (4 * 4 * (8 + 2) if level == "tokens" else 2 * 8)
    video.will_read(0, 3)
    assert video.stored.announced == [], "what is in memory is not asked of the disk"


def test_threads_that_meet_at_a_compressed_video_read_it_once():
    video, budget = compressed_stream(), CacheBudget(1 << 20)
    video.stored.read_codes = slowly(video.stored.read_codes)
    threads = [threading.Thread(target=read_some, args=(video, 2, 5, budget)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert video.stored.num_reads == 1


def slowly(function):
    def slow(*arguments):
        time.sleep(0.01)
        return function(*arguments)

    return slow


def test_a_compressed_video_that_does_not_fit_takes_nothing():
    video, budget = compressed_stream(), CacheBudget(100)
    for _ in range(2):
        read_some(video, 2, 5, budget)
    assert budget.left == 100 and video.stored.num_reads == 2


def test_an_uncompressed_video_is_not_kept():
    """The page cache holds it already."""
    video, budget = stream(), CacheBudget(1 << 20)
    for _ in range(2):
        read_some(video, 2, 5, budget)
    assert budget.left == 1 << 20 and video.stored.num_reads == 2


def test_a_head_that_reads_a_pooled_level_reads_nothing_else():
    video = stream("pool1")
    video.stored.read_codes = None
    read_some(video, 2, 5)
    video.will_read(2, 5)
    assert video.stored.announced == [("pool1", 2, 5)] and video.stored.num_reads == 1


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
    tokens = video.stored.read("tokens", 0, video.num_steps)[:, video.valid_HW].astype(np.float64)
    assert not video.valid_HW.all()
    assert np.allclose(measure_standardisation([video]).mean_C, tokens.reshape(-1, 8).mean(0), atol=2e-3)


def test_a_constant_channel_is_not_blown_up():
    video = make_video("v", [EVENT], 60, seed=1)
    video._codes[..., 7] = 0
    measured = measure_standardisation([VideoStream(video, "tokens")])
    assert float(measured.std_C[7]) == pytest.approx(0.01 * float(measured.std_C.median()), rel=0.05)
