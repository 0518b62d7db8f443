"""MAE's, CAE's and MoCo v3's transformers: rows M8, M9, M10, exact masks, closed-form shapes, names of others."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from nenya_nb.models.backbones.masked_vit import CAEViT, MAEViT, MoCoV3ViT, random_masking, vit_arch
from nenya_nb.models.backbones.tokens import sincos_positions

TINY = {"embed_dims": 24, "num_layers": 2, "num_heads": 3, "feedforward_channels": 48}
SIZE = dict(img_size=32, patch_size=8)


def on_meta(build):
    with torch.device("meta"):
        return build()


def count(model, trainable=False) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)


def randomise(model) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)


def images(batch=2, height=32, width=32, dtype=None):
    return torch.randn(batch, 3, height, width, dtype=dtype)


# ---- masks ----


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.25, 0.5, 0.6, 0.75, 0.9])
@pytest.mark.parametrize("patches", [1, 16, 49, 196])
def test_random_masking_counts_are_exact_and_ids_invert(ratio, patches):
    x = torch.randn(5, patches, 3)
    visible, mask, ids_restore = random_masking(x, ratio)
    keep = int(patches * (1 - ratio))
    assert visible.shape == (5, keep, 3) and (mask.sum(1) == patches - keep).all()
    assert torch.equal(ids_restore.sort(dim=1).values, torch.arange(patches).expand(5, -1))
    row = torch.cat([visible, torch.full((5, patches - keep, 3), float("nan"))], 1)
    restored = row.gather(1, ids_restore[..., None].expand(-1, -1, 3))
    assert torch.equal(restored[mask == 0], x[mask == 0]) and restored[mask == 1].isnan().all()
    assert set(mask.unique().tolist()) <= {0.0, 1.0}


def test_random_masking_follows_the_noise():
    noise = torch.tensor([[0.4, 0.1, 0.3, 0.2]])
    x = torch.arange(4.0).view(1, 4, 1)
    visible, mask, ids_restore = random_masking(x, 0.5, noise)
    assert visible.flatten().tolist() == [1, 3] and mask.tolist() == [[1, 0, 1, 0]]
    assert ids_restore.tolist() == [[3, 0, 2, 1]]


def test_random_masking_hides_every_patch_equally_often():
    _, mask, _ = random_masking(torch.zeros(20_000, 8, 1), 0.75)
    assert (mask.mean(0) - 0.75).abs().max() < 0.015
    assert len(mask.unique(dim=0)) == 28  # all ways to keep two of eight


# ---- MAE ----


def test_M8_mae_b16_gives_tokens_mask_and_ids():
    model = MAEViT(arch="b", patch_size=16, mask_ratio=0.75).eval()
    x, mask, ids_restore = model(images(2, 224, 224))
    assert x.shape == (2, 50, 768) and mask.shape == ids_restore.shape == (2, 196)
    assert (mask.sum(1) == 147).all() and not model.pos_embed.requires_grad


@pytest.mark.parametrize(
    ("arch", "patch", "params", "masked", "whole"),
    [
        ("b", 16, 85_798_656, 4.408, 17.563),
        ("l", 16, 303_301_632, 15.377, 61.554),
        ("h", 14, 630_764_800, 41.433, 167.294),
        ("h", 16, 630_918_400, None, 127.314),
    ],
)
def test_M8_mae_counts_and_work_are_the_published_ones(arch, patch, params, masked, whole):
    model = on_meta(lambda: MAEViT(arch, patch_size=patch).eval())
    assert count(model) == params
    for wanted, hide in ((masked, True), (whole, False)):
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, 224, 224, device="meta"), mask=hide)
        assert wanted is None or abs(counter.get_total_flops() / 2e9 - wanted) < 6e-4


def test_M8_mae_b16_trains_all_but_the_positions():
    model = on_meta(MAEViT)
    assert count(model, trainable=True) == 85_647_360
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["pos_embed"]


def test_M8_mae_has_timm_keys():
    ours = on_meta(MAEViT).state_dict()
    theirs = on_meta(
        lambda: timm.create_model("vit_base_patch16_224.mae", num_classes=0)
    ).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_M8_mae_matches_timm_blocks_on_the_visible_patches():
    ours = MAEViT(TINY, **SIZE).double().eval()
    theirs = timm.models.VisionTransformer(
        32, 8, embed_dim=24, depth=2, num_heads=3, mlp_ratio=2, num_classes=0
    )
    randomise(ours)
    theirs.double().eval().load_state_dict(ours.state_dict())
    x, noise = images(dtype=torch.float64), torch.rand(2, 16)
    tokens, mask, _ = ours(x, noise=noise)
    patches = theirs.patch_embed(x) + theirs.pos_embed[:, 1:]
    order = noise.argsort(1)[:, :4]
    visible = torch.stack([p[o] for p, o in zip(patches, order, strict=True)])
    row = torch.cat([(theirs.cls_token + theirs.pos_embed[:, :1]).expand(2, -1, -1), visible], 1)
    assert (theirs.norm(theirs.blocks(row)) - tokens).abs().max() < 1e-9
    assert (ours(x, mask=False) - theirs.forward_features(x)[:, 1:].mean(1)).abs().max() < 1e-9


def test_M8_mae_does_not_see_hidden_pixels():
    model, x, noise = MAEViT(TINY, **SIZE).eval(), images(), torch.rand(2, 16)
    tokens, mask, _ = model(x, noise=noise)
    pixels = mask.view(2, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    assert torch.equal(model(torch.where(pixels == 1, 7.0, x), noise=noise)[0], tokens)
    assert not torch.equal(model(torch.where(pixels == 0, 7.0, x), noise=noise)[0], tokens)


def test_M8_mae_works_unmasked_for_features():
    model, x = MAEViT(TINY, **SIZE).eval(), images(2, 40, 24)
    assert model.output_dim == 24 and model(x, mask=False).shape == (2, 24)
    assert torch.equal(model.forward_feat(x), model.forward_features(x)[:, 1:].mean(1))
    assert model.forward_stages(x)[-1].shape == (2, 24, 5, 3)
    weights = model.get_attention(x)
    assert weights.shape == (2, 3, 16, 16) and (weights.sum(-1) - 1).abs().max() < 1e-5
    token = MAEViT(TINY, **SIZE, global_pool="token").eval()
    assert torch.equal(token(x, mask=False), token.forward_features(x)[:, 0])


def test_M8_mae_without_hiding_is_a_shuffled_whole():
    model, x = MAEViT(TINY, **SIZE, mask_ratio=0.0).double().eval(), images(dtype=torch.float64)
    tokens, mask, ids_restore = model(x)
    ordered = tokens[:, 1:].gather(1, ids_restore[..., None].expand(-1, -1, 24))
    assert mask.sum() == 0
    assert (torch.cat([tokens[:, :1], ordered], 1) - model.forward_features(x)).abs().max() < 1e-12


def test_mae_waves_agree_with_lightly():
    from lightly.models import utils

    theirs = utils.get_2d_sine_cosine_positional_embedding(24, 4, cls_token=True)
    assert (MAEViT(TINY, **SIZE).pos_embed[0] - torch.as_tensor(theirs)).abs().max() < 1e-6


def test_mae_refuses_impossible_ratios():
    for ratio in (-0.1, 1.0, 0.99):
        with pytest.raises(ValueError, match="mask_ratio"):
            MAEViT(TINY, **SIZE, mask_ratio=ratio)


# ---- CAE ----


def test_M9_cae_b16_gives_the_visible_tokens():
    model = CAEViT(arch="b", patch_size=16, init_values=0.1, qkv_bias=False).eval()
    mask = torch.zeros(2, 196, dtype=torch.bool)
    for row in mask:
        row[torch.randperm(196)[:75]] = True
    assert model(images(2, 224, 224), mask).shape == (2, 122, 768)
    assert count(model) == 85_807_872 and not model.pos_embed.requires_grad
    assert (model.blocks[3].ls1.gamma == 0.1).all()


def test_M9_cae_parameters_are_biases_for_queries_and_values_only():
    names = {n for n, _ in CAEViT(TINY, **SIZE, qkv_bias=False).named_parameters() if ".attn." in n}
    assert {n.split("attn.")[1] for n in names} == {
        "q_bias", "v_bias", "qkv.weight", "proj.weight", "proj.bias"
    }  # fmt: skip
    assert "blocks.0.attn.qkv.bias" in CAEViT(TINY, **SIZE).state_dict()


def test_M9_cae_init_values_none_is_zero():
    for values in (None, 0):
        model = CAEViT(TINY, **SIZE, init_values=values)
        assert not any("gamma" in name for name in model.state_dict())


@pytest.mark.parametrize("hidden", [0, 1, 7, 16])
def test_M9_cae_equals_boolean_indexing(hidden):
    model, x = (
        CAEViT(TINY, **SIZE, init_values=0.1, qkv_bias=False).double().eval(),
        images(3).double(),
    )
    randomise(model)
    mask = torch.stack([torch.randperm(16) < hidden for _ in range(3)])
    tokens = model.tokens(x)
    row = torch.cat([tokens[:, :1], tokens[:, 1:][~mask].view(3, 16 - hidden, 24)], 1)
    wanted = model.norm(model.blocks(row))
    for given in (mask, mask.view(3, 4, 4), mask.float()):
        assert torch.equal(model(x, given), wanted)
    assert torch.equal(model(x, mask, num_masked=hidden), wanted)
    assert list(wanted.shape) == model.get_output_shape(x.shape, num_masked=hidden)


def test_M9_cae_without_mask_sees_everything():
    model, x = CAEViT(TINY, **SIZE).eval(), images()
    assert torch.equal(model(x), model.forward_features(x))
    assert model(x).shape == (2, 17, 24) and model.forward_feat(x).shape == (2, 24)


def test_M9_cae_refuses_uneven_and_misfitting_masks():
    model, mask = CAEViT(TINY, **SIZE), torch.zeros(2, 16, dtype=torch.bool)
    mask[0, 0] = True
    with pytest.raises(ValueError, match="same number of patches, got \\[0, 1\\]"):
        model(images(), mask)
    with pytest.raises(ValueError, match="a mask of \\[2, 15\\]"):
        model(images(), mask[:, :15])


def test_M9_cae_shape_runs_on_meta_with_a_count():
    model = on_meta(lambda: CAEViT("b", init_values=0.1, qkv_bias=False).eval())
    x, mask = torch.empty(2, 3, 224, 224, device="meta"), torch.empty(2, 196, device="meta")
    assert model(x, mask, num_masked=75).shape == (2, 122, 768)


# ---- MoCo v3 ----


def test_M10_mocov3_small_gives_map_and_cls():
    model = MoCoV3ViT(arch="mocov3-small", patch_size=16, stop_grad_conv1=True).eval()
    x = images(1, 224, 224)
    ((features, cls),) = model(x)
    assert features.shape == (1, 384, 14, 14) and cls.shape == (1, 384)
    assert len(model.blocks) == 12 and model.blocks[0].attn.num_heads == 12
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert (count(model), count(model, trainable=True)) == (21_665_664, 21_294_720)
    tokens = model.forward_features(x)
    assert torch.equal(cls, tokens[:, 0]) and torch.equal(features.flatten(2).mT, tokens[:, 1:])


@pytest.mark.parametrize(("arch", "params"), [("b", 85_798_656), ("l", 303_301_632)])
def test_M10_mocov3_larger_counts(arch, params):
    assert count(on_meta(lambda: MoCoV3ViT(arch))) == params


def test_M10_mocov3_frozen_stages_twelve_trains_nothing():
    model = on_meta(lambda: MoCoV3ViT("mocov3-small", frozen_stages=12))
    assert count(model, trainable=True) == 0


@pytest.mark.parametrize("stages", [-1, 0, 1, 2])
def test_M10_mocov3_frozen_stages_freeze_and_rest(stages):
    model = MoCoV3ViT(TINY, **SIZE, frozen_stages=stages, drop_path_rate=0.5)
    assert model.train() is model
    assert [b.training for b in model.blocks] == [i >= stages for i in range(2)]
    assert model.patch_embed.training == (stages < 0) and model.norm.training == (stages < 2)
    trainable = [any(p.requires_grad for p in b.parameters()) for b in model.blocks]
    assert trainable == [i >= stages for i in range(2)]
    assert model.cls_token.requires_grad == (stages < 0)
    with pytest.raises(ValueError, match="frozen_stages goes from -1 to 2, got 3"):
        MoCoV3ViT(TINY, **SIZE, frozen_stages=3)


def test_M10_mocov3_starts_as_in_the_paper():
    model = MoCoV3ViT({**TINY, "embed_dims": 192}, **SIZE)
    qkv = model.blocks[0].attn.qkv.weight
    bound = (6 / (192 + 192)) ** 0.5
    assert 0.95 * bound < qkv.abs().max() <= bound and abs(qkv.std() / bound - 3**-0.5) < 0.02
    patch, patch_bound = model.patch_embed.proj, (6 / (3 * 8 * 8 + 192)) ** 0.5
    assert 0.95 * patch_bound < patch.weight.abs().max() <= patch_bound
    assert patch.bias.abs().max() == 0 and model.cls_token.abs().max() < 1e-5
    fc1 = model.blocks[1].mlp.fc1.weight
    assert fc1.abs().max() <= (6 / sum(fc1.shape)) ** 0.5
    assert torch.equal(model.pos_embed, sincos_positions((4, 4), 192, "mocov3"))


def test_mae_and_cae_start_as_in_their_papers():
    mae = MAEViT({**TINY, "embed_dims": 192}, **SIZE)
    bound = (6 / (3 * 192 + 192)) ** 0.5  # queries, keys and values as one layer
    assert 0.95 * bound < mae.blocks[0].attn.qkv.weight.abs().max() <= bound
    assert 0.015 < mae.cls_token.std() < 0.025
    cae = CAEViT({**TINY, "embed_dims": 192}, **SIZE)
    assert (
        0.018 < cae.patch_embed.proj.weight.std() < 0.022 and cae.patch_embed.proj.bias.sum() == 0
    )


def test_position_orders_are_the_papers_and_can_be_chosen():
    mae, moco = MAEViT(TINY, **SIZE), MoCoV3ViT(TINY, **SIZE)
    assert torch.equal(mae.pos_embed, moco.pos_embed.roll(12, dims=-1))
    assert torch.equal(CAEViT(TINY, **SIZE).pos_embed, moco.pos_embed)
    assert torch.equal(MAEViT(TINY, **SIZE, positions="mocov3").pos_embed, moco.pos_embed)


# ---- names, shapes, training: all three ----


def test_vit_arch_names_and_dicts():
    assert vit_arch("huge") == {"embed_dim": 1280, "depth": 32, "num_heads": 16, "mlp_ratio": 4.0}
    assert vit_arch("s")["embed_dim"] == 768 and vit_arch("s")["depth"] == 8  # MMSelfSup's own
    with pytest.raises(ValueError, match="Did you mean 'base'"):
        vit_arch("bse")
    with pytest.raises(ValueError, match="embed_dims, num_layers"):
        vit_arch({"embed_dims": 3})


def to_mmselfsup(state_dict):
    renamed = {}
    for name, value in state_dict.items():
        name = name.replace("patch_embed.proj.", "patch_embed.projection.")
        name = name.replace("norm.", "norm1.") if name.startswith("norm.") else name
        name = name.replace("mlp.fc1", "ffn.layers.0.0").replace("mlp.fc2", "ffn.layers.1")
        name = name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2")
        renamed["backbone." + name.replace("blocks.", "layers.")] = value
    return renamed


BUILDERS = {
    "mae": lambda: MAEViT(TINY, **SIZE),
    "cae": lambda: CAEViT(TINY, **SIZE, init_values=0.1, qkv_bias=False),
    "mocov3": lambda: MoCoV3ViT(TINY, **SIZE, stop_grad_conv1=True),
}


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_C16_mmselfsup_checkpoints_load(build):
    ours, other, x = build().eval(), build().eval(), images()
    randomise(ours)
    other.load_state_dict(to_mmselfsup(ours.state_dict()))
    assert torch.equal(ours.forward_features(x), other.forward_features(x))


@pytest.mark.parametrize("num_classes", [0, 5])
@pytest.mark.parametrize("build", [MAEViT, CAEViT])
def test_stage_shapes_are_those_of_a_real_run(build, num_classes):
    model, x, seen = build(TINY, **SIZE, num_classes=num_classes).eval(), images(), {}
    stages = model.get_stage_shapes(x.shape)
    for name in (*stages, *["head"][:num_classes]):
        model.get_submodule(name).register_forward_hook(
            lambda module, args, out, name=name: seen.__setitem__(name, list(out.shape))
        )
    model(x)
    assert seen == stages
    if build is MAEViT:
        seen.clear()
        model(x, mask=False)
        assert seen == model.get_stage_shapes(x.shape, mask=False)
        assert ("head" in seen) == bool(num_classes)


def shapes_of(answer):
    return (
        list(answer.shape) if isinstance(answer, torch.Tensor) else [shapes_of(a) for a in answer]
    )


@pytest.mark.parametrize("batch", [0, 1, 2])
@pytest.mark.parametrize("size", [(8, 8), (32, 32), (33, 47), (15, 70)])
@pytest.mark.parametrize("name", BUILDERS)
def test_closed_form_meta_and_real_shapes_agree(name, batch, size):
    real, meta = BUILDERS[name]().eval(), on_meta(BUILDERS[name]).eval()
    shape = (batch, 3, *size)
    closed = real.get_output_shape(shape)
    assert closed == shapes_of(real(torch.randn(shape)))
    assert closed == shapes_of(meta(torch.empty(shape, device="meta")))


def test_mae_unmasked_shape_is_the_features():
    model = MAEViT(TINY, **SIZE)
    assert model.get_output_shape([2, 3, 32, 32], mask=False) == [2, 24]


@pytest.mark.parametrize("name", BUILDERS)
def test_shapes_from_eight_threads_leave_the_weights_alone(name):
    model = BUILDERS[name]().train()
    before = copy.deepcopy(model.state_dict())
    shapes = [[b, 3, h, w] for b in (0, 2) for h in range(8, 60, 5) for w in (8, 31)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(model.get_output_shape, shapes))
    assert answers == [model.get_output_shape(s) for s in shapes]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("name", BUILDERS)
def test_backward_reaches_every_trainable_parameter(name):
    model = BUILDERS[name]().train()
    answer = model(images())
    parts = answer[0] if name == "mocov3" else [answer[0] if name == "mae" else answer]
    sum(part.square().sum() for part in parts).backward()
    for key, p in model.named_parameters():
        assert (p.grad is not None and p.grad.abs().sum() > 0) == p.requires_grad, key
