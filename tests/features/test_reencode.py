"""Clips encoded again: what is right is found right, and what no checksum can see is found wrong.

Tampered stores here are consistent: every checksum, every commit and the pyramid fit the tokens, only the tokens are not those
of their frames.
"""

import json
from pathlib import Path

import pytest
import torch

from features import clip_encoder
from features.encoders.tiny import Config, Encoder
from features.extract import extract_dataset
from features.recipe import ExtractConfig
from features.reencode import ReencodeReport, reencode_clips
from features.schema import Storage
from features.store import open_store
from features.stored_video import StoredVideo
from features.verify import verify_store
from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.errors import ConfigError

pytestmark = pytest.mark.usefixtures("kept_decoding_processes")

RECIPE = ExtractConfig(threads=1, deadline_s=30, overlap=0.5)
ALL = 1000


class Tampered:
    """`tiny`, with something done to the tokens of every clip, or to its frames."""

    def __init__(self, inner: Encoder, tokens=lambda tokens_BTHWC: tokens_BTHWC, frames=lambda frames_BTHWC3: frames_BTHWC3):
        self.spec, self.device, self.dtype = inner.spec, inner.device, inner.dtype
        self._inner, self._tokens, self._frames = inner, tokens, frames

    def encode(self, frames_BTHWC3: torch.Tensor) -> torch.Tensor:
        return self._tokens(self._inner.encode(self._frames(frames_BTHWC3)))


@pytest.fixture
def data(clip, tmp_path) -> Dataset:
    files = [clip("a.mp4", num_frames=53), clip("b.mp4", num_frames=20)]
    return Dataset((), {file.stem: Video(id=file.stem, file=file) for file in files})


def compare(data: Dataset, path: Path, encoder: Encoder, num_clips: int = ALL, **options) -> ReencodeReport:
    return reencode_clips(data, open_store(path), encoder, RECIPE, num_clips, **options)


@pytest.mark.parametrize("storage", [
    Storage(), Storage(number_format="float16"), Storage(levels=("pool4", "pool1")), Storage(number_format="float16", levels=("pool2",)),
    Storage(levels=("tokens",), shard_steps=3),
], ids=lambda storage: f"{storage.number_format}-{'-'.join(storage.levels)}")
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_every_clip_of_a_right_store_is_right(data, tmp_path, tiny, storage, fit):
    recipe = RECIPE.model_copy(update={"fit": fit, "batch_clips": 3})
    extract_dataset(data, tmp_path / "store", tiny, recipe, storage)
    report = reencode_clips(data, open_store(tmp_path / "store"), tiny, recipe, ALL)
    assert report.problems == () and {check.tolerance for check in report.clips} == {"exact"}
    # 53 frames are 27 steps: clips of 8 steps start every 4 of them, the last one at step 19.
    steps = {video_id: [range(c.start_step, c.stop_step) for c in report.clips if c.video_id == video_id] for video_id in "ab"}
    assert [step for part in steps["a"] for step in part] == list(range(27)) and len(steps["a"]) == 6
    assert [step for part in steps["b"] for step in part] == list(range(10))
    assert report.clips[0].level == next(level for level in ("tokens", "pool4", "pool2", "pool1") if level in storage.levels)
    assert all(0 < check.relative_error < 0.02 for check in report.clips)
    json.dumps(report.to_dict(), allow_nan=False)
    assert len(report.table()[2]) == len(report.clips)


TAMPERED = {
    "frames of one later": Tampered(Encoder(Config()), frames=lambda frames: frames.roll(-1, 1)),
    "rows and columns exchanged": Tampered(Encoder(Config()), tokens=lambda tokens: tokens.transpose(2, 3)),
    "steps in reverse": Tampered(Encoder(Config()), tokens=lambda tokens: tokens.flip(1)),
    "channels in another order": Tampered(Encoder(Config()), tokens=lambda tokens: tokens.roll(1, -1)),
    "another weight": Tampered(Encoder(Config()), tokens=lambda tokens: tokens * torch.where(torch.arange(192) == 7, 1.1, 1.0)),
    "colours in another order": Tampered(Encoder(Config()), frames=lambda frames: (frames.float() * torch.tensor([1, 0.9, 1])).byte()),
    "one step of one clip": Tampered(
        Encoder(Config()), tokens=lambda tokens: torch.cat([tokens[:, :5], tokens[:, 4:5], tokens[:, 6:]], 1)
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
@pytest.mark.parametrize("number_format", ["int8", "float16"])
def test_tokens_that_are_not_those_of_their_frames_are_found(data, tmp_path, tiny, name, number_format):
    extract_dataset(data, tmp_path / "store", TAMPERED[name], RECIPE, Storage(number_format=number_format))
    assert verify_store(tmp_path / "store").ok, "no checksum can see it"
    report = compare(data, tmp_path / "store", tiny)
    named = {problem.file for problem in report.problems}
    store = open_store(tmp_path / "store")
    assert named == {f"tokens.zarr/{store.commit_of(video_id).path}/tokens" for video_id in "ab"}
    assert all("are not what their frames give" in check.problem for check in report.clips if check.problem)
    assert "half a code and the rounding of sums (exact)" in report.problems[0].what


@pytest.mark.parametrize("name", ["frames of one later", "rows and columns exchanged", "steps in reverse", "one step of one clip"])
def test_the_close_tolerance_finds_other_frames_too(data, tmp_path, tiny, name, monkeypatch):
    # Another version of a library between extraction and comparison.
    extract_dataset(data, tmp_path / "store", TAMPERED[name], RECIPE)
    extract_dataset(data, tmp_path / "right", tiny, RECIPE)
    elsewhere = Tampered(tiny)
    elsewhere.dtype = torch.bfloat16
    assert compare(data, tmp_path / "right", elsewhere).problems == ()
    report = compare(data, tmp_path / "store", elsewhere)
    assert {check.tolerance for check in report.clips} == {"close"} and len(report.problems) >= 2
    assert "allowed half a code and a relative 0.03 (close)" in report.problems[0].what


def test_noise_of_another_machine_is_within_the_close_tolerance_only(data, tmp_path, tiny):
    extract_dataset(data, tmp_path / "store", tiny, RECIPE)
    generator = torch.Generator().manual_seed(0)

    def noisy(tokens):
        return tokens + 0.013 * tokens.std() * torch.randn(tokens.shape, generator=generator)

    same, other = Tampered(tiny, tokens=noisy), Tampered(tiny, tokens=noisy)
    other.dtype = torch.bfloat16
    assert compare(data, tmp_path / "store", same).problems and not compare(data, tmp_path / "store", other).problems


def test_a_store_that_says_other_frames_is_found(data, tmp_path, tiny, monkeypatch):
    extract_dataset(data, tmp_path / "store", tiny, RECIPE)
    genuine = StoredVideo.frames.func
    monkeypatch.setattr(StoredVideo, "frames", property(lambda video: genuine(video) - (video.id == "a")))
    report = compare(data, tmp_path / "store", tiny)
    assert {problem.video_id for problem in report.problems} == {"a"}
    assert "steps 0 to 5: expected frames 0 to 11 of a clip that saw 0 to 15, stored are others" in report.problems[0].what


def test_a_store_with_the_steps_of_another_recipe_is_found(data, tmp_path, tiny):
    extract_dataset(data, tmp_path / "store", tiny, RECIPE.model_copy(update={"frame_step": 2}))
    store = open_store(tmp_path / "store")
    store.encoding = store.encoding.model_copy(update={"frame_step": 1})
    report = reencode_clips(data, store, tiny, RECIPE, ALL)
    assert [problem.video_id for problem in report.problems] == ["a", "b"]
    assert report.problems[0].what.endswith("a.mp4 does not give the 14 steps that are stored")


def test_a_file_that_changed_or_became_shorter_is_a_problem_of_its_video(data, clip, tmp_path, tiny):
    extract_dataset(data, tmp_path / "store", tiny, RECIPE)
    clip("a.mp4", num_frames=24)
    report = compare(data, tmp_path / "store", tiny)
    [problem] = report.problems
    assert problem.video_id == "a" and "has changed: " in problem.what and "bytes when it was stored, now" in problem.what
    assert {check.video_id for check in report.clips} == {"b"}


def test_clips_are_drawn_by_the_seed_and_left_out_videos_are_said(data, tmp_path, tiny):
    extract_dataset(data, tmp_path / "store", tiny, RECIPE)
    drawn = [compare(data, tmp_path / "store", tiny, 2, seed=3) for _ in range(2)]
    assert drawn[0] == drawn[1] and len(drawn[0].clips) == 2 and drawn[0].seed == 3
    data.videos["a"].file.unlink()
    report = compare(data, tmp_path / "store", tiny, 3)
    assert len(report.clips) == 2 and "is gone" in report.left_out["a"]
    with pytest.raises(ConfigError, match="no clip can be encoded again: a: not in the dataset"):
        compare(Dataset((), {}), tmp_path / "store", tiny)
    with pytest.raises(ConfigError, match="from 1 on, got 0"):
        compare(data, tmp_path / "store", tiny, 0)


def test_decoding_ends_with_the_last_clip_that_was_drawn(clip, tmp_path, tiny, monkeypatch):
    data = Dataset((), {"long": Video(id="long", file=clip("long.mp4", num_frames=400))})
    recipe = RECIPE.model_copy(update={"overlap": 0.0})
    extract_dataset(data, tmp_path / "store", tiny, recipe)
    batches = []

    class Counting(clip_encoder.DecodeWorker):
        def stream_shared(self, *args):
            for message in self._worker.stream_shared(*args):
                batches.append(message)
                yield message

    monkeypatch.setattr(clip_encoder, "DecodeWorker", Counting)
    seed = next(seed for seed in range(100) if reencode_clips(data, open_store(tmp_path / "store"), tiny, recipe, 1, seed=seed).clips[0].start_step == 8)
    batches.clear()
    reencode_clips(data, open_store(tmp_path / "store"), tiny, recipe, 1, seed=seed)
    assert len(batches) <= 4, "25 batches are the whole video"
