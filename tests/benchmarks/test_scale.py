import numpy as np
import pytest
import torch
from fractions import Fraction

import scale
from features.schema import Source, Storage, VideoMeta
from features.store import create_or_open_store
from vjepa_loc.spacegrid import SpaceGrid

NUM_STEPS = 40


@pytest.mark.parametrize("name", ["everything, int8", "everything, fp16", "pool4"])
def test_bytes_and_files_are_those_that_the_store_writes(name, tmp_path):
    storage = scale.CHOICES[name]
    store = create_or_open_store(tmp_path / "store", scale.ENCODING, storage)
    num_frames = 2 * NUM_STEPS
    meta = VideoMeta(
        id="a-video-of-a-dataset", source=Source(name="a-video-of-a-dataset.mp4", size=10**8, mtime_ns=10**18, sha256="0" * 64),
        num_frames=num_frames, fps=Fraction(25), width=1280, height=720, grid=(16, 16),
        space_grid=SpaceGrid.build("stretch", 1280, 720, 256, 256, 16).to_dict(), decoder="pyav", device="cuda:0", dtype="float32",
    )
    with store.writer(meta.id, (16, 16), num_steps=NUM_STEPS) as writer:
        writer.append(
            torch.from_numpy(np.random.default_rng(0).standard_normal((NUM_STEPS, 16, 16, 1024), np.float32)),
            np.arange(num_frames).reshape(-1, 2), np.zeros(NUM_STEPS), np.full(NUM_STEPS, num_frames - 1),
        )
        writer.commit(meta, np.arange(num_frames) / 25)
    files = [file for folder in ("commits", "tokens.zarr/videos") for file in (tmp_path / "store" / folder).rglob("*") if file.is_file()]
    # The group of all videos is there once.
    files = [file for file in files if file.parent.name != "videos"]
    plan = scale.Plan(hours=1, gpus=1, fps=25, minutes=num_frames / 25 / 60, clips_per_s=1, decode_fps=1, source_mbit=1)
    need = scale.need(plan, name, storage, frame_step=1)
    assert need.million_files * 1e6 / plan.num_videos == pytest.approx(len(files))
    assert need.petabytes * 1e15 / plan.num_videos == pytest.approx(sum(file.stat().st_size for file in files), rel=0.005)


def test_rates_follow_from_what_is_given():
    plan = scale.Plan(hours=1000, gpus=4, fps=25, minutes=60, clips_per_s=50, decode_fps=200, source_mbit=2.5)
    need = scale.need(plan, "pool1", Storage(levels=("pool1",)), frame_step=5)
    clips = -(-90_000 // 5 // 64)
    assert need.gpu_hours == pytest.approx(1000 * clips / 50 / 3600)
    assert need.days == pytest.approx(need.gpu_hours / 4 / 24)
    assert need.decode_core_hours == pytest.approx(1000 * 90_000 / 200 / 3600)
    assert need.cores_per_gpu == pytest.approx(need.decode_core_hours / need.gpu_hours)
