"""Latents in files: constant, exact after a kill, and true about where they come from."""

import json
import random
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nenya_nb.data import ImageDataset, load_hdf5
from nenya_nb.evaluation import (
    LatentWriter,
    create_latents,
    extract_latents,
    knn_accuracy,
    latent_files,
    latent_manifest,
    load_latents,
    partitions,
    weights_sha256,
)

# The same network and data in every process; `delay` makes it slow enough to be killed in its middle.
SCRIPT = """
import sys, time, torch
from nenya_nb.data import ImageDataset
from nenya_nb.evaluation import extract_latents

class Slow(torch.nn.Sequential):
    def forward(self, images):
        time.sleep(float(sys.argv[2]))
        return super().forward(images)

torch.manual_seed(0)
torch.set_num_threads(1)
model = Slow(torch.nn.Flatten(), torch.nn.Linear(192, 16), torch.nn.BatchNorm1d(16))
images = torch.randint(0, 256, (500, 3, 8, 8), dtype=torch.uint8)
data = ImageDataset(images, torch.arange(500))
from nenya_nb.evaluation import latents
latents.time.monotonic = (lambda n=iter(range(10**9)): 2.0 * next(n))  # save after every batch
print("ready", flush=True)
extract_latents(model, data, batch_size=8, path=sys.argv[1])
print("done", flush=True)
"""


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(180, 6))


@pytest.fixture
def data():
    torch.manual_seed(1)
    images = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8)
    return ImageDataset(images, torch.arange(50) % 5, name="noise")


def test_killed_at_random_moments_it_goes_on_to_the_same_bits(tmp_path):
    def start(path, delay):
        command = [sys.executable, "-c", SCRIPT, str(path), str(delay)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def rows():
        return partitions(path)["train"][0] if path.exists() else 0

    whole = start(tmp_path / "whole.h5", 0)
    random.seed(4)
    path, progress = tmp_path / "killed.h5", [0]
    for _ in range(4):
        run, enough = start(path, 0.01), progress[-1] + random.randint(1, 100)
        assert run.stdout.readline() == "ready\n"
        while rows() < enough and run.poll() is None:
            time.sleep(0.001)
        time.sleep(random.uniform(0.0, 0.02))
        run.send_signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
        progress.append(rows())
    assert progress == sorted(progress) and 0 < progress[-1] < 500, progress
    assert start(path, 0).wait() == 0 and whole.wait() == 0
    one, other = load_latents(path), load_latents(tmp_path / "whole.h5")
    assert torch.equal(one.features, other.features) and torch.equal(one.targets, other.targets)
    assert not one.features.eq(0).all(1).any()


def test_streamed_latents_are_those_in_memory(tmp_path, data):
    model = net()
    streamed = extract_latents(model, data, batch_size=16, path=tmp_path / "a" / "latents.h5")
    kept = extract_latents(model, data, batch_size=16)
    assert torch.equal(streamed.features, kept.features)
    assert torch.equal(streamed.targets, kept.targets) and repr(streamed) == repr(kept)
    assert knn_accuracy(*streamed, *streamed, k=3) == knn_accuracy(*kept, *kept, k=3)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["latents.h5"]


@pytest.mark.parametrize("kind", ["ours", "dataset", "loader", "list", "generator", "more", "less"])
def test_in_memory_is_batch_after_batch_whatever_is_known_of_the_length(data, kind):
    model, pairs = net(), TensorDataset(data.batch(), data.targets)
    rows = {"more": [*range(50), *range(50)], "less": range(48)}.get(kind, range(50))
    batches = [
        (data.batch(rows[i : i + 8]), data.targets[rows[i : i + 8]]) for i in range(0, len(rows), 8)
    ]
    source = {
        "ours": data,
        "dataset": pairs,
        "loader": DataLoader(pairs, batch_size=8),
        "list": batches,
        "generator": (batch for batch in batches),
        "more": DataLoader(pairs, batch_size=8, sampler=[*range(50), *range(50)]),
        "less": DataLoader(pairs, batch_size=8, drop_last=True),
    }[kind]
    found = extract_latents(model, source, batch_size=8)
    with torch.no_grad():
        expected = torch.cat([model.eval()(images) for images, _ in batches])
    assert torch.equal(found.features, expected) and found.features.is_contiguous()
    assert torch.equal(found.targets, torch.cat([names for _, names in batches]))
    assert found.features.untyped_storage().nbytes() == expected.numel() * 4
    assert not found.features.is_inference() and not found.targets.is_inference()


def test_in_memory_holds_the_result_once(data):
    """A second copy of the table would be seen by torch's own count of what it allocates."""
    rows = torch.randn(64, 4096)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4096))
    images = data.images[torch.arange(2048) % 50]
    many = ImageDataset(images, torch.zeros(2048), mean=data.mean, std=data.std)
    with torch.profiler.profile(profile_memory=True) as profile:
        found = extract_latents(model, many, batch_size=64)
    held, most = 0, 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    result = found.features.numel() * 4
    assert result <= most < result + 4 * rows.numel() * 4


def test_partitions_stand_side_by_side_as_nenya_has_them(tmp_path, data):
    model, path = net(), tmp_path / "latents.h5"
    extract_latents(model, data, path=path)
    before = load_latents(path).features.clone()
    extract_latents(model, data.subset(slice(0, 20)), path=path, partition="valid")
    assert partitions(path) == {"train": (50, 50), "valid": (20, 20)}
    assert torch.equal(load_latents(path, "train").features, before)
    with h5py.File(path) as file:
        assert np.array_equal(file["valid"][:], before[:20].numpy())
        assert file["train"].dtype == np.float32 and file["train_targets"].dtype == np.int64
    with pytest.raises(ValueError, match="Did you mean 'valid'"):
        load_latents(path, "vaild")
    with pytest.raises(ValueError, match="Unknown partition 'None'"):
        load_latents(path)


def test_a_finished_file_is_not_computed_again(tmp_path, data):
    model, path = net(), tmp_path / "latents.h5"
    extract_latents(model, data, path=path)
    asked = []
    model.register_forward_hook(lambda *_: asked.append(1))
    extract_latents(model, data, batch_size=7, path=path)
    assert not asked
    extract_latents(model, data, batch_size=25, path=path, resume=False)
    assert len(asked) == 3 and latent_manifest(path, "train")["batch_size"] == 25


@pytest.mark.parametrize("kind", ["ours", "dataset", "loader"])
def test_a_broken_run_goes_on_with_its_own_batch_size(tmp_path, data, kind):
    pairs = TensorDataset(data.batch(), data.targets)
    source = {"ours": data, "dataset": pairs, "loader": DataLoader(pairs, batch_size=8)}[kind]
    model, path = net(), tmp_path / "latents.h5"
    count = 0

    def stop(*_):
        nonlocal count
        count += 1
        if count == 5:
            raise KeyboardInterrupt

    hook = model.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        extract_latents(model, source, batch_size=8, path=path)
    assert partitions(path)["train"] == (24, 50)
    with pytest.raises(ValueError, match="24 of 50 rows"):
        load_latents(path)
    hook.remove()
    streamed = extract_latents(model, source, batch_size=256, path=path)
    assert torch.equal(streamed.features, extract_latents(model, source, batch_size=8).features)
    assert torch.equal(streamed.targets, data.targets)


@pytest.mark.parametrize("other", ["weights", "data", "layer"])
def test_the_latents_of_something_else_are_not_mixed_in(tmp_path, data, other):
    path, options = tmp_path / "latents.h5", {}
    extract_latents(net(), data, path=path)
    before = path.read_bytes()
    model = net(seed=1) if other == "weights" else net()
    data = ImageDataset(data.images.flip(0), name="noise") if other == "data" else data
    options = {"layer": "3"} if other == "layer" else {}
    says = {
        "weights": "weights_sha256",
        "data": "first_batch_sha256",
        "layer": "layer: extract_feat there, 3 now",
    }
    with pytest.raises(ValueError, match=says[other]):
        extract_latents(model, data, path=path, **options)
    assert path.read_bytes() == before
    extract_latents(model, data, path=path, resume=False, **options)


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize(
    "names", [["train"], ["train_targets"], ["train_progress"], ["train", "train_targets"]]
)
def test_what_it_did_not_write_is_never_replaced(tmp_path, data, names, resume):
    path = tmp_path / "cutouts.h5"
    with h5py.File(path, "w") as file:
        file.attrs["telescope"] = "a"
        for name in names:
            file[name] = np.ones((50, 6), "float32") if name == "train" else np.arange(50)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"table '{names[0]}'.*did not write"):
        extract_latents(net(), data, path=path, resume=resume)
    with pytest.raises(ValueError, match="did not write"):
        create_latents(path, "train", 50, 6, {})
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    extract_latents(net(), data, path=path, partition="latents", resume=resume)
    with h5py.File(path) as file:
        assert {*names, "latents"} < {*file} and file.attrs["telescope"] == "a"


def test_the_images_survive_their_own_latents(tmp_path):
    path = tmp_path / "cutouts.h5"
    with h5py.File(path, "w") as file:
        file["train"] = np.random.default_rng(0).normal(size=(20, 8, 8)).astype("float32")
    before = path.read_bytes()
    model, images = nn.Flatten(), load_hdf5(path)
    with pytest.raises(ValueError, match=r"'train', \(20, 8, 8\)"):
        extract_latents(model, images, path=path)
    assert path.read_bytes() == before
    extract_latents(model, images, path=path, partition="latents")
    assert torch.equal(load_hdf5(path).images[:], images.images[:])


def test_a_table_with_an_empty_manifest_is_something_else(tmp_path, data):
    path = tmp_path / "latents.h5"
    create_latents(path, "train", 50, 6, {})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="from something else"):
        extract_latents(net(), data, path=path)
    assert path.read_bytes() == before


def test_the_device_does_not_decide_whose_latents_they_are(tmp_path, data, monkeypatch):
    class Rounding(ImageDataset):
        "The same images, but for the last bit on another device."

        def batches(self, batch_size=256, device=None, start=0):
            for images, targets in super().batches(batch_size, None, start):
                yield images if str(device) == "cpu" else images * (1 + 1e-6), targets

    path, asked, model = tmp_path / "latents.h5", [], net()
    data = Rounding(data.images, data.targets, name="noise", mean=data.mean, std=data.std)
    extract_latents(model, data, path=path)
    model.register_forward_hook(lambda *_: asked.append(1))
    # the same one, but called by another name, as a GPU would be
    extract_latents(model, data, device=torch.device("cpu", 0), path=path)
    assert not asked


def test_the_home_folder_has_a_short_name(tmp_path, data, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    made = extract_latents(net(), data, path="~/some/latents.h5")
    assert [p.name for p in tmp_path.iterdir()] == ["some"]
    assert torch.equal(load_latents("~/some/latents.h5").features, made.features)
    assert partitions("~/some/latents.h5") == {"train": (50, 50)}


def test_images_alone_have_no_targets(tmp_path, data):
    images = data.batch()
    found = extract_latents(net(), images, batch_size=16)
    assert torch.equal(found.features, extract_latents(net(), data, batch_size=16).features)
    assert (found.targets == -1).all()
    streamed = extract_latents(net(), images, batch_size=16, path=tmp_path / "latents.h5")
    assert torch.equal(streamed.features, found.features)


def test_manifest_says_who_and_what(tmp_path, data):
    model, path = net(), tmp_path / "latents.h5"
    model.build_config = {"type": "Net", "width": 5}
    extract_latents(model, data, path=path, layer="0")
    found = latent_manifest(path, "train")
    assert found["weights_sha256"] == weights_sha256(net()) and found["config"]["width"] == 5
    assert (found["data"], found["images"], found["image_shape"]) == ("noise", 50, [3, 8, 8])
    assert found["layer"] == "0" and found["made"]["torch"] == torch.__version__
    assert json.dumps(found)


def test_layer_gives_what_the_layer_gave(data):
    model = net()
    model.train()
    maps = extract_latents(model, data, layer="0").features
    torch.testing.assert_close(maps, model[0](data.batch()).mean((2, 3)).detach())
    assert model.training and not model[0]._forward_hooks
    with pytest.raises(ValueError, match="Unknown layer '7'.* Known: 0, 1, 2, 3"):
        extract_latents(model, data, layer="7")
    tokens = nn.Sequential(nn.Flatten(2), nn.Linear(64, 5))
    rows = extract_latents(tokens, data, layer="1").features
    torch.testing.assert_close(rows, tokens(data.batch()).mean(1).detach())
    tokens.extract_feat = lambda images: images.flatten(1)  # without any layer
    with pytest.raises(ValueError, match="gives its features without layer '1'; choose one that"):
        extract_latents(tokens, data, layer="1")


def test_files_of_others_are_read(tmp_path):
    rows = np.random.default_rng(0).normal(size=(30, 4)).astype("float32")
    with h5py.File(tmp_path / "nenya.h5", "w") as file:
        file.create_dataset("train", data=rows, chunks=(7, 4), compression="gzip")
        file["valid"] = rows[:5]
    for name, expected in [("train", rows), ("valid", rows[:5])]:
        found = load_latents(tmp_path / "nenya.h5", name)
        assert np.array_equal(found.features, expected) and (found.targets == -1).all()
        assert latent_manifest(tmp_path / "nenya.h5", name) == {}


def test_what_is_no_such_file_is_named(tmp_path, data):
    path = tmp_path / "latents.h5"
    with pytest.raises(FileNotFoundError, match="latents.h5"):
        load_latents(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="no HDF5 file"):
        load_latents(path)
    with pytest.raises(ValueError, match="no HDF5 file"):
        extract_latents(net(), data, path=path)
    with pytest.raises(ValueError, match="knows its length"):
        extract_latents(net(), [(data.batch(), data.targets)], path=tmp_path / "new.h5")
    with pytest.raises(ValueError, match="expected features"):
        extract_latents(nn.Conv2d(3, 4, 1), data, path=tmp_path / "new.h5")
    short = DataLoader(data, batch_size=16, drop_last=True)
    with pytest.raises(ValueError, match="must not drop the last batch"):
        extract_latents(net(), short, path=tmp_path / "short.h5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latents.h5", "short.h5"]


def test_making_a_partition_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "latents.h5"
    create_latents(path, "train", 10, 4, {"who": 1})
    before = path.read_bytes()
    monkeypatch.setattr(
        latent_files.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        create_latents(path, "valid", 10, 4, {})
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_writer_refuses_rows_that_do_not_fit(tmp_path):
    path = tmp_path / "latents.h5"
    create_latents(path, "train", 10, 4, {})
    with LatentWriter(path, "train") as writer:
        for shape, count in [((8, 3), 8), ((11, 4), 11), ((8, 4), 7)]:
            with pytest.raises(ValueError, match=r"table \(10, 4\)"):
                writer.write(torch.zeros(shape), torch.zeros(count))
    assert partitions(path) == {"train": (0, 10)}


def test_weights_sha256_sees_names_shapes_types_and_bits():
    one = nn.Linear(4, 3)
    same = nn.Linear(4, 3)
    same.load_state_dict(one.state_dict())
    assert weights_sha256(one) == weights_sha256(same)
    seen = {weights_sha256(one), weights_sha256(nn.Sequential(one)), weights_sha256(one.bfloat16())}
    same.weight.data[0, 0] += 1e-6
    seen.add(weights_sha256(same))
    assert len(seen) == 4
