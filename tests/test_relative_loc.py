"RelativeLoc: places and answers, the loss against a slow reference, and what must not change."

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nenya_nb.core import Clock
from nenya_nb.data import load_dataset
from nenya_nb.models import ClsHead, build, get_resnet, resnet18, resnet_tiny
from nenya_nb.models.algorithms.relative_loc import RelativeLoc, RelativeLocNeck
from nenya_nb.models.necks import mlp

torch.set_num_threads(1)
B, OFFSETS = 3, [(d, r) for d in (-1, 0, 1) for r in (-1, 0, 1) if (d, r) != (0, 0)]


def batch(size=12, images=B):
    torch.manual_seed(0)
    return [torch.randn(images, 3, size, size) for _ in range(9)]


def small(**options):
    return RelativeLoc(resnet_tiny(stem_stride=1), RelativeLocNeck(128, 64, **options))


class Coordinates:
    "A data set whose pixels say where they are: channel 0 the row, channel 1 the column."

    def __init__(self, size=48):
        axis = torch.arange(size, dtype=torch.uint8)
        rows, columns = axis[:, None].expand(size, size), axis.expand(size, size)
        self.images = torch.stack([rows, columns, rows])[None].repeat(8, 1, 1, 1)
        self.targets = torch.arange(8)


def test_relative_loc_labels_are_the_places_of_the_views():
    from nenya_nb.data import PatchPairs, ViewLoader

    (views, _) = next(iter(ViewLoader(Coordinates(), PatchPairs(16, 12, 0), 8)))
    middle = [(255 * view[:, :2].mean(dim=(2, 3))) for view in views]  # rows and columns, px
    for label, (down, right) in enumerate(OFFSETS):
        expected = torch.tensor([16.0 * down, 16.0 * right]).expand(8, 2)
        torch.testing.assert_close(middle[1 + label] - middle[0], expected, atol=1e-3, rtol=0)


def test_relative_loc_opposite_places():
    assert all(OFFSETS[7 - l] == (-down, -right) for l, (down, right) in enumerate(OFFSETS))


def test_relative_loc_recipe_gives_nine_patches():
    views, _ = next(iter(load_dataset("shapes").loader(batch_size=4, recipe=RelativeLoc.views)))
    assert len(views) == 9 and {tuple(view.shape) for view in views} == {(4, 3, 12, 12)}
    assert small()(views, mode="loss")["loss"].isfinite()


def test_relative_loc_loss_matches_pairs_one_by_one():
    algorithm, views = small().double().eval(), [v.double() for v in batch()]
    nn.init.normal_(algorithm.head.fc.weight)
    losses, right = [], []
    for label in range(8):
        for i in range(B):
            centre, neighbour = views[0][i : i + 1], views[1 + label][i : i + 1]
            pair = torch.cat([algorithm.backbone(centre), algorithm.backbone(neighbour)], 1)
            logits = algorithm.head.fc(algorithm.neck(pair))
            losses.append(F.cross_entropy(logits, torch.tensor([label])))
            right.append(logits.argmax().item() == label)
    found = algorithm(views, mode="loss")
    torch.testing.assert_close(found["loss"], sum(losses) / len(losses))
    assert found["accuracy"].item() == pytest.approx(sum(right) / len(right))


def test_relative_loc_predicts_each_neighbour():
    algorithm, views = small().eval(), batch()
    nn.init.normal_(algorithm.head.fc.weight)
    answers = algorithm(views, mode="predict")
    assert answers.shape == (B, 8)
    for n in range(8):
        alone = algorithm([views[0], views[1 + n]], mode="predict")
        assert torch.equal(alone[:, 0], answers[:, n])
    loss = algorithm(views, mode="loss")
    expected = (answers == torch.arange(8)).float().mean()
    torch.testing.assert_close(loss["accuracy"], expected)


def test_relative_loc_starts_at_ln_8():
    algorithm = small()
    assert abs(algorithm(batch(), mode="loss")["loss"].item() - math.log(8)) < 0.2
    nn.init.zeros_(algorithm.head.fc.weight)
    losses = algorithm(batch(), mode="loss")
    assert losses["loss"].item() == pytest.approx(math.log(8))
    assert losses["accuracy"].item() == pytest.approx(1 / 8)


def test_relative_loc_encodes_every_patch_once():
    algorithm, seen = small(), []
    algorithm.backbone.register_forward_hook(lambda m, inputs, out: seen.append(len(inputs[0])))
    algorithm(batch(), mode="loss")
    assert seen == [9 * B] and algorithm.backbone.bn1.num_batches_tracked == 1


def test_relative_loc_default_parts():
    algorithm = RelativeLoc(get_resnet("resnet18", stem_type="small"))
    assert algorithm.neck.fc.weight.shape == (4096, 2 * 512)
    assert algorithm.neck.bn.momentum == 0.003 and algorithm.neck.drop.p == 0.5
    assert algorithm.head.fc.weight.shape == (8, 4096)
    assert algorithm.head.fc.weight.std().item() == pytest.approx(0.005, rel=0.05)
    assert RelativeLoc.views == "patch_pairs"


def test_relative_loc_neck_order_and_pooling():
    neck = RelativeLocNeck(2, 6, dropout=0.0).eval()
    maps = torch.randn(5, 4, 3, 3)
    torch.testing.assert_close(neck(maps), neck(maps.mean(dim=(2, 3))))
    nn.init.zeros_(neck.fc.weight[:, 2:])
    assert torch.equal(neck(torch.ones(1, 4)), neck(torch.tensor([[1.0, 1, 9, 9]])))


def test_relative_loc_tells_its_loss_spread_and_accuracy():
    losses = small()(batch(), torch.zeros(B), mode="loss")
    assert set(losses) == {"loss", "std", "accuracy"}


def test_relative_loc_learns_one_batch():
    torch.manual_seed(0)
    algorithm, views, clock = small(dropout=0.0), batch(), Clock(40, 1)
    optimizer = torch.optim.AdamW(algorithm.parameters(), lr=2e-3)
    for _ in range(40):
        losses = algorithm(views, mode="loss")
        losses["loss"].backward()
        algorithm.before_step(clock)
        optimizer.step(), optimizer.zero_grad()
        algorithm.after_step(clock)
    assert losses["accuracy"] > 0.9 and losses["loss"] < 1


def test_relative_loc_diagnostics():
    algorithm = small()
    assert algorithm.diagnostics() == {}
    algorithm(batch(), mode="loss")
    found = algorithm.diagnostics()
    assert found["logits"].shape == (8 * B, 8) and found["probabilities"].shape == (B, 8, 8)
    expected = found["logits"][5 * B + 1].softmax(0)  # image 1, neighbour 5
    torch.testing.assert_close(found["probabilities"][1, 5], expected)
    torch.testing.assert_close(found["confusion"].sum(1), torch.ones(8))
    assert not any(t.requires_grad for t in found.values())


def test_relative_loc_features_of_any_size():
    algorithm = small().eval()
    for shape in [(1, 3, 12, 12), (2, 3, 32, 32), (1, 3, 40, 24)]:
        assert algorithm(torch.randn(shape)).shape == (shape[0], 128)
    assert algorithm(batch()).shape == (B, 128)


def test_relative_loc_takes_one_image_and_maps():
    assert small()(batch(images=1), mode="loss")["loss"].isfinite()
    backbone = get_resnet("resnet18", stem_type="small", out_indices=(1, 4))
    maps = RelativeLoc(backbone, RelativeLocNeck(512, 64))
    assert maps(batch(16), mode="loss")["loss"].isfinite()


def test_relative_loc_builds_from_a_config():
    place = "nenya_nb.models.algorithms.relative_loc."
    algorithm = build({"type": place + "RelativeLoc", "backbone": {"type": "resnet_tiny"},
                       "neck": {"type": place + "RelativeLocNeck", "input_dim": 128, "output_dim": 32},
                       "head": {"type": "ClsHead", "input_dim": 32, "num_classes": 8}})  # fmt: skip
    assert isinstance(algorithm, RelativeLoc) and algorithm.neck.output_dim == 32


def test_relative_loc_state_dict_round_trip(tmp_path):
    first, second = small(), small()
    first(batch(), mode="loss")
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt"))
    first.eval(), second.eval()
    assert torch.equal(first(batch(), mode="loss")["loss"], second(batch(), mode="loss")["loss"])


@pytest.mark.parametrize("head", [None, ClsHead(64, 8)])
def test_relative_loc_takes_any_neck_that_reads_pairs(head):
    algorithm = RelativeLoc(resnet_tiny(), mlp(256, 128, 64), head)
    assert algorithm(batch(), mode="loss")["loss"].isfinite()
    assert algorithm.head.input_dim == 64


def test_relative_loc_refuses():
    with pytest.raises(
        ValueError, match="expected 9 views, the centre and its 8 neighbours, got 2"
    ):
        small()(batch()[:2], mode="loss")
    with pytest.raises(ValueError, match="questions about pairs"):
        small()(batch()[0], mode="predict")
    with pytest.raises(ValueError, match="backbone gives 128 features but neck expects 64"):
        RelativeLoc(resnet_tiny(), RelativeLocNeck(64))
    with pytest.raises(ValueError, match="set backbone.output_dim"):
        RelativeLoc(nn.Flatten())
    with pytest.raises(ValueError, match=r"neck expects 128; use Linear\(256, …\)"):
        RelativeLoc(resnet_tiny(), mlp(128, 64))  # two patches give twice as many features
    with pytest.raises(TypeError, match="the neck must be a network"):
        RelativeLoc(resnet_tiny(), "mlp")
    with pytest.raises(ValueError, match="ends in a classifier"):
        RelativeLoc(resnet18())
    with pytest.raises(ValueError, match="widths must be at least 1"):
        RelativeLocNeck(0)


def test_relative_loc_takes_another_head():
    algorithm = RelativeLoc(resnet_tiny(), RelativeLocNeck(128, 32), ClsHead(32, 4))
    assert algorithm([batch()[i] for i in (0, 2, 4, 5, 7)], mode="loss")["loss"].isfinite()
