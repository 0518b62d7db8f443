"""StageExplorer in a real JupyterLab and as a page of its own: draws, slides, picks, measures, survives."""

import lab
import pytest

pytestmark = pytest.mark.browser

STAGES = ".nnb-stages"
EVIL = "<img src=x onerror=document['title']='broken'>"  # a name has no dots

NET = """
import torch
from torch import nn
from nenya_nb.widgets.stages import StageExplorer

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.stage = nn.Sequential(nn.Conv2d(8, 60, 3, 2, 1), nn.BatchNorm2d(60), nn.ReLU())
        self.fc = nn.Linear(60, 5)

    def forward(self, x):
        return self.fc(self.stage(self.stem(x)).mean((2, 3)))

torch.manual_seed(0)
net, images = Net(), torch.rand(2, 3, 32, 32)
"""
SHOW = "explorer = StageExplorer(net, images=images, names=['stem', 'stage', 'fc'], selected='stage', position=(3, 3))\nexplorer"


def stage(name: str) -> str:
    return f'{STAGES} .nnb-stage[data-stage="{name}"]'


@pytest.fixture
def net():
    scope = {}
    exec(NET, scope)  # the same network, here
    return scope


@pytest.fixture
def open_page(open_page, tmp_path):
    """As the others', for an explorer: waits until it is drawn."""

    def open_(explorer, **options):
        page = open_page(explorer.to_html(tmp_path / "page.html", title="quiet"), **options)
        page.wait_for_selector(f"{STAGES}[data-ready]")
        return page

    return open_


@pytest.fixture
def shown(open_notebook):
    nb = open_notebook([NET, SHOW])
    nb.run(0, wait_s=120)
    nb.run(1, wait_s=60)
    nb.wait(f"{STAGES}[data-ready]")
    return nb


def test_talks_with_the_kernel_and_survives_a_reload(shown):
    nb, page = shown, shown.page
    for theme in lab.THEMES:
        nb.theme(theme)
        for width, size in {"wide": lab.WIDE, "narrow": lab.NARROW}.items():
            nb.resize(size)
            nb.show(f"{STAGES} .nnb-top")
            nb.screenshot(f"stages-{theme}-{width}", STAGES)
            assert page.locator(STAGES).bounding_box()["width"] <= size[0]
    nb.resize(lab.WIDE)
    nb.theme("light")
    page.click(stage("stem"))
    lab.becomes(nb, "explorer.selected", "stem")
    page.locator(f"{STAGES} .nnb-tile").nth(2).click()
    lab.becomes(
        nb,
        f"explorer.channel == {page.locator(f'{STAGES} .nnb-tile').nth(2).get_attribute('data-channel')}",
        True,
    )
    page.locator(f"{STAGES} .nnb-map").click(position={"x": 2, "y": 2})
    lab.becomes(nb, "explorer.position", (0, 0))
    assert nb.value("dict(explorer.effective)") == {}, "measured only while somebody looks at it"
    page.click(f"{STAGES} .nnb-sight .nnb-segments button:last-child")
    page.wait_for_selector(f"{STAGES} .nnb-sight >> text=90 % of its influence")
    # new maps again and again while the kernel is busy: one question, and the last position is measured
    page.evaluate("() => { const send = WebSocket.prototype.send; window.asked = 0;"
        "WebSocket.prototype.send = function (data) {"
        " asked += /\"want\":\\s*\"field\"/.test(typeof data === 'string' ? data : new TextDecoder().decode(data)); return send.call(this, data) } }")  # fmt: skip
    nb.value("[explorer.update() for _ in range(3)] and None")
    lab.becomes(nb, "'stem 0 0' in explorer.effective", True)
    busy = "import time\nfor _ in range(4):\n    explorer.update()\n    time.sleep(0.5)"
    before = page.evaluate("asked")
    page.evaluate("code => void lab.kernel().requestExecute({code})", busy)
    page.wait_for_timeout(1500)
    for key in ("ArrowRight", "ArrowDown", "ArrowRight"):
        page.locator(f"{STAGES} .nnb-map").press(key)
        page.wait_for_timeout(350)
    lab.becomes(nb, "'stem 1 2' in explorer.effective", True)
    assert page.evaluate("asked") - before <= 3
    nb.value("[setattr(explorer, 'selected', 'stage'), setattr(explorer, 'size', 48)]")
    page.wait_for_selector(f"{STAGES}[data-stage=stage][data-size='48']")
    page.locator(f"{STAGES} input[type=range]").focus()
    page.keyboard.press("Home")
    lab.becomes(nb, "explorer.size == explorer.table.sizes[0]", True)
    page.locator(stage("stage")).focus()
    page.keyboard.press("ArrowLeft")
    lab.becomes(nb, "explorer.selected", "stem")
    assert page.locator(".jp-Notebook .jp-CodeCell").count() == 2  # the notebook heard no key
    nb.reload()
    nb.wait(f"{STAGES}[data-ready][data-stage=stem]")


def test_restarted_kernel_leaves_a_picture_and_a_message(shown):
    shown.restart_kernel()
    shown.page.wait_for_selector(f"{STAGES} .nnb-notice >> text=The kernel was restarted")
    shown.page.click(stage("stem"))
    shown.page.wait_for_selector(f"{STAGES}[data-stage=stem]")
    shown.page.locator(f"{STAGES} .nnb-map").click(position={"x": 2, "y": 2})
    shown.page.wait_for_selector(f"{STAGES} .nnb-words >> text=Row 0, column 0")


def test_page_without_network_answers(net, open_page):
    explorer = net["StageExplorer"](
        net["net"], images=net["images"], names=["stem", "stage", "fc"], selected="stage"
    )
    page = open_page(explorer, viewport={"width": 1200, "height": 900})
    text = "s => document.querySelector(s).textContent"
    page.locator(f"{STAGES} input[type=range]").focus()
    page.keyboard.press("End")
    page.wait_for_selector(f"{STAGES}[data-size='64']")
    assert "60 × 16 × 16" in page.evaluate(text, f'{STAGES} [data-row="stage"]')
    assert "multiplications for an image of 64 px" in page.evaluate(text, f"{STAGES} .nnb-note")
    reading = page.evaluate(text, f"{STAGES} .nnb-reading")
    page.locator(f"{STAGES} .nnb-map").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(
        "([s, t]) => document.querySelector(s).textContent != t",
        arg=[f"{STAGES} .nnb-reading", reading],
    )
    words = page.evaluate(text, f"{STAGES} .nnb-words")
    box = explorer.fields["stage"].at(4, 3)
    assert f"rows {box.top} to {box.bottom - 1}, columns {box.left} to {box.right - 1}" in words
    page.click(f"{STAGES} .nnb-sight .nnb-segments button:last-child")
    page.wait_for_selector(f"{STAGES} .nnb-sight >> text=for the middle position only")
    page.click(f"{STAGES} >> text=Go to the middle")
    page.wait_for_selector(f"{STAGES} .nnb-sight >> text=90 % of its influence")
    assert page.locator(f"{STAGES} .nnb-tile").count() == 48
    page.click(f"{STAGES} [aria-label='Channels after']")
    assert page.locator(f"{STAGES} .nnb-tile").count() == 12
    page.click(f"{STAGES} >> text=one for all")
    page.locator(f"{STAGES} select").select_option("index")
    page.locator(f"{STAGES} .nnb-thumb").nth(1).click()
    page.wait_for_selector(f"{STAGES} .nnb-thumb[aria-pressed=true][aria-label='image 1']")
    page.click(f"{STAGES} [data-row=fc] button")
    page.wait_for_selector(f"{STAGES}[data-stage=fc]")
    unnamed = """() => [...document.querySelectorAll('.nnb-stages button, .nnb-stages input, .nnb-stages select')]
        .filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() || e.closest('label'))).length"""
    assert page.evaluate(unnamed) == 0


@pytest.mark.parametrize("name", [EVIL, "x" * 100_000])
def test_strange_names_stay_text(net, open_page, name):
    model = net["nn"].Sequential()
    model.add_module(name, net["nn"].Conv2d(3, 4, 3))
    model.add_module("last", net["nn"].Conv2d(4, 4, 3))
    page = open_page(
        net["StageExplorer"](model, images=net["images"]), viewport={"width": 380, "height": 900}
    )
    page.locator(f"{STAGES} .nnb-stage").first.click()
    page.locator(f"{STAGES} tbody button").last.click()
    assert page.locator("img").count() == 0 and page.title() == "quiet"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_sizes_that_do_not_fit_are_said_and_no_images_are_needed(net, open_page):
    model = net["nn"].Sequential(net["nn"].Conv2d(3, 4, 9), net["nn"].Conv2d(4, 4, 9))
    page = open_page(
        net["StageExplorer"](model, [1, 3, 32, 32]), viewport={"width": 640, "height": 900}
    )
    page.locator(f"{STAGES} input[type=range]").focus()
    page.keyboard.press("Home")
    page.wait_for_selector(f"{STAGES} .nnb-cannot >> text=It cannot take 8 × 8 px")
    page.keyboard.press("End")
    page.wait_for_selector(f"{STAGES} .nnb-stage")
    page.locator(f"{STAGES} .nnb-map").click(position={"x": 3, "y": 3})
    page.wait_for_selector(f"{STAGES} .nnb-words >> text=Row 0, column 0")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
