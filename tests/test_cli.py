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
    assert run.returncode == 0 and "lab" in run.stdout and "train" in run.stdout
