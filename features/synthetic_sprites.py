"""Pictures that the synthetic cart is put together from: products, hands with a forearm, the basket.

A picture is drawn once, as a texture finer than the frame, from signed distances to simple shapes (negative inside,
in pixels). Poses are applied when it is sampled, so moving, turning and scaling it costs one look-up per pixel
and loses no sharpness. What was given up: perspective, folds and printed text, of which an encoder with coarse cells
sees nothing.

Shapes: `_HW4` is a picture of H x W texels: red, green, blue (0..255, already multiplied by alpha), alpha (0..1).
"""

import colorsys
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

PRODUCT_KINDS = ("rectangle", "rounded", "ellipse", "bottle", "polygon")
PRODUCT_PATTERNS = ("stripes", "checks", "dots", "label", "plain")
LONGEST_SIDE_PX = (34.0, 78.0)
ARM_LENGTH_PX = 430.0
FINGERTIP_PX = 31.0

_SKINS = ((236, 196, 168), (222, 174, 140), (190, 138, 102), (150, 104, 74), (104, 70, 50))
_SLEEVES = ((52, 58, 72), (98, 98, 102), (38, 40, 44), (120, 112, 100), (70, 82, 92))
_MIN_COLOUR_DISTANCE = 70.0


class Pose(NamedTuple):
    """Where a sprite is: its origin in pixels, its turn in radians (x towards y) and its magnification."""

    x_px: float
    y_px: float
    angle: float
    scale: float


@dataclass(frozen=True, eq=False, slots=True)
class Sprite:
    """A texture with an origin. `left_px`..`bottom_px` bound its opaque part around the origin at scale 1."""

    texels_HW4: np.ndarray
    texels_per_px: float
    left_px: float
    top_px: float
    right_px: float
    bottom_px: float

    def reach_px(self, angle: float) -> float:
        """Distance from the origin to the outline in direction `angle` of the sprite's own axes, as for an ellipse."""
        half_width, half_height = (self.right_px - self.left_px) / 2, (self.bottom_px - self.top_px) / 2
        return float(half_width * half_height / np.hypot(half_height * np.cos(angle), half_width * np.sin(angle)))

    def extent(self, pose: Pose) -> tuple[int, int, int, int]:
        """Whole pixels `x0, y0, x1, y1` (half-open) outside of which the posed sprite is transparent."""
        cos, sin = np.cos(pose.angle) * pose.scale, np.sin(pose.angle) * pose.scale
        corners_x = (self.left_px, self.right_px, self.left_px, self.right_px)
        corners_y = (self.top_px, self.top_px, self.bottom_px, self.bottom_px)
        xs = [cos * x - sin * y for x, y in zip(corners_x, corners_y)]
        ys = [sin * x + cos * y for x, y in zip(corners_x, corners_y)]
        return (
            int(np.floor(pose.x_px + min(xs))) - 1,
            int(np.floor(pose.y_px + min(ys))) - 1,
            int(np.ceil(pose.x_px + max(xs))) + 1,
            int(np.ceil(pose.y_px + max(ys))) + 1,
        )

    def sample(self, pose: Pose, rect: tuple[int, int, int, int]) -> np.ndarray:
        """The posed sprite on the pixels of `rect` (x0, y0, x1, y1): (y1 - y0, x1 - x0, 4) float32."""
        return self.texels_HW4.reshape(-1, 4).take(self._texel_index(pose, rect), axis=0)

    def sample_alpha(self, pose: Pose, rect: tuple[int, int, int, int]) -> np.ndarray:
        """As `sample`, alpha only: (y1 - y0, x1 - x0) float32."""
        return self.texels_HW4[..., 3].reshape(-1).take(self._texel_index(pose, rect))

    def _texel_index(self, pose: Pose, rect: tuple[int, int, int, int]) -> np.ndarray:
        height, width = self.texels_HW4.shape[:2]
        x0, y0, x1, y1 = rect
        cos = np.float32(np.cos(pose.angle) * self.texels_per_px / pose.scale)
        sin = np.float32(np.sin(pose.angle) * self.texels_per_px / pose.scale)
        dx = np.arange(x0, x1, dtype=np.float32) + np.float32(0.5 - pose.x_px)
        dy = np.arange(y0, y1, dtype=np.float32) + np.float32(0.5 - pose.y_px)
        origin_u = np.float32((0.5 - self.left_px) * self.texels_per_px + 1)
        origin_v = np.float32((0.5 - self.top_px) * self.texels_per_px + 1)
        u = (cos * dx)[None, :] + (sin * dy + origin_u)[:, None]
        v = (-sin * dx)[None, :] + (cos * dy + origin_v)[:, None]
        # The outermost texels are transparent, so that clamping gives transparency outside.
        column = np.clip(u, 0, width - 1, out=u).astype(np.int32)
        row = np.clip(v, 0, height - 1, out=v).astype(np.int32)
        row *= width
        row += column
        return row


@dataclass(frozen=True, eq=False, slots=True)
class Person:
    """Whose hands reach in: their colours, and one sprite per side (0 right, 1 left) of an open and a gripping hand."""

    skin_rgb: np.ndarray
    open_hands: tuple[Sprite, Sprite]
    gripping_hands: tuple[Sprite, Sprite]


def draw_product(rng: np.random.Generator, avoid_rgb: list[np.ndarray]) -> Sprite:
    """A product of random shape, colour and pattern, told apart from every colour in `avoid_rgb`."""
    kind, pattern = rng.choice(PRODUCT_KINDS), rng.choice(PRODUCT_PATTERNS)
    longest_px = rng.uniform(*LONGEST_SIDE_PX)
    aspect = rng.uniform(0.4, 0.55) if kind == "bottle" else rng.uniform(0.6, 1.0)
    half_width, half_height = longest_px / 2, longest_px * aspect / 2
    texels_per_px = 3.0
    x, y = _texel_grid(-half_width, -half_height, half_width, half_height, texels_per_px)
    distance = _product_distance(rng, kind, x, y, half_width, half_height)
    base_rgb = _distinct_colour(rng, avoid_rgb)
    second_rgb = _distinct_colour(rng, [*avoid_rgb, base_rgb])
    mix = _pattern_mix(rng, pattern, x, y, half_width, half_height)[..., None]
    rgb = base_rgb * (1 - mix) + second_rgb * mix
    shade = 0.68 + 0.32 * np.clip(-distance / 5, 0, 1)
    shade = shade * (0.94 + 0.12 * np.cos(np.pi * (y / half_height + 0.4)))
    return _sprite(rgb * shade[..., None], distance, texels_per_px, -half_width, -half_height, half_width, half_height)


def draw_person(rng: np.random.Generator) -> Person:
    """A person with random skin and sleeves."""
    skin_rgb = np.asarray(_SKINS[rng.integers(len(_SKINS))], dtype=np.float32) * np.float32(rng.uniform(0.94, 1.04))
    sleeve_rgb = np.asarray(_SLEEVES[rng.integers(len(_SLEEVES))], dtype=np.float32)
    sleeve_from_px = rng.uniform(36, 110)
    size = rng.uniform(0.9, 1.1)
    hands = [
        tuple(_draw_hand(skin_rgb, sleeve_rgb, sleeve_from_px, size, spread, side) for side in (1, -1))
        for spread in (True, False)
    ]
    return Person(skin_rgb, *hands)


def draw_basket(
    rng: np.random.Generator, width_px: int, height_px: int, margin_px: int
) -> tuple[np.ndarray, np.ndarray]:
    """The empty basket from above: `(height + 2 margin, width + 2 margin, 3)` float32, and the floor's mean colour."""
    x = np.arange(-margin_px, width_px + margin_px, dtype=np.float32)[None, :] + 0.5
    y = np.arange(-margin_px, height_px + margin_px, dtype=np.float32)[:, None] + 0.5
    tone = rng.uniform(75, 165)
    floor_rgb = (tone * (1 + rng.uniform(-0.12, 0.12, 3))).astype(np.float32)
    num_rows, num_columns = y.shape[0], x.shape[1]
    brightness = 1 + 0.10 * _smooth_noise(rng, num_rows, num_columns, 24)
    brightness += 0.05 * _smooth_noise(rng, num_rows, num_columns, 5)
    period = rng.uniform(9, 20)
    angle = rng.uniform(0, np.pi / 2)
    across = np.abs((x * np.cos(angle) + y * np.sin(angle)) / period % 1 - 0.5)
    along = np.abs((y * np.cos(angle) - x * np.sin(angle)) / (period * rng.uniform(0.8, 1.6)) % 1 - 0.5)
    lines = np.minimum(across, along) if rng.random() < 0.6 else np.hypot(across, along)
    brightness = brightness + rng.choice((-1, 1)) * 0.16 * np.clip(1 - lines / 0.13, 0, 1)
    # Walls fall off towards the floor; the rim is what the frame's border shows of the basket's edge.
    rim_px = rng.uniform(6, 13, 4)
    wall_px = rng.uniform(12, 24, 4)
    gaps = (x + 0 * y, width_px - x + 0 * y, y + 0 * x, height_px - y + 0 * x)
    wall = np.min([np.clip((gap - rim) / depth, 0, 1) for gap, rim, depth in zip(gaps, rim_px, wall_px)], axis=0)
    brightness = brightness * (0.62 + 0.38 * wall)
    picture = brightness[..., None] * floor_rgb
    depth_in_rim = np.min([gap - rim for gap, rim in zip(gaps, rim_px)], axis=0)
    ribs = 0.9 + 0.1 * np.sign(np.sin((x + y) * (2 * np.pi / rng.uniform(12, 26))))
    rim_rgb = np.asarray(_SLEEVES[rng.integers(len(_SLEEVES))], dtype=np.float32) * 1.3
    rim = (ribs * (1 - 0.25 * np.exp(-np.abs(depth_in_rim) / 2)))[..., None] * rim_rgb
    return np.where(depth_in_rim[..., None] < 0, rim, picture).astype(np.float32), floor_rgb


def _texel_grid(left, top, right, bottom, texels_per_px):
    """Pixel coordinates of texel centres, with a transparent border of half a pixel and a texel around the shape."""
    columns = int(np.ceil((right - left + 1) * texels_per_px)) + 2
    rows = int(np.ceil((bottom - top + 1) * texels_per_px)) + 2
    x = left - 0.5 + (np.arange(columns, dtype=np.float32) - 0.5) / texels_per_px
    y = top - 0.5 + (np.arange(rows, dtype=np.float32) - 0.5) / texels_per_px
    return x[None, :], y[:, None]


def _sprite(rgb_HW3, distance_HW, texels_per_px, left, top, right, bottom) -> Sprite:
    alpha = np.clip(0.5 - distance_HW, 0, 1)
    alpha[[0, -1], :] = 0
    alpha[:, [0, -1]] = 0
    texels = np.empty((*alpha.shape, 4), dtype=np.float32)
    texels[..., :3] = np.clip(rgb_HW3, 0, 255) * alpha[..., None]
    texels[..., 3] = alpha
    return Sprite(texels, texels_per_px, left, top, right, bottom)


def _box_distance(x, y, half_width, half_height, radius=0.0):
    over_x, over_y = np.abs(x) - (half_width - radius), np.abs(y) - (half_height - radius)
    outside = np.hypot(np.maximum(over_x, 0), np.maximum(over_y, 0))
    return outside + np.minimum(np.maximum(over_x, over_y), 0) - radius


def _capsule_distance(x, y, x0, y0, x1, y1, radius0, radius1):
    length_sq = (x1 - x0) ** 2 + (y1 - y0) ** 2
    along = np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length_sq, 0, 1)
    return np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0)) - (radius0 + along * (radius1 - radius0))


def _product_distance(rng, kind, x, y, half_width, half_height):
    if kind == "rectangle":
        return _box_distance(x, y, half_width, half_height, 1.5)
    if kind == "rounded":
        return _box_distance(x, y, half_width, half_height, half_height * rng.uniform(0.35, 0.7))
    if kind == "ellipse":
        return (np.hypot(x / half_width, y / half_height) - 1) * half_height
    if kind == "bottle":
        body_half = half_width * rng.uniform(0.6, 0.7)
        body = _box_distance(x + half_width - body_half, y, body_half, half_height, half_height * 0.45)
        neck = _box_distance(x - half_width * 0.45, y, half_width * 0.55, half_height * rng.uniform(0.3, 0.45), 1.5)
        return np.minimum(body, neck)
    num_sides = int(rng.integers(5, 8))
    turns = (np.arange(num_sides) + rng.uniform(-0.22, 0.22, num_sides)) / num_sides
    inside = _box_distance(x, y, half_width, half_height)
    for angle in 2 * np.pi * turns + rng.uniform(0, np.pi):
        cos, sin = np.cos(angle), np.sin(angle)
        inside = np.maximum(inside, x * cos + y * sin - 0.9 * np.hypot(half_width * cos, half_height * sin))
    return inside


def _pattern_mix(rng, pattern, x, y, half_width, half_height):
    """How much of the second colour each texel has, 0..1."""
    period = rng.uniform(8, 17)
    if pattern == "stripes":
        angle = rng.choice((0.0, np.pi / 2, np.pi / 4))
        return ((x * np.cos(angle) + y * np.sin(angle)) / period % 1 < rng.uniform(0.35, 0.6)).astype(np.float32)
    if pattern == "checks":
        return ((np.floor(x / period) + np.floor(y / period)) % 2).astype(np.float32)
    if pattern == "dots":
        return (np.hypot(x / period % 1 - 0.5, y / period % 1 - 0.5) < rng.uniform(0.26, 0.36)).astype(np.float32)
    if pattern == "label":
        middle_px, half_label_px = half_width * rng.uniform(-0.3, 0.3), half_width * rng.uniform(0.3, 0.5)
        label = _box_distance(x - middle_px, y, half_label_px, half_height * 0.6) < 0
        lines = (y / 5 % 1 < 0.35) & (np.abs(x) < half_width * 0.25)
        return label * np.where(lines, 0.45, 1.0)
    return 0.35 * (0.5 + 0.5 * np.sin(x / half_width * 2 + y / half_height))


def _distinct_colour(rng, avoid_rgb):
    """A lively colour, hardly ever of skin's hue: the first of several far from `avoid_rgb`, or the farthest."""
    best, best_distance = None, -1.0
    for _ in range(24):
        grey = rng.random() < 0.15
        hue = rng.uniform(0.13, 0.98)
        saturation = rng.uniform(0.0, 0.1) if grey else rng.uniform(0.55, 0.95)
        value = rng.choice((0.12, 0.97)) if grey else rng.uniform(0.5, 1.0)
        rgb = np.asarray(colorsys.hsv_to_rgb(hue, saturation, value), dtype=np.float32) * 255
        distance = min(float(np.linalg.norm(rgb - other)) for other in avoid_rgb)
        if distance > _MIN_COLOUR_DISTANCE:
            return rgb
        if distance > best_distance:
            best, best_distance = rgb, distance
    return best


def _draw_hand(skin_rgb, sleeve_rgb, sleeve_from_px, size, spread, side) -> Sprite:
    """A hand along +x with the palm's middle at the origin; `side` mirrors it, `spread` opens the fingers."""
    texels_per_px = 2.0
    left, top, right, bottom = -ARM_LENGTH_PX, -32.0, FINGERTIP_PX * 1.15, 32.0
    x, y = _texel_grid(left, top, right, bottom, texels_per_px)
    u, v = x / size, side * y / size
    skin = _capsule_distance(u, v, -ARM_LENGTH_PX, 0, -12, 0, 16, 9.5)
    skin = np.minimum(skin, _capsule_distance(u, v, -3, 0, 3, 0, 13, 13.5))
    opening = 1.75 if spread else 0.95
    for knuckle, tip in ((-10, 24), (-3.6, 28), (3.2, 27), (9.6, 22)):
        skin = np.minimum(skin, _capsule_distance(u, v, 6, knuckle, tip, knuckle * opening, 4.1, 3.4))
    thumb_tip = (10, 25) if spread else (17, 15.5)
    skin = np.minimum(skin, _capsule_distance(u, v, -6, 9, *thumb_tip, 5, 4))
    sleeve = np.maximum(_capsule_distance(u, v, -ARM_LENGTH_PX, 0, -30, 0, 24, 14), u + sleeve_from_px)
    rgb = np.where((sleeve < 0)[..., None], sleeve_rgb, skin_rgb)
    distance = np.minimum(skin, sleeve)
    shade = 0.66 + 0.34 * np.clip(-np.where(sleeve < 0, sleeve, skin) / 6, 0, 1)
    return _sprite(rgb * shade[..., None], distance * size, texels_per_px, left, top, right, bottom)


def _smooth_noise(rng, height, width, cell_px):
    """Noise in -1..1 that varies over about `cell_px` pixels, by bilinear interpolation of a coarse grid."""
    rows, columns = int(np.ceil(height / cell_px)) + 2, int(np.ceil(width / cell_px)) + 2
    coarse = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
    y, x = np.arange(height) / cell_px, np.arange(width) / cell_px
    row, column = y.astype(int), x.astype(int)
    fy, fx = (y - row)[:, None].astype(np.float32), (x - column)[None, :].astype(np.float32)
    upper = coarse[row][:, column] * (1 - fx) + coarse[row][:, column + 1] * fx
    lower = coarse[row + 1][:, column] * (1 - fx) + coarse[row + 1][:, column + 1] * fx
    return upper * (1 - fy) + lower * fy
