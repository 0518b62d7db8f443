"""What the processes of tests/test_engine_processes.py run: launchers start this file, a notebook imports it."""

import json
import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from nenya_nb.core import rank, seed_everything, world_size
from nenya_nb.data import load_dataset
from nenya_nb.data.loaders import ViewLoader
from nenya_nb.models import NonLinearNeck, SimCLR
from nenya_nb.training import fit

torch.set_num_threads(1)
BATCH, COUNT = 16, 64  # images in a joined batch, and in the data


class Normed(nn.Module):
    "A small network with GroupNorm and no chance in it."

    output_dim = 16

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, stride=2)
        self.norm, self.linear = nn.GroupNorm(4, 16), nn.Linear(16, 16)

    def forward(self, images):
        return self.linear(self.norm(self.conv(images)).relu().mean((2, 3)))


def algorithm(seed=0):
    "SimCLR in double precision, which gathers the embeddings of all processes."
    seed_everything(seed)
    neck = NonLinearNeck(16, 16, 8, with_last_bn=False)
    neck = nn.Sequential(*[m for m in neck.modules() if isinstance(m, nn.Linear | nn.ReLU)])
    return SimCLR(Normed(), neck).double()


class Doubles(ViewLoader):
    "Batches in double precision, so that sums in another order are hardly another number."

    def __iter__(self):
        for views, targets in super().__iter__():
            yield [view.double() for view in views], targets


class Joined:
    "In one process, the batches that two processes have between them."

    def __init__(self, halves):
        self.halves = halves

    def __len__(self):
        return len(self.halves[0])

    def __iter__(self):
        for pair in zip(*self.halves, strict=True):
            views = [torch.cat(both) for both in zip(*(views for views, _ in pair), strict=True)]
            yield views, torch.cat([targets for _, targets in pair])


class Pictures(Dataset):
    "A data set of others, with views that its items draw."

    def __init__(self):
        self.images = load_dataset("digits").images[:COUNT].double() / 255

    def __len__(self):
        return COUNT

    def __getitem__(self, i):
        return [self.images[i] + 0.1 * torch.randn(1) for _ in range(2)], i


def shared_loader(data):
    views = load_dataset("digits").recipe("two_views")
    if data == "ours":
        return Doubles(load_dataset("digits").subset(torch.arange(COUNT)), views, BATCH, seed=4)
    if data == "torch":
        return DataLoader(Pictures(), BATCH, shuffle=True)
    pictures, order = Pictures(), torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))
    images = pictures.images[order].split(BATCH)
    return [([part, part.flip(-1)], torch.arange(BATCH)) for part in images]


def joined_loader():
    return Joined([shared_loader("ours").shard(rank, 2) for rank in range(2)])


class StopAt:
    def __init__(self, step):
        self.step = step

    def on_step(self, run):
        if run.clock.step >= self.step:
            run.control.stop()


def train(loader, seed=0, epochs=2, network=None, **options):
    network = algorithm(seed) if network is None else network
    quiet = dict(device="cpu", progress=False, monitor=False, warmup_epochs=0)
    settings = dict(optimizer="sgd", lr=0.05) | quiet | options
    return network, fit(network, loader, epochs, **settings)


def with_batchnorm():
    network = algorithm(rank())
    network.backbone.norm = nn.BatchNorm2d(16).double()
    return network


class Watch:
    "The running mean when an epoch ends, and in the middle of one."

    every_process = True

    def __init__(self):
        self.seen = {}

    def on_step(self, run):
        if run.clock.step == 2:
            self._note(run, "middle")

    def on_epoch_end(self, run):
        self._note(run, f"epoch {run.clock.epoch}")

    def _note(self, run, when):
        self.seen[when] = run.algorithm.backbone.norm.running_mean.clone()


class Note:
    "Which rows each process got."

    every_process = True

    def __init__(self, folder):
        self.folder, self.seen = folder, []

    def on_step(self, run):
        self.seen.append(run.device.type)

    def on_end(self, run):
        name = f"{run.processes.rank} of {run.processes.count}, {len(self.seen)} steps"
        (self.folder / name).touch()


def everything(folder):
    "All that is asked of two processes, in one start of them: starting costs more than training."
    answer = {}
    for data in ("ours", "torch", "list"):
        network, history = train(shared_loader(data), seed=rank(), callbacks=[Note(folder)])
        answer[data] = dict(network.state_dict())
    network, _ = train(
        shared_loader("ours"), seed=rank(), epochs=4, checkpoint_dir=folder / "whole"
    )
    answer["whole"] = dict(network.state_dict())
    for data in ("ours", "torch"):
        run = dict(epochs=30, checkpoint_dir=folder / f"run {data}")
        expected, _ = train(shared_loader(data), seed=rank(), epochs=30)
        _, stopped = train(shared_loader(data), seed=rank(), callbacks=[StopAt(6)], **run)
        network, resumed = train(shared_loader(data), seed=7 + rank(), resume=True, **run)
        answer[f"resumed {data}"] = dict(network.state_dict())
        answer[f"expected {data}"] = dict(expected.state_dict())
        answer[f"states {data}"] = [stopped.state, stopped.step, resumed.state]
    run = dict(seed=rank(), network=with_batchnorm(), callbacks=[Watch()])
    network, _ = train(shared_loader("ours"), **run)
    answer["batchnorm"] = dict(network.state_dict()) | run["callbacks"][0].seen
    network, _ = train(shared_loader("ours"), seed=rank(), accumulate=2, clip=0.5)
    answer["accumulated"] = dict(network.state_dict())
    torch.save(answer, folder / f"{rank()}.pt")
    if rank() == 0:
        (folder / "done.json").write_text(json.dumps(stopped.columns()["loss"][1].tolist()))


def one_run(folder):
    "What a script of a user does: it knows nothing of processes."
    network, history = train(shared_loader("ours"), seed=rank(), checkpoint_dir=folder / "run")
    torch.save(dict(network.state_dict()), folder / f"{rank()} of {world_size()}.pt")


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
