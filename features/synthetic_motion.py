"""How things move in a synthetic cart video: a schedule becomes a scene, and the scene's truth is read off it.

Truth follows one rule for all labels. An event starts on the first frame on which at least 20% of the product is
visible (`take`, which comes in over an edge of the frame) or on which it has moved 2 px from rest (`return`, `rummage`);
it ends, half-open, by the mirrored rule. Movement is measured in the basket, so the camera's shake moves nothing.
Paths are timed so that this interval is the one that the schedule aims at, up to a frame of occlusion and shake.
"""

from dataclasses import dataclass

import numpy as np

from features.synthetic_scene import (
    FPS, HEIGHT_PX, HELD_LEVEL, SHAKE_MARGIN_PX, WIDTH_PX, Scene, SceneEvent, Track, look_at, visible_share,
)
from features.synthetic_schedule import Schedule, Visit, draw_schedule
from features.synthetic_sprites import FINGERTIP_PX, Person, Pose, draw_basket, draw_person, draw_product

MIN_VISIBLE_SHARE = 0.2
MIN_MOVE_PX = 2.0

_NUM_PATH_POINTS = 129
_FLOOR_INSET_PX = 34.0
_EDGES = ("top", "left", "right", "bottom")
_EDGE_SHARES = (0.34, 0.24, 0.24, 0.18)
_HELD_GROWTH = 0.14


class _NoRoomError(Exception):
    """No product or place fits the schedule; the next attempt draws another one."""


@dataclass(slots=True)
class _Product:
    track: Track
    free_from: int
    lies: bool = True


@dataclass(frozen=True, slots=True)
class _Arm:
    """Where an arm comes from: a point on the frame's edge, the inward direction there, and the elbow outside."""

    edge_xy: np.ndarray
    elbow_xy: np.ndarray
    side: int
    grip_share: float


def draw_scene(seed: int, index: int) -> Scene:
    """Video `index` of the data set of `seed`: what it shows and its truth, the same on every call."""
    for attempt in range(100):
        rng = np.random.default_rng((seed, index, attempt))
        try:
            return _Director(rng, draw_schedule(rng), f"cart-{index:04d}", (seed, index, attempt, 1)).scene()
        except _NoRoomError:
            continue
    raise RuntimeError(f"synthetic video {index} of seed {seed}: no scene found in 100 attempts; use another seed")


class _Director:
    """Goes through the schedule in order and writes what happens into the tracks."""

    def __init__(self, rng: np.random.Generator, schedule: Schedule, video_id: str, noise_seed: tuple[int, ...]):
        self.rng, self.schedule, self.num_frames = rng, schedule, schedule.num_frames
        basket, floor_rgb = draw_basket(rng, WIDTH_PX, HEIGHT_PX, SHAKE_MARGIN_PX)
        self.person: Person = draw_person(rng)
        self.avoid_rgb = [floor_rgb, self.person.skin_rgb]
        shake_F2, gain_F3, tilt_F2 = self._draw_camera()
        self._scene = Scene(video_id, self.num_frames, basket, [], [], shake_F2, gain_F3, tilt_F2, noise_seed)
        self.products: list[_Product] = []
        self.arms: list[tuple[Visit, _Arm]] = []
        self.handled: list[tuple[Visit, Track]] = []
        self.num_rested = 0

    def scene(self) -> Scene:
        for _ in range(self.schedule.num_lying):
            product = self._new_product()
            x_px, y_px = self._free_place(product, 0)
            self._rest(product, 0, Pose(x_px, y_px, self.rng.uniform(-np.pi, np.pi), 1.0))
        slides = list(self.schedule.slides)
        for visit in self.schedule.visits:
            while slides and slides[0][0] < visit.hand_in:
                self._slide(*slides.pop(0))
            self._play(visit)
        for first, stop in slides:
            self._slide(first, stop)
        self._scene.events.extend(
            sorted((self._truth(visit, track) for visit, track in self.handled), key=lambda e: (e.start_frame, e.end_frame))
        )
        return self._scene

    # What lies in the basket.

    def _new_product(self) -> _Product:
        product = _Product(Track.absent((draw_product(self.rng, self.avoid_rgb),), self.num_frames), 0)
        self.products.append(product)
        self._scene.products.append(product.track)
        return product

    def _rest(self, product: _Product, frame: int, pose: Pose) -> None:
        """Lays the product down on top from `frame` on."""
        self.num_rested += 1
        product.track.pose_F4[frame:] = pose
        product.track.level_F[frame:] = self.num_rested
        product.track.height_F[frame:] = 0.0

    def _free_place(self, product: _Product, frame: int) -> tuple[float, float]:
        """Of several random places on the floor, one where few other products lie."""
        others = [p.track.pose_F4[frame, :2] for p in self.products if p is not product and p.lies]
        best, best_gap = (0.0, 0.0), -1.0
        for _ in range(6):
            place = (
                self.rng.uniform(_FLOOR_INSET_PX, WIDTH_PX - _FLOOR_INSET_PX),
                self.rng.uniform(_FLOOR_INSET_PX, HEIGHT_PX - _FLOOR_INSET_PX),
            )
            gap = min((float(np.hypot(*(np.subtract(place, other)))) for other in others), default=np.inf)
            if gap > best_gap:
                best, best_gap = place, gap
        return best

    def _slide(self, first: int, stop: int) -> None:
        """The cart jerks: what lies loose slides some way along one direction, each product as far as it will."""
        heading = self.rng.uniform(0, 2 * np.pi)
        distance_px = self.rng.uniform(8, 24)
        share = 1 - (1 - np.arange(1, stop - first + 1) / (stop - first)) ** 2
        for product in self.products:
            loose = product.lies and product.free_from <= first
            travel_px = distance_px * self.rng.uniform(0.3, 1.0)
            turn = self.rng.uniform(-0.2, 0.2)
            if not loose:
                continue
            start = product.track.pose_F4[first].copy()
            end = start.copy()
            end[0] = np.clip(start[0] + travel_px * np.cos(heading), _FLOOR_INSET_PX * 0.7, WIDTH_PX - _FLOOR_INSET_PX * 0.7)
            end[1] = np.clip(start[1] + travel_px * np.sin(heading), _FLOOR_INSET_PX * 0.7, HEIGHT_PX - _FLOOR_INSET_PX * 0.7)
            end[2] = start[2] + turn
            product.track.pose_F4[first:stop] = start + share[:, None] * (end - start)
            product.track.pose_F4[stop:] = end

    # What hands do.

    def _play(self, visit: Visit) -> None:
        arm = self._draw_arm(visit)
        hand = Track.absent((self.person.open_hands[arm.side], self.person.gripping_hands[arm.side]), self.num_frames)
        level = HELD_LEVEL + 2 * len(self._scene.hands)
        self._scene.hands.append(hand)
        if visit.label is None:
            self._play_empty(visit, arm, hand, level)
            return
        product = self._new_product() if visit.label == "take" else self._choose_product(visit)
        track = product.track
        slides_under = visit.label == "rummage" and self.rng.random() < 0.4
        rest_level = track.level_F[visit.hand_in]
        path_P4 = self._draw_path(visit, arm, product)
        first_point, last_point = self._event_points(visit, arm, track, path_P4)
        frames, points = _timed(visit, _pace(self.rng, visit), first_point, last_point, path_P4.shape[0])
        frames, points = frames[frames < self.num_frames], points[frames < self.num_frames]
        poses_n4 = np.stack([np.interp(points, np.arange(path_P4.shape[0]), column) for column in path_P4.T], axis=1)
        height_n = (poses_n4[:, 3] - 1) / _HELD_GROWTH
        begin, stop = int(frames[0]), int(frames[-1]) + 1
        if visit.label == "take":
            self._rest(product, stop, Pose(*path_P4[-1]))
        elif visit.label == "return":
            track.level_F[stop:] = np.nan
            product.lies = False
        elif slides_under:
            track.pose_F4[stop:] = path_P4[-1]
        else:
            self._rest(product, stop, Pose(*path_P4[-1]))
        track.pose_F4[begin:stop] = poses_n4
        track.height_F[begin:stop] = height_n
        track.level_F[begin:stop] = rest_level if slides_under else level
        product.free_from = visit.hand_out + 2
        self._play_hand(visit, arm, hand, level + 1, track, begin, stop)
        self.handled.append((visit, track))

    def _draw_arm(self, visit: Visit) -> _Arm:
        """From a random edge, away from the arms that are in the basket at the same time."""
        others = [arm.edge_xy for other, arm in self.arms if other.hand_out >= visit.hand_in]
        best, best_gap = None, -1.0
        for _ in range(8):
            edge = _EDGES[self.rng.choice(len(_EDGES), p=_EDGE_SHARES)]
            along = self.rng.uniform(0.15, 0.85)
            lean = self.rng.uniform(-0.5, 0.5)
            edge_xy, inward = {
                "top": (np.array([along * WIDTH_PX, 0.0]), np.array([lean, 1.0])),
                "bottom": (np.array([along * WIDTH_PX, HEIGHT_PX]), np.array([lean, -1.0])),
                "left": (np.array([0.0, along * HEIGHT_PX]), np.array([1.0, lean])),
                "right": (np.array([WIDTH_PX, along * HEIGHT_PX]), np.array([-1.0, lean])),
            }[edge]
            gap = min((float(np.hypot(*(edge_xy - other))) for other in others), default=np.inf)
            if gap > best_gap:
                elbow_xy = edge_xy - inward / np.hypot(*inward) * 170.0
                best, best_gap = (edge_xy, elbow_xy), gap
            if gap > 130:
                break
        arm = _Arm(*best, int(self.rng.integers(2)), self.rng.uniform(0.35, 1.0))
        self.arms.append((visit, arm))
        return arm

    def _choose_product(self, visit: Visit) -> _Product:
        """A product that lies free and, so that no pile has to move with it, hardly covered."""
        frame = visit.hand_in
        free = [product for product in self.products if product.lies and product.free_from < frame]
        shares = []
        for product in free:
            covers = [
                (p.track.sprite(frame), p.track.pose(frame)) for p in self.products
                if p.track.level_F[frame] > product.track.level_F[frame]
            ]
            shares.append(visible_share(product.track.sprite(frame), product.track.pose(frame), covers))
        choice = [product for product, share in zip(free, shares) if share > 0.75]
        if not choice:
            raise _NoRoomError
        return choice[self.rng.integers(len(choice))]

    def _draw_path(self, visit: Visit, arm: _Arm, product: _Product) -> np.ndarray:
        """Poses (P, 4) of the product from before to after its movement, evenly along the path's parameter."""
        rng, u = self.rng, np.linspace(0, 1, _NUM_PATH_POINTS)
        track = product.track
        if visit.label == "rummage":
            start = track.pose_F4[visit.hand_in].copy()
            return _rummage_path(rng, start, u, visit.end - visit.start)
        if visit.label == "take":
            inside = np.array([*self._free_place(product, visit.hand_in), rng.uniform(-np.pi, np.pi), 1.0])
        else:
            inside = track.pose_F4[visit.hand_in].copy()
        sprite = track.sprite(0)
        outward = arm.elbow_xy - arm.edge_xy
        outside = arm.edge_xy + outward / np.hypot(*outward) * 1.3 * np.hypot(sprite.right_px, sprite.bottom_px)
        middle = (outside + inside[:2]) / 2
        bend = rng.uniform(-0.22, 0.22) * np.array([-(outside - inside[:2])[1], (outside - inside[:2])[0]])
        v = u[:, None]
        xy = (1 - v) ** 2 * inside[:2] + 2 * v * (1 - v) * (middle + bend) + v**2 * outside
        away_px = np.hypot(*(xy - inside[:2]).T)
        lift = np.clip(away_px / 45, 0, 1)
        angle = inside[2] + rng.uniform(-0.8, 0.8) * u
        path = np.column_stack([xy, angle, 1 + _HELD_GROWTH * lift])
        return path[::-1] if visit.label == "take" else path

    def _event_points(self, visit: Visit, arm: _Arm, track: Track, path_P4) -> tuple[float, float]:
        """Places on the path (in points) where the event's first frame begins and its last one ends, without shake."""
        sprite = track.sprite(0)
        from_start_px = np.hypot(*(path_P4[:, :2] - path_P4[0, :2]).T)
        from_end_px = np.hypot(*(path_P4[:, :2] - path_P4[-1, :2]).T)
        moved, unsettled = np.flatnonzero(from_start_px >= MIN_MOVE_PX), np.flatnonzero(from_end_px >= MIN_MOVE_PX)

        def is_visible(point: int) -> bool:
            pose = Pose(*path_P4[point])
            hand = self.person.gripping_hands[arm.side]
            return visible_share(sprite, pose, [(hand, _grip_pose(sprite, pose, arm))]) >= MIN_VISIBLE_SHARE

        if visit.label == "rummage":
            return float(moved[0]), float(unsettled[-1])
        inner, outer = (path_P4.shape[0] - 1, 0) if visit.label == "take" else (0, path_P4.shape[0] - 1)
        if not is_visible(inner):
            raise _NoRoomError
        while abs(inner - outer) > 1:
            middle = (inner + outer) // 2
            inner, outer = (middle, outer) if is_visible(middle) else (inner, middle)
        return (float(inner), float(unsettled[-1])) if visit.label == "take" else (float(moved[0]), float(inner))

    def _play_hand(self, visit: Visit, arm: _Arm, hand: Track, level: float, track: Track, begin: int, stop: int) -> None:
        """The hand comes (unless it brings the product), holds the product while it moves, and goes (unless it takes it along)."""
        sprite = track.sprite(0)
        for frame in range(begin, stop):
            self._set_hand(hand, frame, _grip_pose(sprite, track.pose(frame), arm), level, grips=True)
        outside_xy = _outside_palm(arm)
        if visit.label != "take":
            touch = _grip_pose(sprite, track.pose(begin), arm)
            arrive = begin - visit.dwell_in
            for frame in range(max(visit.hand_in, 0), begin):
                share = min((frame - visit.hand_in) / max(arrive - visit.hand_in, 1), 1.0)
                self._reach(hand, frame, arm, outside_xy, touch, 1 - (1 - share) ** 2, level, grips=frame >= arrive)
        if visit.label != "return":
            touch = _grip_pose(sprite, track.pose(stop - 1), arm)
            leave = stop + visit.dwell_out
            for frame in range(stop, min(max(visit.hand_out, leave + 6), self.num_frames)):
                share = np.clip((frame - leave) / max(visit.hand_out - 1 - leave, 5), 0.0, 1.0)
                self._reach(hand, frame, arm, outside_xy, touch, 1 - share**1.6, level, grips=frame < leave)

    def _play_empty(self, visit: Visit, arm: _Arm, hand: Track, level: float) -> None:
        """An empty hand comes in, hovers from one place to another and goes."""
        outside_xy = _outside_palm(arm)
        begin_xy = np.array(self.rng.uniform((50, 40), (WIDTH_PX - 50, HEIGHT_PX - 40)))
        end_xy = np.clip(begin_xy + self.rng.uniform(-40, 40, 2), (30, 30), (WIDTH_PX - 30, HEIGHT_PX - 30))
        for frame in range(max(visit.hand_in, 0), min(visit.hand_out, self.num_frames)):
            hover = np.clip((frame - visit.start) / max(visit.end - visit.start, 1), 0, 1)
            hover_xy = begin_xy + (end_xy - begin_xy) * _smoothstep(hover)
            if frame < visit.start:
                share = 1 - (1 - (frame - visit.hand_in) / visit.lead) ** 2
            else:
                share = 1 - np.clip((frame - visit.end + 1) / visit.tail, 0, 1) ** 1.6
            touch = Pose(*hover_xy, 0.0, 1.0)
            self._reach(hand, frame, arm, outside_xy, touch, share, level, grips=False)

    def _reach(self, hand, frame, arm, outside_xy, touch: Pose, share: float, level: float, grips: bool) -> None:
        xy = outside_xy + (np.array(touch[:2]) - outside_xy) * share
        angle = float(np.arctan2(*(xy - arm.elbow_xy)[::-1]))
        self._set_hand(hand, frame, Pose(*xy, angle, 1.0), level, grips)

    def _set_hand(self, hand: Track, frame: int, pose: Pose, level: float, grips: bool) -> None:
        hand.pose_F4[frame], hand.level_F[frame] = pose, level
        hand.height_F[frame], hand.sprite_index_F[frame] = 0.6, int(grips)

    # Camera and truth.

    def _draw_camera(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shake (F, 2) px with a jolt at each jerk of the cart, colour gain (F, 3), brightness tilt (F, 2)."""
        rng, time_s = self.rng, np.arange(self.num_frames) / FPS

        def wander(period_s: tuple[float, float], size: float, num_waves: int = 3) -> np.ndarray:
            waves = [
                np.sin(2 * np.pi * (time_s / rng.uniform(*period_s) + rng.random())) * rng.uniform(0.4, 1.0)
                for _ in range(num_waves)
            ]
            return size * np.sum(waves, axis=0) / num_waves

        shake_F2 = np.stack([wander((1.5, 6), 3.0), wander((1.5, 6), 2.2)], axis=1)
        for first, _ in self.schedule.slides:
            since_s = np.maximum(time_s - first / FPS, 0)
            jolt = np.exp(-since_s / 0.22) * np.sin(2 * np.pi * since_s * rng.uniform(2.0, 3.5))
            heading = rng.uniform(0, 2 * np.pi)
            shake_F2 += rng.uniform(3, 6) * jolt[:, None] * np.array([np.cos(heading), np.sin(heading)])
        shake_F2 = np.clip(shake_F2, 1 - SHAKE_MARGIN_PX, SHAKE_MARGIN_PX - 1)
        gain_F3 = (1 + wander((4, 12), 0.22))[:, None] * np.stack([1 + wander((5, 15), 0.05) for _ in range(3)], axis=1)
        tilt_F2 = np.stack([wander((4, 12), 0.18), wander((4, 12), 0.14)], axis=1)
        return shake_F2, gain_F3, tilt_F2

    def _truth(self, visit: Visit, track: Track) -> SceneEvent:
        """Start, end and boxes by the rule at the head of this module, from what is really on the frames."""
        first, stop = max(visit.hand_in - 2, 0), min(visit.hand_out + 2, self.num_frames)
        views = {frame: look_at(self._scene, track, frame) for frame in range(first, stop) if track.is_present(frame)}
        visible = [frame for frame, (share, _) in views.items() if share >= MIN_VISIBLE_SHARE]
        frames = sorted(views)
        away_from_start = [f for f in frames if np.hypot(*(track.pose_F4[f, :2] - track.pose_F4[frames[0], :2])) >= MIN_MOVE_PX]
        away_from_end = [f for f in frames if np.hypot(*(track.pose_F4[f, :2] - track.pose_F4[frames[-1], :2])) >= MIN_MOVE_PX]
        start = visible[0] if visit.label == "take" else away_from_start[0]
        end = 1 + (visible[-1] if visit.label == "return" else away_from_end[-1])
        boxes = {frame: views[frame][1] for frame in range(start, end) if views[frame][1] is not None}
        return SceneEvent(visit.label, start, end, boxes)


def _smoothstep(share):
    return share * share * (3 - 2 * share)


def _rummage_path(rng, start, u, length) -> np.ndarray:
    """From where it lies to a place near by, with swings to the side that grow in number with the length."""
    while True:
        heading, distance_px = rng.uniform(0, 2 * np.pi), rng.uniform(8, 60)
        end_xy = start[:2] + distance_px * np.array([np.cos(heading), np.sin(heading)])
        if _FLOOR_INSET_PX < end_xy[0] < WIDTH_PX - _FLOOR_INSET_PX and _FLOOR_INSET_PX < end_xy[1] < HEIGHT_PX - _FLOOR_INSET_PX:
            break
    sideways = np.array([-np.sin(heading), np.cos(heading)])
    num_swings = max(1, round(length / 14))
    swing_px = rng.uniform(6, 20) * np.sin(np.pi * u) ** 0.5 * np.sin(np.pi * num_swings * u)
    xy = start[:2] + u[:, None] * (end_xy - start[:2]) + swing_px[:, None] * sideways
    angle = start[2] + rng.uniform(-0.7, 0.7) * u
    return np.column_stack([xy, angle, 1 + 0.35 * _HELD_GROWTH * np.sin(np.pi * u)])


def _pace(rng, visit: Visit) -> np.ndarray:
    """Progress 0..1 along the path at evenly spaced times: slow where the product rests, with a pause in long events."""
    time = np.linspace(0, 1, 513)
    power = rng.uniform(1.6, 2.4)
    length = visit.end - visit.start
    if length > 26 and rng.random() < 0.8:
        # The pause slows the hand down to an eighth of its pace, around the middle of the way.
        begin, width = rng.uniform(0.3, 0.45), rng.uniform(0.2, 0.4)
        speed = np.where((time > begin) & (time < begin + width), 0.12, 1.0)
        time = np.concatenate([[0], np.cumsum((speed[1:] + speed[:-1]) / 2)])
        time = time / time[-1]
    if visit.label == "take":
        return 1 - (1 - time) ** power
    if visit.label == "return":
        return time**power
    return 0.5 * time + 0.5 * _smoothstep(time)


def _timed(visit: Visit, pace: np.ndarray, first_point: float, last_point: float, num_points: int):
    """Frames and path points so that the path passes `first_point` just before frame `start` and `last_point` after `end - 1`."""
    time = np.linspace(0, 1, pace.size)
    first_time, last_time = np.interp([first_point / (num_points - 1), last_point / (num_points - 1)], pace, time)
    duration = (visit.end - visit.start) / (last_time - first_time)
    begin = visit.start - 0.5 - first_time * duration
    frames = np.arange(max(int(np.ceil(begin)), 0), int(np.floor(begin + duration)) + 1)
    return frames, np.interp((frames - begin) / duration, time, pace) * (num_points - 1)


def _grip_pose(sprite, pose: Pose, arm: _Arm) -> Pose:
    """The hand that holds the product at `pose`: fingers over the side from which the arm comes."""
    towards = np.array(pose[:2]) - arm.elbow_xy
    angle = float(np.arctan2(towards[1], towards[0]))
    reach_px = 6 + arm.grip_share * sprite.reach_px(angle - pose.angle) * pose.scale
    x_px, y_px = np.array(pose[:2]) - reach_px * towards / np.hypot(*towards)
    return Pose(float(x_px), float(y_px), angle, 1.0)


def _outside_palm(arm: _Arm) -> np.ndarray:
    """A palm position from which no finger reaches into the frame."""
    outward = arm.elbow_xy - arm.edge_xy
    return arm.edge_xy + outward / np.hypot(*outward) * 1.4 * FINGERTIP_PX
