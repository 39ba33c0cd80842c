"""Room on the disk: what a video will take is counted to the byte, what does not fit is refused before and during the work."""

import errno
import subprocess
import sys
import time
from pathlib import Path

import pytest

from features import disk_space
from features.disk_space import GIB, DiskSpace
from features.estimate_bytes import bytes_per_step, expected_bytes, stored_bytes
from features.outcome import ClipsEncoded, Outcome, VideoRetried, VideoStarted
from features.schema import Storage
from tests.features.store_builder import CHANNELS, add_video, simulated_tokens, small_encoding, small_store
from vjepa_loc.dataset import Video
from vjepa_loc.errors import StoreError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def free(monkeypatch):
    """`free.append(bytes)`: from now on the disk has so many free; asks are counted."""

    class Free(list):
        asked = 0

    values = Free([10 * GIB])

    def free_bytes(path):
        values.asked += 1
        return values[-1]

    monkeypatch.setattr(disk_space, "free_bytes", free_bytes)
    return values


def videos_of(*names: str, num_frames: int | None = 400) -> list[Video]:
    return [Video(id=name, num_frames=num_frames, fps=25.0) for name in names]


@pytest.mark.parametrize(
    ("storage", "num_steps"),
    [
        (Storage(), 1), (Storage(), 700), (Storage(shard_steps=16), 33), (Storage(number_format="float16"), 20),
        (Storage(levels=("pool4", "pool1")), 40),
    ],
)
def test_the_bytes_of_a_video_are_those_that_the_writer_makes(tmp_path, storage, num_steps):
    store = small_store(tmp_path / "store", storage)
    add_video(store, "a", simulated_tokens(num_steps))
    generation = store.path / "tokens.zarr" / store.commit_of("a").path
    data = sum(file.stat().st_size for file in generation.rglob("*") if file.is_file() and file.name != "zarr.json")
    metadata = sum(file.stat().st_size for file in generation.rglob("zarr.json")) + (store.path / "commits/a.json").stat().st_size
    expected = stored_bytes(store.encoding, storage, num_steps, 2 * num_steps, (6, 6))
    assert abs(expected - data - metadata) < 0.1 * metadata, "the data to the byte, names and numbers in metadata about"
    one_more = stored_bytes(store.encoding, storage, num_steps, 2 * num_steps + 1, (6, 6))
    assert one_more == expected + 8, "a frame more is one presentation time more"


def test_what_depends_on_a_length_that_nobody_states_is_not_known():
    encoding = small_encoding(frame_step=2)
    assert expected_bytes(encoding, Storage(), Video(id="a", fps=25.0)) is None
    # 101 frames, every second of them, two to a step: 26 steps.
    assert expected_bytes(encoding, Storage(), Video(id="a", num_frames=101)) == stored_bytes(encoding, Storage(), 26, 101, (6, 6))
    by_time = small_encoding(sample_fps=5.0)
    assert expected_bytes(by_time, Storage(), Video(id="a", num_frames=100)) is None
    assert expected_bytes(by_time, Storage(), Video(id="a", num_frames=100, fps=25.0)) == stored_bytes(by_time, Storage(), 10, 100, (6, 6))


def test_one_more_step_of_a_long_video_is_mostly_its_tokens():
    tokens = 6 * 6 * CHANNELS
    assert tokens < bytes_per_step(small_encoding(), Storage(), (6, 6)) < 4 * tokens


def test_what_fits_is_not_refused_and_what_is_stored_takes_nothing(tmp_path, free):
    store = small_store(tmp_path / "store")
    needed = expected_bytes(store.encoding, store.storage, videos_of("a")[0])
    free.append(2 * needed + GIB)
    assert DiskSpace(store, 1.0).check_ahead(videos_of("a", "b")) == []
    with pytest.raises(StoreError) as caught:
        DiskSpace(store, 1.0).check_ahead(videos_of("a", "b", "c"))
    assert caught.value.errno == errno.ENOSPC
    add_video(store, "a", simulated_tokens(3))
    assert DiskSpace(store, 1.0).check_ahead(videos_of("a", "b", "c")) == []


def test_the_refusal_says_what_is_needed_what_is_free_and_what_to_do(tmp_path, free):
    store = small_store(tmp_path / "store")
    free.append(100_000)
    with pytest.raises(StoreError) as caught:
        DiskSpace(store, 0.5).check_ahead([*videos_of("a", "b"), *videos_of("c", num_frames=None)])
    message = str(caught.value)
    assert message.startswith(f"not enough space for 3 videos in {store.path}: ") and "\n" not in message
    assert "1 more of unknown length and 512.0 MiB to stay free (extract.min_free_gib), 97.7 KiB free" in message
    assert "free some space, choose another --store, fewer store.levels, or extract a part of the videos" in message


def test_no_reserve_leaves_the_need(tmp_path, free):
    store = small_store(tmp_path / "store")
    needed = expected_bytes(store.encoding, store.storage, videos_of("a")[0])
    free.append(needed)
    assert DiskSpace(store, 0.0).check_ahead(videos_of("a")) == []
    free.append(needed - 1)
    with pytest.raises(StoreError, match="not enough space"):
        DiskSpace(store, 0.0).check_ahead(videos_of("a"))
    free.append(0)
    assert DiskSpace(store, 1.0).check_ahead([]) == [], "nothing to do needs nothing"


def test_unknown_lengths_are_said_and_only_the_reserve_is_asked_for(tmp_path, free):
    store = small_store(tmp_path / "store")
    [note] = DiskSpace(store, 1.0).check_ahead([*videos_of("a"), *videos_of("b", "c", num_frames=None)])
    assert note.startswith("disk space: 2 of 3 videos have no num_frames in the dataset, what they need is not known ahead")
    free.append(GIB - 1)
    with pytest.raises(StoreError, match="not enough space for 1 videos"):
        DiskSpace(store, 1.0).check_ahead(videos_of("a", num_frames=None))


def test_what_may_fit_compressed_is_not_refused(tmp_path, free):
    store = small_store(tmp_path / "store", Storage(compression="zstd"))
    needed = expected_bytes(store.encoding, store.storage, videos_of("a")[0])
    free.append(round(0.8 * needed))
    [note] = DiskSpace(store, 0.0).check_ahead(videos_of("a"))
    assert "needed before compression" in note
    free.append(round(0.7 * needed))
    with pytest.raises(StoreError, match="not enough space"):
        DiskSpace(store, 0.0).check_ahead(videos_of("a"))


def test_while_running_the_videos_in_hand_count_with_what_they_still_need(tmp_path, free, monkeypatch):
    now_s = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    store = small_store(tmp_path / "store")
    space = DiskSpace(store, 1.0)
    space.check_ahead(videos_of("a", "b"))
    needed = expected_bytes(store.encoding, store.storage, videos_of("a")[0])
    free.append(GIB + needed)
    # 400 frames are 25 clips of 16.
    steps = [
        (VideoStarted("a"), True), (VideoStarted("b"), False), (ClipsEncoded("a", 25), True), (ClipsEncoded("a", 1), True),
        (Outcome("a", "done"), True), (VideoStarted("a"), False), (VideoRetried("a", "", 1, 1.0), True),
        (VideoStarted("not in the list"), True),
    ]
    for event, fits in steps:
        space(event)
        now_s[0] += 2
        if fits:
            space.check()
        else:
            with pytest.raises(StoreError, match="free, the 2 videos in hand still need about [^(]*; expected to keep 1.0 GiB free") as caught:
                space.check()
            assert caught.value.errno == errno.ENOSPC


def test_a_video_of_unknown_length_in_hand_is_said(tmp_path, free):
    space = DiskSpace(small_store(tmp_path / "store"), 1.0)
    space.check_ahead(videos_of("a", num_frames=None))
    space(VideoStarted("a"))
    free.append(GIB - 1)
    with pytest.raises(StoreError, match="the 1 videos in hand still need about 0 B .1 of them are of unknown length.; expected to keep 1.0 GiB free"):
        space.check()


def test_the_disk_is_looked_at_once_a_second(tmp_path, free):
    space = DiskSpace(small_store(tmp_path / "store"), 1.0)
    for _ in range(1000):
        space.check()
    assert free.asked == 1


def test_a_limit_on_file_sizes_is_met_before_the_work(tmp_path):
    small_store(tmp_path / "store", Storage())
    code = """
import resource, sys
from features.disk_space import DiskSpace
from features.store import open_store
from vjepa_loc.dataset import Video
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
print(DiskSpace(open_store(sys.argv[1]), 0.0).check_ahead([Video(id="a", num_frames=int(sys.argv[3]), fps=25.0)]))
"""

    def ask(limit: int, num_frames: int) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", code, str(tmp_path / "store"), str(limit), str(num_frames)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert ask(10_000, 4000).stderr.splitlines()[-1].endswith("(ulimit -f) is 9.8 KiB; raise it, or lower store.shard_steps")
    assert ask(10_000_000, 4000).returncode == 0


def test_in_object_storage_the_disk_is_that_of_unfinished_videos(service, url, free):
    from features.store import create_or_open_store

    store = create_or_open_store(url, small_encoding())
    needed = expected_bytes(store.encoding, store.storage, videos_of("a")[0])
    free.append(2 * needed)
    many = videos_of(*(f"v{number}" for number in range(20)))
    assert DiskSpace(store, 0.0).check_ahead(many, at_once=2) == []
    with pytest.raises(StoreError, match=f"3 videos in .*unfinished videos of {url}"):
        DiskSpace(store, 0.0).check_ahead(many, at_once=3)
