"""What formats cost: each format against what is known of it, and the whole program on a store of a few seconds."""

import json
import sys
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import quantise
import torch
from quantise_formats import FORMATS, INT8_STORED, Comparison, compare_formats, first_clip_shift, grouped, level_of
from quantise_heads import Score, Summary, summarise

from features.schema import Source, Storage, VideoMeta
from features.store import create_or_open_store
from tests.token_stores import make_encoding, make_split
from vjepa_loc.dataset import Dataset, write_dataset

CHANNELS = 64


def tokens_with_outliers(num_outliers, num_tokens=512, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens_NC = torch.randn(num_tokens, CHANNELS, generator=generator)
    tokens_NC[:, :num_outliers] *= 30
    return tokens_NC + 1


def test_outlier_channels_spoil_one_scale_per_token_and_not_two_levels():
    def errors(num_outliers):
        tokens_NC = tokens_with_outliers(num_outliers)
        return {name: figures["error"] for name, figures in compare_formats([tokens_NC], [level_of(tokens_NC)]).items()}

    without, with_outliers = errors(0), errors(4)
    assert with_outliers[INT8_STORED] == pytest.approx(without[INT8_STORED], rel=0.05) and with_outliers[INT8_STORED] < 0.01
    assert with_outliers["int8, one scale per token"] > 5 * without["int8, one scale per token"]
    assert with_outliers["int8, 8 groups per token"] < with_outliers["int8, one scale per token"]
    assert with_outliers["float16"] < with_outliers["bfloat16"] < with_outliers["fp8 e4m3"] < with_outliers["int4, groups of 32"]


def test_a_channel_that_sleeps_in_the_first_clip_costs_the_format_that_uses_its_statistics():
    tokens_NC = tokens_with_outliers(0)
    mean_C, std_C = level_of(tokens_NC)
    asleep_C = torch.cat([0.05 * std_C[:1], std_C[1:]])
    awake, asleep = (compare_formats([tokens_NC], [(mean_C, std)]) for std in (std_C, asleep_C))
    changed = {name for name in FORMATS if asleep[name] != awake[name]}
    assert changed == {INT8_STORED} and asleep[INT8_STORED]["error"] > 2 * awake[INT8_STORED]["error"]


def test_bytes_of_the_formats():
    shares = {name: number_format.share(1024) for name, number_format in FORMATS.items()}
    assert shares["float16"] == 1 and shares["fp8 e4m3"] == 0.5
    assert shares[INT8_STORED] == pytest.approx(1026 / 2048)
    assert shares["int8, 8 groups per token"] == pytest.approx(1040 / 2048)
    assert shares["int4, groups of 32"] == pytest.approx((512 + 64) / 2048)
    assert shares["half of the principal axes, int8"] == pytest.approx(514 / 2048)


def test_groups_keep_what_they_can_hold_exactly():
    tokens_NC = torch.tensor([[127.0, -1, 0, 64, 0.5, -63.5, 0, 1]])
    assert torch.equal(grouped(tokens_NC, 4, 127), tokens_NC)
    assert torch.equal(grouped(torch.zeros(2, 5), 3, 7), torch.zeros(2, 5))


def test_comparison_of_equal_and_of_opposite_tokens():
    tokens_NC = tokens_with_outliers(2)
    level = mean_C, _ = level_of(tokens_NC)
    same, opposite = Comparison(level), Comparison(level)
    same.add(tokens_NC, tokens_NC)
    opposite.add(tokens_NC, 2 * mean_C - tokens_NC)
    assert same.figures() == pytest.approx({"error": 0, "cosine": 1, "worst_cosine": 1, "agreement": 1})
    assert opposite.figures() == pytest.approx({"error": 2, "cosine": -1, "worst_cosine": -1, "agreement": 0}, abs=1e-5)


def test_statistics_of_the_first_clip_are_compared():
    tokens_NC = tokens_with_outliers(0, 4096)
    mean_C, std_C = level_of(tokens_NC)
    same = first_clip_shift([tokens_NC], [(mean_C, std_C)])["its video"]
    assert same == pytest.approx(
        {"std_ratio_1%": 1, "std_ratio_median": 1, "std_ratio_99%": 1, "mean_distance_median": 0, "mean_distance_99%": 0}
    )
    other = first_clip_shift([tokens_NC], [(mean_C + 2 * std_C, std_C / 2)])["the sample"]
    assert (other["std_ratio_median"], other["mean_distance_median"]) == pytest.approx((0.5, 2))


def test_differences_are_taken_seed_by_seed():
    def score(trained_on, read_from, seed, value):
        return Score(trained_on, read_from, seed, {"map": value})

    found = summarise([
        score("float16", "float16", 0, 0.5), score("float16", "int8", 0, 0.4), score("int8", "int8", 0, 0.6),
        score("float16", "float16", 1, 0.7), score("float16", "int8", 1, 0.6), score("int8", "int8", 1, 0.8),
    ])
    assert str(found["trained on float16, read from float16"]["map"]) == "0.6000 ± 0.1414"
    assert str(found["difference: trained on float16, read from int8"]["map"]) == "-0.1000 ± 0.0000"
    assert str(found["difference: trained on int8, read from int8"]["map"]) == "0.1000 ± 0.0000"
    assert str(Summary(0.25, None)) == "0.2500"


@pytest.fixture(scope="module")
def dataset_and_store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantise")
    dataset, memory = make_split({"train": 2, "val": 1, "test": 1}, num_frames=120)
    videos = {video_id: replace(video, file=folder / f"{video_id}.mp4") for video_id, video in dataset.videos.items()}
    events = [event for video_id in videos for event in dataset.events_of(video_id)]
    write_dataset(Dataset(dataset.labels, videos, events), folder / "dataset.json")
    for number_format in ("float16", "int8"):
        store = create_or_open_store(folder / number_format, make_encoding(), Storage(number_format=number_format))
        for video_id in memory.video_ids():
            write_video(store, memory.video(video_id))
    return folder


def write_video(store, video):
    meta = VideoMeta(
        id=video.id, source=Source(name="none", size=0, mtime_ns=0, sha256=""), num_frames=video.num_frames, fps=Fraction(25),
        width=video.width, height=video.height, grid=video.grid, space_grid=video.space_grid.to_dict(), decoder="none",
        device="cpu", dtype="float32",
    )
    with store.writer(video.id, video.grid) as writer:
        tokens_THWC = video.read("tokens", 0, video.num_steps).astype(np.float32)
        writer.append(tokens_THWC, video.frames, video.first_frame_seen, video.last_frame_seen)
        writer.commit(meta, np.arange(video.num_frames) / 25)


@pytest.fixture
def run(dataset_and_store, monkeypatch, capsys):
    def run(*options):
        monkeypatch.chdir(dataset_and_store)
        monkeypatch.setattr(sys, "argv", ["quantise.py", *options])
        code = quantise.main()
        return code, *capsys.readouterr()

    return run


def test_errors_of_a_store(run):
    code, out, _ = run("float16", "--tokens", "2000", "--json")
    answer = json.loads(out)
    assert code == 0 and set(answer["errors"]) == set(FORMATS) and answer["scores"] == []
    assert answer["reference"] == "the tokens as float16" and answer["videos"] == 4
    assert answer["errors"]["float16"]["error"] == 0 and 0 < answer["errors"][INT8_STORED]["error"] < 0.05
    assert set(answer["first_clip"]) == {"its video", "the sample"}


def test_an_int8_store_is_called_what_it_is(run):
    code, out, _ = run("int8", "--tokens", "2000")
    assert code == 0 and "read from int8" in out and "number_format=float16" in out


def test_a_head_is_trained_on_each_format(run):
    code, out, error = run(
        "float16", "--tokens", "500", "--dataset", "dataset.json", "--epochs", "1", "--seeds", "1", "--set", "head.width=16"
    )
    assert code == 0, error
    lines = [line for line in out.splitlines() if "trained on" in line]
    assert [line.split(" | ")[0].strip("| ") for line in lines] == [
        "trained on float16, read from float16", "trained on float16, read from int8", "trained on int8, read from int8",
        "difference: trained on float16, read from int8", "difference: trained on int8, read from int8",
    ]
    assert "training 2 of 2: dense on int8, seed 0" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("int8", "--dataset", "dataset.json"), "expected float16 tokens, got tokens, pool1, pool2, pool4 as int8"),
        (("float16", "--dataset", "dataset.json", "--set", "head.level=pool1"), "the pools are float16 in every store"),
        (("float16", "--dataset", "dataset.json", "--head", "dens"), "dense"),
        (("nowhere",), "nowhere does not exist"),
    ],
)
def test_what_would_say_nothing_is_refused(run, options, message):
    code, out, error = run(*options)
    assert code == 2 and out == "" and message in error.splitlines()[-1]
