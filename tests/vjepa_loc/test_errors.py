"""Every error is a VjepaLocError, the matching builtin, and one line."""

import pytest

from vjepa_loc import errors


def tree(root):
    return [root, *(below for child in root.__subclasses__() for below in tree(child))]


@pytest.mark.parametrize("kind", tree(errors.VjepaLocError)[1:])
def test_members_are_builtins_and_print_one_line(kind):
    assert any(issubclass(kind, builtin) for builtin in (ValueError, LookupError, OSError, RuntimeError))
    assert str(kind("what went\n   wrong, and where")) == "what went wrong, and where"


def test_the_nearest_name_is_offered_only_when_near():
    assert errors.nearest_name("dens", ["dense", "detr"]) == " Did you mean 'dense'?"
    assert errors.nearest_name("xyz", ["dense", "detr"]) == ""
