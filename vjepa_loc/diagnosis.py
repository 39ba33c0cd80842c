"""Where the missing points go: what is wrong with each false positive, which truths are missed, and what it costs.

The figure that is explained is the mAP of `stal` at one threshold t (0.5) where truths have boxes, else of `tal`. It
is also `tal` where no prediction has a box: then every one of them would only be told that. "Overlap" is what that
metric compares: tube IoU for `stal` (temporal IoU with a truth that has no boxes, as `stal` treats those), temporal
IoU for `tal`. All predictions are looked at, however many there are.

**False positives.** A prediction that found no truth is of the first of these kinds that fits, with respect to the
truths of its video:

1. double detection: overlap >= t with a truth of its label; a better ranked prediction has found that truth.
2. wrong label: overlap >= t with a truth of another label.
3. bad box: of its label, temporal IoU >= t, so only the boxes keep it below the threshold (`stal` only); with an
   overlap below 0.1, only if nothing found that truth.
4. bad boundary: of its label, 0.1 <= temporal IoU < t, and in the right place: mean box IoU >= t on the frames where
   both have a box (in `tal`, and with a truth without boxes, every place is right).
5. several faults: overlap >= 0.1 with any truth, or temporal IoU >= 0.1 with one of its label that nothing found;
   mending one thing would not be enough. DETAD's confusion error and TIDE's error of both class and place.
6. background: none of these. Something of its label may happen at that time, but elsewhere, and was found.

The truth that a false positive is nearest to is, of those that make it fit, the one of the largest overlap, then
temporal IoU, then one that is not found, then the first. What `stal` does not count (it lies on a truth without boxes)
is neither true nor false here. A prediction of a label without truth lowers no mAP, but it is a false positive with
a kind: with another label it might have found something.

**mAP if mended**, for one kind at a time and always from the original outcome, as TIDE does: doubles and background
are taken away; of the others the label, boundary or boxes are set right, so that the best ranked one for a truth that
nothing found counts as true with its own score, while those for a truth that is found are taken away. Gains can be
compared but do not add up.

**Missed truths** are those that no prediction found. For those of one bin the mAP is given as if each had been found
by an answer ranked before all others: the most that finding them can give. (TIDE takes missed truths out of the count
instead; then a label of which nothing was found would gain nothing, and one that is missed whole would vanish.) Bins
are defined in `vjepa_loc/diagnosis_missed.py`. A truth was perhaps missed narrowly: `nearest` says what kind of
prediction overlaps it most.

**The profile** is DETAD's: per label with G truths, the first G of its predictions, the next G, ... up to 10 G.

Sources: Alwassel et al. 2018, arXiv 1807.10706 (DETAD); Bolya et al. 2020, arXiv 2008.08115 (TIDE). DETAD
differs: its gain takes every error of a kind away, and a kind follows the one truth of the largest overlap, of any label.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vjepa_loc.diagnosis_costly import costly_false_positives, costly_missed
from vjepa_loc.diagnosis_errors import (
    BACKGROUND,
    BAD_BOUNDARY,
    BAD_BOX,
    DOUBLE,
    FOUND,
    KINDS,
    LEFT_OUT,
    SEVERAL,
    WRONG_LABEL,
    Findings,
    find_errors,
)
from vjepa_loc.diagnosis_missed import breakdowns
from vjepa_loc.diagnosis_oracles import Oracles
from vjepa_loc.diagnosis_pictures import gains_picture, profile_picture, recall_picture
from vjepa_loc.errors import ConfigError
from vjepa_loc.picture import Picture
from vjepa_loc.scoring_input import ScoringInput
from vjepa_loc.tables import ResultTable

SHOWN = (WRONG_LABEL, BAD_BOUNDARY, BAD_BOX, DOUBLE, BACKGROUND, SEVERAL)
"""The kinds in the order of the tables."""

MEANINGS = {
    "wrong label": "where and when a truth of another label is",
    "bad boundary": "right label and place, wrong start or end",
    "bad box": "right label and time, wrong boxes",
    "double detection": "a truth that is found already",
    "background": "nothing of the kind nearby",
    "several faults": "near a truth, but more than one thing is wrong",
    "all": "all of these together",
}

PROFILE_LENGTH = 10
"""DETAD's 10 G: further down the ranking, hardly anything changes the mAP."""


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """The explanation of one figure: `figures` is its content as plain values, from which the rest is drawn."""

    figures: dict
    notes: list[str]

    @cached_property
    def tables(self) -> tuple[ResultTable, ...]:
        """Those that have rows."""
        return _tables(self.figures)

    @cached_property
    def pictures(self) -> tuple[Picture, ...]:
        """Gains, recall and the profile, where there is truth and there are predictions."""
        return _pictures(self.figures)

    def to_dict(self) -> dict:
        """JSON values: mAPs, recalls and shares 0..1, counts whole."""
        return self.figures | {"notes": self.notes}


def diagnose(inputs: ScoringInput, threshold: float = 0.5) -> Diagnosis:
    """Explains the mAP of `stal`, or `tal`, at an IoU threshold. Raises ConfigError for one outside 0 < t <= 1."""
    if not 0 < threshold <= 1:
        raise ConfigError(f"threshold of the diagnosis: expected a number above 0 and up to 1, got {threshold}")
    metric, notes = _explained_metric(inputs)
    found = find_errors(inputs, metric, threshold)
    oracles = Oracles(inputs, found)
    notes += _count_notes(inputs, found)
    properties, missing = breakdowns(inputs, found.scored_G)
    figures = {
        "metric": metric,
        "threshold": threshold,
        "map": oracles.map,
        "num_truths": int(found.scored_G.sum()),
        "num_found": int(found.found_G.sum()),
        "num_predictions": len(inputs.predictions),
        "num_left_out": int((found.kind_P == LEFT_OUT).sum()),
        "false_positives": _false_positives(found, oracles),
        "profile": _profile(oracles),
        "missed": {
            breakdown.title: _missed_in_bins(found, oracles, breakdown.bins, breakdown.bin_G) for breakdown in properties
        },
        "nearest": _missed_by_nearest(found, oracles),
        "all_missed": _found_if(oracles, found.missed_G),
        "costly_false_positives": costly_false_positives(inputs, found),
        "costly_missed": costly_missed(inputs, found),
    }
    return Diagnosis(figures, notes + missing)


def _explained_metric(inputs: ScoringInput) -> tuple[str, list[str]]:
    has_boxes = (inputs.truths.num_boxes_N > 0).any()
    if has_boxes and (not len(inputs.predictions) or (inputs.predictions.num_boxes_N > 0).any()):
        return "stal", []
    why = "no prediction has a box" if has_boxes else "no truth has a box"
    return "tal", [f"what is explained is tal, and no box is called bad: {why}"]


def _count_notes(inputs: ScoringInput, found: Findings) -> list[str]:
    num_left_out = int((found.kind_P == LEFT_OUT).sum())
    num_boxless = int((~found.scored_G).sum())
    scored_labels = inputs.truths.label_N[found.scored_G]
    num_unscored = int((~np.isin(inputs.predictions.label_N[found.kind_P >= 0], scored_labels)).sum())
    notes = [] if len(scored_labels) else [f"no truth to find in {inputs.num_videos} videos: the mAP is 0 whatever is mended"]
    if num_boxless:
        notes.append(
            f"truths without boxes, neither found nor missed: {num_boxless}; predictions on them, neither true nor "
            f"false: {num_left_out}"
        )
    if num_unscored and len(scored_labels):
        notes.append(
            f"false positives of labels without truth to find here: {num_unscored}; they lower no mAP, but with another "
            "label they might find a truth"
        )
    return notes


def _false_positives(found: Findings, oracles: Oracles) -> dict[str, dict]:
    kinds = [kind for kind in SHOWN if found.metric == "stal" or kind != BAD_BOX]
    num_all = int((found.kind_P >= 0).sum())
    return {
        name: {
            "count": (count := int(np.isin(found.kind_P, chosen).sum())),
            "share": count / num_all if num_all else 0.0,
            "map_if_mended": (mended := oracles.mended(chosen)),
            "gain": mended - oracles.map,
        }
        for name, chosen in [*((KINDS[kind], [kind]) for kind in kinds), ("all", kinds)]
    }


def _profile(oracles: Oracles) -> list[dict[str, int]]:
    """Of each label's first G counted predictions, the next G, ..., how many are of which kind."""
    order = np.argsort(oracles.label_Q, kind="stable")
    label_Q, kind_Q = oracles.label_Q[order], oracles.kind_Q[order]
    place_Q = np.arange(len(order)) - np.searchsorted(label_Q, label_Q)
    num_truths_Q = oracles.num_truths_L[label_Q]
    part_Q = np.where(num_truths_Q > 0, place_Q // np.maximum(num_truths_Q, 1), PROFILE_LENGTH)
    parts = []
    for part in range(int(part_Q[part_Q < PROFILE_LENGTH].max(initial=-1)) + 1):
        kinds = kind_Q[part_Q == part]
        parts.append({"true": int((kinds == FOUND).sum())} | {KINDS[kind]: int((kinds == kind).sum()) for kind in SHOWN})
    return parts


def _missed_in_bins(found: Findings, oracles: Oracles, bins: tuple[str, ...], bin_G: np.ndarray) -> dict[str, dict]:
    """The bins that hold a scored truth."""
    rows = {}
    for index, name in enumerate(bins):
        chosen = found.scored_G & (bin_G == index)
        if not chosen.any():
            continue
        num, num_found = int(chosen.sum()), int((chosen & found.found_G).sum())
        rows[name] = {"truths": num, "found": num_found, "recall": num_found / num} | _found_if(oracles, chosen)
    return rows


def _missed_by_nearest(found: Findings, oracles: Oracles) -> dict[str, dict]:
    kind_G = np.where(found.nearest_G >= 0, found.kind_P[found.nearest_G], LEFT_OUT) if len(found.kind_P) else None
    names = [("none near", LEFT_OUT), ("true, of another truth", FOUND), *((KINDS[kind], kind) for kind in SHOWN)]
    rows = {}
    for name, kind in names:
        chosen = found.missed_G & (kind_G == kind if kind_G is not None else kind == LEFT_OUT)
        if chosen.any():
            rows[name] = {"missed": int(chosen.sum())} | _found_if(oracles, chosen)
    return rows


def _found_if(oracles: Oracles, chosen_G: np.ndarray) -> dict[str, float]:
    value = oracles.with_found(chosen_G)
    return {"map_if_found": value, "gain": value - oracles.map}


def _tables(figures: dict) -> tuple[ResultTable, ...]:
    name = f"{figures['metric']}/map@{figures['threshold']:.2f}"
    first = dict(figures["profile"][0]) if figures["profile"] else {}
    if first:
        first["all"] = sum(first.values()) - first.get("true", 0)
    errors = tuple(
        (kind, row["count"], row["share"], first.get(kind), row["map_if_mended"], row["gain"], MEANINGS[kind])
        for kind, row in figures["false_positives"].items()
    )
    kinds = list(figures["profile"][0]) if figures["profile"] else []
    kinds = [kind for kind in kinds if kind == "true" or kind in figures["false_positives"]]
    num_missed = figures["num_truths"] - figures["num_found"]
    missed = [
        (title, text, row["truths"], row["found"], row["truths"] - row["found"], row["recall"], row["map_if_found"], row["gain"])
        for title, bins in figures["missed"].items()
        for text, row in bins.items()
    ]
    everything = figures["all_missed"]
    if missed:
        recall = figures["num_found"] / figures["num_truths"]
        counts = figures["num_truths"], figures["num_found"], num_missed, recall
        missed.append(("all", "", *counts, everything["map_if_found"], everything["gain"]))
    tables = (
        ResultTable(
            f"False positives by kind ({name} = {figures['map']:.3f})",
            ("kind", "false \npositives", "share", "among each \nlabel's first G", "mAP if \nmended", "gain", "what it is"),
            errors,
            name="false positives",
        ),
        ResultTable(
            "Missed truths by what they are like",
            ("", "bin", "truths", "found", "missed", "recall", "mAP if \nfound", "gain"),
            tuple(missed),
            name="missed truths",
        ),
        ResultTable(
            "Missed truths by the prediction that overlaps them most",
            ("prediction", "missed", "share", "mAP if \nfound", "gain"),
            tuple(
                (kind, row["missed"], row["missed"] / num_missed, row["map_if_found"], row["gain"])
                for kind, row in figures["nearest"].items()
            ),
            name="missed truths nearest",
        ),
        _listed("The false positives of the highest score", figures["costly_false_positives"], "costly false positives"),
        _listed("The missed truths that cost most", figures["costly_missed"], "costly missed truths"),
        ResultTable(
            "Kinds down the ranking, per label with G truths",
            ("predictions", *kinds),
            tuple((_part_text(at), *(row[kind] for kind in kinds)) for at, row in enumerate(figures["profile"])),
            name="false positive profile",
        ),
    )
    return tuple(table for table in tables if table.rows)


def _listed(title: str, rows: list[dict], name: str) -> ResultTable:
    cells = tuple(
        tuple("none" if cell is None and column.startswith("nearest") else cell for column, cell in row.items()) for row in rows
    )
    return ResultTable(title, tuple(rows[0]) if rows else (), cells, name=name)


def _part_text(index: int) -> str:
    return "first G" if index == 0 else f"{index} G to {index + 1} G"


def _pictures(figures: dict) -> tuple[Picture, ...]:
    name = f"{figures['metric']} mAP at {figures['threshold']:.2f}"
    gains = {kind: row["gain"] for kind, row in figures["false_positives"].items() if kind != "all"}
    pictures = []
    if figures["num_truths"]:
        pictures.append(gains_picture(name, figures["map"], gains, figures["all_missed"]["gain"]))
        pictures.append(recall_picture(figures["missed"]))
    if figures["profile"]:
        shown = {"true", *figures["false_positives"]}
        profile = [{kind: num for kind, num in row.items() if kind in shown} for row in figures["profile"]]
        pictures.append(profile_picture(profile))
    return tuple(pictures)
