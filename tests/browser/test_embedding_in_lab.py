"""EmbeddingExplorer in a real JupyterLab and as a page of its own: draws, points, selects, follows a training, survives."""

import lab
import pytest
import torch

pytestmark = pytest.mark.browser

ROOT, PLOT = ".nnb-embedding", ".nnb-embedding .nnb-plot"
EVIL = "<img src=x onerror=document.title='broken'>"
DATA = """
import torch
from torch import nn
from nenya_nb.training import fit
from nenya_nb.widgets.embedding import EmbeddingExplorer

class Pictures:
    targets, classes = torch.arange(300) % 3, ["sun", "moon", "star"]
    def __init__(self):
        torch.manual_seed(0)
        self.images = torch.randint(0, 90, (300, 3, 16, 16), dtype=torch.uint8)
        for i, c in enumerate(self.targets.tolist()):
            self.images[i, c, 4:12, 4:12] += 150
    def batch(self, index=None, device=None):
        return self.images[slice(None) if index is None else index].float() / 255
    def loader(self, **_):
        return [([self.batch(r), self.batch(r)], self.targets[r]) for r in torch.arange(300).split(50)]

class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    def extract_feat(self, x):
        return self.net(x).mean((2, 3))
    def forward(self, views, targets=None, mode="tensor"):
        z = self.extract_feat(views[0])
        return {"loss": -z.std(0).mean()}

data = Pictures()
"""
SHOW = """
explorer = EmbeddingExplorer(data.batch().flatten(1), images=data, values={"x": torch.arange(300)})
explorer.add(data.batch()[:, :, ::2].flatten(1), "again")
explorer
"""
FOLLOW = """
film = EmbeddingExplorer(data)
fit(Tiny(), data, epochs=4, callbacks=[film], progress=False, monitor=False);
"""


def data_becomes(page, name: str, test: str) -> str:
    return lab.wait_data(page, ROOT, name, test)


def find_point(page) -> tuple[float, float]:
    """Moves the mouse over the picture until it points at an image; where that is."""
    box = page.locator(PLOT).bounding_box()
    for y in range(15, int(box["height"]), 22):
        for x in range(15, int(box["width"]), 22):
            page.mouse.move(box["x"] + x, box["y"] + y)
            if page.locator(ROOT).get_attribute("data-hover") not in (None, "-1"):
                return box["x"] + x, box["y"] + y
    raise AssertionError("no point found")


def lasso(page, left=0.02, right=0.98):
    """With Shift, around a part of the picture."""
    box = page.locator(PLOT).bounding_box()
    at = [(left, 0.02), (right, 0.02), (right, 0.98), (left, 0.98)]
    spots = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in at]
    page.keyboard.down("Shift")
    page.mouse.move(*spots[0])
    page.mouse.down()
    for spot in spots[1:]:
        page.mouse.move(*spot, steps=5)
    page.mouse.up()
    page.keyboard.up("Shift")


def test_points_selects_colours_and_survives_a_reload(open_notebook):
    nb = open_notebook([DATA, SHOW])
    nb.run_widget(ROOT)
    nb.show(PLOT)
    page = nb.page
    # pointing shows the image; a click selects it, here and in Python
    x, y = find_point(page)
    assert "neighbours agree" in page.locator(f"{ROOT} .nnb-card").inner_text()
    assert page.locator(f"{ROOT} .nnb-card canvas").count() == 9
    page.mouse.click(x, y)
    assert lab.becomes(nb, "len(explorer.selected)", 1)
    number = nb.value("explorer.selected[0]")
    assert f"image {number:,}" in page.locator(f"{ROOT} .nnb-card").inner_text()
    page.keyboard.press("Escape")
    assert lab.becomes(nb, "explorer.selected", [])
    # a lasso around everything
    lasso(page)
    assert lab.becomes(nb, "explorer.class_mix", {"sun": 100, "moon": 100, "star": 100})
    page.wait_for_selector(f"{ROOT} [title='100 of 100 are selected']")
    # from Python
    nb.value("setattr(explorer, 'selected', [1, 4, 7])")
    page.wait_for_selector(f"{ROOT} .nnb-selection >> text=3 selected")
    assert page.locator(f"{ROOT} .nnb-thumb").count() == 3
    nb.value("setattr(explorer, 'colour', 'x')")
    page.wait_for_selector(f"{ROOT} .nnb-scale:not([hidden]) >> text=299")
    page.locator(f"{ROOT} .nnb-colour select").select_option("agreement")
    assert lab.becomes(nb, "explorer.colour", "agreement")
    page.locator(f"{ROOT} .nnb-class").nth(1).click()
    assert lab.becomes(nb, "explorer.isolated", [1])
    page.locator(f"{ROOT} .nnb-timeline input").focus()
    page.keyboard.press("Home")
    assert lab.becomes(nb, "explorer.frame", 0)
    nb.screenshots("embedding", ROOT)
    # keys of the notebook did nothing
    assert page.locator(".jp-Notebook .jp-CodeCell").count() == 2
    nb.reload()
    nb.wait(f"{ROOT}[data-ready]")
    page.wait_for_selector(f"{ROOT} .nnb-selection >> text=3 selected")


def test_follows_a_training_and_outlives_its_kernel(open_notebook):
    nb = open_notebook([DATA, FOLLOW])
    nb.run_widget(ROOT)
    nb.wait(f"{ROOT}[data-frames='5']")
    nb.show(PLOT)
    page = nb.page
    page.wait_for_selector(f"{ROOT} .nnb-moment >> text=epoch 4")
    page.click(f"{ROOT} .nnb-play")
    data_becomes(page, "moment", "v === '1'")
    data_becomes(page, "moment", "v === '4'")
    page.wait_for_selector(f"{ROOT} .nnb-timeline[data-playing=false]")
    assert lab.becomes(nb, "film.frame", -1)
    nb.value("setattr(film, 'frame', 1)")
    page.wait_for_selector(f"{ROOT} .nnb-moment >> text=epoch 1")
    # every second picture is dropped: the one that is looked at stays
    nb.value("[setattr(film, 'most_frames', 5), setattr(film, 'frame', 2)]")
    page.wait_for_selector(f"{ROOT} .nnb-moment >> text=epoch 2")
    nb.value("film.add(torch.rand(300, 8), 'late')")
    data_becomes(page, "frames", "v === '4'")
    page.wait_for_timeout(300)
    assert page.locator(f"{ROOT} .nnb-moment").inner_text() == "epoch 2"
    assert nb.value("film.frame") == 1
    nb.restart_kernel()
    nb.show(PLOT)
    page.wait_for_selector(f"{ROOT} .nnb-notice >> text=The kernel was restarted")
    lasso(page)  # the picture still works
    data_becomes(page, "selected", "v === '300'")


# --- pages of their own -----------------------------------------------------------------------------------------------


@pytest.fixture
def scope():
    return lab.run_here(DATA + SHOW)  # the same explorer, here


@pytest.fixture
def show(open_page, tmp_path):
    def show_(explorer, **options):
        page = open_page(explorer.to_html(tmp_path / "page.html", title="quiet"), **options)
        page.wait_for_selector(f"{ROOT}[data-ready]")
        return page

    return show_


def test_page_without_network_answers_pointer_keys_and_film(scope, show):
    page = show(scope["explorer"], viewport={"width": 1200, "height": 800})
    lasso(page, 0.02, 0.5)
    some = int(data_becomes(page, "selected", "Number(v) > 0"))
    lasso(page)  # Shift adds
    assert int(data_becomes(page, "selected", f"Number(v) > {some}")) == 300
    assert page.locator(f"{ROOT} .nnb-thumb").count() == 60
    page.click(f"{ROOT} [data-tool=box]")
    box = page.locator(PLOT).bounding_box()
    page.mouse.move(box["x"] + 3, box["y"] + 3)
    page.mouse.down()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.up()
    data_becomes(page, "selected", "v === '0'")
    # keys: look at the point in the middle, move, zoom, fit
    page.focus(PLOT)
    page.keyboard.press("Enter")
    data_becomes(page, "selected", "v === '1'")
    assert not page.locator(f"{ROOT} .nnb-card").is_hidden()
    spot = page.locator(f"{ROOT} .nnb-card").bounding_box()
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(100)
    for key in ("+", "-", "0", "ArrowUp"):
        page.keyboard.press(key)
    page.wait_for_timeout(400)
    assert page.locator(f"{ROOT} .nnb-card").bounding_box() != spot
    page.keyboard.press("Escape")
    data_becomes(page, "selected", "v === '0'")
    # the wheel belongs to the page until Ctrl is held
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    draws = "() => document.querySelector('.nnb-points').toDataURL()"
    page.evaluate("() => document.activeElement.blur()")
    page.mouse.wheel(0, 0)
    before = page.evaluate(draws)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -200)
    page.keyboard.up("Control")
    page.wait_for_function(f"b => ({draws})() !== b", arg=before)
    # classes by keyboard
    page.locator(f"{ROOT} button.nnb-class").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{ROOT} .nnb-class[aria-pressed=true] >> text=sun")
    page.click(f"{ROOT} .nnb-legend .nnb-link")
    assert page.locator(f"{ROOT} .nnb-class[aria-pressed=true]").count() == 0
    page.locator(f"{ROOT} .nnb-track input").fill("0")
    data_becomes(page, "moment", "v === '0'")


def test_page_keeps_still_where_motion_is_not_wanted(scope, show):
    page = show(scope["explorer"], reduced_motion="reduce")
    page.locator(f"{ROOT} .nnb-track input").fill("0")
    data_becomes(page, "moment", "v === '0'")
    page.evaluate("""() => { window.seen = new Set(); const film = document.querySelector('.nnb-timeline');
        new MutationObserver(() => seen.add(film.dataset.time)).observe(film, {attributes: true}); }""")
    page.click(f"{ROOT} .nnb-play")
    page.wait_for_selector(f"{ROOT} .nnb-timeline[data-playing=false]")
    assert set(page.evaluate("() => [...seen]")) <= {"0.00", "1.00"}


@pytest.mark.parametrize("width", [320, 420, 1200])
def test_nothing_is_wider_than_the_page_and_names_stay_text(scope, show, width):
    explorer = scope["EmbeddingExplorer"](
        torch.rand(90, 4), labels=torch.arange(90) % 9,
        classes=[EVIL, "x" * 100_000, *"abcdefg"], values={EVIL: torch.rand(90)}, colour=EVIL,
    )  # fmt: skip
    explorer.add(torch.rand(90, 4), EVIL)
    page = show(explorer, viewport={"width": width, "height": 800})
    find_point(page)
    assert lab.fits(page)
    assert page.locator("img").count() == 0 and page.title() == "quiet"
    assert lab.nameless(page, ROOT) == []


def test_page_of_an_explorer_without_pictures_says_so(scope, show):
    page = show(scope["EmbeddingExplorer"](scope["data"]))
    assert "No picture yet" in page.locator(f"{ROOT} .nnb-empty").inner_text()
