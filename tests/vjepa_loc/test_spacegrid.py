import json

import numpy as np
import pytest

from vjepa_loc.errors import ConfigError
from vjepa_loc.spacegrid import FITS, SpaceGrid, aspect_cells

# width, height of displayed frames: common, portrait, odd, thin, tiny
SIZES = [(1280, 720), (720, 1280), (320, 240), (333, 251), (101, 1999), (256, 256), (1, 1), (4096, 7)]
INPUTS = [(256, 256, 16), (192, 336, 16), (128, 128, 8)]


@pytest.fixture(params=FITS)
def fit(request):
    return request.param


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("shape", INPUTS, ids=str)
def test_points_return_through_every_space(fit, size, shape):
    grid = SpaceGrid.build(fit, *size, *shape)
    points = np.random.default_rng(0).uniform(-0.5, 1.5, (5, 7, 2)) * size
    inside = grid.displayed_to_input(points)
    assert inside.shape == points.shape
    np.testing.assert_allclose(grid.input_to_displayed(inside), points, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(grid.cells_to_input(grid.input_to_cells(inside)), inside, rtol=1e-12)
    np.testing.assert_allclose(
        grid.displayed_to_input(grid.input_to_displayed(points)), points, rtol=1e-12, atol=1e-9
    )


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("shape", INPUTS, ids=str)
def test_cells_lie_where_the_conversion_says(fit, size, shape):
    grid = SpaceGrid.build(fit, *size, *shape)
    rows, columns = grid.grid
    if fit != "aspect":
        assert (rows, columns) == (shape[0] // shape[2], shape[1] // shape[2])
    assert (grid.input_height, grid.input_width) == (rows * shape[2], columns * shape[2])
    assert grid.cell_boxes_norm_HW4.shape == (rows, columns, 4)
    for row, column in [(0, 0), (rows - 1, columns - 1), (min(1, rows - 1), min(2, columns - 1))]:
        corners = grid.input_to_displayed(grid.cells_to_input([[column, row], [column + 1, row + 1]]))
        np.testing.assert_allclose(
            grid.cell_boxes_norm_HW4[row, column], (corners / [size[0], size[1]]).reshape(4), rtol=1e-12, atol=1e-12
        )
    assert grid.valid_HW.any()


def test_stretch_shows_the_whole_frame_on_the_whole_grid():
    grid = SpaceGrid.build("stretch", 333, 251, 192, 336, 16)
    assert grid.displayed_to_input([[0, 0], [333, 251]]).tolist() == [[0, 0], [336, 192]]
    assert grid.valid_HW.all()
    assert grid.cell_boxes_norm_HW4.min() == 0 and grid.cell_boxes_norm_HW4.max() == 1


def test_letterbox_of_16_to_9_by_hand():
    grid = SpaceGrid.build("letterbox", 1280, 720, 256, 256, 16)
    assert (grid.resize_width, grid.resize_height, grid.offset_x, grid.offset_y) == (256, 144, 0, -56)
    np.testing.assert_allclose(grid.displayed_to_input([[0, 0], [1280, 720]]), [[0, 56], [256, 200]])
    # 56 px of bar are 3.5 cells: the fourth row's centre lies exactly on the frame's upper edge.
    assert grid.valid_HW.all(axis=1).tolist() == [False] * 3 + [True] * 9 + [False] * 4
    assert grid.cell_boxes_norm_HW4[0, 0, 1] == pytest.approx(-56 / 144)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("shape", INPUTS, ids=str)
def test_letterbox_keeps_the_shape_to_half_a_pixel_and_is_centred(size, shape):
    grid = SpaceGrid.build("letterbox", *size, *shape)
    scale = min(grid.input_width / size[0], grid.input_height / size[1])
    assert abs(grid.resize_width - max(1, size[0] * scale)) <= 0.5
    assert abs(grid.resize_height - max(1, size[1] * scale)) <= 0.5
    assert grid.input_width == grid.resize_width or grid.input_height == grid.resize_height
    for bar, total in [
        (-grid.offset_x, grid.input_width - grid.resize_width),
        (-grid.offset_y, grid.input_height - grid.resize_height),
    ]:
        assert bar >= 0 and total - bar - bar in (0, 1)


def test_a_frame_thinner_than_a_cell_keeps_the_row_it_lies_in():
    # 256 x 0.4 pixels become one row of pixels, 127..128, in cell row 7.
    grid = SpaceGrid.build("letterbox", 4096, 7, 256, 256, 16)
    assert grid.valid_HW.all(axis=1).tolist() == [row == 7 for row in range(16)]


@pytest.mark.parametrize(
    ("size", "crop", "resized", "offsets"),
    [
        # transformers' VJEPA2VideoProcessor: short side int(crop * 256 / 224), the long one truncated, crop floored.
        ((1280, 720), 256, (519, 292), (131, 18)),
        ((720, 1280), 256, (292, 519), (18, 131)),
        ((640, 480), 256, (389, 292), (66, 18)),
        ((333, 251), 256, (387, 292), (65, 18)),
        ((292, 292), 256, (292, 292), (18, 18)),
        ((1, 1), 256, (292, 292), (18, 18)),
        ((1280, 720), 384, (778, 438), (197, 27)),
    ],
)
def test_crop_follows_the_reference_processor(size, crop, resized, offsets):
    grid = SpaceGrid.build("crop", *size, crop, crop, 16)
    assert (grid.resize_width, grid.resize_height) == resized
    assert (grid.offset_x, grid.offset_y) == offsets
    assert grid.valid_HW.all()


@pytest.mark.parametrize(
    ("size", "cells"),
    [
        # By hand, of the full grids of 256 cells: 16 x 16, 15 x 17, 14 x 18, 13 x 19, 12 x 21, 11 x 23, 10 x 25, 9 x 28, ...
        ((1280, 720), (12, 21)),
        ((720, 1280), (21, 12)),
        ((640, 480), (14, 18)),
        ((256, 256), (16, 16)),
        ((1, 1), (16, 16)),
        ((1050, 1000), (16, 16)),
        ((1000, 950), (16, 16)),
        ((1110, 1000), (15, 17)),
        ((2350, 1000), (10, 25)),
        ((1000, 1), (1, 256)),
        ((1, 1000), (256, 1)),
        ((257, 1), (1, 256)),
        # 2 x 128 has the ratio 64, 1 x 256 the ratio 256; the middle by ratio is 128, where both are equally near: the squarer.
        ((128, 1), (2, 128)),
        ((129, 1), (1, 256)),
    ],
)
def test_aspect_takes_the_full_grid_of_the_nearest_shape(size, cells):
    assert aspect_cells(*size, 256) == cells
    grid = SpaceGrid.build("aspect", *size, 256, 256, 16)
    assert grid.grid == cells and (grid.offset_x, grid.offset_y) == (0, 0)
    assert (grid.resize_height, grid.resize_width) == (grid.input_height, grid.input_width) == (16 * cells[0], 16 * cells[1])
    assert grid.valid_HW.all() and grid.cell_boxes_norm_HW4.min() == 0 and grid.cell_boxes_norm_HW4.max() == 1
    np.testing.assert_allclose(grid.displayed_to_input([list(size)]), [[16 * cells[1], 16 * cells[0]]])


def test_aspect_is_as_near_as_a_search_over_all_full_grids():
    rng = np.random.default_rng(0)
    for _ in range(300):
        width, height = (int(size) for size in np.exp(rng.uniform(0, 8, 2)).round())
        max_cells = int(rng.integers(1, 300))
        rows, columns = aspect_cells(width, height, max_cells)
        assert rows * columns <= max_cells < min((rows + 1) * columns, rows * (columns + 1))
        found = max(columns * height, rows * width) / min(columns * height, rows * width)
        for r in range(1, max_cells + 1):
            for c in range(1, max_cells // r + 1):
                if (r + 1) * c > max_cells and r * (c + 1) > max_cells:
                    assert found <= max(c * height, r * width) / min(c * height, r * width) * (1 + 1e-12)
        # A frame on its side has the grid on its side.
        if width != height:
            assert aspect_cells(height, width, max_cells) == (columns, rows)


def test_the_ties_of_aspect():
    # A square frame between 1 x 2 and 2 x 1: the wide one.
    assert aspect_cells(1, 1, 2) == (1, 2)
    # 2 : 1 is a factor 2 from 1 x 4 and from 2 x 2, both of 4 cells: the one nearer to a square.
    assert aspect_cells(2, 1, 4) == (2, 2) == aspect_cells(1, 2, 4)
    # 20 : 9 is a factor 20/9 from 2 x 2 and 9/4 from 1 x 5; 23 : 10 is nearer to 1 x 5.
    assert aspect_cells(20, 9, 5) == (2, 2) and aspect_cells(23, 10, 5) == (1, 5)
    with pytest.raises(ConfigError, match="expected a frame and a grid of at least 1, got a frame of 4x3 and 0 cells"):
        aspect_cells(4, 3, 0)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_crop_of_a_rectangle_stays_inside_the_frame(size):
    grid = SpaceGrid.build("crop", *size, 192, 336, 16)
    assert 0 <= grid.offset_x <= grid.resize_width - 336
    assert 0 <= grid.offset_y <= grid.resize_height - 192
    assert grid.cell_boxes_norm_HW4.min() >= 0 and grid.cell_boxes_norm_HW4.max() <= 1


def test_the_grid_survives_json(fit):
    grid = SpaceGrid.build(fit, 333, 251, 192, 336, 16)
    assert SpaceGrid.from_dict(json.loads(json.dumps(grid.to_dict()))) == grid
    with pytest.raises(ConfigError, match=r"missing: \['fit'\], unknown: \['fitt'\]"):
        SpaceGrid.from_dict({("fitt" if key == "fit" else key): value for key, value in grid.to_dict().items()})


def test_shared_arrays_cannot_be_written():
    grid = SpaceGrid.build("stretch", 10, 10, 32, 32, 16)
    with pytest.raises(ValueError, match="read-only"):
        grid.cell_boxes_norm_HW4[0] = 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("letterbx", 10, 10, 32, 32, 16), "one of stretch, letterbox, crop, aspect, got 'letterbx'. Did you mean 'letterbox'?"),
        (("stretch", 0, 10, 32, 32, 16), "got a frame of 0x10"),
        (("stretch", 10, 10, 40, 32, 16), "encoder input of 32x40 pixels: expected multiples of the patch size 16"),
        (("stretch", 10, 10, 32, 32, 0), "patch_px: expected at least 1 pixel, got 0"),
    ],
)
def test_wrong_geometry_is_refused_in_one_line(arguments, message):
    with pytest.raises(ConfigError) as error:
        SpaceGrid.build(*arguments)
    assert message in str(error.value)
