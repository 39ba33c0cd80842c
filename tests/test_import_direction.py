"""Imports go one way: vjepa_loc <- features <- heads <- cli.py. The syntax trees are walked, nothing is imported.

Also what DESIGN section 3 keeps light: the core imports no torch, no zarr and no decoder anywhere, what reports and
image headers need only inside functions, and the command line imports nothing heavy before a command runs.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("vjepa_loc", "features", "heads", "cli")
CORE_LIBRARIES = {"numpy", "scipy", "pydantic"}
CORE_LIBRARIES_INSIDE_FUNCTIONS = {"matplotlib", "jinja2", "PIL"}
CLI_LIBRARIES = {"typer", "rich"}
LIGHTNING = {"lightning", "pytorch_lightning"}


def imports_of(file: Path, root: Path) -> Iterator[tuple[int, str, bool]]:
    """`(line, dotted module, whether it runs when the file is imported)` of each import, also of modules by name."""
    package = file.relative_to(root).with_suffix("").parts[:-1]

    def walk(node: ast.AST, at_import: bool) -> Iterator[tuple[int, str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((child.lineno, alias.name, at_import) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] if child.level else ()
                module = [*base, *([child.module] if child.module else [])]
                # Behind a package may stand a module, as in `from heads import detr`; before it nothing, at the top.
                yield from ((child.lineno, ".".join([*module, alias.name]), at_import) for alias in child.names)
            elif isinstance(child, ast.Call) and is_import_by_name(child):
                yield child.lineno, child.args[0].value, at_import
            inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from walk(child, at_import and not inside and not is_for_type_checkers(child))

    yield from walk(ast.parse(file.read_text(encoding="utf-8"), str(file)), True)


def is_import_by_name(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return (
        name in ("import_module", "__import__", "load_plugin", "plugin_names")
        and bool(call.args)
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    )


def is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def source_files(root: Path) -> list[Path]:
    files = [file for layer in LAYERS[:-1] for file in sorted((root / layer).rglob("*.py"))]
    return files + [file for file in [root / "cli.py"] if file.exists()]


def violations(root: Path) -> list[str]:
    """Each import that breaks a rule, as `file:line: reason`."""
    found = []
    for file in source_files(root):
        relative = file.relative_to(root)
        layer = relative.parts[0].removesuffix(".py")
        for line, module, at_import in imports_of(file, root):
            reason = broken_rule(relative, layer, module.split(".")[0], at_import)
            if reason:
                found.append(f"{relative}:{line}: {reason}")
    return list(dict.fromkeys(found))


def broken_rule(file: Path, layer: str, imported: str, at_import: bool) -> str | None:
    if imported in LAYERS:
        above = LAYERS.index(imported) > LAYERS.index(layer)
        return f"{layer} imports {imported}, which lies above it" if above else None
    foreign = imported not in sys.stdlib_module_names
    if layer == "vjepa_loc" and foreign and imported not in CORE_LIBRARIES:
        if imported not in CORE_LIBRARIES_INSIDE_FUNCTIONS:
            return f"the core imports {imported}"
        return f"the core imports {imported} outside a function" if at_import else None
    if layer == "cli" and at_import and foreign and imported not in CLI_LIBRARIES:
        return f"the command line imports {imported} before a command runs"
    if layer == "heads" and imported in LIGHTNING and file.parts[1] != "training":
        return f"a head imports {imported}, which belongs into heads/training"
    return None


def test_imports_go_one_way():
    assert source_files(ROOT), "no source file found: the test looks in the wrong folder"
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("file", "source", "reason"),
    [
        ("vjepa_loc/a.py", "import features", "vjepa_loc imports features"),
        ("vjepa_loc/a.py", "from heads.parts import contract", "vjepa_loc imports heads"),
        ("vjepa_loc/a.py", "def f():\n    import features.store", "vjepa_loc imports features"),
        ("vjepa_loc/formats/a.py", "from ... import heads", "vjepa_loc imports heads"),
        ("vjepa_loc/a.py", "import importlib\nimportlib.import_module('features.store')", "vjepa_loc imports features"),
        ("features/a.py", "from vjepa_loc import plugins as p\np.plugin_names('heads')", "features imports heads"),
        ("features/engines/a.py", "if True:\n    from heads import detr", "features imports heads"),
        ("heads/a.py", "import cli", "heads imports cli"),
        ("vjepa_loc/a.py", "import torch", "the core imports torch"),
        ("vjepa_loc/a.py", "def f():\n    import av", "the core imports av"),
        ("vjepa_loc/a.py", "import matplotlib.pyplot as plt", "the core imports matplotlib outside a function"),
        ("cli.py", "import torch", "the command line imports torch before a command runs"),
        ("heads/detr.py", "import lightning as L", "a head imports lightning"),
    ],
)
def test_a_violation_is_found(tmp_path, file, source, reason):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(source)
    (found,) = violations(tmp_path)
    assert found.startswith(f"{file}:") and reason in found


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("vjepa_loc/formats/a.py", "from __future__ import annotations\nfrom .. import events\nimport scipy.optimize"),
        ("vjepa_loc/a.py", "def f():\n    from PIL import Image\n    import jinja2"),
        ("features/a.py", "import torch\nfrom vjepa_loc import errors\nfrom . import schema"),
        ("heads/training/a.py", "import lightning as L\nimport features"),
        ("cli.py", "import typer\nfrom vjepa_loc.errors import VjepaLocError\ndef f():\n    import torch, heads"),
    ],
)
def test_imports_downwards_are_fine(tmp_path, file, source):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(source)
    assert violations(tmp_path) == []
