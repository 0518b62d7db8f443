"""Errors, seeds, clock, schedules, the collapse measure and the joined batch."""

import math
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from nenya_nb.core import (
    Clock,
    cosine,
    embedding_std,
    gather,
    own_dice,
    pick_device,
    seed_everything,
    unknown_name,
    warmup_cosine,
)


def test_unknown_name_suggests_and_lists():
    error = unknown_name("backbone", "resnet51", ["resnet50", "vit"], hint="See list_models().")
    assert isinstance(error, ValueError)
    assert "Did you mean 'resnet50'?" in str(error) and "Known: resnet50, vit." in str(error)


def test_seed_everything_repeats_all_three_sources():
    def draw():
        seed_everything(3)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draw() == draw()


def test_own_dice_leave_no_trace_and_touch_no_other_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("all devices"))
    before = torch.get_rng_state()
    with pytest.raises(KeyError), own_dice("cpu", seed=3):
        throw = torch.rand(4)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)
    with own_dice(seed=3):
        assert torch.equal(torch.rand(4), throw)
    with own_dice():
        goes_on = torch.rand(4)
    assert torch.equal(torch.rand(4), goes_on)


def test_a_device_that_is_not_there_cuts_the_reason_between_words(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("a reason " * 40 + "\nand a stack")

    monkeypatch.setattr(torch, "empty", refuse)
    with pytest.raises(ValueError) as caught:
        pick_device("gpu")
    reason = str(caught.value).split("cannot be used: ")[1].split(" Here ")[0]
    assert reason.endswith((" a ….", " reason ….")) and len(reason) <= 201


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_own_dice_of_a_gpu():
    before = torch.cuda.get_rng_state()
    with own_dice(seed=3):
        torch.rand(2)
    assert torch.equal(torch.cuda.get_rng_state(), before)
    throws = []
    for _ in range(2):
        with own_dice("cuda", seed=3):
            throws.append(torch.rand(4, device="cuda"))
    assert torch.equal(*throws) and torch.equal(torch.cuda.get_rng_state(), before)


def test_clock_of_an_empty_run_does_not_divide_by_zero():
    clock = Clock(steps_per_epoch=0, epochs=0)
    assert clock.progress == 0 and clock.epoch == 0


@pytest.mark.parametrize("total,warmup", [(100, 0), (100, 10), (7, 7), (1, 0)])
def test_warmup_cosine_rises_then_falls(total, warmup):
    values = [warmup_cosine(step, total, warmup) for step in range(total + 1)]
    peak = values.index(max(values))
    assert peak == min(warmup, total) and max(values) <= 1
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert values[peak:] == sorted(values[peak:], reverse=True)


def test_cosine_matches_torch_scheduler():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=0.1)
    for step in range(50):
        assert math.isclose(optimizer.param_groups[0]["lr"], cosine(1.0, 0.1, step / 50))
        optimizer.step()
        schedule.step()


def test_embedding_std_matches_lightly():
    from lightly.utils.debug import std_of_l2_normalized

    z = torch.randn(256, 32)
    # lightly divides by B - 1 and does not multiply by the square root of D
    ours = embedding_std(z) * math.sqrt(256 / 255) / math.sqrt(32)
    torch.testing.assert_close(ours, torch.as_tensor(std_of_l2_normalized(z)))


def test_embedding_std_ignores_length_and_carries_no_gradient():
    z = torch.randn(64, 8, requires_grad=True)
    assert torch.allclose(embedding_std(z), embedding_std(z * torch.rand(64, 1).add(0.1)))
    assert not embedding_std(z).requires_grad


def test_gather_alone_is_the_identity():
    z = torch.randn(4, 2)
    assert gather(z) is z


def test_image_batches_read_three_kinds_of_data_alike():
    from torch.utils.data import DataLoader, TensorDataset

    from nenya_nb.core import image_batches
    from nenya_nb.data import ImageDataset

    ours = ImageDataset(torch.randint(256, (5, 3, 4, 4), dtype=torch.uint8), torch.arange(5) % 2)
    plain = TensorDataset(ours.batch(), ours.targets)
    for dataset in (ours, plain, DataLoader(plain, batch_size=2), [(ours.batch(), ours.targets)]):
        images, targets = zip(*image_batches(dataset, batch_size=2, device="cpu"), strict=True)
        torch.testing.assert_close(torch.cat(images), ours.batch())
        assert torch.equal(torch.cat(targets), ours.targets)
        if isinstance(dataset, list):
            continue
        rest = torch.cat([images for images, _ in image_batches(dataset, 2, start=2)])
        torch.testing.assert_close(rest, ours.batch()[2:])


def test_image_batches_leave_torchs_dice_alone():
    from torch.utils.data import TensorDataset

    from nenya_nb.core import image_batches

    images = torch.rand(5, 3, 4, 4)
    before = torch.get_rng_state()
    for start in (0, 2):
        list(image_batches(TensorDataset(images, torch.arange(5)), 2, start=start))
    assert torch.equal(torch.get_rng_state(), before)


def test_looking_for_a_gpu_does_not_forbid_it_to_copies_of_this_process():
    assert os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] == "1"
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    code = (
        "import os, torch; from nenya_nb.core import default_device; device = default_device();"
        "child = os.fork();"
        "child or (torch.ones(1, device=device), os._exit(0));"
        "assert os.waitpid(child, 0)[1] == 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_open_hdf5_names_what_is_missing_or_damaged(tmp_path):
    import h5py

    from nenya_nb.core import open_hdf5

    with pytest.raises(FileNotFoundError, match="There is no file '.*fields.h5'"):
        open_hdf5(tmp_path / "fields.h5")
    with h5py.File(tmp_path / "fields.h5", "w") as file:
        file["train"] = torch.zeros(1000)
    with open_hdf5(str(tmp_path / "fields.h5")) as file:
        assert list(file) == ["train"] and file.mode == "r"
    whole = (tmp_path / "fields.h5").read_bytes()
    (tmp_path / "fields.h5").write_bytes(whole[:3000])
    with pytest.raises(ValueError, match="is no HDF5 file, or was cut short"):
        open_hdf5(tmp_path / "fields.h5")
