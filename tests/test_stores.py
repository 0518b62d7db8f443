"""Images on disk: the same numbers as in memory, in order, whatever the threads do."""

import pickle
import threading
import time

import pytest
import torch

from nenya_nb.data import stores
from nenya_nb.data.datasets import ImageDataset
from nenya_nb.data.loaders import ViewLoader
from nenya_nb.data.stores import ImageStore, fits, free_memory, read_ahead


class Held(ImageStore):
    "A store of a tensor; slow, and slower for some rows than for others."

    def __init__(self, images, delay=0.0):
        super().__init__(images.shape, images.dtype)
        self.images, self.delay, self.threads = images, delay, set()

    def read(self, rows):
        self.threads.add(threading.get_ident())
        time.sleep(self.delay * (1 + rows[0] % 3))
        return self.images[torch.tensor(rows, dtype=torch.long)]


@pytest.fixture(params=["bytes", "floats"])
def images(request):
    images = torch.randint(0, 256, (60, 3, 16, 16), dtype=torch.uint8)
    return images if request.param == "bytes" else images.float() - 100


@pytest.mark.parametrize(
    "index", [3, -1, slice(5, 9), slice(None, None, 7), [4, 4, 0], torch.tensor([9, 2])]
)
def test_store_is_indexed_like_a_tensor(images, index):
    assert torch.equal(Held(images)[index], images[index])


def test_store_takes_masks_and_parts_of_parts(images):
    mask = torch.arange(60) % 4 == 1
    part = Held(images).take(mask)
    assert part.shape == (15, 3, 16, 16) and torch.equal(part[:], images[mask])
    assert torch.equal(part.take([3, 1])[1], images[mask][1])
    assert torch.equal(Held(images).to("cpu"), images)


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_read_ahead_keeps_the_order(images, workers):
    store, order = Held(images, 0.0005), torch.randperm(60)
    found = list(read_ahead(store, order.split(8), workers))
    assert torch.equal(torch.cat(found), images[order]) and len(found) == 8
    assert len(store.threads) <= workers


def test_read_ahead_reads_no_more_than_asked():
    asked = []

    def batches():
        for i in range(100):
            asked.append(i)
            yield torch.tensor([i])

    reader = read_ahead(Held(torch.zeros(100, 1, 2, 2)), batches(), workers=2, ahead=3)
    next(reader)
    assert len(asked) == 4
    before = threading.active_count()
    reader.close()
    time.sleep(0.05)
    assert threading.active_count() < before


def test_read_ahead_raises_when_the_batch_is_due():
    class Broken(Held):
        def read(self, rows):
            if 30 in rows:
                raise ValueError("row 30")
            return super().read(rows)

    reader = read_ahead(Broken(torch.zeros(60, 1, 2, 2)), torch.arange(60).split(20), workers=3)
    assert len(next(reader)) == 20
    with pytest.raises(ValueError, match="row 30"):
        next(reader)


def test_fits_asks_the_machine(monkeypatch):
    assert 0 < free_memory() < 2**50
    monkeypatch.setattr(stores, "free_memory", lambda device: 1000)
    assert fits(torch.zeros(500, 1, 1, 1, dtype=torch.uint8))
    assert not fits(torch.zeros(501, 1, 1, 1, dtype=torch.uint8))
    assert not fits(torch.zeros(126, 1, 1, 1)) and fits(torch.zeros(126, 1, 1, 1), share=0.6)


def test_a_containers_limit_counts(monkeypatch, tmp_path):
    allowed, used = tmp_path / "max", tmp_path / "current"
    monkeypatch.setattr(stores, "_LIMITS", ((tmp_path, "max", "current", "inactive_file"),))
    assert stores._container_memory() is None
    (tmp_path / "memory.stat").write_text("anon 2\ninactive_file 0\nactive_file 1\n")
    allowed.write_text("max\n"), used.write_text("5\n")
    assert stores._container_memory() is None
    allowed.write_text("4096\n")
    assert stores._container_memory() == 4091 == free_memory()
    used.write_text("4000\n")  # most of it are files that were read once
    (tmp_path / "memory.stat").write_text("anon 2\ninactive_file 3000\nactive_file 1\n")
    assert stores._container_memory() == 3096 == free_memory()


@pytest.mark.parametrize("recipe", ["two_views", {"type": "multi_crop", "num_local": 2}])
@pytest.mark.parametrize("shuffle", [True, False])
def test_both_roads_give_the_same_batches(images, recipe, shuffle):
    data = ImageDataset(images, torch.arange(60))
    lazy = ImageDataset(Held(images, 0.0002), torch.arange(60))
    assert (lazy.mean, lazy.std) == (data.mean, data.std)
    options = dict(batch_size=16, recipe=recipe, seed=5, shuffle=shuffle)
    cached, read, forced = (
        data.loader(**options),
        lazy.loader(**options),
        lazy.loader(**options, cache=True),
    )
    assert cached.cached and not read.cached and forced.cached
    for _ in range(2):
        for (a, t), (b, u), (c, v) in zip(cached, read, forced, strict=True):
            assert all(map(torch.equal, a, b)) and all(map(torch.equal, a, c))
            assert torch.equal(t, u) and torch.equal(t, v)


@pytest.mark.parametrize("begun", [True, False])
def test_a_run_begun_on_one_road_goes_on_exactly_on_the_other(images, begun):
    data = ImageDataset(images, torch.arange(60))
    expected = [
        views[0] for loader in [data.loader(16, seed=3)] for _ in "12" for views, _ in loader
    ]
    first, second = (data.loader(16, seed=3, cache=cache) for cache in (begun, not begun))
    found = [views[0] for views, _ in first]
    state = first.state_dict()
    found.append(next(iter(first))[0][0])  # one batch of the second epoch, then the end
    second.load_state_dict(state)
    found += [views[0] for views, _ in list(second)[1:]]
    assert len(found) == len(expected) and all(map(torch.equal, found, expected))


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_batches_from_disk_as_from_memory(images, processes):
    data = ImageDataset(images, torch.arange(60))
    for rank in range(processes):
        roads = [data.loader(16, seed=1, cache=c).shard(rank, processes) for c in (True, False)]
        for (a, t), (b, u) in zip(*roads, strict=True):
            assert all(map(torch.equal, a, b)) and torch.equal(t, u) and len(t) == 16 // processes


def test_row_numbers_and_balance_work_from_disk(images):
    lazy = ImageDataset(Held(images), torch.arange(60) % 5)
    loader = ViewLoader(lazy, lambda x: x, 10, targets="index")
    loader.balance(torch.arange(60) < 6)
    counts = torch.cat([rows for _, rows in loader]).bincount(minlength=60)
    assert counts[:6].sum() == 30 and counts.sum() == 60


def test_subset_of_a_store_reads_nothing(images):
    store = Held(images)
    data = ImageDataset(store, torch.arange(60), mean=[0.5] * 3, std=[0.2] * 3)
    part = data.subset(torch.arange(60) >= 50)
    assert not store.threads and len(part) == 10 and "on disk" in repr(part)
    torch.testing.assert_close(part.batch([0]), data.batch([50]))


def test_a_closed_loop_leaves_no_threads(images):
    loader = ImageDataset(Held(images), torch.arange(60)).loader(10, seed=1)
    before = threading.active_count()
    for _ in loader:
        break
    del _
    time.sleep(0.1)
    assert threading.active_count() <= before


def test_stores_can_be_sent_to_another_process(images):
    assert torch.equal(pickle.loads(pickle.dumps(Held(images)))[[3]], images[[3]])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_caches_what_fits_and_gives_the_same_batches(images):
    lazy = ImageDataset(Held(images), torch.arange(60))
    cached, read = (lazy.loader(16, device="cuda", seed=1, cache=c) for c in (None, False))
    assert cached.cached and not read.cached
    for (a, t), (b, u) in zip(cached, read, strict=True):
        assert all(map(torch.equal, a, b)) and torch.equal(t, u) and a[0].is_cuda
