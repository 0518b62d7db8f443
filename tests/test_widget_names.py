"""Names of classes and modules are data in the widgets that show a network: markup stays text, and nobody carries a megabyte."""

import pytest
import torch
from torch import nn

from nenya_nb.models import MAE, SimCLR
from nenya_nb.models.algorithms.mae import MAEPretrainDecoder, MAEPretrainHead
from nenya_nb.models.backbones.masked_vit import MAEViT
from nenya_nb.models.backbones.vit import VisionTransformer
from nenya_nb.widgets.attention import AttentionViewer
from nenya_nb.widgets.diagram import ArchitectureDiagram
from nenya_nb.widgets.loss_lab import LossLab
from nenya_nb.widgets.reconstruction import ReconstructionViewer
from nenya_nb.widgets.stages import StageExplorer

IMAGES = torch.rand(2, 3, 32, 32)


def holder(name: str, part: nn.Module) -> nn.Module:
    "A network whose only part has this name, of a class that has it too."
    net = type(name.replace("\0", ""), (nn.Sequential,), {})()
    net.add_module(name, part)
    return net


def vit() -> nn.Module:
    return VisionTransformer(32, 8, 0, embed_dim=16, depth=1, num_heads=2)


def mae(name: str) -> nn.Module:
    arch = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
    decoder = MAEPretrainDecoder(16, 16, 1, 2, img_size=32, patch_size=4)
    return type(name.replace("\0", ""), (MAE,), {})(
        MAEViT(arch, 32, 4), decoder, MAEPretrainHead(4)
    )


def simclr(name: str) -> nn.Module:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return type(name.replace("\0", ""), (SimCLR,), {})(net, nn.Linear(8, 8))


WIDGETS = {
    "diagram": lambda name: ArchitectureDiagram(holder(name, nn.Conv2d(3, 4, 3)), [2, 3, 32, 32]),
    "stages": lambda name: StageExplorer(holder(name, nn.Conv2d(3, 4, 3)), images=IMAGES),
    "attention": lambda name: AttentionViewer(holder(name, vit()), IMAGES),
    "reconstruction": lambda name: ReconstructionViewer(mae(name), IMAGES),
    "losses": lambda name: LossLab(simclr(name), batch=([IMAGES, IMAGES], None)),
}


@pytest.mark.parametrize("name", ["<img src=x onerror=alert(1)>", "</script><script>", "x" * 10**6])
@pytest.mark.parametrize("widget", WIDGETS)
def test_names_stay_data_and_short(widget, name, monkeypatch):
    monkeypatch.setattr("nenya_nb.widgets.base.read_bundle", lambda bundle: f"/* {bundle} */")
    widget = WIDGETS[widget](name)
    page = widget.to_html()
    assert len(repr(widget)) < 2000 and len(page) < 500_000
    assert page.count("</script>") == 2 and "<img" not in page
    still = widget._fallback()
    assert still.count("<") == 1 and len(still) < 300_000  # the picture and its words
