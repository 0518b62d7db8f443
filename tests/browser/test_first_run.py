"""The first notebook of the course, opened and run as a student would in a real JupyterLab."""

import re
from pathlib import Path

import lab
import nbformat
import pytest

pytestmark = pytest.mark.browser

LESSON = Path(__file__).parents[2] / "nbs/tutorials/01_first_run.ipynb"
LIVE, REACTION = ".nnb-live", 0.5  # s from a click to its effect, a step not counted


@pytest.fixture
def lesson(open_notebook, tmp_path):
    """The page, and a function: the numbers of the code cells whose source contains a text."""
    if not LESSON.exists():
        pytest.xfail(f"{LESSON.name} is not written yet")
    book = nbformat.read(LESSON, 4)
    book.cells = [c for c in book.cells if "#| slow" not in c.source]
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if "= fit(" in cell.source:  # on a fast machine it must not be over before Stop
                cell.source = re.sub(r"epochs=\d+", "epochs=1000", cell.source)
    nbformat.write(book, tmp_path / LESSON.name)

    def where(text: str) -> list[int]:
        return [i for i, c in enumerate(book.cells) if c.cell_type == "code" and text in c.source]

    return open_notebook(tmp_path / LESSON.name), where


def updates_while_training(nb: lab.Notebook, cell: int, live: str = LIVE) -> None:
    nb.wait_data(live, "points", "n > 0", 60)
    nb.watch(live, "points")
    nb.page.wait_for_function("() => lab.seen.length > 20", timeout=120_000)
    assert nb.prompt(cell) == "[*]:"


def test_first_run_trains_pauses_stops_and_goes_on(lesson):
    nb, where = lesson
    fits = where("= fit(")
    nb.run_all()
    nb.wait(LIVE, 180)
    nb.show(LIVE)
    updates_while_training(nb, fits[0])
    assert nb.ink(f"{LIVE} [data-panel=loss]") > 100
    nb.screenshot("first-run-light", LIVE)
    nb.theme("dark")
    nb.screenshot("first-run-dark", LIVE)

    nb.click(f"{LIVE} .nnb-pause")
    nb.wait_data(LIVE, "state", "v === 'paused'", 5)
    nb.page.wait_for_timeout(500)  # what was under way arrives
    points = nb.data(LIVE, "points")
    nb.page.wait_for_timeout(1000)
    assert nb.data(LIVE, "points") == points and nb.prompt(fits[0]) == "[*]:"
    nb.click(f"{LIVE} .nnb-pause")
    nb.wait_data(LIVE, "points", f"n > {points}", 10)

    clicked = nb.click(f"{LIVE} .nnb-stop")
    nb.wait_done(fits[0], 20)
    waited = nb.page.evaluate("() => lab.now()") / 1000 - clicked
    nb.wait_data(LIVE, "state", "v === 'stopped'", 5)

    # "Run all" goes on by itself: the features are judged, then the second training starts.
    judged = where("untrained, {after:.1%} trained")[0]
    nb.wait_output(judged, "trained", 60)
    nb.wait(f"{LIVE} >> nth=2", 120)  # after the first training's two views
    nb.page.evaluate("live => { document.querySelectorAll(live)[2].id = 'second'; }", LIVE)
    nb.show("#second")
    updates_while_training(nb, fits[1], "#second")
    nb.click("#second .nnb-stop")
    nb.wait_done(fits[1], 20)
    nb.wait_done(where("history.plot()")[0], 60)
    assert nb.tracebacks() == []
    assert nb.value("history.state") == "stopped"
    step = nb.value("float((lambda t: max(t[1:] - t[:-1]))(history.columns()['time'][1]))")
    assert waited < REACTION + step
