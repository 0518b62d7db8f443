"The linear probe against scikit-learn, its closed forms, and its promises."

import pickle

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import TensorDataset

from nenya_nb.evaluation import ProbeResult, linear_probe, probe_stages
from nenya_nb.evaluation import linear_probe as module_name  # noqa: F401
from nenya_nb.evaluation.linear_probe import _held_out, _loss_and_gradient
from nenya_nb.models import SimCLR, resnet18, resnet_tiny

torch.set_num_threads(1)


def clouds(n, seed, classes=5, dim=16, spread=1.5, dtype=torch.float64):
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(99))
    targets = torch.arange(n) % classes
    features = centres[targets] + spread * torch.randn(n, dim, generator=random)
    return (10 ** torch.linspace(-2, 2, dim) * features + 3).to(dtype), targets


def scikit_learn(C=1.0):
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=5000, tol=1e-8))


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("C", [1e-3, 0.1, 10.0])
def test_linear_probe_finds_scikit_learns_minimum(classes, C):
    (train, names), (test, truth) = clouds(300, 0, classes), clouds(200, 1, classes)
    probe = linear_probe(train, names, test, truth, Cs=[C], tolerance=1e-9)
    oracle = scikit_learn(C).fit(train.numpy(), names.numpy())
    assert (probe.predict(test).numpy() == oracle.predict(test.numpy())).all()
    assert probe == pytest.approx(oracle.score(test.numpy(), truth.numpy()), abs=1e-12)
    probabilities = (test @ probe.weight.T + probe.bias).softmax(1)
    expected = torch.from_numpy(oracle.predict_proba(test.numpy()))
    torch.testing.assert_close(probabilities, expected, atol=1e-5, rtol=0)


def test_linear_probe_sweeps_like_a_grid_search():
    Cs = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    (train, names), (test, truth) = clouds(200, 2, dim=40), clouds(300, 3, dim=40)
    probe = linear_probe(train, names, test, truth, Cs=Cs, tolerance=1e-8)
    fold = _held_out(names, 0.2, 0).long() - 1  # -1: always learned from
    grid = {"logisticregression__C": Cs}
    search = GridSearchCV(scikit_learn(), grid, cv=PredefinedSplit(fold.numpy()))
    search.fit(train.numpy(), names.numpy())
    assert list(probe.sweep) == Cs
    assert list(probe.sweep.values()) == pytest.approx(search.cv_results_["mean_test_score"])
    assert probe.sweep[probe.C] == pytest.approx(search.best_score_)
    final = scikit_learn(probe.C).fit(train.numpy(), names.numpy())
    assert probe == pytest.approx(final.score(test.numpy(), truth.numpy()))


def test_linear_probe_default_tolerance_gives_the_same_accuracy():
    (train, names), (test, truth) = (clouds(1000, s, 10, 64, 2.0, torch.float32) for s in (0, 1))
    probe = linear_probe(train, names, test, truth)
    exact = scikit_learn(probe.C).fit(train.double().numpy(), names.numpy())
    assert abs(probe - exact.score(test.double().numpy(), truth.numpy())) <= 0.004


def test_linear_probe_does_not_see_the_test_images():
    (train, names), (test, truth) = clouds(200, 4), clouds(100, 5)
    one, other = (
        linear_probe(train, names, test, truth),
        linear_probe(train, names, test, 4 - truth),
    )
    assert one.C == other.C and torch.equal(one.weight, other.weight)


def test_linear_probe_without_weights_names_the_largest_class():
    (train, _), (test, _) = clouds(90, 6), clouds(50, 7)
    names = (torch.arange(90) % 3 == 0).long()  # 60 of class 0, 30 of class 1
    probe = linear_probe(train, names, test, torch.zeros(50, dtype=torch.long), Cs=[1e-12])
    assert probe == 1.0 and probe.weight.abs().max() < 1e-6
    prior = torch.tensor([2 / 3, 1 / 3], dtype=torch.float64)
    torch.testing.assert_close(probe.bias.softmax(0), prior, atol=1e-3, rtol=0)


def test_linear_probe_units_do_not_matter():
    (train, names), (test, truth) = clouds(200, 8), clouds(100, 9)
    probe = linear_probe(train, names, test, truth, tolerance=1e-8)
    other = linear_probe(1e4 * train - 7, names, 1e4 * test - 7, truth, tolerance=1e-8)
    assert probe == other and probe.C == other.C


def test_linear_probe_ignores_features_that_never_change():
    (train, names), (test, truth) = clouds(200, 8), clouds(100, 9)
    still = torch.full((200, 3), 0.3)
    wide = linear_probe(
        torch.cat([train, still], 1), names, torch.cat([test, still[:100]], 1), truth
    )
    assert wide == linear_probe(train, names, test, truth)
    assert linear_probe(still, names, still[:100], truth) == pytest.approx(0.2)


def test_linear_probe_keeps_any_class_numbers():
    (train, names), (test, truth) = clouds(200, 10), clouds(100, 11)
    probe = linear_probe(train, 10 * names + 3, test, 10 * truth + 3)
    assert probe == linear_probe(train, names, test, truth)
    assert set(probe.predict(test).tolist()) <= {3, 13, 23, 33, 43}
    unknown = linear_probe(train, names, test, truth + 100)
    assert unknown == 0.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_linear_probe_precision(dtype):
    (train, names), (test, truth) = clouds(200, 12, dtype=dtype), clouds(100, 13, dtype=dtype)
    probe = linear_probe(train, names, test, truth)
    assert probe.weight.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert probe > 0.5


def test_linear_probe_result_is_a_float():
    (train, names), (test, truth) = clouds(200, 14), clouds(100, 15)
    probe = linear_probe(train, names, test, truth)
    assert isinstance(probe, ProbeResult) and isinstance(probe, float)
    assert 0 <= probe <= 1 and f"{probe:.3f}" == f"{probe.accuracy:.3f}"
    assert (probe.predict(test) == truth).double().mean().item() == probe
    assert "of test images, C=" in repr(probe)
    again = pickle.loads(pickle.dumps(probe))
    assert again == probe and again.C == probe.C and torch.equal(again.weight, probe.weight)


def test_linear_probe_is_the_same_each_time():
    (train, names), (test, truth) = clouds(200, 14), clouds(100, 15)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one = linear_probe(train, names, test, truth, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    other = linear_probe(train, names, test, truth, seed=5)
    assert torch.equal(one.weight, other.weight) and one.sweep == other.sweep


def test_linear_probe_takes_inference_tensors():
    with torch.inference_mode():
        (train, names), (test, truth) = clouds(200, 14), clouds(100, 15)
    assert linear_probe(train, names, test, truth) > 0.5
    with torch.no_grad():
        assert linear_probe(train, names, test, truth) > 0.5


def test_held_out_takes_a_share_of_every_class():
    names = torch.tensor([0] * 50 + [1] * 20 + [2] * 5)[torch.randperm(75)]
    held = _held_out(names, 0.2, 0)
    assert [int(held[names == c].sum()) for c in range(3)] == [10, 4, 1]
    assert not torch.equal(held, _held_out(names, 0.2, 1))
    assert torch.equal(held, _held_out(names, 0.2, 0))


def test_loss_and_gradient_match_autograd_in_chunks(monkeypatch):
    from nenya_nb.evaluation.linear_probe import _loss_and_gradient as function

    monkeypatch.setitem(function.__globals__, "_CHUNK", 50)  # ten rows of five classes
    x, y = clouds(93, 0)
    W = torch.randn(5, 17, dtype=torch.float64, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(x @ W[:, :-1].T + W[:, -1], y)
    loss = loss + 0.05 * W[:, :-1].square().sum()
    loss.backward()
    ours, gradient = _loss_and_gradient(W.detach(), x, y, 0.1)
    torch.testing.assert_close(ours, loss.detach())
    torch.testing.assert_close(gradient, W.grad)


@pytest.mark.parametrize(
    "options, text",
    [
        (dict(Cs=[]), "Cs above 0"),
        (dict(Cs=[0.0, 1.0]), "Cs above 0"),
        (dict(held_out=0.0), "leaves none on one side"),
        (dict(held_out=1.0), "leaves none on one side"),
    ],
)
def test_linear_probe_refuses_options(options, text):
    with pytest.raises(ValueError, match=text):
        linear_probe(*clouds(50, 0), *clouds(50, 1), **options)


def test_linear_probe_refuses_shapes():
    (train, names), (test, truth) = clouds(50, 0), clouds(50, 1)
    with pytest.raises(ValueError, match="train_features"):
        linear_probe(train, names[:9], test, truth)
    with pytest.raises(ValueError, match="test_features"):
        linear_probe(train, names, test[0], truth)
    with pytest.raises(ValueError, match="expected 16 features"):
        linear_probe(train, names, test[:, :4], truth)
    with pytest.raises(ValueError, match="1 classes"):
        linear_probe(train, 0 * names, test, truth)


@pytest.mark.parametrize("which", ["train", "test"])
def test_linear_probe_refuses_broken_features_and_unknown_classes(which):
    inputs = dict(zip(("train", "test"), (clouds(50, 0), clouds(50, 1)), strict=True))
    features, targets = inputs[which]
    for wrong in (torch.nan, torch.inf):
        broken = features.clone()
        broken[[3, 7], 0] = wrong
        asked = inputs | {which: (broken, targets)}
        with pytest.raises(ValueError, match=rf"2 of {len(features)} rows of {which}_features"):
            linear_probe(*asked["train"], *asked["test"])
    unknown = targets.clone()
    unknown[:4] = -1
    asked = inputs | {which: (features, unknown)}
    with pytest.raises(ValueError, match=rf"4 of {len(targets)} {which}_targets are below 0"):
        linear_probe(*asked["train"], *asked["test"])


# ---------------------------------------------------------------- stages


def pictures(n, seed):
    torch.manual_seed(seed)
    targets = torch.arange(n) % 2
    images = torch.rand(n, 3, 32, 32)
    images[:, 0] += 0.3 * targets[:, None, None]
    return TensorDataset(images, targets)


def test_probe_stages_probes_each_stage():
    backbone = resnet_tiny()
    results = probe_stages(backbone, pictures(80, 0), pictures(40, 1))
    assert len(results) == len(backbone.forward_stages(torch.zeros(1, 3, 32, 32)))
    widths = [r.weight.shape[1] for r in results]
    assert widths == [m.shape[1] for m in backbone.forward_stages(torch.zeros(1, 3, 32, 32))]
    assert results[0] > 0.9  # redness is plain to see at once
    assert backbone.training


def test_probe_stages_accepts_an_algorithm():
    algorithm = SimCLR(resnet_tiny())
    one = probe_stages(algorithm, pictures(80, 0), pictures(40, 1), Cs=[1.0])
    assert one == probe_stages(algorithm.backbone, pictures(80, 0), pictures(40, 1), Cs=[1.0])
    assert all(r.C == 1.0 for r in one)
    with_head = resnet18()
    assert len(probe_stages(with_head, pictures(8, 0), pictures(8, 1), Cs=[1.0])) >= 4


def test_probe_stages_refuses_a_model_without_stages():
    with pytest.raises(TypeError, match="no forward_stages"):
        probe_stages(nn.Flatten(), pictures(8, 0), pictures(8, 1))
