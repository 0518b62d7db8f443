"""Checkpoints: exact resume, and nothing lost however the process dies."""

import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from nenya_nb.core import seed_everything
from nenya_nb.training import (
    History,
    best_checkpoint,
    fit,
    latest_checkpoint,
    load_checkpoint,
    rng_state,
    save_checkpoint,
    set_rng_state,
)

torch.set_num_threads(1)
QUIET = dict(device="cpu", progress=False, monitor=False)


class Noisy(Dataset):
    "Items with random views, as augmentations make them."

    def __len__(self):
        return 40

    def __getitem__(self, i):
        return [torch.full((4,), i / 40) + 0.1 * torch.randn(4) for _ in range(2)], i


class Siamese(nn.Module):
    "Dropout, BatchNorm, a teacher and a queue: everything that a checkpoint may forget."

    def __init__(self, width=32):
        super().__init__()
        self.student = nn.Sequential(
            nn.Linear(4, width), nn.BatchNorm1d(width), nn.Dropout(0.3), nn.Linear(width, 8)
        )
        self.teacher = nn.Linear(4, 8).requires_grad_(False)
        self.register_buffer("queue", torch.zeros(16, 8))

    def forward(self, views, targets=None, mode="tensor"):
        p, t = self.student(views[0]), self.teacher(views[1])
        self.keys = t
        return {
            "loss": (p - t).square().mean()
            + 0.1 * (p @ self.queue.T).square().mean()
            + 0.1 * (p.std(0) - 1).abs().mean()
        }

    @torch.no_grad()
    def after_step(self, clock):
        self.teacher.weight.lerp_(self.student[3].weight[:, :4], 0.01 * (1 + clock.progress))
        self.queue.copy_(torch.cat([self.keys, self.queue])[: len(self.queue)])

    def get_extra_state(self):
        return {"note": "plain values are kept too"}

    def set_extra_state(self, state):
        assert state == {"note": "plain values are kept too"}


def algorithm(seed=0, width=32):
    seed_everything(seed)
    return Siamese(width)


def loader(workers=0):
    return DataLoader(Noisy(), batch_size=8, shuffle=True, num_workers=workers)


class StopAt:
    def __init__(self, step):
        self.step = step

    def on_step(self, run):
        if run.clock.step == self.step:
            run.control.stop()


def losses(history):
    return history.columns()["loss"][1].tolist()


def whole(epochs=4, **options):
    return losses(fit(algorithm(), loader(), epochs=epochs, **options, **QUIET))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("step", [1, 5, 7, 10, 19])
def test_resume_is_bit_equal_from_any_step(tmp_path, step, optimizer):
    expected = whole(optimizer=optimizer)
    options = dict(epochs=4, optimizer=optimizer, checkpoint_dir=tmp_path, **QUIET)
    stopped = fit(algorithm(), loader(), callbacks=[StopAt(step)], **options)
    assert stopped.state == "stopped" and losses(stopped) == expected[:step]
    resumed = fit(algorithm(seed=77), loader(), resume=True, **options)
    assert resumed.state == "finished" and losses(resumed) == expected
    assert resumed.columns()["loss"][0].tolist() == list(range(1, 21))
    time_axis = resumed.columns()["time"][1]
    assert (time_axis[1:] >= time_axis[:-1]).all()


def test_resume_twice_with_worker_processes_is_bit_equal(tmp_path):
    expected = losses(fit(algorithm(), loader(workers=2), epochs=3, **QUIET))
    options = dict(epochs=3, checkpoint_dir=tmp_path, **QUIET)
    fit(algorithm(), loader(workers=2), callbacks=[StopAt(3)], **options)
    fit(algorithm(seed=5), loader(workers=2), resume=True, callbacks=[StopAt(9)], **options)
    assert losses(fit(algorithm(seed=6), loader(workers=2), resume=True, **options)) == expected


def test_resume_in_a_new_process_is_bit_equal(tmp_path):
    for part in ("whole", "stopped", "resumed"):  # each in a process of its own
        subprocess.run([sys.executable, __file__, part, tmp_path], check=True, timeout=60)
    whole, stopped, resumed = (
        json.loads((tmp_path / f"{part}.json").read_text())
        for part in ("whole", "stopped", "resumed")
    )
    assert len(whole) == 20 and stopped == whole[:8] and resumed == whole


def test_resume_keeps_a_changed_learning_rate(tmp_path):
    class Halve:
        def on_step(self, run):
            if run.clock.step == 4:
                run.control.set_lr_scale(0.5)

    expected = losses(fit(algorithm(), loader(), epochs=3, callbacks=[Halve()], **QUIET))
    fit(
        algorithm(),
        loader(),
        epochs=3,
        callbacks=[Halve(), StopAt(7)],
        checkpoint_dir=tmp_path,
        **QUIET,
    )
    resumed = fit(algorithm(1), loader(), epochs=3, resume=True, checkpoint_dir=tmp_path, **QUIET)
    assert losses(resumed) == expected and resumed.control.lr_scale == 0.5
    kinds = [event["kind"] for event in resumed.events]
    assert kinds == ["lr", "checkpoint", "stop", "checkpoint", "resume", *["checkpoint"] * 2]


def test_resume_tells_watchers_the_whole_curve(tmp_path):
    fit(algorithm(), loader(), epochs=2, checkpoint_dir=tmp_path, **QUIET)
    history, blocks = History(), []
    history.subscribe(blocks.append)
    fit(
        algorithm(),
        loader(),
        epochs=3,
        checkpoint_dir=tmp_path,
        resume=True,
        history=history,
        **QUIET,
    )
    steps = [step for block in blocks for step in block.get("loss", [[]])[0]]
    assert steps == list(range(1, 16))


def test_resume_of_a_finished_run_does_nothing_and_more_epochs_go_on(tmp_path):
    first = fit(algorithm(), loader(), epochs=2, checkpoint_dir=tmp_path, **QUIET)
    again = fit(algorithm(), loader(), epochs=2, checkpoint_dir=tmp_path, resume=True, **QUIET)
    assert again.state == "finished" and losses(again) == losses(first)
    longer = fit(algorithm(), loader(), epochs=3, checkpoint_dir=tmp_path, resume=True, **QUIET)
    assert losses(longer)[:10] == losses(first) and longer.step == 15


def test_resume_without_a_checkpoint_starts_a_run(tmp_path):
    assert (
        losses(fit(algorithm(), loader(), epochs=4, checkpoint_dir=tmp_path, resume=True, **QUIET))
        == whole()
    )


def test_resume_takes_the_new_settings_of_the_optimizer(tmp_path):
    fit(algorithm(), loader(), epochs=2, lr=0.1, checkpoint_dir=tmp_path, **QUIET)
    history = fit(
        algorithm(),
        loader(),
        epochs=4,
        lr=0.001,
        warmup_epochs=0,
        checkpoint_dir=tmp_path,
        resume=True,
        **QUIET,
    )
    assert history.columns()["lr"][1][10] == pytest.approx(
        0.0005
    )  # half-way down the cosine from the new peak


@pytest.mark.parametrize(
    "change, says",
    [
        (dict(data=DataLoader(Noisy(), batch_size=16)), "5 steps per epoch, this data gives 3"),
        (dict(optimizer="sgd"), "was saved with AdamW, this run has SGD"),
        (dict(optimizer="all in one"), "over groups of .* this run has"),
    ],
)
def test_resume_of_something_else_is_refused_and_changes_nothing(tmp_path, change, says):
    fit(algorithm(), loader(), epochs=1, checkpoint_dir=tmp_path, **QUIET)
    network = algorithm(5)
    if change.get("optimizer") == "all in one":
        change = dict(optimizer=torch.optim.AdamW(network.parameters()))
    before = [value.clone() for value in network.parameters()]
    options = dict(data=loader(), checkpoint_dir=tmp_path, resume=True) | change
    with pytest.raises(ValueError, match=says):
        fit(network, epochs=2, **options, **QUIET)
    assert all(map(torch.equal, before, network.parameters()))


def test_the_last_checkpoints_stay(tmp_path):
    fit(algorithm(), loader(), epochs=5, checkpoint_dir=tmp_path, keep_checkpoints=3, **QUIET)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        f"step_{5 * e:08d}" for e in (3, 4, 5)
    ]


def test_checkpoint_every_and_the_end(tmp_path):
    fit(algorithm(), loader(), epochs=5, checkpoint_dir=tmp_path, checkpoint_every=3, **QUIET)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        f"step_{5 * e:08d}" for e in (3, 5)
    ]


def test_a_loss_that_is_nan_is_never_saved(tmp_path):
    class Spoil:
        def on_step(self, run):
            if run.clock.step == 8:
                run.algorithm.student[0].weight.data.fill_(float("nan"))

    with pytest.raises(FloatingPointError):
        fit(algorithm(), loader(), epochs=4, callbacks=[Spoil()], checkpoint_dir=tmp_path, **QUIET)
    assert latest_checkpoint(tmp_path / "checkpoints").name == "step_00000005"


# ---- the files themselves


def three(folder):
    model = nn.Linear(3, 3)
    for step in (1, 2, 3):
        nn.init.constant_(model.weight, step)
        save_checkpoint(folder, step, model, {"step": step}, keep=3)
    return model


def test_state_loads_with_weights_only_and_model_as_safetensors(tmp_path):
    from safetensors.torch import load_file

    path = fit_path(tmp_path)
    state = torch.load(path / "state.pt", weights_only=True)
    expected = "extra optimizer optimizer_type engine clock processes lr_scale history"
    assert set(state) == set(expected.split())
    assert [set(own) for own in state["processes"]] == [{"batches", "rng"}]
    assert "queue" in load_file(path / "model.safetensors")


def fit_path(folder):
    fit(algorithm(), loader(), epochs=1, checkpoint_dir=folder, **QUIET)
    return latest_checkpoint(folder / "checkpoints")


DAMAGE = {
    "truncated model": lambda path: cut(path / "model.safetensors"),
    "truncated state": lambda path: cut(path / "state.pt"),
    "altered model": lambda path: flip(path / "model.safetensors"),
    "altered state": lambda path: flip(path / "state.pt"),
    "missing state": lambda path: (path / "state.pt").unlink(),
    "missing manifest": lambda path: (path / "manifest.json").unlink(),
    "truncated manifest": lambda path: cut(path / "manifest.json"),
    "foreign manifest": lambda path: (path / "manifest.json").write_text("[]"),
    "manifest without files": lambda path: (path / "manifest.json").write_text('{"files": {}}'),
}


def cut(file):
    file.write_bytes(file.read_bytes()[:-5])


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_checkpoint_is_refused_by_name_and_the_previous_used(tmp_path, damage):
    three(tmp_path)
    DAMAGE[damage](tmp_path / "step_00000003")
    with pytest.raises(ValueError, match="Checkpoint step_00000003"):
        load_checkpoint(tmp_path / "step_00000003", nn.Linear(3, 3))
    with pytest.warns(UserWarning, match="step_00000003"):
        assert latest_checkpoint(tmp_path).name == "step_00000002"


def test_run_goes_on_behind_a_damaged_checkpoint(tmp_path):
    expected = whole()
    fit(algorithm(), loader(), epochs=4, callbacks=[StopAt(12)], checkpoint_dir=tmp_path, **QUIET)
    flip(tmp_path / "checkpoints" / "step_00000012" / "state.pt")
    with pytest.warns(UserWarning, match="step_00000012"):
        resumed = fit(
            algorithm(3),
            loader(),
            epochs=4,
            resume=True,
            callbacks=[StopAt(11)],
            checkpoint_dir=tmp_path,
            **QUIET,
        )
    assert losses(resumed) == expected[:11]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the damaged one, ahead of the run, is gone
        assert (
            losses(
                fit(algorithm(4), loader(), epochs=4, resume=True, checkpoint_dir=tmp_path, **QUIET)
            )
            == expected
        )


def test_the_best_checkpoint_stays_and_is_named_in_an_event(tmp_path):
    scores = iter([0.3, 0.9, 0.5, 0.6, 0.7])

    def measure(run):
        run.history.log(run.clock.step, {"knn": next(scores)})

    options = dict(checkpoint_dir=tmp_path, keep_checkpoints=1, keep_best="knn", **QUIET)
    fit(algorithm(), loader(), epochs=4, callbacks=[measure], **options)
    folder = tmp_path / "checkpoints"
    kept = sorted(path.name for path in folder.iterdir())
    assert kept == ["step_00000010", "step_00000020"]
    assert best_checkpoint(folder, "knn").name == "step_00000010"
    history = fit(
        algorithm(), loader(), epochs=5, callbacks=[measure], **options | {"resume": True}
    )
    kept = sorted(path.name for path in folder.iterdir())
    assert kept == ["step_00000010", "step_00000025"]
    texts = [event["text"] for event in history.events if event["kind"] == "checkpoint"]
    assert texts[1] == "step 10, knn 0.9" and len(texts) == 5


def test_the_best_checkpoint_has_the_score_of_its_own_network(tmp_path):
    scores = iter([0.99, 0.3, 0.5, 0.4, 0.45])  # the first one of the untrained network

    class Measure:
        def on_epoch_start(self, run):
            if run.clock.step == 0:
                self.on_epoch_end(run)

        def on_epoch_end(self, run):
            run.history.log(run.clock.step, {"knn": next(scores)})

    options = dict(checkpoint_dir=tmp_path, keep_checkpoints=1, keep_best="knn", **QUIET)
    history = fit(algorithm(), loader(), 4, checkpoint_every=2, callbacks=[Measure()], **options)
    texts = [event["text"] for event in history.events if event["kind"] == "checkpoint"]
    assert texts == ["step 10, knn 0.5", "step 20, knn 0.45"]


def test_the_best_checkpoint_is_sound_and_has_a_number(tmp_path):
    model, nan = nn.Linear(3, 3), float("nan")
    for step, score in ((1, nan), (2, 0.4), (3, 0.9), (4, 0.5), (5, nan)):
        save_checkpoint(tmp_path, step, model, {}, keep=9, scores={"knn": score})
    assert best_checkpoint(tmp_path, "knn").name == "step_00000003"
    weights = tmp_path / "step_00000003" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    assert best_checkpoint(tmp_path, "knn").name == "step_00000004"


def test_the_best_loss_is_the_smallest_and_is_a_mean(tmp_path):
    history = fit(
        algorithm(), loader(), epochs=4, checkpoint_dir=tmp_path, keep_best="loss", **QUIET
    )
    means = torch.tensor(losses(history)).reshape(4, 5).mean(1)
    best = best_checkpoint(tmp_path / "checkpoints", "loss")
    assert best.name == f"step_{5 * (1 + means.argmin().item()):08d}"
    assert best_checkpoint(tmp_path / "checkpoints", "knn") is None


def test_no_checkpoint_at_all_is_none(tmp_path):
    assert latest_checkpoint(tmp_path) is None and latest_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    "other", [nn.Linear(3, 4), nn.Linear(3, 3, bias=False), nn.Sequential(nn.Linear(3, 3))]
)
def test_a_checkpoint_of_another_network_is_refused_and_changes_nothing(tmp_path, other):
    path = save_checkpoint(tmp_path, 3, nn.Linear(3, 3), {})
    before = {name: weight.clone() for name, weight in other.state_dict().items()}
    with pytest.raises(ValueError, match="step_00000003 was saved from another network than this"):
        load_checkpoint(path, other)
    assert all(torch.equal(before[name], weight) for name, weight in other.state_dict().items())


def test_shared_weights_are_saved(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    path = save_checkpoint(tmp_path, 1, model, {})
    other = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    load_checkpoint(path, other)
    assert torch.equal(other[1].weight, model[0].weight)


def test_rng_state_round_trip_and_foreign_devices():
    states = rng_state()
    expected = torch.rand(2)
    set_rng_state(states)
    assert torch.equal(torch.rand(2), expected)
    if not torch.cuda.is_available():
        set_rng_state({**states, "cuda": torch.zeros(16, dtype=torch.uint8)})


def test_rng_state_is_that_of_the_device_which_trains(monkeypatch):
    asked = []

    class Cuda:
        get_rng_state = staticmethod(lambda device: asked.append(device) or torch.ones(1))
        set_rng_state = staticmethod(lambda state, device: asked.append(device))

    monkeypatch.setattr(torch, "get_device_module", lambda device: Cuda)
    set_rng_state(rng_state("cuda:1"), "cuda:1")
    assert asked == [torch.device("cuda", 1)] * 2


# ---- kill -9


def test_killed_at_every_moment_of_writing(tmp_path):
    "A process is killed at the n-th call that reaches the disk while it saves step 2; step 1 or 2 is always whole."
    moments = 0
    for moments in range(1, 40):
        model = nn.Linear(64, 64)
        folder = tmp_path / str(moments)
        save_checkpoint(
            folder, 1, nn.init.constant_(model.weight, 1) is not None and model, {"step": 1}, keep=1
        )
        nn.init.constant_(model.weight, 2)
        if not in_child(
            lambda f=folder, m=model, n=moments: (
                die_at_call(n) or save_checkpoint(f, 2, m, {"step": 2}, keep=1)
            )
        ):
            break  # it lived: all moments are done
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # nothing damaged carries the name of a checkpoint
            path = latest_checkpoint(folder)
        step = load_checkpoint(path, model)["step"]
        assert path.name == f"step_{step:08d}" and (model.weight == step).all()
        save_checkpoint(
            folder, 3, model, {"step": 3}, keep=1
        )  # and the next one clears the remains away
        assert [p.name for p in folder.iterdir()] == ["step_00000003"]
    assert moments > 8


def die_at_call(number):
    "Counts the calls that change the disk, and kills this process at one of them."
    calls = [0]

    def counted(function):
        def call(*args, **kwargs):
            calls[0] += 1
            if calls[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    for name in ("fsync", "rename", "replace", "mkdir", "rmdir", "unlink"):
        setattr(os, name, counted(getattr(os, name)))


def in_child(function):
    "Runs a function in a forked process; True when that was killed."
    child = os.fork()
    if child == 0:
        try:
            function()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


if __name__ == "__main__":
    part, folder = sys.argv[1], Path(sys.argv[2])
    run = {"checkpoint_dir": folder / "run"}
    options = {
        "whole": {},
        "stopped": run | {"callbacks": [StopAt(8)]},
        "resumed": run | {"resume": True},
    }
    weights = algorithm(seed=123) if part == "resumed" else algorithm()
    history = fit(weights, loader(), epochs=4, **options[part], **QUIET)
    (folder / f"{part}.json").write_text(json.dumps(losses(history)))
