"""The documentation against the tree: every file is on the map, every page in the index, commands and settings exist."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import typer

import cli
from features.encoders import vjepa2
from features.recipe import ExtractConfig
from features.schema import Storage
from heads.training.config import TrainConfig
from vjepa_loc.dataset import read_dataset
from vjepa_loc.workspace import SECTIONS, DataSettings, RunsSettings, StoreSettings, read_workspace

ROOT = Path(cli.__file__).parent
README = (ROOT / "README.md").read_text()
WORKSPACE = (ROOT / "docs" / "workspace.md").read_text()
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def tracked_files() -> set[str]:
    answer = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if answer.returncode:
        pytest.skip("not a git checkout, so which files belong to the project is unknown")
    return {name for name in answer.stdout.splitlines() if (ROOT / name).exists()}


def test_the_file_map_is_the_tree():
    listed = re.findall(r"^\| `([^`]+)` \| \S", README.partition("## What each file is for")[2], re.MULTILINE)
    assert len(listed) == len(set(listed)), "a file stands twice"
    expected = {
        name for name in tracked_files()
        if not name.startswith(("tests/", "docs/")) and name != "README.md" and not name.endswith("__init__.py")
    }
    assert set(listed) == expected, f"missing: {sorted(expected - set(listed))}; gone: {sorted(set(listed) - expected)}"


def test_every_page_is_in_the_index_and_every_link_leads_somewhere():
    index = (ROOT / "docs" / "README.md").read_text()
    for page in DOCUMENTS[1:]:
        if page.name != "README.md":
            assert f"({page.relative_to(ROOT / 'docs')})" in index, f"{page.name} is not in docs/README.md"
    for document in DOCUMENTS:
        for link in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            assert "://" in link or (document.parent / link).exists(), f"{document.name} links to {link}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_that_are_shown_exist_with_their_options(document):
    for line in re.findall(r"python cli\.py (.+?)(?:`|$)", document.read_text(), re.MULTILINE):
        words = line.split()
        command = typer.main.get_command(cli.app)
        while hasattr(command, "commands") and words and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
        assert not hasattr(command, "commands") or line.startswith("COMMAND"), f"no such command: {line}"
        if not line.startswith("COMMAND"):
            assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options, line


def test_make_targets_that_are_shown_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {target for document in DOCUMENTS for target in re.findall(r"(?:^ +|`)make ([a-z-]+)", document.read_text(), re.MULTILINE)}
    assert {"demo", "test", "extract"} <= shown <= targets


def test_every_setting_is_documented_with_its_default():
    rows = re.findall(r"^\| (\w+) \| (\w+) \| (.+?) \| .+ \|$", WORKSPACE, re.MULTILINE)
    documented = {(section, key): default for section, key, default in rows if section != "section"}
    models = {
        "data": [DataSettings], "store": [StoreSettings, Storage], "encoder": [vjepa2.Config], "extract": [ExtractConfig],
        "train": [TrainConfig], "runs": [RunsSettings],
    }
    actual = {
        (section, key): field.default for section, owners in models.items() for owner in owners for key, field in owner.model_fields.items()
    }
    actual |= {("encoder", "name"): "vjepa2", ("head", "name"): "detr"}
    assert set(documented) == set(actual)
    assert {section for section, _ in actual} == set(SECTIONS)
    for name, default in actual.items():
        text = documented[name]
        shown = None if text == "none" else tomllib.loads(f"value = {text.strip('`')}")["value"]
        assert shown == (list(default) if isinstance(default, tuple) else default), name


def test_the_example_workspace_of_the_readme_is_the_defaults(tmp_path):
    example = re.search(r"```toml\n(.*?)```", README, re.DOTALL)[1]
    (tmp_path / "vjepa_loc.toml").write_text(re.sub(r"^ {3}", "", example, flags=re.MULTILINE))
    workspace = read_workspace(tmp_path).with_plugin("encoder", "other")
    assert workspace.section("data", DataSettings) == DataSettings()
    assert workspace.section("store", StoreSettings) == StoreSettings()
    assert workspace.section("runs", RunsSettings) == RunsSettings()
    assert workspace.plugin_name("encoder") == "vjepa2"
    assert workspace.section("encoder", vjepa2.Config, also=["name"]) == vjepa2.Config()


def test_the_example_dataset_can_be_read(tmp_path):
    example = re.search(r"```json\n(.*?)```", (ROOT / "docs" / "dataset.md").read_text(), re.DOTALL)[1]
    (tmp_path / "dataset.json").write_text(example)
    dataset = read_dataset(tmp_path / "dataset.json")
    assert list(dataset.videos) == ["v1", "v2"] and len(dataset.events) == 2


def test_constraints_pin_every_dependency_by_its_public_version():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#"))
    assert pins["torch"] == "2.13.0"
    assert not [version for version in pins.values() if "+" in version]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    entries = [*project["dependencies"], *(entry for extra in project["optional-dependencies"].values() for entry in extra)]
    names = {re.match(r"[\w-]+", entry)[0].lower().replace("_", "-") for entry in entries}
    # An extra may ask for another one of this project.
    assert names - {project["name"]} <= {name.lower().replace("_", "-") for name in pins}
