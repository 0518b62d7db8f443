"""The documentation site, checked without Quarto.

Quarto exits 0 on a missing page, a broken link, a missing image or an unclosed block, so these are looked for here,
in the notebooks as nbdev hands them to Quarto."""

import json
import os
import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pypandoc
import pytest
import yaml

TOP_LEVEL_KEYS = {"project", "format", "website", "metadata-files", "execute"}
WRITTEN_BY_NBDEV = {"nbdev.yml"}


@pytest.fixture(scope="module")
def config(repo):
    return yaml.safe_load((repo / "_quarto.yml").read_text())


@pytest.fixture(scope="module")
def proc(clean_copy, copy_env) -> Path:
    "The processed notebooks: every export, import and `show_doc` has run."
    env = {**copy_env, "MPLBACKEND": "agg"}
    subprocess.run(["nbdev-proc-nbs", "--n-workers", "2"], cwd=clean_copy, env=env, check=True)
    return clean_copy / "_proc"


def entries(contents):
    for entry in contents:
        if isinstance(entry, str):
            yield entry
        else:
            yield from ([entry["href"]] if "href" in entry else [])
            yield from entries(entry.get("contents", []))


def test_quarto_settings_have_known_keys_and_existing_files(repo, config):
    assert set(config) <= TOP_LEVEL_KEYS
    assert os.readlink(repo / "nbs" / "_quarto.yml") == "../_quarto.yml"
    assert set(config["metadata-files"]) == WRITTEN_BY_NBDEV
    html = config["format"]["html"]
    for name in [html[key] for key in ("css", "include-in-header") if key in html]:
        assert (repo / "nbs" / name).exists()


def test_sidebar_lists_every_notebook_once(repo, config):
    listed = list(entries(config["website"]["sidebar"]["contents"]))
    present = {str(p.relative_to(repo / "nbs")) for p in (repo / "nbs").rglob("*.ipynb")}
    assert sorted(listed) == sorted(present)


def pandoc(markdown: str) -> dict:
    run = subprocess.run(
        [pypandoc.get_pandoc_path(), "-f", "markdown", "-t", "json"],
        input=markdown,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not run.stderr.strip(), f"pandoc says: {run.stderr.strip()}"
    return json.loads(run.stdout)


def targets(tree):
    "Link and image targets anywhere in a pandoc tree."
    if isinstance(tree, dict):
        if tree.get("t") in ("Link", "Image"):
            yield tree["c"][2][0]
        yield from (t for value in tree.values() for t in targets(value))
    elif isinstance(tree, list):
        yield from (t for value in tree for t in targets(value))


def headings(tree) -> set[str]:
    "What a link may name after #."
    return {block["c"][1][0] for block in tree["blocks"] if block["t"] == "Header"}


def page_at(path: Path) -> Path | None:
    "The notebook of a page; nbdev drops the number prefix from a page's name."
    if path.suffix not in (".ipynb", ".html"):
        return None
    named = {re.sub(r"^\d+[a-z]?_", "", p.stem): p for p in path.parent.glob("*.ipynb")}
    exact = path.with_suffix(".ipynb")
    return exact if exact.exists() else named.get(path.stem)


def test_pages_have_no_broken_links_or_markup(proc):
    proc = proc.resolve()
    pages = sorted(proc.rglob("*.ipynb"))
    assert pages
    problems, known, named = [], {}, []
    for page in pages:
        nb = json.loads(page.read_text())
        text = "\n\n".join(
            "".join(c["source"]) for c in nb["cells"] if c["cell_type"] in ("markdown", "raw")
        )
        text = re.sub(r"^---\n.*?\n---\n", "", text, count=1, flags=re.S)  # front matter
        labels = set(re.findall(r"\{#((?:fig|tbl|eq|sec)-[\w-]+)", text))
        for reference in re.findall(r"(?<![\w`])@((?:fig|tbl|eq|sec)-[\w-]+)", text):
            if reference not in labels:
                problems.append(f"{page.name}: @{reference} has no label")
        if "{{<" in re.sub(r"`[^`]*`", "", text):
            problems.append(f"{page.name}: a shortcode is left")
        try:
            tree = pandoc(text)
        except AssertionError as error:
            problems.append(f"{page.name}: {error}")
            continue
        known[page] = headings(tree)
        for link in targets(tree):
            if re.match(r"(https?:|mailto:|data:)", link):
                continue
            file, _, anchor = unquote(link).partition("#")
            ours = not file.startswith("/")  # nbdev's own links start at the root of the site
            path = (page.parent / file).resolve() if ours else proc / file[1:]
            target = page_at(path) if file else page
            if target is None and not path.exists():
                problems.append(f"{page.relative_to(proc)}: {link} does not exist")
            if target and anchor and ours:
                named.append((page, link, target, anchor))
    for page, link, target, anchor in named:
        if anchor not in known.get(target, {anchor}):
            problems.append(f"{page.relative_to(proc)}: {link} has no such heading")
    assert not problems, "\n".join(problems)


def test_every_lesson_has_a_stored_output(repo):
    "The site shows what is stored; a lesson without a single output would be an empty page."
    for notebook in sorted((repo / "nbs").rglob("[0-9]*.ipynb")):
        nb = nbformat.read(notebook, as_version=4)
        assert any(c.get("outputs") for c in nb.cells if c.cell_type == "code"), notebook
