"""The worked example of docs/scoring.md, computed."""

import json
import re
from pathlib import Path

import pytest

from vjepa_loc.dataset import read_dataset, read_predictions
from vjepa_loc.metric_names import compute_metrics, metric_conventions, parse_iou
from vjepa_loc.metrics._result import metric_key
from vjepa_loc.scoring_input import ScoringInput

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "scoring.md").read_text(encoding="utf-8")
FIGURES = re.findall(r"^\| `([a-z0-9_]+(?:\[[a-z]+\])?/[^`]+)` \| ([0-9.]+) \|", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    folder = tmp_path_factory.mktemp("example")
    for name, text in zip(("truth", "predictions"), re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL), strict=True):
        content = json.loads(text)
        for event in content["events"]:
            box = event.pop("box")
            event["boxes"] = {str(frame): box for frame in range(event["start_frame"], event["end_frame"])}
        (folder / f"{name}.json").write_text(json.dumps(content))
    truth = read_dataset(folder / "truth.json")
    inputs = ScoringInput.of(truth, read_predictions(folder / "predictions.json", truth))
    results = compute_metrics(inputs, ["all"], parse_iou("0.3,0.35,0.5"))
    return {key: value for _, result in results.values() for key, value in result.values.items()}


def test_the_page_shows_every_kind_of_average_precision():
    metrics = {key.partition("/")[0] for key, _ in FIGURES}
    assert {"tal", "stal", "ava", "spotting", "ego4d_mq"} < metrics and len(metrics) >= 12


@pytest.mark.parametrize(("key", "value"), FIGURES, ids=[key for key, _ in FIGURES])
def test_the_figures_of_the_page(values, key, value):
    assert f"{values[key]:.4f}" == value


def test_every_metric_is_on_the_page():
    missing = [name for name in (metric_key(*one) for one in metric_conventions(["all"])) if f"| `{name}` |" not in PAGE]
    assert not missing
