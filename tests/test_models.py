"""What `from nenya_nb.models import *` gives."""

import importlib
import pkgutil
import subprocess
import sys

import nbformat

import nenya_nb.models


def test_star_import_gives_what_the_pages_export():
    exported = set()
    for module in pkgutil.walk_packages(nenya_nb.models.__path__, "nenya_nb.models."):
        exported |= set(getattr(importlib.import_module(module.name), "__all__", []))
    assert exported == set(nenya_nb.models.__all__)


def test_star_import_gives_nothing_of_torch():
    names = {}
    exec("from nenya_nb.models import *", names)
    assert {"SupConLoss", "SimCLR", "resnet_tiny", "SupConResNet"} <= set(names)
    assert not {"Tensor", "nn", "torch", "F", "features", "Any", "Sequence", "gather"} & set(names)


def test_exported_names_are_not_names_of_modules():
    "A function named like its module would hide the module after a star import."
    modules = {m.name for m in pkgutil.iter_modules(nenya_nb.models.__path__)}
    assert not modules & set(nenya_nb.models.__all__)


def test_index_shows_the_newest_measurement_of_learning(repo):
    newest = sorted((repo / "benchmarks/results").glob("learn-*.json"))[-1]
    command = [sys.executable, repo / "benchmarks/learn.py", "--page", newest]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    cells = nbformat.read(repo / "nbs/models/index.ipynb", 4).cells
    shown = next(cell.source for cell in cells if cell.source.startswith("## Do they learn?"))
    assert table in shown and newest.stem[6:16] in shown
