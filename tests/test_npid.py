"""NPID: the memory's arithmetic, the sampled softmax against torch's own, and who gets a gradient."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nenya_nb.core import Clock
from nenya_nb.models import LinearNeck, build, get_resnet, resnet_tiny
from nenya_nb.models.algorithms.npid import NPID, SimpleMemory
from nenya_nb.models.heads import ContrastiveHead

torch.set_num_threads(1)
N, B = 20, 6


def small(**settings) -> NPID:
    settings = dict(length=N, num_negatives=8) | settings
    return NPID(resnet_tiny(), LinearNeck(128, 16), **settings)


def batch(B=B, H=32, W=32):
    return [torch.randn(B, 3, H, W)], torch.randperm(N)[:B]


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.5, 0.9])
def test_memory_update_is_the_normalised_mean(momentum):
    memory = SimpleMemory(N, 5, momentum).double()
    before, index, z = memory.features.clone(), torch.tensor([3, 0, 7]), torch.randn(3, 5).double()
    assert torch.equal(memory.update(index, z), index)
    expected = before.clone()
    for i, row in zip(index, F.normalize(z, dim=1), strict=True):
        mixed = momentum * before[i] + (1 - momentum) * row
        expected[i] = mixed / mixed.norm()
    torch.testing.assert_close(memory.features, expected)
    torch.testing.assert_close(memory.features.norm(dim=1), torch.ones(N).double())


def test_memory_counts_the_first_of_two_views():
    memory, twin = SimpleMemory(N, 4), SimpleMemory(N, 4)
    twin.load_state_dict(memory.state_dict())
    z = torch.randn(4, 4)
    memory.update(torch.tensor([2, 5, 2, 5]), z)
    twin.update(torch.tensor([2, 5]), z[:2])
    assert torch.equal(memory.features, twin.features)


def test_memory_age_counts_updates():
    memory = SimpleMemory(5, 3)
    assert memory.age().tolist() == [0] * 5
    for index in ([0], [1, 2], [1]):
        memory.update(torch.tensor(index), torch.randn(len(index), 3))
    assert memory.age().tolist() == [2, 0, 1, 3, 3]


def test_memory_learns_nothing_by_gradient():
    memory = SimpleMemory(N, 4)
    assert not list(memory.parameters())
    z = torch.randn(2, 4, requires_grad=True)
    memory.update(torch.tensor([0, 1]), z * 2)
    assert not memory.features.requires_grad


@pytest.mark.parametrize(
    "wrong", [dict(length=0), dict(dim=0), dict(momentum=1), dict(momentum=-1)]
)
def test_memory_refuses_impossible_settings(wrong):
    with pytest.raises(ValueError, match="SimpleMemory: "):
        SimpleMemory(**dict(length=4, dim=2) | wrong)


# ---------------------------------------------------------------- loss


def test_loss_is_cross_entropy_over_the_drawn_rows():
    "The paper's arrangement: a vector for each drawn row, looked up one by one."
    algorithm = small(head=ContrastiveHead(0.2)).double()
    views, index = batch()
    views = [view.double() for view in views]
    torch.manual_seed(3)
    loss = algorithm(views, index, mode="loss")["loss"]
    torch.manual_seed(3)
    drawn = torch.randint(N, (B, 8))
    z, bank = algorithm.diagnostics()["z"], algorithm.memory.features
    neg = torch.einsum("be,bke->bk", z, bank[drawn])
    pos = (z * bank[index]).sum(1, keepdim=True)
    expected = F.cross_entropy(torch.cat([pos, neg], 1) / 0.2, torch.zeros(B, dtype=torch.long))
    torch.testing.assert_close(loss.detach(), expected)


def test_loss_without_drawing_is_the_whole_softmax():
    algorithm, (views, index) = small(num_negatives=None), batch()
    loss = algorithm(views, index, mode="loss")["loss"]
    logits = algorithm.diagnostics()["z"] @ algorithm.memory.features.T / 0.07
    torch.testing.assert_close(loss.detach(), F.cross_entropy(logits, index))


def test_gradient_matches_the_softmax_of_a_fixed_classifier():
    "With the memory as the weights of a linear layer that does not learn."
    algorithm, (views, index) = small(num_negatives=None, head=ContrastiveHead(1.0)).eval(), batch()
    algorithm(views, index, mode="loss")["loss"].backward()
    found = algorithm.neck.fc.weight.grad.clone()
    algorithm.zero_grad()
    z = F.normalize(algorithm.embed(views[0]), dim=1)
    F.cross_entropy(F.linear(z, algorithm.memory.features), index).backward()
    torch.testing.assert_close(algorithm.neck.fc.weight.grad, found, atol=1e-6, rtol=1e-4)


def test_loss_of_silence_is_log_of_choices():
    algorithm, (views, index) = small(num_negatives=8), batch()
    algorithm.memory.features.zero_()
    loss = algorithm(views, index, mode="loss")["loss"].item()
    assert math.isclose(loss, math.log(9), rel_tol=1e-5)


@pytest.mark.parametrize("length", [2, 3, 50])
def test_ensured_negatives_are_all_others_evenly(length):
    torch.manual_seed(0)
    algorithm = small(length=length, num_negatives=20000, ensure_negatives=True)
    columns, index = torch.arange(length).float().expand(2, -1), torch.tensor([0, length - 1])
    for row, own in zip(algorithm.wrong_answers(columns, index), index.tolist(), strict=True):
        counts = row.long().bincount(minlength=length)
        assert counts[own] == 0
        share = counts[torch.arange(length) != own] / 20000
        torch.testing.assert_close(
            share, torch.full((length - 1,), 1 / (length - 1)), atol=0.02, rtol=0
        )


# ---------------------------------------------------------------- algorithm


def test_memory_changes_after_the_step_and_only_the_rows_seen():
    algorithm, (views, index) = small(), batch()
    before = algorithm.memory.features.clone()
    losses = algorithm(views, index, mode="loss")
    assert torch.equal(algorithm.memory.features, before)
    losses["loss"].backward()
    algorithm.after_step(Clock(1, 1, 1))
    changed = (algorithm.memory.features != before).any(1).nonzero()[:, 0]
    assert changed.tolist() == sorted(index.tolist())
    after = algorithm.memory.features.clone()
    algorithm.after_step(Clock(1, 1, 2))
    assert torch.equal(algorithm.memory.features, after)  # nothing is written twice


def test_accumulated_batches_are_all_written():
    algorithm = small(length=12)
    for rows in (torch.arange(6), torch.arange(6, 12)):
        algorithm([torch.randn(6, 3, 32, 32)], rows, mode="loss")["loss"].backward()
    algorithm.after_step(Clock(1, 1, 1))
    assert (algorithm.memory.written > 0).all()


def test_looking_without_gradient_writes_nothing():
    algorithm, (views, index) = small(), batch()
    before = algorithm.memory.features.clone()
    with torch.no_grad():
        algorithm(views, index, mode="loss")
    algorithm.after_step(Clock(1, 1, 1))
    assert torch.equal(algorithm.memory.features, before)


def test_backward_reaches_every_parameter():
    algorithm, (views, index) = small(), batch(H=24, W=40)
    algorithm(views, index, mode="loss")["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in algorithm.parameters())


def test_one_image_is_enough_in_evaluation_mode():
    algorithm, (views, index) = small().eval(), batch(1)
    assert algorithm(views, index, mode="loss")["loss"].isfinite()


def test_agreement_grows_with_training():
    torch.manual_seed(0)
    algorithm, (views, _) = small(head=ContrastiveHead(0.2)), batch(N)
    index, clock = torch.arange(N), Clock(20, 1)
    optimizer, agreement = torch.optim.SGD(algorithm.parameters(), 0.1), []
    for clock.step in range(1, 21):
        losses = algorithm(views, index, mode="loss")
        losses["loss"].backward()
        optimizer.step(), optimizer.zero_grad()
        algorithm.after_step(clock)
        agreement.append(losses["agreement"].item())
    assert agreement[-1] > 0.8 > agreement[0]


def test_state_dict_carries_the_memory():
    first, second, (views, index) = small(), small(), batch()
    first(views, index, mode="loss")
    first.after_step(Clock(1, 1, 1))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.memory.features, second.memory.features)
    assert torch.equal(first.memory.age(), second.memory.age())


def test_default_parts_are_the_papers():
    algorithm = NPID(get_resnet("resnet18", stem_type="small"), length=10)
    assert (algorithm.neck.input_dim, algorithm.neck.output_dim) == (512, 128)
    assert algorithm.head.temperature == 0.07 and algorithm.num_negatives == 65536
    assert algorithm.memory.features.shape == (10, 128) and algorithm.memory.momentum == 0.5
    assert (NPID.views, NPID.targets) == ("one_view", "index")


def test_config_builds_it():
    path = "nenya_nb.models.algorithms.npid."
    algorithm = build(
        {
            "type": path + "NPID",
            "backbone": {"type": "resnet_tiny"},
            "neck": {"type": "LinearNeck", "input_dim": 128, "output_dim": 32},
            "head": {"type": "ContrastiveHead", "temperature": 0.2},
            "memory": {"type": path + "SimpleMemory", "length": 30, "dim": 32, "momentum": 0.9},
            "num_negatives": 4,
        }
    )
    assert algorithm.memory.momentum == 0.9 and algorithm.head.temperature == 0.2


def test_wrong_parts_are_refused():
    with pytest.raises(ValueError, match=r"give length=len\(dataset\)"):
        NPID(resnet_tiny())
    with pytest.raises(ValueError, match="holds 20 rows of 8"):
        NPID(resnet_tiny(), LinearNeck(128, 16), memory=SimpleMemory(N, 8))
    with pytest.raises(ValueError, match="length=21"):
        small(length=21, memory=SimpleMemory(N, 16))
    with pytest.raises(ValueError, match="num_negatives must be at least 1"):
        small(num_negatives=0)
    with pytest.raises(ValueError, match="set backbone.output_dim"):
        NPID(nn.Flatten(), length=N)


def test_the_memory_is_as_wide_as_the_embeddings_of_any_neck():
    algorithm = NPID(resnet_tiny(), nn.Linear(128, 16), length=N)
    assert algorithm.memory.dim == 16 and algorithm(*batch(), mode="loss")["loss"].isfinite()
    assert NPID(resnet_tiny(), nn.Identity(), length=N).memory.dim == 128


def test_wrong_use_is_refused():
    algorithm, (views, index) = small(), batch()
    with pytest.raises(ValueError, match="NPID takes one view of each image, got 2"):
        algorithm(views * 2, index, mode="loss")
    with pytest.raises(ValueError, match="NPID needs targets; they are the images' numbers"):
        algorithm(views, mode="loss")

    class Loader(list):
        dataset = [0] * 21

    with pytest.raises(ValueError, match="use length=21"):
        algorithm.on_epoch_start(Loader(), Clock(1, 1))
