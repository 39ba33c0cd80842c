"""What MultiSports' evaluator says beyond its rules: the labels that it leaves out by name.

Source: MCG-NJU/MultiSports, evaluate_multisports.py.
"""

from collections.abc import Sequence

_UNSCORED = frozenset(
    (
        "aerobic kick jump",
        "aerobic off axis jump",
        "aerobic butterfly jump",
        "aerobic balance turn",
        "basketball save",
        "basketball jump ball",
    )
)


def unscored_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Those of `labels` that are not scored, in their order."""
    return tuple(label for label in labels if label in _UNSCORED)
