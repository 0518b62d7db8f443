"""The reconstruction viewer without a browser: what it asks, what it counts, and that nobody notices."""

import pytest
import torch
import traitlets
from torch import nn

from nenya_nb.models import CAE, IJEPA, MAE, SimMIM, SimSiam, SupCE, get_backbone
from nenya_nb.models.algorithms.mae import MAEPretrainDecoder, MAEPretrainHead
from nenya_nb.models.algorithms.simmim import SimMIMViT
from nenya_nb.models.backbones.masked_vit import CAEViT, MAEViT
from nenya_nb.widgets import base
from nenya_nb.widgets.masked import draw_mask, fill_in, masked_pass
from nenya_nb.widgets.pixels import unpack_array
from nenya_nb.widgets.reconstruction import ReconstructionViewer

ARCH = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name.startswith("mae"):
        decoder = MAEPretrainDecoder(16, 16, 1, 2, img_size=32, patch_size=4)
        return MAE(MAEViT(ARCH, 32, 4), decoder, MAEPretrainHead(4, norm_pix=name == "mae"))
    if name == "simmim":
        return SimMIM(SimMIMViT(ARCH, 32, 4))
    cae = CAE(CAEViT(ARCH, 32, 4))
    cae.target_generator.fit(torch.randn(20, 3, 32, 32))
    return cae


NAMES = ["mae", "mae-pixels", "simmim", "cae"]


@pytest.fixture(autouse=True)
def bundles(monkeypatch):
    monkeypatch.setattr(base, "read_bundle", lambda name: f"/* {name} */")
    torch.manual_seed(1)


@pytest.fixture
def images():
    return torch.randn(3, 3, 32, 32)


@pytest.mark.parametrize("name", NAMES)
def test_looking_changes_nothing(name, images):
    algorithm = make(name).train()
    last = algorithm._last = {"kept": torch.ones(1)}
    before = {k: v.clone() for k, v in algorithm.state_dict().items()}
    settings = [
        getattr(algorithm.backbone, "mask_ratio", None),
        getattr(algorithm, "num_masked", None),
    ]
    state = torch.get_rng_state()
    found = masked_pass(algorithm, images, ratio=0.3)
    assert torch.equal(state, torch.get_rng_state()) and algorithm.training
    assert algorithm._last is last
    assert all(
        torch.equal(v.nan_to_num(), before[k].nan_to_num())
        for k, v in algorithm.state_dict().items()
    )
    assert settings == [
        getattr(algorithm.backbone, "mask_ratio", None),
        getattr(algorithm, "num_masked", None),
    ]
    assert found["mask"].shape == (3, 8, 8)
    assert found["mask"].float().mean().item() == pytest.approx(
        0.3, abs=0.02 if name != "simmim" else 0.05
    )


@pytest.mark.parametrize("name", NAMES)
def test_one_seed_is_one_mask(name, images):
    algorithm = make(name)
    a, b, c = (masked_pass(algorithm, images, seed=seed) for seed in (5, 5, 6))
    assert a["mask"].equal(b["mask"]) and a["reconstruction"].equal(b["reconstruction"])
    assert not a["mask"].equal(c["mask"])


@pytest.mark.parametrize("name", NAMES)
def test_errors_are_those_of_the_pictures(name, images):
    algorithm = make(name)
    viewer = ReconstructionViewer(algorithm, images, mean=MEAN, std=STD)
    found = masked_pass(algorithm, images)
    mean, std = (torch.tensor(x).view(-1, 1, 1) for x in (MEAN, STD))
    truth, painted = (found[key] * std + mean for key in ("images", "reconstruction"))
    hidden = found["mask"].repeat_interleave(4, 1).repeat_interleave(4, 2)
    squares = (painted - truth).square().mean(1)
    scores = unpack_array(viewer.scores)
    torch.testing.assert_close(scores[0, :, 0], squares.mean((1, 2)))
    torch.testing.assert_close(
        scores[0, :, 1], torch.stack([s[h].mean() for s, h in zip(squares, hidden, strict=True)])
    )
    filled = fill_in(truth, hidden, 4)
    rows = unpack_array(viewer.baselines)
    for k, key in enumerate(("mean", "blur")):
        error = (filled[key] - truth).square().mean(1)
        torch.testing.assert_close(
            rows[:, k], torch.stack([s[h].mean() for s, h in zip(error, hidden, strict=True)])
        )
    assert rows[:, 2].isfinite().all() == (name == "mae")
    assert (
        unpack_array(viewer.images).shape == (3, 32, 32, 3) == unpack_array(viewer.frames)[0].shape
    )
    assert bool(viewer.about["notes"]) == (name in ("mae", "cae"))


def test_own_mean_is_the_loss_of_the_answer_zero():
    "With norm_pix, painting 0 means painting each patch in its own mean."
    algorithm = make("mae")
    viewer = ReconstructionViewer(algorithm, torch.randn(2, 3, 32, 32))
    with torch.no_grad():
        algorithm.neck.decoder_pred.weight.zero_()
        algorithm.neck.decoder_pred.bias.zero_()
    viewer.add_frame("zero")
    errors = unpack_array(viewer.scores)[1, :, 1]
    torch.testing.assert_close(unpack_array(viewer.baselines)[:, 2], errors, atol=1e-6, rtol=1e-4)


def test_words_are_right_where_they_are(images):
    algorithm = make("cae")
    viewer = ReconstructionViewer(algorithm, images)
    found = masked_pass(algorithm, images)
    words = unpack_array(viewer.words)[0]
    assert (words == 0).equal(~found["mask"])
    assert (words == 1).equal(found["mask"] & (found["ids"] == found["predicted"]))


def test_a_given_mask_is_used_and_stays(images):
    mask = torch.zeros(3, 8, 8, dtype=torch.bool)
    mask[:, :, 4:] = True
    viewer = ReconstructionViewer(make("simmim"), images, mask=mask)
    assert unpack_array(viewer.mask).bool().equal(mask)
    for name, value in {"seed": 3, "ratio": 0.4}.items():
        with pytest.raises(traitlets.TraitError, match="which was given"):
            setattr(viewer, name, value)
    with pytest.raises(ValueError, match="draws its masks itself"):
        ReconstructionViewer(make("mae"), images, mask=mask)


def test_new_masks(images):
    viewer = ReconstructionViewer(make("mae"), images)
    masks = [viewer.mask]
    assert viewer.ratio == pytest.approx(0.75)
    viewer.seed = 1
    masks.append(viewer.mask)
    viewer.ratio = 0.5
    assert masks[0] != masks[1] and unpack_array(viewer.mask).float().mean() == 0.5
    assert viewer.ratio == 0.5 and viewer.times == ["now"]


def test_not_every_algorithm_masks(images):
    algorithm = SimSiam(get_backbone("resnet18", num_classes=0))
    algorithm.loss = lambda views, targets=None: {"loss": torch.zeros(())}
    with pytest.raises(TypeError, match="a mask and images are needed"):
        ReconstructionViewer(algorithm, images)
    net = get_backbone("resnet18", num_classes=0)
    patches = IJEPA(CAEViT(ARCH, 32, 4))
    for algorithm in (SimSiam(net), SupCE(net, 3), patches):
        with pytest.raises(TypeError, match=f"{type(algorithm).__name__} masks nothing"):
            ReconstructionViewer(algorithm, images)
    with pytest.raises(TypeError, match="images are a list; expected a tensor"):
        ReconstructionViewer(make("mae"), [images])
    with pytest.raises(ValueError, match="1 to 16 images"):
        ReconstructionViewer(make("mae"), torch.randn(17, 3, 32, 32))
    with pytest.raises(traitlets.TraitError, match="beside"):
        ReconstructionViewer(make("mae"), images, beside="blur")
    with pytest.raises(TypeError, match="Unknown setting 'colour'"):
        ReconstructionViewer(make("mae"), images, colour=1)
    with pytest.raises(ValueError, match="every=0; expected 1 epoch"):
        ReconstructionViewer(make("mae"), images, every=0)


def test_masks_are_drawn_without_the_dice_of_other_devices(images, monkeypatch):
    algorithm, seeded = make("mae"), []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    ReconstructionViewer(algorithm, images)
    assert not seeded


def test_frames_are_thinned_and_the_ends_stay(images, monkeypatch):
    monkeypatch.setattr(ReconstructionViewer, "budget", 6 * images.numel())
    viewer = ReconstructionViewer(make("simmim"), images)
    for i in range(20):
        viewer.add_frame(f"epoch {i}")
        assert len(viewer.frames["data"]) <= 6 * images.numel()
        assert viewer.times[0] == "now" and viewer.times[-1] == f"epoch {i}"
        assert viewer.frame == len(viewer.times) - 1  # follows
    assert unpack_array(viewer.scores).shape[0] == len(viewer.times)
    viewer.frame = 0
    viewer.add_frame("later")
    assert viewer.frame == 0  # stays where one looks
    while len(viewer.times) < 6:
        viewer.add_frame(f"epoch {len(viewer.times)}")
    viewer.frame, seen = 4, viewer.times[4]
    viewer.add_frame("last")  # too many: now every second one is dropped
    assert len(viewer.times) == 4 and viewer.times[viewer.frame] == seen


def test_an_error_of_a_masked_method_stays_its_own(images):
    with pytest.raises(ValueError, match="expected 3 channels, got 1"):
        ReconstructionViewer(make("mae"), images[:, :1])


def test_fields_of_any_channels_are_drawn_in_one_range():
    field = torch.randn(2, 5, 32, 32) * 50 + 300
    found = {"mask": torch.ones(2, 4, 4).bool(), "images": field, "reconstruction": field}

    class Paints(nn.Module):
        def forward(self, views, targets, mode):
            return {}

        def diagnostics(self):
            return found

    viewer = ReconstructionViewer(Paints(), field)
    truth, painted = unpack_array(viewer.images), unpack_array(viewer.frames)[0]
    assert truth.equal(painted) and truth.shape == (2, 32, 32, 1)
    assert truth.float().std() > 40 and viewer.figure() is not None
    found["reconstruction"] = field.clamp(min=300)  # darker values would be drawn darker
    viewer.add_frame("later")
    later = unpack_array(viewer.frames)[1]
    bright = truth > 150
    assert later[bright].equal(truth[bright]) and later.min() > 100


def test_unfitted_words_wait(images):
    viewer = ReconstructionViewer(CAE(CAEViT(ARCH, 32, 4)), images)
    assert "not fitted" in viewer.about["notes"][0] and viewer.figure() is None
    assert "nothing yet" in repr(viewer) and viewer.page_state()["times"] == []
    assert viewer.errors == {}
    viewer.algorithm.target_generator.fit(images.repeat(20, 1, 1, 1))
    viewer.add_frame("epoch 1")
    assert viewer.times == ["epoch 1"] and viewer.figure() is not None


@pytest.mark.parametrize("square, count", [(None, 0.5), (8, 0.6), (None, 7)])
def test_masks_hide_the_same_number_everywhere(square, count):
    mask = draw_mask(torch.zeros(5, 3, 32, 48), 4, count, square)
    assert mask.shape == (5, 8, 12) and len(set(mask.sum((1, 2)).tolist())) == 1
    if square:
        blocks = mask.float().unfold(1, 2, 2).unfold(2, 2, 2).mean((-1, -2))
        assert set(blocks.unique().tolist()) <= {0.0, 1.0}


def test_fill_in_leaves_what_is_seen_and_paints_all(images):
    hidden = torch.rand(3, 32, 32) > 0.3
    hidden[0] = True
    for filled in fill_in(images, hidden, 4).values():
        seen = ~hidden[:, None].expand_as(images)
        assert filled[seen].equal(images[seen]) and filled.isfinite().all()
