"""DenseCL against lightly's matching and memory-bank loss, and against MoCo where it must be MoCo."""

import math

import pytest
import timm
import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss as LightlyNTXent
from lightly.models.utils import select_most_similar
from torch import nn

from nenya_nb.core import Clock
from nenya_nb.models import ContrastiveHead, MoCoV3ViT, build, dino_vits16, resnet18, resnet_tiny
from nenya_nb.models.algorithms.densecl import DenseCL, DenseCLNeck, feature_map, match_cells
from nenya_nb.models.algorithms.moco import MoCo, MoCoV2Neck

torch.set_num_threads(1)
B, N = 6, 16


def views(count=B):
    return [torch.randn(count, 3, 32, 32), torch.randn(count, 3, 32, 32)]


def small(num_grid=None, **options):
    return DenseCL(
        resnet_tiny(),
        DenseCLNeck(128, 32, 8, num_grid),
        **{"length": 24, "warmup_steps": 0, **options},
    )


@pytest.mark.parametrize("temperature, weight", [(0.2, 0.5), (0.07, 0.3), (1.0, 1.0)])
def test_densecl_loss_matches_lightly(temperature, weight):
    algorithm = small(head=ContrastiveHead(temperature), loss_lambda=weight).double()
    batch = [view.double() for view in views()]
    losses = algorithm(batch, mode="loss")
    q_map, q, q_cells, _ = algorithm._look(algorithm, batch[0])
    k_map, k, k_cells, _ = algorithm._look(algorithm.momentum_encoder, batch[1])
    rows = [x.flatten(2).transpose(1, 2) for x in (q_map, k_map, k_cells)]  # (B, N, ·)
    answers = select_most_similar(*rows)  # lightly's, (B, N, E)

    def oracle(queries, keys, memory):
        loss = LightlyNTXent(temperature, memory_bank_size=(24, 8))
        loss.memory_bank.bank = memory.features.clone()
        return loss(queries, keys)

    plain = oracle(q, k, algorithm.memory)
    cells = q_cells.transpose(1, 2).flatten(0, 1)
    dense = oracle(cells, answers.flatten(0, 1), algorithm.dense_memory)
    torch.testing.assert_close(losses["loss_global"], plain.detach())
    torch.testing.assert_close(losses["loss_dense"], dense.detach())
    torch.testing.assert_close(losses["loss"], (1 - weight) * plain + weight * dense)


def test_densecl_matching_of_identical_maps_is_the_identity():
    x = torch.randn(3, 20, 4, 5)
    assert torch.equal(match_cells(x, x), torch.arange(20).expand(3, -1))
    assert torch.equal(match_cells(x, 3 * x.flip(3)).unflatten(1, (4, 5)), torch.arange(20).view(4, 5).flip(1).expand(3, 4, 5))  # fmt: skip


def test_densecl_lambda_zero_is_moco():
    dense = small(loss_lambda=0.0)
    moco = MoCo(resnet_tiny(), MoCoV2Neck(128, 32, 8), length=24)
    for ours, theirs in (
        (moco.backbone, dense.backbone),
        (moco.neck.layers, dense.neck.layers),
        (moco.momentum_encoder.backbone, dense.momentum_encoder.backbone),
        (moco.momentum_encoder.neck.layers, dense.momentum_encoder.neck.layers),
        (moco.memory, dense.memory),
    ):
        ours.load_state_dict(theirs.state_dict())
    clock = Clock(3, 1)
    optimizers = [torch.optim.SGD(a.parameters(), lr=0.1) for a in (dense, moco)]
    for _ in range(3):
        batch, losses = views(), []
        for algorithm, optimizer in zip((dense, moco), optimizers, strict=True):
            loss = algorithm(batch, mode="loss")["loss"]
            loss.backward()
            optimizer.step(), optimizer.zero_grad()
            algorithm.after_step(clock)
            losses.append(loss.detach())
        torch.testing.assert_close(*losses)
    torch.testing.assert_close(dense.memory.features, moco.memory.features)
    torch.testing.assert_close(dense.backbone.state_dict(), moco.backbone.state_dict())


def test_densecl_gradients_of_the_parts():
    algorithm = small()
    algorithm(views(), mode="loss")["loss"].backward()
    for name, p in algorithm.named_parameters():
        assert (p.grad is None) == name.startswith("momentum_encoder."), name
    for weight, silent in ((0.0, "dense_layers"), (1.0, "neck.layers")):
        algorithm = small(loss_lambda=weight)
        algorithm(views(), mode="loss")["loss"].backward()
        for name, p in algorithm.named_parameters():
            if not name.startswith("momentum_encoder."):
                assert (p.grad.abs().sum() == 0) == (silent in name), name


def test_densecl_queues_store_pictures_and_pooled_cells():
    algorithm, batch = small(), views()
    algorithm(batch, mode="loss")["loss"].backward()
    before = [algorithm.memory.features.clone(), algorithm.dense_memory.features.clone()]
    k = algorithm.diagnostics()["k"]
    algorithm.eval()  # the same keys once more need the same statistics
    algorithm.after_step(Clock(1, 1))
    torch.testing.assert_close(algorithm.memory.features[:B], k)
    for memory, old in zip((algorithm.memory, algorithm.dense_memory), before, strict=True):
        assert memory.pointer == B and torch.equal(memory.features[B:], old[B:])
        torch.testing.assert_close(memory.features.norm(dim=1), torch.ones(24))


def test_densecl_second_queue_holds_the_mean_of_the_cells():
    algorithm, batch = small().eval(), views()
    algorithm.training = True
    algorithm(batch, mode="loss")["loss"].backward()
    slow = algorithm.momentum_encoder
    cells = slow.neck.dense_layers(feature_map(slow.backbone, batch[1]))
    expected = F.normalize(cells.mean((2, 3)), dim=1)
    algorithm.after_step(Clock(1, 1))
    torch.testing.assert_close(algorithm.dense_memory.features[:B], expected)


def test_densecl_warm_up_switches_lambda_and_survives_a_checkpoint():
    algorithm, clock, weights = small(warmup_steps=2, loss_lambda=0.4), Clock(5, 1), []
    for _ in range(4):
        losses = algorithm(views(), mode="loss")
        weights.append(algorithm.dense_weight.item())
        mixed = torch.lerp(losses["loss_global"], losses["loss_dense"], algorithm.dense_weight)
        torch.testing.assert_close(losses["loss"].detach(), mixed)
        clock.step += 1
        algorithm.after_step(clock)
    assert weights == pytest.approx([0, 0, 0.4, 0.4])
    resumed = small(warmup_steps=2, loss_lambda=0.4)
    resumed.load_state_dict(algorithm.state_dict())
    assert resumed.dense_weight == algorithm.dense_weight


# ---------------------------------------------------------------- maps and grids


@pytest.mark.parametrize("size, cells", [(32, 16), (56, 49), (24, 9)])
def test_densecl_shapes_for_grids(size, cells):
    algorithm = small()
    losses = algorithm([torch.randn(2, 3, size, size)] * 2, mode="loss")
    assert losses["loss"].isfinite() and algorithm.diagnostics()["match"].shape == (2, cells)


def test_densecl_views_of_different_sizes():
    algorithm = small(num_grid=3)
    batch = [torch.randn(2, 3, 32, 48), torch.randn(2, 3, 24, 40)]
    assert algorithm(batch, mode="loss")["loss"].isfinite()
    match = algorithm.diagnostics()["match"]
    assert match.shape == (2, 9) and match.max() < 9


def test_densecl_neck_shapes_and_means():
    x = torch.randn(2, 12, 4, 6)
    whole, cells, mean = DenseCLNeck(12, 8, 5)(x)
    assert whole.shape == (2, 5) and cells.shape == (2, 5, 24) and mean.shape == (2, 5)
    torch.testing.assert_close(mean, cells.mean(2))
    assert DenseCLNeck(12, 8, 5, num_grid=2)(x)[1].shape == (2, 5, 4)
    with pytest.raises(ValueError, match=r"takes maps \(B, D, h, w\), got \[2, 12\]"):
        DenseCLNeck(12, 8, 5)(torch.zeros(2, 12))


ARCH = {"embed_dims": 24, "num_layers": 2, "num_heads": 2, "feedforward_channels": 48}


@pytest.mark.parametrize(
    "build_backbone, shape",
    [
        (resnet_tiny, (128, 4, 4)),  # its forward averages the map
        (lambda: resnet18(num_classes=0), (512, 1, 1)),
        (lambda: dino_vits16(img_size=32), (384, 2, 2)),
        (lambda: MoCoV3ViT(ARCH, 32, 8), (24, 4, 4)),
        (lambda: timm.create_model("resnet18", num_classes=0, global_pool=""), (512, 1, 1)),
    ],
)
def test_feature_map_of_backbones(build_backbone, shape):
    assert feature_map(build_backbone(), torch.randn(2, 3, 32, 32)).shape == (2, *shape)


def test_feature_map_averages_to_the_features():
    backbone, x = resnet_tiny().eval(), torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(feature_map(backbone, x).mean((2, 3)), backbone(x))


def test_feature_map_refuses_features():
    backbone = timm.create_model("resnet18", num_classes=0)
    with pytest.raises(ValueError, match=r"ResNet gives \[2, 512\]; build it without its pool"):
        feature_map(backbone, torch.zeros(2, 3, 32, 32))


# ---------------------------------------------------------------- state, config, errors


def test_densecl_predicts_the_pictures_embedding():
    algorithm, x = small().eval(), views()[0]
    assert algorithm(x).shape == (B, 128) and algorithm(x, mode="predict").shape == (B, 8)


def test_densecl_shuffled_parts_give_the_same_in_eval_mode():
    plain, batch = small().eval(), views(8)
    split = small(num_splits=4).eval()
    split.load_state_dict(plain.state_dict())
    losses = [a(batch, mode="loss")["loss"] for a in (plain, split)]
    torch.testing.assert_close(*losses)


def test_densecl_state_dict_round_trip():
    first, second, x = small(), small(), views()[0]
    first(views(), mode="loss")
    first.after_step(Clock(1, 1))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.eval()(x), second.eval()(x))
    assert torch.equal(first.dense_memory.age(), second.dense_memory.age())


def test_densecl_from_a_config():
    module = "nenya_nb.models.algorithms.densecl."
    neck = {"type": module + "DenseCLNeck", "input_dim": 128, "hidden_dim": 8, "output_dim": 4}
    config = {
        "type": module + "DenseCL",
        "backbone": {"type": "resnet_tiny"},
        "neck": neck,
        "length": 32,
        "loss_lambda": 0.7,
        "warmup_steps": 10,
    }
    algorithm = build(config)
    assert algorithm(views(), mode="loss")["loss"].isfinite() and algorithm.loss_lambda == 0.7


def test_densecl_defaults():
    algorithm = DenseCL(resnet_tiny(), length=8)
    assert isinstance(algorithm.neck, DenseCLNeck) and algorithm.head.temperature == 0.2
    assert algorithm.warmup_steps == 1000 and algorithm.dense_weight == 0  # as in the paper's code
    assert algorithm.memory.features.shape == algorithm.dense_memory.features.shape == (8, 128)
    at_once = DenseCL(resnet_tiny(), length=8, warmup_steps=0)
    assert math.isclose(at_once.dense_weight.item(), 0.5) and algorithm.views == "two_views"


def test_densecl_refuses():
    with pytest.raises(ValueError, match="loss_lambda is between 0 and 1, got 2"):
        small(loss_lambda=2)
    with pytest.raises(ValueError, match="DenseCL compares two views of each image, got 3"):
        small()([torch.zeros(2, 3, 32, 32)] * 3, mode="loss")
    with pytest.raises(ValueError, match="DenseCL: .* set backbone.output_dim"):
        DenseCL(nn.Flatten())
    with pytest.raises(ValueError, match="neck expects 64"):
        DenseCL(resnet_tiny(), DenseCLNeck(64, 8, 8))
