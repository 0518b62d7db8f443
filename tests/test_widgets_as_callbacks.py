"""Every widget that follows a training: nothing is done during a step, and the training ends as if nobody had looked."""

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nenya_nb.data import load_dataset
from nenya_nb.evaluation import KNNMonitor
from nenya_nb.models import CAE, MAE, SimCLR, SupCE
from nenya_nb.models.algorithms.mae import MAEPretrainDecoder, MAEPretrainHead
from nenya_nb.models.backbones.masked_vit import CAEViT, MAEViT
from nenya_nb.models.backbones.vit import VisionTransformer
from nenya_nb.training import fit
from nenya_nb.widgets import base
from nenya_nb.widgets.attention import AttentionViewer
from nenya_nb.widgets.embedding import EmbeddingExplorer
from nenya_nb.widgets.live_curves import LiveCurves
from nenya_nb.widgets.loss_lab import LossLab
from nenya_nb.widgets.reconstruction import ReconstructionViewer
from nenya_nb.widgets.stages import StageExplorer

DATA = load_dataset("shapes").subset(range(48))
ARCH = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)


def vit() -> nn.Module:
    return VisionTransformer(32, 8, 0, embed_dim=16, depth=2, num_heads=2, drop_path_rate=0.2)


def cnn() -> nn.Module:
    "With everything that looking could disturb: running statistics and random numbers."
    layers = [nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3)]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.output_dim = 8
    return net


def mae() -> nn.Module:
    decoder = MAEPretrainDecoder(16, 16, 1, 2, img_size=32, patch_size=4)
    return MAE(MAEViT(ARCH, 32, 4), decoder, MAEPretrainHead(4))


IMAGES = DATA.batch(range(2))
WIDGETS = {  # what is trained, and who looks at it
    "curves": (lambda: SupCE(cnn()), lambda a, **k: LiveCurves()),
    "stages": (lambda: SupCE(cnn()), lambda a, **k: StageExplorer(a.backbone, images=IMAGES, **k)),
    "losses": (lambda: SimCLR(cnn()), lambda a, **k: LossLab(count=8, **k)),
    "points": (lambda: SupCE(cnn()), lambda a, **k: EmbeddingExplorer(DATA, limit=20, **k)),
    "attention": (lambda: SupCE(vit()), lambda a, **k: AttentionViewer(a.backbone, IMAGES, **k)),
    "pictures": (mae, lambda a, **k: ReconstructionViewer(a, IMAGES, **k)),
    "words": (
        lambda: CAE(CAEViT(ARCH, 32, 4)),
        lambda a, **k: ReconstructionViewer(a, IMAGES, **k),
    ),
}


@pytest.fixture(autouse=True)
def bundles(monkeypatch):
    monkeypatch.setattr(base, "read_bundle", lambda name: f"/* {name} */")
    monkeypatch.setenv("IN_TEST", "1")


def train(name: str, looked_at: bool, epochs: int = 2, **options) -> tuple[dict[str, Tensor], list]:
    "What is left of a training: all weights, statistics and the state of the random numbers; and the widget."
    algorithm, widget = WIDGETS[name]
    torch.manual_seed(0)
    algorithm = algorithm()
    state = torch.get_rng_state()
    widget = widget(algorithm, **options)
    torch.set_rng_state(state)
    callbacks = [widget] if looked_at else []
    options = dict(batch_size=16, seed=1, device="cpu", progress=False, monitor=False)
    fit(algorithm, DATA, epochs=epochs, callbacks=callbacks, **options)
    return algorithm.state_dict() | {"random numbers": torch.get_rng_state()}, widget


@pytest.mark.parametrize("name", WIDGETS)
def test_training_ends_as_if_nobody_had_looked(name):
    (looked_at, _), (alone, _) = train(name, True), train(name, False)
    assert looked_at.keys() == alone.keys()
    for key, value in alone.items():
        assert torch.equal(value, looked_at[key]), key


@pytest.mark.parametrize("name", WIDGETS)
def test_nothing_is_done_during_a_step(name):
    algorithm, widget = WIDGETS[name]
    widget = widget(algorithm())
    assert callable(getattr(widget, "on_start", None) or getattr(widget, "on_epoch_end", None))
    assert not hasattr(widget, "on_step")


@pytest.mark.parametrize(
    "name, looks",
    [
        ("points", lambda w: [frame["title"] for frame in w.frames]),
        ("pictures", lambda w: w.times),
        ("losses", lambda w: ["untrained", *(f"epoch {t}" for t in w.times[1:])]),
    ],
)
def test_looks_at_the_start_and_after_every_second_epoch(name, looks):
    _, widget = train(name, True, epochs=4, every=2)
    assert looks(widget) == ["untrained", "epoch 2", "epoch 4"]


@pytest.mark.parametrize("name", ["pictures", "attention", "stages"])
def test_a_new_widget_of_a_resumed_run_starts_with_the_network_as_it_was_left(name, tmp_path):
    torch.manual_seed(0)
    make, look = WIDGETS[name]
    options = dict(batch_size=16, device="cpu", progress=False, checkpoint_dir=tmp_path)
    left = make()
    fit(left, DATA, epochs=2, **options)
    seen, algorithm = [], make()
    widget = look(algorithm)

    class Reader:
        def on_start(self, run):
            seen.append(widget.page_state())

    fit(algorithm, DATA, epochs=3, callbacks=[widget, Reader()], resume=True, **options)
    truth = look(left).page_state()
    for trait in {"frames", "maps", "stats"} & truth.keys():
        assert seen[0][trait] == truth[trait]
    if name == "pictures":
        assert widget.times == ["after 6 steps", "epoch 3"]
        fit(algorithm, DATA, epochs=4, callbacks=[widget], resume=True, **options)
        assert widget.times == ["after 6 steps", "epoch 3", "epoch 4"]


def test_the_last_look_is_at_the_trained_network():
    algorithm, _ = WIDGETS["attention"]
    algorithm = algorithm()
    viewer = AttentionViewer(algorithm.backbone, IMAGES, every=5)
    fit(algorithm, DATA, epochs=2, batch_size=16, device="cpu", callbacks=[viewer], progress=False)
    now = AttentionViewer(algorithm.backbone, IMAGES)
    assert viewer.maps == now.maps and viewer.stats == now.stats


class Explodes:
    "The last update of an epoch makes every weight NaN, with a loss that was still finite."

    def on_step(self, run):
        if run.clock.step == run.clock.steps_per_epoch:
            with torch.no_grad():
                for weight in run.algorithm.parameters():
                    weight.fill_(torch.nan)


@pytest.mark.parametrize("name", [*WIDGETS, "knn"])
def test_who_looks_at_a_network_that_diverged_does_not_end_the_run(name):
    algorithm, widget = WIDGETS.get(name, WIDGETS["points"])
    algorithm = algorithm()
    watcher = KNNMonitor(DATA, DATA, k=3) if name == "knn" else widget(algorithm)
    options = dict(batch_size=16, epochs=3, device="cpu", progress=False, monitor=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        history = fit(
            algorithm, DATA, callbacks=[Explodes(), watcher], check_finite=False, **options
        )
    assert history.state == "finished" and history.step == 9
    if name == "knn":
        assert np.isnan(history.columns()["knn"][1][1:]).all()
    else:
        assert str(watcher.figure() or watcher)
