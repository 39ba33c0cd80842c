"""Synthetic cart data: videos seen from inside a shopping cart with exactly known events, for the demo and for tests.

Products are taken into the basket, returned out of it, and rummaged about, while empty hands pass, the cart jerks, the
camera shakes and the light drifts. `synthesize` writes a native data set; it needs no input and no network, and the same
seed gives the same videos. Who needs the scenes without files calls `features.synthetic_motion.draw_scene`.
"""

import json
import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from features.synthetic_motion import draw_scene
from features.synthetic_scene import FPS, HEIGHT_PX, WIDTH_PX, Scene, render
from features.synthetic_schedule import LABELS
from vjepa_loc.errors import ConfigError

SPLIT_SHARES = {"train": 0.6, "val": 0.15, "test": 0.25}


def split_counts(num_videos: int) -> dict[str, int]:
    """How many of `num_videos` go to train, val and test: 60%, 15%, and the rest (66 gives 40, 10, 16)."""
    if num_videos < 1:
        raise ConfigError(f"synthesize: expected at least 1 video, got {num_videos}")
    train = max(1, round(SPLIT_SHARES["train"] * num_videos))
    val = min(round(SPLIT_SHARES["val"] * num_videos), num_videos - train)
    return {"train": train, "val": val, "test": num_videos - train - val}


def synthesize(
    out_dir: str | Path,
    num_videos: int | Mapping[str, int],
    seed: int = 0,
    num_workers: int | None = None,
    on_video: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes `out_dir/dataset.json` (native format) and `out_dir/videos/<id>.mp4`; returns the former's path.

    `num_videos` is a total, divided by `split_counts`, or the number per split. Video number i depends on `seed` and i
    alone. `num_workers` processes render (by default one per usable core; 1 renders in this process);
    `on_video(num_done, num_all)` is called after each video. The data set's file is written last, so that it never names
    a video that is not there. Raises ConfigError for counts that make no data set.
    """
    counts = split_counts(num_videos) if isinstance(num_videos, int) else dict(num_videos)
    if any(count < 0 for count in counts.values()) or sum(counts.values()) < 1 or "all" in counts:
        raise ConfigError(f"synthesize: expected at least 1 video in named splits (not 'all'), none negative, got {counts}")
    if seed < 0:
        raise ConfigError(f"synthesize: expected a seed of 0 or more, got {seed}")
    out_dir = Path(out_dir)
    (out_dir / "videos").mkdir(parents=True, exist_ok=True)
    dataset_file = out_dir / "dataset.json"
    dataset_file.unlink(missing_ok=True)
    splits = [split for split, count in counts.items() for _ in range(count)]
    jobs = [(str(out_dir), seed, index, split) for index, split in enumerate(splits)]
    num_workers = min(num_workers or _num_usable_cores(), len(jobs))
    entries = []
    if num_workers == 1:
        for job in jobs:
            entries.append(_make_video(job))
            if on_video:
                on_video(len(entries), len(jobs))
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(num_workers, mp_context=context) as pool:
            for entry in pool.map(_make_video, jobs):
                entries.append(entry)
                if on_video:
                    on_video(len(entries), len(jobs))
    document = {
        "format": "vjepa_loc",
        "version": 1,
        "labels": list(LABELS),
        "videos": [video for video, _ in entries],
        "events": [event for _, events in entries for event in events],
    }
    partial_file = dataset_file.with_suffix(".json.partial")
    partial_file.write_text(json.dumps(document), encoding="utf-8")
    os.replace(partial_file, dataset_file)
    return dataset_file


def write_video(scene: Scene, file: str | Path) -> None:
    """Renders a scene into an H.264 file (yuv420p), which appears under its name only when it is whole."""
    import av

    file = Path(file)
    partial_file = file.with_name(file.name + ".partial")
    with av.open(str(partial_file), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "21", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        for picture in render(scene):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    os.replace(partial_file, file)


def describe(scene: Scene, split: str) -> tuple[dict, list[dict]]:
    """The scene's entries in a native data set: its video and its events."""
    video = {
        "id": scene.video_id,
        "file": f"videos/{scene.video_id}.mp4",
        "fps": float(FPS),
        "num_frames": scene.num_frames,
        "width": WIDTH_PX,
        "height": HEIGHT_PX,
        "split": split,
    }
    events = [
        {
            "id": f"{scene.video_id}-{number}",
            "video_id": scene.video_id,
            "label": event.label,
            "start_frame": event.start_frame,
            "end_frame": event.end_frame,
            "boxes": {str(frame): list(box) for frame, box in event.boxes.items()},
        }
        for number, event in enumerate(scene.events)
    ]
    return video, events


def _make_video(job: tuple[str, int, int, str]) -> tuple[dict, list[dict]]:
    out_dir, seed, index, split = job
    scene = draw_scene(seed, index)
    write_video(scene, Path(out_dir) / "videos" / f"{scene.video_id}.mp4")
    return describe(scene, split)


def _num_usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
