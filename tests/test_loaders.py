"""The view loader: repeatable, undisturbed, exact to continue, complete."""

from types import SimpleNamespace

import pytest
import torch

from nenya_nb.data.loaders import ViewLoader, balanced_rows
from nenya_nb.data.masks import Masked, RandomMask
from nenya_nb.data.transforms import Compose, MultiView
from nenya_nb.data.views import shapes_view
from nenya_nb.training.batches import Batches

VIEWS = MultiView([shapes_view(16, [0.4] * 3, [0.2] * 3)] * 2)


def same(images):
    return images


@pytest.fixture
def dataset():
    images = torch.randint(0, 256, (50, 3, 16, 16), dtype=torch.uint8)
    return SimpleNamespace(images=images, targets=torch.arange(50))


def epoch(loader):
    "Everything one epoch gives: (views, targets) in one tensor each."
    batches = list(loader)
    views = [torch.cat([views[v] for views, _ in batches]) for v in range(len(batches[0][0]))]
    return torch.stack(views), torch.cat([targets for _, targets in batches])


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_loader_yields_views_and_targets(dataset):
    loader = ViewLoader(dataset, VIEWS, batch_size=8)
    batches = list(loader)
    assert len(loader) == len(batches) == 6
    for views, targets in batches:
        assert [tuple(v.shape) for v in views] == [(8, 3, 16, 16)] * 2
        assert targets.shape == (8,) and targets.dtype == torch.int64
        assert not torch.equal(*views)


def test_loader_without_views_gives_every_image_once_with_its_target(dataset):
    views, targets = epoch(ViewLoader(dataset, same, batch_size=8, drop_last=False))
    assert sorted(targets.tolist()) == list(range(50)) and targets.tolist() != list(range(50))
    assert torch.equal(views[0], dataset.images[targets].float() / 255)


@pytest.mark.parametrize(
    "batch_size, drop_last, sizes",
    [
        (20, True, [20, 20]),
        (20, False, [20, 20, 10]),
        (25, True, [25, 25]),
        (50, True, [50]),
        (80, False, [50]),
    ],
)
def test_loader_length_and_last_batch(dataset, batch_size, drop_last, sizes):
    loader = ViewLoader(dataset, same, batch_size, drop_last=drop_last)
    assert [len(t) for _, t in loader] == sizes and len(loader) == len(sizes)


def test_loader_without_shuffling_keeps_the_order(dataset):
    _, targets = epoch(ViewLoader(dataset, same, 10, shuffle=False))
    assert targets.tolist() == list(range(50))


def test_loader_epochs_differ_in_order_and_views(dataset):
    loader = ViewLoader(dataset, VIEWS, 10)
    first, second = epoch(loader), epoch(loader)
    assert not torch.equal(first[1], second[1]) and loader.epoch == 2
    fixed = ViewLoader(dataset, VIEWS, 10, shuffle=False)
    assert not torch.equal(epoch(fixed)[0], epoch(fixed)[0])


def test_loader_same_seed_same_everything_whatever_happens_elsewhere(dataset):
    first = ViewLoader(dataset, VIEWS, 10, seed=3)
    expected = [epoch(first) for _ in range(2)]
    second = ViewLoader(dataset, VIEWS, 10, seed=3)
    torch.manual_seed(11), torch.rand(5)
    assert all(equal(epoch(second), e) for e in expected)
    assert not equal(epoch(ViewLoader(dataset, VIEWS, 10, seed=4)), expected[0])


@pytest.mark.parametrize("done", [0, 1, 3])
def test_loader_continues_to_the_bit_after_an_epoch(dataset, done):
    whole = ViewLoader(dataset, VIEWS, 16, seed=9)
    expected = [epoch(whole) for _ in range(5)]
    begin = ViewLoader(dataset, VIEWS, 16, seed=9)
    for _ in range(done):
        epoch(begin)
    later = ViewLoader(dataset, VIEWS, 16, seed=0)
    later.load_state_dict(begin.state_dict())
    assert all(equal(epoch(later), e) for e in expected[done:])


def test_loader_state_is_plain_numbers(dataset):
    loader = ViewLoader(dataset, VIEWS, 16, seed=9)
    epoch(loader)
    assert loader.state_dict() == {"seed": 9, "epoch": 1}


def test_loader_broken_off_goes_on_with_the_next_epoch(dataset):
    loader = ViewLoader(dataset, VIEWS, 10, seed=1)
    next(iter(loader))
    reference = ViewLoader(dataset, VIEWS, 10, seed=1)
    epoch(reference)
    assert equal(epoch(loader), epoch(reference))


def test_loader_two_iterations_at_once_do_not_disturb_each_other(dataset):
    loader = ViewLoader(dataset, VIEWS, 10, seed=1)
    one, two = iter(loader), iter(loader)
    mixed = [[next(one), next(two)] for _ in range(len(loader))]
    reference = ViewLoader(dataset, VIEWS, 10, seed=1)
    for position in range(2):
        for ours, theirs in zip(mixed, reference, strict=True):
            (views, targets), (expected, classes) = ours[position], theirs
            assert torch.equal(targets, classes) and equal(views, expected)


def test_loader_keeps_bytes_and_leaves_the_data_alone(dataset):
    before = dataset.images.clone()
    loader = ViewLoader(dataset, VIEWS, 10)
    epoch(loader)
    assert torch.equal(dataset.images, before) and loader._images.dtype == torch.uint8


def test_loader_moves_to_another_device(dataset):
    loader = ViewLoader(dataset, same, 10)
    assert loader.to("meta") is loader and loader.device.type == "meta"
    assert loader._images.device.type == "meta" and dataset.images.device.type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_loader_on_a_gpu_same_order_and_repeatable(dataset):
    cpu = ViewLoader(dataset, VIEWS, 10, seed=2)
    gpu = [ViewLoader(dataset, VIEWS, 10, device="cuda", seed=2) for _ in range(2)]
    first, second = epoch(gpu[0]), epoch(gpu[1])
    assert first[0].is_cuda and equal(first, second)
    assert torch.equal(first[1].cpu(), epoch(cpu)[1])


def test_loader_wraps_a_single_view_in_a_list(dataset):
    views, _ = next(iter(ViewLoader(dataset, shapes_view(8, [0.4] * 3, [0.2] * 3), 10)))
    assert isinstance(views, list) and views[0].shape == (10, 3, 8, 8)
    assert isinstance(ViewLoader(dataset, same, 10).views, Compose)


def test_loader_too_few_images_says_what_to_do(dataset):
    with pytest.raises(ValueError, match="50 images do not fill a batch of 128; use batch_size=50"):
        ViewLoader(dataset, VIEWS)
    assert len(ViewLoader(dataset, VIEWS, drop_last=False)) == 1
    with pytest.raises(ValueError, match="batch_size is 0"):
        ViewLoader(dataset, VIEWS, 0)


def test_loader_repr(dataset):
    assert repr(ViewLoader(dataset, VIEWS, 20)) == (
        "ViewLoader(SimpleNamespace, 2 batches of 20 from 50 images on cpu, epoch=0, seed=0)"
    )


# Row numbers as targets


def test_loader_targets_are_row_numbers_when_asked(dataset):
    dataset.targets = torch.arange(50) % 3
    views, rows = epoch(ViewLoader(dataset, same, 10, targets="index"))
    assert sorted(rows.tolist()) == list(range(50)) and rows.dtype == torch.int64
    assert torch.equal(views[0], dataset.images[rows].float() / 255)


def test_loader_row_numbers_leave_order_and_views_as_they_were(dataset):
    classes, index = (
        ViewLoader(dataset, VIEWS, 10, seed=5, targets=t) for t in ("classes", "index")
    )
    assert equal(epoch(classes), epoch(index))  # here image i has class i


def test_loader_unknown_targets(dataset):
    with pytest.raises(ValueError, match="kind of targets 'indices'. Did you mean 'index'"):
        ViewLoader(dataset, same, 10, targets="indices")


# Balance


@pytest.mark.parametrize(
    "labels",
    [
        torch.tensor([0] * 90 + [1] * 9 + [2]),
        torch.tensor([7] * 50 + [3] * 50),  # 0 to 2 and 4 to 6 are empty
        torch.zeros(100).long(),
        torch.arange(100),
        torch.arange(100) % 7,
        torch.tensor([-1] * 40 + [5] * 60),
    ],
)
def test_balanced_rows_show_every_cluster_equally_often(labels):
    rows = balanced_rows(labels, torch.Generator().manual_seed(0))
    assert rows.shape == labels.shape
    often = labels[rows].unique(return_counts=True)
    assert torch.equal(often[0], labels.unique()) and often[1].max() - often[1].min() <= 1
    again = rows.bincount(minlength=100)
    for label in labels.unique():  # within a cluster, all come equally often
        members = again[labels == label]
        assert members.max() - members.min() <= 1


def test_balanced_rows_are_in_random_order_and_favour_no_image():
    labels = torch.tensor([0] * 30 + [1] * 10)
    drawn = torch.stack([balanced_rows(labels) for _ in range(2000)])
    assert (labels[drawn].float().mean(0) - 0.5).abs().max() < 0.05  # at every place of an epoch
    often = drawn.flatten().bincount() / 2000
    assert (often[:30] - 20 / 30).abs().max() < 0.05 and (often[30:] - 2).abs().max() < 0.05


def test_balanced_rows_share_the_rest_among_the_clusters():
    labels = torch.arange(10) % 4  # 10 = 2 · 4 + 2: two clusters come three times
    more = torch.stack([labels[balanced_rows(labels)].bincount() == 3 for _ in range(1000)])
    assert (more.sum(1) == 2).all() and (more.float().mean(0) - 0.5).abs().max() < 0.06


def test_loader_balances_from_the_next_epoch_on(dataset):
    labels = torch.tensor([4] * 45 + [9] * 5)
    loader = ViewLoader(dataset, same, 10, seed=2)
    running = iter(loader)
    loader.balance(labels)
    plain = torch.cat([targets for _, targets in running])
    assert sorted(plain.tolist()) == list(range(50))  # the epoch that had begun stays as it was
    for _ in range(2):
        views, rows = epoch(loader)
        assert (labels[rows] == 9).sum() == 25 and len(rows) == 50 == 10 * len(loader)
        assert torch.equal(views[0], dataset.images[rows].float() / 255)
    loader.balance(None)
    assert equal(epoch(loader), epoch(later(dataset, same, 2, 3)))


def later(dataset, views, seed, epochs):
    "A loader that has that many epochs behind it."
    loader = ViewLoader(dataset, views, 10, seed=seed)
    loader.epoch = epochs
    return loader


def test_loader_balance_differs_each_epoch_and_is_repeatable(dataset):
    labels = torch.arange(50) % 3
    loaders = [ViewLoader(dataset, VIEWS, 10, seed=6) for _ in range(2)]
    for loader in loaders:
        loader.balance(labels)
    first, second = epoch(loaders[0]), epoch(loaders[0])
    assert not torch.equal(first[1], second[1])
    torch.rand(5)
    assert equal(epoch(loaders[1]), first) and equal(epoch(loaders[1]), second)


def test_loader_state_with_labels_survives_a_file_and_continues_to_the_bit(dataset, tmp_path):
    labels = torch.arange(50) % 3
    loader = ViewLoader(dataset, VIEWS, 10, seed=6)
    loader.balance(labels)
    epoch(loader)
    torch.save(loader.state_dict(), tmp_path / "state.pt")
    labels.zero_()  # the loader has its own copy
    expected = [epoch(loader) for _ in range(2)]
    fresh = ViewLoader(dataset, VIEWS, 10)
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert all(equal(epoch(fresh), e) for e in expected)


def test_loader_state_without_labels_ends_an_older_balance(dataset):
    loader, plain = ViewLoader(dataset, same, 10, seed=6), ViewLoader(dataset, same, 10, seed=6)
    loader.balance(torch.arange(50) % 3)
    loader.load_state_dict(plain.state_dict())
    assert equal(epoch(loader), epoch(plain))


def test_loader_balance_refuses_wrong_labels(dataset):
    loader = ViewLoader(dataset, same, 10)
    with pytest.raises(ValueError, match=r"shape \(49,\); expected \(50,\)"):
        loader.balance(torch.zeros(49))


def test_loader_passes_masks_through(dataset):
    loader = ViewLoader(dataset, MultiView([Masked(Compose([]), RandomMask(4, 8, 0.5))]), 10)
    (images, mask), _ = next(iter(loader))
    assert images.shape == (10, 3, 16, 16) and mask.shape == (10, 4, 4) and mask.dtype == torch.bool


@pytest.mark.parametrize("done", [1, 3])
def test_loader_balanced_epoch_goes_on_in_its_middle(dataset, tmp_path, done):
    "As `fit` does it: clusters are made before the epoch, the run is stopped and resumed within it."

    def batches():
        loader = ViewLoader(dataset, VIEWS, 10, seed=6, targets="index")
        return loader, Batches(loader, torch.device("cpu"))

    loader, whole = batches()
    list(whole.epoch())
    loader.balance(torch.arange(50) % 3)
    running = whole.epoch()
    for _ in range(done):
        next(running)
    torch.save(whole.state_dict(boundary=False), tmp_path / "state.pt")
    _, resumed = batches()
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    rest = list(resumed.epoch(skip=done))
    assert len(rest) == 5 - done
    for (views, rows), (expected, expected_rows) in zip(rest, running, strict=True):
        assert torch.equal(rows, expected_rows) and equal(views, expected)
