"""The workspace file: defaults, sections, the second file, overrides, plugins, and the origin in each complaint."""

from pathlib import Path

import pytest

from vjepa_loc.errors import ConfigError
from vjepa_loc.settings import Settings
from vjepa_loc.workspace import DataSettings, RunsSettings, StoreSettings, read_workspace


class Storage(Settings):
    shard_steps: int = 512


def workspace_with(folder: Path, text: str, **options):
    (folder / "vjepa_loc.toml").write_text(text)
    return read_workspace(folder, **options)


def test_without_a_file_the_defaults_hold(tmp_path):
    workspace = read_workspace(tmp_path)
    assert workspace.section("data", DataSettings).dataset == "data/dataset.json"
    assert workspace.section("store", StoreSettings).path == "data/features"
    assert workspace.section("runs", RunsSettings).path == "runs"
    assert workspace.with_plugin("encoder", "vjepa2").plugin_name("encoder") == "vjepa2"
    assert workspace.path("runs") == tmp_path / "runs"
    assert workspace.path("/elsewhere/runs") == Path("/elsewhere/runs")


def test_two_models_share_a_section(tmp_path):
    workspace = workspace_with(tmp_path, "[store]\npath = 's'\nshard_steps = 8\n")
    assert workspace.section("store", StoreSettings, Storage).path == "s"
    assert workspace.section("store", Storage, StoreSettings).shard_steps == 8


def test_an_unknown_section_or_key_names_the_file_and_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match=r"vjepa_loc\.toml: no section \[extrakt\].*Did you mean 'extract'\?"):
        workspace_with(tmp_path, "[extrakt]\nfit = 'crop'\n")
    workspace = workspace_with(tmp_path, "[store]\nshard_step = 8\n")
    with pytest.raises(ConfigError, match=r"vjepa_loc\.toml: \[store\] has no key 'shard_step'.*Did you mean 'shard_steps'\?"):
        workspace.section("store", StoreSettings, Storage)


def test_a_second_file_wins_key_by_key_and_is_named_for_its_own_values(tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[store]\nshard_steps = 'many'\n")
    workspace = workspace_with(tmp_path, "[store]\npath = 's'\nshard_steps = 8\n", config=recipe)
    assert workspace.section("store", StoreSettings, Storage).path == "s"
    with pytest.raises(ConfigError, match=r"recipe\.toml: store\.shard_steps: .*got 'many'"):
        workspace.section("store", Storage, StoreSettings)


def test_overrides_win_over_the_file_and_are_named(tmp_path):
    workspace = workspace_with(tmp_path, "[store]\nshard_steps = 8\n")
    keys = {"store": ["path", "shard_steps"]}
    assert workspace.with_overrides(["store.shard_steps=4"], keys).section("store", Storage, StoreSettings).shard_steps == 4
    assert workspace.with_overrides(["shard_steps=4", "shard_steps=2"], keys).values("store") == {"shard_steps": 2}
    with pytest.raises(ConfigError, match=r"--set shard_steps=x: store\.shard_steps: .*got 'x'"):
        workspace.with_overrides(["shard_steps=x"], keys).section("store", Storage, StoreSettings)
    with pytest.raises(ConfigError, match=r"--set shard_stepz=1: no section here .*Did you mean 'shard_steps'\?"):
        workspace.with_overrides(["shard_stepz=1"], keys)


def test_a_flag_comes_before_set_before_the_file_for_a_plugins_name(tmp_path):
    workspace = workspace_with(tmp_path, "[encoder]\nname = 'vjepa2'\n")
    name = lambda **options: workspace.with_plugin("encoder", "other", **options).plugin_name("encoder")
    assert name() == "vjepa2"
    assert name(overrides=["encoder.name=tiny"]) == "tiny"
    assert name(overrides=["encoder.name=tiny"], chosen="third") == "third"
    with pytest.raises(ConfigError, match=r"--set encoder\.name=3: encoder\.name: expected the name of a plugin, got 3"):
        name(overrides=["encoder.name=3"])


def test_keys_of_another_plugin_do_not_count_and_a_note_says_so(tmp_path):
    workspace = workspace_with(tmp_path, "[encoder]\nname = 'vjepa2'\nweights = 'w'\n")
    same = workspace.with_plugin("encoder", "vjepa2", chosen="vjepa2")
    assert same.values("encoder") == {"weights": "w"} and same.notes == ()
    other = workspace.with_plugin("encoder", "vjepa2", chosen="tiny")
    assert other.values("encoder") == {}
    assert other.notes == (
        f"--encoder tiny: the keys that {tmp_path / 'vjepa_loc.toml'} gives to 'vjepa2' do not count: weights",
    )
