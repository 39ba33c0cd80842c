"""Seams of stored videos: the frames at which their steps change the clip."""

import pytest

from features.seams import clip_seams, seams_of, seams_of_stores
from tests.features.store_builder import add_video, simulated_tokens, small_store
from tests.token_stores import MemoryStore, make_video
from vjepa_loc.errors import StoreError


def test_a_seam_is_where_a_step_comes_from_another_clip():
    # Clips of 16 frames, steps of 2.
    assert seams_of(make_video("v", [], 50, seed=0)).tolist() == [16, 32, 48]
    assert seams_of(make_video("v", [], 10, seed=0)).tolist() == []


def test_seams_of_several_stores_stand_together_and_videos_of_none_are_left_out():
    fine, coarse = make_video("v", [], 50, seed=0), make_video("v", [], 50, seed=0)
    coarse.first_frame_seen = (coarse.frames[:, 0] // 24 * 24).astype("int32")
    seams = clip_seams([MemoryStore([fine]), MemoryStore([coarse])], ["v", "absent"])
    assert {video: frames.tolist() for video, frames in seams.items()} == {"v": [16, 24, 32, 48]}


def test_seams_of_a_store_on_disk(tmp_path):
    # The builder's videos are of one clip.
    add_video(small_store(tmp_path / "store"), "v", simulated_tokens(9))
    assert {video: frames.tolist() for video, frames in seams_of_stores([tmp_path / "store"], ["v", "w"]).items()} == {"v": []}
    with pytest.raises(StoreError, match="nowhere does not exist"):
        seams_of_stores([tmp_path / "nowhere"], ["v"])
