"""Writing one video into a store: staged, synced, moved into place, and visible only with its commit.

Memory is that of one clip. The bytes do not depend on how the steps are cut into appends: the statistics of the channel
level are those of the first `clip_frames / tubelet` steps, which are held back until they are complete.
"""

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from features.claims import Claim
from features.commits import Commit
from features.durable import free_bytes, readable_size, storage_errors
from features.pyramid import Pyramid
from features.quantise import channel_statistics, quantise
from features.schema import Storage, VideoMeta
from features.shards import shard_writer
from features.staged_video import StagedVideo
from features.zarr_layout import ArraySpec, array_metadata, group_metadata, metadata_bytes, plain_specs, step_specs
from vjepa_loc.errors import StoreError
from vjepa_loc.spacegrid import SpaceGrid
from vjepa_loc.timegrid import TimeGrid

if TYPE_CHECKING:
    from features.store import Store


class VideoWriter:
    """Takes the steps of one video in order; a context manager that discards everything unless `commit` was called.

    `grid` is (H, W) cells; `valid_HW` is False on the cells of letterbox bars, which the pyramid leaves out.
    `num_steps`, where it is known, lets a disk that is too small be refused before the work. With `replaced` the video
    takes that commit's place, under `claim`. Made by `Store.writer`. Shapes: n steps of an append, H x W cells, C
    channels.
    """

    def __init__(
        self, store: "Store", video_id: str, grid: Sequence[int], valid_HW: np.ndarray | None = None, *,
        storage: Storage, num_steps: int | None = None, replaced: Commit | None = None, claim: Claim | None = None,
    ):
        self.id = video_id
        self.grid = int(grid[0]), int(grid[1])
        self._store = store
        self._storage = storage
        self._replaced = replaced
        self._claim = claim
        self._num_steps_expected = num_steps
        self._num_steps = 0
        self._channels = store.encoding.channels
        self._valid_HW = np.ones(self.grid, bool) if valid_HW is None else np.asarray(valid_HW, bool)
        if self._valid_HW.shape != self.grid:
            raise StoreError(f"video {video_id!r}: expected valid_HW of shape {self.grid}, got {self._valid_HW.shape}")
        self._pyramid = Pyramid(self._valid_HW, storage.levels)
        self._specs = step_specs(storage, 0, self.grid, self._channels)
        self._check_space()
        self._held: list[Tensor] = []
        self._channel_level: tuple[Tensor, Tensor] | None = None
        self._seen: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._staged = StagedVideo(store, video_id)
        self._writers = {name: shard_writer(self._staged.path / name, spec) for name, spec in self._specs.items()}

    def append(self, tokens_nHWC: Any, frames_n_tubelet: Any, first_seen_n: Any, last_seen_n: Any) -> None:
        """The next n steps: float32 tokens (numpy, or torch on any device), the frames each was made from, and the
        first and last frame that its clip saw.

        Raises `StoreError` for a token that is not finite, a shape that does not fit, or a disk that refuses.
        """
        if isinstance(tokens_nHWC, np.ndarray):
            # torch shares only memory that it may write to.
            tokens_nHWC = np.require(tokens_nHWC, np.float32, ["C", "W"])
        tokens_nHWC = torch.as_tensor(tokens_nHWC, dtype=torch.float32)
        seen = tuple(np.array(values, np.int32) for values in (frames_n_tubelet, first_seen_n, last_seen_n))
        self._check_append(tokens_nHWC, seen)
        if not len(tokens_nHWC):
            return
        if self._claim is not None:
            self._claim.renew()
        self._seen.append(seen)
        self._num_steps += len(tokens_nHWC)
        if self._channel_level is not None:
            self._write(tokens_nHWC)
            return
        # A copy: the caller may reuse the buffer of its tokens.
        self._held.append(tokens_nHWC.clone())
        if self._num_steps >= self._clip_steps:
            self._release_held()

    def commit(self, meta: VideoMeta, frame_time_s: Any) -> bool:
        """Makes the video visible; False where another writer's commit of the same video was first (its video counts).

        `frame_time_s` is (num_frames,) presentation times, 0 at the first frame. Raises `StoreError` as `append`, and
        where `meta` does not describe what was appended.
        """
        frames, first_seen, last_seen = self._checked_description(meta, times := np.asarray(frame_time_s, np.float64))
        with self._storage_errors(0):
            if self._channel_level is None:
                self._release_held()
            for name, writer in self._writers.items():
                self._staged.stamps.update({f"{name}/{file}": stamp for file, stamp in writer.close().items()})
            mean_C, std_C = (values.cpu().numpy() for values in self._channel_level)
            plain = plain_specs(self._num_steps, frames.shape[1], self._channels, meta.num_frames)
            values = {
                "mean": mean_C, "std": std_C, "frames": frames, "first_frame_seen": first_seen, "last_frame_seen": last_seen,
                "frame_time_s": times,
            }
            for name, spec in plain.items():
                self._staged.write_chunk(f"{name}/{spec.shard_name(0)}", values[name].astype(spec.dtype).tobytes())
            for name, spec in {**self._step_specs(), **plain}.items():
                self._staged.write(f"{name}/zarr.json", metadata_bytes(array_metadata(spec)))
            self._staged.write("zarr.json", metadata_bytes(group_metadata(meta.to_dict())))
        try:
            return self._staged.publish(self._storage, meta, self._num_steps, self._replaced)
        except StoreError:
            # Refused may be what came after the commit, or its answer was lost: what is visible is stored.
            with contextlib.suppress(OSError):
                commit = self._store.commit_of(self.id)
                if commit is not None and commit.path.endswith(f"/{self._staged.generation}"):
                    return True
            raise

    def abort(self) -> None:
        """Discards what was written; harmless after `commit`."""
        for writer in self._writers.values():
            # Its file goes, whatever closing it is answered.
            with contextlib.suppress(OSError):
                writer.abort()
        self._staged.discard()
        if self._claim is not None:
            self._claim.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.abort()

    @property
    def _clip_steps(self) -> int:
        return self._store.encoding.clip_frames // self._store.encoding.tubelet

    def _step_specs(self) -> dict[str, ArraySpec]:
        return step_specs(self._storage, self._num_steps, self.grid, self._channels)

    def _release_held(self) -> None:
        if not self._held:
            raise StoreError(f"video {self.id!r}: expected at least one step, got none")
        tokens_nHWC = torch.cat(self._held)
        self._held.clear()
        self._channel_level = channel_statistics(tokens_nHWC[: self._clip_steps])
        self._write(tokens_nHWC)

    def _write(self, tokens_nHWC: Tensor) -> None:
        arrays = {level: pooled.half() for level, pooled in self._pyramid.pool(tokens_nHWC).items()}
        if "scale" in self._specs:
            mean_C, std_C = self._channel_level
            arrays["tokens"], arrays["scale"] = quantise(tokens_nHWC, mean_C, std_C)
        elif "tokens" in self._specs:
            arrays["tokens"] = tokens_nHWC.half()
        for name, values in arrays.items():
            if values.dtype == torch.float16 and not torch.isfinite(values).all():
                raise StoreError(
                    f"video {self.id!r}: tokens are too large for the float16 of array {name!r}; the encoder's output is broken"
                )
        with self._storage_errors(len(tokens_nHWC)):
            for name, values in arrays.items():
                self._writers[name].append(values.cpu().numpy())

    def _check_append(self, tokens_nHWC: Tensor, seen: tuple[np.ndarray, ...]) -> None:
        n = len(tokens_nHWC)
        tubelet = self._store.encoding.tubelet
        expected = {
            "tokens": (tuple(tokens_nHWC.shape), (n, *self.grid, self._channels)),
            "frames": (seen[0].shape, (n, tubelet)),
            "first_seen": (seen[1].shape, (n,)),
            "last_seen": (seen[2].shape, (n,)),
        }
        for name, (got, wanted) in expected.items():
            if got != wanted:
                raise StoreError(f"video {self.id!r}: {name}: expected shape {wanted}, got {got}")
        # A sum that is finite has finite terms, and is quick; one that is not may merely be too large.
        for step in torch.nonzero(~torch.isfinite(tokens_nHWC.flatten(1).sum(1))).flatten().tolist():
            if not torch.isfinite(tokens_nHWC[step]).all():
                raise StoreError(
                    f"video {self.id!r}: step {self._num_steps + step} has a token that is not finite; nothing of it is stored"
                )

    def _checked_description(self, meta: VideoMeta, frame_time_s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        def refuse(what: str, expected: Any, got: Any) -> StoreError:
            return StoreError(f"video {self.id!r}: {what}: expected {expected}, got {got}")

        if not self._seen:
            raise refuse("steps", "at least one", "none")
        frames, first_seen, last_seen = (np.concatenate(parts) for parts in zip(*self._seen, strict=True))
        if meta.id != self.id or meta.grid != self.grid:
            raise refuse("description", f"id {self.id!r} and grid {self.grid}", f"id {meta.id!r} and grid {meta.grid}")
        space_grid = SpaceGrid.from_dict(meta.space_grid)
        if space_grid.grid != self.grid or (space_grid.valid_HW != self._valid_HW).any():
            raise refuse("valid_HW", "the cells that the space grid calls valid", "others")
        if frame_time_s.shape != (meta.num_frames,):
            raise refuse("frame_time_s", f"shape {(meta.num_frames,)}", frame_time_s.shape)
        if not np.isfinite(frame_time_s).all() or frame_time_s[0] != 0 or (np.diff(frame_time_s) < 0).any():
            raise refuse("frame_time_s", "finite times that start at 0 and never decrease", "others")
        try:
            TimeGrid(frames, meta.num_frames)
        except ValueError as error:
            raise StoreError(f"video {self.id!r}: {error}") from None
        inside = first_seen.min() >= 0 and last_seen.max() < meta.num_frames
        if not inside or (first_seen > frames[:, 0]).any() or (last_seen < frames[:, -1]).any():
            raise refuse("frames seen", f"each step's own frames, within 0..{meta.num_frames - 1}", "others")
        return frames, first_seen, last_seen

    def _check_space(self) -> None:
        needed = self._bytes_of(self._num_steps_expected or 0)
        with self._storage_errors(0):
            free = free_bytes(self._store.place.staging)
        if needed > free:
            raise StoreError(
                f"no space left for video {self.id!r} in {self._store.path}: about {readable_size(needed)} needed, "
                f"{readable_size(free)} free; free some space and run the command again"
            )

    def _bytes_of(self, num_steps: int) -> int:
        specs = step_specs(self._storage, num_steps, self.grid, self._channels)
        return sum(spec.total_size for spec in specs.values())

    def _storage_errors(self, num_steps: int) -> Any:
        """Around writing `num_steps` steps: a full disk is told what the rest of the video needs, as far as that is
        known.
        """
        rest = (self._num_steps_expected or 0) - self._num_steps + num_steps
        return storage_errors(f"writing video {self.id!r}", self._store.path, self._bytes_of(max(rest, num_steps)) or None)
