"""Does each method learn? Every algorithm on the embedded pictures, against its own untrained encoder and raw pixels.

Each run is a process of its own on one thread and has a fixed number of steps, so the machine's load changes its time
and not its result. Judged by k-NN (k = 20) and a linear probe on 1,000 test images, with all names of the training images."""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import mean

import torch
from common import save, table
from learn_recipes import RECIPES

from nenya_nb.core import seed_everything
from nenya_nb.data import load_dataset
from nenya_nb.evaluation import extract_latents, knn_accuracy, linear_probe
from nenya_nb.training import fit

DATA = "shapes"
MEASURES = ("knn", "linear")


def judge(features, targets, test_features, test_targets) -> dict[str, float]:
    """k-NN and linear probe, fractions of the test images."""
    known = (features, targets, test_features, test_targets)
    return {"knn": knn_accuracy(*known, k=20), "linear": float(linear_probe(*known))}


def judge_model(model, train, test) -> dict[str, float]:
    return judge(*extract_latents(model, train), *extract_latents(model, test))


def one(name: str, seed: int) -> dict:
    """Trains one method once: what its encoder knew before and after, and the last losses."""
    torch.set_num_threads(1)
    train, test = load_dataset(DATA), load_dataset(DATA, split="test")
    seed_everything(seed)
    recipe = RECIPES[name]
    algorithm = recipe.build(train)
    before = judge_model(algorithm, train, test)
    began = time.perf_counter()
    history = fit(algorithm, train, seed=seed, progress=False, monitor=False, **recipe.fit)
    spent = time.perf_counter() - began
    last = {}
    for key, (_, values) in history.columns().items():
        if key not in ("time", "lr", "images_per_s"):
            last[key] = [float(values[0]), float(values[-20:].mean())]
    after = judge_model(algorithm, train, test)
    steps = int(history.step)
    return {"before": before, "after": after, "logged": last, "steps": steps, "s": spent}


def in_process(name: str, seed: int) -> dict:
    command = [sys.executable, __file__, "--one", name, "--seed", str(seed)]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | threads)
    if done.returncode:
        raise RuntimeError(f"{name}, seed {seed}:\n{done.stderr}")
    print(f"{name}, seed {seed}: done", file=sys.stderr, flush=True)
    return json.loads(done.stdout.splitlines()[-1])


def gains(runs: list[dict], measure: str) -> dict[str, float]:
    """Untrained and trained, the mean over the seeds; the gain, and from the worst to the best trained one."""
    before = [run["before"][measure] for run in runs]
    after = [run["after"][measure] for run in runs]
    gain = mean(b - a for a, b in zip(before, after, strict=True))
    return {
        "before": mean(before),
        "after": mean(after),
        "gain": gain,
        "spread": max(after) - min(after),
    }


def report(runs: dict[str, dict[str, dict]], seeds: int) -> bool:
    """Prints the table of the methods that have all their seeds; did each of them learn?"""
    rows, good = [], True
    for name in RECIPES:
        done = list(runs.get(name, {}).values())
        if len(done) < seeds:
            continue
        measured = [gains(done, measure) for measure in MEASURES]
        learned = any(m["gain"] > m["spread"] for m in measured)
        good &= learned
        row = [name, done[0]["steps"], round(mean(run["s"] for run in done))]
        for m in measured:
            row += [f"{100 * m[key]:.1f}" for key in ("before", "after", "spread")]
        rows.append([*row, "yes" if learned else "NO"])
    head = ["method", "steps", "s", "knn %, untrained", "trained", "spread"]
    head += ["linear %, untrained", "trained", "spread", "learned"]
    print(table(rows, head))
    print(f"gain larger than the spread of {seeds} seeds: {'met' if good else 'MISSED'}")
    return good


def page(result: dict) -> str:
    """The table of the models index, from a result file."""
    percent = "{:.1f}".format
    lines = [
        "| method | k-NN %, untrained | trained | spread | linear %, untrained | trained | spread |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    pixels = [percent(100 * result["pixels"][measure]) for measure in MEASURES]
    lines.append(f"| raw pixels | {pixels[0]} | | | {pixels[1]} | | |")
    for name in (name for name in RECIPES if name in result["runs"]):
        measured = [gains(list(result["runs"][name].values()), measure) for measure in MEASURES]
        cells = [percent(100 * m[key]) for m in measured for key in ("before", "after", "spread")]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", help="names of methods")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--go-on", help="a result file; runs that it holds are not made again")
    parser.add_argument("--page", help="a result file; only prints the table of the models index")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.page:
        print(page(json.loads(open(args.page).read())))
        return 0
    if args.one:
        print(json.dumps(one(args.one, args.seed)))
        return 0
    runs = json.loads(open(args.go_on).read())["runs"] if args.go_on else {}
    train, test = load_dataset(DATA), load_dataset(DATA, split="test")
    pixels = judge(train.batch().flatten(1), train.targets, test.batch().flatten(1), test.targets)
    jobs = [(name, seed) for name in args.only or RECIPES for seed in range(args.seeds)]
    jobs = [(name, seed) for name, seed in jobs if str(seed) not in runs.get(name, {})]
    with ThreadPoolExecutor(args.workers) as pool:
        for (name, seed), run in zip(
            jobs, pool.map(lambda job: in_process(*job), jobs), strict=True
        ):
            runs.setdefault(name, {})[str(seed)] = run
            save(
                "learn", {"data": DATA, "pixels": pixels, "runs": runs}
            )  # a long run may be cut short
    good = report(runs, args.seeds)
    print(f"raw pixels: knn {pixels['knn']:.1%}, linear {pixels['linear']:.1%}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
