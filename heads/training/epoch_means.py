"""Means over the windows of one epoch, kept in the checkpoints: Lightning's own begin anew where a training goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


class EpochMeans:
    """The mean of each loss over the windows so far; losses are means over the windows of their batch."""

    def __init__(self):
        self._sums: dict[str, Tensor] = {}
        self._num_windows = 0

    def add(self, losses: Mapping[str, Tensor], num_windows: int) -> None:
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach().float() * num_windows
        self._num_windows += num_windows

    def means(self) -> dict[str, Tensor]:
        return {name: value / self._num_windows for name, value in self._sums.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self._sums, "num_windows": self._num_windows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._sums, self._num_windows = dict(state["sums"]), state["num_windows"]
