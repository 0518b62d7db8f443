"""MoCo against lightly's memory-bank loss, its queue, its slow encoder, and shuffling over two processes."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss as LightlyNTXent
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from two_processes import in_two_processes, shuffle_numbers

from nenya_nb.core import Clock
from nenya_nb.models import (
    ContrastiveHead,
    LinearNeck,
    NonLinearNeck,
    build,
    resnet18,
    resnet_tiny,
)
from nenya_nb.models.algorithms.moco import MoCo, MoCoV2Neck, embedding_dim, encode_shuffled

torch.set_num_threads(1)
B = 6


def views(count=B):
    return [torch.randn(count, 3, 32, 32), torch.randn(count, 3, 32, 32)]


def small(**options):
    return MoCo(resnet_tiny(), MoCoV2Neck(128, 32, 16), **{"length": 24, **options})


def step(algorithm, optimizer, clock, batch):
    losses = algorithm(batch, mode="loss")
    losses["loss"].backward()
    algorithm.before_step(clock)
    optimizer.step(), optimizer.zero_grad()
    clock.step += 1
    algorithm.after_step(clock)
    return losses


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_moco_loss_matches_lightly(temperature):
    algorithm = small(head=ContrastiveHead(temperature)).double()
    batch = [view.double() for view in views()]
    losses = algorithm(batch, mode="loss")
    found = algorithm.diagnostics()
    oracle = LightlyNTXent(temperature, memory_bank_size=(24, 16))
    oracle.memory_bank.bank = algorithm.memory.features.clone()
    expected = oracle(found["q"], found["k"])
    torch.testing.assert_close(losses["loss"].detach(), expected)


def test_moco_equal_similarities_give_log_of_candidates():
    algorithm = small()
    q = F.normalize(torch.ones(B, 16), dim=1)
    algorithm.memory.features.copy_(q[:1].expand(24, -1))
    loss, accuracy = algorithm.contrast(q, q, algorithm.memory)
    assert math.isclose(loss.item(), math.log(25), rel_tol=1e-5) and accuracy == 1


def test_moco_perfect_answers_give_the_smallest_loss():
    algorithm = small(head=ContrastiveHead(0.5))
    q = torch.eye(16)[:B]
    algorithm.memory.features.copy_(torch.eye(16)[15].expand(24, -1))  # right angles to all
    loss, accuracy = algorithm.contrast(q, q, algorithm.memory)
    assert math.isclose(loss.item(), math.log(1 + 24 * math.exp(-2)), rel_tol=1e-5)
    assert accuracy == 1
    algorithm.memory.features.copy_(q[:1].expand(24, -1))
    loss, accuracy = algorithm.contrast(q, torch.roll(q, 1, 0), algorithm.memory)
    assert math.isclose(accuracy.item(), (B - 1) / B, rel_tol=1e-5)  # ties count as found


def test_moco_compares_with_the_old_queue_then_enqueues():
    algorithm, batch = small(), views()
    before = algorithm.memory.features.clone()
    algorithm(batch, mode="loss")["loss"].backward()
    assert torch.equal(algorithm.memory.features, before)
    k = algorithm.diagnostics()["k"]
    algorithm.after_step(Clock(1, 1))
    torch.testing.assert_close(algorithm.memory.features[:B], k)
    assert torch.equal(algorithm.memory.features[B:], before[B:])


def test_moco_accumulated_batches_see_one_queue_and_enter_together():
    algorithm, first, second = small().eval(), views(2), views(3)
    for module in (algorithm, algorithm.memory):
        module.training = True  # BatchNorm stays in eval mode: batches do not mix
    before, keys = algorithm.memory.features.clone(), []
    for batch in (first, second):
        algorithm(batch, mode="loss")["loss"].backward()
        keys.append(algorithm.diagnostics()["k"])
        assert torch.equal(algorithm.memory.features, before)
    algorithm.after_step(Clock(1, 1))
    torch.testing.assert_close(algorithm.memory.features[:5], torch.cat(keys))


def test_moco_in_eval_mode_leaves_its_state_alone():
    algorithm = small().eval()
    before = copy.deepcopy(algorithm.state_dict())
    algorithm(views(), mode="loss")
    algorithm.memory.release()
    assert all(torch.equal(value, before[name]) for name, value in algorithm.state_dict().items())


def test_moco_trains_all_of_the_query_encoder():
    for name, p in small().named_parameters():
        assert p.requires_grad != name.startswith("momentum_encoder."), name


def test_moco_slow_encoder_matches_torch_ema():
    algorithm = small(momentum=0.9)
    both = nn.ModuleList([algorithm.backbone, algorithm.neck])
    oracle = AveragedModel(both, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    oracle.update_parameters(both)  # torch's first update is a copy
    optimizer, clock = torch.optim.SGD(algorithm.parameters(), lr=0.1), Clock(5, 1)
    for _ in range(3):
        step(algorithm, optimizer, clock, views())
        oracle.update_parameters(both)
    slow = nn.ModuleList([algorithm.momentum_encoder.backbone, algorithm.momentum_encoder.neck])
    for ours, theirs in zip(slow.parameters(), oracle.module.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_moco_extreme_momentum(momentum):
    algorithm = small(momentum=momentum)
    start = copy.deepcopy(algorithm.momentum_encoder)
    step(algorithm, torch.optim.SGD(algorithm.parameters(), lr=0.1), Clock(5, 1), views())
    expected = algorithm if momentum == 0 else start
    for part in ("backbone", "neck"):
        pairs = zip(
            getattr(algorithm.momentum_encoder, part).parameters(),
            getattr(expected, part).parameters(),
            strict=True,
        )
        assert all(torch.equal(a, b) for a, b in pairs)


def test_moco_resumes_exactly():
    def run(steps, algorithm, optimizer, clock, losses):
        for batch in steps:
            losses.append(step(algorithm, optimizer, clock, batch)["loss"].item())

    torch.manual_seed(0)
    batches, first, losses = [views() for _ in range(6)], small(momentum=0.9), []
    optimizer, clock = torch.optim.AdamW(first.parameters(), lr=1e-3), Clock(6, 1)
    run(batches[:3], first, optimizer, clock, losses)
    second, again = small(momentum=0.9), []
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    other = torch.optim.AdamW(second.parameters(), lr=1e-3)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(batches[3:], first, optimizer, clock, losses)
    run(batches[3:], second, other, Clock(6, 1, step=3), again)
    assert losses[3:] == again


def test_moco_learns():
    torch.manual_seed(0)
    algorithm, clock, found = small(length=256, momentum=0.95), Clock(40, 1), []
    optimizer = torch.optim.AdamW(algorithm.parameters(), lr=2e-3)
    pictures = torch.randn(40, 16, 3, 32, 32)
    for x in pictures:
        batch = [x + 0.3 * torch.randn_like(x), x + 0.3 * torch.randn_like(x)]
        step(algorithm, optimizer, clock, batch)
        similarity = algorithm.diagnostics()["similarity"]
        found.append((similarity.argmax(1) == torch.arange(16)).float().mean().item())
    assert sum(found[-10:]) / 10 > 0.3  # guessing finds 1 in 16


# ---------------------------------------------------------------- shuffling


@pytest.mark.parametrize("num_splits", [1, 2, 3, 6])
def test_shuffled_rows_come_back_in_order(num_splits):
    x = torch.randn(B, 3, 4, 4)
    flat, mean = encode_shuffled(lambda part: (part.flatten(1), part.mean((2, 3))), x, num_splits)
    assert torch.equal(flat, x.flatten(1)) and torch.equal(mean, x.mean((2, 3)))


def test_shuffled_parts_are_other_images_each_time():
    seen = []

    def encode(part):
        seen.append(part[:, 0, 0, 0].tolist())
        return (part.flatten(1),)

    x = torch.arange(8.0)[:, None, None, None].expand(-1, 3, 4, 4)
    for _ in range(4):
        encode_shuffled(encode, x, num_splits=2)
    assert all(len(part) == 4 for part in seen) and len({tuple(part) for part in seen}) > 4
    assert sorted(seen[0] + seen[1]) == list(range(8))


def test_moco_splits_change_only_what_batch_norm_sees():
    torch.manual_seed(0)
    plain, batch = small(), views(8)
    split = small(num_splits=4)
    split.load_state_dict(plain.state_dict())
    assert not torch.allclose(plain.keys(batch[1]), split.keys(batch[1]), atol=1e-3)
    split.load_state_dict(plain.state_dict())  # the running statistics have moved
    plain.eval(), split.eval()
    torch.testing.assert_close(plain.keys(batch[1]), split.keys(batch[1]))


# ---------------------------------------------------------------- parts and errors


def test_moco_defaults_are_version_two():
    algorithm = MoCo(resnet_tiny())
    widths = [m.weight.shape for m in algorithm.neck.modules() if isinstance(m, nn.Linear)]
    assert [tuple(w) for w in widths] == [(128, 128), (128, 128)]
    assert algorithm.head.temperature == 0.2 and algorithm.momentum == 0.999
    assert algorithm.memory.features.shape == (65536, 128) and MoCo.views == "two_views"
    assert not any(isinstance(m, nn.BatchNorm1d) for m in algorithm.neck.modules())


def test_moco_v1_from_a_config():
    config = {
        "type": "nenya_nb.models.algorithms.moco.MoCo",
        "backbone": {"type": "resnet_tiny"},
        "neck": {"type": "LinearNeck", "input_dim": 128, "output_dim": 32},
        "head": {"type": "ContrastiveHead", "temperature": 0.07},
        "length": 64,
        "momentum": 0.99,
    }
    algorithm = build(config)
    assert isinstance(algorithm, MoCo) and isinstance(algorithm.neck, LinearNeck)
    assert algorithm.memory.features.shape == (64, 32) and algorithm.momentum == 0.99


@pytest.mark.parametrize(
    "neck, dim",
    [
        (nn.Identity(), 128),
        (nn.Sequential(nn.Linear(128, 8), nn.ReLU(), nn.Linear(8, 4)), 4),
        (LinearNeck(128, 5), 5),
    ],
)
def test_moco_queue_is_as_wide_as_the_embeddings(neck, dim):
    algorithm = MoCo(resnet_tiny(), neck, length=8)
    assert algorithm.memory.dim == dim
    assert algorithm(views(), mode="loss")["loss"].isfinite()


def test_moco_takes_maps_one_image_and_other_shapes():
    algorithm = MoCo(resnet18(num_classes=0), length=8).eval()
    batch = [torch.randn(1, 3, 40, 56), torch.randn(1, 3, 40, 56)]
    assert algorithm(batch, mode="loss")["loss"].isfinite()
    assert algorithm(batch[0]).shape == (1, 512)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"momentum": 1.5}, "momentum is between 0 and 1, got 1.5"),
        ({"num_splits": 0}, "num_splits must be at least 1, got 0"),
        ({"length": 0}, "length=0"),
        ({"neck": MoCoV2Neck(64, 8, 8)}, "backbone gives 128 features but neck expects 64"),
    ],
)
def test_moco_refuses(options, text):
    with pytest.raises(ValueError, match=text):
        MoCo(resnet_tiny(), **options)


def test_moco_refuses_other_numbers_of_views_and_short_queues():
    with pytest.raises(ValueError, match="MoCo compares two views of each image, got 3"):
        small()([torch.zeros(2, 3, 32, 32)] * 3, mode="loss")
    algorithm = small(length=4)
    algorithm(views(), mode="loss")
    with pytest.raises(ValueError, match="use length=6 or more"):
        algorithm.after_step(Clock(1, 1))


def test_moco_asks_for_the_width():
    with pytest.raises(ValueError, match="MoCo: .* set backbone.output_dim"):
        MoCo(nn.Flatten())
    with pytest.raises(ValueError, match="set its output_dim"):
        embedding_dim(nn.Identity(), None)


# ---------------------------------------------------------------- several processes


def test_two_processes_shuffle_and_sort_back(tmp_path):
    results = in_two_processes(shuffle_numbers, tmp_path, 2)
    numbers, means = torch.cat(results).unbind(1)
    assert numbers.tolist() == [0, 1, 2, 3]
    assert len(set(means.tolist())) <= 2  # two groups of two
    assert math.isclose(means.sum().item(), 6.0)  # 1.5 on average: nobody counts twice


def test_moco_takes_a_neck_without_weights():
    algorithm, clock = MoCo(resnet_tiny(), nn.Identity(), length=8), Clock(2, 1)
    algorithm([torch.randn(4, 3, 32, 32)] * 2, mode="loss")["loss"].backward()
    nn.init.zeros_(algorithm.backbone.conv1.weight)
    clock.step += 1
    algorithm.after_step(clock)
    assert algorithm.memory.pointer == 4 and algorithm.memory.dim == 128


def test_moco_says_how_large_a_batch_its_parts_need():
    "Two parts of two images leave one for each BatchNorm."
    algorithm = MoCo(resnet_tiny(), NonLinearNeck(128, 16, 8), length=8, num_splits=2)
    with pytest.raises(
        ValueError, match="in one of its 2 parts there is only one.* batch_size of 4"
    ):
        algorithm([torch.randn(2, 3, 32, 32)] * 2, mode="loss")
