"""The eight widgets in a real Notebook 7, one after the other: each draws, and one action reaches Python."""

import lab
import pytest

pytestmark = pytest.mark.browser

SETUP = """
import torch; torch.set_num_threads(1); torch.manual_seed(0)
from torch import nn
from nenya_nb.data import load_dataset
from nenya_nb.models import MAE, SimCLR, VisionTransformer, resnet_tiny
from nenya_nb.models.algorithms.mae import MAEPretrainDecoder, MAEPretrainHead
from nenya_nb.models.backbones.masked_vit import MAEViT
from nenya_nb.training import History
from nenya_nb.widgets import *
data = load_dataset("shapes", count=40, size=32)
images = data.batch(range(3))
net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(8, 12, 3)))
"""
CURVES = """
history = History("run")
history.start_run(100, 2)
for step in range(200):
    history.log(step, {"loss": 5 - step / 100})
history.flush()
history.state = "finished"
widget = LiveCurves(history)
"""
RECONSTRUCTION = """
arch = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
decoder = MAEPretrainDecoder(16, 16, 1, 2, img_size=32, patch_size=4)
mae = MAE(MAEViT(arch, 32, 4), decoder, MAEPretrainHead(4, norm_pix=True))
widget = ReconstructionViewer(mae, images, mean=data.mean, std=data.std)
"""
EMBEDDING = "widget = EmbeddingExplorer(data.batch().flatten(1), images=data)"
# code, root, what is drawn, what is clicked, what Python then says
WIDGETS = {
    "LiveCurves": (CURVES, "live", "canvas", "[data-axis=epoch]", "x_axis", "epoch"),
    "ArchitectureDiagram": (
        *("widget = ArchitectureDiagram(net, [1, 3, 16, 16], expanded=[])", "diagram", ".nnb-node"),
        *("[data-id='1']", "selected", "1"),
    ),
    "StageExplorer": (
        *("widget = StageExplorer(net, images=images, names=['0', '1'])", "stages", ".nnb-tile"),
        *(".nnb-stage[data-stage='0']", "selected", "0"),
    ),
    "ViewsPlayground": (
        *("widget = ViewsPlayground(data, seed=1)", "views", ".nnb-view canvas"),
        *("button >> text=New draw", "seed", 2),
    ),
    "LossLab": (
        *("widget = LossLab(SimCLR(resnet_tiny()), data, count=12)", "loss", ".nnb-matrix"),
        *("button >> text=By class", "order", "class"),
    ),
    "EmbeddingExplorer": (EMBEDDING, "embedding", "canvas", ".nnb-class", "isolated", [0]),
    "AttentionViewer": (
        "widget = AttentionViewer(VisionTransformer(32, 8, 0, embed_dim=24, depth=2, num_heads=3), images)",
        *("attention", ".nnb-stage canvas", ".nnb-head:nth-child(2)", "head", 0),
    ),
    "ReconstructionViewer": (
        *(RECONSTRUCTION, "reconstruction", ".nnb-stage canvas"),
        *(".nnb-row:nth-child(2)", "image", 1),
    ),
}


@pytest.fixture(scope="module")
def notebook(chromium, tmp_path_factory):
    """One page for all: the setup, then a cell for each widget."""
    cells = [SETUP, *(f"{code}\nwidget" for code, *_ in WIDGETS.values())]
    with lab.Server(tmp_path_factory.mktemp("notebook"), "notebook") as server:
        nb = chromium.open(server, cells)
        nb.run(0, wait_s=120)
        nb.errors.clear()  # Notebook 7's own: an empty page has them too
        yield nb
        nb.shutdown()
        nb.check_clean()


@pytest.mark.parametrize("name", WIDGETS)
def test_draws_and_answers(notebook, name):
    _, root, drawn, click, trait, wanted = WIDGETS[name]
    cell = 1 + list(WIDGETS).index(name)
    notebook.run(cell, wait_s=60)
    root = f".nnb-root.nnb-{root}"
    notebook.wait(f"{root}[data-ready]")
    notebook.cell(cell).evaluate("node => node.scrollIntoView()")  # far below, it is not laid out
    notebook.show(root)
    notebook.page.locator(f"{root} {drawn}").first.wait_for()
    notebook.page.locator(f"{root} {click}").first.click()
    assert lab.becomes(notebook, f"widget.{trait}", wanted)
