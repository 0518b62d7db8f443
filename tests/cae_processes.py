"""What the processes of `test_cae` run: a module of its own, so that they import little."""

import os

import torch
import torch.distributed as dist

from nenya_nb.core import Clock
from nenya_nb.models.algorithms.cae import CAE, CAENeck
from nenya_nb.models.backbones.masked_vit import CAEViT
from nenya_nb.models.target_generators import PixelClusters


def build() -> CAE:
    "The same small CAE everywhere, its words not yet found."
    torch.manual_seed(0)
    arch = {"embed_dims": 24, "num_layers": 1, "num_heads": 3, "feedforward_channels": 48}
    neck = CAENeck(24, 10, regressor_depth=1, decoder_depth=1, num_heads=3)
    return CAE(CAEViT(arch, 16, 4), neck, target_generator=PixelClusters(10, 4), num_masked=6)


def run(algorithm: CAE, images: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
    "Loss and gradients."
    loss = algorithm([images, mask], mode="loss")["loss"]
    mine = [p for p in algorithm.parameters() if p.requires_grad]
    return [loss.detach(), *torch.autograd.grad(loss, mine)]


def cae_of_two_processes(rank, world, folder, images, mask):
    "One of `world` processes, each with its part of the images; rank 0 saves words and mean gradients."
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    algorithm = build()
    part = slice(rank * len(images) // world, (rank + 1) * len(images) // world)
    batch = [images[part], mask[part]]
    algorithm.on_epoch_start([(batch, None)], Clock(1, 1))
    words = [torch.empty_like(algorithm.target_generator.centroids) for _ in range(world)]
    dist.all_gather(words, algorithm.target_generator.centroids)
    results = run(algorithm, *batch)
    for tensor in results:  # what DistributedDataParallel does with gradients
        dist.all_reduce(tensor)
        tensor /= world
    if rank == 0:
        torch.save((words, results), f"{folder}/results.pt")
    dist.barrier()  # nobody leaves while the other still listens
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads may abort the interpreter's own way out ("terminate called …")
