"""How close does training come to the machine's limit, and how far is it from lightly's pipeline?

Images per second, from bytes to updated weights, of three sides in processes of their own that take turns: `fit` as users
call it; the limit, `fit` on one batch of views that lies on the device already; and lightly's transforms in a DataLoader with
a worker for each core, with its losses and heads. Same backbone, optimizer, precision and batch. Where the limit
is missed, the cost of the views alone says how much of it is theirs."""

import argparse
import gc
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median

import beside_lightly
import psutil
import torch
from beside_lightly import METHODS, Side
from common import save, table
from lightly import transforms
from lightly.transforms.byol_transform import BYOLView1Transform, BYOLView2Transform
from PIL import Image

from nenya_nb.core import default_device, seed_everything
from nenya_nb.data import load_dataset
from nenya_nb.data.datasets import ImageDataset
from nenya_nb.training import fit

NAMES, SIDES = ("SimCLR", "BYOL", "DINO", "MAE"), ("ours", "limit", "lightly")
SIZES = {
    32: dict(batch=128, patch=4),
    224: dict(batch=16, patch=16),
}  # px; on a GPU 8 times the batch
WARM, LR, WEIGHT_DECAY = 6, 2e-3, 1e-4  # steps that are not timed; of AdamW
LIMIT, FASTER = 0.95, {"cpu": {32: 1.5, 224: 1.5}, "gpu": {32: 4.0, 224: 2.0}}
ROOM = 1.03  # of lightly's memory


def data(size: int) -> ImageDataset:
    """Drawn shapes of 32 px, or random pixels of 224."""
    if size == 32:
        return load_dataset("shapes")
    images = torch.randint(256, (256, 3, size, size), dtype=torch.uint8)
    return ImageDataset(images, torch.arange(len(images)) % 10, style="natural")


def method(name: str, size: int):
    """Our algorithm; MAE's networks are made for this size of images."""
    beside_lightly.PIXELS, beside_lightly.PATCH = size, SIZES[size]["patch"]
    seed_everything(0)
    return METHODS[name].ours()


def views_of_lightly(name: str, size: int, crop: int):
    """Its transform with its own defaults; on drawn shapes without flips and blur, as ours."""
    plain = dict(hf_prob=0.0) if size == 32 else {}
    sharp = plain | (dict(gaussian_blur=0.0) if size == 32 else {})
    if name == "SimCLR":
        return transforms.SimCLRTransform(input_size=size, **sharp)
    if name == "BYOL":
        views = [k(input_size=size, **sharp) for k in (BYOLView1Transform, BYOLView2Transform)]
        return transforms.BYOLTransform(*views)
    if name == "DINO":
        more = dict(gaussian_blur=(0.0, 0.0, 0.0)) if size == 32 else {}
        sizes = dict(global_crop_size=size, local_crop_size=crop, n_local_views=2)
        return transforms.DINOTransform(**sizes, **plain, **more)
    return transforms.MAETransform(input_size=size)


class Pictures(torch.utils.data.Dataset):
    """Decoded pictures in memory, as lightly's transforms take them."""

    def __init__(self, dataset: ImageDataset, transform):
        self.pictures = [Image.fromarray(x.permute(1, 2, 0).numpy()) for x in dataset.images]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, i: int):
        return self.transform(self.pictures[i]), i


class Stopwatch:
    """Steps per second between step `WARM` and the end, which comes after `seconds`."""

    def __init__(self, seconds: float, device: torch.device):
        self.seconds, self.device, self.steps = seconds, device, 0

    def tick(self) -> bool:
        "After a step; whether that was enough."
        self.steps += 1
        if self.steps < WARM:
            return False
        if self.steps == WARM:
            self._wait()
            self.began = time.perf_counter()
        done = time.perf_counter() - self.began > self.seconds and self.steps > WARM + 3
        if done:
            self._wait()
            self.per_step = (time.perf_counter() - self.began) / (self.steps - WARM)
        return done

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def on_step(self, run) -> None:
        if self.tick():
            run.control.stop()


class Memory(threading.Thread):
    """The largest memory of this process and its workers, shared pages once, in MiB above that at the start."""

    def __init__(self):
        super().__init__(daemon=True)
        gc.collect()
        self.process, self.base, self.peak, self.on = psutil.Process(), 0, 0, True
        self.base = self._now()
        self.start()

    def _now(self) -> float:
        total = 0
        for process in [self.process, *self.process.children(recursive=True)]:
            try:
                total += process.memory_full_info().pss
            except (psutil.Error, AttributeError):
                pass
        return total / 2**20

    def run(self) -> None:
        while self.on:
            self.peak = max(self.peak, self._now() - self.base)
            time.sleep(0.1)

    def stop(self) -> float:
        self.on = False
        self.join()
        return self.peak


def run_fit(name: str, size: int, batch: int, seconds: float, precision: str, fixed: bool) -> dict:
    """`fit` on the data, or on one batch of it."""
    device, algorithm = default_device(), method(name, size)
    watch, dataset = Stopwatch(seconds, device), data(size)
    recipe = dict(recipe=algorithm.views, device=device, seed=0)
    source = dataset
    if fixed:
        source = [next(iter(dataset.loader(batch_size=batch, **recipe)))] * 1000
    settings = dict(lr=LR, weight_decay=WEIGHT_DECAY, precision=precision, progress=False)
    fit(algorithm, source, 10_000, batch_size=batch, callbacks=[watch], **settings)
    found = {"s": watch.per_step}
    if not fixed:
        batches = itertools.chain.from_iterable(
            itertools.repeat(dataset.loader(batch_size=batch, **recipe))
        )
        views = Stopwatch(seconds / 3, device)
        while not (next(batches), views.tick())[1]:
            pass
        found["views_s"] = views.per_step
    return found


def run_lightly(name: str, size: int, batch: int, seconds: float, precision: str) -> dict:
    """Lightly's transforms, DataLoader, loss and heads, in a loop as its examples have it."""
    device, ours, dataset = default_device(), method(name, size), data(size)
    views = next(iter(dataset.loader(batch_size=2, recipe=ours.views)))[0]
    transform = views_of_lightly(name, size, views[-1].shape[-1])
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    loader = torch.utils.data.DataLoader(
        Pictures(dataset, transform),
        batch_size=batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )
    side = Side(METHODS[name].theirs(ours), len(loader), 10_000, device)
    del ours
    kind = {"no": None, "bf16": torch.bfloat16}[precision]
    watch = Stopwatch(seconds, device)
    forward = side.loss

    def loss(views):
        with torch.autocast(device.type, kind, enabled=kind is not None):
            return forward(views)

    side.loss = loss
    while True:
        for found, _ in loader:
            side.step([view.to(device, non_blocking=True) for view in found])
            if watch.tick():
                return {"s": watch.per_step}


def one(side: str, name: str, size: int, batch: int, seconds: float, precision: str) -> dict:
    """One side's speed and memory, in this process."""
    memory = Memory()
    if side == "lightly":
        found = run_lightly(name, size, batch, seconds, precision)
    else:
        found = run_fit(name, size, batch, seconds, precision, fixed=side == "limit")
    found["mib"] = memory.stop()
    if torch.cuda.is_available():
        found["gpu_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return found | {"images_per_s": batch / found["s"]}


def in_process(*task) -> dict:
    command = [sys.executable, str(Path(__file__)), "--one", json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def compare(name: str, size: int, args: argparse.Namespace) -> dict:
    """All sides, `rounds` times in turns; medians, and ratios within the rounds."""
    gpu = torch.cuda.is_available()
    batch = SIZES[size]["batch"] * (8 if gpu else 1)
    rounds = []
    for turn in range(args.rounds):
        order = SIDES[turn % 3 :] + SIDES[: turn % 3]
        task = (name, size, batch, args.seconds, args.precision)
        rounds.append({side: in_process(side, *task) for side in order})
    found = {s: median(r[s]["images_per_s"] for r in rounds) for s in SIDES}
    ratio = {
        s: median(r["ours"]["images_per_s"] / r[s]["images_per_s"] for r in rounds)
        for s in SIDES[1:]
    }
    key = "gpu_mib" if gpu else "mib"
    mib = {s: median(r[s][key] for r in rounds) for s in SIDES}
    share = median(r["ours"]["views_s"] / r["ours"]["s"] for r in rounds)
    faster = FASTER["gpu" if gpu else "cpu"][size]
    met = {
        "limit": ratio["limit"] >= LIMIT,
        "lightly": ratio["lightly"] >= faster,
        "memory": mib["ours"] <= ROOM * mib["lightly"],
    }
    return {"batch": batch, "images_per_s": found, "of_limit": ratio["limit"],
            "of_lightly": ratio["lightly"], "views_share": share, "mib": mib, "met": met}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--sizes", nargs="+", type=int, choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="timed in each process")
    parser.add_argument("--precision", choices=["no", "bf16"], default="no")
    parser.add_argument("--quick", action="store_true", help="one round, 3 s, nothing saved")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(*json.loads(args.one))))
        return 0
    if args.quick:
        args.rounds, args.seconds = 1, 3.0
    result, rows = {}, []
    for size in args.sizes:
        for name in args.only:
            found = result[f"{name} {size}"] = compare(name, size, args)
            speed, mib = found["images_per_s"], found["mib"]
            missed = [what for what, met in found["met"].items() if not met]
            rows.append([
                name, size, *(round(speed[s]) for s in SIDES), f"{found['of_limit']:.3f}",
                f"{found['of_lightly']:.2f}", f"{found['views_share']:.3f}",
                f"{mib['ours']:.0f}", f"{mib['lightly']:.0f}", ", ".join(missed) or "met",
            ])  # fmt: skip
            print(f"{name} at {size} px: done", file=sys.stderr, flush=True)
    head = ["method", "px", "ours", "limit", "lightly", "of limit", "× lightly", "views' share"]
    print(table(rows, [*head, "MiB", "lightly's", "missed"]))
    if not args.quick:
        about = {"rounds": args.rounds, "seconds": args.seconds, "precision": args.precision}
        save("train_step", about | {"of_limit": LIMIT, "methods": result}, "lightly", "torchvision")
    return 0 if all(all(found["met"].values()) for found in result.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
