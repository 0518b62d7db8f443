"""Each network of the gallery lesson, at full size, as a page: drawn, opened to the last part, searched."""

from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.browser
NOTEBOOK = Path(__file__).parents[2] / "nbs/tutorials/02_gallery.ipynb"
DIAGRAM = ".nnb-diagram"


@pytest.fixture(scope="module")
def diagrams():
    "All diagrams that the lesson makes, in its order."
    found, names = [], {}

    def collect(*args, **options):
        found.append(show(*args, **options))
        return found[-1]

    for cell in nbformat.read(NOTEBOOK, 4).cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
            if "def look(" in cell.source:
                show, names["look"] = names["look"], collect
    return found


@pytest.mark.parametrize("i", range(12))
def test_network_of_the_gallery_is_drawn_and_opened(diagrams, open_page, tmp_path, i):
    assert len(diagrams) == 12
    page = open_page(diagrams[i].to_html(tmp_path / "page.html"))
    page.wait_for_selector(f"{DIAGRAM}[data-ready]")
    first = page.locator(f"{DIAGRAM} .nnb-node").count()
    assert 5 <= first <= 60
    closed = page.locator(f"{DIAGRAM} .nnb-node[aria-expanded=false]").count()
    page.locator(f"{DIAGRAM} .nnb-node").first.click()
    page.keyboard.press("e")
    page.wait_for_function(
        "([node, least]) => document.querySelectorAll(node).length >= least",
        arg=[f"{DIAGRAM} .nnb-node", first + bool(closed)],
    )
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    graph = diagrams[i].graphs[0]
    layer = next(n for n in reversed(graph.nodes) if n.kind == "module" and not n.group)
    page.locator(f"{DIAGRAM} .nnb-search").fill(layer.label)
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{DIAGRAM} .nnb-selected")
