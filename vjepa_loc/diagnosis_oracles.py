"""What the mean average precision would be if some of the errors were mended.

Every figure here starts from the original outcome, so that gains can be compared; they do not add up, since one
truth can lie behind errors of several kinds. As in TIDE (arXiv 2008.08115), what is true stays true. Shapes: Q
counted answers of all labels by descending score, L labels, G truths.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from vjepa_loc.diagnosis_errors import FOUND, LEFT_OUT, Findings
from vjepa_loc.metrics._average_precision import RankedAnswers, average_precisions, envelope_curve
from vjepa_loc.scoring_input import ScoringInput


class Oracles:
    """The answers that count, ready to be asked for the mAP after a repair; 0 where no label has a truth to find."""

    def __init__(self, inputs: ScoringInput, found: Findings) -> None:
        counted = found.ranked_P[found.kind_P[found.ranked_P] != LEFT_OUT]
        # Narrow integers sort in linear time.
        narrow = np.int16 if len(inputs.labels) < 2**15 else np.int64
        self._truth_label_G = inputs.truths.label_N.astype(narrow)
        self.label_Q = inputs.predictions.label_N[counted].astype(narrow)
        self.kind_Q = found.kind_P[counted]
        self.num_truths_L = np.bincount(inputs.truths.label_N[found.scored_G], minlength=len(inputs.labels))
        self._truth_Q = found.truth_P[counted]
        self._missed_G = found.missed_G
        self.map = self._mean_ap(self.label_Q, self.kind_Q == FOUND)

    def mended(self, kinds: Iterable[int]) -> float:
        """mAP with every false positive of these kinds mended.

        One that only doubles, or is nowhere near a truth, is taken away. Any other is set right and counts, with its
        own score, as an answer that found its truth; where that truth is found already, is not scored, or was given
        to a better ranked one of these, it is taken away.
        """
        chosen_Q = np.isin(self.kind_Q, list(kinds))
        candidates = np.flatnonzero(chosen_Q & (self._truth_Q >= 0))
        candidates = candidates[self._missed_G[self._truth_Q[candidates]]]
        targets, first = np.unique(self._truth_Q[candidates], return_index=True)
        corrected = candidates[first]
        true_Q, label_Q = self.kind_Q == FOUND, self.label_Q.copy()
        true_Q[corrected] = True
        label_Q[corrected] = self._truth_label_G[targets]
        kept_Q = ~chosen_Q | true_Q
        return self._mean_ap(label_Q[kept_Q], true_Q[kept_Q])

    def with_found(self, chosen_G: np.ndarray) -> float:
        """mAP if the missed ones of these truths had each been found by an answer ranked before all others."""
        added = self._truth_label_G[chosen_G & self._missed_G]
        return self._mean_ap(
            np.concatenate([added, self.label_Q]),
            np.concatenate([np.ones(len(added), dtype=bool), self.kind_Q == FOUND]),
        )

    def _mean_ap(self, label_Q: np.ndarray, true_Q: np.ndarray) -> float:
        order = np.argsort(label_Q, kind="stable")
        ends = np.searchsorted(label_Q[order], np.arange(len(self.num_truths_L) + 1))
        once = np.ones((1, 1), dtype=np.int32)
        precisions = []
        for label in np.flatnonzero(self.num_truths_L).tolist():
            true_P1 = true_Q[order[ends[label] : ends[label + 1]], None]
            # All videos count once, so that they can be counted as one.
            together = np.zeros(len(true_P1), dtype=np.int64)
            answers = RankedAnswers(together, true_P1, self.num_truths_L[label : label + 1])
            precisions.append(average_precisions(answers, once, envelope_curve)[0, 0])
        return float(np.mean(precisions)) if precisions else 0.0
