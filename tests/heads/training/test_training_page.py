"""The examples of docs/training-on-a-store.md run as they stand there."""

import re
from pathlib import Path

import pytest
import torch

from tests.features.store_builder import add_video, simulated_tokens, small_store

PAGE = Path(__file__).parents[3] / "docs" / "training-on-a-store.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize(("example", "name", "shape"), [
    (EXAMPLES[0], "left_nHWC", (6, 4, 24)), (EXAMPLES[1], "tokens_BTHWC", (32, 6, 6, 24)),
    (EXAMPLES[2], "values_BnHWC", (8, 6, 6, 24)),
], ids=["reading", "loader", "DataLoader"])
def test_the_examples_run(tmp_path, monkeypatch, example, name, shape):
    store = small_store(tmp_path / "data" / "features")
    for seed in range(2):
        add_video(store, f"v{seed}", simulated_tokens(40, seed))
    monkeypatch.chdir(tmp_path)
    found = {"__name__": "__main__"}
    with torch.random.fork_rng():
        exec(compile(example, PAGE.name, "exec"), found)
    assert found[name].shape[1:] == shape


def test_every_example_is_run():
    assert len(EXAMPLES) == 3
