"""When things happen in a synthetic cart video: events, empty hands, jerks of the cart. Numbers only, no picture.

A person has two hands, so at most two reach in at any time. Events come one after another or in pairs that overlap in
time, often of the same label. Every later choice (which product, from which side) fits into these times.
"""

from dataclasses import dataclass

import numpy as np

LABELS = ("take", "return", "rummage")
NUM_FRAMES = (200, 400)
NUM_EVENTS = (6, 12)
MEDIAN_LENGTH, LENGTH_SIGMA, LENGTH_BOUNDS = 16.0, 0.55, (8, 90)
NUM_LYING_AT_START = (4, 6)
MAX_LYING = 8
MIN_PAIRED_SHARE = 0.25
SAME_LABEL_SHARE = 0.4
SLIDE_FRAMES = (8, 14)
MAX_HANDS = 2


@dataclass(slots=True)
class Visit:
    """One reach of a hand into the basket: in at frame `hand_in`, out again before `hand_out`.

    `label` is the event's, with the aimed-at interval `[start, end)`; or None for an empty hand, which causes no event.
    The product starts to move `dwell_in` frames after the hand has reached it and stays `dwell_out` in the open hand.
    """

    label: str | None
    start: int
    end: int
    lead: int
    tail: int
    dwell_in: int
    dwell_out: int

    @property
    def hand_in(self) -> int:
        return self.start - self.lead

    @property
    def hand_out(self) -> int:
        return self.end + self.tail


@dataclass(frozen=True, slots=True)
class Schedule:
    """`visits` by `hand_in`; `slides` are (first, stop) frames in which a jerk of the cart moves what lies loose."""

    num_frames: int
    num_lying: int
    visits: list[Visit]
    slides: list[tuple[int, int]]


def draw_schedule(rng: np.random.Generator) -> Schedule:
    """A random schedule: 6 to 12 events in 200 to 400 frames, a quarter or more of them in overlapping pairs."""
    while True:
        num_lying = int(rng.integers(NUM_LYING_AT_START[0], NUM_LYING_AT_START[1] + 1))
        groups = _place(_draw_groups(rng, num_lying))
        while groups and groups[-1][-1].hand_out > NUM_FRAMES[1]:
            groups.pop()
        num_needed = max((visit.hand_out for group in groups for visit in group), default=0)
        events = [visit for group in groups for visit in group]
        num_paired = sum(len(group) for group in groups if len(group) > 1)
        is_dense = len(events) >= NUM_EVENTS[0] and num_paired >= MIN_PAIRED_SHARE * len(events)
        if is_dense and num_needed <= NUM_FRAMES[1]:
            break
    num_frames = int(rng.integers(max(NUM_FRAMES[0], num_needed), NUM_FRAMES[1] + 1))
    pauses = np.floor(rng.dirichlet(np.ones(len(groups) + 1))[:-1] * (num_frames - num_needed)).astype(int)
    for group, shift in zip(groups, np.cumsum(pauses)):
        for visit in group:
            visit.start += int(shift)
            visit.end += int(shift)
    visits = sorted(events + _draw_empty_hands(rng, events, num_frames), key=lambda visit: visit.hand_in)
    return Schedule(num_frames, num_lying, visits, _draw_slides(rng, visits, num_frames))


def _draw_groups(rng, num_lying) -> list[list[Visit]]:
    """Events in order, alone or in overlapping pairs, each group starting at frame 0."""
    num_events = int(rng.integers(NUM_EVENTS[0], NUM_EVENTS[1] + 1))
    num_pairs = -(-num_events // 8) + int(rng.integers(2))
    sizes = rng.permutation([2] * num_pairs + [1] * (num_events - 2 * num_pairs))
    groups = []
    for size in sizes:
        same = rng.random() < SAME_LABEL_SHARE
        group = []
        for position in range(size):
            label = group[0].label if same and position else _draw_label(rng, num_lying, group)
            group.append(_draw_event(rng, label))
        if size == 2:
            first, second = group
            first_length, second_length = first.end - first.start, second.end - second.start
            overlap = max(2, round(rng.uniform(0.25, 1.0) * min(first_length, second_length)))
            second.start += first.end - overlap
            second.end += first.end - overlap
        num_lying += sum({"take": 1, "return": -1, "rummage": 0}[visit.label] for visit in group)
        groups.append(group)
    return groups


def _draw_label(rng, num_lying, group) -> str:
    # A pair may need two products that lie free, and a third one shows that not everything is touched.
    if num_lying - len(group) < 3:
        return "take"
    if num_lying >= MAX_LYING:
        return str(rng.choice(("return", "rummage")))
    return str(rng.choice(LABELS, p=(0.34, 0.33, 0.33)))


def _draw_event(rng, label: str) -> Visit:
    length = int(np.clip(round(MEDIAN_LENGTH * np.exp(LENGTH_SIGMA * rng.standard_normal())), *LENGTH_BOUNDS))
    dwell_in, dwell_out = int(rng.integers(2, 5)), int(rng.integers(1, 4))
    carried_outside = 4 + round(0.16 * length)
    lead = carried_outside if label == "take" else int(rng.integers(7, 13)) + dwell_in
    tail = carried_outside if label == "return" else int(rng.integers(7, 13)) + dwell_out
    return Visit(label, 0, length, lead, tail, dwell_in, dwell_out)


def _place(groups: list[list[Visit]]) -> list[list[Visit]]:
    """Shifts each group to the first frame at which its events overlap no earlier group's and two hands suffice."""
    spans, last_end = [], 0
    for group in groups:
        shift = max(visit.lead - visit.start for visit in group)
        if spans:
            shift = max(shift, last_end + 3 - min(visit.start for visit in group))
        while _max_hands(spans + _spans(group, shift)) > MAX_HANDS:
            shift += 1
        for visit in group:
            visit.start += shift
            visit.end += shift
        spans += _spans(group)
        last_end = max(visit.end for visit in group)
    return groups


def _spans(visits: list[Visit], shift: int = 0) -> list[tuple[int, int]]:
    return [(visit.hand_in + shift, visit.hand_out + shift) for visit in visits]


def _max_hands(spans: list[tuple[int, int]]) -> int:
    """The largest number of half-open spans that share a frame."""
    return max(sum(first <= moment < stop for first, stop in spans) for moment, _ in spans)


def _draw_empty_hands(rng, events, num_frames) -> list[Visit]:
    """One to three hands that come in, hover and leave, wherever a hand is free."""
    empty: list[Visit] = []
    for _ in range(int(rng.integers(1, 4))):
        for _ in range(40):
            lead, hover, tail = int(rng.integers(7, 13)), int(rng.integers(3, 25)), int(rng.integers(7, 13))
            if lead + hover + tail >= num_frames:
                continue
            start = int(rng.integers(lead, num_frames - hover - tail))
            visit = Visit(None, start, start + hover, lead, tail, 0, 0)
            if _max_hands(_spans([*events, *empty, visit])) <= MAX_HANDS:
                empty.append(visit)
                break
    return empty


def _draw_slides(rng, visits, num_frames) -> list[tuple[int, int]]:
    """One or two jerks, none of them while a hand comes in: it must know where the product lies that it reaches for."""
    slides: list[tuple[int, int]] = []
    num_wanted = int(rng.integers(1, 3))
    for _ in range(60):
        first = int(rng.integers(5, num_frames - 30))
        stop = first + int(rng.integers(SLIDE_FRAMES[0], SLIDE_FRAMES[1] + 1))
        apart = all(stop + 40 < other or end + 40 < first for other, end in slides)
        if apart and not any(first - 1 <= visit.hand_in <= stop for visit in visits):
            slides.append((first, stop))
        if len(slides) == num_wanted:
            break
    return sorted(slides)
