"""VICReg against lightly, torch's cov and closed forms; what each term sees, and what it refuses."""

import math

import pytest
import torch
from torch import nn
from two_processes import in_two_processes, mean_over_processes, own_rows

from nenya_nb.core import embedding_std
from nenya_nb.models.algorithms.vicreg import VICReg, VICRegLoss
from nenya_nb.models.backbones.resnet_variants import resnet_tiny
from nenya_nb.models.config import build
from nenya_nb.models.necks import NonLinearNeck

torch.set_num_threads(1)


class Flat(nn.Module):
    "Images are their own features."

    def __init__(self, output_dim=48):
        super().__init__()
        self.output_dim = output_dim

    def forward(self, images):
        return images.flatten(1)


def small(**weights):
    neck = NonLinearNeck(128, 32, 24, 3, with_last_bn=False)
    return VICReg(resnet_tiny(), neck, VICRegLoss(**weights))


def two_views(B=6, shape=(3, 32, 32)):
    return [torch.randn(B, *shape), torch.randn(B, *shape)]


def embeddings(B=16, E=7):
    "Some coordinates spread more than 1, some less."
    z1 = torch.randn(B, E, dtype=torch.float64) * torch.linspace(0.2, 2, E)
    return z1, z1 + 0.5 * torch.randn(B, E, dtype=torch.float64)


@pytest.mark.parametrize("B, E", [(2, 3), (16, 7), (5, 20), (8, 1)])
@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 0.3, 7.0)])
def test_vicreg_matches_lightly_with_gradients(B, E, weights):
    from lightly.loss import VICRegLoss as Lightly  # not in the processes of this file

    results = []
    z1, z2 = embeddings(B, E)
    for criterion in (VICRegLoss(*weights), Lightly(*weights)):
        a, b = z1.clone().requires_grad_(), z2.clone().requires_grad_()
        loss = criterion(a, b)
        results.append((loss.detach(), *torch.autograd.grad(loss, (a, b))))
    torch.testing.assert_close(*results)


def test_vicreg_terms_match_torch():
    z1, z2 = embeddings(40, 6)
    terms = VICRegLoss(eps=0).terms(z1, z2)
    missing, redundant = [], []
    for z in (z1, z2):
        C = z.T.cov()
        missing.append((1 - C.diagonal().sqrt()).clamp(min=0).mean())
        redundant.append(C[~torch.eye(6, dtype=torch.bool)].square().sum() / 6)
    torch.testing.assert_close(terms["variance"], sum(missing) / 2)
    torch.testing.assert_close(terms["covariance"], sum(redundant))
    torch.testing.assert_close(terms["invariance"], (z1 - z2).square().sum() / z1.numel())


@pytest.mark.parametrize("E", [2, 9])
def test_vicreg_closed_forms(E):
    "Each way to fail is seen by one term, and by no other."
    B, loss_fn = 50, VICRegLoss()
    z = torch.linalg.qr(torch.randn(B, E + 1, dtype=torch.float64)).Q
    z = (z - z.mean(0))[:, :E]
    z = torch.linalg.qr(z).Q * (B - 1) ** 0.5  # centred, covariance I
    best = loss_fn.terms(z, z)
    assert all(abs(value.item()) < 1e-6 for value in best.values())
    point = torch.full_like(z, 3)
    terms = loss_fn.terms(point, point)
    assert math.isclose(terms["variance"], 1 - 1e-4**0.5) and terms["covariance"] == 0
    assert math.isclose(loss_fn(point, point), 25 * 0.99)
    copies = z[:, :1].expand(-1, E)
    terms = loss_fn.terms(copies, copies)
    assert math.isclose(terms["covariance"], 2 * (E - 1)) and terms["variance"] < 1e-6
    terms = loss_fn.terms(z, -z)
    assert math.isclose(terms["invariance"], 4 * (B - 1) / B)
    assert terms["variance"] < 1e-6 and terms["covariance"] < 1e-6
    wide = loss_fn.terms(5 * z, 5 * z)  # the hinge does not ask for less
    assert wide["variance"] == 0 and wide["invariance"] == 0


def test_vicreg_pulls_a_collapsing_coordinate_apart():
    "As hard as a healthy one, down to √eps; and never without end."
    pulls = []
    for spread in (0.5, 0.1, 0.02, 0.0):
        z = (spread * torch.tensor([[-1.0], [1.0]], dtype=torch.float64)).requires_grad_()
        VICRegLoss().variance(z).backward()
        pulls.append(z.grad.abs().sum().item())
    assert pulls[0] == pytest.approx(2**0.5, rel=1e-3)
    assert pulls[1] > 0.99 * pulls[0] and pulls[2] > 0.9 * pulls[0] and pulls[3] == 0


def test_vicreg_ignores_where_the_cloud_is_and_who_comes_first():
    z1, z2 = embeddings()
    loss_fn, order = VICRegLoss(), torch.randperm(len(z1))
    torch.testing.assert_close(loss_fn(z1 + 3, z2 + 3), loss_fn(z1, z2))
    torch.testing.assert_close(loss_fn(z2, z1), loss_fn(z1, z2))
    torch.testing.assert_close(loss_fn(z1[order], z2[order]), loss_fn(z1, z2))


def test_vicreg_leaves_the_embeddings_as_they_are():
    z1, z2 = embeddings()
    before = z1.clone(), z2.clone()
    VICRegLoss()(z1, z2)
    assert torch.equal(z1, before[0]) and torch.equal(z2, before[1])


def test_vicreg_is_exact_under_autocast():
    z1, z2 = (z.float() for z in embeddings(64, 6))
    loss_fn = VICRegLoss()
    with torch.autocast("cpu", torch.bfloat16):
        found = loss_fn(z1, z2)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss_fn(z1, z2))
    assert loss_fn(z1.bfloat16(), z2.bfloat16()).dtype == torch.float32
    assert not loss_fn.state_dict() and "mu=25.0" in repr(loss_fn)


def share(rank, z1, z2):
    "This process's loss and what its rows learn, as DDP averages it."
    z1, z2 = own_rows(z1).requires_grad_(), own_rows(z2).requires_grad_()
    loss = VICRegLoss()(z1, z2)
    loss.backward()
    return mean_over_processes(loss.detach()), z1.grad / 2, z2.grad / 2


@pytest.mark.parametrize("B", [2, 12])  # with 2, each process has one image
def test_vicreg_two_processes_equal_one(tmp_path, B):
    z1, z2 = (z.requires_grad_() for z in embeddings(B))
    loss = VICRegLoss()(z1, z2)
    gradients = torch.autograd.grad(loss, (z1, z2))
    results = in_two_processes(share, tmp_path, z1.detach(), z2.detach())
    for found, *_ in results:
        torch.testing.assert_close(found, loss.detach())
    for found, expected in zip(zip(*results, strict=True), (None, *gradients), strict=True):
        if expected is not None:
            torch.testing.assert_close(torch.cat(found), expected)


def test_vicreg_gives_scalars_worth_a_curve():
    algorithm, views = small(lambd=3.0, mu=2.0, nu=0.5), two_views(12)
    losses = algorithm(views, mode="loss")
    assert set(losses) == {"loss", "std", "invariance", "variance", "covariance"}
    found = algorithm.diagnostics()
    z1, z2 = found["z"].chunk(2)
    torch.testing.assert_close(losses["loss"].detach(), algorithm.loss_fn(z1, z2))
    parts = [losses[name] for name in ("invariance", "variance", "covariance")]
    weighed = 3 * parts[0] + 2 * parts[1] + 0.5 * parts[2]
    torch.testing.assert_close(losses["loss"].detach(), weighed)
    torch.testing.assert_close(losses["std"], embedding_std(found["z"]))
    torch.testing.assert_close(found["covariance"], found["z"].T.cov())
    torch.testing.assert_close(found["spread"], found["z"].std(0))


def test_vicreg_gradient_reaches_both_views():
    "No stop-gradient: moving either view's embedding changes the loss."
    algorithm = VICReg(Flat(), nn.Identity())
    views = [v.requires_grad_() for v in two_views(6, (3, 4, 4))]
    algorithm(views, mode="loss")["loss"].backward()
    assert all(v.grad.abs().sum() > 0 for v in views)


def test_vicreg_gradient_is_finite_for_a_point():
    z = torch.ones(6, 4, requires_grad=True)
    VICRegLoss()(z, z).backward()
    assert z.grad.isfinite().all()


def test_vicreg_takes_images_that_are_not_square():
    algorithm, views = small().double(), [v.double() for v in two_views(5, (3, 24, 40))]
    loss = algorithm(views, mode="loss")["loss"]
    torch.testing.assert_close(algorithm(views[::-1], mode="loss")["loss"], loss)


def test_vicreg_default_parts_are_the_papers():
    with torch.device("meta"):
        algorithm = VICReg(Flat(2048))
    linear = [m for m in algorithm.neck.layers if isinstance(m, nn.Linear)]
    assert [m.out_features for m in linear] == [8192] * 3
    kinds = [type(m).__name__ for m in algorithm.neck.layers]
    assert kinds == [*["Linear", "BatchNorm1d", "ReLU"] * 2, "Linear"]
    loss_fn = algorithm.loss_fn
    assert (loss_fn.lambd, loss_fn.mu, loss_fn.nu) == (25, 25, 1)
    assert algorithm.views == "asymmetric_views"


def test_vicreg_state_dict_round_trip():
    first, second, views = small(), small(), two_views()
    first(views, mode="loss")
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second(views, mode="loss"), first(views, mode="loss"))


def test_vicreg_from_a_config():
    name = "nenya_nb.models.algorithms.vicreg."
    algorithm = build(
        {
            "type": name + "VICReg",
            "backbone": {"type": "resnet_tiny"},
            "neck": {"type": "NonLinearNeck", "input_dim": 128, "hidden_dim": 8, "output_dim": 8},
            "loss_fn": {"type": name + "VICRegLoss", "nu": 0.1},
        }
    )
    assert algorithm.neck.output_dim == 8 and algorithm.loss_fn.nu == 0.1


def test_vicreg_refuses():
    with pytest.raises(ValueError, match="two views of each image, got 3"):
        small()(two_views() + two_views()[:1], mode="loss")
    with pytest.raises(ValueError, match="set backbone.output_dim"):
        VICReg(nn.Flatten())
    for bad in ("lambd", "mu", "nu", "eps"):
        with pytest.raises(ValueError, match=f"must not be negative.*{bad}=-1"):
            VICRegLoss(**{bad: -1})
    for shapes in (((6, 3), (6, 4)), ((6, 4), (5, 4)), ((6, 4, 1), (6, 4, 1))):
        with pytest.raises(ValueError, match=r"two tensors \(B, E\)"):
            VICRegLoss()(*map(torch.randn, shapes))
    with pytest.raises(ValueError, match="give two"):
        VICRegLoss()(torch.randn(1, 4), torch.randn(1, 4))
