"""DINO: loss, centre and temperature against lightly's, the teacher's average, clipping, freezing, configs."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import DINOLoss as LightlyDINOLoss
from torch import nn

from nenya_nb.core import Clock, cosine
from nenya_nb.models import DinoModel, DinoProjectionHead, build, mlp, resnet_tiny
from nenya_nb.models.algorithms import dino
from nenya_nb.models.algorithms.dino import DINO, DINOLoss, clip_gradients
from nenya_nb.models.blocks import DropPath

torch.set_num_threads(1)
B, K = 6, 16


def head(**options):
    return DinoProjectionHead(128, 32, 8, K, **options)


def small(**options):
    return DINO(resnet_tiny(), head(norm_last_layer=True), **{"freeze_last_layer": 0} | options)


def views(sizes=(32, 32, 16, 16), batch=B):
    return [torch.randn(batch, 3, size, size) for size in sizes]


def logits(number, batch=B):
    return [torch.randn(batch, K, dtype=torch.float64) for _ in range(number)]


def backward(algorithm, sizes=(32, 32, 16)):
    losses = algorithm(views(sizes), mode="loss")
    losses["loss"].backward()
    return losses


# ---------------------------------------------------------------- loss


@pytest.mark.parametrize("local", [0, 1, 5])
def test_loss_matches_lightly_for_several_steps(local):
    torch.manual_seed(0)
    settings = dict(teacher_temp=0.07, warmup_teacher_temp=0.04, warmup_teacher_temp_epochs=3)
    theirs = LightlyDINOLoss(output_dim=K, **settings).double()
    ours = DINOLoss(K, teacher_temperature=0.07, warmup_temperature=0.04, warmup_epochs=3).double()
    for epoch in range(5):
        student, teacher = [x.requires_grad_() for x in logits(2 + local)], logits(2)
        ours.temperature.fill_(ours.temperature_at(epoch))
        expected = theirs(teacher, student, epoch=epoch)
        found = ours(student, teacher)
        ours.update_center(torch.cat(teacher))
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(ours.center, theirs.center.flatten(), rtol=1e-6, atol=1e-6)
        mine, other = (torch.autograd.grad(loss, student) for loss in (found, expected))
        for a, b in zip(mine, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("T", "V"), [(2, 2), (2, 7), (1, 3), (3, 5)])
def test_loss_is_the_mean_over_pairs_of_different_views(T, V):
    student, teacher, loss_fn = logits(V), logits(T), DINOLoss(K).double()
    pairs = [
        -((teacher[t] / loss_fn.temperature).softmax(1) * (student[v] / 0.1).log_softmax(1)).sum(1)
        for t in range(T)
        for v in range(V)
        if t != v
    ]
    assert len(pairs) == T * (V - 1)
    torch.testing.assert_close(loss_fn(student, teacher), torch.stack(pairs).mean())


def test_loss_of_equal_logits_is_ln_k():
    same = [torch.full((B, K), 3.0)] * 2
    assert math.isclose(DINOLoss(K)(same, same).item(), math.log(K), rel_tol=1e-6)


def test_loss_is_never_below_the_teachers_entropy():
    loss_fn = DINOLoss(K).double()
    teacher = logits(2)
    student = [
        view * 0.1 / loss_fn.temperature for view in teacher[::-1]
    ]  # each says what the other says
    entropy = torch.special.entr(loss_fn.targets(torch.cat(teacher))).sum(1).mean()
    torch.testing.assert_close(loss_fn(student, teacher), entropy)
    assert loss_fn(logits(2), teacher) > entropy


def test_loss_gives_the_teacher_no_gradient():
    teacher = [view.requires_grad_() for view in logits(2)]
    student = [view.requires_grad_() for view in logits(3)]
    DINOLoss(K).double()(student, teacher).backward()
    assert all(view.grad is None for view in teacher)
    assert all(view.grad.abs().sum() > 0 for view in student)


def test_loss_center_is_the_mean_of_all_processes(monkeypatch):
    loss_fn, rows = DINOLoss(K).double(), torch.cat(logits(2))
    loss_fn.update_center(rows)
    torch.testing.assert_close(loss_fn.center, 0.1 * rows.mean(0))
    others = rows.mean(0, keepdim=True) + 1
    monkeypatch.setattr(dino, "gather", lambda mean: torch.cat([others, mean]))
    joined = DINOLoss(K).double()
    joined.update_center(rows)
    torch.testing.assert_close(joined.center, 0.1 * (rows.mean(0) + 0.5))


def test_loss_temperature_goes_straight():
    loss_fn = DINOLoss(K, teacher_temperature=0.07, warmup_temperature=0.04, warmup_epochs=30)
    expected = torch.linspace(0.04, 0.07, 30).tolist() + [0.07] * 3
    assert [loss_fn.temperature_at(epoch) for epoch in range(33)] == pytest.approx(expected)
    assert DINOLoss(K).temperature_at(0) == 0.04
    assert loss_fn.temperature.item() == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (dict(teacher_temperature=0.0), "temperatures must be above 0"),
        (dict(student_temperature=-1.0), "temperatures must be above 0"),
        (dict(center_momentum=1.1), "between 0 and 1"),
    ],
)
def test_loss_refuses_impossible_settings(settings, text):
    with pytest.raises(ValueError, match=text):
        DINOLoss(K, **settings)


def test_loss_refuses_views_without_pairs():
    for V, T in ((1, 1), (2, 3), (2, 0)):
        with pytest.raises(ValueError, match="make no pairs"):
            DINOLoss(K).double()(logits(V), logits(T))


# ---------------------------------------------------------------- clipping


def test_clip_gradients_clips_each_by_itself():
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.zeros(4, 3)), nn.Parameter(torch.zeros(5))]
    unused = nn.Parameter(torch.zeros(2))
    parameters[0].grad, parameters[1].grad = 10 * torch.randn(4, 3), 0.1 * torch.randn(5)
    expected = []
    for parameter in parameters:
        twin = nn.Parameter(torch.zeros_like(parameter))
        twin.grad = parameter.grad.clone()
        nn.utils.clip_grad_norm_([twin], 3.0)
        expected.append(twin.grad)
    clip_gradients([*parameters, unused], 3.0)
    for parameter, other in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, other)
    assert parameters[0].grad.norm() == pytest.approx(3.0) and unused.grad is None
    clip_gradients([unused])
    with pytest.raises(ValueError, match="limit must be above 0"):
        clip_gradients(parameters, 0)


# ---------------------------------------------------------------- student and teacher


def test_dino_losses_and_their_parts():
    algorithm = small()
    losses = algorithm(views(), mode="loss")
    assert set(losses) == {"loss", "std", "teacher_entropy", "kl", "perplexity"}
    torch.testing.assert_close(losses["loss"].detach(), losses["teacher_entropy"] + losses["kl"])
    assert losses["kl"] > 0 and 1 <= losses["perplexity"] <= K + 1e-4
    assert 0 <= losses["teacher_entropy"] <= math.log(K) + 1e-5
    found = algorithm.diagnostics()
    assert found["teacher"].shape == found["student"].shape == (2 * B, K)
    assert found["center"].shape == (K,) and found["entropy"].shape == (2 * B,)
    assert not any(tensor.requires_grad for tensor in found.values())


def test_dino_loss_is_lightlys_on_the_same_logits():
    algorithm, crops = small().eval(), views()
    student = [algorithm.student(view) for view in crops]
    teacher = [algorithm.teacher(view) for view in crops[:2]]
    expected = LightlyDINOLoss(output_dim=K)(teacher, student)
    torch.testing.assert_close(algorithm(crops, mode="loss")["loss"], expected)


def test_dino_centre_moves_in_training_only():
    algorithm, crops = small(), views()
    algorithm.eval()(crops, mode="loss")
    assert algorithm.loss_fn.center.abs().sum() == 0
    algorithm.after_step(Clock(1, 1))
    assert algorithm.loss_fn.center.abs().sum() == 0
    algorithm.train()(crops, mode="loss")
    assert algorithm.loss_fn.center.abs().sum() == 0  # parts of a step are compared with one centre
    mean = algorithm._last["teacher"].mean(0)
    algorithm.after_step(Clock(1, 1))
    torch.testing.assert_close(algorithm.loss_fn.center, 0.1 * mean)


def test_dino_teacher_sees_the_large_views_only():
    algorithm, seen = small(), []
    algorithm.teacher.backbone.register_forward_pre_hook(lambda _, x: seen.append(x[0].shape))
    algorithm(views((32, 32, 16, 16, 16)), mode="loss")
    assert seen == [(2 * B, 3, 32, 32)]


def test_dino_teacher_is_the_students_average():
    torch.manual_seed(0)
    algorithm, clock = small(base_momentum=0.9), Clock(steps_per_epoch=5, epochs=2)
    optimizer = torch.optim.SGD([p for p in algorithm.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        backward(algorithm)
        algorithm.before_step(clock)
        optimizer.step(), optimizer.zero_grad()
        clock.step += 1
        before = {k: v.clone() for k, v in algorithm.teacher.named_parameters()}
        buffers = {k: v.clone() for k, v in algorithm.teacher.named_buffers()}
        algorithm.after_step(clock)
        m = cosine(0.9, 1.0, clock.progress)
        for name, weight in algorithm.student.named_parameters():
            expected = m * before[name] + (1 - m) * weight
            torch.testing.assert_close(algorithm.teacher.get_parameter(name), expected)
        for name, buffer in algorithm.teacher.named_buffers():
            assert torch.equal(buffer, buffers[name]), name  # its own statistics
    assert not torch.equal(algorithm.teacher.backbone.bn1.running_mean, torch.zeros(16))


def test_dino_momentum_one_keeps_the_teacher():
    algorithm, clock = small(base_momentum=1.0), Clock(1, 1, step=1)
    before = {k: v.clone() for k, v in algorithm.teacher.named_parameters()}
    with torch.no_grad():
        for parameter in algorithm.backbone.parameters():
            parameter += 1
    algorithm.after_step(clock)
    assert all(torch.equal(v, before[k]) for k, v in algorithm.teacher.named_parameters())


def test_dino_features_are_the_teachers():
    algorithm, images = small().eval(), torch.randn(2, 3, 40, 24)
    features = algorithm(images)
    with torch.no_grad():
        for parameter in algorithm.backbone.parameters():
            parameter.mul_(2)
    torch.testing.assert_close(algorithm.extract_feat(images), features)
    torch.testing.assert_close(algorithm([images, images]), features)
    assert algorithm(images, mode="predict").shape == (2, K)
    torch.testing.assert_close(algorithm.predict(images), algorithm.teacher(images))


def test_dino_student_is_the_trained_network_itself():
    algorithm = small()
    assert isinstance(algorithm.student, DinoModel) and isinstance(algorithm.teacher, DinoModel)
    assert algorithm.student.backbone is algorithm.backbone
    assert algorithm.student.projection_head is algorithm.neck
    assert not any(key.startswith("student") for key in algorithm.state_dict())


def test_dino_teacher_drops_nothing():
    backbone = nn.Sequential(DropPath(0.5), nn.Dropout(0.5), nn.Dropout2d(0.2), resnet_tiny())
    backbone.output_dim = 128
    algorithm, images = DINO(backbone, head()).train(), torch.randn(B, 3, 32, 32)
    assert [module.rate for module in algorithm.teacher.backbone[:1]] == [0.0]
    assert algorithm.backbone[0].rate == 0.5 and algorithm.backbone[1].p == 0.5
    torch.testing.assert_close(algorithm.teacher(images), algorithm.teacher(images))
    assert not torch.equal(algorithm.student(images), algorithm.student(images))


@pytest.mark.parametrize("freeze_last_layer", [0, 1, 2])
def test_dino_last_layer_stays_at_first(freeze_last_layer):
    torch.manual_seed(0)
    algorithm, clock = small(freeze_last_layer=freeze_last_layer), Clock(2, 3)
    optimizer = torch.optim.AdamW([p for p in algorithm.parameters() if p.requires_grad], lr=1e-2)
    weight, moved = algorithm.neck.last_layer.weight.detach().clone(), []
    for _ in range(6):
        backward(algorithm)
        algorithm.before_step(clock)
        optimizer.step(), optimizer.zero_grad()
        clock.step += 1
        algorithm.after_step(clock)
        moved.append(not torch.equal(algorithm.neck.last_layer.weight, weight))
    assert moved == [epoch >= freeze_last_layer for epoch in (0, 0, 1, 1, 2, 2)]


def test_dino_clips_before_the_step():
    algorithm = small(clip_grad=1e-3)
    backward(algorithm)
    algorithm.before_step(Clock(1, 1))
    lengths = [p.grad.norm().item() for p in algorithm.parameters() if p.grad is not None]
    assert max(lengths) < 1.001e-3
    algorithm = small(clip_grad=None)
    backward(algorithm)
    algorithm.before_step(Clock(1, 1))
    assert max(p.grad.norm() for p in algorithm.parameters() if p.grad is not None) > 1e-3


def test_dino_temperature_warms_up_and_is_in_the_checkpoint(tmp_path):
    def make():
        return small(
            loss_fn=DINOLoss(K, teacher_temperature=0.07, warmup_temperature=0.04, warmup_epochs=4)
        )

    first, second, clock = make(), make(), Clock(steps_per_epoch=2, epochs=5)
    backward(first)
    found = []
    for _ in range(8):
        found.append(first.loss_fn.temperature.item())
        clock.step += 1
        first.after_step(clock)
    assert found == pytest.approx([0.04, 0.04, 0.05, 0.05, 0.06, 0.06, 0.07, 0.07])
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert second.loss_fn.temperature == first.loss_fn.temperature
    assert second.loss_fn.center.abs().sum() > 0
    crops = views()
    losses = [algorithm.eval()(crops, mode="loss")["loss"] for algorithm in (first, second)]
    assert torch.equal(*losses)


def test_dino_one_image_and_any_number_of_views():
    algorithm = small()
    assert algorithm(views((32, 32), batch=1), mode="loss")["loss"].isfinite()
    assert algorithm(views((32, 32, 16, 20, 24)), mode="loss")["loss"].isfinite()
    with pytest.raises(ValueError, match="two views or more of each image, got 1"):
        algorithm(views((32,)), mode="loss")


# ---------------------------------------------------------------- configurations

SETTINGS = {
    "backbone": "resnet_tiny",
    "projection_hidden_dim": 24,
    "projection_bottleneck_dim": 8,
    "projection_output_dim": K,
    "use_weight_norm": True,
}


def test_dino_from_the_seeds_settings(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("model:\n" + "".join(f"  {k}: {v}\n" for k, v in SETTINGS.items()))
    dotted = "nenya_nb.models.algorithms.dino.DINO"
    for algorithm in (
        DINO.from_config(file),
        DINO.from_config(SETTINGS),
        DINO.from_config(SimpleNamespace(model_config=SimpleNamespace(**SETTINGS))),
        DINO(SETTINGS),
        DINO(DinoModel.from_config(SETTINGS)),
        build({"type": dotted, "backbone": SETTINGS}),
    ):
        assert algorithm.loss_fn.output_dim == algorithm.neck.output_dim == K
        assert algorithm.neck.mlp[0].out_features == 24
        for name, weight in algorithm.student.named_parameters():
            assert torch.equal(weight, algorithm.teacher.get_parameter(name))
    assert DINO.from_config(file, base_momentum=0.9).base_momentum == 0.9
    with pytest.raises(TypeError, match="projection_width"):
        DINO.from_config(SETTINGS | {"projection_width": 3})


def test_dino_from_parts_in_a_configuration():
    algorithm = build(
        {
            "type": "nenya_nb.models.algorithms.dino.DINO",
            "backbone": {"type": "resnet_tiny"},
            "neck": {"type": "DinoProjectionHead", "input_dim": 128, "output_dim": K},
            "loss_fn": {
                "type": "nenya_nb.models.algorithms.dino.DINOLoss",
                "output_dim": K,
                "teacher_temperature": 0.03,
            },
            "num_local": 2,
            "base_momentum": 0.98,
        }
    )
    assert algorithm.loss_fn.temperature.item() == pytest.approx(0.03)
    assert algorithm.views == {"type": "multi_crop", "num_local": 2, "asymmetric": True}
    assert DINO.views["num_local"] == 8


def test_dino_without_parts_is_the_papers():
    algorithm = DINO(resnet_tiny())
    last = algorithm.neck.last_layer
    assert algorithm.neck.output_dim == 65536 and algorithm.views["num_local"] == 8
    assert not last.parametrizations.weight.original0.requires_grad
    assert (algorithm.base_momentum, algorithm.clip_grad, algorithm.freeze_last_layer) == (
        0.996,
        3.0,
        1,
    )
    assert F.normalize(last.weight, dim=1).sub(last.weight).abs().max() < 1e-5


def test_dino_refuses_parts_that_do_not_fit():
    with pytest.raises(ValueError, match="Sequential has no last_layer to hold still"):
        DINO(resnet_tiny(), mlp(128, K))
    with pytest.raises(ValueError, match=r"give loss_fn=DINOLoss\(K\)"):
        DINO(resnet_tiny(), mlp(128, K), freeze_last_layer=0)
    with pytest.raises(ValueError, match="does not say how wide its features are"):
        DINO(nn.Flatten())
    with pytest.raises(ValueError, match="backbone gives 128 features but neck expects 64"):
        DINO(resnet_tiny(), DinoProjectionHead(64, output_dim=K))
    with pytest.raises(ValueError, match="DINO: base_momentum is between 0 and 1, got 1.5"):
        small(base_momentum=1.5)
    with pytest.raises(ValueError, match="DINO: clip_grad must be above 0 or None, got 0.0"):
        small(clip_grad=0.0)
    assert DINO(resnet_tiny(), mlp(128, K), DINOLoss(K), freeze_last_layer=0).freeze_last_layer == 0


def test_dino_learns_one_batch():
    torch.manual_seed(0)
    algorithm, clock = small(base_momentum=0.9), Clock(15, 1)
    optimizer = torch.optim.AdamW([p for p in algorithm.parameters() if p.requires_grad], lr=2e-3)
    first = torch.randn(8, 3, 32, 32)
    crops, losses = [first, first + 0.3 * torch.randn(8, 3, 32, 32)], []
    for _ in range(15):
        loss = algorithm(crops, mode="loss")["loss"]
        loss.backward()
        algorithm.before_step(clock)
        optimizer.step(), optimizer.zero_grad()
        clock.step += 1
        algorithm.after_step(clock)
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0], losses


def test_dinos_teacher_drops_nothing_in_attention_of_torch():
    class Attending(nn.Module):
        output_dim = 128

        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(128, 2, dropout=0.5, batch_first=True)

        def forward(self, x):
            x = x.flatten(1)[:, None, :128]
            return self.attention(x, x, x)[0][:, 0]

    algorithm = DINO(Attending(), head(norm_last_layer=True))
    assert algorithm.teacher.backbone.attention.dropout == 0
    assert algorithm.backbone.attention.dropout == 0.5
