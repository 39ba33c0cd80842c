"""The faults of `benchmarks/store_faults.py` in small numbers: flipped bits, and writers that are killed."""

from store_faults import arrays_of, flip_bits, is_equal, kill_writers, make_store, write_video


def test_every_flipped_bit_is_found_named_and_forgotten(tmp_path):
    store = make_store(tmp_path / "store")
    for video_id in ("a", "B", "c d"):
        write_video(store, video_id)
    counts = flip_bits(store.path, 40, seed=1)
    assert counts.ok and counts.flips == counts.named == 40 and counts.touched > 30, counts
    assert {"shard", "metadata of an array"} <= set(counts.by_kind)


def test_a_store_that_verify_does_not_look_at_would_be_noticed(tmp_path, monkeypatch):
    store = make_store(tmp_path / "store")
    write_video(store, "a")
    monkeypatch.setattr("features.verify_video.wrong_bytes", lambda path, stamp: "")
    assert not flip_bits(store.path, 10, seed=1).ok


def test_writers_that_are_killed_lose_nothing_and_leave_nothing_half(tmp_path):
    counts = kill_writers(tmp_path, num_videos=12, num_writers=3, num_kills=6, seed=0)
    assert counts.ok and counts.kills == 6 and counts.equal == counts.videos >= 12, counts


def test_videos_are_told_apart(tmp_path):
    store = make_store(tmp_path / "store")
    for video_id in "ab":
        write_video(store, video_id)
    assert is_equal(arrays_of(store.video("a")), arrays_of(store.video("a")))
    assert not is_equal(arrays_of(store.video("a")), arrays_of(store.video("b")))
