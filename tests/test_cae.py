"""CAE: the whole flow against a slow one with boolean indexing, who sees what, the teacher, the words, and real training."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from two_processes import find_words, in_two_processes

from nenya_nb.core import Clock
from nenya_nb.data import load_dataset
from nenya_nb.models.algorithms.cae import (
    CAE,
    CAEHead,
    CAELoss,
    CAENeck,
    CrossAttention,
    RegressorBlock,
    split_patches,
)
from nenya_nb.models.backbones.masked_vit import CAEViT
from nenya_nb.models.backbones.resnet_variants import resnet_tiny
from nenya_nb.models.config import build
from nenya_nb.models.target_generators import DALLEEncoder, PixelClusters
from nenya_nb.training import fit

torch.set_num_threads(1)
TINY = {"embed_dims": 24, "num_layers": 2, "num_heads": 3, "feedforward_channels": 48}
SIDE, PATCH, K, M = 16, 4, 10, 6


def encoder(**more):
    return CAEViT(
        TINY, **dict(img_size=SIDE, patch_size=PATCH, init_values=0.1, qkv_bias=False) | more
    )


def images(batch=4, height=SIDE, width=SIDE):
    return torch.randn(batch, 3, height, width)


def masks(batch=4, rows=4, columns=4, hidden=M):
    return (torch.rand(batch, rows * columns).argsort(1) < hidden).view(batch, rows, columns)


def words(k=K):
    return PixelClusters(k, PATCH).fit(images(64))


def cae(**more):
    torch.manual_seed(0)
    neck = CAENeck(24, K, regressor_depth=2, decoder_depth=1, num_heads=3)
    return CAE(encoder(), **dict(neck=neck, target_generator=words(), num_masked=M) | more)


def views(**sizes):
    return [images(), masks(**sizes)]


# ---- parts ----


@pytest.mark.parametrize("hidden", [1, 7, 15])
def test_split_patches_are_boolean_indexing(hidden):
    mask = masks(8, hidden=hidden).flatten(1)
    seen, unseen = split_patches(mask, hidden)
    for row in range(8):
        assert torch.equal(seen[row], torch.where(~mask[row])[0])
        assert torch.equal(unseen[row], torch.where(mask[row])[0])


def test_cross_attention_is_torchs():
    torch.manual_seed(0)
    ours, theirs = (
        CrossAttention(24, 3).double(),
        nn.MultiheadAttention(24, 3, batch_first=True).double(),
    )
    nn.init.normal_(theirs.in_proj_bias)
    theirs.in_proj_bias.data[24:48] = 5.0  # a bias of the keys, which ours has not: no difference
    with torch.no_grad():
        for layer, weight, bias in zip(
            (ours.q, ours.k, ours.v),
            theirs.in_proj_weight.chunk(3),
            theirs.in_proj_bias.chunk(3),
            strict=True,
        ):
            layer.weight.copy_(weight)
            if layer.bias is not None:
                layer.bias.copy_(bias)
    ours.proj.load_state_dict(theirs.out_proj.state_dict())
    q, k, v = (torch.randn(2, n, 24, dtype=torch.float64) for n in (5, 9, 9))
    torch.testing.assert_close(ours(q, k, v), theirs(q, k, v, need_weights=False)[0])


def test_regressor_block_computes_its_formula():
    torch.manual_seed(0)
    block = RegressorBlock(24, 3, mlp_ratio=2, init_values=0.3).double()
    for p in block.parameters():
        nn.init.normal_(p, std=0.3)
    hidden, visible, at_h, at_v = (torch.randn(2, n, 24, dtype=torch.float64) for n in (5, 9, 5, 9))
    everyone, places = torch.cat([visible, hidden], 1), torch.cat([at_v, at_h], 1)

    def norm(layer, x):
        return F.layer_norm(x, (24,), layer.weight, layer.bias, 1e-6)

    q = block.attn.q(norm(block.norm_q, hidden + at_h)).unflatten(2, (3, 8))
    k = block.attn.k(norm(block.norm_k, everyone + places)).unflatten(2, (3, 8))
    v = block.attn.v(norm(block.norm_v, everyone)).unflatten(2, (3, 8))
    weights = (torch.einsum("bmhd,bnhd->bhmn", q, k) / 8**0.5).softmax(-1)
    answers = block.attn.proj(torch.einsum("bhmn,bnhd->bmhd", weights, v).flatten(2))
    x = norm(block.norm2, hidden + block.ls1.gamma * answers)
    x = x + block.ls2.gamma * block.mlp.fc2(F.gelu(block.mlp.fc1(x)))
    torch.testing.assert_close(block(hidden, visible, at_h, at_v), x)


def test_cross_attention_refuses_heads_that_do_not_divide():
    with pytest.raises(ValueError, match="num_heads must divide dim"):
        CrossAttention(24, 5)


def test_neck_has_the_papers_size():
    with torch.device("meta"):
        neck = CAENeck()
    D, count = 768, sum(p.numel() for p in neck.parameters())
    ask = 4 * D * D + 3 * D + 4 * 2 * D + 2 * 4 * D * D + 5 * D + 2 * D
    block = 4 * D * D + 4 * D + 2 * 2 * D + 2 * 4 * D * D + 5 * D + 2 * D
    assert count == 4 * ask + 4 * block + 2 * 2 * D + D + 8192 * (D + 1)


def test_loss_closed_forms():
    ids, target = torch.tensor([0, 1, 2]), torch.randn(1, 3, 8)
    main, align = CAELoss(lambd=2)(torch.zeros(3, 5), ids, target, target)
    assert align == 0 and math.isclose(main, math.log(5), rel_tol=1e-6)
    sure = 100 * F.one_hot(ids, 5).float()
    main, align = CAELoss(lambd=3)(sure, ids, target + 2, target)
    assert main < 1e-6 and math.isclose(align, 3 * 4, rel_tol=1e-5)


def test_head_takes_the_hidden_and_stops_the_gradient():
    logits, latents = torch.randn(2, 3, 5), torch.randn(2, 3, 8)
    target = torch.randn(2, 3, 8, requires_grad=True)
    ids = torch.arange(16).view(2, 8)
    hidden = torch.tensor([[0, 3, 7], [1, 2, 5]])
    out = CAEHead()(logits, ids, latents, target, hidden)
    assert out[1].tolist() == [0, 3, 7, 9, 10, 13] and torch.equal(out[0].view(2, 3, 5), logits)
    assert not out[3].requires_grad


# ---- the whole ----


def slow_loss(algorithm, pictures, mask):
    "One image after the other, with boolean indexing."
    student, teacher, neck = algorithm.backbone, algorithm.teacher.backbone, algorithm.neck
    mains, aligns = [], []
    for picture, hide in zip(pictures, mask.flatten(1), strict=True):

        def encode(network, keep, picture=picture):
            tokens = network.tokens(picture[None])[0]
            chosen = torch.cat([tokens[:1], tokens[1:][keep]])[None]
            return network.norm(network.blocks(chosen))[:, 1:]

        at = student.pos_embed[0, 1:]
        logits, latents = neck(encode(student, ~hide), at[hide][None], at[~hide][None])
        distances = []
        for patch in algorithm.target_generator.cut(picture[None])[0]:
            distances.append((algorithm.target_generator.centroids - patch).norm(dim=1))
        ids = torch.stack(distances).argmin(1)
        mains.append(F.cross_entropy(logits[0], ids[hide]))
        aligns.append((latents - encode(teacher, hide).detach()).square().mean())
    return torch.stack(mains).mean(), 2 * torch.stack(aligns).mean()


def test_loss_matches_the_slow_flow():
    algorithm = cae().double()
    with torch.no_grad():  # a teacher of its own
        for p in algorithm.teacher.parameters():
            p.add_(0.05 * torch.randn_like(p))
    pictures, mask = images().double(), masks()
    losses = algorithm([pictures, mask], mode="loss")
    main, align = slow_loss(algorithm, pictures, mask)
    torch.testing.assert_close(losses["main"], main.detach())
    torch.testing.assert_close(losses["align"], align.detach())
    torch.testing.assert_close(losses["loss"], main + align)
    names = [n for n, p in algorithm.named_parameters() if p.requires_grad]
    mine = [p for p in algorithm.parameters() if p.requires_grad]
    fast = torch.autograd.grad(losses["loss"], mine)
    for name, a, b in zip(names, fast, torch.autograd.grad(main + align, mine), strict=True):
        torch.testing.assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}")


def test_first_loss_is_guessing():
    assert abs(cae()(views(), mode="loss")["main"] - math.log(K)) < 0.2


def test_hidden_pixels_do_not_leak_into_the_guess():
    algorithm = cae().eval()
    pictures, mask = views()
    veil = mask.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)[:, None]
    other = torch.where(veil, images(), pictures)
    with torch.no_grad():
        _, logits, latents, *_ = algorithm._guess(pictures, mask.flatten(1))
        _, logits2, latents2, *_ = algorithm._guess(other, mask.flatten(1))
    assert torch.equal(logits, logits2) and torch.equal(latents, latents2)


def test_visible_pixels_do_not_leak_into_the_teachers_answer():
    algorithm = cae().eval()
    pictures, mask = views()
    veil = mask.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)[:, None]
    other = torch.where(veil, pictures, images())
    first = algorithm._describe(pictures, mask.flatten(1))
    assert first.shape == (4, M, 24)
    assert torch.equal(first, algorithm._describe(other, mask.flatten(1)))


def test_the_student_is_trained_but_for_its_positions():
    for name, p in cae().named_parameters():
        mine = name.startswith(("backbone.", "neck.")) and not name.endswith("pos_embed")
        assert p.requires_grad == mine, name


@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
def test_teacher_follows_after_the_step(momentum):
    algorithm = cae(base_momentum=momentum)
    before = copy.deepcopy(algorithm.teacher.backbone)
    optimizer = torch.optim.AdamW([p for p in algorithm.parameters() if p.requires_grad], lr=1e-2)
    algorithm(views(), mode="loss")["loss"].backward()
    optimizer.step()
    for a, b in zip(before.parameters(), algorithm.teacher.backbone.parameters(), strict=True):
        assert torch.equal(a, b)  # the loss itself moves nothing
    algorithm.after_step(Clock(1, 1))
    pairs = zip(
        algorithm.teacher.backbone.parameters(),
        before.parameters(),
        algorithm.backbone.parameters(),
        strict=True,
    )
    for now, old, student in pairs:
        torch.testing.assert_close(now, momentum * old + (1 - momentum) * student)


def test_losses_are_named_and_detached():
    losses = cae()(views(), mode="loss")
    assert set(losses) == {"loss", "main", "align", "accuracy", "std"}
    assert [k for k, v in losses.items() if v.requires_grad] == ["loss"]
    assert all(v.shape == () and v.isfinite() for v in losses.values())


def test_without_alignment():
    losses = cae(loss_fn=CAELoss(lambd=0))(views(), mode="loss")
    assert losses["align"] == 0 and losses["loss"] == losses["main"]


@pytest.mark.parametrize("height,width", [(16, 24), (8, 16), (32, 32)])
def test_other_sizes_of_images(height, width):
    algorithm = cae()
    mask = masks(2, height // PATCH, width // PATCH)
    losses = algorithm([images(2, height, width), mask], mode="loss")
    assert losses["loss"].isfinite()
    found = algorithm.diagnostics()
    assert found["mask"].shape == (2, height // PATCH, width // PATCH)
    assert found["reconstruction"].shape == (2, 3, height, width)
    assert algorithm.eval().extract_feat(images(1, height, width)).shape == (1, 24)


def test_one_image_is_enough():
    assert cae()([images(1), masks(1)], mode="loss")["loss"].isfinite()


def test_features_are_the_mean_of_the_patches():
    algorithm, pictures = cae().eval(), images()
    expected = algorithm.backbone.forward_features(pictures)[:, 1:].mean(1)
    for found in (algorithm(pictures), algorithm([pictures, masks()]), algorithm.embed(pictures)):
        torch.testing.assert_close(found, expected)


def test_predict_fills_in_words():
    algorithm = cae().eval()
    pictures, mask = views()
    assert algorithm(pictures, mode="predict").shape == (4, 24)
    found, true = algorithm([pictures, mask], mode="predict"), algorithm.target_generator(pictures)
    assert torch.equal(found[~mask.flatten(1)], true[~mask.flatten(1)])
    algorithm([pictures, mask], mode="loss")
    assert torch.equal(algorithm.diagnostics()["predicted"].flatten(1), found)


def test_diagnostics_are_maps():
    algorithm, batch = cae(), views()
    assert algorithm.diagnostics() == {}
    losses = algorithm(batch, mode="loss")
    found = algorithm.diagnostics()
    assert set(found) == {"images", "mask", "ids", "predicted", "reconstruction"}
    assert torch.equal(found["mask"], batch[1]) and found["ids"].shape == (4, 4, 4)
    right = (found["ids"] == found["predicted"])[batch[1]].float().mean()
    torch.testing.assert_close(losses["accuracy"], right)


def test_state_dict_brings_words_and_teacher():
    first, second = cae(), cae(target_generator=PixelClusters(K, PATCH))
    batch = views()
    first(batch, mode="loss")["loss"].backward()
    torch.optim.SGD([p for p in first.parameters() if p.requires_grad], lr=0.1).step()
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(batch, mode="loss")["loss"], second(batch, mode="loss")["loss"])


# ---- words from the loader ----


def test_words_are_found_before_the_first_epoch_and_the_loader_is_set_back():
    algorithm = cae(target_generator=PixelClusters(K, PATCH), num_masked=M)
    loader = load_dataset("shapes", count=96, size=SIDE).loader(16, recipe=algorithm.views)
    fresh = load_dataset("shapes", count=96, size=SIDE).loader(16, recipe=algorithm.views)
    algorithm.on_epoch_start(loader, Clock(5, 1))
    assert algorithm.target_generator.fitted
    for (a, _), (b, _) in zip(loader, fresh, strict=True):
        assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    before = algorithm.target_generator.centroids.clone()
    algorithm.on_epoch_start(loader, Clock(5, 1))  # only once
    assert torch.equal(before, algorithm.target_generator.centroids)
    algorithm(a, mode="loss")


@pytest.mark.parametrize("kind", ["list", "torch"])
def test_words_are_found_with_any_loader(kind):
    algorithm = cae(target_generator=PixelClusters(K, PATCH))
    rows = [([x, m], 0) for x, m in zip(images(32), masks(32), strict=True)]
    loader = DataLoader(rows, batch_size=8) if kind == "torch" else [(views(), None)] * 3
    algorithm.on_epoch_start(loader, Clock(4, 1))
    assert algorithm.target_generator.fitted


def test_dalle_gives_words_of_the_same_crop():
    words = DALLEEncoder(patch_size=PATCH, hidden_dim=8, num_classes=K)
    algorithm = cae(target_generator=words)
    algorithm.on_epoch_start([], Clock(1, 1))  # nothing to fit
    assert algorithm(views(), mode="loss")["loss"].isfinite()
    assert "reconstruction" not in algorithm.diagnostics()


def test_defaults_fit_together():
    algorithm = CAE(encoder())
    assert algorithm.neck.num_classes == algorithm.target_generator.num_classes == 64
    assert algorithm.num_masked == 8 and algorithm.loss_fn.lambd == 2
    assert algorithm.views == {"type": "block_masked_view", "patch_size": 4, "num_masked": 8}


def test_built_from_a_config():
    here = "nenya_nb.models."
    backbone = {"type": here + "backbones.masked_vit.CAEViT", "arch": TINY, "img_size": SIDE}
    backbone |= {"patch_size": PATCH}
    neck = {"type": here + "algorithms.cae.CAENeck", "input_dim": 24, "num_classes": K}
    neck |= {"num_heads": 3, "decoder_depth": 1}
    generator = {"type": here + "target_generators.PixelClusters", "num_clusters": K}
    loss = {"type": here + "algorithms.cae.CAELoss", "lambd": 1.0}
    algorithm = build(
        {"type": here + "algorithms.cae.CAE", "backbone": backbone, "neck": neck, "loss_fn": loss}
        | {"target_generator": generator, "base_momentum": 0.5, "num_masked": M}
    )
    assert algorithm.loss_fn.lambd == 1 and len(algorithm.neck.decoder) == 1
    algorithm.on_epoch_start([([images(64), masks(64)], None)], Clock(1, 1))
    assert algorithm(views(), mode="loss")["loss"].isfinite()


# ---- what goes wrong ----


def test_errors_say_what_to_do():
    with pytest.raises(TypeError, match="use a CAEViT"):
        CAE(resnet_tiny())
    with pytest.raises(ValueError, match="num_masked goes from 1 to 15, got 16"):
        CAE(encoder(), num_masked=16)
    with pytest.raises(ValueError, match="num_classes=10"):
        CAE(encoder(), CAENeck(24, 9, num_heads=3), target_generator=words())
    with pytest.raises(ValueError, match="neck expects 48"):
        CAE(encoder(), CAENeck(48, 64, num_heads=3))
    with pytest.raises(ValueError, match="block_masked_view"):
        cae()([images(), images()], mode="loss")
    with pytest.raises(ValueError, match="expected 6 hidden patches in every image, got 5"):
        cae()(views(hidden=5), mode="loss")
    with pytest.raises(ValueError, match="patch_size"):
        cae(target_generator=PixelClusters(K, 8).fit(images(64)))(views(), mode="loss")
    with pytest.raises(ValueError, match="call fit"):
        cae(target_generator=PixelClusters(K, PATCH))(views(), mode="loss")


# ---- training ----


def test_learns_one_batch():
    algorithm, batch = cae(), views()
    optimizer = torch.optim.AdamW([p for p in algorithm.parameters() if p.requires_grad], lr=5e-3)
    losses = []
    for _ in range(60):
        loss = algorithm(batch, mode="loss")["main"]
        algorithm(batch, mode="loss")["loss"].backward()
        optimizer.step(), optimizer.zero_grad()
        algorithm.after_step(Clock(1, 1))
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_resumes_exactly(tmp_path):
    data = load_dataset("shapes", count=60, size=SIDE)
    settings = dict(batch_size=16, device="cpu", progress=False, monitor=False, lr=1e-3)

    def fresh():
        return cae(target_generator=PixelClusters(K, PATCH))

    straight, first, second = fresh(), fresh(), fresh()
    fit(straight, data, 2, **settings)

    def stop(run):
        if run.clock.step == 2:
            run.control.stop()

    class Stop:
        on_step = staticmethod(stop)

    fit(first, data, 2, checkpoint_dir=tmp_path, callbacks=[Stop()], **settings)
    fit(second, data, 2, checkpoint_dir=tmp_path, resume=True, **settings)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_two_processes_share_the_words_of_the_first(tmp_path):
    pictures = images(16)
    first, second = in_two_processes(find_words, tmp_path, pictures)
    assert torch.equal(first, second) and torch.equal(first, find_words(0, pictures))
    assert not torch.equal(first, find_words(1, pictures))  # the second's own would be others


@pytest.mark.parametrize("mode", ["loss", "predict"])
def test_every_batch_must_hide_as_many(mode):
    "Not only the first one: another number would call visible patches hidden."
    algorithm = cae()
    for good in ("loss", "predict"):
        algorithm(views(), mode=good)
    with pytest.raises(ValueError, match="expected 6 hidden patches in every image"):
        algorithm(views(hidden=M - 1), mode=mode)


def test_a_momentum_that_is_none_is_refused_at_once():
    with pytest.raises(ValueError, match="CAE: base_momentum is between 0 and 1, got 1.5"):
        CAE(encoder(), base_momentum=1.5)
