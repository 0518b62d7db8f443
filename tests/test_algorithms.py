"""The base class; SimCLR, SupCon and SupCE. What every algorithm promises is in `test_every_algorithm`."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from algorithms import CONFIGS, SIZE, build_algorithm, make_batch
from lightly.loss import NTXentLoss as LightlyNTXent
from torch import nn

import nenya_nb.models as nb
from nenya_nb.models import (
    Algorithm,
    ContrastiveHead,
    NonLinearNeck,
    SimCLR,
    SupCE,
    SupCEResNet,
    SupCon,
    SupConLoss,
    SupConResNet,
    build,
    get_resnet,
    resnet18,
    resnet_tiny,
)
from nenya_nb.models.algorithms.base import input_dim

torch.set_num_threads(1)
B = 8


def batch():
    return [torch.randn(B, 3, 32, 32), torch.randn(B, 3, 32, 32)], torch.arange(B) % 4


# ---------------------------------------------------------------- the base


def test_base_loss_must_be_written():
    with pytest.raises(NotImplementedError, match="must write loss"):
        Algorithm(resnet_tiny())([torch.zeros(2, 3, 32, 32)], mode="loss")


def test_base_refuses_a_neck_that_does_not_fit():
    text = r"SimCLR: backbone gives 128 features but neck expects 2048; use NonLinearNeck\(128"
    with pytest.raises(ValueError, match=text):
        SimCLR(resnet_tiny(), NonLinearNeck(2048, 2048, 128))
    with pytest.raises(ValueError, match="neck expects 64"):
        SimCLR(resnet_tiny(), nn.Sequential(nn.ReLU(), nn.Linear(64, 8)))


def test_base_says_nothing_about_necks_that_change_the_width_first():
    "Four cells of 128 features each go into the linear layer."
    neck = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * 512, 32))
    assert input_dim(neck) is None and input_dim(nn.Linear(3, 2)) == 3
    assert input_dim(nn.Sequential(nn.Conv2d(128, 8, 1), nn.Flatten(), nn.Linear(8, 2))) is None

    class Maps(SimCLR):
        def embed(self, images):
            return self.neck(self.backbone(images))

    algorithm = Maps(resnet18(num_classes=0), neck)
    assert algorithm([torch.randn(4, 3, 64, 64)] * 2, mode="loss")["loss"].isfinite()


@pytest.mark.parametrize("algorithm", [SimCLR, SupCon, SupCE])
def test_base_refuses_a_classifier(algorithm):
    with pytest.raises(ValueError, match="ends in a classifier of 1000 classes"):
        algorithm(resnet18())


@pytest.mark.parametrize("algorithm", [SimCLR, SupCon, SupCE])
def test_base_asks_for_the_width(algorithm):
    with pytest.raises(ValueError, match="set backbone.output_dim"):
        algorithm(nn.Flatten())


def test_base_accepts_maps_and_foreign_backbones():
    import timm

    x = torch.randn(4, 3, 32, 32)
    for backbone, width in [
        (resnet18(num_classes=0), 512),  # gives maps
        (get_resnet("resnet18", out_indices=(1, 4)), 512),  # gives a tuple of maps
        (timm.create_model("resnet18", num_classes=0), 512),  # says num_features
    ]:
        for algorithm in (SimCLR(backbone), SupCon(backbone), SupCE(backbone)):
            assert algorithm(x).shape == (4, width)
            assert algorithm([x, x], torch.arange(4), mode="loss")["loss"].isfinite()


# ---------------------------------------------------------------- SimCLR


def test_simclr_loss_matches_lightly():
    algorithm, (views, _) = SimCLR(resnet_tiny(), head=ContrastiveHead(0.3)).double(), batch()
    views = [view.double() for view in views]
    loss = algorithm(views, mode="loss")["loss"]
    z = algorithm.diagnostics()["z"]
    torch.testing.assert_close(loss.detach(), LightlyNTXent(0.3)(z[:B], z[B:]))


def test_simclr_encodes_both_views_together():
    "BatchNorm sees the joined batch: one update of its statistics for each step."
    algorithm, (views, _) = SimCLR(resnet_tiny()), batch()
    algorithm(views, mode="loss")
    assert algorithm.backbone.bn1.num_batches_tracked == 1


def test_simclr_default_parts():
    algorithm = SimCLR(get_resnet("resnet18", stem_type="small"))
    dims = [m.weight.shape for m in algorithm.neck.modules() if isinstance(m, nn.Linear)]
    assert [tuple(d) for d in dims] == [(512, 512), (128, 512)]
    assert algorithm.head.temperature == 0.1 and isinstance(algorithm.loss_fn, nn.CrossEntropyLoss)
    assert SimCLR.views == "two_views"


def test_simclr_wants_two_views():
    with pytest.raises(ValueError, match="two views of each image, got 3"):
        SimCLR(resnet_tiny())([torch.zeros(2, 3, 32, 32)] * 3, mode="loss")


def test_simclr_similarity_has_a_diagonal_of_ones():
    algorithm, (views, _) = SimCLR(resnet_tiny()), batch()
    algorithm(views, mode="loss")
    similarity = algorithm.diagnostics()["similarity"]
    assert similarity.shape == (2 * B, 2 * B)
    torch.testing.assert_close(similarity.diagonal(), torch.ones(2 * B))


# ---------------------------------------------------------------- SupCon, SupCE


def test_supcon_shares_the_encoder():
    encoder = SupConResNet("resnet_tiny")
    algorithm, (views, targets) = SupCon(encoder), batch()
    algorithm(views, targets, mode="loss")["loss"].backward()
    assert all(p.grad is not None for p in encoder.parameters())
    algorithm.eval(), encoder.eval()
    torch.testing.assert_close(algorithm(views[0], mode="predict"), encoder(views[0]))
    torch.testing.assert_close(algorithm(views[0]), encoder.forward_feat(views[0]))


def test_supcon_takes_any_number_of_views():
    algorithm = SupCon(resnet_tiny())
    views = [torch.randn(4, 3, 32, 32) for _ in range(3)]
    assert algorithm(views, torch.tensor([0, 0, 1, 1]), mode="loss")["loss"].isfinite()
    assert algorithm.diagnostics()["z"].shape == (12, 128)


def test_supcon_without_labels_is_simclr():
    views, _ = batch()
    blind = SupCon(resnet_tiny(), loss_fn=SupConLoss(0.2), use_targets=False)
    simclr = SimCLR(blind.backbone, blind.neck, ContrastiveHead(0.2))
    expected = simclr(views, mode="loss")["loss"]
    torch.testing.assert_close(blind(views, mode="loss")["loss"], expected)
    torch.testing.assert_close(blind(views, torch.zeros(B).long(), mode="loss")["loss"], expected)


def test_supcon_and_supce_need_targets():
    views, _ = batch()
    for algorithm in (SupCon(resnet_tiny()), SupCE(resnet_tiny())):
        with pytest.raises(ValueError, match="needs targets"):
            algorithm(views, mode="loss")


def test_supce_is_cross_entropy_over_all_views():
    encoder = SupCEResNet("resnet_tiny", num_classes=4)
    algorithm, (views, targets) = SupCE(encoder).eval(), batch()
    encoder.eval()
    expected = sum(F.cross_entropy(encoder(view), targets) for view in views) / 2
    losses = algorithm(views, targets, mode="loss")
    torch.testing.assert_close(losses["loss"], expected)
    answer = algorithm(views[0], mode="predict")
    assert torch.equal(answer, encoder(views[0]).argmax(1))


def test_supce_equal_logits_give_log_of_classes():
    algorithm, (views, targets) = SupCE(resnet_tiny(), num_classes=4), batch()
    nn.init.zeros_(algorithm.head.weight), nn.init.zeros_(algorithm.head.bias)
    losses = algorithm(views, targets, mode="loss")
    assert math.isclose(losses["loss"].item(), math.log(4), rel_tol=1e-5)
    assert losses["accuracy"].item() == 0.25


# ---------------------------------------------------------------- mistakes, in words


@pytest.mark.parametrize("name", ["MoCoV3", "BYOL", "SimSiam", "BarlowTwins", "VICReg", "ODC"])
def test_one_image_is_no_batch_for_batch_norm(name):
    algorithm = build_algorithm(name)
    views, targets = make_batch(algorithm)
    with pytest.raises(ValueError, match=f"^{name}.*batch_size of 2 or more, and drop_last=True"):
        algorithm([view[:1] for view in views], targets[:1], mode="loss")


@pytest.mark.parametrize("name", ["SimCLR", "SupCon"])
def test_contrast_needs_a_second_image(name):
    algorithm = build_algorithm(name).eval()
    with pytest.raises(
        ValueError, match=f"{name} compares images .* only 1; use a batch_size of 2"
    ):
        algorithm([torch.zeros(1, 3, SIZE, SIZE)] * 2, torch.zeros(1).long(), mode="loss")


@pytest.mark.parametrize("name", ["MAE", "NPID", "RotationPred", "RelativeLoc", "SupCE"])
def test_one_image_is_enough_where_images_are_not_compared(name):
    algorithm = build_algorithm(name)
    views, targets = make_batch(algorithm)
    losses = algorithm([view[:1] for view in views], targets[:1], mode="loss")
    assert losses["loss"].isfinite()


@pytest.mark.parametrize("name", CONFIGS)
def test_views_are_a_list_of_the_same_images(name):
    algorithm = build_algorithm(name)
    views, targets = make_batch(algorithm)
    with pytest.raises(TypeError, match=rf"{name}: a loss wants a list of views.*use \[images\]"):
        algorithm(views[0], targets, mode="loss")
    if len(views) > 1:
        with pytest.raises(ValueError, match=f"{name}: all views show the same images"):
            algorithm([views[0][:-1], *views[1:]], targets, mode="loss")


@pytest.mark.parametrize(
    "name, count", [("NPID", 24), ("DeepCluster", 24), ("ODC", 24), ("SupCE", 3)]
)
@pytest.mark.parametrize("wrong", [-1, 99])
def test_targets_out_of_range_are_named(name, count, wrong):
    algorithm = build_algorithm(name)
    views, targets = make_batch(algorithm)
    targets = targets.clone()
    good, targets[2] = targets.clone(), wrong
    with pytest.raises(ValueError, match=f"{name}: targets go from 0 to {count - 1}, got {wrong}"):
        algorithm(views, targets, mode="loss")
    algorithm(views, good, mode="loss")
    with pytest.raises(ValueError, match=f"{name}: targets go from 0 to {count - 1};"):
        algorithm(views, targets, mode="loss")  # not only in the first batch


def test_supce_leaves_out_what_its_loss_ignores():
    algorithm, (views, targets) = build_algorithm("SupCE"), make_batch(build_algorithm("SupCE"))
    targets = targets.clone()
    algorithm.eval()
    answers = algorithm.predict(views)
    targets = answers.clone()  # all right
    targets[0] = -100
    losses = algorithm(views[:1], targets, mode="loss")
    assert losses["loss"].isfinite() and losses["accuracy"] == 1
    targets[:] = -100
    assert algorithm(views[:1], targets, mode="loss")["accuracy"] == 0


@pytest.mark.parametrize("name", CONFIGS)
def test_views_may_be_changed_for_one_algorithm_alone(name):
    algorithm, other = build_algorithm(name), build_algorithm(name)
    if isinstance(algorithm.views, dict):
        before, of_the_class = copy.copy(other.views), copy.copy(type(algorithm).views)
        algorithm.views |= {"size": 16}
        assert other.views == before and type(algorithm).views == of_the_class


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("backbone", ["resnet18", None])
def test_a_name_is_no_backbone(name, backbone):
    with pytest.raises(TypeError, match=f"^{name}: "):
        build(CONFIGS[name] | {"backbone": backbone})


@pytest.mark.parametrize("slot", ["backbone", "neck", "head", "loss_fn"])
@pytest.mark.parametrize("name", ["SimCLR", "MAE", "DINO", "CAE"])
def test_a_configuration_in_place_of_a_part_says_who_builds_it(name, slot):
    config = {"type": "ContrastiveHead", "temperature": 0.2}
    given = {"backbone": nb.resnet_tiny()} | {slot: config}
    with pytest.raises(
        TypeError, match=f"{name}: {slot} must be a module, got a configuration; build"
    ):
        getattr(nb, name)(**given)
