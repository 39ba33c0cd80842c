import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from features.schema import Storage
from features.store import open_store
from features.torch_dataset import StoredWindows
from tests.features.store_builder import add_video, simulated_tokens, small_store
from vjepa_loc.errors import CorruptStoreError, StoreError, UnknownNameError

STEPS = {"a": 40, "b": 23}


@pytest.fixture
def store(tmp_path):
    written = small_store(tmp_path / "store")
    for seed, (video_id, steps) in enumerate(STEPS.items()):
        add_video(written, video_id, simulated_tokens(steps, seed))
    return tmp_path / "store"


def windows(length=5):
    return [(video_id, start, start + length) for start in range(18) for video_id in STEPS]


@pytest.mark.parametrize("level", ["tokens", "pool2"])
def test_items_are_what_the_store_holds(store, level):
    dataset, opened = StoredWindows(store, windows(), level), open_store(store)
    assert len(dataset) == 36
    for item, (video_id, start, stop) in zip((dataset[i] for i in range(len(dataset))), windows(), strict=True):
        assert (item["video_id"], item["start_step"], item["stop_step"]) == (video_id, start, stop)
        assert item["values"].dtype == torch.float16
        assert np.array_equal(item["values"], opened.video(video_id).read(level, start, stop))


def test_codes_decode_to_the_values(store):
    item = StoredWindows(store, [("a", 3, 9)], codes=True)[0]
    assert item["codes"].dtype == torch.int8 and item["scale"].shape == (6, 6, 6) and "values" not in item
    decoded = item["codes"] * item["scale"].float()[..., None] * item["std"] + item["mean"]
    assert torch.equal(decoded.half(), StoredWindows(store, [("a", 3, 9)])[0]["values"])


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
@pytest.mark.parametrize("codes", [False, True])
def test_workers_read_the_same_however_they_are_started(store, start_method, codes):
    """The parent has read before, so that what it holds open is there when a process is forked."""
    dataset = StoredWindows(store, windows(), codes=codes)
    name = "codes" if codes else "values"
    expected = torch.stack([dataset[index][name] for index in range(len(dataset))])
    loader = DataLoader(dataset, batch_size=4, num_workers=2, multiprocessing_context=start_method, timeout=120)
    batches = list(loader)
    assert torch.equal(torch.cat([batch[name] for batch in batches]), expected)
    assert [video_id for batch in batches for video_id in batch["video_id"]] == [window[0] for window in windows()]
    assert torch.equal(dataset[0][name], expected[0]), "the parent reads on"


def test_it_travels_without_what_is_open(store):
    dataset = StoredWindows(store, windows(), "pool1")
    dataset[0]
    sent = pickle.dumps(dataset)
    assert len(sent) < 4000
    assert torch.equal(pickle.loads(sent)[7]["values"], dataset[7]["values"])


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_damage_keeps_its_name_in_a_worker(store, start_method):
    [shard] = list((open_store(store).video("b").group_path / "tokens").glob("c/1/*/*/*"))
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    loader = DataLoader(StoredWindows(store, [("b", 14, 20)]), num_workers=1, multiprocessing_context=start_method)
    with pytest.raises(CorruptStoreError, match="video 'b', array 'tokens': the chunk of step 16 fails its crc32c"):
        list(loader)


def test_what_is_not_there_is_refused_at_once(store, tmp_path):
    with pytest.raises(UnknownNameError, match="has no video 'bb'.*Did you mean 'b'"):
        StoredWindows(store, [("a", 0, 3), ("bb", 0, 3)])
    for start, stop in ((-1, 4), (20, 24), (3, 3)):
        with pytest.raises(IndexError, match=f"video 'b': expected steps within 0..23, got {start}..{stop}"):
            StoredWindows(store, [("b", start, stop)])
    with pytest.raises(ValueError, match="only the level 'tokens' is stored as int8 codes, got 'pool1'"):
        StoredWindows(store, [("b", 0, 3)], "pool1", codes=True)
    with pytest.raises(UnknownNameError, match="expected a level of tokens, pool1.* got 'pool3'"):
        StoredWindows(store, [("b", 0, 3)], "pool3")[0]
    half = small_store(tmp_path / "half", Storage(number_format="float16"))
    add_video(half, "a", simulated_tokens(4))
    with pytest.raises(StoreError, match="has no int8 codes"):
        StoredWindows(tmp_path / "half", [("a", 0, 3)], codes=True)[0]
