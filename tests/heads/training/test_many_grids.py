"""A store whose videos have different grids (`fit = "aspect"`): the heads train on it and find events on every one of them."""

import json

import numpy as np
import pytest

import heads
from heads.training.fit import train_head
from tests.token_stores import HEIGHT, WIDTH, MemoryStore, make_encoding, make_video, random_events
from vjepa_loc.dataset import Dataset, Video

# Cells: wide, tall, one row.
GRIDS = [(3, 5), (5, 3), (1, 16)]
QUICK = {"epochs": 1, "batch_size": 2, "warmup_epochs": 1, "val_every": 1}


def many_grids() -> tuple[Dataset, MemoryStore]:
    rng = np.random.default_rng(0)
    videos, events, stored = {}, [], []
    for split in ("train", "val"):
        for number, (rows, columns) in enumerate(GRIDS):
            video_id = f"{split}{number}"
            found = random_events(video_id, 300, rng)
            videos[video_id] = Video(video_id, num_frames=300, width=WIDTH, height=HEIGHT, fps=25.0, split=split)
            events += found
            stored.append(make_video(video_id, found, 300, int(rng.integers(1 << 30)), input_hw=(8 * rows, 8 * columns)))
    return Dataset(("take", "return", "rummage"), videos, events), MemoryStore(stored, make_encoding(fit="aspect"))


@pytest.mark.parametrize("head", ["dense", "detr"])
def test_a_head_trains_on_a_store_of_many_grids(head, tmp_path):
    dataset, store = many_grids()
    run_path = train_head(dataset, [store], head, {}, QUICK, tmp_path / "runs")
    metrics = json.loads((run_path / "metrics.json").read_text())
    assert np.isfinite(metrics["figures"]["val/loss"])
    run = heads.load_run(run_path)
    for video_id in store.video_ids():
        events = run.predict_video(store.video(video_id))
        assert events and all(np.isfinite(event.score) for event in events), video_id
        assert all(np.isfinite(event.boxes_K4).all() for event in events if event.num_boxes)
