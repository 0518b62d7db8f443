"""DeepCluster's clustering against scikit-learn and SciPy, and its loop against a plain one."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import normalized_mutual_info_score
from torch import nn

from nenya_nb.core import Clock
from nenya_nb.data import ImageDataset
from nenya_nb.models import ClsHead, build, resnet_tiny
from nenya_nb.models.algorithms.deepcluster import (
    DeepCluster,
    Sobel,
    cluster_features,
    cluster_means,
    dataset_features,
    kmeans,
    nearest_centroid,
    normalized_mutual_information,
    weighted_mean,
    whiten,
)

torch.set_num_threads(1)
N, K, B = 60, 6, 8


def images(count=N, size=16) -> ImageDataset:
    torch.manual_seed(5)
    return ImageDataset(torch.randint(256, (count, 3, size, size), dtype=torch.uint8))


def loader(data=None, batch_size=B):
    data = images() if data is None else data
    return data.loader(batch_size=batch_size, recipe="one_view", targets="index")


def small(**settings) -> DeepCluster:
    backbone = settings.pop("backbone", None) or Sobel(resnet_tiny(in_channels=2))
    return DeepCluster(backbone, **dict(length=N, num_classes=K, pca_dims=8) | settings)


def inertia(x, labels, k):
    means = cluster_means(x, labels, k)[0]
    return (x - means[labels]).square().sum().item()


# ---------------------------------------------------------------- clustering


@pytest.mark.parametrize("n, d, k", [(300, 4, 5), (800, 16, 30), (500, 64, 100)])
def test_kmeans_is_as_good_as_sklearn(n, d, k):
    torch.manual_seed(0)
    x = torch.randn(k, d)[torch.randint(k, (n,))] * 1.5 + torch.randn(n, d)
    ours = np.mean([inertia(x, kmeans(x, k, seed=s)[0], k) for s in range(3)])
    theirs = np.mean(
        [
            KMeans(k, init="random", n_init=1, random_state=s).fit(x.numpy()).inertia_
            for s in range(3)
        ]
    )
    assert ours < 1.05 * theirs


def test_kmeans_from_the_same_start_equals_sklearn():
    torch.manual_seed(0)
    x = torch.randn(400, 5).double()
    first = x[torch.randperm(400, generator=torch.Generator().manual_seed(7))[:9]]
    labels, centroids = kmeans(x, 9, iterations=200, seed=7)
    theirs = KMeans(9, init=first.numpy(), n_init=1, max_iter=200, tol=0).fit(x.numpy())
    assert labels.tolist() == theirs.labels_.tolist()
    torch.testing.assert_close(centroids, torch.from_numpy(theirs.cluster_centers_))


def test_kmeans_revives_lonely_centroids():
    x = torch.cat([torch.zeros(40, 2), torch.ones(1, 2), -torch.ones(1, 2)])
    for seed in range(5):
        assert kmeans(x, 3, seed=seed)[0].bincount(minlength=3).sort().values.tolist() == [1, 1, 40]


@pytest.mark.parametrize("k", [1, 7])
def test_kmeans_at_the_ends_of_its_range(k):
    x = torch.randn(7, 3)
    labels, centroids = kmeans(x, k)
    assert len(labels.unique()) == k and centroids.shape == (k, 3)
    for wrong in (0, 8):
        with pytest.raises(ValueError, match="7 vectors cannot make"):
            kmeans(x, wrong)


def test_kmeans_repeats_and_follows_its_seed():
    x = torch.randn(200, 4)
    assert torch.equal(kmeans(x, 10, seed=1)[0], kmeans(x, 10, seed=1)[0])
    assert not torch.equal(kmeans(x, 10, seed=1)[0], kmeans(x, 10, seed=2)[0])


def test_nearest_centroid_matches_cdist():
    x, c = torch.randn(50, 3).double(), torch.randn(9, 3).double()
    labels, squared = nearest_centroid(x, c)
    distance = torch.cdist(x, c)
    assert torch.equal(labels, distance.argmin(1))
    torch.testing.assert_close(squared, distance.min(1).values ** 2)


def test_cluster_means_leaves_empty_ones_at_zero():
    x, labels = torch.randn(10, 3), torch.tensor([0, 2] * 5)
    means, sizes = cluster_means(x, labels, 4)
    torch.testing.assert_close(means[2], x[1::2].mean(0))
    assert sizes.tolist() == [5, 0, 5, 0] and (means[[1, 3]] == 0).all()


@pytest.mark.parametrize("dims", [1, 3, 6, 50])
def test_whiten_matches_sklearn(dims):
    torch.manual_seed(0)
    x = (torch.randn(200, 6) @ torch.randn(6, 6) + 3).double()
    ours = whiten(x, dims).numpy()
    theirs = PCA(min(dims, 6), whiten=True).fit_transform(x.numpy())
    signs = np.sign((ours * theirs).sum(0))
    np.testing.assert_allclose(ours, theirs * signs, atol=1e-8)


def test_whiten_survives_dead_and_constant_features():
    x = torch.randn(50, 3) @ torch.randn(3, 10)
    x[:, 4] = 0
    found = whiten(x, 10)
    assert found.isfinite().all() and found[:, 3:].abs().max() < 0.1
    assert (whiten(torch.ones(20, 4), 4) == 0).all()


def test_cluster_features_matches_the_sklearn_pipeline():
    torch.manual_seed(0)
    x = torch.randn(5, 12)[torch.arange(300) % 5] * 3 + torch.randn(300, 12) * 0.3
    ours = cluster_features(x, 5, dims=4, seed=3)
    white = PCA(4, whiten=True).fit_transform(x.numpy())
    white /= np.linalg.norm(white, axis=1, keepdims=True)
    theirs = KMeans(5, n_init=5, random_state=0).fit(white).labels_
    assert normalized_mutual_info_score(ours.numpy(), theirs) > 0.99


def test_clustering_does_not_mind_scaled_features():
    "What whitening is for: one feature a thousand times louder changes nothing."
    torch.manual_seed(0)
    x = torch.randn(4, 8)[torch.arange(200) % 4] * 3 + torch.randn(200, 8) * 0.2
    loud = x * torch.tensor([1000.0, *[1.0] * 7])
    pair = cluster_features(x, 4, dims=8), cluster_features(loud, 4, dims=8)
    assert normalized_mutual_information(*pair) > 0.99


@pytest.mark.parametrize("groups", [(3, 3), (10, 4), (1, 5), (60, 60)])
def test_nmi_matches_sklearn(groups):
    torch.manual_seed(0)
    a, b = (torch.randint(g, (60,)) for g in groups)
    found = normalized_mutual_information(a, b).item()
    assert math.isclose(found, normalized_mutual_info_score(a, b), abs_tol=1e-5)
    permuted = torch.randperm(groups[0])[a]
    assert math.isclose(normalized_mutual_information(a, permuted), 1, abs_tol=1e-5)


def test_weighted_mean_is_torchs_weighted_cross_entropy():
    logits, labels, weight = torch.randn(9, 4), torch.randint(4, (9,)), torch.rand(4)
    rows = F.cross_entropy(logits, labels, reduction="none")
    expected = F.cross_entropy(logits, labels, weight=weight)
    torch.testing.assert_close(weighted_mean(rows, weight[labels]), expected)
    torch.testing.assert_close(weighted_mean(rows, torch.ones(9)), rows.mean())


# ---------------------------------------------------------------- Sobel


def test_sobel_matches_scipy():
    backbone = Sobel(resnet_tiny(in_channels=2))
    x = torch.randn(2, 3, 9, 12)
    edges = backbone.edges(x)
    assert edges.shape == (2, 2, 9, 12)
    for image, (across, down) in zip(x.mean(1).numpy(), edges.numpy(), strict=True):
        for axis, found in ((1, across), (0, down)):
            expected = -ndimage.sobel(image, axis=axis, mode="constant")
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_sobel_keeps_the_promises_of_a_backbone():
    backbone, x = Sobel(resnet_tiny(in_channels=2)), torch.randn(2, 3, 32, 32)
    assert backbone(x).shape == (2, 128) and backbone.output_dim == 128
    assert backbone.get_output_shape((2, 3, 32, 32)) == [2, 128]
    assert len(backbone.forward_stages(x)) == 5
    torch.testing.assert_close(
        backbone.edges(x + 1)[:, :, 1:-1, 1:-1], backbone.edges(x)[:, :, 1:-1, 1:-1]
    )
    assert backbone.double().edges(x.double()).dtype == torch.float64
    with pytest.raises(ValueError, match="build it with in_channels=2"):
        Sobel(resnet_tiny())


# ---------------------------------------------------------------- the loop


def test_dataset_features_are_those_of_evaluation_in_order():
    algorithm, data = small().train(), images()
    algorithm.backbone.eval()
    found = dataset_features(algorithm, algorithm.embed, data, batch_size=7)
    assert algorithm.training and not algorithm.backbone.training  # modes as before
    with torch.no_grad():
        expected = algorithm.eval().embed(data.batch())
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert not found.requires_grad


def test_epoch_start_clusters_and_draws_the_head_anew():
    algorithm, batches = small(), loader()
    weight, bias = algorithm.head.fc.weight, algorithm.head.fc.bias
    nn.init.ones_(bias)
    old = weight.detach().clone()
    fresh = algorithm.on_epoch_start(batches, Clock(7, 2))
    assert [id(p) for p in fresh] == [id(weight), id(bias)]  # in place
    assert not torch.equal(weight, old) and (bias == 0).all()
    assert torch.equal(batches.labels, algorithm.labels)
    assert (algorithm.weight == 1).all()
    features = dataset_features(algorithm, algorithm.embed, batches.dataset)
    again = [cluster_features(features, K, 8, seed) for seed in range(20)]
    assert max(normalized_mutual_information(labels, algorithm.labels) for labels in again) > 0.5


def test_epoch_start_repeats_with_the_same_random_state():
    algorithm, batches = small(), loader()
    found = []
    for _ in range(2):
        torch.manual_seed(11)
        algorithm.on_epoch_start(batches, Clock(7, 2))
        found.append(algorithm.labels.clone())
    assert torch.equal(*found)
    assert math.isclose(algorithm.nmi, 1, abs_tol=1e-5)  # the same features, the same seed


def test_epoch_start_waits_for_its_turn():
    algorithm, batches = small(every=3), loader()
    assert algorithm.on_epoch_start(batches, Clock(7, 9, step=0))
    labels = algorithm.labels.clone()
    for epoch in (1, 2):
        assert algorithm.on_epoch_start(batches, Clock(7, 9, step=7 * epoch)) == []
        assert torch.equal(algorithm.labels, labels)
    assert algorithm.on_epoch_start(batches, Clock(7, 9, step=21))


def test_uniform_sampling_shows_all_clusters_equally_often():
    algorithm, batches = small(), loader(batch_size=10)
    algorithm.on_epoch_start(batches, Clock(6, 2))
    seen = torch.cat([targets for _, targets in batches])
    counts = algorithm.labels[seen].bincount(minlength=K)
    filled = algorithm.labels.bincount(minlength=K) > 0
    assert counts[filled].max() - counts[filled].min() <= 1


def test_without_balance_the_loss_is_weighted():
    "A loader that cannot draw uniformly: all clusters count the same over the whole data set."
    algorithm = small().eval()

    class Plain(list):
        dataset = images()

    algorithm.on_epoch_start(Plain(), Clock(7, 2))
    sizes = algorithm.labels.bincount(minlength=K)
    torch.testing.assert_close(algorithm.weight[sizes > 0], 1 / sizes[sizes > 0])
    views, index = [images().batch()], torch.arange(N)
    loss = algorithm(views, index, mode="loss")["loss"]
    logits = algorithm.diagnostics()["logits"]
    rows = F.cross_entropy(logits, algorithm.labels, reduction="none")
    expected = torch.stack([rows[algorithm.labels == c].mean() for c in algorithm.labels.unique()])
    torch.testing.assert_close(loss.detach(), expected.mean())

    plain = small(uniform=False)
    plain.on_epoch_start(batches := loader(), Clock(7, 2))
    assert (plain.weight == 1).all() and batches.labels is None


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_forgotten_state_equals_a_new_optimizer(kind):
    "What a loop does with the returned parameters, against an optimizer that never knew the old head."
    torch.manual_seed(0)
    options = dict(lr=0.1, momentum=0.9) if kind is torch.optim.SGD else dict(lr=0.1)
    weight = nn.Parameter(torch.randn(4, 3))
    optimizer = kind([weight], **options)
    for _ in range(3):
        weight.grad = torch.randn(4, 3)
        optimizer.step()
    with torch.no_grad():
        weight.copy_(torch.ones(4, 3))
    for parameter in [weight]:
        optimizer.state.pop(parameter, None)
    twin = nn.Parameter(torch.ones(4, 3))
    other = kind([twin], **options)
    for _ in range(3):
        weight.grad = torch.randn(4, 3)
        twin.grad = weight.grad.clone()
        optimizer.step(), other.step()
    assert torch.equal(weight, twin)


def test_loss_is_cross_entropy_with_the_clusters():
    algorithm = small().double()
    algorithm.labels.copy_(torch.randint(K, (N,)))
    views, index = [torch.randn(B, 3, 20, 28).double()], torch.randperm(N)[:B]
    losses = algorithm(views, index, mode="loss")
    logits = algorithm.diagnostics()["logits"]
    torch.testing.assert_close(
        losses["loss"].detach(), F.cross_entropy(logits, algorithm.labels[index])
    )
    assert math.isclose(
        losses["loss"].item(), math.log(K), rel_tol=0.05
    )  # a new head knows nothing
    assert set(losses) == {"loss", "std", "accuracy", "nmi"}
    losses["loss"].backward()
    assert all(p.grad is not None for p in algorithm.parameters())
    found = algorithm.diagnostics()
    assert found["assignments"].shape == (N,) and found["sizes"].sum() == N
    assert not set(found) & set(algorithm.state_dict())


def test_state_dict_carries_the_clusters():
    first, second = small(), small()
    first.on_epoch_start(loader(), Clock(7, 2))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.labels, second.labels) and first.nmi == second.nmi


def test_config_builds_it():
    path = "nenya_nb.models.algorithms.deepcluster."
    backbone = {"type": "resnet_tiny", "in_channels": 2}
    algorithm = build(
        {
            "type": path + "DeepCluster",
            "backbone": {"type": path + "Sobel", "backbone": backbone},
            "length": N,
            "num_classes": K,
            "loss_fn": {"type": "CrossEntropyLoss", "reduction": "none"},
        }
    )
    assert algorithm.head.fc.weight.shape == (K, 128) and algorithm.pca_dims == 256
    assert (DeepCluster.views, DeepCluster.targets) == ("cluster_view", "index")


def test_wrong_parts_and_use_are_refused():
    with pytest.raises(ValueError, match="num_classes=61 must be between"):
        small(num_classes=61)
    with pytest.raises(ValueError, match="every=0"):
        small(every=0)
    with pytest.raises(ValueError, match="set backbone.output_dim"):
        small(backbone=nn.Flatten())
    algorithm = small()
    with pytest.raises(ValueError, match="takes one view of each image, got 2"):
        algorithm([torch.zeros(2, 3, 16, 16)] * 2, torch.arange(2), mode="loss")
    with pytest.raises(ValueError, match="needs targets; they are the images' numbers"):
        algorithm([torch.zeros(2, 3, 16, 16)], mode="loss")
    with pytest.raises(ValueError, match="memory is for 60 images, the data set has 30"):
        algorithm.on_epoch_start(loader(images(30)), Clock(7, 2))
    with pytest.raises(ValueError, match="use a loader that has a dataset"):
        algorithm.on_epoch_start([(1, 2)], Clock(7, 2))
    with pytest.raises(ValueError, match="head has 4 answers, but there are 6 clusters"):
        small(head=ClsHead(128, 4), num_classes=6)


def test_a_loader_that_balances_needs_no_weights():
    "A run may go on with another loader than it began with."

    class Balancing(list):
        dataset = images()

        def balance(self, labels):
            self.balanced = labels.clone()

    algorithm, plain, balancing = small(), Balancing(), Balancing()
    plain.balance = None  # a loader that cannot
    algorithm.on_epoch_start(plain, Clock(7, 2))
    sizes = algorithm.labels.bincount(minlength=algorithm.num_classes)
    torch.testing.assert_close(algorithm.weight, 1 / sizes.clamp(min=1))
    algorithm.on_epoch_start(balancing, Clock(7, 2))
    assert torch.equal(balancing.balanced, algorithm.labels) and (algorithm.weight == 1).all()
