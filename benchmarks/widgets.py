"""How fast do the widgets draw? The architecture diagram: first paint, opening a group, many parts, panning, page size.
The live curves: frames while 8 x 100,000 points stream in, and one redraw of a million points.

Everything runs on stand-alone pages in headless Chromium. Times are of the page itself: from the call of `render`, or from
the click, to the second frame after it; a redraw of the curves is our own work alone, since it must fit into one frame.
Medians are judged, at the limits as they stand: close other programs. Beside it torchvista (the same question) and
torchview (a still graph); what an update of livelossplot and fastprogress costs stands in live_overhead.py."""

import argparse
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

import common

HERE = Path(__file__).parent
LIMITS = {
    "first paint, resnet50": 100, "first paint, resnet152": 200, "first paint, resnet1001": 200,
    "open a group of 60": 50, "500 parts": 250, "pan of 1,000 parts": 55, "page of resnet50": 150_000,
    "curves, 8 x 100,000 at 10 Hz": 55, "redraw a million, 8 panels": 16, "redraw a million, 1 panel": 16,
}  # fmt: skip  # ms; frames/s at least; bytes
PANE, LAYER = ".nnb-diagram .nnb-pane", ".nnb-diagram .nnb-layer"

# From the click on a part to the second frame after it.
OPEN = """async id => {
  const node = [...document.querySelectorAll('.nnb-node')].find(n => n.dataset.id === id);
  const start = performance.now();
  node.dispatchEvent(new MouseEvent('click', {bubbles: true}));
  const work = performance.now() - start;
  await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  return [work, performance.now() - start];
}"""


def synthetic(parts: int, shortcuts: bool = True) -> dict:
    """A graph with one group of `parts` layers: a chain, with a shortcut over every fourth layer and a branch at every tenth."""
    cost = {"params": 1000, "macs": 100_000, "bytes": 4000}
    shapes = {"shapes_in": [[1, 64, 56, 56]], "shapes_out": [[1, 64, 56, 56]]}

    def node(id, parent="", kind="module", role="conv", group=False):
        return {
            "id": id, "parent": parent, "kind": kind, "type": role.title(), "role": role, "label": id.split(".")[-1],
            "path": id, "code": f"model.{id}", "group": group, "signature": id, "detail": "", "doc": "", "source": "toy.py:1",
            "calls": 1, **cost, **shapes,
        }  # fmt: skip

    roles = ("conv", "norm", "activation", "pool", "linear")
    nodes = [node("input", kind="input"), node("g", role="stage", group=True)]
    nodes += [node(f"g.l{i}", "g", role=roles[i % 5]) for i in range(parts)]
    nodes += [node("output", kind="output")]
    shape, pairs = [1, 64, 56, 56], [("input", "g.l0"), (f"g.l{parts - 1}", "output")]
    for i in range(1, parts):
        pairs.append((f"g.l{i - 1}", f"g.l{i}"))
        if shortcuts and i % 4 == 3:
            pairs.append((f"g.l{i - 3}", f"g.l{i}"))
        if shortcuts and i % 10 == 5:
            pairs[-1 if i % 4 != 3 else -2] = (f"g.l{i - 2}", f"g.l{i}")  # beside the layer before
            pairs.append((f"g.l{i - 1}", f"g.l{min(i + 2, parts - 1)}"))
    edges = [{"from": a, "to": b, "shape": shape, "slot": 0} for a, b in pairs if a != b]
    totals = {name: value * parts for name, value in cost.items()}
    return {
        "version": 1, "name": "Synthetic", "inputs": ["input"], "outputs": ["output"], "nodes": nodes, "edges": edges,
        "unused": [], "notes": [], "complete": True, "totals": totals,
    }  # fmt: skip


def write_pages(folder: Path) -> dict[str, Path]:
    from torchvision.models import resnet50, resnet152

    from nenya_nb.models import resnet1001
    from nenya_nb.widgets.base import page, read_bundle
    from nenya_nb.widgets.diagram import ArchitectureDiagram

    pages = {}
    for make in (resnet50, resnet152, resnet1001):
        name = make.__name__
        pages[name] = ArchitectureDiagram(make(), [1, 3, 224, 224]).to_html(folder / f"{name}.html")
    for parts in (60, 500, 1000):
        state = {"graph": synthetic(parts), "height": 620}
        pages[str(parts)] = folder / f"{parts}.html"
        text = page(read_bundle("diagram.js"), read_bundle("diagram.css"), state)
        pages[str(parts)].write_text(text, encoding="utf-8")
    return pages


def opened(browser, path: Path):
    tab = browser.new_context(viewport={"width": 1200, "height": 900}).new_page()
    tab.goto(path.as_uri())
    tab.wait_for_selector(".nnb-diagram[data-ready]")
    return tab


def first_paint(browser, path: Path, repeats: int) -> list[float]:
    found = []
    for _ in range(repeats):
        tab = opened(browser, path)
        found.append(float(tab.locator(".nnb-diagram").get_attribute("data-paint")))
        tab.context.close()
    return found


def open_group(browser, path: Path, repeats: int) -> tuple[list[float], list[float]]:
    """(ms of our own work, ms to the second frame) of opening the group, each time on a fresh page."""
    work, frame = [], []
    for _ in range(repeats):
        tab = opened(browser, path)
        tab.wait_for_timeout(200)
        a, b = tab.evaluate(OPEN, "g")
        work.append(a)
        frame.append(b)
        tab.context.close()
    return work, frame


def pan(browser, path: Path) -> tuple[float, float]:
    """(frames per second, worst frame in ms) while the mouse drags the open group around."""
    tab = opened(browser, path)
    tab.evaluate(OPEN, "g")
    tab.keyboard.press("f")
    tab.click(".nnb-fit")
    tab.wait_for_timeout(500)

    def drag():
        tab.mouse.move(300, 500)
        tab.mouse.down()
        for i in range(120):
            tab.mouse.move(300 + 2 * (i % 60), 500 - 3 * (i % 60))
        tab.mouse.up()

    found = common.frames(tab, drag, LAYER, "style")
    tab.context.close()
    return found


# The live curves with a model of our own in place of the notebook's: it sends rows as the kernel would.
CURVES = """async ([esm, css, runs]) => {
  document.head.append(Object.assign(document.createElement('style'), {textContent: css}));
  const url = URL.createObjectURL(new Blob([esm], {type: 'text/javascript'}));
  const widget = (await import(url)).default, listeners = {};
  const noise = (n, k) => Float32Array.from({length: n}, (_, i) => 2 + Math.sin((i + k) / 4000) + ((i * 7919 + k) % 997) / 997);
  const pack = (start, n, metrics) => {  // one axis, then the values of each metric
    const bytes = new Uint8Array(8 * n + 4 * n * metrics.length);
    new Float64Array(bytes.buffer, 0, n).set(Float64Array.from({length: n}, (_, i) => start + i));
    metrics.forEach((_, k) => new Float32Array(bytes.buffer, 8 * n + 4 * n * k, n).set(noise(n, start + 31 * k)));
    return [{axes: [n], columns: metrics.map(name => [name, 0])}, bytes];
  };
  const snapshot = (n, metrics) => {
    const [layout, bytes] = pack(1, n, metrics);
    let text = JSON.stringify({run: 'r', seq: 0, layout, events: []});
    text += ' '.repeat((8 - (text.length + 4) % 8) % 8);
    const all = new Uint8Array(4 + text.length + bytes.length);
    new DataView(all.buffer).setUint32(0, text.length, true);
    all.set(new TextEncoder().encode(text), 4);
    all.set(bytes, 4 + text.length);
    return all;
  };
  const {metrics, points, beside} = runs;
  const state = {
    status: {run: 'r', name: 'streaming', state: 'running', total_steps: 2 * points, steps_per_epoch: 1000},
    snapshot: snapshot(points, metrics),
    others: Array.from({length: beside}, (_, k) => ({name: `run ${k}`, snapshot: snapshot(points, metrics)})),
  };
  const model = {
    get: name => state[name], set: (name, value) => { state[name] = value; }, save_changes() {}, send() {},
    on: (name, f) => { (listeners[name] ??= []).push(f); }, off() {},
  };
  const el = document.body.appendChild(document.createElement('div'));
  widget.render({model, el});
  let step = points + 1, seq = 1;
  window.more = n => {
    const [layout, bytes] = pack(step, n, metrics);
    step += n;
    for (const f of listeners['msg:custom'])
      f({kind: 'rows', run: 'r', seq: seq++, full: false, layout, events: []}, [new DataView(bytes.buffer)]);
  };
}"""
REDRAW = """async repeats => {
  const root = document.querySelector('.nnb-live'), costs = [], frames = [];
  const frame = () => new Promise(done => requestAnimationFrame(done));
  for (let i = 0; i < repeats; i++) {
    const drawn = root.dataset.frames;
    more(1);
    while (root.dataset.frames === drawn) await frame();
    costs.push(Number(root.dataset.cost));
    const start = performance.now();
    await frame();
    await frame();
    frames.push(performance.now() - start);
  }
  return [costs, frames];
}"""
METRICS = ["loss", "std", "lr", "images_per_s", "a", "b", "c", "d"]


def curves_page(browser, metrics: list[str], points: int, beside: int = 0):
    """A page with live curves: `points` of each metric, in the run and in those beside it."""
    from nenya_nb.widgets.base import read_bundle

    tab = browser.new_context(viewport={"width": 1200, "height": 900}).new_page()
    what = {"metrics": metrics, "points": points, "beside": beside}
    tab.evaluate(CURVES, [read_bundle("live_curves.js"), read_bundle("live_curves.css"), what])
    tab.wait_for_selector(f".nnb-live[data-points='{points * len(metrics)}']")
    tab.wait_for_timeout(300)
    return tab


def stream(browser, seconds: float = 4) -> tuple[float, float, float]:
    """(frames per second, worst frame in ms, ms of a redraw) while 8 metrics grow from 100,000 points at 10 Hz."""
    tab = curves_page(browser, METRICS, 100_000)
    tab.evaluate("() => { window.timer = setInterval(() => more(20), 100); }")
    tab.wait_for_timeout(500)
    wait = partial(tab.wait_for_timeout, 1000 * seconds)
    fps, worst = common.frames(tab, wait, ".nnb-live", "data-frames")
    cost = float(tab.locator(".nnb-live").get_attribute("data-cost"))
    tab.context.close()
    return fps, worst, cost


def redraw(browser, metrics: list[str], points: int, beside: int, repeats: int):
    """(ms of our own work, ms of the two frames after it), for each of `repeats` redraws of everything."""
    tab = curves_page(browser, metrics, points, beside)
    costs, frames = tab.evaluate(REDRAW, repeats)
    tab.context.close()
    return costs, frames


PEER = """
import sys, time, torch, torchvision
torch.set_num_threads(1)
model, x = torchvision.models.resnet50().eval(), torch.zeros(1, 3, 224, 224)
if sys.argv[1] == "torchvista":
    from torchvista import trace_model
    start = time.perf_counter()
    trace_model(model, x, export_path=sys.argv[2])
elif sys.argv[1] == "nenya_nb":
    from nenya_nb.widgets.diagram import ArchitectureDiagram
    start = time.perf_counter()
    ArchitectureDiagram(model, [1, 3, 224, 224]).to_html(sys.argv[2])
else:
    from torchview import draw_graph
    start = time.perf_counter()
    graph = draw_graph(model, input_data=x, device="cpu", expand_nested=True)
    open(sys.argv[2], "w").write(graph.visual_graph.source)
print(time.perf_counter() - start)
"""


SHOWN = {"nenya_nb": ".nnb-diagram[data-ready]", "torchvista": "svg g[class^=node_]"}
NEEDS = {
    "nenya_nb": [],
    "torchvista": ["torchvista==0.2.13"],
    "torchview": ["torchview==0.2.7", "graphviz"],
}


def loading(browser, file: Path, selector: str) -> float | None:
    """Milliseconds from opening a page to the second frame with parts on it."""
    tab = browser.new_context(viewport={"width": 1200, "height": 900}).new_page()
    try:
        tab.goto(file.as_uri(), wait_until="commit")
        tab.wait_for_selector(selector, state="attached", timeout=20_000)
        frames = "() => new Promise(d => requestAnimationFrame(() => requestAnimationFrame(() => d(performance.now()))))"
        return tab.evaluate(frames)
    except Exception as error:  # a peer's page may change with its version
        print(f"{file.stem}: {str(error).splitlines()[0]}")
        return None
    finally:
        tab.context.close()


def side_by_side(folder: Path, browser, repeats: int) -> dict[str, dict]:
    """Of ResNet-50: seconds in Python (a process of its own, imports left out), bytes of the file, ms to load it."""
    found = {}
    for name, needs in NEEDS.items():
        aside = common.set_aside(name, *needs) if needs else None
        if needs and aside is None:
            continue
        file = folder / f"{name}.html"
        env = os.environ | ({"PYTHONPATH": str(aside)} if aside else {})
        command = [sys.executable, "-c", PEER, name, str(file)]
        done = subprocess.run(command, env=env, text=True, capture_output=True)
        if done.returncode or not file.exists():
            print(f"{name}: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
            continue
        found[name] = {"python_s": float(done.stdout.split()[-1]), "bytes": file.stat().st_size}
        if name in SHOWN:
            times = [loading(browser, file, SHOWN[name]) for _ in range(repeats)]
            found[name]["page_ms"] = median(times) if None not in times else None
    return found


def main() -> int:
    import lab
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    n, result, rows = options.repeats, {}, []
    with tempfile.TemporaryDirectory() as temporary, lab.Chromium() as chromium:
        folder = Path(temporary)
        pages, browser = write_pages(folder), chromium.browser

        def report(name: str, value: float, note: str = "", least: bool = False) -> bool:
            limit = LIMITS[name]
            good = value >= limit if least else value <= limit
            result[name] = {"value": value, "limit": limit, "met": good}
            sign, verdict = "≥" if least else "≤", "met" if good else "MISSED"
            rows.append([name, f"{value:,.0f}", f"{sign} {limit:,}", verdict, note])
            return good

        good = True
        for name in ("resnet50", "resnet152", "resnet1001"):
            times = first_paint(browser, pages[name], n)
            good &= report(
                f"first paint, {name}", median(times), f"ms, {min(times):.0f}–{max(times):.0f}"
            )
        for name, parts in (("open a group of 60", "60"), ("500 parts", "500")):
            work, frame = open_group(browser, pages[parts], n)
            note = f"ms to the second frame, of which {median(work):.0f} ms are our own work"
            good &= report(name, median(frame), note)
            result[name]["work_ms"] = median(work)
        fps, worst = pan(browser, pages["1000"])
        good &= report(
            "pan of 1,000 parts", fps, f"frames/s, worst frame {worst:.0f} ms", least=True
        )
        result["pan of 1,000 parts"]["worst_ms"] = worst
        good &= report("page of resnet50", pages["resnet50"].stat().st_size, "bytes")
        fps, worst, cost = stream(browser)
        name = "curves, 8 x 100,000 at 10 Hz"
        note = f"frames/s, worst frame {worst:.0f} ms, {cost:.1f} ms a redraw"
        good &= report(name, fps, note, least=True)
        result[name] |= {"worst_ms": worst, "redraw_ms": cost}
        for name, metrics, beside in (("8 panels", METRICS, 0), ("1 panel", METRICS[:1], 7)):
            name = f"redraw a million, {name}"
            work, frames = redraw(browser, metrics, 125_000, beside, 5 * n)
            note = f"ms of our own work; {median(frames):.0f} ms to the second frame after"
            good &= report(name, median(work), note)
            result[name]["frames_ms"] = median(frames)
        print(common.table(rows, ["what", "value", "limit", "verdict", "unit"]))
        if not options.no_peers:
            result["peers"] = side_by_side(folder, browser, n)
            lines = [[name, f"{v['python_s']:.2f}", f"{v['bytes']:,}", f"{v['page_ms']:.0f}" if v.get("page_ms") else "–"]
                     for name, v in result["peers"].items()]  # fmt: skip
            print("\nResNet-50: Python, file, and loading the page until parts are on it")
            print(common.table(lines, ["package", "s", "bytes", "ms"]))
    common.save("widgets", result, "anywidget", "torchvision")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
