"""The gallery's networks and two of transformers, at full size: every layer's call and every edge, against other tracers."""

from graphlib import TopologicalSorter
from pathlib import Path

import nbformat
import pytest
import torch
from test_graph import check, edges_of_fx, edges_of_trace, live
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from nenya_nb.introspect import trace

NOTEBOOK = Path(__file__).parent.parent / "nbs/tutorials/02_gallery.ipynb"
NETWORKS = """convnext efficientnet swin maxvit googlenet unet deeplab detector raft dcgan two_encoders deep""".split()
FX = "convnext efficientnet googlenet unet deeplab dcgan deep".split()


@pytest.fixture(scope="module")
def lesson():
    "All that the lesson defines, and under `networks` each (module, inputs, graph) that it looks at."
    names, networks = {}, {}
    for cell in nbformat.read(NOTEBOOK, 4).cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
        if "def look(" in cell.source:
            names["look"] = remembering(names["look"], networks)
    return names | {"networks": networks}


def remembering(look, networks: dict):
    def remember(module, *inputs, **options):
        diagram = look(module, *inputs, **options)
        networks[NETWORKS[len(networks)]] = module, inputs, diagram.graphs[0]
        return diagram

    return remember


def tensors(values) -> list[torch.Tensor]:
    "All that are in it; torch takes transformers' dictionaries and a detector's images for leaves."
    found = []
    for value in tree_leaves(values):
        if isinstance(value, dict):
            found += tensors(dict(value))
        elif torch.is_tensor(value := getattr(value, "tensors", value)):
            found.append(value)
    return found


class Ways(TorchDispatchMode):
    """Which layer feeds which, heard below torch's Python functions: each tensor carries the names of the layers that
    it was made from, on to the next layer, through all of ATen's operations between them."""

    def __init__(self, module: nn.Module, layers: set[str]):
        super().__init__()
        self.origin, self.pairs, self.inside, self.hooks = WeakTensorKeyDictionary(), set(), 0, []
        for path, part in module.named_modules():
            if path in layers:
                first = part.register_forward_pre_hook(
                    lambda _, args, given, path=path: self.enter(path, args, given),
                    with_kwargs=True,
                )
                last = part.register_forward_hook(
                    lambda _, args, out, path=path: self.leave(path, args, out)
                )
                self.hooks += [first, last]

    def names(self, values) -> set[str]:
        return set().union(*(self.origin.get(tensor, set()) for tensor in tensors(values)))

    def name(self, values, names: set[str]) -> None:
        for tensor in tensors(values):
            self.origin[tensor] = names

    def enter(self, path, *given):
        self.inside += 1
        self.pairs |= {(start, path) for start in self.names(given) if start != path}

    def leave(self, path, given, out):
        self.inside -= 1
        if any(
            out is value for value in given
        ):  # an identity: the same numbers, on a way of their own
            out = out.view_as(out)
        self.name(out, {path})
        return out

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if not self.inside:
            self.name(out, self.names((args, kwargs)))
        return out


def layers_of_run(module: nn.Module, layers: set[str], *inputs) -> set:
    "Pairs of layers joined by a path of operations that belong to no layer, in a run."
    ways = Ways(module.eval(), layers)
    ways.name(inputs, {"input"})
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operation for several layers
    with torch.no_grad(), ways:
        out = module(*inputs)
    torch.backends.mha.set_fastpath_enabled(fast)
    for hook in ways.hooks:
        hook.remove()
    return ways.pairs | {(start, "output") for start in ways.names(out)}


def layers_of_trace(graph, seen: set[str]) -> set:
    "The same from the graph's edges."
    nodes = {node.id: node for node in graph if not node.group}
    before = {id: [edge.start for edge in graph.into(id)] for id in nodes}
    origin, pairs = {}, set()
    for id in TopologicalSorter(before).static_order():
        node, fed = nodes[id], set().union(*(origin[start] for start in before[id]))
        kind = node.kind if node.kind in ("input", "output") else None
        name = kind or (node.path if node.path in seen else None)
        pairs |= {(start, name) for start in fed if name and start != name}
        origin[id] = {name} if name else fed
    return pairs


def childless(module: nn.Module) -> set[str]:
    return {path for path, part in module.named_modules() if not any(True for _ in part.children())}


def compare(graph, module, *inputs) -> None:
    "The layers of a graph feed those that they feed in a run."
    heard = layers_of_run(module, childless(module), *inputs)
    seen = {name for pair in heard for name in pair}
    assert len(live(heard)) > 12 and live(layers_of_trace(graph, seen)) == live(heard)


def without_numbers(module, inputs):
    "The network and its inputs on the device that computes nothing."
    shapes = [torch.zeros(x, device="meta") if isinstance(x, list) else x for x in inputs]
    return module.to("meta"), [x.to("meta") if torch.is_tensor(x) else x for x in shapes]


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_feed_those_that_they_feed_in_a_run(lesson, name):
    module, inputs, graph = lesson["networks"][name]
    check(graph, module)
    if name != "detector":  # which needs its numbers
        module, inputs = without_numbers(module, inputs)
    compare(graph, module, *inputs)


@pytest.mark.parametrize("name", FX)
def test_edges_are_those_of_fx(lesson, name):
    module, inputs, graph = lesson["networks"][name]
    module, inputs = without_numbers(module, inputs)
    assert edges_of_trace(graph) == edges_of_fx(module, *inputs)


@pytest.mark.parametrize("kind", ["CLIP", "Albert"])
def test_networks_of_transformers_are_drawn_call_by_call(lesson, kind):
    import transformers as hf

    with torch.device("meta"):
        module = getattr(hf, f"{kind}Model")(getattr(hf, f"{kind}Config")())
        words, picture = torch.zeros(2, 7, dtype=torch.long), torch.zeros(2, 3, 224, 224)
    inputs = (words, picture) if kind == "CLIP" else (words,)
    graph = trace(module.eval(), *inputs)
    assert graph.complete, graph.error
    check(graph, module)
    assert lesson["drawn"](graph, module) == lesson["heard_by_hooks"](module, *inputs)
    compare(graph, module, *inputs)
    if kind == "Albert":  # one layer for all: twelve calls, counted once
        layers = [n for n in graph if n.type == "AlbertLayer"]
        assert [n.calls for n in layers] == [12] * 12
        assert [bool(n.shares) for n in layers] == [False] + [True] * 11
        assert graph.params == sum(p.numel() for p in module.parameters())
    else:
        assert sum(n.type == "CLIPAttention" for n in graph) == 24


def test_the_lesson_shows_twelve_of_which_three_are_its_own(lesson):
    headings = [c.source for c in nbformat.read(NOTEBOOK, 4).cells if c.source.startswith("## ")]
    assert sum(h[3].isdigit() for h in headings) == 12 == len(lesson["networks"])
    kinds = {name: type(module) for name, (module, *_) in lesson["networks"].items()}
    own = {name for name, kind in kinds.items() if not kind.__module__.startswith("torchvision.")}
    assert own == {"unet", "dcgan", "two_encoders"}
