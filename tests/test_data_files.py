"""Data sets from files: folders of pictures, HDF5 cutouts, torchvision's formats; errors that name what is wrong."""

import pickle
from functools import partial

import h5py
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms import v2

from nenya_nb.data import (
    FileImages,
    HDF5Images,
    fill_missing,
    load_dataset,
    load_folder,
    load_hdf5,
    load_torchvision,
    read_image,
    torchvision_names,
    torchvision_sets,
)
from nenya_nb.models import SimCLR, get_backbone
from nenya_nb.training import fit


def picture(path, seed=0, size=(40, 30), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    smooth = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(smooth).resize(size, Image.Resampling.BICUBIC).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "flowers"
    for part, count in {"train": 6, "val": 2}.items():
        for kind in ("rose", "tulip", "iris"):
            for i in range(count):
                picture(root / part / kind / f"{i}.jpg", seed=hash((part, kind, i)) % 1000)
    (root / "train" / "rose" / "notes.txt").write_text("no picture")
    (root / "train" / ".cache").mkdir()
    picture(root / "train" / ".cache" / "0.jpg")
    return root


def same_batches(a, b, **options):
    for (x, t), (y, u) in zip(a.loader(**options), b.loader(**options), strict=True):
        assert all(map(torch.equal, x, y)) and torch.equal(t, u)


# Pictures


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (64, 64), (33, 90)])
def test_read_image_is_torchvisions_resize_and_centre_crop(tmp_path, size):
    path = picture(tmp_path / "a.png", size=size)
    image = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
    expected = v2.CenterCrop(24)(v2.Resize(24, antialias=True)(image)).float()
    assert (read_image(path, 24).float() - expected).abs().mean() < 4  # half a px of place


def test_read_image_keeps_pixels_of_the_right_size(tmp_path):
    path = picture(tmp_path / "a.png", size=(16, 12))
    array = np.array(Image.open(path))
    assert np.array_equal(read_image(path, (12, 16)).permute(1, 2, 0), array)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_read_image_takes_all_8_bit_modes(tmp_path, mode):
    ending = "jpg" if mode == "CMYK" else "png"
    Image.new("RGB", (20, 20), (200, 30, 90)).convert(mode).save(tmp_path / f"a.{ending}")
    for channels in (1, 3):
        assert read_image(tmp_path / f"a.{ending}", 10, channels).shape == (channels, 10, 10)


def test_read_image_follows_the_note_of_the_camera(tmp_path):
    image = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    note = image.getexif()
    note[0x0112] = 6  # turn by a quarter to the right
    image.save(tmp_path / "a.png", exif=note)
    expected = np.rot90(np.array(image), -1)
    assert np.array_equal(read_image(tmp_path / "a.png", 16, 1)[0], expected)


def test_large_jpegs_are_close_to_a_full_decode(tmp_path):
    path = picture(tmp_path / "a.jpg", size=(800, 640), quality=95)
    full = Image.open(path).resize((40, 32), Image.Resampling.BILINEAR)
    assert (read_image(path, (32, 40)).float() - v2.functional.pil_to_tensor(full)).abs().mean() < 3


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "16 bit"])
def test_read_image_names_what_is_no_picture(tmp_path, damage):
    path = picture(tmp_path / "bad.png")
    content = {"cut": path.read_bytes()[:200], "text": b"hello", "empty": b""}
    if damage == "16 bit":
        Image.fromarray(np.full((9, 9), 40000, np.uint16)).save(path)
    else:
        path.write_bytes(content[damage])
    with pytest.raises(ValueError, match=r"bad\.png' cannot be read as a picture"):
        read_image(path, 8)


def test_folder_has_its_classes_splits_and_pixels(folder):
    train, test = load_folder(folder, size=16), load_folder(folder, "test", size=16)
    assert train.classes == ["iris", "rose", "tulip"] == test.classes and train.name == "flowers"
    assert train.targets.tolist() == [0] * 6 + [1] * 6 + [2] * 6 and len(test) == 6
    assert torch.equal(train.images[7], read_image(folder / "train" / "rose" / "1.jpg", 16))
    assert (train.mean, train.std) == (test.mean, test.std)
    assert len(load_folder(folder, "all", size=16)) == 24
    assert torch.equal(load_folder(folder, "val", size=16).images, test.images)
    assert load_dataset(folder, size=(8, 12), channels=1).images.shape == (18, 1, 8, 12)


def test_folder_gives_equal_batches_from_memory_and_disk(folder):
    kept, lazy = (load_folder(folder, size=16, cache=cache) for cache in (True, False))
    assert isinstance(lazy.images, FileImages) and lazy.mean == kept.mean
    same_batches(kept, lazy, batch_size=6, seed=2)
    assert torch.equal(kept.subset([9, 3]).batch(), lazy.subset([9, 3]).batch())
    for (a, t), (b, u) in zip(kept.batches(5), lazy.batches(5), strict=True):
        assert torch.equal(a, b) and torch.equal(t, u)


def test_folder_is_cached_if_it_fits(folder, monkeypatch):
    from nenya_nb.data import stores

    monkeypatch.setattr(stores, "free_memory", lambda device: 1000)
    assert isinstance(load_folder(folder, size=16).images, FileImages)
    monkeypatch.setattr(stores, "free_memory", lambda device: 10**6)
    assert isinstance(load_folder(folder, size=16).images, torch.Tensor)


def test_folder_without_parts_is_divided_alike_each_time(folder):
    parts = [load_folder(folder / "train", s, size=8) for s in ("train", "test", "all")]
    assert [len(p) for p in parts] == [15, 3, 18]
    assert parts[1].targets.tolist() == [0, 1, 2]
    everything = {bytes(i.numpy().tobytes()) for i in parts[2].images}
    assert {bytes(i.numpy().tobytes()) for p in parts[:2] for i in p.images} == everything


def test_pictures_without_folders_have_no_classes(folder):
    plain = load_folder(folder / "train" / "rose", "all", size=8)
    assert plain.classes == [] and plain.targets.tolist() == [-1] * 6


def test_damaged_pictures_are_all_named_or_left_out(folder):
    for name in ("rose/2.jpg", "iris/5.jpg"):
        (folder / "train" / name).write_bytes(b"x")
    with pytest.raises(
        ValueError, match=r"2 of 18 pictures cannot be read: .*iris.5\.jpg.*rose.2\.jpg.*skip"
    ):
        load_folder(folder, size=8)
    left = load_folder(folder, size=8, unreadable="skip")
    assert len(left) == 16 and "2 unreadable left out" in repr(left)
    assert left.targets.bincount().tolist() == [5, 5, 6]
    assert len(load_folder(folder, "test", size=8, unreadable="skip")) == 6
    lazy = load_folder(folder, size=8, cache=False, mean=[0.5] * 3, std=[0.2] * 3)
    with pytest.raises(ValueError, match=r"[25]\.jpg' cannot be read"):
        for _ in lazy.loader(6):
            pass


def test_the_count_of_damaged_pictures_is_of_the_part_that_was_read(folder):
    (folder / "train" / "rose" / "2.jpg").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"^1 of 24 pictures cannot be read: .*rose.2\.jpg"):
        load_folder(folder, "all", size=8)
    with pytest.raises(ValueError, match=r"^1 of 18 training pictures cannot .*rose.2\.jpg"):
        load_folder(folder, "test", size=8)  # whose mean and spread are those of the training part


def test_pictures_of_16_bits_are_sent_to_hdf5_and_others_keep_their_reason(folder):
    deep = np.full((9, 9), 40000, np.uint16)
    for i in range(3):
        Image.fromarray(deep).save(folder / "train" / "iris" / f"{i}.png")
    (folder / "train" / "rose" / "2.jpg").write_bytes(b"x")
    says = r"0\.png', .*1\.png', .*2\.png' \(more than 8 bits a channel; put them in an HDF5 file .see load_hdf5"
    with pytest.raises(ValueError, match=f"4 of 21 pictures cannot be read: .*{says}") as caught:
        load_folder(folder, size=8)
    assert "2.jpg' (cannot identify image file)" in str(caught.value)
    assert str(caught.value).count("more than 8 bits") == 1
    left = load_folder(folder, size=8, unreadable="skip")
    assert len(left) == 17 and "4 unreadable left out" in repr(left) and "8 bits" in repr(left)
    for path in (folder / "train").rglob("*.jpg"):
        path.unlink()
    with pytest.raises(ValueError, match="none of 3 pictures can be read: .*more than 8 bits"):
        load_folder(folder, size=8, unreadable="skip")


def test_folder_errors_say_what_to_do(folder, tmp_path):
    (tmp_path / "empty" / "train" / "rose").mkdir(parents=True)
    picture(folder / "val" / "lily" / "0.jpg")
    for path, split, says in [
        (tmp_path / "nothing", "train", "no folder"),
        (folder, "trian", "Did you mean 'train'"),
        (folder / "train", "valid", "Known: all, test, train"),
        (tmp_path / "empty", "train", r"no pictures for split 'train'.*\.jpg"),
        (folder, "test", "Unknown class in 'val' 'lily'"),
    ]:
        with pytest.raises((ValueError, FileNotFoundError), match=says):
            load_folder(path, split, size=8)
    with pytest.raises(ValueError, match="Did you mean 'skip'"):
        load_folder(folder, size=8, unreadable="skp")


def test_training_reads_pictures_from_disk(folder):
    torch.manual_seed(0)
    losses = []
    for cache in (True, False):
        data = load_folder(folder, size=16, cache=cache)
        torch.manual_seed(0)
        model = SimCLR(get_backbone("resnet_tiny"))
        history = fit(model, data, epochs=2, batch_size=6, device="cpu", seed=1, progress=False)
        losses.append(history.columns()["loss"][1])
    assert np.array_equal(*losses) and np.isfinite(losses[0]).all()


# HDF5


@pytest.fixture
def cutouts(tmp_path):
    fields = np.random.default_rng(0).normal(15, 4, (40, 16, 16)).astype("float32")
    fields[3, :2] = np.nan
    fields[7, 0, 0] = np.inf
    with h5py.File(tmp_path / "cutouts.h5", "w") as file:
        file["train"], file["valid"] = fields[:30], fields[30:]
        file["valid_targets"] = np.arange(10) % 3
        file["train_metadata"] = np.zeros((30, 2))
    return tmp_path / "cutouts.h5", fields


def test_hdf5_fields_are_filled_demeaned_and_counted(cutouts):
    path, fields = cutouts
    data = load_hdf5(path)
    finite = np.where(np.isfinite(fields[:30]), fields[:30], np.nan)
    means = np.nanmean(finite, (1, 2), keepdims=True)
    expected = np.where(np.isnan(finite), means, finite)
    expected = expected - expected.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(data.images[:, 0], expected, atol=1e-5)
    np.testing.assert_allclose(data.std, expected.std(), rtol=1e-5)
    assert data.style == "fields" and "33 px missing in 2 images, filled" in repr(data)
    raw = load_hdf5(path, demean=False)
    np.testing.assert_allclose(
        raw.mean, np.where(np.isnan(finite), means, finite).mean(), rtol=1e-6
    )


def test_hdf5_partitions_targets_and_statistics(cutouts):
    path, fields = cutouts
    train, valid, test = (load_hdf5(path, s) for s in ("train", "valid", "test"))
    assert torch.equal(valid.images, test.images) and valid.std == train.std
    assert valid.targets.tolist() == (np.arange(10) % 3).tolist() and (train.targets == -1).all()
    everything = load_hdf5(path, "all", cache=False)
    assert torch.equal(everything.images[:], torch.cat([train.images, valid.images]))
    assert torch.equal(everything.images[[35, 2, 31]], everything.images[:][[35, 2, 31]])
    with pytest.raises(ValueError, match="Did you mean 'valid'"):
        load_hdf5(path, "vaild")
    with pytest.raises(ValueError, match="table of targets 'labels'"):
        load_hdf5(path, targets="labels")


@pytest.mark.parametrize("given", ["mean", "std"])
def test_a_mean_or_a_spread_alone_is_kept_by_every_loader(cutouts, folder, fake_stl, given):
    other = {"mean": "std", "std": "mean"}[given]
    loaders = {
        (290.0,): partial(load_hdf5, cutouts[0]),
        (0.1, 0.2, 0.3): partial(load_folder, folder, size=8),
        (0.3, 0.2, 0.1): partial(load_torchvision, "stl10", "test", fake_stl),
    }
    for number, load in loaders.items():
        data, measured = load(**{given: number}), load()
        assert getattr(data, given) == list(number)
        assert getattr(data, other) == getattr(measured, other)


def test_hdf5_targets_are_whole_numbers(cutouts):
    path, _ = cutouts
    with h5py.File(path, "r+") as file:
        file["whole"], file["share"] = np.full(30, 2.0), np.full(30, 1.7)
        file["gap"] = np.where(np.arange(30) == 4, np.nan, 1.0)
        file["names"] = ["spiral"] * 30
    assert set(load_hdf5(path, targets="whole").targets.tolist()) == {2}
    for table, found in {"share": "1.7", "gap": "nan", "names": "b'spiral'"}.items():
        with pytest.raises(
            ValueError, match=f"cutouts.h5: '{table}' holds {found}; expected a whole"
        ):
            load_hdf5(path, targets=table)


@pytest.mark.parametrize(
    "missing, says", [("error", r"in rows \[3, 7\]"), ("fil", "Did you mean 'fill'")]
)
def test_hdf5_missing_px_can_be_an_error(cutouts, missing, says):
    with pytest.raises(ValueError, match=says):
        load_hdf5(cutouts[0], missing=missing)


@pytest.mark.parametrize("cache", [True, False])
def test_hdf5_images_with_missing_px_can_be_left_out(cutouts, cache):
    left = load_hdf5(cutouts[0], missing="drop", cache=cache)
    keep = [i for i in range(30) if i not in (3, 7)]
    whole = load_hdf5(cutouts[0])
    assert torch.equal(left.images[:], whole.images[keep]) and "those images left out" in repr(left)


@pytest.mark.parametrize(
    "layout", ["plain", "chunks", "first", "last", "wide", "double", "big end", "half"]
)
def test_hdf5_layouts_give_the_same_images_from_memory_and_disk(tmp_path, layout):
    rng = np.random.default_rng(1)
    channels, width = 3 if layout in ("first", "last", "wide") else 1, 12 if layout == "wide" else 8
    fields = rng.normal(size=(30, channels, 8, width)).astype("float32")
    if layout == "half":
        fields = fields.astype("float16")
    stored = {
        "plain": fields[:, 0],
        "chunks": fields[:, 0],
        "last": fields.transpose(0, 2, 3, 1),
        "wide": fields.transpose(0, 2, 3, 1),
        "double": fields.astype("float64"),
        "big end": fields.astype(">f4"),
    }.get(layout, fields)
    options = dict(chunks=(4, *stored.shape[1:]), compression="gzip") if layout == "chunks" else {}
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("train", data=stored, **options)
    kept, lazy = (load_hdf5(tmp_path / "a.h5", cache=cache) for cache in (True, False))
    expected = fields.astype("float32") - fields.astype("float32").mean((2, 3), keepdims=True)
    np.testing.assert_allclose(kept.images, expected, atol=1e-6)
    assert torch.equal(lazy.images[[29, 4, 4]], kept.images[[29, 4, 4]])
    same_batches(kept, lazy, batch_size=8, seed=3)


def test_hdf5_bytes_stay_bytes_and_one_channel_can_become_three(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["train"] = images
    data = load_dataset(tmp_path / "a.hdf5", channels=3)
    assert data.images.dtype == torch.uint8 and data.style == "natural" and not data.notes
    assert np.array_equal(data.images[:, 2], images)


def test_hdf5_errors_say_what_is_wrong(tmp_path, cutouts):
    path = tmp_path / "odd.h5"
    with h5py.File(path, "w") as file:
        file["train"], file["valid"] = np.zeros((5, 8, 8), "int32"), np.zeros((0, 8, 8), "float32")
        file["list"], file["nan"] = np.zeros(3), np.full((4, 8, 8), np.nan)
        file.create_group("folder")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["dev"] = np.zeros((5, 8, 8), "float32")
    (tmp_path / "cut.h5").write_bytes(cutouts[0].read_bytes()[:4000])
    for file, split, says in [
        (path, "train", "'train' holds int32; expected floats"),
        (path, "valid", r"shape \(0, 8, 8\)"),
        (path, "list", r"shape \(3,\)"),
        (path, "folder", "Unknown partition"),
        (tmp_path / "other.h5", "all", "Unknown partition 'all'.*Known: dev"),
        (tmp_path / "cut.h5", "train", "cut short"),
        (tmp_path / "none.h5", "train", "There is no file"),
    ]:
        with pytest.raises((ValueError, FileNotFoundError), match=says):
            load_hdf5(file, split, mean=[0], std=[1])
    for missing in ("fill", "drop", "error"):
        with pytest.raises(ValueError, match="no image of nan has one px.*none would be left"):
            load_hdf5(path, "nan", missing=missing, mean=[0], std=[1])


@pytest.mark.parametrize("cache", [True, False])
def test_hdf5_images_without_one_px_are_named_and_left_out(tmp_path, cache):
    fields = np.random.default_rng(0).normal(290, 4, (20, 2, 8, 8)).astype("float32")
    fields[[4, 9]], fields[6, 0] = np.nan, np.nan  # two have nothing, one a single channel
    keep = [i for i in range(20) if i not in (4, 9)]
    with h5py.File(tmp_path / "gaps.h5", "w") as file:
        file["train"], file["train_targets"] = fields, np.arange(20)
        file["valid"], file["whole"] = fields[4:6], fields[keep]
    data = load_hdf5(tmp_path / "gaps.h5", cache=cache, demean=False)
    assert data.targets.tolist() == keep and len(data) == 18
    assert "2 images without one px left out, rows 4, 9" in repr(data)
    assert "64 px missing in 1 images, filled" in repr(data)
    whole = load_hdf5(tmp_path / "gaps.h5", "whole", demean=False, mean=[0, 0], std=[1, 1])
    assert torch.equal(data.images[:], whole.images)
    assert data.mean[1] == pytest.approx(fields[keep, 1].mean(), rel=1e-6)  # without their zeros
    valid = load_hdf5(tmp_path / "gaps.h5", "valid", cache=cache, demean=False)
    assert len(valid) == 1 and valid.mean == data.mean


def test_hdf5_store_survives_pickling(cutouts):
    store = HDF5Images(cutouts[0], "train")
    assert torch.equal(pickle.loads(pickle.dumps(store))[[5, 1]], store[[5, 1]])


def test_fill_missing_fills_each_channel_by_itself():
    images = torch.tensor([[[[1.0, 3.0, torch.nan]], [[torch.nan] * 3]]])
    filled, count = fill_missing(images)
    assert filled.tolist() == [[[[1, 3, 2]], [[0, 0, 0]]]] and count.tolist() == [4]
    assert images.isnan().sum() == 4  # the input is left alone


# torchvision


@pytest.fixture
def fake_stl(tmp_path, monkeypatch):
    class STL10(torchvision.datasets.STL10):
        splits = ("train", "test", "unlabeled")

        def _check_integrity(self):
            return True

    rng, folder = np.random.default_rng(0), tmp_path / "stl10_binary"
    folder.mkdir()
    for part, count in {"train": 20, "test": 8, "unlabeled": 12}.items():
        rng.integers(0, 256, count * 3 * 96 * 96, dtype=np.uint8).tofile(folder / f"{part}_X.bin")
        (np.arange(count, dtype=np.uint8) % 10 + 1).tofile(folder / f"{part}_y.bin")
    (folder / "class_names.txt").write_text("\n".join(f"kind{i}" for i in range(10)))
    monkeypatch.setattr(torchvision.datasets, "STL10", STL10)
    return tmp_path


def test_stl10_is_read_from_torchvisions_files(fake_stl):
    train, test, more = (
        load_dataset("stl10", split, root=fake_stl) for split in ("train", "test", "unlabeled")
    )
    original = torchvision.datasets.STL10(fake_stl, "train")
    assert np.array_equal(train.images, original.data) and train.classes[2] == "kind2"
    assert train.targets.tolist() == original.labels.tolist()
    assert (len(test), len(more)) == (8, 12) and set(more.targets.tolist()) == {-1}
    assert test.mean == more.mean == train.mean and train.images.shape[1:] == (3, 96, 96)
    with pytest.raises(ValueError, match="unlabelled"):
        load_dataset("stl10", "unlabelled", root=fake_stl)


def test_fashion_mnist_has_one_channel(tmp_path, monkeypatch):
    class FashionMNIST(torchvision.datasets.FashionMNIST):
        def _check_exists(self):
            return True

        def _load_data(self):
            images = torch.arange(50 * 784).reshape(50, 28, 28) % 256
            return images.to(torch.uint8)[: 50 if self.train else 20], torch.arange(
                50 if self.train else 20
            ) % 10

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", FashionMNIST)
    data = load_dataset("fashionmnist", "all", root=tmp_path)
    assert data.images.shape == (70, 1, 28, 28) and data.style == "natural"
    assert data.classes[0] == "T-shirt/top"


@pytest.mark.parametrize("cache", [True, False])
def test_imagenette_is_read_from_its_files(tmp_path, cache):
    root = tmp_path / "imagenette2-160"
    wnids = (
        list(torchvision.datasets.imagenette.Imagenette._WNID_TO_CLASS)
        if hasattr(torchvision.datasets.imagenette.Imagenette, "_WNID_TO_CLASS")
        else None
    )
    wnids = wnids or [
        f"n0{i}"
        for i in "1440764 2102040 2979186 3000684 3028079 3394916 3417042 3425413 3445777 3888257".split()
    ]
    for part, count in {"train": 2, "val": 1}.items():
        for k, wnid in enumerate(wnids):
            for i in range(count):
                picture(root / part / wnid / f"{i}.JPEG", seed=k * 10 + i)
    options = dict(root=tmp_path, variant="160px", size=24, cache=cache)
    train, test = (
        load_dataset("imagenette", **options),
        load_dataset("imagenette", "test", **options),
    )
    assert (len(train), len(test)) == (20, 10) and train.classes[0] == "tench"
    assert torch.equal(train.images[0], read_image(root / "train" / wnids[0] / "0.JPEG", 24))
    assert test.mean == train.mean and train.images.shape[1:] == (3, 24, 24)
    with pytest.raises(ValueError, match="'161px' for argument size"):
        load_dataset("imagenette", root=tmp_path, variant="161px")


def test_nothing_is_downloaded_unasked(tmp_path, monkeypatch):
    monkeypatch.setenv("NENYA_NB_DATA", str(tmp_path))
    for name in torchvision_names():
        with pytest.raises(FileNotFoundError, match=r"not in .* or not complete"):
            load_torchvision(name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("works", [True, False])
def test_a_download_is_complete_or_leaves_nothing(tmp_path, monkeypatch, works):
    class CIFAR10(torchvision.datasets.CIFAR10):
        def download(self):
            folder = self.root / self.base_folder if hasattr(self.root, "joinpath") else None
            folder = folder or torchvision.datasets.utils.os.path.join(self.root, self.base_folder)
            torchvision.datasets.utils.os.makedirs(folder)
            for file in [*self.train_list, *self.test_list]:
                content = {"data": np.zeros((4, 3072), np.uint8), "labels": [0, 1, 2, 3]}
                with open(f"{folder}/{file[0]}", "wb") as out:
                    pickle.dump(content, out)
                if not works:
                    raise OSError("connection lost")
            with open(f"{folder}/batches.meta", "wb") as out:
                pickle.dump({"label_names": list("abcd")}, out)

        def _check_integrity(self):
            return torchvision.datasets.utils.os.path.exists(
                f"{self.root}/{self.base_folder}/batches.meta"
            )

    CIFAR10.meta = {**CIFAR10.meta, "md5": None}
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", CIFAR10)
    root = tmp_path / "data"
    if works:
        assert len(load_dataset("cifar10", root=root, download=True)) == 20
        assert len(load_dataset("cifar10", "test", root=root)) == 4
        assert [p.name for p in root.iterdir()] == ["cifar-10-batches-py"]
    else:
        with pytest.raises(ValueError, match="connection lost.*nothing was kept"):
            load_dataset("cifar10", root=root, download=True)
        assert not list(root.iterdir())


def test_torchvision_options_and_names_are_checked(fake_stl):
    with pytest.raises(ValueError, match="Did you mean 'folds'"):
        load_torchvision("stl10", root=fake_stl, fold=1)
    with pytest.raises(ValueError, match="Did you mean 'stl10'"):
        load_torchvision("stl11")
    assert all(hasattr(torchvision.datasets, n) for n in torchvision_sets._NAMES.values())
