"""Two processes launched from a notebook in a real JupyterLab: curves grow in the notebook, its buttons and ■ reach them."""

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timed]

LIVE, PAUSE, STOP = ".nnb-live", ".nnb-live .nnb-pause", ".nnb-live .nnb-stop"
SETUP = """
import time
import psutil
import torch
from torch import nn
from nenya_nb.training import fit, launch
from nenya_nb.widgets import LiveCurves

class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, views, targets=None, mode="tensor"):
        time.sleep(0.02)
        loss = (self.weight**2).sum() + 0.1 * torch.rand(())
        return {"loss": loss, "std": loss.detach().sqrt().clamp(max=1)}

data = [([torch.zeros(4, 3, 8, 8)] * 2, torch.zeros(4))] * 100

def points(history):
    return sum(len(steps) for steps, _ in history.columns().values())

def children():
    return len(psutil.Process().children())
"""
TRAIN = """
toy, curves = Toy(), LiveCurves()
history = launch(fit, toy, data, 100, processes=2, lr=0.01, device="cpu", callbacks=[curves])
"""
AFTER = "print(history.state, bool((toy.weight < 1).all()), children(), history.step < 10_000)"
AGAIN = """
history = launch(fit, toy, data, 1, processes=2, lr=0.01, device="cpu", callbacks=[curves])
"""


@pytest.fixture
def notebook(open_notebook):
    "Two processes train in cell 1 and their curves have begun to grow."
    nb = open_notebook([SETUP, TRAIN, AFTER, AGAIN])
    nb.run(0, wait_s=120)
    nb.run(1)
    nb.wait(f"{LIVE}[data-ready]", timeout_s=60)
    nb.wait_data(LIVE, "state", "v === 'running'")
    nb.wait_data(LIVE, "points", "n >= 60")
    return nb


def test_curves_of_two_processes_grow_and_the_stop_key_ends_them_after_the_step(notebook):
    nb = notebook
    nb.watch(LIVE, "points")
    nb.page.wait_for_function("() => lab.seen.length > 8")
    numbers = [int(value) for _, value in nb.seen()]
    assert numbers == sorted(numbers) and nb.ink(f"{LIVE} [data-panel=loss]") > 100
    nb.click(PAUSE)
    nb.wait_data(LIVE, "state", "v === 'paused'", 5)
    nb.click(PAUSE)
    nb.wait_data(LIVE, "state", "v === 'running'", 5)
    nb.screenshot("launched", LIVE)
    nb.interrupt()
    nb.wait_done(1, 15)
    assert nb.tracebacks() == []
    nb.run(2, wait_s=10)
    assert nb.output(2) == "stopped True 0 True"
    nb.show(LIVE)
    nb.wait_data(LIVE, "state", "v === 'stopped'")
    nb.wait_data(LIVE, "points", f"n === {nb.value('points(history)')}", timeout_s=5)


def test_two_processes_are_stopped_by_the_button_and_launched_again_in_the_same_curves(notebook):
    nb = notebook
    nb.click(STOP)
    nb.wait_done(1, 15)
    nb.run(2, wait_s=10)
    assert nb.output(2) == "stopped True 0 True" and nb.tracebacks() == []
    nb.run(3, wait_s=30)
    nb.show(LIVE)
    nb.wait_data(LIVE, "state", "v === 'finished'")
    nb.wait_data(LIVE, "points", f"n === {nb.value('points(history)')}", timeout_s=5)


def test_the_stop_key_pressed_twice_ends_the_processes_at_once(notebook):
    nb = notebook
    nb.interrupt()
    nb.page.wait_for_timeout(30)
    nb.interrupt()
    nb.wait_done(1, 15)
    assert nb.tracebacks()[0].startswith("KeyboardInterrupt")
    assert nb.value("(curves.history.state, children())") == ("stopped", 0)
