"""What does LiveCurves cost the training it watches?

One kernel attached to a real JupyterLab page; runs with and without the widget alternate, so that whatever else the
machine does hits both. Beside it: the cost of one update, for short and long histories, of the widget and its peers."""

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
STEPS = {1: 4000, 5: 800}  # milliseconds of a step → steps of a run
LIMIT = 1.01  # step time with the widget / without, median over the pairs
LENGTHS = (1_000, 10_000, 100_000)  # rows in the history before the update that is timed
PEERS = ("livelossplot", "fastprogress", "matplotlib")


# ---- in the kernel: the widget --------------------------------------------------------------------
def calibrated(step_ms: float):
    """A function that does a fixed amount of torch work, about `step_ms` here and now."""
    import torch

    square = torch.rand(96, 96)

    def work(n):
        for _ in range(n):
            torch.mm(square, square)

    work(2000)
    start = time.perf_counter()
    work(2000)
    n = max(1, round(2000 * step_ms / 1000 / (time.perf_counter() - start)))
    return lambda: work(n)


class Stopwatch:
    """Wall and processor time of the training thread at every step."""

    def __init__(self):
        self.at = []

    def on_step(self, run):
        self.at.append((time.perf_counter(), time.thread_time()))

    def per_step(self) -> tuple[float, float]:
        (wall, cpu), (wall_end, cpu_end) = self.at[10], self.at[-1]
        return (wall_end - wall) / (len(self.at) - 11), (cpu_end - cpu) / (len(self.at) - 11)


def pair(step_ms: float, steps: int, widget_first: bool) -> dict[str, tuple[float, float]]:
    """(wall, processor) seconds per step with and without the widget, in that order or the other."""
    import torch
    from common import toy

    from nenya_nb.training import fit
    from nenya_nb.widgets import LiveCurves

    algorithm, found = toy(calibrated(step_ms)), {}
    data = [([torch.zeros(1)] * 2, torch.zeros(1))] * (steps // 4)
    for with_widget in (widget_first, not widget_first):
        watch = Stopwatch()
        fit(
            algorithm,
            data,
            epochs=4,
            progress=False,
            callbacks=[watch, *([LiveCurves()] if with_widget else [])],
        )
        found["with" if with_widget else "without"] = watch.per_step()
    return found


def update_ms(length: int, repeats: int = 60) -> float:
    """Milliseconds of one update by 10 new rows when `length` rows are there already; median."""
    import torch
    from IPython.display import display

    from nenya_nb.training import History
    from nenya_nb.widgets import LiveCurves

    history, seconds = History(), []
    history.start_run(length, 2)
    display(LiveCurves(history))
    value = torch.tensor(1.0)
    for step in range(length):
        history.log(step, {"loss": value, "lr": 0.1})
    history.flush()
    for i in range(repeats):
        for step in range(length + 10 * i, length + 10 * i + 10):
            history.log(step, {"loss": value, "lr": 0.1})
        time.sleep(0.05)
        start = time.perf_counter()
        history.flush()
        seconds.append(time.perf_counter() - start)
    history.state = "finished"
    return 1000 * median(seconds)


def log_us(n: int = 20_000) -> float:
    """Microseconds of one `History.log` that does not flush."""
    import torch

    from nenya_nb.training import History

    history, value = History(), torch.tensor(1.0)
    start = time.perf_counter()
    for step in range(n):
        history.log(step, {"loss": value, "lr": 0.1})
    return 1e6 * (time.perf_counter() - start) / n


# ---- in the kernel: the peers -----------------------------------------------------------------------
def peer(name: str, length: int):
    """A function that redraws two curves of `length` points with one new point each."""
    import numpy as np

    x, y = np.arange(length), np.random.rand(2, length)
    if name == "matplotlib":
        import matplotlib.pyplot as plt
        from IPython.display import clear_output, display

        def update():
            clear_output(wait=True)
            figure, ax = plt.subplots()
            ax.plot(x, y[0]), ax.plot(x, y[1])
            display(figure)
            plt.close(figure)

    elif name == "livelossplot":
        from livelossplot import PlotLosses

        plot = PlotLosses()
        for row in y.T:
            plot.update({"loss": row[0], "lr": row[1]})

        def update():
            plot.update({"loss": 0.5, "lr": 0.5})
            plot.send()

    else:
        from fastprogress.fastprogress import master_bar

        bar = master_bar(range(10))
        next(iter(bar))

        def update():
            bar.update_graph([[x, y[0]], [x, y[1]]])

    return update


def peer_ms(name: str, length: int, repeats: int = 10) -> float | None:
    """Milliseconds of one redraw, median; None if the package is not there."""
    if importlib.util.find_spec(name) is None:
        return None
    update, seconds = peer(name, length), []
    update()
    for _ in range(repeats):
        start = time.perf_counter()
        update()
        seconds.append(time.perf_counter() - start)
    return 1000 * median(seconds)


# ---- outside ------------------------------------------------------------------------------------
def main() -> int:
    import common
    import lab

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=11, help="alternations per step length")
    pairs = parser.parse_args().pairs
    peers = common.set_aside("peers", "livelossplot", "fastprogress<1.1", "fastcore")
    setup = f"import json\nfrom {Path(__file__).stem} import *"
    result, rows, good = {"limit": LIMIT, "pairs": {}}, [], True
    with tempfile.TemporaryDirectory() as folder, lab.Chromium() as chromium:
        with lab.Server(Path(folder)) as server:
            server.add_kernel(
                "bench", PYTHONPATH=os.pathsep.join(str(p) for p in (HERE, peers) if p)
            )
            notebook = chromium.open(server, [setup, "ready = True"], kernel="bench")
            notebook.run(0, wait_s=120)

            def run(code: str, wait_s: float = 300):
                source = "s => lab.panel().content.widgets[1].model.sharedModel.setSource(s)"
                notebook.page.evaluate(source, f"result = {code}")
                notebook.run(1, wait_s=wait_s)
                if "Traceback" in notebook.output(1):
                    raise RuntimeError(notebook.output(1))
                return notebook.value("result")

            for step_ms, steps in STEPS.items():
                found = [run(f"pair({step_ms}, {steps}, {i % 2 == 0})") for i in range(pairs)]
                ratios = [[f["with"][k] / f["without"][k] for f in found] for k in (0, 1)]
                wall, cpu = map(median, ratios)
                good &= wall <= LIMIT
                real = 1000 * median(f["without"][0] for f in found)
                spread = f"{min(ratios[0]):.3f}–{max(ratios[0]):.3f}"
                rows.append([f"{step_ms} ms", f"{real:.2f}", f"{wall:.4f}", spread, f"{cpu:.4f}"])
                result["pairs"][f"{step_ms} ms"] = {
                    "wall_ratio": wall, "cpu_ratio": cpu, "wall_ratios": ratios[0], "cpu_ratios": ratios[1],
                }  # fmt: skip
            print(f"step time with LiveCurves / without, median of {pairs} pairs; limit {LIMIT}")
            head = ["torch step", "measured ms", "ratio", "range", "ratio of processor time"]
            print(common.table(rows, head))

            result["log_us"] = run("log_us()")
            print(f"\none History.log: {result['log_us']:.2f} µs")
            result["update_ms"] = {str(n): run(f"update_ms({n})") for n in LENGTHS}
            base = result["update_ms"][str(LENGTHS[0])]
            rows = [["LiveCurves", n, f"{ms:.2f}", f"{ms / base:.1f}"] for n, ms in
                    zip(LENGTHS, result["update_ms"].values(), strict=True)]  # fmt: skip
            result["peers_ms"] = {}
            for name in PEERS:
                for n in LENGTHS[:2]:
                    ms = run(f"peer_ms({name!r}, {n})")
                    result["peers_ms"].setdefault(name, {})[str(n)] = ms
                    cells = [f"{ms:.0f}", f"{ms / base:.0f}"] if ms else ["not installed", ""]
                    rows.append([name, n, *cells])
            print("\none update of two curves, beside the length of the history")
            print(common.table(rows, ["what", "points", "ms", "ratio"]))
            notebook.shutdown()
    growth = result["update_ms"][str(LENGTHS[-1])] / base
    good &= growth <= 1.5
    print(f"\nratios ≤ {LIMIT} and no growth with the history: {'met' if good else 'MISSED'}")
    packages = ("jupyterlab", "ipykernel", "anywidget", "matplotlib")
    common.save("live_overhead", result, *packages)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
