"""What the benchmarks share: tables, dated results, packages set aside, and the harness of the tests."""

import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median, quantiles

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "browser"))  # for `import lab`
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "nenya_nb-benchmarks"


def device() -> str:
    """The processor and, if there is one, the GPU, in words."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [x.split(":", 1)[1].strip() for x in cpuinfo.read_text().splitlines()
                  if x.startswith("model name")]  # fmt: skip
        name = models[0] if models else name
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}, {os.cpu_count()} cores{gpu}"


def versions(*names: str) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def set_aside(name: str, *requirements: str) -> Path | None:
    """Installs `requirements` without their dependencies into a folder of their own, once.

    Returns the folder, to be put on PYTHONPATH, or None if it cannot be installed."""
    folder = CACHE / f"{name}-py{sys.version_info.major}{sys.version_info.minor}"
    if not (folder / "complete").exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--no-deps"]
        done = subprocess.run([*command, "--target", str(folder), *requirements])
        if done.returncode:
            return None
        (folder / "complete").touch()
    return folder


def toy(spend):
    """An algorithm for `fit` whose step is a call of `spend()` and next to nothing else."""
    torch.set_num_threads(1)

    class Toy(torch.nn.Module):
        views = "two_views"

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(2))

        def forward(self, views, targets=None, mode="tensor"):
            spend()
            loss = (self.weight**2).sum()
            return {"loss": loss, "std": loss.detach()}

        def before_step(self, clock): ...
        def after_step(self, clock): ...
        def on_epoch_start(self, loader, clock): ...

    return Toy()


# Frames of the page, each with how often an attribute had been set by then.
_FRAMES = """([node, attribute]) => { window.frames_ = []; window.on_ = true; window.set_ = 0; let last = performance.now();
  const tick = now => { frames_.push([now - last, set_]); last = now; if (on_) requestAnimationFrame(tick); };
  window.eye_ = new MutationObserver(list => { set_ += list.length; });
  eye_.observe(document.querySelector(node), {attributeFilter: [attribute]});
  requestAnimationFrame(tick); }"""


def frames(tab, act, node: str, attribute: str) -> tuple[float, float]:
    """(frames per second, worst frame in ms) of the frames with a new picture, and those after them, while `act()` goes on.

    A page that does nothing has the best frames, and a film rests between its pictures. So only these count: `attribute` of
    the element `node` is set by each new picture. RuntimeError if there were fewer than 20."""
    tab.evaluate(_FRAMES, [node, attribute])
    act()
    found = tab.evaluate("() => { on_ = false; eye_.disconnect(); return frames_.slice(2); }")
    sets = [count for _, count in found]
    new = {i for i in range(1, len(found)) if sets[i] > sets[i - 1]}
    if len(new) < 20:
        raise RuntimeError(
            f"{node} was drawn {len(new)} times in {len(found)} frames: nothing moved"
        )
    moving = [ms for i, (ms, _) in enumerate(found) if new & {i, i - 1}]
    return 1000 * len(moving) / sum(moving), max(moving)


def p95(values: list[float]) -> float:
    return quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]


def summary(values: list[float]) -> dict[str, float]:
    return {"n": len(values), "median": median(values), "p95": p95(values), "max": max(values)}


def table(rows: list[list], header: list[str]) -> str:
    """Columns side by side; numbers to the right."""
    cells = [header, *([f"{c:.3g}" if isinstance(c, float) else str(c) for c in r] for r in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numeric = [all(isinstance(r[i], int | float) for r in rows) for i in range(len(header))]
    lines = []
    for row in cells:
        pairs = zip(row, widths, numeric, strict=True)
        lines.append("  ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in pairs).rstrip())
    return "\n".join(lines)


def save(name: str, result: dict, *packages: str) -> Path:
    """Writes benchmarks/results/`name`-DATE-PLACE.json with the device and the versions."""
    place = "gpu" if torch.cuda.is_available() else "cpu"
    path = HERE / "results" / f"{name}-{time.strftime('%Y-%m-%d')}-{place}.json"
    path.parent.mkdir(exist_ok=True)
    head = {"benchmark": name, "date": time.strftime("%Y-%m-%d"), "device": device()}
    head["load_average"] = os.getloadavg()[0]  # of the last minute: how busy the machine was
    head["versions"] = versions("nenya_nb", "torch", *packages)
    path.write_text(json.dumps(head | result, indent=1) + "\n")
    return path
