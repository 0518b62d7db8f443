"""What the processes of some tests run: a module of its own, so that they import little."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from algorithms import build_algorithm, make_loader, to_dtype, trainable
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nenya_nb.core import Clock, broadcast, rank, world_size
from nenya_nb.models.algorithms.moco import encode_shuffled
from nenya_nb.models.losses import NTXentLoss, SupConLoss


def in_two_processes(work: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    "What `work(rank, *arguments)` gives in each of two processes that are joined by gloo."
    mp.spawn(_enter, (work, folder, arguments), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def _enter(rank: int, work: Callable[..., Any], folder: Path, arguments: tuple) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    torch.save(work(rank, *arguments), folder / f"{rank}.pt")
    dist.barrier()  # nobody leaves while the other still listens
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads may abort the interpreter's own way out ("terminate called …")


def mean_over_processes(tensor: Tensor) -> Tensor:
    "In place; without other processes it is what it was."
    if world_size() > 1:
        dist.all_reduce(tensor)
        tensor /= world_size()
    return tensor


def own_rows(tensor: Tensor) -> Tensor:
    "This process's part of a joined batch."
    return tensor.chunk(world_size())[rank()]


# ---------------------------------------------------------------- every algorithm


def without_batchnorm(model: nn.Module) -> nn.Module:
    "BatchNorm and dropout become nothing: the loss of a joined batch is then made of its rows' losses."
    for module in model.modules():
        for name, part in module.named_children():
            if isinstance(part, (nn.modules.batchnorm._BatchNorm, nn.Dropout)):
                setattr(module, name, nn.Identity())
    return model


def draws_for_the_joined_batch() -> ExitStack:
    """Inside, each process draws as many rows as all have together, from the same seed, and keeps its own.

    So masks (MAE) and wrong answers (NPID) are those of the joined batch."""
    rand, randint = torch.rand, torch.randint

    def rand_rows(rows, *shape, **options):
        return own_rows(rand(rows * world_size(), *shape, **options))

    def randint_rows(high, shape, **options):
        rows, *shape = shape
        return own_rows(randint(high, (rows * world_size(), *shape), **options))

    stack = ExitStack()
    stack.enter_context(mock.patch.object(torch, "rand", rand_rows))
    stack.enter_context(mock.patch.object(torch, "randint", randint_rows))
    return stack


class Doubles:
    "A data set whose images are in double precision."

    def __init__(self, dataset):
        self.dataset, self.targets = dataset, dataset.targets

    def __len__(self):
        return len(self.dataset)

    def batch(self, index=None, device=None):
        return self.dataset.batch(index, device).double()


class DoubleLoader:
    "Batches in double precision. Like torch's loaders it cannot balance clusters: DeepCluster weighs them."

    def __init__(self, loader):
        self.loader, self.dataset = loader, Doubles(loader.dataset)

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        for views, targets in self.loader:
            yield to_dtype(views, torch.float64), targets


def train_together(_: int, names: list[str]) -> dict[str, dict[str, Tensor]]:
    "Three steps of gradient descent with each algorithm, each process with its rows of the batches."
    return {name: _train_together(name) for name in names}


def _train_together(name: str) -> dict[str, Tensor]:
    algorithm = model = without_batchnorm(build_algorithm(name, seed=rank())).double()
    if world_size() > 1:
        for buffer in algorithm.buffers():  # all begin as the first one, whatever their seeds
            broadcast(buffer)
        model = DistributedDataParallel(algorithm, broadcast_buffers=False)  # and never again
    loader, clock, results = DoubleLoader(make_loader(algorithm)), Clock(2, 2), {}
    for views, targets in loader:
        if clock.step % clock.steps_per_epoch == 0:
            torch.manual_seed(rank())
            algorithm.on_epoch_start(loader, clock)
        torch.manual_seed(clock.step)
        with draws_for_the_joined_batch():
            loss = model([own_rows(v) for v in views], own_rows(targets), mode="loss")["loss"]
        loss.backward()
        algorithm.before_step(clock)
        results[f"loss {clock.step}"] = mean_over_processes(loss.detach().clone())
        for key, p in trainable(algorithm).items():
            if p.grad is not None:
                results[f"gradient {clock.step} of {key}"] = p.grad.clone()
                p.data -= 0.1 * p.grad
            p.grad = None
        clock.step += 1
        algorithm.after_step(clock)
    return results | algorithm.state_dict()


# ---------------------------------------------------------------- losses, and shuffling for MoCo


def find_words(rank: int, images: Tensor) -> Tensor:
    "The words that a CAE finds in this process's half of the images."
    algorithm = build_algorithm("CAE")
    loader = [([images.chunk(2)[rank], torch.empty(0)], None)]
    algorithm.on_epoch_start(loader, Clock(1, 1))
    return algorithm.target_generator.centroids


def shuffle_numbers(rank: int, size: int) -> Tensor:
    "Numbers of this process's images, and for each the mean number of those that were encoded with it: (size, 2)."

    def who_was_together(images):
        numbers = images[:, 0, 0, :1]
        return numbers, numbers.mean(0, keepdim=True).expand(len(images), 1)

    torch.manual_seed(rank)  # they must agree on the order all the same
    numbers = (rank * size + torch.arange(size)).float()
    images = numbers[:, None, None, None].expand(-1, 3, 4, 4)
    return torch.cat(encode_shuffled(who_was_together, images), dim=1)


def train_losses(_: int, model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, tuple]:
    "The losses of two-view images (B, 2, D) and the gradients of a linear encoder, for each loss."
    images, labels, results = own_rows(images), own_rows(labels), {}
    for name, loss_fn in [
        ("nt_xent", NTXentLoss(0.2)),
        ("supcon", SupConLoss(0.2)),
        ("supcon one", SupConLoss(0.2, contrast_mode="one")),
        ("supcon blind", SupConLoss(0.2)),
    ]:
        model.zero_grad()
        z = model(images)  # (B, 2, E)
        if name == "nt_xent":
            loss = loss_fn(z[:, 0], z[:, 1])
        else:
            loss = loss_fn(z, None if name == "supcon blind" else labels)
        loss.backward()
        results[name] = tuple(map(mean_over_processes, (loss.detach(), model.weight.grad.clone())))
    return results
