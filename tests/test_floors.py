"""Who may import whom: the floors of the house, and reading order inside them."""

import ast
import re
from pathlib import Path

import pytest
import yaml

# A floor may import itself, `core`, and what is named here.
FLOORS = {
    "core": set(),
    "models": set(),
    "data": set(),
    "training": set(),
    "evaluation": set(),
    "introspect": set(),
    "widgets": {"evaluation", "introspect"},
    "nn": {"models"},  # import paths of other libraries
    "utils": {"models"},
    "recipes": {"models", "data", "training", "evaluation"},
    "cli": {"models", "data", "training", "evaluation", "introspect", "widgets", "recipes"},
    "__main__": {"cli"},
    "__init__": set(),
}
# Packages that a floor must not need at import (inside a function they are fine where they serve it).
NEVER_AT_IMPORT = {
    "models": {"IPython", "matplotlib", "ipywidgets", "anywidget", "timm", "pandas", "sklearn"},
    "data": {"IPython", "matplotlib", "ipywidgets", "anywidget", "timm", "pandas"},
    "training": {"IPython", "matplotlib", "ipywidgets", "anywidget", "timm", "pandas"},
    "evaluation": {"IPython", "matplotlib", "ipywidgets", "anywidget", "timm", "pandas"},
    "widgets": {"matplotlib", "timm", "pandas", "torchvision"},
    "cli": {"torch", "matplotlib", "IPython", "numpy"},
}
# Packages a floor must not use at all.
NEVER = {
    "models": {"IPython", "matplotlib", "ipywidgets", "anywidget"},
    "data": {"IPython", "ipywidgets", "anywidget"},
    "training": {"ipywidgets", "anywidget"},
    "evaluation": {"IPython", "ipywidgets", "anywidget"},
}
PACKAGE = Path(__file__).resolve().parent.parent / "nenya_nb"
MODULES = sorted(p.relative_to(PACKAGE) for p in PACKAGE.rglob("*.py") if p.name != "_modidx.py")


def dotted(path: Path) -> str:
    "nenya_nb/models/blocks.py → models.blocks; a package's __init__ → the package."
    parts = list(path.with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imports(path: Path, nested: bool) -> set[str]:
    "Absolute names imported by a module; `nested` adds the imports inside functions."
    tree = ast.parse((PACKAGE / path).read_text())
    nodes = ast.walk(tree) if nested else ast.iter_child_nodes(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if not node.level:
                found.add(node.module)
                continue
            package = ["nenya_nb", *path.parent.parts]
            base = package[: len(package) - (node.level - 1)]
            base = ".".join(base + ([node.module] if node.module else []))
            found |= {base} if node.module else {f"{base}.{alias.name}" for alias in node.names}
    return found


def floor(module: str) -> str:
    return module.split(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_module_imports_only_allowed_floors(path):
    mine = floor(dotted(path))
    allowed = {mine, "core", *FLOORS[mine]}
    for name in imports(path, nested=True):
        if name.startswith("nenya_nb."):
            other = floor(name.removeprefix("nenya_nb."))
            assert other in allowed, (
                f"{path} ({mine}) imports {name}; {mine} may use {sorted(allowed)}"
            )


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_module_keeps_heavy_packages_out(path):
    mine = floor(dotted(path))
    tops = {name.split(".")[0] for name in imports(path, nested=False)}
    assert not tops & NEVER_AT_IMPORT.get(mine, set())
    every = {name.split(".")[0] for name in imports(path, nested=True)}
    assert not every & NEVER.get(mine, set())


def sidebar(entries) -> list[str]:
    "Notebook paths in the order a reader meets them."
    found = []
    for entry in entries:
        if isinstance(entry, str):
            found.append(entry)
        else:
            found += sidebar(entry.get("contents", []))
            found += (
                [entry["href"]] if "href" in entry else []
            )  # an index imports its whole section
    return found


def test_reading_order_is_import_order(repo):
    config = yaml.safe_load((repo / "_quarto.yml").read_text())
    order = {}
    for position, notebook in enumerate(sidebar(config["website"]["sidebar"]["contents"])):
        text = (repo / "nbs" / notebook).read_text()
        if exported := re.search(r"#\| default_exp ([\w.]+)", text):
            order[exported[1].removesuffix(".__init__")] = position
    for path in MODULES:
        module = dotted(path)
        if module not in order:
            continue
        for name in imports(path, nested=True):
            other = name.removeprefix("nenya_nb.")
            if name.startswith("nenya_nb.") and other in order:
                assert order[other] < order[module], (
                    f"{module} is read before {other}, which it imports"
                )


def test_mirror_of_notebooks_and_package(repo):
    "nbs/X/NN_name.ipynb exports nenya_nb/X/name.py, and every exported module has its notebook."
    for notebook in sorted((repo / "nbs").rglob("*.ipynb")):
        exported = re.search(r"#\| default_exp ([\w.]+)", notebook.read_text())
        if not exported:
            continue
        folder = notebook.relative_to(repo / "nbs").parent
        name = re.sub(r"^\d+[a-z]?_", "", notebook.stem)
        expected = ".".join([*folder.parts, "__init__" if name == "index" else name])
        assert exported[1] == expected, f"{notebook.relative_to(repo)} exports {exported[1]}"
