"""Fixtures of the browser tests: one server and one Chromium per session, a fresh page per test."""

import os

import lab
import pytest


def pytest_collection_modifyitems(items):
    if os.environ.get("BROWSER") == "skip":
        for item in items:
            if item.get_closest_marker("browser"):
                item.add_marker(pytest.mark.skip(reason="BROWSER=skip"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    item.stash.setdefault(FAILED, False)
    item.stash[FAILED] |= report.failed
    return report


FAILED = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def chromium():
    browser, missing = lab.Chromium(), None
    try:
        browser.__enter__()
    except lab.Missing as error:
        missing = str(error)
    if missing:  # outside the except, so that this is all one gets to read
        pytest.fail(missing, pytrace=False)
    yield browser
    browser.__exit__(None, None, None)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with lab.Server(tmp_path_factory.mktemp("jupyter")) as running:
        yield running


@pytest.fixture
def open_notebook(chromium, server, request):
    """open_notebook(cells or path, **options of Chromium.open): every page is checked at the end
    for console errors and requests to other machines."""
    opened = []

    def open_(cells, **options):
        opened.append(chromium.open(server, cells, **options))
        return opened[-1]

    yield open_
    failed = request.node.stash.get(FAILED, False)
    for i, notebook in enumerate(opened):
        if failed:
            notebook.screenshot(f"failed-{request.node.name}-{i}".replace("/", "_"))
        notebook.shutdown()
    if not failed:
        for notebook in opened:
            notebook.check_clean()


@pytest.fixture
def open_page(chromium):
    """open_page(path, **context options): checks at the end that nothing was asked for and nothing went wrong."""
    problems, contexts = [], []

    def open_(path, **options):
        context = chromium.browser.new_context(**options)
        contexts.append(context)
        context.set_offline(True)
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "request",
            lambda r: (
                None if r.url.startswith(("file:", "blob:", "data:")) else problems.append(r.url)
            ),
        )
        page.goto(path.as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert problems == []
