"""Necks by their parameter counts and switches, the contrastive head against independent code, the other heads."""

import math

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import NTXentLoss as MetricNTXent
from pytorch_metric_learning.losses import SelfSupervisedLoss
from torch import nn

from nenya_nb.models.config import build
from nenya_nb.models.heads import ClsHead, ContrastiveHead, LatentPredictHead
from nenya_nb.models.necks import AvgPool2dNeck, LinearNeck, NonLinearNeck, mlp

torch.set_num_threads(1)


def kinds(sequence):
    return [type(layer).__name__ for layer in sequence]


@pytest.mark.parametrize("dims", [(), (4,), (4, 0), (4, -1, 2)])
def test_mlp_refuses_wrong_widths(dims):
    with pytest.raises(ValueError, match="two or more positive widths"):
        mlp(*dims)


def test_mlp_builds_in_order():
    net = mlp(8, 16, 32, 4, norm=nn.BatchNorm1d, activation=nn.GELU, bias=False, last_bias=False)
    assert kinds(net) == [*["Linear", "BatchNorm1d", "GELU"] * 2, "Linear"]
    assert all(layer.bias is None for layer in net if isinstance(layer, nn.Linear))
    assert net(torch.randn(3, 8)).shape == (3, 4)


@pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("with_last_bn", [True, False])
@pytest.mark.parametrize("with_last_bias", [True, False])
def test_non_linear_neck_switches(num_layers, with_bias, with_last_bn, with_last_bias):
    neck = NonLinearNeck(
        6,
        5,
        4,
        num_layers,
        with_bias=with_bias,
        with_last_bn=with_last_bn,
        with_last_bias=with_last_bias,
    )
    hidden = ["Linear", "BatchNorm1d", "ReLU"] * (num_layers - 1)
    assert kinds(neck.layers) == hidden + ["Linear"] + ["BatchNorm1d"] * with_last_bn
    *first, last = [layer for layer in neck.layers if isinstance(layer, nn.Linear)]
    assert all((layer.bias is not None) == with_bias for layer in first)
    assert (last.bias is not None) == with_last_bias
    assert neck(torch.randn(3, 6)).shape == (3, 4) and (neck.input_dim, neck.output_dim) == (6, 4)


def test_non_linear_neck_without_affine_has_no_scale():
    neck = NonLinearNeck(6, 5, 4, with_last_bn_affine=False)
    assert neck.layers[-1].weight is None and neck.layers[1].weight is not None


def test_non_linear_neck_parameter_count_of_simclr():
    count = sum(p.numel() for p in NonLinearNeck(2048, 2048, 128).parameters())
    assert count == 2048 * 2048 + 2 * 2048 + 2048 * 128 + 2 * 128


def test_non_linear_neck_refuses_no_layers():
    with pytest.raises(ValueError, match="at least 1"):
        NonLinearNeck(4, 4, 4, num_layers=0)


@pytest.mark.parametrize("neck", [NonLinearNeck(6, 5, 4), LinearNeck(6, 4)], ids=["mlp", "linear"])
def test_neck_pools_maps(neck):
    maps = torch.randn(5, 6, 3, 2)
    torch.testing.assert_close(neck.eval()(maps), neck(maps.mean((2, 3))))
    torch.testing.assert_close(neck((None, maps)), neck(maps))  # a tuple of maps: the last counts
    with pytest.raises(ValueError, match="got 3D"):
        neck(torch.randn(2, 6, 3))


def test_head_forward_puts_the_answer_first():
    pos, neg = torch.randn(5, 1), torch.randn(5, 7)
    logits, labels = ContrastiveHead(0.5)(pos, neg)
    torch.testing.assert_close(logits, torch.cat([pos, neg], 1) / 0.5)
    assert labels.tolist() == [0] * 5 and labels.dtype == torch.long
    torch.testing.assert_close(ContrastiveHead(0.5)(pos[:, 0], neg)[0], logits)


def test_head_forward_zero_similarity_gives_log_of_candidates():
    loss = F.cross_entropy(*ContrastiveHead()(torch.zeros(4, 1), torch.zeros(4, 30)))
    assert math.isclose(loss.item(), math.log(31), rel_tol=1e-6)


@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("B", [1, 2, 7])
def test_head_pairs_matches_metric_learning(B, temperature):
    z1, z2 = torch.randn(2, B, 9, dtype=torch.float64)
    ours = F.cross_entropy(*ContrastiveHead(temperature).pairs(torch.cat([z1, z2])))
    theirs = SelfSupervisedLoss(MetricNTXent(temperature))(z1, z2)
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)


def test_head_pairs_excludes_itself_only():
    logits, labels = ContrastiveHead().pairs(torch.randn(8, 5))
    assert torch.equal(torch.isinf(logits), torch.eye(8, dtype=torch.bool))
    assert labels.tolist() == [4, 5, 6, 7, 0, 1, 2, 3]


def test_head_pairs_has_finite_gradients():
    z = torch.randn(6, 5, requires_grad=True)
    F.cross_entropy(*ContrastiveHead(0.05).pairs(z)).backward()
    assert z.grad.isfinite().all() and z.grad.abs().sum() > 0


@pytest.mark.parametrize("temperature", [0, -1.0])
def test_head_refuses_temperature(temperature):
    with pytest.raises(ValueError, match="above 0"):
        ContrastiveHead(temperature)


def test_head_pairs_refuses_odd_rows():
    with pytest.raises(ValueError, match="even number of rows, got 5"):
        ContrastiveHead().pairs(torch.randn(5, 3))


# ---------------------------------------------------------------- average pooling


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("shape", [(2, 5, 4, 4), (3, 5, 7, 5), (1, 5, 1, 1)])
def test_avg_pool_neck_matches_torch(size, shape):
    maps = torch.randn(shape)
    expected = nn.AdaptiveAvgPool2d(size)(maps)
    neck = AvgPool2dNeck(size)
    torch.testing.assert_close(neck(maps), expected.flatten(1) if size == 1 else expected)
    torch.testing.assert_close(neck((None, maps)), neck(maps))  # of several maps the last
    assert not list(neck.parameters())


def test_avg_pool_neck_lets_features_pass_or_says_why_not():
    features = torch.randn(3, 5)
    assert torch.equal(AvgPool2dNeck()(features), features)
    with pytest.raises(ValueError, match="expected maps"):
        AvgPool2dNeck(2)(features)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        AvgPool2dNeck(0)


# ---------------------------------------------------------------- classifier


@pytest.mark.parametrize("init_std", [0.01, 0.5])
def test_cls_head_starts_as_said(init_std):
    torch.manual_seed(0)
    head = ClsHead(400, 50, init_std)
    assert math.isclose(head.fc.weight.std().item(), init_std, rel_tol=0.05)
    assert abs(head.fc.weight.mean().item()) < 0.05 * init_std and not head.fc.bias.any()


@pytest.mark.parametrize("num_classes", [1, 4, 30])
def test_cls_head_is_linear_on_features_and_maps(num_classes):
    head, maps = ClsHead(6, num_classes), torch.randn(5, 6, 3, 2)
    expected = F.linear(maps.mean((2, 3)), head.fc.weight, head.fc.bias)
    torch.testing.assert_close(head(maps), expected)
    torch.testing.assert_close(head(maps.mean((2, 3))), expected)


def test_cls_head_first_loss_is_log_of_classes():
    loss = F.cross_entropy(ClsHead(128, 10)(torch.randn(200, 128)), torch.arange(200) % 10)
    assert math.isclose(loss.item(), math.log(10), rel_tol=0.02)


def test_cls_head_reset_keeps_the_parameters_and_follows_the_seed():
    head = ClsHead(6, 4)
    weight = head.fc.weight
    torch.manual_seed(3)
    head.reset()
    first = weight.detach().clone()
    nn.init.ones_(head.fc.bias), nn.init.ones_(weight)
    torch.manual_seed(3)
    head.reset()
    assert head.fc.weight is weight and torch.equal(weight, first) and not head.fc.bias.any()
    assert weight.requires_grad and weight.grad_fn is None


@pytest.mark.parametrize("sizes", [(0, 4), (4, 0), (4, -1)])
def test_cls_head_refuses_sizes(sizes):
    with pytest.raises(ValueError, match="at least 1"):
        ClsHead(*sizes)


# ---------------------------------------------------------------- predictor


def test_predict_head_predicts_and_cuts_the_target():
    head = LatentPredictHead(nn.Linear(5, 5))
    z, target = torch.randn(2, 4, 5).unbind()
    z, target = z.requires_grad_(), target.requires_grad_()
    p, t = head(z, target)
    assert torch.equal(p, head.predictor(z)) and torch.equal(t, target) and not t.requires_grad
    (p * t).sum().backward()
    assert target.grad is None and z.grad.abs().sum() > 0


def test_predict_head_without_predictor():
    z = torch.randn(4, 5)
    p, _ = LatentPredictHead(nn.Identity())(z, z)
    assert torch.equal(p, z) and not list(LatentPredictHead(nn.Identity()).parameters())


def test_heads_and_necks_from_configs():
    predictor = {"type": "NonLinearNeck", "input_dim": 4, "hidden_dim": 3, "output_dim": 4}
    head = {"type": "nenya_nb.models.heads.LatentPredictHead", "predictor": predictor}
    assert build(head).predictor.output_dim == 4
    head = {"type": "nenya_nb.models.heads.ClsHead", "input_dim": 4, "num_classes": 3}
    assert build(head).num_classes == 3
    assert build({"type": "nenya_nb.models.necks.AvgPool2dNeck"}).output_size == 1
