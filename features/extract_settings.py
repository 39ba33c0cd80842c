"""The settings of an extraction, put together from the workspace file, flags and `--set`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from features.places.file_cache import keep_copies
from features.recipe import ExtractConfig, OnMismatch
from features.schema import Record, Storage
from vjepa_loc.errors import ConfigError
from vjepa_loc.plugins import load_plugin
from vjepa_loc.settings import keys_of
from vjepa_loc.workspace import DataSettings, StoreSettings, Workspace

ENCODERS_PACKAGE = "features.encoders"
DEFAULT_ENCODER = "vjepa2"


@dataclass(frozen=True)
class ExtractSettings:
    """Everything `features.extract` needs to know. `notes` are lines that a person should see."""

    dataset: Path
    store: str
    encoder_name: str
    encoder_config: Record
    recipe: ExtractConfig
    storage: Storage
    notes: tuple[str, ...] = ()


def store_path(workspace: Workspace, flag: str | None = None) -> str:
    """The token store of a workspace; `flag` wins where it was given. From now on copies of objects are kept as it says.

    Raises `ConfigError` for an empty `flag`: a shell variable that is not set must not mean another store.
    """
    if flag is not None and not flag.strip():
        raise ConfigError("--store: expected a folder or a URL, got an empty name; leave the flag out for the workspace's store")
    use_cache(workspace)
    return flag or workspace.section("store", StoreSettings, Storage).path


def use_cache(workspace: Workspace) -> None:
    """Copies of objects are kept where the workspace says, in this process and in those that it starts."""
    settings = workspace.section("store", StoreSettings, Storage)
    keep_copies(None if settings.cache is None else workspace.path(settings.cache).absolute(), settings.cache_gib)


def read_extract_settings(
    workspace: Workspace, encoder: str | None = None, dataset: str | None = None, store: str | None = None, overrides: Sequence[str] = (),
    on_mismatch: OnMismatch | None = None,
) -> ExtractSettings:
    """`encoder`, `dataset`, `store` and `on_mismatch` are the values of flags, None where they were not given.

    Raises `ConfigError` naming the file or flag, the key, and the nearest key; `UnknownNameError` for an encoder that is not there.
    """
    workspace = workspace.with_plugin("encoder", DEFAULT_ENCODER, encoder, overrides)
    name = workspace.plugin_name("encoder")
    config_model = load_plugin(ENCODERS_PACKAGE, name, "encoder").Config
    workspace = workspace.with_overrides(overrides, {
        "data": keys_of(DataSettings),
        "store": keys_of(StoreSettings, Storage),
        "encoder": ["name", *keys_of(config_model)],
        "extract": keys_of(ExtractConfig),
    })
    recipe = workspace.section("extract", ExtractConfig)
    return ExtractSettings(
        dataset=workspace.dataset_path(dataset),
        store=store_path(workspace, store),
        encoder_name=name,
        encoder_config=workspace.section("encoder", config_model, also=["name"]),
        recipe=recipe if on_mismatch is None else recipe.model_copy(update={"on_mismatch": on_mismatch}),
        storage=workspace.section("store", Storage, StoreSettings),
        notes=workspace.notes,
    )
