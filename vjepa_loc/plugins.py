"""A plugin is a module file in a package's folder; its file name is its public name.

Names come from the folder listing, and only then is the module imported, outside any `try`: a plugin whose own
dependency is missing shows that error, and is never taken for an unknown name.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from types import ModuleType

from vjepa_loc.errors import UnknownNameError, nearest_name


def plugin_names(package: str) -> list[str]:
    """Names of the plugins of `package` (a dotted name), sorted.

    Modules with a leading underscore and sub-packages are not plugins. No plugin is imported.
    """
    folders = importlib.util.find_spec(package).submodule_search_locations
    return sorted(
        module.name
        for module in pkgutil.iter_modules(folders)
        if not module.ispkg and not module.name.startswith("_")
    )


def load_plugin(package: str, name: str, kind: str) -> ModuleType:
    """The module of the plugin `name`. `kind` is what a message calls it ("head", "encoder", "format", "metric").

    Raises `UnknownNameError` with the names there are and the nearest one; lets the plugin's own errors through.
    """
    names = plugin_names(package)
    if name not in names:
        raise UnknownNameError(
            f"unknown {kind} {name!r}, expected one of: {', '.join(names) or 'none exist'}.{nearest_name(name, names)}"
        )
    return importlib.import_module(f"{package}.{name}")
