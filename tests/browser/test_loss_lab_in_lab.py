"""LossLab in a real JupyterLab and as a page of its own: agrees with Python, follows sliders and training, survives."""

import lab
import pytest

pytestmark = pytest.mark.browser

LOSS = ".nnb-root.nnb-loss"
SETUP = """
import torch; torch.set_num_threads(1); torch.manual_seed(0)
from torch import nn
from nenya_nb.data import load_dataset
from nenya_nb.models.algorithms.barlow_twins import BarlowTwins
from nenya_nb.models.algorithms.byol import BYOL
from nenya_nb.models.algorithms.dino import DINO
from nenya_nb.models.algorithms.lejepa import LeJEPA, LeJEPALoss, SIGReg
from nenya_nb.models.algorithms.moco import MoCo
from nenya_nb.models.algorithms.simclr import SimCLR
from nenya_nb.models.algorithms.swav import SwAV, SwAVHead
from nenya_nb.models.algorithms.vicreg import VICReg
from nenya_nb.models.dino_model import DinoProjectionHead
from nenya_nb.models.heads import LatentPredictHead
from nenya_nb.models.necks import NonLinearNeck
from nenya_nb.training import fit
from nenya_nb.widgets.loss_lab import LossLab
dataset = load_dataset("shapes", count=200, size=32)

def small():
    network = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.output_dim = 16
    return network

def neck(**options):
    return NonLinearNeck(16, 16, 12, **options)
"""
SHOW = """
lab = LossLab(count=12)
fit(SimCLR(small(), neck()), dataset, epochs=2, batch_size=32, lr=1e-3, callbacks=[lab], device="cpu");
"""
OTHERS = """
predictor = LatentPredictHead(NonLinearNeck(12, 16, 12, with_last_bn=False, with_last_bias=True))
algorithms = {
    "MoCo": MoCo(small(), neck(), length=64),
    "BarlowTwins": BarlowTwins(small(), neck(with_last_bn=False)),
    "VICReg": VICReg(small(), neck(with_last_bn=False)),
    "LeJEPA": LeJEPA(small(), neck(with_last_bn=False), LeJEPALoss(0.05, SIGReg(80)), num_local=2),
    "SwAV": SwAV(small(), neck(), SwAVHead(12, 8), num_local=2),
    "DINO": DINO(small(), DinoProjectionHead(16, 16, 8, 20), num_local=2),
    "BYOL": BYOL(small(), neck(), predictor),
}
"""


def slide(page, setting: str, place: float) -> None:
    """`place` from 0 to 1000 along the slider."""
    page.locator(f'{LOSS} [data-setting="{setting}"] input').evaluate(
        "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})) }", place
    )


def number(page, name: str) -> float:
    return float(page.locator(LOSS).first.get_attribute(f"data-{name}"))


@pytest.fixture
def shown(open_notebook):
    nb = open_notebook([SETUP, SHOW])
    nb.run_widget(f"{LOSS}[data-frame='2']")
    return nb


def test_follows_training_agrees_with_python_and_works_on_alone(shown):
    page = shown.page
    assert shown.value("lab.times") == [0, 1, 2]
    assert number(page, "loss") == pytest.approx(number(page, "own"), abs=1e-4)
    assert number(page, "own") == pytest.approx(shown.value("lab._kept[2].loss"), abs=1e-4)
    slide(page, "temperature", 700)
    lab.becomes(shown, "lab.temperature > 0.3", True)
    page.wait_for_function(
        f"() => {{ const d = document.querySelector('{LOSS}').dataset; return Math.abs(d.loss - d.own) > 0.01 }}"
    )
    assert number(page, "loss") == pytest.approx(shown.value("lab.numbers['loss']"), abs=1e-4)
    page.locator(f"{LOSS} .nnb-time input").focus()
    page.keyboard.press("Home")
    page.wait_for_selector(f"{LOSS}[data-frame='0']")
    lab.becomes(shown, "lab.frame", 0)
    page.wait_for_function(
        f"w => Math.abs(document.querySelector('{LOSS}').dataset.own - w) < 1e-4",
        arg=shown.value("lab._kept[0].loss"),
    )
    # the label is that of the picture, not of the wish, while the kernel is busy
    page.evaluate("() => void lab.kernel().requestExecute({code: 'import time; time.sleep(1)'})")
    page.locator(f"{LOSS} .nnb-time input").press("End")
    page.wait_for_selector(f"{LOSS} .nnb-time output >> text=2, waiting for Python")
    page.wait_for_selector(f"{LOSS} .nnb-time output >> text=/^2$/")
    page.locator(f"{LOSS} .nnb-time input").press("Home")
    page.wait_for_selector(f"{LOSS} .nnb-time output >> text=/^0$/")
    page.locator(f"{LOSS} .nnb-matrix").first.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    lab.becomes(shown, "lab.selected", [1, 1])
    assert "left out" in page.locator(f"{LOSS} .nnb-readout").inner_text()
    page.click(f"{LOSS} >> text=By class")
    lab.becomes(shown, "lab.order", "class")
    page.click(f"{LOSS} >> text=Gradient")
    page.wait_for_selector(f"{LOSS} h3 >> text=Pull and push")
    shown.value("setattr(lab, 'temperature', 0.05)")
    page.wait_for_selector(f"{LOSS} [data-setting=temperature] output >> text=0.05")
    page.click(f"{LOSS} >> text=The algorithm's own")
    lab.becomes(shown, "lab.temperature", 0.1)
    shown.restart_kernel()
    shown.page.wait_for_selector(f"{LOSS} .nnb-notice >> text=The kernel was restarted")
    before = number(shown.page, "loss")
    slide(shown.page, "temperature", 100)
    shown.page.wait_for_function(
        f"b => document.querySelector('{LOSS}').dataset.loss != b", arg=str(before)
    )


def test_looks_right_and_survives_a_reload(shown):
    shown.screenshots("loss-lab", LOSS)
    shown.reload()
    shown.wait(f"{LOSS}[data-ready]")


# --- pages of their own -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scope():
    return lab.run_here(SETUP + OTHERS)


@pytest.mark.parametrize("name, setting, value", [  # at 0.8 of the slider
    ("MoCo", "temperature", 0.693), ("BarlowTwins", "lambda_", 0.158), ("VICReg", "mu", 40), ("LeJEPA", "lambda_", 0.8),
    ("SwAV", "epsilon", 0.347), ("DINO", "teacher_temperature", 0.398), ("BYOL", "collapse", 0.8),
])  # fmt: skip
def test_page_agrees_with_python_at_every_setting(scope, open_page, tmp_path, name, setting, value):
    widget = scope["LossLab"](scope["algorithms"][name], scope["dataset"], count=10)
    widget.names = ["<img src=x onerror=document['title']='broken'>"] * 10
    page = open_page(
        widget.to_html(tmp_path / "page.html", title="quiet"),
        viewport={"width": 700, "height": 900},
    )
    page.wait_for_selector(f"{LOSS}[data-ready]")
    assert number(page, "loss") == pytest.approx(widget.numbers["own"], rel=1e-4, abs=1e-4)
    slide(page, setting, 800)
    page.wait_for_function(
        f"() => {{ const d = document.querySelector('{LOSS}').dataset; return Math.abs(d.loss - d.own) > 1e-3 }}"
    )
    setattr(widget, setting, value)
    assert number(page, "loss") == pytest.approx(widget.numbers["loss"], rel=1e-4, abs=1e-4)
    box = page.locator(f"{LOSS} .nnb-matrix").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 2)
    assert ":" in page.locator(f"{LOSS} .nnb-readout").inner_text()
    assert page.locator("img").count() == 0 and page.title() == "quiet"


@pytest.mark.parametrize("width", [320, 700, 1200])
def test_nothing_is_wider_than_the_page(scope, open_page, tmp_path, width):
    widget = scope["LossLab"](scope["algorithms"]["DINO"], scope["dataset"], count=10)
    page = open_page(
        widget.to_html(tmp_path / "page.html"), viewport={"width": width, "height": 800}
    )
    page.wait_for_selector(f"{LOSS}[data-ready]")
    assert lab.fits(page)
    assert lab.nameless(page, LOSS) == []
