"""SimSiam against lightly's heads and loss, who gets a gradient and who does not, and what it refuses."""

import math

import pytest
import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules.heads import SimSiamPredictionHead, SimSiamProjectionHead
from torch import nn

from nenya_nb.models.algorithms.simsiam import SimSiam
from nenya_nb.models.backbones.resnet_variants import resnet_tiny
from nenya_nb.models.config import build
from nenya_nb.models.heads import LatentPredictHead
from nenya_nb.models.losses import CosineSimilarityLoss
from nenya_nb.models.necks import NonLinearNeck, mlp
from nenya_nb.training.optim import build_optimizer

torch.set_num_threads(1)


class Flat(nn.Module):
    "Images are their own features."

    def __init__(self, output_dim=48):
        super().__init__()
        self.output_dim = output_dim

    def forward(self, images):
        return images.flatten(1)


def small(head=None):
    return SimSiam(resnet_tiny(), NonLinearNeck(128, 32, 32, 3, with_last_bn_affine=False), head)


def two_views(B=6, shape=(3, 32, 32)):
    return [torch.randn(B, *shape), torch.randn(B, *shape)]


@pytest.mark.parametrize("B", [2, 5])
def test_simsiam_matches_lightly_with_gradients(B):
    "The same weights in lightly's projection and prediction heads: the same loss, the same gradients."
    neck = NonLinearNeck(48, 20, 16, 3, with_last_bn_affine=False)
    ours = SimSiam(Flat(), neck).double()
    projection = SimSiamProjectionHead(48, 20, 16).double()
    prediction = SimSiamPredictionHead(16, 4, 16).double()
    projection.load_state_dict(
        dict(zip(projection.state_dict(), neck.state_dict().values(), strict=True))
    )
    state = ours.head.state_dict()
    prediction.load_state_dict(dict(zip(prediction.state_dict(), state.values(), strict=True)))
    views = [v.double() for v in two_views(B, (3, 4, 4))]
    z1, z2 = (projection(v.flatten(1)) for v in views)
    p1, p2 = prediction(z1), prediction(z2)
    criterion = NegativeCosineSimilarity()
    expected = 0.5 * (criterion(p1, z2.detach()) + criterion(p2, z1.detach()))
    loss = ours(views, mode="loss")["loss"]
    torch.testing.assert_close(loss, expected)
    loss.backward(), expected.backward()
    torch.testing.assert_close(neck.layers[0].weight.grad, projection.layers[0].weight.grad)
    predictor = ours.head.predictor.layers
    torch.testing.assert_close(predictor[0].weight.grad, prediction.layers[0].weight.grad)


def test_simsiam_is_symmetric_and_bounded():
    algorithm, views = small().double(), [v.double() for v in two_views()]
    loss = algorithm(views, mode="loss")["loss"]
    torch.testing.assert_close(algorithm(views[::-1], mode="loss")["loss"], loss)
    assert -1 <= loss.item() <= 1


def test_simsiam_closed_forms():
    algorithm = SimSiam(Flat(), nn.Identity(), LatentPredictHead(nn.Identity()))
    images = torch.eye(6, 48).reshape(6, 3, 4, 4)
    for other, loss in ((2 * images, -1), (-images, 1), (images.roll(1, 0), 0)):
        found = algorithm([images, other], mode="loss")
        assert math.isclose(found["loss"].item(), loss, abs_tol=1e-6)
    ones = torch.ones_like(images)
    assert algorithm([ones, ones], mode="loss")["std"] < 1e-6  # complete collapse


def test_simsiam_stops_the_gradient_of_targets():
    "The gradient is that of a loss whose targets are constants, computed apart."
    algorithm, views = small().double(), [v.double() for v in two_views()]
    algorithm(views, mode="loss")["loss"].backward()
    weight = algorithm.neck.layers[0].weight
    found, weight.grad = weight.grad.clone(), None
    z1, z2 = algorithm.embed(views[0]), algorithm.embed(views[1])
    t1, t2 = z1.detach().clone(), z2.detach().clone()
    predict, loss_fn = algorithm.head.predictor, algorithm.loss_fn
    (0.5 * loss_fn(predict(z1), t2) + 0.5 * loss_fn(predict(z2), t1)).backward()
    torch.testing.assert_close(weight.grad, found)


def test_simsiam_stop_gradient_halves_the_gradient_without_predictor():
    grads = []
    for stop in (True, False):
        torch.manual_seed(0)
        neck = NonLinearNeck(48, 20, 16)
        algorithm = SimSiam(Flat(), neck, LatentPredictHead(nn.Identity())).double()
        views = [v.double() for v in two_views(4, (3, 4, 4))]
        if stop:
            algorithm(views, mode="loss")["loss"].backward()
        else:
            z1, z2 = algorithm.embed(views[0]), algorithm.embed(views[1])
            CosineSimilarityLoss()(z1, z2).backward()
        grads.append(neck.layers[0].weight.grad)
    torch.testing.assert_close(2 * grads[0], grads[1])


def test_simsiam_default_parts_are_the_papers():
    with torch.device("meta"):
        algorithm = SimSiam(Flat(2048))
    neck, predictor = algorithm.neck.layers, algorithm.head.predictor.layers
    assert [m.out_features for m in neck if isinstance(m, nn.Linear)] == [2048] * 3
    assert all(m.bias is None for m in neck if isinstance(m, nn.Linear))
    assert neck[-1].weight is None and neck[1].weight is not None
    assert [m.out_features for m in predictor if isinstance(m, nn.Linear)] == [512, 2048]
    assert predictor[0].bias is None and predictor[-1].bias is not None
    assert sum(isinstance(m, nn.BatchNorm1d) for m in predictor) == 1


def test_simsiam_predictor_keeps_its_learning_rate():
    algorithm = small()
    assert algorithm.constant_lr == ("head",)
    groups = build_optimizer("sgd", algorithm, lr=0.05).param_groups
    steady = {p for g in groups if g.get("constant_lr") for p in g["params"]}
    assert steady == set(algorithm.head.parameters())


def test_simsiam_embeds_views_apart():
    "Each view has its own batch statistics: changing view 2 leaves z1 as it is."
    algorithm, views = small(), two_views()
    algorithm(views, mode="loss")
    first = algorithm.diagnostics()["z"][:6]
    algorithm([views[0], 9 * views[1]], mode="loss")
    torch.testing.assert_close(algorithm.diagnostics()["z"][:6], first)


def test_simsiam_diagnostics():
    algorithm = small()
    assert algorithm.diagnostics() == {}
    algorithm(two_views(5, (3, 24, 40)), mode="loss")  # not square
    found = algorithm.diagnostics()
    assert found["z"].shape == (10, 32) and found["similarity"].shape == (5, 5)
    assert found["similarity"].abs().max() <= 1 + 1e-5
    assert not any(t.requires_grad for t in found.values())


def test_simsiam_half_precision_is_finite():
    algorithm, views = small(), two_views()
    with torch.autocast("cpu", torch.bfloat16):
        losses = algorithm(views, mode="loss")
    losses["loss"].backward()
    assert all(v.isfinite() for v in losses.values())
    assert all(p.grad.isfinite().all() for p in algorithm.parameters())


def test_simsiam_state_dict_round_trip():
    first, second, views = small(), small(), two_views()
    first(views, mode="loss")
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second(views, mode="loss"), first(views, mode="loss"))


def test_simsiam_from_a_config():
    algorithm = build(
        {
            "type": "nenya_nb.models.algorithms.simsiam.SimSiam",
            "backbone": {"type": "resnet_tiny"},
            "neck": {"type": "NonLinearNeck", "input_dim": 128, "hidden_dim": 8, "output_dim": 8},
        }
    )
    assert (
        isinstance(algorithm.head, LatentPredictHead) and algorithm.head.predictor.output_dim == 8
    )


@pytest.mark.parametrize("count", [1, 3])
def test_simsiam_refuses_other_numbers_of_views(count):
    with pytest.raises(ValueError, match=f"two views of each image, got {count}"):
        small()(two_views()[:1] * count, mode="loss")


def test_simsiam_refuses_parts_without_width():
    with pytest.raises(ValueError, match="set backbone.output_dim"):
        SimSiam(nn.Flatten())
    for neck, width in ((mlp(128, 32, 16), 16), (nn.Identity(), 128)):
        assert SimSiam(resnet_tiny(), neck).head.predictor.input_dim == width
    with pytest.raises(ValueError, match="set its output_dim"):
        SimSiam(nn.Flatten(), nn.Identity())
    with pytest.raises(ValueError, match="neck expects 64"):
        SimSiam(resnet_tiny(), NonLinearNeck(64, 8, 8))


def test_simsiam_refuses_a_batch_of_one():
    with pytest.raises(
        ValueError, match="SimSiam: BatchNorm compares .* use a batch_size of 2 or more"
    ):
        small()(two_views(1), mode="loss")
