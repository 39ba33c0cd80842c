"""From video files to a store: what is stored, what is refused, what is skipped, and that work continues after a kill.

Videos are made by the `clip` fixture: 144x64 pixels, frames that carry their number.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from features import shards
from features.clips import ClipRule, plan_clips
from features.decode import open_video
from features.encoders.tiny import Config, Encoder
from features.extract import extract_dataset, extracted_files, load_encoder, plan_extraction, videos_of_files
from features.outcome import ClipsEncoded, Outcome, VideoStarted
from features.places import local
from features.preprocess import resize_uint8
from features.recipe import ExtractConfig
from features.resume import decide
from features.store import open_store
from features.verify import verify_store
from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.errors import ConfigError, CorruptStoreError, StoreError, StoreMismatchError, VideoError
from vjepa_loc.spacegrid import SpaceGrid

pytestmark = pytest.mark.usefixtures("kept_decoding_processes")

RECIPE = ExtractConfig(threads=1, decode_workers=1, deadline_s=30, retry_wait_s=0.01)
REDO = RECIPE.model_copy(update={"on_mismatch": "redo"})
ROOT = Path(__file__).parents[2]


def dataset_of(files: dict[str, Path], **facts) -> Dataset:
    return Dataset((), {name: Video(id=name, file=file, **facts) for name, file in files.items()})


def arrays_of(store_path: Path, video_id: str) -> dict[str, np.ndarray]:
    video = open_store(store_path).video(video_id)
    codes_THWC, scale_THW = video.read_codes()
    names = ("frames", "first_frame_seen", "last_frame_seen", "frame_time_s", "mean", "std")
    return {"codes": codes_THWC, "scale": scale_THW, **{name: getattr(video, name) for name in names}}


def assert_equal_arrays(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)


def ledger_of(store_path: Path) -> list[tuple[str, str]]:
    return [(entry["id"], entry["outcome"]) for entry in open_store(store_path).ledger.entries()]


def direct_tokens(path: Path, encoder: Encoder, recipe: ExtractConfig) -> np.ndarray:
    """Tokens of a whole video without worker, stream or store: all frames, the planned clips, one encoder call each."""
    encoding = recipe.encoding(encoder.spec)
    with open_video(path) as reader:
        frames = [frame.rgb_HW3 for frame in reader][:: encoding.frame_step]
        info = reader.info
    grid = SpaceGrid.build(encoding.fit, info.width, info.height, *encoding.input_hw, encoding.patch_px)
    frames += frames[-1:] * (-len(frames) % encoding.tubelet)
    resized = resize_uint8(np.stack(frames), grid)
    kept = []
    for clip in plan_clips(len(frames), ClipRule.of(encoding)):
        tokens_THWC = encoder.encode(resized[None, clip.start * encoding.tubelet : clip.stop * encoding.tubelet])[0]
        kept.append(tokens_THWC[clip.keep_start - clip.start : clip.keep_stop - clip.start])
    return torch.cat(kept).numpy()


@pytest.mark.parametrize("recipe", [RECIPE, RECIPE.model_copy(update={"fit": "letterbox", "frame_step": 3, "overlap": 0.5, "batch_clips": 3})])
def test_stored_tokens_are_those_of_the_encoder_up_to_the_quantiser(clip, tmp_path, tiny, recipe):
    path = clip("a.mp4", num_frames=53)
    report = extract_dataset(dataset_of({"a": path}), tmp_path / "store", tiny, recipe)
    assert report.to_dict() == {"done": ["a"], "skipped": [], "failed": {}}
    video = open_store(tmp_path / "store").video("a")
    expected = direct_tokens(path, tiny, recipe)
    stored = video.read("tokens", out=np.empty(expected.shape, np.float32))
    _, scale_THW = video.read_codes()
    half_a_code_THWC = 0.51 * scale_THW[..., None].astype(np.float32) * video.std + 1e-6
    assert (np.abs(stored - expected) <= half_a_code_THWC).all()
    step = recipe.frame_step
    assert video.frames.ravel().tolist()[:4] == [0, step, 2 * step, 3 * step]
    assert video.num_frames == 53 and len(video.frame_time_s) == 53
    meta = video.meta
    assert (meta.width, meta.height, meta.decoder, meta.device, meta.dtype, meta.weights) == (144, 64, "pyav", "cpu", "float32", "built-in")
    assert meta.source.size == path.stat().st_size and meta.source.mtime_ns == path.stat().st_mtime_ns


def test_an_odd_number_of_frames_names_the_last_one_twice(clip, tmp_path, tiny):
    extract_dataset(dataset_of({"a": clip("a.mp4", num_frames=5)}), tmp_path / "store", tiny, RECIPE)
    video = open_store(tmp_path / "store").video("a")
    assert video.frames.tolist() == [[0, 1], [2, 3], [4, 4]]
    assert video.first_frame_seen.tolist() == [0, 0, 0] and video.last_frame_seen.tolist() == [4, 4, 4]


def test_letterbox_bars_are_left_out_of_the_pyramid(clip, tmp_path, tiny):
    extract_dataset(dataset_of({"a": clip("a.mp4")}), tmp_path / "store", tiny, RECIPE.model_copy(update={"fit": "letterbox"}))
    video = open_store(tmp_path / "store").video("a")
    valid_HW = video.space_grid.valid_HW
    assert 0 < valid_HW.sum() < valid_HW.size
    pooled = video.read("tokens").astype(np.float32)[0][valid_HW].mean(0)
    np.testing.assert_allclose(video.read("pool1")[0, 0, 0], pooled, atol=0.05)


def test_a_folder_of_images_is_a_video(tmp_path, tiny, draw_number):
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(6):
        Image.fromarray(draw_number(number, 144, 64)).save(folder / f"{number:03d}.png")
    data = dataset_of({"a": folder}, fps=10)
    assert extract_dataset(data, tmp_path / "store", tiny, RECIPE).ids("done") == ["a"]
    meta = open_store(tmp_path / "store").video("a").meta
    assert (meta.num_frames, meta.fps, meta.fps_nominal) == (6, 10, True)
    assert extract_dataset(data, tmp_path / "store", tiny, RECIPE).ids("skipped") == ["a"]


def test_one_bad_video_never_stops_the_others(clip, tmp_path, tiny):
    good, other = clip("good.mp4", num_frames=8), clip("other.mp4", num_frames=8)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "garbage.mp4").write_bytes(b"no video at all" * 100)
    files = {
        "good": good, "empty": tmp_path / "empty.mp4", "garbage": tmp_path / "garbage.mp4", "absent": tmp_path / "absent.mp4", "other": other,
    }
    data = dataset_of(files)
    data = Dataset((), data.videos | {"nowhere": Video(id="nowhere")})
    report = extract_dataset(data, tmp_path / "store", tiny, RECIPE)
    assert report.ids("done") == ["good", "other"]
    assert list(report.failed) == ["empty", "garbage", "absent", "nowhere"]
    assert "empty file (0 bytes)" in report.failed["empty"] and "no such video file" in report.failed["absent"]
    assert "FFmpeg cannot open" in report.failed["garbage"] and "names no `file`" in report.failed["nowhere"]
    assert sorted(ledger_of(tmp_path / "store")) == [
        ("absent", "failed"), ("empty", "failed"), ("garbage", "failed"), ("good", "done"), ("nowhere", "failed"), ("other", "done")
    ]


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"num_frames": 21}, "the dataset states num_frames 21, the video has 20"),
        ({"width": 140}, "the dataset states width 140, the video has 144"),
        ({"height": 60}, "the dataset states height 60, the video has 64"),
        ({"fps": 25.1}, "the dataset states fps 25.1, the video has 25"),
    ],
)
def test_a_video_that_disagrees_with_the_dataset_is_refused_with_both_values(clip, tmp_path, tiny, facts, message):
    data = dataset_of({"a": clip("a.mp4")}, **facts)
    report = extract_dataset(data, tmp_path / "store", tiny, RECIPE)
    assert message in report.failed["a"] and "\n" not in report.failed["a"]
    assert open_store(tmp_path / "store").video_ids() == []
    assert list((tmp_path / "store" / "staging").iterdir()) == [] and list((tmp_path / "store" / "claims").iterdir()) == []


def test_a_refused_video_leaves_the_decoding_process_to_the_next(clip, tmp_path, tiny):
    wrong_at_the_end, wrong_at_once = {"num_frames": 21}, {"width": 140}
    path = clip("a.mp4")
    facts = [wrong_at_the_end, {}, wrong_at_once, {}]
    videos = {str(number): Video(id=str(number), file=path, **stated) for number, stated in enumerate(facts)}
    report = extract_dataset(Dataset((), videos), tmp_path / "store", tiny, RECIPE)
    assert report.ids("done") == [str(number) for number, stated in enumerate(facts) if not stated], report.failed


def test_facts_that_agree_are_accepted(clip, tmp_path, tiny):
    data = dataset_of({"a": clip("a.mp4")}, num_frames=20, width=144, height=64, fps=25.01)
    assert extract_dataset(data, tmp_path / "store", tiny, RECIPE).ids("done") == ["a"]


def test_a_damaged_video_is_stored_as_damaged_unless_its_length_was_declared(clip, tmp_path, tiny):
    whole = clip("whole.ts", num_frames=60, muxer="mpegts").read_bytes()
    path = tmp_path / "damaged.ts"
    middle = len(whole) // 2 // 188 * 188
    path.write_bytes(whole[:middle] + bytes(188 * 4) + whole[middle + 188 * 4 :])
    report = extract_dataset(dataset_of({"a": path}), tmp_path / "store", tiny, RECIPE)
    assert report.ids("done") == ["a"] and report.num_damaged == 1
    video = open_store(tmp_path / "store").video("a")
    assert video.damaged and video.meta.damage.num_errors > 0
    declared = dataset_of({"a": path}, num_frames=61)
    assert "num_frames 61, the video has" in extract_dataset(declared, tmp_path / "other", tiny, RECIPE).failed["a"]


def test_what_is_complete_is_skipped(clip, tmp_path, tiny):
    path, store_path = clip("a.mp4", num_frames=8), tmp_path / "store"
    data = dataset_of({"a": path})

    def extract_again() -> Outcome:
        (outcome,) = extract_dataset(data, store_path, tiny, RECIPE).outcomes
        return outcome

    assert extract_again().status == "done"
    assert (extract_again().status, extract_again().reason) == ("skipped", "already stored")
    os.utime(path, ns=(1, 1))
    assert extract_again().status == "skipped", "the same bytes under a newer time"
    path.unlink()
    assert "is gone and cannot be compared" in extract_again().reason


def test_a_file_that_changed_is_refused_with_both_values_and_the_others_go_on(clip, tmp_path, tiny):
    path, store_path = clip("a.mp4", num_frames=8), tmp_path / "store"
    old_size = path.stat().st_size
    extract_dataset(dataset_of({"a": path}), store_path, tiny, RECIPE)
    commit = (store_path / "commits/a.json").read_bytes()
    clip("a.mp4", num_frames=12)
    report = extract_dataset(dataset_of({"a": path, "b": clip("b.mp4", num_frames=4)}), store_path, tiny, RECIPE)
    assert report.ids("done") == ["b"] and list(report.failed) == ["a"]
    sizes = f"{old_size} bytes when it was stored, now {path.stat().st_size}"
    assert f"has changed: {sizes}; put the old file back" in report.failed["a"] and "--on-mismatch redo" in report.failed["a"]
    assert (store_path / "commits/a.json").read_bytes() == commit and ("a", "failed") in ledger_of(store_path)
    (decision, _) = plan_extraction(
        dataset_of({"a": path, "b": tmp_path / "b.mp4"}), store_path, RECIPE.encoding(tiny.spec), RECIPE
    )
    assert decision.action == "refuse"


def test_a_redo_replaces_that_video_alone_and_readers_of_the_old_generation_go_on(clip, tmp_path, tiny):
    path, store_path = clip("a.mp4", num_frames=8), tmp_path / "store"
    extract_dataset(dataset_of({"a": path, "b": clip("b.mp4", num_frames=4)}), store_path, tiny, RECIPE)
    other = (store_path / "commits/b.json").read_bytes()
    reader = open_store(store_path).video("a")
    before = reader.read("tokens", 0, 2).copy()
    clip("a.mp4", num_frames=12)
    # The dataset states what is true of the new file: it is the stored video that is out of date.
    videos = {"a": Video(id="a", file=path, num_frames=12), "b": Video(id="b", file=tmp_path / "b.mp4")}
    report = extract_dataset(Dataset((), videos), store_path, tiny, REDO)
    assert report.ids("done") == ["a"] and report.ids("skipped") == ["b"]
    assert "the file has changed" in report.outcomes[0].reason
    assert open_store(store_path).video("a").num_frames == 12 and (store_path / "commits/b.json").read_bytes() == other
    assert reader.num_frames == 8
    np.testing.assert_array_equal(reader.read("tokens", 0, 2), before)
    assert reader.read("tokens").shape[0] == 4, "steps that were never touched before"
    assert verify_store(store_path).ok


def test_a_redo_that_fails_keeps_what_is_stored(clip, tmp_path, tiny):
    path, store_path = clip("a.mp4", num_frames=8), tmp_path / "store"
    extract_dataset(dataset_of({"a": path}), store_path, tiny, RECIPE)
    before = arrays_of(store_path, "a")
    path.write_bytes(b"no video at all" * 100)
    assert "FFmpeg cannot open" in extract_dataset(dataset_of({"a": path}), store_path, tiny, REDO).failed["a"]
    assert_equal_arrays(before, arrays_of(store_path, "a"))


def test_a_store_that_is_gone_is_not_taken_for_damage(clip, tmp_path, tiny, monkeypatch):
    data = dataset_of({"a": clip("a.mp4", num_frames=8), "b": clip("b.mp4", num_frames=8)})
    extract_dataset(data, tmp_path / "store", tiny, RECIPE)
    store = open_store(tmp_path / "store")

    def vanish_while_opening(video_id):
        (tmp_path / "store").rename(tmp_path / "away")
        raise CorruptStoreError("expected 640 bytes, got No such file or directory")

    monkeypatch.setattr(store, "video", vanish_while_opening)
    with pytest.raises(StoreError, match="does not exist"):
        decide(data.videos["a"], store)


def test_bytes_that_changed_under_the_same_size_and_time_are_found_by_their_hash(clip, tmp_path, tiny):
    path = clip("a.mp4", num_frames=8)
    data, store_path = dataset_of({"a": path}), tmp_path / "store"
    extract_dataset(data, store_path, tiny, RECIPE)
    times, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert extract_dataset(data, store_path, tiny, RECIPE).ids("skipped") == ["a"]
    by_hash = RECIPE.model_copy(update={"compare": "hash"})
    (decision,) = plan_extraction(data, store_path, by_hash.encoding(tiny.spec), by_hash)
    assert decision.action == "refuse" and "sha256" in decision.reason
    redo = by_hash.model_copy(update={"on_mismatch": "redo"})
    (decision,) = plan_extraction(data, store_path, redo.encoding(tiny.spec), redo)
    assert decision.action == "replace" and "sha256" in decision.reason


def test_a_stored_video_that_disagrees_with_a_corrected_dataset_is_refused(clip, tmp_path, tiny):
    path = clip("a.mp4")
    extract_dataset(dataset_of({"a": path}), tmp_path / "store", tiny, RECIPE)
    report = extract_dataset(dataset_of({"a": path}, num_frames=19), tmp_path / "store", tiny, RECIPE)
    assert "the dataset states num_frames 19, the video has 20" in report.failed["a"]


class Other(Encoder):
    """`tiny` with something else in its spec."""

    def __init__(self, inner: Encoder, **changes):
        self.spec, self.device, self.dtype = inner.spec.model_copy(update=changes), inner.device, inner.dtype


@pytest.mark.parametrize(("spec", "recipe", "message"), [
    ({"digest": "f" * 64}, {}, "digest: '[0-9a-f]{64}' != 'f{64}'"),
    ({"family": "huge"}, {}, "family: 'tiny' != 'huge'"),
    ({"input_height": 160, "input_width": 160}, {}, r"input_hw: \[128, 128\] != \[160, 160\]"),
    ({"mean": (0.5, 0.5, 0.5)}, {}, r"mean: \[0.485, 0.456, 0.406\] != \[0.5, 0.5, 0.5\]"),
    ({"clip_frames": 32}, {}, "clip_frames: 16 != 32"),
    ({}, {"fit": "crop"}, "fit: 'stretch' != 'crop'"),
    ({}, {"frame_step": 2}, "frame_step: 1 != 2"),
    ({}, {"sample_fps": 4.0}, "sample_fps: None != 4.0"),
    ({}, {"overlap": 0.5}, "overlap: 0 != 8"),
    ({}, {"keep": "earliest"}, "keep: 'central' != 'earliest'"),
])
def test_a_store_of_another_encoding_is_refused_with_both_values(clip, tmp_path, tiny, spec, recipe, message):
    data = dataset_of({"a": clip("a.mp4", num_frames=4)})
    extract_dataset(data, tmp_path / "store", tiny, RECIPE)
    # A redo is a matter of one video's file, never of the encoding.
    other, changed = Other(tiny, **spec), REDO.model_copy(update=recipe)
    with pytest.raises(StoreMismatchError, match=message) as caught:
        extract_dataset(data, tmp_path / "store", other, changed)
    assert "\n" not in str(caught.value) and "choose another store, or the settings" in str(caught.value)
    with pytest.raises(StoreMismatchError, match=message):
        plan_extraction(data, tmp_path / "store", changed.encoding(other.spec), changed)
    assert ledger_of(tmp_path / "store") == [("a", "done")]


def test_a_plan_writes_nothing_and_says_what_would_be_done(clip, tmp_path, tiny):
    path = clip("a.mp4", num_frames=4)
    data = dataset_of({"a": path, "absent": tmp_path / "absent.mp4"})
    plan = list(plan_extraction(data, tmp_path / "store", RECIPE.encoding(tiny.spec), RECIPE))
    assert [(decision.video.id, decision.action) for decision in plan] == [("a", "extract"), ("absent", "refuse")]
    assert not (tmp_path / "store").exists()
    extract_dataset(data, tmp_path / "store", tiny, RECIPE)
    again = list(plan_extraction(data, tmp_path / "store", RECIPE.encoding(tiny.spec), RECIPE))
    assert [decision.action for decision in again] == ["skip", "refuse"]


def test_a_video_that_another_process_extracts_is_left_to_it(clip, tmp_path, tiny):
    data = dataset_of({"a": clip("a.mp4", num_frames=4)})
    extract_dataset(dataset_of({}), tmp_path / "store", tiny, RECIPE)
    with open_store(tmp_path / "store").claim("a"):
        (outcome,) = extract_dataset(data, tmp_path / "store", tiny, RECIPE).outcomes
    assert (outcome.status, outcome.reason) == ("skipped", "in the hands of another process")
    assert extract_dataset(data, tmp_path / "store", tiny, RECIPE).ids("done") == ["a"]


class Faulty:
    """An encoder that fails on its n-th clip."""

    def __init__(self, inner: Encoder, fails_at: int, error: BaseException):
        self._inner, self._left, self._error = inner, fails_at, error
        self.spec, self.device, self.dtype = inner.spec, inner.device, inner.dtype

    def encode(self, frames_BTHWC3: torch.Tensor) -> torch.Tensor:
        self._left -= 1
        if not self._left:
            raise self._error
        return self._inner.encode(frames_BTHWC3)


def test_an_unexpected_error_costs_one_video_and_its_trace_is_in_the_ledger(clip, tmp_path, tiny):
    data = dataset_of({"a": clip("a.mp4", num_frames=20), "b": clip("b.mp4", num_frames=4)})
    report = extract_dataset(data, tmp_path / "store", Faulty(tiny, 1, RuntimeError("CUDA\nerror")), RECIPE)
    assert report.to_dict() == {"done": ["b"], "skipped": [], "failed": {"a": "RuntimeError: CUDA error"}}
    entry = next(entry for entry in open_store(tmp_path / "store").ledger.entries() if entry["id"] == "a")
    assert "Traceback" in entry["traceback"]


def test_tokens_that_are_not_finite_fail_the_video(clip, tmp_path, tiny):
    class Broken(Faulty):
        def encode(self, frames_BTHWC3):
            return self._inner.encode(frames_BTHWC3) * torch.inf

    data = dataset_of({"a": clip("a.mp4", num_frames=4)})
    report = extract_dataset(data, tmp_path / "store", Broken(tiny, 0, RuntimeError()), RECIPE)
    assert "not finite" in report.failed["a"] and open_store(tmp_path / "store").video_ids() == []


def test_ctrl_c_leaves_no_trace_but_a_line_in_the_ledger(clip, tmp_path, tiny):
    data = dataset_of({"a": clip("a.mp4", num_frames=40), "b": clip("b.mp4", num_frames=4)})
    with pytest.raises(KeyboardInterrupt):
        extract_dataset(data, tmp_path / "store", Faulty(tiny, 2, KeyboardInterrupt()), RECIPE)
    ledger = ledger_of(tmp_path / "store")
    assert ("a", "dropped") in ledger and {outcome for _, outcome in ledger} == {"dropped"}
    assert list((tmp_path / "store" / "staging").iterdir()) == [] and list((tmp_path / "store" / "claims").iterdir()) == []
    assert extract_dataset(data, tmp_path / "store", tiny, RECIPE).ids("done") == ["a", "b"]


def test_a_disk_that_refuses_stops_the_job(clip, tmp_path, tiny, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    data = dataset_of({"a": clip("a.mp4", num_frames=40), "b": clip("b.mp4", num_frames=4)})
    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_all", full)
        with pytest.raises(StoreError, match="no space left.*free some space and run the command again") as caught:
            extract_dataset(data, tmp_path / "store", tiny, RECIPE)
    assert "\n" not in str(caught.value)
    assert ("a", "failed") in ledger_of(tmp_path / "store") and "done" not in dict(ledger_of(tmp_path / "store")).values()
    assert extract_dataset(data, tmp_path / "store", tiny, RECIPE).ids("done") == ["a", "b"]


def test_a_read_only_store_stops_the_job_with_one_line(clip, tmp_path, tiny, monkeypatch):
    def read_only(*args, **options):
        raise OSError(30, "Read-only file system")

    data = dataset_of({"a": clip("a.mp4", num_frames=4)})
    extract_dataset(dataset_of({}), tmp_path / "store", tiny, RECIPE)
    monkeypatch.setattr(local, "create_exclusively", read_only)
    with pytest.raises(StoreError, match="cannot write to .*: Read-only file system; the store is read-only") as caught:
        extract_dataset(data, tmp_path / "store", tiny, RECIPE)
    assert "\n" not in str(caught.value)


def test_progress_tells_every_clip_and_every_outcome(clip, tmp_path, tiny):
    events = []
    data = dataset_of({"a": clip("a.mp4", num_frames=40), "absent": tmp_path / "absent.mp4"})
    extract_dataset(data, tmp_path / "store", tiny, RECIPE, on_progress=events.append)
    assert [event.video_id for event in events if isinstance(event, VideoStarted)] == ["a"]
    assert sum(event.num_clips for event in events if isinstance(event, ClipsEncoded)) == 3
    assert {event.video_id: event.status for event in events if isinstance(event, Outcome)} == {"a": "done", "absent": "failed"}


def test_files_without_a_dataset_get_a_store_that_goes_away(clip, tmp_path, tiny):
    path = clip("a.mp4", num_frames=20)
    extract_dataset(dataset_of({"a": path}), tmp_path / "kept", tiny, RECIPE)
    with extracted_files([path, tmp_path / "absent.mp4"], tiny, RECIPE) as (store, report):
        assert report.ids("done") == ["a"] and list(report.failed) == ["absent"]
        folder = store.path
        assert_equal_arrays(arrays_of(tmp_path / "kept", "a"), arrays_of(folder, "a"))
    assert not folder.exists()


def test_ids_of_files_are_the_shortest_that_tell_them_apart():
    assert [video.id for video in videos_of_files([Path("x/a.mp4"), Path("b.mp4")])] == ["a", "b"]
    assert [video.id for video in videos_of_files([Path("a.mp4"), Path("a.avi")])] == ["a.mp4", "a.avi"]
    assert [video.id for video in videos_of_files([Path("/x/a.mp4"), Path("/y/a.mp4")])] == ["/x/a.mp4", "/y/a.mp4"]
    with pytest.raises(VideoError, match="got a file twice"):
        videos_of_files([Path("a.mp4"), Path("a.mp4")])


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"extract\.device: 'cuda:9' cannot be used here"):
        load_encoder("tiny", Config(), "cuda:9")


def test_the_threads_of_torch_are_left_as_they_were(clip, tmp_path, tiny):
    before = torch.get_num_threads()
    extract_dataset(dataset_of({"a": clip("a.mp4", num_frames=4)}), tmp_path / "store", tiny, RECIPE)
    assert torch.get_num_threads() == before


KILLED = """
import sys, time
from features.encoders.tiny import Config, Encoder
from features.extract import extract_dataset
from features.recipe import ExtractConfig
from features.resume import decide
from vjepa_loc.dataset import read_dataset

class Slow(Encoder):
    def encode(self, frames_BTHWC3):
        print("clip", flush=True)
        time.sleep(0.05)
        return super().encode(frames_BTHWC3)

extract_dataset(read_dataset(sys.argv[1]), sys.argv[2], Slow(Config()), ExtractConfig(threads=1, decode_workers=1))
"""


TERMINATED = KILLED.replace(
    "extract_dataset(read_dataset", "from features.termination import ends_on_sigterm\nwith ends_on_sigterm():\n    extract_dataset(read_dataset"
)


def test_sigterm_leaves_nothing_behind_and_the_work_continues(clip, tmp_path, tiny):
    videos = [{"id": name, "file": str(clip(f"{name}.mp4", num_frames=80))} for name in "abc"]
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"format": "vjepa_loc", "version": 1, "labels": [], "videos": videos, "events": []}))
    process = subprocess.Popen(
        [sys.executable, "-c", TERMINATED, str(path), str(tmp_path / "store")], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )
    for _ in range(7):
        assert process.stdout.readline() == b"clip\n"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err.decode().splitlines()[-1] == "SIGTERM: ended; what is complete is kept, run the command again to continue"
    store = open_store(tmp_path / "store")
    stored = store.video_ids()
    assert len(stored) < 3 and verify_store(store.path).ok
    for folder in ("staging", "claims"):
        assert list((store.path / folder).iterdir()) == [], "another machine can go on at once"
    assert sorted(video_id for video_id, outcome in ledger_of(store.path) if outcome == "done") == stored
    assert "dropped" in dict(ledger_of(store.path)).values()
    data = Dataset((), {video["id"]: Video(id=video["id"], file=Path(video["file"])) for video in videos})
    resumed = extract_dataset(data, store.path, tiny, RECIPE)
    assert (resumed.ids("skipped"), resumed.ids("done")) == (stored, sorted(set("abc") - set(stored)))


def test_a_store_that_vanishes_stops_the_job_with_one_line(clip, tmp_path, tiny):
    data = dataset_of({"a": clip("a.mp4", num_frames=20), "b": clip("b.mp4", num_frames=80), "c": clip("c.mp4", num_frames=4)})
    store_path, clips = tmp_path / "store", []

    class Vanishing(Faulty):
        def encode(self, frames_BTHWC3):
            clips.append(1)
            if len(clips) == 6:
                store_path.rename(tmp_path / "away")
            return self._inner.encode(frames_BTHWC3)

    with pytest.raises(StoreError, match="is the disk or network share still there") as caught:
        extract_dataset(data, store_path, Vanishing(tiny, 0, RuntimeError()), RECIPE)
    assert "\n" not in str(caught.value) and not store_path.exists(), "nothing is written where the store was"
    (tmp_path / "away").rename(store_path)
    stored = open_store(store_path).video_ids()
    # A claim ends with its process, and this one goes on.
    for claim in (store_path / "claims").iterdir():
        claim.unlink()
    resumed = extract_dataset(data, store_path, tiny, RECIPE)
    assert (resumed.ids("skipped"), resumed.ids("done")) == (stored, sorted(set("abc") - set(stored))), resumed.outcomes


def test_work_that_was_killed_continues_and_gives_the_same_bytes(clip, tmp_path, tiny):
    videos = [{"id": name, "file": str(clip(f"{name}.mp4", num_frames=80))} for name in "abc"]
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"format": "vjepa_loc", "version": 1, "labels": [], "videos": videos, "events": []}))
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path), str(tmp_path / "store")], cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True
    )
    # The seventh of 15 clips is in the middle of the second video.
    for _ in range(7):
        assert process.stdout.readline() == b"clip\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    stored = open_store(tmp_path / "store").video_ids()
    assert list((tmp_path / "store" / "staging").iterdir()), "killed in the middle of a video"
    data = Dataset((), {video["id"]: Video(id=video["id"], file=Path(video["file"])) for video in videos})
    resumed = extract_dataset(data, tmp_path / "store", tiny, RECIPE)
    assert (resumed.ids("skipped"), resumed.ids("done")) == (stored, sorted(set("abc") - set(stored)))
    extract_dataset(data, tmp_path / "uninterrupted", tiny, RECIPE)
    for name in "abc":
        assert_equal_arrays(arrays_of(tmp_path / "uninterrupted", name), arrays_of(tmp_path / "store", name))
    assert open_store(tmp_path / "store").verify().ok
