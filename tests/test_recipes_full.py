"""Full-scale recipes: each is complete, says where its number comes from, builds in full and makes a step."""

import functools
import re
from datetime import date
from pathlib import Path

import nbformat
import pytest
import torch
import yaml

import nenya_nb.recipes
from nenya_nb.cli import main
from nenya_nb.data import load_dataset
from nenya_nb.evaluation import load_latents, partitions, weights_sha256
from nenya_nb.recipes import is_recipe, read_recipe, recipe_files, recipe_table
from nenya_nb.training import latest_checkpoint, load_checkpoint

LESSONS = Path(__file__).resolve().parent.parent / "nbs" / "recipes"
RECIPES = list(recipe_files().values())
TINY = """
data: {name: digits, size: 16}
splits: {pretrain: test}
shape: [3, 16, 16]
views: {type: two_views, strength: 0.2}
algorithm: {type: SimCLR, backbone: {type: resnet_tiny}}
fit: {epochs: 1, batch_size: 64, optimizer: {type: sgd, momentum: 0.5}, lr: 0.01, weight_decay: 1.0e-4}
evaluate: {k: 5}
"""


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path / "tiny.yaml"


def test_the_five_data_sets_have_recipes():
    names = {path.stem.split("_")[0] for path in RECIPES}
    assert names == {"cifar10", "stl10", "imagenette", "imagenet", "ocean"}
    table = recipe_table([read_recipe(path) for path in RECIPES])
    assert len(table.splitlines()) == len(RECIPES) + 2


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipe_builds_in_full_and_makes_a_step(path):
    recipe = read_recipe(path)
    batch = {"imagenet_mocov2": 8}.get(recipe.name, 2 if recipe.shape[1] > 200 else 4)
    history = recipe.trial(batch_size=batch)
    steps, loss = history.columns()["loss"]
    assert (
        len(steps) == 1 and torch.isfinite(torch.tensor(loss[-1])) and history.state == "finished"
    )


def test_a_shorter_run_warms_up_for_the_same_part():
    recipe = read_recipe(next(path for path in RECIPES if path.stem == "ocean_supcon"))
    assert (recipe.fit["warmup_epochs"], recipe.fit["epochs"]) == (10, 50)
    _, rates = recipe.trial(batch_size=4, steps=2, epochs=5).columns()["lr"]
    assert int(rates.argmax()) == 2  # of ten steps


@pytest.mark.parametrize(
    "settings, asked, warmup",
    [
        ({"warmup_epochs": 2}, 5, 1.0),  # of the 10 epochs of `fit`
        ({"warmup_epochs": None}, 5, None),
        ({"warmup_epochs": 2, "epochs": 8}, 4, 1.0),
        ({"epochs": 8}, 4, None),
    ],
)
def test_warm_up_follows_the_epochs_also_where_a_recipe_leaves_them_out(
    tiny, monkeypatch, settings, asked, warmup
):
    seen = []
    recipe = read_recipe(tiny)
    recipe.fit = settings
    kept = functools.wraps(nenya_nb.recipes.fit)(lambda *_, **said: seen.append(said))
    monkeypatch.setattr("nenya_nb.recipes.fit", kept)
    recipe.trial(epochs=asked)
    assert seen[0]["epochs"] == asked and seen[0].get("warmup_epochs") == warmup


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipe_says_where_its_number_comes_from(path):
    recipe, text = read_recipe(path), path.read_text()
    assert {"title", "source", "expected", "hardware", "time", "measured_by_us"} == set(
        recipe.about
    )
    assert len(recipe.about["source"]) > 20
    if ours := recipe.about["measured_by_us"]:
        assert set(ours) == {"value", "device", "date"} and isinstance(ours["date"], date)
        assert 0 < ours["value"] <= 100 and len(ours["device"]) > 3
    assert text.startswith("# ") and f"--config {path.stem}" in text
    assert {"epochs", "batch_size", "optimizer", "lr", "weight_decay"} <= set(recipe.fit)


def test_lessons_show_every_recipe_and_no_other():
    "In their stored outputs: as a row of a table, or as the file with its command."
    shown = set()
    for lesson in LESSONS.glob("[0-9]*.ipynb"):
        for cell in nbformat.read(lesson, as_version=4).cells:
            outputs = [o.get("data", {}).get("text/markdown", "") for o in cell.get("outputs", [])]
            shown.update(re.findall(r"^\| (\w+_\w+) \|", "\n".join(outputs), re.M))
            shown.update(re.findall(r"--config (\w+)", "\n".join(outputs)))
    assert shown == set(recipe_files())


def test_recipe_tells_whose_number_it_has():
    config = yaml.safe_load(RECIPES[0].read_text())
    theirs = read_recipe(config)
    assert "not measured by us" in repr(theirs) and recipe_table([theirs]).endswith("| no |")
    text = "{value: 84.5, device: NVIDIA H100, date: 2026-01-31}"
    config["about"]["measured_by_us"] = yaml.safe_load(text)
    ours = read_recipe(config)
    assert repr(ours).endswith(", measured by us)")
    assert recipe_table([ours]).endswith("| 84.5, NVIDIA H100, 2026-01-31 |")


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipe_asks_for_data_that_exist(path):
    recipe = read_recipe(path)
    for role in ("pretrain", "train", "test"):
        with pytest.raises(FileNotFoundError):
            options = {} if recipe.data["name"].endswith(".h5") else {"root": "/nowhere"}
            recipe.data = recipe.data | options
            recipe.load(role)


def test_recipe_runs_with_its_settings(tiny, tmp_path):
    ends = []
    more = dict(callbacks=[ends.append], device="cpu", progress=False)
    history = read_recipe(tiny).run(tmp_path / "run", **more)
    assert len(ends) == 1  # beside the recipe's own k-NN
    columns = history.columns()
    assert len(columns["loss"][0]) == 355 // 64 and len(columns["knn"][0]) == 2
    assert (tmp_path / "run" / "history.csv").exists() and max(columns["lr"][1]) <= 0.01


def test_recipe_trains_the_network_that_it_is_given(tiny, tmp_path):
    recipe = read_recipe(tiny)
    recipe.evaluate = {}
    model = recipe.build()
    before = weights_sha256(model)
    recipe.run(tmp_path / "run", algorithm=model, device="cpu", progress=False)
    assert weights_sha256(model) != before
    saved = recipe.build()
    load_checkpoint(latest_checkpoint(tmp_path / "run" / "checkpoints"), saved)
    assert weights_sha256(model) == weights_sha256(saved)


@pytest.mark.parametrize("pretrain, times", [("train", 2), ("test", 3)])
def test_recipe_loads_no_images_twice(tiny, monkeypatch, pretrain, times):
    loaded = []
    monkeypatch.setattr(
        "nenya_nb.recipes.load_dataset",
        lambda name, split, **options: loaded.append(split) or load_dataset(name, split, **options),
    )
    recipe = read_recipe(tiny)
    recipe.splits = {"pretrain": pretrain}
    recipe.run(device="cpu", progress=False, batch_size=355)
    assert len(loaded) == times and {"train", "test"} == set(loaded)


def test_recipe_optimizer_takes_options(tiny):
    seen = []
    recipe = read_recipe(tiny)
    recipe.evaluate = {}

    class Look:
        def on_end(self, run):
            seen.append(run.optimizer.param_groups[0])

    recipe.trial(callbacks=[Look()])
    assert seen[0]["momentum"] == 0.5 and seen[0]["initial_lr"] == 0.01
    assert seen[0]["weight_decay"] == 1e-4


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("shape:", "shap:", "Did you mean 'shape'"),
        ("epochs:", "epoch:", "Unknown setting of tiny.fit 'epoch'. Did you mean 'epochs'"),
        ("epochs:", "callbacks:", "Unknown setting of tiny.fit 'callbacks'"),
        ("k: 5", "evry: 5", "Unknown setting of tiny.evaluate 'evry'. Did you mean 'every'"),
        ("0.01", "1e-2", "write 1.0e-02 as a number"),
        ("name: digits, ", "", "data has no name"),
        ("algorithm: {type: SimCLR, backbone: {type: resnet_tiny}}", "", "no section 'algorithm'"),
    ],
)
def test_recipe_errors_say_what_is_wrong(tiny, old, new, says):
    tiny.write_text(TINY.replace(old, new))
    with pytest.raises(ValueError, match=says):
        read_recipe(tiny)


def test_recipe_is_told_from_an_algorithm(tiny, tmp_path):
    (tmp_path / "plain.yaml").write_text("type: SimCLR\nbackbone: {type: resnet_tiny}\n")
    assert is_recipe(tiny) and not is_recipe(tmp_path / "plain.yaml")
    assert read_recipe(yaml.safe_load(TINY)).data["size"] == 16
    with pytest.raises(FileNotFoundError):
        read_recipe(tmp_path / "nothing.yaml")


def test_command_line_trains_a_recipe_and_writes_its_latents(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", "tiny.yaml", "--device", "cpu", "--out", "run"]) == 0
    ask = "latents --weights run --config tiny.yaml --split train,test --device cpu".split()
    assert main(ask) == 0
    assert "train: Latents(1442 images, 128 features)" in capsys.readouterr().out
    assert partitions("latents.h5") == {"train": (1442, 1442), "test": (355, 355)}
    expected = load_dataset("digits", "test", size=16).targets
    assert torch.equal(load_latents("latents.h5", "test").targets, expected)
    other = "latents --weights run --device cpu".split()
    for wrong, says in [
        ([*other, "--data", "digits"], "from something else"),  # 32 px
        (["latents", "--weights", "nothing"], "no weights at nothing"),
        ([*other, "--backbone", "resnet18"], "does not fit this SimCLR"),
        ([*other, "--algorithm", "simcl"], "Did you mean 'simclr'"),
        ([*ask, "--split", "tset"], "Did you mean 'test'"),
        ([*ask, "--layer", "bakbone", "--out", "b.h5"], "Did you mean 'backbone'"),
    ]:
        assert main(wrong) == 2
        error = capsys.readouterr().err
        assert says in error and len(error.strip().splitlines()) == 1, error
    assert not (tmp_path / "b.h5").exists()
