"""An estimate against what an extraction then does: clips, steps and bytes; lengths that are not stated; a run that is measured."""

import json
import os
import signal
from pathlib import Path

import pytest

import cli
from features.estimate import Work, busy_shares, derive_gpu, measure_here, what_limits, work_of
from features.estimate_gpu import PUBLISHED
from features.estimate_lengths import ProbeProcess, decode_rate, known_lengths
from features.extract import extract_dataset
from features.outcome import StageTimes
from features.recipe import ExtractConfig
from features.schema import Storage
from features.store import open_store
from tests.features.conftest import write_clip
from tests.features.store_builder import small_encoding
from vjepa_loc.dataset import Dataset, Video

RECIPE = ExtractConfig(threads=1, decode_workers=1, deadline_s=30, min_free_gib=0)
LENGTHS = {"a": 70, "b": 24, "c": 5}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    return {name: write_clip(folder / f"{name}.mp4", num_frames=number) for name, number in LENGTHS.items()}


def videos_of(files, **facts) -> list[Video]:
    return [Video(id=name, file=file, **facts) for name, file in files.items()]


def stated(files) -> list[Video]:
    return [Video(id=name, file=file, fps=25.0, num_frames=LENGTHS[name], width=144, height=64) for name, file in files.items()]


@pytest.mark.parametrize("storage", [Storage(), Storage(number_format="float16", levels=("tokens",))])
def test_clips_steps_and_bytes_are_those_of_the_extraction(files, tmp_path, tiny, storage):
    videos, recipe = stated(files), RECIPE.model_copy(update={"overlap": 0.5})
    work = work_of(videos, recipe.encoding(tiny.spec), storage)
    report = extract_dataset(Dataset((), {video.id: video for video in videos}), tmp_path / "store", tiny, recipe, storage)
    summaries = open_store(tmp_path / "store").summaries().values()
    assert (work.num_videos, work.num_frames, work.num_clips) == (3, 99, report.num_clips)
    assert work.num_steps == sum(summary.steps for summary in summaries)
    on_disk = sum(file.stat().st_size for part in ("tokens.zarr", "commits") for file in (tmp_path / "store" / part).rglob("*") if file.is_file())
    assert work.num_bytes == pytest.approx(on_disk, rel=0.01)
    assert work.hours_of_video == pytest.approx(99 / 25 / 3600)


def test_lengths_come_from_the_dataset_then_the_header_and_what_cannot_be_opened_is_said(files, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    videos = [*stated(files)[:1], *videos_of(files)[1:], Video(id="broken", file=broken), Video(id="none")]
    lengths = known_lengths(videos, needs_fps=False, jobs=1)
    assert {video.id: video.num_frames for video in lengths.videos} == LENGTHS
    assert (lengths.num_stated, lengths.num_header, lengths.num_duration, lengths.num_inferred) == (1, 2, 0, 0)
    assert set(lengths.unreadable) == {"broken", "none"}
    header, unreadable = lengths.notes()
    assert header == "lengths that the dataset does not state: 2 from headers, which are not always right"
    assert unreadable.startswith(f"cannot be opened and not counted: broken: {broken}") and unreadable.endswith("(and 1 more)")
    assert [video.fps for video in lengths.videos] == [25.0] * 3, "the rate is known where it was asked for"


def test_a_container_that_counts_no_frames_is_measured_by_its_duration(tmp_path):
    file = write_clip(tmp_path / "a.mkv", num_frames=50)
    lengths = known_lengths([Video(id="a", file=file)], needs_fps=False, jobs=1)
    assert lengths.num_duration == 1 and abs(lengths.videos[0].num_frames - 50) <= 2
    assert lengths.notes() == ["lengths that the dataset does not state: 1 from duration x rate"]


def test_of_many_videos_some_are_opened_and_the_others_inferred_from_their_sizes(tmp_path):
    files = {f"v{number}": write_clip(tmp_path / f"{number}.mp4", num_frames=20 + 10 * number) for number in range(8)}
    lengths = known_lengths(videos_of(files), needs_fps=True, most=3, jobs=2)
    assert (lengths.num_header, lengths.num_inferred, len(lengths.videos)) == (3, 5, 8)
    assert sum(video.num_frames for video in lengths.videos) == pytest.approx(440, rel=0.3)
    assert "5 inferred from the others" in lengths.notes()[0]


def test_a_process_that_dies_or_hangs_on_a_video_is_replaced(files):
    request = {"path": str(files["a"]), "fps": None}
    with ProbeProcess() as process:
        assert process.ask(request, 30)["num_frames"] == 70
        os.kill(process._process.pid, signal.SIGKILL)
        assert process.ask(request, 30) == {"error": "the process that opened it died"}
        assert process.ask(request, 30)["num_frames"] == 70
        os.kill(process._process.pid, signal.SIGSTOP)
        assert process.ask(request, 0.3) == {"error": "opening it took too long"}
        assert process.ask(request, 30)["num_frames"] == 70
        pid = process._process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_measured_run_stops_when_its_time_is_up(tmp_path, tiny):
    file = write_clip(tmp_path / "long.mp4", num_frames=3000)
    videos = [Video(id=f"v{number}", file=file, fps=25.0, num_frames=3000) for number in range(6)]
    work = work_of(videos, RECIPE.encoding(tiny.spec), Storage())
    run = measure_here(videos, work, tiny, RECIPE, Storage(), 0.5)
    assert 1 < run.num_clips < work.num_clips and run.seconds < 60 and run.failed == {}
    assert run.clips_per_s > 0 and run.hours(work) == pytest.approx(work.num_clips / run.clips_per_s / 3600)
    assert run.frames_per_s == pytest.approx(run.clips_per_s * 18000 / work.num_clips)
    assert {"encode", "write"} <= set(run.busy) and run.limit


def test_a_run_of_which_nothing_comes_is_none(tmp_path, tiny):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    video = Video(id="a", file=tmp_path / "broken.mp4", fps=25.0, num_frames=100)
    assert measure_here([video], work_of([video], RECIPE.encoding(tiny.spec), Storage()), tiny, RECIPE, Storage(), 1.0) is None


def test_decoding_is_measured_per_core(files, tiny):
    encoding = RECIPE.encoding(tiny.spec)
    assert decode_rate(stated(files), encoding, RECIPE, 2.0) > 50
    assert decode_rate([Video(id="a", file=files["a"].with_name("absent.mp4"))], encoding, RECIPE, 0.5) is None


def test_what_limits_is_what_the_encoder_waits_for_or_the_cores():
    times = StageTimes(decode_s=9, decode_blocked_s=1, encode_s=2, encode_wait_s=7, encode_blocked_s=1, write_s=1, write_wait_s=9, wall_s=10)
    assert busy_shares(times) == {"decode": 0.9, "encode": 0.2, "write": 0.1} and what_limits(times, on_cpu=False) == "decode"
    assert what_limits(StageTimes(encode_s=9, encode_wait_s=1, wall_s=10), on_cpu=False) == "encode"
    assert what_limits(StageTimes(encode_s=5, encode_wait_s=1, encode_blocked_s=4, wall_s=10), on_cpu=False) == "write"
    taken = StageTimes(decode_s=1e6, encode_s=3e6, write_s=0, wall_s=10)
    assert what_limits(taken, on_cpu=True).endswith(" cores: decoding 25%, encoding 75%, writing 0%")
    assert what_limits(StageTimes(), on_cpu=True) == ""


def test_what_a_gpu_would_do_is_its_ideal_times_the_expected_share():
    encoding = small_encoding(channels=1024, patch_px=16, input_hw=(256, 256), clip_frames=64)
    videos = [Video(id="a", num_frames=64 * 1000, fps=25.0)]
    # The 336 MB/s are those of the tokens, without the pyramid.
    work, shape = work_of(videos, encoding, Storage(levels=("tokens",))), PUBLISHED["facebook/vjepa2-vitl-fpc64-256"][0]
    gpu = derive_gpu(work, videos, encoding, shape, "h200", 790.0, 2, 190.0)
    # ENCODE.md section 4: 36 to 44 clips per second each; at 40 2,560 frames/s, 13 to 14 cores of 720p, 336 MB/s.
    assert [round(rate, 1) for rate in gpu.clips_per_s] == [72.3, 88.4] and round(gpu.ideal_clips_per_s) == 137
    assert gpu.hours == pytest.approx((1000 / 88.4 / 3600, 1000 / 72.3 / 3600), rel=0.01)
    assert gpu.frames_per_s[0] == pytest.approx(72.3 * 64, rel=0.01) and gpu.decode_cores[0] == pytest.approx(72.3 * 64 / 190, rel=0.01)
    assert gpu.write_bytes_per_s[0] / 72.3 == pytest.approx(336e6 / 40, rel=0.05)
    assert gpu.limit.startswith("decode, with the ")
    short = [Video(id="a", num_frames=32, fps=25.0)]
    assert derive_gpu(work_of(short, encoding, Storage()), short, encoding, shape, "h200", 790.0, 1, None).tflop_per_clip < 0.5 * gpu.tflop_per_clip
    assert Work(0, 0, 0, 0, 0, 0.0).bytes_per_clip == 0


@pytest.fixture
def workspace(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    videos = [{"id": name, "file": str(file), "fps": 25.0, "num_frames": LENGTHS[name]} for name, file in files.items()]
    (tmp_path / "dataset.json").write_text(json.dumps({"format": "vjepa_loc", "version": 1, "labels": [], "videos": videos, "events": []}))
    (tmp_path / "vjepa_loc.toml").write_text(
        "[data]\ndataset = 'dataset.json'\n[store]\npath = 'store'\n[encoder]\nname = 'tiny'\n[extract]\nmin_free_gib = 0.0\ndecode_workers = 1\nthreads = 1\n"
    )
    return tmp_path


def test_the_command_measures_and_leaves_nothing_behind(workspace, capsys):
    assert cli.main(["estimate", "--seconds", "0.5", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["all"]["num_videos"], answer["left"]["num_videos"], answer["stored"]) == (3, 3, 0)
    assert answer["here"]["clips_per_s"] > 0 and answer["decode_frames_per_core_s"] > 0 and answer["gpu"] is None
    assert not (workspace / "store").exists()
    assert cli.main(["extract"]) == 0
    capsys.readouterr()
    assert cli.main(["estimate", "--seconds", "0", "--gpu", "h200"]) == 0
    out = capsys.readouterr().out
    assert "--gpu: encoder tiny has no layers" in out and "left" in out


def test_a_gpu_estimate_of_a_published_checkpoint_needs_no_weights_and_no_download(workspace, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert cli.main(["estimate", "--encoder", "vjepa2", "--gpu", "h200", "--gpus", "4", "--seconds", "0.5"]) == 0
    out = capsys.readouterr().out
    assert "4 x h200: derived, unmeasured" in out and "its published shape is used" in out and "here" in out
    assert cli.main(["estimate", "--encoder", "vjepa2", "--gpu", "400", "--seconds", "0", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["gpu"]["tflops"], answer["gpu"]["derived"], answer["gpu"]["measured"], answer["here"]) == (400.0, True, False, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu", "h20"], "--gpu: expected one of h200"), (["--gpus", "0"], "--gpus: expected at least 1, got 0"),
        (["--seconds", "-1"], "--seconds: expected 0 to 3600, got -1"), (["--dataset", "absent.json"], "absent.json does not exist"),
    ],
)
def test_a_mistake_is_one_line(workspace, capsys, arguments, message):
    assert cli.main(["estimate", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
