import pytest
import torch

from heads.parts.contract import Batch, Targets, TokenStream
from heads.training.augment import AugmentConfig, augmented

OFF = {"augment_gain": 0.0, "augment_offset": 0.0, "augment_shift": 0.0}
B, T, H, W, C = 3, 2, 8, 4, 5


def cells():
    box = torch.zeros(H, W, 4)
    box[..., 0], box[..., 2] = torch.arange(W) / W, (torch.arange(W) + 1) / W
    box[..., 1], box[..., 3] = (torch.arange(H) / H)[:, None], ((torch.arange(H) + 1) / H)[:, None]
    return box


def make_batch(valid=True):
    time = torch.arange(T).float().expand(B, T)
    valid_BTHW = torch.ones(B, T, H, W, dtype=torch.bool)
    valid_BTHW[:, :, 0] = valid
    stream = TokenStream(torch.randn(B, T, H, W, C), valid_BTHW, cells().expand(B, H, W, 4), time, time + 1, time, time)
    return Batch((stream,), 4.0)


def make_targets(y, x):
    """One event whose box is the cell (y, x) on every step."""
    return Targets(
        torch.tensor([0]), torch.tensor([[0.2, 0.8]]), torch.zeros(1, 2, dtype=torch.bool), cells()[y, x].expand(1, T, 4).clone(),
        torch.ones(1, T, dtype=torch.bool), torch.tensor([True]),
    )


def test_switched_off_it_changes_nothing():
    batch, targets = make_batch(), [make_targets(2, 1)] * B
    got, got_targets = augmented(batch, targets, AugmentConfig(**OFF))
    assert torch.equal(got.streams[0].tokens_BTHWC, batch.streams[0].tokens_BTHWC)
    assert all(torch.equal(a.boxes_NT4, b.boxes_NT4) for a, b in zip(targets, got_targets))


def test_boxes_move_with_what_they_surround():
    torch.manual_seed(0)
    moved = 0
    for _ in range(20):
        batch = make_batch()
        batch.streams[0].tokens_BTHWC.zero_()
        batch.streams[0].tokens_BTHWC[:, :, 4, 2] = 1.0
        got, targets = augmented(batch, [make_targets(4, 2)] * B, AugmentConfig(**OFF | {"augment_shift": 0.25}))
        for row, target in enumerate(targets):
            y, x = got.streams[0].tokens_BTHWC[row, 0, :, :, 0].nonzero()[0].tolist()
            assert torch.allclose(target.boxes_NT4[0, 0], cells()[y, x]) and target.has_box_NT.all()
            moved += (y, x) != (4, 2)
            assert abs(y - 4) <= 2 and abs(x - 2) <= 1
    assert moved > 30


def test_a_box_that_leaves_the_frame_is_no_box_any_more():
    torch.manual_seed(0)
    gone = 0
    for _ in range(20):
        batch = make_batch()
        batch.streams[0].tokens_BTHWC.zero_()
        batch.streams[0].tokens_BTHWC[:, :, 0, 0] = 1.0
        got, targets = augmented(batch, [make_targets(0, 0)] * B, AugmentConfig(**OFF | {"augment_shift": 0.25}))
        for row, target in enumerate(targets):
            still_there = bool(got.streams[0].tokens_BTHWC[row].any())
            assert target.has_box_NT.all() == still_there
            assert len(target) == 1 and target.boxed_N.all()
            gone += not still_there
    assert 0 < gone < 60


def test_windows_with_bars_do_not_move():
    batch = make_batch(valid=False)
    got, _ = augmented(batch, [make_targets(2, 1)] * B, AugmentConfig(**OFF | {"augment_shift": 0.5}))
    assert torch.equal(got.streams[0].tokens_BTHWC, batch.streams[0].tokens_BTHWC)


def test_gain_and_offset_are_per_channel_and_window():
    torch.manual_seed(0)
    batch = make_batch()
    got, _ = augmented(batch, [make_targets(2, 1)] * B, AugmentConfig(**OFF | {"augment_gain": 0.3, "augment_offset": 0.3}))
    old, new = batch.streams[0].tokens_BTHWC.flatten(1, 3), got.streams[0].tokens_BTHWC.flatten(1, 3)
    gain = (new[:, 0] - new[:, 1]) / (old[:, 0] - old[:, 1])
    assert torch.allclose(new, gain[:, None] * (old - old[:, :1]) + new[:, :1], atol=1e-4)
    assert gain.log().std() == pytest.approx(0.3, abs=0.2) and (gain > 0).all()


def test_the_same_random_state_gives_the_same_variation():
    batch, targets = make_batch(), [make_targets(2, 1)] * B
    results = []
    for _ in range(2):
        torch.manual_seed(7)
        results.append(augmented(batch, targets, AugmentConfig())[0].streams[0].tokens_BTHWC)
    assert torch.equal(*results)
