"""Makes the store that is kept in `store_v1/` and read for ever (`tests/features/test_kept_store.py`).

    python -m tests.data.make_store_v1 FOLDER

It was run once, with the code that wrote format version 1, and is kept to say what is in the store; a later version of the
format gets a folder and a script of its own. `FOLDER/store` is what is kept (readers need `tokens.zarr` and `commits` only),
`FOLDER/expected.json` what zarr-python reads from it: shape, type and sha256 of every array.
"""

import hashlib
import json
import secrets
import shutil
import sys
from pathlib import Path

import numpy as np
import zarr

from features.schema import Damage, Storage
from features.store import Store, create_or_open_store
from tests.features.store_builder import simulated_tokens, small_encoding, video_meta
from vjepa_loc.spacegrid import SpaceGrid

CHANNELS, GRID, CLIP_FRAMES = 8, (4, 4), 8
VIDEOS = {
    "plain": (Storage(shard_steps=4), "stretch", 9),
    "Große Katze": (Storage(shard_steps=16, number_format="float16", levels=("tokens", "pool2")), "letterbox", 5),
    "zstd": (Storage(shard_steps=4, compression="zstd", levels=("pool1", "tokens")), "crop", 6),
}


def main(folder: Path) -> None:
    rng = np.random.default_rng(1)
    # The same generations each time.
    secrets.token_hex = lambda num_bytes: rng.bytes(num_bytes).hex()
    path, expected = folder / "store", {}
    for seed, (video_id, (storage, fit, num_steps)) in enumerate(VIDEOS.items()):
        store = create_or_open_store(path, small_encoding(channels=CHANNELS, input_hw=(32, 32), clip_frames=CLIP_FRAMES), storage)
        write(store, video_id, fit, simulated_tokens(num_steps, seed, GRID, CHANNELS))
        group = zarr.open_group(path / "tokens.zarr", mode="r")[store.commit_of(video_id).path]
        arrays = {name: array[...] for name, array in sorted(group.arrays())}
        expected[video_id] = {
            "levels": ", ".join(storage.levels), "number_format": storage.number_format, "compression": storage.compression,
            "arrays": {name: describe(values) for name, values in arrays.items()},
        }
    for name in ("manifest", "ledger", "claims", "staging"):
        shutil.rmtree(path / name)
    content = {"fingerprint": store.fingerprint, "videos": expected}
    (folder / "expected.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def write(store: Store, video_id: str, fit: str, tokens_THWC: np.ndarray) -> None:
    num_steps = len(tokens_THWC)
    num_frames = 2 * num_steps - 1
    spaces = SpaceGrid.build(fit, 64, 24, 32, 32, 8)
    # The last frame of an odd number is repeated.
    frames = np.minimum(np.arange(2 * num_steps), num_frames - 1).reshape(num_steps, 2)
    first_seen = frames[:, 0] // CLIP_FRAMES * CLIP_FRAMES
    damage = Damage(num_errors=1, messages=("a packet",)) if fit == "crop" else None
    meta = video_meta(video_id, num_frames, spaces, fps="30000/1001", damage=damage)
    with store.writer(video_id, spaces.grid, spaces.valid_HW) as writer:
        writer.append(tokens_THWC, frames, first_seen, np.minimum(first_seen + CLIP_FRAMES, num_frames) - 1)
        writer.commit(meta, np.arange(num_frames) * 1001 / 30000)


def describe(values: np.ndarray) -> str:
    return f"{values.dtype} {values.shape} {hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
