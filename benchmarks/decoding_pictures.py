"""Pictures that carry their own number, readable after lossy coding and only the right way round.

    +-----------------------------+     two rows of 12 cells: the upper row is the code, the lower row its negative;
    | W                         D |     the code is 1, 0, then ten bits of the number, the lowest first
    |   1 0 b0 b1 ... b8 b9       |     W: white, D: dark; the ground changes with the number, so that frames differ everywhere
    |   0 1 -b0 -b1 ... -b9       |
    +-----------------------------+

A cell's bit is the sign of upper minus lower; a picture that is turned, mirrored, torn or blended reads as None.
"""

import numpy as np

CELL_X_PX, CELL_Y_PX, LEFT_PX, TOP_PX = 12, 16, 8, 32
NUM_BITS = 10
WIDTH_PX, HEIGHT_PX = 160, 96
"""The size that holds everything; pictures may be larger."""
DARK, LIGHT = 24, 232
# A cell whose halves differ by less than this holds two frames at once, or none.
LEAST_CONTRAST = 60


def numbered_picture(number: int, width: int = WIDTH_PX, height: int = HEIGHT_PX) -> np.ndarray:
    """uint8 RGB (height, width, 3) for a number below 1024."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    ground_HW = (x + 2 * y + 5 * number) % 128 + 64
    rgb_HW3 = np.stack([ground_HW, np.roll(ground_HW, 17, 0), 255 - ground_HW], -1).astype(np.uint8)
    rgb_HW3[:16, :16], rgb_HW3[:16, -16:] = LIGHT, DARK
    for cell, bit in enumerate(_code(number)):
        left = LEFT_PX + cell * CELL_X_PX
        rgb_HW3[TOP_PX : TOP_PX + CELL_Y_PX, left : left + CELL_X_PX] = LIGHT if bit else DARK
        rgb_HW3[TOP_PX + CELL_Y_PX : TOP_PX + 2 * CELL_Y_PX, left : left + CELL_X_PX] = DARK if bit else LIGHT
    return rgb_HW3


def number_of(rgb_HW3: np.ndarray) -> int | None:
    """The inverse of `numbered_picture`, None where the picture holds no number."""
    if rgb_HW3.shape[0] < HEIGHT_PX or rgb_HW3.shape[1] < WIDTH_PX:
        return None
    bits = []
    for cell in range(NUM_BITS + 2):
        x = slice(LEFT_PX + cell * CELL_X_PX + 3, LEFT_PX + (cell + 1) * CELL_X_PX - 3)
        upper = rgb_HW3[TOP_PX + 4 : TOP_PX + CELL_Y_PX - 4, x].mean()
        lower = rgb_HW3[TOP_PX + CELL_Y_PX + 4 : TOP_PX + 2 * CELL_Y_PX - 4, x].mean()
        if abs(upper - lower) < LEAST_CONTRAST:
            return None
        bits.append(bool(upper > lower))
    upright = bits[:2] == [True, False] and rgb_HW3[2:10, 2:10].mean() > 128 > rgb_HW3[2:10, -10:-2].mean()
    return sum(bit << place for place, bit in enumerate(bits[2:])) if upright else None


def _code(number: int) -> list[bool]:
    if not 0 <= number < 1 << NUM_BITS:
        raise ValueError(f"number: expected 0 to {(1 << NUM_BITS) - 1}, got {number}")
    return [True, False] + [bool(number >> place & 1) for place in range(NUM_BITS)]
