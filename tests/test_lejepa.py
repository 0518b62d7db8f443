"""LeJEPA: its test of a sample against direct integration, a closed form and lightly; clouds it must tell apart; many views."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import nn
from two_processes import in_two_processes, mean_over_processes, own_rows

from nenya_nb.core import embedding_std
from nenya_nb.models.algorithms.lejepa import LeJEPA, LeJEPALoss, SIGReg, epps_pulley
from nenya_nb.models.backbones.resnet_variants import resnet_tiny
from nenya_nb.models.config import build
from nenya_nb.models.necks import NonLinearNeck

torch.set_num_threads(1)
ROOT = (2 * math.pi) ** 0.5
FLOOR = ROOT * (1 - 3**-0.5)  # the mean for numbers drawn from N(0, 1)


class Flat(nn.Module):
    "The means of the colours, twice, are an image's features."

    output_dim = 6

    def forward(self, images):
        return images.mean((2, 3)).repeat(1, 2)


def small(lambd=0.05, **options):
    neck = NonLinearNeck(128, 32, 12, 3, with_last_bn=False, with_last_bias=True)
    return LeJEPA(resnet_tiny(), neck, LeJEPALoss(lambd, SIGReg(64)), **options)


def crops(B=5, local=2):
    return [torch.randn(B, 3, 32, 32) for _ in range(2)] + [
        torch.randn(B, 3, 16, 16) for _ in range(local)
    ]


def sample(kind, N=30):
    x = torch.randn(N, dtype=torch.float64)
    kinds = {"gauss": x, "narrow": 0.2 * x, "wide": 1.7 * x, "moved": x + 1, "one": x[:1]}
    return kinds.get(kind, torch.zeros_like(x))


def integrand(t, x):
    cos, sin, phi = np.cos(t * x).mean(), np.sin(t * x).mean(), np.exp(-t * t / 2)
    return ((cos - phi) ** 2 + sin**2) * phi


KINDS = ("gauss", "narrow", "wide", "moved", "one", "point")


# ---------------------------------------------------------------- the statistic


@pytest.mark.parametrize("kind", KINDS)
def test_epps_pulley_matches_direct_integration(kind):
    x = sample(kind)
    expected, _ = quad(integrand, -5, 5, args=(x.numpy(),), epsabs=1e-12, limit=400)
    found = epps_pulley(x[:, None])[0].item()
    coarse = 1e-3 if kind == "wide" else 1e-4  # numbers 10 apart look alike to 17 knots
    assert found == pytest.approx(len(x) * expected, rel=coarse)
    fine = epps_pulley(x[:, None], num_knots=4001)[0].item()
    assert fine == pytest.approx(len(x) * expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("num_knots, t_max", [(17, 5.0), (3, 1.0), (9, 2.5), (33, 3.0)])
def test_epps_pulley_is_the_trapezoidal_rule_on_all_knots(num_knots, t_max):
    "Half of the knots are enough: the integrand is even, and 0 at 0."
    x = torch.randn(20, 4, dtype=torch.float64)
    t = torch.linspace(-t_max, t_max, num_knots, dtype=torch.float64)
    found = (1j * x[..., None] * t).exp().mean(0)  # (S, T)
    phi = (-t.square() / 2).exp()
    expected = len(x) * torch.trapezoid((found - phi).abs().square() * phi, t)
    torch.testing.assert_close(epps_pulley(x, num_knots, t_max), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_epps_pulley_matches_the_closed_form_of_the_whole_line(kind):
    x = sample(kind)
    pairs = (-(x[:, None] - x).square() / 2).exp().sum() / len(x)
    single = (-x.square() / 4).exp().sum()
    expected = ROOT * (pairs - 2**0.5 * single + len(x) / 3**0.5)
    torch.testing.assert_close(epps_pulley(x[:, None], 801, 12.0)[0], expected)
    torch.testing.assert_close(epps_pulley(x[:, None])[0], expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("N", [1, 8, 200])
def test_epps_pulley_of_true_gaussians_is_one_number_for_all_sizes(N):
    found = epps_pulley(torch.randn(N, 20000, dtype=torch.float64))
    assert found.mean().item() == pytest.approx(FLOOR, abs=4 * found.std().item() / 20000**0.5)


def test_epps_pulley_of_a_point_grows_with_the_sample():
    expected = ROOT * (1 - 2**0.5 + 3**-0.5)
    for N in (1, 64, 1000):
        found = epps_pulley(torch.zeros(N, 1, dtype=torch.float64)).item()
        assert found == pytest.approx(N * expected, rel=1e-4)


def test_epps_pulley_has_the_gradient_it_should():
    x = torch.randn(7, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(epps_pulley, (x,))
    for start in (torch.zeros(6, 1), torch.full((6, 1), 1e4)):
        x = start.requires_grad_()
        epps_pulley(x).sum().backward()
        assert x.grad.isfinite().all()


def test_epps_pulley_descends_to_a_gaussian():
    "From two lumps, moved aside: the numbers end as good as quantiles of N(0, 1)."
    x = torch.cat([torch.linspace(1.9, 2.1, 32), torch.linspace(-1.1, -0.9, 32)])[:, None]
    x.requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        epps_pulley(x).sum().backward()
        optimizer.step()
    quantiles = torch.special.ndtri((torch.arange(64) + 0.5) / 64)
    assert epps_pulley(x) < 0.05  # better than any draw
    torch.testing.assert_close(x.detach().flatten().sort().values, quantiles, atol=0.3, rtol=0)


def test_epps_pulley_judges_each_column_by_itself():
    x = torch.randn(3, 10, 4, dtype=torch.float64)  # leading dimensions are other samples
    found = epps_pulley(x)
    assert found.shape == (3, 4)
    torch.testing.assert_close(found[1, 2:3], epps_pulley(x[1, :, 2:3]))
    order = torch.randperm(10)
    torch.testing.assert_close(epps_pulley(x[:, order]), found)
    torch.testing.assert_close(epps_pulley(-x), found)


# ---------------------------------------------------------------- the sketch


def test_sigreg_matches_lightly_with_gradients():
    from lightly.loss.lejepa_loss import SIGReg as Lightly  # not in the processes of this file

    z, results = torch.randn(3, 20, 8), []  # theirs: 17 knots from 0 to 3, so 33 from −3 to 3
    for regularizer in (SIGReg(64, num_knots=33, t_max=3.0), Lightly(num_vectors=64)):
        torch.manual_seed(5)
        leaf = z.clone().requires_grad_()
        loss = regularizer(leaf)
        results.append((loss.detach(), torch.autograd.grad(loss, leaf)[0]))
    torch.testing.assert_close(*results)


def test_sigreg_directions_are_even_and_new_each_time():
    sigreg = SIGReg(4000)
    lines = sigreg.directions(5)
    torch.testing.assert_close(lines.norm(dim=0), torch.ones(4000))
    torch.testing.assert_close(lines @ lines.T / 4000, torch.eye(5) / 5, atol=0.02, rtol=0)
    assert not torch.equal(sigreg.directions(5), lines)
    assert not sigreg.state_dict() and "num_slices=4000, num_knots=17, t_max=5.0" in repr(sigreg)


def test_sigreg_knows_a_round_cloud():
    N, E, sigreg = 2000, 10, SIGReg(256)
    healthy = sigreg(torch.randn(40, 200, E))  # the mean of 40 clouds
    assert abs(healthy - FLOOR) < 0.2
    stretched = torch.randn(N, E) * torch.linspace(0.5, 1.5, E)
    ring = nn.functional.normalize(torch.randn(N, 2), dim=1) * 2**0.5  # covariance I
    moved = torch.randn(N, E) + 0.3
    for cloud in (stretched, ring, moved):
        assert sigreg(cloud) > 3 * FLOOR
    line = torch.randn(N, 1).expand(-1, E)  # every coordinate is N(0, 1)
    assert sigreg(line) > 100 * FLOOR and epps_pulley(line).mean() < 6 * FLOOR
    assert sigreg(torch.zeros(N, E)) > 0.4 * N


def test_sigreg_does_not_mind_a_turn():
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    z, sigreg = torch.randn(50, 4, dtype=torch.float64) * torch.arange(1, 5), SIGReg(20000)
    torch.testing.assert_close(sigreg(z @ turn), sigreg(z), rtol=0.02, atol=0)


def test_sigreg_is_exact_under_autocast():
    z, sigreg = torch.randn(32, 6), SIGReg(64)
    torch.manual_seed(0)
    expected = sigreg(z)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        found = sigreg(z)
    assert found.dtype == torch.float32 and sigreg(z.bfloat16()).dtype == torch.float32
    torch.testing.assert_close(found, expected)


def share(rank, z):
    "This process's loss and what its images learn, as DDP averages it; each process has a seed of its own."
    torch.manual_seed(rank)
    z = own_rows(z.transpose(0, 1)).transpose(0, 1).requires_grad_()  # (V, B / 2, E)
    loss = LeJEPALoss(0.3, SIGReg(16))(z)
    loss.backward()
    return mean_over_processes(loss.detach()), z.grad / 2


def test_lejepa_two_processes_equal_one(tmp_path):
    z = torch.randn(3, 10, 4, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(0)
    loss = LeJEPALoss(0.3, SIGReg(16))(z)
    loss.backward()
    results = in_two_processes(share, tmp_path, z.detach())
    for found, _ in results:
        torch.testing.assert_close(found, loss.detach())
    torch.testing.assert_close(torch.cat([gradient for _, gradient in results], 1), z.grad)


# ---------------------------------------------------------------- the loss and the algorithm


@pytest.mark.parametrize("V, G", [(2, 1), (4, 2), (8, 2)])
def test_lejepa_loss_matches_lightly_with_gradients(V, G):
    from lightly.loss.lejepa_loss import LeJEPALoss as Lightly

    z, results = torch.randn(V, 12, 6), []
    theirs = Lightly(lambda_param=0.1, sigreg_num_vectors=32)
    ours = LeJEPALoss(0.1, SIGReg(32, num_knots=33, t_max=3.0))
    for loss_fn in (
        lambda z: ours(z, num_global=G),
        lambda z: theirs(local_proj=z[G:], global_proj=z[:G]),
    ):
        torch.manual_seed(1)
        leaf = z.clone().requires_grad_()
        loss = loss_fn(leaf)
        results.append((loss.detach(), torch.autograd.grad(loss, leaf)[0]))
    torch.testing.assert_close(*results)


def test_lejepa_prediction_closed_forms():
    loss_fn = LeJEPALoss(regularizer=SIGReg(4))
    one = torch.ones(9, 3)
    apart = torch.stack([one, -one])
    assert loss_fn.terms(apart)["prediction"] == 1
    assert loss_fn.terms(apart, 1)["prediction"] == 2
    assert loss_fn.terms(one.expand(5, -1, -1))["prediction"] == 0
    z = torch.randn(4, 9, 3)
    torch.testing.assert_close(
        loss_fn.terms(z, 4)["prediction"], z.var(0, correction=0).mean(), atol=1e-6, rtol=1e-5
    )
    torch.manual_seed(0)
    mixed = LeJEPALoss(0.25, SIGReg(4)).terms(z)
    torch.manual_seed(0)
    expected = 0.75 * mixed["prediction"] + 0.25 * mixed["sigreg"]
    torch.testing.assert_close(LeJEPALoss(0.25, SIGReg(4))(z), expected)


def test_lejepa_gradient_reaches_every_view_and_the_mean():
    z = torch.randn(4, 6, 3, requires_grad=True)
    LeJEPALoss(0.0).terms(z)["prediction"].backward()
    assert z.grad.abs().sum((1, 2)).min() > 0
    assert z.grad.sum(0).abs().max() < 1e-6  # moving all views of an image changes nothing


def test_lejepa_gives_scalars_worth_a_curve():
    algorithm, views = small(), crops()
    losses = algorithm(views, mode="loss")
    assert set(losses) == {"loss", "std", "prediction", "sigreg"}
    weighed = 0.95 * losses["prediction"] + 0.05 * losses["sigreg"]
    torch.testing.assert_close(losses["loss"].detach(), weighed)
    found = algorithm.diagnostics()
    z = found["z"]
    assert z.shape == (4 * 5, 12)
    torch.testing.assert_close(losses["std"], embedding_std(z))
    expected = algorithm.loss_fn.terms(z.unflatten(0, (4, 5)))["prediction"]
    torch.testing.assert_close(losses["prediction"], expected)
    torch.testing.assert_close(found["mean"], z.mean(0))
    torch.testing.assert_close(found["covariance"], z.T.cov())


def test_lejepa_keeps_views_apart():
    "Rows of one image stay together, whatever the sizes of the views."
    algorithm = LeJEPA(Flat(), nn.Identity(), LeJEPALoss(0.05, SIGReg(8)))
    colours = torch.randn(5, 3, 1, 1)
    views = [colours.expand(-1, -1, s, s) for s in (8, 8, 4, 6)]
    assert algorithm(views, mode="loss")["prediction"] < 1e-10
    views[2] = views[2].flip(0)
    assert algorithm(views, mode="loss")["prediction"] > 0.1


@pytest.mark.parametrize("local", [0, 1, 6])
def test_lejepa_takes_any_number_of_views(local):
    algorithm = small(num_local=local)
    assert algorithm.views == {"type": "multi_crop", "num_local": local, "num_global": 2}
    assert algorithm(crops(local=local), mode="loss")["loss"].isfinite()
    assert LeJEPA.views == {"type": "multi_crop", "num_local": 6}  # the class's own is untouched


def test_lejepa_default_parts():
    with torch.device("meta"):
        algorithm = LeJEPA(Flat())
    linear = [m for m in algorithm.neck.layers if isinstance(m, nn.Linear)]
    assert [m.out_features for m in linear] == [2048, 2048, 128]
    assert linear[-1].bias is not None and algorithm.neck.layers[-1] is linear[-1]
    regularizer = algorithm.loss_fn.regularizer
    assert algorithm.loss_fn.lambd == 0.05 and "lambd=0.05" in repr(algorithm.loss_fn)
    assert (regularizer.num_slices, regularizer.num_knots, regularizer.t_max) == (1024, 17, 5.0)


def test_lejepa_from_a_config():
    name = "nenya_nb.models.algorithms.lejepa."
    regularizer = {"type": name + "SIGReg", "num_slices": 32}
    neck = {"type": "NonLinearNeck", "input_dim": 128, "hidden_dim": 8, "output_dim": 8}
    algorithm = build(
        {
            "type": name + "LeJEPA",
            "backbone": {"type": "resnet_tiny"},
            "neck": neck,
            "loss_fn": {"type": name + "LeJEPALoss", "lambd": 0.1, "regularizer": regularizer},
            "num_local": 0,
        }
    )
    assert algorithm.loss_fn.regularizer.num_slices == 32 and algorithm.loss_fn.lambd == 0.1


def test_lejepa_refuses():
    with pytest.raises(ValueError, match="2 views or more of each image, got 1"):
        small()(crops()[:1], mode="loss")
    with pytest.raises(ValueError, match="3 views or more of each image, got 2"):
        small(num_global=3)(crops(local=0), mode="loss")
    for options in ({"num_global": 0}, {"num_local": -1}, {"num_global": 1, "num_local": 0}):
        with pytest.raises(ValueError, match="make no pairs"):
            small(**options)
    with pytest.raises(ValueError, match="set backbone.output_dim"):
        LeJEPA(nn.Flatten())
    for lambd in (-0.1, 1.1):
        with pytest.raises(ValueError, match="between 0 and 1"):
            LeJEPALoss(lambd)
    for shape, num_global in (((4, 3), 2), ((1, 4, 3), 1), ((3, 4, 3), 0), ((3, 4, 3), 4)):
        with pytest.raises(ValueError, match="two views or more"):
            LeJEPALoss()(torch.randn(shape), num_global)
    with pytest.raises(ValueError, match="one slice or more"):
        SIGReg(0)
    for knots in ({"num_knots": 16}, {"num_knots": 1}, {"t_max": 0.0}):
        with pytest.raises(ValueError, match="odd number of knots"):
            SIGReg(**knots)
        with pytest.raises(ValueError, match="odd number of knots"):
            epps_pulley(torch.randn(4, 2), **knots)
    with pytest.raises(ValueError, match=r"samples \(…, N, S\)"):
        epps_pulley(torch.randn(4))
