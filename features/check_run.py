"""Checks many files at once: a thread and a process that can be killed for each job; and does what it was told to with them."""

import os
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from features.check import CHILD, DEADLINE_S, VideoCheck, described, without_path
from features.check_files import FileToCheck
from features.check_partial import remove_stale
from features.check_protocol import AskDecord, Look, Looked, Testimony
from features.check_quarantine import FileState, Quarantine
from features.check_repair import faults_of, repair
from features.frame_hashes import hash_file_name, write_frame_hashes
from features.killable_child import KillableChild, Stopped
from vjepa_loc.errors import ConfigError, DecodeTimeoutError, VideoError

_LINK = "reached through a link, which is never changed; give the file itself"


@dataclass(frozen=True)
class CheckOptions:
    """What is asked for. Nothing is written or moved unless `remux`, `quarantine` or `hash_folder` says so."""

    jobs: int | None = None
    remux: bool = False
    replace: bool = False
    quarantine: Quarantine | None = None
    hash_folder: Path | None = None
    cross_check: bool = False
    deadline_s: float = DEADLINE_S

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise ConfigError(f"--jobs: expected 1 or more, got {self.jobs}")
        if self.replace and not self.remux:
            raise ConfigError("--replace puts copies that --remux made into the place of files; give --remux too")
        if self.replace and self.quarantine is None:
            raise ConfigError("--replace keeps the original files in a quarantine; say where with --quarantine DIR")

    @property
    def digests(self) -> bool:
        return self.remux or self.cross_check or self.hash_folder is not None

    @property
    def num_jobs(self) -> int:
        # Where the system can say it, the cores that this process may use.
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return self.jobs or usable or 1


def check_files(
    files: Sequence[FileToCheck], options: CheckOptions, on_file: Callable[[int, int], object] = lambda number, num_all: None
) -> list[VideoCheck]:
    """One answer per file, in their order. `on_file(n, all)` is called when n files are done.

    Never raises for what is wrong with a file. An interruption ends the processes at once; a file that is being replaced then is
    replaced in full.
    """
    answers: list[VideoCheck | None] = [None] * len(files)
    groups: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
    for group in _groups(files):
        groups.put(group)
    lock, failures = threading.Lock(), []
    num_done = 0
    children = [KillableChild(CHILD, options.deadline_s) for _ in range(max(1, min(options.num_jobs, groups.qsize())))]

    def work(child: KillableChild) -> None:
        nonlocal num_done
        try:
            with child:
                while not failures:
                    group = groups.get_nowait()
                    for index, answer in zip(group, _check_group(child, [files[index] for index in group], options), strict=True):
                        with lock:
                            answers[index] = answer
                            num_done += 1
                            on_file(num_done, len(files))
        except (queue.Empty, Stopped):
            return
        except BaseException as error:
            failures.append(error)

    on_file(0, len(files))
    threads = [threading.Thread(target=work, args=(child,), name="check") for child in children]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException as error:
        failures.append(error)
        for child in children:
            child.stop()
        for thread in threads:
            thread.join()
        raise
    if failures:
        raise failures[0]
    return answers


def _groups(files: Sequence[FileToCheck]) -> list[list[int]]:
    """Names of one file, which one process takes one after the other; the name that may be changed comes first."""
    names: dict[str, list[int]] = {}
    for index, file in enumerate(files):
        names.setdefault(f"no file {index}" if file.path is None else os.path.realpath(file.path), []).append(index)
    return [sorted(group, key=lambda index: files[index].through_link) for group in names.values()]


def _check_group(child: KillableChild, files: Sequence[FileToCheck], options: CheckOptions) -> list[VideoCheck]:
    first, *others = files
    answers = [check_file(child, first, options)]
    for file in others:
        if file.stated is not None:
            unchanged = replace(options, remux=False, replace=False, quarantine=None)
            answers.append(check_file(child, file, unchanged))
        elif file.fault or file.left_out:
            answers.append(check_file(child, file, options))
        else:
            answers.append(replace(answers[0], path=file.path, done=f"the same file as {first.path}"))
    return answers


def check_file(child: KillableChild, file: FileToCheck, options: CheckOptions) -> VideoCheck:
    """Never raises for what is wrong with the file: that is in the answer. Raises Stopped."""
    video_id, path = file.stated.id if file.stated else None, file.path
    if file.stale and options.remux and not file.through_link:
        gone = remove_stale(path)
        done = "removed" if gone else "another check-videos is at work on it"
        return VideoCheck(path, None, video_id, left_out=file.left_out, done=done)
    if file.fault or file.left_out:
        return VideoCheck(path, file.fault, video_id, left_out=file.left_out)
    absolute = path.absolute()
    nominal_fps = file.stated.fps if file.stated else None
    looked: Looked | None = None
    problem, hopeless, state = "", False, None
    try:
        state = FileState(absolute)
        looked = child.ask(path, Look(str(absolute), nominal_fps, options.digests))
    except (VideoError, DecodeTimeoutError) as error:
        # What may pass, such as a disk that does not answer, is no reason to move a file.
        problem, hopeless = str(error), not error.passing
    except OSError as error:
        problem = f"{path}: cannot be read ({error.strerror})"
    done = []
    if options.remux and absolute.is_file() and (hopeless or looked and (faults_of(looked) or looked.oddities)):
        if file.through_link:
            done.append(f"not repaired: {_LINK}")
        else:
            repaired = repair(child, absolute, looked, state, nominal_fps, options.quarantine if options.replace else None)
            useless = repaired.done.startswith("not repaired") and looked is None and without_path(problem, absolute)
            done.append("not repaired: there is nothing to copy" if useless and useless in repaired.done else repaired.done)
            looked = repaired.looked or looked
            # With a whole copy beside it, the file is left for a person to compare.
            hopeless = hopeless and repaired.done.startswith("not repaired")
    if looked is None:
        if hopeless and options.quarantine is not None and absolute.is_file():
            done.append(_LINK if file.through_link else _moved(absolute, state, options.quarantine, problem))
        return VideoCheck(path, problem, video_id, done="; ".join(done))
    answer = described(path, file.stated, looked, tuple(faults_of(looked)))
    if options.cross_check and looked.info.container != "images":
        answer = replace(answer, testimony=_testimony(child, path, absolute, looked, nominal_fps))
    if options.hash_folder is not None:
        target = options.hash_folder / hash_file_name(path)
        try:
            write_frame_hashes(target, looked)
            answer = replace(answer, hash_file=target)
        except OSError as error:
            done.append(f"hashes not written ({error.strerror or error})")
    return replace(answer, done="; ".join(done))


def _testimony(child: KillableChild, path: Path, absolute: Path, looked: Looked, nominal_fps: float | None) -> Testimony:
    try:
        return child.ask(path, AskDecord(str(absolute), looked.digests, nominal_fps))
    except (VideoError, DecodeTimeoutError) as error:
        # decord hung, or took its process with it.
        return Testimony("no answer", without_path(str(error), absolute))


def _moved(path: Path, state: FileState, quarantine: Quarantine, problem: str) -> str:
    try:
        place = quarantine.take(path, state, {"reason": "cannot be used", "was_wrong": problem})
    except (OSError, VideoError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return f"not moved into the quarantine: {reason}"
    return f"moved to {place}"
