"""Classification of whole videos: top-1 and top-5 accuracy and mean class accuracy, by clip and by video.

The truth is each video's `label`. A prediction is the probability (its score, 0..1) of one label in one clip; events
of a video with the same interval are one clip, and a label that a clip does not list has probability 0 there. A
video's probabilities are the mean over its clips' (softmax averaged, then ranked).

- Acc@k: share of clips or videos whose label is among the k most probable ones. Equal probabilities stand in the order
  of the dataset's labels. A label of probability 0 is never found, so that nothing is gained by leaving labels out.
  With fewer than 5 labels Acc@5 is left out.
- Mean class accuracy: Acc@1 of the videos (clips) of each class, its mean over the classes that have any.
- Videos without a label are left out; a labelled video without predictions counts as one wrong video and one wrong clip.

There is no IoU in this metric: thresholds change nothing.

Sources: facebookresearch/vjepa2, evals/video_classification_frozen/eval.py (softmax averaged over clips);
facebookresearch/SlowFast, slowfast/utils/metrics.py (top-k); open-mmlab/mmaction2,
mmaction/evaluation/functional/accuracy.py (mean class accuracy; that one also counts a class as 0 which is predicted
but has no truth).
"""

from __future__ import annotations

import numpy as np

from vjepa_loc.metrics._class_scores import class_scores
from vjepa_loc.metrics._ratios import Ratio, mean_of_known, values_of
from vjepa_loc.metrics._result import MetricResult, Thresholds, metric_key, not_applicable
from vjepa_loc.scoring_input import ScoringInput

CONVENTIONS = {"": "softmax averaged over a video's clips; top-1, top-5, and top-1 averaged over classes; as V-JEPA and SlowFast"}
DEFAULT_THRESHOLDS: Thresholds = (0.5,)


def compute(inputs: ScoringInput, convention: str = "", thresholds: Thresholds = DEFAULT_THRESHOLDS) -> MetricResult:
    """`classification/clip_acc@1`, `video_acc@1`, `clip_mean_class_acc` and so on; `thresholds` change nothing. Does not
    apply where no video has a label, a score is no probability, or a clip lists a label twice."""
    key = metric_key("classification", convention)
    scores = class_scores(inputs, key)
    if isinstance(scores, str):
        return not_applicable(scores)
    labelled = np.flatnonzero(scores.truth_V >= 0)
    rank_of = {
        "video": (labelled, scores.videos.ranks(scores.truth_V)[labelled]),
        "clip": (scores.video_C, scores.clips.ranks(scores.truth_V[scores.video_C])),
    }
    notes = list(scores.notes)
    tops = [1, 5]
    if len(inputs.labels) < 5:
        tops = [1]
        notes.append(f"{key}: Acc@5 is left out, there are only {len(inputs.labels)} labels")

    def ratios(label: int | None = None) -> dict[str, Ratio]:
        figures = {}
        for what, (video, rank) in rank_of.items():
            own = slice(None) if label is None else scores.truth_V[video] == label
            for top in tops:
                figures[f"{key}/{what}_acc@{top}"] = Ratio.of(rank[own] < top, video[own], inputs.num_videos)
        return figures

    overall = ratios()
    class_means = {f"{key}/{what}_mean_class_acc": overall[f"{key}/{what}_acc@1"] for what in rank_of}

    def figures(weights_WV: np.ndarray) -> dict[str, np.ndarray]:
        return {name: ratio.over(weights_WV) for name, ratio in overall.items()} | {
            name: _mean_over_classes(ratio, scores.truth_V, weights_WV) for name, ratio in class_means.items()
        }

    values = {name: float(value[0]) for name, value in figures(np.ones((1, inputs.num_videos))).items()}
    headline = tuple(name for name in values if "/video_" in name or name.endswith("/clip_acc@1"))

    def resample(weights_WV: np.ndarray) -> dict[str, np.ndarray]:
        resampled = figures(weights_WV)
        return {name: resampled[name] for name in headline}

    return MetricResult(
        values,
        {inputs.labels[label]: values_of(ratios(label)) for label in np.unique(scores.truth_V[labelled]).tolist()},
        notes,
        headline,
        resample,
    )


def _mean_over_classes(ratio: Ratio, truth_V: np.ndarray, weights_WV: np.ndarray) -> np.ndarray:
    """The mean (W,) over classes of the ratio of each class's videos, without classes that have none."""
    labelled = np.flatnonzero(truth_V >= 0)
    by_class = labelled[np.argsort(truth_V[labelled], kind="stable")]
    starts = np.flatnonzero(np.diff(truth_V[by_class], prepend=-1))
    weights_WV = np.asarray(weights_WV, dtype=np.float64)[:, by_class]
    part_WL = np.add.reduceat(weights_WV * ratio.part_V[by_class], starts, axis=1)
    whole_WL = np.add.reduceat(weights_WV * ratio.whole_V[by_class], starts, axis=1)
    return mean_of_known(np.divide(part_WL, whole_WL, out=np.full(part_WL.shape, np.nan), where=whole_WL > 0).T)
