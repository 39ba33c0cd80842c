"""Settings: TOML tables, overrides, and what a misspelt or ill-typed key is answered with."""

from pathlib import Path

import pytest
from pydantic import Field

from vjepa_loc.errors import ConfigError, MissingFileError
from vjepa_loc.settings import Settings, build_settings, keys_of, locate_key, parse_override, read_toml


class Train(Settings):
    epochs: int = Field(default=10, gt=0)
    learning_rate: float = 1e-3


KEYS = {"train": ["epochs", "learning_rate", "seed"], "extract": ["fit", "overlap"], "head": ["num_queries", "seed"]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.epochs=5", ("train.epochs", 5)),
        ("fit=crop", ("fit", "crop")),
        ("fit = 'crop'", ("fit", "crop")),
        ("x=0.5", ("x", 0.5)),
        ("x=true", ("x", True)),
        ("x=[1, 2]", ("x", [1, 2])),
        ("x=a=b", ("x", "a=b")),
        ("x=", ("x", "")),
        ("x=5\ny = 6", ("x", "5\ny = 6")),
    ],
)
def test_an_override_is_a_toml_literal_or_a_string(text, expected):
    assert parse_override(text) == expected


@pytest.mark.parametrize("text", ["epochs", "=5", ".epochs=5", "train.=5"])
def test_an_override_without_key_or_value_is_refused(text):
    with pytest.raises(ConfigError, match="expected key=value"):
        parse_override(text)


def test_a_key_is_found_with_or_without_its_section():
    assert locate_key("train.epochs", KEYS, "--set") == ("train", "epochs")
    assert locate_key("num_queries", KEYS, "--set") == ("head", "num_queries")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("train.epoch", r"--set: \[train\] has no key 'epoch'; its keys: epochs, learning_rate, seed\. Did you mean 'epochs'\?"),
        ("num_querys", r"--set: no section here \(train, extract, head\) has a key 'num_querys'\. Did you mean 'num_queries'\?"),
        ("trian.epochs", r"there is no section 'trian' here, only train, extract, head\. Did you mean 'train.epochs'\?"),
        ("seed", r"'seed' could be train\.seed or head\.seed; say which"),
    ],
)
def test_a_key_that_is_not_there_or_not_unique_is_refused(key, message):
    with pytest.raises(ConfigError, match=message):
        locate_key(key, KEYS, "--set")


def test_settings_are_built_from_given_values_and_defaults():
    assert build_settings(Train, {"epochs": 3}, "train", str) == Train(epochs=3)
    assert keys_of(Train) == ["epochs", "learning_rate"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epocks": 3}, r"w\.toml: \[train\] has no key 'epocks'; its keys: epochs, learning_rate\. Did you mean 'epochs'\?"),
        ({"epochs": 0}, r"w\.toml: train\.epochs: Input should be greater than 0, got 0"),
        ({"epochs": "many"}, r"w\.toml: train\.epochs: Input should be a valid integer.*got 'many'"),
    ],
)
def test_wrong_values_are_answered_with_file_key_expectation_and_value(values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build_settings(Train, values, "train", lambda name: "w.toml")
    assert "\n" not in str(caught.value)


def test_a_toml_file_that_is_missing_or_broken_is_named(tmp_path: Path):
    with pytest.raises(MissingFileError, match="absent.toml: no such settings file"):
        read_toml(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[data\n")
    with pytest.raises(ConfigError, match=r"broken\.toml: not valid TOML: .*line 1"):
        read_toml(broken)
    broken.write_text("dataset = 'x'\n")
    with pytest.raises(ConfigError, match=r"broken\.toml: 'dataset' stands outside a section"):
        read_toml(broken)
    broken.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="broken.toml: a settings file is UTF-8 text"):
        read_toml(broken)
