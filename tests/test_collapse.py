"Collapse measures against scipy, scikit-learn, slow references and closed forms."

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from lightly.utils.debug import std_of_l2_normalized
from scipy.spatial.distance import pdist
from scipy.special import hyp0f1
from scipy.stats import entropy
from sklearn.decomposition import PCA
from sklearn.preprocessing import normalize
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nenya_nb.core import SPREAD_COLLAPSED, SPREAD_HEALTHY
from nenya_nb.data import load_dataset
from nenya_nb.evaluation import (
    CollapseReport,
    alignment,
    collapse_report,
    effective_rank,
    extract_latents,
    singular_values,
    uniformity,
)
from nenya_nb.models import SimCLR, resnet_tiny
from nenya_nb.training import History

torch.set_num_threads(1)


def gaussian(n=500, dim=32, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- rank


@pytest.mark.parametrize("n, dim", [(200, 30), (30, 200), (50, 50)])
def test_singular_values_match_scikit_learn(n, dim):
    z = gaussian(n, dim).double() * torch.linspace(0.01, 3, dim) + 5
    expected = PCA(svd_solver="full").fit(z.numpy()).singular_values_
    found = singular_values(z)
    assert found.shape == (min(n, dim),) and found.dtype == torch.float64
    np.testing.assert_allclose(found[: n - 1], expected[: n - 1], rtol=1e-6)


@pytest.mark.parametrize("center", [True, False])
def test_effective_rank_matches_scipy(center):
    z = gaussian().double() * torch.linspace(0.1, 2, 32) + 1
    x = z.numpy() - z.numpy().mean(0) if center else z.numpy()
    expected = math.exp(entropy(np.linalg.svd(x, compute_uv=False)))
    assert effective_rank(z, center) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("rank", [1, 2, 7])
def test_effective_rank_counts_equal_axes(rank):
    z = torch.cat([torch.eye(rank), -torch.eye(rank)]) @ torch.linalg.qr(gaussian(9, 9)).Q[:rank]
    assert effective_rank(z) == pytest.approx(rank, abs=1e-4)


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_effective_rank_of_a_constant_is_zero(offset, dtype):
    z = (offset + gaussian(1, 64)).to(dtype).expand(300, 64)
    assert effective_rank(z) == 0.0


def test_effective_rank_of_a_line_is_one():
    assert effective_rank(gaussian(300, 1) @ gaussian(1, 64) + 100) == pytest.approx(1, abs=1e-3)


def test_effective_rank_does_not_depend_on_size_place_or_axes():
    z = gaussian().double() * torch.linspace(0.1, 2, 32)
    rotated = 1e3 * z @ torch.linalg.qr(gaussian(32, 32).double()).Q + 7
    assert effective_rank(rotated) == pytest.approx(effective_rank(z), rel=1e-6)


def test_effective_rank_fewer_images_than_dimensions():
    assert 1 < effective_rank(gaussian(10, 100)) <= 9 + 1e-6


# ---------------------------------------------------------------- alignment, uniformity


@pytest.mark.parametrize("t", [0.5, 2.0, 5.0])
def test_uniformity_matches_scipy_pdist(t):
    z = gaussian() + 0.5
    distances = pdist(normalize(z.numpy()).astype(float), "sqeuclidean")
    assert uniformity(z, t) == pytest.approx(math.log(np.exp(-t * distances).mean()), abs=1e-5)


def test_uniformity_in_groups_is_the_same():
    z = gaussian(5000, 8)  # more than one group of rows
    expected = math.log(np.exp(-2 * pdist(normalize(z.double().numpy()), "sqeuclidean")).mean())
    assert uniformity(z) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("dim", [2, 3, 16, 256])
def test_uniformity_of_the_even_sphere(dim):
    expected = math.log(hyp0f1(dim / 2, 4.0)) - 4
    assert uniformity(gaussian(3000, dim)) == pytest.approx(expected, abs=0.02)


def test_uniformity_bounds():
    assert uniformity(torch.ones(9, 5)) == pytest.approx(0, abs=1e-6)
    assert uniformity(torch.tensor([[1.0, 0], [-1, 0]])) == pytest.approx(-8)
    assert uniformity(torch.eye(6)) == pytest.approx(-4, abs=1e-6)


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.0])
def test_alignment_matches_the_definition(alpha):
    a, b = gaussian(), gaussian(seed=1)
    apart = np.linalg.norm(normalize(a.numpy()) - normalize(b.numpy()), axis=1)
    assert alignment(a, b, alpha) == pytest.approx((apart**alpha).mean(), rel=1e-5)


def test_alignment_bounds():
    a = gaussian()
    assert alignment(a, 5 * a) < 1e-6
    assert alignment(a, -a) == pytest.approx(4, rel=1e-5)
    assert alignment(gaussian(5000, 64), gaussian(5000, 64, 1)) == pytest.approx(2, abs=0.02)


# ---------------------------------------------------------------- report


def test_report_std_matches_lightly():
    z = gaussian() + 0.3
    ours = collapse_report(z).std
    assert ours == pytest.approx(std_of_l2_normalized(z).item() * 32**0.5, rel=5e-3)


def test_report_verdicts():
    z = gaussian(1000, 64)
    assert collapse_report(z).verdict == "healthy"
    assert collapse_report(torch.ones(100, 64)).verdict == "complete collapse"
    assert collapse_report(100 + z).verdict == "complete collapse"  # a mean that drowns the rest
    assert collapse_report(z[:, :1] @ z[:1]).verdict == "dimensional collapse"
    some = z * (torch.arange(64) < 20)
    assert collapse_report(some).verdict == "dead dimensions"
    assert collapse_report(some).dead == pytest.approx(44 / 64)


@pytest.mark.parametrize(
    "std, verdict",
    [(0.14, "complete collapse"), (0.3, "small spread"), (0.7, "healthy")],
)
def test_report_and_alarm_say_the_same_of_one_number(std, verdict):
    z = gaussian(1000, 64) + (std**-2 - 1) ** 0.5  # a common mean
    report, history = collapse_report(z), History()
    assert report.std == pytest.approx(std, rel=0.05) and report.verdict == verdict
    assert (report.std < history.collapse_below) == (verdict == "complete collapse")
    assert (report.std < SPREAD_HEALTHY) == (verdict != "healthy")


def test_curves_draw_the_same_lines():
    panels = (Path(__file__).parents[1] / "js/src/live_curves/panels.js").read_text("utf-8")
    low, high = f"{SPREAD_COLLAPSED:g}", f"{SPREAD_HEALTHY:g}"
    bands = re.findall(r"from: ([\d.]+), to: ([\d.]+), tone: .*(collapsed|watch|healthy)", panels)
    assert bands == [("0", low, "collapsed"), (low, high, "watch"), (high, "10", "healthy")]
    word = rf'x < {low} \? "collapsed" : x < {high} \? "watch this" : "healthy"'
    assert re.search(word, panels)


def test_report_constant_is_all_dead():
    report = collapse_report(torch.full((100, 8), 0.1))
    assert report.dead == 1 and report.rank == 0 and report.std == 0
    assert collapse_report(torch.zeros(100, 8)).verdict == "complete collapse"


def test_report_numbers_are_those_of_the_functions():
    z, other = gaussian(), gaussian(seed=1)
    report = collapse_report(z, views=other)
    assert report.rank == effective_rank(z)
    assert report.uniformity == uniformity(z) and report.alignment == alignment(z, other)
    assert torch.equal(report.spectrum, singular_values(z))
    assert (report.images, report.dim) == z.shape


def test_report_thins_out_evenly():
    z = gaussian(1000)
    report = collapse_report(z, max_images=300, views=z)
    assert report.images == 250 and report.alignment < 1e-6
    assert report.rank == effective_rank(z[::4])


def test_report_repr_is_a_table():
    lines = repr(collapse_report(gaussian(), views=gaussian())).splitlines()
    assert lines[0] == "CollapseReport of 500 images, 32 dimensions: healthy"
    names = ["std", "effective rank", "dead dimensions", "uniformity", "alignment"]
    assert [line[2:18].strip() for line in lines[1:]] == names
    assert len(repr(collapse_report(gaussian())).splitlines()) == 5


def test_report_of_a_model():
    torch.manual_seed(0)
    data = load_dataset("shapes").subset(torch.arange(100))
    algorithm = SimCLR(resnet_tiny())
    report = collapse_report(algorithm, data)
    features = extract_latents(algorithm, data)
    assert isinstance(report, CollapseReport) and report.alignment is None
    assert report.rank == pytest.approx(collapse_report(features).rank)
    assert algorithm.training and algorithm.backbone.bn1.num_batches_tracked == 0


def test_report_of_a_model_with_views():
    data = load_dataset("shapes").subset(torch.arange(128))
    model = resnet_tiny()
    report = collapse_report(model, data.loader(batch_size=32))
    assert report.images == 128 and 0 < report.alignment < 2
    one = collapse_report(model, data.loader(batch_size=32, recipe="one_view"))
    assert one.alignment is None and one.images == 128
    few = collapse_report(model, data.loader(batch_size=32), max_images=64)
    assert few.images == 64


def test_a_second_view_counts_only_if_it_is_images():
    images = torch.rand(64, 3, 32, 32)
    mask = torch.rand(64, 8, 8) < 0.5
    for second in (mask, mask[:, None], torch.rand(64, 8, 8)):
        report = collapse_report(resnet_tiny(), [([images, second], torch.zeros(64))])
        assert report.images == 64 and report.alignment is None
    data = load_dataset("shapes").subset(torch.arange(64))
    report = collapse_report(resnet_tiny(), data.loader(32, recipe="masked_view"))
    assert report.images == 64 and report.alignment is None


@pytest.mark.parametrize("kind", ["ours", "torch", "torch with dice"])
def test_looking_leaves_the_loader_and_the_dice_as_they_were(kind):
    images, model = load_dataset("shapes").subset(torch.arange(128)), resnet_tiny()
    pairs = TensorDataset(images.batch(), images.targets)

    def next_epoch(look):
        torch.manual_seed(5)
        dice = torch.Generator().manual_seed(6) if "dice" in kind else None
        loader = DataLoader(pairs, batch_size=32, shuffle=True, generator=dice)
        loader = images.loader(batch_size=32) if kind == "ours" else loader
        if look:
            assert collapse_report(model, loader).images == 128
        return [*torch.cat([targets for _, targets in loader]), torch.rand(())]

    assert next_epoch(look=True) == next_epoch(look=False)


def test_a_generator_loses_nothing():
    images = torch.rand(40, 3, 4, 4)
    alone = collapse_report(nn.Flatten(), images)
    batches = ((part, torch.zeros(len(part))) for part in images.split(16))
    report = collapse_report(nn.Flatten(), batches)
    assert report.images == 40 and torch.equal(report.spectrum, alone.spectrum)
    views = (([part, part], torch.zeros(len(part))) for part in images.split(16))
    report = collapse_report(nn.Flatten(), views)
    assert torch.equal(report.spectrum, alone.spectrum) and report.alignment < 1e-6


@pytest.mark.parametrize("kind", ["ours", "torch", "tensor"])
def test_only_the_images_of_the_report_are_looked_at(kind):
    data = load_dataset("shapes").subset(torch.arange(100))
    looked, model = [], nn.Sequential(nn.Flatten())
    model.register_forward_hook(lambda _, given, made: looked.append(len(given[0])))
    images = {"ours": data, "torch": TensorDataset(data.batch(), data.targets)}
    report = collapse_report(model, images.get(kind, data.batch()), max_images=30)
    assert sum(looked) == report.images == 25
    thinned = collapse_report(data.batch().flatten(1), max_images=30)
    torch.testing.assert_close(report.spectrum, thinned.spectrum)


def test_report_of_a_model_with_other_data():
    images = torch.rand(20, 3, 32, 32)
    data = TensorDataset(images, torch.zeros(20, dtype=torch.long))
    assert collapse_report(resnet_tiny(), data).images == 20
    assert collapse_report(nn.Flatten(), [(images, torch.zeros(20))]).dim == 3 * 32 * 32


def test_report_refuses():
    with pytest.raises(ValueError, match="needs data"):
        collapse_report(nn.Flatten())
    for wrong in (torch.zeros(1, 8), torch.zeros(8), torch.full((4, 2), math.nan)):
        with pytest.raises(ValueError, match="finite features"):
            collapse_report(wrong)
    with pytest.raises(ValueError, match="views differ"):
        alignment(gaussian(3), gaussian(4))
    with pytest.raises(ValueError, match="two or more"):
        uniformity(gaussian(1))
    with pytest.raises(ValueError, match="expected features"):
        effective_rank(torch.zeros(3))
