"""What every test may use."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started with & by a script
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repo() -> Path:
    "The root of the checkout."
    return REPO


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("timed"):
            item.add_marker(pytest.mark.flaky(reruns=2, reruns_delay=1))


@pytest.fixture(autouse=True)
def _repeatable():
    torch.manual_seed(0)


@pytest.fixture
def no_weights(tmp_path, monkeypatch) -> Path:
    "Empty caches of weights, and no network; the folder where torch would keep downloads."
    import urllib.request

    def offline(*_, **__):
        raise OSError("no network in tests")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / "hub"))
    yield tmp_path / "hub" / "checkpoints"
    torch.hub.set_dir(before)


def project_files() -> list[str]:
    "The files of the project: tracked ones and new ones that git does not ignore."
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(f for f in listed.stdout.split("\0") if f and (REPO / f).exists())


@pytest.fixture(scope="session")
def clean_copy(tmp_path_factory) -> Path:
    "A copy of the project as a fresh clone would see it, plus the built front end: free to be written to."
    copy = tmp_path_factory.mktemp("clean") / "nenya_nb"
    for name in project_files():
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPO / name, target, follow_symlinks=False)
    shutil.copytree(REPO / "nenya_nb" / "static", copy / "nenya_nb" / "static")
    return copy


@pytest.fixture(scope="session")
def copy_env(clean_copy) -> dict:
    "Environment for commands that should see the copy, not this checkout."
    return {**os.environ, "PYTHONPATH": str(clean_copy)}
