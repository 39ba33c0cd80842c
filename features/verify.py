"""Is a store whole? Every byte that a commit names is checked, and what the arrays say is checked against each other.

Per video (`features/verify_video.py`): size and crc32c of every file, metadata included; files that nobody committed; each
chunk's crc32c; holes and values that are not finite; frames and times; and the pyramid against the decoded tokens, within
the error that the quantiser may make. For the store: its root, and every commit record. Nothing here needs a root that can be
read, so that damage there is reported as any other.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from features.checksum import crc32c_hex
from features.commits import Commit, CommitFolder, FileStamp
from features.places import Place, place_of
from features.store import open_store
from features.verify_video import group_files, wrong_bytes, wrong_video
from vjepa_loc.errors import ConfigError, CorruptStoreError, StoreError, nearest_name

ROOT_FILE = "tokens.zarr/zarr.json"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `file` is relative to the store; `video_id` is None where no video has to be extracted again
    for it, or where it cannot be told which.
    """

    video_id: str | None
    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}" + (f" (video {self.video_id!r})" if self.video_id else "")


@dataclass(frozen=True)
class VerifyReport:
    """What `verify_store` found. Of `num_videos` videos in the store the `checked` ones were read, `num_bytes` in all; of the
    others commits and sizes were compared. `seed` drew them, None where nothing was drawn.
    """

    problems: tuple[Problem, ...]
    num_videos: int
    checked: tuple[str, ...]
    num_bytes: int
    seed: int | None = None

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def video_ids(self) -> list[str]:
        """The videos that have to be extracted again, as far as their ids can still be read."""
        return sorted({problem.video_id for problem in self.problems if problem.video_id is not None})

    def with_problems(self, problems: Sequence[Problem]) -> "VerifyReport":
        """This report and further problems."""
        return replace(self, problems=(*self.problems, *problems))

    def summary(self) -> str:
        """A line per problem, and one that says what was looked at, for people."""
        drawn = "" if self.seed is None else f" (drawn by --seed {self.seed}, of the others commits and sizes)"
        checked = f"{len(self.checked)} of {self.num_videos} videos{drawn}, {self.num_bytes:,} bytes"
        return "\n".join([*map(str, self.problems), f"{checked}, {len(self.problems)} problems"])

    def to_dict(self) -> dict[str, Any]:
        """What `store verify --json` prints."""
        return {
            "ok": self.ok,
            "videos": self.num_videos,
            "checked": len(self.checked),
            "bytes": self.num_bytes,
            "seed": self.seed,
            "problems": [problem.__dict__ for problem in self.problems],
        }


def verify_store(
    path: Path | str, video_ids: Sequence[str] | None = None, *, sample: int | None = None, seed: int | None = None,
    on_video: Callable[[int, int], object] = lambda num_done, num_all: None,
) -> VerifyReport:
    """Checks every commit record of the store at `path` (a folder or a URL), and every byte of the given videos, or by default
    of all. With `sample`, of so many videos drawn by `seed` (a fresh one without), and the sizes of all others.
    `on_video(number done, number in all)` is called as it goes.

    Raises `StoreError` where there is no store, and for an unknown id.
    """
    if sample is not None and (video_ids is not None or sample < 1):
        raise ConfigError(f"sample: expected a number of videos from 1 on and no videos by name, got {sample}")
    place = place_of(path)
    found, wrong_records = read_commits(place)
    problems = _wrong_root(place, found, bool(wrong_records)) + wrong_records
    if video_ids is None:
        chosen, seed = _draw(sorted(found), sample, seed)
    else:
        chosen = [video_id for video_id in video_ids if _is_found(place, video_id, found)]
        seed = None
    checked_groups: set[tuple[str, FileStamp]] = set()
    num_bytes = 0
    for number, video_id in enumerate(chosen):
        commit = found[video_id]
        with place.folder_of(commit) as folder:
            problems += _wrong_groups(folder, commit, checked_groups)
            problems += [Problem(video_id, file, what) for file, what in wrong_video(folder, commit)]
        num_bytes += sum(stamp.size for stamp in commit.generation_files.values())
        on_video(number + 1, len(chosen))
    for video_id in sorted(found.keys() - set(chosen)) if sample is not None else ():
        problems += _wrong_sizes(place, found[video_id])
    problems += [Problem(None, file, "a file that no writer of this store made") for file in _strays(place)]
    # One line for one damaged file is enough.
    by_file = {(problem.video_id, problem.file): problem for problem in reversed(problems)}
    return VerifyReport(tuple(reversed(by_file.values())), len(found), tuple(chosen), num_bytes, seed)


def read_commits(place: Place) -> tuple[dict[str, Commit], list[Problem]]:
    """The valid commits by video id, and the records that are not valid."""
    commits, found, problems = CommitFolder(place), {}, []
    for entry in commits.files():
        try:
            commit = commits.load(entry.name)
            found[commit.video_id] = commit
        except CorruptStoreError as error:
            problems.append(Problem(None, entry.name, str(error)))
        except FileNotFoundError:
            # Replaced while it was listed, on a file system where that is two steps; or removed by its owner.
            continue
        except OSError as error:
            problems.append(Problem(None, entry.name, f"unreadable ({error.strerror})"))
    return found, problems


def _wrong_root(place: Place, found: dict[str, Commit], has_damaged_records: bool) -> list[Problem]:
    try:
        open_store(place.path)
    except StoreError as error:
        # A flipped bit may look like another version; what the root was is known to every commit.
        stamps = {commit.files["zarr.json"] for commit in found.values()}
        if isinstance(error, CorruptStoreError) or _is_changed(place, stamps) or (has_damaged_records and place.entry(ROOT_FILE) is None):
            return [Problem(None, ROOT_FILE, str(error))]
        raise
    return []


def _is_changed(place: Place, stamps: set[FileStamp]) -> bool:
    try:
        raw = place.read(ROOT_FILE)
    except FileNotFoundError:
        return bool(stamps)
    return any(stamp != FileStamp(len(raw), crc32c_hex(raw)) for stamp in stamps)


def _draw(video_ids: list[str], sample: int | None, seed: int | None) -> tuple[list[str], int | None]:
    if sample is None:
        return video_ids, None
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    return sorted(random.Random(seed).sample(video_ids, min(sample, len(video_ids)))), seed


def _is_found(place: Place, video_id: str, found: dict[str, Commit]) -> bool:
    if video_id in found:
        return True
    # A damaged record has its own line already.
    if place.entry(CommitFolder(place).file(video_id)) is not None:
        return False
    raise StoreError(f"the store {place.path} has no valid video {video_id!r}.{nearest_name(video_id, found)}")


def _wrong_groups(folder: Path, commit: Commit, checked: set[tuple[str, FileStamp]]) -> Iterator[Problem]:
    """The `zarr.json` above a video: most are common to all videos and are read once."""
    for name, stamp in group_files(commit).items():
        if (name, stamp) not in checked:
            checked.add((name, stamp))
            if what := wrong_bytes(folder / "tokens.zarr" / name, stamp):
                yield Problem(None, f"tokens.zarr/{name}", what)


def _wrong_sizes(place: Place, commit: Commit) -> Iterator[Problem]:
    expected = {f"tokens.zarr/{name}": stamp.size for name, stamp in commit.files.items()}
    try:
        sizes = place.sizes(expected)
    except OSError as error:
        yield Problem(commit.video_id, f"tokens.zarr/{commit.path}", f"unreadable ({error.strerror or error})")
        return
    for name, size in expected.items():
        if sizes.get(name) != size:
            yield Problem(commit.video_id, name, f"expected {size} bytes, got {sizes.get(name, 'no such file')}")


def _strays(place: Place) -> Iterator[str]:
    """Files beside the commit records and above the folders of videos."""
    for folder in ("commits", "tokens.zarr", "tokens.zarr/videos"):
        for entry in place.entries(folder):
            is_record = folder == "commits" and entry.name.endswith(".json")
            if not is_record and entry.name not in (ROOT_FILE, "tokens.zarr/videos/zarr.json"):
                yield entry.name
