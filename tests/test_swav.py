"""SwAV: balanced assignments against lightly's, swapped prediction, frozen prototypes, queues, many crops."""

import math

import pytest
import torch
import torch.nn.functional as F
from lightly.loss.swav_loss import SwaVLoss as LightlySwAVLoss
from lightly.loss.swav_loss import sinkhorn as lightly_sinkhorn
from torch import nn

from nenya_nb.core import Clock
from nenya_nb.models import build, mlp, resnet_tiny
from nenya_nb.models.algorithms import swav
from nenya_nb.models.algorithms.swav import (
    SwAV,
    SwAVHead,
    SwAVLoss,
    SwAVNeck,
    multi_crop_features,
    sinkhorn,
)

torch.set_num_threads(1)
B, K = 8, 5


def cosines(*shape):
    return torch.rand(*shape, dtype=torch.float64) * 2 - 1


def small(**options):
    return SwAV(resnet_tiny(), SwAVNeck(128, 32, 16), SwAVHead(16, K), **options)


def views(sizes=(32, 32, 16), batch=B):
    return [torch.randn(batch, 3, size, size) for size in sizes]


def step(algorithm, optimizer, clock, sizes=(32, 32)):
    losses = algorithm(views(sizes), mode="loss")
    losses["loss"].backward()
    algorithm.before_step(clock)
    optimizer.step(), optimizer.zero_grad()
    clock.step += 1
    algorithm.after_step(clock)
    return losses


# ---------------------------------------------------------------- sinkhorn


@pytest.mark.parametrize("shape", [(8, 5), (3, 40), (1, 4), (64, 64)])
@pytest.mark.parametrize("iterations", [1, 3, 10])
@pytest.mark.parametrize("epsilon", [0.05, 0.5])
def test_sinkhorn_matches_lightly(shape, iterations, epsilon):
    torch.manual_seed(0)
    scores = cosines(*shape)
    ours = sinkhorn(scores, epsilon, iterations)
    torch.testing.assert_close(ours, lightly_sinkhorn(scores, iterations, epsilon))


def test_sinkhorn_balances():
    torch.manual_seed(0)
    q = sinkhorn(cosines(60, 6), 0.2, 100)
    torch.testing.assert_close(q.sum(1), torch.ones(60).double())
    torch.testing.assert_close(q.sum(0), torch.full((6,), 10.0).double(), rtol=1e-4, atol=0)


def test_sinkhorn_without_iterations_is_softmax():
    scores = cosines(B, K)
    torch.testing.assert_close(sinkhorn(scores, 0.1, 0), (scores / 0.1).softmax(1))


def test_sinkhorn_is_safe_where_the_exponential_is_not():
    scores = 1000 * torch.randn(B, K)
    assert lightly_sinkhorn(scores).isnan().any()
    q = sinkhorn(scores)
    assert q.isfinite().all()
    torch.testing.assert_close(q.sum(1), torch.ones(B))
    assert sinkhorn(scores.half() / 1000).dtype == torch.float32


def test_sinkhorn_ignores_the_scale_of_a_row_and_a_column():
    scores = cosines(B, K)
    moved = scores + cosines(B, 1)
    torch.testing.assert_close(sinkhorn(moved, 0.1, 500), sinkhorn(scores, 0.1, 500))
    moved = scores + cosines(1, K)
    torch.testing.assert_close(sinkhorn(moved, 0.1, 3), sinkhorn(scores, 0.1, 3))


def test_sinkhorn_leaves_out_rows_that_do_not_count():
    scores, counted = cosines(B, K), torch.arange(B) < 5
    q = sinkhorn(scores, counted=counted)
    torch.testing.assert_close(q[:5], sinkhorn(scores[:5]))
    torch.testing.assert_close(q.sum(1), torch.ones(B).double())


def test_sinkhorn_carries_no_gradient():
    assert not sinkhorn(torch.zeros(B, K, requires_grad=True)).requires_grad


@pytest.mark.parametrize("settings", [dict(epsilon=0.0), dict(iterations=-1)])
def test_sinkhorn_refuses_impossible_settings(settings):
    with pytest.raises(ValueError, match="sinkhorn"):
        sinkhorn(torch.zeros(B, K), **settings)


# ---------------------------------------------------------------- loss


@pytest.mark.parametrize("small_views", [0, 1, 4])
def test_loss_matches_lightly_and_its_gradient(small_views):
    torch.manual_seed(0)
    scores = [cosines(B, K).requires_grad_() for _ in range(2 + small_views)]
    theirs = LightlySwAVLoss()(scores[:2], scores[2:]).squeeze()
    expected = torch.autograd.grad(theirs, scores)
    ours = SwAVLoss()(scores)
    torch.testing.assert_close(ours, theirs)
    for mine, other in zip(torch.autograd.grad(ours, scores), expected, strict=True):
        torch.testing.assert_close(mine, other)


def test_loss_matches_lightly_with_a_queue():
    scores, queued = [cosines(B, K) for _ in range(4)], [cosines(24, K) for _ in range(2)]
    theirs = LightlySwAVLoss(temperature=0.2, sinkhorn_epsilon=0.1, sinkhorn_iterations=5)
    ours = SwAVLoss(temperature=0.2, epsilon=0.1, sinkhorn_iterations=5)
    expected = theirs(scores[:2], scores[2:], queued).squeeze()
    torch.testing.assert_close(ours(scores, ours.codes(scores, queued)), expected)
    off = ours.codes(scores, queued, torch.tensor(False))  # the queue is not full yet
    torch.testing.assert_close(off, ours.codes(scores))


def test_loss_of_equal_scores_is_ln_k():
    scores = [torch.full((B, K), 0.3)] * 3
    assert math.isclose(SwAVLoss()(scores).item(), math.log(K), rel_tol=1e-6)


def test_loss_does_not_see_the_order_of_the_large_views():
    a, b, c = (cosines(B, K) for _ in range(3))
    torch.testing.assert_close(SwAVLoss()([a, b, c]), SwAVLoss()([b, a, c]))


def test_loss_codes_are_balanced_over_processes(monkeypatch):
    mine, others = [cosines(B, K) for _ in range(2)], [cosines(B, K) for _ in range(2)]
    joined = [torch.cat(pair) for pair in zip(others, mine, strict=True)]
    expected = SwAVLoss().codes(joined)
    waiting = iter(joined)
    monkeypatch.setattr(swav, "gather", lambda z: next(waiting))
    monkeypatch.setattr(swav, "rank", lambda: 1)
    for ours, everyone in zip(SwAVLoss().codes(mine), expected, strict=True):
        torch.testing.assert_close(ours, everyone[B:])


def test_loss_refuses_what_cannot_be():
    with pytest.raises(ValueError, match="temperature=0"):
        SwAVLoss(temperature=0)
    with pytest.raises(ValueError, match="1 views cannot predict"):
        SwAVLoss()([cosines(B, K)])
    with pytest.raises(ValueError, match=r"codes of views \[0, 3\]"):
        SwAVLoss(crops_for_assign=[0, 3])([cosines(B, K)] * 3)


# ---------------------------------------------------------------- many crops


class Spy(nn.Module):
    output_dim = 3

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x):
        self.calls.append(tuple(x.shape))
        return x.mean((2, 3))


def test_multi_crop_asks_once_for_each_size_and_keeps_the_order():
    spy, crops = Spy(), views((32, 16, 32, 16, 24))
    features = multi_crop_features(spy, crops)
    assert spy.calls == [(2 * B, 3, 32, 32), (2 * B, 3, 16, 16), (B, 3, 24, 24)]
    torch.testing.assert_close(features, torch.cat([view.mean((2, 3)) for view in crops]))


def test_multi_crop_takes_views_that_are_not_square_and_maps():
    crops = [torch.randn(2, 3, 32, 24), torch.randn(2, 3, 16, 40)]
    network = nn.Conv2d(3, 7, 3)
    expected = torch.cat([network(crop).mean((2, 3)) for crop in crops])
    torch.testing.assert_close(multi_crop_features(network, crops), expected)


# ---------------------------------------------------------------- parts


def test_neck_gives_unit_length():
    z = SwAVNeck(12, 20, 6)(torch.randn(B, 12))
    torch.testing.assert_close(z.norm(dim=1), torch.ones(B))
    assert SwAVNeck(12, 20, 6, with_l2norm=False)(torch.randn(B, 12, 2, 2)).norm(dim=1).std() > 0.01
    assert sum(p.numel() for p in SwAVNeck(2048, 2048, 128).parameters()) == (
        2049 * 2048 + 2 * 2048 + 2049 * 128
    )


def test_head_scores_are_cosines():
    head, z = SwAVHead(16, K), F.normalize(torch.randn(B, 16), dim=1)
    assert head.prototypes.bias is None
    nn.init.normal_(head.prototypes.weight, std=5)
    directions = head.prototypes.weight.detach().clone()
    head.normalize()
    expected = F.cosine_similarity(z[:, None], directions[None], dim=2)
    torch.testing.assert_close(head(z), expected)
    with pytest.raises(ValueError, match="num_prototypes=0"):
        SwAVHead(16, 0)


# ---------------------------------------------------------------- algorithm


def test_swav_losses_and_their_parts():
    algorithm = small()
    losses = algorithm(views(), mode="loss")
    assert set(losses) == {"loss", "std", "perplexity"}
    assert 1 <= losses["perplexity"] <= K + 1e-4
    found = algorithm.diagnostics()
    assert found["z"].shape == (3 * B, 16) and found["assignments"].shape == (B, K)
    torch.testing.assert_close(found["z"].norm(dim=1), torch.ones(3 * B))
    torch.testing.assert_close(found["usage"].sum(), torch.ones(()))
    q = lightly_sinkhorn(found["scores"])
    torch.testing.assert_close(found["assignments"], q)


def test_swav_loss_is_lightlys_on_the_same_scores():
    algorithm, crops = small().eval(), views((32, 32, 16, 16))
    scores = [algorithm.head(algorithm.embed(view)) for view in crops]
    expected = LightlySwAVLoss()(scores[:2], scores[2:]).squeeze()
    torch.testing.assert_close(algorithm(crops, mode="loss")["loss"], expected)


@pytest.mark.parametrize(("freeze_steps", "frozen"), [(None, 3), (2, 2), (0, 0)])
def test_swav_prototypes_stay_at_first(freeze_steps, frozen):
    torch.manual_seed(0)
    algorithm, clock = small(freeze_steps=freeze_steps), Clock(steps_per_epoch=3, epochs=2)
    optimizer = torch.optim.AdamW(algorithm.parameters(), lr=1e-2, weight_decay=0.1)
    weight = algorithm.head.prototypes.weight
    before, backbone = weight.detach().clone(), algorithm.backbone.conv1.weight.detach().clone()
    for number in range(1, 6):
        step(algorithm, optimizer, clock)
        moved = (weight - before).abs().max() > 1e-4
        assert moved == (number > frozen), number
        torch.testing.assert_close(weight.norm(dim=1), torch.ones(K))
    assert not torch.equal(algorithm.backbone.conv1.weight, backbone)


def test_swav_queue_fills_late_and_counts_when_full():
    torch.manual_seed(0)
    algorithm, clock = small(length=2 * B, queue_epoch=1), Clock(steps_per_epoch=2, epochs=4)
    optimizer = torch.optim.SGD(algorithm.parameters(), lr=0.0)
    written = []
    for _ in range(5):
        step(algorithm, optimizer, clock)
        written.append(algorithm.memory[0].pointer.item())
    assert written == [0, 0, B, 2 * B, 3 * B]
    assert not torch.equal(algorithm.memory[0].features, algorithm.memory[1].features)
    newest = algorithm.memory[1].newest_first()[:B]
    torch.testing.assert_close(newest.flip(0), algorithm.diagnostics()["z"][B : 2 * B])

    crops, plain = views((32, 32)), small().eval()
    plain.load_state_dict({k: v for k, v in algorithm.state_dict().items() if "memory" not in k})
    algorithm.eval()
    scores = [algorithm.head(algorithm.embed(view)) for view in crops]
    queued = [algorithm.head(queue.features) for queue in algorithm.memory]
    expected = LightlySwAVLoss()(scores, [], queued).squeeze()
    torch.testing.assert_close(algorithm(crops, mode="loss")["loss"], expected)
    without = plain(crops, mode="loss")["loss"]
    assert (without - expected).abs() > 1e-4
    for queue in algorithm.memory:
        queue.pointer.fill_(2 * B - 1)  # one row short
    torch.testing.assert_close(algorithm(crops, mode="loss")["loss"], without)


def test_swav_one_image_and_any_number_of_views():
    algorithm = small()
    assert algorithm(views((32, 32), batch=1), mode="loss")["loss"].isfinite()
    assert algorithm(views((32, 32, 16, 16, 20)), mode="loss")["loss"].isfinite()
    assert algorithm.eval()(torch.randn(1, 3, 48, 40)).shape == (1, 128)
    assert algorithm.eval()(torch.randn(2, 3, 32, 32), mode="predict").shape == (2, 16)


def test_swav_without_parts_is_the_papers():
    algorithm = SwAV(resnet_tiny())
    assert algorithm.head.prototypes.weight.shape == (3000, 128)
    assert algorithm.views == {"type": "multi_crop", "num_local": 6} and algorithm.memory is None
    assert (algorithm.loss_fn.temperature, algorithm.loss_fn.epsilon) == (0.1, 0.05)


def test_swav_from_a_configuration_and_back_from_a_checkpoint(tmp_path):
    config = {
        "type": "nenya_nb.models.algorithms.swav.SwAV",
        "backbone": {"type": "resnet_tiny"},
        "neck": {
            "type": "nenya_nb.models.algorithms.swav.SwAVNeck",
            "input_dim": 128,
            "hidden_dim": 32,
            "output_dim": 16,
        },
        "head": {
            "type": "nenya_nb.models.algorithms.swav.SwAVHead",
            "input_dim": 16,
            "num_prototypes": K,
        },
        "loss_fn": {"type": "nenya_nb.models.algorithms.swav.SwAVLoss", "epsilon": 0.1},
        "length": 16,
    }
    first, second = build(config), build(config)
    assert first.loss_fn.epsilon == 0.1 and first.memory[1].length == 16
    clock = Clock(1, 20, step=16)
    step(first, torch.optim.SGD(first.parameters(), lr=0.1), clock)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt"))
    crops = views()
    assert first.memory[0].pointer == B
    losses = [a.eval()(crops, mode="loss")["loss"] for a in (first, second)]
    assert torch.equal(*losses)


def test_swav_refuses_parts_that_do_not_fit():
    with pytest.raises(ValueError, match="neck gives 16 numbers but head expects 32"):
        SwAV(resnet_tiny(), SwAVNeck(128, 32, 16), SwAVHead(32, K))
    with pytest.raises(ValueError, match=r"does not say how wide its features are"):
        SwAV(nn.Flatten())
    assert SwAV(resnet_tiny(), mlp(128, 64)).head.input_dim == 64
    with pytest.raises(ValueError, match="backbone gives 128 features but neck expects 64"):
        SwAV(resnet_tiny(), SwAVNeck(64, 64))


def test_swav_learns_one_batch():
    torch.manual_seed(0)
    algorithm, clock = small(freeze_steps=0), Clock(15, 1)
    optimizer = torch.optim.AdamW(algorithm.parameters(), lr=2e-3)
    first = torch.randn(B, 3, 32, 32)
    crops, losses = [first, first + 0.3 * torch.randn(B, 3, 32, 32)], []
    for _ in range(15):
        loss = algorithm(crops, mode="loss")["loss"]
        loss.backward()
        algorithm.before_step(clock)
        optimizer.step(), optimizer.zero_grad()
        clock.step += 1
        algorithm.after_step(clock)
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
