"""Synthetic cart data: videos seen from inside a shopping cart with exactly known events, for the demo and for tests.

Products are taken into the basket, returned out of it, and rummaged about, while empty hands pass, the cart jerks, the
camera shakes and the light drifts. `synthesize` writes a native dataset; it needs no input and no network, and the same
seed gives the same bytes. Who needs scenes without files calls `features.synthetic_motion.draw_scene`.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from features.synthetic_motion import draw_scene
from features.synthetic_scene import FPS, HEIGHT_PX, WIDTH_PX, Scene, render
from features.synthetic_schedule import LABELS
from vjepa_loc.dataset import Dataset, Video, index_videos, read_dataset, write_dataset
from vjepa_loc.errors import ConfigError
from vjepa_loc.events import Event

SCENE_VERSION = 1
"""To be raised whenever the same seed gives other scenes or pictures, so that older files are made again."""

SPLIT_SHARES = {"train": 0.6, "val": 0.15, "test": 0.25}

_RECIPE_KEY = "synthetic"
# Measured: with x264's macroblock tree the same frames of this size give other bytes on some of the runs.
_ENCODER_OPTIONS = {"preset": "veryfast", "crf": "22", "threads": "1", "x264-params": "mbtree=0"}


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
    `on_video(num_done, num_all)` is called after each video. The dataset's file is written last, so that it never names
    a video that is not there; where it already names all that is asked for, nothing is made again.

    Raises ConfigError for counts that make no dataset, or where `out_dir` holds a dataset that is not synthetic.
    """
    counts = split_counts(num_videos) if isinstance(num_videos, int) else dict(num_videos)
    if any(count < 0 for count in counts.values()) or sum(counts.values()) < 1 or "all" in counts:
        raise ConfigError(f"synthesize: expected 1 or more videos, splits not named 'all', none negative, got {counts}")
    if seed < 0:
        raise ConfigError(f"synthesize: expected a seed of 0 or more, got {seed}")
    out_dir = Path(out_dir).resolve()
    dataset_file = out_dir / "dataset.json"
    recipe = {"version": SCENE_VERSION, "seed": seed, "videos": counts}
    if dataset_file.exists():
        if _is_made(dataset_file, recipe):
            return dataset_file
        dataset_file.unlink()
    (out_dir / "videos").mkdir(parents=True, exist_ok=True)
    splits = [split for split, count in counts.items() for _ in range(count)]
    jobs = [(out_dir / "videos", seed, index, split) for index, split in enumerate(splits)]
    videos: list[Video] = []
    events: list[Event] = []
    for video, video_events in _make_videos(jobs, min(num_workers or _num_usable_cores(), len(jobs))):
        videos.append(video)
        events.extend(video_events)
        if on_video:
            on_video(len(videos), len(jobs))
    write_dataset(Dataset(LABELS, index_videos(videos), events, extra={_RECIPE_KEY: recipe}), dataset_file)
    return dataset_file


def write_video(scene: Scene, file: str | Path) -> None:
    """Renders a scene into an H.264 file (yuv420p), which appears under its name only when it is whole."""
    import av

    file = Path(file)
    partial_file = file.with_name(file.name + ".partial")
    with av.open(str(partial_file), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options=_ENCODER_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        for picture in render(scene):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    os.replace(partial_file, file)


def describe(scene: Scene, file: str | Path, split: str) -> tuple[Video, list[Event]]:
    """The scene as an entry of a dataset: the video, written at `file`, and its events."""
    video = Video(scene.video_id, Path(file).resolve(), float(FPS), scene.num_frames, WIDTH_PX, HEIGHT_PX, split)
    events = [
        Event(
            scene.video_id,
            event.label,
            event.start_frame,
            event.end_frame,
            list(event.boxes),
            list(event.boxes.values()),
            id=f"{scene.video_id}-{number}",
        )
        for number, event in enumerate(scene.events)
    ]
    return video, events


def _is_made(dataset_file: Path, recipe: dict) -> bool:
    """Whether the file and the videos it names are what `recipe` makes. Raises ConfigError if it is not synthetic."""
    dataset = read_dataset(dataset_file)
    if _RECIPE_KEY not in dataset.extra:
        raise ConfigError(f"synthesize: {dataset_file} is a dataset of another origin; expected a folder without one")
    return dataset.extra[_RECIPE_KEY] == recipe and all(video.file.is_file() for video in dataset.videos.values())


def _make_videos(jobs: list[tuple], num_workers: int) -> Iterator[tuple[Video, list[Event]]]:
    if num_workers == 1:
        yield from map(_make_video, jobs)
        return
    # Spawned, not forked: the caller may have threads (torch, a progress bar) whose locks a fork would copy.
    with ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_make_video, jobs)


def _make_video(job: tuple[Path, int, int, str]) -> tuple[Video, list[Event]]:
    folder, seed, index, split = job
    scene = draw_scene(seed, index)
    file = folder / f"{scene.video_id}.mp4"
    write_video(scene, file)
    return describe(scene, file, split)


def _num_usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
