"""Projections against scikit-learn, scipy and brute force; what is turned, what is never stretched."""

import sys

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from sklearn.decomposition import PCA as SkPCA
from sklearn.neighbors import NearestNeighbors

from nenya_nb.evaluation import projections
from nenya_nb.evaluation.projections import (
    PCA,
    UMAP,
    neighbour_agreement,
    other_neighbours,
    procrustes,
    project,
)


def rows(n, d, seed=0, fall=1.0):
    g = torch.Generator().manual_seed(seed)
    scale = torch.linspace(1, 0, d).exp() ** fall
    return torch.randn(n, d, generator=g) * scale + torch.randn(d, generator=g)


# --- PCA --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n,d", [(100, 10), (20, 50), (300, 300), (5, 3)])
@pytest.mark.parametrize("components", [1, 2, 3])
def test_pca_equals_scikit_learn_signs_included(n, d, components):
    x = rows(n, d)
    ours, theirs = PCA(components).fit(x), SkPCA(components, svd_solver="full").fit(x.numpy())
    torch.testing.assert_close(ours.mean, torch.tensor(theirs.mean_), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.axes, torch.tensor(theirs.components_), atol=1e-3, rtol=0)
    for mine, other in ((ours.variance, theirs.explained_variance_), (ours.explained, theirs.explained_variance_ratio_)):  # fmt: skip
        torch.testing.assert_close(mine, torch.tensor(other).to(mine), atol=1e-5, rtol=1e-3)
    new = rows(7, d, seed=1)
    wanted = torch.tensor(theirs.transform(new.numpy()))
    torch.testing.assert_close(ours.project(new), wanted.float(), atol=5e-3, rtol=0)


def test_pca_randomised_finds_the_same_plane_and_leaves_the_random_numbers(monkeypatch):
    x = rows(800, 120, fall=6)
    exact = PCA(2).fit(x)
    monkeypatch.setattr(projections, "_EXACT", 0)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    quick = PCA(2).fit(x)
    assert torch.equal(before, torch.get_rng_state())
    torch.testing.assert_close(quick.axes, exact.axes, atol=1e-2, rtol=0)
    torch.testing.assert_close(quick.explained, exact.explained, atol=1e-4, rtol=1e-3)
    assert torch.equal(PCA(2).fit(x).axes, quick.axes)  # and it is the same each time


def test_pca_on_the_sphere_ignores_lengths():
    x = rows(100, 8)
    longer = x * torch.rand(100, 1).add(0.1) * 50
    torch.testing.assert_close(project(x, unit=True), project(longer, unit=True), atol=1e-4, rtol=0)


def test_pca_of_equal_rows_is_a_point_that_explains_nothing():
    fitted = PCA(2).fit(torch.ones(10, 4))
    assert fitted.explained.tolist() == [0, 0]
    assert fitted.project(torch.ones(3, 4)).abs().max() == 0


def test_pca_turned_projects_turned():
    x = rows(60, 9)
    pca, angle = PCA(2).fit(x), torch.tensor(0.7)
    R = torch.tensor([[angle.cos(), angle.sin()], [-angle.sin(), angle.cos()]])
    turned = pca.turn(R)
    torch.testing.assert_close(turned.project(x), pca.project(x) @ R, atol=1e-4, rtol=0)
    assert turned.explained.sum() == pytest.approx(pca.explained.sum().item())
    swapped = pca.turn(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    torch.testing.assert_close(swapped.variance, pca.variance.flip(0))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float64])
def test_pca_takes_any_kind_of_number(dtype):
    x = (rows(30, 6) * 10 + 50).to(dtype)
    assert project(x).shape == (30, 2) and project(x).dtype == torch.float32
    assert project(x.float().numpy()).shape == (30, 2)


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda: project(torch.rand(5)), r"shape \(5,\); expected \(N, D\)"),
        (lambda: project(torch.rand(1, 5)), "2 rows or more"),
        (lambda: project(torch.rand(9, 1)), "components is 2.*choose 1 to 1"),
        (lambda: project(torch.full((3, 3), torch.nan)), "3 of 3 rows of features hold nan"),
        (lambda: project(torch.rand(9, 3), "tsne"), "Unknown projection 'tsne'"),
        (lambda: PCA().project(torch.rand(9, 3)), "call fit"),
        (lambda: UMAP().project(torch.rand(9, 3)), "call fit"),
        (lambda: PCA().fit(torch.rand(9, 3)).project(torch.rand(2, 4)), "4 features.*fitted to 3"),
        (lambda: procrustes(torch.rand(3, 2), torch.rand(4, 2)), "expected the same"),
        (lambda: other_neighbours(torch.rand(4, 2), 4), "each of 4 rows has 3 others"),
        (lambda: other_neighbours(torch.rand(4, 2), 0), "k=0"),
    ],
)
def test_errors_say_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- Procrustes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_procrustes_equals_scipy(k):
    x, y = rows(40, k).double(), rows(40, k, seed=1).double()
    wanted, _ = orthogonal_procrustes((x - x.mean(0)).numpy(), (y - y.mean(0)).numpy())
    found = procrustes(x, y)
    torch.testing.assert_close(found, torch.tensor(wanted))
    torch.testing.assert_close(found @ found.T, torch.eye(k, dtype=torch.float64))


def test_procrustes_is_the_best_of_many_turns():
    x, y = rows(30, 2), rows(30, 2, seed=1)
    x, y = x - x.mean(0), y - y.mean(0)
    best = (x @ procrustes(x, y) - y).norm()
    for angle in torch.linspace(0, 6.3, 50):
        for side in (1.0, -1.0):
            c, s = angle.cos(), angle.sin()
            other = torch.tensor([[c, s], [-s, c]]) @ torch.diag(torch.tensor([1.0, side]))
            assert (x @ other - y).norm() >= best - 1e-5


def test_procrustes_undoes_turns_and_mirrors_and_moves():
    x = rows(30, 2)
    R = torch.linalg.qr(rows(2, 2, seed=4)).Q
    assert torch.allclose((x - x.mean(0)) @ R @ procrustes(x @ R + 7, x), x - x.mean(0), atol=1e-5)


# --- neighbours -------------------------------------------------------------------------------------------------------


def test_other_neighbours_equal_scikit_learn():
    x = rows(80, 6)
    wanted = NearestNeighbors(n_neighbors=6, metric="cosine").fit(x).kneighbors(return_distance=False)  # fmt: skip
    assert np.array_equal(other_neighbours(x, 5), wanted[:, :5])


def test_other_neighbours_never_hold_the_row_itself_even_among_equals():
    x = torch.ones(12, 3)
    for k in (1, 5, 11):
        found = other_neighbours(x, k)
        assert found.shape == (12, k)
        assert not (found == torch.arange(12)[:, None]).any()
        assert all(len(set(line)) == k for line in found.tolist())


def test_neighbour_agreement_counts():
    x = torch.tensor([[1.0, 0], [1, 0.01], [1, 0.02], [0, 1], [0.01, 1], [0.02, 1]])
    found = neighbour_agreement(x, torch.tensor([0, 0, 1, 1, 1, 1]), k=2)
    assert found.tolist() == [0.5, 0.5, 0, 1, 1, 1]
    unknown = neighbour_agreement(x, torch.tensor([0, 0, -1, -1, -1, 1]), k=2)
    assert unknown.isnan().tolist() == [False, False, True, True, True, False]
    assert unknown[[0, 1, 5]].tolist() == [0.5, 0.5, 0]


# --- UMAP -------------------------------------------------------------------------------------------------------------


def test_umap_missing_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ImportError, match=r"pip install 'nenya_nb\[umap\]'.*method='pca'"):
        project(torch.rand(20, 3), "umap")


def test_umap_keeps_clusters_starts_where_told_and_can_be_repeated():
    targets = torch.arange(90) % 3
    x = rows(90, 10) / 10 + 5 * torch.eye(3, 10)[targets]
    fitted = UMAP(neighbours=8).fit(x)
    points = fitted.points
    assert points.shape == (90, 2) and points.dtype == torch.float32
    nearest = torch.cdist(points, points).fill_diagonal_(torch.inf).argmin(1)
    assert (targets[nearest] == targets).float().mean() > 0.95
    assert torch.equal(project(x, "umap", neighbours=8), points)
    near, points = UMAP(neighbours=8).fit(x, start=points).points, points - points.mean(0)
    near = (near - near.mean(0)) @ procrustes(near, points)
    assert (near - points).norm() < 0.7 * points.norm()
    new = fitted.project(x[:6])
    assert (torch.cdist(new, points).argmin(1) % 3 == targets[:6]).all()
    with pytest.raises(ValueError, match="too few"):
        project(x[:3], "umap")
