"""Several videos at once: the same bytes whatever the number of workers, and what is lost when something goes wrong."""

import errno
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from features import durable, shards, video_job
from features import pipeline as pipeline_module
from features.encoders.tiny import Config, Encoder
from features.extract import extract_dataset, run_decisions
from features.outcome import ClipsEncoded, Outcome, Stopping, VideoRetried, VideoStarted
from features.recipe import ExtractConfig
from features.resume import Action, Decision, decide
from features.store import create_or_open_store, open_store
from tests.features.conftest import number_of
from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.errors import DecodeTimeoutError, StoreError

ONE = ExtractConfig(threads=1, decode_workers=1, write_threads=1, deadline_s=30, retry_wait_s=0.01)
MANY = ExtractConfig(threads=3, decode_workers=3, write_threads=3, deadline_s=30, retry_wait_s=0.01)


pytestmark = pytest.mark.usefixtures("kept_decoding_processes")


@pytest.fixture
def videos(clip) -> Dataset:
    """Of different lengths: shorter than a clip, exact, one frame, one over."""
    lengths = {"a": 40, "b": 16, "c": 1, "d": 17, "e": 5, "f": 64, "g": 33}
    return Dataset((), {name: Video(id=name, file=clip(f"{name}.mp4", num_frames=number)) for name, number in lengths.items()})


def assert_same(first: Path, second: Path) -> None:
    left, right = open_store(first), open_store(second)
    assert left.video_ids() == right.video_ids() != []
    for video_id in left.video_ids():
        ours, theirs = left.video(video_id), right.video(video_id)
        for name in ("frames", "first_frame_seen", "last_frame_seen", "frame_time_s", "mean", "std"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=f"{video_id} {name}")
        for ours_codes, theirs_codes in zip(ours.read_codes(), theirs.read_codes(), strict=True):
            np.testing.assert_array_equal(ours_codes, theirs_codes)


@pytest.mark.parametrize(
    "changes", [{}, {"overlap": 0.5}, {"overlap": 0.75, "keep": "earliest"}, {"frame_step": 3}, {"batch_clips": 4}, {"fit": "letterbox", "batch_clips": 2}]
)
def test_bytes_do_not_depend_on_the_number_of_workers(videos, tmp_path, tiny, changes):
    for name, config in {"one": ONE, "many": MANY}.items():
        report = extract_dataset(videos, tmp_path / name, tiny, config.model_copy(update=changes))
        assert report.ids("done") == list(videos.videos), report.outcomes
    assert_same(tmp_path / "one", tmp_path / "many")


class Uneven(Encoder):
    """Answers after a time of its own for every clip, so that clips of one video end in another order than they began."""

    def encode(self, frames_BTHWC3):
        time.sleep(float(frames_BTHWC3.sum() % 7) / 100)
        return super().encode(frames_BTHWC3)


def test_clips_that_are_encoded_out_of_order_are_written_in_order(videos, tmp_path, tiny):
    extract_dataset(videos, tmp_path / "one", tiny, ONE)
    extract_dataset(videos, tmp_path / "many", Uneven(Config()), MANY)
    assert_same(tmp_path / "one", tmp_path / "many")


def test_no_batch_is_larger_than_asked_for_and_most_are_full(videos, tmp_path):
    sizes = []

    class Watched(Encoder):
        def encode(self, frames_BTHWC3):
            sizes.append(tuple(frames_BTHWC3.shape[:2]))
            return super().encode(frames_BTHWC3)

    extract_dataset(videos, tmp_path / "store", Watched(Config()), ONE.model_copy(update={"batch_clips": 4}))
    full_length = [size for size, num_frames in sizes if num_frames == 16]
    assert max(full_length) == 4 and sum(full_length) == 3 + 1 + 2 + 4 + 3
    assert len(full_length) <= 6, "clips of several videos share a batch"
    assert sorted(num_frames for _, num_frames in sizes if num_frames != 16) == [2, 6]


@pytest.fixture
def three(clip) -> Dataset:
    return Dataset((), {name: Video(id=name, file=clip(f"{name}.mp4", num_frames=80)) for name in "abc"})


def test_a_decoder_that_dies_is_tried_again_and_then_its_video_is_set_aside(three, clip, tmp_path, tiny, monkeypatch):
    lent, events = pipeline_module.DecodeWorker, []

    class Dying(lent):
        def stream_shared(self, path, *args):
            stream = self._worker.stream_shared(path, *args)
            if Path(path).stem == "poison":
                yield next(stream)
                os.kill(self._worker.pid, signal.SIGKILL)
            yield from stream

    monkeypatch.setattr(pipeline_module, "DecodeWorker", Dying)
    videos = Dataset((), three.videos | {"poison": Video(id="poison", file=clip("poison.mp4", num_frames=250))})
    config = MANY.model_copy(update={"retries": 1})
    report = extract_dataset(videos, tmp_path / "store", tiny, config, on_progress=events.append)
    assert report.ids("done") == ["a", "b", "c"]
    assert report.failed["poison"].startswith("set aside after 2 attempts: ") and "died with signal SIGKILL" in report.failed["poison"]
    (again,) = [event for event in events if isinstance(event, VideoRetried)]
    assert (again.video_id, again.attempt) == ("poison", 1)
    ledger = [(entry["outcome"], entry.get("attempt")) for entry in open_store(tmp_path / "store").ledger.entries() if entry["id"] == "poison"]
    assert ledger == [("failed", 1), ("failed", None)]


@pytest.mark.parametrize(("times", "status"), [(2, "done"), (3, "failed")])
def test_what_may_pass_is_tried_again_after_a_while(three, tmp_path, tiny, monkeypatch, times, status):
    lent = pipeline_module.DecodeWorker
    failures = []

    class Stalling(lent):
        def stream_shared(self, path, *args):
            if Path(path).stem == "b" and len(failures) < times:
                failures.append(time.monotonic())
                raise DecodeTimeoutError(f"{path}: the decoder made no progress")
            return self._worker.stream_shared(path, *args)

    monkeypatch.setattr(pipeline_module, "DecodeWorker", Stalling)
    report = extract_dataset(three, tmp_path / "store", tiny, MANY.model_copy(update={"retries": 2, "retry_wait_s": 0.1}))
    assert report.ids(status) == (["a", "b", "c"] if status == "done" else ["b"])
    assert np.diff(failures)[0] >= 0.1 and (times < 3 or np.diff(failures)[1] >= 0.2)
    if status == "failed":
        assert report.failed["b"].startswith("set aside after 3 attempts: ")


def test_a_stop_finishes_what_is_decoded_and_drops_the_rest(clip, tmp_path, tiny, monkeypatch):
    # All of the short ones fit into the buffers before the gate, the long one does not: nothing takes its clips.
    lengths = {"long": 250, "short": 20, "later": 4}
    videos = Dataset((), {name: Video(id=name, file=clip(f"{name}.mp4", num_frames=number)) for name, number in lengths.items()})
    stop, stopping_seen, decoded, events = threading.Event(), threading.Event(), set(), []

    class Watched(video_job.VideoJob):
        def check_end(self, summary):
            super().check_end(summary)
            decoded.add(self.video.id)

    monkeypatch.setattr(pipeline_module, "VideoJob", Watched)

    class Gated(Encoder):
        def encode(self, frames_BTHWC3):
            if not stop.is_set() and decoded & {"short", "later"}:
                # Until the clips of what has been decoded are all in the queue.
                time.sleep(0.3)
                stop.set()
                stopping_seen.wait(20)
            return super().encode(frames_BTHWC3)

    def listen(event):
        events.append(event)
        if isinstance(event, Stopping):
            stopping_seen.set()

    config = MANY.model_copy(update={"decode_workers": 2, "threads": 1})
    report = extract_dataset(videos, tmp_path / "store", Gated(Config()), config, on_progress=listen, stop=stop)
    (stopping,) = [event for event in events if isinstance(event, Stopping)]
    assert "long" in stopping.dropping and set(stopping.finishing) & decoded
    assert set(report.ids("dropped")) == set(stopping.dropping) and set(stopping.finishing) <= set(report.ids("done"))
    assert list((tmp_path / "store/staging").iterdir()) == [] and list((tmp_path / "store/claims").iterdir()) == []
    stored = report.ids("done")
    assert open_store(tmp_path / "store").video_ids() == sorted(stored)
    assert set(extract_dataset(videos, tmp_path / "store", tiny, MANY).ids("done")) == set(lengths) - set(stored)


def test_what_does_not_end_in_its_grace_is_dropped_too(clip, tmp_path):
    videos = Dataset((), {"a": Video(id="a", file=clip("a.mp4", num_frames=16))})
    stop, stopped_s = threading.Event(), []

    class Slow(Encoder):
        def encode(self, frames_BTHWC3):
            for _ in range(3000):
                time.sleep(0.01)
                if not stopped_s:
                    # The only clip is given out when the video has ended.
                    stopped_s.append(time.monotonic())
                    threading.Timer(0.3, stop.set).start()
            return super().encode(frames_BTHWC3)

    report = extract_dataset(videos, tmp_path / "store", Slow(Config()), ONE.model_copy(update={"stop_grace_s": 0.3}), stop=stop)
    assert time.monotonic() - stopped_s[0] < 15, "an encoder that is at work is left at its next line"
    assert report.ids("dropped") == ["a"] and "0.3 s" in report.outcomes[0].reason


def others_than_kept() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name != "kept"}


def test_a_listener_that_raises_ends_the_run_and_leaves_nothing_behind(three, tmp_path, tiny):
    def listen(event):
        if isinstance(event, ClipsEncoded):
            raise KeyboardInterrupt

    before = others_than_kept()
    with pytest.raises(KeyboardInterrupt):
        extract_dataset(three, tmp_path / "store", tiny, MANY, on_progress=listen)
    assert list((tmp_path / "store/staging").iterdir()) == [] and list((tmp_path / "store/claims").iterdir()) == []
    assert others_than_kept() == before


def test_a_disk_that_refuses_stops_every_video(three, tmp_path, tiny, monkeypatch):
    from features import shards

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards, "write_all", full)
    with pytest.raises(StoreError, match="no space left"):
        extract_dataset(three, tmp_path / "store", tiny, MANY)
    assert open_store(tmp_path / "store").video_ids() == [] and list((tmp_path / "store/claims").iterdir()) == []


def test_memory_that_runs_out_in_the_encoder_ends_the_run_with_its_own_words(three, tmp_path):
    class Greedy(Encoder):
        def encode(self, frames_BTHWC3):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        extract_dataset(three, tmp_path / "store", Greedy(Config()), MANY)
    assert list((tmp_path / "store/claims").iterdir()) == []


def test_a_video_that_another_process_gives_back_meanwhile_is_done_in_the_end(three, tmp_path, tiny):
    extract_dataset(Dataset((), {}), tmp_path / "store", tiny, ONE)
    claim = open_store(tmp_path / "store").claim("a")

    def listen(event):
        if isinstance(event, VideoStarted) and event.video_id == "c":
            claim.release()

    report = extract_dataset(three, tmp_path / "store", tiny, ONE, on_progress=listen)
    assert report.ids("done") == ["a", "b", "c"]


def test_a_video_that_another_process_stored_meanwhile_is_not_encoded_again(three, tmp_path, tiny):
    decided = [Decision(video, Action.EXTRACT) for video in three.videos.values()]
    store = create_or_open_store(tmp_path / "store", ONE.encoding(tiny.spec))
    extract_dataset(three, store.path, tiny, ONE)
    events = []
    report = run_decisions(decided, store, tiny, ONE, events.append)
    assert [(outcome.status, outcome.reason) for outcome in report.outcomes] == [("skipped", "another process stored it")] * 3
    assert not any(isinstance(event, ClipsEncoded) for event in events)


def test_a_video_that_another_process_replaced_meanwhile_is_not_replaced_again(clip_writer, tmp_path, tiny):
    data = Dataset((), {"a": Video(id="a", file=clip_writer(tmp_path / "a.mp4", num_frames=20))})
    extract_dataset(data, tmp_path / "store", tiny, ONE)
    clip_writer(tmp_path / "a.mp4", num_frames=30)
    store, redo = open_store(tmp_path / "store"), ONE.model_copy(update={"on_mismatch": "redo"})
    decided = [decide(video, store, on_mismatch="redo") for video in data.videos.values()]
    assert extract_dataset(data, store.path, tiny, redo).ids("done") == ["a"]
    replaced = store.commit_of("a").path
    assert run_decisions(decided, store, tiny, redo, lambda event: None).outcomes[0].reason == "another process stored it"
    assert store.commit_of("a").path == replaced


def test_a_retry_that_a_stop_overtakes_is_told_as_dropped(three, tmp_path, tiny, monkeypatch):
    stop = threading.Event()

    class Stalling(pipeline_module.DecodeWorker):
        def stream_shared(self, path, *args):
            if Path(path).stem == "a":
                raise DecodeTimeoutError(f"{path}: the decoder made no progress")
            return self._worker.stream_shared(path, *args)

    monkeypatch.setattr(pipeline_module, "DecodeWorker", Stalling)
    config = ONE.model_copy(update={"retry_wait_s": 60.0})
    report = extract_dataset(
        three, tmp_path / "store", tiny, config, on_progress=lambda event: isinstance(event, VideoRetried) and stop.set(), stop=stop
    )
    assert "a" in report.ids("dropped") and "tried again" in report.outcomes[0].reason


def test_the_seconds_of_the_stages_add_up(three, tmp_path, tiny):
    times = extract_dataset(three, tmp_path / "store", tiny, ONE).times
    assert min(times.decode_s, times.encode_s, times.write_s) > 0
    for stage_s in (times.encode_s + times.encode_wait_s + times.encode_blocked_s, times.write_s + times.write_wait_s):
        assert 0.5 * times.wall_s < stage_s <= 1.01 * times.wall_s


def failing_where(condition, answer):
    """`tiny`, which gives `answer(tokens)` for a batch with a frame that `condition` is true of."""

    class Failing(Encoder):
        def encode(self, frames_BTHWC3):
            tokens_BTHWC = super().encode(frames_BTHWC3)
            return answer(tokens_BTHWC) if any(condition(number_of(clip[0].numpy())) for clip in frames_BTHWC3) else tokens_BTHWC

    return Failing(Config())


def refuse(tokens_BTHWC):
    raise RuntimeError("not this one")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (refuse, "RuntimeError: not this one"),
        (lambda tokens: tokens[:-1], ", 8, rows, columns, 192) for frames of shape"),
        (lambda tokens: torch.cat([tokens, tokens[:, :1]], 1), ", 9, 16, 16, 192); the encoder is broken"),
        (lambda tokens: tokens[..., :-1], ", 8, 16, 16, 191); the encoder is broken"),
        (lambda tokens: None, "got NoneType"),
    ],
)
def test_what_the_encoder_cannot_take_costs_its_own_video_and_not_its_neighbours_in_a_batch(clip, tmp_path, answer, reason):
    lengths = {"long": 64, "a": 16, "b": 16, "c": 16}
    dataset = Dataset((), {name: Video(id=name, file=clip(f"{name}.mp4", num_frames=number, width=128, height=128)) for name, number in lengths.items()})
    encoder = failing_where(lambda number: number >= 16, answer)
    report = extract_dataset(dataset, tmp_path / "store", encoder, MANY.model_copy(update={"batch_clips": 3, "threads": 1}))
    assert sorted(report.ids("done")) == ["a", "b", "c"] and reason in report.failed["long"]
    extract_dataset(dataset, tmp_path / "right", Encoder(Config()), ONE)
    for name in "abc":
        ours, right = (open_store(tmp_path / folder).video(name).read_codes() for folder in ("store", "right"))
        np.testing.assert_array_equal(ours[0], right[0])


def left_behind(store_path: Path) -> list[str]:
    return [str(path) for folder in ("staging", "claims") for path in (store_path / folder).rglob("*")]


def test_a_store_that_does_not_answer_after_the_claim_keeps_no_claim(three, tmp_path, tiny):
    store = create_or_open_store(tmp_path / "store", ONE.encoding(tiny.spec))
    commit_of, calls = store.commit_of, []

    def refuse_once(video_id):
        calls.append(video_id)
        if calls.count("a") == 1 and video_id == "a":
            raise OSError(errno.EIO, "Input/output error")
        return commit_of(video_id)

    store.commit_of = refuse_once
    decisions = [Decision(video, Action.EXTRACT) for video in three.videos.values()]
    report = run_decisions(decisions, store, tiny, ONE, lambda event: None)
    assert sorted(report.ids("done")) == ["a", "b", "c"], report.outcomes
    assert left_behind(store.path) == []


@pytest.mark.parametrize("by_stop", [True, False])
def test_a_video_that_is_claimed_while_everything_ends_is_not_begun(clip, tmp_path, tiny, by_stop):
    store = create_or_open_store(tmp_path / "store", ONE.encoding(tiny.spec))
    claiming, stopped, stop, events = threading.Event(), threading.Event(), threading.Event(), []
    claim = store.claim

    def slow_claim(video_id):
        claiming.set()
        stopped.wait(10)
        return claim(video_id)

    store.claim = slow_claim
    running = pipeline_module.Pipeline(store, tiny, ONE)
    video = Video(id="a", file=clip("a.mp4", num_frames=40))
    drop_all = running._drop_all

    def drop_and_tell(reason):
        drop_all(reason)
        stopped.set()

    running._drop_all = drop_and_tell
    threading.Timer(0.0, lambda: (claiming.wait(10), stop.set() if by_stop else running._events.put(RuntimeError("the end")))).start()
    try:
        for event in running.run([Decision(video, Action.EXTRACT)], stop):
            events.append(event)
            if isinstance(event, Stopping):
                stopped.set()
    except RuntimeError:
        assert not by_stop
    assert VideoStarted("a") not in events
    assert store.ledger and [entry["outcome"] for entry in store.ledger.entries()] == ["dropped"]
    assert store.video_ids() == [] and left_behind(store.path) == []


def test_a_disk_that_refuses_after_the_commit_does_not_make_it_undone(three, tmp_path, tiny, monkeypatch):
    def sync_folder(path):
        if path.name == "commits":
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(durable, "sync_folder", sync_folder)
    report = extract_dataset(three, tmp_path / "store", tiny, ONE)
    assert report.ids("done") == ["a", "b", "c"] == open_store(tmp_path / "store").video_ids(), report.outcomes
    assert left_behind(tmp_path / "store") == []


def test_files_that_cannot_be_closed_are_closed_once_and_discarded(three, tmp_path, tiny, monkeypatch):
    real_close, closed = os.close, []

    def close(fd):
        real_close(fd)
        closed.append(fd)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(shards.os, "close", lambda fd: close(fd) if sys._getframe(1).f_code.co_filename == shards.__file__ else real_close(fd))
    num_open = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StoreError, match="Input/output error"):
        extract_dataset(three, tmp_path / "store", tiny, ONE.model_copy(update={"retries": 0}))
    assert closed and len(os.listdir("/proc/self/fd")) <= num_open
    assert left_behind(tmp_path / "store") == []


def test_clips_are_told_before_the_outcome_of_their_video(videos, tmp_path, tiny):
    events = []
    extract_dataset(videos, tmp_path / "store", tiny, MANY, on_progress=events.append)
    settled = set()
    for event in events:
        if isinstance(event, ClipsEncoded):
            assert event.video_id not in settled
        elif isinstance(event, Outcome):
            settled.add(event.video_id)
    assert sum(event.num_clips for event in events if isinstance(event, ClipsEncoded)) == 3 + 1 + 1 + 2 + 1 + 4 + 3
