"""Plugins are found by listing, imported without hiding their errors, and missed with the nearest name."""

import sys

import pytest

from vjepa_loc.errors import UnknownNameError
from vjepa_loc.plugins import load_plugin, plugin_names


@pytest.fixture
def package(tmp_path, monkeypatch) -> str:
    folder = tmp_path / "plugins_under_test"
    (folder / "parts").mkdir(parents=True)
    for name in ("__init__", "dense", "detr", "_shared", "parts/__init__"):
        (folder / f"{name}.py").write_text(f"NAME = {name!r}\n")
    (folder / "broken.py").write_text("import a_module_that_nobody_has\n")
    (folder / "notes.txt").write_text("no module\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder.name
    for name in [name for name in sys.modules if name.split(".")[0] == folder.name]:
        del sys.modules[name]


def test_names_leave_out_private_modules_and_sub_packages_and_import_nothing(package):
    assert plugin_names(package) == ["broken", "dense", "detr"]
    assert f"{package}.broken" not in sys.modules


def test_a_plugin_is_loaded_by_its_file_name(package):
    assert load_plugin(package, "dense", "head").NAME == "dense"


@pytest.mark.parametrize("name", ["_shared", "parts", "os.path", "dense.py", ""])
def test_only_listed_names_are_plugins(package, name):
    with pytest.raises(UnknownNameError, match="unknown head .*expected one of: broken, dense, detr"):
        load_plugin(package, name, "head")


def test_an_unknown_name_is_answered_with_the_nearest(package):
    with pytest.raises(UnknownNameError, match="unknown head 'dets'.*Did you mean 'detr'?") as caught:
        load_plugin(package, "dets", "head")
    assert isinstance(caught.value, LookupError)


def test_a_broken_dependency_shows_its_own_error(package):
    with pytest.raises(ModuleNotFoundError, match="a_module_that_nobody_has"):
        load_plugin(package, "broken", "head")
