"""Residual blocks against torchvision and timm, and the small parts by their definitions."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from nenya_nb.models.blocks import (
    BasicBlock,
    Bottleneck,
    DropPath,
    SqueezeExcitation,
    conv1x1,
    conv3x3,
    projection_shortcut,
)

torch.set_num_threads(1)
PAIRS = {
    "basic": (BasicBlock, torchvision.models.resnet.BasicBlock, {}, {}),
    "bottleneck": (Bottleneck, torchvision.models.resnet.Bottleneck, {}, {}),
    "resnext": (
        Bottleneck,
        torchvision.models.resnet.Bottleneck,
        {"cardinality": 8, "base_width": 4},
        {"groups": 8, "base_width": 4},
    ),
    "wide": (
        Bottleneck,
        torchvision.models.resnet.Bottleneck,
        {"base_width": 128},
        {"base_width": 128},
    ),
    "dilated": (
        Bottleneck,
        torchvision.models.resnet.Bottleneck,
        {"dilation": 2},
        {"dilation": 2},
    ),
}


def gradients(module, x):
    x = x.clone().requires_grad_()
    out = module(x)
    out.square().sum().backward()
    return out, [x.grad, *(p.grad for p in module.parameters())]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", PAIRS)
def test_block_matches_torchvision(name, stride):
    ours_class, theirs_class, our_args, their_args = PAIRS[name]
    out_channels = 16 * ours_class.expansion

    def shortcut():
        return projection_shortcut(24, out_channels, stride)

    ours = ours_class(24, 16, stride, shortcut(), **our_args).double()
    theirs = theirs_class(24, 16, stride, shortcut(), **their_args).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 24, 9, 7, dtype=torch.float64)
    (out, grads), (expected, expected_grads) = gradients(ours, x), gradients(theirs, x)
    torch.testing.assert_close(out, expected, atol=1e-9, rtol=0)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, atol=1e-9, rtol=1e-9)


def test_block_without_shortcut_adds_its_input():
    block = Bottleneck(64, 16)
    block.zero_init_last()
    x = torch.randn(2, 64, 5, 5)
    assert torch.equal(block(x), x.relu())


@pytest.mark.parametrize("block, convolutions", [(BasicBlock, 2), (Bottleneck, 3)])
def test_block_p10_counts_convolutions(block, convolutions):
    main = [m for m in block(64, 64 // block.expansion).modules() if isinstance(m, nn.Conv2d)]
    assert len(main) == convolutions


@pytest.mark.parametrize("args", [{"cardinality": 32}, {"base_width": 128}])
def test_basic_block_refuses_groups_and_width(args):
    with pytest.raises(ValueError, match="use Bottleneck"):
        BasicBlock(16, 16, **args)


def test_block_dilation_keeps_the_size():
    x = torch.randn(1, 16, 9, 9)
    assert BasicBlock(16, 16, dilation=3)(x).shape == x.shape


def test_block_custom_norm_is_used_everywhere():
    block = Bottleneck(32, 8, norm_layer=lambda c: nn.GroupNorm(2, c))
    kinds = {type(m) for m in block.modules()}
    assert nn.GroupNorm in kinds and nn.BatchNorm2d not in kinds


def test_block_does_not_overwrite_what_hooks_see():
    block, seen = BasicBlock(8, 8), {}
    block.bn1.register_forward_hook(lambda m, i, o: seen.update(bn1=o))
    block(torch.randn(2, 8, 4, 4))
    assert (seen["bn1"] < 0).any()  # an in-place ReLU would have left none


@pytest.mark.parametrize("size", [1, 2, 3, 8, 9])
@pytest.mark.parametrize("stride", [1, 2])
def test_projection_shortcut_averaging_matches_timm(size, stride):
    ours = projection_shortcut(6, 10, stride, average=True).eval()
    theirs = timm.models.resnet.downsample_avg(6, 10, 1, stride=stride).eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 6, size, size + 1)
    torch.testing.assert_close(ours(x), theirs(x))


def test_squeeze_excitation_matches_torchvision():
    ours, theirs = SqueezeExcitation(32, 8), torchvision.ops.SqueezeExcitation(32, 8)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 32, 5, 6)
    torch.testing.assert_close(ours(x), theirs(x))


def test_squeeze_excitation_never_has_zero_width():
    assert SqueezeExcitation(8).fc1.out_channels == 1


def test_drop_path_matches_torchvision():
    x, theirs = torch.randn(64, 3, 2, 2), torchvision.ops.StochasticDepth(0.3, "row")
    torch.manual_seed(1)
    ours = DropPath(0.3)(x)
    torch.manual_seed(1)
    torch.testing.assert_close(ours, theirs(x))


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2])
def test_drop_path_refuses_wrong_rates(rate):
    with pytest.raises(ValueError, match="below 1"):
        DropPath(rate)


@pytest.mark.parametrize("height", range(1, 12))
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_convolutions_round_up(height, stride):
    x = torch.zeros(1, 2, height, 5)
    expected = (-(-height // stride), -(-5 // stride))
    for conv in (conv3x3(2, 3, stride), conv3x3(2, 3, stride, dilation=2), conv1x1(2, 3, stride)):
        assert conv(x).shape[2:] == expected and conv.bias is None


def test_block_extras_compose():
    block = Bottleneck(64, 16, se=True, se_args={"reduction": 4}, drop_path=0.2)
    assert block.se.fc1.out_channels == 16
    out = block(torch.randn(4, 64, 5, 5))
    out.sum().backward()
    assert out.shape == (4, 64, 5, 5)
