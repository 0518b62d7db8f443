"""SimMIM against transformers' models for masked images (ViT, Swin); closed forms; who gets a gradient."""

import pytest
import torch
from hf_names import hf_names
from torch import nn

from nenya_nb.models import SimMIMSwinTransformer, VisionTransformer, build, resnet_tiny
from nenya_nb.models.algorithms.simmim import (
    SimMIM,
    SimMIMHead,
    SimMIMNeck,
    SimMIMReconstructionLoss,
    SimMIMViT,
)

torch.set_num_threads(1)
TINY = {"embed_dims": 24, "num_layers": 2, "num_heads": 3, "feedforward_channels": 48}
SWIN = {"embed_dims": 12, "depths": (2, 2), "num_heads": (2, 4)}


def vit(channels=3, size=32, patch=8, **kwargs) -> SimMIMViT:
    return SimMIMViT(TINY, size, patch, in_channels=channels, **kwargs)


def swin(channels=3, size=32) -> SimMIMSwinTransformer:
    return SimMIMSwinTransformer(SWIN, size, channels, 0.0, out_indices=(1,), window_size=4)


BACKBONES = pytest.mark.parametrize(
    ("backbone", "patch"), [(vit, 8), (swin, 4)], ids=["vit", "swin"]
)


def some_mask(batch, height, width, ratio=0.6):
    "A boolean mask (B, h, w) that hides the same number in each image."
    count = round(ratio * height * width)
    ranks = torch.rand(batch, height * width).argsort(1).argsort(1)
    return (ranks < count).view(batch, height, width)


def randomise(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model


# ---- the ViT ----


def test_vit_without_mask_is_the_plain_vit():
    model, images = randomise(vit()).eval(), torch.randn(2, 3, 32, 48)
    plain = VisionTransformer(
        32, 8, 0, embed_dim=24, depth=2, num_heads=3, mlp_ratio=2, global_pool="avg"
    ).eval()
    found = plain.load_state_dict(model.state_dict(), strict=False)
    assert found.unexpected_keys == ["mask_token"] and not found.missing_keys
    (features,) = model(images)
    expected = plain.forward_features(images)[:, 1:].transpose(1, 2).unflatten(2, (4, 6))
    assert torch.equal(features, expected)
    assert [list(features.shape)] == model.get_output_shape(images.shape)
    torch.testing.assert_close(model.forward_feat(images), plain(images))
    assert torch.equal(model(images, torch.zeros(2, 4, 6, dtype=torch.bool))[0], features)


def test_vit_hides_patches_but_not_their_places():
    model, images, mask = randomise(vit()).eval(), torch.randn(2, 3, 32, 32), some_mask(2, 4, 4)
    tokens = model.tokens(images, mask)
    hidden = mask.flatten(1)
    places = (model.mask_token + model.pos_embed[:, 1:]).expand(2, -1, -1)
    assert torch.equal(tokens[:, 1:][hidden], places[hidden])
    assert torch.equal(tokens[:, 1:][~hidden], model.tokens(images)[:, 1:][~hidden])
    assert torch.equal(model.tokens(images, hidden.float()), tokens)  # flat masks of numbers too


def test_vit_refuses_a_mask_of_another_size():
    with pytest.raises(ValueError, match=r"2 images of 16 patches, but a mask of \[2, 8, 8\]"):
        vit()(torch.zeros(2, 3, 32, 32), some_mask(2, 8, 8))


# ---- neck, head, loss ----


def test_neck_is_a_linear_layer_for_each_place():
    neck, features = SimMIMNeck(24, 8, 2), torch.randn(2, 24, 4, 3)
    picture = neck((features,))
    assert picture.shape == (2, 2, 32, 24) and torch.equal(picture, neck(features))
    conv = neck.decoder[0]
    square = conv.weight[:, :, 0, 0] @ features[1, :, 2, 1] + conv.bias  # (2 · 8 · 8,)
    torch.testing.assert_close(picture[1, :, 16:24, 8:16], square.view(2, 8, 8))


def test_head_enlarges_the_mask_and_cuts_to_a_common_size():
    mask = torch.tensor([[[True, False], [False, False]]])
    pred, images, pixels = SimMIMHead(4)(torch.zeros(1, 3, 12, 12), torch.ones(1, 3, 7, 8), mask)
    assert pred.shape == images.shape == (1, 3, 7, 8) and pixels.shape == (1, 1, 7, 8)
    assert pixels[0, 0, :4, :4].all() and pixels.sum() == 16


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_loss_is_the_mean_over_hidden_pixels_only(channels):
    pred = torch.randn(2, channels, 8, 8, dtype=torch.float64, requires_grad=True)
    target, mask = torch.randn_like(pred).detach(), torch.rand(2, 1, 8, 8) < 0.6
    loss = SimMIMReconstructionLoss()(pred, target, mask.double())
    hidden = mask.expand_as(pred)
    torch.testing.assert_close(loss, (pred - target)[hidden].abs().mean())
    loss.backward()
    assert (pred.grad[~hidden] == 0).all() and (pred.grad[hidden] != 0).all()
    assert SimMIMReconstructionLoss()(pred, target, torch.zeros_like(mask)) == 0


# ---- against transformers ----


@pytest.mark.parametrize("channels", [1, 3])
def test_simmim_vit_matches_transformers(channels):
    import transformers

    config = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48,
        image_size=32, patch_size=8, num_channels=channels, layer_norm_eps=1e-6, encoder_stride=8,
    )  # fmt: skip
    theirs = transformers.ViTForMaskedImageModeling(config).double().eval()
    ours = randomise(SimMIM(vit(channels))).double().eval()
    state = {f"vit.{k}": v for k, v in hf_names(ours.backbone.state_dict()).items()}
    theirs.load_state_dict(state | ours.neck.state_dict())
    compare(ours, theirs, torch.randn(2, channels, 32, 32).double(), some_mask(2, 4, 4))


def test_simmim_swin_matches_transformers():
    import transformers

    config = transformers.SwinConfig(
        embed_dim=12, depths=[2], num_heads=[2], window_size=4, layer_norm_eps=1e-5,
        image_size=32, patch_size=4, encoder_stride=4, hidden_act="gelu",
    )  # fmt: skip
    theirs = transformers.SwinForMaskedImageModeling(config).double().eval()
    arch = {"embed_dims": 12, "depths": (2,), "num_heads": (2,)}
    backbone = SimMIMSwinTransformer(arch, 32, out_indices=(0,), window_size=4)
    ours = randomise(SimMIM(backbone)).double().eval()
    state = {f"swin.{k}": v for k, v in hf_names(ours.backbone.state_dict()).items()}
    theirs.load_state_dict(state | ours.neck.state_dict())
    compare(ours, theirs, torch.randn(2, 3, 32, 32).double(), some_mask(2, 8, 8))


def compare(ours, theirs, images, mask):
    expected = theirs(images, bool_masked_pos=mask.flatten(1))
    losses = ours([images, mask], mode="loss")
    torch.testing.assert_close(ours.diagnostics()["reconstruction"], expected.reconstruction)
    torch.testing.assert_close(losses["loss"], expected.loss, rtol=1e-6, atol=0)  # theirs has 1e-5


# ---- the algorithm ----


def test_simmim_of_the_paper_is_built_by_default():
    with torch.device("meta"):
        simmim = SimMIM(SimMIMSwinTransformer("B", 192, window_size=6))
    assert simmim.neck.input_dim == 1024 and simmim.neck.encoder_stride == 32
    assert simmim.neck.decoder[0].out_channels == 32**2 * 3 and simmim.head.patch_size == 4
    wanted = {"type": "masked_view", "patch_size": 4, "ratio": 0.6}
    assert simmim.views == wanted
    with torch.device("meta"):
        simmim = SimMIM(SimMIMViT("b"))
    assert simmim.neck.encoder_stride == 16 and simmim.views["patch_size"] == 16


@BACKBONES
def test_loss_baseline_and_diagnostics_are_what_they_say(backbone, patch):
    simmim, images = SimMIM(backbone()), torch.randn(2, 3, 32, 32)
    mask = some_mask(2, 32 // patch, 32 // patch)
    losses = simmim([images, mask], mode="loss")
    found = simmim.diagnostics()
    assert set(found) == {"images", "mask", "reconstruction"}
    assert torch.equal(found["mask"], mask) and torch.equal(found["images"], images)
    pixels = mask.repeat_interleave(patch, 1).repeat_interleave(patch, 2)[:, None]
    hidden = pixels.expand_as(images)
    error = (found["reconstruction"] - images)[hidden].abs().mean()
    assert losses["loss"].item() == pytest.approx(error.item(), 1e-5)
    assert losses["baseline"].item() == pytest.approx(images[hidden].abs().mean().item(), 1e-5)
    assert all(v.shape == () and v.isfinite() for v in losses.values())
    assert [name for name, value in losses.items() if value.requires_grad] == ["loss"]


@BACKBONES
def test_hidden_pixels_do_not_change_the_prediction(backbone, patch):
    simmim, images = randomise(SimMIM(backbone())).eval(), torch.randn(2, 3, 32, 32)
    mask = some_mask(2, 32 // patch, 32 // patch)
    pixels = mask.repeat_interleave(patch, 1).repeat_interleave(patch, 2)[:, None]
    changed = torch.where(pixels, torch.randn_like(images), images)
    assert torch.equal(simmim._paint(changed, mask)[1], simmim._paint(images, mask)[1])
    picture = simmim.reconstruct(images, mask)
    kept = (picture == images).all(1, keepdim=True)
    assert torch.equal(kept, ~pixels)
    assert torch.equal(simmim([images, mask], mode="predict"), picture)
    assert simmim(images, mode="predict").shape == images.shape


@BACKBONES
def test_other_sizes_and_channels(backbone, patch):
    simmim, images = SimMIM(backbone(channels=2)), torch.randn(1, 2, 24, 40)
    mask = some_mask(1, 24 // patch, 40 // patch)
    assert simmim([images, mask], mode="loss")["loss"].isfinite()
    assert simmim.diagnostics()["reconstruction"].shape == (1, 2, 24, 40)
    assert simmim.eval()(images).shape == (1, 24)


def test_what_swin_pads_and_vit_leaves_out_is_cut():
    images = torch.randn(2, 3, 34, 29)
    padded = SimMIM(swin())
    padded([images, some_mask(2, 9, 8)], mode="loss")
    assert padded.diagnostics()["reconstruction"].shape == (2, 3, 34, 29)
    cut = SimMIM(vit())
    cut([images, some_mask(2, 4, 3)], mode="loss")
    assert cut.diagnostics()["images"].shape == cut.diagnostics()["reconstruction"].shape
    assert cut.diagnostics()["images"].shape == (2, 3, 32, 24)


@BACKBONES
def test_features_are_the_mean_of_the_map(backbone, patch):
    simmim, images = SimMIM(backbone()).eval(), torch.randn(3, 3, 32, 32)
    (features,) = simmim.backbone(images)
    torch.testing.assert_close(simmim.extract_feat(images), features.mean((2, 3)))
    torch.testing.assert_close(simmim.extract_feat(images), simmim.backbone.forward_feat(images))
    assert torch.equal(simmim([images, some_mask(3, 4, 4)]), simmim.extract_feat(images))


@BACKBONES
def test_gradient_reaches_every_parameter(backbone, patch):
    simmim = SimMIM(backbone())
    views = [torch.randn(4, 3, 32, 32), some_mask(4, 32 // patch, 32 // patch)]
    simmim(views, mode="loss")["loss"].backward()
    for name, p in simmim.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0, name


@BACKBONES
def test_state_dict_round_trip(backbone, patch):
    first, second, images = SimMIM(backbone()), SimMIM(backbone()), torch.randn(2, 3, 32, 32)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.eval()(images), second.eval()(images))
    assert first.diagnostics() == {}


def test_simmim_is_built_from_a_config():
    module = "nenya_nb.models.algorithms.simmim."
    config = {
        "type": module + "SimMIM",
        "backbone": {"type": module + "SimMIMViT", "arch": TINY, "img_size": 32, "patch_size": 8},
        "neck": {"type": module + "SimMIMNeck", "input_dim": 24, "encoder_stride": 8},
        "mask_size": 16,
    }
    simmim = build(config)
    assert simmim.views["mask_size"] == 16
    views = [torch.randn(2, 3, 32, 32), some_mask(2, 4, 4)]
    assert simmim(views, mode="loss")["loss"].isfinite()


def test_simmim_refuses_what_does_not_fit():
    with pytest.raises(TypeError, match="SimMIM: ResNet takes no mask; use SimMIMSwinTransformer"):
        SimMIM(resnet_tiny())
    for patch, mask_size in ((8, 12), (8, 0), ((8, 4), 32)):
        with pytest.raises(ValueError, match=rf"of mask_size={mask_size} px are not made of whole"):
            SimMIM(vit(patch=patch), mask_size=mask_size)
    with pytest.raises(ValueError, match="mask_ratio is above 0 and below 1, got 1.0"):
        SimMIM(vit(), mask_ratio=1.0)
    with pytest.raises(ValueError, match="backbone gives 24 features but neck expects 1024"):
        SimMIM(vit(), SimMIMNeck())
    with pytest.raises(ValueError, match="neck paints 3 channels, but the images have 1"):
        SimMIM(vit(1), SimMIMNeck(24, 8, 3))
    with pytest.raises(ValueError, match=r"patch_size 8, but SimMIMHead 4"):
        SimMIM(vit(), head=SimMIMHead(4))
    with pytest.raises(ValueError, match=r"wants \[images \(B, C, H, W\), mask \(B, h, w\)\], got"):
        SimMIM(vit())([torch.zeros(2, 3, 32, 32)] * 2, mode="loss")
    with pytest.raises(ValueError, match=r"2 images of 16 patches, but a mask of \[2, 8, 8\]"):
        SimMIM(vit())([torch.zeros(2, 3, 32, 32), some_mask(2, 8, 8)], mode="loss")


@BACKBONES
def test_simmim_learns_one_batch(backbone, patch):
    torch.manual_seed(0)
    ramp = torch.linspace(-1, 1, 32)
    images = torch.rand(8, 3, 1, 1) * ramp[:, None] + torch.rand(8, 3, 1, 1) * ramp
    simmim = SimMIM(backbone())
    optimizer = torch.optim.AdamW(simmim.parameters(), lr=3e-3)
    for _ in range(60):
        mask = some_mask(8, 32 // patch, 32 // patch)
        losses = simmim([images, mask], mode="loss")
        losses["loss"].backward()
        optimizer.step(), optimizer.zero_grad()
    assert losses["loss"] < 0.5 * losses["baseline"]


@BACKBONES
def test_simmim_under_autocast_gives_full_precision_losses_and_pictures(backbone, patch):
    simmim = SimMIM(backbone())
    views = [torch.randn(2, 3, 32, 32), some_mask(2, 32 // patch, 32 // patch)]
    with torch.autocast("cpu", torch.bfloat16):
        losses = simmim(views, mode="loss")
    assert all(value.dtype == torch.float32 for value in losses.values())
    assert simmim.diagnostics()["reconstruction"].dtype == torch.float32
