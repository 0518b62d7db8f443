"""What every algorithm promises: parts from a configuration, losses, gradients, state, no waiting for the device; a run that is
continued in a new process, or shared by two, ends as if nothing had happened. `algorithms.py` says which there are."""

import copy
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml
from algorithms import (
    BATCH,
    CONFIGS,
    LENGTH,
    SIZE,
    build_algorithm,
    make_batch,
    make_loader,
    step,
    tiny_dataset,
    to_dtype,
    trainable,
)
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from two_processes import in_two_processes, train_together

from nenya_nb import models
from nenya_nb.core import Clock
from nenya_nb.models import Algorithm, build, to_config
from nenya_nb.training import History, fit

torch.set_num_threads(1)
aten = torch.ops.aten
every_algorithm = pytest.mark.parametrize("name", CONFIGS)


@pytest.fixture
def algorithm(name):
    return build_algorithm(name)


@pytest.fixture
def batch(algorithm):
    return make_batch(algorithm)


def sgd(algorithm, lr=0.05):
    return torch.optim.SGD(trainable(algorithm).values(), lr)


def test_every_algorithm_is_here():
    things = {name: getattr(models, name) for name in models.__all__}
    classes = {name: thing for name, thing in things.items() if isinstance(thing, type)}
    found = {name for name, kind in classes.items() if issubclass(kind, Algorithm)}
    assert found - {"Algorithm", "BaseModel"} == set(CONFIGS)


# ---------------------------------------------------------------- made from a configuration


def same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)  # nan: words not found yet


@every_algorithm
def test_algorithm_is_built_from_yaml_as_from_a_dict(name, algorithm, tmp_path):
    path = tmp_path / "algorithm.yaml"
    path.write_text(yaml.safe_dump(CONFIGS[name], sort_keys=False))
    torch.manual_seed(0)
    again = build(str(path))
    assert type(again) is type(algorithm) and again.views == algorithm.views
    same(again.state_dict(), algorithm.state_dict())


@every_algorithm
def test_algorithm_knows_its_configuration(name, algorithm):
    config = to_config(algorithm)
    assert config == CONFIGS[name]
    torch.manual_seed(0)
    same(build(config).state_dict(), algorithm.state_dict())


# ---------------------------------------------------------------- losses and gradients


@every_algorithm
def test_algorithm_gives_losses_to_log(algorithm, batch):
    losses = algorithm(*batch, mode="loss")
    assert {"loss", "std"} <= set(losses)
    assert all(v.shape == () and v.isfinite() for v in losses.values())
    assert [key for key, v in losses.items() if v.requires_grad] == ["loss"]


@every_algorithm
def test_algorithm_m4_refuses_other_modes(algorithm, batch):
    with pytest.raises(RuntimeError) as error:
        algorithm(*batch, mode="x")
    assert str(error.value) == 'Invalid mode "x".'


@every_algorithm
def test_algorithm_trains_all_but_its_teacher(algorithm, batch):
    "In the second step; in the first DenseCL's cells do not count yet."
    step(algorithm, sgd(algorithm), batch, Clock(3, 2))
    algorithm(*batch, mode="loss")["loss"].backward()
    for name, p in algorithm.named_parameters():
        if p.requires_grad:
            assert p.grad is not None and p.grad.isfinite().all() and p.grad.any(), name
        else:
            assert p.grad is None, name
        if "teacher" in name or "momentum_encoder" in name:
            assert not p.requires_grad, name


def teacher_of(algorithm):
    return getattr(algorithm, "teacher", None) or getattr(algorithm, "momentum_encoder", None)


TEACHERS = [name for name in CONFIGS if teacher_of(build_algorithm(name)) is not None]


@pytest.mark.parametrize("name", TEACHERS)
def test_algorithm_moves_its_teacher(algorithm, batch):
    teacher = teacher_of(algorithm)
    optimizer = sgd(algorithm, lr=1.0)  # the smallest gradient shall be seen
    for _ in range(2):
        before = copy.deepcopy(teacher)
        step(algorithm, optimizer, batch, Clock(3, 2))
    student = dict(algorithm.named_parameters())
    for (key, new), old in zip(teacher.named_parameters(), before.parameters(), strict=True):
        key = key.replace("projection_head", "neck")  # of a DinoModel
        if student[key].requires_grad and "last_layer" not in key:  # which is held still at first
            assert not torch.equal(new, old) and not torch.equal(new, student[key]), key


@every_algorithm
def test_algorithm_losses_and_pictures_keep_their_numbers(algorithm, batch):
    "The history reads them when it has time, and a widget draws them later."
    optimizer, clock = sgd(algorithm), Clock(3, 2)
    losses = algorithm(*batch, mode="loss")
    losses["loss"].backward()
    kept = {**losses, **algorithm.diagnostics()}
    numbers = {key: tensor.detach().clone() for key, tensor in kept.items()}
    algorithm.before_step(clock)
    optimizer.step()
    clock.step += 1
    algorithm.after_step(clock)
    for _ in range(2):
        step(algorithm, optimizer, batch, clock)
    algorithm.on_epoch_start(make_loader(algorithm), Clock(3, 2, step=3))
    same({key: tensor.detach() for key, tensor in kept.items()}, numbers)


@every_algorithm
def test_algorithm_takes_batches_of_other_sizes(algorithm, batch):
    optimizer, clock = sgd(algorithm), Clock(3, 2)
    for size in (8, 3, 5):
        views, targets = batch
        losses = step(algorithm, optimizer, ([v[:size] for v in views], targets[:size]), clock)
        assert losses.isfinite()


@every_algorithm
def test_algorithm_takes_another_order_in_memory(algorithm, batch):
    (views, targets), twin = batch, copy.deepcopy(algorithm)
    losses = []
    for model, form in ((algorithm, torch.contiguous_format), (twin, torch.channels_last)):
        torch.manual_seed(1)
        pictures = [v.contiguous(memory_format=form) if v.dim() == 4 else v for v in views]
        model = model.to(memory_format=form)
        losses.append(step(model, sgd(model), (pictures, targets), Clock(3, 2)))
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-4, atol=1e-5)


@every_algorithm
def test_algorithm_trains_in_half_precision(algorithm, batch):
    twin, clock = copy.deepcopy(algorithm), Clock(3, 2)
    torch.manual_seed(1)
    exact = twin(*batch, mode="loss")["loss"].detach()
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        losses = algorithm(*batch, mode="loss")
    assert all(v.isfinite() for v in losses.values())
    torch.testing.assert_close(losses["loss"].detach().float(), exact, rtol=0.1, atol=0.05)
    losses["loss"].backward()
    algorithm.before_step(clock)
    assert all(p.grad.isfinite().all() for p in trainable(algorithm).values() if p.grad is not None)
    algorithm.after_step(clock)


@every_algorithm
def test_algorithm_trains_in_double_precision(algorithm, batch):
    (views, targets), twin = batch, copy.deepcopy(algorithm).double()
    losses = []
    for model, dtype in ((algorithm, torch.float32), (twin, torch.float64)):
        torch.manual_seed(1)
        losses.append(step(model, sgd(model), (to_dtype(views, dtype), targets), Clock(3, 2)))
    assert losses[1].dtype == torch.float64
    assert not any(t.dtype == torch.float32 for t in twin.state_dict().values())
    torch.testing.assert_close(losses[1].float(), losses[0], rtol=1e-3, atol=1e-4)


# their question gets harder: a queue that fills, a teacher that moves, new labels
MOVING = {"MoCo", "DenseCL", "DINO", "IBOT", "ODC"}


@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in MOVING])
def test_algorithm_learns_one_batch(algorithm, batch):
    optimizer, clock = torch.optim.AdamW(trainable(algorithm).values(), lr=5e-3), Clock(25, 1)
    losses = [step(algorithm, optimizer, batch, clock).item() for _ in range(25)]
    assert losses[-1] < losses[0] - 0.2 * abs(losses[0]), losses


@pytest.mark.parametrize("name", sorted(MOVING))
def test_algorithm_learns_one_batch_while_its_question_stands_still(name, algorithm, batch):
    "No step of queue, teacher, centre or clusters: what is left is to answer, and that can be learned by heart."
    optimizer, clock = torch.optim.AdamW(trainable(algorithm).values(), lr=5e-3), Clock(25, 3, 25)
    gaps = []
    for _ in range(60):
        losses = algorithm(*batch, mode="loss")
        losses["loss"].backward()
        algorithm.before_step(clock)
        optimizer.step(), optimizer.zero_grad()
        if name in ("MoCo", "DenseCL"):  # down to the loss of a query that is its key
            k = algorithm.diagnostics()["k"]
            floor, _ = algorithm.contrast(k, k, algorithm.memory)
            gaps.append((losses.get("loss_global", losses["loss"]) - floor).item())
        else:  # of a teacher's loss only this part can be changed
            gaps.append(losses.get("kl", losses["loss"]).item())
    assert gaps[-1] < 0.5 * gaps[0], gaps


# ---------------------------------------------------------------- features, answers, pictures


@every_algorithm
def test_algorithm_gives_features(algorithm, batch):
    views, algorithm = batch[0], algorithm.eval()
    features = algorithm(views[0])
    assert features.shape == (BATCH, 16)
    assert torch.equal(algorithm(views[0]), features)  # nothing is drawn
    assert torch.equal(algorithm.extract_feat(views[0]), features)
    assert torch.equal(algorithm(views), features)  # of several views the first
    assert algorithm(torch.randn(1, 3, SIZE + 4, SIZE)).shape == (1, 16)


@every_algorithm
def test_algorithm_predicts_one_row_per_image(algorithm, batch):
    views, algorithm = batch[0], algorithm.eval()
    with torch.no_grad():
        assert len(algorithm(views, mode="predict")) == BATCH


@every_algorithm
def test_algorithm_documents_its_diagnostics(algorithm, batch):
    assert algorithm.diagnostics() == {}
    algorithm(*batch, mode="loss")
    found = algorithm.diagnostics()
    kinds = [kind for kind in type(algorithm).__mro__ if "diagnostics" in vars(kind)]
    named = re.findall(r"`(\w+)`", " ".join(kind.diagnostics.__doc__ for kind in kinds))
    assert found and set(found) <= set(named)
    assert all(isinstance(t, torch.Tensor) and not t.requires_grad for t in found.values())
    assert not set(found) & set(algorithm.state_dict())


# ---------------------------------------------------------------- state


@every_algorithm
def test_algorithm_state_is_complete(name, algorithm, batch):
    "Two more losses and all that follows from them are those of the original."
    clock = Clock(3, 2)
    for _ in range(2):
        step(algorithm, sgd(algorithm), batch, clock)
    other = build_algorithm(name, seed=1)
    other.load_state_dict(algorithm.state_dict())
    assert continue_two_steps(other, batch) == continue_two_steps(algorithm, batch)
    same(other.state_dict(), algorithm.state_dict())


def continue_two_steps(algorithm, batch):
    torch.manual_seed(2)
    clock = Clock(3, 2, step=2)
    return [step(algorithm, sgd(algorithm), batch, clock).item() for _ in range(2)]


@every_algorithm
def test_algorithm_can_be_copied(algorithm, batch):
    algorithm(*batch, mode="loss")  # what is remembered of the batch must not be in the way
    twin = copy.deepcopy(algorithm)
    assert continue_two_steps(twin, batch) == continue_two_steps(algorithm, batch)
    same(twin.state_dict(), algorithm.state_dict())


@every_algorithm
@pytest.mark.parametrize("grad", [False, True])
def test_algorithm_learns_nothing_from_looking(algorithm, batch, grad):
    "A loss in evaluation mode leaves no trace, with or without gradient: no row in a queue or a bank, no statistics."
    twin = copy.deepcopy(algorithm)
    with torch.set_grad_enabled(grad):
        algorithm.eval()(*batch, mode="loss")
    assert continue_two_steps(algorithm.train(), batch) == continue_two_steps(twin, batch)
    same(algorithm.state_dict(), twin.state_dict())


@every_algorithm
def test_algorithm_keeps_nothing_aside_without_gradient(algorithm, batch):
    "Who looks in training mode moves BatchNorm's statistics, but no queue, bank or centre."
    with torch.no_grad():
        algorithm.train()(*batch, mode="loss")
    assert not any(getattr(module, "_held", ()) for module in algorithm.modules())


@every_algorithm
def test_algorithm_draws_what_it_remembers_after_it_moved(algorithm, batch):
    "To another precision here; to another device it is the same way."
    algorithm(*batch, mode="loss")
    before = algorithm.diagnostics()
    after = algorithm.double().diagnostics()
    assert after.keys() == before.keys()
    assert not any(t.dtype == torch.float32 for t in algorithm._last.values())


# ---------------------------------------------------------------- never wait for the device

WAITING = {
    aten._local_scalar_dense: ".item()",
    aten.nonzero: "as many numbers as are not zero",
    aten.masked_select: "as many numbers as the mask has",
    aten._unique2: "as many numbers as are different",
    aten.unique_dim: "as many rows as are different",
    aten.unique_consecutive: "as many numbers as are different",
    aten.equal: "an answer for Python",
    aten.bincount: "as many numbers as the largest says",
}
READING = ("tolist", "numpy", "cpu", "__array__")  # methods that no dispatcher sees


class NoWaiting(TorchDispatchMode):
    "On the CPU, raises for what would make the CPU wait for a GPU."

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        reason = WAITING.get(func.overloadpacket)
        if func.overloadpacket in (aten.index, aten.index_put, aten.index_put_):
            if any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
                reason = "a mask as an index"
        assert reason is None, f"{func} waits for the device: {reason}"
        return func(*args, **kwargs or {})


@pytest.fixture
def no_waiting(monkeypatch):
    def refuse(*_):
        raise AssertionError("the numbers of a tensor are read")

    @contextmanager
    def watch():
        with NoWaiting(), monkeypatch.context() as patch:
            for method in READING:
                patch.setattr(torch.Tensor, method, refuse)
            yield

    return watch


@pytest.mark.parametrize(
    "wait",
    [
        lambda t: t[0].item(),
        lambda t: 1 if t[0] > 0 else 2,
        lambda t: t[t > 0],
        lambda t: t.index_put_((t > 0,), torch.zeros(())),
        lambda t: t.tolist(),
        lambda t: t.cpu(),
        lambda t: t.unique(),
        lambda t: torch.where(t > 0),
    ],
)
def test_waiting_is_noticed(no_waiting, wait):
    with pytest.raises(AssertionError, match="wait|read"), no_waiting():
        wait(torch.arange(3.0))


@every_algorithm
def test_algorithm_never_waits_for_the_device(algorithm, batch, no_waiting):
    """From the second step on: the first may check its data (CAE counts hidden patches).
    ODC's repair of small clusters, which must look at them, comes every `interval` steps: after the third."""
    clock, optimizer = Clock(3, 2), sgd(algorithm)
    step(algorithm, optimizer, batch, clock)
    with no_waiting():
        algorithm(*batch, mode="loss")["loss"].backward()
        algorithm.before_step(clock)
        clock.step += 1
        algorithm.after_step(clock)


def pretend(tensor):
    "A tensor on a GPU that need not be there: a shape, a type and a device."
    form = dict(dtype=tensor.dtype, device="cuda")
    fake = torch.empty_strided(tensor.shape, tensor.stride(), **form)
    return nn.Parameter(fake, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else fake


@every_algorithm
def test_algorithm_stays_on_its_device(algorithm, batch):
    "Tensors without numbers know where they are, and cannot be read: one that was made on the CPU is noticed."
    (views, targets), clock = batch, Clock(3, 2)
    step(algorithm, sgd(algorithm), batch, clock)
    with FakeTensorMode():
        for module in algorithm.modules():
            for kept in (module._parameters, module._buffers):
                kept.update({name: pretend(t) for name, t in kept.items() if t is not None})
        views, targets = [pretend(view) for view in views], pretend(targets)
        losses = algorithm(views, targets, mode="loss")
        algorithm.before_step(clock)
        clock.step += 1
        algorithm.after_step(clock)
        features = algorithm.eval()(views[0])
    assert {t.device.type for t in [features, *losses.values()]} == {"cuda"}


# ---------------------------------------------------------------- stopped, and continued in a new process

STOPS = [(name, 4) for name in CONFIGS]  # in the middle of the second epoch
STOPS += [("DeepCluster", 2), ("DeepCluster", 3), ("ODC", 2), ("ODC", 3)]  # clusters change at 3


class StopAt:
    def __init__(self, at):
        self.at = at

    def on_step(self, run):
        if run.clock.step == self.at:
            run.control.stop()


class Unpainted(History):
    def plot(self, *_):
        "Painting curves.png takes longer than the run."


def train(name, seed=0, **options):
    "Two epochs of three steps: all losses, and the state at the end."
    algorithm = build_algorithm(name, seed)
    quiet = dict(device="cpu", progress=False, monitor=False, history=Unpainted())
    history = fit(algorithm, tiny_dataset(), epochs=2, batch_size=BATCH, **quiet, **options)
    return {"losses": history.columns()["loss"][1].tolist(), "state": algorithm.state_dict()}


def resume_all(folder):
    "What the new process does."
    for name, stop in STOPS:
        run = folder / f"{name}_{stop}"
        torch.save(train(name, seed=1, checkpoint_dir=run, resume=True), f"{run}.pt")


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, stop in STOPS:
        run = folder / f"{name}_{stop}"
        assert len(train(name, checkpoint_dir=run, callbacks=[StopAt(stop)])["losses"]) == stop
    subprocess.run([sys.executable, __file__, folder], check=True, timeout=300)
    return {key: torch.load(f"{folder}/{key[0]}_{key[1]}.pt") for key in STOPS}


@pytest.mark.parametrize(("name", "stop"), STOPS)
def test_resume_in_a_new_process_is_bit_equal(resumed, name, stop):
    expected, found = train(name), resumed[name, stop]
    assert len(expected["losses"]) == 2 * LENGTH // BATCH
    assert found["losses"] == expected["losses"]
    same(found["state"], expected["state"])


# ---------------------------------------------------------------- two processes


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    return in_two_processes(train_together, tmp_path_factory.mktemp("processes"), list(CONFIGS))


@every_algorithm
def test_two_processes_learn_what_one_learns(together, name):
    "Mean losses, mean gradients, and after three steps the state: weights, teachers, queues, banks, centres."
    expected = train_together(0, [name])[name]
    for found in (results[name] for results in together):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, msg=lambda m, k=key: f"{k}: {m}")


if __name__ == "__main__":
    resume_all(Path(sys.argv[1]))
