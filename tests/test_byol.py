"""BYOL against lightly's heads, loss and schedule, and torch's averaged model; who gets a gradient and who does not."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead
from lightly.utils.scheduler import cosine_schedule
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nenya_nb.core import Clock
from nenya_nb.models.algorithms.byol import BYOL
from nenya_nb.models.backbones.resnet_variants import resnet_tiny
from nenya_nb.models.config import build
from nenya_nb.models.heads import LatentPredictHead
from nenya_nb.models.losses import CosineSimilarityLoss
from nenya_nb.models.necks import NonLinearNeck, mlp

torch.set_num_threads(1)
PAPER = dict(with_bias=True, with_last_bn=False, with_last_bias=True)


class Flat(nn.Module):
    "Images are their own features."

    def __init__(self, output_dim=48):
        super().__init__()
        self.output_dim = output_dim

    def forward(self, images):
        return images.flatten(1)


def small(**options):
    head = LatentPredictHead(NonLinearNeck(16, 32, 16, **PAPER))
    return BYOL(resnet_tiny(), NonLinearNeck(128, 32, 16, **PAPER), head, **options)


def two_views(B=6, shape=(3, 32, 32)):
    return [torch.randn(B, *shape), torch.randn(B, *shape)]


def without_hidden_bias(part):
    "lightly leaves out the hidden bias, which the BatchNorm after it takes away in any case."
    return [
        value for name, value in part.state_dict().items() if not name.endswith("layers.0.bias")
    ]


@pytest.mark.parametrize("B", [2, 5])
def test_byol_matches_lightly_with_gradients(B):
    "Another teacher than the student; lightly's loss is the mean of two −cos, ours the paper's sum of two 2 − 2 cos."
    ours = BYOL(
        Flat(),
        NonLinearNeck(48, 20, 16, **PAPER),
        LatentPredictHead(NonLinearNeck(16, 20, 16, **PAPER)),
    ).double()
    nn.init.normal_(ours.teacher.neck.layers[0].weight, std=0.1)
    projection, prediction = BYOLProjectionHead(48, 20, 16), BYOLPredictionHead(16, 20, 16)
    teacher = BYOLProjectionHead(48, 20, 16)
    for theirs, mine in ((projection, ours.neck), (prediction, ours.head), (teacher, ours.teacher)):
        values = without_hidden_bias(mine)
        theirs.double().load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)))
    views = [v.double() for v in two_views(B, (3, 4, 4))]
    p1, p2 = (prediction(projection(v.flatten(1))) for v in views)
    t1, t2 = (teacher(v.flatten(1)).detach() for v in views)
    criterion = NegativeCosineSimilarity()
    expected = 4 + 4 * 0.5 * (criterion(p1, t2) + criterion(p2, t1))
    loss = ours(views, mode="loss")["loss"]
    torch.testing.assert_close(loss, expected)
    loss.backward(), expected.backward()
    torch.testing.assert_close(ours.neck.layers[0].weight.grad, projection.layers[0].weight.grad)
    mine = ours.head.predictor.layers[-1].weight.grad
    torch.testing.assert_close(mine, prediction.layers[-1].weight.grad)


def test_byol_loss_is_four_less_in_mmselfsups_form():
    views, m = [v.double() for v in two_views()], small().double()
    other = copy.deepcopy(m)
    other.loss_fn = CosineSimilarityLoss(0, 2)
    difference = m(views, mode="loss")["loss"] - other(views, mode="loss")["loss"]
    assert math.isclose(difference.item(), 4, rel_tol=1e-9)


def test_byol_closed_forms():
    algorithm = BYOL(Flat(), nn.Identity(), LatentPredictHead(nn.Identity()))
    images = torch.eye(6, 48).reshape(6, 3, 4, 4)
    for other, loss in ((2 * images, 0), (-images, 8), (images.roll(1, 0), 4)):
        found = algorithm([images, other], mode="loss")["loss"]
        assert math.isclose(found.item(), loss, abs_tol=1e-5)


def test_byol_is_symmetric():
    algorithm, views = small().double(), [v.double() for v in two_views()]
    loss = algorithm(views, mode="loss")["loss"]
    torch.testing.assert_close(algorithm(views[::-1], mode="loss")["loss"], loss)


def test_byol_teacher_has_no_gradient_and_no_predictor():
    algorithm = small()
    algorithm(two_views(), mode="loss")["loss"].backward()
    assert all(p.grad is None and not p.requires_grad for p in algorithm.teacher.parameters())
    for part in (algorithm.backbone, algorithm.neck, algorithm.head):
        assert all(p.grad is not None for p in part.parameters())
    names = {name.split(".")[0] for name, _ in algorithm.teacher.named_parameters()}
    assert names == {"backbone", "neck"}


def test_byol_teacher_starts_as_a_copy_of_its_own():
    algorithm = small()
    for p, t in zip(algorithm.neck.parameters(), algorithm.teacher.neck.parameters(), strict=True):
        assert torch.equal(p, t) and p.data_ptr() != t.data_ptr()


@pytest.mark.parametrize("momentum", [0.5, 0.99])
def test_byol_teacher_matches_torchs_average(momentum):
    "Constant momentum: steps = 0 of a long run. Several updates against torch's AveragedModel."
    algorithm = small(base_momentum=momentum)
    student = nn.ModuleDict({"backbone": algorithm.backbone, "neck": algorithm.neck})
    average = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(momentum))
    average.update_parameters(student)  # its first update is a copy
    for _ in range(3):
        with torch.no_grad():
            for p in student.parameters():
                p.add_(torch.randn_like(p))
        average.update_parameters(student)
        algorithm.after_step(Clock(10, 10))
    expected = dict(average.module.named_parameters())
    for name, p in algorithm.teacher.named_parameters():
        torch.testing.assert_close(p, expected[name])


def test_byol_momentum_follows_lightlys_cosine():
    algorithm, clock, seen = small(base_momentum=0.9), Clock(4, 5), []
    algorithm.teacher.update = lambda backbone, neck, momentum: seen.append(momentum)
    for clock.step in range(21):
        algorithm.after_step(clock)
    expected = [cosine_schedule(step, 21, 0.9, 1.0) for step in range(21)]
    assert seen == pytest.approx(expected) and seen[0] == 0.9 and seen[-1] == 1


@pytest.mark.parametrize("momentum, moved", [(1.0, 0.0), (0.0, 1.0), (0.75, 0.25)])
def test_byol_teacher_moves_by_its_share(momentum, moved):
    algorithm = small(base_momentum=momentum)
    before = algorithm.teacher.neck.layers[0].weight.clone()
    with torch.no_grad():
        algorithm.neck.layers[0].weight += 2.0
    algorithm.after_step(Clock(10, 10))
    torch.testing.assert_close(
        algorithm.teacher.neck.layers[0].weight - before, torch.full_like(before, 2 * moved)
    )


def test_byol_teachers_statistics_become_the_students():
    algorithm = small()
    algorithm(two_views(), mode="loss")
    algorithm.after_step(Clock(10, 10))
    mine = dict(algorithm.neck.named_buffers())
    for name, buffer in algorithm.teacher.neck.named_buffers():
        assert torch.equal(buffer, mine[name]), name


def test_byol_default_parts_are_the_papers():
    with torch.device("meta"):
        algorithm = BYOL(Flat(2048))
    for part, first in ((algorithm.neck, 2048), (algorithm.head.predictor, 256)):
        kinds = [type(layer).__name__ for layer in part.layers]
        assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
        assert (part.layers[0].in_features, part.layers[0].out_features) == (first, 4096)
        assert part.layers[-1].out_features == 256 and part.layers[-1].bias is not None
    assert algorithm.base_momentum == 0.996 and algorithm.views == "asymmetric_views"


def test_byol_diagnostics():
    algorithm, views = small(), two_views(5, (3, 24, 40))  # not square
    assert algorithm.diagnostics() == {}
    algorithm(views, mode="loss")
    found = algorithm.diagnostics()
    assert found["z"].shape == (10, 16) and found["similarity"].shape == (5, 5)
    teacher = F.normalize(algorithm.teacher(views[1]), dim=1)
    p = F.normalize(algorithm.head.predictor(found["z"][:5]), dim=1)
    torch.testing.assert_close(found["similarity"], p.detach() @ teacher.T)


def test_byol_half_precision_is_finite():
    algorithm = small()
    with torch.autocast("cpu", torch.bfloat16):
        losses = algorithm(two_views(), mode="loss")
    losses["loss"].backward()
    assert all(v.isfinite() for v in losses.values())


def test_byol_state_dict_holds_the_teacher():
    first, second, views = small(base_momentum=0.5), small(), two_views()
    first(views, mode="loss")["loss"].backward()
    with torch.no_grad():
        first.neck.layers[0].weight.mul_(1.5)
    first.after_step(Clock(10, 10))
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second(views, mode="loss"), first(views, mode="loss"))
    assert torch.equal(second.eval().teacher(views[0]), first.eval().teacher(views[0]))


def test_byol_from_a_config():
    algorithm = build(
        {
            "type": "nenya_nb.models.algorithms.byol.BYOL",
            "backbone": {"type": "resnet_tiny"},
            "neck": {"type": "NonLinearNeck", "input_dim": 128, "hidden_dim": 8, "output_dim": 8},
            "base_momentum": 0.99,
        }
    )
    assert algorithm.base_momentum == 0.99 and algorithm.head.predictor.output_dim == 8


def test_byol_refuses():
    with pytest.raises(ValueError, match="two views of each image, got 3"):
        small()(two_views() + two_views()[:1], mode="loss")
    for momentum in (-0.1, 1.1):
        with pytest.raises(ValueError, match="between 0 and 1"):
            small(base_momentum=momentum)
    with pytest.raises(ValueError, match="set backbone.output_dim"):
        BYOL(nn.Flatten())
    for neck, width in ((mlp(128, 32, 16), 16), (nn.Identity(), 128)):
        assert BYOL(resnet_tiny(), neck).head.predictor.input_dim == width
    with pytest.raises(ValueError, match="set its output_dim"):
        BYOL(nn.Flatten(), nn.Identity())
