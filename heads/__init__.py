"""Tokens -> events. Every public module here is a head; `load_run` opens a trained one."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heads.training.predict import load_run

__all__ = ["load_run"]


def __getattr__(name: str):
    # Listing the heads must not load torch.
    if name == "load_run":
        from heads.training.predict import load_run

        return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
