"""Receptive fields: against published numbers, against the gradient's support, and over families of networks."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from nenya_nb.introspect.following import follow
from nenya_nb.introspect.receptive_field import receptive_fields
from nenya_nb.introspect.trails import reshaped
from nenya_nb.models import EfficientNet, SwinTransformer, VisionTransformer, resnet18

RESNET = ["conv1", "maxpool", "layer1", "layer2", "layer3", "layer4"]


def sizes(net, names, side=224):
    fields = receptive_fields(net, [1, 3, side, side], names)
    return [fields[name].size and fields[name].size[0] for name in names]


# --- published numbers (Araujo, Norris and Sim, Distill 2019) -----------------------------------------------------


def test_alexnet_and_vgg16_as_published():
    assert sizes(torchvision.models.alexnet(), ["features"]) == [195]
    assert sizes(torchvision.models.vgg16(), ["features"]) == [212]


def test_resnets_as_published():
    assert sizes(torchvision.models.resnet18(), RESNET) == [7, 11, 43, 99, 211, 435]
    assert sizes(resnet18(), RESNET, 64) == [7, 11, 43, 99, 211, 435]
    first = torchvision.models.resnet50()  # the paper's: stride in the first 1 x 1
    for stage in (first.layer2, first.layer3, first.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    assert sizes(first, RESNET) == [7, 11, 35, 99, 291, 483]
    assert sizes(torchvision.models.resnet50(), RESNET) == [7, 11, 35, 91, 267, 427]


def test_windows_do_not_depend_on_the_image():
    for side in (32, 64, 131):
        field = receptive_fields(resnet18(), [1, 3, side, side], ["layer2"])["layer2"]
        assert (field.size, field.stride, field.start) == ((99, 99), (8, 8), (-49, -49))


# --- against the gradient -----------------------------------------------------------------------------------------


class Fork(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(1, 2, 3, stride=2, padding=1)
        self.two = nn.Sequential(nn.Conv2d(1, 2, 5, padding=2), nn.AvgPool2d(2, ceil_mode=True))

    def forward(self, x):
        return torch.cat([self.one(x), self.two(x)], 1)


class Shuffle(nn.Module):
    def forward(self, x):
        x = F.pixel_unshuffle(F.pad(x, (1, 0, 0, 1)), 2)
        return F.interpolate(x.roll(1, 3), scale_factor=2)


class Halves(nn.Module):
    "Two halves of the channels that see different things, exchanged."

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 5, padding=2, groups=2)

    def forward(self, x):
        y, z = self.b(self.a(x)).chunk(2, 1)
        return torch.stack([z, y], 1).flatten(1, 2)


CHAINS = {
    "strides": lambda: nn.Sequential(
        nn.Conv2d(1, 2, 3, 2), nn.Conv2d(2, 2, (3, 5), padding=(1, 2)), nn.AvgPool2d(3, 2, 1)
    ),
    "dense": lambda: nn.Sequential(nn.Conv2d(1, 2, 2, padding=1), nn.Conv2d(2, 1, 4, 3)),
    "transposed": lambda: nn.Sequential(
        nn.Conv2d(1, 2, 3, 2, 1), nn.ConvTranspose2d(2, 1, 4, 2, 1)
    ),
    "patches": lambda: nn.Sequential(
        nn.Conv2d(1, 2, 4, 4), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3, padding=1)
    ),
    "adaptive": lambda: nn.Sequential(nn.Conv2d(1, 1, 3), nn.AdaptiveAvgPool2d(5)),
    "fork": Fork,
    "shuffle": Shuffle,
    "halves": Halves,
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("side", [(24, 24), (27, 33)])
def test_box_is_the_support_of_a_positive_linear_net(name, side):
    if name == "shuffle":
        side = (side[0] | 1, side[1] | 1)
    net = nn.Sequential(CHAINS[name]()).double().eval()
    for weight in net.parameters():
        nn.init.constant_(weight, 1.0)
    field = receptive_fields(net, [1, 1, *side], ["0"])["0"]
    image = torch.rand(1, 1, *side, dtype=torch.double, requires_grad=True)
    out = net(image)
    assert field.grid == tuple(out.shape[2:])
    for row in range(field.grid[0]):
        for column in range(0, field.grid[1], 3):
            (slope,) = torch.autograd.grad(out[0, :, row, column].sum(), image, retain_graph=True)
            rows, columns = slope[0, 0].nonzero().T
            box = field.at(row, column)
            assert (box.top, box.left) == (rows.min(), columns.min())
            assert (box.bottom, box.right) == (rows.max() + 1, columns.max() + 1)


RESIZES = [
    {"scale_factor": 1.5, "mode": "bilinear"},
    {"scale_factor": 1.1, "mode": "bilinear"},
    {"scale_factor": (0.7, 1.9), "mode": "bicubic"},
    {"scale_factor": 1.5, "mode": "bilinear", "recompute_scale_factor": True},
    {"scale_factor": 1.5, "mode": "bilinear", "align_corners": True},
    {"size": (9, 4), "mode": "bicubic", "align_corners": True},
    {"scale_factor": 1.4, "mode": "nearest"},
    {"scale_factor": 2.05, "mode": "nearest"},
    {"scale_factor": 2, "mode": "nearest"},
    {"size": (4, 9), "mode": "nearest"},
    {"scale_factor": 1.4, "mode": "nearest-exact"},
    {"size": (4, 9), "mode": "nearest-exact"},
    {"size": (3, 10), "mode": "area"},
    {"size": (3, 2), "mode": "bilinear", "antialias": True},
    {"size": (3, 20), "mode": "bicubic", "antialias": True},
    {"scale_factor": 0.3, "mode": "bilinear", "antialias": True, "align_corners": True},
]


@pytest.mark.parametrize("settings", RESIZES, ids=lambda s: "-".join(map(str, s.values())))
@pytest.mark.parametrize("side", [(7, 5), (16, 25)])
def test_what_resizing_reads_lies_in_the_box(settings, side):
    class Resize(nn.Module):
        def forward(self, x):
            return F.interpolate(x, **settings)

    field = receptive_fields(nn.Sequential(Resize()), [1, 1, *side])["0"]
    image = torch.rand(1, 1, *side, requires_grad=True)
    out = F.interpolate(image, **settings)
    margin = 0 if "nearest" in settings["mode"] else 2
    margin = 1 if settings.get("scale_factor") == 2.05 else margin  # differs between devices
    assert field.grid == tuple(out.shape[2:])
    for row in range(field.grid[0]):
        for column in range(field.grid[1]):
            (slope,) = torch.autograd.grad(out[0, 0, row, column], image, retain_graph=True)
            rows, columns = slope[0, 0].nonzero().T
            box = field.at(row, column)
            assert 0 <= rows.min() - box.top <= margin and 0 <= columns.min() - box.left <= margin
            assert 0 < box.bottom - rows.max() <= margin + 1
            assert 0 < box.right - columns.max() <= margin + 1


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_wrappers_are_opened(wrap):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(2))
    fields = receptive_fields(wrap(net), [1, 3, 8, 8])
    assert list(fields) == ["0", "1"] and fields["1"].size == (4, 4)


NETS = {
    "resnet": (resnet18, ["maxpool", "layer1", "layer2"]),
    "efficientnet": (EfficientNet, ["features.0", "features.1"]),
    "vit": (lambda: VisionTransformer(64, 16, embed_dim=32, depth=2, num_heads=2), ["patch_embed", "blocks.0"]),
    "swin": (lambda: SwinTransformer(embed_dim=24, depths=(2, 2), num_heads=(2, 2)), ["patch_embed", "layers.0", "layers.1"]),
    "convnext": (torchvision.models.convnext_tiny, ["features.0", "features.1"]),
    "shufflenet": (torchvision.models.shufflenet_v2_x0_5, ["maxpool", "stage2"]),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_gradient_stays_inside_of_the_box(name):
    from nenya_nb.introspect.activations import effective_fields

    torch.manual_seed(0)
    make, names = NETS[name]
    net = make()
    images = torch.randn(1, 3, 64, 64)
    fields = receptive_fields(net, images.shape, names)
    for where in ((0, 0), None):
        slopes = effective_fields(net, images, dict.fromkeys(names, where), fields)
        for name, slope in slopes.items():
            box = fields[name].at(*(where or (n // 2 for n in fields[name].grid)))
            assert slope.max() > 0
            slope[box.top : box.bottom, box.left : box.right] = 0
            assert slope.max() == 0


# --- layouts and causes -------------------------------------------------------------------------------------------


def test_layouts_of_maps_tokens_and_vectors():
    fields = receptive_fields(SwinTransformer(), [2, 3, 64, 96], ["layers.0", "avgpool", "head"])
    assert fields["layers.0"].layout.channel == 3 and fields["layers.0"].grid == (16, 24)
    assert fields["head"].layout.kind == "vector" and fields["head"].whole
    vit = VisionTransformer(64, 16, embed_dim=32, depth=1, num_heads=2)
    layout = receptive_fields(vit, [1, 3, 64, 48], ["blocks.0"])["blocks.0"].layout
    assert (layout.kind, layout.extra, len(layout.tokens), len(layout.tokens[0])) == (
        "tokens",
        1,
        4,
        3,
    )
    result = torch.arange(13.0)[None, :, None].expand(1, 13, 32)
    assert layout.maps(result)[0, 0].flatten().tolist() == list(range(1, 13))
    assert layout.sizes([1, 1 + 25, 32]) == (32, 5, 5)


@pytest.mark.parametrize("rank", [2, 3])
def test_a_tiny_map_is_still_a_map(rank):
    names = ["layer4"]
    field = receptive_fields(resnet18(), [1, 3, 32, 32 * (rank - 1)], names)["layer4"]
    assert field.layout.kind == "map" and field.layout.channel == 1 and field.grid == (1, rank - 1)


def test_cause_names_the_layer():
    net = torchvision.models.efficientnet_b0()
    field = receptive_fields(net, [1, 3, 64, 64], ["features.1"])["features.1"]
    assert field.whole and field.size is None and field.cause == "features.1.0.block.1.avgpool"
    assert "since features.1.0" in repr(field)


def test_group_norm_sees_everything_and_layer_norm_of_channels_does_not():
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 1))
    fields = receptive_fields(net, [1, 1, 16, 16])
    assert not fields["0"].whole and fields["1"].whole and fields["2"].whole


def test_unknown_operation_sees_all_that_its_input_sees():
    class Odd(nn.Module):
        def forward(self, x):
            return x.triu()

    net = nn.Sequential(nn.Conv2d(1, 1, 3), Odd())
    _, guessed = follow(net, [1, 1, 8, 8], ["1"])
    assert guessed == {"triu"}
    assert receptive_fields(net, [1, 1, 8, 8])["1"].whole


def test_what_is_written_into_a_tensor_is_seen():
    class Writer(nn.Module):
        def forward(self, x):
            board = torch.zeros_like(x)
            board[:, :, ::2] = x[:, :, ::2]
            board += 1
            return board

    field = receptive_fields(nn.Sequential(Writer(), nn.Conv2d(1, 1, 1)), [1, 1, 6, 6])["1"]
    assert field.at(0, 3).top <= 0 and field.at(0, 3).left <= 3 < field.at(0, 3).right


def test_a_network_that_ignores_its_input_sees_nothing():
    class Deaf(nn.Module):
        def forward(self, x):
            return torch.zeros(1, 2, 4, 4, device=x.device)

    field = receptive_fields(nn.Sequential(Deaf()), [1, 1, 8, 8])["0"]
    assert field.boxes.abs().sum() == 0 and not field.whole


def test_errors_say_what_is_wrong():
    net = resnet18()
    with pytest.raises(ValueError, match="images"):
        receptive_fields(net, [3, 32, 32])
    with pytest.raises(KeyError, match="no module 'layer9'"):
        receptive_fields(net, [1, 3, 32, 32], ["layer9"])
    field = receptive_fields(net, [1, 3, 32, 32], ["layer3"])["layer3"]
    with pytest.raises(IndexError, match="2 rows and 2 columns"):
        field.at(2, 0)
    assert field.at(-1, -1) == field.at(1, 1)


def test_reshaped_is_reshape():
    torch.manual_seed(0)
    box = torch.rand(6, 1, 12, 1).round(decimals=1)
    for new in ((1, 3, 4, 768), (12, 768), (1, 12, 8, 96), (9216,), (1, 4, 3, 32, 24)):
        full = box.expand(6, 1, 12, 768).reshape(6, *new)
        assert torch.equal(reshaped(box, (1, 12, 768), new).expand(6, *new), full)
