"""The loss lab without a browser: what is heard, the losses again, what is sent, and that training does not notice."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

pytest.importorskip("anywidget")
import traitlets  # noqa: E402

from nenya_nb.data import load_dataset  # noqa: E402
from nenya_nb.models.algorithms.barlow_twins import BarlowTwins  # noqa: E402
from nenya_nb.models.algorithms.byol import BYOL  # noqa: E402
from nenya_nb.models.algorithms.dino import DINO, DINOLoss  # noqa: E402
from nenya_nb.models.algorithms.moco import MoCo  # noqa: E402
from nenya_nb.models.algorithms.mocov3 import MoCoV3, MoCoV3Head  # noqa: E402
from nenya_nb.models.algorithms.npid import NPID  # noqa: E402
from nenya_nb.models.algorithms.rotation import RotationPred  # noqa: E402
from nenya_nb.models.algorithms.simclr import SimCLR  # noqa: E402
from nenya_nb.models.algorithms.simsiam import SimSiam  # noqa: E402
from nenya_nb.models.algorithms.supcon import SupCon  # noqa: E402
from nenya_nb.models.algorithms.swav import SwAV, SwAVHead, SwAVLoss  # noqa: E402
from nenya_nb.models.dino_model import DinoProjectionHead  # noqa: E402
from nenya_nb.models.heads import ContrastiveHead, LatentPredictHead  # noqa: E402
from nenya_nb.models.losses import SupConLoss  # noqa: E402
from nenya_nb.models.necks import NonLinearNeck  # noqa: E402
from nenya_nb.training import fit  # noqa: E402
from nenya_nb.widgets import base  # noqa: E402
from nenya_nb.widgets.loss_frames import loss_numbers, make_frame  # noqa: E402
from nenya_nb.widgets.loss_lab import LossLab  # noqa: E402

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
    ("BarlowTwins", {"lambda_": 0.3}), ("SwAV", {"temperature": 0.3, "epsilon": 0.2, "iterations": 1}),
    ("DINO", {"temperature": 0.3, "teacher_temperature": 0.09}),
])  # fmt: skip
def test_other_settings_give_the_loss_of_an_algorithm_built_with_them(name, settings, dataset):
    lab = LossLab(make(name), dataset, count=12)
    for key, value in settings.items():
        setattr(lab, key, value)
    other = make(name)
    place = {"temperature": ["head.temperature"], "lambda_": ["loss_fn.lambd"]}
    if name in ("SupCon", "SwAV"):
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


@pytest.mark.parametrize("name", ["SimCLR", "MoCo", "DINO", "SwAV", "NPID"])
def test_looking_changes_nothing(name, dataset):
    algorithm = make(name)
    before = {k: v.clone() for k, v in algorithm.state_dict().items()}
    random = torch.random.get_rng_state()
    LossLab(algorithm, dataset, count=8)
    after = algorithm.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in before)
    assert torch.equal(random, torch.random.get_rng_state()) and algorithm.training


@pytest.mark.parametrize("name", ["SimCLR", "MoCo"])
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
    shown = lab.data["loss"]
    lab.frame = 0
    assert lab.data["loss"] != shown
    with pytest.raises(traitlets.TraitError, match="there are 3"):
        lab.frame = 3
    assert len(lab.page_state()["frames"]) == 3


# --- traits, errors, pages --------------------------------------------------------------------------------------------


def test_sliders_start_at_the_algorithms_own_settings_unless_given(dataset):
    assert LossLab(make("SimCLR at 0.5"), dataset, count=8).temperature == 0.5
    assert LossLab(make("SimCLR"), dataset, count=8, temperature=0.3).temperature == 0.3
    lab = LossLab(make("SwAV other settings"), dataset, count=8)
    assert (lab.temperature, lab.epsilon, lab.iterations) == (0.2, 0.1, 5)


def test_wrong_settings_are_refused(dataset):
    lab = LossLab(make("SimCLR"), dataset, count=8)
    for name, value in (("temperature", 0), ("epsilon", -1), ("lambda_", -0.1), ("collapse", 2)):
        with pytest.raises(traitlets.TraitError):
            setattr(lab, name, value)
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
    assert len(lab.classes) < 16 and math.isclose(
        lab.numbers["loss"], lab.numbers["own"], rel_tol=1e-4
    )


def test_page_and_still_and_text(dataset):
    names = "</script><img src=x onerror=alert(1)>"
    lab = LossLab(make("SimCLR"), dataset, count=8)
    lab.names = [names] * 10
    text = lab.to_html()
    assert "<img src=x" not in text and "</script><img" not in text
    assert "SimCLR, contrast" in repr(lab) and len(lab.figure().axes) == 4
    assert repr(LossLab()) == "LossLab(nothing seen yet)" and LossLab().figure() is None


@pytest.mark.parametrize(
    "name", ["SimCLR", "MoCo", "BarlowTwins", "SwAV", "DINO", "BYOL", "SupCon"]
)
def test_every_kind_has_its_still(name, dataset):
    assert LossLab(make(name), dataset, count=8).figure() is not None


# --- for the front end ------------------------------------------------------------------------------------------------

TRIED = {
    "SimCLR": [{}, {"temperature": 0.5}],
    "SupCon scaled": [{}, {"temperature": 0.02}],
    "MoCo": [{}, {"temperature": 1.5}],
    "MoCoV3": [{}],
    "NPID": [{}],
    "BarlowTwins": [{}, {"lambda_": 0.2}],
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
    from nenya_nb.widgets.loss_frames import _sinkhorn

    scores = F.normalize(torch.randn(12, 8), dim=1)
    assert torch.allclose(_sinkhorn(scores, 0.1, 4), sinkhorn(scores, 0.1, 4), atol=1e-6)
