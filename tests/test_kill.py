"""kill -9: a run that is killed, again and again, ends bit-equal to one that was left alone.

`python tests/test_kill.py 50` kills fifty times; the suite, a handful. Kills come at a random time and at a random call that
reaches the disk in turn: most of those are made while a checkpoint is written. After every third the newest checkpoint is
damaged, which must then be refused by name, and the run goes on from the one before."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import pytest
import torch
from test_checkpoint import QUIET, algorithm, cut, die_at_call, flip, loader, losses

from nenya_nb.training import fit, latest_checkpoint

torch.set_num_threads(1)
EPOCHS, WIDTH = (
    20,
    3000,
)  # a hundred steps; wide enough that a checkpoint takes as long as some steps
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and kill -9")


def train(seed, **options):
    network = algorithm(seed, width=WIDTH)
    best = dict(keep_best="loss") if "checkpoint_dir" in options else {}
    options = QUIET | best | options
    return network, fit(network, loader(), epochs=EPOCHS, **options)


def end_of(network, history):
    "What must be the same to the bit, in a form for a file."
    weights = {k: v for k, v in network.state_dict().items() if isinstance(v, torch.Tensor)}
    return {"losses": losses(history), "weights": weights}


def in_child(work):
    "Starts a copy of this process; returns its number."
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def kill_at_a_time(run, seed, dice):
    "Lets a run go on for a while; whether it was killed (or else had come to its end)."
    child = in_child(lambda: train(seed, checkpoint_dir=run, resume=True))
    time.sleep(dice.uniform(0.02, 0.5))
    os.kill(child, signal.SIGKILL)
    return how_it_ended(child)


def kill_at_a_call(run, seed, dice):
    "Lets a run kill itself at a call that changes the disk."
    moment = dice.randrange(1, 60)
    return how_it_ended(
        in_child(lambda: (die_at_call(moment), train(seed, checkpoint_dir=run, resume=True)))
    )


def how_it_ended(child):
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"a resumed run failed: {status}"
    return os.WIFSIGNALED(status)


def newest(run, damaged):
    "The newest sound checkpoint; only what was damaged on purpose may be refused, a kill leaves nothing half done."
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = latest_checkpoint(run / "checkpoints")
    for warning in caught:
        assert any(name in str(warning.message) for name in damaged), warning.message
    return found


def damage(path, dice):
    "Cuts or alters a checkpoint; it is refused by its name, and the one before is taken."
    dice.choice([cut, flip])(path / dice.choice(["model.safetensors", "state.pt"]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = latest_checkpoint(path.parent)
    assert caught and path.name in str(caught[0].message)
    assert found is None or found.name < path.name
    return found


def kill_often(folder, kills, seed=0):
    "Runs that are killed, as many times in all as asked for; what happened."
    dice = random.Random(seed)
    expected = end_of(*train(0))
    told = {"kills": 0, "runs": 0, "damaged": 0, "in the middle of writing": 0, "kept": []}
    while told["kills"] < kills:
        run, step, damaged = folder / f"run {told['runs']}", 0, set()
        told["runs"] += 1
        for attempt in itertools.count():
            kill = (kill_at_a_time, kill_at_a_call)[attempt % 2]
            seed = (
                1 + attempt if step else 0
            )  # other weights, where a checkpoint brings the right ones
            if not kill(run, seed, dice):
                break
            told["kills"] += 1
            told["in the middle of writing"] += any((run / "checkpoints").glob(".step_*.tmp"))
            found = newest(run, damaged)
            reached = int(found.name[5:]) if found else 0
            assert reached >= step, f"progress was lost: {step} → {reached}"
            if found and told["kills"] % 3 == 0:
                damaged.add(found.name)
                found = damage(found, dice)
                reached = int(found.name[5:]) if found else 0
                told["damaged"] += 1
            step = reached
            if told["kills"] >= kills:
                break
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a damaged one
            found = end_of(*train(99 if step else 0, checkpoint_dir=run, resume=True))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        told["kept"].append(len(list((run / "checkpoints").glob("step_*"))))
    return told


def test_run_killed_at_many_moments_ends_bit_equal(tmp_path):
    done = subprocess.run(
        [sys.executable, __file__, "8", tmp_path], timeout=180, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["kills"] == 8 and told["damaged"] >= 1
    assert set(told["kept"]) <= {2, 3}  # the newest two, and perhaps an older best one


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(folder)
        started = time.perf_counter()
        told = kill_often(folder, int(sys.argv[1]), seed=int(os.environ.get("SEED", 0)))
        print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)
        print(json.dumps(told))
