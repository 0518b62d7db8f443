"""EfficientNet against torchvision, timm, and the numbered rows of the backbone specification."""

import copy
import inspect
from concurrent.futures import ThreadPoolExecutor

import pytest
import timm
import torch
import torchvision
from torch import nn

from nenya_nb.models.backbones import efficientnet as lesson
from nenya_nb.models.backbones.efficientnet import EfficientNet, MBConv, conv_norm, scale_channels

NAMES = [f"efficientnet_b{k}" for k in range(8)]
PARAMS = {  # with and without the classifier
    "efficientnet_b0": (5_288_548, 4_007_548),
    "efficientnet_b1": (7_794_184, 6_513_184),
    "efficientnet_b2": (9_109_994, 7_700_994),
    "efficientnet_b3": (12_233_232, 10_696_232),
    "efficientnet_b4": (19_341_616, 17_548_616),
    "efficientnet_b5": (30_389_784, 28_340_784),
    "efficientnet_b6": (43_040_704, 40_735_704),
    "efficientnet_b7": (66_347_960, 63_786_960),
}
REPEATS = {
    "efficientnet_b0": [1, 2, 2, 3, 3, 4, 1],
    "efficientnet_b1": [2, 3, 3, 4, 4, 5, 2],
    "efficientnet_b2": [2, 3, 3, 4, 4, 5, 2],
    "efficientnet_b3": [2, 3, 3, 5, 5, 6, 2],
    "efficientnet_b4": [2, 4, 4, 6, 6, 8, 2],
    "efficientnet_b5": [3, 5, 5, 7, 7, 9, 3],
    "efficientnet_b6": [3, 6, 6, 8, 8, 11, 3],
    "efficientnet_b7": [4, 7, 7, 10, 10, 13, 4],
}
CHANNELS = {  # stem, stages 1 to 7, head
    "efficientnet_b0": [32, 16, 24, 40, 80, 112, 192, 320, 1280],
    "efficientnet_b1": [32, 16, 24, 40, 80, 112, 192, 320, 1280],
    "efficientnet_b2": [32, 16, 24, 48, 88, 120, 208, 352, 1408],
    "efficientnet_b3": [40, 24, 32, 48, 96, 136, 232, 384, 1536],
    "efficientnet_b4": [48, 24, 32, 56, 112, 160, 272, 448, 1792],
    "efficientnet_b5": [48, 24, 40, 64, 128, 176, 304, 512, 2048],
    "efficientnet_b6": [56, 32, 40, 72, 144, 200, 344, 576, 2304],
    "efficientnet_b7": [64, 32, 48, 80, 160, 224, 384, 640, 2560],
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build(name, *args, **kwargs) -> EfficientNet:
    return getattr(lesson, name)(*args, **kwargs)


def on_meta(name, *args, **kwargs) -> EfficientNet:
    with torch.device("meta"):
        return build(name, *args, **kwargs)


def n_params(module) -> int:
    return sum(p.numel() for p in module.parameters())


def shake(module) -> None:
    "Weights and statistics that differ everywhere, so that a mix-up shows."
    torch.manual_seed(1)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.1 * torch.rand_like(tensor))


# ---- parity --------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_state_dict_has_torchvisions_keys_shapes_and_order(name):
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, weights=None)
    ours = on_meta(name)
    assert [(k, v.shape) for k, v in ours.state_dict().items()] == [
        (k, v.shape) for k, v in theirs.state_dict().items()
    ]


@pytest.mark.parametrize("direction", ["from torchvision", "to torchvision"])
@pytest.mark.parametrize("name", NAMES[:4])
def test_outputs_and_gradients_equal_torchvision(name, direction):
    ours = build(name, num_classes=7).double().eval()
    theirs = torchvision.models.get_model(name, weights=None, num_classes=7).double().eval()
    source, target = (theirs, ours) if direction == "from torchvision" else (ours, theirs)
    shake(source)
    target.load_state_dict(source.state_dict())
    images = torch.randn(
        2, 3, 33, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    answers, gradients = [], []
    for model in (ours, theirs):
        x = images.clone().requires_grad_()
        answers.append(model(x))
        answers[-1].square().sum().backward()
        gradients.append([x.grad, *[p.grad for p in model.parameters()]])
    torch.testing.assert_close(*answers, rtol=1e-9, atol=1e-9)
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(
            mine, other, rtol=1e-9, atol=1e-9 * (1 + other.abs().max().item())
        )


def test_training_mode_equals_torchvision_without_its_dice():
    ours = build("efficientnet_b0", num_classes=5, drop_path_rate=0.0).double()
    ours.classifier[0].p = 0.0
    theirs = torchvision.models.efficientnet_b0(
        num_classes=5, stochastic_depth_prob=0.0, dropout=0.0
    )
    theirs.double().load_state_dict(ours.state_dict())
    x = torch.randn(4, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-9, atol=1e-9)
    for (key, mine), other in zip(
        ours.state_dict().items(), theirs.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9, msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_norm_stochastic_depth_and_dropout_are_torchvisions(name):
    ours = on_meta(name)
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, weights=None)

    def norms(model):
        return [(m.eps, m.momentum) for m in model.modules() if isinstance(m, nn.BatchNorm2d)]

    def rates(model, kind, attribute):
        "Of the blocks that have a shortcut; elsewhere a rate means nothing."
        blocks = [m for m in model.modules() if type(m).__name__ == "MBConv" and m.use_res_connect]
        return [getattr(getattr(block, kind), attribute) for block in blocks]

    assert norms(ours) == norms(theirs)
    assert set(norms(ours)) == ({(1e-3, 0.01)} if name[-1] in "567" else {(1e-5, 0.1)})
    assert rates(ours, "drop_path", "rate") == pytest.approx(rates(theirs, "stochastic_depth", "p"))
    assert ours.classifier[0].p == theirs.classifier[0].p


def test_timms_weights_fit_in_order():
    theirs = timm.create_model("efficientnet_b0").eval()
    shake(theirs)
    ours = build("efficientnet_b0").eval()
    weights = dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True))
    ours.load_state_dict(weights)
    x = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


# ---- the numbered rows ---------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_P1_factories_take_num_classes_and_pretrained_and_have_the_published_size(name):
    factory = getattr(lesson, name)
    assert list(inspect.signature(factory).parameters)[:2] == ["num_classes", "pretrained"]
    assert [p.default for p in inspect.signature(factory).parameters.values()][:2] == [1000, False]
    assert n_params(on_meta(name)) == PARAMS[name][0]
    assert n_params(on_meta(name, 0)) == PARAMS[name][1]
    with pytest.raises(ValueError, match=f"Unknown weights of {name} 'V9'"):
        factory(1000, "V9")


def test_P3_P19_ten_classes():
    model = on_meta("efficientnet_b0", num_classes=10)
    assert n_params(model) == 4_020_358
    assert model.get_output_shape([4, 3, 224, 224]) == [4, 10]
    assert model.num_classes == model.output_dim == 10


@pytest.mark.parametrize(
    "name,size", zip(NAMES, [224, 240, 260, 300, 380, 456, 528, 600], strict=True)
)
def test_P18_default_input_size(name, size):
    assert on_meta(name).default_input_size == size


def test_P20_shapes_with_and_without_classifier():
    model = on_meta("efficientnet_b0")
    assert model.get_output_shape([1, 3, 224, 224]) == [1, 1000]
    features = model.forward_features([1, 3, 224, 224])
    assert features == features.shape == [1, 1280, 7, 7] and type(features.shape) is list
    model.remove_classifier()
    assert model.get_output_shape([1, 3, 224, 224]) == [1, 1280, 7, 7]
    assert model.forward_features([1, 3, 224, 224]) == [1, 1280, 7, 7]
    with torch.no_grad():
        images = torch.empty(1, 3, 224, 224, device="meta")
        assert list(model.eval()(images).shape) == [1, 1280, 7, 7]


def test_P21_has_classifier_and_num_features():
    model = on_meta("efficientnet_b0")
    assert model.has_classifier() and model.has_head()
    assert model.num_features() == model.num_features == 1280
    model.remove_classifier()
    assert not model.has_classifier() and not model.has_head() and model.num_features() == 1280


@pytest.mark.parametrize("name", NAMES)
def test_P22_channels_and_repeats(name):
    model = on_meta(name)
    assert [c for c, _ in model._plan] == CHANNELS[name]
    assert model.layer_config == REPEATS[name] and model.layer_config is not model.layer_config
    assert model.num_features == CHANNELS[name][-1]


def test_P23_the_diagrams_stages():
    model = on_meta("efficientnet_b0")
    shapes = [*model.get_stage_shapes([1, 3, 224, 224]).values()]
    sides = [112, 112, 56, 28, 14, 14, 7, 7, 7]
    channels = CHANNELS["efficientnet_b0"]
    assert shapes[:9] == [[1, c, s, s] for c, s in zip(channels, sides, strict=True)]
    assert shapes[9:] == [[1, 1280, 1, 1], [1, 1000]]
    assert isinstance(model.features[0][2], nn.SiLU)
    # the seed's diagram leaves the dropout out
    assert [type(layer) for layer in model.classifier] == [nn.Dropout, nn.Linear]
    assert model.classifier[0].p == 0.2
    kernels = [stage[0].block[-3][0].kernel_size[0] for stage in model.features[1:8]]
    strides = [stage[0].block[-3][0].stride[0] for stage in model.features[1:8]]
    assert kernels == [3, 3, 5, 3, 5, 5, 3] and strides == [1, 2, 2, 2, 1, 2, 1]


@pytest.mark.parametrize(
    "name,blocks,skips",
    zip(NAMES[:5], [16, 23, 23, 26, 32], [9, 16, 16, 19, 25], strict=True),
)
def test_P24_shortcuts_need_stride_1_and_equal_channels(name, blocks, skips):
    found = [m for m in on_meta(name).modules() if isinstance(m, MBConv)]
    assert (len(found), sum(m.use_res_connect for m in found)) == (blocks, skips)


def test_P27_a_head_of_ones_own():
    backbone = build("efficientnet_b0").eval()
    backbone.remove_classifier()
    head = nn.Linear(backbone.num_features, 7)
    with torch.no_grad():
        assert head(backbone(torch.randn(2, 3, 33, 33)).mean((2, 3))).shape == (2, 7)


# ---- shapes --------------------------------------------------------------------------------------
GRID = [(1, 1), (2, 3), (7, 31), (32, 32), (33, 65), (64, 1), (50, 70)]


@pytest.mark.parametrize("head", ["classifier", "pooled", "map"])
def test_closed_form_equals_meta_and_real_run(head):
    classes, pool = {"classifier": (5, None), "pooled": (0, "avg"), "map": (0, None)}[head]
    model = EfficientNet(0.25, 0.5, num_classes=classes, global_pool=pool).eval()
    twin = copy.deepcopy(model).to("meta")
    for height, width in GRID:
        for batch in (0, 1, 2):
            shape = [batch, 3, height, width]
            stages = model.get_stage_shapes(shape)
            with torch.no_grad():
                for net, device in ((model, "cpu"), (twin, "meta")):
                    x = torch.zeros(shape, device=device)
                    maps = net.forward_stages(x)
                    assert [list(m.shape) for m in maps] == [*stages.values()][:9]
                    answer = net.forward_head(maps[-1])
                    assert list(answer.shape) == model.get_output_shape(shape)
                    assert list(maps[-1].shape) == model.forward_features(shape)
                    if batch == 1:
                        assert net(x).shape == answer.shape
            if head != "pooled":
                assert [*stages.values()][-1] == model.get_output_shape(shape)


@pytest.mark.parametrize("name", NAMES)
def test_closed_form_equals_meta_run_at_the_native_size(name):
    model = on_meta(name).eval()
    side = model.default_input_size
    images = torch.empty(1, 3, side, side, device="meta")
    last = {224: 7, 240: 8, 260: 9, 300: 10, 380: 12, 456: 15, 528: 17, 600: 19}[side]
    assert model.forward_features(images.shape) == [1, CHANNELS[name][-1], last, last]
    with torch.no_grad():
        assert list(model.features(images).shape) == model.forward_features(images.shape)


def test_shapes_from_eight_threads_leave_the_model_alone():
    model = EfficientNet(0.5, 0.5)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    sides = list(range(1, 65)) * 8
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda s: model.forward_features([2, 3, s, 2 * s]), sides))
    assert found == [[2, 640, -(-s // 32), -(-2 * s // 32)] for s in sides]
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_concurrent_forwards_are_bit_equal_to_serial():
    model = EfficientNet(0.5, 0.5, num_classes=4).eval()
    inputs = [torch.randn(1, 3, 32, 32) for _ in range(16)]

    @torch.inference_mode()
    def run(x):
        return model(x)

    expected = [run(x) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        assert all(torch.equal(a, b) for a, b in zip(pool.map(run, inputs), expected, strict=True))


@pytest.mark.parametrize(
    "shape,message",
    [
        ([3, 64, 64], "expected 4D input"),
        ([1, 1, 64, 64], "expected 3 channels, got 1"),
        ([1, 3, 0, 64], "at least 1"),
    ],
)
def test_wrong_shapes_raise_what_was_wrong(shape, message):
    model = EfficientNet(0.5, 0.5)
    for ask in (model.get_output_shape, model.forward_features, model.get_stage_shapes):
        with pytest.raises(ValueError, match=message):
            ask(shape)
    if 0 not in shape:
        for ask in (model, model.forward_features, model.forward_stages):
            with pytest.raises(ValueError, match=message):
                ask(torch.zeros(shape))


# ---- the head, and other settings --------------------------------------------------------------------
def test_a_new_classifier_is_in_the_mode_of_the_model():
    model, x = EfficientNet(0.5, 0.5, num_classes=3).eval(), torch.rand(2, 3, 33, 40)
    model.reset_classifier(10)
    assert torch.equal(model(x), model(x))
    assert not any(part.training for part in model.modules())
    model.train().reset_classifier(10)
    assert all(part.training for part in model.classifier.modules())


def test_head_surgery_agrees_with_the_run():
    model = EfficientNet(0.5, 0.5, num_classes=3).eval()
    x = torch.randn(2, 3, 33, 40)
    changes = [
        (lambda: None, [2, 3]),
        (model.remove_head, [2, 640, 2, 2]),
        (lambda: model.reset_classifier(0), [2, 640]),
        (lambda: model.reset_classifier(9), [2, 9]),
        (lambda: setattr(model, "classifier", nn.Linear(640, 4)), [2, 4]),
        (lambda: setattr(model, "classifier", nn.Identity()), [2, 640]),
    ]
    with torch.no_grad():
        for change, shape in changes:
            change()
            assert list(model(x).shape) == model.get_output_shape(x.shape) == shape
            assert model.forward_feat(x).shape == (2, 640)


def test_features_stays_a_submodule():
    model = EfficientNet(0.5, 0.5).eval()
    x = torch.randn(1, 3, 32, 32)
    assert isinstance(model.features, nn.Sequential) and len(model.features) == 9
    with torch.no_grad():
        assert torch.equal(model.features(x), model.forward_features(x))
        assert torch.equal(model.forward_stages(x)[-1], model.forward_features(x))


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels(channels):
    model = EfficientNet(0.5, 0.5, in_channels=channels, num_classes=2).eval()
    assert model(torch.randn(1, channels, 32, 32)).shape == (1, 2)
    assert model.get_output_shape([1, channels, 32, 32]) == [1, 2]


def test_dropout_and_stochastic_depth_act_in_training_only():
    torch.manual_seed(0)
    model = EfficientNet(0.25, 2.0, num_classes=4, drop_path_rate=0.5)
    x = torch.randn(8, 3, 32, 32)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_backward_reaches_every_parameter():
    model = EfficientNet(0.25, 0.5, num_classes=3, drop_path_rate=0.0, dropout=0.0)
    model(torch.randn(4, 3, 64, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_state_dict_round_trip_and_deepcopy():
    first, second = (EfficientNet(0.25, 0.5, num_classes=3).eval() for _ in range(2))
    x = torch.randn(1, 3, 32, 32)
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        assert torch.equal(first(x), second(x)) and torch.equal(first(x), copy.deepcopy(first)(x))


def test_depthwise_convolutions_start_with_the_gain_of_their_own_inputs():
    torch.manual_seed(0)
    conv = EfficientNet().features[7][0].block[1][0]  # 1152 groups, 3×3
    assert conv.groups == 1152 and conv.weight.std().item() == pytest.approx(
        (2 / 9) ** 0.5, rel=0.05
    )


def test_wrong_settings_raise():
    with pytest.raises(ValueError, match="multipliers are above 0"):
        EfficientNet(width_mult=0)
    with pytest.raises(ValueError, match="stride is 1 or 2"):
        MBConv(8, 8, stride=3)
    with pytest.raises(ValueError, match="global_pool"):
        EfficientNet(0.25, 0.5, global_pool="max")


@pytest.mark.parametrize("mult", [0.25, 1.0, 1.1, 1.4, 3.1])
def test_scale_channels_is_a_multiple_of_8_and_not_much_less(mult):
    for channels in range(1, 400, 7):
        rounded = scale_channels(channels, mult)
        assert rounded % 8 == 0 and rounded >= 0.9 * channels * mult
        assert rounded == torchvision.models._utils._make_divisible(channels * mult, 8)


def test_conv_norm_halves_upwards():
    for side in range(1, 12):
        assert conv_norm(1, 1, 5, stride=2)(torch.zeros(2, 1, side, 3)).shape[2] == -(-side // 2)


def test_factory_settings_can_be_replaced():
    model = lesson.efficientnet_b0(dropout=0.0, num_classes=3)
    assert model.classifier[0].p == 0.0 and model.classifier[1].out_features == 3
