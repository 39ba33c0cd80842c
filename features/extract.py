"""From a dataset's videos to a token store in one pass that can be interrupted anywhere and continued by running it again.

`extract_dataset` is the door; `extracted_files` does the same for files that no dataset names, into a store that is removed.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from features.clips import expected_clips
from features.disk_space import DiskSpace
from features.encode_stage import Encoder
from features.extract_settings import ENCODERS_PACKAGE
from features.outcome import Note, Outcome, Progress, StageTimes
from features.pipeline import Pipeline
from features.recipe import ExtractConfig
from features.resume import Action, Decision, decide
from features.schema import Encoding, Record, Storage
from features.shares import longest_first
from features.store import Store, create_or_open_store, find_or_plan_store, find_store, temporary_store
from features.worker_status import WorkerStatus
from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.errors import ConfigError, VideoError
from vjepa_loc.plugins import load_plugin

OnProgress = Callable[[Progress], object]


@dataclass
class ExtractReport:
    """Outcomes, and the seconds of the stages."""

    outcomes: list[Outcome] = field(default_factory=list)
    times: StageTimes = field(default_factory=StageTimes)

    def sort(self, videos: Iterable[Video]) -> None:
        """Outcomes in the order of `videos` instead of that in which they came."""
        place = {video.id: number for number, video in enumerate(videos)}
        self.outcomes.sort(key=lambda outcome: place.get(outcome.video_id, len(place)))

    @property
    def failed(self) -> dict[str, str]:
        """Video id -> reason."""
        return {outcome.video_id: outcome.reason for outcome in self.outcomes if outcome.status == "failed"}

    @property
    def num_damaged(self) -> int:
        return sum(outcome.extracted is not None and outcome.extracted.damaged for outcome in self.outcomes)

    def ids(self, status: str) -> list[str]:
        return [outcome.video_id for outcome in self.outcomes if outcome.status == status]

    @property
    def num_clips(self) -> int:
        return sum(outcome.extracted.num_clips for outcome in self.outcomes if outcome.extracted is not None)

    def summary(self) -> str:
        """One line per fact, for people: what became of the videos, and where the time went."""
        done, skipped, failed, dropped = (len(self.ids(status)) for status in ("done", "skipped", "failed", "dropped"))
        lines = [
            f"{done} done ({self.num_damaged} damaged), {skipped} skipped, {failed} failed" + (f", {dropped} dropped" if dropped else "")
        ]
        if done:
            times = self.times
            lines.append(
                f"{self.num_clips} clips in {times.wall_s:.1f} s, {self.num_clips / max(times.wall_s, 1e-9):.2f} clips/s; seconds of work "
                f"(of waiting), summed over workers: decoding {times.decode_s:.1f} ({times.decode_blocked_s:.1f}), encoding "
                f"{times.encode_s:.1f} ({times.encode_wait_s + times.encode_blocked_s:.1f}), writing {times.write_s:.1f} ({times.write_wait_s:.1f})"
            )
        return "\n".join(lines)

    def to_dict(self) -> dict:
        """The last line of `extract --json`."""
        found = {"done": self.ids("done"), "skipped": self.ids("skipped"), "failed": self.failed}
        return found | ({"dropped": dropped} if (dropped := self.ids("dropped")) else {})


def load_encoder(name: str, config: Record, device: str) -> Encoder:
    """The encoder `name` on `device`. Raises `UnknownNameError`, `WeightsError`, and `ConfigError` for a device that is not there."""
    module = load_plugin(ENCODERS_PACKAGE, name, "encoder")
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        # torch says the same thing with either, depending on how it was built.
        reason = str(error).splitlines()[0]
        raise ConfigError(f"extract.device: {device!r} cannot be used here ({reason}); use cpu, cuda, cuda:1 or auto") from None
    return module.Encoder(config, device)


def clips_of_videos(dataset: Dataset, encoding: Encoding) -> dict[str, int | None]:
    """Video id -> about how many clips it has, None where the dataset does not state its length; what progress bars need."""
    return {video.id: expected_clips(encoding, video.num_frames, video.fps) for video in dataset.videos.values()}


def plan_extraction(dataset: Dataset, store_path: Path | str, encoding: Encoding, config: ExtractConfig) -> Iterator[Decision]:
    """What an extraction would do with each video; writes nothing. Raises `StoreMismatchError` for a store of another encoding."""
    store = find_store(store_path, encoding)
    return (decide(video, store, config.compare, config.on_mismatch) for video in dataset.videos.values())


def extract_dataset(
    dataset: Dataset, store_path: Path | str, encoder: Encoder, config: ExtractConfig, storage: Storage | None = None,
    on_progress: OnProgress = lambda progress: None, stop: threading.Event | None = None,
) -> ExtractReport:
    """Every video of `dataset` into the store at `store_path`, which is made where there is none; complete videos are skipped.

    The longest videos come first, so that no worker is left alone with one at the end. Once `stop` is set, videos in hand are
    finished or dropped, and the report tells of those that were begun. Raises `StoreMismatchError` for a store of another
    encoding, and `StoreError` where the disk refuses or has no room; whatever is wrong with one video is in the report and in the ledger.
    """
    videos, encoding = list(dataset.videos.values()), config.encoding(encoder.spec)
    # Before the store is made: one that was refused for want of room would bind the next try to its encoding.
    space = DiskSpace(find_or_plan_store(store_path, encoding, storage), config.min_free_gib)
    for note in space.check_ahead(videos, config.resolved_decode_workers(encoder.device.type != "cpu")):
        on_progress(Note(note))
    store = create_or_open_store(store_path, encoding, storage)
    decisions = (decide(video, store, config.compare, config.on_mismatch) for video in longest_first(videos))
    with WorkerStatus(store, clips_of_videos(dataset, store.encoding), device=str(encoder.device)) as status:
        report = run_decisions(decisions, store, encoder, config, _each(on_progress, space, status), stop, space.check)
    report.sort(videos)
    return report


@contextmanager
def extracted_files(
    files: Sequence[Path], encoder: Encoder, config: ExtractConfig, storage: Storage | None = None,
    on_progress: OnProgress = lambda progress: None,
) -> Iterator[tuple[Store, ExtractReport]]:
    """A store with the tokens of `files`, which is removed at the end; the videos' ids are those of `videos_of_files`."""
    videos = videos_of_files(files)
    decisions = [Decision(video, Action.EXTRACT) for video in longest_first(videos)]
    with temporary_store(config.encoding(encoder.spec), storage) as store:
        report = run_decisions(decisions, store, encoder, config, on_progress)
        report.sort(videos)
        yield store, report


def run_decisions(
    decisions: Iterable[Decision], store: Store, encoder: Encoder, config: ExtractConfig, on_progress: OnProgress,
    stop: threading.Event | None = None, check_space: Callable[[], object] = lambda: None, look_again: bool = True,
) -> ExtractReport:
    """Does with each video what was decided; outcomes in the order in which they come.

    The iterator may block; it is asked when a decoder is free, from another thread than `on_progress` is called in. `check_space`
    and `look_again` as in `Pipeline`. Raises as `extract_dataset`.
    """
    report = ExtractReport()
    pipeline = Pipeline(store, encoder, config, check_space, look_again)
    with closing(pipeline.run(decisions, stop)) as events:
        for event in events:
            if isinstance(event, Outcome):
                report.outcomes.append(event)
            on_progress(event)
    report.times = pipeline.times
    return report


def _each(*listeners: OnProgress) -> OnProgress:
    def tell(event: Progress) -> None:
        for listener in listeners:
            listener(event)

    return tell


def videos_of_files(files: Sequence[Path]) -> list[Video]:
    """One video per file, its id the file's name without suffix, or the name, or the path: the first that is unlike the others'.

    Raises `VideoError` where a file is given twice.
    """
    paths = [Path(file).absolute() for file in files]
    for spelling in (lambda path: path.stem, lambda path: path.name, str):
        ids = [spelling(path) for path in paths]
        if len(set(ids)) == len(ids):
            return [Video(id=video_id, file=path) for video_id, path in zip(ids, paths, strict=True)]
    raise VideoError(f"expected every video once, got a file twice: {', '.join(map(str, files))}")
