"""Are our networks as fast as torchvision's and timm's? The same network, weights, images and process for each.

Forward (eval) and training step take turns in an order that changes from round to round; the number is the median, over
the rounds, of their time over ours: above 1, ours is faster. On a CPU in float32; on a GPU in bfloat16 autocast and
channels_last, plain and compiled."""

import argparse
import random
import sys
import time
from contextlib import nullcontext
from statistics import median

import timm
import torch
import torchvision
from common import save, table
from torch import nn

import nenya_nb.models as nb

SIDE = 224
LIMIT = 0.97  # their time over ours, against each peer


def by_position(ours: nn.Module, theirs: nn.Module) -> None:
    """Gives `theirs` our weights where both list the same layers in the same order under other names."""
    pairs = zip(theirs.state_dict(), ours.state_dict().values(), strict=True)
    theirs.load_state_dict({key: value.clone() for key, value in pairs})


def by_name(ours: nn.Module, theirs: nn.Module) -> None:
    theirs.load_state_dict(ours.state_dict())


def vit_to_torchvision(ours: nn.Module, theirs: nn.Module) -> None:
    renamed = {"cls_token": "class_token", "pos_embed": "encoder.pos_embedding"}
    prefixes = {"patch_embed.proj": "conv_proj", "norm": "encoder.ln", "head": "heads.head"}
    layers = {"norm1": "ln_1", "norm2": "ln_2", "mlp.fc1": "mlp.0", "mlp.fc2": "mlp.3"}
    layers |= {"attn.qkv": "self_attention.in_proj", "attn.proj": "self_attention.out_proj"}
    state = {}
    for key, value in ours.state_dict().items():
        layer, _, kind = key.rpartition(".")
        if key in renamed:
            name = renamed[key]
        elif layer in prefixes:
            name = f"{prefixes[layer]}.{kind}"
        else:
            _, index, layer = layer.split(".", 2)
            joint = "_" if layer == "attn.qkv" else "."
            name = f"encoder.layers.encoder_layer_{index}.{layers[layer]}{joint}{kind}"
        state[name] = value.clone()
    theirs.load_state_dict(state)


def torchvision_vit_s():
    settings = dict(image_size=SIDE, patch_size=16, num_layers=12, num_heads=6)
    return torchvision.models.VisionTransformer(**settings, hidden_dim=384, mlp_dim=1536)


# ours, then each peer with what carries our weights over; nothing drops paths, which is luck in the time of a step
NETWORKS = {
    "ResNet-50": (
        lambda: nb.resnet50(),
        {
            "torchvision": (lambda: torchvision.models.resnet50(), by_name),
            "timm": (lambda: timm.create_model("resnet50"), by_name),
        },
    ),
    "EfficientNet-B0": (
        lambda: nb.EfficientNet(dropout=0.0, drop_path_rate=0.0),
        {
            "torchvision": (
                lambda: torchvision.models.efficientnet_b0(dropout=0.0, stochastic_depth_prob=0.0),
                by_name,
            ),
            "timm": (lambda: timm.create_model("efficientnet_b0"), by_position),
        },
    ),
    "ViT-S/16": (
        lambda: nb.dino_vits16(num_classes=1000),
        {
            "torchvision": (torchvision_vit_s, vit_to_torchvision),
            "timm": (lambda: timm.create_model("vit_small_patch16_224"), by_name),
        },
    ),
}


def built(name: str, device: str) -> dict[str, nn.Module]:
    """The network of each library with our weights, shown to give our answer."""
    torch.manual_seed(0)
    build, peers = NETWORKS[name]
    models = {"nenya_nb": build()}
    for peer, (make, carry) in peers.items():
        models[peer] = make()
        carry(models["nenya_nb"], models[peer])
    x = torch.randn(1, 3, SIDE, SIDE)
    with torch.no_grad():
        answers = {peer: model.eval()(x) for peer, model in models.items()}
    for peer, answer in answers.items():
        torch.testing.assert_close(answer, answers["nenya_nb"], atol=1e-3, rtol=1e-3, msg=peer)
    layout = torch.channels_last if device == "cuda" else torch.contiguous_format
    return {peer: m.to(device=device, memory_format=layout) for peer, m in models.items()}


def works(model: nn.Module, batch: int, device: str, compiled: bool) -> dict:
    """What is timed, by name: functions of nothing."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    run = torch.compile(model) if compiled else model
    layout = torch.channels_last if device == "cuda" else torch.contiguous_format
    torch.manual_seed(1)
    x = torch.randn(batch, 3, SIDE, SIDE).to(device=device, memory_format=layout)
    targets = torch.randint(1000, (batch,)).to(device)

    def cast():
        return torch.autocast("cuda", torch.bfloat16) if device == "cuda" else nullcontext()

    def forward():
        model.eval()
        with torch.no_grad(), cast():
            run(x)

    def step():
        model.train()
        with cast():
            loss = nn.functional.cross_entropy(run(x), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return {"forward": forward, "training step": step}


def seconds(work, device: str, calls: int) -> float:
    """Wall seconds of one call; the GPU is waited for before and after."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    for _ in range(calls):
        work()
    wait()
    return (time.perf_counter() - start) / calls


def take_turns(each: dict, device: str, rounds: int, calls: int) -> dict[str, list[float]]:
    """Seconds of each library's work, round by round, in an order that changes."""
    for work in each.values():
        seconds(
            work, device, 3 if device == "cuda" else 1
        )  # compiles, chooses kernels, fills caches
    times, order, chance = {peer: [] for peer in each}, list(each), random.Random(0)
    for _ in range(rounds):
        chance.shuffle(order)
        for peer in order:
            times[peer].append(seconds(each[peer], device, calls))
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rounds", type=int, default=21, help="times that each library has its turn"
    )
    parser.add_argument("--batch", type=int, help="images; 4 on a CPU, 64 on a GPU")
    parser.add_argument(
        "--threads", type=int, help="of torch on a CPU; its own choice if not given"
    )
    parser.add_argument("--only", help="a part of the names of networks to take")
    parser.add_argument("--no-save", action="store_true", help="only print")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch, calls = (args.batch or 64, 10) if device == "cuda" else (args.batch or 4, 1)
    torch.backends.cudnn.benchmark = True
    result, rows, good = {}, [], True
    for name in [name for name in NETWORKS if (args.only or "") in name]:
        for compiled in (False, True) if device == "cuda" else (False,):
            models = built(name, device)
            todo = {peer: works(model, batch, device, compiled) for peer, model in models.items()}
            way = f"{device}, compiled" if compiled else device
            for kind in ("forward", "training step"):
                each = {peer: work[kind] for peer, work in todo.items()}
                times = take_turns(each, device, args.rounds, calls)
                ours = times["nenya_nb"]
                key = f"{name}, {kind}, {way}"
                result[key] = {"ms": {peer: 1000 * median(t) for peer, t in times.items()}}
                for peer in [peer for peer in times if peer != "nenya_nb"]:
                    ratio = median(t / o for t, o in zip(times[peer], ours, strict=True))
                    result[key][f"{peer} over ours"] = ratio
                    met = ratio >= LIMIT
                    good &= met
                    ms = [f"{1000 * median(times[p]):.4g}" for p in ("nenya_nb", peer)]
                    verdict = "met" if met else "MISSED"
                    rows.append([name, way, kind, peer, *ms, f"{ratio:.3f}", verdict])
            del models, todo
            torch.compiler.reset()
    print(table(rows, ["network", "on", "work", "peer", "our ms", "their ms", "ratio", "limit"]))
    print(f"\ntheir time at least {LIMIT} × ours: {'met' if good else 'MISSED'}")
    if not args.no_save:
        about = {"batch": batch, "side": SIDE, "rounds": args.rounds}
        about["threads"] = torch.get_num_threads()
        save("backbones", about | {"networks": result}, "torchvision", "timm")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
