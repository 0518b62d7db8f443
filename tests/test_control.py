"""Control: switches that any thread or signal may set and the loop reads."""

import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from nenya_nb.training.control import Control, graceful_sigint


def test_control_begin_resets_every_switch():
    control = Control("a")
    control.pause(), control.stop(), control.set_lr_scale(0.5)
    control.begin("b")
    assert (control.paused, control.stop_requested, control.lr_scale, control.run_id) == (
        False,
        False,
        1.0,
        "b",
    )


@pytest.mark.parametrize("command", ["pause", "resume", "stop", "set_lr_scale"])
def test_control_ignores_commands_for_another_run(command):
    control = Control("now")
    arguments = [0.5] if command == "set_lr_scale" else []
    before = dict(vars(control))
    assert getattr(control, command)(*arguments, run_id="earlier") is False
    assert vars(control) == before
    assert getattr(control, command)(*arguments, run_id="now") is True
    assert getattr(control, command)(*arguments) is True


@pytest.mark.parametrize("scale", [-1, float("nan"), float("inf")])
def test_control_refuses_impossible_lr_scale(scale):
    with pytest.raises(ValueError, match="lr scale"):
        Control().set_lr_scale(scale)


@pytest.mark.timed
@pytest.mark.parametrize("release", ["resume", "stop"])
def test_control_wait_ends_soon_after_release(release):
    control = Control()
    control.pause()
    threading.Timer(0.1, getattr(control, release)).start()
    started = time.perf_counter()
    control.wait_while_paused()
    assert 0.05 < time.perf_counter() - started < 0.6


def test_sigint_first_stops_second_interrupts_and_handler_returns():
    before = signal.getsignal(signal.SIGINT)
    if before in (None, signal.SIG_IGN):
        pytest.skip("SIGINT is ignored in this process")
    control = Control()
    with pytest.raises(KeyboardInterrupt), graceful_sigint(control):
        signal.raise_signal(signal.SIGINT)
        assert control.stop_requested
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_sigint_after_a_stop_click_is_still_graceful():
    if signal.getsignal(signal.SIGINT) in (None, signal.SIG_IGN):
        pytest.skip("SIGINT is ignored in this process")
    control = Control()
    with graceful_sigint(control):
        control.stop()
        signal.raise_signal(signal.SIGINT)


def test_sigint_handler_is_left_alone_outside_the_main_thread():
    before, inside = signal.getsignal(signal.SIGINT), []

    def work():
        with graceful_sigint(Control()):
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before] and signal.getsignal(signal.SIGINT) is before


def test_sigint_ignored_on_purpose_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        control = Control()
        with graceful_sigint(control):
            signal.raise_signal(signal.SIGINT)
        assert not control.stop_requested and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("stopped", [True, False])
def test_dead_dataloader_worker_counts_as_stop_only_when_asked(stopped):
    control = Control()
    if stopped:
        control.stop()
        with graceful_sigint(control):
            raise RuntimeError("DataLoader worker (pid(s) 1) exited unexpectedly")
    else:
        with pytest.raises(RuntimeError, match="DataLoader"), graceful_sigint(control):
            raise RuntimeError("DataLoader worker (pid(s) 1) exited unexpectedly")
    control.stop()
    with pytest.raises(RuntimeError, match="out of memory"), graceful_sigint(control):
        raise RuntimeError("out of memory")


TRAINING = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where this test runs with SIGINT ignored
import torch
from torch import nn
from nenya_nb.training import History, fit

class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, views, targets=None, mode="loss"):
        time.sleep({sleep})
        return {{"loss": self.layer(views[0]).square().mean()}}

class Ready:
    def on_step(self, run):
        if run.clock.step == 3:
            print("ready", flush=True)

history = History()
data = [([torch.ones(4, 2)], torch.zeros(4))] * 1000
try:
    fit(Slow(), data, epochs=10, device="cpu", history=history, callbacks=[Ready()], progress=False, background={background})
    history.join()
except KeyboardInterrupt:
    print("interrupted", end=" ")
print(history.state, len(history.columns()["loss"][0]) >= 3, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


def run_and_interrupt(signals, sleep=0.01, background=False):
    "The last line printed by a process that trains and gets this many SIGINTs, half a second apart."
    code = textwrap.dedent(TRAINING).format(sleep=sleep, background=background)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline().strip() == "ready"
        for _ in range(signals):
            time.sleep(0.5)  # by then a step is under way, and an earlier signal has been seen
            process.send_signal(signal.SIGINT)
        return process.communicate(timeout=30)[0].strip()
    finally:
        process.kill()
        process.wait()


def test_ctrl_c_once_ends_fit_with_its_history():
    assert run_and_interrupt(1) == "stopped True True"


@pytest.mark.timed
def test_ctrl_c_twice_interrupts_a_step_that_hangs():
    assert run_and_interrupt(2, sleep=3) == "interrupted stopped True True"


def test_ctrl_c_while_joining_stops_a_background_run():
    assert run_and_interrupt(1, background=True) == "stopped True True"


def test_switches_are_those_of_another_process_but_a_stop_stays():
    one, other = Control(), Control()
    one.pause(), one.set_lr_scale(0.5)
    other.switches = one.switches
    assert other.switches == (True, False, 0.5) and other.paused and other.lr_scale == 0.5
    other.stop()
    other.switches = one.switches
    assert other.stop_requested and other.switches == (True, True, 0.5)
