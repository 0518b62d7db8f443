"""Latents and k-NN against lightly, scikit-learn and closed forms."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from lightly.utils.benchmarking import knn_predict as lightly_knn_predict
from sklearn.neighbors import KNeighborsClassifier
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nenya_nb.core import Clock
from nenya_nb.evaluation import (
    KNNMonitor,
    extract_latents,
    knn,
    knn_accuracy,
    knn_predict,
    nearest_neighbours,
)


def clouds(n, seed, classes=5, dim=16, spread=1.5):
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(99))
    targets = torch.arange(n) % classes
    return centres[targets] + spread * torch.randn(n, dim, generator=random), targets


@pytest.mark.parametrize(
    "k, temperature", [(1, 0.07), (5, 0.07), (20, 0.07), (20, 0.5), (200, 0.1)]
)
def test_knn_predict_matches_lightly(k, temperature):
    (train, names), (test, _) = clouds(300, 0), clouds(150, 1)
    bank = F.normalize(train, dim=1).T  # lightly wants it transposed
    expected = lightly_knn_predict(
        F.normalize(test, dim=1), bank, names, 5, knn_k=k, knn_t=temperature
    )[:, 0]
    assert torch.equal(knn_predict(train, names, test, k, temperature), expected)


@pytest.mark.parametrize("k", [1, 7, 30])
def test_knn_predict_matches_scikit_learn(k):
    (train, names), (test, truth) = clouds(300, 2), clouds(150, 3)

    def weights(distance):
        return (torch.from_numpy((1 - distance) / 0.07).exp()).numpy()

    oracle = KNeighborsClassifier(k, metric="cosine", weights=weights).fit(
        train.numpy(), names.numpy()
    )
    assert (knn_predict(train, names, test, k).numpy() == oracle.predict(test.numpy())).all()
    assert knn_accuracy(train, names, test, truth, k) == pytest.approx(
        oracle.score(test.numpy(), truth.numpy())
    )


def test_nearest_neighbours_matches_sorting():
    (known, _), (asked, _) = clouds(80, 4), clouds(30, 5)
    similarity, index = nearest_neighbours(known, asked, k=9)
    full = F.cosine_similarity(asked[:, None], known[None], dim=2)
    order = full.argsort(dim=1, descending=True)[:, :9]
    assert torch.equal(index, order) and torch.allclose(
        similarity, full.gather(1, order), atol=1e-6
    )


@pytest.mark.parametrize("count, k", [(1, 1), (50, 3), (50, 50), (1000, 1), (1003, 7), (4099, 200)])
@pytest.mark.parametrize("levels", [None, 5], ids=["all differ", "many ties"])
def test_the_largest_are_those_of_topk(count, k, levels):
    rows = torch.randn(6, count)
    rows = rows if levels is None else rows.mul(levels).round()
    rows[0] = torch.arange(count).float()  # the largest side by side, at the end
    rows[1] = -rows[0]
    values, where = knn._largest(rows, k)
    assert torch.equal(values, rows.topk(k).values)
    assert torch.equal(values, rows.gather(1, where))
    assert all(len(set(row)) == k for row in where.tolist())


def test_groups_of_queries_do_not_change_the_answer(monkeypatch):
    (train, names), (test, truth) = clouds(100, 6), clouds(57, 7)
    whole = knn_accuracy(train, names, test, truth)
    monkeypatch.setattr(knn, "_CHUNK", 250)  # two queries at a time
    assert knn_accuracy(train, names, test, truth) == whole


def test_accuracy_does_not_depend_on_length_or_rotation():
    (train, names), (test, truth) = clouds(200, 8), clouds(100, 9)
    whole = knn_accuracy(train, names, test, truth)
    rotation = torch.linalg.qr(torch.randn(16, 16))[0]
    scale = torch.rand(200, 1) + 0.5
    assert knn_accuracy(
        scale * train @ rotation, names, 7 * test @ rotation, truth
    ) == pytest.approx(whole, abs=0.011)


def test_accuracy_limits():
    train, names = clouds(200, 10)
    assert knn_accuracy(train, names, train, names, k=1) == 1.0
    assert knn_accuracy(
        torch.ones(200, 3), names, torch.ones(50, 3), torch.zeros(50).long(), k=200
    ) in (0.0, 1.0)  # a tie
    assert knn_accuracy(train, names, train, names, k=20, temperature=1e-4) == 1.0  # no overflow


def test_knn_accepts_half_precision_and_int32_targets():
    train, names = clouds(100, 11)
    assert knn_accuracy(train.half(), names.int().long(), train.half(), names, k=1) == 1.0


def test_knn_explains_mistakes():
    train, names = clouds(10, 12)
    with pytest.raises(ValueError, match="k=20, but there are 10"):
        knn_accuracy(train, names, train, names)
    with pytest.raises(ValueError, match="expected"):
        nearest_neighbours(train, train[0], k=1)
    with pytest.raises(ValueError, match="k=0"):
        nearest_neighbours(train, train, k=0)
    with pytest.raises(ValueError, match="knn_predict: 3 of 10 train_targets are below 0"):
        knn_predict(train, names.clone().index_fill_(0, torch.tensor([0, 4, 5]), -1), train, k=2)
    with pytest.raises(ValueError, match="knn_accuracy: 10 of 10 test_targets are below 0"):
        knn_accuracy(train, names, train, torch.full((10,), -1), k=2)
    with pytest.raises(ValueError, match=r"test_features \(10, \d+\) and test_targets \(9,\)"):
        knn_accuracy(train, names, train, names[:9], k=2)
    with pytest.raises(ValueError, match=r"train_targets \(9,\)"):
        knn_accuracy(train, names[:9], train, names, k=2)
    broken = train.clone()
    broken[1, 3], broken[7, 0] = torch.nan, torch.inf
    with pytest.raises(ValueError, match="2 of 10 rows of features hold nan"):
        nearest_neighbours(broken, train, k=1)
    with pytest.raises(ValueError, match="2 of 10 rows of query hold nan"):
        nearest_neighbours(train, broken, k=1)


class Images(SimpleNamespace):
    "The small interface of our data sets."

    def __len__(self):
        return len(self.targets)

    def batch(self, index=None, device=None):
        return self.images[index].to(device)


def images(n=23):
    return Images(images=torch.rand(n, 3, 4, 4), targets=torch.randint(0, 5, (n,)))


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))


@pytest.mark.parametrize("batch_size", [1, 7, 23, 100])
def test_latents_are_in_order_whatever_the_source(batch_size):
    data, model = images(), network()
    expected = model.eval()(data.images)
    model.train()
    plain = TensorDataset(data.images, data.targets)
    for source in (
        data,
        plain,
        DataLoader(plain, batch_size),
        [(data.images[:20], data.targets[:20]), (data.images[20:], data.targets[20:])],
    ):
        features, targets = extract_latents(model, source, batch_size)
        assert torch.allclose(features, expected, atol=1e-6) and torch.equal(targets, data.targets)
        assert features.dtype == torch.float32 and targets.dtype == torch.int64


def test_latents_leave_modes_weights_and_buffers_alone():
    model = network()
    model[2].eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    extract_latents(model, images())
    with pytest.raises(ValueError, match="expected features"):
        extract_latents(nn.Sequential(model, nn.Unflatten(1, (2, 4))), images())
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


def test_latents_use_extract_feat_and_can_be_trained_upon():
    class Algorithm(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = network()

        def forward(self, views, targets=None, mode="tensor"):
            raise AssertionError("the algorithm itself must not be called")

        def extract_feat(self, images):
            return self.backbone(images)

    latents = extract_latents(Algorithm(), images())
    probe = nn.Linear(8, 5)
    F.cross_entropy(probe(latents.features), latents.targets).backward()
    assert probe.weight.grad is not None and "23 images, 8 features" in repr(latents)


def test_latents_of_nothing_are_refused():
    with pytest.raises(ValueError, match="empty"):
        extract_latents(network(), [])


def test_monitor_measures_untrained_every_second_epoch_and_the_last():
    logged = []
    clock = Clock(steps_per_epoch=4, epochs=5)
    history = SimpleNamespace(log=lambda step, values: logged.append((step, *values)))
    run = SimpleNamespace(algorithm=network(), device="cpu", clock=clock, history=history)
    monitor = KNNMonitor(images(40), images(20), every=2)
    for _ in range(clock.epochs):
        monitor.on_epoch_start(run)
        clock.step += clock.steps_per_epoch
        monitor.on_epoch_end(run)
    assert logged == [(step, "knn") for step in (0, 8, 16, 20)]
    with pytest.raises(ValueError, match="every=0"):
        KNNMonitor(images(), images(), every=0)
