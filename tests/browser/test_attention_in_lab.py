"""AttentionViewer in a real JupyterLab and as a page of its own: points, walks, fetches, survives."""

import lab
import pytest

pytestmark = pytest.mark.browser

VIEW = ".nnb-attention"
STAGE, HEAD = f"{VIEW} .nnb-stage", f"{VIEW} .nnb-head"

NET = """
import torch
from nenya_nb.models.backbones.vit import VisionTransformer
from nenya_nb.models.backbones.swin import SwinTransformer
from nenya_nb.widgets.attention import AttentionViewer

torch.manual_seed(0)
net = VisionTransformer(32, 4, 0, embed_dim=36, depth=4, num_heads=3)
for block in net.blocks:
    block.attn.qkv.weight.data *= 12  # so that there is something to see
images = torch.rand(3, 3, 32, 32)
"""
SHOW = "AttentionViewer.budget = 40_000\nviewer = AttentionViewer(net, images)\nviewer"


def pick(page, row: int, column: int) -> None:
    lab.click_cell(page, STAGE, (row, column), (8, 8))


def test_points_walks_fetches_and_survives(open_notebook):
    nb = open_notebook([NET, SHOW])
    nb.run_widget(VIEW)
    page = nb.page
    assert page.locator(HEAD).count() == 4  # the mean, and three
    assert nb.ink(STAGE) > 64
    page.locator(HEAD).nth(2).click()
    assert lab.becomes(nb, "viewer.head", 1)
    pick(page, 3, 5)
    assert lab.becomes(nb, "viewer.query", [3, 5])
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    assert lab.becomes(nb, "viewer.query", [4, 4])
    # a layer that was not sent: Python brings its row
    page.locator(f"{VIEW} input[type=range]").nth(2).fill("1")
    assert lab.becomes(nb, "viewer.layer", 1)
    page.wait_for_selector(f"{VIEW} .nnb-readout >> text=Patch 5, 5 looks at")
    page.wait_for_function(f"() => !document.querySelector('{HEAD}').disabled")
    assert lab.becomes(nb, "viewer.extra['key']", "0.1")
    nb.value(
        "[setattr(viewer, 'query', [0]), setattr(viewer, 'image', 2), setattr(viewer, 'rollout', True)]"
    )
    page.wait_for_selector(f"{HEAD} >> text=Rollout")
    page.wait_for_selector(f"{VIEW} .nnb-thumb:nth-child(3)[aria-pressed=true]")
    page.wait_for_selector(f"{VIEW} .nnb-readout >> text=CLS looks at")
    # keys of the notebook did nothing; the page comes back after a reload
    assert page.locator(".jp-Notebook .jp-CodeCell").count() == 2
    nb.reload()
    nb.wait(f"{VIEW}[data-ready]")
    page.wait_for_selector(f"{HEAD} >> text=Rollout")


def test_looks_right_and_outlives_its_kernel(open_notebook):
    nb = open_notebook([NET, "viewer = AttentionViewer(net, images, query=[2, 3])\nviewer"])
    nb.run_widget(VIEW)
    nb.screenshots("attention", VIEW)
    nb.restart_kernel()
    nb.page.wait_for_selector(f"{VIEW} .nnb-notice >> text=The kernel was restarted")


@pytest.fixture
def net():
    return lab.run_here(NET)


def test_page_without_network(net, open_page, tmp_path):
    viewer = net["AttentionViewer"](net["net"], net["images"])
    page = open_page(viewer.to_html(tmp_path / "page.html"))
    page.wait_for_selector(f"{VIEW}[data-ready]")
    layers = page.locator(f"{VIEW} input[aria-label=Layer]")
    for layer in range(4):  # all is there
        layers.fill(str(layer))
        pick(page, 7, layer)
        page.wait_for_selector(f"{VIEW} .nnb-readout >> text=Patch 8, {layer + 1}")
        page.mouse.move(1, 1)
        page.wait_for_selector(f"{VIEW} .nnb-readout >> text=Patch 8, {layer + 1} looks at about")
    page.locator(f"{VIEW} .nnb-dot").first.click()
    page.wait_for_selector(f"{HEAD}:nth-child(2)[aria-pressed=true]")
    assert layers.input_value() == "0"
    page.locator(f"{VIEW} .nnb-tokens button").first.click()
    page.wait_for_selector(f"{VIEW} .nnb-readout >> text=CLS looks at")
    page.locator(f"{VIEW} input[aria-label='Share shown']").fill("0.5")
    assert lab.nameless(page, VIEW) == []


def test_page_says_what_it_does_not_carry(net, open_page, tmp_path, monkeypatch):
    monkeypatch.setattr(net["AttentionViewer"], "budget", 40_000)
    viewer = net["AttentionViewer"](net["net"], net["images"])
    page = open_page(viewer.to_html(tmp_path / "page.html"))
    page.wait_for_selector(f"{VIEW} .nnb-left-out >> text=need a kernel")
    page.locator(f"{VIEW} input[aria-label=Layer]").fill("0")
    page.wait_for_selector(f"{VIEW} .nnb-readout >> text=CLS looks at")
    pick(page, 1, 1)
    page.mouse.move(1, 1)
    page.wait_for_selector(f"{VIEW} .nnb-readout >> text=does not carry")


def test_a_tall_picture_keeps_its_shape(net, open_page, tmp_path):
    tall = net["SwinTransformer"](
        (64, 16), 0, embed_dim=8, depths=(2, 2), num_heads=(1, 2), window_size=4, patch_size=2
    )
    viewer = net["AttentionViewer"](tall, net["torch"].rand(1, 3, 64, 16), layer=1, query=[0, 1])
    page = open_page(viewer.to_html(tmp_path / "page.html"))
    page.wait_for_selector(f"{VIEW}[data-ready]")
    box = page.locator(STAGE).bounding_box()
    assert box["height"] / box["width"] == pytest.approx(4, rel=0.02) and box["height"] <= 421


@pytest.mark.parametrize("width", [380, 1200])
def test_windows_on_any_width(net, open_page, tmp_path, width):
    swin = net["SwinTransformer"](
        32, 0, embed_dim=8, depths=(2, 2), num_heads=(1, 2), window_size=4, patch_size=2
    )
    viewer = net["AttentionViewer"](swin, net["images"], layer=1, query=[0, 1])
    size = {"width": width, "height": 900}
    page = open_page(viewer.to_html(tmp_path / "page.html"), viewport=size)
    page.wait_for_selector(f"{VIEW}[data-ready]")
    assert page.locator(f"{VIEW} .nnb-window").get_attribute("d").count("M") > 8  # four corners
    assert not page.locator(f"{VIEW} >> text=Rollout").is_visible()
    assert lab.fits(page)
