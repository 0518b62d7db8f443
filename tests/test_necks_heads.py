"""Necks by their parameter counts and switches, the contrastive head against independent code."""

import math

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import NTXentLoss as MetricNTXent
from pytorch_metric_learning.losses import SelfSupervisedLoss
from torch import nn

from nenya_nb.models.heads import ContrastiveHead
from nenya_nb.models.necks import LinearNeck, NonLinearNeck, mlp

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
