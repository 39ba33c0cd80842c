"""`cli.py dataset check | split | stats` through the command line."""

import dataclasses
import json

import pytest

import cli
from features import dataset_check
from tests.features.conftest import write_clip
from vjepa_loc.dataset import read_dataset


@pytest.fixture
def dataset_path(tmp_path):
    """Four videos of 8 to 11 frames, 64x48, two of a group."""
    videos, events = [], []
    for index in range(4):
        write_clip(tmp_path / f"v{index}.mp4", num_frames=8 + index, width=64, height=48)
        videos.append({"id": f"v{index}", "file": f"v{index}.mp4", "split": "train", "group": "g" if index < 2 else None})
        events.append({"video_id": f"v{index}", "label": "take", "start_frame": 1, "end_frame": 8, "boxes": {"1": [1, 1, 20, 20]}})
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"format": "vjepa_loc", "version": 1, "labels": ["take"], "videos": videos, "events": events}))
    return path


def change(path, **of_first_event):
    content = json.loads(path.read_text())
    content["events"][0] |= of_first_event
    path.write_text(json.dumps(content))


def run(*arguments):
    return cli.main(["dataset", *map(str, arguments)])


def test_check_of_a_good_dataset(dataset_path, capsys):
    assert run("check", "--dataset", dataset_path) == 0
    assert "4 videos (decoded), 4 events: 0 errors, 4 warnings" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"end_frame": 9}, "event beyond the video's end"),
        ({"boxes": {"1": [64, 0, 70, 10]}}, "box outside the picture"),
    ],
)
def test_check_takes_length_and_size_from_the_video(dataset_path, capsys, wrong, kind):
    change(dataset_path, **wrong)
    assert run("check", "--dataset", dataset_path, "--json") == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert [finding["kind"] for finding in findings if finding["severity"] == "error"] == [kind]
    assert run("check", "--dataset", dataset_path, "--no-decode") == 0


def test_damage_is_a_warning_with_the_first_message(dataset_path, capsys, monkeypatch):
    decoded = dataset_check.check_videos

    def with_damage(*arguments, **options):
        first, *others = decoded(*arguments, **options)
        return [dataclasses.replace(first, num_errors=3, damage="no reference frame"), *others]

    monkeypatch.setattr(dataset_check, "check_videos", with_damage)
    assert run("check", "--dataset", dataset_path, "--json") == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    (damage,) = [finding for finding in findings if finding["kind"] == "damaged video"]
    assert damage["severity"] == "warning" and damage["text"] == "video 'v0': 3 errors while decoding, the first: no reference frame"


def test_check_names_videos_that_are_not_there_or_no_videos(dataset_path, capsys):
    (dataset_path.parent / "v1.mp4").unlink()
    (dataset_path.parent / "v2.mp4").write_bytes(b"no video")
    assert run("check", "--dataset", dataset_path, "--json") == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    texts = [finding["text"] for finding in findings if finding["kind"] == "video that cannot be used"]
    assert len(texts) == 2 and "v1.mp4" in texts[0] and "v2.mp4" in texts[1]
    assert run("check", "--dataset", dataset_path, "--no-decode", "--json") == 1
    (gone,) = [one for one in json.loads(capsys.readouterr().out)["findings"] if one["severity"] == "error"]
    assert gone["kind"] == "video that is not there"


def test_split_writes_a_dataset_that_differs_in_splits_alone(dataset_path, capsys):
    out = dataset_path.parent / "new" / "divided.json"
    assert run("split", "--dataset", dataset_path, "--out", out, "--share", "train=3", "--share", "val=1", "--json") == 0
    before, after = read_dataset(dataset_path), read_dataset(out)
    splits = {video.id: video.split for video in after.videos.values()}
    assert splits["v0"] == splits["v1"] == "train" and sorted(splits.values()) == ["train", "train", "train", "val"]
    assert [video.file for video in after.videos.values()] == [video.file for video in before.videos.values()]
    assert len(after.events) == 4
    (table,) = json.loads(capsys.readouterr().out).values()
    assert {"name": "events", "train": "3 (75%)", "val": "1 (25%)", "all": 4} in table


def test_folds_are_written_beside_each_other(dataset_path):
    assert run("split", "--dataset", dataset_path, "--out", dataset_path.parent / "folds", "--folds", 2, "--by", "video") == 0
    folds = [read_dataset(dataset_path.parent / "folds" / f"fold-{number}.json") for number in (1, 2)]
    for video_id in folds[0].videos:
        assert {fold.videos[video_id].split for fold in folds} == {"train", "val"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--share", "train"], "error: --share: expected NAME=PART, such as train=0.8"),
        (["--share", "train=1", "--share", "train=2"], "each name once, got 'train=2'"),
        (["--folds", "2", "--share", "train=1"], "--folds and --share exclude each other"),
        (["--by", "shop"], "--by: expected group or video, got 'shop'"),
        (["--folds", "9"], "4 videos make 3 groups, expected at least 9"),
    ],
)
def test_wrong_splits_are_one_line(dataset_path, capsys, arguments, message):
    assert run("split", "--dataset", dataset_path, "--out", dataset_path.parent / "out", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (dataset_path.parent / "out").exists()


def test_stats_print_tables_and_write_a_page(dataset_path, capsys):
    assert run("stats", "--dataset", dataset_path, "--out", dataset_path.parent / "stats") == 0
    printed = capsys.readouterr().out
    assert "Lengths of events in frames" in printed and "stats.html" in printed
    assert run("stats", "--dataset", dataset_path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["counts"][0] == {"name": "videos", "train": 4}
