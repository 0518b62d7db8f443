"""How steps are computed: precision, parts, bounds, compiled code; and the trackers."""

import copy
import math
import sys

import pytest
import torch
from algorithms import build_algorithm, tiny_dataset
from torch import nn

from nenya_nb.data import load_dataset
from nenya_nb.data.loaders import ViewLoader
from nenya_nb.training import Engine, History, Processes, fit

torch.set_num_threads(1)
QUIET = dict(device="cpu", progress=False, monitor=False, warmup_epochs=0)


class Plain(nn.Module):
    "A loss that is a mean over rows, without chance; notes the clock in its methods."

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.register_buffer("ema", torch.zeros(8))
        self.asked = []

    def forward(self, views, targets=None, mode="tensor"):
        self.layout = views[0].is_contiguous(memory_format=torch.channels_last)
        maps = self.conv(views[0])
        self.dtype = maps.dtype
        return {"loss": maps.float().square().mean(), "size": maps.new_tensor(len(views[0]))}

    def before_step(self, clock):
        self.asked.append(("before", clock.step, self.conv.weight.grad.norm().item()))

    def after_step(self, clock):
        self.ema.lerp_(self.conv.bias.detach(), 0.5)
        self.asked.append(("after", clock.step, None))


def loader(batch_size=8, count=24):
    data = load_dataset("shapes").subset(torch.arange(count))
    return ViewLoader(data, lambda images: images, batch_size, shuffle=False)


def trained(batch_size=8, epochs=2, network=None, **options):
    network = Plain() if network is None else network
    settings = QUIET | dict(optimizer="sgd", lr=0.1) | options
    history = fit(network, loader(batch_size), epochs, **settings)
    return network, history


# ---- accumulation


def test_accumulated_parts_make_the_step_of_the_whole_batch():
    whole, one = trained(8)
    parts, two = trained(4, accumulate=2)
    torch.testing.assert_close(dict(parts.state_dict()), dict(whole.state_dict()))
    assert two.step == one.step == 6 and two.steps_per_epoch == 3
    for name in ("loss", "lr"):
        assert two.columns()[name][1] == pytest.approx(one.columns()[name][1], rel=1e-5)
    assert two.columns()["size"][1].tolist() == [4] * 6  # a mean over the parts


def test_ema_schedule_and_clock_move_once_per_optimizer_step():
    network, _ = trained(2, accumulate=4)
    steps = [(what, step) for what, step, _ in network.asked]
    assert steps == [step for n in range(6) for step in (("before", n), ("after", n + 1))]


def test_our_data_sets_give_parts_of_the_batch_asked_for():
    seen = []

    class Watch:
        def on_step(self, run):
            seen.append((run.loader.batch_size, run.clock.steps_per_epoch))

    algorithm = build_algorithm("SimSiam")
    options = dict(epochs=1, batch_size=8, accumulate=2, callbacks=[Watch()])
    fit(algorithm, tiny_dataset(), **options, **QUIET)
    assert seen == [(4, 3)] * 3


def test_batches_that_make_no_whole_step_are_left_out_and_resume_is_bit_equal(tmp_path):
    class StopAt:
        def on_step(self, run):
            if run.clock.step in (2, 3):
                run.control.stop()

    network, history = trained(4, epochs=3, accumulate=4)  # six batches: one step of four
    assert history.step == 3
    for stop in range(2):
        trained(4, 3, accumulate=4, callbacks=[StopAt()], checkpoint_dir=tmp_path, resume=stop > 0)
    again, _ = trained(4, 3, accumulate=4, checkpoint_dir=tmp_path, resume=True)
    assert torch.equal(again.conv.weight, network.conv.weight)


def test_parts_that_cannot_be_made_are_explained():
    with pytest.raises(ValueError, match="accumulate=0"):
        trained(accumulate=0)
    with pytest.raises(ValueError, match="gives 3 batches, not the 4"):
        trained(accumulate=4)
    for size, parts, choice in ((2, 4, 4), (128, 3, 126)):
        with pytest.raises(
            ValueError, match=f"batch_size={size} cannot .*={parts} .* choose {choice}"
        ):
            fit(Plain(), load_dataset("digits"), batch_size=size, accumulate=parts, **QUIET)
    fit(Plain(), loader(2), 1, batch_size=1, accumulate=2, **QUIET)  # it makes the batches itself


def test_plain_numbers_among_the_losses_are_averaged_too():
    class Counts(Plain):
        def forward(self, views, targets=None, mode="tensor"):
            return super().forward(views, targets, mode=mode) | {"images": len(views[0])}

    history = fit(Counts(), load_dataset("digits"), 1, batch_size=256, accumulate=2, **QUIET)
    assert set(history.columns()["images"][1]) == {128}


# ---- clipping


def test_clipping_bounds_the_step_and_logs_the_norm():
    network, history = trained(clip=0.01)
    norms = history.columns()["grad_norm"][1]
    seen = [norm for what, _, norm in network.asked if what == "before"]
    assert len(norms) == 6 and (norms >= seen).all() and (norms > 0.01).all()
    loose, other = trained(clip=1e9)
    plain, _ = trained()
    torch.testing.assert_close(dict(loose.state_dict()), dict(plain.state_dict()), rtol=0, atol=0)
    assert "grad_norm" not in trained()[1].columns() and "grad_norm" in other.columns()


# ---- precision


@pytest.mark.parametrize("precision, dtype", [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_precision_computes_in_16_bits_and_keeps_weights_in_32(precision, dtype):
    network, history = trained(precision=precision)
    exact, _ = trained()
    assert network.dtype == dtype and network.conv.weight.dtype == torch.float32
    torch.testing.assert_close(network.conv.weight, exact.conv.weight, rtol=0.05, atol=5e-3)
    seen = [norm for what, _, norm in network.asked if what == "before"]
    expected = [norm for what, _, norm in exact.asked if what == "before"]
    assert seen == pytest.approx(expected, rel=0.05)  # unscaled when the algorithm looks


def test_a_step_that_overflows_is_left_out_and_the_scale_survives_a_checkpoint(tmp_path):
    class Overflow(Plain):
        def forward(self, views, targets=None, mode="tensor"):
            losses = super().forward(views, targets, mode)
            if len(self.asked) == 2:  # the second step
                losses["loss"] = losses["loss"] + self.conv.bias.sum() * torch.tensor(3e38)
            return losses

        def after_step(self, clock):
            super().after_step(clock)
            self.bias = [*getattr(self, "bias", []), self.conv.bias.detach().clone()]

    options = dict(precision="fp16", checkpoint_dir=tmp_path)
    network, _ = trained(network=Overflow(), **options)
    assert torch.equal(network.bias[1], network.bias[0])
    assert not torch.equal(network.bias[2], network.bias[1])
    path = next((tmp_path / "checkpoints").glob("*06/state.pt"))
    assert torch.load(path, weights_only=True)["engine"]["scale"] == 32768


def test_precision_of_the_launcher_is_the_default(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert trained()[0].dtype == torch.bfloat16
    assert trained(precision="no")[0].dtype == torch.float32
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    with pytest.raises(ValueError, match="Unknown precision 'fp8'"):
        trained()


# ---- layout and compiled code


def test_channels_last_changes_the_layout_only():
    network, _ = trained(channels_last=True)
    plain, _ = trained()
    assert network.layout and not plain.layout
    assert network.conv.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(network.conv.weight, plain.conv.weight)


def test_compiled_code_trains_the_same_module(monkeypatch):
    compile, modes = torch.compile, []

    def eager(module, mode=None):  # without a compiler: what it would be given
        modes.append(mode)
        return compile(module, backend="eager")

    monkeypatch.setattr(torch, "compile", eager)
    network, _ = trained(compile=True)
    trained(compile="max-autotune", epochs=1)
    plain, _ = trained()
    assert modes == [None, "max-autotune"]
    torch.testing.assert_close(network.conv.weight, plain.conv.weight)
    assert set(network.state_dict()) == set(plain.state_dict())


@pytest.mark.parametrize("name", ["SimCLR", "MoCo", "NPID", "DINO"])
def test_traced_code_learns_and_remembers_the_same(name, monkeypatch):
    """Dynamo and AOTAutograd trace forward and backward as for `inductor`, and "aot_eager" runs what they found: the
    generated C++ takes half a minute to build."""
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda m, mode=None: compile(m, backend="aot_eager"))
    states, losses = [], []
    for compiled in (False, True):
        torch._dynamo.reset()
        algorithm = build_algorithm(name)
        options = dict(epochs=1, batch_size=8, optimizer="sgd", lr=0.01, compile=compiled)
        losses.append(fit(algorithm, tiny_dataset(), **options, **QUIET).columns()["loss"][1])
        states.append(algorithm.state_dict())
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    torch.testing.assert_close(states[1], states[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["SimCLR", "BYOL", "DINO", "MAE", "MoCo", "SwAV"])
def test_methods_train_with_everything_at_once(name):
    algorithm = build_algorithm(name)
    history = fit(
        algorithm,
        tiny_dataset(),
        epochs=2,
        batch_size=8,
        accumulate=2,
        clip=1.0,
        precision="bf16",
        channels_last=True,
        **QUIET,
    )
    columns = history.columns()
    assert len(columns["loss"][1]) == 6 and all(map(math.isfinite, columns["loss"][1]))
    assert all(p.isfinite().all() for p in algorithm.parameters())


def test_engine_alone_wraps_nothing():
    network = Plain()
    engine = Engine(network, torch.optim.SGD(network.parameters(), 0.1), Processes("cpu"))
    assert engine.model is network and engine.state_dict() == {}
    twin = copy.deepcopy(network)
    views = [torch.randn(2, 3, 8, 8)]
    engine.backward(engine.loss(views, None)["loss"])
    twin(views)["loss"].backward()
    assert torch.equal(network.conv.weight.grad, twin.conv.weight.grad)


# ---- trackers


def test_tensorboard_holds_the_values(tmp_path):
    from tensorboard.backend.event_processing import event_accumulator as loading

    network, history = trained(log_with="tensorboard", checkpoint_dir=tmp_path, epochs=3)
    files = sorted(tmp_path.rglob("events.out*"), key=lambda path: len(path.parts))
    events = loading.EventAccumulator(str(files[0]))  # the deeper ones hold the settings
    events.Reload()
    steps, losses = history.columns()["loss"]
    written = {event.step: event.value for event in events.Scalars("loss")}
    assert written and 9 in written and len(written) <= 9
    for step, value in written.items():
        assert value == pytest.approx(losses[steps == step][0], rel=1e-5)
    assert "lr" in events.Tags()["scalars"]


def test_unknown_trackers_are_explained():
    history = History()
    with pytest.raises(ValueError, match="Did you mean 'tensorboard'"):
        trained(log_with="tensorbord", history=history)
    assert history.state == "failed"


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_without_its_package_is_explained(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)  # cannot be imported
    with pytest.raises(ValueError, match=f"{name}' needs a package that is not installed"):
        trained(log_with=name)


# ---- what a run leaves behind


def test_config_of_a_run_says_how_it_was_made(tmp_path):
    import json

    trained(checkpoint_dir=tmp_path, precision="bf16", clip=1.0, seed=5)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["settings"] | {"precision": "bf16", "clip": 1.0, "seed": 5} == config["settings"]
    assert {"nenya_nb", "torch", "python"} <= set(config["versions"]) and config["processes"] == 1
