"""Barlow Twins against lightly, torch's corrcoef and closed forms; its invariances, and what it refuses."""

import math

import pytest
import torch
from lightly.loss import BarlowTwinsLoss
from torch import nn

from nenya_nb.core import embedding_std
from nenya_nb.models.algorithms.barlow_twins import (
    BarlowTwins,
    CrossCorrelationLoss,
    LatentCrossCorrelationHead,
)
from nenya_nb.models.backbones.resnet_variants import resnet_tiny
from nenya_nb.models.config import build
from nenya_nb.models.necks import NonLinearNeck, mlp

torch.set_num_threads(1)


class Flat(nn.Module):
    "Images are their own features."

    def __init__(self, output_dim=48):
        super().__init__()
        self.output_dim = output_dim

    def forward(self, images):
        return images.flatten(1)


def small(lambd=0.0051):
    neck = NonLinearNeck(128, 32, 24, 3, with_last_bn=False)
    return BarlowTwins(resnet_tiny(), neck, loss_fn=CrossCorrelationLoss(lambd))


def two_views(B=6, shape=(3, 32, 32)):
    return [torch.randn(B, *shape), torch.randn(B, *shape)]


def embeddings(B=16, E=7):
    z1 = torch.randn(B, E, dtype=torch.float64)
    return z1, 0.5 * z1 + torch.randn(B, E, dtype=torch.float64)


@pytest.mark.parametrize("B, E", [(2, 3), (16, 7), (5, 20)])
@pytest.mark.parametrize("lambd", [0.0051, 0.5])
def test_barlow_matches_lightly_with_gradients(B, E, lambd):
    results = []
    z1, z2 = embeddings(B, E)
    head, loss_fn = LatentCrossCorrelationHead(E), CrossCorrelationLoss(lambd)
    for criterion in (lambda a, b: loss_fn(head(a, b)), BarlowTwinsLoss(lambda_param=lambd)):
        a, b = z1.clone().requires_grad_(), z2.clone().requires_grad_()
        loss = criterion(a, b)
        results.append((loss.detach(), *torch.autograd.grad(loss, (a, b))))
    torch.testing.assert_close(*results)


def test_barlow_correlation_matches_torch():
    z1, z2 = embeddings(400, 6)
    expected = torch.corrcoef(torch.cat([z1, z2], 1).T)[:6, 6:]
    found = LatentCrossCorrelationHead(6)(z1, z2)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)  # BatchNorm's eps
    assert found.abs().max() <= 1


def test_barlow_correlation_ignores_scale_and_shift_of_coordinates():
    z1, z2 = embeddings(64, 6)
    head = LatentCrossCorrelationHead(6)
    scale, shift = torch.rand(2, 6, dtype=torch.float64) + 1
    moved = head(z1 * scale * 9 + shift, 7 * z2 - shift)
    torch.testing.assert_close(moved, head(z1, z2), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(head(z1, -z2), -head(z1, z2))
    torch.testing.assert_close(head(z2, z1), head(z1, z2).T)


@pytest.mark.parametrize("E", [1, 4, 9])
def test_barlow_closed_forms(E):
    loss_fn, head = CrossCorrelationLoss(0.1), LatentCrossCorrelationHead(E)
    assert loss_fn(torch.eye(E)).item() == 0
    assert loss_fn(torch.zeros(E, E)).item() == E
    assert math.isclose(loss_fn(torch.ones(E, E)).item(), 0.1 * E * (E - 1), rel_tol=1e-5)
    constant = torch.full((8, E), 3.0)
    assert loss_fn(head(constant, constant)).item() == E  # complete collapse
    z = torch.randn(4000, E, dtype=torch.float64)
    only_diagonal = CrossCorrelationLoss(0)
    assert only_diagonal(head(z, z)).item() < 1e-6
    assert math.isclose(only_diagonal(head(z, -z)).item(), 4 * E, rel_tol=1e-4)
    copies = z[:, :1].expand(-1, E)  # one-dimensional collapse: only λ sees it
    assert only_diagonal(head(copies, copies)).item() < 1e-6
    assert math.isclose(
        loss_fn(head(copies, copies)).item(), 0.1 * E * (E - 1), rel_tol=1e-3, abs_tol=1e-6
    )


def test_barlow_leaves_the_correlation_as_it_is():
    C = torch.randn(5, 5)
    before = C.clone()
    CrossCorrelationLoss()(C)
    assert torch.equal(C, before)


def test_barlow_head_has_no_state():
    head = LatentCrossCorrelationHead(7)
    assert not head.state_dict() and "input_dim=7" in repr(head)
    z1, z2 = embeddings()
    assert torch.equal(head.eval()(z1, z2), head.train()(z1, z2))  # of this batch, in both modes


def test_barlow_correlation_is_exact_under_autocast():
    z1, z2 = (z.float() for z in embeddings(64, 6))
    head = LatentCrossCorrelationHead(6)
    with torch.autocast("cpu", torch.bfloat16):
        found = head(z1, z2)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, head(z1, z2))
    assert head(z1.bfloat16(), z2.bfloat16()).dtype == torch.float32


def test_barlow_gives_scalars_worth_a_curve():
    algorithm, views = small(), two_views(12)
    losses = algorithm(views, mode="loss")
    assert set(losses) == {"loss", "std", "agreement", "redundancy"}
    found = algorithm.diagnostics()
    C = found["correlation"]
    assert found["z"].shape == (24, 24) and C.shape == (24, 24) and not C.requires_grad
    torch.testing.assert_close(losses["agreement"], C.diagonal().mean())
    beside = C[~torch.eye(24, dtype=torch.bool)]
    torch.testing.assert_close(losses["redundancy"], beside.square().mean().sqrt())
    expected = (C.diagonal() - 1).square().sum() + 0.0051 * beside.square().sum()
    torch.testing.assert_close(losses["loss"].detach(), expected)
    torch.testing.assert_close(losses["std"], embedding_std(found["z"]))


def test_barlow_gradient_reaches_both_views():
    "No stop-gradient: moving either view's embedding changes the loss."
    algorithm = BarlowTwins(Flat(), nn.Identity(), LatentCrossCorrelationHead(48))
    views = [v.requires_grad_() for v in two_views(6, (3, 4, 4))]
    algorithm(views, mode="loss")["loss"].backward()
    assert all(v.grad.abs().sum() > 0 for v in views)


def test_barlow_is_symmetric_and_takes_images_that_are_not_square():
    algorithm, views = small().double(), [v.double() for v in two_views(5, (3, 24, 40))]
    loss = algorithm(views, mode="loss")["loss"]
    torch.testing.assert_close(algorithm(views[::-1], mode="loss")["loss"], loss)


def test_barlow_default_parts_are_the_papers():
    with torch.device("meta"):
        algorithm = BarlowTwins(Flat(2048))
    linear = [m for m in algorithm.neck.layers if isinstance(m, nn.Linear)]
    assert [m.out_features for m in linear] == [8192] * 3 and all(m.bias is None for m in linear)
    kinds = [type(m).__name__ for m in algorithm.neck.layers]
    assert kinds == [*["Linear", "BatchNorm1d", "ReLU"] * 2, "Linear"]
    assert algorithm.head.input_dim == 8192 and algorithm.loss_fn.lambd == 0.0051
    assert algorithm.views == "asymmetric_views"


def test_barlow_state_dict_round_trip():
    first, second, views = small(), small(), two_views()
    first(views, mode="loss")
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second(views, mode="loss"), first(views, mode="loss"))


def test_barlow_from_a_config():
    name = "nenya_nb.models.algorithms.barlow_twins."
    algorithm = build(
        {
            "type": name + "BarlowTwins",
            "backbone": {"type": "resnet_tiny"},
            "neck": {"type": "NonLinearNeck", "input_dim": 128, "hidden_dim": 8, "output_dim": 8},
            "loss_fn": {"type": name + "CrossCorrelationLoss", "lambd": 0.1},
        }
    )
    assert algorithm.head.input_dim == 8 and algorithm.loss_fn.lambd == 0.1


def test_barlow_refuses():
    with pytest.raises(ValueError, match="two views of each image, got 3"):
        small()(two_views() + two_views()[:1], mode="loss")
    with pytest.raises(ValueError, match="set backbone.output_dim"):
        BarlowTwins(nn.Flatten())
    for neck, width in ((mlp(128, 32, 16), 16), (nn.Identity(), 128)):
        assert BarlowTwins(resnet_tiny(), neck).head.input_dim == width
    with pytest.raises(ValueError, match="set its output_dim"):
        BarlowTwins(nn.Flatten(), nn.Identity())
    with pytest.raises(TypeError, match="the neck must be a network, got 'mlp'"):
        BarlowTwins(resnet_tiny(), "mlp")
    with pytest.raises(ValueError, match="must not be negative"):
        CrossCorrelationLoss(-1)
    with pytest.raises(ValueError, match="square matrix"):
        CrossCorrelationLoss()(torch.zeros(3, 4))
    head = LatentCrossCorrelationHead(4)
    for shapes in (((6, 3), (6, 3)), ((6, 4), (5, 4)), ((6, 4, 1), (6, 4, 1))):
        with pytest.raises(ValueError, match=r"two tensors \(B, 4\)"):
            head(*map(torch.randn, shapes))
    with pytest.raises(ValueError, match="give two"):
        head(torch.randn(1, 4), torch.randn(1, 4))
