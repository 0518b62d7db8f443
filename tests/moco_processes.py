"""What the processes of `test_moco` run: a module of its own, so that they import little."""

import os

import torch
import torch.distributed as dist
from torch import nn

from nenya_nb.core import Clock
from nenya_nb.models.algorithms.densecl import DenseCL, DenseCLNeck
from nenya_nb.models.algorithms.moco import MoCo, encode_shuffled
from nenya_nb.models.algorithms.mocov3 import MoCoV3, MoCoV3Head
from nenya_nb.models.necks import LinearNeck


class Maps(nn.Module):
    "A backbone without BatchNorm, whose loss for a part of the batch is a part of the whole's."

    output_dim = 6

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, x):
        return self.conv(x).tanh()


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "MoCo":
        return MoCo(Maps(), LinearNeck(6, 4), length=10, momentum=0.5)
    if name == "DenseCL":
        return DenseCL(Maps(), DenseCLNeck(6, 5, 4), length=10, momentum=0.5)
    return MoCoV3(Maps(), LinearNeck(6, 4), MoCoV3Head(LinearNeck(4, 4), 0.2), base_momentum=0.5)


def train(name: str, views: list, world: int = 1) -> dict:
    "Two steps of plain gradient descent; the losses, and the state afterwards."
    algorithm, clock, losses = build(name), Clock(10, 1), []
    for _ in range(2):
        loss = algorithm(views, mode="loss")["loss"]
        algorithm.zero_grad()
        loss.backward()
        with torch.no_grad():
            loss = loss.detach()
            if world > 1:
                dist.all_reduce(loss)
            for p in algorithm.parameters():
                if p.grad is not None:
                    if world > 1:  # what DistributedDataParallel does with gradients
                        dist.all_reduce(p.grad)
                    p -= 0.5 * p.grad / world
        clock.step += 1
        algorithm.after_step(clock)
        losses.append(loss / world)
    return {"losses": torch.stack(losses), **algorithm.state_dict()}


def who_was_together(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    "For each image its own number, and the mean number of those that were encoded with it."
    numbers = images[:, 0, 0, :1]
    return numbers, numbers.mean(0, keepdim=True).expand(len(images), 1)


def moco_of_two_processes(rank: int, world: int, folder: str, views: list) -> None:
    "One of `world` processes, each with its part of the views; rank 0 saves what it found."
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world
    )
    size = len(views[0]) // world
    mine = [view[rank * size : (rank + 1) * size] for view in views]
    results = {name: train(name, mine, world) for name in ("MoCo", "DenseCL", "MoCoV3")}
    torch.manual_seed(rank)
    numbered = (rank * size + torch.arange(size)).float()[:, None, None, None].expand(-1, 3, 4, 4)
    results["shuffled"] = torch.cat(encode_shuffled(who_was_together, numbered), dim=1)
    torch.save(results, f"{folder}/results_{rank}.pt")
    dist.barrier()  # nobody leaves while the other still listens
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads may abort the interpreter's own way out
