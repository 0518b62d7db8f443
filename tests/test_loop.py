"""fit: training, control, callbacks, files, and explained mistakes."""

import json
import math
import shutil
import threading
import time
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from nenya_nb.core import Clock
from nenya_nb.data import load_dataset
from nenya_nb.models import SimCLR, resnet18
from nenya_nb.training import Batches, History, fit, read_csv

torch.set_num_threads(1)
QUIET = dict(device="cpu", progress=False, monitor=False)


class Square(nn.Module):
    "Brings a linear layer to zero; notes what the loop asks of it."

    def __init__(self, delay=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 2)
        self.drop = nn.Dropout(0.2)
        self.delay, self.asked = delay, []

    def forward(self, views, targets=None, mode="tensor"):
        assert mode == "loss" and self.training
        time.sleep(self.delay)
        loss = self.drop(self.layer(views[0])).square().mean()
        return {"loss": loss, "twice": 2 * loss.detach()}

    def on_epoch_start(self, loader, clock):
        self.asked.append(("epoch", clock.step))

    def before_step(self, clock):
        assert self.layer.weight.grad is not None
        self.asked.append(("before", clock.step))

    def after_step(self, clock):
        self.asked.append(("after", clock.step))


def batches(n=6, size=8):
    random = torch.Generator().manual_seed(0)
    return [([torch.randn(size, 4, generator=random)], torch.zeros(size)) for _ in range(n)]


def losses(history):
    return history.columns()["loss"][1].tolist()


def wait_for(condition, seconds=5.0):
    end = time.perf_counter() + seconds
    while not condition():
        assert time.perf_counter() < end, "waited too long"
        time.sleep(0.005)


def test_fit_equals_a_plain_loop():
    algorithm, plain = Square(), Square()
    history = fit(
        algorithm,
        batches(),
        epochs=2,
        lr=0.1,
        optimizer="sgd",
        weight_decay=0,
        warmup_epochs=0,
        **QUIET,
    )
    torch.manual_seed(0)  # the seed that fit sets
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    expected = []
    for step in range(12):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * (1 + np.cos(np.pi * step / 12)) / 2
        loss = plain(batches()[step % 6][0], mode="loss")["loss"]
        loss.backward()
        optimizer.step(), optimizer.zero_grad()
        expected.append(loss.item())
    assert losses(history) == pytest.approx(expected, rel=1e-5)
    assert history.state == "finished" and history.step == 12 and history.total_steps == 12
    assert history.columns()["twice"][1].tolist() == [2 * loss for loss in losses(history)]


def test_algorithm_is_asked_in_order():
    algorithm = Square()
    fit(algorithm, batches(2), epochs=2, **QUIET)
    expected = [("epoch", 0), ("before", 0), ("after", 1), ("before", 1), ("after", 2)]
    assert algorithm.asked == expected + [(what, step + 2) for what, step in expected]


def test_the_optimizer_forgets_parameters_that_the_algorithm_drew_anew():
    class Renewed(Square):
        def on_epoch_start(self, loader, clock):
            if clock.epoch == 1:
                return [self.layer.weight]

    class Watch:
        def on_step(self, run):
            state = run.optimizer.state
            steps.append([int(state[p]["step"]) for p in (run.algorithm.layer.parameters())])

    steps = []
    fit(Renewed(), batches(3), epochs=2, callbacks=[Watch()], **QUIET)
    assert steps == [[1, 1], [2, 2], [3, 3], [1, 4], [2, 5], [3, 6]]


def test_callbacks_are_called_in_order():
    calls = []

    class Watch:
        def on_start(self, run):
            calls.append(("start", run.clock.step))

        def on_epoch_start(self, run):
            calls.append(("epoch", run.clock.step))

        def on_step(self, run):
            calls.append(("step", run.clock.step))

        def on_end(self, run):
            calls.append(("end", run.history.state))
            assert (run.algorithm, run.device.type, type(run.loader)) == (algorithm, "cpu", list)
            assert (
                isinstance(run.clock, Clock)
                and run.control is run.history.control
                and run.optimizer
            )

    algorithm = Square()
    fit(
        algorithm,
        batches(2),
        epochs=1,
        callbacks=[Watch(), lambda run: calls.append(("function", run.clock.epoch))],
        **QUIET,
    )
    assert calls == [
        ("start", 0),
        ("epoch", 0),
        ("step", 1),
        ("step", 2),
        ("function", 1),
        ("end", "running"),
    ]


def test_modes_come_back_and_the_algorithm_stays_where_it_trained():
    algorithm = Square().eval()
    algorithm.layer.train()
    fit(algorithm, batches(), epochs=1, **QUIET)
    assert [module.training for module in algorithm.modules()] == [False, True, False]
    assert algorithm.layer.weight.device.type == "cpu"


def test_stale_gradients_do_not_leak_into_the_first_step():
    clean, dirty = Square(), Square()
    dirty.layer(torch.ones(1, 4)).sum().mul(1e3).backward()
    assert losses(fit(clean, batches(), epochs=1, **QUIET)) == losses(
        fit(dirty, batches(), epochs=1, **QUIET)
    )


@pytest.mark.parametrize("kind", ["list", "DataLoader", "pair of views", "own data set"])
def test_fit_reads_every_kind_of_data(kind):
    x, y = torch.randn(24, 4), torch.arange(24)

    class OwnDataset:
        def loader(self, batch_size, recipe, device, seed):
            assert (batch_size, recipe, device.type, seed) == (8, "odd_views", "cpu", 3)
            return batches(3)

    algorithm = Square()
    algorithm.views = "odd_views"
    data = {
        "list": batches(3),
        "DataLoader": DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True),
        "pair of views": [((x[:8], x[8:16]), y[:8])] * 3,
        "own data set": OwnDataset(),
    }[kind]
    assert len(losses(fit(algorithm, data, epochs=2, batch_size=8, seed=3, **QUIET))) == 6


def test_fit_asks_for_the_views_and_targets_that_the_algorithm_wants():
    asked = []

    class OwnDataset:
        def loader(self, batch_size, recipe, device, seed, targets="classes"):
            asked.append((recipe, targets))
            return batches(1)

    algorithm = Square()
    fit(algorithm, OwnDataset(), epochs=1, batch_size=8, **QUIET)
    algorithm.views, algorithm.targets = {"type": "multi_crop", "num_local": 2}, "index"
    fit(algorithm, OwnDataset(), epochs=1, batch_size=8, **QUIET)
    assert asked == [("two_views", "classes"), ({"type": "multi_crop", "num_local": 2}, "index")]


def test_dataloader_with_workers_trains():
    data = DataLoader(
        TensorDataset(torch.randn(16, 4), torch.arange(16)),
        batch_size=4,
        shuffle=True,
        num_workers=2,
    )
    assert len(losses(fit(Square(), data, epochs=2, **QUIET))) == 8


def test_seed_decides_everything_or_nothing():
    data = DataLoader(
        TensorDataset(torch.randn(32, 4), torch.arange(32)), batch_size=4, shuffle=True
    )
    one, same, other = (
        losses(fit(Square(), data, epochs=1, seed=seed, **QUIET)) for seed in (1, 1, 2)
    )
    assert one == same != other
    twins = Square(), Square()
    assert losses(fit(twins[0], data, epochs=1, seed=None, **QUIET)) != losses(
        fit(twins[1], data, epochs=1, seed=None, **QUIET)
    )


def test_speed_is_logged_per_flush(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    class Steady(Square):
        def after_step(self, _):
            clock[0] += 1 / 64  # s

    history = fit(Steady(), batches(60, size=8), epochs=1, **QUIET)
    steps, speed = history.columns()["images_per_s"]
    assert steps.tolist() == [7, 14, 21, 28, 35, 42, 49, 56, 60]  # each 0.1 s, and at the end
    assert speed.tolist() == [8 * 64] * 9


def test_monitor_and_progress_line(capsys):
    history = fit(Square(), batches(), epochs=1, device="cpu", progress=True)
    assert "ram" in history.columns() and "6/6" in capsys.readouterr().err
    watched = History()
    watched.subscribe(lambda block: None)
    fit(Square(), batches(), epochs=1, device="cpu", monitor=False, history=watched)
    assert capsys.readouterr().err == ""  # somebody else shows it


# ---- control


@pytest.fixture
def background():
    "Starts a slow run in the background; it is stopped in the end, whatever happens."
    started = []

    def start(delay=0.01, **options):
        history = fit(
            Square(delay),
            batches(50),
            epochs=1000,
            background=True,
            device="cpu",
            monitor=False,
            **options,
        )
        started.append(history)
        return history

    yield start
    for history in started:
        history.control.stop()
        history.thread.join(10)


@pytest.mark.timed
def test_background_returns_at_once_and_stops_within_half_a_second(background):
    history = background()
    assert history.state == "running" and not history.join(timeout=0.05)
    wait_for(lambda: history.step > 2)
    started = time.perf_counter()
    history.control.stop(run_id=history.run_id)
    assert history.join(timeout=5) and time.perf_counter() - started < 0.5
    assert history.state == "stopped" and history.events[-1]["kind"] == "stop"
    assert len(losses(history)) == history.step  # nothing is left unflushed


@pytest.mark.timed
def test_slow_steps_delay_stop_by_one_step_only(background):
    history = background(delay=0.3)
    wait_for(lambda: history.step >= 1)
    started, step = time.perf_counter(), history.step
    history.control.stop()
    history.join(timeout=5)
    assert time.perf_counter() - started < 0.9 and history.step <= step + 1


@pytest.mark.timed
def test_pause_resume_and_stop_while_paused(background):
    history, states = background(), []
    history.subscribe(None, on_state=states.append)
    wait_for(lambda: history.step > 2)
    started = time.perf_counter()
    history.control.pause()
    wait_for(lambda: history.state == "paused")
    assert time.perf_counter() - started < 0.5
    assert len(losses(history)) == history.step  # the curves are complete while paused
    step = history.step
    time.sleep(0.1)
    assert history.step == step
    history.control.resume()
    wait_for(lambda: history.step > step)
    assert history.state == "running"
    history.control.pause()
    wait_for(lambda: history.state == "paused")
    started = time.perf_counter()
    history.control.stop()
    assert history.join(5) and time.perf_counter() - started < 0.5
    assert states == ["paused", "running", "paused", "stopping", "stopped"]
    assert [event["kind"] for event in history.events] == ["pause", "resume", "pause", "stop"]


def test_commands_for_another_run_are_ignored(background):
    history = background()
    wait_for(lambda: history.step > 1)
    assert history.control.stop(run_id="an earlier run") is False
    assert history.control.pause(run_id="an earlier run") is False
    step = history.step
    wait_for(lambda: history.step > step + 3)
    assert history.state == "running"


def test_learning_rate_follows_the_scale_and_leaves_an_event(background):
    history = background()
    wait_for(lambda: history.step > 2)
    history.control.set_lr_scale(0.25)
    step = history.step
    wait_for(lambda: history.step > step + 3)
    history.control.stop()
    history.join(5)
    steps, rates = history.columns()["lr"]
    after = rates[steps > step + 2]
    assert [event["text"] for event in history.events if event["kind"] == "lr"] == [
        "learning rate × 0.25"
    ]
    scheduled = (
        1e-3 * (steps[steps > step + 2]) / (50 + 1)
    )  # still in the warm-up, which is a straight line
    assert after == pytest.approx(0.25 * scheduled, rel=1e-6)


def test_stop_before_the_first_step_still_ends_in_order():
    class Stop:
        def on_start(self, run):
            run.control.stop()

    history = fit(Square(), batches(), epochs=3, callbacks=[Stop()], **QUIET)
    assert history.state == "stopped" and history.step == 0


def test_one_history_serves_several_runs():
    history = History()
    fit(Square(), batches(), epochs=1, history=history, **QUIET)
    first = history.run_id
    history.control.stop()  # a late click
    fit(Square(), batches(), epochs=2, history=history, **QUIET)
    assert history.run_id != first and history.state == "finished" and len(losses(history)) == 12


def test_a_running_history_is_refused(background):
    history = background()
    with pytest.raises(ValueError, match="is running"):
        fit(Square(), batches(), history=history, **QUIET)


# ---- errors


class Broken(Square):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, views, targets=None, mode="tensor"):
        result = super().forward(views, targets, mode)
        return self.value if callable(self.value) is False else self.value(result)


def test_background_errors_wait_for_join():
    def fail(result):
        raise ZeroDivisionError("in the algorithm")

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no unhandled-thread noise
        history = fit(Broken(fail), batches(), background=True, device="cpu")
        history.thread.join(5)
    assert history.state == "failed" and isinstance(history.error, ZeroDivisionError)
    with pytest.raises(ZeroDivisionError, match="in the algorithm"):
        history.join()


def test_failure_keeps_what_was_measured(tmp_path):
    class Fail:
        def on_step(self, run):
            if run.clock.step == 4:
                raise OSError("disk")

    history = History()
    with pytest.raises(OSError):
        fit(
            Square(),
            batches(),
            callbacks=[Fail()],
            history=history,
            checkpoint_dir=tmp_path,
            **QUIET,
        )
    assert history.state == "failed" and len(losses(history)) == 4
    assert len(History.from_csv(tmp_path / "history.csv").columns()["loss"][0]) == 4


def test_nan_ends_the_run_with_step_and_parts():
    def at_step_3(result):
        return {
            **result,
            "loss": result["loss"] * (float("nan") if len(algorithm.asked) > 4 else 1),
        }

    algorithm, history = Broken(at_step_3), History()
    with pytest.raises(FloatingPointError, match=r"nan at step 3 .*lr"):
        fit(algorithm, batches(), epochs=1, history=history, **QUIET)
    assert history.state == "failed"
    algorithm = Broken(at_step_3)
    assert fit(algorithm, batches(), epochs=1, check_finite=False, **QUIET).state == "finished"


@pytest.mark.parametrize(
    "value, message",
    [
        (torch.ones(()), "gave a Tensor"),
        ({"total": 1}, r"a dict with \['total'\]"),
        ({"loss": torch.ones(3, requires_grad=True)}, r"shape \(3,\)"),
        ({"loss": torch.ones(())}, "requires_grad=False"),
        ({"loss": 1.5}, "'loss' is float"),
    ],
)
def test_wrong_losses_are_explained(value, message):
    with pytest.raises(TypeError, match=message):
        fit(Broken(value), batches(), **QUIET)


def sgd(module):
    return torch.optim.SGD(module.parameters(), lr=0.1)


def short_loader():
    class Short(list):
        def __len__(self):
            return 9

    return Short(batches(2))


@pytest.mark.parametrize(
    "change, error, message",
    [
        (dict(epochs=0), ValueError, "epochs=0"),
        (dict(batch_size=0), ValueError, "batch_size=0"),
        (dict(epochs=2.5), TypeError, "epochs=2.5 is a float; expected a whole number"),
        (dict(epochs="3"), TypeError, "epochs='3' is a str"),
        (dict(clip=-1), ValueError, "clip=-1; expected a number above 0"),
        (dict(clip=0), ValueError, "clip=0"),
        (dict(lr=0), ValueError, "lr=0"),
        (dict(lr="1e-3"), TypeError, "lr='1e-3' is a str"),
        (dict(lr=math.nan), ValueError, "lr=nan"),
        (dict(weight_decay=-1), ValueError, "weight_decay=-1"),
        (dict(weight_decay=(0.1, "b")), TypeError, "weight_decay"),
        (dict(layer_decay=75), ValueError, "layer_decay=75; expected a factor"),
        (dict(warmup_epochs=-3), ValueError, "warmup_epochs=-3"),
        (
            dict(epochs=3, warmup_epochs=3),
            ValueError,
            "a warm-up of 3 epochs does not end within 3",
        ),
        (dict(keep_best="knn"), ValueError, "keep_best='knn' needs the checkpoint_dir"),
        (dict(optimizer=sgd(nn.Linear(2, 2))), ValueError, "holds no parameter of this Square"),
        (dict(optimizer=sgd(Square()), lr=0.1), ValueError, "beside an optimizer that is ready"),
        (dict(data=[]), ValueError, "empty"),
        (dict(data=TensorDataset(torch.ones(3))), TypeError, "DataLoader"),
        (dict(data=iter([])), TypeError, "a length"),
        (dict(data=[torch.ones(3)]), TypeError, "expected a pair"),
        (dict(data=[(["a"], 0)]), TypeError, "views are a list"),
        (dict(data=short_loader()), RuntimeError, "length 9 but gave only 2"),
        (dict(algorithm=nn.Linear(4, 2)), TypeError, "takes no `mode`"),
        (dict(algorithm=lambda x: x), TypeError, "expected a torch.nn.Module"),
        (dict(optimizer="adan"), ValueError, "Did you mean 'adamw'|Known: adamw, sgd"),
        (dict(resume=True), ValueError, "needs the checkpoint_dir"),
        (dict(callbacks=[History]), TypeError, "History is a class"),
        (dict(callbacks=[3]), TypeError, "none of on_start"),
        (dict(history=None, algorithm=Square().requires_grad_(False)), ValueError, "no parameter"),
    ],
)
def test_mistakes_are_explained(change, error, message):
    arguments = dict(algorithm=Square(), data=batches(), **QUIET) | change
    with pytest.raises(error, match=message):
        fit(arguments.pop("algorithm"), arguments.pop("data"), **arguments)


@pytest.mark.parametrize(
    "name, wish",
    [
        ("ACCELERATE_USE_FSDP", "true"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR"),
    ],
)
def test_what_the_launcher_wants_and_fit_does_not_is_refused(name, wish, monkeypatch):
    monkeypatch.setenv(name, wish)
    with pytest.raises(ValueError, match=f"{name}='{wish}'"):
        fit(Square(), batches(), **QUIET)
    monkeypatch.setenv(name, "NO" if "DYNAMO" in name else "1" if "STEPS" in name else "false")
    fit(Square(), batches(), epochs=1, **QUIET)


@pytest.mark.parametrize("asked, steps", [(None, 4), (1, 8), (4.5, 36), (0, 0)])
def test_warm_up_is_as_long_as_asked(asked, steps):
    data = batches(8)
    quiet = QUIET | dict(epochs=5, lr=1.0, optimizer="sgd", warmup_epochs=asked)
    _, rates = fit(Square(), data, **quiet).columns()["lr"]
    assert int(rates.argmax()) == steps and math.isclose(rates[steps], 1.0, rel_tol=1e-3)


def test_another_kind_of_optimizer_cannot_go_on(tmp_path):
    run = dict(checkpoint_dir=tmp_path, **QUIET)
    fit(Square(), batches(), epochs=1, optimizer="adamw", **run)
    with pytest.raises(ValueError, match="saved with AdamW, this run has SGD"):
        fit(Square(), batches(), epochs=2, optimizer="sgd", resume=True, **run)


def test_a_best_checkpoint_of_a_metric_that_is_not_measured_is_warned_of(tmp_path):
    with pytest.warns(
        UserWarning, match="keep_best='knnn', but no such metric .* only loss, lr"
    ) as w:
        fit(Square(), batches(), epochs=3, keep_best="knnn", checkpoint_dir=tmp_path, **QUIET)
    assert len([x for x in w if "knnn" in str(x.message)]) == 1


def test_config_holds_the_numbers_of_the_optimizer_and_a_drawn_seed(tmp_path):
    run = QUIET | dict(optimizer="sgd", epochs=2, seed=None)
    fit(Square(), batches(), checkpoint_dir=tmp_path, **run)
    config = json.loads((tmp_path / "config.json").read_text())
    found = config["optimizer"]
    assert (found["type"], found["lr"], found["momentum"]) == ("SGD", 0.05, 0.9)
    assert config["settings"]["lr"] is None and isinstance(config["settings"]["seed"], int)
    assert {"torchvision", "timm", "accelerate", "numpy", "python"} <= set(config["versions"])


def test_config_holds_lists_and_numbers_of_numpy(tmp_path):
    given = dict(epochs=np.int64(2), lr=np.float32(0.5), weight_decay=[0.25, 0.5])
    fit(Square(), batches(), checkpoint_dir=tmp_path, log_with=[], **QUIET | given)
    settings = json.loads((tmp_path / "config.json").read_text())["settings"]
    expected = dict(epochs=2, lr=0.5, weight_decay=[0.25, 0.5], log_with=[])
    assert settings | expected == settings and "data" not in settings


def test_config_says_what_was_trained_even_if_it_was_put_together_by_hand(tmp_path):
    algorithm = SimCLR(resnet18(num_classes=0, stem_type="small"))
    algorithm.backbone.layer4 = nn.Identity()
    algorithm.neck = nn.Linear(256, 8)
    fit(
        algorithm,
        load_dataset("shapes").subset(range(32)),
        epochs=1,
        batch_size=16,
        checkpoint_dir=tmp_path,
        **QUIET,
    )
    config = json.loads((tmp_path / "config.json").read_text())
    assert "\n".join(config["network"]) == str(algorithm) and "(layer4): Identity()" in str(
        algorithm
    )
    assert config["views"][0] == "MultiView([" and "RandomResizedCrop(size=(32, 32)" in "".join(
        config["views"]
    )


def test_the_home_folder_has_a_short_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    fit(Square(), batches(), epochs=1, checkpoint_dir="~/runs/first", **QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert (tmp_path / "runs" / "first" / "config.json").is_file()


def test_on_start_error_marks_the_run_as_failed():
    class Bad:
        def on_start(self, run):
            raise OSError("no display")

    history = History()
    with pytest.raises(OSError):
        fit(Square(), batches(), callbacks=[Bad()], history=history, background=True, device="cpu")
    assert history.state == "failed" and isinstance(history.error, OSError)


# ---- files


def test_run_directory_tells_the_story(tmp_path):
    directory = tmp_path / "runs" / "one"
    history = fit(Square(), batches(), epochs=2, lr=0.01, checkpoint_dir=directory, **QUIET)
    assert sorted(path.name for path in directory.iterdir()) == [
        "checkpoints",
        "config.json",
        "curves.png",
        "history.csv",
    ]
    config = json.loads((directory / "config.json").read_text())
    assert (
        config["algorithm"] == "Square"
        and config["run_id"] == history.run_id
        and config["settings"]["lr"] == 0.01
    )
    assert config["settings"]["seed"] == 0 and config["versions"]["torch"] == torch.__version__
    assert "Linear(in_features=" in "".join(config["network"]) and config["views"] is None
    again = History.from_csv(directory / "history.csv")
    assert again.columns()["loss"][1].tolist() == losses(history)


def test_each_checkpoint_comes_with_the_curves_and_a_killed_run_goes_on_with_them(tmp_path):
    run, killed = tmp_path / "run", tmp_path / "killed"
    lengths = []

    class Look:
        def on_epoch_start(self, _):
            if (run / "history.csv").exists():
                lengths.append(len(read_csv(run / "history.csv")["loss"][0]))
            if len(lengths) == 2:
                shutil.copytree(run, killed)  # what a kill leaves, at this moment

    options = dict(epochs=4, callbacks=[Look()], **QUIET)
    whole = fit(Square(), batches(), checkpoint_dir=run, checkpoint_every=1, **options)
    assert lengths == [6, 12, 18]
    assert [path.name for path in killed.glob(".*")] == []  # no drafts
    found = History.from_csv(killed / "history.csv")
    assert found.step == 12 and found.total_steps == 24 and found.batch_size is None
    assert [event["text"] for event in found.events] == ["step 6", "step 12"]
    again = fit(Square(), batches(), checkpoint_dir=killed, resume=True, epochs=4, **QUIET)
    assert losses(again) == losses(whole)
    assert read_csv(killed / "history.csv")["loss"][1].tolist() == losses(whole)


def test_images_of_a_step_are_known_where_the_loader_tells(tmp_path):
    data = DataLoader(TensorDataset(torch.randn(32, 4), torch.zeros(32)), batch_size=4)
    history = fit(Square(), data, 1, accumulate=2, checkpoint_dir=tmp_path, **QUIET)
    assert history.batch_size == 8
    assert History.from_csv(tmp_path / "history.csv").batch_size == 8


def test_a_directory_in_use_is_not_overwritten(tmp_path):
    fit(Square(), batches(), epochs=1, checkpoint_dir=tmp_path, **QUIET)
    with pytest.raises(ValueError, match="resume=True continues it"):
        fit(Square(), batches(), epochs=1, checkpoint_dir=tmp_path, **QUIET)


# ---- batches


def test_batches_replay_an_epoch_of_a_stateful_loader():
    class Stateful:
        "Counts epochs, as our own loaders do; its order depends on nothing else."

        def __init__(self):
            self.epoch = 0

        def __len__(self):
            return 5

        def __iter__(self):
            random = torch.Generator().manual_seed(self.epoch)
            self.epoch += 1
            return iter([(torch.rand(2, 1, generator=random), torch.zeros(2)) for _ in range(5)])

        def state_dict(self):
            return {"epoch": self.epoch}

        def load_state_dict(self, state):
            self.epoch = state["epoch"]

    def read(source, skip=0):
        return [views[0].sum().item() for views, _ in source.epoch(skip)]

    source = Batches(Stateful(), torch.device("cpu"))
    epochs = [read(source) for _ in range(2)]
    iterator = source.epoch()
    first = [next(iterator)[0][0].sum().item() for _ in range(3)]
    state = source.state_dict(boundary=False)
    again = Batches(Stateful(), torch.device("cpu"))
    again.load_state_dict(state)
    rest = read(again, skip=3)
    fresh = Batches(Stateful(), torch.device("cpu"))
    three = [read(fresh) for _ in range(3)]
    assert epochs == three[:2] and first + rest == three[2]
    assert again.loader.epoch == 3  # the next epoch goes on as well


def test_a_stream_of_batches_is_divided_among_processes():
    class Stream(IterableDataset):
        def __len__(self):
            return 12

        def __iter__(self):
            return iter((torch.full((4,), i), i) for i in range(12))

    parts = [
        list(Batches(DataLoader(Stream(), 4), torch.device("cpu"), rank=rank, count=2).epoch())
        for rank in range(2)
    ]
    assert [targets.tolist() for _, targets in parts[0]] == [[0, 1], [4, 5], [8, 9]]
    assert [targets.tolist() for _, targets in parts[1]] == [[2, 3], [6, 7], [10, 11]]


def test_batches_do_not_disturb_the_global_generator():
    data = DataLoader(
        TensorDataset(torch.randn(12, 4), torch.arange(12)), batch_size=4, shuffle=True
    )
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    list(Batches(data, torch.device("cpu"), seed=5).epoch())
    assert torch.equal(torch.rand(3), expected)


def test_threads_may_read_the_history_of_a_run():
    errors, history = [], History()

    def read():
        try:
            while history.state != "finished":
                for steps, values in history.columns().values():
                    assert len(steps) == len(values)
                repr(history), history.to_frame()
        except Exception as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    fit(Square(), batches(100), epochs=5, history=history, **QUIET)
    reader.join()
    assert not errors
