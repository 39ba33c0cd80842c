"""How long scoring takes, at the size of the UCF101-24 test set: 910 videos, 1.3k truth tubes with 160k boxes, 3k predicted tubes with 300k boxes.

    python benchmarks/scoring.py                       every convention on its own, then `all`: seconds and peak memory of the whole command
    python benchmarks/scoring.py --metric tube_map     only these conventions (repeatable); `all` too
    python benchmarks/scoring.py --growth 1,2,4,8      how the time of each grows with the predictions, reading left out
    python benchmarks/scoring.py --make FOLDER         only writes truth.json and predictions.json there

Each figure is a fresh process `cli.py evaluate --predictions`, reading, bootstrap, diagnosis and report included, as a user runs it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

NUM_VIDEOS, NUM_LABELS, NUM_TRUTHS, NUM_PREDICTIONS = 910, 24, 1300, 3000
WIDTH, HEIGHT, FPS = 320, 240, 25.0


def make(folder: Path, times: int = 1, seed: int = 0) -> None:
    """Write truth and `times` as many predictions as usual; predictions are perturbed truth and, for a part, guesses."""
    from vjepa_loc.dataset import Dataset, Video, index_videos, write_dataset, write_predictions

    rng = np.random.default_rng(seed)
    labels = [f"class {index:02d}" for index in range(NUM_LABELS)]
    videos = [
        Video(f"v{index:03d}", fps=FPS, num_frames=int(rng.integers(80, 280)), width=WIDTH, height=HEIGHT, split="test", label=labels[index % NUM_LABELS])
        for index in range(NUM_VIDEOS)
    ]
    truths = []
    for index in range(NUM_TRUTHS):
        video = videos[index % NUM_VIDEOS]
        length = int(np.clip(rng.normal(135, 40), 8, video.num_frames))
        start = int(rng.integers(0, video.num_frames - length + 1))
        truths.append(tube(rng, video, video.label, start, start + length))
    predictions = []
    for index in range(NUM_PREDICTIONS * times):
        if rng.random() < 0.6:
            predictions.append(perturbed(rng, truths[int(rng.integers(len(truths)))], videos, labels))
        else:
            video = videos[int(rng.integers(len(videos)))]
            length = int(rng.integers(20, min(160, video.num_frames)))
            start = int(rng.integers(0, video.num_frames - length + 1))
            label = video.label if rng.random() < 0.5 else str(rng.choice(labels))
            predictions.append(tube(rng, video, label, start, start + length, 0.7 * rng.random()))
    dataset = Dataset(labels, index_videos(videos), truths)
    write_dataset(dataset, folder / "truth.json")
    write_predictions(predictions, dataset, folder / "predictions.json")


def tube(rng, video, label, start, end, score=None):
    """A box that wanders over every frame."""
    from vjepa_loc.events import Event

    frames = np.arange(start, end)
    size = rng.uniform(30, 120, 2)
    middle = rng.uniform(60, [WIDTH - 60, HEIGHT - 60]) + np.cumsum(rng.normal(0, 0.7, (len(frames), 2)), axis=0)
    boxes = np.hstack([middle - size / 2, middle + size / 2]).clip(0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    scores = None if score is None else np.clip(score + rng.normal(0, 0.05, len(frames)), 0, 1).round(6)
    return Event(video.id, label, start, end, frames, boxes.round(2), scores, score)


def perturbed(rng, truth, videos, labels):
    """A truth with other ends, other boxes, at times another label."""
    from vjepa_loc.events import Event

    num_frames = next(video.num_frames for video in videos[int(truth.video_id[1:]) :])
    start = int(np.clip(truth.start_frame + rng.normal(0, 8), 0, num_frames - 2))
    end = int(np.clip(truth.end_frame + rng.normal(0, 8), start + 1, num_frames))
    frames = np.arange(start, end)
    nearest = np.clip(frames - truth.box_frames_K[0], 0, truth.num_boxes - 1)
    boxes = (truth.boxes_K4[nearest] + rng.normal(0, 6, 4) + rng.normal(0, 1, (len(frames), 4))).round(2)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    score = float(rng.random())
    label = truth.label if rng.random() < 0.85 else str(rng.choice(labels))
    return Event(truth.video_id, label, start, end, frames, boxes, np.clip(score + rng.normal(0, 0.05, len(frames)), 0, 1).round(6), score)


def measure(folder: Path, metric: str, more: list[str]) -> tuple[float, float]:
    """Seconds and peak resident GB of one `cli.py evaluate`."""
    command = [sys.executable, str(ROOT / "cli.py"), "evaluate", "--dataset", "truth.json", "--predictions", "predictions.json"]
    began_s = time.perf_counter()
    process = subprocess.Popen([*command, "--split", "all", "--metric", metric, "--out", "out", *more], cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{metric}: cli.py evaluate ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - began_s, usage.ru_maxrss / 1e6


def growth(folder: Path, metrics: list[str], all_times: list[int]) -> list[dict]:
    """Seconds of `compute` alone at 1, 2, ... times the predictions, and those divided by what n log n would take."""
    from vjepa_loc.dataset import read_dataset, read_predictions
    from vjepa_loc.metric_names import compute_metrics
    from vjepa_loc.scoring_input import ScoringInput

    rows: dict[str, dict] = {metric: {"metric": metric} for metric in metrics}
    for times in all_times:
        make(folder, times)
        truth = read_dataset(folder / "truth.json")
        predictions = read_predictions(folder / "predictions.json", truth)
        for metric in metrics:
            runs_s = []
            for _ in range(3):
                began_s = time.perf_counter()
                compute_metrics(ScoringInput.of(truth, predictions), [metric])
                runs_s.append(time.perf_counter() - began_s)
            rows[metric][f"{times}x, s"] = float(np.median(runs_s))
    for row in rows.values():
        first, last = all_times[0], all_times[-1]
        n = NUM_PREDICTIONS * np.array([first, last])
        row["growth / n log n"] = row[f"{last}x, s"] / row[f"{first}x, s"] / (n[1] * np.log(n[1]) / (n[0] * np.log(n[0])))
    return list(rows.values())


def main() -> None:
    from vjepa_loc.metric_names import metric_conventions
    from vjepa_loc.metrics._result import metric_key

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metric", action="append", help="metric or convention; default: each, then all")
    parser.add_argument("--growth", help="multiples of the predictions, such as 1,2,4,8")
    parser.add_argument("--make", type=Path, help="only write the files into this folder")
    parser.add_argument("--times", type=int, default=1, help="multiple of the predictions")
    parser.add_argument("--bootstrap", help="as of cli.py evaluate")
    options = parser.parse_args()
    if options.make:
        make(options.make, options.times)
        return
    names = options.metric or [metric_key(*one) for one in metric_conventions(["all"])] + ([] if options.growth else ["all"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.growth:
            for row in growth(folder, names, [int(times) for times in options.growth.split(",")]):
                print(json.dumps({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}), flush=True)
            return
        make(folder, options.times)
        for metric in names:
            seconds, gigabytes = measure(folder, metric, ["--bootstrap", options.bootstrap] if options.bootstrap else [])
            print(f"{metric:28s} {seconds:7.1f} s {gigabytes:6.2f} GB", flush=True)


if __name__ == "__main__":
    main()
