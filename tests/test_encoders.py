"""Nenya's encoders: every row of seed 000."""

import inspect

import pytest
import torch
import torch.nn.functional as F

import nenya_nb.models as nb
from nenya_nb.models import (
    SupCEResNet,
    SupConResNet,
    WeightsUnavailable,
    get_resnet,
    split_views,
)

torch.set_num_threads(1)
NAMES = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]


def n_params(module):
    return sum(p.numel() for p in module.parameters())


def on_meta(build):
    with torch.device("meta"):
        return build()


def test_row_n1_import_path():
    from nenya_nb.models import resnet_big

    assert resnet_big.SupConResNet is nb.SupConResNet
    assert resnet_big.SupCEResNet is nb.SupCEResNet and resnet_big.get_resnet is nb.get_resnet
    parameters = list(inspect.signature(SupConResNet).parameters.values())
    assert [p.name for p in parameters[:3]] == ["name", "head", "feat_dim"]
    assert all(p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD) for p in parameters[3:])


@pytest.mark.parametrize("name", NAMES)
def test_row_n2_all_depths_build(name):
    assert on_meta(lambda: SupConResNet(name)).encoder.variant == name


@pytest.mark.parametrize(
    "head, small, large", [("linear", 65_664, 262_272), ("mlp", 328_320, 4_458_624)]
)
def test_row_n3_heads(head, small, large):
    for name in NAMES:
        model = on_meta(lambda name=name: SupConResNet(name, head=head))
        assert n_params(model.head) == (small if name in NAMES[:2] else large)
    keys = {k for k in model.state_dict() if k.startswith("head")}
    expected = {"head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias"}
    assert keys == (expected if head == "mlp" else {"head.weight", "head.bias"})


def test_row_n3_other_head_raises():
    with pytest.raises(ValueError, match="Did you mean 'mlp'"):
        on_meta(lambda: SupConResNet("resnet18", head="mlpp"))


def test_row_n4_n5_embedding_has_length_one():
    model = SupConResNet("resnet18").eval()
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        z, h = model(x), model.forward_feat(x)
    assert z.shape == (3, 128) and h.shape == (3, 512)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(z, F.normalize(model.head(h), dim=1))
    assert (h.norm(dim=1) - 1).abs().min() > 0.01


def test_row_n5_resnet50_features():
    model = SupConResNet(stem="imagenet").eval()
    with torch.no_grad():
        assert model.forward_feat(torch.randn(2, 3, 32, 32)).shape == (2, 2048)


def test_row_n6_supce_signature():
    parameters = list(inspect.signature(SupCEResNet).parameters.values())[:4]
    expected = [("name", "resnet50"), ("num_classes", 10), ("head", "mlp"), ("feat_dim", 128)]
    assert [(p.name, p.default) for p in parameters] == expected


def test_row_n7_n8_supce_classifies_the_features():
    model = SupCEResNet("resnet18").eval()
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        assert model(x).shape == (3, 10) and model.features(x).shape == (3, 512)
        assert torch.equal(model.fc(model.features(x)), model(x))
        z = model.project(x)
    assert z.shape == (3, 128) and (model(x).norm(dim=1) - 1).abs().max() > 0.01
    torch.testing.assert_close(z.norm(dim=1), torch.ones(3))


def test_row_n9_get_resnet_is_headless_and_pooled():
    model = get_resnet("resnet18")
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 512)
    assert model.output_dim == 512 and not model.has_fc()
    assert model.get_output_shape([2, 3, 64, 64]) == [2, 512]


def test_row_n9_pretrained_says_what_to_do_without_network(no_weights):
    with pytest.raises(WeightsUnavailable, match="resnet18-f37072fd.pth"):
        get_resnet("resnet18", pretrained=True)
    with pytest.raises(WeightsUnavailable, match="IMAGENET1K_V1"):
        get_resnet("resnet50", pretrained="V1")


def test_section_2_2_pretrained_takes_the_imagenet_stem(no_weights):
    no_weights.mkdir(parents=True)
    donor = get_resnet("resnet18", num_classes=1000)
    torch.save(donor.state_dict(), no_weights / "own.pth")
    model = SupConResNet("resnet18", pretrained=str(no_weights / "own.pth"))
    assert torch.equal(model.encoder.conv1.weight, donor.conv1.weight)


def test_row_n10_unknown_name():
    with pytest.raises(ValueError, match=r"Unknown ResNet 'resnet7'.*resnet18.*resnet50"):
        get_resnet("resnet7")
    with pytest.raises(ValueError, match="Did you mean 'resnet50'"):
        get_resnet("resnet55")


@pytest.mark.parametrize(
    "name, headless, full",
    [
        ("resnet18", 11_176_512, 11_689_512),
        ("resnet34", 21_284_672, 21_797_672),
        ("resnet50", 23_508_032, 25_557_032),
        ("resnet101", 42_500_160, 44_549_160),
        ("resnet152", 58_143_808, 60_192_808),
    ],
)
def test_row_n11_parameters_and_depth(name, headless, full):
    model = on_meta(lambda: get_resnet(name))
    assert n_params(model) == headless
    model.to_empty(device="meta").reset_classifier(1000)
    assert n_params(model) == full
    convolutions = [
        k for k, p in model.named_parameters() if p.dim() == 4 and "downsample" not in k
    ]
    assert len(convolutions) + 1 == int(name.removeprefix("resnet"))


def test_row_n12_defaults():
    defaults = {k: p.default for k, p in inspect.signature(SupConResNet).parameters.items()}
    assert (defaults["name"], defaults["head"], defaults["feat_dim"]) == ("resnet50", "mlp", 128)


def test_row_n13_usage():
    model = SupConResNet(name="resnet50", feat_dim=128, stem="imagenet")
    assert model(torch.randn(10, 3, 64, 64)).shape == (10, 128)
    assert n_params(model) == 27_966_656
    assert n_params(on_meta(lambda: SupConResNet(name="resnet50", feat_dim=128))) == 27_958_976


@pytest.mark.parametrize("size", [(1, 1), (7, 33), (64, 64)])
def test_row_n14_any_size_in_eval(size):
    model = SupConResNet("resnet18").eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, *size)).shape == (1, 128)


def test_row_n14_batch_of_one_in_training_says_why():
    model = SupConResNet("resnet50", stem="imagenet").train()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model(torch.randn(1, 3, 32, 32))


def test_row_n15_split_views():
    model = SupConResNet("resnet_tiny").eval()
    x = torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        z, features = model(x), split_views(model(x))
    assert features.shape == (4, 2, 128)
    assert torch.equal(features[:, 0], z[:4]) and torch.equal(features[:, 1], z[4:])


def test_encoder_stems():
    small, imagenet = (
        on_meta(lambda s=s: SupConResNet("resnet18", stem=s)) for s in ("small", "imagenet")
    )
    assert small.encoder.forward_features([1, 3, 32, 32])[-1] == [1, 512, 4, 4]
    assert imagenet.encoder.forward_features([1, 3, 32, 32])[-1] == [1, 512, 1, 1]
    with pytest.raises(ValueError, match="Did you mean 'imagenet'"):
        SupConResNet("resnet18", stem="image")


@pytest.mark.parametrize("build", [SupConResNet, SupCEResNet])
def test_encoder_takes_other_channels_and_settings(build):
    model = build("resnet_tiny", in_channels=1, drop_path_rate=0.1).eval()
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, model.output_dim)


@pytest.mark.parametrize("build", [SupConResNet, SupCEResNet])
def test_encoder_state_dict_round_trip(build):
    a, b = build("resnet_tiny").eval(), build("resnet_tiny").eval()
    b.load_state_dict(a.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(a(x), b(x))


def test_encoder_loads_torchvision_weights():
    import torchvision

    weights = torchvision.models.resnet18(weights=None).state_dict()
    result = get_resnet("resnet18").load_state_dict(weights, strict=False)
    assert not result.missing_keys and set(result.unexpected_keys) == {"fc.weight", "fc.bias"}
