"""Repairing a video by copying its packets into a new container, judged by decoding the copy.

A copy is better only if it gives every frame that the file gives, bit for bit where that had no error, at the same times
unless those were wrong, and has less that is wrong. A stream copy mends an index, a header, times and edit lists, not packets.
"""

import os
import shutil
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from features.check_oddities import INEXACT_CONTAINERS
from features.check_partial import partial_file, partial_of, remove_stale
from features.check_protocol import Look, Looked, Remux, Remuxed
from features.check_quarantine import FileState, Quarantine, publish, replace_with
from features.decoders.pyav_reader import BARE_CONTAINERS
from features.killable_child import KillableChild
from vjepa_loc.errors import DecodeTimeoutError, VideoError

# Codecs that every player expects in an mp4; others go into Matroska.
MP4_CODECS = frozenset({"h264", "hevc", "mpeg4", "av1"})
# Rates of a file whose frames are nearly all evenly spaced, and the few others are the fault.
EVEN_SHARE = 0.9
# Matroska counts milliseconds.
TIME_TOLERANCE_S = 0.002
MIN_PACKET_TIMES = 3


@dataclass(frozen=True)
class Repair:
    """What came of it. `done` is a sentence; `looked` describes the file that is now in the video's place, if one is."""

    done: str
    looked: Looked | None = None


def faults_of(looked: Looked | None) -> list[str]:
    """What is wrong with a video that `looked` describes, and what a remux could be good for, in words."""
    if looked is None:
        return ["it cannot be decoded"]
    faults = list(looked.damage.messages) if looked.damage else []
    if looked.times_made_up and looked.info.container not in BARE_CONTAINERS and looked.info.container != "images":
        faults.append("frames without a time, or with one that goes back")
    return faults


def repair(
    child: KillableChild, path: Path, before: Looked | None, state: FileState, nominal_fps: float | None,
    replace: Quarantine | None,
) -> Repair:
    """Writes a better copy of `path` if there is one: beside it, or into its place with the original in `replace`.

    `before`, with digests, is None for a file that cannot be decoded. Never raises for what is wrong with the file or its folder.
    """
    try:
        return _repair(child, path, before, state, nominal_fps, replace)
    except (VideoError, DecodeTimeoutError) as error:
        return Repair(f"not repaired: {str(error).removeprefix(f'{path}: ')}")
    except OSError as error:
        return Repair(f"not repaired: {path.parent} cannot be written ({error.strerror or error})")


def _repair(
    child: KillableChild, path: Path, before: Looked | None, state: FileState, nominal_fps: float | None,
    replace: Quarantine | None,
) -> Repair:
    state.check()
    muxer, suffix = _muxer_of(path, before)
    in_place = replace is not None and suffix == path.suffix
    target = path if in_place else path.with_name(f"{path.stem}.remuxed{suffix}")
    if not in_place and os.path.lexists(target):
        return _judge_existing(child, path, target, before, nominal_fps)
    reasons = []
    with partial_file(target, path) as partial:
        for retimed in _plans(before):
            times = (before.frame_time_s, _even_rate(before)) if retimed else (None, None)
            try:
                remuxed: Remuxed = child.ask(path, Remux(str(path), str(partial), muxer, *times))
                after: Looked = child.ask(path, Look(str(partial), nominal_fps, digests=True))
            except (VideoError, DecodeTimeoutError) as error:
                reasons.append(str(error).removeprefix(f"{path}: ").removeprefix(f"{partial}: "))
                continue
            reason = why_not_better(before, after)
            if reason is None and remuxed.left_out and in_place:
                reason = f"the copy would lose {', '.join(remuxed.left_out)}"
            if reason is None:
                return _install(path, target, partial, before, after, state, replace if in_place else None, remuxed, retimed)
            reasons.append(reason)
    return Repair(f"not repaired: {'; '.join(dict.fromkeys(reasons))}")


def _install(
    path: Path, target: Path, partial: Path, before: Looked | None, after: Looked, state: FileState,
    quarantine: Quarantine | None, remuxed: Remuxed, retimed: bool,
) -> Repair:
    what = "packets copied into a new container" + (" with new times" if retimed else "")
    mended = "; ".join([*faults_of(before), *(before.oddities if before else ())])
    left = f"; left out: {', '.join(remuxed.left_out)}" if remuxed.left_out else ""
    if quarantine is None:
        state.check()
        shutil.copystat(path, partial)
        os.utime(partial)
        if not publish(partial, target):
            return Repair(f"not repaired: {target.name} appeared meanwhile")
        return Repair(f"{what}: {target.name} beside it{left}")
    digest = before.source.sha256 if before else None
    reason = {"reason": f"replaced by a repaired copy: {what}", "was_wrong": mended, "sha256": digest}
    place = replace_with(partial, path, state, quarantine, reason)
    return Repair(f"replaced: {what}; was: {mended}; original: {place}", after)


def _judge_existing(child: KillableChild, path: Path, target: Path, before: Looked | None, nominal_fps: float | None) -> Repair:
    """Of an earlier run, perhaps one that was killed before it could say so."""
    remove_stale(partial_of(target))
    after = child.ask(target, Look(str(target), nominal_fps, digests=True))
    reason = why_not_better(before, after)
    if reason is None:
        return Repair(f"a repaired copy is there: {target.name}")
    return Repair(f"not repaired: {target.name} is there and is not a better copy ({reason}); move it away")


def _muxer_of(path: Path, before: Looked | None) -> tuple[str, str]:
    """FFmpeg's muxer for the copy and its suffix: the file's own kind where that can be exact."""
    container = before.info.container if before else ""
    suffix = path.suffix.lower()
    if before and (container in INEXACT_CONTAINERS or container in BARE_CONTAINERS):
        return ("mp4", ".mp4") if before.codec in MP4_CODECS else ("matroska", ".mkv")
    if "mp4" in container.split(",") or (not before and suffix in (".mp4", ".m4v", ".mov")):
        return ("mov", path.suffix) if suffix == ".mov" else ("mp4", path.suffix or ".mp4")
    if "webm" in container.split(",") and suffix == ".webm":
        return "webm", path.suffix
    if "matroska" in container.split(","):
        return "matroska", path.suffix or ".mkv"
    return "matroska", ".mkv"


def _plans(before: Looked | None) -> list[bool]:
    """Whether to write the times of our reader instead of the container's: those first, unless they are known to be wrong."""
    if before is None:
        return [False]
    return [True, False] if before.times_made_up else [False, True]


def _even_rate(before: Looked) -> Fraction | None:
    """The rate of the frames where nearly all are evenly spaced, so that the others' times are the fault; else None."""
    if before.info.fps_nominal or before.num_frames < MIN_PACKET_TIMES:
        return before.info.fps
    period_s = float(1 / before.info.fps)
    even = np.abs(np.diff(before.frame_time_s) - period_s) <= 0.01 * period_s + TIME_TOLERANCE_S / 2
    return before.info.fps if even.mean() >= EVEN_SHARE else None


def why_not_better(before: Looked | None, after: Looked) -> str | None:
    """None where a copy is better than the file: see the module's docstring."""
    if before is None:
        faults = faults_of(after)
        return f"the copy is not whole either: {faults[0]}" if faults else None
    if after.num_frames < before.num_frames:
        return f"the copy gives {after.num_frames} frames, the file {before.num_frames}"
    if before.damage is None and after.digests != before.digests:
        return f"the copy gives other frames: {after.num_frames}, the file {before.num_frames}"
    if any(getattr(after.info, name) != getattr(before.info, name) for name in ("width", "height", "rotation")):
        return "the copy is turned or has another size"
    if not before.times_made_up:
        apart_s = np.abs(after.frame_time_s[: before.num_frames] - before.frame_time_s)
        if apart_s.max() > TIME_TOLERANCE_S:
            return f"the copy shows frame {int(apart_s.argmax())} {apart_s.max():.3f} s apart"
    if _badness(after) >= _badness(before):
        return "a copy has the same fault" if faults_of(before) else "a copy changes nothing"
    return None


def _badness(looked: Looked) -> tuple[int, int, int, int]:
    """What is wrong, the worst first."""
    return looked.num_errors, int(looked.damage is not None), int(looked.times_made_up), len(looked.oddities)
