"""Widgets without a browser: what is sent, what is obeyed, what a page contains."""

import json
import re
import struct
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from nenya_nb.widgets import ControlledWidget, LiveCurves, Widget, base, control
from nenya_nb.widgets.base import script_json
from nenya_nb.widgets.pixels import pack_array
from nenya_nb.widgets.runs import (
    Recording,
    as_run,
    draw_runs,
    pack_columns,
    read_run,
    smooth_curve,
    thin_column,
)

EVIL = "</script><img src=x onerror=alert(1)>"


class Control:
    def __init__(self):
        self.calls, self.lr_scale, self.run_id = [], 1.0, "r1"

    def _take(self, name, run_id):
        taken = run_id == self.run_id
        if taken:
            self.calls.append(name)
        return taken

    def pause(self, run_id=None):
        return self._take("pause", run_id)

    def resume(self, run_id=None):
        return self._take("resume", run_id)

    def stop(self, run_id=None):
        return self._take("stop", run_id)

    def set_lr_scale(self, scale, run_id=None):
        self.lr_scale = scale
        return self._take(f"lr {scale}", run_id)


class History:
    def __init__(self, name="toy"):
        self.name, self.run_id, self.state, self.error = name, "r1", "running", None
        self.epochs, self.steps_per_epoch, self.total_steps = 2, 50, 100
        self.control, self.events, self.data, self.listeners = Control(), [], {}, []

    def subscribe(self, rows, on_event=None, on_state=None):
        listener = (rows, on_event, on_state)
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def columns(self):
        return dict(self.data)

    def add(self, tell=True, **block):
        for name, (steps, values) in block.items():
            old = self.data.get(name, (np.zeros(0), np.zeros(0)))
            self.data[name] = np.append(old[0], steps), np.append(old[1], values)
        for rows, _, _ in self.listeners if tell else ():
            rows(block)

    def event(self, **event):
        self.events.append(event)
        for _, on_event, _ in self.listeners:
            on_event(event)

    def become(self, state):
        self.state = state
        for _, _, on_state in self.listeners:
            on_state(state)


@pytest.fixture
def history():
    return History()


@pytest.fixture
def curves(history):
    widget = LiveCurves(history)
    widget.sent = []
    widget.tell = lambda content, buffers=None: widget.sent.append((content, buffers))
    return widget


def unpack(layout, payload):
    "The front end's decoder, again in Python."
    offset, axes, columns = 0, [], {}
    for n in layout["axes"]:
        axes.append(np.frombuffer(payload, "<f8", n, offset))
        offset += 8 * n
    for name, axis, *_ in layout["columns"]:
        columns[name] = axes[axis], np.frombuffer(payload, "<f4", len(axes[axis]), offset)
        offset += 4 * len(axes[axis])
    assert offset == len(payload)
    return columns


def command(name, cmd_id="c1", rung="comm", run="r1", **args):
    return {"kind": "command", "command": name, "cmd_id": cmd_id, "rung": rung, "run": run, **args}


def rows(curves):
    return [(content, *buffers) for content, buffers in curves.sent if content["kind"] == "rows"]


def acks(curves):
    return [content for content, _ in curves.sent if content["kind"] == "ack"]


# --- numbers on the wire ----------------------------------------------------------------------------------------------


def test_pack_columns_round_trip_and_shares_axes():
    steps = np.array([1.0, 2.0, 2.0**40])
    columns = {
        "loss": (steps, steps),
        "std": (steps.copy(), -steps),
        "knn": (steps[:1], np.array([0.5])),
    }
    layout, payload = pack_columns(columns)
    assert layout["axes"] == [3, 1]
    for name, (got_steps, got) in unpack(layout, payload).items():
        assert np.array_equal(got_steps, columns[name][0])
        assert np.array_equal(got, columns[name][1].astype("f4"))


def test_pack_columns_of_nothing_and_of_strange_numbers():
    assert pack_columns({}) == ({"axes": [], "columns": []}, b"")
    odd = np.array([np.nan, np.inf, -np.inf, 1e300])
    _, values = unpack(*pack_columns({"loss": (np.arange(4.0), odd)}))["loss"]
    assert np.isnan(values[0]) and list(values[1:]) == [np.inf, -np.inf, np.inf]


@pytest.mark.parametrize("n, limit", [(5, 4), (20_001, 20_000), (100_000, 1000), (3, 4)])
def test_thin_column_keeps_ends_and_peaks(n, limit):
    steps, values = np.arange(float(n)), np.random.default_rng(0).normal(size=n)
    values[n // 2] = 99
    few_steps, few = thin_column(steps, values, limit)
    assert len(few) <= limit and few_steps[0] == 0 and few_steps[-1] == n - 1
    assert few.max() == 99 and few.min() == values.min()
    assert (np.diff(few_steps) > 0).all()


def test_whole_numbers_without_a_sign_are_packed():
    for kind in (np.uint16, np.uint32, np.uint64):
        assert pack_array(np.array([5, 6], kind))["dtype"] == "int32"
    for number in (2**31, -(2**63)):
        with pytest.raises(ValueError, match="do not fit into 32 bits"):
            pack_array(np.array([number]))


def test_thin_column_survives_nan():
    values = np.full(1000, np.nan)
    values[500] = 1
    assert np.nanmax(thin_column(np.arange(1000.0), values, 10)[1]) == 1


# --- rows -------------------------------------------------------------------------------------------------------------


def test_each_flush_sends_only_new_rows(history, curves):
    history.add(loss=(np.arange(3.0), np.ones(3)))
    history.add(loss=(np.arange(3.0, 5), np.zeros(2)), std=(np.array([4.0]), np.ones(1)))
    (first, a), (second, b) = rows(curves)
    assert [first["seq"], second["seq"]] == [0, 1] and first["run"] == "r1" and not first["full"]
    assert list(unpack(first["layout"], a)) == ["loss"]
    assert list(unpack(second["layout"], b)["loss"][0]) == [3, 4]
    assert list(unpack(second["layout"], b)["std"][0]) == [4]


def test_rows_that_a_sync_took_along_are_not_sent_twice(history, curves):
    history.add(loss=(np.arange(3.0), np.ones(3)))
    history.add(tell=False, loss=(np.array([3.0]), np.ones(1)))  # appended, not announced yet …
    curves.receive(command("sync", rung="control"))  # … when another thread asks for everything
    for listener, _, _ in history.listeners:
        listener({"loss": (np.array([3.0]), np.ones(1))})
    _, full, last = rows(curves)
    assert full[0]["full"] and len(unpack(full[0]["layout"], full[1])["loss"][0]) == 4
    assert last[0]["layout"]["columns"] == []


def test_rows_of_a_replaced_history_are_sent_whole(history, curves):
    history.add(loss=(np.arange(9.0), np.ones(9)))
    history.data = {"loss": (np.arange(4.0), np.zeros(4))}
    history.add(loss=(np.array([4.0]), np.zeros(1)))
    content, payload = rows(curves)[-1]
    assert content["full"] and len(unpack(content["layout"], payload)["loss"][0]) == 5


def test_events_travel_in_the_same_numbered_stream(history, curves):
    history.event(step=7, time=1.5, kind="lr", text="learning rate ×0.5")
    (content, payload), _ = rows(curves)[0], None
    assert (
        content["events"] == [{"step": 7.0, "kind": "lr", "text": "learning rate ×0.5"}]
        and payload == b""
    )
    json.dumps(content)


def test_a_whole_history_is_sent_unasked_if_nobody_asks(history, curves):
    curves._unasked = [0.0]
    history.add(loss=(np.arange(2.0), np.ones(2)))
    history.add(loss=(np.arange(2.0, 3), np.ones(1)))
    assert [content["full"] for content, _ in rows(curves)] == [True, False]


def test_a_broken_connection_does_not_raise(history):
    curves = LiveCurves(history)
    curves.send = lambda *_: 1 / 0
    history.add(loss=(np.arange(2.0), np.ones(2)))


# --- commands ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, call", [("pause", "pause"), ("resume", "resume"), ("stop", "stop")])
def test_commands_reach_the_control_once_and_are_answered(history, curves, name, call):
    curves.receive(command(name, rung="control"))
    curves.receive(command(name, rung="comm"))
    assert history.control.calls == [call]
    assert acks(curves) == [
        {"kind": "ack", "command": name, "cmd_id": "c1", "rung": "control", "run": "r1", "ok": True}
    ]


def test_copies_on_many_threads_run_once(history, curves):
    barrier = threading.Barrier(8)

    def click():
        barrier.wait()
        curves.receive(command("stop"))

    threads = [threading.Thread(target=click) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert history.control.calls == ["stop"] and len(acks(curves)) == 1


def test_lr_scale_is_set_shown_and_bounded(history, curves):
    curves.receive(command("lr_scale", value=0.5))
    assert history.control.lr_scale == 0.5 and curves.status["lr_scale"] == 0.5
    for i, value in enumerate([0, -1, 1e9, float("nan"), "much"]):
        curves.receive(command("lr_scale", cmd_id=f"d{i}", value=value))
    assert (
        history.control.lr_scale == 0.5 and [a["ok"] for a in acks(curves)] == [True] + [False] * 5
    )


def test_clicks_for_an_earlier_run_are_refused(history, curves):
    curves.receive(command("stop", run="r0"))
    assert history.control.calls == [] and acks(curves)[0]["ok"] is False


def test_a_new_run_starts_a_new_stream(history, curves):
    history.add(loss=(np.arange(2.0), np.ones(2)))
    history.run_id, history.data = "r2", {}
    history.become("running")
    history.add(loss=(np.arange(2.0), np.ones(2)))
    content, payload = rows(curves)[-1]
    assert (content["run"], content["seq"]) == ("r2", 0) and len(payload) == 2 * 12
    assert curves.status["run"] == "r2"


def test_attaching_leaves_the_old_history(history, curves):
    other = History("other")
    other.run_id = other.control.run_id = "r9"
    curves.attach(other)
    assert history.listeners == [] and len(other.listeners) == 1
    curves.receive(command("stop", run="r1"))
    curves.receive(command("stop", cmd_id="c2", run="r9"))
    assert history.control.calls == [] and other.control.calls == ["stop"]


def test_ping_is_only_answered(history, curves):
    curves.receive(command("ping", run="r0"))
    assert acks(curves)[0]["ok"] and rows(curves) == [] and history.control.calls == []


def test_nonsense_is_ignored(curves):
    for content in (
        None,
        "stop",
        {},
        {"kind": "command"},
        command("close"),
        command("stop", rung="pigeon"),
    ):
        curves.receive(content)
    assert acks(curves) == []


@pytest.mark.parametrize("rung", ["control", "comm"])
def test_each_rung_can_be_used_alone(history, rung):
    curves = LiveCurves(history, rungs=[rung])
    other = {"control": "comm", "comm": "control"}[rung]
    curves.receive(command("stop", rung=other))
    assert history.control.calls == []
    curves.receive(command("stop", rung=rung))
    assert history.control.calls == ["stop"]


def test_unknown_rung_is_an_error():
    with pytest.raises(ValueError, match="Did you mean 'control'"):
        LiveCurves(rungs=["contrl"])


def test_control_channel_reaches_only_our_widgets(history, monkeypatch):
    curves, others = LiveCurves(history), []
    monkeypatch.setitem(control._widgets_by_comm, "ours", curves)
    kernel = SimpleNamespace(control_handlers={"comm_msg": lambda *args: others.append(args)})
    assert control.open_control_road(kernel) and control.open_control_road(kernel)
    handler = kernel.control_handlers["comm_msg"]
    message = {
        "content": {"comm_id": "ours", "data": {"method": "custom", "content": command("stop")}}
    }
    handler(None, None, message)
    assert history.control.calls == ["stop"] and others == []
    handler(None, None, {"content": {"comm_id": "somebody else's", "data": {}}})
    assert len(others) == 1


def test_reply_routing_of_ipykernel_is_undone_only_where_it_exists(monkeypatch):
    comm = SimpleNamespace(
        comm_id="x",
        _reply_subshell_for=lambda data, default: "wrong",
        send=lambda **_: None,
        close=lambda: None,
    )
    monkeypatch.setattr(ControlledWidget, "comm", comm)
    LiveCurves()
    assert comm._reply_subshell_for({}, "right") == "right"
    comm._reply_subshell_for = kept = lambda data, default: "wrong"
    LiveCurves(rungs=["comm"])
    assert comm._reply_subshell_for is kept


# --- status and snapshot ----------------------------------------------------------------------------------------------


def test_status_follows_the_history(history, curves):
    for state in ("paused", "running", "stopping", "stopped"):
        history.become(state)
        assert curves.status["state"] == state
    history.error = FloatingPointError("loss is nan")
    history.become("failed")
    assert curves.status["error"] == "FloatingPointError: loss is nan"
    json.dumps(curves.status)


def test_only_a_run_in_the_main_thread_may_be_interrupted(history, curves):
    history.add(loss=(np.arange(1.0), np.ones(1)))
    assert curves.status["interruptible"] is True
    thread = threading.Thread(target=lambda: history.add(loss=(np.array([1.0]), np.ones(1))))
    thread.start()
    thread.join()
    assert curves.status["interruptible"] is False


def test_snapshot_is_stored_at_the_end_and_thinned(history, curves):
    history.add(loss=(np.arange(50_000.0), np.random.default_rng(0).normal(size=50_000)))
    assert curves.snapshot == b""
    history.event(step=3, time=0.1, kind="checkpoint", text=EVIL)
    history.become("finished")
    (length,) = struct.unpack_from("<I", curves.snapshot)
    assert (length + 4) % 8 == 0
    header = json.loads(curves.snapshot[4 : 4 + length])
    assert header["run"] == "r1" and header["events"][0]["text"] == EVIL
    assert len(unpack(header["layout"], curves.snapshot[4 + length :])["loss"][0]) <= 20_000


def test_live_curves_is_a_callback(monkeypatch):
    shown, history = [], History()
    monkeypatch.setattr(base, "display_mode", lambda: "live")
    monkeypatch.setattr(
        LiveCurves, "_display", lambda self: (shown.append(self), setattr(self, "_shown", True))
    )
    curves, run = LiveCurves(), SimpleNamespace(history=history)
    curves.on_start(run)
    curves.on_start(run)
    assert shown == [curves] and len(history.listeners) == 1 and curves.status["interruptible"]


def test_where_nobody_can_click_the_picture_comes_at_the_end(monkeypatch):
    shown, run = [], SimpleNamespace(history=History())
    monkeypatch.setattr(base, "display_mode", lambda: "still")
    monkeypatch.setattr(LiveCurves, "_display", lambda self: shown.append(self))
    curves = LiveCurves()
    curves.on_start(run)
    assert shown == []
    run.history.become("finished")
    run.history.become("finished")
    assert shown == [curves]


def test_a_cell_that_runs_again_gets_its_widget_again(monkeypatch):
    import IPython

    shell, shown = SimpleNamespace(execution_count=5), []
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    monkeypatch.setattr(base, "display_mode", lambda: "live")
    monkeypatch.setattr(
        LiveCurves, "_display", lambda self: (shown.append(self), setattr(self, "_shown", True))
    )
    curves, by_hand = LiveCurves(), LiveCurves()
    by_hand._shown = True
    for shell.execution_count in (5, 5, 7, 7):
        curves.on_start(SimpleNamespace(history=History()))
        by_hand.on_start(SimpleNamespace(history=History()))
    assert shown == [curves, curves], "once in each execution; not what has a cell of its own"


def test_a_misspelt_setting_is_named(history):
    with pytest.raises(
        TypeError, match="LiveCurves: Unknown setting 'smothing'. Did you mean 'smoo"
    ):
        LiveCurves(history, smothing=0.9)


def test_repr_says_where_the_run_is(history, curves):
    history.add(loss=(np.arange(3.0), np.array([3.0, 2.0, 1.5])))
    assert repr(curves) == "LiveCurves('toy', running, step 2 of 100: loss 1.5)"
    assert repr(LiveCurves()) == "LiveCurves(no run yet)"


# --- several runs -----------------------------------------------------------------------------------------------------


def recording(name="then", n=20, **lengths):
    steps = np.arange(float(n))
    columns = {"time": (steps, steps / 2), "loss": (steps, 1 / (1 + steps))}
    return Recording(name, columns, **lengths)


def unpack_run(packed):
    (length,) = struct.unpack_from("<I", packed)
    header = json.loads(packed[4 : 4 + length])
    return header, unpack(header["layout"], packed[4 + length :])


def test_thinned_columns_say_how_many_rows_there_were(history, curves):
    history.add(loss=(np.arange(50_000.0), np.random.default_rng(0).normal(size=50_000)))
    history.become("finished")
    header, columns = unpack_run(curves.snapshot)
    assert header["layout"]["columns"] == [["loss", 0, 50_000]] and header["seq"] == 0
    assert len(columns["loss"][0]) <= 20_000


def test_runs_beside_are_packed_once_named_and_taken_away(history):
    curves = LiveCurves(history, beside=[recording(batch_size=64, steps_per_epoch=5), recording()])
    assert curves.names == ["toy", "then", "then 2"]
    assert curves.add({"run": recording(), "name": "toy", "epochs": 3}) == "toy 2"
    assert curves.names[-1] == "toy 2", "as the page numbers it"
    first = curves.others[0]
    assert (first["name"], first["batch_size"], first["steps_per_epoch"]) == ("then", 64, 5)
    header, columns = unpack_run(first["snapshot"])
    assert list(columns) == ["time", "loss"] and header["events"] == []
    curves.remove("then 2")
    assert [other["name"] for other in curves.others] == ["then", "toy"]
    curves.remove("toy 2")
    assert curves.names == ["toy", "then"]
    with pytest.raises(ValueError, match="Did you mean 'then'"):
        curves.remove("them")
    assert "beside then, toy 2" in repr(
        LiveCurves(history, beside=[recording(), recording("toy")])
    ).replace("\n", "")


def test_a_run_beside_that_goes_on_is_brought_up_to_date(history):
    other = History("other")
    curves = LiveCurves(history, beside=[other])
    curves.repack_every = 0.0
    other.add(loss=(np.arange(9.0), np.ones(9)))
    assert len(unpack_run(curves.others[0]["snapshot"])[1]["loss"][0]) == 9
    curves.repack_every = 1e9
    other.add(loss=(np.arange(9.0, 12), np.ones(3)))
    assert len(unpack_run(curves.others[0]["snapshot"])[1]["loss"][0]) == 9
    other.become("finished")
    assert len(unpack_run(curves.others[0]["snapshot"])[1]["loss"][0]) == 12
    curves.remove("other")
    assert other.listeners == []


def test_a_run_beside_that_has_not_begun_is_followed_too(history):
    other = History("other")
    other.state = "idle"
    curves = LiveCurves(history, beside=[other])
    curves.repack_every = 0.0
    other.become("running")
    other.add(loss=(np.arange(9.0), np.ones(9)))
    assert len(unpack_run(curves.others[0]["snapshot"])[1]["loss"][0]) == 9
    other.become("finished")


@pytest.mark.parametrize("nonsense", [7, None, object(), {"run": 3}, {"run": {}, "colour": "red"}])
def test_what_is_no_run_is_refused(nonsense):
    with pytest.raises(TypeError, match="no run; expected a history|A run has no 'colour'"):
        as_run(nonsense)


def test_runs_come_back_from_the_files_of_a_training_run(tmp_path):
    from nenya_nb.training import History as RealHistory

    history = RealHistory("a")
    history.start_run(10, 3)
    for step in range(1, 21):
        history.log(step, {"loss": 1 / step, "odd": float("nan")})
        if step == 7:
            history.event("lr", 'learning rate × 0.5, as "asked"\nfor')
            history.event("stop")
    history.flush()
    file = history.to_csv(tmp_path / "run a" / "history.csv")
    config = {"steps_per_epoch": 10, "batch_size": 64, "run_id": "abc", "settings": {"epochs": 3}}
    file.with_name("config.json").write_text(json.dumps(config))
    for run in (read_run(file), RealHistory.from_csv(file)):
        assert run.name == "run a" and run.total_steps == 30 and run.batch_size == 64
        assert np.array_equal(run.columns()["loss"][1], history.columns()["loss"][1])
        told = [(e["step"], e["kind"], e["text"]) for e in run.events]
        assert told == [(7, "lr", 'learning rate × 0.5, as "asked"\nfor'), (7, "stop", "")]
    curves = LiveCurves.from_csv(file, history.to_csv(tmp_path / "b.csv"), x_axis="epoch")
    assert curves.names == ["run a", "b"] and curves.status["state"] == "recorded"
    assert curves.status["batch_size"] == 64 and curves.x_axis == "epoch"
    assert not curves.do_stop({}), "nothing to stop"
    assert LiveCurves(str(file)).names == ["run a"]


def test_tables_that_are_no_runs_are_refused_with_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no run at"):
        read_run(tmp_path / "nowhere.csv")
    (tmp_path / "x.csv").write_text("epoch,loss\n1,2\n")
    with pytest.raises(ValueError, match="rename the column"):
        read_run(tmp_path / "x.csv")
    (tmp_path / "y.csv").write_text("step,loss,note\n2,1,warm-up\n1,3,\n")
    assert read_run(tmp_path / "y.csv").columns()["loss"][1].tolist() == [3, 1]
    with pytest.raises(TypeError, match="no path was given"):
        LiveCurves.from_csv()


def test_tables_of_others_are_read_as_far_as_they_hold_numbers(tmp_path):
    file = tmp_path / "excel.csv"
    file.write_text(
        "step,loss,note,event\n1,3,warm-up,7\n2,N/A,,\n3,1,,lr: 0.1\n", encoding="utf-8-sig"
    )
    run = read_run(file)
    assert list(run.columns()) == ["loss"] and run.columns()["loss"][0].tolist() == [1, 3]
    assert [event["kind"] for event in run.events] == ["7", "lr"]
    curves = LiveCurves(file, beside=str(file))
    assert curves.names == ["excel", "excel 2"]
    assert LiveCurves(file, beside={"loss": ([1, 2], [3, 4])}).names == ["excel", "run"]


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(
        ValueError, match=r"'loss' has steps of shape \(3,\) and values of shape \(2,\)"
    ):
        Recording("odd", {"loss": ([1, 2, 3], [0.1, 0.2])})


def test_a_run_that_is_over_is_stored_for_a_page_without_a_kernel():
    curves = LiveCurves(recording())
    assert list(unpack_run(curves.snapshot)[1]) == ["time", "loss"]


@pytest.mark.parametrize(
    "trait, value",
    [
        ("x_axis", "day"),
        ("smoothing", 1.0),
        ("smoothing", -0.1),
        ("x_range", [5, 1]),
        ("x_range", [1]),
    ],
)
def test_a_view_that_makes_no_sense_is_refused(trait, value):
    import traitlets

    curves = LiveCurves()
    with pytest.raises(traitlets.TraitError):
        setattr(curves, trait, value)


def test_smoothing_has_a_closed_form_and_does_not_mind_gaps():
    steps = np.arange(400.0)
    values = np.random.default_rng(0).normal(size=400)
    weights = 0.9 ** np.arange(400)[::-1]
    last = smooth_curve(steps, values, 0.9)[-1]
    assert np.isclose(last, (weights * values).sum() / weights.sum())
    assert np.array_equal(smooth_curve(steps, values, 0), values)
    ramp = smooth_curve(steps, steps, 0.95)
    thinned = smooth_curve(steps[::4], steps[::4], 0.95, measured=400)
    assert abs(thinned[-1] - ramp[-4]) < 3
    values[5] = np.nan
    assert np.isfinite(smooth_curve(steps, values, 0.9)[[4, 6]]).all()
    with pytest.raises(ValueError, match="weight is 1"):
        smooth_curve(steps, values, 1)


def test_the_picture_shows_what_the_page_shows(history):
    history.batch_size = 32
    history.add(loss=(np.arange(40.0), np.ones(40)), gpu_util=(np.arange(3.0), np.ones(3)))
    curves = LiveCurves(history, beside=[recording(batch_size=64)], log_y=["loss"], x_axis="images")
    loss = curves.figure().axes[0]
    assert len(loss.lines) == 2 and loss.get_yscale() == "log"
    assert sorted(line.get_xdata()[-1] for line in loss.lines) == [19 * 64, 39 * 32]
    curves.hidden, curves.smoothing = ["toy"], 0.5
    lines = curves.figure().axes[0].lines
    assert len(lines) == 2, "one run, measured and smoothed"
    assert lines[1].get_color() == "#D55E00", "its colour stays its own"
    curves.hidden = ["toy", "then"]
    assert curves.figure() is None
    assert len(draw_runs({"a": recording()}, axis="epoch").axes[0].lines) == 0, "no epochs known"


def test_the_batch_size_is_the_loaders(history):
    curves = LiveCurves()
    curves.on_start(SimpleNamespace(history=history, loader=SimpleNamespace(batch_size=48)))
    assert curves.status["batch_size"] == 48


# --- base: modes, bundles, pages --------------------------------------------------------------------------------------


@pytest.fixture
def bundles(monkeypatch):
    "Bundles of our own, so that these tests need no node."
    texts = {
        "page.js": "host()",
        "live_curves.js": "export default {}",
        "live_curves.css": ".nnb-root{}",
    }
    monkeypatch.setattr(base, "read_bundle", lambda name: texts[name])


@pytest.mark.parametrize(
    "variables, mode",
    [
        ({}, "live"),
        ({"IN_TEST": "1"}, "still"),
        ({"IN_TEST": "0", "NENYA_NB_STATIC": "0"}, "live"),
        ({"NENYA_NB_STATIC": "1"}, "still"),
        ({"NENYA_NB_STATIC": "page", "IN_TEST": "1"}, "page"),
    ],
)
def test_display_mode(monkeypatch, variables, mode):
    for name in ("IN_TEST", "NENYA_NB_STATIC"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert base.display_mode() == mode


def test_missing_bundle_says_make_js(monkeypatch, tmp_path):
    monkeypatch.setattr(base, "files", lambda _: tmp_path)
    monkeypatch.setattr(base, "display_mode", lambda: "live")
    with pytest.raises(FileNotFoundError, match="run `make js`"):
        LiveCurves()


def test_importing_needs_no_bundle_and_no_other_floor():
    code = "import sys, nenya_nb.widgets; print([m for m in sys.modules if m.startswith(('nenya_nb.training', 'nenya_nb.models', 'nenya_nb.data', 'matplotlib.pyplot'))])"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "[]"


def test_still_mode_shows_only_the_picture(monkeypatch, history, curves):
    monkeypatch.setattr(base, "display_mode", lambda: "still")
    history.add(loss=(np.arange(3.0), np.ones(3)))
    data, _ = curves._repr_mimebundle_()
    assert set(data) == {"text/plain", "image/png"} and data["image/png"].startswith(b"\x89PNG")
    assert set(LiveCurves()._repr_mimebundle_()[0]) == {"text/plain"}


def test_live_mode_has_the_widget_and_a_fallback(monkeypatch, bundles, history):
    monkeypatch.setattr(base, "display_mode", lambda: "live")
    history.name = EVIL
    curves = LiveCurves(history)
    history.add(loss=(np.arange(3.0), np.ones(3)))
    running, _ = curves._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in running
    assert "<img" not in running["text/html"], (
        "no matplotlib while training, and no markup from names"
    )
    history.become("finished")
    finished, _ = curves._repr_mimebundle_()
    assert finished["text/html"].startswith('<img src="data:image/png;base64,')
    assert "<img src=x" not in finished["text/html"]


def test_colab_is_asked_for_its_widget_manager_by_itself(monkeypatch, bundles, history):
    from anywidget import _util

    asked, url = [], "https://ssl.gstatic.com/colaboratory-static/widgets/manager.min.js"
    output = SimpleNamespace(
        enable_custom_widget_manager=lambda: asked.append(1),
        _widgets=SimpleNamespace(_installed_url=url),
    )
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    monkeypatch.setattr(base, "display_mode", lambda: "live")
    _util.enable_custom_widget_manager_once.cache_clear()
    data, metadata = LiveCurves(history)._repr_mimebundle_()
    _util.enable_custom_widget_manager_once.cache_clear()
    view = "application/vnd.jupyter.widget-view+json"
    assert asked == [1] and view in data
    assert metadata[view]["colab"]["custom_widget_manager"]["url"] == url


def test_page_mode_is_a_sandboxed_frame(monkeypatch, bundles, curves):
    monkeypatch.setattr(base, "display_mode", lambda: "page")
    html = curves._repr_mimebundle_()[0]["text/html"]
    assert (
        html.startswith("<iframe srcdoc=")
        and 'sandbox="allow-scripts allow-downloads"' in html
        and html.count("<") == 2
    )


def test_script_json_leaves_nothing_for_html():
    text = script_json({EVIL: [EVIL, "&amp;", "\u2028\u2029", b"\x00<"]})
    assert not re.search("[<>&\u2028\u2029]", text)
    assert json.loads(text)[EVIL][0] == EVIL
    with pytest.raises(TypeError, match="set cannot be stored"):
        script_json({1, 2})
    with pytest.raises(ValueError):
        script_json(float("nan"))


def test_to_html_is_self_contained_and_escaped(bundles, history, curves, tmp_path):
    history.name = EVIL
    history.add(**{"loss": (np.arange(3.0), np.ones(3)), EVIL: (np.arange(3.0), np.ones(3))})
    path = curves.to_html(tmp_path / "page.html", title=EVIL, theme="dark")
    text = path.read_text(encoding="utf-8")
    assert EVIL not in text and "<img" not in text and text.count("</script>") == 2
    assert "default-src 'none'" in text and "unsafe" not in text and 'data-theme="dark"' in text
    record = json.loads(re.search(r'id="nnb-record">(.*?)</script>', text, re.S)[1])
    view = {"x_axis", "smoothing", "log_x", "log_y", "x_range", "hidden", "others"}
    assert set(record["state"]) == {"status", "snapshot"} | view
    assert record["state"]["status"]["name"] == EVIL
    with pytest.raises(ValueError, match="theme is 'blue'"):
        curves.to_html(theme="blue")


def test_real_page_has_no_address_but_the_svg_namespace(history, curves):
    try:
        text = curves.to_html()
    except FileNotFoundError:
        pytest.skip("the bundles are not built")
    assert set(re.findall(r"https?://[^\s\"'<>)\\]*", text)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\binnerHTML\b|\beval\(", text)


def test_bundles_stay_small():
    try:
        sizes = {
            name: len(base.read_bundle(name))
            for name in ("live_curves.js", "live_curves.css", "page.js")
        }
    except FileNotFoundError:
        pytest.skip("the bundles are not built")
    assert max(sizes.values()) <= 120 * 1024, sizes


@pytest.mark.parametrize("name", ["open", "close", "send", "comm", "keys"])
def test_traits_may_not_hide_methods(name):
    import traitlets

    with pytest.raises(TypeError, match=f"may not be called {name!r}"):
        type("Bad", (Widget,), {name: traitlets.List()})
