import threading

import numpy as np
import pytest
import torch

from heads.training.batch_order import in_order, shuffled
from heads.training.loader import TokenReader, WindowBatches
from heads.training.ring import BatchRing
from heads.training.standardise import Standardisation
from heads.training.stored_batch import StoredStream
from heads.training.streams import VideoStream
from heads.training.targets import VideoTargets
from heads.training.windows import Window
from tests.token_stores import LABELS, make_event, make_video
from vjepa_loc.errors import RunError

EVENTS = {"a": [make_event("a", "take", 10, 30)], "b": []}


def reader(level="tokens", standardisation=None, **options):
    streams = {
        "a": (VideoStream(make_video("a", EVENTS["a"], 60, seed=1), level),),
        "b": (VideoStream(make_video("b", EVENTS["b"], 45, seed=2, **options), level),),
    }
    return TokenReader(streams, (standardisation or Standardisation.identity(8),))


def decoded(batch):
    return batch.to("cpu").batch.streams[0]


def windows_of_both():
    return [Window(v, start, 20) for v in "ab" for start in (0, 10, 20, 25)]


def test_windows_are_padded_to_the_longest():
    batch = reader().read([Window("a", 0, 40), Window("b", 30, 40)])
    batch.streams[0].values_BTHWC[1, 8:] = 77
    batch.streams[0].scale_BTHW[1, 8:] = float("nan")
    stream = decoded(batch)
    assert batch.to("cpu").batch.window_frames == 40 and stream.tokens_BTHWC.shape == (2, 20, 4, 4, 8)
    assert stream.valid_BTHW[0].all() and stream.valid_BTHW[1, :8].all() and not stream.valid_BTHW[1, 8:].any()
    assert (stream.tokens_BTHWC[1, 8:] == 0).all(), "whatever lies in the memory"
    assert stream.step_start_BT[1, :8].tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    assert stream.step_end_BT[1, 7] == 15, "the last step ends with the video"
    assert all(torch.isfinite(v).all() for v in (stream.step_start_BT, stream.step_end_BT))


@pytest.mark.parametrize("level", ["tokens", "pool1"])
def test_tokens_are_standardised_raw_units(level):
    standardisation = Standardisation(torch.linspace(-1, 1, 8), torch.linspace(0.5, 3, 8))
    tokens = reader(level, standardisation)
    got = decoded(tokens.read([Window("a", 8, 22), Window("b", 8, 22)])).tokens_BTHWC
    for row, video in enumerate("ab"):
        raw = torch.from_numpy(tokens.streams[video][0].stored.read(level, 4, 15).astype(np.float32))
        assert torch.allclose(got[row], (raw - standardisation.mean_C) / standardisation.std_C, atol=5e-3)


@pytest.mark.parametrize("level", ["tokens", "pool1"])
def test_a_device_that_decodes_at_once_gives_the_same_tokens(level):
    """What runs on a GPU, here on the CPU."""
    standardisation = Standardisation(torch.linspace(-1, 1, 8), torch.linspace(0.5, 3, 8))
    batch = reader(level, standardisation).read([Window("a", 0, 20), Window("b", 8, 20)])
    at_once = batch.streams[0]._decode_at_once(torch.device("cpu"))
    assert at_once.dtype == torch.float32 and torch.allclose(at_once, decoded(batch).tokens_BTHWC, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("level", ["tokens", "pool1"])
def test_a_gpu_gets_what_the_cpu_gets(level):
    """However far the copies lag behind the threads that fill the ring again."""
    tokens = reader(level, Standardisation(torch.linspace(-1, 1, 8), torch.linspace(0.5, 3, 8)))
    batches = in_order([Window(v, start, 20) for start in range(25) for v in "ab"], tokens, 3)
    on_gpu = []
    for got in WindowBatches(tokens, batches):
        assert got.streams[0].values_BTHWC.is_pinned()
        torch.cuda._sleep(1_000_000)
        on_gpu.append(got.to("cuda").batch.streams[0])
    for windows, stream in zip(batches, on_gpu, strict=True):
        expected = decoded(tokens.read(windows))
        assert torch.allclose(stream.tokens_BTHWC.cpu(), expected.tokens_BTHWC, atol=1e-5)
        assert torch.equal(stream.valid_BTHW.cpu(), expected.valid_BTHW)


def test_a_batch_holds_one_layout():
    tokens = reader(input_hw=(16, 48))
    windows = [Window(v, start, 20) for start in range(10) for v in "aaab"]
    for batches in (in_order(windows, tokens, 4), shuffled(windows, tokens, 4, np.random.default_rng(0))):
        assert sorted(window for batch in batches for window in batch) == sorted(windows)
        assert all(len({window.video_id for window in batch}) == 1 for batch in batches)
    assert decoded(tokens.read([Window("b", 0, 20)])).tokens_BTHWC.shape[2:4] == (2, 6)
    mixed = reader()
    mixed.streams["b"][0].coded = False
    assert len(in_order(windows_of_both(), mixed, 8)) == 2, "codes and raw values do not fit into one tensor"


def test_positions_are_frames_from_the_start_of_the_window():
    stream = decoded(reader().read([Window("a", 21, 30)]))
    assert stream.step_start_BT[0, 0] == -1 and stream.step_end_BT[0, 0] == 1, "frames 20 and 21, the middle is inside"
    assert stream.first_seen_BT[0, 0] == 16 - 21 and stream.last_seen_BT[0, 0] == 31 - 21
    stream = decoded(reader().read([Window("b", -7, 40)]))
    assert stream.step_start_BT[0, 0] == 7 and stream.tokens_BTHWC.shape[1] == 16, "nothing is read for what lies outside"


def test_targets_lie_on_the_steps_of_the_batch():
    tokens = reader()
    targets = {key: VideoTargets(EVENTS[key], LABELS, tokens.streams[key][0].extent) for key in EVENTS}
    windows = [Window("a", 0, 40), Window("b", 30, 40)]
    [batch] = WindowBatches(tokens, [windows], targets)
    assert [len(target) for target in batch.targets] == [1, 0]
    assert all(target.has_box_NT.shape[1] == decoded(batch).tokens_BTHWC.shape[1] for target in batch.targets)


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_batches_come_in_order_and_equal_direct_reading(num_threads):
    tokens = reader()
    batches = in_order(windows_of_both(), tokens, 3)
    loaded = WindowBatches(tokens, batches, num_threads=num_threads)
    assert len(loaded) == 3
    for _ in range(2):
        for windows, got in zip(batches, loaded, strict=True):
            assert got.windows == windows and got.targets is None
            assert torch.equal(decoded(got).tokens_BTHWC, decoded(tokens.read(windows)).tokens_BTHWC)


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("decode_ahead", [False, True])
def test_a_batch_is_good_until_the_next_is_asked_for(num_threads, decode_ahead):
    tokens = reader()
    batches = [[Window("a", start, 20)] for start in range(30)]
    for got in WindowBatches(tokens, batches, num_threads=num_threads, decode_ahead=decode_ahead):
        codes, values = got.streams[0].values_BTHWC, decoded(got).tokens_BTHWC
        copies = codes.clone(), values.clone()
        threading.Event().wait(0.003)
        assert torch.equal(codes, copies[0]) and torch.equal(values, copies[1]), "the readers had the time to overwrite it"


def test_what_was_decoded_ahead_is_not_decoded_again(monkeypatch):
    tokens = reader()
    batches = in_order(windows_of_both(), tokens, 3)
    expected = [decoded(tokens.read(windows)) for windows in batches]
    loaded = list(zip(WindowBatches(tokens, batches, num_threads=9, decode_ahead=True), expected, strict=True))
    monkeypatch.setattr(StoredStream, "standardised", None)
    for got, stream in loaded:
        assert torch.equal(decoded(got).tokens_BTHWC, stream.tokens_BTHWC)


def test_an_iteration_can_be_continued():
    tokens = reader()
    batches = in_order(windows_of_both(), tokens, 1)
    loaded, later = WindowBatches(tokens, batches), WindowBatches(tokens, batches)
    iteration = iter(loaded)
    for _ in range(3):
        next(iteration)
    assert loaded.state_dict() == {"handed_out": 3, "batches": 8}
    later.load_state_dict(loaded.state_dict())
    iter(later)
    assert [batch.windows for batch in later] == batches[3:], "an iterator that nothing was asked of takes nothing"
    assert later.state_dict()["handed_out"] == 8
    assert [batch.windows for batch in later] == batches, "once only"
    with pytest.raises(RunError, match="stopped after batch 3 of 8 of its epoch, which now has 7: dataset or store have changed"):
        WindowBatches(tokens, batches[1:]).load_state_dict(loaded.state_dict())


def test_the_windows_are_announced_before_they_are_read():
    tokens = reader()
    stored = tokens.streams["a"][0].stored
    read, seen = stored.read_codes, []

    def recording(start, stop, out):
        seen.append(((start, stop), [(a, b) for _, a, b in stored.announced]))
        return read(start, stop, out)

    stored.read_codes = recording
    list(WindowBatches(tokens, [[Window("a", 2 * step, 20)] for step in range(8)], num_threads=1))
    assert [steps for steps, _ in seen] == [(step, step + 10) for step in range(8)]
    for position, (_, announced) in enumerate(seen[:-1]):
        assert seen[position + 1][0] in announced, "the next one at least"


def test_a_ring_that_goes_to_another_iteration_ends_the_one_before():
    tokens, ring = reader(), BatchRing()
    batches = [[Window("a", start, 20)] for start in range(9)]
    first = iter(WindowBatches(tokens, batches, ring=ring))
    next(first)
    assert len(list(WindowBatches(tokens, batches, ring=ring))) == 9
    with pytest.raises(RuntimeError, match="a later reading uses the same memory"):
        next(first)


def test_shuffling_keeps_every_window_and_puts_similar_lengths_together():
    tokens, rng = reader(), np.random.default_rng(0)
    windows = [Window("a", start % 20, 2 + 2 * (start % 7)) for start in range(70)]
    first, second = (shuffled(windows, tokens, 4, rng) for _ in range(2))
    assert sorted(window for batch in first for window in batch) == sorted(windows) and first != second
    assert shuffled(windows, tokens, 4, np.random.default_rng(0)) == first, "the order follows from the seed"
    assert len(first) == len(second)
    lengths = [[tokens.num_steps(window) for window in batch] for batch in first]
    assert np.mean([max(batch) - min(batch) for batch in lengths]) < 1.5
