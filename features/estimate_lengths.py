"""How long the videos of a dataset are, and how fast one core decodes them: asked of the dataset, else of the files' headers.

Headers are wrong now and then, and a dataset may have more videos than anyone wants to open for an estimate: how much of the
answer is stated, read, computed from a duration, or inferred from the other videos is part of the answer.
"""

import dataclasses
import json
import os
import random
import select
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from features.recipe import ExtractConfig
from features.schema import Encoding
from vjepa_loc.dataset import Video

# Of videos without a stated length so many are opened, drawn at random; the others are inferred from their file sizes.
MOST_PROBED = 300
PROBE_DEADLINE_S = 15.0
DECODE_VIDEOS = 5
_START_DEADLINE_S = 120.0
_PROJECT_FOLDER = Path(__file__).resolve().parents[1]


class ProbeProcess:
    """A child that opens videos; killed and started anew where it does not answer. A context manager."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._kill()

    def ask(self, request: dict[str, Any], deadline_s: float) -> dict[str, Any]:
        """The answer; `{"error": ...}` where the video cannot be opened, or the child died or hung on it."""
        is_new = self._process is None
        if is_new:
            self._start()
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            ready, _, _ = select.select([self._process.stdout], [], [], deadline_s + (_START_DEADLINE_S if is_new else 0.0))
            line = self._process.stdout.readline() if ready else None
        except OSError:
            line = b""
        if not line:
            self._kill()
            return {"error": "opening it took too long" if line is None else "the process that opened it died"}
        return json.loads(line)

    def _start(self) -> None:
        path = os.pathsep.join([str(_PROJECT_FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])])
        # -P: a folder named like one of our packages in the current folder must not be imported instead.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "features.estimate_child"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.stdin.close()
            process.stdout.close()
            process.wait(5.0)


@dataclasses.dataclass(frozen=True)
class KnownLengths:
    """The videos that can be opened, each with `num_frames` and `fps`; and how these came to be known.

    Of the videos, `num_stated` have the dataset's length, `num_header` that of their header, `num_duration` that of their duration times
    their rate, and `num_inferred` one inferred from other videos. `unreadable` maps ids to reasons; they are not among `videos`.
    """

    videos: tuple[Video, ...]
    num_stated: int
    num_header: int
    num_duration: int
    num_inferred: int
    unreadable: dict[str, str]

    def notes(self) -> list[str]:
        """Lines for a person about what is not certain."""
        lines = []
        unstated = self.num_header + self.num_duration + self.num_inferred
        if unstated:
            parts = [f"{self.num_header:,} from headers, which are not always right" if self.num_header else "",
                     f"{self.num_duration:,} from duration x rate" if self.num_duration else "",
                     f"{self.num_inferred:,} inferred from the others" if self.num_inferred else ""]
            lines.append(f"lengths that the dataset does not state: {', '.join(filter(None, parts))}")
        if self.unreadable:
            video_id, reason = next(iter(self.unreadable.items()))
            more = f" (and {len(self.unreadable) - 1:,} more)" if len(self.unreadable) > 1 else ""
            lines.append(f"cannot be opened and not counted: {video_id}: {reason}{more}")
        return lines


def known_lengths(
    videos: Sequence[Video], needs_fps: bool, on_video: Callable[[int, int], object] = lambda done, of: None,
    most: int = MOST_PROBED, jobs: int = 2,
) -> KnownLengths:
    """The lengths of `videos`; `needs_fps` where frames are sampled by time. Opens at most `most` files, `jobs` at once."""
    stated = {video.id: video for video in videos if video.num_frames is not None and (video.fps is not None or not needs_fps)}
    open_questions = [video for video in videos if video.id not in stated]
    drawn = open_questions if len(open_questions) <= most else random.Random(0).sample(open_questions, most)
    answers = _probe_all(drawn, jobs, on_video)
    found, unreadable, counts = dict(stated), {}, {"header": 0, "duration": 0, "inferred": 0}
    for video, answer in zip(drawn, answers, strict=True):
        if "error" in answer:
            unreadable[video.id] = answer["error"]
            continue
        num_frames, how = video.num_frames or answer["num_frames"], "header"
        if not num_frames and answer["duration_s"]:
            num_frames, how = max(1, round(answer["duration_s"] * (video.fps or answer["fps"]))), "duration"
        if num_frames:
            counts[how] += 1
            found[video.id] = video.resolved(answer["fps"], num_frames, answer["width"], answer["height"])
    rest = [video for video in open_questions if video.id not in found and video.id not in unreadable]
    for video in _inferred(rest, list(found.values())):
        counts["inferred"] += 1
        found[video.id] = video
    kept = tuple(found[video.id] for video in videos if video.id in found)
    return KnownLengths(kept, len(stated), counts["header"], counts["duration"], counts["inferred"], unreadable)


def _probe_all(videos: Sequence[Video], jobs: int, on_video: Callable[[int, int], object]) -> list[dict[str, Any]]:
    if not videos:
        return []
    answers: list[dict[str, Any]] = [{}] * len(videos)
    num_done = 0

    def probe_share(first: int) -> None:
        nonlocal num_done
        with ProbeProcess() as process:
            for index in range(first, len(videos), jobs):
                video = videos[index]
                if video.file is None:
                    answers[index] = {"error": "the dataset names no file for it"}
                else:
                    answers[index] = process.ask({"path": str(video.file), "fps": video.fps}, PROBE_DEADLINE_S)
                num_done += 1
                on_video(num_done, len(videos))

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(probe_share, range(min(jobs, len(videos)))))
    return answers


def _inferred(videos: Sequence[Video], known: Sequence[Video]) -> list[Video]:
    """`videos` with the frames per byte of the known ones, or, where sizes are not to be had, with their mean length."""
    if not known:
        return []
    sizes = {video.id: _file_size(video) for video in [*videos, *known]}
    measured = [(video.num_frames, sizes[video.id]) for video in known if sizes[video.id]]
    mean = sum(video.num_frames for video in known) / len(known)
    per_byte = sum(frames for frames, _ in measured) / sum(size for _, size in measured) if measured else None
    rates = sorted(video.fps for video in known if video.fps)
    fps = rates[len(rates) // 2] if rates else 25.0
    sample = known[len(known) // 2]
    lengths = {video.id: sizes[video.id] * per_byte if sizes[video.id] and per_byte else mean for video in videos}
    return [video.resolved(fps, max(1, round(lengths[video.id])), sample.width, sample.height) for video in videos]


def _file_size(video: Video) -> int:
    try:
        # A folder of images has no size of its own.
        return video.file.stat().st_size if video.file is not None and video.file.is_file() else 0
    except OSError:
        return 0


def decode_rate(videos: Sequence[Video], encoding: Encoding, recipe: ExtractConfig, seconds: float) -> float | None:
    """Frames per second that one core decodes and resizes, over some of `videos` drawn at random; None where none can be decoded."""
    with_file = [video for video in videos if video.file is not None]
    drawn = random.Random(1).sample(with_file, min(DECODE_VIDEOS, len(with_file)))
    prepare = {
        "fit": encoding.fit, "input_height": encoding.input_hw[0], "input_width": encoding.input_hw[1],
        "patch_px": encoding.patch_px,
        "frame_step": encoding.frame_step, "sample_fps": encoding.sample_fps,
    }
    num_frames, cpu_s = 0, 0.0
    with ProbeProcess() as process:
        for video in drawn:
            share_s = seconds / len(drawn)
            request = {"path": str(video.file), "fps": video.fps, "decoder": recipe.decoder, "seconds": share_s, "prepare": prepare}
            answer = process.ask(request, share_s + recipe.deadline_s)
            num_frames += answer.get("frames", 0)
            cpu_s += answer.get("cpu_s", 0.0)
    return num_frames / cpu_s if num_frames and cpu_s else None
