"""The deep, wide and grouped ResNets: the seeds' rows (L…, P…, N…), parity, and shapes against real runs."""

import copy

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nenya_nb.introspect import stage_table
from nenya_nb.models.backbones import deep_resnets, resnet_variants
from nenya_nb.models.backbones.resnet import ResNet, ResNetBlockType
from nenya_nb.models.backbones.weights import WeightsUnavailable
from nenya_nb.models.blocks import SqueezeExcitation, projection_shortcut
from nenya_nb.models.preact import PreActBasicBlock, PreActBlock, PreActBottleneck

torch.set_num_threads(1)
FACTORIES = vars(resnet_variants) | vars(deep_resnets)
COUNTS = {  # with and without classifier; the deep three end with a norm, which Lucid's do not
    "resnext50_32x4d": (25_028_904, 22_979_904),
    "resnext101_32x8d": (88_791_336, 86_742_336),
    "wide_resnet50_2": (68_883_240, 66_834_240),
    "wide_resnet101_2": (126_886_696, 124_837_696),
    "resnet200": (64_673_960, 62_624_960),
    "resnet269": (102_073_512, 100_024_512),
    "resnet1001": (149_075_112, 147_026_112),
    "resnet164_cifar": (1_703_258, 1_700_688),
    "resnet1001_cifar": (10_327_706, 10_325_136),
}
LUCID = {  # with classifier, without, and with He's bare shortcuts and a final norm
    "resnet_200": (64_669_864, 62_620_864, 64_666_280),
    "resnet_269": (102_069_416, 100_020_416, 102_065_832),
    "resnet_1001": (149_071_016, 147_022_016, 149_067_432),
}
GMACS = {  # at 224, 64 and 32 px
    "resnext50_32x4d": (4.230, 0.347, 0.088),
    "resnext101_32x8d": (16.414, 1.342, 0.337),
    "wide_resnet50_2": (11.398, 0.932, 0.235),
    "wide_resnet101_2": (22.753, 1.859, 0.466),
    "resnet200": (15.007, 1.227, 0.308),
    "resnet269": (20.030, 1.637, 0.411),
    "resnet1001": (42.958, 3.509, 0.879),
}
ALIASES = {
    "resnet_101": "resnet101",
    "resnet_152": "resnet152",
    "resnet_200": "resnet200",
    "resnet_269": "resnet269",
    "resnet_1001": "resnet1001",
    "wide_resnet_50": "wide_resnet50_2",
    "wide_resnet_101": "wide_resnet101_2",
}


def n_params(module):
    return sum(p.numel() for p in module.parameters())


def on_meta(name, *args, **kwargs):
    with torch.device("meta"):
        return FACTORIES[name](*args, **kwargs).eval()


def randomise(module):
    "Weights and statistics that let no normalisation pass as the identity."
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data.copy_(torch.rand_like(tensor) * 0.2 + (0.9 if tensor.dim() == 1 else -0.1))


# ---------------------------------------------------------------- the block


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "kind, settings",
    [
        (PreActBasicBlock, {}),
        (PreActBottleneck, {}),
        (PreActBottleneck, dict(cardinality=4, base_width=8)),
        (PreActBottleneck, dict(dilation=2)),
    ],
)
def test_preact_block_equals_the_paper_by_hand(kind, settings, stride):
    "Outputs and gradients in float64, against functions written out from the paper's figure."
    torch.manual_seed(0)
    out_channels = 8 * kind.expansion
    shortcut = projection_shortcut(12, out_channels, stride)
    block = kind(12, 8, stride, shortcut, **settings).double()
    randomise(block)

    def rho(x, bn):
        return nn.functional.batch_norm(x, None, None, bn.weight, bn.bias, training=True).relu()

    def by_hand(x):
        first = rho(x, block.bn1)
        dilation = settings.get("dilation", 1)
        three = dict(padding=dilation, dilation=dilation, groups=settings.get("cardinality", 1))
        if kind is PreActBasicBlock:
            out = nn.functional.conv2d(first, block.conv1.weight, stride=stride, **three)
            out = nn.functional.conv2d(rho(out, block.bn2), block.conv2.weight, **three)
        else:
            out = nn.functional.conv2d(first, block.conv1.weight)
            out = rho(out, block.bn2)
            out = nn.functional.conv2d(out, block.conv2.weight, stride=stride, **three)
            out = nn.functional.conv2d(rho(out, block.bn3), block.conv3.weight)
        return out + shortcut(first)

    x = torch.randn(3, 12, 7, 10, dtype=torch.float64)
    answers = []
    for function in (block, by_hand):
        block.zero_grad()
        inputs = x.clone().requires_grad_()
        out = function(inputs)
        out.square().sum().backward()
        answers.append([out, inputs.grad, *(p.grad.clone() for p in block.parameters())])
    for ours, expected in zip(*answers, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kind", [PreActBasicBlock, PreActBottleneck])
def test_preact_block_without_residual_is_the_identity(kind):
    block, x = kind(16, 16 // kind.expansion), torch.randn(2, 16, 5, 5)
    block.zero_init_last()
    assert torch.equal(block(x), x)


def test_preact_block_extras_compose():
    block = PreActBottleneck(16, 4, se=True, se_args={"reduction": 2}, drop_path=0.5)
    assert isinstance(block.se, SqueezeExcitation)
    x = torch.randn(64, 16, 3, 3)
    passed = (block(x) == x).flatten(1).all(1).sum()
    assert 10 < passed < 54 and block.eval()(x).shape == x.shape


def test_preact_block_does_not_overwrite_its_input():
    x = torch.randn(2, 16, 4, 4)
    before = x.clone()
    PreActBottleneck(16, 4)(x)
    assert torch.equal(x, before)


def test_row_p10_preact_blocks_have_two_and_three_convolutions():
    for block, count in ((PreActBasicBlock(8, 8), 2), (PreActBottleneck(8, 2), 3)):
        assert len([m for m in block.modules() if isinstance(m, nn.Conv2d)]) == count


# ---------------------------------------------------------------- parity


@pytest.mark.parametrize("name", ["resnext50_32x4d", "wide_resnet50_2"])
def test_factory_matches_torchvision(name):
    "Outputs and all gradients in float64; the same seed gives the same weights."
    torch.manual_seed(0)
    ours = FACTORIES[name](num_classes=5).double()
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, weights=None, num_classes=5).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = torch.randn(2, 3, 33, 40, dtype=torch.float64)
    out, expected = ours(x), theirs(x)
    torch.testing.assert_close(out, expected, atol=1e-9, rtol=0)
    out.square().sum().backward(), expected.square().sum().backward()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", ["resnext101_32x8d", "wide_resnet101_2"])
def test_factory_has_torchvision_keys(name):
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, weights=None)
    shapes = {k: v.shape for k, v in theirs.state_dict().items()}
    assert {k: v.shape for k, v in on_meta(name).state_dict().items()} == shapes


@pytest.mark.parametrize(
    "name, kind, layers",
    [
        ("resnetv2_18", PreActBasicBlock, [2, 2, 2, 2]),
        ("resnetv2_50", PreActBottleneck, [3, 4, 6, 3]),
    ],
)
def test_preact_network_matches_timm(name, kind, layers):
    "Timm's version 2 is the paper's form: bare stem, bare shortcuts, a norm at the end."
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=5).double()
    ours = ResNet(kind, layers, 5, stem_norm=False, shortcut_norm=False).double()
    assert ours.norm is not None  # by itself, after pre-activation blocks
    state = {}
    for key, value in theirs.state_dict().items():
        key = key.replace("stem.conv.", "conv1.").replace("downsample.conv.", "downsample.0.")
        if key.startswith("stages."):
            _, stage, _, block, *rest = key.split(".")
            key = ".".join([f"layer{int(stage) + 1}", block, *rest]).replace(".norm", ".bn")
        elif key.startswith("norm."):
            key = key.replace("norm.", "norm.0.")
        key = key.replace("head.fc.", "fc.")
        state[key] = value.flatten(1) if key == "fc.weight" else value
    ours.load_state_dict(state)
    x = torch.randn(2, 3, 49, 64, dtype=torch.float64)
    out, expected = ours(x), theirs(x)
    torch.testing.assert_close(out, expected, atol=1e-9, rtol=0)
    out.square().sum().backward(), expected.square().sum().backward()
    (theirs_grad,) = [p.grad for n, p in theirs.named_parameters() if n == "stem.conv.weight"]
    torch.testing.assert_close(ours.conv1.weight.grad, theirs_grad, atol=1e-9, rtol=1e-9)


def test_post_activation_resnet200_matches_timm():
    "Timm's resnet200 is the net of 2015 with 200 layers; one class builds either."
    with torch.device("meta"):
        theirs = timm.create_model("resnet200").eval()
        ours = ResNet("bottleneck", [3, 24, 36, 3]).eval()
    assert n_params(ours) == n_params(theirs) == 64_673_832 and ours.depth == 200
    shapes = {k: v.shape for k, v in theirs.state_dict().items()}
    assert {k: v.shape for k, v in ours.state_dict().items()} == shapes


# ---------------------------------------------------------------- rows


@pytest.mark.parametrize("name", COUNTS)
def test_row_p1_l1_parameter_counts(name):
    model = on_meta(name)
    assert n_params(model) == COUNTS[name][0]
    assert n_params(on_meta(name, num_classes=0)) == COUNTS[name][1]
    model.remove_fc()
    assert n_params(model) == COUNTS[name][1]


@pytest.mark.parametrize("name", LUCID)
def test_row_l1_lucid_counts(name):
    "Row L1 and section 3.1: Lucid has no final norm; He's own form has bare shortcuts."
    full, headless, he = LUCID[name]
    assert n_params(on_meta(name, final_norm=False)) == full
    assert n_params(on_meta(name, 0, final_norm=False)) == headless
    assert n_params(on_meta(name, shortcut_norm=False)) == he
    assert n_params(on_meta(name)) == full + 2 * 2048


@pytest.mark.parametrize("name", ALIASES)
def test_row_l1_c13_aliases_are_the_same_function(name):
    assert FACTORIES[name] is FACTORIES[ALIASES[name]]


def test_row_l1_wide_resnet_50_has_not_lucids_number():
    "Lucid's page says 78,973,224; its code, torchvision and we say 68,883,240."
    assert n_params(on_meta("wide_resnet_50")) == 68_883_240


@pytest.mark.parametrize(
    "name, depth",
    [
        ("resnet18", 18),
        ("resnet34", 34),
        ("resnet50", 50),
        ("resnet101", 101),
        ("resnet152", 152),
        ("resnext50_32x4d", 50),
        ("resnext101_32x8d", 101),
        ("wide_resnet50_2", 50),
        ("wide_resnet101_2", 101),
        ("resnet200", 200),
        ("resnet269", 269),
        ("resnet1001", 584),
        ("resnet164_cifar", 164),
        ("resnet1001_cifar", 1001),
    ],
)
def test_row_n11_l1_depth_counts_layers(name, depth):
    "The name says the depth, but for Lucid's 1001, which has 584."
    model = on_meta(name, num_classes=7)
    assert model.depth == depth
    model.remove_fc()
    assert model.depth == depth  # of the network, not of what is left of its head
    assert on_meta(name, block_args={"se": True}).depth == depth


def test_row_n11_the_docstring_says_584():
    assert "584" in deep_resnets.resnet1001.__doc__
    assert "resnet1001_cifar" in deep_resnets.resnet1001.__doc__


def test_row_n2_l3_block_may_be_named_or_given():
    with torch.device("meta"):
        models = [
            ResNet(block=PreActBottleneck, layers=[1, 2, 1, 1]),
            ResNet("preact", [1, 2, 1, 1]),
            ResNet(block_type=ResNetBlockType.PREACT, layers=[1, 2, 1, 1]),
        ]
    assert {model.block for model in models} == {PreActBottleneck}
    assert {model.block_type for model in models} == {"preact"}
    assert len({tuple(model.state_dict()) for model in models}) == 1
    assert issubclass(PreActBasicBlock, PreActBlock)
    assert ResNet(PreActBasicBlock, [1], channels=(4,)).block_type is None


def test_row_p9_p16_groups_widths_and_features():
    for name, groups, width in [
        ("resnext50_32x4d", 32, 128),
        ("resnext101_32x8d", 32, 256),
        ("wide_resnet50_2", 1, 128),
        ("wide_resnet101_2", 1, 128),
    ]:
        model = on_meta(name)
        conv = model.layer1[0].conv2
        assert (conv.groups, conv.out_channels) == (groups, width), name
        assert model.num_features == 2048 and model.block_type == "bottleneck"
        counts = [3, 4, 23, 3] if "101" in name else [3, 4, 6, 3]
        assert model.layer_config == counts


def test_row_p9_l10_block_args_give_the_factories_networks():
    with torch.device("meta"):
        next_ = ResNet(50, block_args=dict(cardinality=32, base_width=4))
        wide = ResNet(50, block_args=dict(base_width=128))
        preact = ResNet(
            "preact", [1], channels=(64,), block_args=dict(cardinality=32, base_width=4)
        )
    for model, name in ((next_, "resnext50_32x4d"), (wide, "wide_resnet50_2")):
        shapes = [v.shape for v in model.state_dict().values()]
        assert shapes == [v.shape for v in on_meta(name).state_dict().values()]
    assert preact.layer1[0].conv2.groups == 32 and preact.layer1[0].conv2.out_channels == 128


def test_row_p8_zero_init_residual_makes_preact_blocks_identities():
    model = ResNet("preact", [2, 2], channels=(4, 4), stem_width=4, zero_init_residual=True)
    assert all((b.conv3.weight == 0).all() for stage in model.layers for b in stage)
    x = torch.randn(2, 16, 5, 5)
    assert torch.equal(model.layer2[1](x), x)


@pytest.mark.parametrize("name", sorted(n for n in COUNTS if n in vars(deep_resnets)))
def test_row_p4_nobody_publishes_weights_of_the_deepest(name):
    with pytest.raises(ValueError, match=f"{name}: nobody publishes"):
        on_meta(name, pretrained=True)


@pytest.mark.parametrize("name", sorted(n for n in COUNTS if n not in vars(deep_resnets)))
def test_row_p4_pretrained_says_what_to_do(name, no_weights):
    with pytest.raises(WeightsUnavailable, match="Three ways out") as caught:
        on_meta(name, pretrained=True)
    assert name in str(caught.value)


def test_row_p4_weights_of_ones_own_are_read(tmp_path):
    thin = dict(channels=(2, 4, 4), stem_width=2)
    model = deep_resnets.resnet164_cifar(**thin)
    torch.save(model.state_dict(), tmp_path / "m.pt")
    twin = deep_resnets.resnet164_cifar(pretrained=str(tmp_path / "m.pt"), **thin)
    other = deep_resnets.resnet164_cifar(checkpoint_path=str(tmp_path / "m.pt"), **thin)
    for key, value in model.state_dict().items():
        assert torch.equal(twin.state_dict()[key], value)
        assert torch.equal(other.state_dict()[key], value)


@pytest.mark.parametrize("name", GMACS)
def test_multiplications(name):
    model = on_meta(name)
    for side, expected in zip((224, 64, 32), GMACS[name], strict=True):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.empty(1, 3, side, side, device="meta"))
        assert counter.get_total_flops() / 2e9 == pytest.approx(expected, abs=6e-4)


def test_multiplications_of_the_papers_thousand_layers():
    model = on_meta("resnet1001_cifar")
    table = stage_table(model, [1, 3, 32, 32])
    assert table.total.macs / 1e9 == pytest.approx(1.491, abs=6e-4)
    assert n_params(on_meta("resnet1001_cifar", 100)) == 10_350_836


# ---------------------------------------------------------------- shapes


SIZES = [(1, 1), (7, 64), (33, 2), (225, 99)]


@pytest.mark.parametrize("name", COUNTS)
def test_closed_form_equals_meta(name):
    model = on_meta(name, 5)
    for height, width in SIZES if "1001" not in name else SIZES[2:3]:
        for batch in (0, 2):
            shape = [batch, 3, height, width]
            with torch.no_grad():
                maps = model.forward_stages(torch.empty(shape, device="meta"))
            assert [list(m.shape) for m in maps] == model.forward_features(shape), shape
            assert model.get_output_shape(shape) == [batch, 5]


SMALL = {
    "paper": dict(stem_type="small", stem_norm=False, shortcut_norm=False),
    "lucid": dict(final_norm=False),
    "deep stem": dict(stem_type="deep", stem_norm=False),
    "averaging": dict(avg_down=True, shortcut_norm=False),
    "dilated": dict(replace_stride_with_dilation=(True, False)),
    "basic": dict(block=PreActBasicBlock),
    "post-activation with a norm": dict(block="bottleneck", final_norm=True),
}


@pytest.mark.parametrize("variant", SMALL)
def test_closed_form_equals_meta_and_real_run(variant):
    "The maps, every named stage as a hook sees it, and the answer, over odd sizes."
    settings = dict(block="preact", layers=[1, 2, 1], channels=(4, 4, 8), stem_width=4)
    model = ResNet(num_classes=0, **settings | SMALL[variant]).eval()
    skeleton = copy.deepcopy(model).to("meta")
    for height, width in [(1, 1), (1, 9), (20, 33), (31, 2)]:
        shape = [2, 3, height, width]
        known = model.get_stage_shapes(shape)
        for net, device in ((model, "cpu"), (skeleton, "meta")):
            seen, x = {}, torch.zeros(shape, device=device)
            hooks = [
                net.get_submodule(name).register_forward_hook(
                    lambda m, i, o, name=name, seen=seen: seen.update({name: list(o.shape)})
                )
                for name in known
            ]
            with torch.no_grad():
                assert list(net(x).shape) == model.get_output_shape(shape)
                assert seen == known and list(seen) == list(known)
                maps = net.forward_stages(x)
            assert [list(m.shape) for m in maps] == model.forward_features(shape)
            [hook.remove() for hook in hooks]


@pytest.mark.parametrize("head", ["classifier", "pooled", "map", "maps"])
def test_stage_table_of_a_resnet_needs_no_run(head, monkeypatch):
    settings = dict(
        classifier={}, pooled=dict(num_classes=0, global_pool="avg"), map=dict(num_classes=0)
    )
    settings["maps"] = dict(out_indices=(0, 2), global_pool="avg")
    model = ResNet("preact", [1, 1], channels=(4, 8), **settings[head])
    with_costs = stage_table(model, [2, 3, 33, 40])
    monkeypatch.setattr(ResNet, "forward", None)  # arithmetic alone
    table = stage_table(model, [2, 3, 33, 40], costs=False)
    assert [(r.name, r.shape) for r in table] == [(r.name, r.shape) for r in with_costs]
    assert table.total.shape == with_costs.total.shape == model.get_output_shape([2, 3, 33, 40])
    names = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "norm"]
    ends = {"classifier": ["avgpool", "fc"], "pooled": ["avgpool"]}
    assert [r.name for r in table] == names + ends.get(head, [])


def test_out_indices_give_the_normalised_map_last():
    torch.manual_seed(0)
    model = ResNet("preact", [1, 1], channels=(4, 8), out_indices=(0, 1, 2)).eval()
    x = torch.randn(1, 3, 33, 40)
    with torch.no_grad():
        maps = model(x)
        stages = model.forward_stages(x)
    assert [list(m.shape) for m in maps] == model.get_output_shape(x.shape)
    assert torch.equal(maps[2], stages[2]) and (maps[2] >= 0).all() and (maps[1] < 0).any()


def test_features_are_the_mean_of_the_normalised_map():
    model = ResNet("preact", [1, 1], 3, channels=(4, 8), stem_norm=False).eval()
    randomise(model)
    x = torch.randn(2, 3, 20, 20)
    with torch.no_grad():
        mean = model.norm(model.layer2(model.layer1(model.maxpool(model.stem(x))))).mean((2, 3))
        torch.testing.assert_close(model.forward_feat(x), mean)
        torch.testing.assert_close(model(x), model.fc(mean))
        torch.testing.assert_close(model.stem(x), model.conv1(x))  # bare


# ---------------------------------------------------------------- as a module


def test_preact_network_learns_traces_and_round_trips(tmp_path):
    torch.manual_seed(0)
    model = deep_resnets.resnet164_cifar(channels=(2, 4, 4), stem_width=2)
    x = torch.randn(4, 3, 8, 8)
    model(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    torch.save(model.state_dict(), tmp_path / "m.pt")
    twin = deep_resnets.resnet164_cifar(channels=(2, 4, 4), stem_width=2).eval()
    twin.load_state_dict(torch.load(tmp_path / "m.pt", weights_only=True))
    assert torch.equal(twin(x), model(x))
    assert torch.equal(torch.fx.symbolic_trace(model)(x), model(x))


def test_plain_networks_keep_torchvisions_modules():
    model = ResNet("basic", [1], channels=(4,))
    assert model.norm is None and "norm" not in dict(model.named_children())
    assert isinstance(model.relu, nn.ReLU)
