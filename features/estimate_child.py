"""The process that opens videos for `cli.py estimate`: `python -m features.estimate_child`, one JSON line in, one out.

A process because a decoder can hang or crash on a broken file; `features.estimate_lengths` starts and kills it.
"""

import json
import sys
import time
from typing import Any


def main() -> None:
    """Serve until standard input ends."""
    import torch

    torch.set_num_threads(1)
    # A library that prints must not print between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = _decode(request) if "seconds" in request else _probe(request)
        except Exception as error:
            # Whatever a decoder raises on a broken file is an answer about that file.
            answer = {"error": " ".join(str(error).split()) or type(error).__name__}
        print(json.dumps(answer), file=answers, flush=True)


def _probe(request: dict[str, Any]) -> dict[str, Any]:
    from features.decode import probe_video

    info = probe_video(request["path"], request["fps"])
    return {
        "num_frames": info.num_frames_in_header, "fps": float(info.fps), "duration_s": info.duration_s, "width": info.width, "height": info.height,
    }


def _decode(request: dict[str, Any]) -> dict[str, Any]:
    """Decodes and resizes, as for an extraction, for so many seconds at most."""
    from features.decode import open_video
    from features.decode_protocol import Prepare
    from features.preprocess import resize_uint8
    from features.sampling import FrameSampler

    prepare = Prepare(**request["prepare"])
    sampler, num_frames = FrameSampler(prepare.frame_step, prepare.sample_fps), 0
    with open_video(request["path"], request["decoder"], request["fps"]) as reader:
        space_grid = prepare.space_grid(reader.info)
        start_s, start_cpu_s = time.monotonic(), time.process_time()

        def wanted(index: int, time_s: float) -> bool:
            nonlocal num_frames
            num_frames = index + 1
            # A frame that is not sampled is not given out: the time is looked at here.
            if time.monotonic() - start_s > request["seconds"]:
                raise _TimeUp
            return sampler.takes(index, time_s)

        try:
            for frame in reader.frames(wanted):
                resize_uint8(frame.rgb_HW3[None], space_grid)
        except _TimeUp:
            # The frame it was asked about is not counted.
            num_frames -= 1
    return {"frames": num_frames, "cpu_s": time.process_time() - start_cpu_s}


class _TimeUp(Exception):
    pass


if __name__ == "__main__":
    main()
