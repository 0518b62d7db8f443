"""How long does a network take to tell its shapes, beside a real forward, torchinfo and torchview?

One image of 224 px on one thread. Times are processor times, medians; each question to us is one that was not asked
before, unless the table says so."""

import argparse
import importlib
import itertools
import sys
import time
from statistics import median

import timm
import torch
import torchvision
from common import save, set_aside, table

import nenya_nb.models as nb
from nenya_nb.introspect import output_shape, skeleton, stage_table

SIDE = 224
CLOSED_FORM_LIMIT = 1000  # times faster than the fastest other way, for our families
ANY_MODULE_LIMIT = 1.0  # times faster than torchinfo on the meta device, for any module
PACKAGES = ("torchinfo", "torchview")


def ours() -> dict:
    """Our networks by name; those whose lesson is not written yet are left out."""
    efficientnet = importlib.import_module("nenya_nb.models.backbones.efficientnet")
    found = {
        "ResNet-18": lambda: nb.ResNet("basic", [2, 2, 2, 2]),
        "ResNet-152": lambda: nb.ResNet("bottleneck", [3, 8, 36, 3]),
        "EfficientNet-B0": efficientnet.efficientnet_b0,
    }
    for name, factory in {"584 layers": "resnet_1001", "ViT-B/16": "dino_vitb16"}.items():
        if hasattr(nb, factory):
            found[name] = getattr(nb, factory)
    return found


ANY = {
    "torchvision resnet18": lambda: torchvision.models.resnet18(),
    "torchvision resnet152": lambda: torchvision.models.resnet152(),
    "timm vit_base_patch16_224": lambda: timm.create_model("vit_base_patch16_224"),
}


def peers() -> dict:
    """The modules of `PACKAGES`, None for what is not at hand."""
    found = {}
    for name in PACKAGES:
        if importlib.util.find_spec(name) is None:
            folder = set_aside("shapes", *PACKAGES, "graphviz")
            sys.path += [str(folder)] if folder else []
        found[name] = importlib.import_module(name) if importlib.util.find_spec(name) else None
    return found


def seconds(function, budget_s: float) -> float:
    """Processor seconds of one call, median; many calls are timed together where one is short."""
    function()
    start = time.thread_time()
    function()
    number = max(1, int(2e-3 / max(time.thread_time() - start, 1e-7)))
    times, begun = [], time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - begun < budget_s and len(times) < 200):
        start = time.thread_time()
        for _ in range(number):
            function()
        times.append((time.thread_time() - start) / number)
    return median(times)


def ways(build, family: bool, found: dict) -> dict:
    """Name of each way → function that answers once."""
    module = build().eval()
    images, fresh = torch.zeros(1, 3, SIDE, SIDE), itertools.count(1)

    def new():  # a shape nobody asked about: another batch
        return [next(fresh), 3, SIDE, SIDE]

    def real():
        with torch.no_grad():
            module(images)

    answers = {"real forward": real}
    if torchinfo := found["torchinfo"]:
        meta = skeleton(module, fresh=True)
        size = (1, 3, SIDE, SIDE)
        answers["torchinfo"] = lambda: torchinfo.summary(module, size, device="cpu", verbose=0)
        answers["torchinfo, meta"] = lambda: torchinfo.summary(meta, size, device="meta", verbose=0)
    if torchview := found["torchview"]:
        other = skeleton(module, fresh=True)
        answers["torchview, meta"] = lambda: torchview.draw_graph(
            other, input_size=(1, 3, SIDE, SIDE), device="meta"
        )
    if family:
        answers["get_output_shape"] = lambda: module.get_output_shape(new())
        stages = getattr(module, "get_stage_shapes", None) or module.forward_features
        answers["stages, closed form"] = lambda: stages(new())
    else:
        answers["output_shape"] = lambda: output_shape(module, new())
    answers["stage_table"] = lambda: stage_table(module, new())
    answers["stage_table, shapes only"] = lambda: stage_table(module, new(), costs=False)
    answers["stage_table, again"] = lambda: stage_table(module, [1, 3, SIDE, SIDE])
    return answers


PEERS = ("real forward", "torchinfo", "torchinfo, meta", "torchview, meta")
CLOSED = ("get_output_shape", "stages, closed form")
TABLES = ("output_shape", "stage_table, shapes only", "stage_table")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=float, default=2.0, help="seconds for each number")
    parser.add_argument("--only", help="a part of the names of networks to take")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found, result, good, rows = peers(), {}, True, []
    for name in [package for package, module in found.items() if module is None]:
        print(f"{name}: not installed")
    for family, networks in ((True, ours()), (False, ANY)):
        for name, build in networks.items():
            if args.only and args.only not in name:
                continue
            times = {way: seconds(f, args.budget) for way, f in ways(build, family, found).items()}
            result[name] = {way: 1000 * t for way, t in times.items()}
            best = min(times[way] for way in PEERS if way in times)
            info = times.get("torchinfo, meta")
            for way, t in times.items():
                verdict = ""
                if way in CLOSED:
                    verdict = "met" if best / t >= CLOSED_FORM_LIMIT else "MISSED"
                elif way in TABLES and not family and info:
                    verdict = "met" if info / t >= ANY_MODULE_LIMIT else "MISSED"
                good &= verdict != "MISSED"
                ratio = "" if way in PEERS else f"{best / t:,.1f}"
                against = "" if way in PEERS or not info else f"{info / t:,.1f}"
                rows.append([name, way, f"{1000 * t:.4g}", ratio, against, verdict])
                name = ""
    head = ["network", "way", "ms", "× fastest other", "× torchinfo, meta", "limit"]
    print(table(rows, head))
    print(
        f"\nclosed form at least {CLOSED_FORM_LIMIT} × the fastest other way; any module at least "
        f"{ANY_MODULE_LIMIT} × torchinfo on meta: {'met' if good else 'MISSED'}"
    )
    save("shapes", {"ms": result, "side": SIDE}, "torchvision", "timm", *PACKAGES)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
