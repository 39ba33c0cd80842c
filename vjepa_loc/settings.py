"""Settings: tables of values from TOML, overridden by `key=value`, checked by one frozen model per component.

A *section* is a name (`extract`, `train`) with the model class that owns its keys. Values travel as plain dictionaries until
`build_settings` makes the model, so that a file, a flag and a default meet in one place and every complaint names its origin.
A misspelt key is refused with the nearest one that exists.
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from vjepa_loc.errors import ConfigError, MissingFileError, nearest_name

Tables = dict[str, dict[str, Any]]
SettingsT = TypeVar("SettingsT", bound=BaseModel)


class Settings(BaseModel):
    """Base of the settings models: frozen, and refuses keys that it does not have."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def read_toml(path: Path) -> Tables:
    """The tables of a TOML file. Raises `MissingFileError`, or `ConfigError` with the place of the syntax error."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such settings file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: a settings file is UTF-8 text, got bytes that are not: {error}") from None
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {name!r} stands outside a section; put it under one, such as [{name}] or [train]")
    return tables


def parse_override(text: str, flag: str = "--set") -> tuple[str, Any]:
    """`("train.epochs", 5)` of `"train.epochs=5"`. The value is a TOML literal; whatever is not one is a string."""
    key, equals, literal = text.partition("=")
    key, literal = key.strip(), literal.strip()
    if not equals or not key or key.startswith(".") or key.endswith("."):
        raise ConfigError(f"{flag} {text!r}: expected key=value, such as train.epochs=5")
    try:
        parsed = tomllib.loads(f"value = {literal}")
    except tomllib.TOMLDecodeError:
        return key, literal
    # "5\nother = 6" parses as two keys: that is a string with a line break, not a literal.
    return key, parsed["value"] if parsed.keys() == {"value"} else literal


def keys_of(*models: type[BaseModel]) -> list[str]:
    """The keys of settings models that share a section, in the order of their definitions."""
    return [name for model in models for name in model.model_fields]


def locate_key(key: str, sections: Mapping[str, Sequence[str]], where: str) -> tuple[str, str]:
    """The section and the name that `key` means; `sections` maps each section to its keys.

    A key is `section.name`, or `name` alone where exactly one section has it. Raises `ConfigError` naming `where`, the key,
    and the nearest key or the sections that share it.
    """
    section, dot, name = key.partition(".")
    if dot:
        if section not in sections:
            dotted_keys = [f"{section}.{name}" for section, names in sections.items() for name in names]
            raise ConfigError(
                f"{where}: there is no section {section!r} here, only {', '.join(sections)}.{nearest_name(key, dotted_keys)}"
            )
        if name not in sections[section]:
            raise unknown_key_error(name, section, sections[section], where)
        return section, name
    owners = [section for section, names in sections.items() if key in names]
    if len(owners) == 1:
        return owners[0], key
    if owners:
        raise ConfigError(f"{where}: {key!r} could be {' or '.join(f'{owner}.{key}' for owner in owners)}; say which")
    all_names = sorted({name for names in sections.values() for name in names})
    raise ConfigError(f"{where}: no section here ({', '.join(sections)}) has a key {key!r}.{nearest_name(key, all_names)}")


def build_settings(model: type[SettingsT], values: Mapping[str, Any], section: str, where: Callable[[str], str]) -> SettingsT:
    """The checked model of one section.

    `where(name)` says where a key's value comes from (a file, a flag). Raises `ConfigError` naming that, the key, what was
    expected and what was found; for an unknown key also the nearest one.
    """
    for name in values:
        if name not in keys_of(model):
            raise unknown_key_error(name, section, keys_of(model), where(name))
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"]]
        got = "" if first["type"] == "missing" else f", got {_shortened(first.get('input'))}"
        raise ConfigError(f"{where(path[0] if path else '')}: {'.'.join([section, *path])}: {first['msg']}{got}") from None
    except ConfigError as error:
        raise ConfigError(f"{where('')}: [{section}] {error}") from None


def unknown_key_error(name: str, section: str, keys: Sequence[str], where: str) -> ConfigError:
    """The refusal of a key that a section does not have, with the nearest one that it has."""
    return ConfigError(f"{where}: [{section}] has no key {name!r}; its keys: {', '.join(keys)}.{nearest_name(name, keys)}")


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
