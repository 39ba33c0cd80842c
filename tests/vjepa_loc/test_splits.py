"""What a split name selects."""

import pytest

from vjepa_loc.dataset import Video
from vjepa_loc.errors import UnknownNameError
from vjepa_loc.splits import select_split

VIDEOS = [Video("a", split="train"), Video("b"), Video("c", split="val"), Video("d", split="train")]


def test_a_split_keeps_the_order_and_all_takes_videos_without_a_split_too():
    assert [video.id for video in select_split(VIDEOS, "train")] == ["a", "d"]
    assert [video.id for video in select_split(VIDEOS, "all")] == ["a", "b", "c", "d"]


def test_a_name_that_no_video_has_is_answered_with_file_and_splits(tmp_path):
    with pytest.raises(UnknownNameError, match="d.json: no video has the split 'test', .* train, val, all"):
        select_split(VIDEOS, "test", tmp_path / "d.json")
    with pytest.raises(UnknownNameError, match="no video has the split 'train', expected one of: all."):
        select_split([], "train")
