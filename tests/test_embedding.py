"""The embedding explorer without a browser: what is sent, what follows a training, what is refused."""

import json

import numpy as np
import pytest
import torch
import traitlets
from counting_store import Disk
from torch import nn

from nenya_nb.evaluation import extract_latents
from nenya_nb.evaluation.projections import PCA, neighbour_agreement
from nenya_nb.training import fit
from nenya_nb.widgets import base
from nenya_nb.widgets.base import every_second, script_json
from nenya_nb.widgets.embedding import EmbeddingExplorer
from nenya_nb.widgets.points import SomeRows, make_picture, thumbnails

KINDS = {"float32": "<f4", "int32": "<i4", "uint8": "u1"}
EVIL = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(autouse=True)
def bundles(monkeypatch):
    monkeypatch.setattr(base, "read_bundle", lambda name: f"/* {name} */")


class Pictures:
    "A data set of nobody's: only what the explorer asks for."

    def __init__(self, n=60, size=8):
        g = torch.Generator().manual_seed(0)
        self.targets, self.classes = torch.arange(n) % 3, ["a", "b", "c"]
        self.images = torch.randint(0, 60, (n, 3, size, size), generator=g, dtype=torch.uint8)
        for i, c in enumerate(self.targets.tolist()):
            self.images[i, c] += 150

    def __len__(self):
        return len(self.images)

    def batch(self, index=None, device=None):
        images = self.images if index is None else self.images[index]
        return images.to(device or "cpu").float() / 255

    def loader(self, batch_size=20, device=None, **_):
        rows = torch.arange(len(self)).split(batch_size)
        return [([self.batch(r), self.batch(r)], self.targets[r]) for r in rows]


class Tiny(nn.Module):
    "An algorithm with everything that looking could disturb: batch statistics, dropout, random numbers."

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5))

    def extract_feat(self, images):
        return self.net(images).mean((2, 3))

    def forward(self, views, targets=None, mode="tensor"):
        a, b = map(self.extract_feat, views)
        return {"loss": (a - b).pow(2).mean() + (torch.rand(1) * a).mean()}


def unpack(packed):
    return np.frombuffer(packed["data"], KINDS[packed["dtype"]]).reshape(packed["shape"])


@pytest.fixture
def data():
    return Pictures()


@pytest.fixture
def features(data):
    return data.batch().flatten(1)


# --- small images -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape,wanted",
    [
        ((2000, 3, 64, 64), (32, 32, 3)),
        ((10, 3, 20, 10), (20, 10, 3)),
        ((10, 1, 100, 50), (32, 16, 1)),
        ((10, 5, 40, 40), (32, 32, 1)),  # of other than 3 channels the first
        ((40_000, 3, 4, 4), (4, 4, 3)),
        ((60_000, 1, 28, 28), (13, 13, 1)),
    ],
)
def test_thumbnails_fit_into_the_budget(shape, wanted):
    small = thumbnails(torch.zeros(shape, dtype=torch.uint8))
    assert small.shape == (shape[0], *wanted) and small.dtype == torch.uint8
    assert small.numel() <= 10 * 2**20


def test_thumbnails_of_too_many_images_are_left_out():
    assert thumbnails(torch.zeros(50_000, 3, 16, 16, dtype=torch.uint8)) is not None
    assert thumbnails(torch.zeros(60_000, 3, 16, 16, dtype=torch.uint8)) is None
    with pytest.raises(ValueError, match=r"expected \(N, C, H, W\)"):
        thumbnails(torch.zeros(3, 8, 8))


def test_thumbnails_are_means_and_floats_are_shares():
    board = (torch.arange(64)[:, None] + torch.arange(64)) % 2
    small = thumbnails((board * 255).byte().expand(2, 1, 64, 64))
    assert set(small.flatten().tolist()) <= {127, 128}
    assert thumbnails(torch.ones(1, 3, 4, 4) * 0.5).flatten().tolist() == [128] * 48


def test_of_images_on_disk_only_the_rows_wanted_are_read(data):
    store = Disk(data.images)
    disk = Pictures()
    disk.images = store
    explorer = EmbeddingExplorer(disk, limit=4)
    assert set(store.asked) == {0, 20, 39, 59}
    assert explorer.sprite == EmbeddingExplorer(data, limit=4).sprite
    given = EmbeddingExplorer(torch.rand(60, 3), images=store)
    for same in (data.images, data.images.numpy()):
        assert given.sprite == EmbeddingExplorer(torch.rand(60, 3), images=same).sprite


def test_thumbnails_of_fields_are_stretched():
    field = torch.randn(500, 2, 4, 4) * 50 + 300
    small = thumbnails(field)
    assert small.shape == (500, 4, 4, 1) and small.float().std() > 40
    assert thumbnails(field.numpy(), rows=torch.tensor([3])).shape == (1, 4, 4, 1)


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_first_picture_is_pca_of_the_sphere_and_facts_are_true(data, features):
    explorer = EmbeddingExplorer(features, images=data)
    wanted = PCA(2, unit=True).fit(features)
    assert np.allclose(unpack(explorer.points)[0], wanted.project(features), atol=1e-5)
    [facts] = explorer.frames
    assert facts["explained"] == pytest.approx(wanted.explained.sum().item())
    agreement = neighbour_agreement(features, data.targets)
    assert facts["agreement"] == pytest.approx(agreement.mean().item())
    assert torch.equal(explorer.agreement, agreement)
    # what the page computes from what it is sent
    nearest, labels = unpack(explorer.nearest)[0], unpack(explorer.labels)
    assert np.allclose((labels[nearest] == labels[:, None]).mean(1), agreement)
    assert unpack(explorer.sprite).shape == (60, 8, 8, 3)


def test_pictures_do_not_jump_when_only_the_axes_do(features):
    explorer = EmbeddingExplorer(features, unit=False)
    for seed in range(4):
        torch.manual_seed(seed)
        Q = torch.linalg.qr(torch.randn(192, 192)).Q
        explorer.add(features @ Q, f"turn {seed}")
    points = unpack(explorer.points)
    assert points.shape == (5, 60, 2) and np.allclose(points, points[:1], atol=1e-3)
    assert np.allclose(explorer.projection.project(features @ Q), points[-1], atol=1e-3)


def test_pictures_of_features_of_any_width(data):
    explorer = EmbeddingExplorer(torch.rand(60, 10), images=data)
    explorer.add(torch.rand(60, 3).double())
    explorer.add(np.random.default_rng(0).random((60, 40)))
    assert len(explorer.frames) == 3
    with pytest.raises(ValueError, match="60 points, but 59"):
        explorer.add(torch.rand(59, 10))


def test_old_pictures_are_thinned(monkeypatch, features):
    monkeypatch.setattr(EmbeddingExplorer, "most_frames", 8)
    explorer = EmbeddingExplorer(features)
    for i in range(1, 9):
        explorer.frame = 4 if i == 8 else -1
        explorer.add(features + i, str(i))
    assert [f["title"] for f in explorer.frames] == ["", "2", "4", "6", "8"]
    assert unpack(explorer.points).shape[0] == unpack(explorer.nearest).shape[0] == 5
    assert explorer.frame == 2  # still "4"
    assert every_second(6) == [0, 2, 4, 5]


def test_many_points_go_without_neighbours():
    explorer = EmbeddingExplorer(torch.rand(20_001, 2), labels=torch.zeros(20_001))
    assert explorer.neighbours == 0 and explorer.agreement is None
    assert "agreement" not in explorer.frames[0]
    assert EmbeddingExplorer(torch.rand(5, 3)).neighbours == 4
    assert EmbeddingExplorer(torch.rand(50, 3), neighbours=2).nearest["shape"] == [1, 50, 2]


def test_umap_follows_too(data, features):
    explorer = EmbeddingExplorer(features, images=data, method="umap")
    explorer.add(features)
    first, second = unpack(explorer.points)
    assert "explained" not in explorer.frames[0]
    assert np.linalg.norm(first - second) < 0.8 * np.linalg.norm(first)
    assert "UMAP, spread" in repr(explorer)


def test_make_picture_refuses_other_methods(features):
    with pytest.raises(ValueError, match="Unknown projection 'tsne'"):
        make_picture(features, method="tsne")


def test_neighbours_of_the_selected_are_the_nearest(data, features):
    explorer = EmbeddingExplorer(features, images=data, neighbours=3)
    explorer.selected = [7, 0]
    near = explorer.neighbours_of()
    unit = nn.functional.normalize(features, dim=1)
    closeness = (unit @ unit.T).fill_diagonal_(-2)
    assert torch.equal(near, closeness[[7, 0]].topk(3).indices)
    assert torch.equal(explorer.neighbours_of([0]), near[1:])
    explorer.add(features.flip(0), "another")
    assert torch.equal(explorer.neighbours_of([59]), 59 - near[1:])  # of the picture shown
    explorer.frame = 0
    assert torch.equal(explorer.neighbours_of([0]), near[1:])
    for empty in (EmbeddingExplorer(data), EmbeddingExplorer(features, neighbours=0)):
        with pytest.raises(ValueError, match="no neighbours known"):
            empty.neighbours_of([0])


# --- what may be given ------------------------------------------------------------------------------------------------


def test_latents_bring_their_labels(data):
    latents = extract_latents(nn.Flatten(), data)
    explorer = EmbeddingExplorer(latents, images=data)
    assert torch.equal(explorer.targets, data.targets) and explorer.classes == ["a", "b", "c"]
    assert EmbeddingExplorer(latents).classes == ["0", "1", "2"]  # numbers for want of names
    assert EmbeddingExplorer(latents.features).targets is None


def test_unknown_labels_and_no_labels(features):
    labels = torch.arange(60) % 2
    labels[:10] = -1
    explorer = EmbeddingExplorer(features, labels=labels.tolist(), classes=["x", "y"])
    explorer.selected = [0, 11, 12]
    assert explorer.class_mix == {"no label": 1, "y": 1, "x": 1}
    bare = EmbeddingExplorer(features)
    bare.selected = [1]
    assert bare.class_mix == {} and bare.selected_rows == [1] and bare.figure() is not None


def test_a_data_set_without_labels_has_none(data):
    data.targets, data.classes = torch.full((60,), -1), []
    explorer = EmbeddingExplorer(data)
    explorer.look(Tiny())
    assert explorer.targets is None and explorer.labels == {} and explorer.agreement is None


def test_points_without_a_label_agree_with_nobody(features):
    labels = torch.arange(60) % 3
    labels[::2] = -1
    explorer = EmbeddingExplorer(features, labels=labels)
    wanted = neighbour_agreement(features, labels)
    assert torch.equal(explorer.agreement.isnan(), labels < 0) and wanted.isnan().any()
    assert torch.equal(explorer.agreement[1::2], wanted[1::2])
    assert explorer.frames[0]["agreement"] == pytest.approx(wanted.nanmean().item())
    explorer.colour = "agreement"
    drawn = explorer.figure().axes[0].collections[1]
    assert (
        drawn.get_array().mask.tolist() == (labels < 0).tolist() and len(drawn.get_offsets()) == 60
    )


def test_source_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="source is a Linear; expected features"):
        EmbeddingExplorer(nn.Linear(2, 2))


def test_values_are_columns_to_colour_by(features):
    explorer = EmbeddingExplorer(features, values={"loss": range(60), "age": np.ones(60)})
    assert explorer.columns["names"] == ["loss", "age"]
    assert unpack(explorer.columns["data"])[0].tolist() == list(range(60))
    columns = {"labels": np.ones(60), "images": range(60)}
    assert EmbeddingExplorer(features, values=columns).columns["names"] == ["labels", "images"]
    explorer.colour = "loss"
    assert len(explorer.figure().axes) == 2  # the picture and its scale
    with pytest.raises(traitlets.TraitError, match="Unknown colour 'lose'. Did you mean 'loss'"):
        explorer.colour = "lose"


@pytest.mark.parametrize(
    "options,message",
    [
        ({"labels": [1, 2]}, "60 points, but 2 in 'labels'"),
        ({"images": torch.zeros(3, 3, 4, 4)}, "60 points, but 3 in 'images'"),
        ({"values": {"loss": [1]}}, "60 points, but 1 in 'loss'"),
        ({"neighbours": 60}, "expected 0 to 59"),
        ({"every": 0}, "every ≥ 1"),
        ({"limit": 2}, "limit ≥ 3"),
    ],
)
def test_what_does_not_fit_is_refused(features, options, message):
    with pytest.raises(ValueError, match=message):
        EmbeddingExplorer(features, **options)


def test_traits_are_checked(data, features):
    explorer = EmbeddingExplorer(features, images=data, selected=[3, 3, 5])
    assert explorer.selected == [3, 5]
    for name, value in (("selected", [60]), ("selected", [-1]), ("isolated", [3]), ("frame", -2)):
        with pytest.raises(traitlets.TraitError):
            setattr(explorer, name, value)
    with pytest.raises(traitlets.TraitError):
        EmbeddingExplorer(features, method="tsne")


# --- following a training ---------------------------------------------------------------------------------------------


def train(data, callbacks, epochs=3):
    torch.manual_seed(9)
    model = Tiny()
    fit(model, data, epochs=epochs, callbacks=callbacks, progress=False, monitor=False, device="cpu")  # fmt: skip
    return model


def test_one_picture_each_epoch(data):
    explorer = EmbeddingExplorer(data, limit=30)
    train(data, [explorer])
    assert [f["title"] for f in explorer.frames] == ["untrained", "epoch 1", "epoch 2", "epoch 3"]
    assert unpack(explorer.points).shape == (4, 30, 2)


def test_looking_leaves_modes_and_random_numbers(data):
    class Loader:  # a torch DataLoader draws a seed each time it starts
        targets = data.targets

        def __init__(self):
            self.classes, self.images = data.classes, data.images

        def batch(self, index=None, device=None):
            torch.rand(5)
            return data.batch(index, device)

    explorer, model = EmbeddingExplorer(Loader()), Tiny().train()
    model.net[1].eval()
    before, state = torch.get_rng_state(), {k: v.clone() for k, v in model.state_dict().items()}
    explorer.look(model, "now")
    assert torch.equal(before, torch.get_rng_state())
    assert model.training and model.net[0].training and not model.net[1].training
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_every_second_epoch_and_the_last_and_a_new_run(data):
    explorer = EmbeddingExplorer(data, every=2)
    train(data, [explorer], epochs=5)
    titles = ["untrained", "epoch 2", "epoch 4", "epoch 5"]
    assert [f["title"] for f in explorer.frames] == titles
    train(data, [explorer], epochs=1)
    assert [f["title"] for f in explorer.frames] == ["untrained", "epoch 1"]


def test_a_resumed_run_goes_on(data, tmp_path):
    explorer = EmbeddingExplorer(data)
    options = dict(checkpoint_dir=tmp_path, callbacks=[explorer], progress=False, monitor=False)
    fit(Tiny(), data, epochs=1, device="cpu", **options)
    fit(Tiny(), data, epochs=2, device="cpu", resume=True, **options)
    assert [f["title"] for f in explorer.frames] == ["untrained", "epoch 1", "epoch 2"]


def test_rows_of_a_followed_data_set_are_spread_evenly(data):
    explorer = EmbeddingExplorer(data, limit=4)
    assert unpack(explorer.rows).tolist() == [0, 20, 39, 59]
    explorer.selected = [1, 3]
    assert explorer.selected_rows == [20, 59]
    assert explorer.targets.tolist() == [0, 2, 0, 2]
    assert torch.equal(SomeRows(data, torch.tensor([7])).batch(torch.tensor([0])), data.batch([7]))
    with pytest.raises(ValueError, match="no images to look at"):
        EmbeddingExplorer(torch.rand(5, 3)).look(Tiny())


# --- shown, and taken along -------------------------------------------------------------------------------------------


def test_shown_at_the_start_where_live_and_at_the_end_where_not(data, monkeypatch):
    shown = []
    monkeypatch.setattr(EmbeddingExplorer, "_display", lambda self: shown.append(len(self.frames)))
    train(data, [EmbeddingExplorer(data)], epochs=1)
    monkeypatch.setenv("NENYA_NB_STATIC", "1")
    train(data, [EmbeddingExplorer(data)], epochs=1)
    assert shown == [0, 2]


def test_repr_counts(data, features):
    assert (
        repr(EmbeddingExplorer(data)) == "EmbeddingExplorer(60 images, 3 classes, no picture yet)"
    )
    explorer = EmbeddingExplorer(features, images=data)
    assert "60 images, 3 classes, PCA shows" in repr(explorer) and "agreement 1.00" in repr(
        explorer
    )
    explorer.add(features, "again")
    assert "2 pictures, again" in repr(explorer)


def test_figure_shows_first_middle_last_or_the_one_chosen(data, features):
    explorer = EmbeddingExplorer(features, images=data)
    assert len(explorer.figure().axes) == 1
    for i in range(5):
        explorer.add(features, f"epoch {i}")
    assert [ax.get_title().split(",")[0] for ax in explorer.figure().axes][1:] == ["epoch 2", "epoch 4"]  # fmt: skip
    assert explorer._still().startswith(b"\x89PNG")
    explorer.colour, explorer.selected = "agreement", [1, 2]
    clouds = [ax.collections[1] for ax in explorer.figure().axes[:3]]
    assert [cloud.get_clim() for cloud in clouds] == [(0, 1)] * 3, "one bar for all"
    assert all(len(cloud.get_offsets()) == 2 for cloud in clouds)
    explorer.frame = 2
    assert len(explorer.figure().axes) == 2
    explorer.selected, explorer.isolated = [], [0, 2]
    assert len(explorer.figure().axes[0].collections[1].get_offsets()) == 40
    assert EmbeddingExplorer(data).figure() is None


def test_page_holds_everything_and_markup_stays_text(data, features):
    explorer = EmbeddingExplorer(features, labels=data.targets, classes=[EVIL, "b", "c"])
    explorer.add(features, EVIL)
    state = explorer.page_state()
    assert {"points", "nearest", "frames", "labels", "classes", "selected", "colour"} <= set(state)
    assert "_esm" not in state
    assert EVIL not in script_json(state) and EVIL not in explorer.to_html()
    json.loads(script_json(state))
    named = [text.get_text() for ax in explorer.figure().axes for text in ax.texts]
    assert EVIL[:16] in named
