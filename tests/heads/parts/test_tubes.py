import pytest
import torch

from heads.parts.tubes import attention_loss, box_loss, cells_of_boxes, chosen_boxes


def grid_cells(h, w):
    x, y = torch.arange(w) / w, torch.arange(h) / h
    cell = torch.zeros(h, w, 4)
    cell[..., 0], cell[..., 2] = x, x + 1 / w
    cell[..., 1], cell[..., 3] = y[:, None], y[:, None] + 1 / h
    return cell


def test_cells_of_boxes():
    boxes = torch.tensor([[[0.0, 0.0, 1.0, 1.0], [0.26, 0.01, 0.30, 0.05], [0.0, 0.0, 0.0, 0.0]]])
    has_box = torch.tensor([[True, True, False]])
    cells = cells_of_boxes(boxes, has_box, grid_cells(4, 4))[0]
    # The middle half of the whole frame is the four inner cells; a tiny box gets the cell it lies in; no box, no cell.
    assert cells[0].nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert cells[1].nonzero().tolist() == [[0, 1]]
    assert not cells[2].any()


def test_chosen_boxes_are_those_of_the_most_attended_cell():
    torch.manual_seed(0)
    attention, boxes = torch.randn(2, 3, 5, 6), torch.rand(2, 5, 2, 3, 4)
    got = chosen_boxes(attention, boxes)
    for b in range(2):
        for q in range(3):
            for t in range(5):
                cell = attention[b, q, t].argmax().item()
                assert torch.equal(got[b, q, t], boxes[b, t, cell // 3, cell % 3])


def test_attention_loss_counts_steps_with_a_box_only():
    log_attention = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]]))
    cells = torch.tensor([[[True, True, False], [False, False, False]]])
    loss = attention_loss(log_attention, cells)
    assert loss.item() == pytest.approx(-torch.log(torch.tensor(0.75)).item())
    assert attention_loss(log_attention, torch.zeros_like(cells)).item() == 0


def test_box_loss_is_zero_for_the_truth_and_relative_to_its_size():
    small, large = torch.tensor([0.1, 0.1, 0.2, 0.2]), torch.tensor([0.1, 0.1, 0.5, 0.5])
    assert box_loss(small, small).item() == pytest.approx(0, abs=1e-5)
    shift = torch.tensor([1.0, 1.0, 1.0, 1.0])
    assert box_loss(small + 0.01 * shift, small).item() == pytest.approx(box_loss(large + 0.04 * shift, large).item(), rel=1e-4)
