"""Visual queries in 2D: tracks of the object asked for, as the Ego4D challenge scores them.

A query is a truth with boxes; its name is its `query` key, else its label, and each video has one truth by a name.

- A track is its boxes: in time it runs from the first frame with a box to the last, both included, whatever interval
  the event states. A prediction without boxes overlaps nothing.
- `tap`: average precision over temporal IoU, all predictions of all queries in one ranking by score; a prediction is
  true when it is the first of its query to reach the threshold. Area under the precision envelope.
- `stap`: the same over volume IoU: the areas that both share on common frames, summed, divided by the sum of both
  tracks' areas without it. Areas are those of continuous edges, without +1.
- `success`: share of queries whose best scored prediction has volume IoU >= 0.05.
- `recovery`: of all truth boxes of all queries, the share on which the query's best scored prediction has a box of
  IoU >= 0.5 (the tool prints per cent).

Equal scores keep the order of the file, where the tool's unstable sort leaves it open. The tool stops at a query without
a prediction, which here counts 0 with all its boxes, and at a track with a gap, which here keeps the boxes it has. The
means over the tool's own thresholds are `tap@0.25:0.95` and `stap@0.25:0.95`; other thresholds change only tap and
stap. Search efficiency needs the frames that a method looked at and is left out.

Source: EGO4D/episodic-memory, VQ2D/vq2d/metrics and VQ2D/evaluate_vq.py.
"""

from __future__ import annotations

import numpy as np

from vjepa_loc.metrics._average_precision import RankedAnswers, levels_of, mean_average_precision
from vjepa_loc.metrics._event_matching import ranked
from vjepa_loc.metrics._queries import Queries, common_boxes, queries_of
from vjepa_loc.metrics._ratios import Ratio, values_of
from vjepa_loc.metrics._result import MetricResult, Thresholds, metric_key, not_applicable, threshold_names
from vjepa_loc.metrics._tube_overlap import Tubes
from vjepa_loc.overlap import paired_box_iou, paired_common_area
from vjepa_loc.scoring_input import ScoringInput

CONVENTIONS = {"": "AP over temporal IoU (frames +1) and over volume IoU, success at 0.05, boxes recovered at 0.5; as Ego4D VQ2D"}
DEFAULT_THRESHOLDS: Thresholds = (0.25, (0.25, 0.5, 0.75, 0.95))
SUCCESS_IOU = 0.05
RECOVERY_IOU = 0.5


def compute(inputs: ScoringInput, convention: str = "", thresholds: Thresholds = DEFAULT_THRESHOLDS) -> MetricResult:
    """`vq2d/tap@...`, `vq2d/stap@...`, `vq2d/success` and `vq2d/recovery`. Does not apply where no truth has a box or a
    query has several truths. Raises ConfigError for wrong thresholds."""
    key = metric_key("vq2d", convention)
    entries = threshold_names(thresholds)
    queries = queries_of(inputs, key)
    if isinstance(queries, str):
        return not_applicable(queries)
    prediction_C, truth_box_C, box_C = common_boxes(inputs, queries)
    truth_C4, box_C4 = inputs.truths.box_B4[truth_box_C], inputs.predictions.box_B4[box_C]
    num_predictions = len(inputs.predictions)
    common_P = np.bincount(prediction_C, weights=paired_common_area(truth_C4, box_C4), minlength=num_predictions)
    recovered_P = np.bincount(
        prediction_C, weights=paired_box_iou(truth_C4, box_C4) >= RECOVERY_IOU, minlength=num_predictions
    )
    answers, truths = queries.answer_A, queries.truth_Q[queries.query_A]
    truth_tubes, tubes = (Tubes.of(table, len(inputs.labels)) for table in (inputs.truths, inputs.predictions))
    volume_A = truth_tubes.volume_N[truths] + tubes.volume_N[answers] - common_P[answers]
    volume_iou_A = common_P[answers] / volume_A
    temporal_iou_A = _temporal_iou(_extents(truth_tubes)[truths], _extents(tubes)[answers])

    levels_R = levels_of(entries)
    chosen = [name for name in ("0.25", "0.25:0.95") if name in entries] or list(entries)[:1]
    precisions = [
        mean_average_precision(
            key, inputs, {"": _ranking(inputs, queries, iou_A, levels_R)}, entries, levels_R, quantity=name, headline=chosen
        )
        for name, iou_A in (("tap", temporal_iou_A), ("stap", volume_iou_A))
    ]

    best, answered = queries.best_answers(inputs.predictions.score_N)
    success_Q, recovered_Q = np.zeros(len(queries)), np.zeros(len(queries))
    success_Q[answered] = volume_iou_A[np.searchsorted(answers, best)] >= SUCCESS_IOU
    recovered_Q[answered] = recovered_P[best]
    num_boxes_Q = inputs.truths.num_boxes_N[queries.truth_Q]

    def ratios(own_Q: np.ndarray) -> dict[str, Ratio]:
        video, num_videos = queries.video_Q[own_Q], inputs.num_videos
        return {
            f"{key}/success": Ratio.of(success_Q[own_Q], video, num_videos),
            f"{key}/recovery": Ratio.of(recovered_Q[own_Q], video, num_videos, num_boxes_Q[own_Q]),
        }

    overall = ratios(np.ones(len(queries), dtype=bool))
    return MetricResult(
        {name: value for one in precisions for name, value in one.values.items()} | values_of(overall),
        {
            inputs.labels[label]: values_of(ratios(queries.label_Q == label))
            for label in np.unique(queries.label_Q).tolist()
        },
        queries.notes,
        (*precisions[0].headline, *precisions[1].headline, *overall),
        lambda weights_WV: {
            **precisions[0].resample(weights_WV),
            **precisions[1].resample(weights_WV),
            **{name: ratio.over(weights_WV) for name, ratio in overall.items()},
        },
    )


def _ranking(inputs: ScoringInput, queries: Queries, iou_A: np.ndarray, levels_R: np.ndarray) -> RankedAnswers:
    """All answers in one ranking; those are true that are the first of their query to reach a level."""
    order = ranked(inputs.predictions.score_N[queries.answer_A])
    true_PR = np.zeros((len(order), len(levels_R)), dtype=bool)
    for column, level in enumerate(levels_R):
        reaching = np.flatnonzero(iou_A[order] >= level)
        _, first = np.unique(queries.query_A[order[reaching]], return_index=True)
        true_PR[reaching[first], column] = True
    return RankedAnswers(
        inputs.predictions.video_N[queries.answer_A[order]],
        true_PR,
        np.bincount(queries.video_Q, minlength=inputs.num_videos),
    )


def _extents(tubes: Tubes) -> np.ndarray:
    return np.stack([tubes.first_N, tubes.last_N], axis=1)


def _temporal_iou(a_N2: np.ndarray, b_N2: np.ndarray) -> np.ndarray:
    """IoU (N,) of frames from first to last, both included."""
    common_N = np.maximum(np.minimum(a_N2[:, 1], b_N2[:, 1]) - np.maximum(a_N2[:, 0], b_N2[:, 0]) + 1, 0)
    return common_N / ((a_N2[:, 1] - a_N2[:, 0] + 1) + (b_N2[:, 1] - b_N2[:, 0] + 1) - common_N)
