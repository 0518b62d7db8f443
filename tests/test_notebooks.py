"""Every lesson's checks, run against the exported module; and what a committed notebook may look like.

`nbdev-test` runs a notebook's own copy of the code and so cannot notice a definition or an import that was never
exported. Here the exporting cells are skipped and the exported module's names are used instead."""

import importlib
import re
from pathlib import Path

import nbformat
import pytest

NBS = Path(__file__).resolve().parent.parent / "nbs"
NOTEBOOKS = sorted(NBS.rglob("*.ipynb"))
SKIPPED_FLAGS = ["slow", "gpu"]
TRAINING = re.compile(r"\bfit\(|optimizer\.step\(")
MAX_BYTES = 500_000
MAX_CELLS = 62
MAX_EXPORTED_LINES = 340


def exported_module(notebook: Path) -> str | None:
    found = re.search(r"#\| default_exp ([\w.]+)", notebook.read_text())
    return found and found[1]


EXPORTING = [n for n in NOTEBOOKS if exported_module(n)]


def ids(notebook: Path) -> str:
    return str(notebook.relative_to(NBS))


def checked(cells, trains: bool) -> set[str]:
    """Ids of the cells to run here: all, or, in lessons that train, those before the first training. `nbdev-test` runs
    every lesson whole; a second training of the same code would check nothing more."""
    first = next((i for i, c in enumerate(cells) if trains and TRAINING.search(c.source)), None)
    return {cell.id for cell in cells[:first]}


def directives(source: str) -> set[str]:
    return set(re.findall(r"^#\|\s*(\w+)", source, re.M))


@pytest.mark.parametrize("notebook", EXPORTING, ids=ids)
def test_lesson_checks_hold_for_the_exported_module(notebook, monkeypatch):
    from execnb.shell import CaptureShell
    from nbdev.process import NBProcessor
    from nbdev.test import nb_test_cells

    monkeypatch.setenv("IN_TEST", "1")
    monkeypatch.chdir(notebook.parent)
    module = importlib.import_module(
        f"nenya_nb.{exported_module(notebook)}".removesuffix(".__init__")
    )
    runs = {cell.id for cell in nb_test_cells(notebook, SKIPPED_FLAGS)}
    nb = NBProcessor(notebook, rm_directives=False, process=True).nb
    shell = CaptureShell(notebook)
    shell.user_ns.update({k: v for k, v in vars(module).items() if not k.startswith("__")})

    skipped = runs - checked(nb.cells, trains="algorithms" in notebook.parts)

    def skip(cell) -> bool:
        exports = directives(cell.source) & {"export", "exporti", "exports", "default_exp"}
        return cell.id not in runs - skipped or bool(exports)

    try:
        shell.run_all(nb, exc_stop=True, preproc=skip, cell_timeout=300)
    except Exception:
        pytest.fail(shell.prettytb(fname=notebook) or "a cell failed", pytrace=False)
    finally:
        shell.close()


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=ids)
def test_notebook_reads_as_a_lesson(notebook):
    nb = nbformat.read(notebook, as_version=4)
    nbformat.validate(nb)
    title = nb.cells[0]
    assert title.cell_type == "markdown" and re.match(r"# .+\n\n> .+", title.source), (
        "the first cell is '# Title', an empty line, '> one sentence'"
    )
    assert len(nb.cells) <= MAX_CELLS, f"{len(nb.cells)} cells: one idea a notebook, split it"
    exported = [
        c.source for c in nb.cells if directives(c.source) & {"export", "exporti", "exports"}
    ]
    lines = sum(len(source.splitlines()) for source in exported)
    listing = notebook.stem == "index"  # a list of names, as long as there are names
    assert listing or lines <= MAX_EXPORTED_LINES, f"{lines} exported lines: split the module"
    assert any(c.cell_type == "markdown" for c in nb.cells[1:4]), "a lesson begins with words"
    for source in exported:
        code = [ln for ln in source.splitlines() if ln and not ln.startswith("#")]
        bare = [ln for ln in code if re.match(r"(import|from) ", ln)]
        defined = [ln for ln in code if re.match(r"(class|def|@|\w+ *=)", ln)]
        assert not (bare and defined) or "_all_" in source, (
            f"imports and code in one cell:\n{source[:200]}"
        )
        assert "@patch" not in source, "a class of ours stands whole in one cell"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=ids)
def test_notebook_is_committed_clean(notebook):
    assert notebook.stat().st_size <= MAX_BYTES, (
        f"{notebook.stat().st_size} bytes: make its outputs smaller"
    )
    nb = nbformat.read(notebook, as_version=4)
    assert "widgets" not in nb.metadata, "widget state is stored"
    for cell in nb.cells:
        if cell.cell_type != "code":
            continue
        assert cell.execution_count is None
        assert not re.search(r"%pip|!pip|TODO|FIXME", cell.source)
        for output in cell.outputs:
            text = str(output.get("text", "")) + str(output.get("data", {}))
            assert output.get("name") != "stderr", f"stderr is stored: {text[:300]}"
            assert output.output_type != "error", f"an error is stored: {output.get('ename')}"
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {})
            assert not re.search(r"(?<![\w.])/(home|root|Users|tmp|work)/\w", text), (
                "a path of this machine"
            )
