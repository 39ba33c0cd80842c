"""Pictures for reports: inline SVG that reads on light and dark pages, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#7a8591"
"""A grey that can be read on white and on near-black."""

COLOURS = ("#2f6fb5", "#e08a1e", "#2a9d76", "#a05fb0", "#4fb0d8", "#8c6d31", "#6b7785", "#c4a000")
"""Told apart by people with the common colour deficiencies; red is kept for what was missed."""

MISSED = "#d3222a"


@dataclass(frozen=True)
class Picture:
    """A picture with what it shows. `svg` is one `<svg>` element without a size of its own, to stand in HTML."""

    title: str
    caption: str
    svg: str


@contextmanager
def drawing(width_in: float = 6.4, height_in: float = 3.2) -> Iterator[Figure]:
    """A matplotlib figure, in inches, in the style of the reports; nothing of matplotlib's global state is touched."""
    import matplotlib
    from matplotlib.figure import Figure

    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": "vjepa_loc",
        # Names of labels and splits are text, whatever signs of a formula are in them.
        "text.parse_math": False,
        "font.size": 9,
        "font.family": "sans-serif",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "figure.constrained_layout.use": True,
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), INK),
    }
    with matplotlib.rc_context(style):
        yield Figure(figsize=(width_in, height_in), facecolor="none")


def figure_svg(figure: Figure) -> str:
    """The figure as one `<svg>` element that fills the width it is given, the same text for the same figure."""
    import io
    import re
    import warnings

    buffer = io.StringIO()
    with warnings.catch_warnings():
        # The text stays text, for which the browser has fonts of its own.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    return re.sub(r'\s(width|height)="[0-9.]+pt"', "", svg, count=2).strip()
