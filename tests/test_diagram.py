"""The architecture diagram without a browser: what is sent, what can be selected, what a page contains."""

import json
import re
import time

import numpy as np
import pytest
import torch
import traitlets
from torch import nn

from nenya_nb.introspect.trace import trace
from nenya_nb.widgets import base
from nenya_nb.widgets.base import script_json
from nenya_nb.widgets.diagram import (
    ArchitectureDiagram,
    _first_look,
    first_groups,
    pack_graph,
)

EVIL = "<img src=x onerror=alert(1)>"
BREAKOUT = "</script><script>alert(1)</script>"


class Block(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)

    def forward(self, x):
        return torch.relu(x + self.norm(self.conv(x)))


class Net(nn.Module):
    def __init__(self, blocks=4):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.stage = nn.Sequential(*[Block() for _ in range(blocks)])
        self.fc, self.aux = nn.Linear(8, 5), nn.Linear(8, 2)

    def forward(self, x):
        x = self.stage(self.stem(x))
        return self.fc(x.mean((2, 3)))


SHAPE = [2, 3, 16, 16]


@pytest.fixture(autouse=True)
def bundles(monkeypatch):
    monkeypatch.setattr(base, "read_bundle", lambda name: f"/* {name} */")


@pytest.fixture(scope="module")
def graph():
    return trace(Net(), SHAPE)


def unpack(packed):
    "The front end's `unpackGraph`, again in Python."
    words, shapes, nodes = packed["words"], packed["shapes"], []
    columns = {}
    for name, text in packed["columns"].items():
        lists = [[int(i) for i in part.split(",") if i] for part in text.split(" ")]
        columns[name] = lists if name.startswith("shapes") else [i for (i,) in lists]
    for i, parent in enumerate(columns["parent"]):
        above = nodes[parent] if parent >= 0 else {"id": "", "code": ""}
        node = {"parent": above["id"]}
        for name in ("kind", "type", "role", "label", "signature", "detail", "doc", "source"):
            node[name] = words[columns[name][i]]
        for name in ("id", "code"):
            text = words[columns[name][i]]
            node[name] = above[name] + text[1:] if text[0] == "+" else text[1:]
        for name in ("params", "macs", "bytes"):
            node[name] = columns[name][i]
        for name in ("shapes_in", "shapes_out"):
            node[name] = [shapes[at] for at in columns[name][i]]
        node["calls"] = 1
        node["path"] = re.sub(r"@\d+", "", node["id"]) if node["kind"] == "module" else ""
        nodes.append(node | packed["more"].get(str(i), {}))
    edges = [
        {"from": nodes[a]["id"], "to": nodes[b]["id"], "shape": shapes[s], "slot": slot}
        for a, b, s, slot in np.reshape([int(i) for i in packed["edges"].split()], (-1, 4)).tolist()
    ]
    return nodes, edges


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_pack_graph_keeps_every_node_and_edge(graph):
    packed = json.loads(json.dumps(pack_graph(graph)))
    nodes, edges = unpack(packed)
    plain = graph.to_dict()
    assert [{k: v for k, v in node.items() if k != "group"} for node in plain["nodes"]] == nodes
    assert edges == plain["edges"]
    assert packed["totals"] == plain["totals"] and packed["unused"] == plain["unused"]


def test_pack_graph_of_shared_and_repeated_layers():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.b = nn.Linear(4, 4)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(self.a(x)))

    graph = trace(Twice(), [2, 4])
    nodes, _ = unpack(json.loads(json.dumps(pack_graph(graph))))
    assert [n for n in graph.to_dict()["nodes"] if n["calls"] > 1]
    for node, plain in zip(nodes, graph.to_dict()["nodes"], strict=True):
        assert node == {k: v for k, v in plain.items() if k != "group"}


def test_pack_graph_is_much_smaller_than_json(graph):
    assert len(json.dumps(pack_graph(trace(Net(20), SHAPE)))) < 0.25 * len(
        json.dumps(trace(Net(20), SHAPE).to_dict())
    )


# --- the first look ---------------------------------------------------------------------------------------------------


def test_first_groups_open_what_does_most_of_the_work(graph):
    assert first_groups(graph) == ["stage"]
    assert first_groups(trace(nn.Sequential(Net()), SHAPE)) == ["0", "0.stage"]
    assert first_groups(trace(nn.Linear(4, 4), [2, 4])) == []
    assert first_groups(graph, most=3) == []


def test_first_look_folds_equal_blocks_and_lifts_edges(graph):
    rows, links = _first_look(graph, ["stage"])
    assert [len(row) for row in rows if len(row) > 1] == [4]
    assert all(a != b for a, b, _ in links)
    pairs = {(a, b) for a, b, _ in links}
    assert {(i, i + 1) for i in range(len(rows) - 1)} <= pairs


def test_figure_draws_one_or_two_networks(graph):
    figure = ArchitectureDiagram(graph).figure()
    assert len(figure.axes) == 1
    both = ArchitectureDiagram.compare(graph, trace(Net(2), SHAPE), titles=("a", "b")).figure()
    assert [ax.get_title() for ax in both.axes] == ["a", "b"]


# --- traits -----------------------------------------------------------------------------------------------------------


def test_selection_is_checked_and_gives_the_module():
    net = Net()
    diagram = ArchitectureDiagram(net, SHAPE)
    assert diagram.node is None and diagram.module is None
    diagram.selected = "stage.2.conv"
    assert diagram.module is net.stage[2].conv and diagram.node.type == "Conv2d"
    diagram.selected = "stage.0×4"
    assert diagram.module is net.stage[0]
    diagram.selected = next(node.id for node in diagram.graphs[0] if node.kind == "op")
    assert diagram.module is None and diagram.node.kind == "op"
    with pytest.raises(traitlets.TraitError, match=r"stage\.2\.conv"):
        diagram.selected = "stage.2.convv"
    assert ArchitectureDiagram(diagram.graphs[0], selected="fc").module is None
    wrapped = ArchitectureDiagram(nn.DataParallel(net), SHAPE, selected="stage.2.conv")
    assert wrapped.module is net.stage[2].conv


def test_expanded_starts_at_the_first_look_and_can_be_chosen(graph):
    assert ArchitectureDiagram(graph).expanded == ["stage"]
    assert ArchitectureDiagram(graph, expanded=[]).expanded == []


def test_what_is_open_is_checked(graph):
    with pytest.raises(traitlets.TraitError, match="node 'nonsense'"):
        ArchitectureDiagram(graph, expanded=["nonsense"])
    diagram = ArchitectureDiagram(graph)
    with pytest.raises(traitlets.TraitError, match="'fc' has no parts"):
        diagram.expanded = ["fc"]
    with pytest.raises(traitlets.TraitError, match="Unknown node") as error:
        diagram.expanded = ["x" * 1_000_000]
    assert len(str(error.value)) < 1000
    diagram.expanded = ["stage", "stage.0×4"]  # as the page says it of a fold
    layers = ArchitectureDiagram(nn.Sequential(*[nn.Linear(4, 4) for _ in range(3)]), [1, 4])
    layers.expanded = ["0×3"]  # a fold of parts that have no parts
    with pytest.raises(traitlets.TraitError, match="'0' has no parts"):
        layers.expanded = ["0"]
    pair = ArchitectureDiagram.compare(graph, graph)
    with pytest.raises(traitlets.TraitError, match="node 'nonsense'"):
        pair.expanded_other = ["nonsense"]


def test_where_values_decide_a_real_run_is_advised_and_drawn():
    class Chooses(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            x = self.first(x)
            return self.last(x) if x.abs().sum() >= 0 else x

    stopped = ArchitectureDiagram(Chooses(), [2, 4])
    assert "trace(net, tensor, real=True)" in stopped.graphs[0].error
    whole = ArchitectureDiagram(Chooses(), [2, 4], real=True)
    assert whole.graphs[0].complete and whole.graphs[0]["last"].shapes_out == ((2, 4),)
    pair = ArchitectureDiagram.compare(Chooses(), Chooses(), [2, 4], real=True)
    assert all(graph.complete for graph in pair.graphs)


def test_a_shape_is_asked_for():
    with pytest.raises(ValueError, match=r"ArchitectureDiagram\(model, \[1, 3, 224, 224\]\)"):
        ArchitectureDiagram(Net())


def test_the_module_is_not_touched():
    net = Net().train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    ArchitectureDiagram(net, SHAPE)
    assert net.training and not any(m._forward_hooks for m in net.modules())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_compare_holds_two_networks(graph):
    both = ArchitectureDiagram.compare(Net(), Net(2), SHAPE, titles=("four", "two"))
    assert both.titles == ["four", "two"] and len(both.graphs) == 2
    assert both.graph["totals"]["params"] > both.other["totals"]["params"]
    both.selected_other = "stage.1"
    with pytest.raises(traitlets.TraitError):
        both.selected_other = "stage.3"
    assert "four" not in repr(both) and repr(both).count("Net") >= 2
    chosen = dict(selected_other="stage.3", expanded_other=["stage", "stage.3"], expanded=[])
    other = ArchitectureDiagram.compare(Net(2), Net(), SHAPE, **chosen)
    assert {name: getattr(other, name) for name in chosen} == chosen
    assert set(both.page_state()) >= {"graph", "other", "selected_other", "titles"}


def test_repr_is_the_text_tree(graph):
    assert repr(ArchitectureDiagram(graph)) == repr(graph)


# --- pages and strange names ------------------------------------------------------------------------------------------


def test_to_html_is_self_contained(graph, tmp_path):
    diagram = ArchitectureDiagram(graph, selected="fc")
    text = diagram.to_html(tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search("https?://", text)
    record = json.loads(re.search(r'id="nnb-record">(.*?)</script>', text, re.S)[1])
    wanted = {"graph", "other", "titles", "selected", "expanded", "height"}
    assert set(record["state"]) == wanted | {"selected_other", "expanded_other"}
    assert record["state"]["selected"] == "fc"


@pytest.mark.parametrize("name", [EVIL, BREAKOUT, "x" * 1_000_000, "a\u2028b\x00c", "名前 …"])
def test_strange_names_do_no_harm(name, tmp_path):
    net = nn.Sequential()
    net.add_module(name, nn.Linear(4, 4))
    start = time.perf_counter()
    diagram = ArchitectureDiagram(net, [2, 4])
    text = diagram.to_html(title=name)
    assert text.count("</script>") == 2 and "<img" not in text
    assert len(script_json(diagram.page_state())) < 5_000_000
    assert len(repr(diagram)) < 20_000
    still = diagram._fallback()
    assert "<img src=x" not in still
    assert time.perf_counter() - start < 10


def test_still_mode_has_a_picture_and_the_tree(monkeypatch, graph):
    monkeypatch.setattr(base, "display_mode", lambda: "still")
    data, _ = ArchitectureDiagram(graph)._repr_mimebundle_()
    assert data["image/png"].startswith(b"\x89PNG") and data["text/plain"] == repr(graph)


def test_real_page_of_resnet50_is_small_and_has_no_address(monkeypatch):
    monkeypatch.undo()
    import torchvision

    try:
        text = ArchitectureDiagram(torchvision.models.resnet50(), [1, 3, 224, 224]).to_html()
        bundle = base.read_bundle("diagram.js")
    except FileNotFoundError:
        pytest.skip("the bundles are not built")
    assert len(text.encode()) <= 150_000
    assert len(bundle) <= 120 * 1024
    assert set(re.findall(r"https?://[^\s\"'<>)\\]*", text)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\binnerHTML\b|\binsertAdjacentHTML\b|\beval\(", text)
