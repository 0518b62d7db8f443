"""The first notebook of the course, opened and run as a student would in a real JupyterLab."""

import re
from pathlib import Path

import lab
import nbformat
import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timed]

LESSON = Path(__file__).parents[2] / "nbs/tutorials/01_first_run.ipynb"
REACTION = 0.5  # s from a click to its effect, a step not counted


@pytest.fixture
def lesson(open_notebook, tmp_path):
    """The page, and a function: the numbers of the code cells whose source contains a text."""
    book = nbformat.read(LESSON, 4)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if "history = fit(" in cell.source:  # on a fast machine it must not be over before Stop
                cell.source = re.sub(r"epochs=\d+", "epochs=1000", cell.source)
    nbformat.write(book, tmp_path / LESSON.name)

    def where(text: str) -> list[int]:
        return [i for i, c in enumerate(book.cells) if c.cell_type == "code" and text in c.source]

    return open_notebook(tmp_path / LESSON.name), where


def widget_of(nb: lab.Notebook, cell: int, name: str) -> str:
    """A selector for the live curves below a cell, once they are there and in view."""
    node = "i => lab.panel().content.widgets[i].node.querySelector('.nnb-live')"
    nb.page.wait_for_function(
        f"i => ({node})(i) || lab.tracebacks().length", arg=cell, timeout=180_000
    )
    assert nb.tracebacks() == []
    nb.page.evaluate(f"([i, name]) => {{ ({node})(i).id = name; }}", [cell, name])
    nb.show(f"#{name}")
    return f"#{name}"


def updates_while_training(nb: lab.Notebook, live: str, cell: int) -> None:
    nb.wait_data(live, "points", "n > 0", 60)
    nb.watch(live, "points")
    nb.page.wait_for_function("() => lab.seen.length > 20", timeout=120_000)
    assert nb.prompt(cell) == "[*]:"


def test_first_run_trains_pauses_stops_and_goes_on(lesson):
    nb, where = lesson
    first_fit, second_fit = where("history = fit(")
    nb.run_all()
    live = widget_of(nb, first_fit, "first")
    updates_while_training(nb, live, first_fit)
    assert nb.ink(f"{live} [data-panel=loss]") > 100
    nb.screenshot("first-run-light", live)
    nb.theme("dark")
    nb.screenshot("first-run-dark", live)

    nb.click(f"{live} .nnb-pause")
    nb.wait_data(live, "state", "v === 'paused'", 5)
    nb.page.wait_for_timeout(500)  # what was under way arrives
    points = nb.data(live, "points")
    nb.page.wait_for_timeout(1000)
    assert nb.data(live, "points") == points and nb.prompt(first_fit) == "[*]:"
    nb.click(f"{live} .nnb-pause")
    nb.wait_data(live, "points", f"n > {points}", 10)

    clicked = nb.click(f"{live} .nnb-stop")
    nb.wait_done(first_fit, 20)
    waited = nb.page.evaluate("() => lab.now()") / 1000 - clicked
    nb.wait_data(live, "state", "v === 'stopped'", 5)

    # "Run all" goes on by itself: the features are judged, then the second training starts.
    judged = where("untrained, {after:.1%} trained")[0]
    nb.wait_output(judged, "trained", 60)
    live = widget_of(nb, second_fit, "second")
    updates_while_training(nb, live, second_fit)
    nb.click(f"{live} .nnb-stop")
    nb.wait_done(second_fit, 20)
    nb.wait_done(where("")[-1], 60)
    assert nb.tracebacks() == []
    assert nb.value("history.state") == "stopped"
    step = nb.value("float((lambda t: max(t[1:] - t[:-1]))(history.columns()['time'][1]))")
    assert waited < REACTION + step
