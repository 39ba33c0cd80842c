"""Where one encoder clip ends and the next begins: tokens on both sides of such a frame have not seen the same frames."""

from collections.abc import Sequence

import numpy as np

from features.store import Store, open_store
from features.stored_video import StoredVideo


def clip_seams(stores: Sequence[Store], video_ids: Sequence[str]) -> dict[str, np.ndarray]:
    """The seams of those videos that a store holds: ascending frames, of all stores together."""
    seams: dict[str, list[np.ndarray]] = {}
    for store in stores:
        for video_id in video_ids:
            if video_id in store:
                seams.setdefault(video_id, []).append(seams_of(store.video(video_id)))
    return {video_id: np.unique(np.concatenate(frames)) for video_id, frames in seams.items()}


def seams_of(video: StoredVideo) -> np.ndarray:
    """The frames (S,) at which a step begins that comes from another clip than the step before it."""
    first_T = video.first_frame_seen
    return video.time_grid.start_T[1:][first_T[1:] != first_T[:-1]]


def seams_of_stores(paths: Sequence[str], video_ids: Sequence[str]) -> dict[str, np.ndarray]:
    """`clip_seams` of the stores at `paths`. Raises StoreError for what is no store."""
    return clip_seams([open_store(path) for path in paths], video_ids)
