import hashlib

import torch

from features.tensor_digest import tensor_digest


def test_the_digest_is_of_names_types_shapes_and_bytes_in_order_of_names():
    tensors = {"b": torch.tensor([[1, 2]], dtype=torch.int16), "a": torch.tensor([1.5])}
    expected = hashlib.sha256(b"a float32 (1,)\n" + b"\x00\x00\xc0\x3f" + b"b int16 (1, 2)\n" + b"\x01\x00\x02\x00")
    assert tensor_digest(tensors) == expected.hexdigest()
    assert tensor_digest(dict(reversed(tensors.items()))) == expected.hexdigest()


def test_whatever_changes_changes_the_digest():
    base = {"w": torch.arange(6.0).reshape(2, 3)}
    others = [{"v": base["w"]}, {"w": base["w"].reshape(3, 2)}, {"w": base["w"].double()}, {"w": base["w"] + 1}, base | {"b": torch.zeros(0)}]
    assert len({tensor_digest(tensors) for tensors in (base, *others)}) == 6


def test_memory_order_and_bfloat16():
    tensor = torch.arange(6.0).reshape(2, 3)
    assert tensor_digest({"w": tensor.T}) == tensor_digest({"w": tensor.T.contiguous()}) != tensor_digest({"w": tensor})
    assert tensor_digest({"w": tensor.bfloat16()}) != tensor_digest({"w": tensor})
    assert tensor_digest({"w": torch.tensor(2.0)}) != tensor_digest({"w": torch.tensor([2.0])})
