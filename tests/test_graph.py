"""Graphs of networks: every node and edge as in independent tracers, and by hand where those cannot see."""

import functools
import inspect
import json
import operator
import sys
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import timm
import torch
import torchvision
from test_introspect_shapes import assert_same_state, state
from torch import fx, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from nenya_nb.introspect import Edge, ModuleGraph, Node, stage_table, trace
from nenya_nb.models import SimCLR
from nenya_nb.models.backbones.efficientnet import EfficientNet
from nenya_nb.models.backbones.resnet import ResNet


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


# ---- networks ----------------------------------------------------------------------------------------
class UNet(nn.Module):
    "Two levels, the pooling shared by both."

    def __init__(self, width=8):
        super().__init__()

        def double(i, o):
            return nn.Sequential(
                nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(inplace=True)
            )

        self.down = nn.ModuleList([double(3, width), double(width, width)])
        self.pool = nn.MaxPool2d(2)
        self.bottom = double(width, width)
        self.up = nn.ModuleList([nn.ConvTranspose2d(width, width, 2, 2) for _ in range(2)])
        self.join = nn.ModuleList([double(2 * width, width) for _ in range(2)])
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x):
        skips = []
        for level in self.down:
            x = level(x)
            skips.append(x)
            x = self.pool(x)
        x = self.bottom(x)
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([skips.pop(), up(x)], dim=1))
        return self.head(x)


class Generator(nn.Module):
    "A DCGAN generator."

    def __init__(self):
        super().__init__()
        widths, layers = (16, 32, 16, 8), []
        for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False)):
            layers += [nn.ConvTranspose2d(a, b, 4, 1 + (i > 0), int(i > 0), bias=False)]
            layers += [nn.BatchNorm2d(b), nn.ReLU(True)]
        self.main = nn.Sequential(*layers, nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh())

    def forward(self, noise):
        return self.main(noise[:, :, None, None])


class Inception(nn.Module):
    def __init__(self):
        super().__init__()
        self.branches = nn.ModuleList(
            [nn.Conv2d(3, n, k, padding=k // 2) for n, k in ((2, 1), (3, 3), (4, 5))]
        )

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)


class TiedAutoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(8, 3)
        self.bias = nn.Parameter(torch.zeros(8))

    def forward(self, x):
        return F.linear(torch.relu(self.encoder(x)), self.encoder.weight.t(), self.bias)


class CLIP(nn.Module):
    def __init__(self):
        super().__init__()
        self.visual = timm.create_model("resnet10t", num_classes=16)
        self.token = nn.Embedding(20, 16)
        self.position = nn.Parameter(torch.zeros(5, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.text = nn.TransformerEncoder(layer, 2)
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, image, text):
        image = F.normalize(self.visual(image), dim=-1)
        text = F.normalize(self.text(self.token(text) + self.position)[:, -1], dim=-1)
        logits = self.scale.exp() * image @ text.t()
        return {"image": logits, "text": logits.t()}


class Unrolled(nn.Module):
    "A cell in a Python loop."

    def __init__(self, steps=4):
        super().__init__()
        self.cell, self.out, self.steps = nn.GRUCell(5, 7), nn.Linear(7, 2), steps

    def forward(self, x):
        h = x.new_zeros(x.shape[0], 7)
        for t in range(self.steps):
            h = self.cell(x[:, t], h)
        return self.out(h)


# ---- oracle 1: torch.fx, the same multiset of edges -----------------------------------------------------
def plain(name: str) -> str:
    name = name.strip("_")
    name = {"iadd": "add", "imul": "mul", "concat": "cat", "truediv": "div"}.get(name, name)
    return name


class Values(fx.Interpreter):
    "Keeps what each node gave."

    def __init__(self, module):
        super().__init__(module)
        self.values = {}

    def run_node(self, n):
        self.values[n] = super().run_node(n)
        return self.values[n]


def edges_of_fx(module, *inputs) -> Counter:
    class Tracer(fx.Tracer):
        def is_leaf_module(self, m, name):
            childless = not any(True for _ in m.children())
            return childless or super().is_leaf_module(m, name)

    module = module.eval()
    tracer = Tracer()
    graph = tracer.trace(module)
    interpreter = Values(fx.GraphModule(tracer.root, graph))
    with torch.no_grad():
        interpreter.run(*inputs)
    values, names, calls = interpreter.values, {}, Counter()

    def made(node):  # through getitem on tuples, `contiguous` and the like
        while True:
            picks = node.target is operator.getitem and isinstance(
                values[node.args[0]], (tuple, list)
            )
            same = node.target in ("contiguous", "detach")  # bookkeeping, or they do nothing
            if node.op != "placeholder" and getattr(node.target, "__name__", "") == "dropout":
                same = values[node] is values[node.args[0]]
            if not (picks or same) or node.op == "placeholder":
                return node
            node = node.args[0]

    for node in graph.nodes:
        if node.op == "call_module":
            calls[node.target] += 1
            names[node] = node.target + f"@{calls[node.target]}" * (calls[node.target] > 1)
        elif node.op in ("call_function", "call_method"):
            target = node.target if isinstance(node.target, str) else node.target.__name__
            names[node] = f"op {plain(target)}"
        elif node.op in ("placeholder", "output"):
            names[node] = node.op
    found = Counter()
    for node in graph.nodes:
        tensors = (
            torch.is_tensor(values[node])
            or any(
                map(
                    torch.is_tensor, values[node] if isinstance(values[node], (tuple, list)) else []
                )
            )
            or node.op == "output"
        )
        if node.op == "get_attr" or made(node) is not node or not tensors:
            continue
        got = []
        fx.node.map_arg((node.args, node.kwargs), got.append)
        for other in got:
            if torch.is_tensor(values[other]) or isinstance(values[other], (tuple, list)):
                other = made(other)
                if (
                    other.op != "get_attr"
                    and other in names
                    and not isinstance(values[other], (int, torch.Size))
                ):
                    found[names[other], names[node]] += 1
    return found


def edges_of_trace(graph: ModuleGraph) -> Counter:
    def name(id):
        node = graph[id]
        if node.kind == "module":
            return id
        return {"input": "placeholder", "output": "output"}.get(node.kind, f"op {node.type}")

    return Counter((name(edge.start), name(edge.end)) for edge in graph.edges)


FX = {
    "resnet18": (torchvision.models.resnet18, 64),
    "resnet50": (torchvision.models.resnet50, 64),
    "googlenet": (lambda: torchvision.models.googlenet(init_weights=False), 64),
    "densenet121": (torchvision.models.densenet121, 32),
    "shufflenet": (torchvision.models.shufflenet_v2_x0_5, 64),
    "squeezenet": (torchvision.models.squeezenet1_1, 64),
    "mobilenet": (torchvision.models.mobilenet_v3_small, 64),
    "regnet": (torchvision.models.regnet_y_400mf, 64),
    "U-Net": (UNet, 16),
    "Inception block": (Inception, 8),
    "our ResNet": (lambda: ResNet(18, num_classes=10), 64),
    "our EfficientNet": (lambda: EfficientNet(0.5, 0.5), 64),
}


@pytest.mark.parametrize("name", FX)
def test_edges_are_those_of_fx(name):
    build, side = FX[name]
    module = build()
    before = state(module)
    graph = trace(module, [2, 3, side, side])
    assert graph.complete and edges_of_trace(graph)
    assert_same_state(module, before)
    assert edges_of_trace(graph) == edges_of_fx(module, torch.zeros(2, 3, side, side))


def test_edges_of_a_generator_are_those_of_fx():
    graph = trace(Generator(), [2, 16])
    assert edges_of_trace(graph) == edges_of_fx(Generator(), torch.zeros(2, 16))
    assert graph[graph.outputs[0]].shapes_in == ((2, 3, 32, 32),) and len(graph.edges) == 13


@pytest.mark.parametrize("name", ["resnet50", "googlenet", "squeezenet", "U-Net"])
def test_counts_are_those_of_torchview(name):
    import torchview

    build, side = FX[name]
    module, shape = build().eval(), [1, 3, side, side]
    more = {
        "depth": 20,
        "device": "meta",
        "hide_inner_tensors": True,
        "hide_module_functions": True,
    }
    theirs = torchview.draw_graph(module, input_size=shape, **more)
    ours = trace(module, shape)
    assert len(ours.edges) == len(theirs.edge_list)
    assert sum(not node.group for node in ours) == len(theirs.node_set)


# ---- oracle 2: torch.export, layer to layer ---------------------------------------------------------------
def layers_of_export(module, leaves, *inputs) -> set:
    "Pairs of layers joined by a path of operations that belong to no layer."
    program = torch.export.export(module.eval(), inputs, strict=False).run_decompositions({})
    users = {
        spec.arg.name for spec in program.graph_signature.input_specs if "USER" in spec.kind.name
    }
    origin, pairs = {}, set()  # node: names of the layers, nearest on every path, that feed it
    for node in program.graph.nodes:
        stack = [path.split("@")[0] for path, _ in node.meta.get("nn_module_stack", {}).values()]
        owner = next((path for path in stack if path in leaves), None)
        if node.op == "placeholder":
            origin[node] = {"input"} if node.name in users else set()
            continue
        fed = (
            set().union(*(origin[n] for n in node.all_input_nodes))
            if node.all_input_nodes
            else set()
        )
        owner = "output" if node.op == "output" else owner
        if owner:
            pairs |= {(layer, owner) for layer in fed if layer != owner}
        origin[node] = {owner} if owner else fed
    return pairs


def layers_of_trace(graph: ModuleGraph, seen: set) -> set:
    origin, pairs = {}, set()
    for node in graph:
        if node.group:
            continue
        fed = set().union(*(origin[edge.start] for edge in graph.into(node.id)))
        path = "output" if node.kind == "output" else node.path if node.path in seen else None
        if path:
            pairs |= {(layer, path) for layer in fed if layer != path}
        origin[node.id] = {"input"} if node.kind == "input" else {path} if path else fed
    return pairs


def live(pairs: set) -> set:
    "Those from which the output is reached."
    before, todo, found = defaultdict(set), ["output"], set()
    for start, end in pairs:
        before[end].add(start)
    while todo:
        end = todo.pop()
        if end not in found:
            found.add(end)
            todo += before[end]
    return {(start, end) for start, end in pairs if end in found}


IMAGE = torch.zeros(1, 3, 64, 64)
EXPORT = {
    "convnext": (lambda: timm.create_model("convnext_atto", depths=(1, 1, 2, 1)), (IMAGE,)),
    "swin": (
        lambda: timm.create_model(
            "swin_tiny_patch4_window7_224", img_size=64, window_size=4, depths=(2, 2), num_heads=(1, 2), embed_dim=8
        ),
        (IMAGE,),
    ),
    "maxvit": (
        lambda: torchvision.models.MaxVit(
            input_size=(64, 64), stem_channels=8, partition_size=2, block_channels=[8, 16],
            block_layers=[1, 1], head_dim=8, stochastic_depth_prob=0.1,
        ),
        (IMAGE,),
    ),
    "CLIP": (CLIP, (IMAGE, torch.zeros(1, 5, dtype=torch.long))),
    "RNN": (Unrolled, (torch.zeros(2, 4, 5),)),
    "transformer": (
        lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True),
        (torch.zeros(2, 5, 8), torch.zeros(2, 4, 8)),
    ),
    "segmentation": (
        lambda: torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights_backbone=None),
        (IMAGE,),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPORT)
def test_layers_feed_those_that_they_feed_in_an_export(name):
    build, inputs = EXPORT[name]
    module = build()
    before = state(module)
    graph = trace(module, *inputs)
    assert graph.complete
    assert_same_state(module, before)
    leaves = {node.path for node in graph if node.kind == "module" and not node.group}
    exported = layers_of_export(module, leaves, *inputs)
    seen = {name for pair in exported for name in pair}
    assert len(live(exported)) >= 3
    assert live(layers_of_trace(graph, seen)) == live(exported)


# ---- invariants --------------------------------------------------------------------------------------------
def check(graph: ModuleGraph, module=None) -> None:
    "What must hold in any graph."
    loaded = json.loads(json.dumps(graph.to_dict()))
    ids = [node["id"] for node in loaded["nodes"]]
    assert len(set(ids)) == len(ids) and "" not in ids
    seen = {""}
    for node in loaded["nodes"]:
        assert node["parent"] in seen, "parents stand before children"
        seen.add(node["id"])
        assert len(node["id"]) < 1000 and len(node["label"]) <= 64 and len(node["detail"]) <= 200
        assert "/" not in node["source"].split(":")[0]
    groups = {node.id for node in graph if node.group}
    assert groups == {node.parent for node in graph} - {""}
    order = {node: i for i, node in enumerate(ids)}
    for edge in graph.edges:
        assert edge.start in order and edge.end in order and edge.start not in groups | {edge.end}
        assert edge.end not in groups
    slots = Counter((edge.end, edge.slot) for edge in graph.edges)
    assert set(slots.values()) <= {1}
    for group in ["", *groups]:  # closed groups never form a circle
        inside, level = {node.id for node in graph.children(group)}, defaultdict(set)
        for edge in graph.edges:
            pair = [edge.start, edge.end]
            for i, id in enumerate(pair):
                while id and id not in inside:
                    id = graph[id].parent
                pair[i] = id
            if all(pair) and pair[0] != pair[1]:
                level[pair[1]].add(pair[0])
        waiting, ready = set(inside), True
        while ready:
            ready = {id for id in waiting if not level[id] & waiting}
            waiting -= ready
        assert not waiting, f"circle among {sorted(waiting)[:5]}"
    if module is not None:
        for node in graph:
            if node.path:
                assert type(module.get_submodule(node.path)).__name__ == node.type
            if node.code:
                assert eval(node.code, {"model": module}) is module.get_submodule(node.path)


@pytest.mark.parametrize(
    "name,more,side",
    [
        ("maxvit_rmlp_pico_rw_256", {"img_size": 64}, 64),
        ("hrnet_w18_small", {}, 64),
        ("xcit_nano_12_p16_224", {"img_size": 64}, 64),
        ("levit_128s", {"img_size": 64}, 64),
        ("convnext_atto", {}, 64),
        ("vit_tiny_patch16_224", {"img_size": 64}, 64),
        ("dla46_c", {}, 64),
    ],
)
def test_any_graph_is_sound_and_costs_what_the_table_says(name, more, side):
    with torch.device("meta"):
        module = timm.create_model(name, **more)
    graph = trace(module, [1, 3, side, side])
    check(graph, module)
    total = stage_table(module, [1, 3, side, side]).total
    assert (graph.params, graph.macs, graph.bytes) == (
        total.parameters,
        total.macs,
        total.activation_bytes,
    )
    top = graph.children()
    assert (
        sum(node.macs for node in top) == graph.macs
        and sum(node.bytes for node in top) == graph.bytes
    )


# ---- by hand ---------------------------------------------------------------------------------------------------
def starts(graph, id):
    return [edge.start for edge in graph.into(id)]


def test_resnet18_has_eight_additions_of_two_tensors():
    graph = trace(torchvision.models.resnet18(), [1, 3, 64, 64])
    check(graph, torchvision.models.resnet18())
    adds = [node for node in graph if node.type == "add"]
    assert len(adds) == 8 and all(len(graph.into(node.id)) == 2 for node in adds)
    assert starts(graph, "layer1.0/add") == ["layer1.0.bn2", "maxpool"]
    assert starts(graph, "layer2.0/add") == ["layer2.0.bn2", "layer2.0.downsample.1"]
    assert starts(graph, "layer1.1/add") == ["layer1.1.bn2", "layer1.0.relu@2"]
    conv = graph["layer1.0.conv1"]
    assert conv.code == "model.layer1[0].conv1" and conv.role == "conv" and conv.label == "conv1"
    assert conv.shapes_in == conv.shapes_out == ((1, 64, 16, 16),) and conv.params == 36864
    assert conv.macs == 36864 * 256 and conv.source.startswith("conv.py:")
    assert (
        graph["layer1.0.relu@2"].calls == 2 and graph["layer1.0.relu@2"].shares == "layer1.0.relu"
    )
    assert graph["layer1.0"].role == "block" and graph["layer1"].role == "stage"
    assert graph["layer1.0/add"].source.startswith("resnet.py:") and graph["/flatten"].detail == "1"
    assert graph.inputs == ("input",) and graph.outputs == ("output",)
    assert starts(graph, "output") == ["fc"] and starts(graph, "conv1") == ["input"]


def test_resnet50s_equal_blocks_have_one_signature():
    with torch.device("meta"):
        graph = trace(torchvision.models.resnet50(), [1, 3, 64, 64])
    first, *others = [graph[f"layer3.{i}"].signature for i in range(6)]
    assert len(set(others)) == 1 and first != others[0]
    assert graph["layer2.1"].signature != others[0]  # another width
    assert "1 … 5  ×5" in repr(graph)


def test_signatures_know_settings_and_wires_and_forget_names_and_shapes():
    class Block(nn.Module):
        def __init__(self, kernel=3, skip=True):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, kernel, padding=kernel // 2)
            self.act, self.skip = nn.ReLU(), skip

        def forward(self, x):
            y = self.act(self.conv(x))
            return y + (x if self.skip else y)

    net = nn.Sequential(Block(), nn.MaxPool2d(2), Block(), Block(5), Block(skip=False))
    graph = trace(net, [1, 4, 8, 8])
    marks = [graph[str(i)].signature for i in (0, 2, 3, 4)]
    assert marks[0] == marks[1] and len(set(marks)) == 3


def test_stochastic_depth_does_not_hinder_folding():
    graph = trace(timm.create_model("convnext_atto", drop_path_rate=0.2), [1, 3, 64, 64])
    assert len({graph[f"stages.2.blocks.{i}"].signature for i in range(6)}) == 1


def test_unet_joins_what_it_skipped_and_its_lists_make_no_circle():
    module = UNet()
    graph = trace(module, [1, 3, 16, 16])
    check(graph, module)
    assert starts(graph, "/cat") == ["down.1.2", "up.0"] and starts(graph, "/cat#2") == [
        "down.0.2",
        "up.1",
    ]
    assert (
        "down" not in graph and graph["down.0"].parent == "" and graph["down.0"].label == "down.0"
    )
    assert starts(graph, "pool@2") == ["down.1.2"] and graph["pool"].calls == 2


def test_a_list_of_branches_is_a_group():
    graph = trace(Inception(), [1, 3, 8, 8])
    check(graph, Inception())
    assert graph["branches"].group and [n.label for n in graph.children("branches")] == [
        "0",
        "1",
        "2",
    ]
    assert graph["branches"].shapes_out == ((1, 2, 8, 8), (1, 3, 8, 8), (1, 4, 8, 8))
    assert (
        graph["branches"].shapes_in == ((1, 3, 8, 8),) and graph["branches"].params == 8 + 84 + 304
    )
    assert [edge.slot for edge in graph.into("/cat")] == [0, 1, 2]


def test_shared_weights_are_counted_once_and_named():
    graph = trace(TiedAutoencoder(), [2, 8])
    check(graph)
    assert graph.params == 8 * 3 + 3 + 8
    assert graph["/t"].shares == "encoder" and graph["/t"].detail == "encoder.weight"
    assert starts(graph, "/linear") == ["/relu", "/t"] and graph["/linear"].params == 8
    tied = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    tied[1].weight = tied[0].weight
    graph = trace(tied, [1, 4])
    assert (
        graph["1"].shares == "0"
        and graph["0"].shares == ""
        and graph.params == graph["1"].params == 16
    )


def test_a_cell_in_a_loop_runs_as_often_as_it_runs():
    graph = trace(Unrolled(), [2, 4, 5])
    check(graph, Unrolled())
    assert starts(graph, "cell@3") == ["/getitem#3", "cell@2"] and graph["cell"].calls == 4
    assert starts(graph, "cell") == ["/getitem", "/new_zeros"] and graph["cell@3"].shares == "cell"
    assert (
        graph["cell@4"].params == graph["cell"].params and graph.params == graph["cell"].params + 16
    )


def test_dictionaries_give_an_output_each():
    module = torchvision.models.segmentation.fcn_resnet50(weights_backbone=None, aux_loss=True)
    graph = trace(module, [1, 3, 32, 32])
    check(graph, module)
    assert graph.outputs == ("output:out", "output:aux")
    assert starts(graph, "output:aux") == ["/interpolate#2"] and graph["/interpolate"].uncounted
    graph = trace(CLIP(), [2, 3, 64, 64], torch.zeros(2, 5, dtype=torch.long))
    check(graph)
    assert graph.inputs == ("input:image", "input:text") and graph.outputs == (
        "output:image",
        "output:text",
    )
    assert starts(graph, "/add") == ["token"] and graph["/add"].detail == "position"
    assert graph["/add"].params == 80
    by_name = trace(CLIP(), text=torch.zeros(2, 5, dtype=torch.long), image=[2, 3, 64, 64])
    assert set(by_name.inputs) == set(graph.inputs) and len(by_name.edges) == len(graph.edges)


def test_detection_stops_where_values_decide_and_keeps_what_ran():
    with torch.device("meta"):
        module = torchvision.models.detection.retinanet_resnet50_fpn(weights_backbone=None)
    graph = trace(module, [[3, 64, 64]])
    check(graph)
    assert not graph.complete and "depends on the values" in graph.error and graph.outputs == ()
    assert graph["backbone"].shapes_out and graph["head"].shapes_out and "stopped: " in repr(graph)
    assert graph.to_dict()["error"] == graph.error


def test_with_numbers_a_detector_runs_to_its_end():
    module = torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights_backbone=None
    ).eval()
    before, dice = state(module), torch.get_rng_state()
    graph = trace(module, [1, 3, 320, 320], real=True)
    check(graph)
    assert torch.equal(dice, torch.get_rng_state())
    assert_same_state(module, before)
    assert (
        graph.complete
        and len(graph.outputs) == 3
        and any("numbers" in note for note in graph.notes)
    )


def test_with_numbers_tensors_go_where_they_were_given_and_stay_as_they_are():
    @dataclass
    class Batch:
        mask: torch.Tensor

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, batch, x, more, scale=1):
            if not batch.mask.any():
                raise ValueError("no mask")
            return self.layer(x.add_(1)) * batch.mask * scale + more["add"].sum()

    mask, x, add = torch.ones(2, 1), torch.zeros(2, 4), torch.ones(3)
    graph = trace(Masked(), Batch(mask), x, {"add": add}, scale=2, real=True)
    assert graph.complete and graph["layer"].shapes_in == ((2, 4),)
    assert not x.any()

    class NoInput(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, number=2):
            return self.layer(torch.ones(number, 4))

    assert trace(NoInput(), real=True)["layer"].shapes_out == ((2, 4),)
    assert trace(NoInput(), 3, real=True)["layer"].shapes_out == ((3, 4),)


def test_a_second_try_starts_from_a_clean_module():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.last = nn.Linear(4, 4), None

        def forward(self, x):
            if self.last is not None:
                raise RuntimeError("ran before")
            self.last = self.layer(x)
            self.layer.weight.add_(1)  # only without gradients
            return self.last

    for real in (False, True):
        graph = trace(InPlace(), [2, 4], real=real)
        assert graph.complete, graph.error
        assert any(note.startswith("bytes are not known") for note in graph.notes)


def test_wrong_inputs_say_where_they_stop():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(9, 2))
    graph = trace(net, [1, 4])
    assert not graph.complete and "layer '2'" in graph.error
    assert graph["1"].shapes_out == ((1, 8),) and graph["2"].shapes_out == ()
    with pytest.raises(ValueError, match="gives no shape"):
        trace(net, [1, 5])
    with pytest.raises(TypeError, match="expected a torch.nn.Module"):
        trace(3, [1, 5])


class Tiny(nn.Module):
    "`forward` is given; two layers to call."

    def __init__(self, run, **parts):
        super().__init__()
        self.a, self.b, self.same = nn.Linear(4, 4), nn.Linear(4, 4), nn.Identity()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args, **kwargs):
        return self.run(self, *args, **kwargs)


def edges(run, *inputs, **parts):
    graph = trace(Tiny(run, **parts), *inputs or ([2, 4],))
    check(graph)
    return {(edge.start, edge.end) for edge in graph.edges}


def test_a_layer_that_gives_its_input_back_is_on_one_way_only():
    found = edges(lambda m, x: m.a(m.same(x)) + x)
    assert found == {
        ("input", "same"),
        ("same", "a"),
        ("a", "/add"),
        ("input", "/add"),
        ("/add", "output"),
    }


def test_changes_in_place_have_a_new_maker():
    def run(m, x):
        y = m.a(x)
        y[:, :2] = m.b(x)[:, :2]
        return y

    assert {("a", "/setitem"), ("/getitem", "/setitem"), ("/setitem", "output")} <= edges(run)

    def through_a_view(m, x):
        y = m.a(x)
        y[:, :2].add_(1)
        return y

    assert ("/add", "output") in edges(through_a_view) and ("a", "output") not in edges(
        through_a_view
    )

    def inplace_relu(m, x):
        y = m.a(x)
        return m.act(y) + y

    assert edges(inplace_relu, act=nn.ReLU(True)) == {
        ("input", "a"), ("a", "act"), ("act", "/add"), ("/add", "output")
    }  # fmt: skip


def test_chunks_do_not_touch_each_other():
    def run(m, x):
        left, right = m.a(x).chunk(2, 1)
        left.mul_(2)
        return left, right

    found = edges(run)
    assert ("/mul", "output:0") in found and ("/chunk", "output:1") in found


def test_tuples_dictionaries_and_dataclasses_carry_tensors():
    @dataclass
    class Pair:
        one: torch.Tensor
        two: torch.Tensor

    class Gives(nn.Module):
        def forward(self, x):
            return Pair(x + 1, {"deep": x * 2}["deep"])

    class Takes(nn.Module):
        def forward(self, pair):
            return pair.one - pair.two

    found = edges(lambda m, x: m.takes(m.gives(x)), gives=Gives(), takes=Takes())
    assert found == {("input", "gives"), ("gives", "takes"), ("takes", "output")}
    assert (
        len(
            trace(
                Tiny(lambda m, x: m.takes(m.gives(x)), gives=Gives(), takes=Takes()), [2, 4]
            ).into("takes")
        )
        == 2
    )


def test_tensors_made_inside_are_sources():
    graph = trace(Tiny(lambda m, x: m.a(x) + torch.arange(4) + m.b.bias), [2, 4])
    assert starts(graph, "/add") == ["a", "/arange"] and starts(graph, "/arange") == []
    assert graph["/add#2"].detail == "b.bias" and not graph.unused == ()
    assert [part["path"] for part in graph.unused] == ["same"]  # b is not called, its bias is used


def test_unused_modules_are_listed_at_their_highest():
    aux = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    graph = trace(Tiny(lambda m, x: m.a(x), aux=aux), [2, 4])
    assert [(part["path"], part["params"]) for part in graph.unused] == [
        ("b", 20),
        ("same", 0),
        ("aux", 20),
    ]
    assert "not called: b, same, aux" in repr(graph)
    attention = nn.MultiheadAttention(4, 2, batch_first=True)
    graph = trace(Tiny(lambda m, x: m.mha(x, x, x)[0], mha=attention), [2, 3, 4])
    assert [part["path"] for part in graph.unused] == ["a", "b", "same"]
    assert [edge.slot for edge in graph.into("mha")] == [0, 1, 2]


def test_checkpoints_and_own_autograd_functions_are_followed():
    for reentrant in (True, False):
        found = edges(lambda m, x, r=reentrant: m.b(checkpoint(m.a, x, use_reentrant=r)) + x)
        assert {("input", "a"), ("a", "b"), ("b", "/add"), ("input", "/add")} <= found

    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, gradient):
            return gradient * 2

    assert {("a", "/mul"), ("/mul", "b")} <= edges(lambda m, x: m.b(Twice.apply(m.a(x))))


def test_vmap_and_functional_calls_are_followed():
    found = edges(lambda m, x: m.b(torch.vmap(lambda row: row * 2)(m.a(x))))
    assert found == {("input", "a"), ("a", "/mul"), ("/mul", "b"), ("b", "output")}
    assert {("input", "a"), ("a", "output")} == edges(lambda m, x: torch.vmap(m.a)(x))
    weights = {name: torch.zeros(shape) for name, shape in (("weight", (4, 4)), ("bias", 4))}
    found = edges(lambda m, x: torch.func.functional_call(m.a, weights, (x,)))
    assert {("input", "a"), ("a", "output")} == found


def test_an_error_that_the_model_catches_ends_that_layer_only():
    def run(m, x):
        try:
            m.b(x[:, :3])
        except RuntimeError:
            return m.a(x) + 1

    assert {("input", "a"), ("a", "/add"), ("/add", "output")} <= edges(run)


def test_a_detour_over_numpy_is_mentioned():
    def run(m, x):
        return m.b(torch.from_numpy(m.a(x).detach().numpy()))

    assert not trace(Tiny(run), [2, 4]).complete
    graph = trace(Tiny(run), [2, 4], real=True)
    assert graph.into("b") == () and any("leaves torch" in note for note in graph.notes)


def test_compiled_packed_and_empty_modules_pass():
    inner = torch.compile(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    graph = trace(nn.Sequential(nn.Linear(4, 4), inner), [2, 4])
    check(graph)
    assert starts(graph, "1._orig_mod.0") == ["0"]
    pack = nn.utils.rnn.pack_padded_sequence
    lstm = nn.LSTM(4, 4, batch_first=True)
    found = edges(
        lambda m, x: m.rnn(pack(m.a(x), [3, 2], batch_first=True))[0].data, [2, 3, 4], rnn=lstm
    )
    assert {
        ("a", "/pack_padded_sequence"),
        ("/pack_padded_sequence", "rnn"),
        ("rnn", "output"),
    } <= found
    assert [(e.start, e.end) for e in trace(nn.Sequential(), [1, 2]).edges] == [("input", "output")]
    assert trace(Tiny(lambda m, x: None if m.a(x) is None else 3), [2, 4]).outputs == ()


def test_scripted_functions_show_their_operations():
    scripted = torch.jit.script(lambda_free)
    found = edges(lambda m, x: m.b(scripted(m.a(x))))
    assert {("a", "/relu"), ("/relu", "/add"), ("/add", "b")} <= found


def lambda_free(x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x) + 1


def test_hooks_of_the_live_module_do_not_run_and_are_mentioned():
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval()
    calls = []
    module[0].register_forward_hook(lambda *_: calls.append(1))
    graph = trace(module, [2, 4])
    assert not calls and len(module[0]._forward_hooks) == 1
    assert graph.notes == ("forward hooks of the module that did not run: 1",)
    assert (
        trace(module.train(), [2, 4]).notes[0].startswith("traced in eval mode") and module.training
    )


def test_classes_may_be_asked_to_be_leaves():
    block = torchvision.models.resnet.BasicBlock
    graph = trace(torchvision.models.resnet18(), [1, 3, 32, 32], leaves=(block,))
    assert not graph["layer1.0"].group and starts(graph, "layer1.1") == ["layer1.0"]
    assert graph.macs == stage_table(torchvision.models.resnet18(), [1, 3, 32, 32]).total.macs
    assert graph.unused == ()


def test_recursion_and_a_module_called_by_a_stranger():
    class Again(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x, depth=2):
            return self.layer(x) if depth == 0 else self(self.layer(x), depth - 1)

    graph = trace(Again(), [1, 4])
    check(graph)
    assert [n.id for n in graph if n.type == "Linear"] == ["layer", "layer@2", "layer@3"]

    class Stranger(nn.Module):
        def __init__(self, others):
            super().__init__()
            self.own = nn.Linear(4, 4)
            self.others = [others]

        def forward(self, x):
            return self.own(self.others[0](x))

    net = nn.Sequential(nn.Sequential(nn.Linear(4, 4)))
    net.append(Stranger(net[0][0]))
    graph = trace(net, [1, 4])
    check(graph, net)
    assert graph["0.0@2"].parent == "1" and graph["0.0@2"].label == "0.0"
    assert starts(graph, "1.own") == ["0.0@2"]


def test_a_long_forward_is_divided_by_the_functions_that_it_calls():
    module = torchvision.models.optical_flow.raft_small().eval()
    graph = trace(module, [1, 3, 128, 128], [1, 3, 128, 128], 3)
    check(graph, module)
    calls = [node for node in graph if node.kind == "function"]
    assert (
        len(graph.children()) <= 60
        and graph.macs == stage_table(module, [1, 3, 128, 128], [1, 3, 128, 128], 3).total.macs
    )
    raft, helpers = sys.modules[type(module).__module__], torchvision.models.optical_flow._utils
    for name, times in {"build_pyramid": 1, "index_pyramid": 3, "make_coords_grid": 2}.items():
        code = getattr(raft.CorrBlock, name, None) or getattr(helpers, name)
        lines, first = inspect.getsourcelines(code)
        mine = [node for node in calls if node.label == name]
        assert len(mine) == times and len({node.signature for node in mine}) == 1
        for call in mine:
            file, line = call.source.split(":")
            assert file in code.__code__.co_filename and first <= int(line) < first + len(lines)
            for node in graph.children(call.id):  # what stands in the function itself
                if node.kind == "op" and node.source.startswith(file):
                    assert first <= int(node.source.split(":")[1]) < first + len(lines)
    assert "index_pyramid" in repr(graph) and len(graph.children("/index_pyramid")) < 60


def test_a_function_that_runs_modules_is_no_group():
    def only_sums(x):
        return (x + 1) * 2 - (lambda y: y / 3)(x)

    def with_layer(x, layer):
        x = (x + 1) * 2
        return (layer(x) - 1) / 2

    def fails(x):
        return (x + 1).reshape(7, 7)

    class Long(nn.Module):
        def __init__(self, wrong=False):
            super().__init__()
            self.layer, self.wrong = nn.Linear(4, 4), wrong

        def forward(self, x):
            for _ in range(15):
                x = with_layer(only_sums(x), self.layer)
            return fails(x) if self.wrong else x

    graph = trace(Long(), [2, 4])
    check(graph, Long())
    assert [node.label for node in graph.children()][1:6] == [
        "only_sums",
        "add",
        "mul",
        "layer",
        "sub",
    ]
    assert {node.label for node in graph if node.kind == "function"} == {"only_sums"}
    assert {len(graph.children(n.id)) for n in graph if n.kind == "function"} == {4}
    assert starts(graph, "/only_sums/sub") == ["/only_sums/mul", "/only_sums/div"]
    stopped = trace(Long(wrong=True), [2, 4])
    check(stopped)
    assert not stopped.complete and stopped["/fails/reshape"].shapes_out == ()


def wrapped(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


def plain_sums(x):
    return (x + 1) * 2


decorated_sums, amp_sums = wrapped(plain_sums), torch.autocast("cpu")(plain_sums)


class SumsOfAutograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return (x + 1) * 2

    @staticmethod
    def backward(ctx, slope):
        return 2 * slope


def test_a_group_has_the_name_of_the_function_not_of_what_is_around_it():
    def by_checkpoint(x):
        return torch.utils.checkpoint.checkpoint(plain_sums, x, use_reentrant=False)

    kinds = [decorated_sums, amp_sums, by_checkpoint, SumsOfAutograd.apply]

    class Long(nn.Module):
        def forward(self, x):
            for _ in range(6):
                for function in kinds:
                    x = function(x)
            return x

    graph = trace(Long(), [2, 4])
    check(graph)
    calls = [node for node in graph.children() if node.kind == "function"]
    assert [node.label for node in calls] == [*["plain_sums"] * 3, "SumsOfAutograd"] * 6
    assert all(len(graph.children(node.id)) == 2 and node.role == "block" for node in calls)


def test_a_list_is_opened_when_a_closed_part_leads_back_into_it():
    class Mix(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x, y):
            return self.left(x), self.right(y)

    class Woven(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.mix = nn.ModuleList(nn.Linear(4, 4) for _ in range(2)), Mix()

        def forward(self, x):
            out, other = self.mix(self.layers[0](x), x)
            return out + self.layers[1](other)

    graph = trace(Woven(), [2, 4])
    check(graph, Woven())
    assert [n.id for n in graph.children()][1:4] == ["layers.0", "mix", "layers.1"]

    def step(x, y):
        return x * 2 + 1, y + 1

    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(15))

        def forward(self, x):
            total = 0
            for layer in self.layers:
                out, x = step(layer(x), x)
                total = total + out
            return total

    graph = trace(Steps(), [2, 4])
    check(graph, Steps())
    assert [n.label for n in graph.children()][1:4] == ["layers.0", "step", "add"]


def test_a_long_list_stays_one_group():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(45))

        def forward(self, x):
            return run(self.layers, x)

    def run(layers, x):
        for layer in layers:
            x = layer(x)
        return x

    graph = trace(Deep(), [2, 4])
    check(graph, Deep())
    assert [n.id for n in graph.children()] == ["input", "layers", "output"]
    assert len(graph.children("layers")) == 45


def test_the_text_opens_as_far_as_it_stays_readable():
    graph = trace(nn.Sequential(nn.Sequential(nn.Sequential(nn.Linear(3, 3)))), [1, 3])
    assert repr(graph) == graph.text(3) == graph.text() != graph.text(2)
    nodes = [Node("f", "", "function", "f", "block", "f", group=True)]
    nodes += [Node("f/g", "f", "function", "g", "block", "g", group=True)]
    nodes += [Node("f/g/h", "f/g", "function", "h", "block", "h", group=True)]
    nodes += [Node("f/g/h/add", "f/g/h", "op", "add", "merge", "add")]
    assert "add" in repr(ModuleGraph("Functions", (), (), tuple(nodes), ()))
    assert repr(ModuleGraph("Nothing", (), (), (), ())).startswith("Nothing")


def test_names_are_data():
    image = "<img src=x onerror=alert(1)>"
    net = nn.Sequential()
    net.add_module(image, nn.Linear(3, 3))
    for end in "ab":
        net.add_module("n" * 10**6 + end, nn.Sequential(nn.Linear(3, 3)))
    net.add_module("/add", nn.ReLU())
    net.add_module("input", nn.ReLU())
    net.add_module("a\nb\x1b[2J", nn.ReLU())
    net.add_module("in", nn.ReLU())  # no name for `model.in`
    graph = trace(net, [1, 3])
    check(graph, net)
    assert graph[image].label == image and eval(graph[image].code, {"model": net}) is net[0]
    assert len(json.dumps(graph.to_dict())) < 20_000 and len(repr(graph)) < 3_000
    assert "\x1b" not in repr(graph) and len(graph.edges) == 8


def test_our_algorithm_shows_both_views():
    backbone = ResNet("basic", [1, 1], 0, channels=(8, 16), stem_type="small")
    module = SimCLR(backbone)
    before = state(module)
    shapes = [[4, 3, 16, 16], [4, 3, 16, 16]]
    graph = trace(module, shapes, mode="loss")
    check(graph)
    assert_same_state(module, before)
    assert graph.complete and graph.inputs == ("input:batch_inputs.0", "input:batch_inputs.1")
    assert graph.outputs[0] == "output:loss" and graph["backbone"].group
    assert {edge.end for id in graph.inputs for edge in graph.out_of(id)} == {"/cat"}


def test_eight_threads_get_one_answer_while_the_module_trains():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(True), nn.Flatten(), nn.Linear(144, 2))
    alone = trace(module, [2, 3, 8, 8]).to_dict()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(trace, module, [2, 3, 8, 8]) for _ in range(24)]
        for _ in range(10):
            module(torch.randn(4, 3, 8, 8)).square().mean().backward()
            optimizer.step()
        assert all(one.result().to_dict() == alone for one in asked)
    assert module.training and not any(p.is_meta for p in module.parameters())
    assert all(not part._forward_hooks and not part._forward_pre_hooks for part in module.modules())


@pytest.mark.timed
def test_time_of_large_networks():
    with torch.device("meta"):
        net = torchvision.models.resnet152()
        deep = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [12, 48, 120, 14])
    for module, limit in ((net, 0.5), (deep, 2.0)):
        begin = time.thread_time()
        graph = trace(module, [1, 3, 224, 224])
        assert time.thread_time() - begin < 3 * limit and graph.complete


def test_values_of_the_graph_are_frozen_and_found_by_name():
    graph = ModuleGraph("Toy", (), (), (Node("a.b", "", "module", "ReLU", "activation", "b"),), ())
    assert graph["a.b"].label == "b" and "a" not in graph and list(graph) == [graph["a.b"]]
    with pytest.raises(KeyError, match="near it: a.b"):
        graph["b"]
    with pytest.raises(AttributeError):
        graph["a.b"].label = "c"
    assert Edge("a", "b", (1,), 0).to_dict() == {"from": "a", "to": "b", "shape": [1], "slot": 0}
