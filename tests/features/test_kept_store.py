"""A store that was written when format version 1 was made is read as it was written, for ever."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from features.commits import key_of
from features.schema import Damage
from features.store import open_store
from features.store_copy import merge_stores
from features.zarr_layout import POOL_SIZES
from tests.data.make_store_v1 import describe

FOLDER = Path(__file__).parents[1] / "data" / "store_v1"
EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
DESCRIBING = ("mean", "std", "frames", "first_frame_seen", "last_frame_seen", "frame_time_s")


@pytest.fixture(scope="module")
def store():
    return open_store(FOLDER / "store", verify="always")


def test_it_holds_what_it_held(store):
    assert store.fingerprint == EXPECTED["fingerprint"]
    assert store.video_ids() == ["Große Katze", "plain", "zstd"] == sorted(EXPECTED["videos"])
    report = store.verify()
    assert report.ok and report.num_videos == 3, [str(problem) for problem in report.problems]


@pytest.mark.parametrize("video_id", EXPECTED["videos"])
def test_every_array_is_as_it_was(store, video_id):
    expected, video = EXPECTED["videos"][video_id], store.video(video_id)
    assert ", ".join(video.levels) == expected["levels"]
    assert (video.storage.number_format, video.storage.compression) == (expected["number_format"], expected["compression"])
    arrays = {name: getattr(video, name) for name in DESCRIBING}
    arrays |= {level: video.read(level) for level in video.levels if level in POOL_SIZES}
    if expected["number_format"] == "int8":
        arrays["tokens"], arrays["scale"] = video.read_codes()
    else:
        arrays["tokens"] = video.read("tokens")
    assert {name: describe(values) for name, values in arrays.items()} == expected["arrays"]


def test_tokens_decode_to_the_same_values(store):
    video = store.video("plain")
    codes_THWC, scale_THW = video.read_codes()
    tokens_THWC = video.read("tokens", out=np.empty(video.shape(), np.float32))
    decoded_THWC = codes_THWC * scale_THW[..., None].astype(np.float32) * video.std + video.mean
    assert np.allclose(tokens_THWC, decoded_THWC, rtol=1e-6, atol=1e-5)
    assert tokens_THWC[8, 3, 0, :3] == pytest.approx([-132.11390686, 1.89567411, -0.45782307], rel=1e-5)
    valid_HW = video.space_grid.valid_HW
    assert np.allclose(video.read("pool1")[:, 0, 0], tokens_THWC[:, valid_HW].mean(1), atol=0.05, rtol=0.01)


def test_the_descriptions_are_as_they_were(store):
    letterboxed, damaged, plain = (store.video(video_id) for video_id in ("Große Katze", "zstd", "plain"))
    assert letterboxed.fps == Fraction(30000, 1001) and letterboxed.num_frames == 9 and letterboxed.num_steps == 5
    assert letterboxed.valid().tolist() == [[False] * 4, [True] * 4, [True] * 4, [False] * 4]
    assert letterboxed.frames[-1].tolist() == [8, 8] and letterboxed.frame_time_s[8] == pytest.approx(8 * 1001 / 30000)
    assert damaged.meta.damage == Damage(num_errors=1, messages=("a packet",)) and damaged.space_grid.fit == "crop"
    assert plain.meta.source.name == "plain.mp4" and plain.first_frame_seen.tolist() == [0, 0, 0, 0, 8, 8, 8, 8, 16]


def test_a_copy_has_the_same_files(store, tmp_path):
    merge_stores(tmp_path / "copy", [store])
    copy = open_store(tmp_path / "copy")
    for video_id in EXPECTED["videos"]:
        assert copy.commit_of(video_id).generation_files == store.commit_of(video_id).generation_files
        assert store.commit_of(video_id).to_bytes() == (FOLDER / "store/commits" / f"{key_of(video_id)}.json").read_bytes()
        before, after = (json.loads(s.commit_of(video_id).to_bytes()) for s in (store, copy))
        assert {**before, "path": "", "files": {}, "crc32c": ""} == {**after, "path": "", "files": {}, "crc32c": ""}
