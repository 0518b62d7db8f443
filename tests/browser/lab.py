"""A real Jupyter server, a real Chromium, and a notebook page to drive: for tests and benchmarks.

    with Server(folder) as server, Chromium() as chromium:
        notebook = chromium.open(server, ["print('hello')"])
        notebook.run(0)
        assert notebook.output(0) == "hello"

Nothing here knows our widgets. The settings of the user are not touched (HOME and JUPYTER_* point
into `folder`), nothing outside this machine is asked for, and nothing outlives the process: the
server dies with it, kernels with the server, Chromium with Playwright's driver.
"""

import ast
import contextlib
import ctypes
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import psutil
from playwright.sync_api import Error, Page, TimeoutError, sync_playwright

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--mute-audio"),
]
FOREIGN = re.compile(r"^(https?|wss?)://(?!127\.0\.0\.1[:/])")
NARROW, WIDE = (640, 900), (1280, 1000)  # px
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}

# Runs in every page before its own scripts: when was what clicked, what did an attribute read when?
RECORDER = """
window.lab = {clicks: [], seen: [], now: () => performance.timeOrigin + performance.now()};
addEventListener('click', e => lab.clicks.push(lab.now()), true);
lab.watch = (node, name) => {
  const see = () => {
    const value = node.getAttribute(name), last = lab.seen.at(-1);
    if (!last || last[1] !== value) lab.seen.push([lab.now() / 1000, value]);
  };
  lab.seen = []; see();
  new MutationObserver(see).observe(node, {attributes: true, attributeFilter: [name]});
};
lab.panel = () => window.jupyterapp?.shell.currentWidget;
lab.kernel = () => lab.panel()?.sessionContext?.session?.kernel;
lab.tracebacks = () => lab.panel().content.widgets.flatMap(cell =>
  (cell.model.outputs?.toJSON() ?? []).filter(output => output.output_type === 'error')
    .map(output => `${output.ename}: ${output.evalue}`));
lab.ask = async (code, expressions, seconds) => {  // a lost request is sent again: ipykernel#1554
  for (let sent = 0; sent < 5; sent++) {
    const future = lab.kernel().requestExecute(
      {code, silent: true, store_history: false, user_expressions: expressions});
    const late = new Promise(done => setTimeout(done, seconds * 1000));
    const reply = await Promise.race([future.done, late]);
    if (reply) return reply.content;
  }
  throw new Error('the kernel does not answer');
};
"""


class Missing(RuntimeError):
    """Something this machine would need is not there; the message says what to install."""


def find_chromium(playwright) -> str:
    """Path of a Chromium: $CHROMIUM, then PATH, then Playwright's own. Raises Missing."""
    if asked := os.environ.get("CHROMIUM"):
        if found := shutil.which(asked):
            return found
        raise Missing(f"CHROMIUM={asked} cannot be run; give the path of a Chromium or Chrome.")
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if found := shutil.which(name):
            return found
    if Path(playwright.chromium.executable_path).exists():
        return playwright.chromium.executable_path
    raise Missing(
        "The browser tests found no Chromium. Install one (`apt-get install chromium` or "
        "`playwright install chromium`), name it in CHROMIUM, or skip them with BROWSER=skip."
    )


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _die_with_parent() -> None:
    """Linux kills this child when its parent is gone, however that went; kernels then follow:
    ipykernel looks once a second whether its server is there. (On SIGTERM a server can hang.)"""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 = PR_SET_PDEATHSIG


class Server:
    """A Jupyter server in its own home: `app` is "lab" or "notebook"; kernels get `env` as well."""

    def __init__(self, folder: Path, app: str = "lab", env: dict[str, str] | None = None):
        self.app, self.token, self.port = app, secrets.token_hex(8), _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.home, self.root = Path(folder) / f"home-{app}", Path(folder) / f"work-{app}"
        self.root.mkdir(parents=True, exist_ok=True)
        config = self.home / "config"
        self._write(
            config / "labconfig/page_config.json",
            {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}},
        )
        ours = (
            "JUPYTER",
            "JPY_",
            "NENYA_NB_",
            "IN_TEST",
            "MPLBACKEND",
        )  # a student has none of these set
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        self.env |= {
            "HOME": str(self.home),
            "JUPYTER_CONFIG_DIR": str(config),
            "JUPYTER_DATA_DIR": str(self.home / "data"),
            "JUPYTER_RUNTIME_DIR": str(self.home / "runtime"),
            "IPYTHONDIR": str(self.home / "ipython"),
            "OMP_NUM_THREADS": "1",  # torch in the kernels: one thread, as on a shared machine
            "PYTHONWARNINGS": "ignore::DeprecationWarning",
            **(env or {}),
        }

    @staticmethod
    def _write(path: Path, value: dict) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))

    def add_kernel(self, name: str, **env: str) -> str:
        """Adds a kernelspec that runs this Python with `env` added. Returns `name`."""
        spec = {
            "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": name,
            "language": "python",
            "env": env,
        }
        self._write(self.home / "data/kernels" / name / "kernel.json", spec)
        return name

    def __enter__(self) -> "Server":
        trait = {"lab": "LabApp", "notebook": "JupyterNotebookApp"}[self.app]
        command = [sys.executable, "-m", "jupyter", self.app, "--no-browser", "--allow-root"]
        command += ["--ip=127.0.0.1", f"--port={self.port}", "--ServerApp.port_retries=0"]
        command += [f"--IdentityProvider.token={self.token}", f"--ServerApp.root_dir={self.root}"]
        command += [f"--{trait}.expose_app_in_browser=True", "--ServerApp.log_level=WARN"]
        self.log = self.home / "server.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.root,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal is for pytest, which closes us
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        try:
            self._wait_until_up()
        except BaseException:
            self.close()
            raise
        return self

    def _wait_until_up(self, timeout_s: float = 90) -> None:
        limit = time.monotonic() + timeout_s
        while time.monotonic() < limit:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError):
                return self.rest("GET", "status")
            time.sleep(0.2)
        raise RuntimeError(f"jupyter {self.app} did not come up:\n{self.log.read_text()[-3000:]}")

    def rest(self, method: str, path: str):
        """The answer (parsed JSON or None) of the server's REST interface at api/`path`."""
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.url}/api/{path}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=20) as response:
            body = response.read()
        return json.loads(body) if body else None

    def shutdown_kernels(self) -> None:
        for session in self.rest("GET", "sessions"):
            with contextlib.suppress(OSError):  # gone in the meantime
                self.rest("DELETE", f"sessions/{session['id']}")

    def close(self) -> None:
        """Stops the server and everything it started, politely first."""
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(self.process.pid).children(recursive=True)
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(15)
            for child in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()  # psutil checks that the id was not given to somebody else
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(5)

    def __exit__(self, *_) -> None:
        self.close()


class Chromium:
    """One browser; every `open` makes a fresh context (no cookies, no cache, no workspace)."""

    def __enter__(self) -> "Chromium":
        self._playwright = sync_playwright().start()
        try:
            path = find_chromium(self._playwright)
            self.browser = self._playwright.chromium.launch(executable_path=path, args=FLAGS)
        except BaseException:
            self._playwright.stop()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.browser.close()
        self._playwright.stop()

    def open(
        self,
        server: Server,
        cells: "list[str] | Path",  # sources of code cells, or a notebook file (it is copied)
        kernel: str = "python3",
        size: tuple[int, int] = WIDE,
    ) -> "Notebook":
        name = f"n{secrets.token_hex(4)}.ipynb"
        if isinstance(cells, list):
            book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
        else:
            book = nbformat.read(cells, 4)
        book.metadata["kernelspec"] = {
            "name": kernel, "display_name": kernel, "language": "python"
        }  # fmt: skip
        nbformat.write(book, server.root / name)
        context = self.browser.new_context(viewport={"width": size[0], "height": size[1]})
        return Notebook(context, server, name)


class Notebook:
    """A notebook page. Cells are counted over all cells of the file, from 0.

    `errors` (console errors and uncaught exceptions) and `foreign` (requests to other machines,
    all aborted) fill up while it lives; `check_clean` wants both empty."""

    def __init__(self, context, server: Server, name: str):
        self.context, self.server, self.name = context, server, name
        self.errors, self.foreign = [], []
        context.add_init_script(RECORDER)
        context.route(FOREIGN, self._refuse)
        self.page: Page = context.new_page()
        self.page.set_default_timeout(30_000)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        self.page.on("websocket", lambda w: FOREIGN.match(w.url) and self.foreign.append(w.url))
        self._goto("?reset&" if server.app == "lab" else "?")

    def _refuse(self, route) -> None:
        self.foreign.append(route.request.url)
        route.abort()

    def _console(self, message) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def _goto(self, query: str, wait_kernel: bool = True) -> None:
        folder = "doc/tree" if self.server.app == "lab" else "notebooks"
        url = f"{self.server.url}/{folder}/{self.name}{query}token={self.server.token}"
        self.page.goto(url, wait_until="domcontentloaded")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        self.page.wait_for_function("() => lab.kernel()?.connectionStatus === 'connected'")
        if wait_kernel:
            self.wait_kernel()

    # -- kernel ------------------------------------------------------------------------------
    def wait_kernel(self, timeout_s: float = 60) -> None:
        """Until the kernel is idle and has answered a first request (re-sent if it was lost)."""
        limit = timeout_s * 1000
        self.page.wait_for_function("() => lab.kernel()?.status === 'idle'", timeout=limit)
        self.page.evaluate("() => lab.kernel().info.then(() => 0)")
        self.page.evaluate("() => lab.ask('', {}, 3).then(() => 0)")

    def value(self, expression: str, timeout_s: float = 20):
        """The value of a Python `expression` (a literal by its repr) in the idle kernel."""
        ask = "([e, s]) => lab.ask('', {value: e}, s).then(c => c.user_expressions.value)"
        reply = self.page.evaluate(ask, [expression, timeout_s])
        if reply["status"] != "ok":
            raise RuntimeError(f"{expression}: {reply['ename']}: {reply['evalue']}")
        text = reply["data"]["text/plain"]
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return text

    def command(self, name: str, args: dict | None = None) -> None:
        """Starts a command of the application; does not wait for its end."""
        self.page.evaluate("([n, a]) => void jupyterapp.commands.execute(n, a)", [name, args or {}])

    def interrupt(self) -> None:
        """What the ■ of the toolbar does."""
        self.command("notebook:interrupt-kernel")

    def restart_kernel(self) -> None:
        self.command("notebook:restart-kernel")
        self.page.click(".jp-Dialog .jp-mod-accept")
        self.page.wait_for_function("() => lab.kernel().status === 'restarting'")
        self.wait_kernel()

    def reload(self, save: bool = True, wait_kernel: bool = True) -> None:
        """Loads the page again, as F5 does; `wait_kernel=False` while a cell is running."""
        if save:
            self.page.evaluate("() => lab.panel().context.save()")
        self._goto("?", wait_kernel)

    # -- cells -------------------------------------------------------------------------------
    def cell(self, i: int):
        return self.page.locator(".jp-Notebook .jp-Cell").nth(i)

    def run(self, i: int, wait_s: float = 0) -> None:
        """Runs cell `i` as Ctrl-Enter does; waits for its end for at most `wait_s`, 0 = not."""
        self.page.evaluate(
            """i => { lab.panel().content.activeCellIndex = i;
                      void jupyterapp.commands.execute('notebook:run-cell'); }""",
            i,
        )
        if wait_s:
            self.wait_done(i, wait_s)

    def run_all(self, wait_s: float = 0) -> None:
        self.command("notebook:run-all-cells")
        if wait_s:
            last = "() => lab.panel().content.widgets.findLastIndex(c => c.model.type === 'code')"
            self.wait_done(self.page.evaluate(last), wait_s)

    def prompt(self, i: int) -> str:
        """ "[ ]:" not run, "[*]:" waiting or running, "[3]:" done."""
        node = "i => lab.panel().content.widgets[i].node.querySelector('.jp-InputPrompt')"
        return self.page.evaluate(f"i => ({node})(i).textContent", i)

    def wait_done(self, i: int, timeout_s: float = 60) -> None:
        done = """i => /\\d/.test(lab.panel().content.widgets[i].node
                                  .querySelector('.jp-InputPrompt').textContent)"""
        self.page.wait_for_function(done, arg=i, timeout=timeout_s * 1000, polling=50)

    def output(self, i: int) -> str:
        """The text that cell `i` has put out (its source does not count)."""
        return "\n".join(self.cell(i).locator(".jp-OutputArea-output").all_inner_texts()).strip()

    def wait_output(self, i: int, text: str, timeout_s: float = 30) -> None:
        found = self.cell(i).locator(".jp-OutputArea-output", has_text=text).first
        found.wait_for(state="attached", timeout=timeout_s * 1000)

    def tracebacks(self) -> list[str]:
        """Name and text of the exceptions that cells have ended with."""
        return self.page.evaluate("() => lab.tracebacks()")

    # -- what is drawn -----------------------------------------------------------------------
    def run_widget(self, selector: str, wait_s: float = 180) -> None:
        """Runs all cells and waits until the widget that they show is drawn and in sight."""
        self.run_all(wait_s)
        self.wait(f"{selector}[data-ready]")
        self.show(selector)

    def wait(self, selector: str, timeout_s: float = 30):
        """The first element that matches, once it is there; an exception of a cell ends the wait."""
        limit, found = time.monotonic() + timeout_s, self.page.locator(selector).first
        while True:
            with contextlib.suppress(TimeoutError):
                found.wait_for(state="attached", timeout=1000)
                return found
            if raised := self.tracebacks():
                raise AssertionError(f"waiting for {selector}, but cells raised {raised}")
            if time.monotonic() > limit:
                raise AssertionError(f"waited {timeout_s} s for {selector}")

    def data(self, selector: str, name: str) -> str | None:
        return self.page.locator(selector).first.get_attribute(f"data-{name}")

    def wait_data(self, selector: str, name: str, test: str, timeout_s: float = 30) -> str:
        """`wait_data` on this page."""
        return wait_data(self.page, selector, name, test, timeout_s)

    def watch(self, selector: str, name: str) -> None:
        """Records from now on every change of data-`name`; read it with `seen`."""
        self.wait(selector)
        self.page.evaluate(
            "([s, a]) => lab.watch(document.querySelector(s), a)", [selector, f"data-{name}"]
        )

    def seen(self) -> list[tuple[float, str]]:
        """(time in s since 1970, value) at every change since `watch`."""
        return [tuple(row) for row in self.page.evaluate("() => lab.seen")]

    def click(self, selector: str) -> float:
        """Clicks like a user; returns the browser's time of the click, s since 1970."""
        self.page.locator(selector).first.click()
        return self.page.evaluate("() => lab.clicks.at(-1)") / 1000

    def ink(self, selector: str) -> int:
        """How many pixels of the canvases in `selector` are not transparent."""
        return self.page.evaluate(
            """s => { let ink = 0;
              for (const c of document.querySelectorAll(`${s} canvas`)) {
                if (!c.width || !c.height) continue;
                const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
                for (let i = 3; i < d.length; i += 4) ink += d[i] > 0;
              } return ink; }""",
            selector,
        )

    def show(self, selector: str) -> None:
        """Scrolls the first element that matches into view; widgets may rest while out of sight."""
        self.page.locator(selector).first.scroll_into_view_if_needed()

    def theme(self, name: str) -> None:
        """Changes to "light" or "dark" (does nothing where it is so already)."""
        light = str(name == "light").lower()
        if self.page.locator(f"body[data-jp-theme-light={light}]").count():
            return
        self.command("apputils:change-theme", {"theme": THEMES[name]})
        self.page.wait_for_selector(f"body[data-jp-theme-light={light}]", state="attached")
        self.page.wait_for_timeout(300)

    def resize(self, size: tuple[int, int]) -> None:
        self.page.set_viewport_size({"width": size[0], "height": size[1]})
        self.page.wait_for_timeout(300)

    def screenshot(self, name: str, selector: str | None = None) -> Path:
        path = Path(__file__).parent / "screenshots" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        if selector:
            self.show(selector)
        self.page.screenshot(path=path)
        return path

    def screenshots(self, name: str, selector: str) -> None:
        """Both themes, wide and narrow; what is shown must never be wider than the window."""
        for theme in THEMES:
            self.theme(theme)
            for width, size in {"wide": WIDE, "narrow": NARROW}.items():
                self.resize(size)
                self.screenshot(f"{name}-{theme}-{width}", selector)
                assert self.page.locator(selector).first.bounding_box()["width"] <= size[0]

    # -- end ---------------------------------------------------------------------------------
    def check_clean(self) -> None:
        assert not self.errors, "errors in the browser's console:\n" + "\n".join(self.errors)
        assert not self.foreign, "requests left this machine:\n" + "\n".join(self.foreign)

    def shutdown(self) -> None:
        with contextlib.suppress(Error):
            self.theme("light")  # the server remembers it
        with contextlib.suppress(Error):
            self.context.close()
        self.server.shutdown_kernels()


def becomes(nb: "Notebook", expression: str, wanted) -> bool:
    """Waits until the kernel has heard: what the page sends arrives a moment later."""
    for _ in range(50):
        if (value := nb.value(expression)) == wanted:
            return True
        nb.page.wait_for_timeout(100)
    raise AssertionError(f"{expression} is {value!r}, not {wanted!r}")


def wait_data(page: Page, selector: str, name: str, test: str, timeout_s: float = 30) -> str:
    """Until data-`name` passes `test`, JavaScript in v (text) and n (number): "n >= 20"."""
    page.wait_for_function(
        f"""([s, a]) => {{ const v = document.querySelector(s)?.getAttribute(a),
                                 n = Number(v); return v !== null && ({test}); }}""",
        arg=[selector, f"data-{name}"],
        timeout=timeout_s * 1000,
        polling=50,
    )
    return page.locator(selector).first.get_attribute(f"data-{name}")


def click_cell(page: Page, selector: str, cell: tuple[int, int], grid: tuple[int, int]) -> None:
    """Clicks into the middle of one cell (row, column) of a picture of `grid` rows and columns."""
    box = page.locator(selector).bounding_box()
    (row, column), (rows, columns) = cell, grid
    place = {"x": (column + 0.5) * box["width"] / columns, "y": (row + 0.5) * box["height"] / rows}
    page.locator(selector).click(position=place)


def fits(page: Page) -> bool:
    """Whether nothing must be scrolled sideways to be seen."""
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def nameless(page: Page, selector: str) -> list[str]:
    """Buttons, fields and menus in `selector` for which a screen reader has no name."""
    return page.evaluate(
        """s => [...document.querySelectorAll(`${s} :is(button, input, select)`)]
          .filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() || e.closest('label')))
          .map(e => e.outerHTML.slice(0, 80))""",
        selector,
    )


def run_here(source: str) -> dict:
    """The variables that a cell leaves behind when it runs in this process."""
    scope = {}
    exec(source, scope)
    return scope
