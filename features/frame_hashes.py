"""A file with the sha256 of every frame: RGB24 at full size, in presentation order, as displayed.

The layout is that of FFmpeg's `framehash` (version 2), so that for a video of 8 bits that is not interlaced

    ffmpeg -i FILE -map 0:v:0 -fps_mode passthrough -pix_fmt rgb24 -f framehash -hash sha256 -

prints the same hashes; times are in microseconds from the first frame. Files whose last columns agree hold the same pictures.
"""

import hashlib
import os
import re
from pathlib import Path

import numpy as np

from features.check_partial import write_whole
from features.check_protocol import Looked

SUFFIX = ".framehash"
# Names of 255 bytes are the longest that file systems take.
MOST_NAME_BYTES = 150


def hash_file_name(path: Path) -> str:
    """A file name for the hashes of `path`: its own name, and 16 digits that tell equal names of different folders apart."""
    name = re.sub(rb"[^A-Za-z0-9._~-]", lambda found: b"%%%02X" % found[0][0], os.fsencode(path.name))[:MOST_NAME_BYTES].decode()
    return f"{name}.{hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:16]}{SUFFIX}"


def write_frame_hashes(target: Path, looked: Looked) -> None:
    """Writes the hashes of a video that was looked at with digests; the whole file or none of it. Raises OSError."""
    info, size = looked.info, looked.info.width * looked.info.height * 3
    times_us = np.round(looked.frame_time_s * 1e6).astype(np.int64).tolist()
    periods_us = [*np.diff(times_us).tolist(), round(1e6 / float(info.fps))]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(looked.versions.items()))
    lines = [
        "#format: frame checksums", "#version: 2", "#hash: SHA256", f"#software: {versions}",
        f"#source: {looked.source.size} bytes, sha256 {looked.source.sha256}",
        "#tb 0: 1/1000000", "#media_type 0: video", "#codec_id 0: rawvideo", f"#dimensions 0: {info.width}x{info.height}",
        f"#rotation 0: {info.rotation}", "#stream#, dts,        pts, duration,     size, hash",
    ]
    for frame, (time_us, period_us) in enumerate(zip(times_us, periods_us, strict=True)):
        lines.append(f"0, {time_us:10}, {time_us:10}, {period_us:8}, {size:8}, {looked.digest(frame).hex()}")
    write_whole(target, "\n".join(lines) + "\n")


def read_frame_hashes(path: Path) -> list[str]:
    """The hash of each frame."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.rsplit(",", 1)[1].strip() for line in lines if line and not line.startswith("#")]
