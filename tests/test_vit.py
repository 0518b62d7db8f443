"""The vision transformer, its parts and DINO's four: parity with timm, facebook's position rule, shapes, attention.

Rows of the specification are named in the tests (D2, D4, C4, …)."""

import copy
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import timm
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from nenya_nb.models.backbones.attention import Attention, LayerScale, TransformerBlock
from nenya_nb.models.backbones.base import TensorSpec
from nenya_nb.models.backbones.tokens import PatchEmbed, resize_positions, sincos_positions
from nenya_nb.models.backbones.vit import (
    VisionTransformer,
    dino_vitb8,
    dino_vitb16,
    dino_vits8,
    dino_vits16,
    vit_from_mmselfsup,
)
from nenya_nb.models.backbones.weights import WeightsUnavailable

TINY = dict(img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=3)
FACTORIES = [dino_vits16, dino_vits8, dino_vitb16, dino_vitb8]
NAMES = ["dino_vits16", "dino_vits8", "dino_vitb16", "dino_vitb8"]


def tiny(num_classes=0, **kwargs) -> VisionTransformer:
    return VisionTransformer(num_classes=num_classes, **TINY | kwargs).eval()


def on_meta(build):
    with torch.device("meta"):
        return build()


def count(model) -> int:
    return sum(p.numel() for p in model.parameters())


def randomise(model) -> None:
    "Every parameter random, so that a swapped or forgotten one is noticed."
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)


# ---- parity with timm ----


def timm_pair(num_classes=0, **timm_args):
    theirs = timm.create_model(
        "vit_small_patch16_224", num_classes=num_classes, img_size=64, depth=4, **timm_args
    )
    ours = dino_vits16(num_classes=num_classes, img_size=64, depth=4)
    return ours.double().eval(), theirs.double().eval()


@pytest.mark.parametrize("num_classes", [0, 7])
def test_vit_has_timm_keys_and_shapes(num_classes):
    ours = on_meta(lambda: dino_vits16(num_classes))
    theirs = on_meta(lambda: timm.create_model("vit_small_patch16_224", num_classes=num_classes))
    shapes = {k: v.shape for k, v in ours.state_dict().items()}
    assert shapes == {k: v.shape for k, v in theirs.state_dict().items()}


@pytest.mark.parametrize("direction", ["from timm", "to timm"])
def test_vit_matches_timm_in_outputs_and_gradients(direction):
    ours, theirs = timm_pair(num_classes=7)
    source, target = (theirs, ours) if direction == "from timm" else (ours, theirs)
    randomise(source)
    target.load_state_dict(source.state_dict())
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    ours_in, theirs_in = x.clone().requires_grad_(), x.clone().requires_grad_()
    a, b = ours(ours_in), theirs(theirs_in)
    assert (a - b).abs().max() < 1e-9
    weights = torch.randn_like(a)
    (a * weights).sum().backward()
    (b * weights).sum().backward()
    assert (ours_in.grad - theirs_in.grad).abs().max() < 1e-9
    others = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        scale = others[name].grad.abs().max().clamp(min=1)
        assert (parameter.grad - others[name].grad).abs().max() < 1e-9 * scale, name


def test_vit_tokens_match_timm_forward_features():
    ours, theirs = timm_pair()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    assert (ours.forward_features(x) - theirs.forward_features(x)).abs().max() < 1e-9
    wanted = theirs.forward_intermediates(x, indices=[0, 2], norm=True, intermediates_only=True)
    for mine, other in zip(ours.forward_stages(x, blocks=[0, 2]), wanted, strict=True):
        assert mine.shape == other.shape and (mine - other).abs().max() < 1e-9


def test_vit_with_layer_scale_matches_timm():
    ours, theirs = (
        dino_vits16(img_size=32, depth=2, init_values=0.1),
        timm.create_model(
            "vit_small_patch16_224", num_classes=0, img_size=32, depth=2, init_values=0.1
        ),
    )
    randomise(theirs)
    ours.double().eval().load_state_dict(theirs.double().eval().state_dict())
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert (ours(x) - theirs(x)).abs().max() < 1e-9


@pytest.mark.parametrize("size", [(48, 48), (32, 80), (96, 64)])
def test_vit_timm_position_rule_matches_timm_at_other_sizes(size):
    "timm resizes in float32 whatever the model's type, hence the tolerance."
    theirs = timm.create_model(
        "vit_small_patch16_224", num_classes=0, img_size=64, depth=2, dynamic_img_size=True
    )
    ours = dino_vits16(img_size=64, depth=2, pos_interp="timm").double().eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, *size, dtype=torch.float64)
    assert (ours(x) - theirs.double().eval()(x)).abs().max() < 1e-5


# ---- positions ----


def cubic_weights(t: float) -> list[float]:
    "Keys' cubic with a = -0.75 at distances 1 + t, t, 1 - t, 2 - t."
    a = -0.75

    def near(d):
        return (a + 2) * d**3 - (a + 3) * d**2 + 1

    def far(d):
        return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a

    return [far(1 + t), near(t), near(1 - t), far(2 - t)]


def resize_matrix(old: int, new: int) -> torch.Tensor:
    "facebook's rule along one axis: place i looks at (i + 1/2) · old / (new + 0.1) - 1/2."
    matrix = torch.zeros(new, old, dtype=torch.float64)
    for i in range(new):
        source = (i + 0.5) * old / (new + 0.1) - 0.5
        base = math.floor(source)
        for k, weight in enumerate(cubic_weights(source - base)):
            matrix[i, min(max(base - 1 + k, 0), old - 1)] += weight
    return matrix


@pytest.mark.parametrize("new", [(6, 6), (14, 9), (1, 2), (28, 28), (15, 14)])
def test_resize_positions_dino_is_facebooks_rule_recomputed(new):
    table = torch.randn(1, 1 + 14 * 14, 5, dtype=torch.float64)
    old = table[0, 1:].view(14, 14, 5)
    wanted = torch.einsum(
        "ah,bw,hwd->abd", resize_matrix(14, new[0]), resize_matrix(14, new[1]), old
    )
    got = resize_positions(table, (14, 14), new, "dino")
    assert torch.equal(got[:, 0], table[:, 0])
    assert (got[0, 1:] - wanted.flatten(0, 1)).abs().max() < 1e-12


def test_resize_positions_dino_differs_from_plain_bicubic_and_from_timm():
    table = torch.randn(1, 1 + 196, 4)
    dino, other = (resize_positions(table, (14, 14), (6, 6), rule) for rule in ("dino", "timm"))
    picture = table[:, 1:].mT.unflatten(2, (14, 14))
    plain = F.interpolate(picture, size=(6, 6), mode="bicubic").flatten(2).mT
    assert (dino[:, 1:] - plain).abs().max() > 0.01 and (dino - other).abs().max() > 0.1


def test_vit_resizes_positions_exactly_when_facebook_does():
    vit = tiny()
    assert vit.resized_positions(32, 32) is vit.pos_embed
    assert vit.resized_positions(35, 35) is vit.pos_embed  # square, same grid
    assert (
        vit.resized_positions(32, 35) is not vit.pos_embed
    )  # same grid, but not square: facebook resizes
    assert tiny(pos_interp="timm").resized_positions(32, 35).shape == vit.pos_embed.shape
    wide = tiny(img_size=(32, 64))
    assert wide.resized_positions(32, 64) is wide.pos_embed and vit.resized_positions(
        64, 40
    ).shape == (1, 41, 24)


def test_resize_positions_keeps_half_precision():
    table = torch.randn(1, 17, 8, dtype=torch.bfloat16)
    assert resize_positions(table, (4, 4), (3, 5)).dtype == torch.bfloat16


def test_vit_positions_receive_gradients_at_another_size():
    vit = tiny()
    vit(torch.randn(1, 3, 40, 24)).sum().backward()
    assert vit.pos_embed.grad.abs().sum() > 0


def reference_sincos(rows, columns, dim, order):
    "Number by number, as the papers write it."
    table = torch.zeros(1 + rows * columns, dim, dtype=torch.float64)
    quarter = dim // 4
    for r in range(rows):
        for c in range(columns):
            first, second = (c, r) if order == "mae" else (r, c)
            for i in range(quarter):
                omega = 10000 ** (-i / quarter)
                values = (math.sin(first * omega), math.cos(first * omega))
                values += (math.sin(second * omega), math.cos(second * omega))
                for part, value in enumerate(values):
                    table[1 + r * columns + c, part * quarter + i] = value
    return table


@pytest.mark.parametrize("order", ["mae", "mocov3"])
def test_sincos_positions_match_the_formula(order):
    got = sincos_positions((3, 5), 16, order)[0]
    assert (got.double() - reference_sincos(3, 5, 16, order)).abs().max() < 1e-7


def test_sincos_positions_refuse_what_cannot_be():
    with pytest.raises(ValueError, match="multiple of 4"):
        sincos_positions((2, 2), 6)
    with pytest.raises(ValueError, match="Did you mean 'mocov3'"):
        sincos_positions((2, 2), 8, "mocov")


@pytest.mark.parametrize("positions", ["mae", "mocov3"])
def test_vit_fixed_positions_are_not_trained(positions):
    vit = tiny(positions=positions)
    assert not vit.pos_embed.requires_grad
    assert torch.equal(vit.pos_embed, sincos_positions((4, 4), 24, positions))


# ---- attention ----


@pytest.mark.parametrize("qkv_bias", [True, False, "qv"])
def test_attention_weights_reproduce_the_fused_output(qkv_bias):
    attention = Attention(24, 3, qkv_bias).double()
    randomise(attention)
    x, bias = torch.randn(2, 7, 24).double(), torch.randn(2, 1, 7, 7).double()
    for extra in (None, bias):
        weights = attention.weights(x, extra)
        assert weights.shape == (2, 3, 7, 7) and (weights.sum(-1) - 1).abs().max() < 1e-12
        by_hand = attention.proj((weights @ attention.split(x)[2]).transpose(1, 2).flatten(2))
        assert (attention(x, extra) - by_hand).abs().max() < 1e-12


def test_attention_matches_torch_multihead_attention():
    ours = Attention(24, 3).double()
    theirs = torch.nn.MultiheadAttention(24, 3, batch_first=True).double()
    randomise(ours)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight), theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.load_state_dict(ours.proj.state_dict())
    x = torch.randn(2, 5, 24).double()
    out, weights = theirs(x, x, x, average_attn_weights=False)
    assert (ours(x) - out).abs().max() < 1e-12 and (ours.weights(x) - weights).abs().max() < 1e-12


def test_attention_qv_bias_equals_a_full_bias_with_zero_keys():
    qv, full = Attention(24, 3, "qv").double(), Attention(24, 3).double()
    randomise(qv)
    state = {k: v for k, v in qv.state_dict().items() if k not in ("q_bias", "v_bias")}
    state["qkv.bias"] = torch.cat([qv.q_bias, torch.zeros(24).double(), qv.v_bias]).detach()
    full.load_state_dict(state)
    x = torch.randn(2, 5, 24).double()
    assert (qv(x) - full(x)).abs().max() < 1e-12
    keys = (x @ qv.qkv.weight[24:48].T).unflatten(2, (3, 8)).transpose(1, 2)
    assert (qv.split(x)[1] - keys).abs().max() < 1e-12  # nothing is added to the keys


def test_attention_drops_weights_only_in_training():
    attention = Attention(24, 3, attn_drop=0.5)
    x = torch.randn(2, 5, 24)
    assert not torch.equal(attention(x), attention(x))
    attention.eval()
    assert torch.equal(attention(x), attention(x))


@pytest.mark.parametrize("block", [0, 1, -1])
def test_vit_get_attention_is_what_the_block_used(block):
    vit, seen = tiny().double(), {}
    randomise(vit)
    handle = vit.blocks[block].attn.register_forward_hook(lambda m, i, o: seen.update(x=i[0], y=o))
    x = torch.randn(2, 3, 40, 32).double()
    vit(x)
    handle.remove()
    weights, attn = vit.get_attention(x, block), vit.blocks[block].attn
    by_hand = attn.proj((weights @ attn.split(seen["x"])[2]).transpose(1, 2).flatten(2))
    assert weights.shape == (2, 3, 21, 21) and (by_hand - seen["y"]).abs().max() < 1e-12


def test_vit_has_facebooks_spellings():
    vit, x = tiny(), torch.randn(2, 3, 32, 32)
    assert torch.equal(vit.get_last_selfattention(x), vit.get_attention(x, -1))
    layers = vit.get_intermediate_layers(x, n=2)
    assert len(layers) == 2 and torch.equal(layers[-1], vit.forward_features(x))
    assert torch.equal(layers[0], vit.norm(vit.blocks[:2](vit.tokens(x))))
    for wrong in (lambda: vit.get_attention(x, 3), lambda: vit.get_intermediate_layers(x, 4)):
        with pytest.raises(ValueError, match="does not exist: there are 3"):
            wrong()


# ---- rows D2, D4, C3, C4, C5, C8 ----


@pytest.mark.parametrize(
    ("factory", "headless", "headed"),
    zip(
        FACTORIES,
        [21_665_664, 21_670_272, 85_798_656, 85_807_872],
        [22_050_664, 22_055_272, 86_567_656, 86_576_872],
        strict=True,
    ),
    ids=NAMES,
)
def test_D2_dino_parameter_counts(factory, headless, headed):
    assert count(on_meta(factory)) == headless and count(on_meta(lambda: factory(1000))) == headed


@pytest.mark.parametrize(
    ("factory", "size", "params"),
    [
        (dino_vits16, 64, 21_596_544),
        (dino_vits16, 32, 21_591_936),
        (dino_vits8, 64, 21_393_792),
        (dino_vits8, 32, 21_375_360),
        (dino_vitb16, 64, 85_660_416),
        (dino_vitb16, 32, 85_651_200),
        (dino_vitb8, 64, 85_254_912),
        (dino_vitb8, 32, 85_218_048),
    ],
)
def test_D2_dino_counts_shrink_with_the_table_of_positions(factory, size, params):
    assert count(on_meta(lambda: factory(img_size=size))) == params


@pytest.mark.parametrize(
    ("factory", "size", "tokens", "gmac"),
    [
        (dino_vits16, 224, 197, 4.598),
        (dino_vits16, 64, 17, 0.368),
        (dino_vits16, 32, 5, 0.108),
        (dino_vits8, 224, 785, 22.405),
        (dino_vits8, 64, 65, 1.424),
        (dino_vitb16, 224, 197, 17.563),
        (dino_vitb16, 32, 5, 0.428),
        (dino_vitb8, 224, 785, 78.148),
        (dino_vitb8, 64, 65, 5.608),
    ],
)
def test_dino_tokens_and_work_are_the_published_ones(factory, size, tokens, gmac):
    with torch.device("meta"):
        model, image = factory(img_size=size).eval(), torch.empty(1, 3, size, size)
    with FlopCounterMode(display=False) as counter:
        model(image)
    assert model.forward_features([1, 3, size, size])[1] == tokens
    assert abs(counter.get_total_flops() / 2e9 - gmac) < 6e-4


def test_D4_dino_vits16_gives_the_cls_token(no_weights):
    model = dino_vits16(img_size=32, depth=2).eval()
    x = torch.randn(2, 3, 32, 32)
    assert type(model.output_dim) is int and model.output_dim == 384
    assert model(x).shape == (2, 384) and torch.equal(model(x), model.forward_features(x)[:, 0])
    with pytest.raises(WeightsUnavailable, match="vit_small_patch16_224.dino"):
        dino_vits16(pretrained=True)


def test_C3_num_features_is_a_number_and_answers_a_call():
    vit = tiny(num_classes=5)
    assert vit.num_features == vit.num_features() == 24 and vit.output_dim == 5
    assert vit.embed_dim == 24 and vit.num_classes == 5


def test_C4_forward_stages_gives_maps_of_chosen_blocks():
    vit = tiny(depth=8)
    x = torch.randn(2, 3, 40, 24)
    maps = vit.forward_stages(x)
    assert [m.shape for m in maps] == [(2, 24, 5, 3)] * 4
    patches = vit.forward_features(x)[:, 1:]
    assert torch.equal(maps[-1], patches.mT.reshape(2, 24, 5, 3))
    again = vit.forward_stages(x, blocks=(7, 1, -1))
    assert torch.equal(again[0], maps[3]) and torch.equal(again[1], maps[0])
    assert torch.equal(again[2], again[0])
    raw = vit.forward_stages(x, blocks=[2], norm=False)[0]
    assert torch.allclose(raw.flatten(2).mT, vit.blocks[:3](vit.tokens(x))[:, 1:], atol=1e-6)
    assert [m.shape[1] for m in tiny(depth=2).forward_stages(x)] == [24, 24]


def test_C5_head_surgery_is_as_on_a_resnet():
    vit = tiny(num_classes=10).double()
    x = torch.randn(2, 3, 32, 32).double()
    assert vit.has_head() and vit(x).shape == (2, 10) and vit.get_classifier() is vit.head
    features = vit.forward_feat(x)
    vit.remove_head()
    assert not vit.has_head() and torch.equal(vit(x), features) and vit.num_classes == 0
    assert not any(k.startswith("head") for k in vit.state_dict())
    vit.reset_classifier(4)
    assert vit(x).shape == (2, 4) and vit.head.weight.dtype == torch.float64
    vit.reset_classifier(0, global_pool="avg")
    assert torch.allclose(vit(x), vit.forward_features(x)[:, 1:].mean(1))
    with pytest.raises(ValueError, match="global_pool"):
        vit.reset_classifier(0, "max")


def test_C8_layers_are_the_blocks():
    vit = tiny()
    assert vit.layers == list(vit.blocks) and isinstance(vit.layers[0], TransformerBlock)


# ---- names of others ----


def to_mmselfsup(state_dict, prefix="backbone."):
    "Our names to MMSelfSup's, written the other way round."
    renamed = {}
    for name, value in state_dict.items():
        name = name.replace("patch_embed.proj.", "patch_embed.projection.")
        if name.startswith("norm."):
            name = name.replace("norm.", "norm1.")
        name = name.replace("mlp.fc1", "ffn.layers.0.0").replace("mlp.fc2", "ffn.layers.1")
        name = name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2")
        if name.startswith("blocks."):
            name = name.replace("blocks.", "layers.", 1)
        renamed[prefix + name] = value
    return renamed


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.backbone."])
def test_C16_mmselfsup_names_load(prefix):
    ours, other = tiny(init_values=0.1, qkv_bias="qv"), tiny(init_values=0.1, qkv_bias="qv")
    randomise(ours)
    theirs = to_mmselfsup(ours.state_dict(), prefix)
    assert "".join(theirs).count("blocks") == 0
    before = list(theirs)
    other.load_state_dict(theirs)
    assert list(theirs) == before  # the caller's dictionary is untouched
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(ours(x), other(x))
    assert list(vit_from_mmselfsup(ours.state_dict())) == list(ours.state_dict())


def test_C16_mmselfsup_names_load_inside_another_module():
    ours, holder = tiny(), torch.nn.ModuleDict({"backbone": tiny()})
    holder.load_state_dict(to_mmselfsup(ours.state_dict()))
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(holder["backbone"](x), ours(x))


# ---- shapes ----

SIZES = [(8, 8), (32, 32), (33, 47), (15, 70), (224, 31)]


@pytest.mark.parametrize("batch", [0, 1, 2])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("num_classes", [0, 5])
def test_vit_closed_form_meta_and_real_shapes_agree(batch, size, num_classes):
    vit, shape = tiny(num_classes), [batch, 3, *size]
    meta = on_meta(lambda: tiny(num_classes))
    closed = vit.get_output_shape(shape)
    assert closed == list(meta(torch.empty(shape, device="meta")).shape)
    assert closed == list(vit(torch.randn(shape)).shape)
    tokens = vit.forward_features(shape)
    assert isinstance(tokens, TensorSpec)
    assert tokens.shape == list(vit.forward_features(torch.randn(shape)).shape)


def test_vit_shapes_from_eight_threads_leave_the_weights_alone():
    vit = tiny(num_classes=5).train()
    before = copy.deepcopy(vit.state_dict())
    shapes = [[b, 3, h, w] for b in (0, 1, 3) for h in range(8, 40, 3) for w in (8, 31, 64)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(vit.get_output_shape, shapes * 4))
    assert answers == [[s[0], 5] for s in shapes] * 4 and vit.training
    assert all(torch.equal(v, before[k]) for k, v in vit.state_dict().items())


def test_vit_forward_from_eight_threads_equals_serial():
    vit = tiny()
    images = [torch.randn(1, 3, 8 * k, 32) for k in range(1, 9)]
    with torch.inference_mode():
        serial = [vit(x) for x in images]

    def run(x):
        with torch.inference_mode():
            return vit(x)

    with ThreadPoolExecutor(8) as pool:
        assert all(torch.equal(a, b) for a, b in zip(pool.map(run, images), serial, strict=True))


def test_vit_refuses_wrong_images_and_arguments():
    vit = tiny()
    for wrong in (torch.randn(3, 32, 32), torch.randn(1, 1, 32, 32), torch.randn(1, 3, 7, 32)):
        with pytest.raises(ValueError):
            vit(wrong)
        with pytest.raises(ValueError):
            vit.get_output_shape(wrong.shape)
    for argument in (dict(num_heads=5), dict(pos_interp="cubic"), dict(positions="sin")):
        with pytest.raises(ValueError):
            tiny(**argument)


@pytest.mark.parametrize("channels", [1, 4])
def test_vit_takes_any_number_of_channels(channels):
    assert tiny(in_channels=channels)(torch.randn(1, channels, 32, 32)).shape == (1, 24)


def test_patch_embed_of_rectangles():
    patches = PatchEmbed((32, 48), (8, 16), dim=4)
    assert patches.grid_size == (4, 3) and patches(torch.randn(1, 3, 32, 48)).shape == (1, 4, 4, 3)
    vit = VisionTransformer((32, 48), (8, 16), 0, embed_dim=24, depth=1, num_heads=3)
    assert vit(torch.randn(2, 3, 32, 48)).shape == (2, 24)


# ---- training ----


def test_vit_backward_reaches_every_parameter():
    vit = tiny(num_classes=5, init_values=0.1, qkv_bias="qv").train()
    vit(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in vit.parameters())


def test_vit_drop_path_rises_to_its_rate_and_rests_in_eval():
    vit = tiny(drop_path_rate=0.2)
    rates = [getattr(block.drop_path1, "rate", 0.0) for block in vit.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2])
    x = torch.randn(4, 3, 32, 32)
    assert torch.equal(vit(x), vit(x))
    always = VisionTransformer(num_classes=0, **TINY, drop_path_rate=0.99).train()
    assert not torch.equal(always(x), always(x))


def test_vit_copies_and_saves(tmp_path):
    vit, x = tiny(num_classes=3), torch.randn(1, 3, 40, 32)
    assert torch.equal(copy.deepcopy(vit)(x), vit(x))
    torch.save(vit.state_dict(), tmp_path / "vit.pt")
    other = tiny(num_classes=3)
    other.load_state_dict(torch.load(tmp_path / "vit.pt", weights_only=True))
    assert torch.equal(other(x), vit(x))


def test_vit_exports_to_a_graph():
    vit, x = tiny(), torch.randn(2, 3, 32, 32)
    assert torch.allclose(torch.export.export(vit, (x,)).module()(x), vit(x), atol=1e-6)


def test_layer_scale_multiplies_channels():
    scale = LayerScale(3, 0.5)
    assert torch.equal(scale(torch.ones(2, 4, 3)), torch.full((2, 4, 3), 0.5))


@pytest.mark.parametrize("wrong", ["vq", "q", 1, None])
def test_other_biases_are_refused(wrong):
    with pytest.raises(ValueError, match="qkv_bias"):
        Attention(8, 2, qkv_bias=wrong)


def test_stages_and_layers_say_what_is_wrong():
    vit = tiny()
    with pytest.raises(ValueError, match="expected 4D input"):
        vit.forward_stages(torch.rand(3, 32, 32))
    for n in (0, -1):
        with pytest.raises(ValueError, match=f"at least 1, got n={n}"):
            vit.get_intermediate_layers(torch.rand(1, 3, 32, 32), n)


@pytest.mark.parametrize("size", [(32, 32), (33, 70), (8, 16)])
@pytest.mark.parametrize("num_classes", [0, 5])
def test_stage_shapes_are_those_of_a_real_run(size, num_classes):
    model = VisionTransformer(32, 8, num_classes, embed_dim=12, depth=2, num_heads=3).eval()
    seen = {}
    for name in ("patch_embed", "blocks.0", "blocks.1", "norm", *["head"][:num_classes]):
        model.get_submodule(name).register_forward_hook(
            lambda module, args, out, name=name: seen.__setitem__(name, list(out.shape))
        )
    model(torch.zeros(2, 3, *size))
    assert model.get_stage_shapes([2, 3, *size]) == seen
