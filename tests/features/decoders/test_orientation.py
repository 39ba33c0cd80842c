import struct
from pathlib import Path

import numpy as np
import pytest

from features.decoders.orientation import Orientation
from vjepa_loc.errors import VideoError

ONE = 1 << 16
PATH = Path("clip.mp4")


def matrix(a: float, b: float, c: float, d: float) -> bytes:
    return struct.pack("=9i", round(a * ONE), round(b * ONE), 0, round(c * ONE), round(d * ONE), 0, 0, 0, 1 << 30)


# A 2 x 3 picture, and what is shown of it, worked by hand from x' = a x + c y, y' = b x + d y.
PICTURE = [[1, 2, 3], [4, 5, 6]]
CASES = {
    "as it is": ((1, 0, 0, 1), 0, PICTURE),
    "quarter clockwise": ((0, 1, -1, 0), -90, [[4, 1], [5, 2], [6, 3]]),
    "half": ((-1, 0, 0, -1), -180, [[6, 5, 4], [3, 2, 1]]),
    "quarter counter-clockwise": ((0, -1, 1, 0), 90, [[3, 6], [2, 5], [1, 4]]),
    "left to right": ((-1, 0, 0, 1), 0, [[3, 2, 1], [6, 5, 4]]),
    "top to bottom": ((1, 0, 0, -1), 0, [[4, 5, 6], [1, 2, 3]]),
    "transposed": ((0, 1, 1, 0), 90, [[1, 4], [2, 5], [3, 6]]),
    "transposed the other way": ((0, -1, -1, 0), -90, [[6, 3], [5, 2], [4, 1]]),
}


@pytest.mark.parametrize("name", CASES)
def test_every_right_angle_and_mirror(name):
    numbers, degrees, shown = CASES[name]
    orientation = Orientation.of_display_matrix(matrix(*numbers), PATH)
    picture_HW3 = np.repeat(np.array(PICTURE, np.uint8)[..., None], 3, axis=-1)
    applied = orientation.apply(picture_HW3)
    assert applied[..., 0].tolist() == shown
    assert orientation.degrees == degrees
    assert orientation.is_mirrored == ("to" in name.split() or "transposed" in name)


@pytest.mark.parametrize("name", CASES)
def test_a_picture_of_several_strips_keeps_every_colour_in_its_place(name):
    numbers, _, shown = CASES[name]
    orientation = Orientation.of_display_matrix(matrix(*numbers), PATH)
    picture_HW3 = np.random.default_rng(0).integers(0, 256, (150, 139, 3), np.uint8)
    applied = orientation.apply(picture_HW3)
    rows_first = shown[0][:2] in ([1, 2], [3, 2], [4, 5], [6, 5])
    expected = picture_HW3 if rows_first else picture_HW3.transpose(1, 0, 2)
    step_y, step_x = (np.sign(shown[1][0] - shown[0][0]), np.sign(shown[0][1] - shown[0][0]))
    assert np.array_equal(applied, expected[::step_y, ::step_x]) and applied.flags.c_contiguous


@pytest.mark.parametrize("degrees", [0, 90, 180, 270, -90, -180])
def test_rotations_alone_have_the_matrix_of_their_angle(degrees):
    radians = np.deg2rad(degrees)
    of_matrix = Orientation.of_display_matrix(matrix(np.cos(radians), -np.sin(radians), np.sin(radians), np.cos(radians)), PATH)
    assert Orientation.of_degrees(degrees, PATH) == of_matrix


def test_oblique_turns_and_empty_matrices_are_refused_with_the_path():
    for numbers in ((0.7, 0.7, -0.7, 0.7), (0, 0, 0, 0), (1, 0, 0, 0)):
        with pytest.raises(VideoError, match="clip.mp4: display matrix .*multiple of 90 degrees"):
            Orientation.of_display_matrix(matrix(*numbers), PATH)
    with pytest.raises(VideoError, match="clip.mp4: rotation 45"):
        Orientation.of_degrees(45, PATH)


def test_the_small_errors_of_cameras_are_taken_for_right_angles():
    assert Orientation.of_display_matrix(matrix(0.005, 1, -1, -0.005), PATH).degrees == -90
