"""A run that is killed at any moment leaves every file old or new, and a second run ends where an uninterrupted one ends."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from features.check_files import find_files
from features.check_partial import is_partial, partial_file
from features.check_quarantine import REASON_SUFFIX, FileState, Quarantine, replace_with
from features.check_run import CheckOptions, check_files
from tests.features.check_clips import write_cut

STEPS = ("link", "rename", "replace", "unlink", "fsync", "mkdir", "ftruncate", "utime", "open")


def killed_at(moment: int, work: Callable[[], object]) -> bool:
    """Runs `work` in a process that kills itself just before its `moment`-th step on the file system; whether it came to that."""
    pid = os.fork()
    if pid == 0:
        try:
            left = moment
            for name in STEPS:

                def step(*arguments, real=getattr(os, name), **options):
                    nonlocal left
                    left -= 1
                    if left == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return real(*arguments, **options)

                setattr(os, name, step)
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert status in (0, signal.SIGKILL), f"the work failed with status {status}"
    return status == signal.SIGKILL


def kept(folder: Path) -> dict[str, bytes]:
    """The files in a quarantine by name, without reasons and unfinished ones."""
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(REASON_SUFFIX) and not is_partial(path.name)
    }


@pytest.fixture(params=["one file system", "two file systems"])
def folders(request, tmp_path) -> Iterator[tuple[Path, Path]]:
    """Where the videos lie and where the quarantine does."""
    (tmp_path / "videos").mkdir()
    if request.param == "one file system":
        yield tmp_path / "videos", tmp_path / "quarantine"
        return
    shared_memory = Path("/dev/shm")
    if not shared_memory.is_dir() or shared_memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    other = shared_memory / f"check-videos-test-{os.getpid()}"
    yield tmp_path / "videos", other / "quarantine"
    shutil.rmtree(other, ignore_errors=True)


def test_a_swap_that_is_killed_at_any_step(folders):
    videos, quarantine = folders
    path, old, new = videos / "clip.mp4", b"old" * 1000, b"new" * 900

    def swap() -> None:
        if path.read_bytes() != new:
            with partial_file(path) as partial:
                partial.write_bytes(new)
                replace_with(partial, path, FileState(path), Quarantine(quarantine), {"reason": "a test"})

    moment, alive = 1, True
    while alive:
        shutil.rmtree(quarantine, ignore_errors=True)
        path.write_bytes(old)
        alive = killed_at(moment, swap)
        assert path.read_bytes() in (old, new), moment
        assert path.read_bytes() == old or kept(quarantine) == {"clip.mp4": old}, moment
        assert set(kept(quarantine).values()) <= {old}, moment
        swap()
        assert path.read_bytes() == new and kept(quarantine) == {"clip.mp4": old}, moment
        assert [file.name for file in videos.iterdir()] == ["clip.mp4"], moment
        assert not [file for file in quarantine.rglob("*") if is_partial(file.name)], moment
        moment += 1
    assert moment > 12


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("stride", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_a_whole_run_that_is_killed_at_any_step(folders, clip_writer, stride):
    videos, quarantine = folders
    originals = {"cut.mkv": write_cut(videos / "cut.mkv", 40).read_bytes(), "junk.mp4": b"no video" * 100}
    good = clip_writer(videos / "good.mp4", num_frames=3).read_bytes()
    options = CheckOptions(jobs=1, remux=True, replace=True, quarantine=Quarantine(quarantine), deadline_s=250)

    def run() -> list[str]:
        checks = check_files(find_files([videos], [quarantine]), options)
        return [f"{check.path.name}: {check.wrong} | {check.done}" for check in checks]

    def reset() -> None:
        shutil.rmtree(quarantine, ignore_errors=True)
        shutil.rmtree(videos)
        videos.mkdir()
        for name, content in (originals | {"good.mp4": good}).items():
            (videos / name).write_bytes(content)

    reset()
    run()
    repaired = (videos / "cut.mkv").read_bytes()
    assert repaired != originals["cut.mkv"] and kept(quarantine) == originals
    moment, alive = 1, True
    while alive:
        reset()
        alive = killed_at(moment, run)
        left, aside = {path.name: path.read_bytes() for path in videos.iterdir() if not is_partial(path.name)}, kept(quarantine)
        assert left.pop("good.mp4") == good, moment
        assert left.get("junk.mp4", aside.get("junk.mp4")) == originals["junk.mp4"], moment
        assert left["cut.mkv"] == originals["cut.mkv"] or len(left["cut.mkv"]) == len(repaired) and aside["cut.mkv"] == originals["cut.mkv"]
        assert all(originals[name] == content for name, content in aside.items()), moment
        done = run() if alive else []
        assert sorted(path.name for path in videos.iterdir()) == ["cut.mkv", "good.mp4"], (moment, done)
        assert kept(quarantine) == originals, (moment, done)
        moment += stride
    assert moment > 40
