"""`store convert`: the videos of a store with another number format, compression, shard size, or other levels; the video
files are not needed.

An array that stays as it is has its files copied; the others are decoded and written anew, a few steps at a time. What that
does to the values stands in the video's attributes (`VideoMeta.earlier_formats`, `pools_of_stored_tokens`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from features.commits import FileStamp
from features.checksum import crc32c_hex
from features.durable import storage_errors
from features.pyramid import Pyramid
from features.quantise import quantise
from features.schema import Compression, NumberFormat, Storage, VideoMeta
from features.shards import shard_writer
from features.staged_video import StagedVideo
from features.store import Store
from features.store_copy import CopyReport, OnVideo, checked_levels, copy_each, copy_files, open_target, refuse_exchanged
from features.stored_video import StoredVideo
from features.zarr_layout import POOL_SIZES, ArraySpec, array_metadata, group_metadata, metadata_bytes, step_specs
from vjepa_loc.errors import ConfigError, StoreError

_STEPS_AT_ONCE = 16


@dataclass(frozen=True)
class StorageChange:
    """What a conversion changes; None leaves it as each video has it."""

    number_format: NumberFormat | None = None
    compression: Compression | None = None
    levels: tuple[str, ...] | None = None
    shard_steps: int | None = None

    def applied_to(self, storage: Storage) -> Storage:
        """Raises `ConfigError` for a value that no storage has."""
        return Storage(**{**storage.to_dict(), **{name: value for name, value in vars(self).items() if value is not None}})


def convert_store(
    source: Store, target_path: Path | str, change: StorageChange, video_ids: Sequence[str] | None = None,
    on_video: OnVideo = lambda num_done, num_all: None,
) -> CopyReport:
    """Writes the given videos (all by default) into a store at `target_path`; those that are there already, converted
    from the same files in the same way, are skipped. `on_video` is called after each.

    Float16 tokens are quantised with the mean and std that the video carries. Missing pool levels are computed from the
    stored tokens. Raises `ConfigError` for a storage that does not exist, `StoreError` for a video that lacks what the
    conversion needs.
    """
    if change == StorageChange():
        raise ConfigError("nothing to change: expected a number format, a compression, levels, or a shard size")
    if change.levels is not None:
        checked_levels(change.levels)
    change.applied_to(Storage())
    target = open_target(target_path, [source])
    jobs = [(source, video_id) for video_id in video_ids or source.video_ids()]
    return copy_each(jobs, lambda video: _VideoConversion(video, change).run(target), on_video)


class _VideoConversion:
    """One video: what is copied, what is written anew, and from what."""

    def __init__(self, video: StoredVideo, change: StorageChange):
        self._video = video
        self._storage = change.applied_to(video.storage)
        absent = [level for level in self._storage.levels if level not in video.levels]
        if absent and "tokens" not in video.levels:
            raise StoreError(
                f"video {video.id!r} has no level {', '.join(absent)} and no tokens to make it from; it stores "
                f"{', '.join(video.levels)}: convert a store that has tokens, or extract the video again"
            )
        self._meta = _converted_meta(video, self._storage)
        channels = len(video.mean)
        specs = step_specs(self._storage, video.num_steps, video.grid, channels)
        known, metadata = video.commit.generation_files, {name: _array_bytes(spec) for name, spec in specs.items()}
        # An array is kept where its metadata are: the same type, shape, shards and codecs.
        kept = {name for name, raw in metadata.items() if known.get(f"{name}/zarr.json") == _stamp(raw)}
        self._specs = {name: spec for name, spec in specs.items() if name not in kept}
        self._metadata = {f"{name}/zarr.json": metadata[name] for name in self._specs}
        if self._meta != video.meta:
            self._metadata["zarr.json"] = metadata_bytes(group_metadata(self._meta.to_dict()))
        left = {*POOL_SIZES, "tokens", "scale"} - kept
        self._copied = [file for file in known if file.partition("/")[0] not in left and file not in self._metadata]
        new_pools = [level for level in self._storage.levels if level not in video.levels]
        self._pyramid = Pyramid(video.space_grid.valid_HW, new_pools)
        self._quantises = "scale" in self._specs and video.storage.number_format != "int8"
        read = set(self._specs) | ({"tokens", "scale"} if new_pools or "tokens" in self._specs else set())
        self._read = [file for file in known if file.partition("/")[0] in read]

    def run(self, target: Store) -> str:
        """"copied", or where the video is there already: "present" or "different"."""
        video = self._video
        if video.id in target:
            return "present" if self._is_in(target) else "different"
        needed = sum(spec.total_size for spec in self._specs.values())
        needed += sum(video.commit.generation_files[name].size for name in self._copied)
        staged = StagedVideo(target, video.id)
        try:
            with storage_errors(f"converting video {video.id!r}", target.path, needed):
                copy_files(video, self._copied, staged)
                refuse_exchanged(video, self._read)
                self._write_arrays(staged)
                for file, raw in self._metadata.items():
                    staged.write(file, raw)
            copied = staged.publish(self._storage, self._meta, video.num_steps, replaced=None)
        finally:
            staged.discard()
        return "copied" if copied else "present"

    def _is_in(self, target: Store) -> bool:
        commit = target.commit_of(self._video.id)
        known = self._video.commit.generation_files
        expected = {name: known[name] for name in self._copied}
        expected |= {name: _stamp(raw) for name, raw in self._metadata.items()}
        found = commit.generation_files
        return commit.storage == self._storage and all(found.get(name) == stamp for name, stamp in expected.items())

    def _write_arrays(self, staged: StagedVideo) -> None:
        writers = {name: shard_writer(staged.path / name, spec) for name, spec in self._specs.items()}
        try:
            for start in range(0, self._video.num_steps if writers else 0, _STEPS_AT_ONCE):
                values = self._values(start, min(start + _STEPS_AT_ONCE, self._video.num_steps))
                for name, writer in writers.items():
                    if values[name].dtype == np.float16 and not np.isfinite(values[name].astype(np.float32)).all():
                        raise StoreError(
                            f"video {self._video.id!r}: array {name!r}: a value of the steps from {start} is too large for "
                            "float16; convert it to int8, which has its own scale per token"
                        )
                    writer.append(values[name])
            for name, writer in writers.items():
                staged.stamps.update({f"{name}/{file}": stamp for file, stamp in writer.close().items()})
        finally:
            for writer in writers.values():
                writer.abort()

    def _values(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """What the arrays that are written anew hold in steps start..stop."""
        video, values = self._video, {}
        tokens_nHWC = None
        if self._quantises or any(level not in video.levels for level in self._specs if level in POOL_SIZES):
            tokens_nHWC = torch.empty((stop - start, *video.shape("tokens")[1:]))
            video.read("tokens", start, stop, out=tokens_nHWC)
            values |= {level: pooled.half().numpy() for level, pooled in self._pyramid.pool(tokens_nHWC).items()}
        if self._quantises:
            mean_C, std_C = torch.tensor(video.mean), torch.tensor(video.std)
            codes_nHWC, scale_nHW = quantise(tokens_nHWC, mean_C, std_C)
            values |= {"tokens": codes_nHWC.numpy(), "scale": scale_nHW.numpy()}
        elif self._storage.number_format == "int8" and {"tokens", "scale"} & set(self._specs):
            values["tokens"], values["scale"] = video.read_codes(start, stop)
        for level in self._specs:
            if level not in values:
                values[level] = video.read(level, start, stop)
        return values


def _converted_meta(video: StoredVideo, storage: Storage) -> VideoMeta:
    before, meta = video.storage.number_format, video.meta
    changes = {}
    if {"tokens"} <= set(storage.levels) and storage.number_format != before:
        changes["earlier_formats"] = (*meta.earlier_formats, before)
    pooled = [level for level in storage.levels if level not in video.levels]
    if pooled:
        changes["pools_of_stored_tokens"] = (*meta.pools_of_stored_tokens, *pooled)
    return meta.model_copy(update=changes)


def _array_bytes(spec: ArraySpec) -> bytes:
    return metadata_bytes(array_metadata(spec))


def _stamp(raw: bytes) -> FileStamp:
    return FileStamp(len(raw), crc32c_hex(raw))
