"""One list of answers for a whole video out of the answers of its overlapping windows.

Two answers of overlapping windows are the same event when their labels are equal and they agree in the frames that **both**
windows see: temporal IoU there times box agreement reaches `link_agreement`. So an answer that one window cuts off meets the
whole one of its neighbour, and an event longer than a window is a chain of answers, each cut where the next goes on. An answer
links to at most one of another window; the most confident pairs link first.

    window 1   |-----------[====|          cut at the edge: loses against window 2
    window 2            |--[=======]------------|
    joined     ------------[=======]-------------

A chain becomes one answer. Its start is the mean of its members' starts, weighted by their scores and by how far inside its
window each lies (an edge of the video is no edge); likewise its end and each box. Its score is the mean over all windows that see
the interval, weighted by how whole and how central they see it; a window that sees it well and does not report it counts zero.
What remains is thinned by soft-NMS per label, where two answers are alike as far as time **and** boxes agree.

Shapes: W windows, M members of a chain, N joined answers, K steps with a box.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from heads.parts.contract import Candidates
from heads.training.answers import WindowAnswers
from heads.training.streams import VideoExtent
from heads.training.targets import Answer
from heads.training.tubes import Tubes, box_agreement
from heads.training.windows import Window
from vjepa_loc.overlap import span_iou
from vjepa_loc.settings import Settings
from vjepa_loc.suppress import soft_nms

BLIND = 1 / 16
"""So near to its window's edge (a part of the window's length) a position is taken for the edge itself and does not count."""

SURE = 1 / 4
"""So far inside, it counts in full: the head sees enough before and after it. Linear between the two."""

LEAST_WEIGHT = 1e-6
"""What no window sees from further inside still has a mean."""


class JoinConfig(Settings):
    """How a run slides over a video and joins what it finds."""

    hop: float = Field(0.5, gt=0, le=1, description="step between windows, as a part of the window")
    min_score: float = Field(1e-3, gt=0, lt=1, description="answers below this are dropped")
    max_answers_per_window: int = Field(100, ge=1, description="answers kept of a window, and events per window length")
    link_agreement: float = Field(0.4, gt=0, le=1, description="agreement from which answers of two windows are one")
    nms_sigma: float = Field(0.5, gt=0, description="width of the Gaussian soft-NMS")

    def hop_frames(self, window_frames: int) -> int:
        return max(1, round(self.hop * window_frames))


class VideoJoiner:
    """Takes the windows of one video in their order, and gives its answers at the end; keeps nothing but answers."""

    def __init__(self, extent: VideoExtent, labels: Sequence[str], config: JoinConfig):
        self.extent, self.labels, self.config = extent, labels, config
        self._found: list[WindowAnswers] = []
        self._chain_of: list[np.ndarray] = []
        self._chains: list[list[tuple[int, int]]] = []

    def add(self, window: Window, candidates: Candidates) -> None:
        """The next window; `candidates` as the head decoded them."""
        config = self.config
        new = WindowAnswers.of(candidates, window, self.extent, config.min_score, config.max_answers_per_window)
        here, chain_Q = len(self._found), np.full(len(new), -1)
        for earlier in range(here - 1, -1, -1):
            if self._found[earlier].window.end_frame <= window.start_frame:
                break
            for i, j in match_answers(self._found[earlier], new, config.link_agreement):
                chain = self._chain_of[earlier][i]
                # Only the end of a chain can go on, and only with an answer that no nearer window has claimed.
                if chain_Q[j] < 0 and self._chains[chain][-1] == (earlier, i):
                    chain_Q[j] = chain
                    self._chains[chain].append((here, j))
        for j in np.flatnonzero(chain_Q < 0):
            chain_Q[j] = len(self._chains)
            self._chains.append([(here, int(j))])
        self._found.append(new)
        self._chain_of.append(chain_Q)

    def answers(self) -> list[Answer]:
        """The answers of the video by descending score."""
        windows_W2 = np.array([(found.window.start_frame, found.window.end_frame) for found in self._found])
        joined = [self._join(chain, windows_W2) for chain in self._chains]
        spans_N2 = np.array([(answer.start_frame, answer.end_frame) for answer in joined]).reshape(-1, 2)
        tubes = Tubes.of([answer.first_step for answer in joined], [answer.boxes_norm_K4 for answer in joined])

        def alike(index: int, others_M: np.ndarray) -> np.ndarray:
            similarity_M = span_iou(spans_N2[index : index + 1], spans_N2[others_M])[0]
            near = np.flatnonzero(similarity_M)
            similarity_M[near] *= box_agreement(tubes, np.full(len(near), index), tubes, others_M[near])
            return similarity_M

        window_lengths = -(-self.extent.num_frames // (windows_W2[0, 1] - windows_W2[0, 0])) if len(windows_W2) else 0
        kept, scores = soft_nms(
            spans_N2,
            np.array([answer.score for answer in joined]),
            np.array([answer.label for answer in joined]),
            self.config.nms_sigma,
            self.config.min_score,
            int(self.config.max_answers_per_window * window_lengths),
            alike,
        )
        return [dataclasses.replace(joined[index], score=float(score)) for index, score in zip(kept, scores, strict=True)]

    def _join(self, chain: list[tuple[int, int]], windows_W2: np.ndarray) -> Answer:
        members = [(self._found[w], i) for w, i in chain]
        chain_windows_M2 = windows_W2[[w for w, _ in chain]]
        scores_M = np.array([found.scores_Q[i] for found, i in members])
        spans_M2 = np.array([found.spans_Q2[i] for found, i in members])
        weights_M2 = scores_M[:, None] * self._inwardness(spans_M2, chain_windows_M2[:, None])
        start, end = np.average(spans_M2, axis=0, weights=weights_M2)
        if not start < end:
            start, end = spans_M2[np.argmax(scores_M)]
        sight_W = self._sight(start, end, windows_W2)
        score = (sight_W[[w for w, _ in chain]] * scores_M).sum() / sight_W.sum()
        first_step, boxes_K4 = self._join_boxes(members, scores_M, chain_windows_M2)
        label = self.labels[members[0][0].labels_Q[members[0][1]]]
        return Answer(label, float(start), float(end), float(score), first_step, boxes_K4)

    def _inwardness(self, frames: np.ndarray, windows: np.ndarray) -> np.ndarray:
        """Weight of positions by their distance from the edges of their windows (..., 2); an edge of the video is none."""
        start, end = windows[..., 0], windows[..., 1]
        before = np.where(start <= 0, np.inf, frames - start)
        after = np.where(end >= self.extent.num_frames, np.inf, end - frames)
        inside = np.minimum(before, after) / (end - start)
        return np.clip((inside - BLIND) / (SURE - BLIND), LEAST_WEIGHT, 1)

    def _sight(self, start: float, end: float, windows_W2: np.ndarray) -> np.ndarray:
        """How well each window sees an interval: the part it sees, squared, times how far inside the outer end lies."""
        visible_W = np.minimum(windows_W2[:, 1], end) - np.maximum(windows_W2[:, 0], start)
        part_W = np.clip(visible_W, 0, None) / (end - start)
        inside_W2 = self._inwardness(np.array([start, end]), windows_W2[:, None])
        return part_W**2 * inside_W2.min(axis=1)

    def _join_boxes(self, members, scores_M: np.ndarray, windows_M2: np.ndarray) -> tuple[int, np.ndarray]:
        """First step and boxes (K, 4) of a chain: the weighted mean where members overlap, linear where they leave a gap."""
        pieces = [(int(found.tubes.first_N[i]), found.tubes.boxes(i)) for found, i in members]
        filled = [(first, first + len(boxes_k4)) for first, boxes_k4 in pieces if len(boxes_k4)]
        if not filled:
            return 0, np.zeros((0, 4))
        low, high = min(first for first, _ in filled), max(stop for _, stop in filled)
        middle_K = self.extent.time_grid.middle_T[low:high]
        summed_K4, weight_K = np.zeros((high - low, 4)), np.zeros(high - low)
        for (first, boxes_k4), score, window_2 in zip(pieces, scores_M, windows_M2, strict=True):
            rows = slice(first - low, first - low + len(boxes_k4))
            weight_k = score * self._inwardness(middle_K[rows], window_2)
            summed_K4[rows] += weight_k[:, None] * boxes_k4
            weight_K[rows] += weight_k
        known = np.flatnonzero(weight_K)
        mean_k4 = summed_K4[known] / weight_K[known, None]
        boxes_K4 = np.stack([np.interp(np.arange(high - low), known, edge_k) for edge_k in mean_k4.T], axis=1)
        return low, boxes_K4


def match_answers(old: WindowAnswers, new: WindowAnswers, link_agreement: float) -> list[tuple[int, int]]:
    """Pairs (index in `old`, index in `new`) that are one event; each answer at most once, the most confident pairs first."""
    view = max(old.window.start_frame, new.window.start_frame), min(old.window.end_frame, new.window.end_frame)
    time_IJ = span_iou(np.clip(old.spans_Q2, *view), np.clip(new.spans_Q2, *view))
    same_IJ = old.labels_Q[:, None] == new.labels_Q[None, :]
    i_M, j_M = np.nonzero(same_IJ & (time_IJ >= link_agreement))
    agreement_M = time_IJ[i_M, j_M] * box_agreement(old.tubes, i_M, new.tubes, j_M)
    confidence_M = agreement_M * old.scores_Q[i_M] * new.scores_Q[j_M]
    taken_i, taken_j, pairs = set(), set(), []
    for m in np.argsort(-confidence_M, kind="stable"):
        i, j = int(i_M[m]), int(j_M[m])
        if agreement_M[m] >= link_agreement and i not in taken_i and j not in taken_j:
            pairs.append((i, j))
            taken_i.add(i)
            taken_j.add(j)
    return pairs
