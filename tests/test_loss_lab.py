"""The loss lab without a browser: what is heard, the losses again, what is sent, and that training does not notice."""

import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import traitlets
from counting_store import Disk
from torch import nn

from nenya_nb.data import ImageDataset, load_dataset
from nenya_nb.models.algorithms.barlow_twins import BarlowTwins
from nenya_nb.models.algorithms.byol import BYOL
from nenya_nb.models.algorithms.densecl import DenseCL, DenseCLNeck
from nenya_nb.models.algorithms.dino import DINO, DINOLoss
from nenya_nb.models.algorithms.lejepa import LeJEPA, LeJEPALoss, SIGReg
from nenya_nb.models.algorithms.moco import MoCo
from nenya_nb.models.algorithms.mocov3 import MoCoV3, MoCoV3Head
from nenya_nb.models.algorithms.npid import NPID
from nenya_nb.models.algorithms.rotation import RotationPred
from nenya_nb.models.algorithms.simclr import SimCLR
from nenya_nb.models.algorithms.simsiam import SimSiam
from nenya_nb.models.algorithms.supcon import SupCon
from nenya_nb.models.algorithms.swav import SwAV, SwAVHead, SwAVLoss
from nenya_nb.models.algorithms.vicreg import VICReg, VICRegLoss
from nenya_nb.models.dino_model import DinoProjectionHead
from nenya_nb.models.heads import ContrastiveHead, LatentPredictHead
from nenya_nb.models.losses import SupConLoss
from nenya_nb.models.necks import NonLinearNeck
from nenya_nb.training import fit
from nenya_nb.widgets import base
from nenya_nb.widgets.loss_frames import listen, make_frame
from nenya_nb.widgets.loss_lab import LossLab, fixed_batch
from nenya_nb.widgets.loss_numbers import loss_numbers, shadow_parts, sinkhorn_codes
from nenya_nb.widgets.loss_pictures import moment_parts, shadow_density

FIXTURE = Path(__file__).parent.parent / "js" / "test" / "fixtures" / "loss_lab.json"


@pytest.fixture(autouse=True)
def bundles(monkeypatch):
    monkeypatch.setattr(base, "read_bundle", lambda name: f"/* {name} */")


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("shapes", count=120, size=16)


def small():
    layers = [nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2)]
    network = nn.Sequential(*layers, nn.Flatten())
    network.output_dim = 32
    return network


def predictor(E=8):
    return LatentPredictHead(NonLinearNeck(E, 16, E, with_last_bn=False, with_last_bias=True))


def neck(E=8, **options):
    return NonLinearNeck(32, 16, E, **options)


MAKE = {
    "SimCLR": lambda: SimCLR(small(), neck()),
    "SimCLR at 0.5": lambda: SimCLR(small(), neck(), ContrastiveHead(0.5)),
    "SupCon": lambda: SupCon(small(), neck()),
    "SupCon without labels": lambda: SupCon(small(), neck(), use_targets=False),
    "SupCon scaled": lambda: SupCon(small(), neck(), SupConLoss(0.1, base_temperature=0.07)),
    "MoCo": lambda: MoCo(small(), neck(), length=40),
    "MoCoV3": lambda: MoCoV3(small(), neck(), MoCoV3Head(nn.Identity(), 0.3)),
    "NPID": lambda: NPID(small(), neck(), length=120, num_negatives=30),
    "BarlowTwins": lambda: BarlowTwins(small(), neck(12, with_last_bn=False)),
    "VICReg": lambda: VICReg(small(), neck(12, with_last_bn=False)),
    "VICReg other weights": lambda: VICReg(
        small(), neck(9, with_last_bn=False), VICRegLoss(1.0, 30.0, 4.0, 1e-3)
    ),
    "LeJEPA": lambda: LeJEPA(small(), neck(6), LeJEPALoss(0.05, SIGReg(20)), num_local=2),
    "LeJEPA other settings": lambda: LeJEPA(
        small(), neck(6), LeJEPALoss(0.4, SIGReg(7, 9, 3.0)), num_local=1, num_global=1
    ),
    "SwAV": lambda: SwAV(small(), neck(), SwAVHead(8, 6), num_local=2),
    "SwAV other settings": lambda: SwAV(
        small(), neck(), SwAVHead(8, 6), SwAVLoss(0.2, 0.1, 5, (1,)), num_local=1
    ),
    "DINO": lambda: DINO(small(), DinoProjectionHead(32, 16, 8, 10), num_local=2),
    "DINO warming": lambda: DINO(
        small(),
        DinoProjectionHead(32, 16, 8, 10),
        DINOLoss(10, 0.2, 0.07, warmup_temperature=0.05, warmup_epochs=3),
        num_local=1,
    ),
    "BYOL": lambda: BYOL(small(), neck(), predictor()),
    "SimSiam": lambda: SimSiam(small(), neck(), predictor()),
}


def make(name, seed=0):
    torch.manual_seed(seed)
    algorithm = MAKE[name]()
    if hasattr(algorithm.loss_fn, "center"):
        algorithm.loss_fn.center.normal_(std=0.02)
    return algorithm


# --- the losses again -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", MAKE)
def test_formula_gives_the_algorithms_own_loss(name, train, dataset):
    lab = LossLab(make(name), dataset, count=12, train=train)
    assert math.isclose(lab.numbers["loss"], lab.numbers["own"], rel_tol=1e-4, abs_tol=1e-4)


@pytest.mark.parametrize("name, settings", [
    ("SimCLR", {"temperature": 0.4}), ("SupCon", {"temperature": 0.3}), ("MoCo", {"temperature": 0.05}),
    ("BarlowTwins", {"lambda_": 0.3}), ("VICReg", {"lambda_": 3.0, "mu": 11.0, "nu": 0.5}), ("LeJEPA", {"lambda_": 0.7}),
    ("SwAV", {"temperature": 0.3, "epsilon": 0.2, "iterations": 1}),
    ("DINO", {"temperature": 0.3, "teacher_temperature": 0.09}),
    ("MoCoV3", {"temperature": 1.0}), ("SupCon scaled", {"temperature": 0.3}),
])  # fmt: skip
def test_other_settings_give_the_loss_of_an_algorithm_built_with_them(name, settings, dataset):
    lab = LossLab(make(name), dataset, count=12)
    for key, value in settings.items():
        setattr(lab, key, value)
    other = make(name)
    place = {"temperature": ["head.temperature"], "lambda_": ["loss_fn.lambd"]}
    place |= {"mu": ["loss_fn.mu"], "nu": ["loss_fn.nu"]}
    if name.startswith("SupCon") or name == "SwAV":
        place["temperature"] = ["loss_fn.temperature"]
        place |= {"epsilon": ["loss_fn.epsilon"], "iterations": ["loss_fn.sinkhorn_iterations"]}
    if name == "SupCon":
        place["temperature"] += ["loss_fn.base_temperature"]
    if name == "DINO":
        place = {"temperature": ["loss_fn.student_temperature"]}
        other.loss_fn.temperature.fill_(settings["teacher_temperature"])
    for key, value in settings.items():
        for path in place.get(key, []):
            part, attribute = path.split(".")
            setattr(getattr(other, part), attribute, value)
    expected = LossLab(other, dataset, count=12).numbers["own"]
    assert math.isclose(lab.numbers["loss"], expected, rel_tol=1e-4)


def test_centre_can_be_left_out(dataset):
    lab = LossLab(make("DINO"), dataset, count=12, centred=False)
    other = make("DINO")
    other.loss_fn.center.zero_()
    assert math.isclose(
        lab.numbers["loss"], LossLab(other, dataset, count=12).numbers["own"], rel_tol=1e-4
    )


@pytest.mark.parametrize(
    "name", ["VICReg", "VICReg other weights", "LeJEPA", "LeJEPA other settings"]
)
def test_terms_are_the_algorithms_own_to_a_millionth(name, dataset):
    algorithm = make(name).double()
    views = dataset.recipe(algorithm.views)(dataset.images[:12].double() / 255)
    frame = make_frame(algorithm, views)
    _, own = listen(algorithm, views)
    numbers = loss_numbers(frame)
    assert frame.scale == 1 and math.isclose(numbers["loss"], own["loss"], rel_tol=1e-6)
    if frame.kind == "moments":
        terms = {k: frame.facts[k] for k in ("invariance", "variance", "covariance")}
    else:
        terms = {"prediction": frame.facts["prediction"], "sigreg": frame.facts["statistic"]}
    for key, value in terms.items():
        assert math.isclose(value, own[key], rel_tol=1e-6), key


def test_pictures_add_up_to_the_loss(dataset):
    frame = LossLab(make("VICReg"), dataset, count=12)._kept[0]
    part = moment_parts(frame, frame.settings)
    assert math.isclose(part.sum(), frame.loss, rel_tol=1e-5)
    frame = LossLab(make("LeJEPA"), dataset, count=12)._kept[0]
    V, B, S = frame.arrays["shadows"].shape
    part = shadow_parts(frame.arrays["shadows"], frame.facts["num_knots"], frame.facts["t_max"])
    assert math.isclose(part.sum(1).mean(), frame.facts["statistic"], rel_tol=1e-4)
    assert (part.sum(1).diff() <= 1e-4).all(), "the least normal line first"
    density = shadow_density(frame.arrays["shadows"])
    assert torch.allclose(density.sum(1) * 0.2, torch.ones(S)) and (V, B) == (4, 12)


def test_of_many_coordinates_and_lines_some_are_drawn_and_all_count(dataset):
    torch.manual_seed(0)
    wide = VICReg(small(), neck(150, with_last_bn=False))
    frame = LossLab(wide, dataset, count=12)._kept[0]
    assert frame.arrays["covariance"].shape == (2, 128, 128) and "128 of the 150" in frame.notes[0]
    assert math.isclose(loss_numbers(frame)["loss"], frame.loss, rel_tol=1e-5)
    many = LeJEPA(small(), neck(6), LeJEPALoss(0.05, SIGReg(200)), num_local=0)
    frame = LossLab(many, dataset, count=12)._kept[0]
    assert frame.arrays["shadows"].shape == (2, 12, 64) and "64 of the 200" in frame.notes[0]
    part = shadow_parts(frame.arrays["shadows"], frame.facts["num_knots"], frame.facts["t_max"])
    assert math.isclose(part.sum(1)[0], frame.facts["worst"], rel_tol=1e-4)


def test_hardest_share_is_even_at_high_temperature_and_whole_at_low(dataset):
    frame = LossLab(make("SimCLR"), dataset, count=16)._kept[0]
    even = loss_numbers(frame, temperature=1e4)["hardest"]
    assert math.isclose(even, math.ceil(0.1 * 30) / 30, rel_tol=1e-3)
    assert loss_numbers(frame, temperature=1e-3)["hardest"] > 0.999


def test_identical_embeddings_give_the_closed_form():
    class Alike(nn.Module):
        output_dim = 4

        def forward(self, x):
            return torch.ones(len(x), 4)

    algorithm = SimCLR(Alike(), nn.Identity())
    views = [torch.zeros(5, 3, 8, 8)] * 2
    frame = make_frame(algorithm, views)
    assert math.isclose(loss_numbers(frame)["loss"], math.log(9), rel_tol=1e-6)


# --- nothing is disturbed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SimCLR", "MoCo", "DINO", "SwAV", "NPID", "VICReg", "LeJEPA"])
def test_looking_changes_nothing(name, dataset):
    algorithm = make(name)
    before = {k: v.clone() for k, v in algorithm.state_dict().items()}
    random = torch.random.get_rng_state()
    LossLab(algorithm, dataset, count=8)
    after = algorithm.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in before)
    assert torch.equal(random, torch.random.get_rng_state()) and algorithm.training


@pytest.mark.parametrize("name", ["SimCLR", "MoCo", "LeJEPA"])
def test_training_is_bit_equal_with_and_without(name, dataset):
    results = []
    for callbacks in ([], [LossLab(count=8)]):
        algorithm = make(name)
        fit(
            algorithm,
            dataset,
            epochs=2,
            batch_size=32,
            lr=1e-3,
            callbacks=callbacks,
            device="cpu",
            seed=5,
        )
        results.append(torch.cat([v.flatten().double() for v in algorithm.state_dict().values()]))
    assert torch.equal(*results)


def test_callback_keeps_one_frame_an_epoch(dataset):
    lab = LossLab(count=8, every=2)
    history = fit(
        make("SimCLR"),
        dataset,
        epochs=4,
        batch_size=32,
        lr=1e-3,
        callbacks=[lab],
        device="cpu",
    )
    assert history.state == "finished" and lab.times == [0, 2, 4] and lab.frame == 2
    assert lab.data["epoch"] == 4, "the page says which epoch it shows while another is on its way"
    shown = lab.data["loss"]
    lab.frame = 0
    assert lab.data["loss"] != shown and lab.data["epoch"] == 0
    with pytest.raises(traitlets.TraitError, match="there are 3"):
        lab.frame = 3
    assert [frame["epoch"] for frame in lab.page_state()["frames"]] == [0, 2, 4]


def test_the_last_epoch_is_looked_at_whatever_every_is(dataset):
    lab = LossLab(count=8, every=2)
    train(make("SimCLR"), dataset, lab, epochs=3)
    assert lab.times == [0, 2, 3]


def test_of_too_many_frames_every_second_goes_and_the_reader_stays(dataset, monkeypatch):
    lab = LossLab(make("SimCLR"), dataset, count=8)
    size = sum(array.nbytes for array in lab._kept[0].arrays.values())
    monkeypatch.setattr(LossLab, "budget", 5 * size)
    for _ in range(4):
        lab.look(make("SimCLR"))
        assert lab.frame == len(lab.times) - 1, "the newest is followed"
    lab.frame = 2
    lab.look(make("SimCLR"))
    assert lab.times == [0, 2, 4, 5] and lab.frame == 1 and lab.data["epoch"] == 2
    assert [frame["epoch"] for frame in lab.page_state()["frames"]] == lab.times


def test_several_kinds_of_loss_in_one_lab(dataset):
    torch.manual_seed(0)
    lejepa = LeJEPA(small(), neck(6), LeJEPALoss(0.05, SIGReg(20)), num_local=0)
    lab = LossLab(lejepa, dataset, count=8)
    assert lab.lambda_ == 0.05
    lab.look(make("VICReg"))
    assert set(lab.settings) == {"lambda_", "mu", "nu"} and lab.lambda_ == 25
    assert math.isclose(lab.numbers["loss"], lab.numbers["own"], rel_tol=1e-4)
    assert "VICReg, moments" in repr(lab) and lab._still()
    lab.frame = 0
    assert lab.settings == {"lambda_": 0.05}
    with pytest.raises(traitlets.TraitError, match="a share"):
        lab.lambda_ = 25


def train(algorithm, dataset, lab, epochs=2, **options):
    return fit(algorithm, dataset, epochs=epochs, batch_size=32, lr=1e-3, callbacks=[lab],
               device="cpu", **options)  # fmt: skip


def test_another_training_begins_anew_and_a_resumed_one_goes_on(dataset, tmp_path):
    lab, other = LossLab(count=8), load_dataset("shapes", count=64, size=16, seed=1)
    train(make("SimCLR"), dataset, lab)
    train(make("BarlowTwins"), other, lab, checkpoint_dir=tmp_path)
    assert lab.times == [0, 1, 2] and lab.frame == 2 and lab.data["kind"] == "correlation"
    assert len(lab.page_state()["frames"]) == 3
    with torch.random.fork_rng():
        pictures = fixed_batch(other, make("BarlowTwins"), 8)["pictures"]
    assert lab.pictures["data"] == pictures.numpy().tobytes(), "of the second training's data"
    train(make("BarlowTwins"), other, lab, 3, checkpoint_dir=tmp_path, resume=True)
    assert lab.times == [0, 1, 2, 3] and lab.frame == 3
    late = LossLab(count=8)
    train(make("BarlowTwins"), other, late, 4, checkpoint_dir=tmp_path, resume=True)
    assert late.times == [3, 4]


# --- images of every kind ---------------------------------------------------------------------------------------------


def test_fields_are_seen_as_in_training():
    fields = torch.randn(40, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 4 + 10
    dataset = ImageDataset(fields)
    batch = fixed_batch(dataset, make("SimCLR"), 8)
    rows = torch.linspace(0, 39, 8).long()
    wanted = dataset.recipe("two_views")(fields[rows], torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(batch["views"], wanted, strict=True))
    trained = next(iter(dataset.loader(8)))[0][0]
    assert 0.5 < batch["views"][0].std() / trained.std() < 2
    assert batch["pictures"].unique().numel() > 100, "stretched, not black and white"


def test_of_images_on_disk_only_the_batch_is_read(dataset):
    about = dict(mean=dataset.mean, std=dataset.std, style=dataset.style)
    disk = ImageDataset(Disk(dataset.images), dataset.targets, **about)
    disk.images.asked.clear()
    lab, same = LossLab(make("SimCLR"), disk, count=8), LossLab(make("SimCLR"), dataset, count=8)
    assert len(disk.images.asked) == 8
    assert lab.numbers == same.numbers and lab.pictures == same.pictures


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
@pytest.mark.parametrize("floats", [False, True])
def test_any_number_of_channels(floats, channels):
    images = torch.randint(0, 256, (12, channels, 16, 16), dtype=torch.uint8)
    data = ImageDataset(images.float() / 255 if floats else images, style="natural")
    algorithm = make("SimCLR")
    algorithm.backbone[0] = nn.Conv2d(channels, 8, 3, 2)
    lab = LossLab(algorithm, data, count=8)
    assert math.isfinite(lab.numbers["loss"]) and lab.pictures["shape"] == [8, 16, 16, 1]


# --- traits, errors, pages --------------------------------------------------------------------------------------------


def test_sliders_start_at_the_algorithms_own_settings_unless_given(dataset):
    assert LossLab(make("SimCLR at 0.5"), dataset, count=8).temperature == 0.5
    assert LossLab(make("SimCLR"), dataset, count=8, temperature=0.3).temperature == 0.3
    lab = LossLab(make("SwAV other settings"), dataset, count=8)
    assert (lab.temperature, lab.epsilon, lab.iterations) == (0.2, 0.1, 5)


def test_wrong_settings_are_refused(dataset):
    lab = LossLab(make("SimCLR"), dataset, count=8)
    for name, value in (
        ("temperature", 0),
        ("epsilon", -1),
        ("lambda_", -0.1),
        ("mu", -1),
        ("collapse", 2),
    ):
        with pytest.raises(traitlets.TraitError):
            setattr(lab, name, value)
    with pytest.raises(traitlets.TraitError, match="a share"):
        LossLab(make("LeJEPA"), dataset, count=8).lambda_ = 1.5
    with pytest.raises(ValueError, match="something to look at"):
        LossLab(make("SimCLR"))
    with pytest.raises(ValueError, match="logits with labels"):
        LossLab(RotationPred(small()), dataset, count=8)
    with pytest.raises(ValueError, match="no loss_fn"):
        make_frame(nn.Linear(2, 2), [torch.zeros(2, 3, 8, 8)])
    with pytest.raises(ValueError, match="has no images"):
        LossLab(make("SimCLR"), object())


def test_a_batch_of_ones_own_is_enough():
    views = [torch.randn(6, 3, 16, 16) for _ in range(2)]
    lab = LossLab(make("SupCon"), batch=(views, torch.tensor([0, 0, 1, 1, 2, 2])))
    assert lab.classes == [0, 0, 1, 1, 2, 2] and lab.pictures == {}
    assert np.frombuffer(lab.data["arrays"]["positive"]["data"], np.uint8).sum() == 12 * 3


def test_too_much_to_send_becomes_a_smaller_batch(dataset, monkeypatch):
    monkeypatch.setattr("nenya_nb.widgets.loss_lab._MOST", 400)
    lab = LossLab(make("MoCo"), dataset, count=16)
    left = len(lab.classes)
    assert f"Looked at {left} of 16 images" in lab.data["notes"][-1]
    assert left < 16 and math.isclose(lab.numbers["loss"], lab.numbers["own"], rel_tol=1e-4)


def test_a_part_of_a_loss_is_not_stretched_to_the_whole(dataset):
    torch.manual_seed(0)
    backbone = small()[:3]
    backbone.output_dim = 8
    options = dict(length=40, warmup_steps=0)
    dense = DenseCL(backbone, DenseCLNeck(8, 16, 8, num_grid=2), **options)
    frame = LossLab(dense, dataset, count=8)._kept[0]
    assert frame.scale == 1 and math.isclose(loss_numbers(frame)["loss"], frame.loss, rel_tol=1e-4)
    whole = float(re.search(r"whole loss of the algorithm is (.+)\.$", frame.notes[-1])[1])
    assert "1 of 2 questions" in frame.notes[0] and not math.isclose(whole, frame.loss)
    swav = SwAV(small(), neck(), SwAVHead(8, 6), num_local=2, length=16)
    frame = LossLab(swav, dataset, count=8)._kept[0]
    assert frame.scale == 1 and "queue" in frame.notes[0] and "whole loss" in frame.notes[1]


@pytest.mark.parametrize(
    "name", ["VICReg", "LeJEPA", "BarlowTwins", "SimCLR", "SwAV", "DINO", "BYOL"]
)
def test_a_network_that_diverged_has_its_page(name, dataset):
    algorithm = make(name)
    with torch.no_grad():
        algorithm.backbone[0].weight.fill_(torch.nan)
    lab = LossLab(algorithm, dataset, count=8)
    assert lab.data["loss"] is None and '"loss":null' in lab.to_html()
    assert "nan" in repr(lab) and lab._still()


def test_looking_leaves_the_dice_of_other_devices_alone(dataset, monkeypatch):
    algorithm, seeded = make("SimCLR"), []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    LossLab(algorithm, dataset, count=8)
    assert not seeded


def test_a_setting_of_another_kind_is_named(dataset):
    frame = LossLab(make("SimCLR"), dataset, count=8)._kept[0]
    with pytest.raises(TypeError, match="kind contrast 'lambda_'. Known: temperature"):
        loss_numbers(frame, lambda_=1.0)
    with pytest.raises(TypeError, match="Unknown setting 'temprature'. Did you mean 'temperature'"):
        LossLab(make("SimCLR"), dataset, temprature=0.2)


def test_page_and_still_and_text(dataset):
    names = "</script><img src=x onerror=alert(1)>"
    lab = LossLab(make("SimCLR"), dataset, count=8)
    lab.names = [names] * 10
    text = lab.to_html()
    assert "<img src=x" not in text and "</script><img" not in text
    assert "SimCLR, contrast" in repr(lab) and len(lab.figure().axes) == 4
    assert repr(LossLab()) == "LossLab(nothing seen yet)" and LossLab().figure() is None


@pytest.mark.parametrize(
    "name", ["SimCLR", "MoCo", "BarlowTwins", "VICReg", "LeJEPA", "SwAV", "DINO", "BYOL", "SupCon"]
)
def test_every_kind_has_its_still(name, dataset):
    lab = LossLab(make(name), dataset, count=8)
    left, right, *bars = lab.figure().axes
    assert left.images and right.images and len(bars) == 2
    assert lab._still().startswith(b"\x89PNG")


# --- for the front end ------------------------------------------------------------------------------------------------

TRIED = {
    "SimCLR": [{}, {"temperature": 0.5}],
    "SupCon scaled": [{}, {"temperature": 0.02}],
    "MoCo": [{}, {"temperature": 1.5}],
    "MoCoV3": [{}, {"temperature": 1.0}],
    "NPID": [{}],
    "BarlowTwins": [{}, {"lambda_": 0.2}],
    "VICReg": [{}, {"lambda_": 2.0, "mu": 0.0, "nu": 7.0}],
    "LeJEPA": [{}, {"lambda_": 0.8}],
    "SwAV": [{}, {"epsilon": 0.2, "iterations": 0}, {"temperature": 0.5, "iterations": 7}],
    "DINO": [{}, {"centred": False}, {"temperature": 0.3, "teacher_temperature": 0.1}],
    "BYOL": [{}, {"collapse": 0.6}],
    "SimSiam": [{}],
}


def front_end_cases(dataset):
    cases = []
    for name, tried in TRIED.items():
        frame = LossLab(make(name), dataset, count=6)._kept[0]
        arrays = {
            k: {
                "dtype": "float32" if v.is_floating_point() else "int32",
                "shape": list(v.shape),
                "values": [
                    round(x, 6) if math.isfinite(x) else None for x in v.flatten().double().tolist()
                ],
            }
            for k, v in frame.arrays.items()
        }
        plain = {
            k: getattr(frame, k) for k in ("kind", "name", "settings", "loss", "scale", "facts")
        }
        expected = [{"settings": s, "numbers": loss_numbers(frame, **s)} for s in tried]
        cases.append(plain | {"notes": [], "arrays": arrays, "expected": expected})
    return cases


def test_front_end_fixture_is_what_python_says(dataset):
    """js/test/loss_lab.test.js computes these again. Written anew with WRITE_FIXTURES=1."""
    cases = front_end_cases(dataset)
    if os.environ.get("WRITE_FIXTURES"):
        FIXTURE.write_text(json.dumps(cases, separators=(",", ":")) + "\n")
    stored = json.loads(FIXTURE.read_text())
    assert [case["name"] for case in stored] == [case["name"] for case in cases]
    for old, new in zip(stored, cases, strict=True):
        for a, b in zip(old["expected"], new["expected"], strict=True):
            assert a["numbers"] == pytest.approx(b["numbers"], rel=2e-3, abs=2e-3), new["name"]


def test_sinkhorn_matches_the_algorithms(dataset):
    from nenya_nb.models.algorithms.swav import sinkhorn

    scores = F.normalize(torch.randn(12, 8), dim=1)
    assert torch.allclose(sinkhorn_codes(scores, 0.1, 4), sinkhorn(scores, 0.1, 4), atol=1e-6)
