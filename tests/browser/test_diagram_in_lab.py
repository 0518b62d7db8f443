"""ArchitectureDiagram in a real JupyterLab and as a page of its own: draws, opens, selects, survives."""

import lab
import pytest

pytestmark = pytest.mark.browser

DIAGRAM, PANE = ".nnb-diagram", ".nnb-diagram .nnb-pane"
EVIL = "<img src=x onerror=document['title']='broken'>"  # a name has no dots

NET = """
import torch
from torch import nn
from nenya_nb.widgets.diagram import ArchitectureDiagram

class Block(nn.Module):
    "Two ways that meet again."
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)

    def forward(self, x):
        return torch.relu(x + self.norm(self.conv(x)))

class Net(nn.Module):
    def __init__(self, blocks=4):
        super().__init__()
        self.stem, self.pair = nn.Conv2d(3, 8, 3), nn.Sequential(Block(), nn.MaxPool2d(2))
        self.stage, self.fc = nn.Sequential(*[Block() for _ in range(blocks)]), nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(self.stage(self.pair(self.stem(x))).mean((2, 3)))
"""
SHOW = "net = Net()\ndiagram = ArchitectureDiagram(net, [1, 3, 16, 16], expanded=[])\ndiagram"


def part(id: str) -> str:
    return f'{DIAGRAM} [data-id="{id}"]'


def visible(page) -> int:
    return int(page.locator(PANE).first.get_attribute("data-visible"))


@pytest.fixture
def shown(open_notebook):
    nb = open_notebook([NET, SHOW])
    nb.run(0, wait_s=120)
    nb.run(1, wait_s=60)
    nb.wait(f"{DIAGRAM}[data-ready]")
    nb.show(DIAGRAM)
    return nb


@pytest.fixture
def net():
    scope = {}
    exec(NET, scope)  # the same network, here
    return scope


def test_opens_by_click_and_by_keyboard(shown):
    page = shown.page
    before = visible(page)
    page.click(part("pair"))
    page.wait_for_selector(part("pair.0"))
    assert visible(page) == before + 2
    assert lab.becomes(shown, "diagram.expanded", ["pair"])
    assert lab.becomes(shown, "diagram.selected", "pair")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector(part("pair.0"), state="detached")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector(part("pair.0.conv"))
    assert page.evaluate("document.activeElement.dataset.id") == "pair.0"
    for key in ("ArrowDown", "End", "Home"):
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.getAttribute('aria-level')") == "1"
    page.keyboard.press("c")
    page.wait_for_function(
        f"n => document.querySelector('{PANE}').dataset.visible == n", arg=str(before)
    )
    page.keyboard.press("e")
    page.wait_for_selector(part("stage.3/add"))
    assert page.locator(f"{DIAGRAM} .nnb-curve.nnb-skip").count() == 5  # one in each block
    assert lab.becomes(shown, "len(diagram.expanded)", 8)  # two stages, five blocks, one fold
    # keys of the notebook did nothing: the cells are still there and no cell is being edited
    assert page.locator(".jp-Notebook .jp-CodeCell").count() == 2


def test_selection_travels_both_ways(shown):
    page = shown.page
    page.click(part("fc"))
    page.wait_for_selector(f"{DIAGRAM} .nnb-details >> text=model.fc")
    assert lab.becomes(shown, "diagram.module is net.fc", True)
    shown.value("setattr(diagram, 'selected', 'stage.2.conv')")
    page.wait_for_selector(f"{part('stage.2.conv')}.nnb-selected")
    box, frame = (
        page.locator(s).first.bounding_box()
        for s in (part("stage.2.conv"), f"{DIAGRAM} .nnb-canvas")
    )
    assert frame["y"] <= box["y"] and box["y"] + box["height"] <= frame["y"] + frame["height"]
    assert lab.becomes(shown, "'stage.0×4' in diagram.expanded", True)
    shown.value("setattr(diagram, 'expanded', [])")
    page.wait_for_selector(part("stage.2.conv"), state="detached")


def test_search_finds_and_opens(shown):
    page = shown.page
    page.locator(f"{DIAGRAM} .nnb-canvas").click(position={"x": 8, "y": 8})
    page.keyboard.press("/")
    page.keyboard.type("stage.2 norm")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{part('stage.2.norm')}.nnb-selected")
    assert lab.becomes(shown, "diagram.selected", "stage.2.norm")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.dataset.id") == "stage.2.norm"


def test_survives_a_reload(shown):
    shown.page.click(part("pair"))
    shown.page.wait_for_selector(part("pair.0"))
    assert lab.becomes(shown, "diagram.expanded", ["pair"])
    shown.reload()
    shown.wait(f"{DIAGRAM}[data-ready]")
    shown.page.wait_for_selector(part("pair.0"))
    shown.page.wait_for_selector(f"{part('pair')}.nnb-selected")
    shown.page.click(part("fc"))
    shown.page.wait_for_selector(f"{part('fc')}.nnb-selected")
    assert lab.becomes(shown, "diagram.selected", "fc")


def test_restarted_kernel_leaves_a_picture_and_a_message(shown):
    shown.restart_kernel()
    shown.page.wait_for_selector(f"{DIAGRAM} .nnb-notice >> text=The kernel was restarted")
    shown.page.click(part("pair"))
    shown.page.wait_for_selector(part("pair.0"))


def test_a_second_view_shows_the_same(open_notebook):
    nb = open_notebook([NET, SHOW, "diagram"])
    nb.run(0, wait_s=120)
    nb.run(1, wait_s=60)
    nb.run(2, wait_s=60)
    nb.page.wait_for_function(
        f"() => document.querySelectorAll('{DIAGRAM}[data-ready]').length == 2"
    )
    nb.show(DIAGRAM)
    nb.page.locator(part("pair")).first.click()
    nb.page.wait_for_function(
        f"""() => document.querySelectorAll('{part("pair.0")}').length == 2"""
    )


def test_wheel_scrolls_the_page_until_one_clicks(shown):
    page, canvas = shown.page, shown.page.locator(f"{DIAGRAM} .nnb-canvas")
    transform = "s => document.querySelector(s).style.transform"
    layer = f"{DIAGRAM} .nnb-layer"
    before = page.evaluate(transform, layer)
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.wheel(0, 40)
    page.wait_for_timeout(200)
    assert page.evaluate(transform, layer) == before
    page.keyboard.down("Control")
    page.mouse.wheel(0, -120)
    page.keyboard.up("Control")
    page.wait_for_function(
        "([s, b]) => document.querySelector(s).style.transform != b", arg=[layer, before]
    )


def test_looks_right_in_both_themes_and_widths(shown):
    shown.page.click(part("pair"))
    shown.page.click(part("pair.0"))
    for theme in lab.THEMES:
        shown.theme(theme)
        for width, size in {"wide": lab.WIDE, "narrow": lab.NARROW}.items():
            shown.resize(size)
            shown.screenshot(f"diagram-{theme}-{width}", DIAGRAM)
            assert shown.page.locator(DIAGRAM).bounding_box()["width"] <= size[0]


# --- pages of their own -----------------------------------------------------------------------------------------------


@pytest.fixture
def open_page(open_page):
    """As the others', for pages that hold a diagram: waits until it is drawn."""

    def open_(path, **options):
        page = open_page(path, **options)
        page.wait_for_selector(f"{DIAGRAM}[data-ready]")
        return page

    return open_


def make(net, **options):
    return net["ArchitectureDiagram"](net["Net"](), [1, 3, 16, 16], **({"expanded": []} | options))


def test_page_without_network_answers_clicks_and_keys(net, open_page, tmp_path):
    page = open_page(make(net).to_html(tmp_path / "page.html"))
    page.click(part("stage"))
    page.click(part("stage.0×4"))
    page.click(part("stage.1"))
    page.wait_for_selector(part("stage.1.conv"))
    page.click(part("stage.1.conv"))
    assert "model.stage[1].conv" in page.locator(f"{DIAGRAM} .nnb-code").inner_text()
    assert "Two ways" not in page.locator(f"{DIAGRAM} .nnb-details").inner_text()
    page.locator(f"{DIAGRAM} .nnb-crumbs button").nth(3).click()
    assert "Two ways that meet again." in page.locator(f"{DIAGRAM} .nnb-details").inner_text()
    page.locator(f"{DIAGRAM} .nnb-outline summary").click()
    page.wait_for_selector(f"{DIAGRAM} .nnb-outline pre >> text=stage")


@pytest.mark.parametrize("kind", ["SVG", "PNG"])
def test_picture_can_be_saved(net, open_page, tmp_path, kind):
    page = open_page(make(net, expanded=["pair"]).to_html(tmp_path / "page.html"))
    page.click(f"{DIAGRAM} .nnb-save")
    with page.expect_download() as download:
        page.click(f"{DIAGRAM} .nnb-menu >> text=Save as {kind}")
    assert page.evaluate("document.activeElement.className").endswith("nnb-save"), "keys go on here"
    data = download.value.path().read_bytes()
    if kind == "PNG":
        assert data.startswith(b"\x89PNG") and len(data) > 5000
    else:
        text = data.decode()
        assert (
            text.startswith("<svg")
            and "pair" in text
            and "var(" not in text
            and "color(" not in text
            and "class=" not in text
        )


@pytest.mark.parametrize("name", [EVIL, "x" * 1_000_000])
def test_strange_names_stay_text(net, open_page, tmp_path, name):
    model = net["nn"].Sequential()
    model.add_module(name, net["nn"].Sequential(net["nn"].Linear(4, 4), net["nn"].ReLU()))
    diagram = net["ArchitectureDiagram"](model, [2, 4])
    page = open_page(diagram.to_html(tmp_path / "page.html", title="quiet"))
    page.locator(f"{DIAGRAM} .nnb-node").nth(1).click()
    page.keyboard.press("e")
    page.locator(f"{DIAGRAM} .nnb-search").fill("linear")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{DIAGRAM} .nnb-selected")
    assert page.locator("img").count() == 0 and page.title() == "quiet"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert len(page.content()) < 12_000_000


@pytest.mark.parametrize("width", [320, 420, 700, 1200])
def test_nothing_is_wider_than_the_page(net, open_page, tmp_path, width):
    diagram = net["ArchitectureDiagram"].compare(net["Net"](), net["Net"](2), [1, 3, 16, 16])
    for i, one in enumerate((make(net, selected="stage.1.conv"), diagram)):
        page = open_page(
            one.to_html(tmp_path / f"{i}.html"), viewport={"width": width, "height": 800}
        )
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_two_networks_open_together(net, open_page, tmp_path):
    diagram = net["ArchitectureDiagram"].compare(
        net["Net"](), net["Net"](2), [1, 3, 16, 16], titles=("four", "two"), expanded=[]
    )
    page = open_page(
        diagram.to_html(tmp_path / "page.html"), viewport={"width": 1200, "height": 900}
    )
    page.locator(part("stage")).first.click()
    second = page.locator(PANE).nth(1)
    second.locator('[data-id="stage.1"]').wait_for()
    assert second.locator('[data-id="stage"] .nnb-flag').text_content() == "≠"
    assert "×" in page.locator(f"{DIAGRAM} .nnb-versus").inner_text()


def test_tree_is_described_for_screen_readers(net, open_page, tmp_path):
    page = open_page(make(net, expanded=["pair"]).to_html(tmp_path / "page.html"))
    tree = page.locator(f"{DIAGRAM} [role=tree]")
    assert tree.locator("[role=treeitem][tabindex='0']").count() == 1
    item = page.locator(part("pair.0"))
    assert (
        item.get_attribute("aria-level") == "2" and item.get_attribute("aria-expanded") == "false"
    )
    assert "Block" in item.get_attribute("aria-label")
    unnamed = """() => [...document.querySelectorAll('.nnb-diagram button, .nnb-diagram input')]
        .filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() || e.closest('label'))).length"""
    assert page.evaluate(unnamed) == 0
