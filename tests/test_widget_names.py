"""Names of modules are data in every widget that shows them: markup stays text, and nobody carries a megabyte."""

import pytest
import torch
from torch import nn

pytest.importorskip("anywidget")

from nenya_nb.models import MAE  # noqa: E402
from nenya_nb.models.algorithms.mae import MAEPretrainDecoder, MAEPretrainHead  # noqa: E402
from nenya_nb.models.backbones.masked_vit import MAEViT  # noqa: E402
from nenya_nb.models.backbones.vit import VisionTransformer  # noqa: E402
from nenya_nb.widgets.attention import AttentionViewer  # noqa: E402
from nenya_nb.widgets.diagram import ArchitectureDiagram  # noqa: E402
from nenya_nb.widgets.reconstruction import ReconstructionViewer  # noqa: E402
from nenya_nb.widgets.stages import StageExplorer  # noqa: E402

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


WIDGETS = {
    "diagram": lambda name: ArchitectureDiagram(holder(name, nn.Conv2d(3, 4, 3)), [2, 3, 32, 32]),
    "stages": lambda name: StageExplorer(holder(name, nn.Conv2d(3, 4, 3)), images=IMAGES),
    "attention": lambda name: AttentionViewer(holder(name, vit()), IMAGES),
    "reconstruction": lambda name: ReconstructionViewer(mae(name), IMAGES),
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
