"""Grounding of one tube per query: temporal IoU and vIoU, as VidSTG and HC-STVG are scored.

A query is a truth with boxes; its name is its `query` key, else its label, and each video has one truth by a name. Of
several predictions of a query the one with the best score counts (the first in the file among equals); a query
without a prediction counts 0. Intervals are half-open.

tIoU is that of the two intervals, as they are. vIoU is the sum of box IoU over the frames that both cover, divided by
the number of frames from the earlier start to the later end. A frame within an interval that has no box adds
nothing to the sum and stays in the union. m_tIoU and m_vIoU are means over queries; vIoU@R is the share of queries
with vIoU > R, so that R itself is not enough. Thresholds other than 0.3 and 0.5 are named in the same way; the figure
of a range is the mean over it.

Source: antoyang/TubeDETR, datasets/vidstg_eval.py and hcstvg_eval.py. They score what their data loader samples (5
frames per second, at most 200 per video, never the last frame); here every frame counts, as there with fps equal to
the video's, video_max_len of at least its length, and one more frame at its end. They stop where a prediction has no
box on a frame of the truth. Their gt_viou (boxes on the true interval, whatever interval was predicted) needs boxes
outside the predicted interval, which a prediction here has not.
"""

from __future__ import annotations

import numpy as np

from vjepa_loc.metrics._queries import Queries, common_boxes, queries_of
from vjepa_loc.metrics._ratios import Ratio, values_of
from vjepa_loc.metrics._result import MetricResult, Thresholds, metric_key, not_applicable, threshold_names
from vjepa_loc.overlap import paired_box_iou
from vjepa_loc.scoring_input import ScoringInput

CONVENTIONS = {"": "box IoU summed over common frames / frames from first start to last end; above the threshold; as VidSTG"}
DEFAULT_THRESHOLDS: Thresholds = (0.3, 0.5)


def compute(inputs: ScoringInput, convention: str = "", thresholds: Thresholds = DEFAULT_THRESHOLDS) -> MetricResult:
    """`viou/m_tiou`, `viou/m_viou` and `viou/viou@...`. Does not apply where no truth has a box or a query has several
    truths. Raises ConfigError for wrong thresholds."""
    key = metric_key("viou", convention)
    entries = threshold_names(thresholds)
    queries = queries_of(inputs, key)
    if isinstance(queries, str):
        return not_applicable(queries)
    tiou_Q, viou_Q = _overlaps(inputs, queries)
    figures_Q = {f"{key}/m_viou": viou_Q, f"{key}/m_tiou": tiou_Q}
    for name, values in entries.items():
        figures_Q[f"{key}/viou@{name}"] = (viou_Q[:, None] > np.array(values)).mean(axis=1)

    def ratios(own_Q: np.ndarray) -> dict[str, Ratio]:
        video = queries.video_Q[own_Q]
        return {name: Ratio.of(value_Q[own_Q], video, inputs.num_videos) for name, value_Q in figures_Q.items()}

    overall = ratios(np.ones(len(queries), dtype=bool))
    headline = tuple(name for name in overall if "@" not in name or name.endswith(("viou@0.30", "viou@0.50")))
    return MetricResult(
        values_of(overall),
        {
            inputs.labels[label]: values_of(ratios(queries.label_Q == label))
            for label in np.unique(queries.label_Q).tolist()
        },
        [*queries.notes, *_notes(inputs, queries, key)],
        headline,
        lambda weights_WV: {name: overall[name].over(weights_WV) for name in headline},
    )


def _overlaps(inputs: ScoringInput, queries: Queries) -> tuple[np.ndarray, np.ndarray]:
    """tIoU and vIoU (Q,) of each query with its answer, 0 without one."""
    best, answered = queries.best_answers(inputs.predictions.score_N)
    truth = inputs.truths.spans_N2[queries.truth_Q[answered]]
    answer = inputs.predictions.spans_N2[best]
    tiou_Q, viou_Q = np.zeros(len(queries)), np.zeros(len(queries))
    common = np.maximum(np.minimum(truth[:, 1], answer[:, 1]) - np.maximum(truth[:, 0], answer[:, 0]), 0)
    tiou_Q[answered] = common / ((truth[:, 1] - truth[:, 0]) + (answer[:, 1] - answer[:, 0]) - common)

    prediction_C, truth_box_C, box_C = common_boxes(inputs, queries)
    iou_C = paired_box_iou(inputs.predictions.box_B4[box_C], inputs.truths.box_B4[truth_box_C])
    summed_P = np.bincount(prediction_C, weights=iou_C, minlength=len(inputs.predictions))
    # The frames covered, as Event.covered_frames; a truth with boxes covers some.
    truth_frames, answer_frames = np.ceil(truth - 0.5), np.ceil(answer - 0.5)
    num_frames = np.maximum(truth_frames[:, 1], answer_frames[:, 1]) - np.minimum(truth_frames[:, 0], answer_frames[:, 0])
    viou_Q[answered] = summed_P[best] / num_frames
    return tiou_Q, viou_Q


def _notes(inputs: ScoringInput, queries: Queries, key: str) -> list[str]:
    notes = []
    num_others = len(queries.answer_A) - len(np.unique(queries.query_A))
    if num_others:
        notes.append(f"{key}: {num_others} predictions have a better one of the same query and are not counted")
    best, _ = queries.best_answers(inputs.predictions.score_N)
    num_boxless = int((inputs.predictions.num_boxes_N[best] == 0).sum())
    if num_boxless:
        notes.append(f"{key}: {num_boxless} of {len(best)} answers have no box and count 0 in vIoU")
    return notes
