"""Two processes launched from a notebook are watched, steered and stopped like one."""

import subprocess
import sys
import time

import launch_cells
import psutil
import pytest
import torch

from nenya_nb.training import History, fit, latest_checkpoint, launch


def cell(name, folder, **options):
    "A process of its own stands for the notebook's: a fork should not find the threads of other tests."
    command = [sys.executable, launch_cells.__file__, name, str(folder)]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    "name",
    [
        "watched_paused_and_stopped",
        "interrupted_once",
        "interrupted_twice",
        "errors",
        "other_work",
    ],
)
def test_launched_processes_are(name, tmp_path):
    process = cell(name, tmp_path)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors[-3000:]


def test_processes_whose_notebook_is_killed_save_and_end(tmp_path):
    process = cell("orphaned", tmp_path)
    checkpoints = tmp_path / "run" / "checkpoints"
    end = time.monotonic() + 60
    while not any(checkpoints.glob("step_*")):
        assert time.monotonic() < end and process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) == 2
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    saved = torch.load(latest_checkpoint(checkpoints) / "state.pt", weights_only=True)
    assert saved["history"]["events"][-2]["kind"] == "stop"
    process.stderr.close()


def test_what_cannot_be_launched_is_explained(monkeypatch):
    with pytest.raises(ValueError, match="expected at least 1"):
        launch(fit, processes=0)
    with pytest.raises(ValueError, match="background=True; launch waits"):
        launch(fit, processes=2, background=True)
    busy = History()
    busy.state = "running"
    with pytest.raises(ValueError, match="a run that is running"):
        launch(fit, processes=2, history=busy)
    if torch.xpu.is_available() or torch.version.hip:
        return
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(RuntimeError, match="has used a GPU already"):
        launch(fit, processes=2)


def test_one_process_is_a_plain_call():
    assert launch(lambda *a, **k: (a, k), 1, processes=1, b=2) == ((1,), {"b": 2})
