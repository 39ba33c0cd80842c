"""Other programs read our arrays to the bit: zarr-python always, tensorstore and zarrs where they are installed (extra `peers`)."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from features.schema import Storage
from features.store import open_store
from features.zarr_layout import POOL_SIZES
from tests.data.make_store_v1 import describe
from tests.features.store_builder import add_video, simulated_tokens, small_store

ROOT = Path(__file__).parents[2]
STORAGES = {
    "int8": Storage(shard_steps=16), "float16": Storage(shard_steps=16, number_format="float16"),
    "int8 zstd": Storage(shard_steps=16, compression="zstd"), "float16 zstd": Storage(shard_steps=7, number_format="float16", compression="zstd"),
}
DESCRIBING = ("mean", "std", "frames", "first_frame_seen", "last_frame_seen", "frame_time_s")

TENSORSTORE = """
import json, sys
import tensorstore
from tests.data.make_store_v1 import describe
group, names = sys.argv[1], json.loads(sys.argv[2])
arrays = {name: tensorstore.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{group}/{name}"}}).result() for name in names}
print(json.dumps({name: describe(array.read().result()) for name, array in arrays.items()}))
"""
ZARRS = """
import json, sys
import zarr, zarrs
from tests.data.make_store_v1 import describe
zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
group, names = sys.argv[1], json.loads(sys.argv[2])
print(json.dumps({name: describe(zarr.open_array(f"{group}/{name}", mode="r")[...]) for name in names}))
"""


@pytest.fixture(scope="module", params=STORAGES)
def stored(request, tmp_path_factory):
    """(folder of the group, array -> what our reader gives)."""
    path = tmp_path_factory.mktemp("interop") / "store"
    add_video(small_store(path, STORAGES[request.param]), "V 1", simulated_tokens(37), fit="letterbox")
    video = open_store(path).video("V 1")
    arrays = {name: getattr(video, name) for name in DESCRIBING}
    arrays |= {level: video.read(level) for level in video.levels if level in POOL_SIZES}
    if video.storage.number_format == "int8":
        arrays["tokens"], arrays["scale"] = video.read_codes()
    else:
        arrays["tokens"] = video.read("tokens")
    return video.group_path, {name: describe(values) for name, values in arrays.items()}


def test_zarr_python(stored):
    group_path, expected = stored
    group = zarr.open_group(group_path, mode="r")
    assert {name: describe(array[...]) for name, array in group.arrays()} == expected


def test_zarr_python_reads_single_steps(stored):
    group_path, _ = stored
    array = zarr.open_array(group_path / "tokens", mode="r")
    assert np.array_equal(np.stack([array[step] for step in (0, 15, 16, 36)]), array[:][[0, 15, 16, 36]])


@pytest.mark.parametrize(("library", "program"), [("tensorstore", TENSORSTORE), ("zarrs", ZARRS)])
def test_peers(stored, library, program):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed; the extra `peers` has it")
    group_path, expected = stored
    # In a process of its own: their threads do not survive the forks of other tests.
    command = [sys.executable, "-c", program, str(group_path), json.dumps(list(expected))]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=ROOT)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == expected
