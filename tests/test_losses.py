"""The losses against other libraries, closed forms, and two processes against one."""

import math

import lightly.loss
import pytest
import torch
from pytorch_metric_learning import losses as metric
from torch import nn
from two_processes import in_two_processes, train_losses

from nenya_nb.models.losses import CosineSimilarityLoss, NTXentLoss, SupConLoss, split_views

torch.set_num_threads(1)
LABELS = torch.tensor([0, 1, 0, 2, 1, 0])


def views(B=6, D=10):
    return torch.randn(2, B, D, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_nt_xent_matches_lightly_and_metric_learning(temperature):
    z1, z2 = views()
    ours = NTXentLoss(temperature)(z1, z2)
    torch.testing.assert_close(ours, lightly.loss.NTXentLoss(temperature)(z1, z2))
    theirs = metric.SelfSupervisedLoss(metric.NTXentLoss(temperature))(z1, z2)
    torch.testing.assert_close(ours, theirs)


def test_nt_xent_gradients_match_lightly():
    grads = []
    z1, z2 = views()
    for loss_fn in (NTXentLoss(0.2), lightly.loss.NTXentLoss(0.2)):
        a, b = z1.clone().requires_grad_(), z2.clone().requires_grad_()
        loss_fn(a, b).backward()
        grads.append(torch.cat([a.grad, b.grad]))
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("B", [1, 2, 16])
def test_nt_xent_equal_embeddings_give_log_of_candidates(B):
    z = torch.ones(B, 4)
    assert math.isclose(NTXentLoss(0.3)(z, z).item(), math.log(2 * B - 1), abs_tol=1e-6)


def test_nt_xent_orthogonal_images_reach_the_closed_form():
    B, tau = 5, 0.4
    z = torch.eye(B, 8)
    expected = math.log(1 + (2 * B - 2) * math.exp(-1 / tau))
    assert math.isclose(NTXentLoss(tau)(z, 3 * z).item(), expected, rel_tol=1e-5)


def test_nt_xent_ignores_order_length_and_side():
    z1, z2 = views()
    loss_fn, order = NTXentLoss(0.2), torch.randperm(6)
    expected = loss_fn(z1, z2)
    torch.testing.assert_close(loss_fn(z2, z1), expected)
    torch.testing.assert_close(loss_fn(z1[order], z2[order]), expected)
    torch.testing.assert_close(loss_fn(0.1 * z1, 9 * z2), expected)


def test_nt_xent_refuses_views_that_differ():
    with pytest.raises(ValueError, match="views differ"):
        NTXentLoss()(torch.randn(4, 3), torch.randn(5, 3))


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_supcon_matches_metric_learning(temperature):
    z1, z2 = views()
    ours = SupConLoss(temperature)(torch.stack([z1, z2], 1), LABELS)
    theirs = metric.SupConLoss(temperature)(torch.cat([z1, z2]), LABELS.repeat(2))
    torch.testing.assert_close(ours, theirs)


def test_supcon_gradients_match_metric_learning():
    z1, z2 = views()
    ours_in = torch.stack([z1, z2], 1).requires_grad_()
    SupConLoss(0.2)(ours_in, LABELS).backward()
    theirs_in = torch.cat([z1, z2]).requires_grad_()
    metric.SupConLoss(0.2)(theirs_in, LABELS.repeat(2)).backward()
    torch.testing.assert_close(ours_in.grad.transpose(0, 1).flatten(0, 1), theirs_in.grad)


@pytest.mark.parametrize("V", [2, 3, 4])
def test_supcon_matches_metric_learning_for_more_views(V):
    features = torch.randn(6, V, 8, dtype=torch.float64)
    theirs = metric.SupConLoss(0.3)(features.flatten(0, 1), LABELS.repeat_interleave(V))
    torch.testing.assert_close(SupConLoss(0.3)(features, LABELS), theirs)


def test_supcon_without_labels_is_nt_xent():
    z1, z2 = views()
    features = torch.stack([z1, z2], 1)
    expected = NTXentLoss(0.2)(z1, z2)
    torch.testing.assert_close(SupConLoss(0.2)(features), expected)
    torch.testing.assert_close(SupConLoss(0.2)(features, torch.arange(6)), expected)


def test_supcon_anchors_without_positives_contribute_zero():
    "One view: classes 2 has one member. The others' mean, scaled by their share of the anchors."
    z = torch.randn(6, 8, dtype=torch.float64)
    ours = SupConLoss(0.2)(z[:, None], LABELS)
    theirs = metric.SupConLoss(0.2)(z, LABELS)  # averages over the five anchors that have positives
    torch.testing.assert_close(ours, theirs * 5 / 6)
    assert SupConLoss(0.2)(z[:, None]).item() == 0


def test_supcon_one_mode_uses_first_views_as_anchors():
    z1, z2 = views()
    loss = SupConLoss(0.2, contrast_mode="one")(torch.stack([z1, z2], 1), LABELS)
    z = nn.functional.normalize(torch.cat([z1, z2]), dim=1)
    total, labels = 0, LABELS.repeat(2)
    for i in range(6):
        others = [k for k in range(12) if k != i]
        log_sum = torch.stack([z[i] @ z[k] / 0.2 for k in others]).logsumexp(0)
        positives = [k for k in others if labels[k] == labels[i]]
        total -= sum(z[i] @ z[p] / 0.2 - log_sum for p in positives) / len(positives)
    torch.testing.assert_close(loss, total / 6)


def test_supcon_base_temperature_scales():
    features = torch.stack([*views()], 1)
    plain = SupConLoss(0.5)(features, LABELS)
    torch.testing.assert_close(SupConLoss(0.5, 0.07)(features, LABELS), plain * 0.5 / 0.07)


def test_supcon_ignores_names_of_classes():
    features = torch.stack([*views()], 1)
    loss_fn = SupConLoss()
    torch.testing.assert_close(loss_fn(features, LABELS), loss_fn(features, 7 - LABELS))


@pytest.mark.parametrize(
    "args, text",
    [
        (dict(temperature=0), "above 0"),
        (dict(contrast_mode="any"), "'all' or 'one'"),
    ],
)
def test_supcon_refuses_settings(args, text):
    with pytest.raises(ValueError, match=text):
        SupConLoss(**args)


@pytest.mark.parametrize("features, labels", [((6, 8), 6), ((6, 2, 8), 5), ((6, 2, 2, 2), 6)])
def test_supcon_refuses_shapes(features, labels):
    with pytest.raises(ValueError, match="split_views"):
        SupConLoss()(torch.randn(features), torch.zeros(labels))


@pytest.mark.parametrize("V", [1, 2, 5])
def test_split_views_n15(V):
    z = torch.randn(V * 4, 3)
    features = split_views(z, V)
    assert features.shape == (4, V, 3)
    for i in range(4):
        for v in range(V):
            assert torch.equal(features[i, v], z[v * 4 + i])


def test_split_views_refuses_uneven_rows():
    with pytest.raises(ValueError, match="not a multiple"):
        split_views(torch.randn(5, 3))


@pytest.mark.parametrize("loss_fn", [NTXentLoss(0.2), SupConLoss(0.2)], ids=["nt_xent", "supcon"])
def test_loss_is_finite_in_half_precision(loss_fn):
    z = torch.randn(2, 4, 8, dtype=torch.bfloat16, requires_grad=True)
    loss = loss_fn(z[0], z[1]) if isinstance(loss_fn, NTXentLoss) else loss_fn(z.transpose(0, 1))
    loss.backward()
    assert loss.isfinite() and z.grad.isfinite().all()


# ---------------------------------------------------------------- cosine


def test_cosine_loss_and_gradients_match_lightly_and_torch():
    p, t = (z.requires_grad_() for z in views().unbind())
    ours, theirs = CosineSimilarityLoss()(p, t), lightly.loss.NegativeCosineSimilarity()(p, t)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours, (p, t)), torch.autograd.grad(theirs, (p, t))
    )
    theirs = nn.CosineEmbeddingLoss()(p, t, torch.ones(6))  # 1 - cos
    torch.testing.assert_close(CosineSimilarityLoss(shift_factor=1)(p, t), theirs)


def test_cosine_loss_of_byol_is_a_squared_distance():
    p, t = views()
    unit = nn.functional.normalize(p, dim=1), nn.functional.normalize(t, dim=1)
    expected = (unit[0] - unit[1]).square().sum(1).mean()
    torch.testing.assert_close(CosineSimilarityLoss(2, 2)(p, t), expected)


@pytest.mark.parametrize("shift, scale", [(0, 1), (1, 1), (2, 2), (0, 4)])
def test_cosine_loss_at_three_angles(shift, scale):
    loss_fn, z = CosineSimilarityLoss(shift, scale), torch.eye(4)
    for other, cos in ((3 * z, 1), (z.roll(1, 0), 0), (-z, -1)):
        assert math.isclose(loss_fn(z, other).item(), shift - scale * cos, abs_tol=1e-6)


def test_cosine_loss_of_zero_vectors_is_finite():
    z = torch.zeros(3, 4, requires_grad=True)
    loss = CosineSimilarityLoss()(z, torch.ones(3, 4))
    loss.backward()
    assert loss.item() == 0 and z.grad.isfinite().all()


@pytest.mark.parametrize("shapes", [((4, 3), (1, 3)), ((4, 3), (4, 2)), ((4, 3, 2), (4, 3, 2))])
def test_cosine_loss_refuses_shapes(shapes):
    with pytest.raises(ValueError, match=r"two tensors \(B, E\)"):
        CosineSimilarityLoss()(*map(torch.randn, shapes))


# ---------------------------------------------------------------- several processes


def test_losses_of_two_processes_equal_one(tmp_path):
    "Mean loss and mean gradient over two processes are those of the joined batch."
    model = nn.Linear(7, 5, bias=False).double()
    images, labels = torch.randn(6, 2, 7, dtype=torch.float64), LABELS
    expected = train_losses(0, model, images, labels)
    for found in in_two_processes(train_losses, tmp_path, model, images, labels):
        for name in expected:
            torch.testing.assert_close(
                found[name], expected[name], msg=lambda m, n=name: f"{n}: {m}"
            )


def test_supcon_of_one_view_of_one_image_is_0():
    x = torch.randn(1, 1, 8, requires_grad=True)
    loss = SupConLoss()(x)
    loss.backward()
    assert loss == 0 and not x.grad.any()


def test_supcon_refuses_a_base_temperature_of_0():
    with pytest.raises(ValueError, match="base_temperature=0 too, or None"):
        SupConLoss(base_temperature=0)
