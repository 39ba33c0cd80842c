"""Every kind of video file of which a decoder is known to make something else than its frames, and plain ones beside them.

`CLIPS` maps a file name to its `Clip`; `Clip.make(folder)` writes it. Tests and `benchmarks/decoding.py` go over the same ones.
"""

from benchmarks import decoding_clips_broken, decoding_clips_codecs, decoding_clips_containers
from benchmarks.decoding_clip import Clip


def _catalogue() -> dict[str, Clip]:
    modules = (decoding_clips_codecs, decoding_clips_containers, decoding_clips_broken)
    clips = [clip for module in modules for clip in module.clips()]
    names = [clip.name for clip in clips]
    if len(set(names)) < len(names):
        raise ValueError(f"clips: names that stand twice: {sorted({name for name in names if names.count(name) > 1})}")
    return {clip.name: clip for clip in clips}


CLIPS = _catalogue()
