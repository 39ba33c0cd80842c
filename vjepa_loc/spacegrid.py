"""Where things are in space: displayed pixels, encoder pixels and cells of the token grid, in both directions.

The only module that converts between the three. A frame is resized as a whole, and the encoder's input is a window
of the resized frame that starts at the offset; a negative offset means bars around the frame:

    crop (offset > 0)                     letterbox (offset < 0)
    resized frame                         input
    +-------+-----------+-------+         +-----------------------+
    |       | input     |       |         |         bar           |
    |       |           |       |         +-----------------------+
    |       |           |       |         | resized frame         |
    |       |           |       |         +-----------------------+
    +-------+-----------+-------+         |         bar           |
     offset                               +-----------------------+

    input = displayed * resize / displayed size - offset          cells = input / patch

Coordinates are continuous edges, (x, y), 0 at the left or top edge of the first pixel. Shapes: N points, H x W cells.
"""

from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import ArrayLike

from vjepa_loc.errors import ConfigError, nearest_name

FITS = ("stretch", "letterbox", "crop", "aspect")


@dataclass(frozen=True)
class SpaceGrid:
    """How the displayed frames of one video (width x height) lie in the encoder's input and in its cells.

    Raises ConfigError for an unknown fit, a size below one pixel, or an input that whole patches do not fill.
    """

    fit: str
    width: int
    height: int
    resize_width: int
    resize_height: int
    offset_x: int
    offset_y: int
    input_width: int
    input_height: int
    patch_px: int

    def __post_init__(self):
        if self.fit not in FITS:
            raise ConfigError(
                f"fit: expected one of {', '.join(FITS)}, got {self.fit!r}.{nearest_name(self.fit, FITS)}"
            )
        for name in ("width", "height", "resize_width", "resize_height", "input_width", "input_height", "patch_px"):
            if getattr(self, name) < 1:
                raise ConfigError(f"space grid: {name}: expected at least 1 pixel, got {getattr(self, name)}")
        if self.input_width % self.patch_px or self.input_height % self.patch_px:
            raise ConfigError(
                f"encoder input of {self.input_width}x{self.input_height} pixels: expected multiples of the patch size "
                f"{self.patch_px}; choose another input size"
            )

    @classmethod
    def build(
        cls, fit: str, width: int, height: int, input_height: int, input_width: int, patch_px: int
    ) -> "SpaceGrid":
        """The grid of a video whose displayed frames measure width x height.

        stretch: the whole frame fills the input. letterbox: the whole frame, centred, its shape kept to a pixel.
        crop: transformers' VJEPA2VideoProcessor, whose input is square; for a rectangular input the same rule,
        with the shortest resize that leaves the processor's margin on both axes. aspect: the whole frame fills an
        input of its own, of the grid that `aspect_cells` gives; input_height and input_width are the budget.
        """
        if min(width, height, input_width, input_height) < 1:
            raise ConfigError(
                f"space grid: expected sizes of at least 1 pixel, got a frame of {width}x{height} and an input of "
                f"{input_width}x{input_height}"
            )
        if fit == "aspect" and patch_px >= 1:
            rows, columns = aspect_cells(width, height, (input_height // patch_px) * (input_width // patch_px))
            input_width, input_height = columns * patch_px, rows * patch_px
        resize_width, resize_height = input_width, input_height
        offset_x = offset_y = 0
        if fit == "letterbox":
            # Integer comparison: which side of the frame meets the input first.
            if width * input_height >= height * input_width:
                resize_height = max(1, (2 * height * input_width + width) // (2 * width))
            else:
                resize_width = max(1, (2 * width * input_height + height) // (2 * height))
            offset_x, offset_y = -((input_width - resize_width) // 2), -((input_height - resize_height) // 2)
        elif fit == "crop":
            margin_width, margin_height = input_width * 256 // 224, input_height * 256 // 224
            if width * margin_height >= height * margin_width:
                resize_width, resize_height = margin_height * width // height, margin_height
            else:
                resize_width, resize_height = margin_width, margin_width * height // width
            offset_x, offset_y = (resize_width - input_width) // 2, (resize_height - input_height) // 2
        return cls(
            fit, width, height, resize_width, resize_height, offset_x, offset_y, input_width, input_height, patch_px
        )

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W): rows and columns of cells."""
        return self.input_height // self.patch_px, self.input_width // self.patch_px

    def displayed_to_input(self, xy: ArrayLike) -> np.ndarray:
        """Points (..., 2) in displayed pixels as points in encoder pixels; nothing is clipped."""
        # Multiplied before it is divided, so that the frame's far edges come out exact.
        resized = np.asarray(xy, dtype=np.float64) * self._resized_size / [self.width, self.height]
        return resized - [self.offset_x, self.offset_y]

    def input_to_displayed(self, xy: ArrayLike) -> np.ndarray:
        """Inverse of `displayed_to_input`."""
        resized = np.asarray(xy, dtype=np.float64) + [self.offset_x, self.offset_y]
        return resized * [self.width, self.height] / self._resized_size

    @property
    def _resized_size(self) -> tuple[int, int]:
        return self.resize_width, self.resize_height

    def input_to_cells(self, xy: ArrayLike) -> np.ndarray:
        """Points (..., 2) in encoder pixels as cell coordinates, 0..W and 0..H inside the input."""
        return np.asarray(xy, dtype=np.float64) / self.patch_px

    def cells_to_input(self, xy: ArrayLike) -> np.ndarray:
        """Inverse of `input_to_cells`."""
        return np.asarray(xy, dtype=np.float64) * self.patch_px

    @cached_property
    def cell_boxes_norm_HW4(self) -> np.ndarray:
        """Each cell as xyxy in the displayed frame, divided by its width and height.

        Not clipped: cells that reach into letterbox bars pass 0 or 1.
        """
        rows, columns = self.grid
        x, y = np.meshgrid(np.arange(columns), np.arange(rows))
        corners_HW22 = np.stack([np.stack([x, y], -1), np.stack([x + 1, y + 1], -1)], axis=-2)
        # The displayed and the resized frame are one frame: dividing by the resized size leaves out its pixels.
        normalised = (self.cells_to_input(corners_HW22) + [self.offset_x, self.offset_y]) / self._resized_size
        return _read_only(normalised.reshape(rows, columns, 4))

    @cached_property
    def valid_HW(self) -> np.ndarray:
        """Whether each cell shows the frame: its centre lies inside the displayed frame.

        A frame so thin that it holds no centre of a row (or column) keeps the one that it overlaps most,
        so that every video has a valid cell.
        """
        boxes = self.cell_boxes_norm_HW4
        columns_W = _shows_frame(boxes[0, :, 0], boxes[0, :, 2])
        rows_H = _shows_frame(boxes[:, 0, 1], boxes[:, 0, 3])
        return _read_only(rows_H[:, None] & columns_W[None, :])

    def to_dict(self) -> dict[str, str | int]:
        """JSON-ready values; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "SpaceGrid":
        """Inverse of `to_dict`. Raises ConfigError naming the keys that are missing or unknown."""
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            raise ConfigError(
                f"space grid: expected the keys {', '.join(sorted(names))}; missing: {sorted(names - set(values))}, "
                f"unknown: {sorted(set(values) - names)}"
            )
        return cls(**values)


@lru_cache(maxsize=1024)
def aspect_cells(width: int, height: int, max_cells: int) -> tuple[int, int]:
    """(H, W) of the grid of square cells for a frame of width x height, with at most `max_cells` cells.

    Of the grids that are full - another row or another column would pass `max_cells` - the one whose shape is nearest to the
    frame's, by the ratio of the two aspect ratios; of two that are equally near, the one with more cells, then the one nearer
    to a square, then (for a square frame) the wide one. Only full grids, because the nearest shape of all may
    have next to no cells: 16:9 is met exactly by 9 x 16 = 144 of 256 cells, and to 1.6% by 12 x 21 = 252.
    A frame that is longer than any grid, such as 1 x 1000 pixels, gets a single row or column. Raises ConfigError without a cell.
    """
    if min(width, height, max_cells) < 1:
        raise ConfigError(f"aspect: expected a frame and a grid of at least 1, got a frame of {width}x{height} and {max_cells} cells")
    full = [(rows, max_cells // rows) for rows in range(1, max_cells + 1) if max_cells // (max_cells // rows) == rows]

    def distance(cells: tuple[int, int]) -> tuple:
        rows, columns = cells
        # Exact: two grids are as near to a frame as their ratios say, not as rounding does.
        stretch = Fraction(columns * height, rows * width)
        return max(stretch, 1 / stretch), -rows * columns, max(rows, columns), rows if width >= height else columns

    return min(full, key=distance)


def _shows_frame(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    centre = (low + high) / 2
    valid = (centre >= 0) & (centre < 1)
    if not valid.any():
        valid[np.argmax(np.minimum(high, 1) - np.maximum(low, 0))] = True
    return valid


def _read_only(array: np.ndarray) -> np.ndarray:
    # Cached on a frozen object: a caller that writes into it would move the grid of everyone else.
    array.setflags(write=False)
    return array
