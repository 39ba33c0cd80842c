"""The workspace: the folder a command runs in, and the `vjepa_loc.toml` that says where things are in it.

    [data]    dataset                     [extract] the recipe of an extraction
    [store]   path, cache, storage keys   [head]    name, and the head's own keys
    [encoder] name, and its own keys      [train]   the training's keys
    [runs]    path

This module knows which sections there are, not what stands in those of the other components: their models come from the
caller. Every value remembers where it came from, so that a complaint can say it. Relative paths count from the folder.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from vjepa_loc.errors import ConfigError, nearest_name
from vjepa_loc.settings import (
    Settings, SettingsT, build_settings, keys_of, locate_key, parse_override, read_toml, unknown_key_error,
)

FILE_NAME = "vjepa_loc.toml"
SECTIONS = ("data", "store", "encoder", "extract", "head", "train", "runs")


class DataSettings(Settings):
    """`[data]`: the dataset file."""

    dataset: str = Field(default="data/dataset.json", min_length=1)


class StoreSettings(Settings):
    """`[store]` besides the storage keys: the folder or URL of the token store; for a URL, the folder of this machine's copies of
    its objects, and how many GiB of them are kept.
    """

    path: str = Field(default="data/features", min_length=1)
    cache: str | None = Field(default=None, min_length=1)
    cache_gib: float | None = Field(default=None, gt=0)


class RunsSettings(Settings):
    """`[runs]`: the folder that holds the run folders."""

    path: str = Field(default="runs", min_length=1)


@dataclasses.dataclass(frozen=True)
class Value:
    """A setting as it was given, and where."""

    value: Any
    where: str


@dataclasses.dataclass(frozen=True)
class Workspace:
    """The settings of a folder, unchecked until a component asks for its section.

    `tables[section][name]` is a `Value`. `notes` are lines that a person should see.
    """

    folder: Path
    tables: Mapping[str, Mapping[str, Value]]
    notes: tuple[str, ...] = ()

    def with_overrides(self, overrides: Iterable[str], sections: Mapping[str, Sequence[str]]) -> "Workspace":
        """This workspace with `key=value` texts put in, later ones winning; `sections` maps a command's sections to their keys.

        Raises `ConfigError` naming the flag, the key and the nearest one.
        """
        tables = {section: dict(table) for section, table in self.tables.items()}
        for text in overrides:
            key, value = parse_override(text)
            section, name = locate_key(key, sections, f"--set {text}")
            tables.setdefault(section, {})[name] = Value(value, f"--set {text}")
        return dataclasses.replace(self, tables=tables)

    def with_plugin(
        self, section: str, default: str, chosen: str | None = None, overrides: Iterable[str] = (), flag: str | None = None
    ) -> "Workspace":
        """This workspace with the name of a section's plugin settled: a flag before `--set` before the files before `default`.

        Keys that the files give to another plugin than that one are left out, and a note says so.
        """
        table = dict(self.tables.get(section, {}))
        in_files = table.get("name")
        final = in_files or Value(default, "the default settings")
        for text in overrides:
            key, value = parse_override(text)
            if key == f"{section}.name":
                final = Value(value, f"--set {text}")
        if chosen is not None:
            final = Value(chosen, f"{flag or '--' + section} {chosen}")
        if not isinstance(final.value, str):
            raise ConfigError(f"{final.where}: {section}.name: expected the name of a plugin, got {final.value!r}")
        notes = self.notes
        if in_files is not None and in_files.value != final.value and len(table) > 1:
            left_out = ", ".join(sorted(set(table) - {"name"}))
            notes += (f"{final.where}: the keys that {in_files.where} gives to {in_files.value!r} do not count: {left_out}",)
            table = {}
        table["name"] = final
        return dataclasses.replace(self, tables={**self.tables, section: table}, notes=notes)

    def plugin_name(self, section: str) -> str:
        """The name settled by `with_plugin`."""
        return self.tables[section]["name"].value

    def section(self, name: str, model: type[SettingsT], *sharing: type[BaseModel], also: Sequence[str] = ()) -> SettingsT:
        """The checked `model` of section `name`.

        Keys of the models `sharing` the section, and those named in `also`, are theirs to check. Raises `ConfigError` naming
        the file or flag, the key, and what is wrong with it.
        """
        table = self.tables.get(name, {})
        known = [*also, *keys_of(model, *sharing)]
        for key, value in table.items():
            if key not in known:
                raise unknown_key_error(key, name, known, value.where)
        own = {key: value.value for key, value in table.items() if key in keys_of(model)}
        return build_settings(model, own, name, lambda key: table[key].where if key in table else self._origins(name))

    def values(self, name: str) -> dict[str, Any]:
        """The given values of a section, unchecked, without a plugin's name."""
        return {key: value.value for key, value in self.tables.get(name, {}).items() if key != "name"}

    def dataset_path(self, flag: str | None = None) -> Path:
        """The dataset file; `flag` wins where it was given."""
        return self.path(flag or self.section("data", DataSettings).dataset)

    def runs_path(self, flag: str | None = None) -> Path:
        """The folder of the runs; `flag` wins where it was given."""
        return self.path(flag or self.section("runs", RunsSettings).path)

    def path(self, text: str) -> Path:
        """A path of the settings; a relative one counts from the workspace folder."""
        return self.folder / text

    def _origins(self, section: str) -> str:
        origins = dict.fromkeys(value.where for value in self.tables.get(section, {}).values())
        return " and ".join(origins) or "the default settings"


def read_workspace(folder: Path, config: Path | None = None) -> Workspace:
    """The workspace in `folder`; without a `vjepa_loc.toml` every section has its defaults.

    `config` is a second file with the same sections, whose values win key by key. Raises `ConfigError` for a section that
    does not exist, `MissingFileError` for a `config` that is not there.
    """
    files = [path for path in [folder / FILE_NAME] if path.exists()] + ([config] if config is not None else [])
    tables: dict[str, dict[str, Value]] = {}
    for path in files:
        for section, table in read_toml(path).items():
            if section not in SECTIONS:
                raise ConfigError(
                    f"{path}: no section [{section}]; sections: {', '.join(SECTIONS)}.{nearest_name(section, SECTIONS)}"
                )
            tables.setdefault(section, {}).update({key: Value(value, str(path)) for key, value in table.items()})
    return Workspace(folder=folder, tables=tables)
