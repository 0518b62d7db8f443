"""Every part remembers how it was called, and `build` makes the same again from it."""

import copy
import inspect
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from algorithms import CONFIGS
from torch import nn

import nenya_nb.models as nb
from nenya_nb.models import BasicBlock, Described, PreActBasicBlock, ResNet, SimCLR, build

PARTS = sorted(
    (kind for kind in vars(nb).values() if inspect.isclass(kind) and issubclass(kind, Described)),
    key=lambda kind: kind.__name__,
)


def by_hand(value):
    "What a configuration says, by calling the constructors ourselves."
    if isinstance(value, list):
        return [by_hand(part) for part in value]
    if not isinstance(value, dict):
        return value
    arguments = {key: by_hand(part) for key, part in value.items() if key != "type"}
    return getattr(nb, value["type"])(**arguments) if "type" in value else arguments


def shapes(module):
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_an_algorithm_put_together_by_hand_knows_its_configuration(name):
    config = {"type": name, **CONFIGS[name]}
    made = by_hand(config)
    found = nb.to_config(made)
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(config))
    again = build(json.loads(json.dumps(found)), trusted=False)
    assert type(again) is type(made) and shapes(again) == shapes(made)


@pytest.mark.parametrize("kind", PARTS, ids=lambda kind: kind.__name__)
def test_every_part_is_found_by_its_name_and_help_shows_its_constructor(kind):
    if kind is not Described:
        assert nb.MODELS.get(kind.__name__) is kind
    shown = list(inspect.signature(kind).parameters)
    assert shown == list(inspect.signature(kind.__init__).parameters)[1:]


def test_everything_an_algorithm_is_given_is_described():
    "An exported module that is no part of another one's inside derives from Described."
    inside = "Attention BasicBlock Bottleneck CrossAttention DropPath LayerScale MBConv Mlp MomentumEncoder PatchEmbed "
    inside += "PatchMerging PreActBasicBlock PreActBlock PreActBottleneck RegressorBlock ResidualBlock SqueezeExcitation "
    inside += "SwinBlock SwinPatchEmbed SwinStage TransformerBlock WindowAttention"
    modules = {k for k in vars(nb).values() if inspect.isclass(k) and issubclass(k, nn.Module)}
    plain = {kind.__name__ for kind in modules if not issubclass(kind, Described)}
    assert plain == set(inside.split())


@pytest.mark.parametrize(
    "make",
    [
        lambda: nb.resnet18(num_classes=0, stem_type="small", in_channels=1),
        lambda: nb.resnext50_32x4d(),
        lambda: nb.resnet_tiny(),
        lambda: nb.resnet164_cifar(10),
        lambda: nb.efficientnet_b0(num_classes=5),
        lambda: nb.dino_vits16(img_size=32),
        lambda: ResNet(BasicBlock, [1, 1], channels=[8, 16], num_classes=3),
        lambda: ResNet(PreActBasicBlock, [1, 1], channels=(8, 16), block_args={"se": True}),
        lambda: nb.SupConResNet("resnet18", feat_dim=32),
        lambda: nb.HOGGenerator(),
    ],
)
def test_networks_of_factories_come_back(make):
    made = make()
    config = json.loads(json.dumps(nb.to_config(made)))
    again = build(config)
    assert type(again) is type(made) and shapes(again) == shapes(made)
    assert str(again) == str(made)


def test_numbers_of_numpy_paths_and_tuples_are_plain():
    class Part(Described):
        def __init__(self, *more, **settings):
            super().__init__()

    part = Part(
        a=np.int64(3), b=np.float32(0.5), c=Path("x/y"), d=((1, 2),), e={"k": np.bool_(True)}
    )
    config = dict(part.build_config)
    assert config.pop("type").endswith("Part")
    assert json.loads(json.dumps(config)) == dict(a=3, b=0.5, c="x/y", d=[[1, 2]], e={"k": True})
    assert "more>" in Part(1, 2).build_config["more"]


def test_the_caller_may_change_what_it_gave():
    channels, args = [8, 16], {"se": True}
    made = ResNet("basic", [1, 1], channels=channels, block_args=args)
    channels.append(32), args.update(se=False)
    config = nb.to_config(made)
    assert config["channels"] == [8, 16] and config["block_args"] == {"se": True}
    config["channels"].append(1)
    assert nb.to_config(made)["channels"] == [8, 16]


def test_what_cannot_be_written_down_is_refused_with_its_place():
    neck = nn.Sequential(nn.Linear(128, 8))
    made = SimCLR(nb.resnet_tiny(), neck)
    assert made.build_config["neck"] == "<Sequential>"
    with pytest.raises(ValueError, match="SimCLR: neck is <Sequential>, which cannot be written"):
        nb.to_config(made)
    deep = SimCLR(
        ResNet("basic", [1], channels=[8], num_classes=0, norm_layer=lambda c: nn.GroupNorm(1, c))
    )
    with pytest.raises(ValueError, match="backbone.norm_layer is <<lambda>>"):
        nb.to_config(deep)


def test_copies_pickles_and_subclasses():
    made = SimCLR(nb.resnet_tiny(), head=nb.ContrastiveHead(temperature=0.2))
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert other.build_config == made.build_config
        assert other.build_config["head"] == {"type": "ContrastiveHead", "temperature": 0.2}
    assert not [key for key in made.state_dict() if "config" in key]

    class Mine(SimCLR):
        pass

    assert Mine(nb.resnet_tiny()).build_config["type"] == f"{__name__}.{Mine.__qualname__}"


def test_wrong_arguments_fail_as_they_always_did():
    with pytest.raises(TypeError, match="unexpected keyword argument 'temprature'"):
        nb.ContrastiveHead(temprature=0.1)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'backbone'"):
        SimCLR()


def test_a_network_of_timm_and_one_of_torch():
    made = SimCLR(nb.get_backbone("timm:resnet10t"))
    assert shapes(build(nb.to_config(made))) == shapes(made)
    plain = SimCLR(nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), nb.LinearNeck(4, 4))
    with torch.no_grad():
        assert plain.extract_feat(torch.zeros(2, 3, 2, 2)).shape == (2, 4)
    with pytest.raises(ValueError, match="backbone is <Sequential>"):
        nb.to_config(plain)


@pytest.mark.parametrize(
    "make",
    [
        nb.resnet18,
        nb.efficientnet_b0,
        lambda: nb.dino_vits16(num_classes=5),
        lambda: nb.get_backbone("resnet18", num_classes=7),
    ],
)
def test_a_classifier_taken_away_or_replaced_is_noted(make):
    net = make()
    net.reset_classifier(3)
    assert shapes(build(nb.to_config(net))) == shapes(net) and net.num_classes == 3
    net.remove_head()
    made = SimCLR(net)
    assert shapes(build(nb.to_config(made))) == shapes(made)


def test_defaults_are_not_noted():
    assert nb.ResNet("basic", [1], channels=[8]).build_config == {
        "type": "ResNet",
        "block": "basic",
        "layers": [1],
        "channels": [8],
    }
    assert nb.VisionTransformer(32, 8).build_config == {
        "type": "VisionTransformer",
        "img_size": 32,
        "patch_size": 8,
    }
