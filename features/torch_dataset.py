"""Windows of a store for a plain `torch.utils.data.DataLoader`.

For those who have a training loop of their own. The loader of `heads.training` is faster: it needs no worker processes, each
of which copies what it read through shared memory. Shapes: n steps of a window, H x W cells of the level, C channels.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from features.schema import Level
from features.store import Store, open_store
from features.stored_video import StoredVideo
from vjepa_loc.errors import UnknownNameError, nearest_name


class StoredWindows(Dataset):
    """The windows (video_id, start_step, stop_step) of one store, in the order given.

    An item is a dictionary of `video_id`, `start_step`, `stop_step`, and of `values` (n, H, W, C) float16 in raw units; with
    `codes` instead of `codes` (n, H, W, C) int8, `scale` (n, H, W) float16, `mean` and `std` (C,) float32, of which the token
    is `codes * scale * std + mean`. Windows of one length make batches without a `collate_fn`.

    It may be pickled, and is safe in worker processes however they are started: each process opens the store for itself, when
    it first reads. Raises `UnknownNameError` for a video that the store does not hold, `IndexError` for steps outside a video,
    `ValueError` for codes of a pooled level; reading an item raises as `StoredVideo.read`.
    """

    def __init__(
        self, store: Path | str, windows: Sequence[tuple[str, int, int]], level: Level = "tokens", codes: bool = False
    ):
        if codes and level != "tokens":
            raise ValueError(f"codes: only the level 'tokens' is stored as int8 codes, got {level!r}")
        self.store, self.level, self.codes = str(store), level, codes
        summaries = open_store(store).summaries()
        for video_id, start, stop in windows:
            if video_id not in summaries:
                raise UnknownNameError(f"the store {store} has no video {video_id!r}.{nearest_name(video_id, summaries)}")
            if not 0 <= start < stop <= summaries[video_id].steps:
                raise IndexError(f"video {video_id!r}: expected steps within 0..{summaries[video_id].steps}, got {start}..{stop}")
        # In arrays, because a forked process copies the memory of every Python object that it looks at.
        self._ids = sorted({video_id for video_id, _, _ in windows})
        number_of = {video_id: number for number, video_id in enumerate(self._ids)}
        self._windows_N3 = np.array(
            [(number_of[video_id], start, stop) for video_id, start, stop in windows], dtype=np.int64
        ).reshape(-1, 3)
        self._opened: _Opened | None = None

    def __len__(self) -> int:
        return len(self._windows_N3)

    def __getitem__(self, index: int) -> dict[str, Any]:
        number, start, stop = self._windows_N3[index].tolist()
        video = self._video(self._ids[number])
        item = {"video_id": video.id, "start_step": start, "stop_step": stop}
        if not self.codes:
            return item | {"values": torch.from_numpy(video.read(self.level, start, stop))}
        codes_nHWC, scale_nHW = map(torch.from_numpy, video.read_codes(start, stop))
        return item | {"codes": codes_nHWC, "scale": scale_nHW, "mean": torch.tensor(video.mean), "std": torch.tensor(video.std)}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def _video(self, video_id: str) -> StoredVideo:
        if self._opened is None or self._opened.process != os.getpid():
            self._opened = _Opened(os.getpid(), open_store(self.store), {})
        videos = self._opened.videos
        if video_id not in videos:
            videos[video_id] = self._opened.store.video(video_id)
        return videos[video_id]


class _Opened(NamedTuple):
    """A store and those of its videos that were read, as one process opened them."""

    process: int
    store: Store
    videos: dict[str, StoredVideo]
