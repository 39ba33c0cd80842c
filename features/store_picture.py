"""`store show`: one picture from which a person sees whether the tokens of a video are sane.

Above, frames and the colours of their tokens (`features.token_colours`) in the same place: cells of letterbox bars are grey,
what a crop cuts off stays outside the dashed line. Below, which times of the video resemble which.
"""

import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from features.stored_video import StoredVideo
from features.token_colours import TokenColours, evenly_spaced, read_float32
from vjepa_loc.timegrid import frames_to_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS, MAX_BANDS = 6, 2
MATRIX_STEPS = 400
_BAR_GREY = 0.82
_INCH_DPI = 110
_WIDTH_IN, _TOP_IN, _BOTTOM_IN, _MATRIX_IN = 13.0, 0.75, 0.55, 4.4
_INK, _PALE = "#222222", "#777777"


@dataclass(frozen=True)
class Shown:
    """The steps that are drawn, the frame that stands for each (the first of those it was made from), and its time."""

    steps: tuple[int, ...]
    frames: tuple[int, ...]
    times_s: tuple[float, ...]

    @classmethod
    def of(cls, video: StoredVideo) -> "Shown":
        steps = evenly_spaced(video.num_steps, COLUMNS * MAX_BANDS)
        if len(steps) > COLUMNS:
            steps = evenly_spaced(video.num_steps, len(steps) // COLUMNS * COLUMNS)
        frames = video.frames[steps, 0].tolist()
        return cls(tuple(steps), tuple(frames), tuple(video.frame_time_s[frames].tolist()))


def finest_level(video: StoredVideo) -> str:
    """The level whose cells are drawn: the tokens, or the largest pool where they were left out."""
    return next(level for level in ("tokens", "pool4", "pool2", "pool1") if level in video.levels)


def draw_video(
    video: StoredVideo, facts: Sequence[tuple[str, Any]], frames: Mapping[int, np.ndarray], no_frames: str | None, out: Path
) -> None:
    """Writes a PNG to `out`. `frames` maps frame numbers to uint8 (height, width, 3) pictures of any size; a frame that is
    missing is left white, with the reason `no_frames`. `facts` are printed beside the matrix.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = Shown.of(video)
    level = finest_level(video)
    colours = TokenColours.fit(video, level)
    num_bands = -(-len(shown.steps) // COLUMNS)
    left, right, top, bottom = _drawn_area(video)
    cell_in = _WIDTH_IN * 0.94 / COLUMNS
    picture_in = min(max(cell_in * (bottom - top) / (right - left), 0.35), 2.6)
    band_in = 2 * picture_in + 0.62
    height_in = _TOP_IN + num_bands * band_in + 0.5 + _MATRIX_IN + _BOTTOM_IN
    figure = Figure(figsize=(_WIDTH_IN, height_in), facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.03, 1 - 0.3 / height_in, video.id, fontsize=15, weight="bold", color=_INK, va="center", parse_math=False)
    explained = f"{100 * colours.explained:.0f}% of the variance"
    legend = f"frames, and below each the main three directions of {level} as red, green, blue ({explained})"
    figure.text(0.03, 1 - 0.57 / height_in, legend, fontsize=9, color=_PALE, va="center")
    for index, (step, frame) in enumerate(zip(shown.steps, shown.frames, strict=True)):
        band, column = divmod(index, COLUMNS)
        x = 0.03 + column * 0.94 / COLUMNS
        y_in = height_in - _TOP_IN - band * band_in - 0.22 - picture_in
        width = 0.94 / COLUMNS * 0.97
        upper = figure.add_axes((x, y_in / height_in, width, picture_in / height_in))
        lower = figure.add_axes((x, (y_in - picture_in - 0.05) / height_in, width, picture_in / height_in))
        upper.set_title(f"{shown.times_s[index]:.2f} s   frame {frame}   step {step}", fontsize=8, color=_INK, pad=3)
        _draw_frame(upper, video, frames.get(frame), no_frames)
        _draw_tokens(lower, video, painted_cells(video, level, colours, step))
    _draw_matrix(figure, video, shown, height_in)
    _draw_facts(figure, facts, height_in)
    out.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # An id in a script that the font does not have is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(out, format="png", dpi=_INCH_DPI)


def _grid_edges(video: StoredVideo) -> tuple[float, float, float, float]:
    """Where the cells lie in displayed pixels: left, right, top, bottom; beyond the frame where there are bars."""
    boxes = video.space_grid.cell_boxes_norm_HW4
    left, top, right, bottom = (*boxes[0, 0, :2], *boxes[-1, -1, 2:])
    return left * video.width, right * video.width, top * video.height, bottom * video.height


def _drawn_area(video: StoredVideo) -> tuple[float, float, float, float]:
    left, right, top, bottom = _grid_edges(video)
    return min(left, 0), max(right, video.width), min(top, 0), max(bottom, video.height)


def _frame_axes(axes: "Axes", video: StoredVideo) -> None:
    left, right, top, bottom = _drawn_area(video)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_aspect("equal")
    axes.set_axis_off()


def _draw_frame(axes: "Axes", video: StoredVideo, rgb_HW3: np.ndarray | None, no_frames: str | None) -> None:
    from matplotlib.patches import Rectangle

    left, right, top, bottom = _grid_edges(video)
    if video.space_grid.fit == "letterbox":
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, facecolor=str(_BAR_GREY), edgecolor="none", zorder=-1))
    if rgb_HW3 is not None:
        axes.imshow(rgb_HW3, extent=(0, video.width, video.height, 0), interpolation="antialiased", aspect="equal")
    else:
        axes.add_patch(Rectangle((0, 0), video.width, video.height, facecolor="#f4f4f4", edgecolor="#bbbbbb"))
        reason = "\n".join(textwrap.wrap(no_frames or "this frame was not decoded", 30)[:4])
        middle = video.width / 2, video.height / 2
        axes.text(*middle, reason, fontsize=7, color=_PALE, ha="center", va="center", parse_math=False)
    if left > 0 or top > 0 or right < video.width or bottom < video.height:
        window = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="white", linewidth=1.2, linestyle="--")
        axes.add_patch(window)
    # imshow has moved the limits.
    _frame_axes(axes, video)


def painted_cells(video: StoredVideo, level: str, colours: TokenColours, step: int) -> np.ndarray:
    """(h, w, 3) colours of one step's cells, grey in letterbox bars."""
    rgb_hw3 = colours.paint(read_float32(video, level, step))[0]
    return np.where(video.valid(level)[..., None], rgb_hw3, _BAR_GREY)


def _draw_tokens(axes: "Axes", video: StoredVideo, rgb_hw3: np.ndarray) -> None:
    left, right, top, bottom = _grid_edges(video)
    axes.imshow(rgb_hw3, extent=(left, right, bottom, top), interpolation="nearest", aspect="equal", vmin=0, vmax=1)
    _frame_axes(axes, video)


def similarity(video: StoredVideo) -> tuple[np.ndarray, np.ndarray]:
    """(edges_s (n + 1,), matrix (n, n)): cosines between the mean tokens of n <= `MATRIX_STEPS` steps, from each of which
    the mean over time was taken; and the times at which these steps begin, and the last one ends.

    What all steps share says nothing about what changes, and would make every cosine nearly 1.
    """
    steps = evenly_spaced(video.num_steps, MATRIX_STEPS)
    means_nC = np.concatenate([_mean_token(video, step) for step in steps]).astype(np.float64)
    centred_nC = means_nC - means_nC.mean(0) if len(steps) > 1 else means_nC
    length_n = np.linalg.norm(centred_nC, axis=1)
    unit_nC = centred_nC / np.where(length_n > 0, length_n, 1)[:, None]
    grid = video.time_grid
    # A sampled step stands for the time to the next one.
    firsts = [0, *((a + b + 1) // 2 for a, b in zip(steps, steps[1:], strict=False))]
    edges = np.append(grid.start_T[firsts], grid.end_T[-1])
    return frames_to_seconds(edges, video.frame_time_s, float(video.fps)), unit_nC @ unit_nC.T


def _mean_token(video: StoredVideo, step: int) -> np.ndarray:
    level = "pool1" if "pool1" in video.levels else finest_level(video)
    tokens_hwC = read_float32(video, level, step)[0].numpy()
    return tokens_hwC[video.valid(level)].mean(0, keepdims=True)


def _draw_matrix(figure: "Figure", video: StoredVideo, shown: Shown, height_in: float) -> None:
    edges_s, matrix = similarity(video)
    y, height = _BOTTOM_IN / height_in, _MATRIX_IN / height_in
    axes = figure.add_axes((0.065, y, _MATRIX_IN / _WIDTH_IN, height))
    bar = figure.add_axes((0.065 + _MATRIX_IN / _WIDTH_IN + 0.012, y, 0.012, height))
    mesh = axes.pcolormesh(edges_s, edges_s, matrix, cmap="magma", vmin=min(-0.2, float(np.percentile(matrix, 2))), vmax=1)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(labelsize=8, colors=_INK, length=3)
    axes.set_xlabel("seconds", fontsize=8, color=_INK)
    axes.set_ylabel("seconds", fontsize=8, color=_INK)
    axes.set_title("which times resemble which: cosine of mean tokens, centred over time", fontsize=9, color=_INK, loc="left", pad=13)
    # The times of the frames above.
    heights = [1.012] * len(shown.times_s)
    axes.plot(shown.times_s, heights, "v", color=_INK, markersize=4, clip_on=False, transform=axes.get_xaxis_transform())
    colour_bar = figure.colorbar(mesh, cax=bar)
    colour_bar.outline.set_visible(False)
    bar.tick_params(labelsize=8, length=2)


def _draw_facts(figure: "Figure", facts: Sequence[tuple[str, Any]], height_in: float) -> None:
    top = _BOTTOM_IN + _MATRIX_IN
    for row, (name, value) in enumerate(facts):
        y = (top - 0.12 - 0.27 * row) / height_in
        figure.text(0.505, y, name, fontsize=9, color=_PALE, va="center")
        figure.text(0.605, y, str(value), fontsize=9, color=_INK, va="center", parse_math=False)
