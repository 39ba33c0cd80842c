import torch

from heads.training.ring import BatchRing, Slot


def test_memory_is_used_again_and_grows():
    slot = Slot()
    first = slot.tensor("codes", (2, 3), torch.int8)
    assert slot.tensor("codes", (3, 2), torch.int8).data_ptr() == first.data_ptr()
    assert slot.tensor("scale", (2, 3), torch.int8).data_ptr() != first.data_ptr()
    larger = slot.tensor("codes", (5, 5), torch.float16)
    assert larger.shape == (5, 5) and larger.dtype == torch.float16 and larger.is_contiguous()
    assert slot.tensor("codes", (2, 3), torch.int8).data_ptr() == larger.data_ptr()


def test_slots_are_used_in_turn():
    ring = BatchRing()
    ring.begin(3)
    slots = [ring.slot(position) for position in range(4)]
    assert len(set(map(id, slots))) == 3 and slots[3] is slots[0]
    ring.begin(2)
    assert ring.slot(2) is ring.slot(0) is slots[0], "the memory stays"
