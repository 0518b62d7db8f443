"""The gallery's networks and two of transformers, at full size: every layer's call and every edge, against other tracers."""

from pathlib import Path

import nbformat
import pytest
import torch
import torchvision
from test_graph import check, edges_of_fx, edges_of_trace
from torch import nn

from nenya_nb.introspect import trace

NOTEBOOK = Path(__file__).parent.parent / "nbs/tutorials/02_gallery.ipynb"
IMAGE = [1, 3, 224, 224]


@pytest.fixture(scope="module")
def lesson():
    "All that the lesson defines."
    names = {}
    for cell in nbformat.read(NOTEBOOK, 4).cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
    return names


@pytest.mark.parametrize(
    "name,shape",
    [
        ("convnext_tiny", IMAGE),
        ("efficientnet_b0", IMAGE),
        ("googlenet", IMAGE),
        ("UNet", [1, 3, 64, 64]),
    ],
)
def test_edges_are_those_of_fx(lesson, name, shape):
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    build = lesson["UNet"] if name == "UNet" else getattr(torchvision.models, name)
    with torch.device("meta"):
        module, image = build(**options), torch.zeros(shape)
    graph = trace(module, shape)
    check(graph, module)
    assert edges_of_trace(graph) == edges_of_fx(module, image)


@pytest.mark.parametrize("kind", ["CLIP", "ALBERT"])
def test_networks_of_transformers_are_drawn_call_by_call(lesson, kind):
    hf = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = dict(hidden_size=16, intermediate_size=32, num_attention_heads=2, num_hidden_layers=3)
    words = torch.randint(3, 50, (2, 7))
    if kind == "CLIP":
        text = dict(small, vocab_size=50, max_position_embeddings=8, eos_token_id=2)
        config = hf.CLIPConfig(
            text_config=text,
            vision_config=dict(small, image_size=32, patch_size=8),
            projection_dim=8,
        )
        module, inputs = hf.CLIPModel(config), (words, torch.zeros(2, 3, 32, 32))
    else:
        config = hf.AlbertConfig(
            vocab_size=50, embedding_size=8, max_position_embeddings=8, **small
        )
        module, inputs = hf.AlbertModel(config), (words,)
    graph = trace(module.eval(), *inputs, real=True)
    assert graph.complete, graph.error
    check(graph, module)
    assert lesson["drawn"](graph, module) == lesson["heard_by_hooks"](module, *inputs)
    if kind == "ALBERT":  # one layer for all: three calls, counted once
        layers = [n for n in graph if n.type == "AlbertLayer"]
        assert [n.calls for n in layers] == [3, 3, 3]
        assert [bool(n.shares) for n in layers] == [False, True, True]
        assert graph.params == sum(p.numel() for p in module.parameters())
    else:
        assert sum(n.type == "CLIPAttention" for n in graph) == 6


def test_the_lesson_shows_twelve(lesson):
    source = NOTEBOOK.read_text()
    headings = [c.source for c in nbformat.read(NOTEBOOK, 4).cells if c.source.startswith("## ")]
    assert sum(h[3].isdigit() for h in headings) == 12 and "resnet1001" in source
    assert issubclass(lesson["TwoEncoders"], nn.Module)
