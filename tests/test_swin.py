"""Swin and SimMIM's Swin: parity with timm, clipped windows, seams, attention, shapes, row M11, names of others."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import timm
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from nenya_nb.models.backbones.base import TensorSpec
from nenya_nb.models.backbones.swin import (
    PatchMerging,
    SimMIMSwinTransformer,
    SwinTransformer,
    swin_arch,
    swin_from_mmselfsup,
)
from nenya_nb.models.backbones.windows import (
    SwinBlock,
    cut_windows,
    join_windows,
    offset_index,
    seam_mask,
)

SMALL = dict(embed_dim=24, depths=(2, 2), num_heads=(2, 4), window_size=4)
ARCH = {"embed_dims": 24, "depths": (2, 2), "num_heads": (2, 4)}


def small(num_classes=0, **kwargs) -> SwinTransformer:
    return SwinTransformer(64, num_classes, **SMALL | kwargs).eval()


def on_meta(build):
    with torch.device("meta"):
        return build()


def count(model) -> int:
    return sum(p.numel() for p in model.parameters())


def randomise(model) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)


def double_images(*shape):
    return torch.randn(*shape, dtype=torch.float64)


# ---- parity with timm ----


def timm_swin(img_size=64, num_classes=0, **kwargs):
    settings = dict(drop_path_rate=0.0, num_classes=num_classes) | SMALL | kwargs
    return timm.models.SwinTransformer(img_size, **settings).double().eval()


@pytest.mark.parametrize("num_classes", [0, 1000])
@pytest.mark.parametrize(("arch", "name"), [("T", "swin_tiny"), ("B", "swin_base")])
def test_swin_has_timm_keys_and_shapes(arch, name, num_classes):
    ours = on_meta(lambda: SwinTransformer(num_classes=num_classes, **swin_arch(arch)))
    name = f"{name}_patch4_window7_224"
    theirs = on_meta(lambda: timm.create_model(name, num_classes=num_classes))
    shapes = {k: v.shape for k, v in ours.state_dict().items()}
    assert shapes == {k: v.shape for k, v in theirs.state_dict().items()}


@pytest.mark.parametrize("direction", ["from timm", "to timm"])
def test_swin_matches_timm_in_outputs_and_gradients(direction):
    ours, theirs = small(5).double(), timm_swin(num_classes=5)
    source, target = (theirs, ours) if direction == "from timm" else (ours, theirs)
    randomise(source)
    target.load_state_dict(source.state_dict())
    x = double_images(2, 3, 64, 64)
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


def test_swin_tiny_matches_timm_at_224():
    ours = SwinTransformer(num_classes=0, global_pool="avg", **swin_arch("T")).double().eval()
    theirs = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0).double().eval()
    ours.load_state_dict(theirs.state_dict())
    x = double_images(1, 3, 224, 224)
    with torch.inference_mode():
        assert (ours(x) - theirs(x)).abs().max() < 1e-9
        wanted = theirs.forward_features(x).permute(0, 3, 1, 2)
        assert (ours.forward_features(x) - wanted).abs().max() < 1e-9


@pytest.mark.parametrize("size", [(72, 56), (100, 68), (36, 64)])
def test_swin_fills_windows_up_as_timm(size):
    "Maps that are no multiple of the window (but no smaller than it), in both stages."
    ours, theirs = small(global_pool="avg").double(), timm_swin(strict_img_size=False)
    randomise(theirs)
    ours.load_state_dict(theirs.state_dict())
    x = double_images(2, 3, *size)
    assert (ours(x) - theirs(x)).abs().max() < 1e-9


@pytest.mark.parametrize(("size", "window"), [(32, 7), (16, 7), (32, 5), (64, 10)])
def test_swin_clips_windows_as_timm_built_for_small_images(size, window):
    "timm stores the clipped table; ours uses the middle of the full one."
    ours = small(window_size=window, global_pool="avg").double()
    theirs = timm_swin(size, window_size=window)
    randomise(ours)
    state = {}
    for name, value in ours.state_dict().items():
        if name.endswith("bias_table"):
            side = round(theirs.state_dict()[name].shape[0] ** 0.5)
            full = 2 * window - 1
            cut = slice((full - side) // 2, (full + side) // 2)
            value = value.view(full, full, -1)[cut, cut].flatten(0, 1)
        state[name] = value
    theirs.load_state_dict(state)
    x = double_images(2, 3, size, size)
    assert (ours(x) - theirs(x)).abs().max() < 1e-9


# ---- windows ----


def test_cut_windows_is_slicing_and_join_inverts():
    x = torch.randn(2, 6, 8, 3)
    windows = cut_windows(x, (3, 4))
    for image in range(2):
        for k, (r, c) in enumerate([(0, 0), (0, 4), (3, 0), (3, 4)]):
            wanted = x[image, r : r + 3, c : c + 4].reshape(12, 3)
            assert torch.equal(windows[4 * image + k], wanted)
    assert torch.equal(join_windows(windows, (3, 4), (6, 8)), x)


@pytest.mark.parametrize("window", [(1, 1), (2, 3), (4, 4)])
def test_offset_index_numbers_offsets(window):
    h, w = window
    index, seen = offset_index(window), {}
    for i in range(h * w):
        for j in range(h * w):
            offset = (i // w - j // w, i % w - j % w)
            assert seen.setdefault(offset, int(index[i, j])) == index[i, j]
    assert sorted(seen.values()) == list(range((2 * h - 1) * (2 * w - 1)))


@pytest.mark.parametrize(
    ("size", "window", "shift"),
    [((8, 8), (4, 4), (2, 2)), ((6, 4), (3, 4), (1, 0)), ((4, 9), (4, 3), (0, 1))],
)
def test_seam_mask_forbids_exactly_what_was_not_near(size, window, shift):
    "Two tokens of one window are near if their places before the roll are closer than a window."
    (H, W), mask = size, seam_mask(size, window, shift)
    places = torch.stack(torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij"), -1)
    rolled = places.roll((-shift[0], -shift[1]), dims=(0, 1))
    cut = cut_windows(rolled[None], window)  # (windows, n, 2)
    far = (cut[:, :, None] - cut[:, None]).abs() >= torch.tensor(window)
    assert torch.equal(mask, far.any(-1))


def test_swin_block_rolled_equals_true_shifted_windows():
    "A shifted block against the plain way: cut the shifted grid, small windows at the borders."
    block = SwinBlock(24, 2, window_size=4, shifted=True).double().eval()
    randomise(block)
    x = double_images(1, 8, 12, 24)
    inside, wanted = block.norm1(x), torch.zeros_like(x)
    rows, columns = [(0, 2), (2, 6), (6, 8)], [(0, 2), (2, 6), (6, 10), (10, 12)]
    for top, bottom in rows:
        for left, right in columns:
            part = inside[:, top:bottom, left:right].flatten(1, 2)
            bias = block.attn.bias((bottom - top, right - left))
            out = block.attn(part, bias)
            wanted[:, top:bottom, left:right] = out.unflatten(1, (bottom - top, right - left))
    wanted = x + wanted
    wanted = wanted + block.mlp(block.norm2(wanted))
    assert (block(x) - wanted).abs().max() < 1e-10


def test_swin_block_with_one_window_is_plain_attention():
    plain, shifted = (SwinBlock(24, 2, window_size=7, shifted=s).eval() for s in (False, True))
    shifted.load_state_dict(plain.state_dict())
    x = torch.randn(2, 5, 6, 24)
    assert torch.equal(plain(x), shifted(x)) and plain.attention(x).shape == (2, 1, 2, 30, 30)


def test_patch_merging_order_is_down_then_right():
    merging = PatchMerging(1)
    merging.norm = torch.nn.Identity()
    torch.nn.init.eye_(merging.reduction.weight)  # passes the first two of the four
    x = torch.arange(4.0).view(1, 2, 2, 1)
    assert merging(x).flatten().tolist() == [0, 2]
    assert merging(torch.ones(1, 3, 5, 1)).shape == (1, 2, 3, 2)


# ---- attention ----


@pytest.mark.parametrize("block", [0, 1, 2, 3, -1])
@pytest.mark.parametrize("size", [(64, 64), (40, 72), (9, 13)])
def test_swin_get_attention_is_what_the_block_used(block, size):
    model, seen = small().double(), {}
    randomise(model)
    blocks = [b for stage in model.layers for b in stage.blocks]
    attn = blocks[block].attn
    handle = attn.register_forward_hook(lambda m, i, o: seen.update(x=i[0], y=o))
    x = double_images(2, 3, *size)
    model(x)
    handle.remove()
    weights = model.get_attention(x, block)
    assert (weights.sum(-1) - 1).abs().max() < 1e-12 and weights.shape[0] == 2
    v = attn.split(seen["x"])[2]
    by_hand = attn.proj((weights.flatten(0, 1) @ v).transpose(1, 2).flatten(2))
    assert (by_hand - seen["y"]).abs().max() < 1e-11
    with pytest.raises(ValueError, match="block 4 does not exist"):
        model.get_attention(x, 4)


# ---- numbers ----


@pytest.mark.parametrize(
    ("arch", "headless", "headed"),
    [("B", 86_743_224, 87_768_224), ("T", 27_519_354, 28_288_354)],
)
def test_swin_parameter_counts(arch, headless, headed):
    build = lambda n: count(on_meta(lambda: SwinTransformer(num_classes=n, **swin_arch(arch))))  # noqa: E731
    assert (build(0), build(1000)) == (headless, headed)


@pytest.mark.parametrize(("size", "window", "gmac"), [(224, 7, 15.430), (192, 6, 11.277)])
def test_swin_base_work_is_the_published_one(size, window, gmac):
    model = on_meta(
        lambda: SwinTransformer(num_classes=0, window_size=window, **swin_arch("B")).eval()
    )
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, size, size, device="meta"))
    assert abs(counter.get_total_flops() / 2e9 - gmac) < 6e-4


@pytest.mark.parametrize(
    ("size", "sides"), [(224, [56, 28, 14, 7]), (64, [16, 8, 4, 2]), (32, [8, 4, 2, 1])]
)
def test_swin_base_stage_maps(size, sides):
    model = on_meta(lambda: SwinTransformer(num_classes=0, window_size=6, **swin_arch("B")).eval())
    maps = model.forward_stages(torch.empty(1, 3, size, size, device="meta"))
    assert [list(m.shape) for m in maps] == [[1, 128 * 2**k, s, s] for k, s in enumerate(sides)]
    assert model.num_features == model.num_features() == 1024


# ---- shapes, head, training ----


@pytest.mark.parametrize("batch", [0, 1, 2])
@pytest.mark.parametrize("size", [(1, 1), (4, 9), (32, 32), (33, 47), (70, 15)])
@pytest.mark.parametrize("num_classes", [0, 5])
def test_swin_closed_form_meta_and_real_shapes_agree(batch, size, num_classes):
    model, shape = small(num_classes), [batch, 3, *size]
    meta = on_meta(lambda: small(num_classes))
    closed = model.get_output_shape(shape)
    assert closed == list(model(torch.randn(shape)).shape)
    assert closed == list(meta(torch.empty(shape, device="meta")).shape)
    features = model.forward_features(shape)
    assert isinstance(features, TensorSpec)
    assert features.shape == list(model.forward_features(torch.randn(shape)).shape)


def test_swin_shapes_and_forward_from_eight_threads():
    model = small(5)
    before = copy.deepcopy(model.state_dict())
    images = [torch.randn(1, 3, 8 * k, 40) for k in range(1, 9)]
    with torch.inference_mode():
        serial = [model(x) for x in images]

    def run(x):
        with torch.inference_mode():
            return model(x), model.get_output_shape(x.shape)

    with ThreadPoolExecutor(8) as pool:
        for (out, shape), wanted in zip(pool.map(run, images), serial, strict=True):
            assert torch.equal(out, wanted) and shape == list(wanted.shape)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_swin_head_surgery_is_as_on_a_resnet():
    model, x = small(10), torch.randn(2, 3, 64, 64)
    assert model.has_head() and {"head.fc.weight", "head.fc.bias"} <= set(model.state_dict())
    features = model.forward_feat(x)
    assert torch.equal(model(x), model.head(features)) and features.shape == (2, 48)
    model.remove_head()
    assert model(x).shape == (2, 48, 8, 8) and torch.equal(model(x), model.forward_stages(x)[-1])
    assert not any(key.startswith("head") for key in model.state_dict())
    model.reset_classifier(3)
    assert model(x).shape == (2, 3) and model.output_dim == 3
    model.reset_classifier(0)
    assert torch.equal(model(x), features)


def test_swin_refuses_wrong_images_and_arguments():
    model = small()
    for wrong in (torch.randn(3, 32, 32), torch.randn(1, 1, 32, 32)):
        with pytest.raises(ValueError):
            model(wrong)
    for argument in (dict(num_heads=(2,)), dict(num_heads=(5, 5)), dict(global_pool="max")):
        with pytest.raises(ValueError):
            small(**argument)
    with pytest.raises(ValueError, match="Known"):
        swin_arch("XL")
    sizes = {"embed_dims": 24, "depths": (1, 1), "num_heads": (2, 2)}
    assert swin_arch(sizes) == {"embed_dim": 24, "depths": (1, 1), "num_heads": (2, 2)}
    for wrong in (sizes | {"window_size": 4}, {"embed_dims": 24}):
        with pytest.raises(ValueError, match="embed_dims, depths, num_heads, got"):
            swin_arch(wrong)


def test_swin_backward_reaches_every_parameter():
    model = small(5, drop_path_rate=0.1).train()
    model(torch.randn(4, 3, 64, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


# ---- SimMIM ----


def test_M11_simmim_swin_base_192():
    cfgs = dict(block_cfgs=dict(window_size=6))
    model = on_meta(lambda: SimMIMSwinTransformer(arch="B", img_size=192, stage_cfgs=cfgs))
    assert count(model) == 86_725_304 and model.mask_token.shape == (1, 1, 128)
    x, mask = torch.empty(2, 3, 192, 192, device="meta"), torch.empty(2, 48, 48, device="meta")
    answer = model(x, mask)
    assert isinstance(answer, tuple) and [list(a.shape) for a in answer] == [[2, 1024, 6, 6]]
    assert model.get_output_shape(x.shape) == [[2, 1024, 6, 6]] and cfgs == dict(
        block_cfgs=dict(window_size=6)
    )


def simmim(**kwargs):
    return SimMIMSwinTransformer(ARCH, 64, window_size=4, out_indices=(1,), **kwargs).eval()


def test_M11_simmim_replaces_hidden_patches_by_the_token():
    model, x = simmim().double(), double_images(2, 3, 64, 64)
    randomise(model)
    mask = (torch.rand(2, 16, 16) < 0.6).double()
    patches = model.patch_embed(x)
    for image, row, column in mask.nonzero().tolist():
        patches[image, row, column] = model.mask_token[0, 0]
    wanted = model.norm(model.layers(patches)).permute(0, 3, 1, 2)
    for given in (mask, mask.bool(), mask.flatten(1)):
        (features,) = model(x, given)
        assert (features - wanted).abs().max() < 1e-12


def test_M11_simmim_without_mask_is_a_swin():
    model, x = simmim(), torch.randn(2, 3, 64, 64)
    plain = SwinTransformer(64, 0, **SMALL).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if k != "mask_token"})
    assert torch.equal(model(x)[0], plain(x)) and torch.equal(
        model.forward_feat(x), plain(x).mean((2, 3))
    )


def test_M11_simmim_trains_its_token_and_refuses_misfits():
    model, x = simmim().train(), torch.randn(2, 3, 64, 64)
    model(x, torch.ones(2, 16, 16))[0].square().sum().backward()
    assert model.mask_token.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="a mask of \\[2, 8, 8\\]"):
        model(x, torch.ones(2, 8, 8))
    with pytest.raises(ValueError, match="out_indices"):
        SimMIMSwinTransformer(ARCH, out_indices=(0, 1))
    with pytest.raises(ValueError, match="window_size"):
        SimMIMSwinTransformer(ARCH, out_indices=(1,), stage_cfgs=dict(block_cfgs=dict(pad=1)))


# ---- names of others ----


def to_mmselfsup(state_dict):
    "Our Swin under MMSelfSup's names, with merging weights in the channel order of nn.Unfold."
    renamed = {}
    for name, value in state_dict.items():
        name = name.replace("patch_embed.proj.", "patch_embed.projection.").replace(
            ".attn.", ".attn.w_msa."
        )
        name = name.replace("mlp.fc1", "ffn.layers.0.0").replace("mlp.fc2", "ffn.layers.1")
        name = name.replace("norm.", "norm3.") if name.startswith("norm.") else name
        if ".downsample." in name:
            stage = int(name.split(".")[1])
            name = name.replace(f"layers.{stage}", f"stages.{stage - 1}")
            channels = value.shape[-1] // 4
            order = [
                (r * 2 + d) * channels + c for c in range(channels) for d in (0, 1) for r in (0, 1)
            ]
            value = value[..., order]
        elif name.startswith("layers."):
            name = name.replace("layers.", "stages.", 1)
        renamed["backbone." + name] = value
    renamed["backbone.stages.0.blocks.0.attn.w_msa.relative_position_index"] = offset_index((4, 4))
    return renamed


def test_C16_mmselfsup_names_load():
    ours, other, x = simmim(), simmim(), torch.randn(1, 3, 64, 64)
    randomise(ours)
    theirs = to_mmselfsup(ours.state_dict())
    assert "backbone.stages.0.downsample.reduction.weight" in theirs
    other.load_state_dict(theirs)
    assert torch.equal(ours(x)[0], other(x)[0])
    assert all(
        torch.equal(v, ours.state_dict()[k])
        for k, v in swin_from_mmselfsup(ours.state_dict()).items()
    )


def test_C16_mmselfsup_merging_computes_the_same():
    "MMSelfSup merges with nn.Unfold; its weights, sorted, must give what its own code gives."
    x = torch.randn(2, 6, 8, 5)
    norm, reduction = torch.nn.LayerNorm(20), torch.nn.Linear(20, 10, bias=False)
    randomise(norm)
    unfolded = F.unfold(x.permute(0, 3, 1, 2), kernel_size=2, stride=2).transpose(1, 2)
    wanted = reduction(norm(unfolded)).view(2, 3, 4, 10)
    parts = {
        "norm.weight": norm.weight,
        "norm.bias": norm.bias,
        "reduction.weight": reduction.weight,
    }
    theirs = {f"stages.0.downsample.{k}": v.detach() for k, v in parts.items()}
    merging = PatchMerging(5)
    merging.load_state_dict(
        {k.removeprefix("layers.1.downsample."): v for k, v in swin_from_mmselfsup(theirs).items()}
    )
    assert torch.allclose(merging(x), wanted, atol=1e-6)
