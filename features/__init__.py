"""Video files to tokens on disk. `open_store(path)` is the public door to what was extracted."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from features.store import Store, open_store

__all__ = ["Store", "open_store"]


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that `import features.<module>` does not pull in the store.
    if name in __all__:
        from features import store

        return getattr(store, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
