"""Which windows make a batch, and in which order the batches come.

A batch holds videos of one layout: the same cells, stored in the same number format.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from heads.training.loader import TokenReader
from heads.training.windows import Window

NEIGHBOURS = 8


def in_order(windows: Sequence[Window], reader: TokenReader, batch_size: int) -> list[list[Window]]:
    """Batches of consecutive windows; a new layout starts a new batch."""
    return [batch for _, run in groupby(windows, key=reader.layout) for batch in _cut(list(run), batch_size)]


def shuffled(
    windows: Sequence[Window], reader: TokenReader, batch_size: int, generator: np.random.Generator
) -> list[list[Window]]:
    """Batches in random order, of random windows of one layout and of similar length, so that little is padded.

    The same windows and the same state of the generator give the same batches.
    """
    windows = [windows[index] for index in generator.permutation(len(windows))]
    batches = []
    for _, alike in groupby(sorted(windows, key=reader.layout), key=reader.layout):
        for pool in _cut(list(alike), NEIGHBOURS * batch_size):
            batches += _cut(sorted(pool, key=reader.num_steps), batch_size)
    return [batches[index] for index in generator.permutation(len(batches))]


def _cut(windows: Sequence[Window], size: int) -> list[list[Window]]:
    return [list(windows[start : start + size]) for start in range(0, len(windows), size)]
