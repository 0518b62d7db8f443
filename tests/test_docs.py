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


def test_pages_have_no_broken_links_or_markup(proc):
    pages = sorted(proc.rglob("*.ipynb"))
    assert pages
    problems = []
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
            links = list(targets(pandoc(text)))
        except AssertionError as error:
            problems.append(f"{page.name}: {error}")
            continue
        for link in links:
            if re.match(r"(https?:|mailto:|#|data:)", link):
                continue
            file = unquote(link.split("#")[0])  # nbdev's own links start at the root of the site
            path = proc / file[1:] if file.startswith("/") else (page.parent / file).resolve()
            page_of = path.with_suffix(".ipynb") if path.suffix == ".html" else path
            # nbdev drops the number prefix from a page's name
            stems = {re.sub(r"^\d+[a-z]?_", "", p.stem) for p in page_of.parent.glob("*.ipynb")}
            if not (path.exists() or page_of.exists() or page_of.stem in stems):
                problems.append(f"{page.relative_to(proc)}: {link} does not exist")
    assert not problems, "\n".join(problems)


def test_stored_outputs_are_what_the_site_shows(repo):
    "A lesson without a single stored output would be an empty page."
    for notebook in sorted((repo / "nbs").rglob("[0-9]*.ipynb")):
        nb = nbformat.read(notebook, as_version=4)
        assert any(c.get("outputs") for c in nb.cells if c.cell_type == "code"), notebook
