"""`store repair`: whatever `store verify` finds wrong is put right, and nothing else is touched.

The `zarr.json` of the root and of the groups above the videos have bytes that follow from the encoding and are named by every
commit, so they are written again; a damaged video is extracted again from its file.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.checksum import crc32c_hex
from features.commits import FileStamp, key_of
from features.durable import storage_errors
from features.extract import ExtractReport, run_decisions
from features.encode_stage import Encoder
from features.outcome import Progress
from features.places import Place, place_of
from features.recipe import ExtractConfig
from features.resume import Action, Decision, changed_source
from features.schema import Encoding
from features.store import Store, find_store
from features.verify import ROOT_FILE, Problem, read_commits, verify_store
from features.verify_video import group_files
from features.zarr_layout import GROUP_BYTES, group_metadata, metadata_bytes, root_attributes
from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.errors import StoreMismatchError, VjepaLocError


@dataclass(frozen=True)
class RepairReport:
    """What `repair_store` did: files above the videos that were written again, videos that were extracted again, and what is
    left as it is because no extraction can help.
    """

    restored: tuple[str, ...]
    extracted: ExtractReport
    left: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        return not self.extracted.failed and not self.left

    def summary(self) -> str:
        """One line per file and video, and one with the numbers, for people."""
        lines = [f"restored {file}" for file in self.restored]
        lines += [f"{outcome.status} {outcome.video_id}: {outcome.reason}" for outcome in self.extracted.outcomes]
        lines += [f"left as it is: {problem}" for problem in self.left]
        done, failed = len(self.extracted.ids("done")), len(self.extracted.failed)
        lines.append(f"{len(self.restored)} files restored, {done} videos extracted again, {failed} failed, {len(self.left)} left")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """What `store repair --json` prints."""
        left = [problem.__dict__ for problem in self.left]
        return {"restored": list(self.restored), **self.extracted.to_dict(), "left": left}


def repair_store(
    dataset: Dataset, path: Path | str, encoder: Encoder, config: ExtractConfig, video_ids: Sequence[str] | None = None,
    on_progress: Callable[[Progress], object] = lambda progress: None,
) -> RepairReport:
    """Puts right what is wrong in the store at `path`, or in the given videos of it.

    A damaged video whose file has changed is refused or extracted again, as `config.on_mismatch` says. Raises as
    `extract_dataset`, and where the root is damaged and was made with another encoder or recipe than this one.
    """
    problems = verify_store(path, video_ids).problems
    restored = _restore_groups(place_of(path), config.encoding(encoder.spec), problems)
    store = find_store(path, config.encoding(encoder.spec))
    reasons = {problem.video_id: str(problem) for problem in reversed(problems) if problem.video_id is not None}
    # A record that cannot be read does not say whose it is, its name does.
    owners = {f"commits/{key_of(video_id)}.json": video_id for video_id in (video_ids or dataset.videos)}
    reasons |= {owners[problem.file]: str(problem) for problem in problems if problem.file in owners}
    left = [
        problem for problem in problems
        if problem.video_id is None and problem.file not in owners and problem.file not in restored
    ]
    decisions = [_decide(dataset, store, video_id, reason, config) for video_id, reason in reasons.items()]
    return RepairReport(tuple(restored), run_decisions(decisions, store, encoder, config, on_progress), tuple(left))


def _restore_groups(place: Place, encoding: Encoding, problems: Iterable[Problem]) -> list[str]:
    """Writes the `zarr.json` above the videos again where they are among `problems`; their names."""
    expected = {
        f"tokens.zarr/{name}": stamp for commit in read_commits(place)[0].values() for name, stamp in group_files(commit).items()
    }
    restored = []
    for file in (problem.file for problem in problems if problem.file in expected):
        raw = metadata_bytes(group_metadata(root_attributes(encoding))) if file == ROOT_FILE else GROUP_BYTES
        if expected[file] != FileStamp(len(raw), crc32c_hex(raw)):
            raise StoreMismatchError(
                f"{place.where(file)} is damaged, and was made with another encoder or recipe than this one (its crc32c was "
                f"{expected[file].crc32c}, this one's is {crc32c_hex(raw)}); repair with the settings that the store was made with"
            )
        with storage_errors(f"restoring {file}", place.path):
            place.replace(file, raw)
        restored.append(file)
    return restored


def _decide(dataset: Dataset, store: Store, video_id: str, reason: str, config: ExtractConfig) -> Decision:
    if video_id not in dataset.videos:
        return Decision(Video(id=video_id), Action.REFUSE, f"{reason}; not in the dataset {dataset.path}, so it cannot be extracted again")
    video = dataset.videos[video_id]
    if video.file is None:
        return Decision(video, Action.REFUSE, f"{reason}; the dataset names no `file` for it")
    try:
        changed = changed_source(video.file, store.video(video_id).meta.source, config.compare)
    except VjepaLocError:
        # Not to be compared; a file that is no video is refused when it is decoded.
        changed = ""
    if changed and config.on_mismatch == "refuse":
        advice = "put the old file back, or run `store repair --on-mismatch redo`"
        return Decision(video, Action.REFUSE, f"{reason}; and its file {video.file} has changed: {changed}; {advice}")
    return Decision(video, Action.REPLACE, reason)
