"""How long after a click on Stop does training end? For kernels × applications × kinds of step.

Clicks the real button of LiveCurves in a real Chromium while `fit` runs in an ordinary cell, and compares the
browser's time of the click with the kernel's time when `fit` has returned (one machine, one clock)."""

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
KERNELS = ("6.31.0", "7.3.0", "7.4.0")  # of ipykernel: comms in one queue, in subshells, by parent
APPS = ("lab", "notebook")
KINDS = ("sleep", "torch", "python")
STEP = 0.02  # s
LIMIT = 0.25  # s from the click to the end, 95th percentile, plus one step
LIVE = ".nnb-live"


# ---- in the kernel ------------------------------------------------------------------------------
def spender(kind: str, seconds: float = STEP):
    """A function that takes `seconds`: asleep, in torch or in plain Python."""
    import torch

    square = torch.rand(64, 64)

    def multiply():
        for _ in range(10):
            torch.mm(square, square)

    def count():
        return sum(i * i for i in range(1000))

    def spin(work):
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            work()

    return {
        "sleep": lambda: time.sleep(seconds),
        "torch": lambda: spin(multiply),
        "python": lambda: spin(count),
    }[kind]


def train(kind: str) -> float:
    """Trains until it is stopped; the time, s since 1970, when `fit` has returned."""
    import torch
    from common import toy

    from nenya_nb.training import fit
    from nenya_nb.widgets import LiveCurves

    data = [([torch.zeros(1)] * 2, torch.zeros(1))] * 100
    history = fit(toy(spender(kind)), data, epochs=50, callbacks=[LiveCurves()])
    ended = time.time()
    assert history.state == "stopped", history.state
    return ended


# ---- outside ------------------------------------------------------------------------------------
def repetitions(notebook, kind: str, repeats: int) -> tuple[list[float], list[str]]:
    """Latencies in s, and the road on which each Stop was answered first."""
    latencies, roads = [], []
    cell = len(KINDS) + 1
    notebook.run(KINDS.index(kind) + 1, wait_s=20)
    for _ in range(repeats):
        notebook.run(cell)
        notebook.wait_data(LIVE, "state", "v === 'running'", 60)
        notebook.wait_data(LIVE, "points", "n > 20")
        notebook.page.wait_for_timeout(random.randint(200, 700))
        clicked = notebook.click(f"{LIVE} .nnb-stop")
        notebook.wait_done(cell, 110)
        latencies.append(notebook.value("ended") - clicked)
        roads.append(notebook.data(LIVE, "rung") or "?")
    return latencies, roads


def main() -> int:
    import common
    import lab

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="clicks per combination")
    repeats = parser.parse_args().repeats
    random.seed(0)
    cells = [f"from {Path(__file__).stem} import train"]
    cells += [*(f"kind = {kind!r}" for kind in KINDS), "ended = train(kind)"]
    rows, every, result = [], [], []
    with tempfile.TemporaryDirectory() as folder, lab.Chromium() as chromium:
        for app in APPS:
            with lab.Server(Path(folder), app) as server:
                for kernel in KERNELS:
                    aside = f"ipykernel-{kernel}"
                    path = common.set_aside(aside, f"ipykernel=={kernel}", "nest-asyncio")
                    if path is None:
                        print(f"ipykernel {kernel}: cannot be installed here, left out")
                        continue
                    server.add_kernel(aside, PYTHONPATH=f"{path}{os.pathsep}{HERE}")
                    notebook = chromium.open(server, cells, kernel=aside)
                    notebook.run(0, wait_s=120)
                    there = notebook.value("__import__('ipykernel').__version__")
                    assert there == kernel, f"asked for ipykernel {kernel}, got {there}"
                    for kind in KINDS:
                        latencies, roads = repetitions(notebook, kind, repeats)
                        s = common.summary(latencies)
                        every += latencies
                        road = max(set(roads), key=roads.count)
                        rows.append([app, kernel, kind, s["n"], s["median"], s["p95"], road])
                        result.append(
                            dict(app=app, kernel=kernel, kind=kind, road=road, seconds=latencies)
                        )
                        print(
                            *(f"{x:.3f}" if isinstance(x, float) else x for x in rows[-1]),
                            flush=True,
                        )
                    notebook.shutdown()
    total = common.summary(every)
    rows.append(["all", "", "", total["n"], total["median"], total["p95"], ""])
    print(f"\nclick on Stop → `fit` has returned, in s; a step takes {STEP} s")
    print(common.table(rows, ["application", "ipykernel", "step", "n", "median", "p95", "road"]))
    good = total["p95"] <= LIMIT + STEP
    print(f"p95 {total['p95']:.3f} s, limit {LIMIT + STEP:.2f} s: {'met' if good else 'MISSED'}")
    report = dict(step_s=STEP, limit_p95_s=LIMIT + STEP, overall=total, combinations=result)
    packages = ("jupyterlab", "notebook", "anywidget", "playwright")
    common.save("stop_matrix", report, *packages)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
