"""A synthetic cart scene frame by frame: where everything is, what of it can be seen, and its picture.

Everything has a pose on each frame in the basket's coordinates, which are the frame's pixels without the camera's
shake. Truth is read off the same silhouettes that are painted.

Shapes: F frames of the video, H x W pixels.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from features.synthetic_sprites import Pose, Sprite

WIDTH_PX, HEIGHT_PX, FPS = 320, 180, 25
SHAKE_MARGIN_PX = 12
HELD_LEVEL = 1000.0
MIN_VISIBLE_SHARE = 0.2
MIN_MOVE_PX = 2.0

_NUM_NOISE_ROWS, _NUM_NOISE_COLUMNS = 64, 64


@dataclass(frozen=True, eq=False, slots=True)
class Track:
    """One thing's way through the video. It is there where `level_F` is finite; higher levels hide lower ones."""

    sprites: tuple[Sprite, ...]
    sprite_index_F: np.ndarray
    pose_F4: np.ndarray
    level_F: np.ndarray
    height_F: np.ndarray

    @classmethod
    def absent(cls, sprites: tuple[Sprite, ...], num_frames: int) -> "Track":
        """A track on which the thing is nowhere yet."""
        return cls(
            sprites,
            np.zeros(num_frames, dtype=np.int8),
            np.tile(np.array([0.0, 0.0, 0.0, 1.0]), (num_frames, 1)),
            np.full(num_frames, np.nan),
            np.zeros(num_frames),
        )

    def is_present(self, frame: int) -> bool:
        return bool(np.isfinite(self.level_F[frame]))

    def sprite(self, frame: int) -> Sprite:
        return self.sprites[self.sprite_index_F[frame]]

    def pose(self, frame: int, shake_xy=(0.0, 0.0)) -> Pose:
        x_px, y_px, angle, scale = self.pose_F4[frame]
        return Pose(float(x_px + shake_xy[0]), float(y_px + shake_xy[1]), float(angle), float(scale))

    def state(self, frame: int) -> tuple:
        """What its picture depends on, besides the shake."""
        return (*self.pose_F4[frame], self.level_F[frame], self.height_F[frame], int(self.sprite_index_F[frame]))


@dataclass(frozen=True, slots=True)
class SceneEvent:
    """Truth of one event: `[start_frame, end_frame)` and the visible part's box per frame, `x0, y0, x1, y1` in pixels.

    `product` is the place of its product in `Scene.products`.
    """

    product: int
    label: str
    start_frame: int
    end_frame: int
    boxes: dict[int, tuple[float, float, float, float]]


@dataclass(frozen=True, eq=False, slots=True)
class Scene:
    """All that a video shows. `basket` has `SHAKE_MARGIN_PX` more on each side than the frame."""

    video_id: str
    num_frames: int
    basket: np.ndarray
    products: list[Track]
    hands: list[Track]
    shake_F2: np.ndarray
    gain_F3: np.ndarray
    tilt_F2: np.ndarray
    noise_seed: tuple[int, ...]
    events: list[SceneEvent] = field(default_factory=list)


def visible_mask(
    sprite: Sprite, pose: Pose, covers: list[tuple[Sprite, Pose]]
) -> tuple[np.ndarray, tuple[int, int], int]:
    """What of a silhouette can be seen inside the frame and beside the `covers` that lie above it.

    Returns the visible pixels as a boolean array, the pixel (x, y) of its corner, and the silhouette's whole number of
    pixels, outside the frame included.
    """
    rect = sprite.extent(pose)
    mask = sprite.sample_alpha(pose, rect) > 0.5
    num_whole = int(mask.sum())
    x0, y0, x1, y1 = max(rect[0], 0), max(rect[1], 0), min(rect[2], WIDTH_PX), min(rect[3], HEIGHT_PX)
    if x0 >= x1 or y0 >= y1:
        return np.zeros((0, 0), dtype=bool), (0, 0), num_whole
    mask = mask[y0 - rect[1] : y1 - rect[1], x0 - rect[0] : x1 - rect[0]].copy()
    for cover, cover_pose in covers:
        cx0, cy0, cx1, cy1 = cover.extent(cover_pose)
        part = max(x0, cx0), max(y0, cy0), min(x1, cx1), min(y1, cy1)
        if part[0] < part[2] and part[1] < part[3]:
            shows = cover.sample_alpha(cover_pose, part) <= 0.5
            mask[part[1] - y0 : part[3] - y0, part[0] - x0 : part[2] - x0] &= shows
    return mask, (x0, y0), num_whole


def visible_share(sprite: Sprite, pose: Pose, covers: list[tuple[Sprite, Pose]]) -> float:
    """The visible share of a silhouette, 0..1."""
    mask, _, num_whole = visible_mask(sprite, pose, covers)
    return float(mask.sum()) / num_whole


def covers_of(tracks: Iterable[Track], track: Track, frame: int, shake_xy=(0.0, 0.0)) -> list[tuple[Sprite, Pose]]:
    """Those of `tracks` that lie above `track` on a frame, posed."""
    level = track.level_F[frame]
    return [(other.sprite(frame), other.pose(frame, shake_xy)) for other in tracks if other.level_F[frame] > level]


def event_truth(scene: Scene, product: int, label: str, first: int, stop: int) -> SceneEvent:
    """The event of product number `product`, which a hand handles within the frames `[first, stop)`, as they show it.

    It starts on the first frame on which `MIN_VISIBLE_SHARE` of the product is visible (`take`, which comes in over an
    edge of the frame) or on which it is `MIN_MOVE_PX` from where it lay (`return`, `rummage`), and ends, half-open, by
    the mirrored rule. Movement is measured in the basket, so the camera's shake moves nothing.
    """
    track = scene.products[product]
    frames = [frame for frame in range(max(first, 0), min(stop, scene.num_frames)) if track.is_present(frame)]
    views = {frame: _look_at(scene, track, frame) for frame in frames}
    xy_n2 = track.pose_F4[frames, :2]
    if label == "take":
        start = next(frame for frame in frames if views[frame][0] >= MIN_VISIBLE_SHARE)
    else:
        start = frames[np.flatnonzero(np.hypot(*(xy_n2 - xy_n2[0]).T) >= MIN_MOVE_PX)[0]]
    if label == "return":
        last = next(frame for frame in reversed(frames) if views[frame][0] >= MIN_VISIBLE_SHARE)
    else:
        last = frames[np.flatnonzero(np.hypot(*(xy_n2 - xy_n2[-1]).T) >= MIN_MOVE_PX)[-1]]
    boxes = {frame: box for frame, (_, box) in views.items() if start <= frame <= last and box is not None}
    return SceneEvent(product, label, start, last + 1, boxes)


def _look_at(scene: Scene, track: Track, frame: int) -> tuple[float, tuple[float, float, float, float] | None]:
    """A product's visible share and the box around what is visible, None where it is wholly hidden."""
    shake_xy = scene.shake_F2[frame]
    covers = covers_of((*scene.products, *scene.hands), track, frame, shake_xy)
    mask, (x0, y0), num_whole = visible_mask(track.sprite(frame), track.pose(frame, shake_xy), covers)
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not columns.size:
        return 0.0, None
    box = (x0 + columns[0], y0 + rows[0], x0 + columns[-1] + 1, y0 + rows[-1] + 1)
    return float(mask.sum()) / num_whole, tuple(float(edge) for edge in box)


def render(scene: Scene) -> Iterator[np.ndarray]:
    """Yields the frames in order, each (HEIGHT_PX, WIDTH_PX, 3) uint8."""
    noise_rng = np.random.default_rng(scene.noise_seed)
    noise = noise_rng.normal(0, 2.0, (HEIGHT_PX + _NUM_NOISE_ROWS, WIDTH_PX + _NUM_NOISE_COLUMNS, 3)).astype(np.float32)
    across = np.linspace(-1, 1, WIDTH_PX, dtype=np.float32)[None, :, None]
    down = np.linspace(-1, 1, HEIGHT_PX, dtype=np.float32)[:, None, None]
    resting, resting_state = scene.basket, None
    for frame in range(scene.num_frames):
        # A thing is painted into the kept picture when it and all below it are as they were on the frame before.
        present = (track for track in (*scene.products, *scene.hands) if track.is_present(frame))
        shown = sorted(present, key=lambda track: track.level_F[frame])
        num_still = 0
        for track in shown:
            if frame and track.state(frame) != track.state(frame - 1):
                break
            num_still += 1
        state = [(id(track), track.state(frame)) for track in shown[:num_still]]
        if state != resting_state:
            resting, resting_state = scene.basket.copy(), state
            for track in shown[:num_still]:
                _paint(resting, track, frame, (SHAKE_MARGIN_PX, SHAKE_MARGIN_PX))
        shake = scene.shake_F2[frame]
        picture = _shifted(resting, shake)
        for track in shown[num_still:]:
            _paint(picture, track, frame, shake)
        tilt_x, tilt_y = scene.tilt_F2[frame].astype(np.float32)
        picture *= scene.gain_F3[frame].astype(np.float32) * (1 + tilt_x * across + tilt_y * down)
        row, column = noise_rng.integers(_NUM_NOISE_ROWS), noise_rng.integers(_NUM_NOISE_COLUMNS)
        picture += noise[row : row + HEIGHT_PX, column : column + WIDTH_PX]
        yield np.clip(picture, 0, 255, out=picture).astype(np.uint8)


def _shifted(resting: np.ndarray, shake_xy) -> np.ndarray:
    """The frame's part of the kept picture, moved by a fraction of pixels (bilinear)."""
    left, top = SHAKE_MARGIN_PX - shake_xy[0], SHAKE_MARGIN_PX - shake_xy[1]
    column, row = int(np.floor(left)), int(np.floor(top))
    part_x, part_y = np.float32(left - column), np.float32(top - row)
    part = resting[row : row + HEIGHT_PX + 1, column : column + WIDTH_PX + 1]
    part = part[:, :-1] * (1 - part_x) + part[:, 1:] * part_x
    return part[:-1] * (1 - part_y) + part[1:] * part_y


def _paint(picture: np.ndarray, track: Track, frame: int, offset_xy) -> None:
    """Paints a thing and before it its shadow, which lies farther off the higher the thing is held."""
    sprite, pose, height = track.sprite(frame), track.pose(frame, offset_xy), float(track.height_F[frame])
    shadow = pose._replace(x_px=pose.x_px + 2 + 7 * height, y_px=pose.y_px + 3 + 9 * height)
    for is_shadow, placed in ((True, shadow), (False, pose)):
        x0, y0, x1, y1 = sprite.extent(placed)
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, picture.shape[1]), min(y1, picture.shape[0])
        if x0 >= x1 or y0 >= y1:
            continue
        part = picture[y0:y1, x0:x1]
        if is_shadow:
            part *= 1 - np.float32(0.38 - 0.16 * height) * sprite.sample_alpha(placed, (x0, y0, x1, y1))[..., None]
        else:
            texels = sprite.sample(placed, (x0, y0, x1, y1))
            part *= 1 - texels[..., 3:]
            part += texels[..., :3]
