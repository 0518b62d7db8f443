"""MoCo v3 against pytorch-metric-learning, torch's EMA, and the closed forms of its loss."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning import losses as metric
from torch import nn

from nenya_nb.core import Clock, cosine
from nenya_nb.models import MoCoV3ViT, NonLinearNeck, build, dino_vits16, resnet18, resnet_tiny
from nenya_nb.models.algorithms.mocov3 import MoCoV3, MoCoV3Head
from nenya_nb.models.backbones.base import pooled
from nenya_nb.training import build_optimizer

torch.set_num_threads(1)
B = 6
ARCH = {"embed_dims": 24, "num_layers": 2, "num_heads": 2, "feedforward_channels": 48}


def views(count=B):
    return [torch.randn(count, 3, 32, 32), torch.randn(count, 3, 32, 32)]


def heads(width):
    predictor = NonLinearNeck(16, 32, 16, with_last_bn=False)
    neck = NonLinearNeck(width, 32, 16, with_last_bn_affine=False)
    return neck, MoCoV3Head(predictor, 0.2)


def small(**options):
    return MoCoV3(resnet_tiny(), *heads(128), **options)


def small_vit():
    return MoCoV3(MoCoV3ViT(ARCH, 32, 8, stop_grad_conv1=True), *heads(24))


@pytest.mark.parametrize("temperature", [0.1, 0.2, 1.0])
def test_mocov3_loss_matches_metric_learning(temperature):
    algorithm, batch = small().double(), [view.double() for view in views()]
    algorithm.head.temperature = temperature
    frozen = copy.deepcopy(algorithm)
    loss = algorithm(batch, mode="loss")["loss"]
    z, k = [frozen.embed(view) for view in batch], [frozen.momentum_encoder(view) for view in batch]
    q = [frozen.head.predictor(row) for row in z]
    oracle = metric.SelfSupervisedLoss(metric.NTXentLoss(temperature), symmetric=False)
    expected = 2 * temperature * (oracle(q[0], k[1]) + oracle(q[1], k[0]))
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_mocov3_collapsed_embeddings_give_the_guess(temperature):
    algorithm = small()
    algorithm.head.predictor, algorithm.head.temperature = nn.Identity(), temperature
    algorithm.neck = algorithm.momentum_encoder.neck = Constant()
    loss = algorithm(views(), mode="loss")["loss"]
    assert math.isclose(loss.item(), 4 * temperature * math.log(B), rel_tol=1e-5)


class Constant(nn.Module):
    def forward(self, x):
        return torch.ones(len(x), 16)


def test_mocov3_head_perfect_answers():
    head = MoCoV3Head(nn.Identity(), 0.5)
    logits, labels = head(3 * torch.eye(B), 7 * torch.eye(B))  # any length
    assert labels.tolist() == list(range(B))
    expected = math.log(1 + (B - 1) * math.exp(-2))
    assert math.isclose(F.cross_entropy(logits, labels).item(), expected, rel_tol=1e-5)


def test_mocov3_swapped_views_give_the_same_loss():
    algorithm, batch = small().double(), [view.double() for view in views()]
    loss = algorithm(batch, mode="loss")["loss"]
    torch.testing.assert_close(algorithm(batch[::-1], mode="loss")["loss"], loss)


def test_mocov3_targets_get_no_gradient():
    z, k = torch.randn(B, 16, requires_grad=True), torch.randn(B, 16, requires_grad=True)
    F.cross_entropy(*small().head(z, k)).backward()
    assert z.grad.abs().sum() > 0 and k.grad is None


def test_mocov3_predictor_is_not_averaged():
    names = [name for name, _ in small().momentum_encoder.named_parameters()]
    assert names and not any("predictor" in name for name in names)


def test_mocov3_momentum_rises_to_one():
    algorithm, clock = small(base_momentum=0.5), Clock(4, 1)
    slow = algorithm.momentum_encoder.backbone.conv1.weight
    fast = algorithm.backbone.conv1.weight
    for done in range(1, 5):
        with torch.no_grad():
            fast += 1
        expected = slow.lerp(fast, 1 - cosine(0.5, 1.0, done / 4)).detach().clone()
        clock.step = done
        algorithm.after_step(clock)
        torch.testing.assert_close(slow, expected)
    last = slow.clone()
    with torch.no_grad():
        fast += 1
    algorithm.after_step(clock)  # the run is over: m is 1
    assert torch.equal(slow, last)


# ---------------------------------------------------------------- transformers


def test_mocov3_vit_patch_projection_stays_as_it_was_drawn():
    algorithm = small_vit()
    first = algorithm.backbone.patch_embed.proj.weight.clone()
    optimizer, clock = build_optimizer("adamw", algorithm, 1e-2), Clock(3, 1)
    chosen = {p for group in optimizer.param_groups for p in group["params"]}
    assert not chosen & set(algorithm.backbone.patch_embed.parameters())
    assert not chosen & set(algorithm.momentum_encoder.parameters())
    for _ in range(2):
        algorithm(views(), mode="loss")["loss"].backward()
        optimizer.step(), optimizer.zero_grad()
        clock.step += 1
        algorithm.after_step(clock)
    for vit in (algorithm.backbone, algorithm.momentum_encoder.backbone):
        assert torch.equal(vit.patch_embed.proj.weight, first)
    assert algorithm.backbone.patch_embed.proj.weight.grad is None


def test_mocov3_vit_features_are_the_cls_token():
    algorithm, x = small_vit().eval(), views()[0]
    assert algorithm(x).shape == (B, 24)
    torch.testing.assert_close(algorithm(x), algorithm.backbone.forward_feat(x))
    assert algorithm(x, mode="predict").shape == (B, 16)
    wide = torch.randn(1, 3, 32, 48)
    assert algorithm(wide).shape == (1, 24)


def test_mocov3_features_of_any_backbone():
    x = torch.randn(2, 3, 32, 32)
    assert pooled(resnet18(num_classes=0)(x)).shape == (2, 512)
    assert pooled(resnet_tiny()(x)).shape == (2, 128)
    assert pooled(MoCoV3ViT(ARCH, 32, 8)(x)).shape == (2, 24)


def test_mocov3_defaults_follow_the_paper():
    def shape(part):
        return [tuple(m.weight.shape) for m in part.modules() if isinstance(m, nn.Linear)]

    def affine(part):
        return [m.affine for m in part.modules() if isinstance(m, nn.BatchNorm1d)]

    vit = MoCoV3(dino_vits16(img_size=32))
    assert shape(vit.neck) == [(4096, 384), (4096, 4096), (256, 4096)]
    assert shape(vit.head.predictor) == [(4096, 256), (256, 4096)]
    assert affine(vit.neck) == [True, True, False] and affine(vit.head.predictor) == [True, False]
    assert vit.head.temperature == 0.2
    net = MoCoV3(resnet_tiny())
    assert shape(net.neck) == [(4096, 128), (256, 4096)] and affine(net.neck) == [True, False]
    assert affine(net.head.predictor) == [True] and net.head.temperature == 1.0
    assert not any(m.bias is not None for m in net.neck.modules() if isinstance(m, nn.Linear))
    assert net.base_momentum == 0.99 and MoCoV3.views == "asymmetric_views"


# ---------------------------------------------------------------- state, config, errors


def test_mocov3_state_dict_round_trip():
    first, second, x = small_vit(), small_vit(), views()[0]
    first(views(), mode="loss")
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.eval()(x), second.eval()(x))


def test_mocov3_from_a_config():
    neck = {"type": "NonLinearNeck", "input_dim": 24, "hidden_dim": 32, "output_dim": 16}
    predictor = {"type": "NonLinearNeck", "input_dim": 16, "hidden_dim": 8, "output_dim": 16}
    module = "nenya_nb.models.algorithms.mocov3."
    vit = {"type": "MoCoV3ViT", "arch": ARCH, "img_size": 32, "patch_size": 8}
    config = {
        "type": module + "MoCoV3",
        "backbone": vit,
        "neck": neck,
        "head": {"type": module + "MoCoV3Head", "predictor": predictor, "temperature": 0.3},
        "base_momentum": 0.9,
    }
    algorithm = build(config)
    assert algorithm(views(), mode="loss")["loss"].isfinite()
    assert algorithm.head.temperature == 0.3 and algorithm.base_momentum == 0.9


def test_mocov3_diagnostics_are_cosines():
    algorithm = small()
    assert algorithm.diagnostics() == {}
    algorithm(views(), mode="loss")
    found = algorithm.diagnostics()
    assert found["z"].shape == (2 * B, 16) and found["similarity"].shape == (B, B)
    assert found["similarity"].abs().max() <= 1 + 1e-5


def test_mocov3_refuses():
    with pytest.raises(ValueError, match="momentum is between 0 and 1, got 2"):
        small(base_momentum=2)
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        MoCoV3Head(nn.Identity(), 0)
    with pytest.raises(ValueError, match="MoCoV3 compares two views of each image, got 1"):
        small()(views()[:1], mode="loss")
    with pytest.raises(ValueError, match="set backbone.output_dim"):
        MoCoV3(nn.Flatten())
    with pytest.raises(ValueError, match="neck expects 64"):
        MoCoV3(resnet_tiny(), NonLinearNeck(64, 8, 8))
