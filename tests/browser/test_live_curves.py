"""LiveCurves and fit in a real JupyterLab: curves move, handles work, nothing is lost.

The step times are taken in the kernel and the click times in the browser, on one machine's clock."""

import lab
import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timed]

LIVE, PAUSE, STOP = ".nnb-live", ".nnb-live .nnb-pause", ".nnb-live .nnb-stop"
STEP = 0.02  # s of the toy's step
REACTION = 0.5  # s from a click to its effect

SETUP = f"""
import time
import torch
from torch import nn
from nenya_nb.training import fit
from nenya_nb.widgets import LiveCurves

class Toy(nn.Module):
    views = "two_views"

    def __init__(self, seconds={STEP}):
        super().__init__()
        self.weight, self.seconds = nn.Parameter(torch.ones(2)), seconds

    def forward(self, views, targets=None, mode="tensor"):
        time.sleep(self.seconds)
        loss = (self.weight**2).sum() + 0.1 * torch.rand(())
        return {{"loss": loss, "std": loss.detach().sqrt().clamp(max=1)}}

    def before_step(self, clock): ...
    def after_step(self, clock): ...
    def on_epoch_start(self, loader, clock): ...

class Times:
    "Keeps when each step ended."
    def __init__(self): self.at = []
    def on_step(self, run): self.at.append(time.time())

data = [([torch.zeros(2, 3, 8, 8)] * 2, torch.zeros(2))] * 100
times = Times()

def train(*callbacks, epochs=100, **options):
    return fit(
        Toy(), data, epochs=epochs, lr=0.01, warmup_epochs=0, callbacks=[times, *callbacks], **options
    )

def points(history):
    return sum(len(steps) for steps, _ in history.columns().values())
"""
TRAIN = """
curves = LiveCurves()
history = train(curves)
ended = time.time()
"""
# Every title stands above its number (the host page has style rules of its own).
NO_OVERLAP = """live => { const pairs = [...document.querySelectorAll(`${live} .nnb-out`)];
  return pairs.length > 0 && pairs.every(pair => {
    const [title, number] = [...pair.children].map(child => child.getBoundingClientRect());
    return title.bottom <= number.top + 1 && title.right <= pair.getBoundingClientRect().right + 1;
  }); }"""
AFTER = "print('alive', history.state, len(times.at) == history.step)"


def start(open_notebook, *cells, **options) -> lab.Notebook:
    """Opens SETUP and `cells`, and starts cell 1."""
    nb = open_notebook([SETUP, *cells], **options)
    nb.run(0, wait_s=120)
    assert nb.output(0) == ""
    nb.run(1)
    nb.wait(f"{LIVE}[data-ready]")
    return nb


def under_way(nb: lab.Notebook, points: int = 60) -> None:
    nb.wait_data(LIVE, "state", "v === 'running'")
    nb.wait_data(LIVE, "points", f"n >= {points}")


def busy(nb: lab.Notebook, cell: int = 1) -> bool:
    return nb.prompt(cell) == "[*]:"


def stop(nb: lab.Notebook, cell: int = 1) -> None:
    nb.click(STOP)
    nb.wait_done(cell, 10)


def all_there(nb: lab.Notebook) -> None:
    """The page has every point that the kernel has."""
    nb.show(LIVE)
    nb.wait_data(LIVE, "points", f"n === {nb.value('points(history)')}", timeout_s=5)


def reaches_the_right(nb: lab.Notebook, panel: str) -> bool:
    """The newest tenth of the panel has pixels in the curve's colour: nothing runs off the scale."""
    return nb.page.evaluate(
        """([live, panel]) => {
          const root = document.querySelector(live), probe = document.createElement('i');
          const canvas = root.querySelector(`[data-panel=${panel}] canvas`);
          root.append(probe);
          probe.style.color = 'var(--nnb-series-1)';
          const colour = getComputedStyle(probe).color.match(/\\d+/g).map(Number);
          probe.remove();
          const left = Math.round(0.87 * canvas.width), width = Math.round(0.1 * canvas.width);
          const data = canvas.getContext('2d').getImageData(left, 0, width, canvas.height).data;
          let found = 0;
          for (let i = 0; i < data.length; i += 4)
            found += data[i + 3] > 128 && colour.every((c, k) => Math.abs(c - data[i + k]) < 40);
          return found > width / 4;
        }""",
        [LIVE, panel],
    )


def test_curves_move_while_an_ordinary_cell_trains(open_notebook):
    nb = start(open_notebook, TRAIN, AFTER)
    nb.watch(LIVE, "points")
    under_way(nb)
    ink = nb.ink(f"{LIVE} [data-panel=loss]")
    assert ink > 100
    nb.page.wait_for_function("() => lab.seen.length > 21")
    assert busy(nb)
    numbers = [int(value) for _, value in nb.seen()]
    assert numbers == sorted(numbers) and nb.ink(f"{LIVE} [data-panel=loss]") != ink
    assert all(reaches_the_right(nb, panel) for panel in ("loss", "std", "lr"))
    stop(nb)
    all_there(nb)
    nb.run(2, wait_s=10)
    assert nb.output(2) == "alive stopped True"


def test_pause_resume_and_stop_take_effect_at_once(open_notebook):
    nb = start(open_notebook, TRAIN, AFTER)
    under_way(nb)
    paused = nb.click(PAUSE)
    nb.wait_data(LIVE, "state", "v === 'paused'", 2)
    nb.page.wait_for_timeout(1500)
    assert busy(nb)
    resumed = nb.click(PAUSE)
    nb.wait_data(LIVE, "state", "v === 'running'", 2)
    nb.page.wait_for_timeout(1000)
    stopped = nb.click(STOP)
    nb.wait_done(1, 10)
    nb.wait_data(LIVE, "state", "v === 'stopped'", 2)
    nb.run(2, wait_s=10)
    assert nb.output(2) == "alive stopped True"
    at, ended = nb.value("times.at"), nb.value("ended")
    gap = max(zip(at, at[1:], strict=False), key=lambda pair: pair[1] - pair[0])
    assert gap[0] - paused < REACTION and gap[1] - gap[0] > 1.4
    assert 0 < gap[1] - resumed < REACTION
    assert 0 < ended - stopped < REACTION + STEP
    kinds = nb.value("[event['kind'] for event in history.events]")
    assert [k for k in kinds if k in ("pause", "resume", "stop")] == ["pause", "resume", "stop"]


def test_learning_rate_slider_changes_lr(open_notebook):
    nb = start(open_notebook, TRAIN, AFTER)
    under_way(nb)
    slider = nb.page.locator(f"{LIVE} .nnb-rate input[type=range]")
    slider.focus()
    slider.press("End")
    nb.page.wait_for_timeout(1000)
    assert busy(nb)
    stop(nb)
    lr = nb.value("history.columns()['lr'][1].tolist()")
    ratio = max(b / a for a, b in zip(lr, lr[1:], strict=False))
    assert ratio == pytest.approx(10, rel=0.01)
    assert "lr" in nb.value("[event['kind'] for event in history.events]")


def test_toolbar_interrupt_ends_cleanly_and_keeps_the_history(open_notebook):
    nb = start(open_notebook, TRAIN, AFTER)
    under_way(nb)
    nb.interrupt()
    nb.wait_done(1, 5)
    assert "Traceback" not in nb.output(1)
    nb.run(2, wait_s=10)
    assert nb.output(2) == "alive stopped True"
    assert nb.value("history.step") > 10
    all_there(nb)


def test_reload_during_a_cell_shows_the_whole_history_at_its_end(open_notebook):
    nb = start(open_notebook, TRAIN.replace("train(curves)", "train(curves, epochs=6)"), AFTER)
    under_way(nb)
    nb.reload(wait_kernel=False)
    nb.wait_kernel()
    assert nb.value("(history.state, history.step)") == ("finished", 600)
    nb.wait(f"{LIVE}[data-ready]")
    all_there(nb)
    nb.wait_data(LIVE, "state", "v === 'finished'")


def test_reload_during_a_background_run_shows_the_whole_history_at_once(open_notebook):
    background = TRAIN.replace("train(curves)", "train(curves, background=True)")
    nb = start(open_notebook, background, "history.control.stop(); history.join()", AFTER)
    under_way(nb)
    nb.reload()
    before = nb.value("points(history)")
    nb.wait_data(LIVE, "points", f"n >= {before}", timeout_s=10)
    nb.watch(LIVE, "points")
    nb.page.wait_for_function("() => lab.seen.length > 5")
    nb.wait_data(LIVE, "state", "v === 'running'")
    clicked = nb.click(STOP)
    nb.wait_data(LIVE, "state", "v === 'stopped'", 5)
    nb.run(2, wait_s=10)
    all_there(nb)
    nb.run(3, wait_s=10)
    assert nb.output(3) == "alive stopped True"
    assert nb.value("times.at[-1]") - clicked < REACTION + STEP


def test_a_second_view_shows_the_same_history(open_notebook):
    nb = start(open_notebook, TRAIN, "curves", AFTER)
    under_way(nb)
    stop(nb)
    nb.run(2, wait_s=10)
    nb.page.wait_for_function(f"() => document.querySelectorAll('{LIVE}[data-ready]').length == 2")
    all_there(nb)
    same = f"""() => {{ const [a, b] = document.querySelectorAll('{LIVE}');
                        return a.dataset.points === b.dataset.points; }}"""
    nb.page.wait_for_function(same)


@pytest.mark.parametrize("rungs", ["control", "comm", "comm+subshell", "interrupt"])
def test_each_road_stops_a_run_alone(open_notebook, rungs):
    # An ordinary message waits for the cell's end in most kernels: there, train in the background.
    train = f"""
curves = LiveCurves(rungs={rungs.split("+")})
history = train(curves, background={rungs == "comm"})
"""
    nb = start(open_notebook, train, "history.join()", AFTER)
    under_way(nb)
    clicked = nb.click(STOP)
    if rungs == "comm+subshell" and not nb.value(
        "hasattr(curves.comm, '_reply_subshell_for')", 300
    ):
        pytest.skip("this ipykernel routes comms in another way")
    nb.wait_data(LIVE, "state", "v === 'stopped'", 5)
    nb.wait_done(1, 5)
    nb.run(2, wait_s=10)
    nb.run(3, wait_s=10)
    assert nb.output(3) == "alive stopped True"
    patience = 0.7 if rungs == "interrupt" else 0  # s that the widget first waits for an answer
    assert nb.value("times.at[-1]") - clicked < patience + REACTION + STEP


def test_the_view_is_shared_with_python(open_notebook):
    overlay = """
curves = LiveCurves(beside=[train(epochs=1, progress=False)])
history = train(curves, epochs=2)
"""
    nb = start(open_notebook, overlay, "curves.smoothing, curves.x_range = 0.5, [50, 120]", AFTER)
    nb.wait_data(LIVE, "state", "v === 'finished'")
    nb.wait_done(1, 10)
    assert nb.data(LIVE, "runs") == "2"
    nb.run(2, wait_s=10)
    weight = nb.page.locator(f"{LIVE} .nnb-smoothing input")
    nb.page.wait_for_function("node => node.value === '0.5'", arg=weight.element_handle())
    assert nb.page.locator(f"{LIVE} .nnb-unzoom").is_visible()
    weight.focus()
    weight.press("End")
    nb.click(f"{LIVE} .nnb-unzoom")
    nb.click(f"{LIVE} [data-axis=epoch]")
    nb.click(f"{LIVE} .nnb-run >> nth=1")
    seen = ("epoch", 0.99, [], ["run 2"])
    wanted = "(curves.x_axis, curves.smoothing, curves.x_range, curves.hidden)"
    nb.page.wait_for_timeout(500)
    assert nb.value(wanted) == seen and nb.value("curves.names") == ["run", "run 2"]
    nb.show(LIVE)
    assert nb.ink(f"{LIVE} [data-panel=loss]") > 100


def test_restarted_kernel_leaves_a_clear_message(open_notebook):
    nb = start(open_notebook, TRAIN, AFTER)
    under_way(nb)
    nb.restart_kernel()
    assert nb.page.locator(LIVE).count() == 1
    text = nb.page.locator(LIVE).inner_text()
    assert "Not connected" in text and "Run the cell again" in text
    assert nb.page.locator(STOP).is_disabled() and nb.page.locator(PAUSE).is_disabled()
    nb.screenshot("live-curves-restarted", LIVE)


def test_looks_right_in_both_themes_and_widths(open_notebook):
    nb = start(open_notebook, TRAIN, AFTER)
    under_way(nb, points=600)
    for theme in lab.THEMES:
        nb.theme(theme)
        for width, size in {"wide": lab.WIDE, "narrow": lab.NARROW}.items():
            nb.resize(size)
            nb.screenshot(f"live-curves-{theme}-{width}", LIVE)
            assert nb.ink(f"{LIVE} [data-panel=loss]") > 100
            assert nb.page.locator(LIVE).bounding_box()["width"] <= size[0]
            assert nb.page.evaluate(NO_OVERLAP, LIVE)
    assert busy(nb)
    nb.resize(lab.WIDE)
    stop(nb)
