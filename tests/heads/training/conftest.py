import sys
from pathlib import Path

import pytest

import heads


@pytest.fixture
def toy_head(monkeypatch):
    """Makes `heads/toy.py` exist for a test."""
    monkeypatch.setattr(heads, "__path__", heads.__path__)
    heads.__path__.append(str(Path(__file__).parent / "toy_heads"))
    yield "toy"
    heads.__path__.pop()
    sys.modules.pop("heads.toy", None)
    if hasattr(heads, "toy"):
        del heads.toy
