"""Feature maps, statistics, effective fields and shapes of all sizes: right, and nothing about the network changes."""

import math
import threading

import pytest
import torch
import torchvision
from torch import nn

from nenya_nb.introspect.activations import (
    activations,
    channel_statistics,
    effective_fields,
    effective_rank,
    shared_copy,
)
from nenya_nb.introspect.sizes import default_sizes, size_table, stage_names, stage_rows
from nenya_nb.models import EfficientNet, SwinTransformer, VisionTransformer, resnet18


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def snapshot(net):
    hooks = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in net.modules()]
    modes = [part.training for part in net.modules()]
    wants = [parameter.requires_grad for parameter in net.parameters()]
    return hooks, modes, wants, {name: value.clone() for name, value in net.state_dict().items()}


def same(one, other):
    return one[:3] == other[:3] and all(
        torch.equal(one[3][name], other[3][name]) for name in one[3]
    )


# --- maps ---------------------------------------------------------------------------------------------------------


def test_activations_are_what_hooks_see(images):
    net = torchvision.models.resnet18().eval()
    seen = {}
    for name in ("bn1", "layer2"):
        part = net.get_submodule(name)
        part.register_forward_hook(lambda m, i, o, name=name: seen.update({name: o.clone()}))
    with torch.no_grad():
        net(images)
    found = activations(net, images, ["bn1", "layer2"])
    assert (
        torch.equal(found["bn1"].maps, seen["bn1"]) and found["bn1"].maps.min() < 0
    )  # before ReLU
    assert torch.equal(found["layer2"].maps, seen["layer2"])


FAMILIES = {
    "efficientnet": lambda: EfficientNet(),
    "vit": lambda: VisionTransformer(64, 16, embed_dim=32, depth=2, num_heads=2),
    "swin": lambda: SwinTransformer(embed_dim=24, depths=(2, 2), num_heads=(2, 2)),
    "torchvision swin": lambda: torchvision.models.swin_t(),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_maps_have_the_shape_of_their_layout(name, images):
    net = FAMILIES[name]()
    names = stage_names(net, list(images.shape))
    for stage in activations(net, images, names).values():
        assert stage.maps.dim() == 4 and len(stage.maps) == 2 and stage.maps.isfinite().all()
        assert stage.layout.kind in ("map", "tokens", "vector")


def test_nothing_about_the_network_changes(images):
    net = nn.Sequential(resnet18(num_classes=4), nn.Dropout(0.5))
    net[0].layer1.eval()
    net[0].conv1.weight.requires_grad_(False)
    net.register_forward_hook(lambda *_: pytest.fail("the network itself ran"))
    before, dice = snapshot(net), torch.random.get_rng_state()
    activations(net, images, ["0.layer1", "1"])
    effective_fields(net, images, {"0.layer1": (0, 0), "0.layer4": None})
    stage_rows(net, images.shape, ["0.layer1"])
    assert same(before, snapshot(net)) and torch.equal(dice, torch.random.get_rng_state())
    assert all(parameter.grad is None for parameter in net.parameters()) and images.grad is None


def test_training_is_bit_equal_with_looks(images):
    def train(look):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.2), nn.Flatten(), nn.LazyLinear(2)
        )
        net(images)
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        for _ in range(3):
            net(images).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            if look:
                activations(net, images, ["0", "2"])
                effective_fields(net, images, {"1": None})
        return [value.clone() for value in net.state_dict().values()]

    assert all(map(torch.equal, train(False), train(True)))


def test_looking_from_another_thread_leaves_modes_alone(images):
    net, found = resnet18(), []
    thread = threading.Thread(target=lambda: found.append(activations(net, images, ["layer1"])))
    thread.start()
    while thread.is_alive():
        assert all(part.training for part in net.modules())
    assert found


def test_shared_copy_costs_no_weights():
    net = resnet18()
    copy = shared_copy(net)
    own = {p.data_ptr() for p in net.parameters()}
    assert all(p.data_ptr() in own and not p.requires_grad for p in copy.parameters())
    with torch.no_grad():
        net.conv1.weight.zero_()
    assert copy.conv1.weight.abs().sum() == 0  # the same memory


def test_inference_tensors_and_half_precision_are_welcome(images):
    net = resnet18()
    with torch.inference_mode():
        inside = images * 1
        assert activations(net, inside, ["layer1"])["layer1"].maps.shape[0] == 2
    assert effective_fields(net, inside, {"layer1": None})["layer1"].max() > 0
    found = activations(resnet18().bfloat16(), images, ["layer1"])["layer1"].maps
    assert found.dtype == torch.float32


def test_bad_images_are_named():
    for bad in (torch.rand(3, 8, 8), torch.rand(0, 3, 8, 8), [1, 3, 8, 8]):
        with pytest.raises(ValueError, match=r"images are a tensor \(B, C, H, W\)"):
            activations(resnet18(), bad)
    with pytest.raises(KeyError, match="no module"):
        activations(resnet18(), torch.rand(1, 3, 32, 32), ["layer9"])


# --- numbers ------------------------------------------------------------------------------------------------------


def test_channel_statistics_are_torchs():
    maps = torch.randn(3, 5, 4, 4).clamp(min=0)
    maps[:, 2] = 0
    numbers = channel_statistics(maps)
    flat = maps.transpose(0, 1).flatten(1)
    assert torch.allclose(numbers.mean, flat.mean(1))
    assert torch.allclose(numbers.std, flat.std(1, correction=0))
    assert torch.equal(numbers.zeros, (flat == 0).float().mean(1))
    assert numbers.dead.tolist() == [2] and not numbers.signed
    assert channel_statistics(torch.full((1, 2, 1, 1), math.nan)).mean.tolist() == [0, 0]
    with pytest.raises(ValueError, match="maps are"):
        channel_statistics(torch.rand(3, 4))


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_effective_rank_by_singular_values(shape):
    torch.manual_seed(0)
    values = torch.randn(shape).double()
    share = torch.linalg.svdvals(values - values.mean(0))
    share = share[share > 1e-9] / share.sum()
    assert effective_rank(values) == pytest.approx(math.exp(-(share * share.log()).sum()), rel=1e-4)


def test_effective_field_is_the_gradient():
    net = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.constant_(net.weight, -2.0)
    seen = effective_fields(nn.Sequential(net), torch.rand(2, 1, 8, 8), {"0": (0, 4)})["0"]
    wanted = torch.zeros(8, 8)
    wanted[0:2, 3:6] = 2.0
    assert torch.allclose(seen, wanted)


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_wrapped_networks_are_looked_into(wrap, images):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    for ask in (
        lambda net: {k: stage.maps for k, stage in activations(net, images).items()},
        lambda net: effective_fields(net, images, {"0": (0, 4)}),
    ):
        bare, wrapped = ask(net), ask(wrap(net))
        assert bare.keys() == wrapped.keys()
        assert all(torch.equal(bare[name], wrapped[name]) for name in bare)


def test_effective_field_of_what_ignores_the_image_is_zero():
    class Deaf(nn.Module):
        def forward(self, x):
            return torch.ones(len(x), 2, 2, 2)

    assert (
        effective_fields(nn.Sequential(Deaf()), torch.rand(1, 1, 4, 4), {"0": None})["0"].sum() == 0
    )


# --- sizes --------------------------------------------------------------------------------------------------------


def test_stage_names_open_where_the_work_is():
    shape = [1, 3, 224, 224]
    assert stage_names(torchvision.models.efficientnet_b0(), shape)[:2] == [
        "features.0",
        "features.1",
    ]
    assert "encoder.layers.encoder_layer_3" in stage_names(torchvision.models.vit_b_16(), shape)
    assert stage_names(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), [1, 3, 2, 2]) == ["0", "1"]
    assert len(stage_names(torchvision.models.densenet121(), shape)) <= 20


def test_closed_form_and_skeleton_agree():
    net, shape = resnet18(), [4, 3, 64, 48]
    fast = size_table(net, shape)
    slow = size_table(nn.Sequential(net), shape, [f"0.{name}" for name in fast.names])
    assert len(fast.sizes) > 100 and slow.sizes == fast.measured
    for i, size in enumerate(slow.sizes):
        assert list(slow.at(size).values()) == list(fast.at(size).values())
        assert slow.macs[slow.measured.index(size)] == fast.macs[i]


def test_sizes_that_do_not_fit_say_why():
    table = size_table(
        VisionTransformer(64, 16, embed_dim=32, depth=1, num_heads=2), [1, 3, 64, 64]
    )
    assert table.at(64) and table.errors[table.sizes.index(8)]
    with pytest.raises(ValueError, match="16|patch"):
        table.at(8)
    with pytest.raises(KeyError, match="nearest size is 128"):
        table.at(1000)
    with pytest.raises(ValueError, match="channels"):
        size_table(resnet18(), [1, 4, 64, 64])


def test_stages_inside_of_stages_share_the_work():
    whole = size_table(resnet18(), [1, 3, 64, 64], ["layer1", "layer2"], [64])
    table = size_table(resnet18(), [1, 3, 64, 64], ["layer1", "layer1.0", "layer2"], [64])
    assert table.names == ("layer1.0", "layer1", "layer2")
    inside, beside, after = table.macs[0]
    assert inside == beside > 0 and (inside + beside, after) == whole.macs[whole.measured.index(64)]


def test_a_stage_that_does_not_run_at_some_size_is_named():
    class Skips(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, x):
            x = self.first(x)
            return self.second(x) if len(x[0, 0]) > 8 else x

    table = size_table(Skips(), [1, 3, 16, 16], ["first", "second"], [8, 16])
    assert table.errors == ("second does not run at this size", "")


def test_default_sizes_hold_the_side():
    for side in (1, 28, 33, 64, 224, 518, 1024):
        for fine in (True, False):
            sizes = default_sizes(side, fine)
            assert side in sizes and len(sizes) <= 162 and sizes == sorted(set(sizes))
