"""From a dataset's videos to a token store in one pass that can be interrupted anywhere and continued by running it again.

`extract_dataset` is the door; `extracted_files` does the same for files that no dataset names, into a store that is removed.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from features.clips import expected_clips
from features.engines import local
from features.extract_settings import ENCODERS_PACKAGE
from features.extract_video import Encoder, StageTimes, VideoExtractor
from features.outcome import Outcome, Progress
from features.recipe import ExtractConfig
from features.resume import Action, Decision, decide
from features.schema import Encoding, Record, Storage
from features.store import Store, create_or_open_store, find_store, temporary_store
from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.errors import ConfigError, VideoError
from vjepa_loc.plugins import load_plugin


@dataclass
class ExtractReport:
    """Outcomes in the order of the dataset."""

    outcomes: list[Outcome] = field(default_factory=list)
    times: StageTimes = field(default_factory=StageTimes)

    def add(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        if outcome.extracted is not None:
            self.times += outcome.extracted.times

    @property
    def failed(self) -> dict[str, str]:
        """Video id -> reason."""
        return {outcome.video_id: outcome.reason for outcome in self.outcomes if outcome.status == "failed"}

    @property
    def num_damaged(self) -> int:
        return sum(outcome.extracted is not None and outcome.extracted.damaged for outcome in self.outcomes)

    def ids(self, status: str) -> list[str]:
        return [outcome.video_id for outcome in self.outcomes if outcome.status == status]

    def summary(self) -> str:
        """One line per fact, for people: what became of the videos, and where the time went."""
        done, skipped, failed = (len(self.ids(status)) for status in ("done", "skipped", "failed"))
        lines = [f"{done} done ({self.num_damaged} damaged), {skipped} skipped, {failed} failed"]
        if done:
            times = self.times
            lines.append(
                f"decoding {times.decode_s:.1f} s beside: waiting for frames {times.wait_s:.1f} s, encoding {times.encode_s:.1f} s, "
                f"writing {times.write_s:.1f} s"
            )
        return "\n".join(lines)

    def to_dict(self) -> dict:
        """The last line of `extract --json`."""
        return {"done": self.ids("done"), "skipped": self.ids("skipped"), "failed": self.failed}


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
    on_progress: Callable[[Progress], object] = lambda progress: None,
) -> ExtractReport:
    """Every video of `dataset` into the store at `store_path`, which is made where there is none; complete videos are skipped.

    Raises `StoreMismatchError` for a store of another encoding, and `StoreError` where the disk refuses; whatever is wrong with
    one video is in the report and in the ledger.
    """
    store = create_or_open_store(store_path, config.encoding(encoder.spec), storage)
    decisions = (decide(video, store, config.compare, config.on_mismatch) for video in dataset.videos.values())
    return run_decisions(decisions, store, encoder, config, on_progress)


@contextmanager
def extracted_files(
    files: Sequence[Path], encoder: Encoder, config: ExtractConfig, storage: Storage | None = None,
    on_progress: Callable[[Progress], object] = lambda progress: None,
) -> Iterator[tuple[Store, ExtractReport]]:
    """A store with the tokens of `files`, which is removed at the end; the videos' ids are those of `videos_of_files`."""
    decisions = [Decision(video, Action.EXTRACT) for video in videos_of_files(files)]
    with temporary_store(config.encoding(encoder.spec), storage) as store:
        yield store, run_decisions(decisions, store, encoder, config, on_progress)


def run_decisions(
    decisions: Iterable[Decision], store: Store, encoder: Encoder, config: ExtractConfig, on_progress: Callable[[Progress], object]
) -> ExtractReport:
    """Does with each video what was decided. Raises as `extract_dataset`."""
    report = ExtractReport()
    with VideoExtractor(store, encoder, config) as extractor:
        for outcome in local.run(decisions, extractor, on_progress):
            report.add(outcome)
    return report


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
