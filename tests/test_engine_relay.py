"""What a history learns in one process it learns in the other, and what the other's control says is done."""

import time
from multiprocessing import Pipe

import numpy as np
import pytest

from nenya_nb.training import History, Mirror, Reporter


@pytest.fixture
def line():
    "(history there, history here, reporter, mirror); the pipe's ends are closed afterwards."
    one, other = Pipe()
    there, here = History("there"), History("here")
    reporter, mirror = Reporter(one), Mirror(other, here)
    reporter.follow(there)
    yield there, here, reporter, mirror
    other.close()
    until(lambda: there.control.stop_requested)
    one.close()


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def trained(history, steps, start=0):
    for step in range(start + 1, start + steps + 1):
        history.log(step, {"loss": 1 / step, "std": 0.01})
    history.flush()


def test_rows_events_and_states_arrive_as_they_were_told(line):
    there, here, _, mirror = line
    seen = []
    here.subscribe(
        lambda block: seen.append(block["loss"][0].tolist()),
        on_event=lambda event: seen.append(event["kind"]),
        on_state=seen.append,
    )
    there.start_run(10, 3, batch_size=16)
    trained(there, 3)
    there.event("lr", "× 0.5")
    trained(there, 2, start=3)
    there.state = "paused"
    mirror.exchange()
    assert seen == ["running", [1, 2, 3], "lr", [4, 5], "paused"]
    for name in ("run_id", "total_steps", "steps_per_epoch", "epochs", "batch_size", "step"):
        assert getattr(here, name) == getattr(there, name), name
    assert here.name == "here" and here.control.run_id == there.run_id
    assert here.events == there.events
    for name, column in there.columns().items():
        assert np.array_equal(here.columns()[name], column)


def test_an_alarm_of_a_collapse_comes_as_an_event_and_is_not_raised_twice(line):
    there, here, _, mirror = line
    there.start_run(100, 1)
    trained(there, 60)
    mirror.exchange()
    assert [event["kind"] for event in here.events] == ["collapse"]


def test_a_history_that_is_restored_arrives_whole(line):
    there, here, _, mirror = line
    before = History()
    before.start_run(10, 3)
    trained(before, 5)
    before.event("checkpoint", "step 5")
    there.start_run(10, 3)
    mirror.exchange()
    there.control.set_lr_scale(0.25)
    there.load_state_dict(before.state_dict())
    there.event("resume", "from step_00000005")
    trained(there, 2, start=5)
    mirror.exchange()
    assert [event["kind"] for event in here.events] == ["checkpoint", "resume"]
    assert here.columns()["loss"][0].tolist() == list(range(1, 8))
    assert here.control.lr_scale == 0.25  # a slider shows what is so
    here.control.pause()
    mirror.exchange()
    until(lambda: there.control.paused)
    assert there.control.lr_scale == 0.25


def test_orders_reach_the_other_control_and_stay_sent_once(line):
    there, here, _, mirror = line
    there.start_run(10, 3)
    mirror.exchange()
    sent = []
    mirror.pipe, pipe = (
        type("Pipe", (), {"poll": lambda _: False, "send": lambda _, x: sent.append(x)})(),
        mirror.pipe,
    )
    for order in (lambda c: c.set_lr_scale(0.5), lambda c: c.pause(), lambda c: c.stop()):
        order(here.control)
        mirror.exchange(), mirror.exchange()
    mirror.pipe = pipe
    assert sent == [(False, False, 0.5), (True, False, 0.5), (True, True, 0.5)]
    pipe.send(sent[-1])
    until(lambda: there.control.switches == (True, True, 0.5))
    pipe.send((False, False, 2.0))
    until(lambda: there.control.lr_scale == 2.0)
    assert there.control.stop_requested  # a stop is never taken back


def test_a_stop_before_the_run_has_begun_is_kept_for_it(line):
    there, here, _, mirror = line
    here.control.stop()
    mirror.exchange()
    assert not there.control.stop_requested
    there.start_run(10, 3)
    mirror.exchange()
    assert here.state == "running" and here.control.stop_requested
    until(lambda: there.control.stop_requested)


@pytest.mark.parametrize("ending", ["finished", "stopped", "failed"])
def test_the_last_state_is_kept_back(line, ending):
    there, here, _, mirror = line
    there.start_run(10, 1)
    there.state = ending
    mirror.exchange()
    assert here.state == "running" and mirror.ending == ending


def test_errors_arrive_as_themselves_with_their_traceback(line):
    _, _, reporter, mirror = line
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError as error:
        reporter.fail(error, "process 1 of 2")
    mirror.exchange()
    error = mirror.failure["error"]
    assert type(error) is ZeroDivisionError and str(error) == "division by zero"
    assert error.__notes__[0].startswith("In process 1 of 2:\nTraceback")
    assert "1 / 0" in error.__notes__[0]


def test_an_error_that_cannot_be_pickled_is_told_all_the_same(line):
    class Strange(Exception):
        pass

    _, _, reporter, mirror = line
    reporter.fail(Strange("so it goes"), "process 0 of 2")
    mirror.exchange()
    assert type(mirror.failure["error"]) is RuntimeError
    assert str(mirror.failure["error"]) == "Strange: so it goes"


def test_a_history_that_has_run_already_is_told_from_its_beginning():
    one, other = Pipe()
    there, here = History(), History()
    there.start_run(10, 1)
    trained(there, 4)
    there.state = "finished"
    Reporter(one).follow(there)
    mirror = Mirror(other, here)
    mirror.exchange()
    assert here.columns()["loss"][0].tolist() == [1, 2, 3, 4] and mirror.ending == "finished"
    other.close()
    until(lambda: there.control.stop_requested)
    with pytest.warns(UserWarning, match="detached"):
        there.event("stop")  # nobody listens any more
    mirror.exchange()
