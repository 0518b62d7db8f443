"""Stand-alone pages of widgets (`to_html`): they work from a file, without network, under their strict policy."""

import numpy as np
import pytest

from nenya_nb.training import History
from nenya_nb.widgets import LiveCurves

pytestmark = pytest.mark.browser

LIVE, EVIL = ".nnb-live", "</script><img src=x onerror=document.title='broken'>"


@pytest.fixture
def curves():
    history = History(EVIL)
    history.start_run(100, 3)
    for step in range(300):
        history.log(
            step, {"loss": float(np.exp(-step / 100)), "std": 0.9, "lr": 1e-3, EVIL: float(step)}
        )
    history.event("checkpoint", EVIL)
    history.flush()
    history.state = "finished"
    return LiveCurves(history)


def test_page_shows_every_point_and_no_buttons(curves, open_page, tmp_path):
    page = open_page(curves.to_html(tmp_path / "page.html"))
    page.wait_for_selector(f"{LIVE}[data-points='1500']")  # loss, std, lr, time, and the odd one
    assert page.locator(LIVE).get_attribute("data-state") == "finished"
    assert page.locator(f"{LIVE} canvas").count() == 4
    assert not page.locator(f"{LIVE} .nnb-stop").is_visible()


def test_names_stay_text(curves, open_page, tmp_path):
    page = open_page(curves.to_html(tmp_path / "page.html", title="quiet"))
    page.wait_for_selector(f"{LIVE}[data-ready]")
    page.wait_for_selector(f"{LIVE} h3 >> text={EVIL}")
    assert page.locator("img").count() == 0 and page.title() == "quiet"


@pytest.mark.parametrize("scheme, theme", [("light", "auto"), ("dark", "auto"), ("light", "dark")])
def test_theme_follows_the_reader_unless_chosen(curves, open_page, tmp_path, scheme, theme):
    page = open_page(curves.to_html(tmp_path / "page.html", theme=theme), color_scheme=scheme)
    page.wait_for_selector(f"{LIVE}[data-ready]")
    wanted = scheme if theme == "auto" else theme
    assert page.locator(LIVE).get_attribute("data-theme") == wanted
    red = page.evaluate(
        "s => +getComputedStyle(document.querySelector(s)).backgroundColor.match(/\\d+/)[0]", LIVE
    )
    assert (red < 128) == (wanted == "dark")


@pytest.mark.parametrize("width", [320, 420, 700, 1200])
def test_nothing_is_wider_than_the_page(curves, open_page, tmp_path, width):
    page = open_page(
        curves.to_html(tmp_path / "page.html"), viewport={"width": width, "height": 800}
    )
    page.wait_for_selector(f"{LIVE}[data-ready]")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_keys_reach_help_and_the_logarithmic_axis(curves, open_page, tmp_path):
    page = open_page(curves.to_html(tmp_path / "page.html"))
    page.wait_for_selector(f"{LIVE}[data-ready]")
    page.locator("[data-panel=loss] .nnb-help").focus()
    assert page.locator("[data-panel=loss] .nnb-tip").is_visible()
    toggle = page.locator("[data-panel=loss] .nnb-toggle")
    for _ in range(3):  # the next stops inside the panel
        page.keyboard.press("Tab")
        if toggle.evaluate("node => node === document.activeElement"):
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-panel=loss] .nnb-toggle[aria-pressed=true]", timeout=3000)
    assert page.locator("[data-panel=loss] canvas").count() == 1


def test_page_runs_in_a_sandboxed_frame(curves, open_page, tmp_path, monkeypatch):
    monkeypatch.setenv("NENYA_NB_STATIC", "page")
    path = tmp_path / "frame.html"
    path.write_text(
        "<!doctype html><meta charset=utf-8>" + curves._repr_mimebundle_()[0]["text/html"]
    )
    page = open_page(path)
    page.frame_locator("iframe").locator(f"{LIVE}[data-points='1500']").wait_for(timeout=10_000)
