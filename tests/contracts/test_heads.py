"""What every head in `heads/` has to do, whatever it is made of (DESIGN section 8)."""

import copy
from dataclasses import replace

import pytest
import torch

from heads.parts.contract import Batch, Targets, TokenSpec
from heads.training.loader import TokenReader
from heads.training.standardise import Standardisation
from heads.training.streams import VideoStream
from heads.training.targets import VideoTargets
from heads.training.windows import Window
from tests.token_stores import LABELS, make_event, make_video
from vjepa_loc.plugins import load_plugin, plugin_names

WINDOW_FRAMES, VIDEO_FRAMES = 64, 90
QUARTERS = [(0, 0, 160, 90), (160, 0, 320, 90), (0, 90, 160, 180), (160, 90, 320, 180)]
EVENTS = {
    "none": [],
    "one": [make_event("v", "take", 20.5, 41.2)],
    "without boxes": [make_event("v", "take", 20, 40, boxed=False), make_event("v", "return", 50.5, 61, boxed=False)],
    "overlapping": [make_event("v", "take", 20, 40, QUARTERS[0]), make_event("v", "take", 22, 41, QUARTERS[3])],
    "cut": [make_event("v", "rummage", 50, 89), make_event("v", "take", 40, 89)],
    "many": [make_event("v", LABELS[i % 3], 5 + i / 3, 12 + i / 2, QUARTERS[i % 4]) for i in range(150)],
}


def event_heads():
    names = [name for name in plugin_names("heads") if load_plugin("heads", name, "head").task == "events"]
    assert names, "there is no head to test"
    return names


@pytest.fixture(params=event_heads())
def plugin(request):
    return load_plugin("heads", request.param, "head")


def make_head(plugin, seed=0, shaken=False):
    """A fresh head; `shaken` out of its first weights, with which many heads give every answer the same score."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = plugin.Head(plugin.Config(), [TokenSpec(8, ("tokens", "pool4", "pool2", "pool1"), 2.0, 16.0)], list(LABELS))
        with torch.no_grad():
            for parameter in head.parameters():
                parameter += 0.1 * shaken * torch.randn_like(parameter)
    return head


def make_batch(*kinds, start=0, num_frames=VIDEO_FRAMES, window_frames=WINDOW_FRAMES, **options) -> tuple[Batch, list[Targets]]:
    """One window per kind of events."""
    streams = {kind: (VideoStream(make_video(kind, EVENTS[kind], num_frames, seed=1, **options), "tokens"),) for kind in kinds}
    reader = TokenReader(streams, (Standardisation.identity(8),))
    windows = [Window(kind, start, window_frames) for kind in kinds]
    targets = {kind: VideoTargets(EVENTS[kind], LABELS, streams[kind][0].extent) for kind in kinds}
    return reader.read(windows).to("cpu").batch, reader.cut_targets(windows, targets)


def with_noise_where_invalid(batch, num_steps=0):
    """The batch with `num_steps` padded steps more, and noise wherever nothing is valid."""
    stream = copy.copy(batch.streams[0])

    def longer(values, fill=None):
        last = values[:, -1:] if fill is None else torch.full_like(values[:, -1:], fill)
        return torch.cat([values, *[last] * num_steps], dim=1)

    for name in ("step_start_BT", "step_end_BT", "first_seen_BT", "last_seen_BT", "tokens_BTHWC"):
        setattr(stream, name, longer(getattr(stream, name)))
    stream.valid_BTHW = longer(stream.valid_BTHW, False)
    noise = 5 * torch.randn(stream.tokens_BTHWC.shape, generator=torch.Generator().manual_seed(0))
    stream.tokens_BTHWC = torch.where(stream.valid_BTHW[..., None], stream.tokens_BTHWC, noise)
    return Batch((stream,), batch.window_frames)


def padded_targets(targets, num_steps):
    return [
        Targets(
            t.labels_N, t.spans_N2, t.open_N2, torch.cat([t.boxes_NT4, torch.zeros(len(t), num_steps, 4)], 1),
            torch.cat([t.has_box_NT, torch.zeros(len(t), num_steps, dtype=torch.bool)], 1), t.boxed_N,
        )
        for t in targets
    ]


def assert_same_answers(expected, got, num_steps):
    assert torch.allclose(expected.scores_Q, got.scores_Q, atol=1e-5)
    clear = expected.scores_Q.diff().abs() > 1e-4
    clear = torch.cat([clear, clear.new_ones(1)]) & torch.cat([clear.new_ones(1), clear])
    assert clear.any(), "some answers can be told apart by their score"
    assert torch.equal(expected.labels_Q[clear], got.labels_Q[clear])
    assert torch.allclose(expected.spans_Q2[clear], got.spans_Q2[clear], atol=1e-4)
    if expected.boxes_norm_QT4 is not None:
        assert torch.allclose(expected.boxes_norm_QT4[clear, :num_steps], got.boxes_norm_QT4[clear, :num_steps], atol=1e-4)


@torch.no_grad()
def test_padded_steps_change_nothing(plugin):
    head = make_head(plugin, shaken=True).eval()
    batch, targets = make_batch("overlapping")
    num_steps = batch.streams[0].tokens_BTHWC.shape[1]
    expected = head(batch)
    padded = head(with_noise_where_invalid(batch, 9))
    assert_same_answers(head.decode(expected)[0], head.decode(padded)[0], num_steps)
    losses, again = (head.loss(expected, targets) for _ in range(2))
    padded_losses = head.loss(padded, padded_targets(targets, 9))
    compared = [name for name in losses if torch.equal(losses[name], again[name])]
    assert compared, "some part of the loss draws no random numbers"
    for name in compared:
        assert torch.allclose(losses[name], padded_losses[name], rtol=1e-3, atol=1e-5), name


@torch.no_grad()
def test_cells_outside_the_picture_change_nothing(plugin):
    head = make_head(plugin, shaken=True).eval()
    batch, _ = make_batch("overlapping", input_hw=(64, 64), fit="letterbox")
    assert not batch.streams[0].valid_BTHW.all() and batch.streams[0].valid_BTHW.any()
    expected, got = (head.decode(head(b))[0] for b in (batch, with_noise_where_invalid(batch)))
    assert_same_answers(expected, got, batch.streams[0].tokens_BTHWC.shape[1])


@torch.no_grad()
def test_the_other_windows_of_a_batch_change_nothing(plugin):
    head = make_head(plugin, shaken=True).eval()
    together, _ = make_batch("one", "many", "none")
    alone, _ = make_batch("one")
    assert_same_answers(head.decode(head(alone))[0], head.decode(head(together))[0], alone.streams[0].tokens_BTHWC.shape[1])


@pytest.mark.parametrize("kinds", [*((kind,) for kind in EVENTS), tuple(EVENTS)], ids="+".join)
def test_any_number_of_events_trains(plugin, kinds):
    head = make_head(plugin).train()
    batch, targets = make_batch(*kinds)
    head.prepare(targets)
    losses = head.loss(head(batch), targets)
    assert all(torch.isfinite(value) and value.ndim == 0 for value in losses.values()), losses
    losses["total"].backward()
    gradients = [parameter.grad for parameter in head.parameters() if parameter.grad is not None]
    assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)
    assert any((gradient != 0).any() for gradient in gradients)


def test_events_without_boxes_give_no_box_loss(plugin):
    """Whatever stands where there is no box, it is not learnt."""
    head = make_head(plugin).eval()
    batch, targets = make_batch("overlapping")
    none = {"has_box_NT": torch.zeros_like(targets[0].has_box_NT), "boxed_N": torch.zeros_like(targets[0].boxed_N)}
    bare = [replace(targets[0], **none)]
    moved = [replace(targets[0], **none, boxes_NT4=torch.rand_like(targets[0].boxes_NT4))]
    prediction = head(batch)
    totals = []
    for target in (bare, moved):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            totals.append(head.loss(prediction, target)["total"])
    assert torch.equal(*totals)


@torch.no_grad()
@pytest.mark.parametrize("training", [True, False])
def test_answers_have_the_shapes_of_the_contract(plugin, training):
    head = make_head(plugin).train(training)
    batch, _ = make_batch("many", "none")
    answers = head.decode(head(batch))
    num_steps = batch.streams[0].tokens_BTHWC.shape[1]
    assert len(answers) == 2
    for answer in answers:
        Q = len(answer.labels_Q)
        assert Q > 0 and answer.labels_Q.dtype == torch.int64
        assert ((answer.labels_Q >= 0) & (answer.labels_Q < len(LABELS))).all()
        assert ((answer.scores_Q >= 0) & (answer.scores_Q <= 1)).all() and torch.isfinite(answer.spans_Q2).all()
        if answer.boxes_norm_QT4 is not None:
            assert answer.boxes_norm_QT4.shape == (Q, num_steps, 4) and torch.isfinite(answer.boxes_norm_QT4).all()


@pytest.mark.parametrize(
    "options",
    [
        {"input_hw": (24, 56)},
        {"input_hw": (8, 8)},
        {"window_frames": 2, "start": 30},
        {"num_frames": 89, "start": 70},
        {"frame_step": 7, "window_frames": 400},
        {"input_hw": (128, 128), "window_frames": 24},
    ],
    ids=["rectangular grid", "one cell", "one step", "the end of a video", "long steps", "large grid"],
)
def test_any_geometry_trains(plugin, options):
    head = make_head(plugin).train()
    batch, targets = make_batch("one", "cut", **options)
    losses = head.loss(head(batch), targets)
    losses["total"].backward()
    assert torch.isfinite(losses["total"])
    answers = head.eval().decode(head(batch))
    assert all(torch.isfinite(answer.spans_Q2).all() for answer in answers)


def test_the_same_input_gives_the_same_output(plugin):
    batch, targets = make_batch("many", "one")
    totals, scores = [], []
    for _ in range(2):
        head = make_head(plugin, seed=3).train()
        with torch.random.fork_rng():
            torch.manual_seed(5)
            totals.append(head.loss(head(batch), targets)["total"])
        scores.append(head.eval().decode(head(batch))[0].scores_Q)
    assert torch.equal(*totals) and torch.equal(*scores)


@torch.no_grad()
def test_saved_weights_answer_the_same(plugin):
    batch, targets = make_batch("overlapping")
    head, other = make_head(plugin, seed=1).eval(), make_head(plugin, seed=2).eval()
    head.prepare(targets)
    other.load_state_dict(head.state_dict())
    expected, got = (h.decode(h(batch))[0] for h in (head, other))
    assert torch.equal(expected.scores_Q, got.scores_Q) and torch.equal(expected.spans_Q2, got.spans_Q2)
    if expected.boxes_norm_QT4 is not None:
        assert torch.equal(expected.boxes_norm_QT4, got.boxes_norm_QT4)


def test_half_precision_trains(plugin):
    head = make_head(plugin).train()
    batch, targets = make_batch("one", "overlapping")
    with torch.autocast("cpu", torch.bfloat16):
        losses = head.loss(head(batch), targets)
    losses["total"].backward()
    assert torch.isfinite(losses["total"])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(head.eval().decode(head(batch))[0].scores_Q).all()


def test_a_few_steps_teach_it_something(plugin):
    head = make_head(plugin).train()
    batch, targets = make_batch("overlapping", window_frames=48)
    head.prepare(targets)
    optimiser = torch.optim.AdamW(head.parameters(), lr=2e-3)
    totals = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(30):
            total = head.loss(head(batch), targets)["total"]
            optimiser.zero_grad()
            total.backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimiser.step()
            totals.append(float(total.detach()))
    assert sum(totals[-3:]) < 0.7 * sum(totals[:3]), totals
