"""Ways through the basket: from which edge an arm comes, how a product is carried, and at which pace.

A path is an array of poses (P, 4): x, y, turn and magnification, evenly along the path's parameter. A place on it is a
real number of points, 0..P-1. Time enters last, in `time_path`, which chooses begin and pace so that the product passes
two given places exactly at the two edges of the interval that the schedule wants.
"""

from dataclasses import dataclass

import numpy as np

from features.synthetic_scene import HEIGHT_PX, WIDTH_PX
from features.synthetic_schedule import Visit
from features.synthetic_sprites import FINGERTIP_PX, Pose, Sprite

NUM_POINTS = 129
FLOOR_INSET_PX = 34.0
HELD_GROWTH = 0.14
"""How much larger a product looks that is held above the floor."""

_EDGES = ("top", "left", "right", "bottom")
_EDGE_SHARES = (0.34, 0.24, 0.24, 0.18)
_ELBOW_PX = 170.0
_LIFT_OVER_PX = 45.0


@dataclass(frozen=True, slots=True)
class Arm:
    """An arm that reaches in over `edge_xy` from an elbow outside; `side` is 0 for a right hand, 1 for a left one.

    `grip_share` says where it holds a product: 0 at the product's middle, 1 at its near side.
    """

    edge_xy: np.ndarray
    elbow_xy: np.ndarray
    side: int
    grip_share: float

    @property
    def outward(self) -> np.ndarray:
        """Unit vector out of the basket along the arm."""
        return (self.elbow_xy - self.edge_xy) / np.hypot(*(self.elbow_xy - self.edge_xy))

    @property
    def withdrawn_xy(self) -> np.ndarray:
        """A palm position from which no finger reaches into the frame."""
        return self.edge_xy + self.outward * 1.4 * FINGERTIP_PX

    def angle_at(self, palm_xy: np.ndarray) -> float:
        """The hand's direction when the palm is there."""
        x_px, y_px = palm_xy - self.elbow_xy
        return float(np.arctan2(y_px, x_px))

    def grip(self, sprite: Sprite, pose: Pose) -> Pose:
        """The hand that holds the product at `pose`, its fingers over the side from which the arm comes."""
        product_xy = np.array(pose[:2])
        angle = self.angle_at(product_xy)
        reach_px = 6 + self.grip_share * sprite.reach_px(angle - pose.angle) * pose.scale
        x_px, y_px = product_xy - reach_px * np.array([np.cos(angle), np.sin(angle)])
        return Pose(float(x_px), float(y_px), angle, 1.0)


def draw_arm(rng: np.random.Generator, target_xy: np.ndarray, other_arms: list[Arm]) -> Arm:
    """An arm from a random edge, away from the other arms and rather from where the target is near."""
    best, best_cost = None, np.inf
    for _ in range(4):
        edge = _EDGES[rng.choice(len(_EDGES), p=_EDGE_SHARES)]
        along, lean = rng.uniform(0.12, 0.88), rng.uniform(-0.5, 0.5)
        edge_xy, inward = {
            "top": (np.array([along * WIDTH_PX, 0.0]), np.array([lean, 1.0])),
            "bottom": (np.array([along * WIDTH_PX, HEIGHT_PX]), np.array([lean, -1.0])),
            "left": (np.array([0.0, along * HEIGHT_PX]), np.array([1.0, lean])),
            "right": (np.array([WIDTH_PX, along * HEIGHT_PX]), np.array([-1.0, lean])),
        }[edge]
        gap_px = min((float(np.hypot(*(edge_xy - arm.edge_xy))) for arm in other_arms), default=np.inf)
        cost = float(np.hypot(*(target_xy - edge_xy))) + 3 * max(0.0, 130 - gap_px)
        if cost < best_cost:
            elbow_xy = edge_xy - inward / np.hypot(*inward) * _ELBOW_PX
            best, best_cost = (edge_xy, elbow_xy), cost
    return Arm(*best, int(rng.integers(2)), rng.uniform(0.35, 1.0))


def draw_carry_path(rng: np.random.Generator, arm: Arm, sprite: Sprite, inside: np.ndarray) -> np.ndarray:
    """From the lying pose `inside` (4,) in a bow to where the product is out of sight beyond the arm's edge."""
    u = np.linspace(0, 1, NUM_POINTS)
    outside_xy = arm.edge_xy + arm.outward * 1.3 * np.hypot(sprite.right_px, sprite.bottom_px)
    way = outside_xy - inside[:2]
    bow_xy = inside[:2] + way / 2 + rng.uniform(-0.22, 0.22) * np.array([-way[1], way[0]])
    v = u[:, None]
    xy = (1 - v) ** 2 * inside[:2] + 2 * v * (1 - v) * bow_xy + v**2 * outside_xy
    lift = np.clip(distances_px(xy, inside[:2]) / _LIFT_OVER_PX, 0, 1)
    angle = inside[2] + rng.uniform(-0.8, 0.8) * u
    return np.column_stack([xy, angle, 1 + HELD_GROWTH * lift])


def draw_rummage_path(rng: np.random.Generator, lying: np.ndarray, length: int) -> np.ndarray:
    """From the lying pose (4,) to a place near by, swinging to the side the more often the longer it takes."""
    u = np.linspace(0, 1, NUM_POINTS)
    heading, end_xy = 0.0, np.full(2, -1.0)
    while not is_on_floor(end_xy):
        heading, distance_px = rng.uniform(0, 2 * np.pi), rng.uniform(14, 60)
        end_xy = lying[:2] + distance_px * np.array([np.cos(heading), np.sin(heading)])
    num_swings = max(1, round(length / 14))
    swing_px = rng.uniform(8, 20) * np.sqrt(np.sin(np.pi * u)) * np.sin(np.pi * num_swings * u)
    sideways = np.array([-np.sin(heading), np.cos(heading)])
    xy = lying[:2] + u[:, None] * (end_xy - lying[:2]) + swing_px[:, None] * sideways
    angle = lying[2] + rng.uniform(-0.7, 0.7) * u
    return np.column_stack([xy, angle, 1 + 0.35 * HELD_GROWTH * np.sin(np.pi * u)])


def is_on_floor(xy: np.ndarray) -> bool:
    """Whether a product whose middle is there lies on the floor rather than on the wall."""
    inset = FLOOR_INSET_PX
    return bool(inset <= xy[0] <= WIDTH_PX - inset and inset <= xy[1] <= HEIGHT_PX - inset)


def distances_px(xy_N2: np.ndarray, origin_xy: np.ndarray) -> np.ndarray:
    """Distances (N,) of points from one place."""
    return np.hypot(xy_N2[:, 0] - origin_xy[0], xy_N2[:, 1] - origin_xy[1])


def first_place_beyond(path_P4: np.ndarray, distance_px: float) -> float:
    """The place at which the path first is `distance_px` away from its beginning."""
    away = distances_px(path_P4[:, :2], path_P4[0, :2])
    point = int(np.flatnonzero(away >= distance_px)[0])
    return float(point - 1 + (distance_px - away[point - 1]) / (away[point] - away[point - 1]))


def draw_pace(rng: np.random.Generator, visit: Visit) -> np.ndarray:
    """Progress 0..1 at evenly spaced times: slow where the product rests, long events with a pause on the way."""
    time = np.linspace(0, 1, 513)
    if visit.end - visit.start > 26 and rng.random() < 0.8:
        # During the pause the hand has an eighth of its speed; at a standstill the path could not be inverted.
        begin, width = rng.uniform(0.3, 0.45), rng.uniform(0.2, 0.4)
        speed = np.where((time > begin) & (time < begin + width), 0.12, 1.0)
        time = np.concatenate([[0.0], np.cumsum((speed[1:] + speed[:-1]) / 2)])
        time /= time[-1]
    power = rng.uniform(1.8, 2.6)
    if visit.label == "take":
        return 0.25 * time + 0.75 * (1 - (1 - time) ** power)
    if visit.label == "return":
        return 0.25 * time + 0.75 * time**power
    return 0.5 * time + 0.5 * smoothstep(time)


def time_path(
    path_P4: np.ndarray, pace: np.ndarray, places: tuple[float, float], visit: Visit
) -> tuple[int, np.ndarray]:
    """The first frame of the movement and the poses (n, 4) from then on.

    The path passes the first place between frames `visit.start - 1` and `visit.start`, the second one between
    `visit.end - 1` and `visit.end`.
    """
    points, time = np.arange(path_P4.shape[0]), np.linspace(0, 1, pace.size)
    first_time, last_time = np.interp(np.array(places) / points[-1], pace, time)
    duration = (visit.end - visit.start) / (last_time - first_time)
    begin = visit.start - 0.5 - first_time * duration
    frames = np.arange(max(int(np.ceil(begin)), 0), int(np.floor(begin + duration)) + 1)
    at = np.interp((frames - begin) / duration, time, pace) * points[-1]
    return int(frames[0]), np.column_stack([np.interp(at, points, column) for column in path_P4.T])


def smoothstep(share):
    """0..1 to 0..1 with rest at both ends."""
    return share * share * (3 - 2 * share)
