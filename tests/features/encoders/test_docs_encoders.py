"""The table of families in docs/encoders.md against the modules."""

import re
from pathlib import Path

from features.encoders import tiny
from vjepa_loc.plugins import load_plugin, plugin_names

PAGE = (Path(__file__).parents[3] / "docs" / "encoders.md").read_text()


def test_every_encoder_is_listed_with_its_default_weights():
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \| \d", PAGE, re.MULTILINE))
    assert list(rows) and set(rows) == set(plugin_names("features.encoders"))
    for name, weights in rows.items():
        config = load_plugin("features.encoders", name, "encoder").Config
        expected = "built in" if config is tiny.Config else f"`{config().weights}`"
        assert weights == expected, name
