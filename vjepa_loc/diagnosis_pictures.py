"""Pictures of a diagnosis: what mending each kind would give, recall by bin, and the kinds down the ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vjepa_loc.picture import COLOURS, INK, MISSED, Picture, drawing, figure_svg

KIND_COLOURS = {
    "true": COLOURS[2],
    "wrong label": COLOURS[3],
    "bad boundary": COLOURS[1],
    "bad box": COLOURS[7],
    "double detection": COLOURS[0],
    "background": COLOURS[6],
    "several faults": COLOURS[5],
}
_ROW_IN = 0.24


def gains_picture(name: str, value: float, gains: Mapping[str, float], missed_gain: float) -> Picture:
    """Horizontal bars of the gain by kind of false positive, and of all missed truths."""
    rows = {**gains, "missed truths": missed_gain}
    with drawing(6.4, 0.75 + _ROW_IN * len(rows)) as figure:
        axes = figure.subplots()
        colours = [KIND_COLOURS.get(kind, MISSED) for kind in rows]
        bars = axes.barh(list(rows), list(rows.values()), height=0.7, color=colours)
        axes.bar_label(bars, [f"+{gain:.3f}" for gain in rows.values()], padding=3, color=INK)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlim(0, max([*rows.values(), 0.01]) * 1.15)
        axes.set_xlabel(f"mAP gained, to the present {value:.3f}")
        svg = figure_svg(figure)
    caption = (
        f"What the {name} would gain if all false positives of one kind were mended, or all missed truths were found "
        "before everything else. Each from the present outcome: they do not add up."
    )
    return Picture("What mending would give", caption, svg)


def recall_picture(missed: Mapping[str, Mapping[str, Mapping]]) -> Picture:
    """Found and missed shares by bin, one group of horizontal bars per property."""
    num_rows = sum(len(bins) + 1.4 for bins in missed.values())
    with drawing(6.4, 0.5 + _ROW_IN * num_rows) as figure:
        axes = figure.subplots()
        at, ticks, texts = 0.0, [], []
        for title, bins in missed.items():
            axes.text(0.008, at, title, va="center", fontweight="bold")
            for text, row in bins.items():
                at += 1
                axes.barh(at, row["recall"], height=0.7, color=KIND_COLOURS["true"])
                axes.barh(at, 1 - row["recall"], height=0.7, left=row["recall"], color=MISSED)
                axes.text(1.01, at, f"{row['found']} of {row['truths']}", va="center")
                ticks.append(at)
                texts.append(text)
            at += 1.4
        axes.set_yticks(ticks, texts)
        axes.set_ylim(at - 0.6, -0.7)
        axes.set_xlim(0, 1)
        axes.grid(visible=False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("share of the truths: found on the left, missed on the right")
        svg = figure_svg(figure)
    return Picture("Recall by what truths are like", "Found and missed shares of the truths in each bin.", svg)


def profile_picture(profile: Sequence[Mapping[str, int]]) -> Picture:
    """Stacked bars of the shares of kinds: each label's first G predictions, the next G, ..."""
    with drawing(6.4, 3.4) as figure:
        axes = figure.subplots()
        places = np.arange(1, len(profile) + 1)
        totals = np.array([sum(row.values()) for row in profile], dtype=float)
        bottom = np.zeros(len(profile))
        for kind in profile[0]:
            share = np.array([row[kind] for row in profile]) / np.maximum(totals, 1)
            axes.bar(places, share, 0.8, bottom=bottom, color=KIND_COLOURS[kind], label=kind)
            bottom += share
        axes.set_xticks(places, [f"{place}G" for place in places])
        axes.set_ylim(0, 1)
        axes.set_xlim(0.4, max(len(profile), 3) + 0.6)
        axes.set_ylabel("share of these predictions")
        axes.grid(axis="x", visible=False)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside right upper", frameon=False)
        svg = figure_svg(figure)
    caption = (
        "1G are the first predictions of each label by score, as many as it has truths; 2G the next as many, and so "
        "on. Errors on the left cost most."
    )
    return Picture("Kinds of predictions down the ranking", caption, svg)
