"""What one can do with curves on a page: point, zoom, hide, smooth, change the axes, take files away."""

import csv
import io
import re
import struct

import numpy as np
import pytest

from nenya_nb.training import History
from nenya_nb.widgets import LiveCurves

pytestmark = pytest.mark.browser

LIVE = ".nnb-live"
EVIL = "<img src=x onerror=document.title='broken'>"


def run(name: str, steps: int, spike: int = 0, gpu: bool = False) -> History:
    """A run whose loss is 10 - step/100 and 50 at `spike`; times are half the steps."""
    history = History(name)
    history.start_run(100, 4, batch_size=32)
    for step in range(1, steps + 1):
        loss = 50 if step == spike else 10 - step / 100
        history.log(step, {"loss": loss, "std": 0.9, "signed": step - 10.0})
        if gpu and step % 50 == 0:
            gauges = {"gpu_util": 80, "gpu_mem": 4000, "gpu_temp": 61, "gpu_power": 200}
            history.log(step, gauges | {"cpu_util": 20, "ram": 900})
        if step == 200:
            history.event("lr", "learning rate × 0.5")
    history.flush()
    times = history.columns()["time"][0]
    history.set_columns(history.columns() | {"time": (times, times / 2)})
    history.state = "finished"
    return history


@pytest.fixture
def open_curves(open_page, tmp_path):
    """Opens live curves as a page, in view and drawn."""

    def open_(curves, **options):
        page = open_page(curves.to_html(tmp_path / "curves.html"), **options)
        page.wait_for_selector(f"{LIVE}[data-ready]")
        page.wait_for_timeout(100)
        return page

    return open_


def at(page, panel: str, share: float) -> tuple[float, float]:
    """The place on the page that is `share` of the way along a panel's axis (margins as in chart.js)."""
    box = page.locator(f"[data-panel={panel}] .nnb-chart").bounding_box()
    return box["x"] + 52 + share * (box["width"] - 62), box["y"] + 70


def shown(page, panel: str) -> str:
    return page.locator(f"[data-panel='{panel}'] .nnb-panel-summary").inner_text()


def axis_values(page, panel: str) -> list[str]:
    """The values that stand on the axis of a panel while one points, from top to bottom."""
    return page.locator(f"[data-panel='{panel}'] .nnb-tags span").all_inner_texts()


def low_high(page) -> list[float]:
    """The ends of the axis, as the loss panel has them."""
    chart = page.locator("[data-panel=loss] .nnb-chart")
    chart.focus()
    ends = []
    page.wait_for_timeout(60)  # until it is drawn
    for key in ("Home", "End"):
        chart.press(key)
        ends.append(float(chart.get_attribute("aria-valuenow")))
    return ends


def test_pointing_shows_the_same_place_in_all_panels(open_curves):
    page = open_curves(LiveCurves(run("now", 400), beside=[run(EVIL, 200), run("flat", 300, 10)]))
    x, y = at(page, "loss", 0.5)
    page.mouse.move(x, y)
    event, place = (page.locator(f"[data-panel=loss] .nnb-{kind}") for kind in ("event", "place"))
    assert "learning rate × 0.5 · step 200" in event.inner_text()
    assert place.inner_text() == "step 200"
    assert axis_values(page, "loss") == ["8.00"] * 3, "all runs at step 200"
    assert axis_values(page, "std") == ["0.900"] * 3 and "0.900" in shown(page, "std"), "linked"
    assert page.locator("[data-panel=std] .nnb-place").inner_text() == "step 200"
    cross = "[data-panel=std] .nnb-cross"
    assert page.evaluate("s => document.querySelector(s).style.opacity", cross) == "1"
    apart = "s => [...document.querySelectorAll(s)].map(e => e.getBoundingClientRect().top)"
    tops = sorted(page.evaluate(apart, "[data-panel=std] .nnb-tags span"))
    assert all(b - a >= 15 for a, b in zip(tops, tops[1:], strict=False)), "none covers another"
    page.mouse.move(*at(page, "loss", 0.9))
    assert axis_values(page, "loss") == ["6.40"], "the other runs are over there"
    assert re.match(r"6\.40\s*now", shown(page, "loss"))
    page.mouse.move(5, 5)
    assert "lowest" in shown(page, "loss")
    for one in (event, place, page.locator(".nnb-tags span")):
        assert not one.first.is_visible()
    assert page.locator("img").count() == 0


def test_the_line_and_the_legend_name_the_nearest_curve(open_curves):
    low = run("low", 400)
    steps, values = low.columns()["loss"]
    low.set_columns(low.columns() | {"loss": (steps, values - 4)})
    page = open_curves(LiveCurves(run("high", 400), beside=[low]))
    box = page.locator("[data-panel=loss] .nnb-chart").bounding_box()
    for share, name in ((0.05, "high"), (0.85, "low")):
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + share * box["height"])
        assert shown(page, "loss").endswith(name) and shown(page, "std").endswith(name)
        assert page.locator(".nnb-run.nnb-near").inner_text() == name
        assert page.locator("[data-panel=loss] .nnb-tags .nnb-near").count() == 1


def test_dragging_zooms_every_panel_and_the_values_follow(open_curves):
    page = open_curves(LiveCurves(run("now", 400, spike=50)))
    page.mouse.move(*at(page, "std", 0.5))
    page.mouse.down()
    page.mouse.move(*at(page, "std", 0.75), steps=4)
    page.mouse.up()
    low, high = low_high(page)
    assert low == pytest.approx(200, abs=3) and high == pytest.approx(300, abs=3)
    assert page.locator(".nnb-unzoom").is_visible()
    chart = page.locator("[data-panel=loss] .nnb-chart")
    chart.press("+")
    assert low_high(page)[0] >= low
    chart.press("Escape")
    assert low_high(page) == [0, 400] and not page.locator(".nnb-unzoom").is_visible()
    x, y = at(page, "loss", 0.3)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y, steps=3)
    page.mouse.up()
    assert low_high(page)[1] < 250
    page.mouse.dblclick(x, y)
    assert low_high(page) == [0, 400]


def test_everything_works_by_keys_and_is_said(open_curves):
    page = open_curves(LiveCurves(run("now", 400), beside=[run("then", 300)]))
    chart = page.locator("[data-panel=loss] .nnb-chart")
    chart.focus()
    chart.press("PageDown")
    said = chart.get_attribute("aria-valuetext")
    assert said.startswith("step 200") and "now: 8.00" in said and "then: 8.00" in said
    assert "learning rate × 0.5" in said
    chart.press("ArrowRight")
    assert chart.get_attribute("aria-valuenow") == "204"
    chart.press("Shift+ArrowLeft")
    assert chart.get_attribute("aria-valuenow") == "164"
    legend = page.locator(".nnb-run >> nth=1")
    legend.focus()
    legend.press("Enter")
    page.wait_for_selector(".nnb-run[aria-pressed=false]")
    assert legend.get_attribute("aria-pressed") == "false"
    assert page.evaluate("document.activeElement.classList.contains('nnb-run')"), "focus stays"
    chart.focus()
    chart.press("Home")
    assert "then" not in chart.get_attribute("aria-valuetext")
    page.locator(".nnb-save").press("Enter")
    assert page.locator(".nnb-menu").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator(".nnb-menu").is_visible()


def test_axes_and_smoothing(open_curves):
    page = open_curves(LiveCurves(run("now", 400)), viewport={"width": 900, "height": 700})
    for axis, high, words in [
        ("epoch", 4, "epoch 4"), ("time", 200, "3 min 20 s"), ("images", 12_800, "12.8k images")
    ]:  # fmt: skip
        page.click(f"[data-axis={axis}]")
        assert low_high(page) == [0, high]
        assert words in page.locator("[data-panel=loss] .nnb-chart").get_attribute("aria-valuetext")
    page.click("[data-axis=step]")
    page.click("[data-panel='metric:signed'] .nnb-toggle")
    note = page.locator("[data-panel='metric:signed'] .nnb-note")
    note.wait_for()
    assert note.inner_text() == "10 values ≤ 0 not shown on a logarithmic axis"
    page.click(".nnb-over .nnb-toggle")
    assert low_high(page) == [1, 400]
    weight = page.locator(".nnb-smoothing input")
    weight.focus()
    weight.press("End")
    page.locator("[data-panel=loss] .nnb-chart").focus()
    page.keyboard.press("End")
    page.wait_for_timeout(100)
    value, raw = re.search(r"(\S+) \((\S+)\)", shown(page, "loss")).groups()
    assert float(raw) == 6 and float(value) == pytest.approx(6.9, abs=0.3), "a hundred steps late"


def test_a_logarithmic_axis_that_python_made_can_be_undone(open_curves):
    history = run("now", 10)
    history.set_columns(history.columns() | {"knn": (np.array([1.0, 9.0]), np.array([0.1, 0.9]))})
    page = open_curves(LiveCurves(history, log_y=["knn"]))
    button = page.locator("[data-panel=knn] .nnb-toggle")
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    button.wait_for(state="hidden")


def test_gauges_are_there_when_the_driver_tells(open_curves, tmp_path):
    page = open_curves(LiveCurves(run("now", 100)))
    assert not page.locator(".nnb-group").is_visible()
    page = open_curves(LiveCurves(run("now", 100, gpu=True)))
    group = page.locator(".nnb-group")
    for text in ("GPU use", "80 %", "GPU memory", "3.9 GiB", "61 °C", "200 W", "20 %", "900 MiB"):
        assert text in group.inner_text()


def saved(page, kind: str, panel: str = "") -> tuple[str, bytes]:
    page.click(".nnb-save")
    page.select_option(".nnb-menu select", panel)
    with page.expect_download() as waiting:
        page.click(f"[data-save={kind}]")
    return waiting.value.suggested_filename, waiting.value.path().read_bytes()


def test_numbers_and_pictures_can_be_taken_away(open_curves, tmp_path):
    now = run("now", 400, spike=50)
    page = open_curves(LiveCurves(now))
    name, data = saved(page, "csv")
    assert name == "now.csv"
    (tmp_path / name).write_bytes(data)
    columns = History.from_csv(tmp_path / name).columns()
    for metric in ("loss", "std", "signed", "time"):
        steps, values = now.columns()[metric]
        assert np.array_equal(columns[metric][0], steps)
        assert np.array_equal(columns[metric][1].astype("f4"), values.astype("f4"))

    # a click on empty ground closes the menu
    page.click(".nnb-save")
    assert not page.locator(".nnb-menu small").is_visible(), "nothing was thinned out"
    box = page.locator(".nnb-outs").bounding_box()
    page.mouse.click(box["x"] + 2, box["y"] + 2)
    page.wait_for_selector(".nnb-menu", state="hidden")

    page = open_curves(LiveCurves(now, beside=[run(EVIL, 300)], x_range=[100, 110]))
    name, data = saved(page, "csv", "loss")
    rows = list(csv.DictReader(io.StringIO(data.decode())))
    assert name == "now-loss.csv" and list(rows[0]) == ["run", "step", "time", "loss"]
    assert [row["run"] for row in rows] == ["now"] * 11 + [EVIL] * 11
    name, data = saved(page, "png")
    width, height = struct.unpack(">II", data[16:24])
    assert data.startswith(b"\x89PNG") and width > 1000 and height > 400
    _, data = saved(page, "svg")
    text = data.decode()
    assert text.startswith("<svg") and "&lt;img" in text and "<img" not in text
    assert "Embedding spread" in text and "NaN" not in text
    assert "Embedding spread" not in saved(page, "svg", "loss")[1].decode()


def test_a_page_of_recorded_runs(open_curves, tmp_path):
    files = [run(name, 300).to_csv(tmp_path / f"{name}.csv") for name in ("one", "two")]
    page = open_curves(
        LiveCurves.from_csv(*files, hidden=["one"]), viewport={"width": 380, "height": 800}
    )
    assert page.locator(LIVE).get_attribute("data-state") == "recorded"
    assert page.locator(".nnb-chip").inner_text() == "Recorded"
    assert page.locator(".nnb-run[aria-pressed=false]").inner_text() == "one"
    assert page.locator("[data-axis=epoch]").is_disabled(), "a lone CSV knows no epochs"
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
