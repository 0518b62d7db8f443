"""iBOT: the patches' loss and KoLeo against lightly's, CLS as in DINO, masks, gradients, schedules, pictures, errors."""

import math

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import IBOTPatchLoss as LightlyPatchLoss
from lightly.loss import KoLeoLoss as LightlyKoLeo
from torch import nn

from nenya_nb.core import Clock
from nenya_nb.data.masks import RandomBlockMask
from nenya_nb.models import DINOLoss, DinoProjectionHead, SimMIMViT, VisionTransformer
from nenya_nb.models.algorithms import ibot
from nenya_nb.models.algorithms.ibot import IBOT, IBOTPatchLoss, KoLeoLoss

torch.set_num_threads(1)
B, N, K = 6, 16, 12
ARCH = {"embed_dims": 24, "num_layers": 2, "num_heads": 2, "feedforward_channels": 48}


def small(seed=0, **options):
    torch.manual_seed(seed)
    backbone = SimMIMViT(ARCH, 32, 4, global_pool="token")
    head = DinoProjectionHead(24, 32, 8, K, norm_last_layer=True)
    return IBOT(backbone, head, **{"freeze_last_layer": 0} | options)


def views(sizes=(32, 32, 16), batch=B, p=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    crops = [torch.randn(batch, 3, size, size, generator=generator) for size in sizes]
    masks = [RandomBlockMask(4, p=p)(crop, generator) for crop in crops[:2]]
    return [*crops, torch.stack(masks, 1)]


def numbers(*shape):
    return torch.randn(*shape, dtype=torch.float64)


# ---------------------------------------------------------------- the patches' loss


def test_patch_loss_matches_lightly_for_several_steps():
    torch.manual_seed(0)
    theirs = LightlyPatchLoss(K, teacher_temp=0.07).double()
    ours = IBOTPatchLoss(K, teacher_temperature=0.07).double()
    for _ in range(4):
        student, teacher = numbers(B, N, K).requires_grad_(), numbers(B, N, K)
        mask = torch.rand(B, N) < 0.4
        mask[0] = False
        expected = theirs(teacher[mask], student[mask], mask.view(B, 4, 4))
        found = ours(student, teacher, mask)
        torch.testing.assert_close(found, expected)
        mine, other = (torch.autograd.grad(loss, student)[0] for loss in (found, expected))
        torch.testing.assert_close(mine, other)
        ours.update_center(teacher[mask])  # lightly's centre is that of the hidden patches
        torch.testing.assert_close(ours.center, theirs.center.value.flatten())


def test_patch_loss_is_a_mean_of_means():
    student, teacher, loss_fn = numbers(2, N, K), numbers(2, N, K), IBOTPatchLoss(K).double()
    few, many = torch.arange(N) < 2, torch.arange(N) < 10
    alone = [loss_fn(student[[b]], teacher[[b]], m[None]) for b, m in enumerate((few, many))]
    together = loss_fn(student, teacher, torch.stack([few, many]))
    torch.testing.assert_close(together, (alone[0] + alone[1]) / 2)
    none = loss_fn(student, teacher, torch.stack([few, few & False]))
    torch.testing.assert_close(none, alone[0] / 2)
    assert loss_fn(student, teacher, torch.zeros(2, N, dtype=torch.bool)) == 0


def test_patch_loss_of_equal_logits_is_ln_k_and_of_a_copy_the_entropy():
    loss_fn, mask = IBOTPatchLoss(K).double(), torch.ones(B, N, dtype=torch.bool)
    same = torch.zeros(B, N, K).double()
    assert loss_fn(same, same, mask).item() == pytest.approx(math.log(K))
    teacher = numbers(B, N, K)
    entropy = torch.special.entr(loss_fn.targets(teacher)).sum(-1).mean()
    copy = teacher * 0.1 / loss_fn.temperature
    torch.testing.assert_close(loss_fn(copy, teacher, mask), entropy)
    assert loss_fn(numbers(B, N, K), teacher, mask) > entropy


def test_patch_loss_gives_gradient_to_hidden_patches_of_the_student_only():
    student, teacher = numbers(B, N, K).requires_grad_(), numbers(B, N, K).requires_grad_()
    mask = torch.rand(B, N) < 0.4
    IBOTPatchLoss(K).double()(student, teacher, mask).backward()
    assert teacher.grad is None
    assert torch.equal(student.grad.any(2), mask)


# ---------------------------------------------------------------- KoLeo


@pytest.mark.parametrize("rows", [2, 3, 17])
def test_koleo_matches_lightly(rows):
    torch.manual_seed(rows)
    x = numbers(rows, 5).requires_grad_()
    found, expected = KoLeoLoss()(x), LightlyKoLeo()(x)
    torch.testing.assert_close(found, expected)
    mine, other = (torch.autograd.grad(loss, x)[0] for loss in (found, expected))
    torch.testing.assert_close(mine, other)


def test_koleo_looks_at_other_processes(monkeypatch):
    x = numbers(6, 4)
    expected = KoLeoLoss()(x)
    parts = []
    for rank, own in enumerate(x.chunk(2)):
        monkeypatch.setattr(ibot, "gather", lambda _: F.normalize(x, dim=1))
        monkeypatch.setattr(ibot, "rank", lambda rank=rank: rank)
        parts.append(KoLeoLoss()(own))
    torch.testing.assert_close(torch.stack(parts).mean(), expected)


def test_koleo_of_twins_is_finite_and_of_a_spread_is_less():
    twins = torch.ones(4, 3, requires_grad=True)
    loss = KoLeoLoss()(twins)
    loss.backward()
    assert loss.isfinite() and twins.grad.isfinite().all()
    assert KoLeoLoss()(torch.eye(4)) < 0 < KoLeoLoss()(torch.eye(4) + 1)


# ---------------------------------------------------------------- the algorithm


def test_losses_add_up_and_are_dinos_for_cls():
    algorithm, crops = small(patch_weight=0.5, koleo=0.1).eval(), views()
    losses = algorithm(crops, mode="loss")
    total = losses["cls"] + 0.5 * losses["patch"] + 0.1 * losses["koleo"]
    torch.testing.assert_close(losses["loss"].detach(), total)
    backbone, *images, masks = algorithm.backbone, *crops

    def cls(network, x, mask=None):
        return network.norm(network.blocks(network.tokens(x, mask)))[:, 0]

    student = [cls(backbone, x, masks[:, g]) for g, x in enumerate(images[:2])]
    student = [algorithm.neck(x) for x in [*student, cls(backbone, images[2])]]
    teacher = [
        algorithm.teacher.projection_head(cls(algorithm.teacher.backbone, x)) for x in images[:2]
    ]
    torch.testing.assert_close(losses["cls"], DINOLoss(K)(student, teacher).detach())


def test_patch_part_written_out():
    algorithm, crops = small().double().eval(), views(p=0.5, seed=3)
    crops = [v.double() if v.is_floating_point() else v for v in crops]
    losses = algorithm(crops, mode="loss")
    total = 0.0
    for g in range(2):
        for b in range(B):
            image, mask = crops[g][[b]], crops[-1][[b], g]
            hidden = mask.flatten().nonzero()[:, 0]
            if not len(hidden):
                continue
            t = algorithm.teacher.backbone.forward_features(image)[0, 1:][hidden]
            s = algorithm.backbone(image, mask)[0].flatten(2).transpose(1, 2)[0][hidden]
            p = (algorithm.teacher.projection_head(t) / 0.04).softmax(1)
            total += -(p * (algorithm.neck(s) / 0.1).log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(losses["patch"], (total / (2 * B)).detach())


def test_student_does_not_see_what_is_hidden_and_the_teacher_does():
    algorithm, (first, second, masks) = small().eval(), views((32, 32))
    algorithm([first, second, masks], mode="loss")
    before = algorithm._last
    hidden = masks[:, 0].repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    other = torch.where(hidden, torch.randn_like(first), first)
    algorithm([other, second, masks], mode="loss")
    torch.testing.assert_close(algorithm._last["student"], before["student"])
    torch.testing.assert_close(algorithm._last["patches"], before["patches"])
    changed = algorithm._last["teacher"] != before["teacher"]
    assert changed[:B].any(1).all() and not changed[B:].any()


def test_without_masks_only_cls_learns():
    algorithm, crops = small(), views(p=0.0)
    losses = algorithm(crops, mode="loss")
    assert losses["patch"] == 0 and not crops[-1].any()
    torch.testing.assert_close(losses["loss"].detach(), losses["cls"])
    losses["loss"].backward()
    assert not algorithm.backbone.mask_token.grad.any()


def test_two_centres_move_in_training_only():
    algorithm, crops = small(), views()
    algorithm.eval()(crops, mode="loss")
    assert not algorithm.loss_fn.center.any() and not algorithm.patch_loss_fn.center.any()
    algorithm.train()(crops, mode="loss")
    last = algorithm._last
    algorithm.after_step(Clock(1, 1))
    torch.testing.assert_close(algorithm.loss_fn.center, 0.1 * last["teacher"].mean(0))
    patches = last["teacher_patches"].flatten(0, 1)
    torch.testing.assert_close(algorithm.patch_loss_fn.center, 0.1 * patches.mean(0))


def test_both_temperatures_warm_up():
    warm = dict(teacher_temperature=0.07, warmup_temperature=0.04)
    algorithm = small(
        loss_fn=DINOLoss(K, warmup_epochs=2, **warm),
        patch_loss_fn=IBOTPatchLoss(K, warmup_epochs=4, **warm),
    )
    clock, found = Clock(1, 5), []
    for _ in range(4):
        found.append(
            (algorithm.loss_fn.temperature.item(), algorithm.patch_loss_fn.temperature.item())
        )
        clock.step += 1
        algorithm.after_step(clock)
    expected = [(0.04, 0.04), (0.07, 0.05), (0.07, 0.06), (0.07, 0.07)]
    assert [pytest.approx(pair) for pair in expected] == found


def test_perplexities_are_those_of_the_teachers_answers():
    algorithm = small().eval()
    losses = algorithm(views(), mode="loss")
    p = algorithm.patch_loss_fn.targets(algorithm._last["teacher_patches"]).flatten(0, 1)
    expected = torch.special.entr(p.mean(0)).sum().exp()
    torch.testing.assert_close(losses["patch_perplexity"], expected)
    torch.testing.assert_close(losses["patch_entropy"], torch.special.entr(p).sum(1).mean())
    assert 1 <= losses["perplexity"] <= K + 1e-4


def test_features_are_the_teachers():
    algorithm, images = small().eval(), torch.randn(2, 3, 40, 32)
    with torch.no_grad():
        for p in algorithm.backbone.parameters():
            p.zero_()
    tokens = algorithm.teacher.backbone.forward_features(images)
    torch.testing.assert_close(algorithm(images), tokens[:, 0])
    torch.testing.assert_close(
        algorithm.embed(images), algorithm.teacher.projection_head(tokens[:, 0])
    )
    logits = algorithm.patch_logits(images)
    assert logits.shape == (2, K, 10, 8)
    expected = algorithm.teacher.projection_head(tokens[0, 1:])
    torch.testing.assert_close(logits[0].flatten(1).T, expected)


def test_pictures():
    algorithm = small()
    assert algorithm.diagnostics() == {}
    crops = views()
    algorithm(crops, mode="loss")
    found = algorithm.diagnostics()
    assert torch.equal(found["images"], torch.cat(crops[:2]))
    assert torch.equal(found["mask"], torch.cat([crops[-1][:, 0], crops[-1][:, 1]]))
    assert found["parts"].shape == found["guessed"].shape == (2 * B, 8, 8)
    assert (
        found["teacher"].shape == (2 * B, K)
        and 0 <= found["parts"].min() <= found["parts"].max() < K
    )


@pytest.mark.parametrize("sizes", [(32, 32), (32, 32, 16, 20, 24), (40, 40, 16)])
def test_any_number_of_views_and_sizes(sizes):
    assert small()(views(sizes, batch=1), mode="loss")["loss"].isfinite()


def test_settings():
    algorithm = small(num_local=3, ratio=[0.2, 0.4], mask_probability=0.9)
    assert algorithm.views == {
        "type": "masked_multi_crop",
        "num_local": 3,
        "asymmetric": True,
        "patch_size": 4,
        "ratio": (0.2, 0.4),
        "mask_probability": 0.9,
    }
    assert IBOT.views == {"type": "masked_multi_crop", "num_local": 10, "asymmetric": True}
    with torch.device("meta"):
        papers = IBOT(SimMIMViT(ARCH, 32, 4))
    assert papers.neck.output_dim == papers.patch_loss_fn.output_dim == 8192
    assert (papers.base_momentum, papers.clip_grad, papers.freeze_last_layer) == (0.996, 3.0, 1)


def test_errors():
    with pytest.raises(TypeError, match="VisionTransformer puts no token in the place"):
        IBOT(VisionTransformer(32, 4, 0, embed_dim=24, depth=1, num_heads=2))
    with pytest.raises(ValueError, match="must not be negative"):
        small(koleo=-0.1)
    with pytest.raises(ValueError, match=f"for {K} outputs but patch_loss_fn for 8"):
        small(patch_loss_fn=IBOTPatchLoss(8))
    with pytest.raises(ValueError, match="between 0 and 1"):
        small(base_momentum=2.0)
    *crops, masks = views()
    for wrong in (crops, [*crops, masks.float()], [*crops, masks[:, 0]], [crops[0], masks]):
        with pytest.raises(ValueError, match="recipe .*masked_multi_crop"):
            small()(wrong, mode="loss")


def test_koleo_spreads_features():
    losses = {}
    for weight in (0.0, 1.0):
        algorithm = small(koleo=weight, patch_weight=0.0, base_momentum=1.0)
        optimizer = torch.optim.AdamW(
            [p for p in algorithm.parameters() if p.requires_grad], lr=1e-3
        )
        crops = views((32, 32))
        for _ in range(15):
            algorithm(crops, mode="loss")["loss"].backward()
            optimizer.step(), optimizer.zero_grad()
        with torch.no_grad():
            features = algorithm.backbone.forward_feat(crops[0])
            losses[weight] = KoLeoLoss()(features).item()
    assert losses[1.0] < losses[0.0] - 0.1, losses


def test_head_may_be_any_module_with_outputs():
    torch.manual_seed(0)
    head = nn.Linear(24, K)
    head.output_dim = K
    algorithm = IBOT(SimMIMViT(ARCH, 32, 4), head, freeze_last_layer=0)
    assert algorithm(views(), mode="loss")["loss"].isfinite()


def test_koleo_finds_neighbours_in_single_precision():
    x = F.normalize(torch.randn(1, 32) + 1e-3 * torch.randn(64, 32), dim=1)  # nearly twins
    expected = KoLeoLoss()(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(KoLeoLoss()(x), expected)
    assert KoLeoLoss()(x.bfloat16()).dtype == torch.float32
    assert KoLeoLoss()(x.double()).dtype == torch.float64


def test_koleo_needs_a_neighbour():
    with pytest.raises(ValueError, match="one image has no neighbour"):
        KoLeoLoss()(torch.randn(1, 8))
