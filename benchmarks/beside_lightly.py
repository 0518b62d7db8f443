"""Our methods beside lightly's: the same weights, batches of views, optimizer, schedule and steps, in one process.

After each batch both sides make their step, in an order that changes; compared are the whole curves of the loss, the encoders
afterwards with the untrained one (k-NN, k = 20), the time of the steps and the memory of one. Settings are those of
`learn_recipes.py`, under which the methods learn within so few steps, with the multi-crop that it leaves out. Lightly's side is put together from its losses,
heads and helpers as its examples do it. These differ in what BatchNorm gets at once: with SimCLR and DINO the views of
one size, with the others each view alone. So do ours, but for SwAV, where lightly's side follows ours here. A mask and a
prototypes' bias are the other two places where it is not used as it comes."""

import argparse
import copy
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev

import lightly.loss
import lightly.models.modules as heads
import torch
import torch.nn.functional as F
from common import save, table
from lightly.models import utils
from lightly.models.modules.masked_vision_transformer_decoder_timm import (
    MaskedVisionTransformerDecoderTIMM,
)
from lightly.models.modules.masked_vision_transformer_timm import MaskedVisionTransformerTIMM
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import nenya_nb.models as nb
from nenya_nb.core import Clock, cosine, default_device, seed_everything
from nenya_nb.data import load_dataset
from nenya_nb.evaluation import extract_latents, knn_accuracy
from nenya_nb.training import build_optimizer, set_learning_rate

DATA, BATCH, EPOCHS, SEEDS = "shapes", 64, 6, 2
LR, WEIGHT_DECAY = 2e-3, 1e-4  # AdamW
FIRST, WINDOW, WARM = 5, 20, 5  # steps: compared one by one, averaged all along, not timed
NEAR, ALIKE = 1e-4, 0.02  # of the loss's size: the same sums in another order; the same curve
ROOM = 1.03  # ratios of time and memory up to here count as 1
D, HIDDEN, E, K = 128, 128, 64, 50  # features, hidden layers, embeddings, prototypes
WIDE = 512  # hidden layers and embeddings of BYOL and SimSiam; half of it of Barlow Twins
VIT = dict(embed_dim=96, depth=4, num_heads=3)
DECODER = dict(embed_dim=64, depth=2, num_heads=4)
PIXELS, PATCH = 32, 4  # of a view's side, and of a patch's


def carry(ours: nn.Module, theirs: nn.Module, names: dict[str, str] | None = None) -> nn.Module:
    """Gives `theirs` our weights and returns it. Ours may have biases more, which a BatchNorm takes away again."""
    state = {}
    for name, value in ours.state_dict().items():
        for old, new in (names or {}).items():
            name = new + name.removeprefix(old) if name.startswith(old) else name
        state[name] = value.clone()
    missing, more = theirs.load_state_dict(state, strict=False)
    if missing or not all(name.endswith("bias") for name in more):
        raise RuntimeError(
            f"{type(theirs).__name__} has no weights for {missing} or no use for {more}"
        )
    return theirs


class Lightly(nn.Module):
    """A method of lightly. Its encoder is a copy of ours, and its heads begin with the weights of ours."""

    constant_lr = ()

    def __init__(
        self, ours: nb.Algorithm, projection_head: nn.Module, backbone: nn.Module | None = None
    ):
        super().__init__()
        self.backbone = copy.deepcopy(ours.backbone) if backbone is None else backbone
        self.projection_head = projection_head

    def extract_feat(self, images: Tensor) -> Tensor:
        return self.backbone(images).flatten(start_dim=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.projection_head(self.backbone(images).flatten(start_dim=1))

    def loss(self, views: list[Tensor], clock: Clock) -> Tensor:
        raise NotImplementedError

    def before_step(self, clock: Clock) -> None: ...

    def after_step(self, clock: Clock) -> None: ...


class SimCLR(Lightly):
    def __init__(self, ours):
        head = heads.SimCLRProjectionHead(D, HIDDEN, E)
        super().__init__(ours, carry(ours.neck, head))
        self.criterion = lightly.loss.NTXentLoss(temperature=0.2)

    def loss(self, views, clock):
        z0, z1 = self(torch.cat(views)).chunk(2)
        return self.criterion(z0, z1)


class BarlowTwins(Lightly):
    def __init__(self, ours):
        head = heads.BarlowTwinsProjectionHead(D, WIDE // 2, WIDE // 2)
        super().__init__(ours, carry(ours.neck, head))
        self.criterion = lightly.loss.BarlowTwinsLoss(lambda_param=0.0051)

    def loss(self, views, clock):
        return self.criterion(self(views[0]), self(views[1]))


class SimSiam(Lightly):
    constant_lr = ("prediction_head",)

    def __init__(self, ours):
        head = heads.SimSiamProjectionHead(D, WIDE, WIDE)
        super().__init__(ours, carry(ours.neck, head))
        predictor = heads.SimSiamPredictionHead(WIDE, WIDE // 4, WIDE)
        self.prediction_head = carry(ours.head.predictor, predictor)
        self.criterion = lightly.loss.NegativeCosineSimilarity()

    def loss(self, views, clock):
        z0, z1 = self(views[0]), self(views[1])
        p0, p1 = self.prediction_head(z0), self.prediction_head(z1)
        return 0.5 * (self.criterion(z0.detach(), p1) + self.criterion(z1.detach(), p0))


class Momentum(Lightly):
    def __init__(self, ours, projection_head, projection_head_momentum, momentum, end=1.0):
        super().__init__(ours, projection_head)
        self.backbone_momentum = copy.deepcopy(self.backbone)
        self.projection_head_momentum = projection_head_momentum
        utils.deactivate_requires_grad(self.backbone_momentum)
        utils.deactivate_requires_grad(self.projection_head_momentum)
        self.momentum, self.end = momentum, end

    @torch.no_grad()
    def forward_momentum(self, images):
        return self.projection_head_momentum(self.backbone_momentum(images).flatten(start_dim=1))

    def after_step(self, clock):
        m = cosine(self.momentum, self.end, clock.progress)
        utils.update_momentum(self.backbone, self.backbone_momentum, m=m)
        utils.update_momentum(self.projection_head, self.projection_head_momentum, m=m)


class BYOL(Momentum):
    def __init__(self, ours):
        head = carry(ours.neck, heads.BYOLProjectionHead(D, WIDE, WIDE))
        super().__init__(ours, head, copy.deepcopy(head), ours.base_momentum)
        predictor = heads.BYOLPredictionHead(WIDE, HIDDEN, WIDE)
        self.prediction_head = carry(ours.head.predictor, predictor)
        self.criterion = lightly.loss.NegativeCosineSimilarity()

    def loss(self, views, clock):
        z0, z1 = self.forward_momentum(views[0]), self.forward_momentum(views[1])
        p0, p1 = self.prediction_head(self(views[0])), self.prediction_head(self(views[1]))
        return 2 * (self.criterion(z0, p1) + self.criterion(z1, p0))


class MoCo(Momentum):
    def __init__(self, ours):
        head = carry(ours.neck, heads.MoCoProjectionHead(D, HIDDEN, E))
        super().__init__(ours, head, copy.deepcopy(head), ours.momentum, ours.momentum)
        size = (ours.memory.length, E)
        self.criterion = lightly.loss.NTXentLoss(temperature=0.2, memory_bank_size=size)
        self.criterion.memory_bank.bank.copy_(ours.memory.features)

    def loss(self, views, clock):
        return self.criterion(self(views[0]), self.forward_momentum(views[1]))


class SwAV(Lightly):
    def __init__(self, ours):
        head = heads.SwaVProjectionHead(D, HIDDEN, E)
        super().__init__(ours, carry(ours.neck, head))
        self.prototypes = heads.SwaVPrototypes(E, K, ours.freeze_steps)
        self.prototypes.heads[0].bias = None  # the paper's have none
        carry(ours.head, self.prototypes, {"prototypes": "heads.0"})
        self.criterion = lightly.loss.SwaVLoss(sinkhorn_epsilon=0.03)

    def loss(self, views, clock):
        self.prototypes.normalize()
        features = [self.backbone(torch.cat(alike)) for alike in (views[:2], views[2:])]
        z = F.normalize(self.projection_head(torch.cat(features)), dim=1, p=2)
        scores = self.prototypes(z, step=clock.step).chunk(len(views))
        return self.criterion(scores[:2], scores[2:])


class DINO(Momentum):
    def __init__(self, ours):
        last = "last_layer.parametrizations.weight.original"
        names = {
            "mlp": "layers",
            f"{last}0": "last_layer.weight_g",
            f"{last}1": "last_layer.weight_v",
        }
        sizes = (D, HIDDEN, E, E)
        both = [heads.DINOProjectionHead(*sizes, freeze_last_layer=0) for _ in range(2)]
        super().__init__(
            ours, *[carry(ours.neck, head, names) for head in both], ours.base_momentum
        )
        self.criterion = lightly.loss.DINOLoss(E, teacher_temp=0.03, warmup_teacher_temp_epochs=0)

    def extract_feat(self, images):
        return self.backbone_momentum(images).flatten(start_dim=1)

    def loss(self, views, clock):
        large, small = torch.cat(views[:2]), torch.cat(views[2:])
        teacher = self.forward_momentum(large)
        student = torch.cat([self(large), self(small)])
        return self.criterion(teacher.chunk(2), student.chunk(len(views)))

    def before_step(self, clock):
        self.projection_head.cancel_last_layer_gradients(clock.epoch)


class Decoder(nn.Module):
    "Embedding, blocks and pixels: lightly's decoder leaves the first and the last to its user."

    def __init__(self, patches: int):
        super().__init__()
        self.decoder_embed = nn.Linear(VIT["embed_dim"], DECODER["embed_dim"])
        self.decoder = MaskedVisionTransformerDecoderTIMM(patches, **DECODER)
        self.decoder_pred = nn.Linear(DECODER["embed_dim"], 3 * PATCH**2)


class MAE(Lightly):
    def __init__(self, ours):
        vit = VisionTransformer(PIXELS, PATCH, num_classes=0, **VIT)
        backbone = MaskedVisionTransformerTIMM(vit)
        carry(ours.backbone, vit)
        inner = {"mask_token": "decoder.mask_token"}
        inner |= {f"decoder_{name}": f"decoder.{name}" for name in ("pos_embed", "blocks", "norm")}
        super().__init__(
            ours, carry(ours.neck, Decoder(vit.patch_embed.num_patches), inner), backbone
        )
        self.length, self.mask_ratio = backbone.sequence_length, ours.backbone.mask_ratio
        self.criterion = nn.MSELoss()

    def extract_feat(self, images):
        return self.backbone.encode(images)[:, 1:].mean(1)

    def random_mask(self, images):
        """As `utils.random_token_mask`, from the random numbers that ours draws, so that both hide the same."""
        noise = torch.rand(len(images), self.length - 1, device=images.device)
        order = F.pad(noise.argsort(dim=1) + 1, (1, 0))  # CLS stays
        keep = 1 + int((self.length - 1) * (1 - self.mask_ratio))
        return order[:, :keep], order[:, keep:]

    def loss(self, views, clock):
        images, head = views[0], self.projection_head
        idx_keep, idx_mask = self.random_mask(images)
        encoded = head.decoder_embed(self.backbone.encode(images, idx_keep=idx_keep))
        row = utils.repeat_token(head.decoder.mask_token, (len(images), self.length))
        row = utils.set_at_index(row, idx_keep, encoded.type_as(row))
        prediction = head.decoder_pred(utils.get_at_index(head.decoder(row), idx_mask))
        target = utils.get_at_index(utils.patchify(images, PATCH), idx_mask - 1)
        return self.criterion(prediction, utils.normalize_mean_var(target))


def projection(hidden: int = HIDDEN, out: int = E, **more) -> nn.Module:
    return nb.NonLinearNeck(D, hidden, out, **more)


def simclr():
    return nb.SimCLR(nb.resnet_tiny(), projection(), nb.ContrastiveHead(0.2))


def byol():
    options = dict(with_last_bn=False, with_last_bias=True)
    head = nb.LatentPredictHead(nb.NonLinearNeck(WIDE, HIDDEN, WIDE, **options))
    neck = projection(WIDE, WIDE, **options)
    return nb.BYOL(nb.resnet_tiny(), neck, head, base_momentum=0.95)


def barlow_twins():
    options = dict(num_layers=3, with_last_bn=False, with_last_bias=True)
    return nb.BarlowTwins(nb.resnet_tiny(), projection(WIDE // 2, WIDE // 2, **options))


def simsiam():
    options = dict(with_last_bn=False, with_last_bias=True)
    predictor = nb.NonLinearNeck(WIDE, WIDE // 4, WIDE, **options)
    neck = projection(WIDE, WIDE, num_layers=3, with_last_bn_affine=False)
    return nb.SimSiam(nb.resnet_tiny(), neck, nb.LatentPredictHead(predictor))


def moco():
    neck = nb.MoCoV2Neck(D, HIDDEN, E)
    return nb.MoCo(nb.resnet_tiny(), neck, length=2048, momentum=0.99)


def swav():
    neck, head, loss = nb.SwAVNeck(D, HIDDEN, E), nb.SwAVHead(E, K), nb.SwAVLoss(epsilon=0.03)
    return nb.SwAV(nb.resnet_tiny(), neck, head, loss, num_local=2, freeze_steps=100)


def dino():
    neck = nb.DinoProjectionHead(D, HIDDEN, E, E, norm_last_layer=True)
    loss = nb.DINOLoss(E, teacher_temperature=0.03)
    more = dict(num_local=2, base_momentum=0.98, freeze_last_layer=0, clip_grad=None)
    return nb.DINO(nb.resnet_tiny(), neck, loss, **more)


def mae():
    dim, depth, num_heads = DECODER.values()
    decoder = nb.MAEPretrainDecoder(
        VIT["embed_dim"], dim, depth, num_heads, img_size=PIXELS, patch_size=PATCH
    )
    arch = dict(embed_dims=VIT["embed_dim"], num_layers=VIT["depth"])
    arch |= dict(num_heads=VIT["num_heads"], feedforward_channels=4 * VIT["embed_dim"])
    return nb.MAE(nb.MAEViT(arch, PIXELS, PATCH, 0.75), decoder, nb.MAEPretrainHead(PATCH))


@dataclass
class Method:
    ours: Callable[[], nb.Algorithm]
    theirs: Callable[[nb.Algorithm], Lightly]
    shift: float = 0.0  # our loss less theirs
    lr: float = LR
    weight_decay: float = WEIGHT_DECAY
    epochs: int = EPOCHS


METHODS = {
    "SimCLR": Method(simclr, SimCLR),
    "BYOL": Method(byol, BYOL, shift=4.0, lr=1e-3),  # 2 − 2 cos in both directions, theirs −2 cos
    "BarlowTwins": Method(barlow_twins, BarlowTwins),
    "SimSiam": Method(simsiam, SimSiam, lr=1e-3),
    "MoCo": Method(moco, MoCo, weight_decay=1e-2),
    "SwAV": Method(swav, SwAV),
    "DINO": Method(dino, DINO),
    "MAE": Method(mae, MAE, weight_decay=0.05, epochs=2 * EPOCHS),  # slow to show in a vote
}


class Side:
    """One library's training: its module, its optimizer and its clock."""

    def __init__(
        self,
        module: nn.Module,
        steps_per_epoch: int,
        epochs: int,
        device: torch.device,
        lr: float = LR,
        weight_decay: float = WEIGHT_DECAY,
    ):
        self.module = module.to(device).train()
        self.optimizer = build_optimizer("adamw", module, lr, weight_decay)
        self.clock = Clock(steps_per_epoch, epochs)
        self.warmup = self.clock.total_steps // 10

    def loss(self, views: list[Tensor]) -> Tensor:
        if isinstance(self.module, Lightly):
            return self.module.loss(views, self.clock)
        return self.module(views, None, mode="loss")["loss"]

    def step(self, views: list[Tensor]) -> Tensor:
        "One step of the optimizer; returns the loss before it."
        set_learning_rate(self.optimizer, self.clock, self.warmup)
        loss = self.loss(views)
        loss.backward()
        self.module.before_step(self.clock)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.clock.step += 1
        self.module.after_step(self.clock)
        return loss.detach()


def timed(side: Side, views: list[Tensor], seed: int) -> tuple[float, float, float]:
    """One step with random numbers of its own: the loss, wall seconds, and seconds of the processor."""
    torch.manual_seed(seed)  # what MAE hides
    wait = torch.cuda.synchronize if views[0].is_cuda else lambda: None
    wait()
    wall, busy = time.perf_counter(), time.process_time()
    loss = side.step(views)
    wait()
    busy, wall = time.process_time() - busy, time.perf_counter() - wall
    return float(loss), wall, busy


def peak_bytes(build: Callable[[], Side], views: list[Tensor]) -> int:
    """Bytes held at the worst moment of the third step by all that was built and computed, less the views."""
    gc.collect()
    if views[0].is_cuda:
        before = torch.cuda.memory_allocated()
        side = build()
        for _ in range(3):
            torch.cuda.reset_peak_memory_stats()
            side.step(views)
        return torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        side = build()
        for step in range(3):
            with torch.profiler.record_function(f"step {step}"):
                side.step(views)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        events = sorted(json.loads(path.read_text())["traceEvents"], key=lambda e: e.get("ts", 0))
    begin = next(e["ts"] for e in events if e.get("name") == "step 2")
    held = peak = 0
    for event in events:
        if event.get("name") == "[memory]":
            held += event["args"]["Bytes"]
            peak = max(peak, held) if event["ts"] >= begin else 0
    return peak


def memory(method: Method, views: list[Tensor], device: torch.device) -> dict[str, int]:
    """Peak bytes of each side, which is alone there."""

    def ours() -> Side:
        return Side(method.ours(), 10, 1, device)

    def theirs() -> Side:
        return Side(method.theirs(method.ours()), 10, 1, device)

    return {"ours": peak_bytes(ours, views), "lightly": peak_bytes(theirs, views)}


def one(name: str, seed: int, epochs: int, device: torch.device) -> dict:
    """Trains both sides of one method, step by step in turn."""
    train, test = load_dataset(DATA), load_dataset(DATA, split="test")
    method = METHODS[name]
    seed_everything(seed)
    ours = method.ours()
    modules = {"ours": ours, "lightly": method.theirs(ours)}
    loader = train.loader(batch_size=BATCH, recipe=ours.views, device=device, seed=seed)
    plan = (len(loader), epochs, device, method.lr, method.weight_decay)
    sides = {key: Side(m, *plan) for key, m in modules.items()}

    features = [extract_latents(m, test.subset(range(BATCH))).features for m in modules.values()]
    torch.testing.assert_close(*features, msg=f"{name}: the encoders do not begin alike")

    def knn(module: nn.Module) -> float:
        known = [*extract_latents(module, train), *extract_latents(module, test)]
        return knn_accuracy(*known, k=20)

    result = {"untrained": knn(ours)}
    columns = ("loss", "wall", "busy")
    result |= {key: {column: [] for column in columns} for key in sides}
    order, chance, step = list(sides), random.Random(seed), 0
    for _ in range(epochs):
        for views, _ in loader:
            chance.shuffle(order)
            for key in order:
                values = timed(sides[key], views, seed + step)
                for column, value in zip(columns, values, strict=True):
                    result[key][column].append(value)
            step += 1
    result["trained"] = {key: knn(module) for key, module in modules.items()}
    del sides, modules, ours, features
    if seed == 0:
        result["memory"] = memory(method, [view.clone() for view in views], device)
    return result


def in_process(name: str, seed: int, epochs: int) -> dict:
    command = [sys.executable, __file__, "--one", name, "--seed", str(seed)]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command += ["--epochs", str(epochs)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | threads)
    if done.returncode:
        raise RuntimeError(f"{name}, seed {seed}:\n{done.stderr}")
    print(f"{name}, seed {seed}: done", file=sys.stderr, flush=True)
    return json.loads(done.stdout.splitlines()[-1])


def error(values: list[float]) -> float:
    """Of their mean; 0 for one value, which says nothing about it."""
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def compare(runs: list[dict], shift: float) -> dict:
    """The numbers of one method, from its runs with several seeds; differences are ours less lightly's."""
    pairs = {
        column: [
            list(zip(run["ours"][column], run["lightly"][column], strict=True)) for run in runs
        ]
        for column in ("loss", "wall", "busy")
    }
    size = mean(abs(theirs + shift) for run in pairs["loss"] for _, theirs in run)
    gaps = [[(ours - theirs - shift) / size for ours, theirs in run] for run in pairs["loss"]]
    both = [mean(values) for values in zip(*gaps, strict=True)]  # step by step, of all seeds
    windows = [mean(both[i : i + WINDOW]) for i in range(0, len(both), WINDOW)]
    knn = {key: [run["trained"][key] for run in runs] for key in ("ours", "lightly")}
    gains = [ours - theirs for ours, theirs in zip(*knn.values(), strict=True)]
    timed = {
        kind: [pair for run in pairs[kind] for pair in run[WARM:]] for kind in ("wall", "busy")
    }
    (peaks,) = [run["memory"] for run in runs if "memory" in run]
    return {
        "first": max(abs(gap) for run in gaps for gap in run[:FIRST]),
        "curve": max(map(abs, windows)),
        "last": windows[-1],
        "untrained": mean(run["untrained"] for run in runs),
        "knn": {key: mean(values) for key, values in knn.items()},
        "gain": mean(gains),
        "gain_error": error(gains),
        "ms": 1000 * median(ours for ours, _ in timed["wall"]),
        "time": {kind: median(ours / theirs for ours, theirs in timed[kind]) for kind in timed},
        "memory": peaks["ours"] / peaks["lightly"],
        "peak_bytes": peaks,
    }


def verdicts(found: dict, on_gpu: bool) -> dict[str, bool]:
    return {
        "loss": found["curve"] <= ALIKE,
        "learned": min(found["knn"].values()) > found["untrained"],
        "knn": found["gain"] >= -max(2 * found["gain_error"], 0.01),
        "time": found["time"]["wall" if on_gpu else "busy"] <= ROOM,
        "memory": found["memory"] <= ROOM,
    }


def report(runs: dict[str, list[dict]], on_gpu: bool) -> tuple[dict, bool]:
    """Prints the table of all methods; returns what is to be saved, and whether every limit is met."""
    result, rows, missed = {}, [], []
    for name, seeds in runs.items():
        found = compare(seeds, METHODS[name].shift)
        met = verdicts(found, on_gpu)
        missed += [f"{name}: {what}" for what, good in met.items() if not good]
        losses = {key: [round(x, 5) for x in seeds[0][key]["loss"]] for key in ("ours", "lightly")}
        knn = [{key: run[key] for key in ("untrained", "trained")} for run in seeds]
        result[name] = found | {"met": met, "knn of each seed": knn, "losses of seed 0": losses}
        row = [name, f"{found['first']:.1e}", "equal" if found["first"] <= NEAR else "alike"]
        shares = [found["curve"], found["untrained"], *found["knn"].values()]
        row += [f"{100 * value:.1f}" for value in shares]
        row += [f"{100 * found['gain']:+.1f} ± {100 * found['gain_error']:.1f}", found["ms"]]
        row += [f"{ratio:.3f}" for ratio in (*found["time"].values(), found["memory"])]
        rows.append([*row, "met" if all(met.values()) else "MISSED"])
    head = ["method", f"first {FIRST} losses", "are", "curve, %", "knn %, untrained"]
    head += ["ours", "lightly", "more", "our ms", "time", "processor", "memory", "limits"]
    print(table(rows, head))
    verdict = f"missed: {', '.join(missed)}" if missed else "all limits met"
    print(
        f"\ncurve: the largest difference of the mean losses of {WINDOW} steps, as a share of the loss"
    )
    print(f"time, processor and memory are ours over lightly's; {verdict}")
    return result, not missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=METHODS, help="names of methods")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--epochs", type=int, help=f"{EPOCHS}, for MAE twice that")
    parser.add_argument(
        "--workers", type=int, help="processes at once; as many as cores, 1 on a GPU"
    )
    parser.add_argument("--quick", action="store_true", help="one seed, one epoch, nothing saved")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    device = default_device()
    if args.one:
        torch.set_num_threads(1)
        epochs = args.epochs or METHODS[args.one].epochs
        print(json.dumps(one(args.one, args.seed, epochs, device)))
        return 0
    seeds = 1 if args.quick else args.seeds
    on_gpu = device.type != "cpu"
    workers = args.workers or (1 if on_gpu else os.cpu_count())
    names = args.only or list(METHODS)
    epochs = {name: 1 if args.quick else args.epochs or METHODS[name].epochs for name in names}
    jobs = [(name, seed, epochs[name]) for name in names for seed in range(seeds)]
    jobs.sort(key=lambda job: -job[2])  # the longest first
    with ThreadPoolExecutor(workers) as pool:
        done = list(pool.map(lambda job: in_process(*job), jobs))
    runs = {name: [] for name in names}
    for (name, *_), run in zip(jobs, done, strict=True):
        runs[name].append(run)
    result, good = report(runs, on_gpu)
    if not args.quick:
        about = {"data": DATA, "batch": BATCH, "epochs": epochs, "seeds": seeds}
        save("beside_lightly", about | {"methods": result}, "lightly", "timm")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
