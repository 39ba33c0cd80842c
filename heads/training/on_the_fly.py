"""Events of video files that no store holds: extracted with the run's encodings into stores that are removed afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from features.extract import ExtractReport, extracted_files, load_encoder
from features.extract_settings import ENCODERS_PACKAGE
from features.encode_stage import Encoder
from features.outcome import Progress
from features.recipe import ExtractConfig
from features.schema import Encoding
from features.store import Store
from heads.training.predict import Run
from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.errors import StoreMismatchError
from vjepa_loc.events import Event
from vjepa_loc.plugins import load_plugin
from vjepa_loc.settings import keys_of
from vjepa_loc.workspace import Workspace


@dataclass(frozen=True)
class FilePredictions:
    """`dataset` holds the videos of the files that could be read; `failed` the reasons of the others, by video id."""

    dataset: Dataset
    events: list[Event]
    failed: dict[str, str]


def predict_files(
    run: Run, files: Sequence[Path], workspace: Workspace, overrides: Sequence[str] = (),
    on_progress: Callable[[Progress], object] = lambda progress: None,
) -> FilePredictions:
    """Predict `files`; the recipe comes from the run's encodings, where weights lie from the workspace's `[encoder]`.

    Raises `StoreMismatchError` where an encoder that can be had is not the one that the run was trained on. A file that cannot be
    used is in `failed`, the others are predicted all the same.
    """
    reports: list[ExtractReport] = []
    with ExitStack() as stack:
        stores = []
        for encoding in run.encodings:
            encoder, recipe = _encoder_of(encoding, run, workspace, overrides)
            store, report = stack.enter_context(extracted_files(files, encoder, recipe, on_progress=on_progress))
            stores.append(store)
            reports.append(report)
        failed = {video_id: reason for report in reports for video_id, reason in report.failed.items()}
        videos = {
            outcome.video_id: _described(stores[0], outcome.video_id, file)
            for outcome, file in zip(reports[0].outcomes, files, strict=True)
            if outcome.video_id not in failed
        }
        dataset = Dataset(run.labels, videos)
        events = run.predict(dataset, stores, list(videos))
    return FilePredictions(dataset, events, failed)


def _encoder_of(
    encoding: Encoding, run: Run, workspace: Workspace, overrides: Sequence[str]
) -> tuple[Encoder, ExtractConfig]:
    name = encoding.family
    config_model = load_plugin(ENCODERS_PACKAGE, name, "encoder").Config
    workspace = workspace.with_plugin("encoder", name, name, flag=f"run {run.path.name}").with_overrides(
        overrides, {"encoder": keys_of(config_model), "extract": keys_of(ExtractConfig)}
    )
    recipe = workspace.section("extract", ExtractConfig).with_encoding(encoding)
    encoder = load_encoder(name, workspace.section("encoder", config_model, also=["name"]), recipe.resolved_device())
    if differences := encoding.diff(recipe.encoding(encoder.spec)):
        raise StoreMismatchError(
            f"run {run.path.name} was trained on another encoding than encoder {name!r} gives here (run != here): "
            f"{'; '.join(differences)}; name the run's weights in [encoder] or with --set"
        )
    return encoder, recipe


def _described(store: Store, video_id: str, file: Path) -> Video:
    stored = store.video(video_id)
    return Video(
        id=video_id, file=Path(file).absolute(), fps=float(stored.fps), num_frames=stored.num_frames, width=stored.width,
        height=stored.height,
    )
