"""Cells of notebooks that launch two processes; tests/test_engine_launch.py runs each in a process that stands for the notebook's."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nenya_nb.core import seed_everything
from nenya_nb.training import History, fit, latest_checkpoint, launch, read_table

torch.set_num_threads(1)


class Regression(nn.Module):
    "Finds the weights that made the targets."

    def __init__(self, start=0.0):
        super().__init__()
        self.weights = nn.Parameter(torch.full((8,), start))

    def forward(self, views, targets=None, mode="tensor"):
        return {"loss": (views[0] @ self.weights - targets).square().mean()}


class Slowly:
    "Goes along with the processes: a step takes a hundredth of a second. Notes who called it."

    def __init__(self, folder=None):
        self.folder = folder

    def on_start(self, run):
        if self.folder:
            (self.folder / f"on_start in {os.getpid()}").touch()

    def on_step(self, run):
        time.sleep(0.01)


class Watcher:
    "Stays in the notebook's process: notes what the history told it, and when."

    watches = True

    def __init__(self):
        self.starts, self.told = [], []

    def on_start(self, run):
        self.starts.append((os.getpid(), run.history.run_id))
        self.history, self.control = run.history, run.control
        run.history.subscribe(self.note, on_state=self.note)

    def note(self, news):
        assert threading.current_thread() is threading.main_thread()
        self.told.append((time.monotonic(), news))


class Fails:
    "Something goes wrong in the second process."

    every_process = True

    def __init__(self, what):
        self.what = what

    def on_step(self, run):
        if run.processes.rank == 1 and run.clock.step == 5:
            self.what()


def loader():
    x = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(x, x @ torch.arange(8.0)), batch_size=32)


def train(network=None, epochs=100, callbacks=(), **options):
    "Eight steps in an epoch, shared by two processes."
    network = Regression() if network is None else network
    quiet = dict(device="cpu", monitor=False, optimizer="sgd", lr=0.02, progress=False)
    callbacks = [Slowly(), *callbacks]
    started = launch(
        fit, network, loader(), epochs, processes=2, callbacks=callbacks, **quiet | options
    )
    return network, started


def when(condition, action):
    "Does something in a thread as soon as a condition holds."

    def wait():
        while not condition():
            time.sleep(0.005)
        action()

    threading.Thread(target=wait, daemon=True).start()


def press_stop_key():
    "What Jupyter's ■ and a terminal's Ctrl-C do: all processes of the group get the signal."
    os.killpg(0, signal.SIGINT)


def assert_nobody_is_left():
    assert not psutil.Process().children(recursive=True)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def watched_paused_and_stopped(folder):
    "Rows arrive while the processes train; pause, scale, resume and stop go the other way."
    watcher, history = Watcher(), History("mine")
    states = []

    def steer(block):
        if history.step >= 10 and not states:
            history.control.set_lr_scale(0.5)
            history.control.pause()
            states.append("asked")
        if history.step >= 40:
            history.control.stop()

    def resume(state):
        if state == "paused":
            states.append((state, history.step))
            when(lambda: time.sleep(0.3) is None, history.control.resume)

    history.subscribe(steer, on_state=resume)
    run = folder / "run"
    began = time.monotonic()
    network, found = train(callbacks=[watcher, Slowly(folder)], history=history, checkpoint_dir=run)
    ended = time.monotonic()
    assert found is history and history.state == "stopped" and history.error is None
    assert watcher.starts == [(os.getpid(), history.run_id)]
    assert watcher.history is history and watcher.control is history.control
    starts = [path.name for path in folder.glob("on_start in *")]
    assert len(starts) == 1 and starts != [f"on_start in {os.getpid()}"]  # of the first process

    blocks = [(at, news) for at, news in watcher.told if isinstance(news, dict)]
    assert len(blocks) >= 4 and began < blocks[0][0] < ended - 0.5  # s
    rows = [step for _, block in blocks for step in block.get("loss", ((),))[0]]
    assert rows == list(range(1, history.step + 1)) and 40 <= history.step < 400
    assert [news for _, news in watcher.told if isinstance(news, str)][-1] == "stopped"
    assert states[1][0] == "paused"
    kinds = [event["kind"] for event in history.events]
    assert kinds == ["pause", "lr", "resume", "stop", "checkpoint"] or set(kinds) == {
        "pause",
        "lr",
        "resume",
        "stop",
        "checkpoint",
    }
    lr = history.columns()["lr"][1]
    assert lr[-1] < 0.6 * lr.max()

    saved = latest_checkpoint(run / "checkpoints")
    assert int(saved.name[5:]) == history.step
    columns, events = read_table(run / "history.csv")
    assert columns["loss"][1].tolist() == history.columns()["loss"][1].tolist()
    assert [event["kind"] for event in events] == kinds
    assert_nobody_is_left()

    # and on, to the same end as a run that nobody stopped
    settings = dict(epochs=history.step // 8 + 2)
    whole, _ = train(Regression(), **settings)
    part = folder / "part"
    history = History()
    history.subscribe(lambda _: history.step >= 12 and history.control.stop())
    train(Regression(), history=history, checkpoint_dir=part, **settings)
    assert history.state == "stopped" and history.step < settings["epochs"] * 8
    again, resumed = train(Regression(7.0), checkpoint_dir=part, resume=True, **settings)
    assert resumed.state == "finished" and torch.equal(again.weights, whole.weights)
    assert resumed.columns()["loss"][0].tolist() == list(range(1, settings["epochs"] * 8 + 1))


def interrupted_once(folder):
    "The run ends after its step, with everything in order."
    history = History()
    when(lambda: history.step >= 10, press_stop_key)
    network, _ = train(history=history, checkpoint_dir=folder)
    assert history.state == "stopped" and 10 <= history.step < 400
    assert len(history.columns()["loss"][0]) == history.step
    assert int(latest_checkpoint(folder / "checkpoints").name[5:]) == history.step
    assert network.weights.any()  # what was learned has come home
    assert_nobody_is_left()
    when(lambda: psutil.Process().children(), press_stop_key)  # before the first step
    _, history = train()
    assert history.state == "stopped" and history.step < 400
    assert_nobody_is_left()


def interrupted_twice(folder):
    "The processes end at once."
    history = History()
    when(lambda: history.step >= 10, lambda: (press_stop_key(), time.sleep(0.03), press_stop_key()))

    class Stuck(Slowly):
        def on_step(self, run):
            if run.clock.step == 40:
                time.sleep(600)

    network = Regression()
    try:
        train(network, history=history, callbacks=[Stuck()])
    except KeyboardInterrupt as error:
        assert history.state == "stopped" and history.error is error and 10 <= history.step < 400
        assert not network.weights.any()
        assert_nobody_is_left()
    else:
        raise AssertionError("no KeyboardInterrupt")
    assert train(history=history, epochs=1)[1].state == "finished"  # the notebook goes on


def errors(folder):
    "What fails in a process fails here, and says where."

    def divide():
        return 1 / 0

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    history = History()
    for what, kind, text in (
        (divide, ZeroDivisionError, "division by zero"),
        (die, RuntimeError, "process 1 of 2 was ended by SIGKILL"),
    ):
        try:
            train(callbacks=[Fails(what)], history=history)
        except kind as error:
            assert text in str(error) and history.state == "failed" and history.error is error
            if what is divide:
                assert "In process 1 of 2:" in error.__notes__[0] and "1 / 0" in error.__notes__[0]
        else:
            raise AssertionError(f"no {kind.__name__}")
        assert_nobody_is_left()
    try:
        train(lr=1e30)
    except FloatingPointError as error:
        assert "The loss is" in str(error) and "at step" in str(error)
    else:
        raise AssertionError("nan was trained on")


def other_work(folder):
    "What is launched need not be `fit`, nor take a history."

    def own_loop(network, epochs):
        return fit(network, loader(), epochs, device="cpu", monitor=False, progress=False, lr=0.01)

    history = launch(own_loop, Regression(), 2, processes=2)
    assert history.state == "finished" and history.columns()["loss"][0].tolist() == [*range(1, 17)]

    def nothing(network):
        network.weights.data.fill_(seed)

    seed, network = 3.0, Regression()
    assert launch(nothing, network, processes=2) is None
    assert network.weights.tolist() == [3.0] * 8


def orphaned(folder):
    "Is killed by the test."
    (folder / "pid").write_text(str(os.getpid()))
    train(checkpoint_dir=folder / "run", epochs=10_000)


if __name__ == "__main__":
    seed_everything(0)
    globals()[sys.argv[1]](Path(sys.argv[2]))
