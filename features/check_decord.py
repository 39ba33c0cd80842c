"""decord as a witness: an independent build of FFmpeg with its own way of reading, asked for every pixel of every frame.

It is asked also where it is known not to be exact (`DecordReader` refuses those files), so that what it does there is seen;
such a difference is marked as known. First its frames are hashed as fast as they come, because decord decodes ahead without limit and
keeps what nobody has taken; only where a hash differs are both decoders run side by side to measure how much.
"""

import contextlib
import hashlib
import os
import re
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from features.check_protocol import DIGEST_BYTES, AskDecord, Testimony
from features.decode import open_video
from features.decoders.decord_reader import USE_PYAV
from vjepa_loc.errors import ConfigError, VideoError

# Comparing is slower than decoding; what decord has decoded meanwhile waits in memory.
MOST_MEMORY_BYTES = 2 << 30
REFUSED = "refused for decord, which is not exact on such files: "


def ask_decord(request: AskDecord, alive: Callable[[], object]) -> Testimony:
    """Never raises for what decord does: that is the testimony. Raises VideoError where PyAV cannot read the file again."""
    try:
        import decord
    except ImportError:
        return Testimony("no answer", "decord is not installed; this machine may have no package of it")
    path, num_frames = Path(request.path), len(request.digests) // DIGEST_BYTES
    known = _known_inexact(path, request)
    num_given = num_differing = 0
    first: int | None = None
    raised = ""
    try:
        for index, rgb_HW3 in enumerate(_frames(decord, path)):
            alive()
            num_given += 1
            expected = request.digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
            # Frames beyond the last are counted, and differ from nothing.
            if expected and hashlib.sha256(rgb_HW3).digest() != expected:
                num_differing += 1
                first = index if first is None else first
    except (decord.DECORDError, RuntimeError) as error:
        raised = _reason(error, path)
    if not num_given:
        return Testimony("no answer", f"decord raises: {raised}" if raised else "decord gives no frame", known)
    if raised:
        text = f"decord raises after {num_given} of {num_frames} frames: {raised}"
    elif num_given != num_frames:
        text = f"decord gives {num_given} frames, not {num_frames}"
        first = min(num_given, num_frames) if first is None else first
    else:
        text = ""
    if first is None:
        return Testimony("no answer" if raised else "same", text, known, num_given, 0)
    greatest, complete = _greatest_difference(decord, path, request, alive) if num_differing else (None, True)
    if num_differing:
        seen = "" if complete else f" of the frames up to {MOST_MEMORY_BYTES >> 30} GiB of memory"
        how = "other frame sizes" if greatest is None else f"by {greatest} of 255 levels at most{seen}"
        text = f"{text + '; ' if text else ''}{num_differing} frames differ, first frame {first}, {how}"
    return Testimony("differs", text, known, num_given, num_differing, first, greatest)


def _known_inexact(path: Path, request: AskDecord) -> str | None:
    """Why `DecordReader` would not take the file, where that is its kind."""
    try:
        with open_video(path, "decord", request.nominal_fps) as reader:
            return "frames one pixel wide or high" if 1 in (reader.info.width, reader.info.height) else None
    except (VideoError, ConfigError) as error:
        message = str(error).removesuffix(USE_PYAV)
        return message.partition(REFUSED)[2] or None


def _frames(decord, path: Path) -> Iterator[np.ndarray]:
    """uint8 (H, W, 3) of each frame that decord gives, read once from start to end with one thread."""
    reader = decord.VideoReader(str(path.absolute()), ctx=decord.cpu(0), num_threads=1)
    for _ in range(len(reader)):
        try:
            yield np.ascontiguousarray(reader.next().asnumpy())
        except StopIteration:
            return


def _greatest_difference(decord, path: Path, request: AskDecord, alive: Callable[[], object]) -> tuple[int | None, bool]:
    """The greatest difference of a level, None where sizes differ; and whether all frames were compared."""
    greatest = 0
    theirs = _frames(decord, path)
    with open_video(path, "pyav", request.nominal_fps) as reader:
        for ours in reader:
            alive()
            try:
                their_HW3 = next(theirs, None)
            except (decord.DECORDError, RuntimeError):
                break
            if their_HW3 is None:
                break
            if their_HW3.shape != ours.rgb_HW3.shape:
                return None, True
            # The smaller from the larger, so that bytes do not wrap around.
            difference = np.maximum(ours.rgb_HW3, their_HW3) - np.minimum(ours.rgb_HW3, their_HW3)
            greatest = max(greatest, int(difference.max()))
            if _resident_bytes() > MOST_MEMORY_BYTES:
                return greatest, False
    return greatest, True


def _resident_bytes() -> int:
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    # Without /proc the peak has to do.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _reason(error: Exception, path: Path) -> str:
    lines = str(error).replace(f"[{path.absolute()}]", "").strip().splitlines()
    # Without the times and places in decord's sources that its messages begin with.
    return re.sub(r"\[[\d:]+\] \S+\.cc:\d+: ", "", lines[0])[:160].strip() if lines else type(error).__name__
