import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from features.preprocess import LETTERBOX_RGB, normalise, resize_uint8
from vjepa_loc.spacegrid import SpaceGrid

ORACLE = Path(__file__).parents[2] / ".." / "shared" / "data" / "pixel_oracle"
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
SIZES = [(360, 640), (720, 1280), (480, 640), (640, 360), (241, 321), (1080, 1920), (180, 320), (256, 256)]


def oracle_case(height: int, width: int) -> dict:
    if not (ORACLE / "oracle.json").is_file():
        pytest.skip("../shared/data/pixel_oracle is not here")
    cases = json.loads((ORACLE / "oracle.json").read_text())["cases"]
    return next(case for case in cases if (case["height"], case["width"]) == (height, width))


def noise(num_frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, 3), np.uint8)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_crop_is_bit_identical_to_the_processor_of_transformers(height, width):
    case = oracle_case(height, width)
    grid = SpaceGrid.build("crop", width, height, 256, 256, 16)
    frames_nhw3 = resize_uint8(noise(2, height, width, case["seed"]), grid)
    pixels_n3hw = normalise(frames_nhw3, MEAN, STD).permute(0, 3, 1, 2).contiguous()
    assert list(pixels_n3hw.shape) == case["output_shape"]
    assert hashlib.sha256(pixels_n3hw.numpy().tobytes()).hexdigest() == case["sha256_of_float32_bytes"]


def test_oracle_sizes_are_all_tested():
    oracle_case(*SIZES[0])
    cases = json.loads((ORACLE / "oracle.json").read_text())["cases"]
    assert {(case["height"], case["width"]) for case in cases} == set(SIZES)


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 5), (36, 64), (64, 36), (128, 128), (300, 20)])
def test_every_fit_gives_the_input_size(fit, height, width):
    grid = SpaceGrid.build(fit, width, height, 128, 128, 8)
    frames_nhw3 = resize_uint8(noise(3, height, width), grid)
    assert frames_nhw3.shape == (3, 128, 128, 3)
    assert frames_nhw3.dtype == torch.uint8 and frames_nhw3.is_contiguous()


def test_a_point_lands_where_the_space_grid_says():
    frame = np.zeros((1, 90, 160, 3), np.uint8)
    frame[0, 30:40, 100:110] = 255
    for fit in ("stretch", "letterbox", "crop"):
        grid = SpaceGrid.build(fit, 160, 90, 128, 128, 8)
        (x, y), = grid.displayed_to_input(np.array([[105.0, 35.0]]))
        frame_hw = resize_uint8(frame, grid)[0, :, :, 0].float()
        frame_hw = torch.where(frame_hw > 127, frame_hw, 0)
        ys, xs = torch.meshgrid(torch.arange(128) + 0.5, torch.arange(128) + 0.5, indexing="ij")
        assert float((frame_hw * xs).sum() / frame_hw.sum()) == pytest.approx(x, abs=0.6)
        assert float((frame_hw * ys).sum() / frame_hw.sum()) == pytest.approx(y, abs=0.6)


def test_letterbox_bars_have_the_stated_colour_and_nothing_else_does():
    grid = SpaceGrid.build("letterbox", 160, 90, 128, 128, 8)
    frames = resize_uint8(np.full((2, 90, 160, 3), 7, np.uint8), grid)
    bar_rows = (frames == torch.tensor(LETTERBOX_RGB, dtype=torch.uint8)).all(-1).all(-1)
    assert bar_rows.sum(1).tolist() == [128 - grid.resize_height] * 2
    assert (frames[~bar_rows] == 7).all()


def test_a_frame_does_not_depend_on_its_neighbours():
    grid = SpaceGrid.build("stretch", 64, 36, 128, 128, 8)
    frames = noise(5, 36, 64)
    together = resize_uint8(frames, grid)
    for index in range(5):
        assert torch.equal(resize_uint8(frames[index : index + 1], grid)[0], together[index])


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize(("height", "width"), [(36, 64), (64, 36), (128, 128), (300, 200)])
def test_frames_are_resized_into_memory_that_is_given(fit, height, width):
    grid = SpaceGrid.build(fit, width, height, 128, 128, 8)
    frames = noise(3, height, width)
    ring_nhw3 = torch.full((7, 128, 128, 3), 77, dtype=torch.uint8)
    slots = ring_nhw3[2:5]
    assert resize_uint8(frames, grid, slots).data_ptr() == slots.data_ptr()
    assert torch.equal(slots, resize_uint8(frames, grid))
    assert (ring_nhw3[:2] == 77).all() and (ring_nhw3[5:] == 77).all()
    resize_uint8(frames[:1], grid, ring_nhw3[6:])
    assert torch.equal(ring_nhw3[6], slots[0])


def test_what_is_returned_is_never_the_frames_themselves():
    grid = SpaceGrid.build("stretch", 128, 128, 128, 128, 8)
    frames = noise(2, 128, 128)
    resized = resize_uint8(frames, grid)
    frames[:] = 0
    assert resized.any()


def test_memory_that_does_not_fit_is_refused():
    grid = SpaceGrid.build("stretch", 64, 36, 128, 128, 8)
    for out in (torch.empty((2, 128, 128, 3)), torch.empty((1, 128, 128, 3), dtype=torch.uint8),
                torch.empty((2, 3, 128, 128), dtype=torch.uint8).permute(0, 2, 3, 1)):
        with pytest.raises(ValueError, match=r"out_nhw3: expected contiguous uint8 of shape \(2, 128, 128, 3\), got torch"):
            resize_uint8(noise(2, 36, 64), grid, out)


def test_frames_of_another_size_are_refused_with_both_shapes():
    grid = SpaceGrid.build("stretch", 64, 36, 128, 128, 8)
    with pytest.raises(ValueError, match=r"expected uint8 frames of shape \(n, 36, 64, 3\), got torch.uint8 \(2, 40, 64, 3\)"):
        resize_uint8(noise(2, 40, 64), grid)
