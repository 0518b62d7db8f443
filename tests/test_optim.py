"""Optimizers: who decays, by which rule, how fast."""

import math

import pytest
import torch
from torch import nn

from nenya_nb.core import Clock
from nenya_nb.training.optim import (
    build_optimizer,
    layer_numbers,
    parameter_groups,
    set_learning_rate,
    set_weight_decay,
)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 4), nn.LayerNorm(4)
    )


def test_groups_hold_every_trainable_parameter_once():
    model = network()
    model[3].weight.requires_grad_(False)
    model.tied = model[0]
    groups = parameter_groups(model, 0.1)
    found = [p for group in groups for p in group["params"]]
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert len(found) == len(trainable) and {id(p) for p in found} == {id(p) for p in trainable}


def test_norms_and_biases_do_not_decay():
    decay, no_decay = parameter_groups(network(), 0.1)
    assert all(p.ndim > 1 for p in decay["params"]) and decay["weight_decay"] == 0.1
    assert len(no_decay["params"]) == 6 and no_decay["weight_decay"] == 0


def test_groups_of_one_kind_give_no_empty_group():
    assert len(parameter_groups(nn.Linear(2, 2, bias=False), 0.1)) == 1


def test_frozen_model_is_refused():
    with pytest.raises(ValueError, match="Linear has no parameter"):
        parameter_groups(nn.Linear(2, 2).requires_grad_(False), 0.1)


@pytest.mark.parametrize("name, kind", [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_build_optimizer_one_step_equals_torch(name, kind):
    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    theirs.load_state_dict(ours.state_dict())
    a = build_optimizer(name, ours, lr=0.1, weight_decay=0.3)
    b = kind(
        theirs.parameters(),
        lr=0.1,
        weight_decay=0.3,
        **({"momentum": 0.9} if name == "sgd" else {}),
    )
    for optimizer, model in ((a, ours), (b, theirs)):
        for _ in range(3):
            model(torch.ones(2, 3)).square().sum().backward()
            optimizer.step(), optimizer.zero_grad()
    assert torch.equal(ours.weight, theirs.weight)


def test_build_optimizer_defaults_and_options():
    group = build_optimizer("adamw", network()).param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (1e-3, 1e-2)
    group = build_optimizer("sgd", network(), nesterov=True).param_groups[0]
    assert (group["lr"], group["weight_decay"], group["momentum"], group["nesterov"]) == (
        5e-2,
        1e-4,
        0.9,
        True,
    )
    assert (
        build_optimizer("adamw", network(), weight_decay=0.0).param_groups[0]["weight_decay"] == 0
    )


def test_build_optimizer_explains_mistakes():
    with pytest.raises(ValueError, match="Did you mean 'adamw'"):
        build_optimizer("adanw", network())
    with pytest.raises(TypeError):
        build_optimizer("adamw", network(), beta=1)
    with pytest.raises(ValueError):
        build_optimizer("sgd", network(), lr=-1.0)


def test_learning_rate_is_warmup_times_cosine_times_scale():
    optimizer, clock = (
        build_optimizer("sgd", network(), lr=2.0),
        Clock(steps_per_epoch=50, epochs=4),
    )
    expected = {0: 2 / 11, 9: 20 / 11, 10: 2.0, 105: 1.0, 200: 0.0}
    for step, rate in expected.items():
        clock.step = step
        assert math.isclose(
            set_learning_rate(optimizer, clock, warmup_steps=10), rate, abs_tol=1e-12
        )
    clock.step = 105
    assert math.isclose(set_learning_rate(optimizer, clock, warmup_steps=10, scale=0.25), 0.25)
    assert math.isclose(
        set_learning_rate(optimizer, clock, warmup_steps=10), 1.0
    )  # the scale is not remembered


def test_groups_keep_their_own_peak():
    model = network()
    optimizer = torch.optim.SGD(
        [dict(params=model[0].parameters(), lr=1.0), dict(params=model[3].parameters(), lr=0.1)]
    )
    clock = Clock(steps_per_epoch=10, epochs=2, step=10)
    set_learning_rate(optimizer, clock)
    assert [round(group["lr"], 6) for group in optimizer.param_groups] == [0.5, 0.05]


class Predictor(nn.Module):
    constant_lr = ("head",)

    def __init__(self):
        super().__init__()
        self.neck, self.head = nn.Linear(4, 4), nn.Linear(4, 2)


def test_a_part_with_constant_lr_follows_no_schedule_but_the_slider():
    model, clock = Predictor(), Clock(steps_per_epoch=10, epochs=1)
    optimizer = build_optimizer("sgd", model, lr=1.0)
    constant = {id(p) for p in model.head.parameters()}
    for clock.step in range(10):
        set_learning_rate(optimizer, clock, warmup_steps=3, scale=0.5)
        for group in optimizer.param_groups:
            steady = {id(p) in constant for p in group["params"]}
            assert len(steady) == 1 and (group["lr"] == 0.5 or steady == {False})
    assert min(group["lr"] for group in optimizer.param_groups) < 0.1


def test_constant_lr_of_a_part_that_is_not_there_is_refused():
    model = Predictor()
    model.constant_lr = ("predictor",)
    with pytest.raises(ValueError, match="names 'predictor'"):
        parameter_groups(model, 0.1)


def test_weight_decay_as_a_pair_grows_along_half_a_cosine_and_survives_a_reload():
    clock = Clock(steps_per_epoch=10, epochs=1)
    optimizer = build_optimizer("adamw", network(), weight_decay=(0.04, 0.4))
    fresh = build_optimizer("adamw", network(), weight_decay=(0.04, 0.4))
    for clock.step in range(8):
        set_weight_decay(optimizer, clock)
    fresh.load_state_dict(optimizer.state_dict())
    set_weight_decay(fresh, clock)
    expected = 0.4 - 0.36 * (1 + math.cos(math.pi * 0.7)) / 2
    assert [g["weight_decay"] for g in fresh.param_groups] == [pytest.approx(expected), 0]


@pytest.mark.parametrize("library", ["ours", "timm"])
def test_tokens_and_positions_do_not_decay(library):
    if library == "ours":
        from nenya_nb.models import VisionTransformer

        vit = VisionTransformer(32, 8, 5, embed_dim=12, depth=1, num_heads=3)
    else:
        import timm

        vit = timm.create_model("vit_tiny_patch16_224", depth=1)
    decay, no_decay = parameter_groups(nn.Sequential(vit), 0.1)
    spared = {id(p) for p in no_decay["params"]}
    assert id(vit.cls_token) in spared and id(vit.pos_embed) in spared
    assert id(vit.head.weight) in {id(p) for p in decay["params"]}


# ---- layer by layer


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18", "resnet50"])
def test_layer_decay_gives_timms_rates(name):
    import timm
    from timm.optim import param_groups_layer_decay

    with torch.device("meta"):
        model = timm.create_model(name)
    theirs = param_groups_layer_decay(
        model, 0.05, no_weight_decay_list=getattr(model, "no_weight_decay", set)(), layer_decay=0.75
    )
    ours = parameter_groups(model, 0.05, layer_decay=0.75)

    def settings(groups):
        return {
            id(p): (round(g.get("lr_scale", 1.0), 9), g["weight_decay"])
            for g in groups
            for p in g["params"]
        }

    assert settings(ours) == settings(theirs)


@pytest.mark.parametrize("kind", ["ResNet", "VisionTransformer"])
def test_layer_decay_of_an_algorithm_counts_the_layers_of_its_backbone(kind):
    from nenya_nb.models import SimCLR, VisionTransformer, resnet_tiny

    backbone = (
        resnet_tiny() if kind == "ResNet" else VisionTransformer(32, 8, 0, embed_dim=12, depth=3)
    )
    model = SimCLR(backbone)
    optimizer = build_optimizer("adamw", model, lr=1.0, layer_decay=0.5)
    assert set_learning_rate(optimizer, Clock(10, 1)) == 1.0  # the first group is the uppermost
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert {rates[id(p)] for p in model.neck.parameters()} == {1.0}
    stem = backbone.conv1 if kind == "ResNet" else backbone.patch_embed
    blocks = 2 if kind == "VisionTransformer" else None
    lowest = min(rates.values())
    assert {rates[id(p)] for p in stem.parameters()} == {lowest}
    if blocks:
        assert rates[id(backbone.blocks[2].mlp.fc1.weight)] == 0.5 and lowest == 0.5**4


@pytest.mark.parametrize("name", ["timm:vit_tiny_patch16_224", "timm:convnext_atto"])
def test_layer_decay_sees_through_the_wrapper_of_a_backbone(name):
    from nenya_nb.models import get_backbone

    with torch.device("meta"):
        backbone = get_backbone(name, num_classes=0)
    bare, wrapped = layer_numbers(backbone.model), layer_numbers(backbone)
    assert {f"model.{key}": number for key, number in bare.items()} == wrapped
    assert max(wrapped.values()) >= 12 and min(wrapped.values()) == 0


@pytest.mark.parametrize("wrong", [-1.0, (0.1, -1.0), math.nan, math.inf])
def test_a_weight_decay_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="weight_decay=.*at least 0"):
        parameter_groups(network(), wrong)


@pytest.mark.parametrize("wrong", [75, 0, -0.5])
def test_a_layer_decay_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="expected a factor in"):
        parameter_groups(network(), 0.1, layer_decay=wrong)


def test_layer_decay_without_layers_is_refused():
    with pytest.raises(ValueError, match="tell of no blocks"):
        parameter_groups(nn.Linear(3, 3), 0.1, layer_decay=0.5)


# ---- LARS


def grown(make, seed=0, steps=5):
    "Weights after some steps, with gradients that are the same for every optimizer."
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)
    )
    optimizer = make(model)
    for _ in range(steps):
        for p in model.parameters():
            p.grad = torch.randn_like(p) * 3
        optimizer.step()
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("weight_decay", [1e-6, 0.1])
def test_lars_equals_lightlys(weight_decay, nesterov):
    from lightly.utils.lars import LARS as Theirs

    options = dict(lr=0.5, momentum=0.9, nesterov=nesterov)

    def theirs(model):
        return Theirs(parameter_groups(model, weight_decay), **options)

    def ours(model):
        return build_optimizer("lars", model, weight_decay=weight_decay, **options)

    for a, b in zip(grown(ours), grown(theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_lars_steps_are_a_part_of_the_weights_length_whatever_the_loss():
    from nenya_nb.training import LARS

    for scale in (1e-3, 1.0, 1e6):
        p = nn.Parameter(torch.randn(8, 8))
        before, p.grad = p.detach().clone(), scale * torch.randn(8, 8)
        LARS([p], lr=2.0, weight_decay=0.0).step()
        length = (p.detach() - before).norm() / before.norm()
        assert length == pytest.approx(2.0 * 0.001, rel=1e-4)


def test_lars_moves_zeros_and_skips_what_has_no_gradient():
    from nenya_nb.training import LARS

    zero, still = nn.Parameter(torch.zeros(3, 3)), nn.Parameter(torch.ones(3, 3))
    zero.grad = torch.ones(3, 3)
    optimizer = LARS([zero, still], lr=0.1)
    optimizer.step(), optimizer.step()
    assert (zero < 0).all()
    assert (still == 1).all() and still not in optimizer.state
    with pytest.raises(ValueError, match="momentum is -1"):
        LARS([zero], momentum=-1)


def test_lars_state_survives_a_reload():
    from nenya_nb.training import LARS

    def two():
        torch.manual_seed(1)
        p = nn.Parameter(torch.randn(4, 4))
        return p, LARS([p], lr=1.0)

    (a, first), (b, second) = two(), two()
    for p, optimizer in ((a, first), (b, second)):
        p.grad = torch.ones(4, 4)
        optimizer.step()
    c, third = two()
    c.data.copy_(b.data)
    third.load_state_dict(second.state_dict())
    for p, optimizer in ((a, first), (c, third)):
        p.grad = torch.eye(4)
        optimizer.step()
    assert torch.equal(a, c)


def test_lr_for_grows_with_the_batch():
    from nenya_nb.training import lr_for

    assert lr_for(256) == 0.3 and lr_for(4096, base=0.3) == pytest.approx(4.8)
