"""The videos of one training: their streams, targets and windows, and the batches of every epoch.

Shapes: C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from lightning import LightningDataModule

from heads.parts.contract import Targets, TokenSpec
from heads.training.batch_order import in_order, shuffled
from heads.training.loader import TokenReader, WindowBatches
from heads.training.ring import BatchRing
from heads.training.run_folder import RunInfo
from heads.training.standardise import Standardisation, measure_standardisation
from heads.training.streams import CacheBudget, VideoExtent, VideoStream
from heads.training.targets import VideoTargets
from heads.training.windows import Window, sliding_windows, training_windows
from vjepa_loc.dataset import Dataset
from vjepa_loc.errors import DatasetError, StoreError


@dataclass(frozen=True)
class StreamedVideos:
    """Some videos with one stream per store, in order."""

    streams: dict[str, tuple[VideoStream, ...]]

    @classmethod
    def open(cls, stores: Sequence, video_ids: Sequence[str], level: str) -> StreamedVideos:
        """Raises `StoreError` when the stores disagree about a video's length, or as `Store.video`."""
        streams = {}
        for video_id in video_ids:
            streams[video_id] = align([VideoStream(store.video(video_id), level) for store in stores])
        return cls(streams)

    @property
    def extents(self) -> dict[str, VideoExtent]:
        """Where each video's answers lie: on the steps of the first store."""
        return {video_id: streams[0].extent for video_id, streams in self.streams.items()}

    def targets(self, dataset: Dataset) -> dict[str, VideoTargets]:
        """Raises `DatasetError` for boxes in pixels of another picture than the stored one, and as `VideoTargets`."""
        for video_id, extent in self.extents.items():
            _check_box_pixels(dataset, extent)
        return {
            video_id: VideoTargets(dataset.events_of(video_id), dataset.labels, extent)
            for video_id, extent in self.extents.items()
        }

    def sliding(self, window_frames: int, hop_frames: int) -> list[Window]:
        """The windows over all videos, video after video."""
        return [
            window
            for video_id, extent in self.extents.items()
            for window in sliding_windows(video_id, extent.num_frames, window_frames, hop_frames)
        ]


def _check_box_pixels(dataset: Dataset, extent: VideoExtent) -> None:
    video = dataset.videos[extent.video_id]
    stated, stored = (video.width, video.height), (extent.width, extent.height)
    if None in stated or stated == stored or not any(event.num_boxes for event in dataset.events_of(extent.video_id)):
        return
    raise DatasetError(
        f"video {extent.video_id!r}: its boxes are in pixels of {stated[0]}x{stated[1]} (dataset), the stored video measures "
        f"{stored[0]}x{stored[1]}; extract it again, or import it with --width {stated[0]} --height {stated[1]}"
    )


def align(streams: Sequence[VideoStream]) -> tuple[VideoStream, ...]:
    """The streams of one video, one per store. Raises `StoreError` when they are of different length."""
    lengths = [stream.extent.num_frames for stream in streams]
    if len(set(lengths)) > 1:
        raise StoreError(
            f"video {streams[0].extent.video_id!r}: the stores hold {', '.join(map(str, lengths))} frames of it; "
            "extract it again from the same file"
        )
    return tuple(streams)


def missing_videos(stores: Sequence, video_ids: Sequence[str]) -> list[str]:
    """Those of `video_ids` that at least one store does not hold."""
    return [video_id for video_id in video_ids if not all(video_id in store for store in stores)]


def token_specs(stores: Sequence, video_ids: Sequence[str]) -> list[TokenSpec]:
    """What a head needs to know of each store; lengths in frames are the median over the videos."""
    specs = []
    for store in stores:
        videos = [store.video(video_id) for video_id in video_ids]
        step_frames = float(np.median([_typical_step_frames(video) for video in videos]))
        clip_steps = store.encoding.clip_frames / store.encoding.tubelet
        specs.append(TokenSpec(store.encoding.channels, tuple(videos[0].levels), step_frames, step_frames * clip_steps))
    return specs


def _typical_step_frames(video) -> float:
    # A single step says nothing about the distance between steps.
    return float(np.median(np.diff(video.time_grid.start_T))) if video.num_steps > 1 else float(video.num_frames)


@dataclass(frozen=True)
class WindowSource:
    """The videos of one split with what is read of them and what is to be learnt."""

    videos: StreamedVideos
    reader: TokenReader
    targets: dict[str, VideoTargets]


class TrainingData(LightningDataModule):
    """Batches of the training windows, drawn anew every epoch from seed and epoch, and of the validation windows.

    `val` is None where the run has no validation videos. Without given `standardisations` they are measured. Raises
    `DatasetError` for an event that ends after the stored video or boxes of another picture, and as `StreamedVideos.open`.
    """

    def __init__(
        self, info: RunInfo, dataset: Dataset, stores: Sequence, level: str,
        standardisations: Sequence[Standardisation] | None = None,
    ):
        super().__init__()
        self.config, self.window_frames = info.train, info.window_frames
        self._ring = BatchRing()
        splits = {}
        for name, video_ids in (("train", info.train_videos), ("val", info.val_videos)):
            videos = StreamedVideos.open(stores, video_ids, level)
            splits[name] = videos, videos.targets(dataset)
        train_streams = zip(*splits["train"][0].streams.values(), strict=True)
        self.standardisations = tuple(standardisations or (measure_standardisation(streams) for streams in train_streams))
        budget = CacheBudget(info.train.cache_bytes)
        self.train, self.val = (
            WindowSource(videos, TokenReader(videos.streams, self.standardisations, budget), targets) if videos.streams else None
            for videos, targets in splits.values()
        )

    @property
    def batches_per_epoch(self) -> int:
        return len(self.epoch_batches(0))

    def epoch_batches(self, epoch: int) -> list[list[Window]]:
        """The windows of one epoch, batch by batch; their number is the same in every epoch."""
        generator = np.random.default_rng([self.config.seed, epoch])
        windows = [
            window
            for video_id, extent in self.train.videos.extents.items()
            for window in training_windows(video_id, extent.num_frames, self.window_frames, generator)
        ]
        return shuffled(windows, self.train.reader, self.config.batch_size, generator)

    def all_targets(self) -> Iterator[Targets]:
        """The targets of the whole training split, window by window, for `prepare`."""
        for windows in self.epoch_batches(0):
            yield from self.train.reader.cut_targets(windows, self.train.targets)

    def train_dataloader(self) -> WindowBatches:
        return self._batches(self.train, self.epoch_batches(self.trainer.current_epoch))

    def val_dataloader(self) -> WindowBatches | list:
        if self.val is None:
            return []
        windows = self.val.videos.sliding(self.window_frames, self.config.hop_frames(self.window_frames))
        return self._batches(self.val, in_order(windows, self.val.reader, self.config.batch_size))

    def _batches(self, source: WindowSource, batches: list[list[Window]]) -> WindowBatches:
        # A reading thread decodes alone; the threads that train would wait for each other at every small operation.
        decode_ahead = not torch.cuda.is_available()
        return WindowBatches(source.reader, batches, source.targets, self._ring, self.config.reader_threads, decode_ahead)
