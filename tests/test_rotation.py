"RotationPred: the question against torch.rot90, the loss against cross-entropy, and what must not change."

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nenya_nb.core import Clock
from nenya_nb.data import load_dataset
from nenya_nb.models import ClsHead, NonLinearNeck, build, get_resnet, resnet18, resnet_tiny
from nenya_nb.models.algorithms.rotation import RotationPred

torch.set_num_threads(1)
B = 5


def turns(images):
    return [images.rot90(k, (-2, -1)) for k in range(4)]


def batch(size=32):
    torch.manual_seed(0)
    return turns(torch.randn(B, 3, size, size))


def test_rotation_recipe_gives_four_quarter_turns():
    loader = load_dataset("shapes").loader(batch_size=4, recipe=RotationPred.views)
    views, _ = next(iter(loader))
    assert len(views) == 4
    for k in range(4):
        assert torch.equal(views[k], views[0].rot90(k, (2, 3)))
    assert torch.equal(views[3].rot90(1, (2, 3)), views[0])


def test_rotation_loss_is_cross_entropy_over_all_four():
    algorithm, views = RotationPred(resnet_tiny()).double().eval(), [v.double() for v in batch()]
    nn.init.normal_(algorithm.head.fc.weight)
    parts = [
        F.cross_entropy(
            algorithm.head.fc(algorithm.backbone(view)), torch.full((B,), k, dtype=torch.long)
        )
        for k, view in enumerate(views)
    ]
    losses = algorithm(views, mode="loss")
    torch.testing.assert_close(losses["loss"], sum(parts) / 4)
    right = [(algorithm(v, mode="predict") == k).double().mean() for k, v in enumerate(views)]
    torch.testing.assert_close(losses["accuracy"].double(), sum(right) / 4)


def test_rotation_starts_at_ln_4():
    algorithm = RotationPred(resnet_tiny())
    assert abs(algorithm(batch(), mode="loss")["loss"].item() - math.log(4)) < 0.1
    nn.init.zeros_(algorithm.head.fc.weight)
    losses = algorithm(batch(), mode="loss")
    assert losses["loss"].item() == pytest.approx(math.log(4))
    assert losses["accuracy"].item() == pytest.approx(0.25)  # always answers 0, and asks evenly


def test_rotation_symmetric_images_stay_at_chance():
    "Images that a quarter turn does not change: equal logits for all four views."
    images = torch.randn(B, 3, 32, 32)
    images = sum(turns(images))
    algorithm = RotationPred(resnet_tiny())
    nn.init.normal_(algorithm.head.fc.weight)
    losses = algorithm(turns(images), mode="loss")
    assert losses["accuracy"].item() == pytest.approx(0.25, abs=0.051)  # rounding moves one of 20
    assert losses["loss"].item() >= math.log(4) - 1e-4


def test_rotation_encodes_all_views_together():
    algorithm = RotationPred(resnet_tiny())
    algorithm(batch(), mode="loss")
    assert algorithm.backbone.bn1.num_batches_tracked == 1


def test_rotation_tells_its_loss_spread_and_accuracy():
    losses = RotationPred(resnet_tiny())(batch(), torch.zeros(B), mode="loss")
    assert set(losses) == {"loss", "std", "accuracy"}


def test_rotation_learns_one_batch():
    algorithm, views, clock = RotationPred(resnet_tiny()), batch(), Clock(30, 1)
    optimizer = torch.optim.AdamW(algorithm.parameters(), lr=2e-3)
    for _ in range(30):
        losses = algorithm(views, mode="loss")
        losses["loss"].backward()
        algorithm.before_step(clock)
        optimizer.step(), optimizer.zero_grad()
        algorithm.after_step(clock)
    assert losses["accuracy"] == 1 and losses["loss"] < 0.3


def test_rotation_diagnostics():
    algorithm = RotationPred(resnet_tiny())
    assert algorithm.diagnostics() == {}
    algorithm(batch(), mode="loss")
    found = algorithm.diagnostics()
    assert found["logits"].shape == (4 * B, 4) and found["probabilities"].shape == (B, 4, 4)
    expected = found["logits"][2 * B + 3].softmax(0)  # image 3, turned twice
    torch.testing.assert_close(found["probabilities"][3, 2], expected)
    torch.testing.assert_close(found["confusion"].sum(1), torch.ones(4))
    assert not any(t.requires_grad for t in found.values())


def test_rotation_features_of_any_size():
    algorithm = RotationPred(resnet_tiny()).eval()
    for shape in [(1, 3, 32, 32), (2, 3, 40, 24), (1, 3, 96, 96)]:
        images = torch.randn(shape)
        assert algorithm(images).shape == (shape[0], 128)
        assert algorithm(images, mode="predict").shape == (shape[0],)
    assert algorithm([images] * 4, mode="predict").shape == (1,)


def test_rotation_takes_one_image():
    assert RotationPred(resnet_tiny())([v[:1] for v in batch()], mode="loss")["loss"].isfinite()


def test_rotation_takes_a_neck_and_two_turns():
    algorithm = RotationPred(resnet_tiny(), NonLinearNeck(128, 64, 32))
    assert algorithm.head.input_dim == 32
    assert algorithm(batch(), mode="loss")["loss"].isfinite()
    halves = RotationPred(resnet_tiny(), head=ClsHead(128, 2))
    assert halves(batch()[::2], mode="loss")["loss"].item() == pytest.approx(math.log(2), abs=0.1)


def test_rotation_accepts_maps():
    assert RotationPred(get_resnet("resnet18", out_indices=(1, 4)))(batch(), mode="loss")


def test_rotation_builds_from_a_config():
    algorithm = build({"type": "nenya_nb.models.algorithms.rotation.RotationPred",
                       "backbone": {"type": "resnet_tiny"},
                       "head": {"type": "ClsHead", "input_dim": 128, "num_classes": 4}})  # fmt: skip
    assert isinstance(algorithm, RotationPred) and algorithm.head.num_classes == 4


def test_rotation_state_dict_round_trip(tmp_path):
    first, second = RotationPred(resnet_tiny()), RotationPred(resnet_tiny())
    first(batch(), mode="loss")
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt"))
    first.eval(), second.eval()
    assert torch.equal(first(batch(), mode="loss")["loss"], second(batch(), mode="loss")["loss"])


def test_rotation_refuses():
    with pytest.raises(ValueError, match="head has 4 answers but there are 2 views"):
        RotationPred(resnet_tiny())(batch()[:2], mode="loss")
    with pytest.raises(ValueError, match="set backbone.output_dim"):
        RotationPred(nn.Flatten())
    with pytest.raises(ValueError, match="ends in a classifier of 1000 classes"):
        RotationPred(resnet18())
