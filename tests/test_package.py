"""The wheel and the sdist, built as a user's pip would and used away from the checkout."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parent.parent / "js" / "src"
BUNDLES = {path.name for path in SOURCES.iterdir() if path.suffix in (".js", ".css")}
BUNDLE_LIMIT = 120 * 1024  # bytes, each
WHEEL_LIMIT = (
    750_000  # bytes; a quarter is the front end of eight widgets, the rest lessons in code
)


@pytest.fixture(scope="module")
def dists(clean_copy, tmp_path_factory):
    "Wheel and sdist from the clean copy, without network and without node."
    out = tmp_path_factory.mktemp("dist")
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    for kind in ("--wheel", "--sdist"):
        subprocess.run(
            [sys.executable, "-m", "build", "--no-isolation", "--skip-dependency-check", kind]
            + ["--outdir", str(out), str(clean_copy)],
            env=env,
            check=True,
            capture_output=True,
        )
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def test_wheel_holds_every_module_and_bundle(dists, repo):
    names = set(zipfile.ZipFile(dists[0]).namelist())
    modules = {str(p.relative_to(repo)) for p in (repo / "nenya_nb").rglob("*.py")}
    assert modules <= names
    assert {f"nenya_nb/static/{name}" for name in BUNDLES} <= names
    recipes = {str(p.relative_to(repo)) for p in (repo / "nenya_nb/recipes").glob("*.yaml")}
    assert len(recipes) >= 9 and recipes | {"nenya_nb/py.typed"} <= names
    assert dists[0].stat().st_size <= WHEEL_LIMIT


def test_sdist_holds_what_a_build_needs(dists):
    names = {n.split("/", 1)[1] for n in tarfile.open(dists[1]).getnames() if "/" in n}
    needed = {"settings.ini", "setup.py", "pyproject.toml", "js/build_backend.py", "js/build.mjs"}
    assert needed | {f"nenya_nb/static/{name}" for name in BUNDLES} <= names
    assert not any("node_modules" in n for n in names)


def test_wheel_from_sdist_needs_no_node(dists, tmp_path):
    with tarfile.open(dists[1]) as archive:
        archive.extractall(tmp_path)
    (source,) = tmp_path.iterdir()
    env = {**os.environ, "PATH": "/nonexistent"}
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--skip-dependency-check", "--wheel"]
        + ["--outdir", str(tmp_path / "out"), str(source)],
        env=env,
        check=True,
        capture_output=True,
    )
    (wheel,) = (tmp_path / "out").glob("*.whl")
    assert set(zipfile.ZipFile(wheel).namelist()) == set(zipfile.ZipFile(dists[0]).namelist())


def test_bundles_are_small_and_load_nothing(repo):
    for name in BUNDLES:
        bundle = repo / "nenya_nb" / "static" / name
        text = bundle.read_text()
        assert bundle.stat().st_size <= BUNDLE_LIMIT
        assert "https://" not in text and "@import" not in text
        assert (
            "import(" not in text or name == "page.js"
        )  # of the widget that lies in the page itself


@pytest.fixture(scope="module")
def installed(dists, tmp_path_factory):
    "A folder that holds only the unpacked wheel; the requirements come from this environment."
    site = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(dists[0]).extractall(site)
    return site


def run_installed(site, code, cwd):
    env = {**os.environ, "PYTHONPATH": str(site)}
    check = (
        f"import nenya_nb; assert nenya_nb.__file__.startswith({str(site)!r}), nenya_nb.__file__\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", check + code], cwd=cwd, env=env, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_installed_star_import_gives_the_models(installed, tmp_path):
    code = "from nenya_nb.models import *\nprint(SupConResNet(name='resnet50', feat_dim=128))"
    assert "layer4" in run_installed(installed, code, tmp_path)


def test_installed_widgets_find_their_bundles(installed, tmp_path):
    code = "from nenya_nb.widgets import LiveCurves\nprint(len(LiveCurves()._esm))"
    assert int(run_installed(installed, code, tmp_path)) > 10_000


def test_installed_recipes_answer_to_their_names(installed, tmp_path):
    code = (
        "from nenya_nb.recipes import read_recipe, recipe_files\n"
        "for name in recipe_files(): print(read_recipe(name).name)"
    )
    assert {"cifar10_simclr", "ocean_supcon"} <= set(
        run_installed(installed, code, tmp_path).split()
    )


def test_installed_command_answers_without_importing_torch(installed, tmp_path):
    code = (
        "import sys\nfrom nenya_nb.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    assert "train" in run_installed(installed, code, tmp_path)
