"""How things move in a synthetic cart video: a schedule is played out, product by product and hand by hand.

The basket is kept true: what is returned or rummaged lies there and is hardly covered, a product takes part in one
event at a time, and what was taken stays until it is returned. The camera's shake and the light are drawn here too.
"""

from dataclasses import dataclass, replace

import numpy as np

from features.synthetic_paths import (
    FLOOR_INSET_PX,
    HELD_GROWTH,
    Arm,
    draw_arm,
    draw_carry_path,
    draw_pace,
    draw_rummage_path,
    first_place_beyond,
    smoothstep,
    time_path,
)
from features.synthetic_scene import (
    FPS,
    HEIGHT_PX,
    HELD_LEVEL,
    MIN_MOVE_PX,
    MIN_VISIBLE_SHARE,
    SHAKE_MARGIN_PX,
    WIDTH_PX,
    Scene,
    Track,
    covers_of,
    event_truth,
    visible_share,
)
from features.synthetic_schedule import LENGTH_BOUNDS, MAX_HANDS, Schedule, Visit, draw_schedule
from features.synthetic_sprites import Pose, Sprite, draw_basket, draw_person, draw_product

_MAX_ATTEMPTS = 100
_MIN_FREE_SHARE = 0.75
_SLIDE_INSET_PX = 24.0


class _NoSceneError(Exception):
    """This schedule has no scene: no product lies free, or something turned out otherwise than aimed at."""


@dataclass(eq=False, slots=True)
class _Product:
    """A product's track, whether it lies in the basket at the end of what was played, and from when on it is free."""

    track: Track
    lies: bool = False
    free_from: int = 0


def draw_scene(seed: int, index: int) -> Scene:
    """Video `index` of the dataset of `seed`: what it shows and its truth, the same on every call."""
    for attempt in range(_MAX_ATTEMPTS):
        rng = np.random.default_rng((seed, index, attempt))
        try:
            return _Director(rng, draw_schedule(rng), f"cart-{index:04d}", (seed, index, attempt, 1)).play()
        except _NoSceneError:
            continue
    raise RuntimeError(f"synthetic video {index} of seed {seed}: {_MAX_ATTEMPTS} schedules gave no scene")


class _Director:
    """Goes through the schedule in the order of time and writes what happens into the scene's tracks."""

    def __init__(self, rng: np.random.Generator, schedule: Schedule, video_id: str, noise_seed: tuple[int, ...]):
        self.rng, self.schedule, self.num_frames = rng, schedule, schedule.num_frames
        basket, floor_rgb = draw_basket(rng, WIDTH_PX, HEIGHT_PX, SHAKE_MARGIN_PX)
        self.person = draw_person(rng)
        self.avoid_rgb = [floor_rgb, self.person.skin_rgb]
        self.scene = Scene(video_id, self.num_frames, basket, [], [], *_draw_camera(rng, schedule), noise_seed)
        self.products: list[_Product] = []
        self.arms: list[tuple[Visit, Arm]] = []
        self.num_laid = 0

    def play(self) -> Scene:
        for _ in range(self.schedule.num_lying):
            product = self._new_product()
            self._lay(product, 0, self._draw_place())
        slides, handled = list(self.schedule.slides), []
        for visit in self.schedule.visits:
            while slides and slides[0][0] < visit.hand_in:
                self._slide(*slides.pop(0))
            if visit.label is None:
                self._pass_by(visit)
            else:
                handled.append((visit, self._handle(visit)))
        for first, stop in slides:
            self._slide(first, stop)
        num_hands = np.sum([np.isfinite(hand.level_F) for hand in self.scene.hands], axis=0)
        events = [
            event_truth(self.scene, number, visit.label, visit.hand_in - 2, visit.hand_out + 2)
            for visit, number in handled
        ]
        lengths = [event.end_frame - event.start_frame for event in events]
        if num_hands.max() > MAX_HANDS or min(lengths) < LENGTH_BOUNDS[0] or max(lengths) > LENGTH_BOUNDS[1]:
            raise _NoSceneError
        self.scene.events.extend(sorted(events, key=lambda event: (event.start_frame, event.end_frame)))
        return self.scene

    # What lies in the basket.

    def _new_product(self) -> _Product:
        product = _Product(Track.absent((draw_product(self.rng, self.avoid_rgb),), self.num_frames))
        self.products.append(product)
        self.scene.products.append(product.track)
        return product

    def _lay(self, product: _Product, frame: int, pose_4: np.ndarray) -> None:
        """Puts the product down on top of the others, from `frame` to the end."""
        self.num_laid += 1
        product.lies = True
        product.track.pose_F4[frame:] = pose_4
        product.track.level_F[frame:] = self.num_laid
        product.track.height_F[frame:] = 0.0

    def _draw_place(self) -> np.ndarray:
        """A lying pose (4,): of several random places on the floor the one farthest from what lies there."""
        lying_xy = [product.track.pose_F4[-1, :2] for product in self.products if product.lies]
        inset, best, best_gap_px = FLOOR_INSET_PX, None, -1.0
        for _ in range(6):
            xy = self.rng.uniform((inset, inset), (WIDTH_PX - inset, HEIGHT_PX - inset))
            gap_px = min((float(np.hypot(*(xy - other))) for other in lying_xy), default=np.inf)
            if gap_px > best_gap_px:
                best, best_gap_px = xy, gap_px
        return np.array([*best, self.rng.uniform(-np.pi, np.pi), 1.0])

    def _choose_product(self, frame: int) -> _Product:
        """A product that lies free and, so that no pile would have to move with it, hardly covered."""
        choice = []
        for product in self.products:
            if product.lies and product.free_from < frame:
                track = product.track
                covers = covers_of(self.scene.products, track, frame)
                if visible_share(track.sprite(frame), track.pose(frame), covers) >= _MIN_FREE_SHARE:
                    choice.append(product)
        if not choice:
            raise _NoSceneError
        return choice[self.rng.integers(len(choice))]

    def _slide(self, first: int, stop: int) -> None:
        """The cart jerks: what lies loose slides in one direction, each product as far as it will. No event."""
        heading, distance_px = self.rng.uniform(0, 2 * np.pi), self.rng.uniform(8, 24)
        share_n = 1 - (1 - np.arange(1, stop - first + 1) / (stop - first)) ** 2
        for product in self.products:
            if not product.lies or product.free_from > first:
                continue
            begin = product.track.pose_F4[first].copy()
            way = distance_px * self.rng.uniform(0.3, 1.0) * np.array([np.cos(heading), np.sin(heading)])
            inset = _SLIDE_INSET_PX
            end_xy = np.clip(begin[:2] + way, (inset, inset), (WIDTH_PX - inset, HEIGHT_PX - inset))
            end = np.array([*end_xy, begin[2] + self.rng.uniform(-0.2, 0.2), begin[3]])
            product.track.pose_F4[first:stop] = begin + share_n[:, None] * (end - begin)
            product.track.pose_F4[stop:] = end

    # What hands do.

    def _handle(self, visit: Visit) -> int:
        """One event: the product moves along a timed path, the hand before, with and after it. Returns its number."""
        if visit.label == "take":
            inside = self._draw_place()
            product = self._new_product()
        else:
            product = self._choose_product(visit.hand_in)
            inside = product.track.pose_F4[visit.hand_in].copy()
        track, sprite = product.track, product.track.sprite(0)
        arm, hand, level = self._reach_in(visit, inside[:2])
        arm = self._loosen(arm, sprite, Pose(*inside))
        if visit.label == "rummage":
            path_P4 = draw_rummage_path(self.rng, inside, visit.end - visit.start)
        else:
            path_P4 = draw_carry_path(self.rng, arm, sprite, inside)
            path_P4 = path_P4[::-1] if visit.label == "take" else path_P4
        places = self._event_places(visit, arm, sprite, path_P4)
        begin, poses_n4 = time_path(path_P4, draw_pace(self.rng, visit), places, visit)
        stop = min(begin + len(poses_n4), self.num_frames)
        poses_n4 = poses_n4[: stop - begin]
        # A product that is only pushed stays under those that lie on it.
        is_pushed = visit.label == "rummage" and self.rng.random() < 0.4
        held_level = track.level_F[begin] if is_pushed else level
        if visit.label == "return":
            product.lies = False
            track.level_F[stop:] = np.nan
        elif is_pushed:
            track.pose_F4[stop:] = path_P4[-1]
        else:
            self._lay(product, stop, path_P4[-1])
        track.pose_F4[begin:stop] = poses_n4
        track.height_F[begin:stop] = (poses_n4[:, 3] - 1) / HELD_GROWTH
        track.level_F[begin:stop] = held_level
        product.free_from = visit.hand_out + 2
        for frame in range(begin, stop):
            _set_hand(hand, frame, arm.grip(sprite, track.pose(frame)), level + 1, grips=True)
        if visit.label != "take":
            self._approach(visit, arm, hand, level + 1, arm.grip(sprite, track.pose(begin)), begin)
        if visit.label != "return":
            self._withdraw(visit, arm, hand, level + 1, arm.grip(sprite, track.pose(stop - 1)), stop)
        return self.products.index(product)

    def _reach_in(self, visit: Visit, target_xy: np.ndarray) -> tuple[Arm, Track, float]:
        """A new arm with the empty track of its hand, and the level for what it holds; the hand's own is one higher."""
        others = [arm for other, arm in self.arms if other.hand_out >= visit.hand_in]
        arm = draw_arm(self.rng, target_xy, others)
        sprites = (self.person.open_hands[arm.side], self.person.gripping_hands[arm.side])
        hand = Track.absent(sprites, self.num_frames)
        self.arms.append((visit, arm))
        self.scene.hands.append(hand)
        return arm, hand, HELD_LEVEL + 2 * len(self.arms)

    def _loosen(self, arm: Arm, sprite: Sprite, lying: Pose) -> Arm:
        """The arm with a grip that leaves enough of the lying product visible."""
        for grip_share in (arm.grip_share, 0.8, 1.1, 1.4):
            looser = replace(arm, grip_share=max(grip_share, arm.grip_share))
            if self._is_visible(looser, sprite, lying):
                return looser
        raise _NoSceneError

    def _is_visible(self, arm: Arm, sprite: Sprite, pose: Pose) -> bool:
        hand = self.person.gripping_hands[arm.side]
        return visible_share(sprite, pose, [(hand, arm.grip(sprite, pose))]) >= MIN_VISIBLE_SHARE

    def _event_places(self, visit: Visit, arm: Arm, sprite: Sprite, path_P4: np.ndarray) -> tuple[float, float]:
        """Where on the path the event starts and ends by the rule of truth, were there no shake and no other hand."""
        last = path_P4.shape[0] - 1
        moved = first_place_beyond(path_P4, MIN_MOVE_PX)
        unsettled = last - first_place_beyond(path_P4[::-1], MIN_MOVE_PX)
        if visit.label == "rummage":
            return moved, unsettled
        inner, outer = (last, 0) if visit.label == "take" else (0, last)
        while abs(inner - outer) > 1:
            middle = (inner + outer) // 2
            visible = self._is_visible(arm, sprite, Pose(*path_P4[middle]))
            inner, outer = (middle, outer) if visible else (inner, middle)
        edge = (inner + outer) / 2
        return (edge, unsettled) if visit.label == "take" else (moved, edge)

    def _approach(self, visit: Visit, arm: Arm, hand: Track, level: float, touch: Pose, begin: int) -> None:
        """The empty hand comes, and lies on the product for a moment before it moves."""
        arrival = max(begin - visit.dwell_in, visit.hand_in + 1)
        for frame in range(visit.hand_in, begin):
            share = min((frame - visit.hand_in) / (arrival - visit.hand_in), 1.0)
            _stretch(hand, frame, arm, touch, 1 - (1 - share) ** 2, level, grips=frame >= arrival)

    def _withdraw(self, visit: Visit, arm: Arm, hand: Track, level: float, touch: Pose, stop: int) -> None:
        """The hand stays for a moment where the product has come to rest, opens and goes."""
        departure = min(stop + visit.dwell_out, visit.hand_out - 4)
        for frame in range(stop, min(visit.hand_out, self.num_frames)):
            share = max(frame - departure, 0) / (visit.hand_out - 1 - departure)
            _stretch(hand, frame, arm, touch, 1 - share**1.6, level, grips=frame < departure)

    def _pass_by(self, visit: Visit) -> None:
        """An empty hand comes in, hovers from one place to another and goes. No event."""
        begin_xy = self.rng.uniform((50, 40), (WIDTH_PX - 50, HEIGHT_PX - 40))
        end_xy = np.clip(begin_xy + self.rng.uniform(-40, 40, 2), (30, 30), (WIDTH_PX - 30, HEIGHT_PX - 30))
        arm, hand, level = self._reach_in(visit, begin_xy)
        for frame in range(visit.hand_in, visit.hand_out):
            coming = min((frame - visit.hand_in) / visit.lead, 1.0)
            going = max((frame - visit.end + 1) / visit.tail, 0.0)
            hover = smoothstep(np.clip((frame - visit.start) / (visit.end - visit.start), 0, 1))
            touch = Pose(*(begin_xy + (end_xy - begin_xy) * hover), 0.0, 1.0)
            share = 1 - (1 - coming) ** 2 if coming < 1 else 1 - going**1.6
            _stretch(hand, frame, arm, touch, share, level + 1, grips=False)


def _stretch(hand: Track, frame: int, arm: Arm, touch: Pose, share: float, level: float, grips: bool) -> None:
    """The hand at `share` of the way from outside to `touch`."""
    xy = arm.withdrawn_xy + (np.array(touch[:2]) - arm.withdrawn_xy) * share
    _set_hand(hand, frame, Pose(float(xy[0]), float(xy[1]), arm.angle_at(xy), 1.0), level, grips)


def _set_hand(hand: Track, frame: int, pose: Pose, level: float, grips: bool) -> None:
    hand.pose_F4[frame], hand.level_F[frame] = pose, level
    hand.height_F[frame], hand.sprite_index_F[frame] = 0.6, int(grips)


def _draw_camera(rng: np.random.Generator, schedule: Schedule) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shake (F, 2) px with a jolt at each jerk of the cart, colour gain (F, 3), brightness tilt (F, 2)."""
    time_s = np.arange(schedule.num_frames) / FPS

    def wander(shortest_s: float, longest_s: float, size: float) -> np.ndarray:
        waves = [
            rng.uniform(0.4, 1.0) * np.sin(2 * np.pi * (time_s / rng.uniform(shortest_s, longest_s) + rng.random()))
            for _ in range(3)
        ]
        return size * np.mean(waves, axis=0)

    shake_F2 = np.stack([wander(1.5, 6, 3.0), wander(1.5, 6, 2.2)], axis=1)
    for first, _ in schedule.slides:
        since_s = np.maximum(time_s - first / FPS, 0)
        jolt_px = rng.uniform(3, 6) * np.exp(-since_s / 0.22) * np.sin(2 * np.pi * since_s * rng.uniform(2.0, 3.5))
        heading = rng.uniform(0, 2 * np.pi)
        shake_F2 += jolt_px[:, None] * np.array([np.cos(heading), np.sin(heading)])
    limit_px = SHAKE_MARGIN_PX - 1
    tint_F3 = np.stack([1 + wander(5, 15, 0.05) for _ in range(3)], axis=1)
    gain_F3 = (1 + wander(4, 12, 0.22))[:, None] * tint_F3
    tilt_F2 = np.stack([wander(4, 12, 0.18), wander(4, 12, 0.14)], axis=1)
    return np.clip(shake_F2, -limit_px, limit_px), gain_F3, tilt_F2
