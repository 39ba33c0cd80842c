import itertools
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.shares import Share, dataset_of_share, divide, expected_lengths, find_share, longest_first, parse_shard
from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.errors import ConfigError

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8"}
SRUN = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}


def array(task: int, count: int, first: int = 0, step: int = 1) -> dict[str, str]:
    values = {"ID": task, "COUNT": count, "MIN": first, "STEP": step, "MAX": first + (count - 1) * step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


def videos(*num_frames: int | None) -> list[Video]:
    return [Video(id=f"v{index:03}", num_frames=number) for index, number in enumerate(num_frames)]


def ids(shares: list[list[Video]]) -> list[list[str]]:
    return [[video.id for video in share] for share in shares]


@pytest.mark.parametrize("text", ["", "1", "1/", "/2", "a/b", "1/2/3", "-1/2", "2/2", "5/2", "0/0", "0.5/2", "1 / 2", "٣/٤", "1/9999999999"])
def test_a_shard_that_makes_no_sense_is_refused_in_one_line(text):
    with pytest.raises(ConfigError, match="^--shard.*expected.*0 <= I < N") as error:
        parse_shard(text)
    assert "\n" not in str(error.value)


def test_a_shard():
    assert parse_shard("2/3") == Share(2, 3, "--shard 2/3")


@pytest.mark.parametrize(("environment", "expected"), [
    ({}, (0, 1)),
    (TORCHRUN, (3, 8)),
    (SRUN, (1, 2)),
    (TORCHRUN | SRUN, (3, 8)),
    (array(2, 5), (2, 5)),
    (array(7, 5, first=1, step=2), (3, 5)),
    (array(7, 5, first=1, step=2) | SRUN, (7, 10)),
    (array(2, 5) | TORCHRUN, (19, 40)),
    # The batch script itself, and a shell of salloc: not one of several tasks, even with --ntasks=2.
    ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, (0, 1)),
    ({"SLURM_NTASKS": "2"}, (0, 1)),
])
def test_the_share_that_a_launcher_gives(environment, expected):
    share = find_share(None, environment)
    assert (share.index, share.count) == expected


def test_the_flag_wins_over_every_launcher():
    assert find_share("1/2", TORCHRUN | SRUN | array(2, 5)) == Share(1, 2, "--shard 1/2")


def test_the_note_names_what_decided():
    why = find_share(None, array(1, 2) | SRUN).why
    assert "SLURM_ARRAY_TASK_ID 1" in why and "SLURM_PROCID 1 of SLURM_NTASKS 2" in why


@pytest.mark.parametrize(("environment", "named"), [
    ({"RANK": "0"}, "WORLD_SIZE"),
    ({"WORLD_SIZE": "2"}, "RANK"),
    ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK 2 of WORLD_SIZE 2"),
    ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK"),
    ({"SLURM_ARRAY_TASK_ID": "1"}, "SLURM_ARRAY_TASK_COUNT"),
    # --array=1,5,7: the place of 5 in it is not said anywhere.
    (array(5, 3, first=1) | {"SLURM_ARRAY_TASK_MAX": "7"}, "SLURM_ARRAY_TASK_ID"),
    ({"SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}, "SLURM_NTASKS"),
])
def test_half_a_launcher_is_refused(environment, named):
    with pytest.raises(ConfigError, match=named):
        find_share(None, environment)


def test_every_task_of_an_array_of_steps_has_a_share_of_its_own():
    shares = [
        find_share(None, array(task, 3, first=4, step=4) | SRUN | {"SLURM_PROCID": str(process)})
        for task, process in itertools.product((4, 8, 12), range(2))
    ]
    assert [share.index for share in shares] == list(range(6)) and {share.count for share in shares} == {6}


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 10_000), max_size=60), count=st.integers(1, 12), seed=st.integers(0, 2**16),
)
def test_every_video_is_in_exactly_one_share_whatever_the_order(lengths, count, seed):
    all_videos = videos(*lengths)
    shares = divide(all_videos, count)
    assert sorted(itertools.chain(*ids(shares))) == [video.id for video in all_videos]
    random.Random(seed).shuffle(all_videos)
    assert ids(divide(all_videos, count)) == ids(shares)
    loads = [sum(video.num_frames for video in share) for share in shares]
    # Greedy: the fullest share was the emptiest before its last, shortest video.
    assert not lengths or max(loads) - min(loads) <= max(lengths)


def test_shares_are_balanced_by_frames_and_ids_break_ties():
    assert ids(divide(videos(10, 90, 50, 40), 2)) == [["v001", "v000"], ["v002", "v003"]]
    assert ids(divide(videos(5, 5, 5, 5), 2)) == [["v000", "v002"], ["v001", "v003"]]


def test_without_frames_for_all_the_sizes_of_files_decide(tmp_path):
    found = []
    for name, size in (("a", 10), ("b", 300), ("c", 200)):
        (tmp_path / name).write_bytes(bytes(size))
        found.append(Video(id=name, file=tmp_path / name, num_frames=7 if name == "a" else None))
    folder = tmp_path / "d"
    folder.mkdir()
    for index in range(5):
        (folder / f"{index}.png").write_bytes(bytes(50))
    found.append(Video(id="d", file=folder))
    lengths = expected_lengths(found)
    assert (lengths.unit, dict(lengths.of)) == ("bytes", {"a": 10, "b": 300, "c": 200, "d": 250})
    assert [video.id for video in longest_first(found)] == ["b", "d", "c", "a"]


def test_where_a_file_is_missing_every_video_counts_the_same(tmp_path):
    (tmp_path / "a").write_bytes(bytes(10))
    found = [Video(id="a", file=tmp_path / "a"), Video(id="b", file=tmp_path / "none"), Video(id="c", file=Path("/nowhere"))]
    lengths = expected_lengths(found)
    assert (lengths.unit, set(lengths.of.values())) == ("videos", {1})


def share_of(text: str, *num_frames: int) -> tuple[list[str], list[str]]:
    part, note = dataset_of_share(Dataset((), {video.id: video for video in videos(*num_frames)}), parse_shard(text))
    return list(part.videos), note


def test_the_note_says_which_share_and_how_it_was_divided():
    mine, (note,) = share_of("1/2", 10, 90, 40, 50)
    assert mine == ["v002", "v003"], "in the order of the dataset"
    assert note.startswith("share 1 of 2 (from 0; --shard 1/2): 2 of 4 videos, 90 of 190 frames; division ")
    division = note.split()[-1]
    assert share_of("0/2", 10, 90, 40, 51)[1][0].split()[-1] == division, "the same division, whatever the lengths"
    assert share_of("1/2", 10, 20, 50, 90)[1][0].split()[-1] != division


def test_one_share_is_everything_and_needs_no_note():
    assert share_of("0/1", 1, 2) == (["v000", "v001"], [])


def test_more_shares_than_videos_leave_some_empty():
    assert ids(divide(videos(1), 3)) == [["v000"], [], []]


def test_more_shares_than_memory_could_hold():
    data = Dataset((), {video.id: video for video in videos(5, 7, 3)})
    of_share = {index: dataset_of_share(data, Share(index, 999_999_999, "here")) for index in (0, 1, 2, 3, 999_999_998)}
    assert [list(mine.videos) for mine, _ in of_share.values()] == [["v001"], ["v000"], ["v002"], [], []]
    digests = {note.rpartition(" ")[2] for _, (note,) in of_share.values()}
    assert len(digests) == 1
    assert dataset_of_share(data, Share(0, 4, "here"))[1][0].rpartition(" ")[2] not in digests, "another number is another division"
