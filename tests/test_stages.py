"""The stage explorer without a browser: what is sent, what may be set, what a page contains."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
import traitlets
from torch import nn

from nenya_nb.core import Clock
from nenya_nb.data import load_dataset
from nenya_nb.models import (
    SimCLR,
    SwinTransformer,
    VisionTransformer,
    resnet18,
    resnet_tiny,
)
from nenya_nb.training import fit
from nenya_nb.widgets import base
from nenya_nb.widgets.base import script_json
from nenya_nb.widgets.stage_data import pack_field, pack_maps
from nenya_nb.widgets.stages import StageExplorer

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(autouse=True)
def bundles(monkeypatch):
    monkeypatch.setattr(base, "read_bundle", lambda name: f"/* {name} */")


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return resnet18(num_classes=10)


def unpacked(packed):
    kinds = {"uint8": np.uint8, "int32": "<i4", "float32": "<f4"}
    return np.frombuffer(packed["data"], kinds[packed["dtype"]]).reshape(packed["shape"]).copy()


# --- what is sent -------------------------------------------------------------------------------------------------


def test_shapes_of_all_sizes_are_the_networks(net):
    explorer = StageExplorer(net, [1, 3, 64, 64])
    dims, sizes = unpacked(explorer.network["dims"]), explorer.network["sizes"]
    for size in (8, 33, 64, 128):
        wanted = [(s + [1, 1])[1:4] for s in net.get_stage_shapes([1, 3, size, size]).values()]
        assert dims[sizes.index(size)].tolist() == wanted
    assert explorer.network["total"] == sum(p.numel() for p in net.parameters())


def test_maps_come_back_within_a_step(net, images):
    explorer = StageExplorer(net, images=images)
    at = explorer.table.names.index("layer2")
    packed, maps = explorer.maps[at], explorer.stages["layer2"].maps
    picked, ends = unpacked(packed["channels"]), unpacked(packed["range"])
    low, high = ends[..., 0, None, None], ends[..., 1, None, None]
    back = low + unpacked(packed["bytes"]) / 255 * (high - low)
    assert np.abs(back - maps[:, picked].numpy()).max() <= ((high - low) / 510).max() * 1.01
    assert np.allclose(unpacked(packed["numbers"])[:, 0], maps.mean((0, 2, 3)), atol=1e-5)


def test_maps_that_are_too_many_are_left_out_and_said():
    maps = torch.rand(2, 100, 60, 40)
    maps[:, 7] *= 9
    packed = pack_maps(maps, 40_000)
    size = np.prod(packed["bytes"]["shape"])
    assert size <= 40_000 and packed["full"] == [100, 60, 40]
    assert 7 in unpacked(packed["channels"]) and packed["numbers"]["shape"] == [100, 5]


def test_boxes_are_those_of_the_fields(net):
    explorer = StageExplorer(net, [1, 3, 64, 64])
    field = explorer.fields["layer1"]
    packed = pack_field(field)
    for row, column in ((0, 3), (15, 8)):
        box = [*unpacked(packed["down"])[row], *unpacked(packed["across"])[column]]
        assert tuple(box) == field.at(row, column)


def test_page_of_resnet18_is_small_and_has_the_middles(net, images):
    explorer = StageExplorer(net, images=images[:1])
    assert explorer.effective == {}
    page = script_json(explorer.page_state())
    assert len(page) < 1_450_000
    assert set(explorer.effective) == {
        f"{name} {field.grid[0] // 2} {field.grid[1] // 2}"
        for name, field in explorer.fields.items()
    }


@pytest.mark.parametrize(
    "make",
    [
        lambda: torchvision.models.resnet18(),
        lambda: torchvision.models.efficientnet_b0(),
        lambda: SwinTransformer(embed_dim=24, depths=(2, 2), num_heads=(2, 2)),
        lambda: VisionTransformer(64, 16, embed_dim=32, depth=2, num_heads=2),
    ],
)
def test_families_make_pages_and_stills(make, images):
    explorer = StageExplorer(make(), images=images)
    assert script_json(explorer.page_state()) and len(repr(explorer).split("\n")) > 4
    assert explorer.figure().axes


def test_timms_networks_work():
    import timm

    explorer = StageExplorer(timm.create_model("convnext_atto"), [1, 3, 64, 64])
    assert explorer.fields["stages.0"].layout.kind == "map"
    vit = StageExplorer(timm.create_model("vit_tiny_patch16_224"), [1, 3, 224, 224])
    assert "doesn't match" in vit.network["errors"][vit.network["error"][0]]
    vit.size = 112
    assert "doesn't match" in repr(vit) and vit.figure().axes


# --- what may be set ----------------------------------------------------------------------------------------------


def test_traits_are_checked(net, images):
    explorer = StageExplorer(net, images=images, selected="layer2", position=(1, 2), channel=5)
    assert (explorer.selected, explorer.position, explorer.channel) == ("layer2", (1, 2), 5)
    for name, value, message in [
        ("selected", "layer9", "layer"),
        ("channel", 128, "channel 128 does not exist: layer2 has 128"),
        ("position", (8, 0), "layer2 has 8 x 8"),
        ("image", 2, "the widget has 2"),
        ("size", 5000, "outside of 8 to 128"),
    ]:
        with pytest.raises(traitlets.TraitError, match=message):
            setattr(explorer, name, value)
    explorer.size = 65
    assert explorer.size == 65


def test_size_goes_to_the_nearest_that_is_known():
    explorer = StageExplorer(torchvision.models.resnet18(), [1, 3, 64, 64])
    explorer.size = 70
    assert explorer.size == 64
    with pytest.raises(ValueError, match="needs the shape"):
        StageExplorer(torchvision.models.resnet18())


def test_a_shape_beside_images_has_to_be_theirs(net, images):
    assert StageExplorer(net, [1, 3, 64, 64], images).size == 64
    with pytest.raises(ValueError, match=r"but the images are \[2, 3, 64, 64\]; leave it out"):
        StageExplorer(net, [1, 3, 128, 128], images)
    with pytest.raises(ValueError, match="every=0; expected 1 epoch"):
        StageExplorer(net, images=images, every=0)


def test_another_stage_keeps_channel_and_position_possible(net, images):
    explorer = StageExplorer(net, images=images, selected="layer4", channel=500, position=(1, 1))
    explorer.selected = "fc"
    assert explorer.channel == 0 and explorer.position == (0, 0)
    explorer.set_state(
        {"selected": "layer1", "channel": 63, "position": [15, 15]}
    )  # as the page does
    assert (explorer.channel, explorer.position) == (63, (15, 15))


# --- the page asks ------------------------------------------------------------------------------------------------


def test_a_position_is_measured_when_asked(net, images):
    explorer = StageExplorer(net, images=images, selected="layer1")
    explorer._asked(explorer, {"want": "field", "stage": "layer1", "position": [0, 0]}, [])
    heat = unpacked(explorer.effective["layer1 0 0"]["bytes"])
    assert heat.max() == 255 and heat[40:, 40:].sum() == 0
    assert torch.equal(
        explorer.effective_field("layer1", (0, 0)) > 0,
        explorer.effective_field(position=(0, 0)) > 0,
    )
    explorer._asked(explorer, {"want": "field", "stage": "layer1", "position": [99, 0]}, [])
    assert "no position" in explorer.effective["layer1 99 0"]["problem"]
    explorer._asked(explorer, {"want": "field", "stage": EVIL, "position": [0, 0]}, [])
    with pytest.raises(ValueError, match="measured on images"):
        StageExplorer(net, [1, 3, 32, 32]).effective_field()
    with pytest.raises(ValueError, match="Unknown stage 'layer9'. Did you mean 'layer"):
        explorer.effective_field("layer9")


def test_a_map_is_sent_in_full_when_asked(net, images):
    explorer = StageExplorer(net, images=images, room=20_000)
    assert explorer.maps[0]["bytes"]["shape"][2] < 32
    explorer._asked(explorer, {"want": "map", "stage": "conv1", "image": 1, "channel": 3}, [])
    full = torch.tensor(unpacked(explorer.detail["map"]))
    assert torch.equal(full, explorer.stages["conv1"].maps[1, 3])


def test_looking_follows_training_and_changes_nothing(images):
    net = resnet18(num_classes=4)
    explorer = StageExplorer(net, images=images, every=2)
    before, old = [value.clone() for value in net.state_dict().values()], explorer.maps
    run = SimpleNamespace(clock=Clock(steps_per_epoch=1, epochs=4))
    looks = []
    for run.clock.step in range(1, 5):
        explorer.on_epoch_end(run)
        looks.append(explorer.maps is not old)
        old = explorer.maps
    assert looks == [False, True, False, True] and net.training
    run.clock.step = run.clock.epochs = 5
    explorer.on_epoch_end(run)
    assert explorer.maps is not old, "and after the last"
    assert all(map(torch.equal, before, net.state_dict().values()))


def test_it_shows_itself_while_it_trains_and_changes_no_bit(monkeypatch):
    data, shown = load_dataset("shapes", count=32, size=32), []
    monkeypatch.setattr(StageExplorer, "_display", lambda self: shown.append(self))

    def trained(watch: bool):
        torch.manual_seed(0)
        backbone = resnet_tiny()
        watchers = [StageExplorer(backbone, images=data.batch(range(2)))] if watch else []
        options = dict(epochs=2, batch_size=16, lr=1e-2, monitor=False, progress=False)
        fit(SimCLR(backbone), data, callbacks=watchers, device="cpu", **options)
        return watchers, [*backbone.state_dict().values(), torch.get_rng_state()]

    for mode in ("1", "0"):
        monkeypatch.setenv("IN_TEST", mode)
        (_, alone), (watchers, watched) = trained(False), trained(True)
        assert shown == watchers and all(map(torch.equal, alone, watched))
        now = watchers[0].maps
        watchers[0].update()
        assert [one["bytes"]["data"] for one in now] == [
            one["bytes"]["data"] for one in watchers[0].maps
        ], "the maps are those of the trained network"
        shown.clear()


# --- odd networks -------------------------------------------------------------------------------------------------


def test_names_stay_data():
    net = nn.Sequential()
    net.add_module(EVIL, nn.Conv2d(3, 4, 3))
    net.add_module("x" * 10_000, nn.ReLU())
    explorer = StageExplorer(net, images=torch.rand(1, 3, 8, 8))
    html = explorer.to_html()
    assert EVIL not in html and json.dumps(explorer.network["names"])
    assert len(repr(explorer)) < 2000


def test_a_name_nobody_could_read_is_cut_and_still_leads_to_its_stage():
    path, net = "x" * 1_000_000, nn.Sequential()
    net.add_module("first", nn.Conv2d(3, 4, 3))
    net.add_module(path, nn.ReLU())
    explorer = StageExplorer(net, images=torch.rand(1, 3, 8, 8), selected=path)
    assert len(explorer.selected) <= 200 and explorer.selected in explorer.stages
    assert explorer.effective_field(path, (1, 1)).shape == (8, 8)
    assert len(explorer.to_html()) < 100_000 and len(explorer._fallback()) < 1_000_000
    with pytest.raises(traitlets.TraitError) as error:
        explorer.selected = "y" * 1_000_000
    assert len(str(error.value)) < 1000


def test_a_network_that_diverged_has_its_page(images):
    net = resnet18(num_classes=4)
    with torch.no_grad():
        net.conv1.weight.fill_(torch.nan)
    explorer = StageExplorer(net, images=images)
    assert "problem" not in explorer.to_html() and explorer._still()
    assert all(field["peak"] == 0 for field in explorer.effective.values())


def test_a_network_whose_slopes_nobody_can_take_has_its_page():
    class Rounds(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.round()

        @staticmethod
        def backward(ctx, slope):
            raise RuntimeError("no slope here")

    class Net(nn.Module):
        def forward(self, x):
            return Rounds.apply(x)

    explorer = StageExplorer(
        nn.Sequential(nn.Conv2d(3, 4, 3), Net()), images=torch.rand(1, 3, 8, 8)
    )
    state = explorer.page_state()
    assert all("no slope here" in field["problem"] for field in state["effective"].values())


def test_images_of_other_kinds_are_drawn():
    for channels in (1, 2, 13):
        explorer = StageExplorer(
            nn.Sequential(nn.Conv2d(channels, 4, 3)), images=torch.randn(1, channels, 300, 20)
        )
        rows, columns, colours = explorer.pictures["shape"][1:]
        assert max(rows, columns) <= 256 and colours in (1, 3)
