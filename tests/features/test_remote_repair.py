"""`verify --reencode` and `repair` on a store by URL."""

import pytest

from features.extract import extract_dataset
from features.recipe import ExtractConfig
from features.reencode import reencode_clips
from features.repair import repair_store
from features.store import open_store
from features.verify import verify_store
from vjepa_loc.dataset import Dataset, Video

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("kept_decoding_processes")]

RECIPE = ExtractConfig(threads=1, deadline_s=30)


def test_a_damaged_store_by_url_is_repaired(service, url, clip, tiny):
    files = [clip(f"{name}.mp4", num_frames=20) for name in "abc"]
    data = Dataset((), {file.stem: Video(id=file.stem, file=file) for file in files})
    extract_dataset(data, url, tiny, RECIPE)
    report = reencode_clips(data, open_store(url), tiny, RECIPE, 100)
    assert report.problems == () and {check.video_id for check in report.clips} == set("abc")
    before = {video_id: open_store(url).commit_of(video_id).generation_files for video_id in "abc"}
    shard = f"tokens.zarr/{open_store(url).commit_of('a').path}/tokens/c/0/0/0/0"
    names = [shard, "tokens.zarr/zarr.json", "commits/b.json", "tokens.zarr/videos/c/zarr.json"]
    for name in names:
        raw = service.body(url, name)
        service.overwrite(url, name, bytes([raw[0] ^ 1]) + raw[1:])
    assert {problem.file for problem in verify_store(url).problems} == set(names)
    report = repair_store(data, url, tiny, RECIPE)
    assert report.ok and set(report.restored) == {names[1], names[3]} and sorted(report.extracted.ids("done")) == ["a", "b"]
    assert verify_store(url).ok
    assert {video_id: open_store(url).commit_of(video_id).generation_files for video_id in "abc"} == before
