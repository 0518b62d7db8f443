"""Attention maps against explicit formulas, our models' own weights and brute force; the viewer without a browser."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nenya_nb.introspect.attention import (
    attention_distance,
    attention_entropy,
    attention_maps,
    attention_rollout,
    top_mass,
)
from nenya_nb.introspect.places import NOWHERE, PADDING, attention_weights
from nenya_nb.models.backbones.masked_vit import MAEViT
from nenya_nb.models.backbones.swin import SwinTransformer
from nenya_nb.models.backbones.vit import VisionTransformer

TINY = dict(embed_dim=16, depth=2, num_heads=2)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def vit(**more) -> VisionTransformer:
    return VisionTransformer(32, 8, 0, **TINY | more)


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["none", "bool", "added", "causal", "scale", "grouped", "half"])
def test_weights_give_what_the_fused_kernel_gives(kind):
    q, k, v = torch.randn(3, 2, 4, 9, 8).unbind(0)
    mask, options = None, {}
    if kind == "bool":
        mask = torch.rand(9, 9) > 0.3
        mask[:, 0] = True
    elif kind == "added":
        mask = torch.randn(2, 1, 9, 9)
    elif kind == "causal":
        options = {"is_causal": True}
    elif kind == "scale":
        options = {"scale": 0.7}
    elif kind == "grouped":
        k, v = k[:, :2], v[:, :2]
    elif kind == "half":
        q, k, v = q.bfloat16(), k.bfloat16(), v.bfloat16()
    more = {"enable_gqa": True} if kind == "grouped" else {}
    expected = F.scaled_dot_product_attention(q, k, v, mask, **options, **more)
    weights = attention_weights(q, k, mask, chunk=50, **options)
    values = v.float().repeat_interleave(2, 1) if kind == "grouped" else v.float()
    close = dict(atol=0.02, rtol=0.02) if kind == "half" else {}
    torch.testing.assert_close(weights @ values, expected.float(), **close)
    assert weights.dtype == torch.float32


def test_weights_of_a_row_that_sees_nothing_are_zero():
    mask = torch.zeros(1, 1, 3, 3, dtype=torch.bool)
    q = torch.randn(1, 1, 3, 4)
    assert attention_weights(q, q, mask).abs().sum() == 0


# --- our models, hand-written ones ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
def test_maps_equal_our_vit(training):
    model, images = vit(drop_path_rate=0.5).train(training), torch.randn(2, 3, 32, 32)
    maps = attention_maps(model, images)
    assert [one.path for one in maps] == ["blocks.0.attn", "blocks.1.attn"]
    assert model.training == training
    model.eval()
    for i, one in enumerate(maps):
        torch.testing.assert_close(one.weights, model.get_attention(images, i))
        assert one.key_grid == (4, 4) == one.query_grid and one.prefix == 1 and one.windows == 0
        assert one.cells(one.keys).tolist() == [[NOWHERE, *range(16)]] * 2


@pytest.mark.parametrize("size", [(32, 32), (28, 36), (20, 44)])
def test_maps_of_swin_know_where_each_token_lies(size):
    model = SwinTransformer(
        32, 0, embed_dim=8, depths=(2, 2), num_heads=(1, 2), window_size=4, patch_size=2
    ).eval()
    images = torch.randn(2, 3, *size)
    maps = attention_maps(model, images)
    h, w = size[0] // 2, size[1] // 2
    for i, one in enumerate(maps):
        torch.testing.assert_close(one.weights, model.get_attention(images, i))
        rows, columns = (h, w) if i < 2 else (-(-h // 2), -(-w // 2))
        assert one.key_grid == (rows, columns)
        cells = one.cells(one.keys)
        assert cells[0].equal(cells[1])
        seen = cells[0][cells[0] >= 0]
        assert sorted(seen.tolist()) == list(range(rows * columns))  # each token in one window
        block = model.layers[i // 2].blocks[i % 2]
        window, shift, filled = block.geometry((rows, columns))
        number = (
            torch.arange(rows * columns).view(1, 1, rows, columns).roll([-s for s in shift], (2, 3))
        )
        number = F.pad(number, (0, filled[1] - columns, 0, filled[0] - rows), value=PADDING)
        expected = F.unfold(number.double(), window, stride=window)[0].T.long()
        assert cells[0].equal(expected)


def test_hidden_tokens_of_mae_are_not_there():
    arch = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
    model, images = MAEViT(arch, 32, 4, mask_ratio=0.75), torch.randn(2, 3, 32, 32)
    torch.manual_seed(3)
    _, hidden, _ = model(images)
    torch.manual_seed(3)
    (one,) = attention_maps(model, images)
    for b in range(2):
        cells = one.cells(one.keys)[b]
        visible = torch.where(hidden[b] == 0)[0].tolist()
        assert sorted(cells[cells >= 0].tolist()) == visible


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("asked", [True, False])
def test_multihead_attention_returns_what_it_was_asked_for(first, asked):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.attn = (
                nn.Conv2d(3, 8, 4, 4),
                nn.MultiheadAttention(8, 2, batch_first=first, add_bias_kv=True),
            )

        def forward(self, x):
            x = self.conv(x).flatten(2).permute(0, 2, 1)  # (B, N, D)
            x = x if first else x.transpose(0, 1)
            return self.attn(x, x, x, need_weights=asked)

    net, images, seen = Net().eval(), torch.randn(2, 3, 8, 12), []
    (one,) = attention_maps(net, images, forward=lambda x: seen.append(net(x)))
    expected = net(images)
    torch.testing.assert_close(seen[0][0], expected[0])
    assert (seen[0][1] is None) == (not asked)
    if asked:
        torch.testing.assert_close(seen[0][1], expected[1])
    assert one.cells(one.keys)[0].tolist() == [0, 1, 2, 3, 4, 5, NOWHERE]
    assert one.weights.shape == (2, 2, 6, 7) and one.key_grid == (2, 3)


class Explicit(nn.Module):
    "A user's attention: patches by unfold, products by einsum or @, heads in the batch or not."

    def __init__(self, style: str):
        super().__init__()
        self.style, self.qkv, self.embed = style, nn.Linear(8, 24), nn.Linear(3 * 16, 8)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(F.unfold(x, 4, stride=4).transpose(1, 2))
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (y.unflatten(-1, (2, 4)).permute(0, 2, 1, 3) for y in (q, k, v))
        if self.style == "merged":
            q, k, v = (y.flatten(0, 1) for y in (q, k, v))
        if self.style == "einsum":
            weights = torch.einsum("bhid,bhjd->bhij", q, k).div(2).softmax(-1)
            self.kept = weights
            return torch.einsum("bhij,bhjd->bhid", self.drop(weights), v)
        product = torch.bmm if self.style == "merged" else torch.matmul
        self.kept = F.softmax(product(q, k.transpose(-2, -1)) * 0.5, dim=-1)
        return product(self.drop(self.kept), v)


@pytest.mark.parametrize("style", ["einsum", "plain", "merged"])
def test_attention_written_out_by_hand_is_seen(style):
    net = Explicit(style)
    (one,) = attention_maps(net, torch.randn(2, 3, 8, 12))
    torch.testing.assert_close(one.weights, net.kept.view(2, 2, 6, 6))
    assert one.kind == "softmax" and one.cells(one.queries)[1].tolist() == list(range(6))


def test_a_softmax_that_is_no_attention_is_not_seen():
    net = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Flatten(2), nn.Softmax(dim=-1))
    with pytest.raises(ValueError, match="ran without attention"):
        attention_maps(net, torch.randn(1, 3, 8, 8))


def test_module_is_left_as_it_was():
    model = nn.Sequential(nn.BatchNorm2d(3), vit(attn_drop_rate=0.5))
    model[1].blocks[0].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [part.training for part in model.modules()]
    state = torch.get_rng_state()
    attention_maps(model, torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(state, torch.get_rng_state())
    assert modes == [part.training for part in model.modules()]
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_module_is_left_as_it_was_when_it_fails():
    model = vit().train()
    with pytest.raises(ValueError):
        attention_maps(model, torch.randn(2, 5, 32, 32))
    assert model.training and not any(part._forward_hooks for part in model.modules())


def test_layers_and_reduce_choose_what_is_kept():
    maps = attention_maps(vit(), torch.randn(1, 3, 32, 32), layers=[1], reduce=lambda one: one.path)
    assert maps == ["blocks.1.attn"]


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_distance_and_entropy_by_brute_force():
    (one, _) = attention_maps(vit(), torch.randn(2, 3, 32, 32))
    distance, entropy = attention_distance(one), attention_entropy(one)
    for b in range(2):
        for head in range(2):
            total = []
            for i in range(16):
                weights = one.weights[b, head, 1 + i, 1:]
                apart = [8 * math.hypot(i // 4 - j // 4, i % 4 - j % 4) for j in range(16)]
                total.append(
                    sum(w * d for w, d in zip(weights.tolist(), apart, strict=True))
                    / weights.sum().item()
                )
            assert distance[b, head].item() == pytest.approx(sum(total) / 16, rel=1e-4)
            rows = [-sum(w * math.log(w) for w in row) for row in one.weights[b, head].tolist()]
            assert entropy[b, head].item() == pytest.approx(sum(rows) / 17, rel=1e-4)


def test_rollout_of_identity_is_identity_and_of_uniform_is_known():
    eye, n = torch.eye(5)[None], 5
    assert attention_rollout([eye, eye])[-1].equal(eye)
    flat = torch.full((1, n, n), 1 / n)
    expected = 0.25 * eye + 0.75 * flat  # (½ I + ½ U)² = ¼ I + ¾ U
    torch.testing.assert_close(attention_rollout([flat, flat])[-1], expected)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
def test_top_mass_is_the_smallest_set(share):
    weights = torch.rand(4, 30).softmax(-1)
    keep = top_mass(weights, share)
    held = (weights * keep).sum(-1)
    assert (held >= share - 1e-5).all()
    smallest = torch.where(keep, weights, 2).min(-1).values
    assert (held - smallest < share).all()


def test_top_mass_of_small_numbers():
    weights = torch.rand(3, 50) * 1e-8
    assert torch.equal(top_mass(weights), top_mass(weights * 2.0**20))
    assert top_mass(weights, 1.0).sum() == 150


def test_top_mass_says_what_a_share_is():
    with pytest.raises(ValueError, match="share is 60"):
        top_mass(torch.rand(3), 60)


# --- the viewer -------------------------------------------------------------------------------------------------------

import traitlets  # noqa: E402

from nenya_nb.widgets import base  # noqa: E402
from nenya_nb.widgets.attention import AttentionViewer  # noqa: E402
from nenya_nb.widgets.attention_bytes import from_bytes, to_bytes  # noqa: E402
from nenya_nb.widgets.pixels import unpack_array  # noqa: E402


@pytest.fixture
def bundles(monkeypatch):
    monkeypatch.setattr(base, "read_bundle", lambda name: f"/* {name} */")


def test_bytes_keep_sums_of_long_tails():
    row = torch.rand(20, 800) ** 8
    row[:, 0] = 400
    row = row / row.sum(-1, keepdim=True)
    assert (from_bytes(*to_bytes(row)).sum(-1) - 1).abs().max() < 0.02
    assert from_bytes(*to_bytes(torch.zeros(2, 3))).equal(torch.zeros(2, 3))
    small = torch.tensor([[1.0, 1e-6, 1e-4, 0.3]])
    bound = small.sqrt() / 255 + 1 / (4 * 255**2)
    assert ((from_bytes(*to_bytes(small)) - small).abs() <= bound + 1e-7).all()


def test_viewer_shows_the_weights(bundles):
    model, images = vit(), torch.randn(3, 3, 32, 32)
    viewer = AttentionViewer(model, images, image=2, layer=0, head=1, query=[1, 2])
    truth = attention_maps(model, images)[0].weights[2, 1, 1 + 6, 1:]
    assert viewer.token() == 6
    torch.testing.assert_close(viewer.shown.flatten(), truth, atol=1e-3, rtol=0)
    viewer.query, viewer.head = [0], -1
    truth = attention_maps(model, images)[0].weights[2, :, 0, 1:].mean(0)
    torch.testing.assert_close(viewer.shown.flatten(), truth, atol=1e-3, rtol=0)
    viewer.rollout, viewer.layer = True, 1
    rolled = attention_rollout(one.weights for one in attention_maps(model, images))
    torch.testing.assert_close(viewer.shown.flatten(), rolled[-1][2, 0, 1:], atol=1e-3, rtol=0)


def test_viewer_draws_fields_of_any_channels(bundles):
    model = VisionTransformer(32, 8, 0, in_channels=5, embed_dim=16, depth=1, num_heads=2)
    field = torch.randn(2, 5, 32, 32) * 50 + 300
    viewer = AttentionViewer(model, field)
    pixels = unpack_array(viewer.images)
    assert pixels.shape == (2, 32, 32, 1) and pixels.float().std() > 40
    assert viewer.figure().subfigs[0].axes[0].images[0].get_array().shape == (32, 32)
    with pytest.raises(TypeError, match="images are a list; expected a tensor"):
        AttentionViewer(model, [field])


def test_viewer_carries_what_fits_and_fetches_the_rest(bundles, monkeypatch):
    monkeypatch.setattr(AttentionViewer, "budget", 2400)  # 2 · 17² = 578 each
    viewer = AttentionViewer(vit(depth=4), torch.randn(2, 3, 32, 32))
    assert "of 8 maps" in viewer.note
    whole = [key for key, one in viewer.maps.items() if one["queries"]["shape"][1] == 17]
    assert {"0.3", "1.3"} <= set(whole) and viewer.maps["1.0"]["queries"]["shape"] == [1, 1]
    viewer.layer, viewer.query = 0, [3, 3]
    assert viewer.extra["key"] == "0.0"
    packed = viewer.extra["map"]
    assert unpack_array(packed["queries"]).tolist() == [[15]] and packed["weights"]["shape"] == [
        1,
        2,
        1,
        17,
    ]
    state = viewer.page_state()
    assert "extra" not in state and state["maps"] == viewer.maps


@pytest.mark.parametrize(
    "name, value", [("image", 2), ("layer", 2), ("head", 2), ("query", [4, 0]), ("query", [1])]
)
def test_viewer_refuses_what_is_not_there(bundles, name, value):
    viewer = AttentionViewer(vit(), torch.randn(2, 3, 32, 32))
    with pytest.raises(traitlets.TraitError, match=name):
        setattr(viewer, name, value)
    with pytest.raises(TypeError, match="Unknown setting 'colour'"):
        AttentionViewer(vit(), torch.randn(1, 3, 32, 32), colour=1)
    with pytest.raises(ValueError, match="every=0; expected 1 epoch"):
        AttentionViewer(vit(), torch.randn(1, 3, 32, 32), every=0)
    with pytest.raises(ValueError, match=r"expected \(B, C, H, W\)"):
        AttentionViewer(vit(), torch.randn(3, 32, 32))


def test_viewer_of_swin_has_windows_and_no_rollout(bundles):
    model = SwinTransformer(
        32, 0, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4, patch_size=2
    )
    viewer = AttentionViewer(model, torch.randn(1, 3, 32, 32), layer=0)
    assert viewer.query == [8, 8] and viewer.shown.isfinite().sum() == 16
    viewer.layer = 1
    assert viewer.shown.shape == (8, 8) and viewer.token() == 4 * 8 + 4
    with pytest.raises(traitlets.TraitError, match="same tokens"):
        viewer.rollout = True
    assert viewer.figure() is not None and "SwinTransformer" in repr(viewer)
