"""ReconstructionViewer in a real JupyterLab and as a page of its own: wipes, compares, makes masks, follows training."""

import lab
import pytest

pytestmark = pytest.mark.browser

VIEW = ".nnb-reconstruction"
STAGE, ROW = f"{VIEW} .nnb-stage", f"{VIEW} .nnb-row"

NET = """
import torch
from nenya_nb.data import load_dataset
from nenya_nb.models import CAE, MAE
from nenya_nb.models.algorithms.mae import MAEPretrainDecoder, MAEPretrainHead
from nenya_nb.models.backbones.masked_vit import CAEViT, MAEViT
from nenya_nb.widgets.reconstruction import ReconstructionViewer

torch.manual_seed(0)
data = load_dataset("shapes").subset(range(60))
arch = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
decoder = MAEPretrainDecoder(16, 16, 1, 2, img_size=32, patch_size=4)
mae = MAE(MAEViT(arch, 32, 4, mask_ratio=0.6), decoder, MAEPretrainHead(4, norm_pix=True))
viewer = ReconstructionViewer(mae, data.batch(range(4)), mean=data.mean, std=data.std)
"""
FIT = """
from nenya_nb.training import fit
fit(mae, data, epochs=3, batch_size=20, progress=False, monitor=False, callbacks=[viewer]);
"""


def pick(page, row: int, column: int) -> None:
    lab.click_cell(page, STAGE, (row, column), (8, 8))


def test_compares_masks_trains_and_survives(open_notebook):
    nb = open_notebook([NET, FIT])
    nb.run_widget(VIEW)  # it displays itself
    page = nb.page
    page.wait_for_selector(f"{VIEW} output >> text=epoch 3")
    page.locator(f"{VIEW} input[aria-label=Time]").fill("0")
    assert lab.becomes(nb, "viewer.frame", 0)
    page.wait_for_selector(f"{VIEW} output >> text=untrained")
    page.locator(ROW).nth(2).click()
    assert lab.becomes(nb, "viewer.image", 2)
    pick(page, 2, 6)
    assert lab.becomes(nb, "viewer.patch", [2, 6])
    page.keyboard.press("ArrowUp")
    assert lab.becomes(nb, "viewer.patch", [1, 6])
    assert page.locator(f"{VIEW} .nnb-patch tbody tr").count() == 3
    page.locator(f"{VIEW} .nnb-columns button", has_text="Masked").click()
    assert lab.becomes(nb, "viewer.beside", "masked")
    page.wait_for_selector(f"{VIEW} .nnb-wipe-right >> text=masked")
    page.locator(f"{VIEW} .nnb-stage-box input").fill("0.8")
    assert lab.becomes(nb, "viewer.wipe", 0.8)
    page.locator(f"{VIEW} .nnb-button").click()  # a new mask
    assert lab.becomes(nb, "viewer.seed", 1)
    page.wait_for_selector(f"{VIEW} .nnb-patch >> text=Click a patch")
    ratio = page.locator(f"{VIEW} input[aria-label='Hidden share']")
    ratio.fill("0.3")
    ratio.dispatch_event("change")
    page.wait_for_selector(f"{VIEW} >> text=31.3 % of the patches are hidden")
    nb.value("setattr(viewer, 'patch', [0, 0])")
    page.wait_for_selector(f"{VIEW} .nnb-patch >> text=Patch 1, 1")
    nb.reload()
    nb.wait(f"{VIEW}[data-ready]")
    page.wait_for_selector(f"{VIEW} .nnb-patch >> text=Patch 1, 1")


def test_looks_right_and_outlives_its_kernel(open_notebook):
    nb = open_notebook([NET, "viewer.patch = [3, 3]\nviewer"])
    nb.run_widget(VIEW)
    nb.screenshots("reconstruction", VIEW)
    nb.restart_kernel()
    nb.page.wait_for_selector(f"{VIEW} .nnb-notice >> text=The kernel was restarted")


@pytest.fixture
def net():
    return lab.run_here(NET)


@pytest.mark.parametrize("width", [380, 1200])
def test_page_without_network(net, open_page, tmp_path, width):
    viewer = net["viewer"]
    viewer.add_frame("later")
    size = {"width": width, "height": 900}
    page = open_page(viewer.to_html(tmp_path / "page.html"), viewport=size)
    page.wait_for_selector(f"{VIEW}[data-ready]")
    assert page.locator(f"{VIEW} .nnb-bar").count() == 4  # norm_pix has a fair rival more
    page.wait_for_selector(f"{VIEW} .nnb-notes >> text=borrowed from the truth")
    assert not page.locator(f"{VIEW} .nnb-button").is_visible()
    page.wait_for_selector(f"{VIEW} >> text=Another mask needs a kernel")
    page.locator(f"{VIEW} input[aria-label=Time]").fill("0")
    page.wait_for_selector(f"{VIEW}[data-frame='0']")
    for i in range(4):
        page.locator(ROW).nth(i).click()
        page.wait_for_selector(f"{ROW}:nth-child({i + 1})[aria-pressed=true]")
    pick(page, 6, 1)
    page.wait_for_selector(f"{VIEW} .nnb-patch >> text=Patch 7, 2")
    page.keyboard.press("Escape")
    page.wait_for_selector(f"{VIEW} .nnb-patch >> text=Click a patch")
    box = page.locator(STAGE).bounding_box()
    y, x = box["y"] + box["height"] / 2, box["x"] + box["width"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + box["width"] / 4, y)
    page.mouse.up()
    assert abs(float(page.locator(f"{VIEW} .nnb-stage-box input").input_value()) - 0.75) < 0.03
    assert lab.nameless(page, VIEW) == []
    assert lab.fits(page)


def test_page_of_words_and_of_nothing_yet(net, open_page, tmp_path):
    cae = net["CAE"](net["CAEViT"](net["arch"], 32, 4))
    images = net["data"].batch(range(2))
    empty = net["ReconstructionViewer"](cae, images)
    page = open_page(empty.to_html(tmp_path / "empty.html"))
    page.wait_for_selector(f"{VIEW} .nnb-notes >> text=not fitted yet")
    cae.target_generator.fit(net["data"].batch(range(60)))
    words = net["ReconstructionViewer"](cae, images)
    page = open_page(words.to_html(tmp_path / "words.html"))
    page.wait_for_selector(f"{VIEW}[data-ready]")
    assert page.locator(f"{ROW} >> nth=0 >> canvas").count() == 6
    page.wait_for_selector(f"{VIEW} >> text=Right words")
