"""A trained run: events of stored videos, and of videos that are only in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from features.schema import Encoding
from heads.training.batch_order import in_order
from heads.training.collect import EventCollector
from heads.training.data import StreamedVideos, align
from heads.training.loader import TokenReader, WindowBatches
from heads.training.precision import uses_bf16
from heads.training.run_folder import RunFolder, RunInfo, check_encodings, open_recorded_stores
from heads.training.streams import VideoStream
from vjepa_loc.dataset import Dataset
from vjepa_loc.errors import RunError
from vjepa_loc.events import Event
from vjepa_loc.plugins import load_plugin

HEADS_PACKAGE = "heads"


class Run:
    """A finished run, ready to predict. `path` is its folder, `info` what it was trained from."""

    def __init__(self, path: Path, info: RunInfo, head: nn.Module, device: torch.device):
        self.path, self.info, self.device = path, info, device
        self.head = head.to(device).eval()

    @property
    def labels(self) -> tuple[str, ...]:
        return self.info.labels

    @cached_property
    def encodings(self) -> tuple[Encoding, ...]:
        """What the run was trained on, one per store."""
        return self.info.encodings

    @property
    def fingerprints(self) -> tuple[str, ...]:
        return tuple(encoding.fingerprint for encoding in self.encodings)

    @cached_property
    def _standardisations(self):
        return RunFolder(self.path).load_standardisations()

    def open_stores(self) -> list:
        """The stores of the training, where they still are. Raises `RunError` otherwise."""
        return open_recorded_stores(self.path, self.info.stores)

    def check_stores(self, stores: Sequence) -> None:
        """Raises `StoreMismatchError`, with both values, unless the stores hold the encodings of the training."""
        check_encodings(self.path, self.encodings, stores)

    def predict(self, dataset: Dataset, stores: Sequence, video_ids: Sequence[str]) -> list[Event]:
        """Events of stored videos, video after video, each by descending score.

        Raises `StoreMismatchError` as `check_stores`, `RunError` for a label that the dataset does not know, `StoreError` for a
        video that a store does not hold (see `heads.training.data.missing_videos`).
        """
        self.check_stores(stores)
        unknown = [label for label in self.labels if label not in dataset.labels]
        if unknown:
            raise RunError(
                f"run {self.path.name} predicts {', '.join(unknown)}, the dataset {dataset.path} knows "
                f"{', '.join(dataset.labels)}; choose another run or dataset"
            )
        events = []
        for video_id in video_ids:
            events += self._predict(StreamedVideos.open(stores, [video_id], self.head.level).streams)
        return events

    def predict_video(self, *token_videos) -> list[Event]:
        """Events of one video, given as one `features.store.StoredVideo` (or what reads like one) per store of the training."""
        if len(token_videos) != len(self.encodings):
            raise RunError(f"run {self.path.name} reads {len(self.encodings)} stores, got tokens of {len(token_videos)}")
        streams = align([VideoStream(video, self.head.level) for video in token_videos])
        return self._predict({streams[0].extent.video_id: streams})

    def _predict(self, streams: Mapping[str, tuple[VideoStream, ...]]) -> list[Event]:
        config, length = self.info.train, self.info.window_frames
        videos = StreamedVideos(dict(streams))
        windows = videos.sliding(length, config.hop_frames(length))
        reader = TokenReader(streams, self._standardisations)
        batches = WindowBatches(
            reader, in_order(windows, reader, config.batch_size), num_threads=config.reader_threads,
            decode_ahead=self.device.type == "cpu",
        )
        collector = EventCollector(videos.extents, self.labels, config)
        bf16 = uses_bf16(config.precision, self.device)
        for stored in batches:
            batch = stored.to(self.device)
            with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                collector.add(batch.windows, self.head.decode(self.head(batch.batch)))
        return collector.finish()


def load_run(path: Path | str, device: str | None = None) -> Run:
    """The run in a folder, on `device` (a GPU where there is one).

    Raises `RunError` for a folder that is no run, an unfinished run, or weights that do not fit its head.
    """
    folder = RunFolder(Path(path))
    info = folder.read_info()
    if not folder.finished:
        raise RunError(f"run {folder.path} is not finished; continue it with `python cli.py train-head --resume {folder.path}`")
    head = build_head(info)
    try:
        head.load_state_dict(folder.load_weights())
    except RuntimeError as error:
        raise RunError(
            f"run {folder.path}: its weights do not fit the head {info.head!r} of this version ({error}); train again"
        ) from None
    return Run(folder.path, info, head, torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))


def build_head(info: RunInfo) -> nn.Module:
    """The head that a run describes, with fresh weights. Raises `UnknownNameError`, or `RunError` for settings it does not take."""
    plugin = load_plugin(HEADS_PACKAGE, info.head, "head")
    try:
        config = plugin.Config(**info.head_config)
    except ValueError as error:
        raise RunError(
            f"the settings of the run do not fit the head {info.head!r} of this version ({error}); train again"
        ) from None
    return plugin.Head(config, [record.spec() for record in info.specs], list(info.labels))
