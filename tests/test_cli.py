"""The command line, run as a user runs it."""

import csv
import functools
import json
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
import torch

from nenya_nb import models, training
from nenya_nb.cli import main
from nenya_nb.data import load_dataset

TINY = ["--data", "digits", "--epochs", "1", "--batch-size", "256", "--device", "cpu"]
RECIPE = """
data: {name: digits, size: 16}
shape: [3, 16, 16]
views: {type: two_views, strength: 0.2}
algorithm: {type: SimCLR, backbone: {type: resnet_tiny}}
fit: {epochs: 2, batch_size: 512, optimizer: {type: sgd, momentum: 0.5}, lr: 0.01, seed: 7}
evaluate: {k: 5}
"""


def nenya_nb(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "nenya_nb", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def ask(capsys, monkeypatch, tmp_path):
    "The command line in this process and an empty folder: exit status, what it printed, and its errors."
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def ask(*arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    yield ask
    torch.set_num_threads(threads)


@pytest.fixture
def fitted(monkeypatch):
    "What `fit` was asked for, instead of training."
    calls = []

    @functools.wraps(training.fit)  # recipes ask for its settings
    def fit(algorithm, data, **settings):
        calls.append(settings | dict(algorithm=algorithm, data=data))
        return training.History()

    monkeypatch.setattr(training, "fit", fit)
    monkeypatch.setattr("nenya_nb.recipes.fit", fit)
    return calls


def pictures(folder, counts, size=16):
    "Folders of classes with noise in them; the class '' is the folder itself."
    from torchvision.io import write_png

    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image = torch.randint(0, 256, (3, size, size), dtype=torch.uint8)
            write_png(image, str(folder / name / f"{i}.png"))


def test_a_bad_command_ends_the_process_with_status_2(tmp_path):
    run = nenya_nb("train", "--epochs", "0", cwd=tmp_path)
    assert run.returncode == 2 and "at least 1, got '0'" in run.stderr


@pytest.mark.parametrize(
    "arguments,says",
    [
        ([], "COMMAND"),
        (["trian"], "trian"),
        (["train", "--epochs", "five"], "at least 1, got 'five'"),
        (["train", "--lr", "nan"], "above 0, got 'nan'"),
        (["train", "--lr", "-1"], "above 0, got '-1'"),
        (["train", "--frobnicate"], "--frobnicate"),
        (["train", "--algorithm", "simclrr"], "Did you mean 'simclr'?"),
        (["train", "--algorithm", "basemodel"], "Unknown algorithm 'basemodel'"),
        (["train", "--algorithm", "mae"], "MAE: ResNet does not hide patches; use MAEViT"),
        (["train", "--data", "digit"], "Did you mean 'digits'?"),
        (["train", "--backbone", "resnet7"], "resnet"),
        (["train", "--device", "gpu"], "gpu"),
        (["train", "--config", "none.yaml"], "no configuration at none.yaml"),
        (
            ["train", "--config", "cifar10"],
            "Unknown recipe 'cifar10'. Did you mean 'cifar10_simclr'",
        ),
        (["train", "--config", "broken.yaml"], "broken.yaml is not YAML"),
        (["train", "--config", "unknown.yaml"], "setting of SimCLR 'hed'. Did you mean 'head'?"),
        (["train", "--config", "plain.yaml", "--algorithm", "byol"], "leave out --algorithm"),
        (["train", "--config", "fit.yaml"], "setting of fit.fit 'epoch'. Did you mean 'epochs'?"),
        (["train", "--config", "knn.yaml"], "setting of knn.evaluate 'ks'. Did you mean 'k'?"),
        (["shapes", "resnet81"], "Did you mean 'resnet18'?"),
        (["shapes", "resnet18", "--size", "0x4"], "expected 224 or 480x640"),
        (["diagram", "resnet81"], "Did you mean 'resnet18'?"),
        (["diagram", "resnet18", "-o", "page.txt"], "expected a name that ends in .html"),
        (["diagram", "resnet18", "-o", "no/page.html"], "No such file or directory"),
    ],
)
def test_bad_arguments_give_one_line_and_status_2(ask, tmp_path, arguments, says):
    texts = {
        "broken": "a: [1,\nb: 2",
        "plain": "type: SimCLR\nbackbone: {type: resnet_tiny}",
        "unknown": "type: SimCLR\nbackbone: {type: resnet_tiny}\nhed: {}",
        "fit": RECIPE.replace("epochs", "epoch"),
        "knn": RECIPE.replace("k: 5", "ks: 5"),
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    status, out, error = ask(*arguments)
    assert status == 2 and len(error.strip().splitlines()) == 1 and says in error, error
    assert len(list(tmp_path.iterdir())) == len(texts), "nothing is written for a bad command"


def test_what_fails_on_the_way_has_status_1(ask, monkeypatch):
    def fail(*_, **__):
        raise FloatingPointError("the loss is nan\nat step 3")

    monkeypatch.setattr(training, "fit", fail)
    assert ask("train", *TINY)[::2] == (1, "nenya_nb train: the loss is nan at step 3\n")


def test_what_was_interrupted_has_status_130(ask, monkeypatch):
    def fit(*_, **__):
        history = training.History()
        history.state = "stopped"  # as after Ctrl-C
        return history

    monkeypatch.setattr(training, "fit", fit)
    assert ask("train", *TINY)[0] == 130


def test_train_writes_history_picture_and_checkpoint_and_resumes(tmp_path):
    run = nenya_nb("train", *TINY, "--out", "out", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    out = tmp_path / "out"
    rows = list(csv.DictReader((out / "history.csv").open()))
    assert {"step", "loss", "lr", "knn"} <= set(rows[0])
    assert any(row["knn"] for row in rows)
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list(out.glob("checkpoints/*/model.safetensors"))
    again = nenya_nb(
        "train", *TINY[:2], "--epochs", "2", *TINY[4:], "--out", "out", "--resume", cwd=tmp_path
    )
    assert again.returncode == 0, again.stderr
    more = list(csv.DictReader((out / "history.csv").open()))
    steps = [int(float(row["step"])) for row in more if row["loss"]]
    assert steps == sorted(set(steps)) and len(steps) == 2 * len([r for r in rows if r["loss"]])


def test_help_names_every_command():
    run = nenya_nb("--help")
    assert run.returncode == 0
    commands = ("lab", "train", "latents", "models", "shapes", "diagram")
    assert all(command in run.stdout for command in commands)


@pytest.mark.parametrize("checkout", [True, False])
def test_lab_says_when_there_are_no_lessons_to_open(ask, monkeypatch, checkout):
    "A wheel has none; then JupyterLab opens on the current folder."
    commands = []
    monkeypatch.setattr("os.execv", lambda program, command: commands.append(command))
    monkeypatch.setattr("subprocess.call", commands.append)
    if not checkout:
        monkeypatch.setattr("nenya_nb.cli.FIRST_NOTEBOOK", Path("tutorials/none.ipynb"))
    out = ask("lab", "--no-browser")[1]
    assert ("not in the package" in out) is not checkout
    assert any("01_first_run" in part for part in commands[0]) is checkout


def test_lab_names_what_to_install(ask, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install jupyterlab\n" in ask("lab")[2]


def test_models_lists_what_matches(ask):
    status, out, _ = ask("models", "resnet1*")
    assert status == 0 and "resnet18" in out.split()
    assert all(name.startswith("resnet1") for name in out.split())
    status, out, _ = ask("models", "nothing*")
    assert status == 1 and "nothing*" in out


def test_shapes_shows_the_stages(ask):
    status, out, error = ask("shapes", "resnet50", "--size", "64x96", "--channels", "1")
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert status == 0, error
    assert "[1, 64, 32, 48]" in rows["conv1"] and "[1, 2048, 2, 3]" in rows["layer4"]


@pytest.mark.parametrize(
    "ending, begins",
    [("html", b"<!doctype html>"), ("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")],
)
def test_diagram_is_a_page_or_a_picture(ask, tmp_path, ending, begins):
    status, out, error = ask("diagram", "resnet18", "-o", f"mine.{ending}", "--size", "64")
    assert status == 0 and out == f"Written to mine.{ending}\n", error
    assert (tmp_path / f"mine.{ending}").read_bytes().startswith(begins)


def test_diagram_has_a_name_of_its_own(ask, tmp_path):
    status, _, error = ask("diagram", "timm:resnet10t", "--channels", "1")
    page = (tmp_path / "timm-resnet10t.html").read_text()
    assert status == 0 and "<title>timm:resnet10t</title>" in page and "[1,1,224,224]" in page


def test_train_from_a_configuration(ask, tmp_path, fitted):
    text = "type: SimCLR\nbackbone: {type: resnet_tiny}\nhead: {type: ContrastiveHead, temperature: 0.3}"
    (tmp_path / "mine.yaml").write_text(text)
    status, _, error = ask("train", *TINY, "--config", "mine.yaml")
    assert status == 0, error
    assert fitted[0]["algorithm"].head.temperature == 0.3


def test_without_options_a_command_has_its_defaults(ask, fitted):
    assert ask("train")[0] == 0
    (asked,) = fitted
    assert type(asked["algorithm"]) is models.SimCLR and asked["data"].name == "digits"
    assert asked["resume"] is False and not {"epochs", "lr", "optimizer"} & set(asked)  # `fit` says


def test_a_recipe_of_ours_is_called_by_its_name(ask):
    status, _, error = ask("train", "--config", "imagenette_simclr", "--data", "/nowhere")
    assert status == 2 and "nowhere" in error


def test_a_recipe_keeps_what_the_command_line_leaves_open(ask, tmp_path, fitted):
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    assert ask("train", "--config", "tiny.yaml")[0] == 0
    (asked,) = fitted
    assert (asked["epochs"], asked["batch_size"], asked["seed"]) == (2, 512, 7)
    assert asked["optimizer"].defaults["momentum"] == 0.5
    assert asked["optimizer"].param_groups[0]["lr"] == 0.01
    assert asked["callbacks"][0].options["k"] == 5 and asked["data"].images.shape[-1] == 16


def test_what_the_command_line_says_wins_over_the_recipe(ask, tmp_path, fitted):
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    says = "--epochs 3 --batch-size 32 --lr 5 --precision bf16 --keep-best knn --seed 0 --clip 1"
    more = "--optimizer lars --accumulate 2 --compile --log-with wandb --data shapes --device cpu"
    status, _, error = ask("train", "--config", "tiny.yaml", *says.split(), *more.split())
    assert status == 0, error
    (asked,) = fitted
    expected = dict(epochs=3, batch_size=32, lr=5, precision="bf16", keep_best="knn", seed=0)
    expected |= dict(clip=1, optimizer="lars", accumulate=2, compile=True, log_with="wandb")
    assert expected.items() <= asked.items() and asked["device"] == "cpu"
    assert asked["data"].name == "shapes" and asked["callbacks"][0].test.name == "shapes"
    assert str(asked["checkpoint_dir"]).endswith("tiny-shapes")
    status, _, error = ask("train", "--config", "tiny.yaml", "--data", "nonsense")
    assert status == 2 and "nonsense" in error


def test_a_recipe_trains_and_overrides_are_heeded(ask, tmp_path):
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    ask_for = ["--config", "tiny.yaml", "--epochs", "1", "--device", "cpu", "--out", "run"]
    assert ask("train", *ask_for)[0] == 0
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["settings"]["epochs"] == 1 and config["settings"]["seed"] == 7


def test_latents_of_a_run_put_together_by_hand_need_no_configuration(ask, tmp_path):
    backbone = models.ResNet("basic", [1, 1], channels=[8, 16], num_classes=0, stem_type="small")
    algorithm = models.SimCLR(backbone, models.NonLinearNeck(16, 16, output_dim=8))
    quiet = dict(progress=False, monitor=False, device="cpu")
    data = load_dataset("shapes").subset(range(64))
    training.fit(algorithm, data, 1, batch_size=32, checkpoint_dir=tmp_path / "run", **quiet)
    models.save_pretrained(algorithm, tmp_path / "saved")
    for folder in ("run", "saved"):
        asked = f"--weights {folder} --data shapes --split test --out {folder}.h5 --device cpu"
        status, out, error = ask("latents", *asked.split())
        assert status == 0 and "16" in out, error
    with h5py.File("run.h5") as one, h5py.File("saved.h5") as other:
        assert one["test"].shape == (1000, 16) and (one["test"][:] == other["test"][:]).all()
    status, _, error = ask("latents", *asked.split(), "--backbone", "resnet_tiny")
    assert status == 2 and "does not fit" in error


@pytest.mark.parametrize("name", ["npid", "odc", "deepcluster"])
def test_methods_that_know_their_images_train_from_the_command_line(ask, tmp_path, name):
    status, _, error = ask("train", *TINY, "--algorithm", name)
    assert status == 0, error
    rows = list(csv.DictReader((tmp_path / f"runs/{name}-digits/history.csv").open()))
    assert any(row["loss"] for row in rows) and any(row["knn"] for row in rows)


def test_without_classes_of_the_test_pictures_nobody_votes(ask, tmp_path, fitted):
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        file["train"], file["valid"] = torch.rand(30, 16, 16), torch.rand(9, 16, 16)
        file["train_targets"] = torch.arange(30) % 3
    status, out, error = ask("train", "--data", "mine.h5")
    assert status == 0 and "the pictures have no classes" in out, error
    assert fitted[0]["callbacks"] == []


def test_classes_are_those_of_the_pictures(ask, tmp_path, fitted):
    pictures(tmp_path / "mine", {c: 5 for c in "abcdefghijkl"})
    assert ask("train", "--algorithm", "supce", "--data", "mine")[0] == 0
    assert fitted[0]["algorithm"].head.out_features == 12


@pytest.mark.parametrize(
    "folders, says, k",
    [
        ({"train/a": 9, "train/b": 9}, "for want of test pictures: Unknown split 'test'", None),
        ({"": 20}, "the pictures have no classes", None),
        ({"a": 5, "b": 5}, "k-NN with k=8 in place of 20", 8),
    ],
)
def test_small_folders_train_and_say_what_is_left_out(ask, tmp_path, fitted, folders, says, k):
    pictures(tmp_path / "mine", folders)
    status, out, error = ask("train", "--data", "mine")
    assert status == 0 and says in out, error
    assert [monitor.options["k"] for monitor in fitted[0]["callbacks"]] == ([k] if k else [])
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    status, out, error = ask("train", "--config", "tiny.yaml", "--data", "mine")
    assert status == 0 and (k or says in out), error
