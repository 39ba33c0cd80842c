"""Greedy non-maximum suppression of tubes that compares few pairs: only where they could overlap enough at all.

Shapes: N tubes, K pairs of them, P undecided ones, by group and then best first.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vjepa_loc.metrics._tube_overlap import Tubes, pairs_of_tubes

# Tubes that are decided together, over all groups.
_BLOCK = 512

PairFunction = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From indices (K,) and (K,) of tubes to a number (K,) for each pair."""


def kept_tubes(tubes: Tubes, order_N: np.ndarray, overlap: float, similarity: PairFunction, bound: PairFunction) -> np.ndarray:
    """A mask (N,): in the order of `order_N` a tube is kept unless its similarity to a kept one of its group is above
    `overlap`. Tubes without boxes are kept. `bound`, quickly computed, is never below `similarity`.

    Time grows with the pairs of a kept and an undecided tube that share a frame, not with the square of the tubes.
    """
    kept_N = np.ones(len(order_N), dtype=bool)
    boxed = order_N[tubes.num_boxes_N[order_N] > 0]
    undecided_P = boxed[np.argsort(tubes.group_N[boxed], kind="stable")]

    def conflicts(chosen: np.ndarray, others: np.ndarray):
        for a_K, b_K in pairs_of_tubes(tubes, tubes, chosen, others):
            # The bound is rounded otherwise than the similarity.
            possible = (place_N[a_K] < place_N[b_K]) & (bound(a_K, b_K) > overlap - 1e-6)
            a_K, b_K = a_K[possible], b_K[possible]
            similar = similarity(a_K, b_K) > overlap
            yield a_K[similar], b_K[similar]

    place_N = np.empty(len(order_N), dtype=np.int64)
    place_N[order_N] = np.arange(len(order_N))
    while len(undecided_P):
        group_P = tubes.group_N[undecided_P]
        first_P = np.diff(group_P, prepend=-1) != 0
        rank_P = np.arange(len(group_P)) - np.flatnonzero(first_P)[np.cumsum(first_P) - 1]
        in_block_P = rank_P < max(1, _BLOCK // int(first_P.sum()))
        block, rest = undecided_P[in_block_P], undecided_P[~in_block_P]
        pairs = [np.stack(pair, axis=1) for pair in conflicts(block, block)]
        pairs = np.concatenate(pairs) if pairs else np.empty((0, 2), dtype=np.int64)
        for better, worse in pairs[np.argsort(place_N[pairs[:, 0]], kind="stable")].tolist():
            if kept_N[better]:
                kept_N[worse] = False
        for _, suppressed in conflicts(block[kept_N[block]], rest):
            kept_N[suppressed] = False
        undecided_P = rest[kept_N[rest]]
    return kept_N
