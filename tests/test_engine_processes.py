"""Two processes learn what one learns: started by torchrun and accelerate launch, and from a notebook."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import engine_runs
import pytest
import torch
from engine_runs import algorithm, joined_loader, shared_loader, train

from nenya_nb.data import load_dataset
from nenya_nb.data.loaders import ViewLoader
from nenya_nb.training import Processes, fit, launch, loop, processes

torch.set_num_threads(1)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node=2"]
# on CPUs too: with --cpu, Accelerate leaves several processes to mpirun and starts one
ACCELERATE = ["accelerate.commands.launch", "--multi_gpu", "--num_machines=1", "--num_processes=2"]
ACCELERATE += ["--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]


def start(launcher, name, folder):
    "Lets a launcher start a function of engine_runs.py in two processes, as a shell would."
    done = subprocess.run(
        [sys.executable, "-m", *launcher, engine_runs.__file__, name, str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    "What two processes of torchrun found, and the folder they wrote to."
    folder = tmp_path_factory.mktemp("together")
    start(TORCHRUN, "everything", folder)
    answers = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
    return answers, folder


def test_both_processes_have_the_same_weights(together):
    (first, second), _ = together
    assert first.keys() == second.keys()
    for name in first:
        if name.startswith("states"):
            assert first[name] == second[name]  # both ended in the same step
        elif name == "batchnorm":
            own = [found[name].pop("middle") for found in (first, second)]
            assert not torch.equal(*own)  # of each one's rows
            torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
        else:
            torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)


def test_two_processes_learn_what_one_learns_on_the_joined_batches(together):
    (found, _), _ = together
    expected, _ = train(joined_loader())
    close(found["ours"], dict(expected.state_dict()))
    assert not torch.equal(found["ours"]["backbone.conv.weight"], algorithm().backbone.conv.weight)


def test_batches_of_a_plain_list_are_divided(together):
    (found, _), _ = together
    expected, _ = train(shared_loader("list"))
    close(found["list"], dict(expected.state_dict()))


@pytest.mark.parametrize("data", ["ours", "torch"])
def test_a_stop_reaches_all_and_all_resume_bit_equal(together, data):
    answers, _ = together
    for found in answers:
        state, step, end = found[f"states {data}"]
        assert (state, end) == ("stopped", "finished") and 6 <= step < 120
        resumed, expected = found[f"resumed {data}"], found[f"expected {data}"]
        torch.testing.assert_close(resumed, expected, rtol=0, atol=0)


def test_only_the_main_process_writes(together):
    _, folder = together
    names = sorted(path.name for path in (folder / "whole").iterdir())
    assert names == ["checkpoints", "config.json", "curves.png", "history.csv"]
    config = json.loads((folder / "whole" / "config.json").read_text())
    assert config["processes"] == 2
    state = torch.load(next((folder / "whole").glob("checkpoints/*16/state.pt")), weights_only=True)
    streams = [own["rng"]["cpu"] for own in state["processes"]]
    assert len(streams) == 2 and not torch.equal(*streams)
    assert {"0 of 2, 8 steps", "1 of 2, 8 steps"} <= {path.name for path in folder.iterdir()}
    losses = json.loads((folder / "done.json").read_text())
    assert len(losses) >= 6  # of the first process's rows


def test_accelerate_launch_gives_the_same(together, tmp_path):
    start(ACCELERATE, "one_run", tmp_path)
    first, second = (torch.load(tmp_path / f"{rank} of 2.pt") for rank in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    torch.testing.assert_close(first, together[0][0]["ours"], rtol=0, atol=0)
    alone, _ = train(joined_loader())
    close(first, dict(alone.state_dict()))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["processes"] == 2


def test_a_notebook_gives_the_same(together, tmp_path):
    """A notebook's process starts two copies of itself; here a new process stands for it, since a fork should not
    find the threads of other tests."""
    (expected, _), _ = together
    script = (
        f"import sys; sys.path.insert(0, {str(Path(engine_runs.__file__).parent)!r})\n"
        "import torch\n"
        "from engine_runs import algorithm, shared_loader\n"
        "from nenya_nb.training import fit, launch\n"
        "options = dict(optimizer='sgd', lr=0.05, device='cpu', monitor=False, warmup_epochs=0)\n"
        "network = algorithm()\n"
        "before = algorithm(seed=1)\n"
        "fit(before, shared_loader('ours'), 1, **options)  # one process first, as in a notebook\n"
        "history = launch(fit, network, shared_loader('ours'), 2, processes=2, **options)\n"
        "assert history.state == 'finished' and len(history.columns()['loss'][1]) == 8, history\n"
        f"torch.save(dict(network.state_dict()), {str(tmp_path / 'network.pt')!r})\n"
    )
    (tmp_path / "cell.py").write_text(script)
    done = subprocess.run(
        [sys.executable, tmp_path / "cell.py"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = torch.load(tmp_path / "network.pt", weights_only=True)
    torch.testing.assert_close(found, expected["ours"], rtol=0, atol=0)


# ---- alone


def test_alone_nothing_is_imported_and_nothing_waits():
    code = (
        "import sys, torch; from nenya_nb.training import fit, Processes; Processes('cpu').wait();"
        "assert not any(name.startswith('accelerate') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    alone = Processes("cpu")
    assert (alone.rank, alone.count, alone.main) == (0, 1, True)
    assert alone.share("x") == "x" and alone.collect(1) == [1]
    with pytest.raises(ValueError, match="expected at least 1"):
        launch(fit, processes=0)


def test_one_of_several_gets_its_own_gpu_in_every_run(monkeypatch):
    for name, value in dict(world_size=2, rank=1, default_device=torch.device("cuda")).items():
        monkeypatch.setattr(processes, name, lambda value=value: value)
    monkeypatch.setattr(processes.dist, "get_backend", lambda: "gloo")  # joined, by fit or by hand
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert Processes().device == Processes("cuda").device == torch.device("cuda", 3)
    monkeypatch.delenv("LOCAL_RANK")
    assert Processes().device == torch.device("cuda", 1)
    assert Processes("cpu").device == torch.device("cpu")
    with pytest.raises(ValueError, match="each gets a device of its own"):
        Processes("cuda:0")


def test_a_batch_that_cannot_be_divided_is_named_as_fit_knows_it(monkeypatch):
    group = SimpleNamespace(count=4, device=torch.device("cpu"))
    data = load_dataset("digits").subset(torch.arange(50))
    with pytest.raises(ValueError, match="batch_size=44 .* accumulate=2 .* 4 process.* choose 40"):
        loop._make_loader(data, algorithm(), 44, 2, group, 0)


def loaders(**options):
    data = load_dataset("digits").subset(torch.arange(50))
    make = lambda: ViewLoader(data, data.recipe("two_views"), 12, seed=2, **options)  # noqa: E731
    return make(), [make().shard(rank, 3) for rank in range(3)]


def test_view_loader_shards_share_the_order_and_draw_their_own_views():
    whole, parts = loaders(targets="index")
    assert [len(part) for part in parts] == [len(whole)] * 3 == [4] * 3
    for _ in range(2):  # epochs
        for (_, rows), *own in zip(whole, *parts, strict=True):
            assert torch.cat([found for _, found in own]).tolist() == rows.tolist()
            first = [views[0][0] for views, _ in own]
            assert first[0].shape == first[1].shape and not torch.equal(first[0], first[1])


def test_view_loader_leaves_out_what_cannot_be_divided():
    whole, parts = loaders(drop_last=False, targets="index")
    assert len(whole) == 5 and [len(part) for part in parts] == [4] * 3  # the last batch has two
    with pytest.raises(ValueError, match="choose batch_size=10"):
        whole.shard(0, 5)


def test_view_loader_of_one_process_is_as_ever():
    whole, _ = loaders()
    again = loaders()[0].shard(0, 1)
    for (views, _), (others, _) in zip(whole, again, strict=True):
        assert all(map(torch.equal, views, others))
