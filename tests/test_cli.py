"""The command line, run as a user runs it."""

import csv
import subprocess
import sys

import pytest

TINY = ["--data", "digits", "--epochs", "1", "--batch-size", "256", "--device", "cpu"]


def nenya_nb(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "nenya_nb", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    "arguments,says",
    [
        ([], "COMMAND"),
        (["trian"], "trian"),
        (["train", "--epochs", "0"], "at least 1, got '0'"),
        (["train", "--epochs", "five"], "at least 1, got 'five'"),
        (["train", "--lr", "nan"], "above 0, got 'nan'"),
        (["train", "--lr", "-1"], "above 0, got '-1'"),
        (["train", "--frobnicate"], "--frobnicate"),
        (["train", "--algorithm", "simclrr"], "Did you mean 'simclr'?"),
        (["train", "--data", "digit"], "Did you mean 'digits'?"),
        (["train", "--backbone", "resnet7"], "resnet"),
        (["train", "--device", "gpu"], "gpu"),
        (["train", "--config", "none.yaml"], "no configuration at none.yaml"),
        (["shapes", "resnet81"], "Did you mean 'resnet18'?"),
        (["shapes", "resnet18", "--size", "0x4"], "expected 224 or 480x640"),
    ],
)
def test_bad_arguments_give_one_line_and_status_2(arguments, says, tmp_path):
    run = nenya_nb(*arguments, cwd=tmp_path)
    assert run.returncode == 2, run.stderr
    assert len(run.stderr.strip().splitlines()) == 1 and says in run.stderr, run.stderr
    assert not list(tmp_path.iterdir()), "nothing is written for a bad command"


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
    assert all(command in run.stdout for command in ("lab", "train", "models", "shapes"))


def test_models_lists_what_matches():
    run = nenya_nb("models", "resnet1*")
    assert run.returncode == 0 and "resnet18" in run.stdout.split()
    assert all(name.startswith("resnet1") for name in run.stdout.split())
    none = nenya_nb("models", "nothing*")
    assert none.returncode == 1 and "nothing*" in none.stdout


def test_shapes_shows_the_stages():
    run = nenya_nb("shapes", "resnet50", "--size", "64x96", "--channels", "1")
    rows = {line.split()[0]: line for line in run.stdout.splitlines()}
    assert run.returncode == 0, run.stderr
    assert "[1, 64, 32, 48]" in rows["conv1"] and "[1, 2048, 2, 3]" in rows["layer4"]


def test_train_from_a_configuration(tmp_path):
    config = """
type: SimCLR
backbone: {type: resnet_tiny}
head: {type: ContrastiveHead, temperature: 0.2}
"""
    (tmp_path / "mine.yaml").write_text(config)
    run = nenya_nb("train", *TINY, "--config", "mine.yaml", "--out", "out", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "out" / "history.csv").exists()
