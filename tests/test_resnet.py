"""ResNet against torchvision and timm, its shapes against real runs, and the seeds' rows (P…, L…)."""

import copy
import inspect
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.optim import optimizer as optimizers

import nenya_nb.models as nb
from nenya_nb.models.backbones.maps import map_shapes
from nenya_nb.models.blocks import BasicBlock, Bottleneck, DropPath

torch.set_num_threads(1)
NETWORKS = {  # torchvision's name -> our constructor
    "resnet18": lambda **kw: nb.ResNet(18, **kw),
    "resnet34": lambda **kw: nb.resnet34(**kw),
    "resnet50": lambda **kw: nb.ResNet("bottleneck", [3, 4, 6, 3], **kw),
    "resnext50_32x4d": lambda **kw: nb.ResNet(50, groups=32, width_per_group=4, **kw),
    "wide_resnet50_2": lambda **kw: nb.ResNet(50, block_args={"base_width": 128}, **kw),
}
META_COUNTS = {  # with and without classifier
    "resnet18": (11_689_512, 11_176_512),
    "resnet34": (21_797_672, 21_284_672),
    "resnet50": (25_557_032, 23_508_032),
    "resnet101": (44_549_160, 42_500_160),
    "resnet152": (60_192_808, 58_143_808),
}


def n_params(module):
    return sum(p.numel() for p in module.parameters())


def on_meta(build):
    with torch.device("meta"):
        return build()


@pytest.fixture(scope="module")
def small():
    "A ResNet with few channels, in eval mode."
    return nb.ResNet("basic", [1, 1, 1, 1], 7, channels=(4, 4, 8, 8), stem_width=4).eval()


# ---------------------------------------------------------------- parity


@pytest.mark.parametrize("name", NETWORKS)
def test_resnet_matches_torchvision(name):
    "Outputs and all gradients in float64, and the same keys in the same order."
    torch.manual_seed(0)
    ours = NETWORKS[name](num_classes=5).double()
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, weights=None, num_classes=5).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for key, value in theirs.state_dict().items():  # the same seed even gives the same weights
        assert torch.equal(ours.state_dict()[key], value), key
    x = torch.randn(2, 3, 64, 33, dtype=torch.float64)
    out, expected = ours(x), theirs(x)
    torch.testing.assert_close(out, expected, atol=1e-9, rtol=0)
    out.square().sum().backward(), expected.square().sum().backward()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", ["resnet101", "resnet152"])
def test_resnet_deep_keys_equal_torchvision(name):
    ours = on_meta(lambda: getattr(nb, name)())
    theirs = on_meta(lambda: torchvision.models.get_model(name, weights=None))
    shapes = {k: v.shape for k, v in theirs.state_dict().items()}
    assert {k: v.shape for k, v in ours.state_dict().items()} == shapes


@pytest.mark.parametrize("dilate", [(False, True, True), (False, False, True)])
def test_resnet_dilation_matches_torchvision(dilate):
    ours = nb.ResNet(50, num_classes=3, replace_stride_with_dilation=dilate).eval()
    theirs = torchvision.models.resnet50(
        weights=None, num_classes=3, replace_stride_with_dilation=dilate
    ).eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 3, 65, 40)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))
        shapes = [list(m.shape) for m in ours.forward_stages(x)]
    assert shapes == ours.forward_features([1, 3, 65, 40])


@pytest.mark.parametrize(
    "name, settings",
    [
        ("resnet26d", dict(stem_type="deep", stem_width=32, avg_down=True)),
        ("resnet50c", dict(stem_type="deep", stem_width=32)),
        ("resnet50s", dict(stem_type="deep", stem_width=64)),
    ],
)
def test_resnet_deep_stem_matches_timm(name, settings):
    theirs = timm.create_model(name, num_classes=4).eval()
    counts = [2, 2, 2, 2] if "26" in name else [3, 4, 6, 3]
    ours = nb.ResNet(Bottleneck, counts, 4, **settings).eval()
    assert set(ours.state_dict()) == set(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 70, 49)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-4, rtol=1e-4)


def test_resnet_loads_torchvision_weights_strictly():
    state = torchvision.models.resnet18(weights=None).state_dict()
    nb.resnet18().load_state_dict(state)


# ---------------------------------------------------------------- shapes


SHAPES = [
    (b, h, w) for b in (1, 2) for h, w in [(1, 1), (1, 7), (2, 3), (5, 64), (33, 32), (65, 47)]
]
VARIANTS = {
    "plain": {},
    "deep": dict(stem_type="deep", stem_width=2),
    "small": dict(stem_type="small"),
    "small stride 2": dict(stem_type="small", stem_stride=2, strides=(1, 2, 2, 1)),
    "dilated": dict(replace_stride_with_dilation=(False, True, True)),
    "averaging": dict(avg_down=True),
    "three stages": dict(layers=[1, 2, 1], channels=(4, 6, 8)),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_get_output_shape_equals_meta_and_real_run(block, variant):
    settings = dict(layers=[1, 1, 1, 1], channels=(4, 4, 8, 8), stem_width=4, num_classes=0)
    model = nb.ResNet(block, **settings | VARIANTS[variant]).eval()
    skeleton = copy.deepcopy(model).to("meta")
    for b, h, w in SHAPES:
        shape = [b, 3, h, w]
        with torch.no_grad():
            real = [list(m.shape) for m in model.forward_stages(torch.zeros(shape))]
            meta = [
                list(m.shape) for m in skeleton.forward_stages(torch.zeros(shape, device="meta"))
            ]
        assert model.forward_features(shape) == meta == real, shape
        assert model.get_output_shape(shape) == real[-1]


def test_get_output_shape_on_a_grid_of_sizes(small):
    skeleton = copy.deepcopy(small).to("meta")
    for h in range(1, 70, 4):
        for w in (1, 2, 31, 64):
            with torch.no_grad():
                out = skeleton.forward_stages(torch.empty(0, 3, h, w, device="meta"))
            assert [list(m.shape) for m in out] == small.forward_features([0, 3, h, w])


def test_get_output_shape_p31_is_pure_and_thread_safe(small):
    before = {k: v.clone() for k, v in small.state_dict().items()}
    shapes = [[b, 3, h, w] for b in (1, 3) for h in range(1, 33, 4) for w in (5, 6, 7, 80)]
    assert len(shapes) == 64
    map_shapes.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: [small.forward_features(s) for s in shapes], range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert not small.training
    assert all(torch.equal(before[k], v) for k, v in small.state_dict().items())


def test_forward_p31_concurrent_runs_equal_serial_ones(small):
    inputs = [torch.randn(1, 3, 20 + k, 17) for k in range(16)]

    def run(x):
        with torch.inference_mode():
            return small(x)

    serial = [run(x) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        assert all(torch.equal(a, b) for a, b in zip(pool.map(run, inputs), serial, strict=True))


def test_shape_answers_do_not_share_lists(small):
    small.get_output_shape([1, 3, 8, 8]).append(9)
    small.forward_features([1, 3, 8, 8])[0].append(9)
    assert small.get_output_shape([1, 3, 8, 8]) == [1, 7]
    assert len(small.forward_features([1, 3, 8, 8])[0]) == 4


@pytest.mark.parametrize(
    "wrong, text",
    [
        ([3, 8, 8], r"expected 4D input \(B, C, H, W\), got 3D"),
        ([1, 4, 8, 8], "expected 3 channels, got 4"),
        ([1, 3, 0, 8], "at least 1"),
        ([1, 3, 8.5, 8], "whole sizes"),
    ],
)
def test_shape_errors_name_what_was_wrong(small, wrong, text):
    with pytest.raises(ValueError, match=text):
        small.get_output_shape(wrong)
    if all(isinstance(size, int) and size for size in wrong):
        with pytest.raises(ValueError, match=text):
            small(torch.zeros(wrong))
        with pytest.raises(ValueError, match=text):
            small.forward_features(torch.zeros(wrong))


# ---------------------------------------------------------------- seed 001 (PyFlame)


@pytest.mark.parametrize("name", META_COUNTS)
def test_row_p1_factories_count_parameters(name):
    model = on_meta(lambda: getattr(nb, name)())
    assert n_params(model) == META_COUNTS[name][0]
    model.remove_fc()
    assert n_params(model) == META_COUNTS[name][1]


@pytest.mark.parametrize("name", META_COUNTS)
def test_row_p1_factories_keep_the_positional_order(name):
    factory = getattr(nb, name)
    assert list(inspect.signature(factory).parameters)[:2] == ["num_classes", "pretrained"]
    assert on_meta(lambda: factory(10, False)).num_classes == 10


@pytest.mark.parametrize("name", META_COUNTS)
def test_row_p2_p16_block_type_layers_and_features(name):
    table = {
        "resnet18": ("basic", [2, 2, 2, 2], 512),
        "resnet34": ("basic", [3, 4, 6, 3], 512),
        "resnet50": ("bottleneck", [3, 4, 6, 3], 2048),
        "resnet101": ("bottleneck", [3, 4, 23, 3], 2048),
        "resnet152": ("bottleneck", [3, 8, 36, 3], 2048),
    }
    model = on_meta(lambda: getattr(nb, name)())
    assert (model.block_type, model.layer_config, model.num_features()) == table[name]


def test_row_p3_resnet50_with_ten_classes():
    assert n_params(on_meta(lambda: nb.resnet50(num_classes=10))) == 23_528_522
    assert n_params(on_meta(lambda: nb.resnet18(num_classes=10))) == 11_181_642


def test_row_p4_pretrained_says_what_to_do(no_weights):
    with pytest.raises(nb.WeightsUnavailable, match="Three ways out"):
        nb.resnet18(pretrained=True)


def test_row_p5_constructor_by_block_type():
    model = on_meta(
        lambda: nb.ResNet(
            block_type=nb.ResNetBlockType.BOTTLENECK,
            layers=[3, 4, 6, 3],
            num_classes=1000,
            zero_init_residual=False,
            groups=1,
            width_per_group=64,
        )
    )
    assert n_params(model) == 25_557_032 and len(model.state_dict()) == 320


def test_row_p6_constructor_defaults_and_layers():
    defaults = {k: p.default for k, p in inspect.signature(nb.ResNet).parameters.items()}
    expected = dict(num_classes=1000, zero_init_residual=False, groups=1, width_per_group=64)
    assert {k: defaults[k] for k in expected} == expected
    for layers in ([2, 2, 2], [2, 2, 2, 0], [2, 2, 2, -1], [], [2, 2, 2, 1.5]):
        with pytest.raises(ValueError, match="layers"):
            nb.ResNet("basic", layers)


def test_row_p7_no_classes_means_no_fc():
    model = nb.ResNet("basic", [1, 1, 1, 1], num_classes=0)
    assert not model.has_fc() and model.get_output_shape([1, 3, 64, 64]) == [1, 512, 2, 2]
    assert not any(key.startswith("fc") for key in model.state_dict())


@pytest.mark.parametrize("block, last", [("basic", "bn2"), ("bottleneck", "bn3")])
def test_row_p8_zero_init_residual(block, last):
    model = nb.ResNet(block, [1, 1, 1, 1], channels=(4, 4, 4, 4), zero_init_residual=True)
    weights = [p for name, p in model.named_parameters() if name.endswith(f"{last}.weight")]
    assert len(weights) == 4 and all((w == 0).all() for w in weights)


def test_row_p9_groups_and_width():
    for kwargs, count in [
        (dict(block=50, groups=32, width_per_group=4), 25_028_904),
        (dict(block=101, groups=32, width_per_group=8), 88_791_336),
        (dict(block=50, width_per_group=128), 68_883_240),
    ]:
        assert n_params(on_meta(lambda kwargs=kwargs: nb.ResNet(**kwargs))) == count
    with pytest.raises(ValueError, match="Bottleneck"):
        nb.ResNet("basic", [1, 1, 1, 1], groups=2)


def test_row_p11_output_shape_with_and_without_fc():
    model = nb.resnet50().eval()
    assert model.get_output_shape([1, 3, 224, 224]) == [1, 1000]
    model.remove_fc()
    shape = model.get_output_shape([1, 3, 224, 224])
    assert shape == [1, 2048, 7, 7] and type(shape) is list and type(shape[0]) is int
    with torch.no_grad():
        assert list(model(torch.zeros(1, 3, 50, 64)).shape) == model.get_output_shape(
            [1, 3, 50, 64]
        )


def test_row_p12_forward_features_takes_any_kind_of_shape():
    model = nb.resnet50(num_classes=0).eval()
    expected = [[1, 64, 56, 56], [1, 256, 56, 56], [1, 512, 28, 28]]
    expected += [[1, 1024, 14, 14], [1, 2048, 7, 7]]
    size = [1, 3, 224, 224]
    for spec in (nb.TensorSpec(size), size, tuple(size), torch.Size(size)):
        assert model.forward_features(spec) == expected
    maps = model.forward_features(torch.zeros(1, 3, 32, 32))
    assert [list(m.shape) for m in maps] == model.forward_features([1, 3, 32, 32])
    assert all(isinstance(m, torch.Tensor) for m in maps)


def test_row_p13_p14_has_fc_and_num_features():
    model = nb.resnet18()
    assert model.has_fc() and model.num_features() == model.num_features == 512
    model.remove_fc()
    assert not model.has_fc() and model.num_features() == 512 == model.output_dim


def test_row_p15_properties():
    model = on_meta(nb.resnet50)
    assert model.block_type is nb.ResNetBlockType.BOTTLENECK
    assert model.layer_config == [3, 4, 6, 3]
    model.layer_config.append(1)
    assert model.layer_config == [3, 4, 6, 3]


def test_row_p17_the_diagram_is_right():
    model = nb.resnet18().eval()
    seen = {}
    for name in ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool", "fc"):
        hook = lambda m, i, o, name=name: seen.update({name: list(o.shape[1:])})  # noqa: E731
        getattr(model, name).register_forward_hook(hook)
    with torch.no_grad():
        model(torch.zeros(1, 3, 224, 224))
    assert seen["conv1"] == [64, 112, 112] and seen["maxpool"] == seen["layer1"] == [64, 56, 56]
    assert seen["layer2"] == [128, 28, 28] and seen["layer3"] == [256, 14, 14]
    assert seen["layer4"] == [512, 7, 7] and seen["avgpool"] == [512, 1, 1] and seen["fc"] == [1000]


def test_row_p26_prints_plain_lists(capsys):
    backbone = on_meta(nb.resnet50)
    backbone.remove_fc()
    for i, feat in enumerate(backbone.forward_features([1, 3, 224, 224])):
        print(f"Stage {i}: {feat.shape}")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Stage 0: [1, 64, 56, 56]" and lines[4] == "Stage 4: [1, 2048, 7, 7]"


def test_row_p27_num_features_builds_a_head():
    model = on_meta(nb.resnet18)
    for width in (model.num_features, model.num_features()):
        assert nn.Linear(width, 7).in_features == 512


def test_row_p28_print_shows_the_stages():
    text = str(on_meta(nb.resnet18))
    assert all(f"(layer{k})" in text for k in (1, 2, 3, 4))


def test_row_p29_parameters_know_name_and_spec(capsys):
    model = on_meta(nb.resnet50)
    for p in model.parameters():
        print(f"{p.name}: {p.spec.shape}")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 161 and lines[0] == "conv1.weight: [64, 3, 7, 7]"


def test_row_p30_named_parameters_has_items():
    model = on_meta(nb.resnet50)
    names = [name for name, p in model.named_parameters().items()]
    expected = [name for name, _ in on_meta(torchvision.models.resnet50).named_parameters()]
    assert names == expected and len(names) == 161
    assert list(dict(model.named_parameters())) == expected
    assert next(model.named_parameters())[0] == "conv1.weight"


def test_row_p29_parameters_stay_torch_parameters(tmp_path):
    "Optimizers keep their fast path, state dicts hold plain tensors, copies and casts work."
    model = nb.resnet_tiny()
    parameters = list(model.parameters())
    assert all(isinstance(p, nn.Parameter) for p in parameters)
    assert type(parameters[0]) in optimizers._foreach_supported_types
    assert all(type(v) is torch.Tensor for v in model.state_dict().values())
    torch.save(model.state_dict(), tmp_path / "m.pt")
    model.load_state_dict(torch.load(tmp_path / "m.pt", weights_only=True))
    twin = copy.deepcopy(model).double()
    assert [p.name for p in twin.parameters()] == [p.name for p in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    assert type(parameters[0] * 2) is torch.Tensor and type(parameters[0].grad) is torch.Tensor


# ---------------------------------------------------------------- seed 002 (Lucid)


def test_row_l1_aliases():
    for depth in (18, 34, 50, 101, 152):
        assert getattr(nb, f"resnet_{depth}") is getattr(nb, f"resnet{depth}")


class Plain(nn.Module):
    "A custom block with four arguments and nothing else."

    expansion = 2

    def __init__(self, in_channels, channels, stride, downsample):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 2 * channels, 5, stride, 2)
        self.downsample = downsample or nn.Identity()

    def forward(self, x):
        return self.conv(x) + self.downsample(x)


def test_row_l3_custom_block():
    model = nb.ResNet(block=Plain, layers=[1, 2, 1, 1], num_classes=3, channels=(4, 4, 8, 8)).eval()
    assert model(torch.randn(2, 3, 40, 40)).shape == (2, 3)
    assert model.block is Plain and model.block_type is None and model.variant is None
    maps = model.forward_stages(torch.zeros(1, 3, 37, 40))
    assert [list(m.shape) for m in maps] == model.forward_features([1, 3, 37, 40])


def test_row_l4_layers_and_channels_match():
    with pytest.raises(ValueError, match="one number for each stage"):
        nb.ResNet(BasicBlock, [2, 2, 2])
    assert nb.ResNet(BasicBlock, [1, 1], channels=(4, 8)).layer_config == [1, 1]


def test_row_l5_l6_classes_and_channels():
    assert n_params(on_meta(lambda: nb.resnet50(in_channels=1))) == 25_550_760
    assert n_params(on_meta(lambda: nb.resnet50(in_channels=4))) == 25_560_168
    assert nb.resnet18(10, in_channels=1)(torch.randn(2, 1, 40, 40)).shape == (2, 10)


def test_row_l7_plain_stem_width():
    model = on_meta(lambda: nb.ResNet(Bottleneck, [3, 4, 6, 3], stem_width=32))
    assert model.conv1.out_channels == 32


@pytest.mark.parametrize("width, count", [(32, 25_576_264), (64, 25_680_808)])
def test_row_l8_deep_stem(width, count):
    model = on_meta(lambda: nb.ResNet(Bottleneck, [3, 4, 6, 3], stem_type="deep", stem_width=width))
    assert n_params(model) == count
    keys = {key.split(".")[1] for key in model.state_dict() if key.startswith("conv1.")}
    assert keys == {"0", "1", "3", "4", "6"}


def test_row_l9_channels_are_before_expansion():
    model = on_meta(lambda: nb.ResNet(Bottleneck, [3, 4, 6, 3], channels=(32, 64, 128, 256)))
    assert n_params(model) == 6_927_528
    assert [s[1] for s in model.forward_features([1, 3, 64, 64])[1:]] == [128, 256, 512, 1024]


def test_row_l10_block_args():
    for args, count in [
        (dict(base_width=128), 68_883_240),
        (dict(cardinality=32, base_width=4), 25_028_904),
    ]:
        model = on_meta(lambda args=args: nb.ResNet(Bottleneck, [3, 4, 6, 3], block_args=args))
        assert n_params(model) == count
    assert inspect.signature(nb.ResNet).parameters["block_args"].default is None
    args = {"se": True}
    nb.ResNet("basic", [1], channels=(4,), block_args=args, drop_path_rate=0.1)
    assert args == {"se": True}  # the caller's dictionary is left alone


def test_one_rate_for_every_block_is_welcome():
    model = nb.ResNet("basic", [1, 1], channels=(4, 8), block_args={"drop_path": 0.2})
    assert [m.rate for m in model.modules() if isinstance(m, DropPath)] == [0.2, 0.2]


def test_row_l11_attributes_add_no_keys():
    model = on_meta(nb.resnet18)
    keys = list(model.state_dict())
    assert len(model.layers) == 4 and model.layers[0] is model.layer1
    assert model.stem[0] is model.conv1 and model.num_classes == 1000 and model.block is BasicBlock
    assert list(model.state_dict()) == keys and len(keys) == 122


def test_row_l12_formula_by_hand(small):
    x = torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        h = small.maxpool(small.stem(x))
        for stage in small.layers:
            h = stage(h)
        assert torch.equal(small.fc(small.avgpool(h).flatten(1)), small(x))


def test_row_l13_configuration_for_resnet50_is_resnet34():
    model = on_meta(lambda: nb.ResNet(block=BasicBlock, layers=[3, 4, 6, 3], num_classes=1000))
    assert model.variant == "resnet34" and n_params(model) == 21_797_672
    assert model.num_features == 512 and model.get_output_shape([8, 3, 224, 224]) == [8, 1000]


def test_row_l14_example_runs_from_numpy():
    from nenya_nb.models.blocks import BasicBlock as Block

    x = torch.Tensor(np.random.default_rng(0).standard_normal((2, 3, 64, 64)))
    output = nb.ResNet(block=Block, layers=[3, 4, 6, 3], num_classes=1000)(x)
    assert str(output.shape) == "torch.Size([2, 1000])" and tuple(output.shape) == (2, 1000)


# ---------------------------------------------------------------- arguments


def test_block_union_agrees():
    same = [
        nb.ResNet(34, num_classes=2),
        nb.ResNet(depth=34, num_classes=2),
        nb.ResNet("BASIC", [3, 4, 6, 3], 2),
        nb.ResNet(block_type="basic", layers=(3, 4, 6, 3), num_classes=2),
        nb.ResNet(BasicBlock, depth=34, num_classes=2),
    ]
    assert {model.variant for model in same} == {"resnet34"}


@pytest.mark.parametrize(
    "args, error, text",
    [
        (dict(), TypeError, "needs a block"),
        (dict(block="basic"), TypeError, "layers is missing"),
        (dict(block=18, block_type="bottleneck"), TypeError, "disagree"),
        (dict(block=18, depth=34), TypeError, "disagree"),
        (dict(block=18, layers=[1, 1, 1, 1]), TypeError, "disagree"),
        (dict(block=19), ValueError, "Unknown ResNet depth"),
        (dict(block="botleneck", layers=[1] * 4), ValueError, "Did you mean 'bottleneck'"),
        (dict(block=18, stem_type="depe"), ValueError, "Did you mean 'deep'"),
        (dict(block=18, global_pool="max"), ValueError, "global_pool"),
        (dict(block=18, out_indices=(5,)), ValueError, "out_indices"),
        (dict(block=18, strides=(1, 2)), ValueError, "strides"),
        (dict(block=18, replace_stride_with_dilation=(True,)), ValueError, "one fewer"),
        (dict(block=50, groups=2, block_args={"cardinality": 4}), ValueError, "in block_args"),
        (dict(block=50, drop_path_rate=0.1, block_args={"drop_path": 0.2}), ValueError, "give one"),
        (
            dict(
                block=50,
                replace_stride_with_dilation=[False, False, True],
                block_args={"dilation": 3},
            ),
            ValueError,
            "block_args has dilation=3",
        ),
    ],
)
def test_constructor_explains_mistakes(args, error, text):
    with pytest.raises(error, match=text):
        on_meta(lambda: nb.ResNet(**args))


def test_out_indices_m7_counts_the_stem_before_its_pool():
    model = nb.ResNet(depth=50, out_indices=(0, 1, 2, 3, 4)).eval()
    assert not model.has_fc()
    with torch.no_grad():
        maps = model(torch.zeros(1, 3, 64, 64))
    shapes = [[1, 64, 32, 32], [1, 256, 16, 16], [1, 512, 8, 8], [1, 1024, 4, 4], [1, 2048, 2, 2]]
    assert isinstance(maps, tuple) and [list(m.shape) for m in maps] == shapes
    assert model.get_output_shape([1, 3, 64, 64]) == shapes
    assert len(nb.ResNet(18, out_indices=(4,))(torch.zeros(2, 3, 40, 40))) == 1


def test_drop_path_rises_along_the_depth():
    model = nb.ResNet(18, drop_path_rate=0.7)
    rates = [b.drop_path.rate if b.drop_path else 0 for stage in model.layers for b in stage]
    torch.testing.assert_close(torch.tensor(rates), torch.linspace(0, 0.7, 8))


def test_drop_rate_acts_before_the_classifier_in_training_only():
    model = nb.ResNet("basic", [1], 3, channels=(4,), stem_width=4, drop_rate=0.5)
    x = torch.randn(8, 3, 16, 16)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_norm_layer_replaces_every_batch_norm():
    model = nb.ResNet(18, norm_layer=lambda c: nn.GroupNorm(4, c), num_classes=2)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 2)


def test_reset_classifier_refuses_other_pools():
    model = nb.ResNet("basic", [1], 3, channels=(4,))
    with pytest.raises(ValueError, match="global_pool"):
        model.reset_classifier(0, "max")
    assert model.num_classes == 3 and model.global_pool is None


def test_reset_classifier_keeps_device_and_dtype():
    model = nb.resnet18().double()
    model.reset_classifier(4)
    assert model.fc.weight.dtype == torch.float64
    assert model(torch.randn(2, 3, 33, 33).double()).shape == (2, 4)
    model.reset_classifier(0)
    assert model.get_output_shape([2, 3, 33, 33]) == [2, 512] and model.output_dim == 512
    model.reset_classifier(0, global_pool=None)
    assert model.get_output_shape([2, 3, 33, 33]) == [2, 512, 2, 2]


def test_forward_feat_ignores_the_head(small):
    x = torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        feat = small.forward_feat(x)
    assert feat.shape == (2, small.num_features)
    torch.testing.assert_close(feat, small.forward_stages(x)[-1].mean((2, 3)))


def test_batch_of_one_n14_raises_from_batch_norm_in_training():
    model = nb.resnet50(num_classes=0)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model.train()(torch.randn(1, 3, 32, 32))
    model.eval()
    for size in [(1, 1), (1, 40), (32, 32)]:
        assert model(torch.randn(1, 3, *size)).shape[1] == 2048


# ---------------------------------------------------------------- as a module


def test_resnet_state_dict_round_trip(tmp_path, small):
    torch.save(small.state_dict(), tmp_path / "m.pt")
    twin = nb.ResNet("basic", [1, 1, 1, 1], 7, channels=(4, 4, 8, 8), stem_width=4).eval()
    twin.load_state_dict(torch.load(tmp_path / "m.pt"))
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(twin(x), small(x))
    assert torch.equal(copy.deepcopy(small)(x), small(x))


def test_resnet_backward_reaches_every_parameter():
    model = nb.resnet_tiny(num_classes=3)
    model(torch.randn(4, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_resnet_can_be_traced_symbolically(small):
    traced = torch.fx.symbolic_trace(small)
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(traced(x), small(x))
    nodes = torchvision.models.feature_extraction.get_graph_node_names(small)[1]
    assert any(node.startswith("layer4") for node in nodes)


def test_resnet_can_be_exported(small):
    x = torch.randn(1, 3, 32, 32)
    exported = torch.export.export(small, (x,)).module()
    torch.testing.assert_close(exported(x), small(x))


def test_resnet_tiny_is_small_and_ten_layers_deep():
    model = nb.resnet_tiny(10)
    layers = [m for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len([m for m in layers if getattr(m, "kernel_size", None) != (1, 1)]) == 10
    assert model.forward_features([1, 3, 32, 32])[-1] == [1, 128, 4, 4]
    assert nb.resnet_tiny().output_dim == 128 and n_params(nb.resnet_tiny()) == 307_536


@pytest.mark.parametrize("name", ["stem", "layers"])
def test_a_view_of_layers_cannot_be_assigned(name):
    net = nb.ResNet("basic", [1, 1], channels=[8, 16])
    before = list(net.state_dict())
    with pytest.raises(AttributeError, match=f"{name} is a view of other layers; assign conv1"):
        setattr(net, name, nn.Sequential())
    assert list(net.state_dict()) == before
    net.conv1 = nn.Conv2d(1, 64, 3)
    assert net.stem[0] is net.conv1
