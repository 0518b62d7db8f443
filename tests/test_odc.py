"""ODC: the memory's rules one by one, repair of small clusters, and training that goes on exactly."""

import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import nn

from nenya_nb.core import Clock
from nenya_nb.data import ImageDataset
from nenya_nb.models import ClsHead, LinearNeck, build, mlp, resnet_tiny
from nenya_nb.models.algorithms.deepcluster import DeepCluster, Sobel, cluster_means
from nenya_nb.models.algorithms.npid import NPID, SimpleMemory
from nenya_nb.models.algorithms.odc import ODC, ODCMemory, ODCNeck
from nenya_nb.training import fit

torch.set_num_threads(1)
N, K, B = 80, 5, 8


def images(count=N) -> ImageDataset:
    torch.manual_seed(5)
    return ImageDataset(torch.randint(256, (count, 3, 16, 16), dtype=torch.uint8))


def loader(count=N):
    return images(count).loader(batch_size=B, recipe="one_view", targets="index")


def memory(length=N, dim=4, k=K, least=4, labels=None) -> ODCMemory:
    found = ODCMemory(length, dim, k, min_cluster=0)
    found.start(torch.randn(length, dim), torch.arange(length) % k if labels is None else labels)
    found.min_cluster = least
    return found


def small(**settings) -> ODC:
    backbone = settings.pop("backbone", None) or Sobel(resnet_tiny(in_channels=2))
    settings = dict(memory=ODCMemory(N, 16, K, min_cluster=4)) | settings
    return ODC(backbone, ODCNeck(128, 32, 16), **settings)


# ---------------------------------------------------------------- neck


def test_neck_is_the_papers():
    neck = ODCNeck(2048)
    assert (neck.fc0.out_features, neck.fc1.out_features) == (512, 256)
    assert neck.bn0.momentum == 0.001 and not neck.bn0.affine and neck.dropout.p == 0.5
    small = ODCNeck(6, 5, 3).eval()
    x = torch.randn(4, 6, 2, 2)
    hidden = F.relu(
        F.linear(x.mean((2, 3)), small.fc0.weight, small.fc0.bias) / math.sqrt(1 + 1e-5)
    )
    torch.testing.assert_close(small(x), F.relu(small.fc1(hidden)))


# ---------------------------------------------------------------- memory


def test_memory_features_follow_the_simple_memory():
    found, twin = memory(), SimpleMemory(N, 4)
    twin.features.copy_(found.features)
    index, z = torch.randperm(N)[:9], torch.randn(9, 4)
    found.update(index, z), twin.update(index, z)
    assert torch.equal(found.features, twin.features)


def test_memory_update_moves_images_to_the_best_centroid():
    found = memory()
    before, index = found.labels.clone(), torch.randperm(N)[:9]
    changed = found.update(index, torch.randn(9, 4))
    expected = (found.features[index] @ found.centroids.T).argmax(1)
    assert torch.equal(found.labels[index], expected)
    others = torch.ones(N, dtype=torch.bool).index_fill(0, index, False)
    assert torch.equal(found.labels[others], before[others])
    assert math.isclose(changed, (expected != before[index]).float().mean())


def test_memory_start_and_refresh_give_means_and_weights():
    labels = torch.randint(K, (N,))
    found = memory(labels=labels, least=0)
    assert found.ready and torch.equal(found.labels, labels)
    means, sizes = cluster_means(found.features, labels, K)
    torch.testing.assert_close(found.centroids, means)  # not of length one
    torch.testing.assert_close(found.weight, sizes**-0.5)


def test_memory_keeps_the_centroid_of_an_empty_cluster():
    found = memory(least=0)
    old = found.centroids[2].clone()
    found.labels[found.labels == 2] = 3
    found.refresh()
    assert torch.equal(found.centroids[2], old) and found.weight.isfinite().all()


@pytest.mark.parametrize("seed", range(12))
def test_repair_leaves_no_small_cluster(seed):
    "Wherever there are 2 · K · min_cluster images, however lopsided the clusters are."
    torch.manual_seed(seed)
    k, least = int(torch.randint(2, 9, ())), int(torch.randint(1, 7, ()))
    length = 2 * k * least + int(torch.randint(5, ()))
    favourites = torch.rand(k) ** 6
    labels = torch.multinomial(favourites, length, replacement=True)
    found = memory(length, 3, k, least, labels)
    if seed % 3 == 0:
        found.features.copy_(found.features[:1].expand(length, 3).clone())  # nothing to tell apart
    found.refresh()
    sizes = found.labels.bincount(minlength=k)
    assert len(sizes) == k and sizes.min() >= least and sizes.sum() == length
    means = cluster_means(found.features, found.labels, k)[0]
    torch.testing.assert_close(found.centroids, means)


def test_repair_touches_nothing_when_all_is_well():
    found = memory()
    before = found.labels.clone()
    found.refresh()
    assert torch.equal(found.labels, before)


def test_repair_halves_the_largest_cluster_as_sklearn_does():
    torch.manual_seed(0)
    blob = torch.cat([torch.randn(25, 3) * 0.2 + 1, torch.randn(35, 3) * 0.2 - 1])
    blob = torch.cat([blob, torch.randn(20, 3) * 0.1 + torch.tensor([3.0, -3, 0])])
    labels = torch.tensor([0] * 60 + [1] * 20)
    found = memory(80, 3, 3, 4, labels)
    found.features.copy_(F.normalize(blob, dim=1))
    found.refresh()
    halves = KMeans(2, n_init=5, random_state=0).fit(found.features[:60].numpy()).labels_
    assert found.labels[60:].tolist() == [1] * 20
    ours = (found.labels[:60] == 2).long()
    assert ours.tolist() in (halves.tolist(), (1 - halves).tolist())


def test_dissolved_images_go_to_the_best_of_the_others():
    torch.manual_seed(0)
    labels = torch.arange(N) % 4
    labels[:2] = 4  # two images only
    found = memory(labels=labels)
    score = (found.features[:2] @ found.centroids.T)[:, :4]
    taken = score.argmax(1)
    rest = found.labels[2:].clone()
    found._repair(found.labels.bincount(minlength=K).float())
    for i in (0, 1):
        assert found.labels[i] in (taken[i], 4)  # 4 if that one was then halved
    assert (found.labels[2:] != rest).sum() <= 21 and found.labels.bincount().min() >= 4


def test_memory_refuses_too_many_clusters():
    with pytest.raises(ValueError, match="use min_cluster=8 or less"):
        ODCMemory(80, 4, 5, min_cluster=9)
    assert ODCMemory(80, 4, 5, min_cluster=8).num_classes == 5
    with pytest.raises(ValueError, match="ODCMemory: "):
        ODCMemory(80, 4, 5, min_cluster=0, momentum=1.0)


# ---------------------------------------------------------------- algorithm


def test_first_clustering_happens_once():
    algorithm, batches = small(), loader()
    assert not algorithm.memory.ready
    algorithm.on_epoch_start(batches, Clock(10, 2))
    assert algorithm.memory.ready and algorithm.memory.labels.bincount(minlength=K).min() >= 4
    state = {name: value.clone() for name, value in algorithm.state_dict().items()}
    algorithm.on_epoch_start(batches, Clock(10, 2, step=10))
    assert all(torch.equal(value, state[name]) for name, value in algorithm.state_dict().items())
    with torch.no_grad():
        rows = F.normalize(algorithm.eval().embed(batches.dataset.batch()), dim=1)
    torch.testing.assert_close(algorithm.memory.features, rows, atol=1e-5, rtol=1e-4)


def test_loss_is_the_weighted_mean_with_the_labels_before():
    algorithm = small().double().eval()
    algorithm.on_epoch_start(loader_double(), Clock(10, 2))
    index = torch.randperm(N)[:B]
    views, labels = [torch.randn(B, 3, 20, 24).double()], algorithm.memory.labels[index].clone()
    losses = algorithm(views, index, mode="loss")
    logits, weight = algorithm.diagnostics()["logits"], algorithm.memory.weight
    torch.testing.assert_close(losses["loss"].detach(), F.cross_entropy(logits, labels, weight))
    assert set(losses) == {"loss", "std", "accuracy", "changed"}
    losses["loss"].backward()
    assert all(p.grad is not None for p in algorithm.parameters())


def loader_double():
    class Doubles(ImageDataset):
        def normalize(self, images):
            return super().normalize(images).double()

    data = images()
    return Doubles(data.images).loader(batch_size=B, recipe="one_view", targets="index")


def test_after_step_writes_once_and_refreshes_in_its_rhythm():
    algorithm = small(interval=3)
    algorithm.on_epoch_start(loader(), Clock(10, 2))
    calls = []
    algorithm.memory.refresh = lambda: calls.append(clock.step)
    clock = Clock(10, 2)
    for clock.step in range(1, 8):
        algorithm([torch.randn(B, 3, 16, 16)], torch.arange(B), mode="loss")["loss"].backward()
        algorithm.after_step(clock)
    assert calls == [3, 6] and algorithm.memory.updates == 7
    algorithm.after_step(clock)
    assert algorithm.memory.updates == 7
    assert algorithm.diagnostics()["age"][:B].tolist() == [0] * B


def test_training_settles():
    "On images that are always shown alike: the loss falls, and labels come to rest."
    torch.manual_seed(0)
    algorithm, batches = small(), loader()
    algorithm.neck.dropout.p = 0.0
    clock, optimizer = Clock(10, 20), torch.optim.AdamW(algorithm.parameters(), 2e-3)
    losses, changes = [], []
    for _ in range(clock.epochs):
        algorithm.on_epoch_start(batches, clock)
        for index in torch.randperm(N).split(B):
            found = algorithm([batches.dataset.batch(index)], index, mode="loss")
            found["loss"].backward()
            optimizer.step(), optimizer.zero_grad()
            clock.step += 1
            algorithm.after_step(clock)
            losses.append(found["loss"].item()), changes.append(found["changed"].item())
            assert algorithm.memory.labels.max() < K
    torch.testing.assert_close(algorithm.memory.features.norm(dim=1), torch.ones(N))
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20]), losses
    assert sum(changes[-20:]) < 0.5 * sum(changes[:20]), changes


def test_state_dict_goes_on_exactly():
    torch.manual_seed(0)
    first, second = small(), small()
    first.on_epoch_start(loader(), Clock(10, 2))
    second.load_state_dict(first.state_dict())
    second.on_epoch_start(loader(), Clock(10, 2, step=10))  # clusters nothing again
    for algorithm in (first, second):
        torch.manual_seed(1)
        algorithm.loss([torch.randn(B, 3, 16, 16)], torch.arange(B))["loss"].backward()
        algorithm.after_step(Clock(10, 2, step=10))
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_looking_without_gradient_writes_nothing():
    algorithm = small()
    with torch.no_grad():
        algorithm([torch.randn(B, 3, 16, 16)], torch.arange(B), mode="loss")
    algorithm.after_step(Clock(10, 2, step=1))
    assert algorithm.memory.updates == 0


def test_config_builds_it():
    path = "nenya_nb.models.algorithms."
    memory = {"type": path + "odc.ODCMemory", "length": N, "dim": 16, "num_classes": K}
    algorithm = build(
        {
            "type": path + "odc.ODC",
            "backbone": {"type": "resnet_tiny"},
            "neck": {"type": path + "odc.ODCNeck", "input_dim": 128, "output_dim": 16},
            "memory": memory | {"min_cluster": 4},
        }
    )
    assert algorithm.head.fc.weight.shape == (K, 16) and algorithm.interval == 10
    assert (ODC.views, ODC.targets) == ("cluster_view", "index")
    default = ODC(resnet_tiny(), length=400, num_classes=10)
    assert default.memory.features.shape == (400, 256) and default.memory.min_cluster == 20


def test_wrong_parts_and_use_are_refused():
    with pytest.raises(ValueError, match=r"give length=len\(dataset\)"):
        ODC(resnet_tiny())
    with pytest.raises(ValueError, match="the memory holds 8"):
        small(memory=ODCMemory(N, 8, K, min_cluster=4))
    for neck in (None, mlp(128, 16)):
        with pytest.raises(ValueError, match="interval must be at least 1, got 0"):
            ODC(resnet_tiny(), neck, length=N, num_classes=2, interval=0)
    with pytest.raises(ValueError, match="head has 3 answers, but there are 2 clusters"):
        ODC(resnet_tiny(), head=ClsHead(256, 3), length=N, num_classes=2)
    assert ODC(resnet_tiny(), mlp(128, 16), length=N, num_classes=2).memory.dim == 16
    with pytest.raises(ValueError, match="set backbone.output_dim"):
        ODC(nn.Flatten(), length=N)
    algorithm = small()
    with pytest.raises(ValueError, match="takes one view of each image, got 2"):
        algorithm([torch.zeros(2, 3, 16, 16)] * 2, torch.arange(2), mode="loss")
    with pytest.raises(ValueError, match="needs targets; they are the images' numbers"):
        algorithm([torch.zeros(2, 3, 16, 16)], mode="loss")
    with pytest.raises(ValueError, match="memory is for 80 images"):
        algorithm.on_epoch_start(loader(40), Clock(5, 2))


@pytest.mark.parametrize("stop_at", [20, 25])  # between two epochs, and within one
@pytest.mark.parametrize("kind", ["npid", "deepcluster", "odc"])
def test_a_stopped_run_goes_on_exactly(kind, stop_at, tmp_path):
    "Memory, labels, balanced order and random numbers: as if nobody had stopped it."

    def fresh():
        torch.manual_seed(0)
        backbone = resnet_tiny(channels=(8, 8, 8, 16), stem_width=8)
        if kind == "npid":
            return NPID(backbone, LinearNeck(16, 8), length=N, num_negatives=16)
        if kind == "deepcluster":
            return DeepCluster(backbone, length=N, num_classes=K, pca_dims=8)
        return ODC(backbone, ODCNeck(16, 16, 8), memory=ODCMemory(N, 8, K, min_cluster=4))

    def stop(run):
        if run.clock.step == stop_at:
            run.control.stop()

    class Stopper:
        on_step = staticmethod(stop)

    settings = dict(epochs=4, batch_size=B, optimizer="sgd", lr=0.05, device="cpu")
    settings |= dict(progress=False, monitor=False)
    straight, first, second = fresh(), fresh(), fresh()
    fit(straight, images(), **settings)
    fit(first, images(), **settings, checkpoint_dir=tmp_path, callbacks=[Stopper()])
    fit(second, images(), **settings, checkpoint_dir=tmp_path, resume=True)
    for (name, a), b in zip(
        straight.state_dict().items(), second.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
