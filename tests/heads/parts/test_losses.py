import pytest
import torch

from heads.parts.losses import (
    box_giou_loss, box_iou_and_hull, focal_loss, quality_focal_loss, span_diou_loss, span_iou,
)


def test_span_iou_by_hand():
    a = torch.tensor([[0.0, 10.0], [0.0, 10.0], [0.0, 10.0], [3.0, 3.0]])
    b = torch.tensor([[5.0, 15.0], [10.0, 20.0], [0.0, 10.0], [3.0, 3.0]])
    assert span_iou(a, b).tolist() == pytest.approx([5 / 15, 0, 1, 0])


def test_diou_has_a_gradient_where_spans_do_not_meet():
    predicted = torch.tensor([[0.0, 1.0]], requires_grad=True)
    loss = span_diou_loss(predicted, torch.tensor([[5.0, 6.0]]))
    assert loss.item() == pytest.approx(1 + (5 / 6) ** 2)
    loss.sum().backward()
    assert predicted.grad.sum() < 0, "the span is pulled towards the truth"
    assert span_diou_loss(torch.tensor([[5.0, 6.0]]), torch.tensor([[5.0, 6.0]])).item() == pytest.approx(0)


def test_box_losses_by_hand_and_on_empty_boxes():
    a, b = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 1.0, 3.0, 3.0]])
    iou, union, hull = box_iou_and_hull(a, b)
    assert (iou.item(), union.item(), hull.item()) == pytest.approx((1 / 7, 7, 9))
    assert box_giou_loss(a, b).item() == pytest.approx(1 - 1 / 7 + 2 / 9)
    empty = torch.zeros(1, 4)
    assert torch.isfinite(box_giou_loss(empty, empty)).all()


def test_focal_losses_weigh_easy_examples_down():
    logits = torch.tensor([4.0, 0.0, -4.0])
    positive = focal_loss(logits, torch.ones(3))
    p = logits.sigmoid()
    assert torch.allclose(positive, 0.25 * (1 - p) ** 2 * -p.log(), atol=1e-6)
    assert quality_focal_loss(torch.tensor([0.0]), torch.tensor([0.5])).item() == 0
    soft = quality_focal_loss(logits, torch.ones(3))
    assert torch.allclose(soft, (1 - p) ** 2 * -p.log(), atol=1e-6)
