"""ViewsPlayground in a real JupyterLab and as a page of its own: draws, turns knobs, keeps the luck, survives."""

import lab
import pytest

pytestmark = pytest.mark.browser

VIEWS = ".nnb-views"
SETUP = """
import torch; torch.set_num_threads(1)
from nenya_nb.data import load_dataset
from nenya_nb.widgets.views import ViewsPlayground
dataset = load_dataset("shapes", count=60, size=64)
dataset.style = "natural"
"""
SHOW = "playground = ViewsPlayground(dataset, 'two_views', seed=1)\nplayground"
PIXELS = """s => { const c = document.querySelector(s), g = c.getContext('2d');
    return Array.from(g.getImageData(0, 0, c.width, c.height).data).join() }"""


def knob(key: str) -> str:
    return f'{VIEWS} [data-key="{key}"] input'


def slide(page, selector: str, value: float) -> None:
    page.locator(selector).first.evaluate(
        "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})) }", value
    )


@pytest.fixture
def shown(open_notebook):
    nb = open_notebook([SETUP, SHOW])
    nb.run_widget(VIEWS)
    return nb


def test_knobs_draws_recipes_and_code(shown):
    page = shown.page
    first = f"{VIEWS} .nnb-view canvas"
    before, outline = (
        page.evaluate(PIXELS, first),
        page.locator(f"{VIEWS} .nnb-outline").first.get_attribute("points"),
    )
    slide(page, knob("ColorJitter.hue"), 0.5)
    lab.becomes(shown, "playground.knobs['ColorJitter.hue']", 0.5)
    page.wait_for_function(f"b => ({PIXELS})('{first}') != b", arg=before)
    assert page.locator(f"{VIEWS} .nnb-outline").first.get_attribute("points") == outline
    serial = int(shown.data(VIEWS, "serial"))
    for value in range(60):  # a fast finger: only some are asked for, the last one for certain
        slide(page, knob("ColorJitter.brightness"), value / 60)
    lab.becomes(
        shown, "playground.knobs['ColorJitter.brightness']", pytest.approx(59 / 60, abs=0.06)
    )
    assert int(shown.data(VIEWS, "serial")) - serial < 60
    page.click(f"{VIEWS} >> text=New draw")
    lab.becomes(shown, "playground.seed", 2)
    page.locator(f"{VIEWS} .nnb-row").nth(3).click()
    lab.becomes(shown, "playground.focus", 3)
    page.select_option(f"{VIEWS} .nnb-recipe select", "multi_crop")
    page.wait_for_function(f"() => document.querySelectorAll('{VIEWS} .nnb-view').length == 8")
    page.click(f"{VIEWS} .nnb-kinds button:nth-child(2)")
    slide(page, knob("view3.count"), 2)  # the third of 1, 2, 3 …
    page.wait_for_function(f"() => document.querySelectorAll('{VIEWS} .nnb-view').length == 5")
    page.click(f"{VIEWS} >> text=Show the code")
    assert "[view1] * 2 + [view3] * 3" in page.locator(f"{VIEWS} pre").inner_text()
    page.select_option(f"{VIEWS} .nnb-recipe select", "masked_multi_crop")
    page.wait_for_selector(f"{VIEWS} figcaption >> text=view 2, ")
    assert page.locator(f"{VIEWS} .nnb-view").count() == 10
    page.click(f"{VIEWS} .nnb-kinds >> text=Masks")
    slide(page, knob("RandomBlockMask.p"), 0)
    page.wait_for_selector(f"{VIEWS} figcaption >> text=view 2, whole")
    shown.value("setattr(playground, 'recipe', 'multi_crop')")
    page.wait_for_function(f"() => document.querySelectorAll('{VIEWS} .nnb-view').length == 8")
    slide(page, knob("view3.count"), 4)
    page.wait_for_function(f"() => document.querySelectorAll('{VIEWS} .nnb-view').length == 7")
    page.click(f"{VIEWS} >> text=Reset knobs")
    lab.becomes(shown, "len(playground.views)", 8)
    shown.value("setattr(playground, 'knobs', {'view3.count': 2})")
    page.wait_for_function(f"() => document.querySelectorAll('{VIEWS} .nnb-view').length == 4")
    shown.restart_kernel()
    shown.page.wait_for_selector(f"{VIEWS} .nnb-notice >> text=The kernel was restarted")


def test_looks_right_and_survives_a_reload(shown):
    shown.value("setattr(playground, 'recipe', 'asymmetric_views')")
    shown.page.wait_for_selector(f"{VIEWS} .nnb-kinds button")
    shown.screenshots("views", VIEWS)
    shown.reload()
    shown.wait(f"{VIEWS}[data-ready]")
    slide(shown.page, knob("view1.RandomGrayscale.p"), 1)
    lab.becomes(shown, "playground.knobs['view1.RandomGrayscale.p']", 1)


# --- pages of their own -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    scope = lab.run_here(SETUP)
    evil = "<img src=x onerror=document['title']='broken'>"
    scope["dataset"].classes = [evil] * 10
    playground = scope["ViewsPlayground"](scope["dataset"], "masked_view", seed=1)
    return playground.to_html(tmp_path_factory.mktemp("views") / "page.html", title="quiet")


def test_page_without_network_turns_knobs(page_file, open_page):
    page = open_page(page_file)
    page.wait_for_selector(f"{VIEWS}[data-ready]")
    said = f"{VIEWS} .nnb-said"
    before = page.locator(said).inner_text()
    assert "are hidden" in before
    page.focus(knob("RandomMask.ratio"))
    page.keyboard.press("End")  # all of it hidden
    page.wait_for_function(
        "([s, b]) => document.querySelector(s).innerText != b", arg=[said, before]
    )
    slide(page, knob("RandomMask.mask_size"), 0)  # the ratio goes back
    start = page.locator(knob("RandomMask.ratio")).get_attribute("aria-valuetext")
    assert start == "0.6" and page.locator(".nnb-cover:not([hidden])").count() > 0
    for back in (
        lambda: slide(page, knob("RandomMask.mask_size"), 1),
        lambda: page.click(f"{VIEWS} >> text=Reset knobs"),
    ):
        page.click(f"{VIEWS} >> text=New draw")
        page.wait_for_selector(f"{VIEWS} >> text=draw 2")
        back()
        page.wait_for_selector(
            f"{VIEWS} >> text=draw 1"
        )  # all knobs were turned with the first seed
    assert "no Python behind it" in page.locator(f"{VIEWS} .nnb-foot").inner_text()
    assert page.locator("img").count() == 0 and page.title() == "quiet"
    assert lab.nameless(page, VIEWS) == []


@pytest.mark.parametrize("width", [320, 700, 1200])
def test_nothing_is_wider_than_the_page(page_file, open_page, width):
    page = open_page(page_file, viewport={"width": width, "height": 800})
    page.wait_for_selector(f"{VIEWS}[data-ready]")
    assert lab.fits(page)
