"""What the processes of `test_losses` run: a module of its own, so that they import little."""

import os

import torch
import torch.distributed as dist

from nenya_nb.models.losses import NTXentLoss, SupConLoss


def run_losses(model, images, labels):
    "The losses of two-view images (B, 2, D) and the gradients of a linear encoder, for each loss."
    results = {}
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
        results[name] = (loss.detach(), model.weight.grad.clone())
    return results


def losses_of_two_processes(rank, world, folder, model, images, labels):
    "One of `world` processes, each with its part of the images; rank 0 saves the means."
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world
    )
    part = slice(rank * len(images) // world, (rank + 1) * len(images) // world)
    results = run_losses(model, images[part], labels[part])
    for loss, grad in results.values():  # what DistributedDataParallel does with gradients
        for tensor in (loss, grad):
            dist.all_reduce(tensor)
            tensor /= world
    if rank == 0:
        torch.save(results, f"{folder}/results.pt")
    dist.barrier()  # nobody leaves while the other still listens
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads may abort the interpreter's own way out ("terminate called …")
