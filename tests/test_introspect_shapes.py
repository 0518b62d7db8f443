"""Skeletons, output shapes and stage tables: right for any module, and the live module stays as it was."""

import copy
import gc
import json
import math
import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.flop_counter import FlopCounterMode

from nenya_nb.introspect import on_skeleton, output_shape, skeleton, stage_table
from nenya_nb.introspect.shapes import measure_stages
from nenya_nb.introspect.skeletons import _ENTRIES, _entry, shapes_in
from nenya_nb.models.backbones.efficientnet import EfficientNet
from nenya_nb.models.backbones.resnet import ResNet


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def state(module) -> dict:
    "Everything a question must not move."
    tensors = {key: value.clone() for key, value in module.state_dict().items()}
    return tensors | {f"training of {name}": m.training for name, m in module.named_modules()}


def assert_same_state(module, before) -> None:
    after = state(module)
    assert after.keys() == before.keys()
    for key, value in after.items():
        same = torch.equal(value, before[key]) if torch.is_tensor(value) else value == before[key]
        assert same, key
    assert not any(p.is_meta for p in module.parameters())
    assert all(p.grad is None for p in module.parameters())


# ---- architectures ---------------------------------------------------------------------------------
TIMM = {
    "resnet10t": {},
    "vit_tiny_patch16_224": {"img_size": 64},
    "convnext_atto": {},
    "tf_efficientnetv2_b0": {},
    "xcit_nano_12_p16_224": {"img_size": 64},
    "mobilenetv3_small_050": {},
    "mixer_s32_224": {"img_size": 64},
    "pvt_v2_b0": {},
    "levit_128s": {"img_size": 64},
    "dla46_c": {},
    "swin_tiny_patch4_window7_224": {"img_size": 64, "window_size": 4},
}
TORCHVISION = ["regnet_y_400mf", "shufflenet_v2_x0_5", "squeezenet1_1", "densenet121", "googlenet"]
SEGMENTATION = ["lraspp_mobilenet_v3_large"]


def architecture(name) -> nn.Module:
    if name in TIMM:
        return timm.create_model(name, **TIMM[name])
    more = {"init_weights": False} if name == "googlenet" else {}
    more |= {"weights_backbone": None} if name in SEGMENTATION else {}
    return torchvision.models.get_model(name, weights=None, **more)


def real_shapes(module, x) -> tuple:
    "Output and children's outputs of a real run on a copy."
    module, found = copy.deepcopy(module).eval(), {}

    def keep(name):
        return lambda part, args, output: found.__setitem__(name, shapes_in(output))

    for name, child in module.named_children():
        child.register_forward_hook(keep(name))
    with torch.no_grad():
        return shapes_in(module(x)), found


@pytest.mark.parametrize("name", [*TIMM, *TORCHVISION, *SEGMENTATION])
def test_any_architecture_has_the_shapes_of_a_real_run(name):
    module = architecture(name)
    assert module.training
    before = state(module)
    x = torch.zeros(2, 3, 64, 64)
    output, children = real_shapes(module, x)
    assert output_shape(module, [2, 3, 64, 64]) == output_shape(module, x) == output
    table = stage_table(module, [2, 3, 64, 64])
    assert table.output == output
    assert {row.name: row.shape for row in table if row.name in children} == children
    assert table.total.parameters == sum(p.numel() for p in module.parameters())
    assert table.total.macs > 0 and table.total.activation_bytes > 0
    assert_same_state(module, before)
    assert _entry(module).fake is None  # the meta device was enough


def test_features_only_gives_a_list_of_maps():
    module = timm.create_model("resnet10t", features_only=True)
    sides = [32, 16, 8, 4, 2]
    assert [shape[2] for shape in output_shape(module, [1, 3, 64, 64])] == sides


# ---- our own families: closed form -------------------------------------------------------------------
FAMILIES = {
    "resnet basic": lambda: ResNet(
        "basic", [1, 1, 1, 1], 5, channels=(8, 16, 24, 32), stem_width=8
    ),
    "resnet bottleneck": lambda: ResNet(
        "bottleneck", [1, 1, 1, 1], 0, channels=(8, 8, 8, 8), stem_width=8
    ),
    "resnet small stem": lambda: ResNet("basic", [1, 1], 5, channels=(8, 16), stem_type="small"),
    "resnet maps": lambda: ResNet(
        "basic", [1, 1, 1, 1], channels=(8, 8, 8, 8), stem_width=8, out_indices=(0, 2, 4)
    ),
    "efficientnet": lambda: EfficientNet(0.25, 0.5, num_classes=5),
    "efficientnet pooled": lambda: EfficientNet(0.25, 0.5, num_classes=0, global_pool="avg"),
}
GRID = [(b, h, w) for b in (0, 1, 2) for h, w in [(1, 1), (2, 5), (7, 31), (33, 32), (64, 3)]]


@pytest.mark.parametrize("family", FAMILIES)
def test_closed_form_equals_skeleton_and_real_run_over_a_grid(family):
    module = FAMILIES[family]()
    real = copy.deepcopy(module).eval()
    before = state(module)
    for batch, height, width in GRID:
        shape = [batch, 3, height, width]
        closed = output_shape(module, shape)
        assert closed == module.get_output_shape(shape)
        with torch.no_grad():
            assert closed == shapes_in(skeleton(module)(torch.empty(shape, device="meta")))
            assert closed == shapes_in(real(torch.zeros(shape)))
    assert_same_state(module, before)


def test_stages_named_by_the_family_are_those_of_the_run():
    module = EfficientNet(0.25, 0.5, num_classes=5)
    for shape in ([2, 3, 64, 40], [0, 3, 7, 9]):
        closed = stage_table(module, shape, costs=False)
        counted = stage_table(module, shape)
        assert {r.name: r.shape for r in closed} == {r.name: r.shape for r in counted}
        assert {r.name: r.kind for r in closed} == {r.name: r.kind for r in counted}
        assert closed.output == counted.output
        assert closed.total.parameters is None and "MACs" not in repr(closed)
    assert _entry(module).fake is None


def test_closed_form_is_asked_of_anything_that_has_one():
    class Crop:
        def get_output_shape(self, shape):
            return [*shape[:2], 8, 8]

    assert output_shape(Crop(), [4, 3, 32, 32]) == output_shape(Crop(), torch.zeros(4, 3, 9, 9))
    with pytest.raises(ValueError, match="expected 3 channels, got 1"):
        output_shape(EfficientNet(0.25, 0.5), [1, 1, 32, 32])


# ---- costs -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "build,side,gmac",
    [
        (lambda: torchvision.models.resnet18(), 224, 1.814),
        (lambda: timm.create_model("vit_small_patch16_224", num_classes=0), 224, 4.598),
        (lambda: EfficientNet(), 224, 0.386),
        (lambda: EfficientNet(), 32, 0.010),
    ],
    ids=["resnet18", "ViT-S/16", "efficientnet_b0", "efficientnet_b0 at 32"],
)
def test_macs_are_the_published_ones_and_those_of_torchs_counter(build, side, gmac):
    with torch.device("meta"):
        module = build().eval()
    table = stage_table(module, [1, 3, side, side])
    assert round(table.total.macs / 1e9, 3) == pytest.approx(gmac, abs=0.0011)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.empty(1, 3, side, side, device="meta"))
    assert 2 * table.total.macs == counter.get_total_flops()
    assert sum(row.macs for row in table) == table.total.macs


def kept_by_a_real_run(module, x) -> int:
    "Bytes of the storages that autograd saves on the CPU, weights left out."
    module = copy.deepcopy(module).eval()
    own = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *module.buffers())}
    kept, held = {}, []

    def keep(tensor):
        storage = tensor.untyped_storage()
        held.append(tensor)
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        held.append(module(x))
    return sum(kept.values())


@pytest.mark.parametrize(
    "build",
    [
        lambda: ResNet(18, num_classes=10),
        lambda: EfficientNet(0.5, 0.5),
        lambda: timm.create_model("convnext_atto"),
    ],
    ids=["resnet18", "efficientnet", "convnext"],
)
def test_activations_are_what_autograd_keeps_on_a_real_run(build):
    module, x = build(), torch.randn(2, 3, 64, 64)
    assert stage_table(module, x).total.activation_bytes == pytest.approx(
        kept_by_a_real_run(module, x), rel=0.02
    )


def test_nothing_is_kept_for_what_is_not_trained():
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    whole = stage_table(module, [16, 4])
    assert [row.activation_bytes for row in whole] == [256, 512, 0, 512, 0]
    module[:4].requires_grad_(False)
    assert [row.activation_bytes for row in stage_table(module, [16, 4])] == [0, 0, 0, 0, 512]
    module.requires_grad_(False)
    assert stage_table(module, [16, 4]).total.activation_bytes == 0


def test_costs_grow_with_the_batch_and_parameters_do_not():
    module = ResNet("basic", [1, 1], 5, channels=(8, 16))
    one, eight = (stage_table(module, [b, 3, 32, 32]) for b in (1, 8))
    assert eight.total.macs == 8 * one.total.macs
    assert eight.total.parameters == one.total.parameters
    assert stage_table(module, [0, 3, 32, 32]).total.macs == 0


# ---- the table ---------------------------------------------------------------------------------------
class Odd(nn.Module):
    "A list of stages, a shared layer, a parameter of its own, a layer that is never called."

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(16, 4)
        self.stages = nn.ModuleList([nn.Sequential(nn.Linear(16, 16), nn.ReLU()) for _ in range(2)])
        self.shared = nn.Linear(16, 16)
        self.shared.weight = self.stages[0][0].weight
        self.scale = nn.Parameter(torch.ones(16))
        self.never = nn.Linear(3, 3)

    def forward(self, x):
        for stage in self.stages:
            x = self.shared(stage(x)) * self.scale
        return self.last(x)


def test_rows_stand_in_the_order_of_the_run_and_add_up():
    module = Odd()
    table = stage_table(module, [5, 16])
    names = [row.name for row in table]
    assert names == ["stages.0", "shared", "stages.1", "last", "never", "(itself)"]
    assert table["shared"].parameters == 16  # its weight stands in stages.0 already
    assert table["shared"].macs == 2 * 5 * 16 * 16  # called twice
    assert table["never"].shape is None and "not called" in repr(table)
    assert table["(itself)"].parameters == 16 and table["(itself)"].shape == [5, 4]
    assert table.total.parameters == sum(p.numel() for p in module.parameters())
    assert table[0] is table.rows[0] and len(table) == 6


def test_a_stage_that_fails_and_is_caught_leaves_the_others_right():
    class Fails(nn.Module):
        def forward(self, x):
            raise RuntimeError("no")

    class Tries(nn.Module):
        def __init__(self):
            super().__init__()
            self.fails, self.layer = Fails(), nn.Linear(4, 4)

        def forward(self, x):
            try:
                return self.fails(x)
            except RuntimeError:
                return self.layer(x)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.tries, self.own = Tries(), nn.Parameter(torch.ones(4, 4))

        def forward(self, x):
            return self.tries(x) @ self.own

    names = ["tries", "tries.fails", "tries.layer"]
    _, rows = on_skeleton(Net(), partial(measure_stages, names, True), [1, 4])
    macs = {row.name: row.macs for row in rows}
    assert macs["tries.layer"] == 16 and macs["(itself)"] == 16


def test_depth_opens_the_children():
    module = nn.Sequential(
        nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU())), nn.Linear(4, 2)
    )
    names = [[row.name for row in stage_table(module, [1, 4], depth=d)] for d in range(5)]
    assert names[0] == ["(itself)"] and names[1] == ["0", "1"] and names[2] == ["0.0", "0.1", "1"]
    assert names[3] == names[4] == ["0.0", "0.1.0", "1"]
    for depth in range(5):
        total = stage_table(module, [1, 4], depth=depth).total
        assert (total.parameters, total.macs, total.activation_bytes) == (30, 24, 32)


def test_to_dict_is_json_and_keeps_everything():
    table = stage_table(Odd(), [5, 16])
    loaded = json.loads(json.dumps(table.to_dict()))
    assert (
        loaded["module"] == "Odd" and loaded["inputs"] == [[5, 16]] and loaded["output"] == [5, 4]
    )
    assert loaded["rows"][0] == {
        "name": "stages.0", "kind": "Sequential", "shape": [5, 16],
        "parameters": 272, "macs": 1280, "activation_bytes": table[0].activation_bytes,
    }  # fmt: skip
    assert loaded["total"]["parameters"] == table.total.parameters


def test_text_table_is_aligned_and_html_is_escaped():
    class Odd_tuple(nn.Module):
        def forward(self, x):
            return {"<b>": x}

    module = nn.Sequential(nn.Linear(4, 4), Odd_tuple())
    table = stage_table(module, [1, 4])
    lines = repr(table).splitlines()
    assert lines[0] == "Sequential on [[1, 4]]" and set(lines[2]) == {"-"}
    assert len({line.index("Linear") for line in lines if "Linear" in line}) == 1
    html = table._repr_html_()
    assert "&lt;b&gt;" in html and "<b>" not in html and html.count("<tr>") == 4


# ---- inputs and outputs ------------------------------------------------------------------------------
@dataclass
class Answer:
    logits: torch.Tensor
    hidden: tuple | None = None


class Pair(NamedTuple):
    left: list
    right: list


class Forms(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x, form="tensor"):
        z = self.layer(x[0] if isinstance(x, (list, tuple)) else x)
        forms = {
            "tensor": z, "tuple": (z, z[0]), "dict": {"z": z, "more": [z, None]},
            "dataclass": Answer(z, (z,)), "none": None, "text": "loss",
        }  # fmt: skip
        return forms[form]


def test_answers_keep_their_form():
    module, z = Forms(), [2, 4]
    assert output_shape(module, [2, 3]) == z
    assert output_shape(module, [2, 3], form="tuple") == [z, [4]]
    assert output_shape(module, [2, 3], form="dict") == {"z": z, "more": [z, None]}
    assert output_shape(module, [2, 3], form="dataclass") == {"logits": z, "hidden": [z]}
    for form in ("none", "text"):
        with pytest.raises(ValueError, match="Forms gives no tensor"):
            output_shape(module, [2, 3], form=form)


def test_inputs_keep_their_form_and_type():
    assert output_shape(Forms(), [[2, 3], [9, 9]]) == [2, 4]  # a list of two tensors
    assert output_shape(nn.Embedding(5, 4), torch.zeros(2, 6, dtype=torch.int64)) == [2, 6, 4]
    assert output_shape(nn.Bilinear(3, 4, 5), [8, 3], torch.Size([8, 4])) == [8, 5]
    assert output_shape(nn.Identity(), []) == []
    assert output_shape(Forms(), Pair([2, 3], [9, 9])) == [2, 4]
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    shapes = output_shape(attention, query=[2, 5, 8], key=[2, 7, 8], value=[2, 7, 8])
    assert shapes == [[2, 5, 8], [2, 5, 7]]


def test_a_tensor_given_as_input_is_not_read():
    x = torch.full((2, 3), float("nan"))
    assert output_shape(Forms(), x) == [2, 4] and x.isnan().all() and x.device.type == "cpu"


# ---- errors ------------------------------------------------------------------------------------------
def test_errors_name_the_layer_and_the_input():
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(10, 2))
    with pytest.raises(
        ValueError, match=r"Sequential gives no shape for \[1, 3, 9, 9\]: in layer '2' \(Linear"
    ):
        output_shape(module, [1, 3, 9, 9])
    with pytest.raises(ValueError, match=r"layer '0' \(Conv2d"):
        stage_table(module, [1, 5, 9, 9])
    assert not module[0]._forward_hooks and not skeleton(module)[0]._forward_hooks
    with pytest.raises(ValueError, match="no shape for no input"):
        output_shape(module)


@pytest.mark.parametrize("shape", [[-1, 3], [1.5, 3]])
def test_shapes_that_are_none_are_refused(shape):
    with pytest.raises(ValueError, match="whole numbers of at least 0"):
        output_shape(nn.Linear(3, 4), shape)


def test_shapes_that_depend_on_values_are_refused():
    class Positive(nn.Module):
        def forward(self, x):
            return x[x > 0]

    with pytest.raises(ValueError, match="depends on the values of its input"):
        output_shape(Positive(), [2, 3])


def test_what_is_no_module_or_cannot_be_copied_is_refused():
    with pytest.raises(TypeError, match="expected a torch.nn.Module, got int"):
        output_shape(3, [1, 2])
    module = nn.Linear(3, 4)
    module.lock = threading.Lock()
    with pytest.raises(TypeError, match="Linear cannot be copied"):
        output_shape(module, [1, 3])
    with pytest.raises(ValueError, match="lazy parameters"):
        output_shape(nn.LazyLinear(4), [1, 3])


# ---- the live module stays as it was -----------------------------------------------------------------
def test_hooks_of_the_live_module_do_not_run_and_stay():
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    calls = []
    module.register_forward_hook(lambda *_: calls.append("root"))
    module[0].register_forward_pre_hook(lambda *_: calls.append("pre"))
    module[0].register_full_backward_hook(lambda *_: calls.append("back"))
    hooked = nn.Linear(3, 3)
    hooked.register_forward_hook(HoldsALock())
    module.append(nn.Sequential(nn.Linear(4, 3), hooked))
    assert output_shape(module, [2, 3]) == [2, 3]
    stage_table(module, [2, 3])
    assert not calls and len(module._forward_hooks) == len(module[0]._forward_pre_hooks) == 1
    module(torch.randn(2, 3))
    assert calls == ["pre", "root"] or calls == ["root", "pre"]


class HoldsALock:
    "A hook that could not be copied."

    def __init__(self):
        self.lock = threading.Lock()

    def __call__(self, *args):
        return None


def test_training_goes_on_while_others_ask():
    "Eight threads ask, one trains; the trained weights are bit-equal to those of an undisturbed run."

    def train(module, steps=12):
        torch.manual_seed(3)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        for _ in range(steps):
            loss = module(torch.randn(8, 3, 16, 16)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return module

    def build():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 4)
        )

    undisturbed, module = train(build()), build()
    stop, answers = threading.Event(), []

    def ask():
        while not stop.is_set():
            answers.append(output_shape(module, [2, 3, 16, 16]) == [2, 4])
            answers.append(stage_table(module, [3, 3, 16, 16]).output == [3, 4])

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask) for _ in range(8)]
        train(module)
        stop.set()
        [thread.result() for thread in asking]
    assert answers and all(answers) and module.training
    for mine, other in zip(
        module.state_dict().values(), undisturbed.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, other)


def test_eight_threads_get_the_answers_of_one():
    module = timm.create_model("mobilenetv3_small_050", num_classes=7)
    before = state(module)
    sides = [32, 33, 40, 47, 48, 64, 65, 80]

    def ask(side):
        table = stage_table(module, [1, 3, side, side])
        return output_shape(module, [side, 3, side, side]), table.to_dict()

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, sides))
    fresh = copy.deepcopy(module)
    assert [shape for shape, _ in found] == [[side, 7] for side in sides]
    assert found[2][1] == stage_table(fresh, [1, 3, 40, 40]).to_dict()
    assert_same_state(module, before)


def test_inference_mode_of_the_caller_changes_nothing():
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.inference_mode():
        inside = stage_table(module, [16, 4])
        assert output_shape(module, [16, 4]) == [16, 2]
    assert inside == stage_table(copy.deepcopy(module), [16, 4])
    assert inside.total.macs == 16 * (32 + 16) and inside.total.activation_bytes > 0


# ---- keeping skeletons -------------------------------------------------------------------------------
def test_skeleton_is_kept_until_the_structure_changes():
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten())
    first = skeleton(module)
    module.eval(), nn.init.zeros_(module[0].weight), module.register_forward_hook(lambda *_: None)
    assert skeleton(module) is first
    assert all(p.is_meta for p in first.state_dict().values()) and not first.training
    changes = [
        (lambda: setattr(module[0], "stride", (2, 2)), [1, 72]),
        (lambda: module.append(nn.Linear(72, 5)), [1, 5]),
        (lambda: setattr(module, "3", nn.Linear(72, 6)), [1, 6]),
        (lambda: module.__delitem__(3), [1, 72]),
        (lambda: setattr(module[2], "start_dim", 2), [1, 8, 9]),
    ]
    for change, shape in changes:
        change()
        assert output_shape(module, [1, 3, 8, 8]) == shape
        with torch.no_grad():
            assert list(module(torch.zeros(1, 3, 8, 8)).shape) == shape
    module.half()
    assert skeleton(module)[0].weight.dtype == torch.float16
    assert stage_table(module, [1, 3, 8, 8]).total.activation_bytes > 0


class KeepsItsState(nn.Module):
    "A recurrent layer that begins with nothing; the other way needs fake tensors."

    def __init__(self, device=None):
        super().__init__()
        self.layer, self.state, self.device = nn.Linear(4, 4), None, device

    def forward(self, x):
        if self.device:
            x = x + torch.zeros(4, device=self.device)
        self.state = self.layer(x) if self.state is None else self.state + x
        return self.state


@pytest.mark.parametrize("device", [None, "cpu"])
def test_what_a_run_leaves_in_the_skeleton_is_not_there_in_the_next(device):
    module = KeepsItsState(device)
    assert [output_shape(module, [n, 4]) for n in (8, 2, 5)] == [[8, 4], [2, 4], [5, 4]]
    assert stage_table(module, [3, 4]).output == [3, 4] and module.state is None
    with pytest.raises(ValueError):
        output_shape(module, [3, 5])
    assert skeleton(module).state is None


def test_skeletons_die_with_their_modules():
    module = nn.Linear(3, 4)
    output_shape(module, [1, 3])
    count, watch, bare = len(_ENTRIES), weakref.ref(module), weakref.ref(skeleton(module))
    del module
    gc.collect()
    assert watch() is None and bare() is None and len(_ENTRIES) < count


def test_answers_are_copies():
    module = nn.Linear(3, 4)
    output_shape(module, [1, 3]).append("spoilt")
    stage_table(module, [1, 3])[0].shape.append("spoilt")
    assert output_shape(module, [1, 3]) == stage_table(module, [1, 3])[0].shape == [1, 4]


def test_a_fresh_skeleton_is_ones_own():
    module = nn.Linear(3, 4)
    mine = skeleton(module, fresh=True)
    mine.register_forward_hook(lambda *_: 1 / 0)
    assert mine is not skeleton(module) and output_shape(module, [1, 3]) == [1, 4]


def test_tied_weights_stay_tied_and_parametrized_weights_work():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight = module[0].weight
    assert skeleton(module)[1].weight is skeleton(module)[0].weight
    assert stage_table(module, [1, 4]).total.parameters == 24
    with warnings.catch_warnings(action="ignore"):
        old = nn.utils.weight_norm(nn.Linear(3, 4))  # its hook computes the weight
    old(torch.randn(1, 3))
    normed = nn.Sequential(old, parametrizations.weight_norm(nn.Linear(4, 5)))
    assert output_shape(normed, [2, 3]) == [2, 5]


def test_wrappers_are_opened():
    module = nn.Linear(3, 4)
    for wrapped in (torch.compile(module), nn.DataParallel(module)):
        assert output_shape(wrapped, [2, 3]) == [2, 4] and skeleton(wrapped) is skeleton(module)


# ---- tensors on a device of their own -------------------------------------------------------------------
class SaysWhere(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x):
        ramp = torch.arange(x.shape[1], device="cpu", dtype=torch.float32)
        return self.layer(x + ramp) * torch.tensor(2.0, device="cpu").item()


def test_tensors_made_on_an_explicit_device_fall_back_to_fake_ones():
    module = SaysWhere()
    before = state(module)
    table = stage_table(module, [2, 8])
    assert output_shape(module, [2, 8]) == table.output == [2, 4]
    assert table["layer"].macs == 64 and table.total.parameters == 36
    assert table["layer"].activation_bytes == 64
    assert _entry(module).fake is not None
    with pytest.raises(ValueError, match="gives no shape for"):
        output_shape(module, [2, 9])
    assert_same_state(module, before)


def test_tensors_made_without_a_device_need_no_fallback():
    class Ramp(nn.Module):
        def forward(self, x):
            return x + torch.arange(x.shape[1]) + torch.zeros(1)

    module = Ramp()
    assert output_shape(module, [2, 8]) == [2, 8] and _entry(module).fake is None


def test_parameters_of_an_own_class_are_no_obstacle():
    class Named(nn.Parameter):
        pass

    module = SaysWhere()
    for parameter in module.parameters():
        parameter.__class__ = Named
    assert output_shape(module, [2, 8]) == [2, 4] and _entry(module).fake is not None
    assert output_shape(module.layer, [2, 8]) == [2, 4]
    assert all(type(parameter) is Named for parameter in module.parameters())


def test_fake_tensors_from_eight_threads():
    module = SaysWhere()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda b: output_shape(module, [b, 8]), range(24)))
    assert found == [[b, 4] for b in range(24)]


def test_work_on_a_skeleton_is_ones_own_business():
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU())

    def names(parts, args, kwargs):
        assert args[0].is_meta and kwargs == {}
        return [type(part).__name__ for part in parts], math.prod(parts(*args).shape)

    assert on_skeleton(module, names, [5, 3]) == (["Linear", "ReLU"], 20)


# ---- the same operation once ----------------------------------------------------------------------------
def test_repeated_operations_are_told_apart_by_type_stride_and_number():
    def work(parts, args, kwargs):
        (x,) = args
        whole = x.to(torch.int64)
        kinds = [(whole + other).dtype for other in (1, 1.0, True)]
        strides = [(t * 2).stride() for t in (x, x.t(), x)]
        first, second = x * 3, x * 3
        second.add_(1)
        view = second.view(-1)
        shares = view.untyped_storage()._cdata == second.untyped_storage()._cdata
        return kinds, strides, first is second, first._version, second._version, shares

    kinds, strides, same, *versions, shares = on_skeleton(nn.Identity(), work, [3, 3])
    assert kinds == [torch.int64, torch.float32, torch.int64]
    assert strides == [(3, 1), (1, 3), (3, 1)]
    assert not same and versions == [0, 1] and shares


@pytest.mark.parametrize("name", ["convnext_atto", "levit_128s", "densenet121"])
def test_repeated_operations_give_the_strides_of_a_plain_run(name):
    module = architecture(name)
    x = torch.empty(2, 3, 64, 64, device="meta")

    def layouts(parts, args=(x,), kwargs=None):
        found, handles = [], []
        for part in parts.modules():
            handles.append(
                part.register_forward_hook(
                    lambda *a: found.append((a[2].shape, a[2].stride(), a[2].dtype))
                )
            )
        parts(*args)
        [handle.remove() for handle in handles]
        return found

    assert on_skeleton(module, layouts, x) == layouts(skeleton(module, fresh=True))
