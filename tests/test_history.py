"""Recorder, tables and history: cheap writing, exact keeping, harmless watching."""

import threading
import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nenya_nb.training.curves import draw_curves
from nenya_nb.training.history import History
from nenya_nb.training.recorder import Recorder
from nenya_nb.training.tables import read_csv, wide_table, write_atomic


class CountedOps(TorchDispatchMode):
    "Counts the operations that reach the device."

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def test_log_runs_nothing_on_the_device_but_detach():
    history, loss = History(), torch.ones((), requires_grad=True) * 2
    with CountedOps() as ops:
        for step in range(100):
            history.log(step, {"loss": loss, "std": torch.Tensor.detach(loss), "lr": 0.1})
    assert set(ops.names) <= {"detach"}


@pytest.mark.parametrize("rows", [1, 10, 300])
def test_flush_makes_one_stack_and_no_scalar_read_however_many_rows(rows):
    history = History()
    for step in range(rows):
        history.log(step, {"loss": torch.tensor(float(step)), "std": torch.tensor(1.0), "lr": 0.1})
    with CountedOps() as ops:
        history.flush()
    assert (
        ops.names.count("stack") == 1
        and "_local_scalar_dense" not in ops.names
        and len(ops.names) <= 5
    )


def test_flush_keeps_types_apart_and_values_exact():
    history = History()
    values = {
        "half": torch.tensor(0.1, dtype=torch.float16),
        "double": torch.tensor(0.1, dtype=torch.float64),
        "count": torch.tensor(2**40 + 1),
        "flag": torch.tensor(True),
        "number": np.float32(0.5),
    }
    history.log(1, values)
    history.flush()
    assert {name: history.columns()[name][1][0] for name in values} == {
        name: float(v) for name, v in values.items()
    }


def test_log_does_not_keep_the_graph_alive():
    history = History()
    loss = (torch.ones(3, requires_grad=True) * 2).sum()
    history.log(1, {"loss": loss})
    assert all(not value.requires_grad for _, _, items in history._pending for _, value in items)


def test_log_refuses_tensors_that_are_no_scalars():
    with pytest.raises(ValueError, match=r"'loss' at step 3 has shape \(2,\)"):
        History().log(3, {"loss": torch.ones(2)})


def test_log_from_many_threads_loses_nothing_while_flushing():
    history, rows = History(), 2000
    stop = threading.Event()

    def flusher():
        while not stop.is_set():
            history.flush()

    flushing = threading.Thread(target=flusher)
    flushing.start()
    names = [f"thread_{i}" for i in range(4)]

    def writer(name):
        for step in range(rows):
            history.log(step, {name: float(step)})

    threads = [threading.Thread(target=writer, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    flushing.join()
    history.flush()
    for name in names:
        steps, values = history.columns()[name]
        assert np.array_equal(steps, np.arange(rows)) and np.array_equal(values, steps)


def test_subscriber_gets_only_new_rows_in_order():
    history, blocks = History(), []
    unsubscribe = history.subscribe(blocks.append)
    for step in range(10):
        history.log(step, {"loss": float(step)})
        if step % 3 == 2:
            history.flush()
    history.flush()
    assert [block["loss"][0].tolist() for block in blocks] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    history.flush()
    assert len(blocks) == 4  # nothing new, nothing told
    unsubscribe(), unsubscribe()
    history.log(10, {"loss": 1.0})
    history.flush()
    assert len(blocks) == 4


def test_broken_subscriber_is_detached_with_one_warning():
    history, good = History(), []

    def bad(news):
        raise OSError("gone")

    history.subscribe(bad, on_event=bad, on_state=bad)
    history.subscribe(good.append, on_event=good.append, on_state=good.append)
    with pytest.warns(UserWarning, match="detached"):
        history.event("pause")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history.log(1, {"loss": 1.0})
        history.flush()
        history.state = "running"
    assert len(good) == 3


def test_keyboard_interrupt_in_a_subscriber_passes_through():
    history = History()

    def interrupt(block):
        raise KeyboardInterrupt

    history.subscribe(interrupt)
    history.log(1, {"loss": 1.0})
    with pytest.raises(KeyboardInterrupt):
        history.flush()


def test_slow_subscriber_is_called_less_often(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("nenya_nb.training.recorder.time.perf_counter", lambda: clock[0])
    history, calls = History(), []

    def slow(block):
        calls.append(clock[0])
        clock[0] += 0.05

    history.subscribe(slow)
    for step in range(200_000):
        clock[0] += 0.001  # one step
        history.log(step, {"loss": 1.0})
        if history.due():
            history.flush()
    calls = calls[len(calls) // 2 :]
    assert np.diff(calls).min() > 10  # 50 ms at 0.3 % of the time: 17 s
    fast = Recorder()
    fast.log(0, {"loss": 1.0})
    fast.flush()
    clock[0] += 0.0999
    assert not fast.due()
    clock[0] += 0.0002
    assert fast.due()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_flush_raises_when_the_loss_is_not_finite(value):
    history, seen = History(), []
    history.subscribe(seen.append)
    history.log(1, {"loss": 1.0})
    history.log(2, {"loss": torch.tensor(value), "std": 0.01})
    with pytest.raises(FloatingPointError, match=r"at step 2 .*std 0.01"):
        history.flush()
    assert len(seen) == 1 and len(history.columns()["loss"][1]) == 2  # told and kept all the same
    history.log(3, {"loss": 1.0, "other": float("nan")})
    history.flush()  # old rows and other metrics do not raise
    history.check_finite = False
    history.log(4, {"loss": value})
    history.flush()


# ---- collapse


def spread(history, values, start=0, flush_every=7):
    for step, value in enumerate(values, start=start + 1):
        history.log(step, {"std": value})
        if step % flush_every == 0:
            history.flush()
    history.flush()
    return [(event["kind"], event["step"]) for event in history.events]


@pytest.mark.parametrize("flush_every", [1, 7, 1000])
def test_collapse_and_recovery_are_told_once_each(flush_every):
    values = [0.9] * 20 + [0.1] * 200 + [0.9] * 100 + [0.1] * 60
    found = spread(History(), values, flush_every=flush_every)
    assert found == [("collapse", 70), ("recovery", 270), ("collapse", 370)]


@pytest.mark.parametrize("flush_every", [1, 7, 1000])
def test_an_alarm_ends_however_the_rows_arrive(flush_every):
    found = spread(History(), [0.05] * 50 + [0.9] * 250, flush_every=flush_every)
    assert found == [("collapse", 50), ("recovery", 100)]


def test_a_few_low_values_are_no_collapse():
    assert spread(History(), ([0.1] * 49 + [0.9]) * 5) == []
    assert spread(History(), [0.2] * 200) == []  # not below
    assert spread(History(), [float("nan")] * 200) == []


def test_collapse_is_told_to_subscribers_with_its_reason():
    history, told = History(), []
    history.collapse_below, history.collapse_patience = 0.5, 3
    history.subscribe(None, on_event=told.append)
    spread(history, [0.4] * 5)
    assert [(event["kind"], event["step"]) for event in told] == [("collapse", 3)]
    assert told[0]["text"] == "spread below 0.5 for 3 steps"


def test_an_alarm_survives_a_checkpoint():
    first, again = History(), History()
    spread(first, [0.1] * 60)
    again.load_state_dict(first.state_dict())
    assert spread(again, [0.1] * 100, start=60) == [("collapse", 50)]  # not raised again
    assert spread(again, [0.9] * 60, start=160)[1] == ("recovery", 210)
    again.start_run(10, 1)
    assert spread(again, [0.1] * 50) == [("collapse", 50)]  # a new run


def test_rows_and_events_of_another_history_are_appended_and_told():
    first, other, told = History(), History(), []
    other.subscribe(told.append, on_event=told.append)
    first.log(1, {"loss": 1.0, "std": 0.1})
    first.event("lr", "× 2")
    other.extend(first.flush(), first.events)
    assert other.step == 1 and other.events == first.events and len(told) == 2
    assert {name: len(column[0]) for name, column in other.columns().items()} == {
        "loss": 1,
        "std": 1,
        "time": 1,
    }
    other.extend({}, [])
    assert len(told) == 2


def test_columns_are_read_only_snapshots():
    history = History()
    history.log(1, {"loss": 1.0})
    history.flush()
    steps, values = history.columns()["loss"]
    for step in range(2, 2000):
        history.log(step, {"loss": float(step)})
    history.flush()
    assert steps.tolist() == [1] and values.tolist() == [1]
    with pytest.raises(ValueError):
        values[0] = 7


def test_memory_per_row_is_bounded():
    history = History()
    tracemalloc.start()
    for step in range(50_000):
        history.log(step, {"a": 1.0})
        if step % 500 == 0:
            history.flush()
    history.flush()
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert (
        used < 50_000 * 2 * 16 * 2.2
    )  # two columns (a, time), 16 bytes a row, buffers at most twice too long


def test_time_is_logged_once_per_step_and_rises():
    history = History()
    for step in (1, 1, 2, 3, 3, 3):
        history.log(step, {"x": 0.0})
    history.flush()
    steps, times = history.columns()["time"]
    assert steps.tolist() == [1, 2, 3] and (np.diff(times) >= 0).all() and 0 <= times[0] < 60


def test_time_never_goes_back_when_a_thread_logs_late():
    history = History()
    for step in (1, 2, 1, 2, 3):  # the second 1 and 2 come from a monitor that was interrupted
        history.log(step, {"loss": 0.0} if step > history.step else {"ram": 1.0})
    history.flush()
    assert history.columns()["time"][0].tolist() == [1, 2, 3]


def test_step_never_goes_back_when_a_thread_logs_late():
    history = History()
    history.log(5, {"loss": 1.0})
    history.log(3, {"ram": 7.0})
    assert history.step == 5
    history.start_run(10, 1)
    assert history.step == 0


def test_start_run_clears_and_names_the_run():
    history = History()
    states = []
    history.subscribe(None, on_state=states.append)
    first = history.start_run(10, 3)
    history.log(1, {"loss": 1.0})
    history.control.stop()
    second = history.start_run(5, 2)
    history.flush()
    assert first != second and history.run_id == second == history.control.run_id
    assert (
        history.total_steps == 10 and not history.columns() and not history.control.stop_requested
    )
    assert states == ["running", "running"] and not history.watched


def test_unknown_state_is_refused():
    with pytest.raises(ValueError, match="'sleeping', expected one of idle"):
        History().state = "sleeping"


def filled_history():
    history, random = History("test"), np.random.default_rng(0)
    history.log(0, {"knn": 0.1})
    for step in range(1, 50):
        history.log(
            step,
            {"loss": torch.tensor(random.standard_normal() * 1e-7), "lr": random.random() * 1e9},
        )
        if step % 10 == 0:
            history.log(step, {"knn": random.random()})
        if step == 33:
            history.log(step, {"gpu_temp": 50.0}), history.log(step, {"gpu_temp": 51.0})
    history.log(50, {"other": float("nan"), "huge": float("inf")})
    history.flush()
    return history


def test_csv_round_trip_is_exact(tmp_path):
    history = filled_history()
    again = History.from_csv(history.to_csv(tmp_path / "deep" / "run.csv"))
    assert (
        again.name == "run" and again.step == 50 and set(again.columns()) == set(history.columns())
    )
    for name, (steps, values) in history.columns().items():
        assert np.array_equal(again.columns()[name][0], steps)
        assert np.array_equal(again.columns()[name][1], values, equal_nan=True)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["run.csv"]


def test_csv_is_what_pandas_reads_and_to_frame_gives(tmp_path):
    history = filled_history()
    read = pd.read_csv(history.to_csv(tmp_path / "run.csv"))
    frame = history.to_frame()
    assert (
        list(frame.columns[:2]) == ["step", "time"] and len(frame) == 52
    )  # 0…50, and step 33 twice
    pd.testing.assert_frame_equal(read, frame, check_dtype=False)


def test_empty_history_can_be_kept_and_drawn(tmp_path):
    history = History()
    history.flush()
    assert History.from_csv(history.to_csv(tmp_path / "empty.csv")).columns() == {}
    assert len(history.to_frame()) == 0 and history.plot().axes


def test_read_csv_refuses_other_tables(tmp_path):
    (tmp_path / "x.csv").write_text("epoch,loss\n1,2\n")
    with pytest.raises(ValueError, match="expected a header"):
        read_csv(tmp_path / "x.csv")
    (tmp_path / "y.csv").write_text("")
    with pytest.raises(ValueError, match="expected a header"):
        read_csv(tmp_path / "y.csv")


def test_wide_table_against_a_plain_loop():
    random = np.random.default_rng(1)
    columns = {
        name: (random.integers(0, 6, size).astype(float), random.random(size))
        for name, size in dict(a=9, b=3, time=12).items()
    }
    steps, lines = wide_table(columns)
    expected = set()
    for at, _ in columns.values():
        counts = {}
        for step in at.tolist():
            expected.add((step, counts.setdefault(step, 0)))
            counts[step] += 1
    assert steps.tolist() == [step for step, _ in sorted(expected)] and next(iter(lines)) == "time"
    for name, (at, _) in columns.items():
        assert np.array_equal(steps[lines[name]], at) and len(set(lines[name].tolist())) == len(at)


def test_write_atomic_keeps_the_old_file_when_writing_fails(tmp_path, monkeypatch):
    file = write_atomic(tmp_path / "x.txt", "old")
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomic(file, "new")
    assert file.read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["x.txt"]


def test_state_dict_round_trip_tells_subscribers(tmp_path):
    history = filled_history()
    history.event("pause", "coffee")
    torch.save(history.state_dict(), tmp_path / "history.pt")
    again, blocks = History(), []
    again.subscribe(blocks.append)
    run_id = again.start_run(10, 5)
    again.load_state_dict(torch.load(tmp_path / "history.pt", weights_only=True))
    assert again.run_id == run_id and again.total_steps == 50 and again.events == history.events
    assert len(blocks) == 1 and blocks[0]["loss"][0].tolist() == list(range(1, 50))
    assert again.elapsed >= history.columns()["time"][1][-1]
    again.log(51, {"loss": 0.0})
    again.flush()
    assert np.array_equal(again.columns()["loss"][1][:-1], history.columns()["loss"][1])


def test_plot_draws_every_group_and_events(tmp_path):
    history = filled_history()
    history.event("lr", "x")
    figure = history.plot(tmp_path / "curves.png")
    titles = {axes.get_title(loc="left") for axes in figure.axes}
    assert {"loss", "kNN accuracy", "learning rate", "other", "huge"} == titles
    assert (tmp_path / "curves.png").stat().st_size > 5000


def test_plot_survives_long_and_broken_curves():
    steps = np.arange(20_000.0)
    values = np.where(steps > 10_000, np.nan, 1.0)
    figure = draw_curves({"loss": (steps, values), "ram": (steps, steps)})
    assert max(len(line.get_xdata()) for axes in figure.axes for line in axes.lines) <= 8000


def test_plot_leaves_pyplot_alone():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    filled_history().plot()
    assert plt.get_fignums() == before


def test_repr_is_one_line():
    history = filled_history()
    history.start_run(10, 2)
    history.log(3, {"loss": 1.25, "knn": 0.5})
    history.flush()
    text = repr(history)
    assert (
        "\n" not in text
        and "step 3/20" in text
        and "loss 1.25" in text
        and "knn 0.5" in text
        and "running" in text
    )


def test_join_without_a_thread_raises_a_stored_error():
    history = History()
    assert history.join()
    history.error = ValueError("broken")
    with pytest.raises(ValueError, match="broken"):
        history.join()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_log_never_waits_for_the_gpu():
    history, loss = History(), torch.ones((), device="cuda", requires_grad=True) * 2
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(100):
            history.log(step, {"loss": loss, "lr": 0.1})
    finally:
        torch.cuda.set_sync_debug_mode("default")
    history.flush()
    assert (history.columns()["loss"][1] == 2).all()
