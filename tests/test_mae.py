"""MAE against transformers' ViTMAEForPreTraining and lightly's patches; closed forms; who gets a gradient."""

import pytest
import torch
from hf_names import hf_names
from lightly.models import utils as lightly
from torch import nn

from nenya_nb.models import MAEViT, VisionTransformer, build
from nenya_nb.models.algorithms.mae import (
    MAE,
    MAEPretrainDecoder,
    MAEPretrainHead,
    MAEReconstructionLoss,
    patchify,
    unpatchify,
)

torch.set_num_threads(1)
TINY = {"embed_dims": 24, "num_layers": 2, "num_heads": 3, "feedforward_channels": 48}


def make(ratio=0.75, size=32, patch=8, channels=3, norm_pix=True, **kwargs) -> MAE:
    shared = dict(img_size=size, patch_size=patch, in_channels=channels)
    return MAE(
        MAEViT(TINY, mask_ratio=ratio, **shared),
        MAEPretrainDecoder(24, 16, 2, 2, **shared),
        MAEPretrainHead(patch, norm_pix),
        **kwargs,
    )


def randomise(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model


# ---- patches ----


@pytest.mark.parametrize("patch", [1, 2, 8, (4, 8), (16, 2)])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_unpatchify_inverts_patchify(patch, channels):
    p, q = patch if isinstance(patch, tuple) else (patch, patch)
    images = torch.randn(2, channels, 32, 16)
    patches = patchify(images, patch)
    assert patches.shape == (2, 32 // p * (16 // q), p * q * channels)
    assert torch.equal(unpatchify(patches, patch, (32 // p, 16 // q)), images)


def test_patchify_and_unpatchify_match_lightly():
    images = torch.randn(2, 3, 32, 32)
    patches = patchify(images, 8)
    assert torch.equal(patches, lightly.patchify(images, 8))
    assert torch.equal(unpatchify(patches, 8, (4, 4)), lightly.unpatchify(patches, 8))


def test_patchify_has_another_order_than_unfold():
    images = torch.randn(1, 3, 8, 8)
    unfolded = nn.functional.unfold(images, 4, stride=4).transpose(1, 2)  # (1, N, C · p · q)
    patches = patchify(images, 4)
    assert not torch.equal(patches, unfolded)
    assert torch.equal(patches, unfolded.unflatten(2, (3, 16)).transpose(2, 3).flatten(2))


def test_patchify_leaves_a_remainder_out_as_the_vit_does():
    images = torch.randn(1, 3, 19, 37)
    assert torch.equal(patchify(images, 8), patchify(images[..., :16, :32], 8))
    assert patchify(images, 8).shape[1] == 2 * 4


def test_patchify_and_unpatchify_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="7×32 px holds no patch of 8×8"):
        patchify(torch.zeros(1, 3, 7, 32), 8)
    with pytest.raises(ValueError, match=r"6 patches do not fill 16×24; grid is \(rows"):
        unpatchify(torch.zeros(1, 6, 192), 8, (16, 24))


# ---- head and loss ----


def test_head_normalises_as_lightly():
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    _, target = MAEPretrainHead(8)(torch.zeros(2, 16, 192), images)
    torch.testing.assert_close(target, lightly.normalize_mean_var(patchify(images, 8)))


@pytest.mark.parametrize(("patch", "channels"), [(4, 3), (16, 3), (4, 1), (2, 1)])
def test_zero_prediction_has_loss_n_minus_1_over_n(patch, channels):
    images = torch.randn(4, channels, 32, 32, dtype=torch.float64)
    n = patch**2 * channels
    blank = torch.zeros(4, (32 // patch) ** 2, n)
    pred, target = MAEPretrainHead(patch)(blank, images)
    mask = (torch.rand(blank.shape[:2]) < 0.5).double()
    mask[0, 0] = 1
    loss = MAEReconstructionLoss()(pred, target, mask)
    assert loss.item() == pytest.approx((n - 1) / n, rel=1e-4)


def test_flat_patches_are_no_nan():
    pred, target = MAEPretrainHead(8)(torch.zeros(1, 16, 192), torch.full((1, 3, 32, 32), 0.5))
    assert target.isfinite().all() and target.abs().max() < 1e-2
    assert MAEReconstructionLoss()(pred, target, torch.zeros(1, 16)) == 0  # nothing hidden


@pytest.mark.parametrize("norm_pix", [True, False])
def test_picture_undoes_the_target(norm_pix):
    head, images = MAEPretrainHead((4, 8), norm_pix), torch.randn(2, 3, 32, 16)
    _, target = head(torch.zeros(2, 16, 96), images)
    torch.testing.assert_close(head.picture(target, images), images)


def test_loss_is_the_mean_over_hidden_patches_only():
    pred = torch.randn(3, 16, 12, dtype=torch.float64, requires_grad=True)
    target, mask = torch.randn(3, 16, 12, dtype=torch.float64), torch.rand(3, 16) < 0.7
    loss = MAEReconstructionLoss()(pred, target, mask.double())
    torch.testing.assert_close(loss, (pred - target)[mask].square().mean())
    loss.backward()
    assert (pred.grad[~mask] == 0).all() and (pred.grad[mask] != 0).all()


# ---- decoder ----


def test_decoder_with_identity_blocks_puts_every_token_back():
    decoder = MAEPretrainDecoder(16, 16, 0, 2, img_size=32, patch_size=8)
    decoder.decoder_embed = decoder.decoder_norm = decoder.decoder_pred = nn.Identity()
    with torch.no_grad():
        decoder.decoder_pos_embed.zero_()
        decoder.mask_token.fill_(-1)
    noise, everything = torch.rand(2, 16), torch.rand(2, 16, 16)
    shuffled = noise.argsort(1)
    visible = everything.gather(1, shuffled[:, :4, None].expand(-1, -1, 16))
    row = decoder(torch.cat([torch.zeros(2, 1, 16), visible], 1), shuffled.argsort(1))
    hidden = (shuffled.argsort(1) >= 4)[..., None]
    assert torch.equal(row, torch.where(hidden, -1.0, everything))


def test_decoder_has_the_papers_size_and_names():
    with torch.device("meta"):
        decoder = MAEPretrainDecoder(768)
    shapes = {name: tuple(p.shape) for name, p in decoder.named_parameters()}
    assert shapes["decoder_pos_embed"] == (1, 197, 512) and shapes["mask_token"] == (1, 1, 512)
    assert shapes["decoder_blocks.7.attn.qkv.weight"] == (1536, 512)
    assert shapes["decoder_embed.weight"] == (512, 768)
    assert shapes["decoder_pred.weight"] == (768, 512)
    block = 12 * 512**2 + 13 * 512
    expected = 8 * block + (768 * 512 + 512) + 512 + 2 * 512 + (512 * 768 + 768)
    assert sum(p.numel() for p in decoder.parameters() if p.requires_grad) == expected


def test_decoder_refuses_a_wrong_grid():
    decoder = MAEPretrainDecoder(24, 16, 1, 2, img_size=32, patch_size=8)
    with pytest.raises(ValueError, match=r"8 patches are not a grid of \(4, 4\)"):
        decoder(torch.zeros(1, 3, 24), torch.arange(8)[None])


# ---- against transformers ----


@pytest.mark.parametrize("norm_pix", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_mae_matches_transformers(norm_pix, channels):
    import transformers

    config = transformers.ViTMAEConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48,
        image_size=32, patch_size=8, num_channels=channels, layer_norm_eps=1e-6,
        decoder_hidden_size=16, decoder_num_hidden_layers=2, decoder_num_attention_heads=2,
        decoder_intermediate_size=64, norm_pix_loss=norm_pix, mask_ratio=0.75,
    )  # fmt: skip
    theirs = transformers.ViTMAEForPreTraining(config).double().eval()
    ours = randomise(make(channels=channels, norm_pix=norm_pix)).double().eval()
    state = {f"vit.{k}": v for k, v in hf_names(ours.backbone.state_dict()).items()}
    decoder = ours.neck.state_dict()
    token = decoder.pop("mask_token")
    state |= {f"decoder.{k}": v for k, v in hf_names(decoder).items()}
    theirs.load_state_dict(state | {"decoder.mask_token": token})

    images, noise = torch.randn(2, channels, 32, 32, dtype=torch.float64), torch.rand(2, 16)
    expected = theirs(images, noise=noise)
    _, mask, pred = ours._paint(images, noise)
    torch.testing.assert_close(pred, expected.logits)
    assert torch.equal(mask, expected.mask.double())
    loss = ours.loss_fn(*ours.head(pred, images), mask)
    torch.testing.assert_close(loss, expected.loss)


# ---- the algorithm ----


def test_mae_of_the_paper_is_built_by_default():
    with torch.device("meta"):
        mae = MAE(MAEViT("b"))
    assert mae.neck.decoder_embed.in_features == 768 and len(mae.neck.decoder_blocks) == 8
    assert mae.neck.grid_size == (14, 14) and mae.head.norm_pix and mae.head.patch_size == (16, 16)
    with torch.device("meta"):
        mae = MAE(MAEViT(TINY, img_size=(32, 64), patch_size=(8, 4), in_channels=2))
    assert mae.neck.grid_size == (4, 16) and mae.neck.decoder_pred.out_features == 8 * 4 * 2


@pytest.mark.parametrize("norm_pix", [True, False])
def test_loss_and_its_baseline_are_what_they_say(norm_pix):
    mae, images = make(norm_pix=norm_pix), torch.randn(4, 3, 32, 32)
    torch.manual_seed(1)
    losses = mae([images], mode="loss")
    found = mae.diagnostics()
    target = mae.head(torch.zeros(4, 16, 192), images)[1]
    hidden = found["mask"].flatten(1)
    assert losses["baseline"].item() == pytest.approx(target[hidden].square().mean().item(), 1e-5)
    difference = (found["reconstruction"] - images)[:, :, None].abs().amax((1, 2))
    assert difference.max() > 0
    assert set(losses) == {"loss", "std", "baseline"}
    assert all(v.shape == () and v.isfinite() for v in losses.values())
    assert [name for name, value in losses.items() if value.requires_grad] == ["loss"]


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.75, 0.9])
def test_exactly_the_promised_number_is_hidden(ratio):
    mae = make(ratio)
    mae([torch.randn(5, 3, 32, 32)], mode="loss")
    mask = mae.diagnostics()["mask"]
    assert mask.shape == (5, 4, 4) and mask.dtype == torch.bool
    assert (mask.sum((1, 2)) == 16 - int(16 * (1 - ratio))).all()


@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 40), (64, 24), (35, 33)])
def test_images_of_any_size_and_channels(height, width):
    mae, images = make(channels=2), torch.randn(2, 2, height, width)
    losses = mae([images], mode="loss")
    assert losses["loss"].isfinite()
    h, w = height // 8, width // 8
    found = mae.diagnostics()
    assert found["mask"].shape == (2, h, w)
    assert found["images"].shape == found["reconstruction"].shape == (2, 2, 8 * h, 8 * w)
    assert mae.eval().extract_feat(images).shape == (2, 24)
    assert mae(images, mode="predict").shape == (2, 2, 8 * h, 8 * w)


def test_one_image_and_several_views():
    mae = make()
    assert mae([torch.randn(1, 3, 32, 32)], mode="loss")["loss"].isfinite()
    mae([torch.randn(2, 3, 32, 32)] * 3, mode="loss")
    assert len(mae.diagnostics()["mask"]) == 6


def test_hidden_pixels_do_not_change_the_prediction():
    mae, images, noise = randomise(make()).eval(), torch.randn(2, 3, 32, 32), torch.rand(2, 16)
    _, mask, pred = mae._paint(images, noise)
    pixels = unpatchify(mask[..., None].expand(-1, -1, 64), 8, (4, 4))
    changed = torch.where(pixels == 1, torch.randn(2, 3, 32, 32), images)
    assert torch.equal(mae._paint(changed, noise)[2], pred)


def test_reconstruct_keeps_what_is_visible():
    mae, images, noise = randomise(make()).eval(), torch.randn(2, 3, 32, 32), torch.rand(2, 16)
    picture = mae.reconstruct(images, noise)
    same = (patchify(picture, 8) == patchify(images, 8)).all(-1)
    hidden = noise.argsort(1).argsort(1) >= 4
    assert torch.equal(~same, hidden)
    painted = mae.head.picture(mae._paint(images, noise)[2], images)
    assert torch.equal(patchify(picture, 8)[hidden], patchify(painted, 8)[hidden])


def test_features_are_the_mean_patch_token_without_mask():
    mae, images = make().eval(), torch.randn(3, 3, 32, 32)
    tokens = VisionTransformer.forward_features(mae.backbone, images)
    torch.testing.assert_close(mae.extract_feat(images), tokens[:, 1:].mean(1))
    assert torch.equal(mae.extract_feat(images), mae([images, None]))  # no randomness, first view


def test_gradient_reaches_all_but_the_waves():
    mae = make()
    mae([torch.randn(4, 3, 32, 32)], mode="loss")["loss"].backward()
    without = {name for name, p in mae.named_parameters() if p.grad is None}
    assert without == {"backbone.pos_embed", "neck.decoder_pos_embed"}
    for name, p in mae.named_parameters():
        assert p.grad is None or (p.grad.isfinite().all() and p.grad.abs().sum() > 0), name


def test_state_dict_round_trip_and_finetuning_takes_the_encoder():
    first, second, images = make(), make(), torch.randn(2, 3, 32, 32)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.eval()(images), second.eval()(images))
    plain = VisionTransformer(
        32,
        8,
        5,
        embed_dim=24,
        depth=2,
        num_heads=3,
        mlp_ratio=2,
        positions="mae",
        global_pool="avg",
    ).eval()
    missing = plain.load_state_dict(first.backbone.state_dict(), strict=False)
    assert set(missing.missing_keys) == {"head.weight", "head.bias"} and not missing.unexpected_keys
    torch.testing.assert_close(plain.forward_feat(images), first(images))


def test_diagnostics_start_empty_and_carry_no_gradient():
    mae = make()
    assert mae.diagnostics() == {}
    mae([torch.randn(2, 3, 32, 32)], mode="loss")
    assert not any(t.requires_grad for t in mae.diagnostics().values())


def test_mae_is_built_from_a_config():
    sizes = dict(img_size=32, patch_size=8)
    config = {
        "type": "nenya_nb.models.algorithms.mae.MAE",
        "backbone": {"type": "MAEViT", "arch": TINY, "mask_ratio": 0.5, **sizes},
        "neck": {
            "type": "nenya_nb.models.algorithms.mae.MAEPretrainDecoder",
            "input_dim": 24, "hidden_dim": 16, "depth": 1, "num_heads": 2, **sizes,
        },
        "head": {
            "type": "nenya_nb.models.algorithms.mae.MAEPretrainHead",
            "patch_size": 8, "norm_pix": False,
        },
        "loss_fn": {"type": "nenya_nb.models.algorithms.mae.MAEReconstructionLoss"},
    }  # fmt: skip
    mae = build(config)
    assert mae.backbone.mask_ratio == 0.5 and not mae.head.norm_pix
    assert mae([torch.randn(2, 3, 32, 32)], mode="loss")["loss"].isfinite()


def test_mae_refuses_parts_that_do_not_fit():
    vit = MAEViT(TINY, 32, 8)
    with pytest.raises(TypeError, match="MAE: VisionTransformer does not hide patches; use MAEViT"):
        MAE(VisionTransformer(32, 8, 0, embed_dim=24, depth=1, num_heads=3))
    with pytest.raises(ValueError, match=r"backbone gives 24 features but neck expects 768"):
        MAE(vit, MAEPretrainDecoder(768, 16, 1, 2, img_size=32, patch_size=8))
    with pytest.raises(ValueError, match=r"patch_size=\(8, 8\), but MAEPretrainDecoder \(4, 4\)"):
        MAE(vit, MAEPretrainDecoder(24, 16, 1, 2, img_size=32, patch_size=4))
    with pytest.raises(ValueError, match=r"patch_size=\(8, 8\), but MAEPretrainHead \(16, 16\)"):
        MAE(vit, MAEPretrainDecoder(24, 16, 1, 2, img_size=32, patch_size=8), MAEPretrainHead())
    with pytest.raises(ValueError, match="in_channels=3, but MAEPretrainDecoder 1"):
        MAE(vit, MAEPretrainDecoder(24, 16, 1, 2, img_size=32, patch_size=8, in_channels=1))
    with pytest.raises(ValueError, match="hides none of 16 patches"):
        MAE(MAEViT(TINY, 32, 8, mask_ratio=0.0), MAEPretrainDecoder(24, 16, 1, 2))
    with pytest.raises(ValueError, match="classifier of 10 classes"):
        MAE(MAEViT(TINY, 32, 8, num_classes=10))
    with pytest.raises(ValueError, match=r"predictions \[2, 16, 48\] but patches \[2, 16, 192\]"):
        MAEPretrainHead(8)(torch.zeros(2, 16, 48), torch.zeros(2, 3, 32, 32))


@pytest.mark.parametrize("norm_pix", [True, False])
def test_mae_learns_one_batch(norm_pix):
    torch.manual_seed(0)
    ramp = torch.linspace(-1, 1, 32)
    images = torch.rand(8, 3, 1, 1) * ramp[:, None] + torch.rand(8, 3, 1, 1) * ramp
    mae = make(norm_pix=norm_pix)
    optimizer = torch.optim.AdamW(mae.parameters(), lr=3e-3)
    for _ in range(120):
        losses = mae([images], mode="loss")
        losses["loss"].backward()
        optimizer.step(), optimizer.zero_grad()
    assert losses["loss"] < 0.5 * losses["baseline"]


@pytest.mark.parametrize("norm_pix", [True, False])
def test_mae_under_autocast_gives_full_precision_losses_and_pictures(norm_pix):
    mae, images = make(norm_pix=norm_pix), torch.randn(2, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        losses = mae([images], mode="loss")
    assert all(value.dtype == torch.float32 for value in losses.values())
    assert mae.diagnostics()["reconstruction"].dtype == torch.float32
